//! A source's settings: from what the manifest says to a place that can be listed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evermill_contract::manifest::{AWS_DEFAULT, FilesSource};
use evermill_contract::source::SourceError;
use glob::Pattern;
use sha2::{Digest as _, Sha256};

use super::bucket::{self, Bucket};
use super::folder::Folder;
use super::place::Place;
use crate::{Environment, limits};

/// What is looked at, and how often.
pub(super) struct Settings {
    pub(super) place: Arc<dyn Place>,
    pub(super) interval: Duration,
    pub(super) settle: Duration,
    pub(super) fire_on_start: bool,
    /// Tells this place from another one of the same source: that one has not been looked at yet.
    pub(super) mark: String,
}

impl Settings {
    /// # Errors
    /// [`SourceError::Refused`] naming the setting and the cure.
    pub(super) fn new(
        config: &FilesSource,
        environment: &Environment<'_>,
    ) -> Result<Self, SourceError> {
        let place = place(config, environment).map_err(SourceError::Refused)?;
        let settle = match place.shows_unfinished() {
            true => Duration::from_millis(config.settle_ms),
            false => Duration::ZERO,
        };
        let interval = Duration::from_millis(config.poke_interval_ms);
        Ok(Self {
            place,
            interval: interval.clamp(limits::FILES_POKE_MIN, limits::FILES_WAIT_MAX),
            settle: settle.min(limits::FILES_WAIT_MAX),
            fire_on_start: config.fire_on_start,
            mark: mark(config),
        })
    }
}

/// What no place of this kind could be, whatever the outside world is like.
///
/// # Errors
/// A sentence that names the setting, and the cure.
pub fn check(config: &FilesSource) -> Result<(), (String, &'static str)> {
    match scheme(config) {
        None => {}
        Some(bucket::SCHEME) => {
            let wrong = |(what, cure)| (format!("path {:?}: {what}", config.path), cure);
            bucket::split(in_bucket(&config.path)).map_err(wrong)?;
        }
        Some(other) => {
            let what = format!("path {:?}: files of {other}:// cannot be read", config.path);
            let cure = "write the path of a folder, such as /data/in, or s3://BUCKET/PREFIX";
            return Err((what, cure));
        }
    }
    let (_, pattern) = split(local(&config.path), config.pattern.as_deref())?;
    if let Some(pattern) = pattern {
        let what = |cause| format!("pattern {pattern:?}: {cause}");
        let cure = "write one such as *.csv, or **/*.csv for folders at any depth";
        Pattern::new(&pattern).map_err(|cause| (what(cause.to_string()), cure))?;
        let leaves = pattern.starts_with('/') || pattern.split('/').any(|part| part == "..");
        if leaves {
            let what = what("it leads out of the folder".to_owned());
            return Err((what, cure));
        }
    }
    Ok(())
}

fn place(config: &FilesSource, environment: &Environment<'_>) -> Result<Arc<dyn Place>, String> {
    check(config).map_err(|(what, cure)| format!("{what}; {cure}"))?;
    let (path, pattern) =
        split(local(&config.path), config.pattern.as_deref()).map_err(|(what, _)| what)?;
    if scheme(config) == Some(bucket::SCHEME) {
        let pattern = pattern.map(|pattern| Pattern::new(&pattern).expect("it was checked"));
        let id = config.connection.as_deref().unwrap_or(AWS_DEFAULT);
        let bucket = Bucket::open(in_bucket(path), pattern, id, environment.connection);
        return Ok(Arc::new(bucket.map_err(|error| error.to_string())?));
    }
    let path = match &config.connection {
        None => PathBuf::from(path),
        Some(id) => {
            let address = (environment.connection)(id).ok_or_else(|| {
                format!(
                    "connection {id:?} of path {path:?} is not set; pass --connection {id}=FOLDER"
                )
            })?;
            Path::new(local(&address)).join(path)
        }
    };
    let path = std::path::absolute(&path)
        .map_err(|cause| format!("path {:?}: {cause}", path.display().to_string()))?;
    let pattern = pattern.map(|pattern| Pattern::new(&pattern).expect("it was checked"));
    Ok(Arc::new(Folder::new(path, pattern)))
}

/// The scheme of a place that is no folder of ours.
fn scheme(config: &FilesSource) -> Option<&str> {
    config.scheme().filter(|scheme| *scheme != "file")
}

/// Bucket and prefix of a URL of S3.
fn in_bucket(path: &str) -> &str {
    path.split_once("://").map_or(path, |(_, rest)| rest)
}

fn local(path: &str) -> &str {
    path.strip_prefix("file://").unwrap_or(path)
}

/// A path with wildcards is a folder and a pattern.
fn split<'a>(
    path: &'a str,
    pattern: Option<&str>,
) -> Result<(&'a str, Option<String>), (String, &'static str)> {
    let is_wild = |part: &str| part.contains(['*', '?', '[']);
    let mut start = 0;
    for part in path.split_inclusive('/') {
        if is_wild(part) {
            let (folder, rest) = path.split_at(start);
            return match pattern {
                None => Ok((folder, Some(rest.to_owned()))),
                Some(pattern) => Err((
                    format!("path {path:?} has wildcards, and there is a pattern {pattern:?}"),
                    "leave one of them out",
                )),
            };
        }
        start += part.len();
    }
    Ok((path, pattern.map(str::to_owned)))
}

fn mark(config: &FilesSource) -> String {
    let asked = (&config.path, &config.pattern, &config.connection);
    let json = serde_json::to_vec(&asked).expect("a manifest is JSON");
    let digest = Sha256::digest(json);
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(more: serde_json::Value) -> FilesSource {
        let mut all = json!({"path": "/in"});
        let more = more.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(more);
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn wildcards_in_a_path_are_a_pattern() {
        let cases = [
            ("/in", ("/in", None)),
            ("/in/*.csv", ("/in/", Some("*.csv"))),
            ("/in/*/a/[0-9].csv", ("/in/", Some("*/a/[0-9].csv"))),
            ("*.csv", ("", Some("*.csv"))),
        ];
        for (path, (folder, pattern)) in cases {
            let found = split(path, None).unwrap();
            assert_eq!(found, (folder, pattern.map(str::to_owned)), "{path}");
        }
    }

    #[test]
    fn what_can_never_be_listed_is_said() {
        let cases = [
            (json!({"path": "gopher://bucket/in"}), "gopher"),
            (json!({"path": "s3://Bucket/in"}), "lower-case"),
            (json!({"path": "s3:///in"}), "s3://BUCKET/PREFIX"),
            (json!({"path": "/in/*", "pattern": "*.csv"}), "leave one"),
            (json!({"pattern": "a**"}), "pattern"),
            (json!({"pattern": "../*.csv"}), "leads out"),
            (json!({"pattern": "/etc/*"}), "leads out"),
        ];
        for (more, wanted) in cases {
            let (what, cure) = check(&config(more)).unwrap_err();
            let said = format!("{what}; {cure}");
            assert!(said.contains(wanted), "{said}");
        }
        for more in [
            json!({"path": "file:///in"}),
            json!({"path": "s3://bucket/in/**/*.csv"}),
            json!({"pattern": "**/*.csv"}),
        ] {
            check(&config(more)).unwrap();
        }
    }
}
