//! Whether bytes are one JSON document, and one that every reader reads alike.
//!
//! Stricter than RFC 8259, which leaves these to the reader: no name twice in an object, no half of a
//! surrogate pair, at most [`limits::JSON_DEPTH_MAX`] lists and objects inside each other. Looser than most
//! readers: a number may have any number of digits. Nothing is changed, and nothing is built.

use std::borrow::Cow;

use crate::limits;

/// Looks at every byte once.
///
/// # Errors
/// What is wrong, and the place by its JSON pointer and byte.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|cause| {
        let at = cause.valid_up_to();
        let found = super::excerpt::bytes(bytes, at);
        format!("it is not UTF-8: bytes {found} at byte {at}")
    })?;
    let mut reader = Reader {
        text,
        at: 0,
        open: Vec::new(),
        names: Vec::new(),
    };
    reader
        .document()
        .map_err(|fault| format!("{} at {}", fault.what, place(&reader.pointer(), fault.at)))
}

/// A place in a document: `/items/3/price (byte 210)`.
fn place(pointer: &str, at: usize) -> String {
    let pointer = if pointer.is_empty() {
        "the top"
    } else {
        pointer
    };
    format!("{pointer} (byte {at})")
}

struct Fault {
    what: String,
    at: usize,
}

/// A list or an object that is being read.
enum Open<'t> {
    List {
        index: usize,
    },
    Object {
        name: Cow<'t, str>,
        names_from: usize,
    },
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    open: Vec<Open<'t>>,
    /// Names of all objects that are open, one stretch each.
    names: Vec<Cow<'t, str>>,
}

impl<'t> Reader<'t> {
    fn document(&mut self) -> Result<(), Fault> {
        self.value()?;
        while !self.open.is_empty() {
            self.blanks();
            match self.open.last_mut() {
                Some(Open::List { index }) => {
                    match self.text.as_bytes().get(self.at) {
                        Some(b',') => {
                            self.at += 1;
                            *index += 1;
                            self.value()?;
                        }
                        Some(b']') => self.close(),
                        _ => return Err(self.unexpected("',' or ']'")),
                    };
                }
                Some(Open::Object { .. }) => match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.member()?;
                    }
                    Some(b'}') => self.close_object()?,
                    _ => return Err(self.unexpected("',' or '}'")),
                },
                None => {}
            }
        }
        self.blanks();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end")),
        }
    }

    /// Reads a value that is not made of others, or opens one that is.
    fn value(&mut self) -> Result<(), Fault> {
        loop {
            self.blanks();
            match self.peek() {
                Some(b'"') => return self.string().map(drop),
                Some(b'-' | b'0'..=b'9') => return self.number(),
                Some(b't') => return self.word("true"),
                Some(b'f') => return self.word("false"),
                Some(b'n') => return self.word("null"),
                Some(b'[') => {
                    self.descend(Open::List { index: 0 })?;
                    self.blanks();
                    if self.peek() == Some(b']') {
                        self.close();
                        return Ok(());
                    }
                }
                Some(b'{') => {
                    let names_from = self.names.len();
                    let name = Cow::Borrowed("");
                    self.descend(Open::Object { name, names_from })?;
                    self.blanks();
                    if self.peek() == Some(b'}') {
                        self.close();
                        return Ok(());
                    }
                    self.name()?;
                }
                _ => return Err(self.unexpected("a value")),
            }
        }
    }

    fn descend(&mut self, open: Open<'t>) -> Result<(), Fault> {
        if self.open.len() == limits::JSON_DEPTH_MAX {
            let most = limits::JSON_DEPTH_MAX;
            return Err(self.fault(format!("more than {most} lists and objects in each other")));
        }
        self.at += 1;
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self) {
        self.at += 1;
        self.open.pop();
    }

    fn close_object(&mut self) -> Result<(), Fault> {
        let Some(Open::Object { names_from, .. }) = self.open.last() else {
            return Ok(());
        };
        let names_from = *names_from;
        let names = &mut self.names[names_from..];
        names.sort_unstable();
        let twice = names.windows(2).find(|two| two[0] == two[1]);
        if let Some(two) = twice {
            let name = super::excerpt::text_of(&two[0]);
            let fault = self.fault(format!("the name \"{name}\" stands twice in one object"));
            self.open.pop();
            return Err(fault);
        }
        self.names.truncate(names_from);
        self.close();
        Ok(())
    }

    fn member(&mut self) -> Result<(), Fault> {
        self.name()?;
        self.value()
    }

    fn name(&mut self) -> Result<(), Fault> {
        self.blanks();
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a name in quotes"));
        }
        let found = self.string()?;
        if let Some(Open::Object { name, .. }) = self.open.last_mut() {
            *name = found.clone();
        }
        self.names.push(found);
        self.blanks();
        if self.peek() != Some(b':') {
            return Err(self.unexpected("':'"));
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a text, as it is without its quotes; a copy only where something is escaped.
    fn string(&mut self) -> Result<Cow<'t, str>, Fault> {
        self.at += 1;
        let start = self.at;
        let mut escaped: Option<String> = None;
        let mut plain = self.at;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let stop = rest
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            let Some(stop) = stop else {
                self.at = self.text.len();
                return Err(self.unexpected("'\"'"));
            };
            self.at += stop;
            match self.text.as_bytes()[self.at] {
                b'"' => {
                    let last = &self.text[plain..self.at];
                    self.at += 1;
                    return Ok(match escaped {
                        None => Cow::Borrowed(&self.text[start..self.at - 1]),
                        Some(text) => Cow::Owned(text + last),
                    });
                }
                b'\\' => {
                    let before = &self.text[plain..self.at];
                    let c = self.escape()?;
                    let text = escaped.get_or_insert_with(String::new);
                    text.push_str(before);
                    text.push(c);
                    plain = self.at;
                }
                _ => return Err(self.fault("a control character in a text".to_owned())),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let begin = self.at;
        let kind = self.text.as_bytes().get(self.at + 1).copied();
        self.at += 2;
        Ok(match kind {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let high = self.hex(begin)?;
                let code = match high {
                    0xd800..=0xdbff if self.text[self.at..].starts_with("\\u") => {
                        self.at += 2;
                        let low = self.hex(begin)?;
                        if !(0xdc00..=0xdfff).contains(&low) {
                            return Err(half(begin));
                        }
                        0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                    }
                    code => code,
                };
                char::from_u32(code).ok_or_else(|| half(begin))?
            }
            _ => {
                self.at = begin;
                return Err(self.fault("an escape that JSON does not have".to_owned()));
            }
        })
    }

    fn hex(&mut self, begin: usize) -> Result<u32, Fault> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else {
            return Err(Fault {
                what: "an escape that JSON does not have".to_owned(),
                at: begin,
            });
        };
        self.at += 4;
        let value = digits.iter().fold(0, |sum, digit| {
            sum * 16 + char::from(*digit).to_digit(16).unwrap_or(0)
        });
        Ok(value)
    }

    /// Of any length: how large is for whoever reads it.
    fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.unexpected("a digit")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), Fault> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.unexpected("a digit"));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fault(&self, what: String) -> Fault {
        Fault { what, at: self.at }
    }

    fn unexpected(&self, wanted: &str) -> Fault {
        let found = match self.text[self.at.min(self.text.len())..].chars().next() {
            None => "nothing more".to_owned(),
            Some(c) => format!("{c:?}"),
        };
        self.fault(format!("{found} where {wanted} is expected"))
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for open in &self.open {
            match open {
                Open::List { index } => pointer.push_str(&format!("/{index}")),
                Open::Object { name, .. } => {
                    pointer.push('/');
                    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                }
            }
        }
        pointer
    }
}

