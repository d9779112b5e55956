//! What is asked over HTTP: by a task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// A body that the DAG file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpBody {
    /// These characters.
    Text(String),
    /// This value, as JSON.
    Json(Value),
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

impl HttpCall {
    /// The connection it needs an address of; none if its URL is written out.
    #[must_use]
    pub fn needs(&self) -> Option<&str> {
        self.url.is_none().then_some(self.connection.as_str())
    }
}
