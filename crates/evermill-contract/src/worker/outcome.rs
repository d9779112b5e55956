//! How members end.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Consecutive members with the same outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct OutcomeRun {
    /// First member.
    pub first: u32,
    /// How many; 1 unless the outcome is a plain success, held, or an error that all share.
    pub count: u32,
    /// When the first of them started, on the machine's monotonic clock, in nanoseconds.
    pub started_ns: u64,
    /// When the last of them ended, same clock. Starts in between are about evenly spread.
    pub ended_ns: u64,
    /// How they ended.
    pub outcome: Outcome,
}

/// How a member ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The callable returned. `None` is a plain success: no result, no state, nothing else.
    Success(Option<Box<Success>>),
    /// The callable asked to be skipped.
    Skipped,
    /// A sensor's condition does not hold yet: ask again later, at this time (milliseconds since 1970) or
    /// after its interval.
    Waiting(Option<u64>),
    /// Not run: a member of the same scope failed before it ([`super::OrderMode::SkipSameKey`]).
    /// It did not use up a try.
    Held,
    /// The callable failed.
    Failed(Box<TaskError>),
}

/// What a success brings along.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Success {
    /// The returned value as JSON (docs/spec/frames.md, "values"); None for Python's None.
    pub result: Option<Bytes>,
    /// Number of elements if the value is a list or an object, for mapping (W9).
    pub map_len: Option<u32>,
    /// Values pushed under other names than `return_value`.
    pub xcoms: Vec<Xcom>,
    /// A branch callable's choice: task ids to follow.
    pub branch: Option<Vec<String>>,
    /// A short circuit's verdict: false skips what is downstream.
    pub proceed: Option<bool>,
    /// Changes of `ctx.state`, in order (W5).
    pub state_ops: Vec<StateOp>,
    /// What is said to other DAGs, in order.
    pub says: Vec<Emit>,
}

/// A message to the DAGs that listen to a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emit {
    /// The topic's name.
    pub topic: String,
    /// The message, encoded like a result.
    pub value: String,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A named value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xcom {
    /// Its name.
    pub key: String,
    /// Encoded like a result.
    pub value: Bytes,
}

/// One change of `ctx.state`. Values are JSON text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum StateOp {
    /// Set a value.
    Put {
        /// Name within the scope.
        name: String,
        /// New value.
        value: serde_json::Value,
    },
    /// Remove a value.
    Delete {
        /// Name within the scope.
        name: String,
    },
    /// Add a number; an absent value counts as 0. Mergeable.
    Incr {
        /// Name within the scope.
        name: String,
        /// What to add.
        by: serde_json::Number,
    },
    /// Keep the greater number. Mergeable.
    Max {
        /// Name within the scope.
        name: String,
        /// Candidate.
        value: serde_json::Number,
    },
    /// Add elements to a set, kept as a sorted list without duplicates. Mergeable.
    SetAdd {
        /// Name within the scope.
        name: String,
        /// Elements.
        values: Vec<serde_json::Value>,
    },
}

/// Why a member failed, in words for people and one kind for machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// What sort of failure.
    pub kind: TaskErrorKind,
    /// Name of the exception's class, with its module unless built in.
    pub class: String,
    /// The exception's text, capped.
    pub message: String,
    /// The traceback, capped in the middle.
    pub traceback: String,
    /// False if trying again cannot help: the callable said so, or its value cannot be kept.
    pub retryable: bool,
    /// The next try waits so long at least, milliseconds: somebody outside asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// What sort of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskErrorKind {
    /// The callable raised.
    Raised,
    /// The callable called `sys.exit` or raised `SystemExit` or `KeyboardInterrupt`.
    Exited,
    /// It ran longer than its timeout and was killed.
    Timeout,
    /// Its value cannot be written as JSON; the message names type and path.
    Unserialisable,
    /// Its value is larger than [`super::limits::RESULT_BYTES_MAX`].
    TooLarge,
    /// The DAG file or the task could not be loaded in the worker.
    Load,
}
