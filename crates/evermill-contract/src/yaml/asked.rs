//! Sources that are asked again and again, by HTTP or by a command, and requests that others send.

use serde_json::{Map, Value, json};

use super::option::{ALERTS, HTTP_SOURCE, POLL, text};
use super::tree::{Key, Kind, Node};
use super::{Reader, knows, nearest};
use crate::manifest::Code;

/// Options of a polled place whose values have shapes of their own.
pub(super) const HTTP_MORE: [&str; 2] = ["response_check", "cursor"];

/// How a value of an answer may compare.
pub(super) const COMPARISONS: [&str; 7] = [
    "equals",
    "not_equals",
    "one_of",
    "above",
    "below",
    "contains",
    "exists",
];

impl Reader<'_> {
    /// A place that is asked again and again.
    pub(super) fn polled(&mut self, owner: &str, key: &Key, node: &Node) -> Option<Value> {
        let owner = format!("http of {owner}");
        let mut config = Map::new();
        for (name, value) in self.map(&owner, node)? {
            let shaped = match name.text.as_str() {
                "response_check" => Some(("check", check(value))),
                "cursor" => Some(("cursor", cursor(value))),
                _ => None,
            };
            match shaped {
                Some((field, Ok(made))) => drop(config.insert(field.to_owned(), made)),
                Some((_, Err(cure))) => self.wrong(&owner, name, value, cure),
                None if knows(HTTP_SOURCE, &name.text) => {
                    self.option(&owner, HTTP_SOURCE, name, value, &mut config);
                }
                None => {
                    let known = HTTP_SOURCE.iter().map(|opt| opt.name).chain(HTTP_MORE);
                    let message = format!("{owner} has no option '{}'", name.text);
                    let cure = nearest(&name.text, known);
                    self.fault(name.at, Code::UnknownOption, message, cure);
                }
            }
        }
        if !config.contains_key("endpoint") {
            let message = format!("{owner} has no endpoint");
            let cure = "write endpoint: and a path, or a whole URL";
            self.fault(key.at, Code::BadValue, message, cure);
        }
        if config.contains_key("select") && config.contains_key("cursor") {
            let message = format!("{owner}: select and cursor exclude each other");
            self.fault(key.at, Code::BadValue, message, "leave one of them out");
        }
        config.insert("kind".into(), "http".into());
        Some(Value::Object(config))
    }

    /// Requests that others send.
    pub(super) fn webhook(&mut self, owner: &str, node: &Node) -> Option<Value> {
        let owner = format!("webhook of {owner}");
        let mut config = Map::new();
        let pairs = match node.is_empty() {
            true => &[][..],
            false => self.map(&owner, node)?,
        };
        for (name, value) in pairs {
            match name.text.as_str() {
                "secret" => match secrets(value) {
                    Some(secrets) => drop(config.insert("secrets".into(), secrets)),
                    None => {
                        let cure = "write env:NAME or file:PATH, or a list of two";
                        self.wrong(&owner, name, value, cure.to_owned());
                    }
                },
                other => {
                    let message = format!("{owner} has no option '{other}'");
                    let cure = match other {
                        "codec" | "schema" | "schema_registry" => {
                            format!("write {other}: beside webhook:, not in it")
                        }
                        other => nearest(other, ["secret"].into_iter()),
                    };
                    self.fault(name.at, Code::UnknownOption, message, cure);
                }
            }
        }
        config.insert("kind".into(), "webhook".into());
        Some(Value::Object(config))
    }

    /// A command that is asked again and again; what is remembered of it belongs to the source's id.
    pub(super) fn asked(&mut self, owner: &str, id: &str, key: &Key, node: &Node) -> Option<Value> {
        let mut config = self.timed(owner, POLL, key, node)?;
        let fields = config.as_object_mut()?;
        let Some(command) = fields.remove("command") else {
            let message = format!("poll of {owner} has no run");
            self.fault(key.at, Code::BadValue, message, "write run: and a command");
            return None;
        };
        fields.insert("function".into(), id.into());
        fields.insert("run".into(), json!({"command": command}));
        Some(config)
    }

    /// `alerts:`, of which nothing has to be said.
    pub(super) fn alerts(&mut self, owner: &str, node: &Node) -> Value {
        let mut config = Map::new();
        if !node.is_empty() {
            self.options(&format!("alerts of {owner}"), ALERTS, node, &mut config);
        }
        config.insert("kind".into(), "alerts".into());
        Value::Object(config)
    }

    pub(super) fn wrong(&mut self, owner: &str, key: &Key, value: &Node, cure: String) {
        let written =
            text(value).map_or_else(|| value.sort().to_owned(), |text| format!("'{text}'"));
        let message = format!("{owner}: {}: {written} is not possible", key.text);
        self.fault(value.at, Code::BadValue, message, cure);
    }
}

