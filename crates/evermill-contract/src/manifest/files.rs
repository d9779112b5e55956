//! Files that appear in a folder, or in a bucket, and those that are written there.

use serde::{Deserialize, Serialize};

use crate::template::Template;

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

/// A folder or a bucket to write to: one file per member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSink {
    /// The path of a file, or `s3://BUCKET/KEY`; a [`Template`]. A relative one counts from the folder of
    /// the DAG file when that is loaded.
    pub path: String,
    /// The connection id that `--connection` and `EVERMILL_CONNECTION_*` give settings of a bucket to.
    #[serde(
        default = "super::sqs::aws_default",
        skip_serializing_if = "super::sqs::is_aws_default"
    )]
    pub connection: String,
    /// The task whose result is written; without it, the event's content is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<String>,
    /// What `{key}` is: `event` for the event's own key, `none`, or a JSON pointer into the value.
    #[serde(
        default = "super::sink::of_event",
        skip_serializing_if = "super::sink::is_of_event"
    )]
    pub key: String,
}

impl FileSink {
    /// Bucket and key, if it is a bucket that is written to.
    #[must_use]
    pub fn in_bucket(&self) -> Option<&str> {
        self.path.strip_prefix("s3://")
    }

    /// The connection it needs settings of: any but the default one, of a bucket.
    #[must_use]
    pub fn needs(&self) -> Option<&str> {
        self.in_bucket()
            .and_then(|_| super::sqs::needed(&self.connection))
    }

    /// Makes a relative path one from this folder.
    pub fn settle_in(&mut self, folder: &std::path::Path) {
        if !self.path.contains("://") {
            self.path = folder.join(&self.path).to_string_lossy().into_owned();
        }
    }
}

/// What is wrong with the path of a [`FileSink`], if something is.
///
/// # Errors
/// What may be written instead.
pub fn check_file_path(path: &str) -> Result<(), String> {
    const CURE: &str = "write a file's path such as out/{date}/{effect_key}.json, or s3://BUCKET/out/{effect_key}.json";
    let template = Template::parse(path)?;
    if template.holes().next().is_none() {
        return Err(format!(
            "each event would write over the one before; {CURE}"
        ));
    }
    if path.ends_with('/') || path.ends_with("/..") || path.ends_with("/.") {
        return Err(format!("it ends with a folder; {CURE}"));
    }
    match path.split_once("://") {
        None => Ok(()),
        Some(("s3", rest)) => {
            let (bucket, _) = rest.split_once('/').unwrap_or((rest, ""));
            let legal = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)
            };
            let is_bucket = (3..=63).contains(&bucket.len()) && bucket.bytes().all(legal);
            is_bucket.then_some(()).ok_or_else(|| {
                "write s3://BUCKET/KEY; a bucket's name has 3 to 63 lower-case letters, digits, '.' and '-', and no braces"
                    .to_owned()
            })
        }
        Some((scheme, _)) => Err(format!("files of {scheme}:// cannot be written; {CURE}")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_to_write_has_a_name_of_its_own_for_each_and_a_bucket_that_nobody_else_chooses() {
        for good in [
            "{effect_key}",
            "/data/out/{date}/{/customer/id}.json",
            "s3://bucket-1/{key}",
        ] {
            assert_eq!(check_file_path(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/data/out.json",
            "/data/{date}/",
            "s3://{key}/a",
            "s3://Bucket/{key}",
            "gopher://a/{key}",
            "/data/{id}",
        ] {
            assert!(check_file_path(bad).is_err(), "{bad}");
        }
    }
}
