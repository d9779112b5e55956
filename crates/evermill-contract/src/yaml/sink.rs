//! Tasks that give a value to a place outside, or to other DAGs.

use serde_json::{Map, Value, json};

use super::option::{EMIT, Opt, TO_FILE, TO_HTTP, TO_KAFKA, TO_SQS, text};
use super::tree::{At, Key, Node};
use super::{After, Reader, knows, nearest};
use crate::manifest::{Code, check_endpoint, check_file_path, check_queue};

/// Options of a sink that are not in the list.
pub(super) const MORE: [&str; 1] = ["value_from"];

/// A place outside is away for longer now and then: a week of trying, a minute apart at last.
const PATIENCE: [(&str, i64); 3] = [
    ("retries", 10_000),
    ("retry_delay_ms", 1_000),
    ("max_retry_delay_ms", 60_000),
];

/// The options by which a task writes somewhere, the kind of the place in the manifest, and what may be
/// said of it: the first of these names it.
const PLACES: [(&str, &str, &[Opt]); 5] = [
    ("to_kafka", "kafka", TO_KAFKA),
    ("to_sqs", "sqs", TO_SQS),
    ("to_http", "http", TO_HTTP),
    ("to_file", "file", TO_FILE),
    ("emit", "topic", EMIT),
];

/// Their names.
pub(super) const NAMES: [&str; PLACES.len()] = {
    let mut names = [""; PLACES.len()];
    let mut at = 0;
    while at < PLACES.len() {
        names[at] = PLACES[at].0;
        at += 1;
    }
    names
};

/// The option that a place to write to was declared by.
pub(super) fn option_of(sink: Option<&Map<String, Value>>) -> &'static str {
    let kind = sink.and_then(|sink| sink["kind"].as_str());
    let mut places = PLACES.iter();
    places
        .find(|(_, of, _)| Some(*of) == kind)
        .map_or("", |(option, ..)| option)
}

impl Reader<'_> {
    /// The place that a task writes to, by the option that says so, and the task whose result it writes.
    pub(super) fn place_to_write(
        &mut self,
        owner: &str,
        named: &Key,
        node: &Node,
    ) -> (Map<String, Value>, Option<After>) {
        let mut places = PLACES.iter();
        let place = places.find(|(name, ..)| *name == named.text);
        let (option, kind, known) = *place.expect("whoever asks has seen its name");
        let at = named.at;
        let owner = format!("{option} of {owner}");
        let (mut fields, mut from) = (Map::new(), None);
        let alone = text(node).filter(|_| kind == "topic");
        let pairs = match alone {
            // The topic's name is enough.
            Some(topic) => {
                fields.insert("topic".into(), topic.into());
                &[][..]
            }
            None => self.map(&owner, node).unwrap_or_default(),
        };
        for (key, value) in pairs {
            match key.text.as_str() {
                "value_from" => from = self.word(&owner, key, value),
                "idempotency_key" if kind == "http" => {
                    if let Some(name) = self.key_header(&owner, value) {
                        fields.insert("idempotency_key".into(), name);
                    }
                }
                name if knows(known, name) => {
                    self.option(&owner, known, key, value, &mut fields);
                }
                other => {
                    let more = (kind == "http").then_some("idempotency_key");
                    let known = known.iter().map(|opt| opt.name).chain(MORE).chain(more);
                    let message = format!("{owner} has no option '{other}'");
                    self.fault(key.at, Code::UnknownOption, message, nearest(other, known));
                }
            }
        }
        let must = known[0].name;
        if !fields.contains_key(must) {
            let message = format!("{owner} has no {must}");
            let cure = format!("write {must}: and its name");
            self.fault(at, Code::BadValue, message, cure);
        }
        let key = fields.get("key").and_then(Value::as_str);
        if let Some(key) = key.filter(|key| !is_key(key)) {
            let message = format!("{owner}: key: '{key}' is not possible");
            let cure = "write event, none, or a JSON pointer into the value such as /customer/id";
            self.fault(at, Code::BadValue, message, cure);
        }
        if let Some(topic) = fields.get("topic").and_then(Value::as_str)
            && kind == "topic"
            && !is_topic(topic)
        {
            let message = format!("{owner}: topic: '{topic}' is not possible");
            let cure = "a topic's name has letters, digits, '.', '_' and '-', at most 249";
            self.fault(at, Code::BadValue, message, cure);
        }
        self.check_queue(&owner, at, &fields);
        self.check_template(&owner, at, &fields, "endpoint", check_endpoint);
        self.check_template(&owner, at, &fields, "path", check_file_path);
        fields.insert("kind".into(), kind.into());
        (fields, from)
    }

    /// A place that is made of each record can be one.
    fn check_template(
        &mut self,
        owner: &str,
        at: At,
        fields: &Map<String, Value>,
        option: &str,
        check: fn(&str) -> Result<(), String>,
    ) {
        let text = fields.get(option).and_then(Value::as_str);
        if let Some(text) = text
            && let Err(cure) = check(text)
        {
            let message = format!("{owner}: {option}: '{text}' is not possible");
            self.fault(at, Code::BadValue, message, cure);
        }
    }

    /// A queue that these options name can be one.
    pub(super) fn check_queue(&mut self, owner: &str, at: At, fields: &Map<String, Value>) {
        let queue = fields.get("queue").and_then(Value::as_str);
        if let Some(queue) = queue
            && let Err(cure) = check_queue(queue)
        {
            let message = format!("{owner}: queue: '{queue}' is not possible");
            self.fault(at, Code::BadValue, message, cure);
        }
    }
}

/// Whether a topic, of Kafka or of other DAGs, can be called so.
pub(super) fn is_topic(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(legal) && !matches!(name, "." | "..")
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
