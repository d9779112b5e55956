//! What is asked over HTTP: by a source, by a task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::is_default;
use crate::template::Template;

/// A place that is asked again and again. An event is an *edge*: what is asked for became true, or
/// changed; with a cursor, each new item of a list.
///
/// An answer is *true* when its status is 2xx and the check passes, *false* when the check does not or
/// the status is 404; anything else is unknown, which changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSource {
    /// A path below the connection's address, or a whole URL.
    pub endpoint: String,
    /// The connection id that `--connection` and `EVERMILL_CONNECTION_*` give an address to.
    #[serde(default = "http_default", skip_serializing_if = "is_http_default")]
    pub connection: String,
    /// The method, in upper case.
    #[serde(default = "get", skip_serializing_if = "is_get")]
    pub method: String,
    /// Names and values: of the query, or of a form where the method has a body.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub request_params: BTreeMap<String, String>,
    /// Headers beside those of the connection.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Longest wait between two checks.
    #[serde(default = "one_minute", skip_serializing_if = "is_one_minute")]
    pub poke_interval_ms: u64,
    /// What an answer has to be to be true.
    #[serde(default, skip_serializing_if = "is_default")]
    pub check: HttpCheck,
    /// A JSON pointer: the event is what it leads to, and a change of that is an edge, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<String>,
    /// The answer is a list, of which each new item is an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<HttpCursor>,
    /// Whether what is true (or in the list) at the very first answer is an event.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub fire_on_start: bool,
}

/// What an answer has to be to be true: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// Its status is one of these; when empty, 200 to 299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
    /// These hold of its body, which is JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<HttpTest>,
    /// The name of a function of the DAG file that has the last word, in a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
}

/// Something that holds of a JSON document, or does not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTest {
    /// Where to look: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// How what is there compares.
    pub op: HttpOp,
    /// With what.
    pub value: Value,
    /// It also holds when nothing is there, or when the answer is no JSON.
    #[serde(default, skip_serializing_if = "is_default")]
    pub if_present: bool,
}

/// How a value of an answer compares with one of the DAG file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpOp {
    /// The same value; numbers count by what they are worth.
    Equals,
    /// Another value.
    NotEquals,
    /// One of a list.
    OneOf,
    /// A greater number.
    Above,
    /// A lesser number.
    Below,
    /// A text with this in it, or a list with this as an item.
    Contains,
    /// Whether anything is there at all: true or false.
    Exists,
    /// The same when both are written as text: `1` and `"1"`.
    SameText,
}

/// How new items of a list are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCursor {
    /// The parameter of the query that carries the id of the last item we have.
    pub param: String,
    /// A JSON pointer to the list in an answer; empty when the answer is the list.
    #[serde(default, skip_serializing_if = "is_default")]
    pub items: String,
    /// A JSON pointer to the id within an item.
    #[serde(default = "slash_id", skip_serializing_if = "is_slash_id")]
    pub id: String,
    /// The newest item stands first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub newest_first: bool,
}

/// A request that a task makes, once per member. Its result is the answer's body: as it is if it is
/// JSON, else a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCall {
    /// The method, in upper case.
    #[serde(default = "post", skip_serializing_if = "is_post")]
    pub method: String,
    /// A whole URL; without it, `path` below the address of `connection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The connection id that `--connection` and `EVERMILL_CONNECTION_*` give an address to.
    #[serde(default = "http_default", skip_serializing_if = "is_http_default")]
    pub connection: String,
    /// A path, with a query if need be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Names and values for the query.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// Headers beside those of the connection.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What is sent; without it, the event's content or the result of `body_from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<HttpBody>,
    /// The task whose result is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_from: Option<String>,
    /// Statuses that mean success; when empty, 200 to 299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<u16>,
    /// The header that carries the effect key, so that the other side can refuse a repeat; none if null.
    /// Sent with methods that change something.
    #[serde(
        default = "idempotency_key",
        skip_serializing_if = "is_idempotency_key"
    )]
    pub idempotency_key: Option<String>,
}

