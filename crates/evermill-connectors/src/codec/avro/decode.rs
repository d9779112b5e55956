//! Reads a binary value along its schema and writes JSON, without anything in between.

use base64::Engine as _;

use super::logical;
use super::schema::{Schema, Type};
use crate::limits;

/// Appends the JSON of a value.
pub(super) fn decode(schema: &Schema, value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut reader = Reader {
        schema,
        rest: value,
        out_max: out.len() + limits::DECODED_BYTES_MAX,
        out,
        depth: 0,
    };
    let read = reader
        .value(schema.root())
        .and_then(|()| match reader.rest.len() {
            0 => Ok(()),
            more => Err(fault(format!("{more} bytes more than the schema has"))),
        });
    read.map_err(|fault| {
        let place: String = fault
            .path
            .iter()
            .rev()
            .map(|step| format!("/{step}"))
            .collect();
        let place = if place.is_empty() { "the top" } else { &place };
        format!("{} at {place}", fault.what)
    })
}

/// What is wrong, and where: the innermost step first.
pub(super) struct Fault {
    what: String,
    path: Vec<String>,
}

pub(super) fn fault(what: String) -> Box<Fault> {
    let path = Vec::new();
    Box::new(Fault { what, path })
}

type Read<T> = Result<T, Box<Fault>>;

