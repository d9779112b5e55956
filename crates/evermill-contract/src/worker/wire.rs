//! What the frames of each kind hold. `docs/spec/frames.md` is the specification.

mod columns;
mod dispatch;
mod outcomes;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::frame::{self, Frame, FrameError, Kind, PROTOCOL};
use super::limits;
use super::{Answer, LogOrigin, Question};

pub use dispatch::{EncodedDispatch, encode_dispatch};
pub use outcomes::decode_outcomes;

/// The one codec so far: JSON as the standard libraries of both sides know it.
pub const CODEC_JSON: &str = "json";

/// First frame of a worker and of a fork server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions of the format it speaks.
    pub protocols: Vec<u32>,
    /// Codecs it has, best first.
    pub codecs: Vec<String>,
    /// Its process id.
    pub pid: u32,
    /// Version of the interpreter.
    pub python: String,
    /// Version of the SDK.
    pub sdk: String,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both speak.
    pub protocol: u32,
    /// The codec both have.
    pub codec: String,
    /// The bounds that the worker keeps.
    pub limits: Limits,
}

/// Bounds that a worker is told; see [`limits`].
#[expect(missing_docs, reason = "each field is the constant of the same name")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub frame_bytes_max: usize,
    pub control_bytes_max: usize,
    pub result_bytes_max: usize,
    pub error_message_bytes_max: usize,
    pub error_traceback_bytes_max: usize,
    pub log_head_bytes_max: usize,
    pub log_tail_bytes_max: usize,
    pub log_dispatch_bytes_max: usize,
    pub flush_interval_ms: u64,
    pub flush_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: limits::FRAME_BYTES_MAX,
            control_bytes_max: limits::CONTROL_BYTES_MAX,
            result_bytes_max: limits::RESULT_BYTES_MAX,
            error_message_bytes_max: limits::ERROR_MESSAGE_BYTES_MAX,
            error_traceback_bytes_max: limits::ERROR_TRACEBACK_BYTES_MAX,
            log_head_bytes_max: limits::LOG_HEAD_BYTES_MAX,
            log_tail_bytes_max: limits::LOG_TAIL_BYTES_MAX,
            log_dispatch_bytes_max: limits::LOG_DISPATCH_BYTES_MAX,
            flush_interval_ms: u64::try_from(limits::FLUSH_INTERVAL.as_millis())
                .unwrap_or(u64::MAX),
            flush_bytes: limits::FLUSH_BYTES,
        }
    }
}

impl Hello {
    /// What to answer.
    ///
    /// # Errors
    /// A sentence for people if there is no version or codec in common.
    pub fn welcome(&self) -> Result<Welcome, String> {
        if !self.protocols.contains(&PROTOCOL) {
            return Err(format!(
                "the Python SDK ({}) speaks frame format {:?}, this engine speaks {PROTOCOL}: \
                 install the SDK that came with the engine",
                self.sdk, self.protocols
            ));
        }
        if !self.codecs.iter().any(|codec| codec == CODEC_JSON) {
            return Err(format!(
                "the Python SDK ({}) offers no codec that the engine has",
                self.sdk
            ));
        }
        Ok(Welcome {
            protocol: PROTOCOL,
            codec: CODEC_JSON.into(),
            limits: Limits::default(),
        })
    }
}

/// A dispatch is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Members at the end that were not started.
    pub tail: u32,
}

/// The rest of a dispatch that runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// The first member that was not started.
    pub from: u32,
}

/// A task asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Call of the dispatch.
    pub dispatch: u32,
    /// Index of the member.
    pub member: u32,
    /// What it asks.
    pub question: Question,
}

/// Heads of log entries; their texts follow in the raw part, in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The entries.
    pub entries: Vec<LogEntry>,
}

/// One log entry: member (-1 for none), origin (`out`, `err` or a level from 1 to 255), bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry(pub i64, pub Origin, pub usize);