fn half(at: usize) -> Fault {
    Fault {
        what: "half of a surrogate pair".to_owned(),
        at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row E10, S12: what JSON leaves to its reader is decided here, and said.
    #[test]
    fn e10_what_readers_would_read_differently_is_refused_with_its_place() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check(deep(64).as_bytes()), Ok(()));
        let cases: [(&[u8], &str); 12] = [
            (
                b"{\"a\":1,\"b\":{\"x\":1,\"x\":2}}",
                "the name \"x\" stands twice in one object at /b (byte",
            ),
            (b"{\"a\":1,\"\\u0061\":2}", "the name \"a\" stands twice"),
            (
                deep(65).leak().as_bytes(),
                "more than 64 lists and objects in each other",
            ),
            (deep(10_000).leak().as_bytes(), "more than 64"),
            (b"[\"\\ud800\"]", "half of a surrogate pair at /0 (byte 2)"),
            (b"\"\\udc00\"", "half of a surrogate pair"),
            (b"\"\\ud800\\u0041\"", "half of a surrogate pair"),
            (b"\"\xff\"", "it is not UTF-8: bytes ff 22 at byte 1"),
            (
                b"{\"a\":[1,2,}",
                "'}' where a value is expected at /a/2 (byte 10)",
            ),
            (
                b"[1] 2",
                "'2' where the end is expected at the top (byte 4)",
            ),
            (b"\"a\nb\"", "a control character in a text"),
            (b"", "nothing more where a value is expected"),
        ];
        for (bytes, wanted) in cases {
            let said = check(bytes).unwrap_err();
            assert!(said.contains(wanted), "{said} / {wanted}");
        }
    }

    #[test]
    fn e10_numbers_of_any_size_and_nul_are_kept() {
        let large = format!("[{}, -0.5e-7, 1E+400, \"\\u0000\"]", "9".repeat(400));
        assert_eq!(check(large.as_bytes()), Ok(()));
        for wrong in [
            "01", "-", "1.", ".5", "1e", "+1", "NaN", "nul", "[1,]", "{\"a\"}", "{a:1}", "'a'",
        ] {
            assert!(check(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_with_a_slash_is_escaped_in_its_place() {
        let said = check(b"{\"a/b\":{\"~\":[true, flase]}}").unwrap_err();
        assert!(said.contains("at /a~1b/~0/1 (byte"), "{said}");
    }

    #[test]
    fn what_serde_reads_and_writes_is_read() {
        let value = serde_json::json!({"a": [1, 2.5, "ü\u{1F600}\"\\", null, true, {}], "b": [], "c": {"a": {"a": 1}}});
        assert_eq!(check(value.to_string().as_bytes()), Ok(()));
        assert_eq!(
            check(serde_json::to_string_pretty(&value).unwrap().as_bytes()),
            Ok(())
        );
    }
}
