//! Where the event of a test comes from.

use std::io::Read as _;

use evermill_engine::view::Blob;
use serde_json::{Value, json};

use crate::failure::Failure;

/// The events of one activation: one, or the list that a batch was.
#[derive(Debug, PartialEq)]
pub(super) struct Given {
    /// As `evermill parked export` writes them.
    pub(super) events: Vec<Value>,
    /// Where a parked one came from.
    pub(super) source: Option<String>,
}

impl Given {
    /// Reads `@FILE`, `-`, or the text itself.
    ///
    /// # Errors
    /// What cannot be read, or holds more than one activation.
    pub(super) fn read(given: &str) -> Result<Self, Failure> {
        let failed = |cause: std::io::Error| Failure::usage(format!("--event {given}: {cause}"));
        let bytes = match (given, given.strip_prefix('@')) {
            ("-", _) | (_, Some("-")) => {
                let mut bytes = Vec::new();
                std::io::stdin().read_to_end(&mut bytes).map_err(failed)?;
                bytes
            }
            (_, Some(path)) => std::fs::read(path).map_err(failed)?,
            (text, None) => text.as_bytes().to_vec(),
        };
        Self::of(&bytes).map_err(|why| Failure::usage(format!("--event {given}: {why}")))
    }

    fn of(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let parked: Vec<Self> = text.lines().map_while(Self::parked).collect();
        let lines = text.lines().count();
        match parked.len() {
            0 => Ok(Self {
                events: vec![json!({ "value": Blob::of(bytes) })],
                source: None,
            }),
            1 if lines == 1 => Ok(parked.into_iter().next().expect("there is one")),
            _ => Err(format!(
                "it holds {lines} parked events, and one is run: export it by its id, or give one \
                 line by `sed -n 2p FILE | evermill test ... --event -`"
            )),
        }
    }

    /// A line of `evermill parked export`.
    fn parked(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
        let (_, source, lane) = (text("id")?, text("source")?, text("lane")?);
        let mut events = value.get("payload")?.as_array()?.clone();
        for event in &mut events {
            event
                .as_object_mut()?
                .insert("lane".to_owned(), lane.clone().into());
        }
        Some(Self {
            events,
            source: Some(source),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARKED: &str = r#"{"id":"d-1/in/t/0/5","source":"in","lane":"t/0","payload":[{"position":5,"value":"x"}]}"#;

    #[test]
    fn a_parked_event_brings_what_it_had_and_anything_else_is_a_payload() {
        let given = Given::of(PARKED.as_bytes()).unwrap();
        assert_eq!(given.source.as_deref(), Some("in"));
        assert_eq!(
            given.events,
            [json!({"position": 5, "value": "x", "lane": "t/0"})]
        );
        let plain = |bytes: &[u8]| Given::of(bytes).unwrap().events[0]["value"].clone();
        assert_eq!(plain(b"{\"id\": 1}"), "{\"id\": 1}");
        assert_eq!(plain(b"two\nlines"), "two\nlines");
        assert_eq!(plain(&[0xff]), json!({"base64": "/w=="}));
    }

    #[test]
    fn several_parked_events_are_refused_with_the_cure() {
        let two = format!("{PARKED}\n{PARKED}\n");
        assert!(Given::of(two.as_bytes()).unwrap_err().contains("sed -n 2p"));
    }
}
