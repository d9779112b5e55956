//! What an installation sets outside of DAG files: variables, connections, secrets.

use std::fmt;

use bytes::Bytes;

/// Finds them by name, whenever they are needed, so that a change counts from the next time on. Called
/// on the engine's own thread, too: answer from memory, or from a small file.
pub trait Settings: Send + Sync {
    /// A variable, as JSON; `None` when there is none.
    fn variable(&self, _name: &str) -> Option<Bytes> {
        None
    }

    /// Where a connection leads: an address with settings as a URL's query, and without references. `None`
    /// when nobody gave it an address.
    ///
    /// # Errors
    /// A sentence when there is one that cannot be read, without a word of it.
    fn connection(&self, id: &str) -> Result<Option<String>, String>;

    /// A secret; `None` when there is none of this name.
    ///
    /// # Errors
    /// As for a connection.
    fn secret(&self, name: &str) -> Result<Option<String>, String>;

    /// A text without what is secret; `None` when nothing of it is.
    fn mask(&self, _text: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

impl fmt::Debug for dyn Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings")
    }
}

/// Settings without any.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSettings;

impl Settings for NoSettings {
    fn connection(&self, _id: &str) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn secret(&self, _name: &str) -> Result<Option<String>, String> {
        Ok(None)
    }
}

/// The variable of the environment that a shell command finds a connection or a secret in: upper case, with
/// `_` for what no variable may have.
#[must_use]
pub fn variable_name(prefix: &str, name: &str) -> String {
    let fits = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    prefix.chars().chain(name.chars().map(fits)).collect()
}

/// What stands before a connection's id in the environment.
pub const CONNECTION_PREFIX: &str = "EVERMILL_CONNECTION_";
/// What stands before a secret's name in the environment.
pub const SECRET_PREFIX: &str = "EVERMILL_SECRET_";

/// Whether a variable of the environment is for the engine alone: no task gets it that has not asked.
#[must_use]
pub fn is_for_the_engine(variable: &str) -> bool {
    variable.starts_with(CONNECTION_PREFIX) || variable.starts_with(SECRET_PREFIX)
}
