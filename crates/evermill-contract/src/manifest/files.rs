//! Files that appear in a folder, or in a bucket.

use serde::{Deserialize, Serialize};

/// A place in which files appear. An event is a *version* of a file: a new one, or one that was replaced
/// or rewritten. That one went is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesSource {
    /// A folder or a file, or a URL. Wildcards in it are a pattern. A relative one counts from the folder
    /// of the DAG file when that is loaded, or from the connection's address.
    pub path: String,
    /// Which files below it: `*`, `?`, `[a-z]` within a name, `**` for folders at any depth. Without it,
    /// those in the folder itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The connection id that `--connection` and `EVERMILL_CONNECTION_*` give an address to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// Longest wait between two looks at the whole folder.
    #[serde(default = "ten_seconds", skip_serializing_if = "is_ten_seconds")]
    pub poke_interval_ms: u64,
    /// So long a file has to stay as it is before it counts as whole.
    #[serde(default = "one_second", skip_serializing_if = "is_one_second")]
    pub settle_ms: u64,
    /// Whether what is there at the very first look is an event.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub fire_on_start: bool,
}

impl FilesSource {
    /// Whether it names a place by a URL.
    #[must_use]
    pub fn scheme(&self) -> Option<&str> {
        self.path.split_once("://").map(|(scheme, _)| scheme)
    }

    /// Id of the connection it needs an address of. A bucket needs none but one that is named.
    #[must_use]
    pub fn needs(&self) -> Option<&str> {
        let id = self.connection.as_deref();
        match self.scheme() {
            Some("s3") => id.and_then(super::sqs::needed),
            _ => id,
        }
    }

    /// Makes a relative path one from this folder, unless a connection says where it begins.
    pub fn settle_in(&mut self, folder: &std::path::Path) {
        if self.connection.is_none() && self.scheme().is_none() {
            let whole = folder.join(&self.path);
            // What is not UTF-8 could not be written in a manifest.
            self.path = whole.to_string_lossy().into_owned();
        }
    }
}

const fn ten_seconds() -> u64 {
    10_000
}

const fn is_ten_seconds(ms: &u64) -> bool {
    *ms == ten_seconds()
}

const fn one_second() -> u64 {
    1_000
}

const fn is_one_second(ms: &u64) -> bool {
    *ms == one_second()
}

const fn yes() -> bool {
    true
}

const fn is_true(flag: &bool) -> bool {
    *flag
}
