//! Why a closure did not succeed.

/// Why a closure failed, or that it has nothing to do. Every error becomes one by `?`.
#[derive(Debug)]
pub struct Failure {
    pub(super) message: String,
    pub(super) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Failed,
    ForGood,
    Skip,
}

impl Failure {
    /// A failure that may be tried again.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::Failed,
        }
    }

    /// A failure that no further try can help.
    #[must_use]
    pub fn for_good(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::ForGood,
        }
    }

    /// There is nothing to do for this event: the task ends as skipped.
    #[must_use]
    pub fn skip() -> Self {
        Self {
            message: String::new(),
            kind: Kind::Skip,
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}
