//! What a sink is: it takes records outside and says what became of each.
//!
//! A sink never decides whether a record is sent again. Whoever gives it one has what it was made of
//! in the store, and gives it again after a failure, a crash or a doubt, with the same effect key: so
//! a record arrives at least once, and whoever reads it there can tell the second time.

pub mod conformance;

use std::time::Duration;

use bytes::Bytes;
use serde::de::IgnoredAny;

/// A place outside.
pub trait Sink: Send + Sync {
    /// Sends records side by side, those of one key in order, and waits at most `wait` for what
    /// becomes of them: an answer for each, in order.
    fn send(&self, records: Vec<Record>, wait: Duration) -> Vec<Result<(), SinkError>>;
}

/// What is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its value; none says that what the key names is gone.
    pub value: Option<Bytes>,
    /// The same in every attempt (C1).
    pub effect_key: Option<String>,
    /// Which span it comes from: a header for places that have headers ([`crate::trace`]).
    pub traceparent: Option<String>,
    /// What the systems before us know of its trace: a header likewise.
    pub tracestate: Option<String>,
    /// Where exactly it goes, if its place says that for each record: what became of the place's template.
    pub name: Option<String>,
    /// Its value is a list of events: each on a line of its own.
    pub is_list: bool,
}

/// What a value is, as far as a look at it tells.
#[must_use]
pub fn content_type(value: &[u8], is_list: bool) -> &'static str {
    if is_list {
        "application/x-ndjson"
    } else if serde_json::from_slice::<IgnoredAny>(value).is_ok() {
        "application/json"
    } else if std::str::from_utf8(value).is_ok() {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    }
}

/// Why a record is not known to have arrived. Holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Sending it again later is right.
    #[error("{0}")]
    MayPass(String),
    /// The place outside says when: not before so long.
    #[error("{why}")]
    Later {
        /// What it said.
        why: String,
        /// From now on.
        after: Duration,
    },
    /// It will never be taken as it is.
    #[error("{0}")]
    ForGood(String),
}
