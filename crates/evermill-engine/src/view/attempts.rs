//! Attempts: which worker had which try, since when, and what came of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An attempt that is with a worker, failed, or came after one that did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptView {
    /// Task id.
    pub task: String,
    /// Lane name.
    pub lane: String,
    /// Position of the activation's (first) event.
    pub position: u64,
    /// Which part of a batch of a source, for one that was split off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<u32>,
    /// Which instance of a mapped task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_index: Option<u32>,
    /// Times the activation was run again after it was parked.
    pub round: u32,
    /// Which try, from 1.
    pub try_number: u32,
    /// What came of it.
    pub state: AttemptState,
    /// Who ran it; `None` for an event that no worker was to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
    /// When it was sent there, milliseconds since the Unix epoch: it may have waited behind others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_ms: Option<u64>,
    /// When the task's own code began, likewise; of one that is under way or was cut off it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// When it ended, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// The first line of its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// It is with a worker: it runs there, or waits for its turn.
    Sent,
    /// It succeeded, after others had failed.
    Success,
    /// It said that it is to be skipped, likewise.
    Skipped,
    /// It failed.
    Failed,
    /// Its worker ended while it ran.
    CutOff,
}

/// A worker, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerName {
    /// Its slot, from 0.
    pub slot: u16,
    /// Its process id; a task in Rust runs in the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}