/// One secret, or two while one takes over from the other.
fn secrets(node: &Node) -> Option<Value> {
    let items = match &node.kind {
        Kind::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let texts = items.iter().map(text).collect::<Option<Vec<_>>>()?;
    (1..=2).contains(&texts.len()).then(|| json!(texts))
}

/// What an answer has to be: a map, or a list of maps that must all hold.
fn check(node: &Node) -> Result<Value, String> {
    let parts = match &node.kind {
        Kind::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut made = Map::new();
    let mut tests = Vec::new();
    for part in parts {
        let Kind::Map(pairs) = &part.kind else {
            return Err("write a map, such as { pointer: /status, equals: deployed }".to_owned());
        };
        let (mut pointer, mut compared) = (None, Vec::new());
        for (key, value) in pairs {
            match key.text.as_str() {
                "status" => {
                    drop(made.insert("status".into(), super::option::Of::Statuses.read(value)?))
                }
                "pointer" => pointer = Some(json_pointer(value)?),
                op => {
                    let known = COMPARISONS.into_iter().find(|known| *known == op);
                    let op = known.ok_or_else(|| {
                        nearest(op, ["status", "pointer"].into_iter().chain(COMPARISONS))
                    })?;
                    compared.push((op, value.json()));
                }
            }
        }
        match (pointer, &compared[..]) {
            (None, []) => {}
            (Some(pointer), [(op, value)]) if fits(op, value) => {
                tests.push(json!({"pointer": pointer, "op": op, "value": value}));
            }
            (Some(_), [(op, value)]) => return Err(format!("{op} cannot compare with {value}")),
            _ => {
                return Err(format!(
                    "write a pointer and one of {}",
                    COMPARISONS.join(", ")
                ));
            }
        }
    }
    if !tests.is_empty() {
        made.insert("tests".into(), tests.into());
    }
    Ok(Value::Object(made))
}

fn fits(op: &str, value: &Value) -> bool {
    match op {
        "one_of" => value.is_array(),
        "above" | "below" => value.is_number(),
        "exists" => value.is_boolean(),
        _ => true,
    }
}

fn json_pointer(node: &Node) -> Result<String, String> {
    let text = text(node).filter(|text| text.starts_with('/'));
    text.map(str::to_owned)
        .ok_or_else(|| "write a JSON pointer, such as /status".to_owned())
}

/// The parameter's name, or a map.
fn cursor(node: &Node) -> Result<Value, String> {
    const WANTED: &str =
        "write the name of the parameter, or a map such as { param: since, items: /items }";
    let Kind::Map(pairs) = &node.kind else {
        let param = text(node).ok_or_else(|| WANTED.to_owned())?;
        return Ok(json!({"param": param}));
    };
    let mut made = Map::new();
    for (key, value) in pairs {
        let found = match key.text.as_str() {
            "param" => json!(text(value).ok_or_else(|| WANTED.to_owned())?),
            "items" | "id" => json!(json_pointer(value)?),
            "newest_first" => super::option::Of::Flag.read(value)?,
            other => {
                return Err(nearest(
                    other,
                    ["param", "items", "id", "newest_first"].into_iter(),
                ));
            }
        };
        made.insert(key.text.clone(), found);
    }
    if !made.contains_key("param") {
        return Err(WANTED.to_owned());
    }
    Ok(Value::Object(made))
}
