//! Plain structs for the faces: what `ps`, `--json`, the API and the UI show.
//!
//! Counters are those of the last commit: readers see committed state only (C8).

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use evermill_contract::alert::Alert;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod attempts;
mod versions;

pub use self::attempts::{AttemptState, AttemptView, WorkerName};
pub use self::versions::{
    Change, EdgeChange, FileChange, NodeChange, OptionChange, VersionDiff, VersionState,
    VersionView,
};

/// Everything worth showing, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EngineView {
    /// Every run that is not over, and those that ended while this engine was open.
    pub runs: Vec<RunView>,
    /// The workers.
    pub workers: WorkersView,
    /// Lines of task output that are lost: they came faster than they are written, or the disk was full.
    pub log_lines_lost: u64,
    /// Settled activations that no collector of traces was told of, as there were more than are told in a second.
    #[serde(default)]
    pub traces_left_out: u64,
    /// Those it was not told of as it was slow or away, or refused them.
    #[serde(default)]
    pub traces_lost: u64,
    /// Reports of attempts under an old fence, refused (C5).
    pub refused_reports: u64,
    /// Times the shard was dropped and reloaded since the engine opened.
    pub reloads: u32,
    /// Set while nothing can be committed, such as a full disk; a sentence with the cure.
    pub stalled: Option<String>,
    /// What else there is to say, such as a DAG file that is broken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<NoteView>,
}

/// Something that somebody should know, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoteView {
    /// What it is about.
    pub kind: NoteKind,
    /// A sentence.
    pub text: String,
}

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// The folder of DAG files cannot be read.
    FolderUnreadable,
    /// A DAG file is in error; what was served of it goes on.
    FileInError,
    /// What a DAG's file says is not served.
    NotServed,
    /// A DAG's file is gone; its run goes on.
    Retired,
    /// Events are kept for a source that the DAG has no more.
    EventsLeft,
}

impl EngineView {
    /// The run named by a DAG id (its latest run) or a run id.
    #[must_use]
    pub fn run(&self, dag_or_run: &str) -> Option<&RunView> {
        let by_id = self.runs.iter().find(|run| run.run == dag_or_run);
        by_id.or_else(|| self.runs.iter().rev().find(|run| run.dag == dag_or_run))
    }
}

/// The word for a run's state; see [`RunView::state`].
pub type StateName = &'static str;

/// One run, with the field names of the JSON lines in the contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunView {
    /// DAG id.
    pub dag: String,
    /// Run id.
    pub run: String,
    /// Version: 64 lower-case hexadecimal digits.
    pub version: String,
    /// `starting`, `running`, `paused`, `draining`, `drained`, `stopped`, `finished` or `failed`.
    #[serde(deserialize_with = "known_state")]
    #[schemars(with = "String", extend("enum" = STATES))]
    pub state: StateName,
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
    /// Activations that missed a deadline.
    #[serde(default)]
    pub deadlines_missed: u64,
    /// Tasks of activations that wait for a signal, such as somebody's answer.
    #[serde(default)]
    pub awaiting: u64,
    /// Activations that wait outside waves: a retry, a sensor, an earlier one of their order.
    #[serde(default)]
    pub waiting: u64,
    /// What a worker has been at for the longest, if for longer than [`crate::limits::LONG_WORK`].
    #[serde(default)]
    pub longest: Option<LongWorkView>,
    /// Its tasks, in order of declaration.
    #[serde(default)]
    pub tasks: Arc<[TaskView]>,
    /// Its sources, in order of declaration.
    pub sources: Vec<SourceView>,
    /// Replays and backfills of it that have not come to their end.
    #[serde(default)]
    pub replays: Vec<ReplayView>,
}

/// A stretch that is read again, or was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayView {
    /// Its number within the run.
    pub replay: u32,
    /// `replay` or `backfill`.
    pub kind: String,
    /// `running`, `paused`, `done`, `stopped`, or `ended` with its run.
    pub state: String,
    /// The source's id.
    pub source: String,
    /// When it was asked for, milliseconds since the Unix epoch.
    pub asked_ms: u64,
    /// Its effect keys are its own.
    pub new_effect_keys: bool,
    /// Its tasks change state.
    pub with_state: bool,
    /// Positions of all its lanes that are settled or wait in rows of their own ...
    pub done: u64,
    /// ... of so many.
    pub total: u64,
    /// Why it does not get on, if so.
    pub trouble: Option<String>,
    /// Its lanes.
    pub lanes: Vec<ReplayLaneView>,
}

