//! Tasks that wait: for a time, for a message, for a place that answers as it should.

use serde_json::{Map, Value, json};

use super::option::{Of, POKE, text};
use super::tree::{Key, Kind, Node};
use super::{Reader, knows};
use crate::manifest::Code;

const WANTED: &str = "write a duration, such as 10m, or { signal: NAME }";

impl Reader<'_> {
    /// What a task waits for by itself: its field `wait`.
    pub(super) fn wait(&mut self, owner: &str, key: &Key, node: &Node) -> Map<String, Value> {
        let found = match &node.kind {
            Kind::Map(pairs) => match &pairs[..] {
                [(name, value)] if name.text == "signal" => {
                    text(value).map(|name| json!({"signal": name}))
                }
                _ => None,
            },
            _ => Of::Duration
                .read(node)
                .ok()
                .map(|ms| json!({"delay_ms": ms})),
        };
        let Some(wait) = found else {
            self.wrong(owner, key, node, WANTED.to_owned());
            return Map::new();
        };
        Map::from_iter([("wait".to_owned(), wait)])
    }

    /// The place that a task waits for, and how it is asked: its fields `polls` and `poke`.
    pub(super) fn wait_http(&mut self, owner: &str, key: &Key, node: &Node) -> Map<String, Value> {
        let of = format!("wait_http of {owner}");
        let mut fields = Map::new();
        let Some(pairs) = self.map(&of, node) else {
            return fields;
        };
        let (asked, place): (Vec<_>, Vec<_>) = pairs
            .iter()
            .cloned()
            .partition(|(name, _)| knows(POKE, &name.text));
        let mut poke = Map::new();
        for (name, value) in &asked {
            self.option(&of, POKE, name, value, &mut poke);
        }
        // A poke says that it is one even where everything is as usual.
        poke.entry("interval_ms").or_insert(json!(60_000));
        if let Some((name, _)) = place.iter().find(|(name, _)| name.text == "fire_on_start") {
            let message = format!("{of}: fire_on_start is an option of a source");
            self.fault(name.at, Code::UnknownOption, message, "leave it out");
        }
        let place = Node {
            kind: Kind::Map(place),
            ..node.clone()
        };
        if let Some(Value::Object(mut polls)) = self.polled(owner, key, &place) {
            polls.remove("kind");
            polls.remove("fire_on_start");
            if polls.contains_key("cursor") {
                let message = format!("{of}: a cursor is for a source, which reads a list");
                self.fault(key.at, Code::BadValue, message, "leave it out");
            }
            fields.insert("polls".into(), polls.into());
        }
        fields.insert("poke".into(), poke.into());
        fields
    }
}
