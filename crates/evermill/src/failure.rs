//! How a command ends other than well: a sentence for people, an exit code for scripts.

use std::fmt;
use std::process::ExitCode;

/// Why a command failed. The codes are the contract's.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

/// The exit code of a second signal: 128 + SIGINT, as shells count.
pub(crate) const INTERRUPTED: i32 = 130;

impl Failure {
    /// Something failed or parked.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    /// The command line or the configuration asks for what cannot be.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
        }
    }

    /// A DAG file is invalid; the message holds every fault.
    pub(crate) fn dag_file(message: impl Into<String>) -> Self {
        Self {
            code: 3,
            message: message.into(),
        }
    }

    /// Somebody else has the data directory.
    pub(crate) fn locked(message: impl Into<String>) -> Self {
        Self {
            code: 4,
            message: message.into(),
        }
    }

    /// A service outside could not be reached.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self {
            code: 5,
            message: message.into(),
        }
    }

    /// Of which all was said already.
    pub(crate) fn quiet(self) -> Self {
        Self {
            message: String::new(),
            ..self
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