/// A lane of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayLaneView {
    /// The lane that is read again.
    pub name: String,
    /// First position.
    pub from: u64,
    /// The first position behind it, as it was asked for.
    pub to: u64,
    /// Everything below is settled or waits in a row of its own.
    pub position: u64,
    /// Its events that are under way.
    pub in_flight: u64,
}

/// That somebody moved the live position of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResetView {
    /// Source id.
    pub source: String,
    /// Lane name.
    pub lane: String,
    /// Where it stood.
    pub from: u64,
    /// Where it went on.
    pub to: u64,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who said so.
    pub by: String,
}

/// One run, with what explains its counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunDetail {
    /// The run.
    #[serde(flatten)]
    pub run: RunView,
    /// As [`EngineView::stalled`].
    #[serde(default)]
    pub stalled: Option<String>,
    /// The latest activations that missed a deadline, newest first, since this process began; at most
    /// [`crate::limits::MISSES_KEPT`].
    #[serde(default)]
    pub misses: Vec<MissView>,
    /// The latest alerts, newest first, likewise.
    #[serde(default)]
    pub alerts: Vec<Alert>,
    /// What is parked, by reason and task.
    pub parked_by: Vec<ParkedGroup>,
    /// The latest attempts that failed, newest first, since this process began; at most
    /// [`crate::limits::FAILURES_KEPT`].
    pub failures: Vec<FailureView>,
    /// Its DAG, as new activations go through it.
    #[serde(default)]
    pub graph: GraphView,
    /// Positions that were moved, oldest first.
    #[serde(default)]
    pub resets: Vec<ResetView>,
    /// Versions that its DAG had, the newest first, and those that something is under way with.
    #[serde(default)]
    pub versions: Vec<VersionView>,
    /// What else there is to say of it, such as a file that is broken.
    #[serde(default)]
    pub notes: Vec<NoteView>,
}

/// A DAG as nodes and edges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GraphView {
    /// Sources, then tasks, each in order of declaration.
    pub nodes: Vec<NodeView>,
    /// Which node comes after which, by their places.
    pub edges: Vec<(usize, usize)>,
    /// By edge: events that have passed its first node and not yet begun at its second.
    #[serde(default)]
    pub queued: Vec<u64>,
}

/// A source or a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: NodeKind,
    /// Events that wait here for a slot or for their turn.
    #[serde(default)]
    pub queued: u64,
    /// Events that run here.
    #[serde(default)]
    pub running: u64,
    /// Events that are held here for a moment: a retry, a sensor. Who waits for longer is one of
    /// [`RunDetail::waiting`].
    #[serde(default)]
    pub held: u64,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// Listens for ever.
    Source,
    /// Runs.
    Task,
    /// Runs, and decides what goes on.
    Choice,
    /// Runs once per item of a list.
    Mapped,
    /// Nothing to run.
    Noop,
}

/// An activation that missed a deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MissView {
    /// When that was known, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// When it was due, likewise.
    pub due_ms: u64,
    /// Lane name.
    pub lane: String,
    /// Position of its (first) event.
    pub position: u64,
    /// The task whose deadline it was; `None`: that of the whole activation.
    pub task: Option<String>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureView {
    /// When it was reported, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Task id.
    pub task: String,
    /// Lane name.
    pub lane: String,
    /// Position of the activation's (first) event.
    pub position: u64,
    /// Which try, from 1.
    pub try_number: u32,
    /// The first line of the error.
    pub error: String,
}

/// The words for a run's state.
pub const STATES: [StateName; 8] = [
    "starting", "running", "paused", "draining", "drained", "stopped", "finished", "failed",
];

fn known_state<'de, D: serde::Deserializer<'de>>(from: D) -> Result<StateName, D::Error> {
    let word = String::deserialize(from)?;
    let known = STATES.iter().find(|state| **state == word);
    known
        .copied()
        .ok_or_else(|| serde::de::Error::custom(format!("unknown state '{word}'")))
}

/// One task of a run: attempts of it that ended since this engine opened, by how they did. A task
/// without a callable has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// The task's id.
    pub id: String,
    /// Attempts that succeeded.
    pub succeeded: u64,
    /// Attempts that ended as skipped by their own word.
    pub skipped: u64,
    /// Attempts that failed, whether they are tried again or not.
    pub failed: u64,
    /// Members of dispatches that workers are at. A worker runs those of one dispatch one after another.
    pub running: u64,
}

