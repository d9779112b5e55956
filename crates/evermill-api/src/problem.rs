//! Errors as problem details (RFC 9457).

use evermill_engine::EngineError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a request was not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// A short name that does not change: `unknown_run`, `not_parked`, `refused`, ...
    pub code: String,
    /// What kind of problem it is.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here, and the cure.
    pub detail: String,
    /// The methods that the resource knows, for the header `Allow`.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) allow: Option<String>,
}

impl Problem {
    /// The media type of problem details.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    pub(crate) fn new(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            allow: None,
        }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, "bad_request", "The request is not understood", detail)
    }

    pub(crate) fn no_such_resource(path: &str) -> Self {
        let detail = format!("there is nothing at {path}");
        Self::new(404, "unknown_resource", "No such resource", detail)
    }

    pub(crate) fn not_known() -> Self {
        let detail = "send a token that is good: Authorization: Bearer evermill_...; `evermill token create` makes one";
        Self::new(401, "not_known", "Nobody knows you", detail)
    }

    pub(crate) fn wrong_method(allowed: &str) -> Self {
        let detail = format!("this resource knows {allowed}");
        Self {
            allow: Some(allowed.to_owned()),
            ..Self::new(405, "wrong_method", "The method does not fit", detail)
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let (status, code, title) = match &error {
            EngineError::UnknownRun { .. } => (404, "unknown_run", "No such run"),
            EngineError::UnknownVersion(_) => (404, "unknown_version", "No such version"),
            EngineError::UnknownPool { .. } => (404, "unknown_pool", "No such pool"),
            EngineError::NoSuchDag { .. } | EngineError::UnknownDag(_) => {
                (404, "unknown_dag", "No such DAG")
            }
            EngineError::Busy(_) => (503, "busy", "Not yet"),
            EngineError::NotParked(_) => (404, "not_parked", "Nothing is parked under this id"),
            EngineError::NotWaiting(_) => (409, "not_waiting", "Nobody waits for this"),
            EngineError::Store(_) => (500, "store", "The store cannot be read or copied"),
            EngineError::Full(_) => (429, "full", "There is no room for more yet"),
            EngineError::OtherContent(_) => {
                (409, "other_content", "The id stands for something else")
            }
            EngineError::Interrupted => (503, "interrupted", "The commit failed"),
            EngineError::Closed => (503, "closed", "The engine has stopped"),
            _ => (409, "refused", "The state does not allow it"),
        };
        Self::new(status, code, title, error.to_string())
    }
}