/// A service that takes what a task gives it: one request per member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSink {
    /// A path below the connection's address, or a whole URL; a [`crate::template::Template`].
    pub endpoint: String,
    /// The connection id that `--connection` and `EVERMILL_CONNECTION_*` give an address to.
    #[serde(default = "http_default", skip_serializing_if = "is_http_default")]
    pub connection: String,
    /// `POST`, `PUT`, `PATCH` or `DELETE`; the last one sends no body.
    #[serde(default = "post", skip_serializing_if = "is_post")]
    pub method: String,
    /// Headers beside those of the connection.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Statuses that mean that it has arrived; when empty, 200 to 299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<u16>,
    /// The header that carries the effect key; none if null.
    #[serde(
        default = "idempotency_key",
        skip_serializing_if = "is_idempotency_key"
    )]
    pub idempotency_key: Option<String>,
    /// The task whose result is sent; without it, the event's content is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<String>,
    /// What `{key}` is: `event` for the event's own key, `none`, or a JSON pointer into the value.
    #[serde(
        default = "super::sink::of_event",
        skip_serializing_if = "super::sink::is_of_event"
    )]
    pub key: String,
}

/// A body that the DAG file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpBody {
    /// These characters.
    Text(String),
    /// This value, as JSON.
    Json(Value),
}

fn get() -> String {
    "GET".to_owned()
}

fn is_get(method: &str) -> bool {
    method == "GET"
}

const fn one_minute() -> u64 {
    60_000
}

const fn is_one_minute(ms: &u64) -> bool {
    *ms == one_minute()
}

const fn yes() -> bool {
    true
}

const fn is_true(flag: &bool) -> bool {
    *flag
}

fn slash_id() -> String {
    "/id".to_owned()
}

fn is_slash_id(pointer: &str) -> bool {
    pointer == "/id"
}

fn post() -> String {
    "POST".to_owned()
}

fn is_post(method: &str) -> bool {
    method == "POST"
}

fn http_default() -> String {
    "http_default".to_owned()
}

fn is_http_default(connection: &str) -> bool {
    connection == "http_default"
}

fn idempotency_key() -> Option<String> {
    Some("Idempotency-Key".to_owned())
}

fn is_idempotency_key(name: &Option<String>) -> bool {
    *name == idempotency_key()
}

impl HttpSource {
    /// The connection it needs an address of; none if its endpoint is a whole URL.
    #[must_use]
    pub fn needs(&self) -> Option<&str> {
        let is_whole = self.endpoint.contains("://");
        (!is_whole).then_some(self.connection.as_str())
    }
}

impl HttpSink {
    /// The connection it needs an address of; none if its endpoint is a whole URL.
    #[must_use]
    pub fn needs(&self) -> Option<&str> {
        let is_whole = self.endpoint.contains("://");
        (!is_whole).then_some(self.connection.as_str())
    }
}

/// What is wrong with the endpoint of an [`HttpSink`], if something is.
///
/// # Errors
/// What may be written instead.
pub fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let template = Template::parse(endpoint)?;
    if !endpoint.contains("://") {
        return Ok(());
    }
    if !is_url(endpoint) {
        return Err(
            "write a path, or http:// or https:// and a host; credentials belong into a connection"
                .to_owned(),
        );
    }
    // Whom to ask is the author's word, never an event's.
    let beginning = template.beginning();
    let host_ends = beginning
        .splitn(3, '/')
        .nth(2)
        .is_some_and(|rest| rest.contains(['/', '?', '#']) || template.holes().next().is_none());
    host_ends
        .then_some(())
        .ok_or_else(|| "what stands in braces belongs behind the host, not into it".to_owned())
}

/// Whether a text is a whole URL of HTTP without credentials.
#[must_use]
pub fn is_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    host.is_some_and(|host| !host.is_empty() && !host.contains('@'))
}

impl HttpCall {
    /// The connection it needs an address of; none if its URL is written out.
    #[must_use]
    pub fn needs(&self) -> Option<&str> {
        self.url.is_none().then_some(self.connection.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_to_ask_is_the_authors_word_and_never_an_events() {
        for good in [
            "/orders",
            "orders/{/id}",
            "https://h",
            "https://h/{key}",
            "http://h:8080/a?x={/a/b}",
        ] {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "https://{/host}/a",
            "https://h{key}",
            "http://a.{key}.example/",
            "ftp://h/a",
            "https://ann:secret@h/",
            "/orders/{id}",
        ] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }
}
