//! What stands between a source and the engine: it turns a value as it came in into the value that
//! tasks read, or says why that cannot be.
//!
//! ```text
//! source -> value as it came -> judge --> passes as it is, or becomes another value --> tasks
//!                                 |
//!                                 +--> rejected: no task sees it, the activation is parked
//! ```
//!
//! A gate belongs to one source and is asked on whatever thread has the value, before the event is
//! laid out for the engine. It says the same of the same value, as long as what it asks outside
//! says the same.

use std::time::Duration;

/// Judges the values of one source.
pub trait Gate: Send + Sync {
    /// Judges a value. It may ask the outside world for what it needs to know, for [`JUDGE_WAIT`] at
    /// most. A new value is appended to `out`.
    ///
    /// # Errors
    /// [`Unavailable`]: whoever was asked did not answer. Nothing is said of the value: ask again later.
    fn judge(&self, value: &[u8], form: Form, out: &mut Vec<u8>) -> Result<Verdict, Unavailable>;

    /// The same without asking anybody; `None` when it would have to.
    fn judge_known(&self, value: &[u8], form: Form, out: &mut Vec<u8>) -> Option<Verdict>;
}

/// How a value came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// From the outside world, as it was sent.
    Sent,
    /// From somebody who edited it: as tasks read it, or as it would have been sent.
    Edited,
}

/// What a gate says of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is fit to be read as it is.
    Passes,
    /// Tasks read what was appended in its place.
    Becomes,
    /// Nobody is to read it: what was looked for, where, what was found. Holds no secrets and at most
    /// [`REJECTION_BYTES_MAX`] bytes.
    Rejected(String),
}

/// Whoever a gate has to ask is away: a sentence with the cure, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// The longest that [`Gate::judge`] may block.
pub const JUDGE_WAIT: Duration = Duration::from_secs(5);

/// The longest sentence of a rejection, in bytes.
pub const REJECTION_BYTES_MAX: usize = 2_048;
