//! A line as a JSON object (`docs/guide/logging.md`): the same names everywhere, and nothing that has to be cut out
//! of a sentence.

use jiff::Timestamp;
use serde::Serialize;

use crate::config::Level;

/// A line is no longer than what a pipe takes whole (POSIX's `PIPE_BUF` on Linux): whoever is killed in between leaves
/// no half of it. What is longer goes on in the next, with the same fields.
pub(super) const LINE_BYTES_MAX: usize = 4_096;
/// What a line has of the text at the least, however long its fields are.
const ROOM_MIN: usize = 256;

/// What a line is about, as far as that is known.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Fields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lane: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<u64>,
    /// From 1.
    #[serde(rename = "try", skip_serializing_if = "Option::is_none")]
    pub(crate) try_number: Option<u32>,
    /// The worker's slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker: Option<u16>,
    /// Of what a task printed: where it wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<&'a str>,
    /// A DAG file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Of a DAG file.
    pub(crate) fn of_file(file: &'a str) -> Self {
        Self {
            file: Some(file),
            ..Self::default()
        }
    }
}

#[derive(Serialize)]
struct Record<'a> {
    time: &'a str,
    level: Level,
    message: &'a str,
    #[serde(flatten)]
    fields: &'a Fields<'a>,
    /// Of a text that takes several lines: which of them, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<u32>,
}

/// The lines of a text, each with its end.
pub(super) fn lines(at: Timestamp, level: Level, fields: &Fields<'_>, text: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(text);
    let time = format!("{at:.3}");
    let record = |message, part| {
        let record = Record {
            time: &time,
            level,
            message,
            fields,
            part,
        };
        let mut line = serde_json::to_vec(&record).expect("it has string keys only");
        line.push(b'\n');
        line
    };
    let without = record("", Some(u32::MAX)).len();
    let room = LINE_BYTES_MAX.saturating_sub(without).max(ROOM_MIN);
    let parts = pieces(text.trim_matches('\n'), room);
    if let [whole] = parts[..] {
        return vec![record(whole, None)];
    }
    let numbered = (1..).zip(parts);
    numbered
        .map(|(part, text)| record(text, Some(part)))
        .collect()
}

/// A text in pieces of at most so many bytes of JSON.
fn pieces(text: &str, room: usize) -> Vec<&str> {
    let (mut found, mut begin, mut taken) = (Vec::new(), 0, 0);
    for (at, letter) in text.char_indices() {
        let cost = match letter {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..' ' => 6,
            other => other.len_utf8(),
        };
        if taken + cost > room {
            found.push(&text[begin..at]);
            (begin, taken) = (at, 0);
        }
        taken += cost;
    }
    found.push(&text[begin..]);
    found
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn told(text: &[u8]) -> Vec<Value> {
        let fields = Fields {
            dag: Some("shop"),
            task: Some("pay \"now\""),
            position: Some(u64::MAX),
            try_number: Some(2),
            ..Fields::default()
        };
        let at = Timestamp::from_millisecond(1_700_000_000_001).unwrap();
        let lines = lines(at, Level::Warning, &fields, text);
        let whole = lines.iter().map(|line| {
            assert!(line.len() <= LINE_BYTES_MAX, "{}", line.len());
            let (end, line) = line.split_last().unwrap();
            assert!(*end == b'\n' && !line.contains(&b'\n'));
            assert!(line.iter().all(|byte| *byte >= b' '));
            serde_json::from_slice(line).unwrap()
        });
        whole.collect()
    }

    #[test]
    fn a_line_is_one_object_whatever_the_text_is() {
        let expected = serde_json::json!({
            "time": "2023-11-14T22:13:20.001Z", "level": "warning", "message": "gone", "dag": "shop",
            "task": "pay \"now\"", "position": u64::MAX, "try": 2,
        });
        assert_eq!(told(b"gone\n"), [expected]);
        for (text, said) in [
            (&b"\xff\xfe half \xc3"[..], "\u{fffd}\u{fffd} half \u{fffd}"),
            (
                b"two\nlines\r\n\tand \x1b[31mred\x07\0",
                "two\nlines\r\n\tand \u{1b}[31mred\u{7}\0",
            ),
            (
                "\u{2028}\u{85}\u{7f} \"\\".as_bytes(),
                "\u{2028}\u{85}\u{7f} \"\\",
            ),
            (b"{\"level\":\"info\"}", "{\"level\":\"info\"}"),
            (b"", ""),
        ] {
            let lines = told(text);
            assert_eq!(lines.len(), 1);
            assert_eq!(lines[0]["message"], said);
        }
    }

    #[test]
    fn what_is_longer_than_a_pipe_takes_whole_goes_on_in_the_next_line() {
        for letter in ["x", "\u{1}", "\"", "ü", "\u{1f600}"] {
            let text = letter.repeat(9_000);
            let lines = told(text.as_bytes());
            assert!(lines.len() > 2);
            let mut joined = String::new();
            for (part, line) in (1..).zip(&lines) {
                assert_eq!(
                    (&line["part"], &line["dag"]),
                    (&Value::from(part), &"shop".into())
                );
                joined += line["message"].as_str().unwrap();
            }
            assert_eq!(joined, text);
        }
    }
}
