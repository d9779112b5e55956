//! Writing objects of a bucket: one request each. An object is there whole or not at all, and the same
//! again under the same key changes nothing.

use std::time::Instant;

use evermill_contract::manifest::FileSink as Config;
use evermill_contract::sink::{Record, SinkError, content_type};
use evermill_contract::source::SourceError;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::bucket::{self, split};
use crate::aws::{self, Client, Fault, Kind, Service, Settings};
use crate::limits;
use crate::side_by_side::{Attempt, until};

/// The header of an object that carries the effect key.
const EFFECT_KEY: &str = "x-amz-meta-evermill-effect-key";
/// A key that is longer is no key of S3's, in bytes.
const KEY_BYTES_MAX: usize = 1_024;

/// What stands for itself in a path that is signed.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A bucket being written to.
pub(super) struct Objects {
    client: Client,
    bucket: String,
}

impl Objects {
    /// Prepares to write; nothing is connected yet.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub(super) fn open(
        config: &Config,
        find: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SourceError> {
        let path = config.in_bucket().unwrap_or_default();
        let (bucket, _) =
            split(path).map_err(|(what, cure)| SourceError::Refused(format!("{what}; {cure}")))?;
        let settings = Settings::find(&config.connection, find)?;
        Ok(Self {
            client: Client::new(Service::S3, settings, aws::Place::default())?,
            bucket: bucket.to_owned(),
        })
    }

    pub(super) fn put(&self, record: &Record, end: Instant) -> Result<(), SinkError> {
        let name = record.name.as_deref().unwrap_or_default();
        let begins = format!("{}://{}/", bucket::SCHEME, self.bucket);
        let key = name.strip_prefix(&begins).unwrap_or_default();
        let is_plain = |part: &str| !matches!(part, "" | "." | "..");
        if key.len() > KEY_BYTES_MAX || !key.split('/').all(is_plain) {
            return Err(SinkError::ForGood(format!(
                "{name:?} is no object of bucket {:?}: a key has 1 to {KEY_BYTES_MAX} bytes, and no part of it is empty or leads elsewhere",
                self.bucket
            )));
        }
        let path = format!("/{}/{}", self.bucket, utf8_percent_encode(key, PLAIN));
        let value = record.value.as_deref().unwrap_or_default();
        let sort = content_type(value, record.is_list).to_owned();
        let mut headers = vec![("content-type".to_owned(), sort)];
        let effect = record.effect_key.clone();
        headers.extend(effect.map(|key| (EFFECT_KEY.to_owned(), key)));
        until(end, limits::SQS_AGAIN, limits::SQS_AGAIN_MAX, |left| {
            let timeout = left.min(limits::S3_PUT);
            let put = self
                .client
                .put("PutObject", &path, &headers, value, timeout);
            match put.map_err(|fault| bucket::explain(&self.bucket, &self.client, fault)) {
                Ok(()) => Attempt::Over(Ok(())),
                Err(fault) => judge(fault),
            }
        })
    }
}

fn judge(fault: Fault) -> Attempt {
    match fault.kind {
        Kind::Throttled | Kind::Away => Attempt::Again(fault.said),
        _ if is_content(&fault.said) => Attempt::Over(Err(SinkError::ForGood(fault.said))),
        // A bucket is made, a right given, a region or a clock set: it is right for the same object.
        _ => Attempt::Over(Err(SinkError::MayPass(fault.said))),
    }
}

/// Whether an object was refused for what it is.
fn is_content(said: &str) -> bool {
    ["EntityTooLarge", "KeyTooLong", "MetadataTooLarge"]
        .iter()
        .any(|code| said.contains(code))
}
