//! Files that appear in a folder or a bucket.

use std::time::Duration;

use serde_json::{Value, json};

use super::Source;

/// A place whose files a DAG listens to.
#[derive(Debug, Clone)]
pub struct Files {
    config: Value,
}

/// A folder by its path, or a bucket as `s3://bucket/prefix`: each version of each file is an event, once.
#[must_use]
pub fn place(path: &str) -> Files {
    Files {
        config: json!({"kind": "files", "path": path}),
    }
}

impl Files {
    /// Which files, such as `*.csv` or `**/*.csv`; those in the folder itself unless said.
    #[must_use]
    pub fn pattern(mut self, pattern: &str) -> Self {
        self.config["pattern"] = json!(pattern);
        self
    }

    /// The longest wait between two looks.
    #[must_use]
    pub fn poke_interval(mut self, wait: Duration) -> Self {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.config["poke_interval_ms"] = json!(ms);
        self
    }
}

impl From<Files> for Source {
    fn from(files: Files) -> Self {
        Self::of(files.config)
    }
}