/// Where a log entry came from, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Origin {
    /// A level of `logging`.
    Level(u8),
    /// `out` or `err`.
    Stream(String),
}

/// A member's progress; the value is the raw part, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Index of the member.
    pub member: u32,
}

/// A worker is to be forked, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forked {
    /// Number of the worker, never used twice on a connection.
    pub worker: u32,
    /// Its process id; 0 in the request.
    pub pid: u32,
}

/// A worker process ended, and its group was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Number of the worker.
    pub worker: u32,
    /// Exit status, if it exited.
    pub exit: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

/// What to import in the fork server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preload {
    /// Path of the DAG file.
    pub entry: String,
    /// Folder that its imports are looked up in; None for the file's own.
    pub folder: Option<String>,
    /// DAG id.
    pub dag: String,
    /// Task id.
    pub task: String,
}

/// How an import went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preloaded {
    /// What it raised.
    pub error: Option<String>,
    /// Threads of the fork server afterwards; forking with more than one is not safe.
    pub threads: u32,
}

/// A small frame with only a control part.
///
/// # Panics
/// If the content does not fit a frame: it is ours and small.
#[must_use]
pub fn small(call: u32, kind: Kind, content: &impl Serialize) -> Vec<u8> {
    let control = serde_json::to_vec(content).expect("plain data");
    frame::encode(call, kind, &control, &[]).expect("small")
}

/// Decodes the control part of a frame.
///
/// # Errors
/// [`FrameError::Content`] if it does not say what its kind must say.
pub fn control<'a, T: Deserialize<'a>>(frame: &'a Frame) -> Result<T, FrameError> {
    serde_json::from_slice(&frame.control).map_err(|error| FrameError::Content {
        kind: frame.kind,
        reason: error.to_string(),
    })
}

#[derive(Serialize)]
struct AnswerControl<'a> {
    found: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a str>,
}

/// The frame that answers a question. A value that does not fit becomes a refusal.
#[must_use]
pub fn encode_answer(call: u32, answer: &Answer) -> Vec<u8> {
    let (content, raw) = match answer {
        Answer::Value(value) => (
            AnswerControl {
                found: true,
                refused: None,
            },
            &value[..],
        ),
        Answer::Missing => (
            AnswerControl {
                found: false,
                refused: None,
            },
            &[][..],
        ),
        Answer::Refused(reason) => (
            AnswerControl {
                found: false,
                refused: Some(reason),
            },
            &[][..],
        ),
    };
    let control = serde_json::to_vec(&content).expect("plain data");
    frame::encode(call, Kind::Answer, &control, raw).unwrap_or_else(|error| {
        let refused = error.to_string();
        small(
            call,
            Kind::Answer,
            &AnswerControl {
                found: false,
                refused: Some(&refused),
            },
        )
    })
}

/// The entries of a log frame: member, origin, text.
///
/// # Errors
/// [`FrameError::Content`] if heads and texts do not add up.
pub fn decode_log(frame: &Frame) -> Result<Vec<(Option<u32>, LogOrigin, Bytes)>, FrameError> {
    let malformed = |reason: &str| FrameError::Content {
        kind: frame.kind,
        reason: reason.into(),
    };
    let log: Log = control(frame)?;
    let mut entries = Vec::with_capacity(log.entries.len());
    let mut rest = frame.raw.clone();
    for LogEntry(member, origin, len) in log.entries {
        if len > rest.len() {
            return Err(malformed("entries are longer than the text"));
        }
        let origin = match origin {
            Origin::Level(level) => LogOrigin::Logging(level),
            Origin::Stream(name) if name == "out" => LogOrigin::Stdout,
            Origin::Stream(name) if name == "err" => LogOrigin::Stderr,
            Origin::Stream(_) => return Err(malformed("an entry's origin is not known")),
        };
        entries.push((u32::try_from(member).ok(), origin, rest.split_to(len)));
    }
    if rest.is_empty() {
        Ok(entries)
    } else {
        Err(malformed("text is left over"))
    }
}
