//! Tasks that give a value to a place outside.

use serde_json::{Map, Value, json};

use super::option::TO_KAFKA;
use super::tree::{At, Node};
use super::{After, Reader, knows, nearest};
use crate::manifest::Code;

/// Options of a sink that are not in the list.
pub(super) const MORE: [&str; 1] = ["value_from"];

/// A place outside is away for longer now and then: a week of trying, a minute apart at last.
const PATIENCE: [(&str, i64); 3] = [
    ("retries", 10_000),
    ("retry_delay_ms", 1_000),
    ("max_retry_delay_ms", 60_000),
];

impl Reader<'_> {
    /// The topic that a task writes to, and the task whose result it writes.
    pub(super) fn topic_to_write(
        &mut self,
        owner: &str,
        at: At,
        node: &Node,
    ) -> (Map<String, Value>, Option<After>) {
        let owner = format!("to_kafka of {owner}");
        let (mut fields, mut from) = (Map::new(), None);
        for (key, value) in self.map(&owner, node).unwrap_or_default() {
            match key.text.as_str() {
                "value_from" => from = self.word(&owner, key, value),
                name if knows(TO_KAFKA, name) => {
                    self.option(&owner, TO_KAFKA, key, value, &mut fields);
                }
                other => {
                    let known = TO_KAFKA.iter().map(|opt| opt.name).chain(MORE);
                    let message = format!("{owner} has no option '{other}'");
                    self.fault(key.at, Code::UnknownOption, message, nearest(other, known));
                }
            }
        }
        if !fields.contains_key("topic") {
            let message = format!("{owner} has no topic");
            self.fault(at, Code::BadValue, message, "write topic: and its name");
        }
        let key = fields.get("key").and_then(Value::as_str);
        if let Some(key) = key.filter(|key| !is_key(key)) {
            let message = format!("{owner}: key: '{key}' is not possible");
            let cure = "write event, none, or a JSON pointer into the value such as /customer/id";
            self.fault(at, Code::BadValue, message, cure);
        }
        fields.insert("kind".into(), "kafka".into());
        (fields, from)
    }
}

fn is_key(key: &str) -> bool {
    key == "event" || key == "none" || key.starts_with('/')
}

/// What holds for a task with a sink, unless its file says otherwise.
pub(super) fn be_patient(fields: &mut Map<String, Value>) {
    if fields.contains_key("retries") {
        return;
    }
    for (name, value) in PATIENCE {
        fields.entry(name).or_insert(value.into());
    }
    fields
        .entry("retry_exponential_backoff")
        .or_insert(json!(true));
}