struct Reader<'a> {
    schema: &'a Schema,
    rest: &'a [u8],
    out: &'a mut Vec<u8>,
    out_max: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, of: usize) -> Read<()> {
        if self.out.len() > self.out_max {
            let most = limits::DECODED_BYTES_MAX;
            return Err(fault(format!("its JSON has more than {most} bytes")));
        }
        match self.schema.of(of) {
            Type::Null => self.write("null"),
            Type::Boolean => match self.byte("a boolean")? {
                0 => self.write("false"),
                1 => self.write("true"),
                other => {
                    return Err(fault(format!(
                        "the byte {other:02x} where a boolean is expected"
                    )));
                }
            },
            Type::Int => {
                let number = self.int()?;
                self.write(&number.to_string());
            }
            Type::Long => {
                let number = self.long("a long")?;
                self.write(&number.to_string());
            }
            Type::Float => {
                let bytes = self.take(4, "a float")?;
                let number = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                self.number(f64::from(number), serde_json::to_string(&number));
            }
            Type::Double => {
                let bytes = self.take(8, "a double")?;
                let mut eight = [0; 8];
                eight.copy_from_slice(bytes);
                let number = f64::from_le_bytes(eight);
                self.number(number, serde_json::to_string(&number));
            }
            Type::Bytes => {
                let bytes = self.bytes("bytes")?;
                self.base64(bytes)?;
            }
            Type::Fixed(size) => {
                let bytes = self.take(*size, "a fixed")?;
                self.base64(bytes)?;
            }
            Type::Text => {
                let text = self.text()?;
                self.quoted(text);
            }
            Type::Enum(words) => {
                let index = self.long("an enum")?;
                let word = usize::try_from(index)
                    .ok()
                    .and_then(|index| words.get(index));
                let word = word.ok_or_else(|| {
                    fault(format!("{index} where an enum has {} words", words.len()))
                })?;
                self.write(word);
            }
            Type::Union(options) => {
                let index = self.long("a union")?;
                let option = usize::try_from(index)
                    .ok()
                    .and_then(|index| options.get(index));
                let option = option.ok_or_else(|| {
                    fault(format!(
                        "{index} where a union has {} branches",
                        options.len()
                    ))
                })?;
                self.descend(|reader| reader.value(*option))?;
            }
            Type::Record(fields) => {
                self.write("{");
                for (index, field) in fields.iter().enumerate() {
                    self.write(if index == 0 { "" } else { "," });
                    self.write(&field.key);
                    self.descend(|reader| reader.value(field.of))
                        .map_err(|fault| fault.within(&field.name))?;
                }
                self.write("}");
            }
            Type::Array(items) => self.array(*items)?,
            Type::Map(values) => self.map(*values)?,
            logical => self.logical(logical)?,
        }
        Ok(())
    }

    fn logical(&mut self, of: &Type) -> Read<()> {
        let text = match of {
            Type::Date => logical::date(self.int()?)?,
            Type::Time(digits @ super::schema::Digits::Milli) => {
                logical::time(self.int()?.into(), *digits)?
            }
            Type::Time(digits) => logical::time(self.long("a time")?, *digits)?,
            Type::Timestamp(digits, zone) => {
                logical::timestamp(self.long("a timestamp")?, *digits, *zone)?
            }
            Type::Decimal(scale, size) => {
                let bytes = match size {
                    Some(size) => self.take(*size, "a decimal")?,
                    None => self.bytes("a decimal")?,
                };
                logical::decimal(bytes, *scale)?
            }
            Type::Uuid => logical::uuid(self.take(16, "a uuid")?),
            Type::Duration => {
                let duration = logical::duration(self.take(12, "a duration")?);
                self.write(&duration);
                return Ok(());
            }
            _ => return Err(fault("a type that is not logical".to_owned())),
        };
        self.quoted(&text);
        Ok(())
    }

    fn array(&mut self, items: usize) -> Read<()> {
        self.write("[");
        let mut index = 0_u64;
        self.blocks("an array", |reader| {
            reader.write(if index == 0 { "" } else { "," });
            reader
                .descend(|reader| reader.value(items))
                .map_err(|fault| fault.within(&index.to_string()))?;
            index += 1;
            Ok(())
        })?;
        self.write("]");
        Ok(())
    }

    fn map(&mut self, values: usize) -> Read<()> {
        self.write("{");
        let mut names: Vec<&'a str> = Vec::new();
        self.blocks("a map", |reader| {
            let name = reader.text()?;
            reader.write(if names.is_empty() { "" } else { "," });
            names.push(name);
            reader.quoted(name);
            reader.write(":");
            reader
                .descend(|reader| reader.value(values))
                .map_err(|fault| fault.within(name))
        })?;
        names.sort_unstable();
        if let Some(two) = names.windows(2).find(|two| two[0] == two[1]) {
            return Err(fault(format!(
                "the name \"{}\" stands twice in one map",
                two[0]
            )));
        }
        self.write("}");
        Ok(())
    }

    /// Items come in blocks; the last one is empty.
    fn blocks(&mut self, what: &str, mut each: impl FnMut(&mut Self) -> Read<()>) -> Read<()> {
        loop {
            let mut count = self.long(what)?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The bytes of the block follow, for those who skip it.
                self.long(what)?;
                count = count.saturating_neg();
            }
            for _ in 0..count {
                each(self)?;
            }
        }
    }

    fn descend(&mut self, inside: impl FnOnce(&mut Self) -> Read<()>) -> Read<()> {
        if self.depth == limits::AVRO_DEPTH_MAX {
            return Err(fault(format!(
                "more than {} values in each other",
                self.depth
            )));
        }
        self.depth += 1;
        let read = inside(self);
        self.depth -= 1;
        read
    }

    // What values are made of.

    fn take(&mut self, size: usize, what: &str) -> Read<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(size) else {
            let left = self.rest.len();
            return Err(fault(format!(
                "{left} bytes left where {what} needs {size}"
            )));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self, what: &str) -> Read<u8> {
        Ok(self.take(1, what)?[0])
    }

    fn int(&mut self) -> Read<i32> {
        let number = self.long("an int")?;
        i32::try_from(number).map_err(|_| fault(format!("{number} where an int is expected")))
    }

    /// Zig-zag, seven bits a byte.
    fn long(&mut self, what: &str) -> Read<i64> {
        let mut bits = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            bits |= part << shift;
            if byte & 0x80 == 0 {
                return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
        }
        Err(fault(format!(
            "a number of more than 64 bits where {what} is expected"
        )))
    }

    fn bytes(&mut self, what: &str) -> Read<&'a [u8]> {
        let length = self.long(what)?;
        let length =
            usize::try_from(length).map_err(|_| fault(format!("{what} of {length} bytes")))?;
        self.take(length, what)
    }

    fn text(&mut self) -> Read<&'a str> {
        let bytes = self.bytes("a string")?;
        std::str::from_utf8(bytes).map_err(|cause| {
            let at = cause.valid_up_to();
            let found = crate::codec::excerpt::bytes(bytes, at);
            fault(format!(
                "a string that is not UTF-8 (bytes {found} at its byte {at})"
            ))
        })
    }

    // What is written.

    fn write(&mut self, json: &str) {
        self.out.extend_from_slice(json.as_bytes());
    }

    fn quoted(&mut self, text: &str) {
        serde_json::to_writer(&mut *self.out, text).expect("a Vec takes everything");
    }

    fn base64(&mut self, bytes: &[u8]) -> Read<()> {
        if bytes.len() > limits::DECODED_BYTES_MAX {
            return Err(fault(format!("{} bytes, which is too much", bytes.len())));
        }
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        self.quoted(&text);
        Ok(())
    }

    fn number(&mut self, number: f64, json: serde_json::Result<String>) {
        if number.is_nan() {
            self.write("\"NaN\"");
        } else if number.is_infinite() {
            self.write(if number > 0.0 {
                "\"Infinity\""
            } else {
                "\"-Infinity\""
            });
        } else {
            self.write(&json.expect("a finite number is JSON"));
        }
    }
}

impl Fault {
    /// Seen from outside.
    fn within(mut self: Box<Self>, step: &str) -> Box<Self> {
        self.path.push(step.replace('~', "~0").replace('/', "~1"));
        self
    }
}
