//! Alerts: what somebody may want to be told of while nobody looks.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// Activations are later than `deadline=` allows (W13).
    DeadlineMissed,
    /// A source made no progress for as long as `freshness=` says.
    FreshnessMissed,
    /// Activations gave up and are kept (W10).
    Parked,
    /// A run has failed: its policy, or its loop, said so.
    RunFailed,
    /// Something is wrong with the outside world of a source; it goes on trying.
    SourceDegraded,
    /// A source did not answer any more and was opened again.
    SourceStalled,
    /// A source has ended and delivers nothing any more.
    SourceEnded,
    /// A lane stands still: positions of it can no longer be read.
    LaneStopped,
    /// Nothing happened: somebody looks whether alerts arrive.
    Test,
}

impl AlertKind {
    /// Every kind that something causes.
    pub const ALL: [Self; 8] = [
        Self::DeadlineMissed,
        Self::FreshnessMissed,
        Self::Parked,
        Self::RunFailed,
        Self::SourceDegraded,
        Self::SourceStalled,
        Self::SourceEnded,
        Self::LaneStopped,
    ];

    /// Its word in files and messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::DeadlineMissed => "deadline_missed",
            Self::FreshnessMissed => "freshness_missed",
            Self::Parked => "parked",
            Self::RunFailed => "run_failed",
            Self::SourceDegraded => "source_degraded",
            Self::SourceStalled => "source_stalled",
            Self::SourceEnded => "source_ended",
            Self::LaneStopped => "lane_stopped",
            Self::Test => "test",
        }
    }

    /// The kind of this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One alert; the JSON of hooks, and of the events of `evermill.alerts(...)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Tells alerts apart: the same one told twice has the same id.
    pub id: String,
    /// What it is about.
    pub kind: AlertKind,
    /// When it was raised, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// DAG id.
    pub dag: String,
    /// Run id.
    pub run: String,
    /// Source id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Lane name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Position of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Task id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Activations it stands for, at least 1; of several the place is that of one.
    pub count: u64,
    /// A sentence for people.
    pub text: String,
}

/// Where alerts go. Called on the engine's own thread: it may not wait.
pub type AlertSink = Arc<dyn Fn(&Alert) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_json_and_lead_back() {
        for kind in AlertKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
            assert_eq!(AlertKind::of(kind.word()), Some(kind));
        }
    }
}