/// A task that a worker has been at for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LongWorkView {
    /// The task's id.
    pub task: String,
    /// When it was sent to the worker, milliseconds since the Unix epoch; with others it may be many that run
    /// one after another.
    pub since_ms: u64,
}

/// Two points of a distribution, milliseconds, about 3 % wide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Percentiles {
    /// Half of all values are at most this.
    pub p50: Option<f64>,
    /// 99 of 100 values are at most this.
    pub p99: Option<f64>,
}

/// One source of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceView {
    /// The source's id.
    pub id: String,
    /// Every lane found has a committed position and was read up to its end at least once.
    pub ready: bool,
    /// What is wrong with the outside world at the moment, with the cure.
    pub degraded: Option<String>,
    /// Set when the source has ended and will not deliver any more: why.
    pub ended: Option<String>,
    /// When a position of it last moved, milliseconds since the Unix epoch, in this process.
    #[serde(default)]
    pub progress_ms: Option<u64>,
    /// That is longer ago than `freshness=` allows.
    #[serde(default)]
    pub stale: bool,
    /// Times it was, in this process.
    #[serde(default)]
    pub freshness_missed: u64,
    /// Its lanes, by name.
    pub lanes: Vec<LaneView>,
}

/// One lane of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// A pool: named slots that tasks of any DAG share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Executions there may be at a time; with 0 its tasks start nothing.
    pub slots: u32,
    /// Who said so.
    pub set_by: PoolWord,
    /// Executions there are; more than `slots` for a while after it was made smaller. `None` where no
    /// engine runs.
    pub used: Option<u32>,
    /// Members of its tasks that could start but for a slot or a worker; likewise.
    pub waiting: Option<u64>,
    /// Tasks of runs that are not over.
    pub tasks: Vec<PoolTaskView>,
}

impl PoolView {
    pub(crate) fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            slots: crate::limits::POOL_SLOTS,
            set_by: PoolWord::Default,
            used: None,
            waiting: None,
            tasks: Vec::new(),
        }
    }
}

/// Whose word the size of a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolWord {
    /// An operator's: `evermill pools set`.
    Set,
    /// That of `evermill.toml`.
    File,
    /// Nobody's.
    Default,
}

/// A task that takes slots of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolTaskView {
    /// DAG id.
    pub dag: String,
    /// Run id.
    pub run: String,
    /// Task id.
    pub task: String,
    /// Executions there are.
    pub used: u32,
    /// Members that could start but for a slot or a worker.
    pub waiting: u64,
}

/// Which parked activations are meant; every field narrows, the default means all of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ParkedFilter {
    /// Only these, by [`ParkedView::id`]; each must be there.
    pub ids: Vec<String>,
    /// Only those parked for this reason: a word of [`PARK_REASONS`].
    pub reason: Option<String>,
    /// Only those where this task failed.
    pub task: Option<String>,
    /// Only events with this key.
    pub key: Option<String>,
    /// Only events that arrived then or later, milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
}

/// The words for why something is parked.
pub const PARK_REASONS: [&str; 6] = [
    "failed",
    "invalid",
    "suspect_crash",
    "join_timeout",
    "blocked",
    "run_stopped",
];

/// A part of what is parked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedPage {
    /// How many match in all.
    pub matched: u64,
    /// The same, by reason and task, most first.
    pub groups: Vec<ParkedGroup>,
    /// The page, in the order of lanes and positions.
    pub entries: Vec<ParkedView>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<u64>,
}

/// Parked activations that share reason and task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedGroup {
    /// A word of [`PARK_REASONS`].
    pub reason: String,
    /// The task that failed, if one did.
    pub task: Option<String>,
    /// Activations.
    pub count: u64,
}

/// A parked activation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedView {
    /// How to name it in [`crate::Handle::redrive`] and [`crate::Handle::discard`].
    #[serde(skip, default = "no_key")]
    pub key: evermill_core::command::ActivationKey,
    /// The same as text: `RUN/SOURCE/LANE/POSITION`, with `/CHILD` behind it for a part of a batch.
    pub id: String,
    /// Source id.
    pub source: String,
    /// Lane name.
    pub lane: String,
    /// Position of its (first) event.
    pub position: u64,
    /// A word of [`PARK_REASONS`].
    pub reason: String,
    /// The task that failed, if one did.
    pub task: Option<String>,
    /// The error's text, or why it was parked without one.
    pub error: String,
    /// Events it stands for.
    pub events: u64,
    /// Times it was run again after it was parked.
    pub round: u32,
    /// When its (first) event arrived, milliseconds since the Unix epoch.
    pub arrived_ms: u64,
    /// Version it is pinned to.
    pub version: String,
    /// Its events, when they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payload: Vec<EventView>,
}

