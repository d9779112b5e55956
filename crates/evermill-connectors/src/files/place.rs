//! Where files are: what every kind of place has to answer.

use serde_json::{Map, Value};

/// A place that can be listed. Its methods may block; they are called on a thread of their own, one at a
/// time.
pub(super) trait Place: Send + Sync {
    /// Everything in it that matches, in any order; at most so many.
    fn list(&self, most: usize) -> Listing;

    /// These again, in this order; `None` for one that is gone or is none of ours any more.
    fn look(&self, paths: &[String]) -> Vec<Option<Entry>>;

    /// Whether a file can be seen here before it is whole.
    fn shows_unfinished(&self) -> bool;

    /// How an event says where the file is: the fields of its content beside size, time and version.
    fn location(&self, entry: &Entry) -> Map<String, Value>;
}

/// One version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it is; the same for all of its versions, and unique over all places.
    pub(super) path: String,
    pub(super) size: u64,
    /// When it was changed last, nanoseconds since 1970.
    pub(super) modified_ns: i64,
    /// What tells it from every other version of the same path.
    pub(super) version: String,
}

/// What is in a place at some moment.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    /// Why it may be more than that: something could not be read, or was not there.
    pub(super) trouble: Option<String>,
    /// What is passed over and why, a sentence each.
    pub(super) passed_over: Vec<PassedOver>,
}

/// Something that is no file for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PassedOver {
    pub(super) why: Why,
    pub(super) path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// A link whose target is outside of the folder.
    LeadsOut,
    /// A name that is no text.
    NoText,
}
