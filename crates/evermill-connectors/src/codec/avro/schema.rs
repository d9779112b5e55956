//! An Avro schema, read once: its types in a list, so that a type may refer to itself.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::limits;

/// A schema.
#[derive(Debug)]
pub(in crate::codec) struct Schema {
    types: Vec<Type>,
    root: usize,
}

/// A type; others by their place in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    /// Its words, as JSON.
    Enum(Vec<String>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<Field>),
    Date,
    Time(Digits),
    Timestamp(Digits, Zone),
    /// Scale, and the size of its bytes where that is fixed.
    Decimal(u32, Option<usize>),
    /// In 16 bytes.
    Uuid,
    /// In 12 bytes.
    Duration,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    /// `"name":`, as JSON.
    pub(super) key: String,
    pub(super) of: usize,
}

/// Digits of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digits {
    Milli,
    Micro,
    Nano,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    Utc,
    Local,
}

impl Schema {
    /// Reads a schema; `before` are those it may refer to by name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::codec) fn parse(schema: &Value, before: &[Value]) -> Result<Self, String> {
        let mut reader = Reader::default();
        for other in before {
            reader.read(other, "")?;
        }
        let root = reader.read(schema, "")?;
        Ok(Self {
            types: reader.types,
            root,
        })
    }

    pub(super) const fn root(&self) -> usize {
        self.root
    }

    pub(super) fn of(&self, place: usize) -> &Type {
        &self.types[place]
    }
}

#[derive(Default)]
struct Reader {
    types: Vec<Type>,
    /// Named types, by their full names.
    names: BTreeMap<String, usize>,
    depth: usize,
}

impl Reader {
    fn read(&mut self, schema: &Value, space: &str) -> Result<usize, String> {
        self.depth += 1;
        if self.depth > limits::AVRO_DEPTH_MAX {
            return Err(format!(
                "more than {} types in each other",
                limits::AVRO_DEPTH_MAX
            ));
        }
        let read = match schema {
            Value::String(name) => self.named(name, space),
            Value::Array(options) => {
                let options = options.iter().map(|option| self.read(option, space));
                let options = options.collect::<Result<Vec<_>, _>>()?;
                self.add(Type::Union(options))
            }
            Value::Object(fields) => self.complex(fields, space),
            other => Err(format!("{other} is no Avro schema")),
        };
        self.depth -= 1;
        read
    }

    fn add(&mut self, new: Type) -> Result<usize, String> {
        if self.types.len() >= limits::AVRO_TYPES_MAX {
            return Err(format!("more than {} types", limits::AVRO_TYPES_MAX));
        }
        self.types.push(new);
        Ok(self.types.len() - 1)
    }

    fn named(&mut self, name: &str, space: &str) -> Result<usize, String> {
        if let Some(plain) = plain(name) {
            return self.add(plain);
        }
        let known = self
            .names
            .get(&full(name, space))
            .or_else(|| self.names.get(name));
        known
            .copied()
            .ok_or_else(|| format!("'{name}' is no type of Avro and none of this schema"))
    }

    fn complex(&mut self, fields: &Map<String, Value>, space: &str) -> Result<usize, String> {
        let sort = fields.get("type").ok_or("a type without \"type\"")?;
        let Value::String(sort) = sort else {
            // {"type": {"type": ...}}, as some tools write it.
            return self.read(sort, space);
        };
        match sort.as_str() {
            "record" | "error" => self.record(fields, space),
            "enum" => {
                let words = list(fields, "symbols")?.iter().map(|word| {
                    let word = word.as_str().ok_or("a symbol that is no text")?;
                    Ok::<_, String>(Value::from(word).to_string())
                });
                let words = words.collect::<Result<Vec<_>, _>>()?;
                let (name, _) = name(fields, space)?;
                let place = self.add(Type::Enum(words))?;
                self.remember(name, place)
            }
            "fixed" => {
                let size = fields.get("size").and_then(Value::as_u64);
                let size = size.ok_or("a fixed without a size")? as usize;
                let (name, _) = name(fields, space)?;
                let place = self.add(fixed(fields, size))?;
                self.remember(name, place)
            }
            "array" => {
                let items = fields.get("items").ok_or("an array without items")?;
                let items = self.read(items, space)?;
                self.add(Type::Array(items))
            }
            "map" => {
                let values = fields.get("values").ok_or("a map without values")?;
                let values = self.read(values, space)?;
                self.add(Type::Map(values))
            }
            other => match plain(other) {
                Some(plain) => self.add(logical(fields, plain)),
                None => self.named(other, space),
            },
        }
    }

