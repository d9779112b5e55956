//! Tasks that ask over HTTP.

use serde_json::{Map, Value};

use super::option::{HTTP, text};
use super::tree::{At, Kind, Node};
use super::{After, Reader, knows, nearest};
use crate::manifest::{Code, is_url};

/// Options of a request that are not in the list, since their values have shapes of their own.
pub(super) const MORE: [&str; 3] = ["body", "body_from", "idempotency_key"];

impl Reader<'_> {
    /// The request of a task, and the task whose result it sends.
    pub(super) fn http(
        &mut self,
        owner: &str,
        at: At,
        node: &Node,
    ) -> (Map<String, Value>, Option<After>) {
        let owner = format!("http of {owner}");
        let (mut fields, mut from) = (Map::new(), None);
        for (key, value) in self.map(&owner, node).unwrap_or_default() {
            match key.text.as_str() {
                "body" => drop(fields.insert("body".into(), body(value))),
                "body_from" => from = self.word(&owner, key, value),
                "idempotency_key" => {
                    if let Some(name) = self.key_header(&owner, value) {
                        fields.insert("idempotency_key".into(), name);
                    }
                }
                name if knows(HTTP, name) => self.option(&owner, HTTP, key, value, &mut fields),
                other => {
                    let known = HTTP.iter().map(|opt| opt.name).chain(MORE);
                    let message = format!("{owner} has no option '{other}'");
                    self.fault(key.at, Code::UnknownOption, message, nearest(other, known));
                }
            }
        }
        self.check_place(&owner, at, &fields);
        if let (Some(from), true) = (&from, fields.contains_key("body")) {
            let message = format!("{owner} has body and body_from");
            self.fault(from.at, Code::BadValue, message, "leave one of them out");
        }
        (fields, from)
    }

    fn check_place(&mut self, owner: &str, at: At, fields: &Map<String, Value>) {
        let url = fields.get("url").and_then(Value::as_str);
        let more = ["path", "connection"]
            .iter()
            .find(|name| fields.contains_key(**name));
        match (url, more) {
            (None, None) => {
                let message = format!("{owner} does not say whom to ask");
                let cure = "write path: for a connection's address, or url: and the whole URL";
                self.fault(at, Code::BadValue, message, cure);
            }
            (Some(_), Some(more)) => {
                let message = format!("{owner} has url and {more}");
                let cure = "a url is whole; a path stands below the address of a connection";
                self.fault(at, Code::BadValue, message, cure);
            }
            (Some(url), None) if !is_url(url) => {
                let message = format!("{owner}: url: '{url}' is not possible");
                let cure =
                    "write http:// or https:// and a host; credentials belong into a connection";
                self.fault(at, Code::BadValue, message, cure);
            }
            _ => {}
        }
    }

    /// A header's name, or null for `false`.
    pub(super) fn key_header(&mut self, owner: &str, node: &Node) -> Option<Value> {
        match &node.kind {
            Kind::Scalar {
                text,
                quoted: false,
            } if text == "false" => Some(Value::Null),
            Kind::Scalar { text, .. } if is_token(text) && text != "true" => {
                Some(text.as_str().into())
            }
            _ => {
                let written = text(node).unwrap_or_else(|| node.sort());
                let message = format!("{owner}: idempotency_key: '{written}' is not possible");
                let cure = "write a header's name, or false to send none";
                self.fault(node.at, Code::BadValue, message, cure);
                None
            }
        }
    }
}

/// A text is sent as it is; a map, a list, a number as JSON.
fn body(node: &Node) -> Value {
    match node.json() {
        Value::String(text) => serde_json::json!({"text": text}),
        value => serde_json::json!({"json": value}),
    }
}

/// What a header may be called (RFC 9110, section 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(legal)
}
