//! Trigger rules as boolean algebra over upstream bitsets.
//!
//! A verdict is a function of the *final* states of all direct upstreams; it is given early only
//! when no further completion could change it, so grouping and timing never show. The truth table
//! with examples is `docs/spec/trigger-rules.md`. Names are Airflow's, with its legacy aliases.

use serde::{Deserialize, Serialize};

/// When a task runs, given how its direct upstreams ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the variants are Airflow's names; the truth table defines them"
)]
pub enum TriggerRule {
    #[default]
    AllSuccess,
    AllFailed,
    AllDone,
    AllSkipped,
    OneSuccess,
    OneFailed,
    OneDone,
    NoneFailed,
    #[serde(alias = "none_failed_or_skipped")]
    NoneFailedMinOneSuccess,
    NoneSkipped,
    #[serde(alias = "dummy")]
    Always,
    AllDoneMinOneSuccess,
    AllDoneSetupSuccess,
}

/// What is known about the direct upstreams of 64 members: one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upstreams {
    /// Some upstream succeeded.
    pub success: u64,
    /// Some upstream failed.
    pub failed: u64,
    /// Some upstream could not run because of a failure above it.
    pub upstream_failed: u64,
    /// Some upstream was skipped.
    pub skipped: u64,
    /// Every upstream is final.
    pub done: u64,
    /// Among setup upstreams only: some succeeded.
    pub setup_success: u64,
    /// Among setup upstreams only: some ended other than skipped.
    pub setup_not_skipped: u64,
    /// The task has a setup upstream at all (all ones or all zeros).
    pub has_setup: u64,
}

/// Verdicts for 64 members; the three are disjoint, and a bit in none of them means "not yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdicts {
    /// The task runs.
    pub run: u64,
    /// The task is skipped.
    pub skip: u64,
    /// The task cannot run because of a failure above it.
    pub upstream_failed: u64,
}

impl TriggerRule {
    /// Every rule, in the order of the truth table.
    pub const ALL: [Self; 13] = [
        Self::AllSuccess,
        Self::AllFailed,
        Self::AllDone,
        Self::AllSkipped,
        Self::OneSuccess,
        Self::OneFailed,
        Self::OneDone,
        Self::NoneFailed,
        Self::NoneFailedMinOneSuccess,
        Self::NoneSkipped,
        Self::Always,
        Self::AllDoneMinOneSuccess,
        Self::AllDoneSetupSuccess,
    ];

    /// The rule of this name, Airflow's legacy aliases included.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "all_success" => Self::AllSuccess,
            "all_failed" => Self::AllFailed,
            "all_done" => Self::AllDone,
            "all_skipped" => Self::AllSkipped,
            "one_success" => Self::OneSuccess,
            "one_failed" => Self::OneFailed,
            "one_done" => Self::OneDone,
            "none_failed" => Self::NoneFailed,
            "none_failed_min_one_success" | "none_failed_or_skipped" => {
                Self::NoneFailedMinOneSuccess
            }
            "none_skipped" => Self::NoneSkipped,
            "always" | "dummy" => Self::Always,
            "all_done_min_one_success" => Self::AllDoneMinOneSuccess,
            "all_done_setup_success" => Self::AllDoneSetupSuccess,
            _ => return None,
        })
    }

    /// Judges 64 members at once.
    #[must_use]
    pub const fn judge(self, up: &Upstreams) -> Verdicts {
        let (s, f, u, k, d) = (
            up.success,
            up.failed,
            up.upstream_failed,
            up.skipped,
            up.done,
        );
        let bad = f | u;
        let (run, skip, upstream_failed) = match self {
            Self::AllSuccess => (d & !bad & !k, d & !bad & k, bad),
            Self::AllFailed => (d & !s & !k, s | k, 0),
            Self::AllDone => (d, 0, 0),
            Self::AllSkipped => (d & !s & !bad, s | bad, 0),
            Self::OneSuccess => (s, d & !s & !bad, d & !s & bad),
            Self::OneFailed => (bad, d & !bad, 0),
            Self::OneDone => (s | f, d & !s & !f, 0),
            Self::NoneFailed => (d & !bad, 0, bad),
            Self::NoneFailedMinOneSuccess => (d & !bad & s, d & !bad & !s, bad),
            Self::NoneSkipped => (d & !k, k, 0),
            Self::Always => (!0, 0, 0),
            Self::AllDoneMinOneSuccess => (d & !k & s, k, d & !k & !s),
            Self::AllDoneSetupSuccess => {
                let judged = d & up.has_setup;
                let all_skipped = judged & !up.setup_not_skipped;
                let none_succeeded = judged & up.setup_not_skipped & !up.setup_success;
                (
                    d & !all_skipped & !none_succeeded,
                    all_skipped,
                    none_succeeded,
                )
            }
        };
        Verdicts {
            run,
            skip,
            upstream_failed,
        }
    }
}