    fn record(&mut self, fields: &Map<String, Value>, space: &str) -> Result<usize, String> {
        let (full_name, space) = name(fields, space)?;
        // Its fields may speak of it.
        let place = self.add(Type::Record(Vec::new()))?;
        self.remember(full_name.clone(), place)?;
        let mut read: Vec<Field> = Vec::new();
        for field in list(fields, "fields")? {
            let name = field.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| format!("{full_name} has a field without a name"))?;
            if read.iter().any(|other| other.name == name) {
                return Err(format!("{full_name} has two fields '{name}'"));
            }
            let of = field
                .get("type")
                .ok_or_else(|| format!("{full_name}.{name} has no type"))?;
            let of = self
                .read(of, &space)
                .map_err(|why| format!("{full_name}.{name}: {why}"))?;
            read.push(Field {
                name: name.to_owned(),
                key: format!("{}:", Value::from(name)),
                of,
            });
        }
        self.types[place] = Type::Record(read);
        Ok(place)
    }

    fn remember(&mut self, name: String, place: usize) -> Result<usize, String> {
        match self.names.insert(name.clone(), place) {
            None => Ok(place),
            Some(_) => Err(format!("two types are called '{name}'")),
        }
    }
}

fn list<'f>(fields: &'f Map<String, Value>, name: &str) -> Result<&'f Vec<Value>, String> {
    let found = fields.get(name).and_then(Value::as_array);
    found.ok_or_else(|| format!("a type without a list of {name}"))
}

/// Full name and namespace of a named type.
fn name(fields: &Map<String, Value>, space: &str) -> Result<(String, String), String> {
    let name = fields.get("name").and_then(Value::as_str);
    let name = name.ok_or("a named type without a name")?;
    let own = fields.get("namespace").and_then(Value::as_str);
    let full = full(name, own.unwrap_or(space));
    let space = full.rsplit_once('.').map_or("", |(space, _)| space);
    Ok((full.clone(), space.to_owned()))
}

fn full(name: &str, space: &str) -> String {
    if name.contains('.') || space.is_empty() {
        return name.to_owned();
    }
    format!("{space}.{name}")
}

fn plain(name: &str) -> Option<Type> {
    Some(match name {
        "null" => Type::Null,
        "boolean" => Type::Boolean,
        "int" => Type::Int,
        "long" => Type::Long,
        "float" => Type::Float,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "string" => Type::Text,
        _ => return None,
    })
}

/// What a logical type makes of a plain one; one that is unknown, or that does not fit, makes nothing of
/// it, as Avro wants it.
fn logical(fields: &Map<String, Value>, plain: Type) -> Type {
    let logical = fields.get("logicalType").and_then(Value::as_str);
    match (plain, logical.unwrap_or_default()) {
        (Type::Int, "date") => Type::Date,
        (Type::Int, "time-millis") => Type::Time(Digits::Milli),
        (Type::Long, "time-micros") => Type::Time(Digits::Micro),
        (Type::Long, "timestamp-millis") => Type::Timestamp(Digits::Milli, Zone::Utc),
        (Type::Long, "timestamp-micros") => Type::Timestamp(Digits::Micro, Zone::Utc),
        (Type::Long, "timestamp-nanos") => Type::Timestamp(Digits::Nano, Zone::Utc),
        (Type::Long, "local-timestamp-millis") => Type::Timestamp(Digits::Milli, Zone::Local),
        (Type::Long, "local-timestamp-micros") => Type::Timestamp(Digits::Micro, Zone::Local),
        (Type::Long, "local-timestamp-nanos") => Type::Timestamp(Digits::Nano, Zone::Local),
        (Type::Bytes, "decimal") => decimal(fields, None).unwrap_or(Type::Bytes),
        (plain, _) => plain,
    }
}

fn fixed(fields: &Map<String, Value>, size: usize) -> Type {
    let logical = fields.get("logicalType").and_then(Value::as_str);
    match (logical, size) {
        (Some("decimal"), _) => decimal(fields, Some(size)).unwrap_or(Type::Fixed(size)),
        (Some("uuid"), 16) => Type::Uuid,
        (Some("duration"), 12) => Type::Duration,
        _ => Type::Fixed(size),
    }
}

fn decimal(fields: &Map<String, Value>, size: Option<usize>) -> Option<Type> {
    let scale = fields.get("scale").map_or(Some(0), Value::as_u64)?;
    let precision = fields.get("precision").and_then(Value::as_u64)?;
    let scale = u32::try_from(scale).ok().filter(|_| scale <= precision)?;
    (precision <= 10_000).then_some(Type::Decimal(scale, size))
}
