//! Alerts: what somebody may want to be told of while nobody looks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an alert is about.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// Where alerts go.
pub type AlertSink = Arc<dyn AlertTaker>;

/// Takes alerts. Called on the engine's own thread: nothing but [`AlertTaker::finish`] may wait.
pub trait AlertTaker: Send + Sync {
    /// Whether anybody is to be told of this one.
    fn wants(&self, alert: &Alert) -> bool;

    /// Takes one that is durable. It is told again after the next start unless the receipt says that it
    /// need not be.
    fn take(&self, alert: &Alert, receipt: Receipt);

    /// The engine ends: tells what is left, once, and returns when that is over.
    fn finish(&self) {}
}

impl<F: Fn(&Alert) + Send + Sync> AlertTaker for F {
    fn wants(&self, _: &Alert) -> bool {
        true
    }

    fn take(&self, alert: &Alert, receipt: Receipt) {
        self(alert);
        receipt.told();
    }
}

/// Nobody is told of anything.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl AlertTaker for Nobody {
    fn wants(&self, _: &Alert) -> bool {
        false
    }

    fn take(&self, _: &Alert, receipt: Receipt) {
        receipt.told();
    }
}

/// Says that an alert need not be told again, once every clone of it was [`Receipt::told`]. One that is
/// dropped says nothing.
#[derive(Clone)]
pub struct Receipt {
    told: bool,
    all: Arc<All>,
}

struct All {
    lost: AtomicBool,
    say: Box<dyn Fn() + Send + Sync>,
}

impl Receipt {
    /// `say` is called once, on whatever thread the last clone goes.
    pub fn new(say: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            told: false,
            all: Arc::new(All {
                lost: AtomicBool::new(false),
                say: Box::new(say),
            }),
        }
    }

    /// Whoever had this clone has been told, or never will be.
    pub fn told(mut self) {
        self.told = true;
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.told {
            self.all.lost.store(true, Ordering::Release);
        }
    }
}

impl Drop for All {
    fn drop(&mut self) {
        if !*self.lost.get_mut() {
            (self.say)();
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}

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

    #[test]
    fn a_receipt_speaks_when_everybody_was_told_and_not_when_one_is_dropped() {
        let said = Arc::new(AtomicBool::new(false));
        let receipt = || {
            let said = Arc::clone(&said);
            Receipt::new(move || said.store(true, Ordering::Release))
        };
        let (first, second) = (receipt(), receipt());
        let also_first = first.clone();
        first.told();
        assert!(!said.load(Ordering::Acquire), "one is still to be told");
        drop(also_first);
        assert!(!said.load(Ordering::Acquire), "one was lost");
        second.clone().told();
        second.told();
        assert!(said.load(Ordering::Acquire));
    }
}
