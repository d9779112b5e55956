//! What can be wrong with a file of secrets; never with a word of one.

use std::path::{Path, PathBuf};

/// Why a secret cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{path}: {cause}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Others may read what is to be read by its owner alone.
    #[error("{path} can be read by others (mode {mode:03o}); `chmod 600 {path}`")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is no file of secrets, or of a later version.
    #[error("{path} is no file of secrets that this version reads: {why}")]
    Shape {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key is not the one that the values were sealed with.
    #[error(
        "the secrets in {path} were sealed with the key {wanted}, and this is the key {given}; \
         set EVERMILL_SECRET_KEY to the former, or bring its file back"
    )]
    Key {
        /// Which file.
        path: PathBuf,
        /// The name of the right key.
        wanted: String,
        /// The name of the one that was given.
        given: String,
    },
    /// A value was changed, or stands under another's name.
    #[error("{path}: '{name}' was changed since it was kept, or is another's; set it again")]
    Changed {
        /// Which file.
        path: PathBuf,
        /// Whose.
        name: String,
    },
    /// It cannot be kept.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    pub(crate) fn io(path: &Path, cause: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            cause,
        }
    }
}
