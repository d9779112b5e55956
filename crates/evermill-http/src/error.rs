//! Why a request has no answer.

use std::time::Duration;

/// Why a request has no answer. Texts hold no secrets: neither headers nor queries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What was asked cannot work as it stands, or is not allowed. Asking again changes nothing.
    #[error("{0}")]
    Refused(String),
    /// The answer is larger than may be read. Asking again hardly changes that.
    #[error("{place}: the answer has more than {bytes_max} bytes")]
    TooLarge {
        /// Who answered.
        place: String,
        /// The bound, after decompression.
        bytes_max: usize,
    },
    /// There was no whole answer in time.
    #[error("{place}: no answer within {after:?}")]
    Timeout {
        /// Who was asked.
        place: String,
        /// The bound.
        after: Duration,
    },
    /// There was no connection, or what came over it was no HTTP.
    #[error("{place}: {why}")]
    Unreachable {
        /// Who was asked.
        place: String,
        /// What happened.
        why: String,
    },
}

impl Error {
    /// Whether asking again could have another end.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Unreachable { .. })
    }
}
