//! Plain structs for the faces: what `ps`, `--json`, the API and the UI show.
//!
//! Counters are those of the last commit: readers see committed state only (C8).

use serde::Serialize;

/// Everything worth showing, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EngineView {
    /// Every run that is not over, and those that ended while this engine was open.
    pub runs: Vec<RunView>,
    /// The workers.
    pub workers: WorkersView,
    /// Lines of task output that were dropped because the log sink was too slow.
    pub log_lines_lost: u64,
    /// Reports of attempts under an old fence, refused (C5).
    pub refused_reports: u64,
    /// Times the shard was dropped and reloaded since the engine opened.
    pub reloads: u32,
    /// Set while nothing can be committed, such as a full disk; a sentence with the cure.
    pub stalled: Option<String>,
}

impl EngineView {
    /// The run named by a DAG id (its latest run) or a run id.
    #[must_use]
    pub fn run(&self, dag_or_run: &str) -> Option<&RunView> {
        let by_id = self.runs.iter().find(|run| run.run == dag_or_run);
        by_id.or_else(|| self.runs.iter().rev().find(|run| run.dag == dag_or_run))
    }
}

/// One run, with the field names of the JSON lines in the contract.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunView {
    /// DAG id.
    pub dag: String,
    /// Run id.
    pub run: String,
    /// Version: 64 lower-case hexadecimal digits.
    pub version: String,
    /// `starting`, `running`, `paused`, `draining`, `drained`, `stopped`, `finished` or `failed`.
    pub state: &'static str,
    /// Events taken in; `in = done + skipped + parked + dropped + in_flight`.
    #[serde(rename = "in")]
    pub taken_in: u64,
    /// Settled well.
    pub done: u64,
    /// Settled with every leaf skipped.
    pub skipped: u64,
    /// Kept after failure.
    pub parked: u64,
    /// Given up.
    pub dropped: u64,
    /// Neither settled nor parked.
    pub in_flight: u64,
    /// Arrival to callable, milliseconds; `None` until something was measured.
    pub latency_ms: Percentiles,
    /// Arrival to committed, milliseconds.
    pub commit_ms: Percentiles,
    /// Its tasks, in order of declaration.
    pub tasks: Vec<TaskView>,
    /// Its sources, in order of declaration.
    pub sources: Vec<SourceView>,
}

/// One task of a run: attempts of it that ended since this engine opened, by how they did. A task
/// without a callable has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TaskView {
    /// The task's id.
    pub id: String,
    /// Attempts that succeeded.
    pub succeeded: u64,
    /// Attempts that ended as skipped by their own word.
    pub skipped: u64,
    /// Attempts that failed, whether they are tried again or not.
    pub failed: u64,
    /// Members that are with workers at the moment, those that wait there included.
    pub running: u64,
}

/// Two points of a distribution, milliseconds, about 3 % wide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of all values are at most this.
    pub p50: Option<f64>,
    /// 99 of 100 values are at most this.
    pub p99: Option<f64>,
}

/// One source of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SourceView {
    /// The source's id.
    pub id: String,
    /// Every lane found has a committed position and was read up to its end at least once.
    pub ready: bool,
    /// What is wrong with the outside world at the moment, with the cure.
    pub degraded: Option<String>,
    /// Set when the source has ended and will not deliver any more: why.
    pub ended: Option<String>,
    /// Its lanes, by name.
    pub lanes: Vec<LaneView>,
}

/// One lane of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LaneView {
    /// The source's name for it, such as `orders/3`.
    pub name: String,
    /// Next position to read that is durable with everything below it.
    pub position: Option<u64>,
    /// Positions still to be read, where the source can tell.
    pub behind: Option<u64>,
    /// Why the lane stands still: a gap or another history.
    pub stopped: Option<String>,
}

/// The executor's slots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WorkersView {
    /// Slots there are.
    pub slots: u16,
    /// Slots with a live worker.
    pub ready: u16,
    /// Dispatches that are out.
    pub dispatches: u32,
    /// Why no worker can be had at the moment, with the cure.
    pub unavailable: Option<String>,
}

/// A parked activation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParkedView {
    /// How to name it in [`crate::Handle::redrive`] and [`crate::Handle::discard`].
    #[serde(skip)]
    pub key: evermill_core::command::ActivationKey,
    /// The same as text: `SOURCE/LANE/POSITION` or with `/CHILD` behind it.
    pub id: String,
    /// Source id.
    pub source: String,
    /// Lane name.
    pub lane: String,
    /// Position of its (first) event.
    pub position: u64,
    /// The task that failed, or why it was parked without one.
    pub task: Option<String>,
    /// What to show: the error's text.
    pub error: String,
}
