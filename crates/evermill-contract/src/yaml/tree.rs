//! A YAML text as a tree in which everything knows where it stands.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::Value;

/// Levels of lists and maps; a DAG needs five.
const DEPTH_MAX: usize = 32;

/// Something in the text, and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) kind: Kind,
}

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) line: u32,
    pub(super) column: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A text, or a word or number that stands without quotes.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    /// In the order of the text; a key may come twice.
    Map(Vec<(Key, Node)>),
}

/// What stands before a colon.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) at: At,
    pub(super) text: String,
}

/// Why a text is no YAML that we read.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) at: At,
    pub(super) why: String,
    pub(super) cure: &'static str,
}

impl At {
    fn of(span: Span) -> Self {
        let whole = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            line: whole(span.start.line()),
            column: whole(span.start.col()).saturating_add(1),
        }
    }
}

impl Node {
    /// How it is called in messages.
    pub(super) const fn sort(&self) -> &'static str {
        match self.kind {
            Kind::Scalar { .. } => "a value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// Nothing was written: `key:` and no more.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, quoted: false } if text.is_empty() || text == "null" || text == "~")
    }
}

impl Node {
    /// As JSON: what stands without quotes and reads as null, a flag or a number is one.
    pub(super) fn json(&self) -> Value {
        match &self.kind {
            Kind::List(items) => items.iter().map(Self::json).collect(),
            Kind::Map(pairs) => {
                let pairs = pairs.iter();
                pairs
                    .map(|(key, value)| (key.text.clone(), value.json()))
                    .collect()
            }
            Kind::Scalar { text, quoted: true } => Value::from(text.as_str()),
            Kind::Scalar { .. } if self.is_empty() => Value::Null,
            Kind::Scalar { text, .. } => match serde_json::from_str(text) {
                Ok(found @ (Value::Bool(_) | Value::Number(_))) => found,
                _ => Value::from(text.as_str()),
            },
        }
    }
}

/// A list or map that is not closed yet.
enum Open {
    List(At, Vec<Node>),
    Map(At, Vec<(Key, Node)>, Option<Key>),
}

/// The documents of a text.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, Refusal> {
    let mut documents = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Refusal {
            at: At {
                line: u32::try_from(error.marker().line()).unwrap_or(u32::MAX),
                column: u32::try_from(error.marker().col() + 1).unwrap_or(u32::MAX),
            },
            why: format!("this is no YAML: {}", error.info()),
            cure: "mind the indentation, and quote what holds ': ' or ' #'",
        })?;
        let at = At::of(span);
        let closed = match event {
            Event::Scalar(text, style, anchor, _) => {
                plain_only(at, anchor)?;
                Some(scalar(at, text, style))
            }
            Event::SequenceStart(anchor, _) => {
                plain_only(at, anchor)?;
                open.push(Open::List(at, Vec::new()));
                None
            }
            Event::MappingStart(anchor, _) => {
                plain_only(at, anchor)?;
                open.push(Open::Map(at, Vec::new(), None));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(close),
            Event::Alias(_) => return Err(no_anchors(at)),
            _ => None,
        };
        if open.len() > DEPTH_MAX {
            let why = format!("more than {DEPTH_MAX} lists and maps within each other");
            let cure = "write it flatter";
            return Err(Refusal { at, why, cure });
        }
        if let Some(node) = closed {
            match open.last_mut() {
                None => documents.push(node),
                Some(parent) => put(parent, node)?,
            }
        }
    }
    Ok(documents)
}

fn scalar(at: At, text: Cow<'_, str>, style: ScalarStyle) -> Node {
    let kind = Kind::Scalar {
        text: text.into_owned(),
        quoted: style != ScalarStyle::Plain,
    };
    Node { at, kind }
}

fn close(open: Open) -> Node {
    match open {
        Open::List(at, items) => Node {
            at,
            kind: Kind::List(items),
        },
        Open::Map(at, pairs, _) => Node {
            at,
            kind: Kind::Map(pairs),
        },
    }
}

fn put(parent: &mut Open, node: Node) -> Result<(), Refusal> {
    match parent {
        Open::List(_, items) => items.push(node),
        Open::Map(_, pairs, key) => match key.take() {
            Some(key) => pairs.push((key, node)),
            None => {
                let Kind::Scalar { text, .. } = node.kind else {
                    let why = "a list or a map before a colon".to_owned();
                    let cure = "write a name there";
                    return Err(Refusal {
                        at: node.at,
                        why,
                        cure,
                    });
                };
                *key = Some(Key { at: node.at, text });
            }
        },
    }
    Ok(())
}

fn plain_only(at: At, anchor: usize) -> Result<(), Refusal> {
    if anchor > 0 {
        return Err(no_anchors(at));
    }
    Ok(())
}

fn no_anchors(at: At) -> Refusal {
    Refusal {
        at,
        why: "anchors and aliases (& and *) are not read".to_owned(),
        cure: "write it out, or quote the text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_knows_its_line_and_column() {
        let [document] = &parse("dag: x\ntasks:\n  a: { run: 'b' }\n").unwrap()[..] else {
            panic!("one document")
        };
        let Kind::Map(pairs) = &document.kind else {
            panic!("a map")
        };
        let places: Vec<_> = pairs
            .iter()
            .map(|(key, node)| (key.at.line, key.at.column, node.at.line, node.at.column))
            .collect();
        assert_eq!(places, [(1, 1, 1, 6), (2, 1, 3, 3)]);
    }

    #[test]
    fn what_is_no_yaml_is_named_with_its_place() {
        for (text, line) in [
            ("a: b: c\n", 1),
            ("a:\n - b\n c: d\n", 3),
            ("a: &x 1\n", 1),
            ("a: 1\nb: *x\n", 2),
        ] {
            assert_eq!(parse(text).unwrap_err().at.line, line, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(parse(&deep(DEPTH_MAX)).is_ok());
        let refused = parse(&deep(DEPTH_MAX + 1)).unwrap_err();
        assert!(refused.why.contains("within each other"), "{refused:?}");
        assert!(parse(&deep(10_000)).is_err());
    }
}
