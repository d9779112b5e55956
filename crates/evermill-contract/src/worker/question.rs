//! What tasks ask in mid-call, and the answers (W11).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::source::Arrival;

/// A question of a running member. Reads see committed values plus the asker's own writes; the
/// worker has sent every outcome before it asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Question {
    /// Results of other tasks in the same activation.
    XcomPull {
        /// Whose; the answer is null for a task without that value.
        task_id: String,
        /// `return_value` unless told otherwise.
        key: String,
        /// One mapped instance; None asks for the only value, or the list of all instances.
        #[serde(default)]
        map_index: Option<i32>,
    },
    /// A value of `ctx.state` in the member's scope.
    StateGet {
        /// Name within the scope.
        name: String,
    },
    /// How the activation of another DAG for an instant ended: an object of its `state` and of its
    /// `tasks`. Nothing as long as it has not.
    Ended {
        /// The other DAG.
        dag: String,
        /// The instant, milliseconds since 1970.
        at_ms: i64,
    },
    /// A variable of the installation.
    Variable {
        /// Its name.
        name: String,
    },
    /// What the task's own function says of what it got from outside. Only slots that run no code of
    /// anybody ask so; it travels to no worker as a question.
    #[serde(skip)]
    Judge {
        /// The option the function was given as.
        function: String,
        /// What is judged.
        about: Box<Arrival>,
    },
    /// A connection's address, as text; the task has to declare it.
    Connection {
        /// Its id, such as `kafka_default`.
        conn_id: String,
    },
    /// A secret, as text; the task has to declare it.
    Secret {
        /// Its name.
        name: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The value, as JSON.
    Value(Bytes),
    /// There is none; the caller gets its default or a `KeyError`.
    Missing,
    /// It cannot be said; the task sees this sentence in an exception.
    Refused(String),
}
