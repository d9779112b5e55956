//! What a sink is: it takes records outside and says what became of each.
//!
//! A sink never decides whether a record is sent again. Whoever gives it one has what it was made of
//! in the store, and gives it again after a failure, a crash or a doubt, with the same effect key: so
//! a record arrives at least once, and whoever reads it there can tell the second time.

use std::time::Duration;

use bytes::Bytes;

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
}

/// Why a record is not known to have arrived. Holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Sending it again later is right.
    #[error("{0}")]
    MayPass(String),
    /// It will never be taken as it is.
    #[error("{0}")]
    ForGood(String),
}