/// A part of what waits for signals.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitPage {
    /// How many match in all.
    pub matched: u64,
    /// The same, by signal.
    pub groups: Vec<WaitGroup>,
    /// The page: by signal, and of each the oldest first.
    pub entries: Vec<WaitView>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<u64>,
}

/// What waits for one signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitGroup {
    /// The signal's name.
    pub signal: String,
    /// Tasks that wait for it.
    pub count: u64,
    /// When the oldest of their events arrived, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// A task of an activation that waits for a signal, such as somebody's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitView {
    /// The activation, as [`ParkedView::id`]; a signal may name it.
    pub id: String,
    /// The signal's name.
    pub signal: String,
    /// The task that waits.
    pub task: String,
    /// Source id.
    pub source: String,
    /// Lane name.
    pub lane: String,
    /// Position of its (first) event.
    pub position: u64,
    /// When its (first) event arrived, milliseconds since the Unix epoch; when it began to wait is not kept.
    pub since_ms: u64,
    /// Its events, when they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payload: Vec<EventView>,
    /// What its tasks returned so far, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<ResultView>,
}

/// What a task returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultView {
    /// Task id.
    pub task: String,
    /// As JSON.
    pub result: Blob,
}

const fn no_key() -> evermill_core::command::ActivationKey {
    use evermill_core::command::{ActivationKey, LaneId};
    ActivationKey {
        lane: LaneId { run: 0, lane: 0 },
        position: 0,
        child: 0,
    }
}

/// What is remembered of activations that have settled, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PastView {
    /// Those that were asked for.
    pub activations: Vec<PastActivation>,
    /// Of the waves that were looked at: activations remembered whole ...
    pub kept: u64,
    /// ... of so many events that settled.
    pub settled: u64,
    /// There may be more.
    pub more: bool,
    /// Where the next page begins; a page may be short, or empty, before the last.
    #[serde(default)]
    pub next: Option<String>,
}

/// An activation that has settled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PastActivation {
    /// As [`ParkedView::id`].
    pub id: String,
    /// Lane name.
    pub lane: String,
    /// Position of its (first) event.
    pub position: u64,
    /// `done`, `skipped`, `parked` or `dropped`.
    pub ended: String,
    /// Times it was run again after it was parked.
    pub round: u32,
    /// The version that it ran on, if that is not forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When its (first) event arrived, milliseconds since the Unix epoch.
    pub arrived_ms: u64,
    /// When it settled, likewise.
    pub settled_ms: u64,
    /// Its tasks, in the order of the DAG.
    pub tasks: Vec<PastTask>,
    /// Its events; one that was too long to be kept has no parts.
    pub payload: Vec<EventView>,
}

/// How a task of it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PastTask {
    /// Task id.
    pub task: String,
    /// `success`, `failed`, `skipped` or `upstream_failed`.
    pub state: String,
    /// Attempts that ended.
    pub tries: u32,
    /// Instances of a mapped task.
    pub instances: Option<u32>,
    /// From the first time it was sent to a worker to its end, milliseconds, where that is known.
    pub took_ms: Option<u64>,
    /// When it was first sent to a worker, milliseconds since the Unix epoch, where that is known: it ran in one
    /// stretch, in a small wave, and not in instances.
    #[serde(default)]
    pub started_ms: Option<u64>,
    /// What it returned, as JSON.
    pub result: Option<Blob>,
    /// Its last error.
    pub error: Option<String>,
}

/// An event with its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// Position in its lane.
    pub position: u64,
    /// The event's own time, milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Blob>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Blob>)>,
    /// Its value.
    pub value: Option<Blob>,
}

/// Bytes in JSON: a string where they are UTF-8, else `{"base64": "..."}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Blob {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Base64 {
        /// Standard alphabet, padded (RFC 4648, section 4).
        base64: String,
    },
}

impl Blob {
    /// Bytes, in the form that reads best.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64 {
                base64: BASE64_STANDARD.encode(bytes),
            },
        }
    }

    /// The bytes again; `None` when what should be base64 is not.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.clone().into_bytes()),
            Self::Base64 { base64 } => BASE64_STANDARD.decode(base64).ok(),
        }
    }
}
