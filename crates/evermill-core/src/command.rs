//! What goes into the machine and what comes out: commands, decisions, effects.
//!
//! The driver's loop is: `apply` any number of commands into one `Decision`, `seal` it, commit its
//! writes in one transaction, then perform its effects. The only effects that may run before the
//! commit are dispatches marked `speculative` (C3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::activation::ParkReason;
use crate::dag::Dag;
use crate::history::Ended;
use crate::row::Write;

/// Milliseconds since the Unix epoch; always an argument, never read from a clock.
pub type Ms = u64;

/// Number of a run, unique in the store.
pub type RunIx = u32;

/// A lane: an ordered stream of activations inside a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneId {
    /// The run.
    pub run: RunIx,
    /// The lane's number in the run, from 1.
    pub lane: u32,
}

/// An activation: one member of one lane. `C1` derives the global identity from the lane's
/// incarnation and generation and from this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActivationKey {
    /// The lane of the (first) event.
    pub lane: LaneId,
    /// The position of the (first) event.
    pub position: u64,
    /// 0, or n for the n-th child split off a source batch (W8).
    pub child: u32,
}

/// What a source emitted, as far as the core is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Place in its lane; strictly growing in read order, gaps allowed (C2).
    pub position: u64,
    /// The ordering and join key, exact or a 128-bit hash of it; 0 when there is none.
    pub key: u128,
    /// Arrival, milliseconds since the Unix epoch: deadlines count from here.
    pub arrived_ms: Ms,
    /// The payload, opaque here.
    pub body: Bytes,
}

/// Identifies a dispatch within one boot of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DispatchId(pub u64);

/// Who may report: results under any other fence are refused (C5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fence {
    /// Boot epoch, committed before the first dispatch of this boot.
    pub epoch: u64,
    /// Times the shard was dropped and reloaded within this boot.
    pub incarnation: u32,
}

/// How a worker treats the members of a dispatch after a failure (W4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DispatchOrder {
    /// Members are independent.
    Independent,
    /// Stop at the first failure; the rest returns unstarted.
    StopOnFailure,
    /// After a failure, members of the same scope return unstarted.
    SkipSameScope,
}

/// A change of `ctx.state` (W5). Names and values are opaque bytes except where arithmetic is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateOp {
    /// Replace; ordered scopes only.
    Set(Bytes, Bytes),
    /// Remove; ordered scopes only.
    Delete(Bytes),
    /// Add to an integer that starts at 0.
    Incr(Bytes, i64),
    /// Keep the larger integer.
    Max(Bytes, i64),
    /// Insert into a set.
    SetAdd(Bytes, Bytes),
}

/// What a successful attempt brought besides its success.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Success {
    /// The result (and further named values), encoded by the driver; handed to downstreams.
    pub result: Option<Bytes>,
    /// Branch: the chosen direct downstream tasks, as indexes into `DagSpec::tasks`.
    pub chosen: Option<Vec<u16>>,
    /// Short circuit: whether to go on. `None` means yes.
    pub proceed: Option<bool>,
    /// Length of the list a mapped downstream expands over (W9).
    pub map_length: Option<u32>,
    /// State changes, in order.
    pub state: Vec<StateOp>,
    /// Source batch (W8): indexes of items that failed; they become a child activation.
    pub failed_items: Vec<u32>,
    /// What it has to say to other DAGs, in order; opaque here.
    pub says: Vec<Bytes>,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing but success.
    Success,
    /// Success with a result or a choice.
    SuccessWith(Box<Success>),
    /// The task skipped itself.
    Skipped,
    /// What a sensor waits for is not there yet: ask again. Of any other task a failure.
    Waiting {
        /// When, instead of after its interval.
        until: Option<Ms>,
    },
    /// The attempt failed.
    Failed {
        /// May be tried again if tries are left.
        retryable: bool,
        /// Milliseconds that the next try waits at least; at most `limits::BACKOFF_MS_MAX` count.
        after_ms: u64,
        /// What to show; opaque here, at most `limits::ERROR_BYTES_MAX` are kept.
        error: Bytes,
    },
}

/// Consecutive members of a dispatch that ended in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeRun {
    /// Index of the first member in the dispatch.
    pub first: u32,
    /// How many members, at least 1.
    pub count: u32,
    /// How each of them ended.
    pub outcome: Outcome,
}

/// What a rate limit counts (W19).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limited {
    /// Members of this task; index into `DagSpec::tasks`.
    Task(u16),
    /// Members of this task, those of each key by themselves. Never a mapped task.
    Key(u16),
    /// Events of this source that become activations; index into `DagSpec::sources`.
    Source(u16),
}

/// Chooses parked activations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Keys(Vec<ActivationKey>),
    /// All of the run.
    All,
}

/// Everything that can happen to a shard.
#[derive(Debug, Clone)]
pub enum Command {
    /// Switch a DAG on. Resumes the DAG's open run if there is one, else begins run `run`.
    Start {
        /// Number for a new run.
        run: RunIx,
        /// Stable name for a new run, part of every identity (C1).
        name: String,
        /// What to run.
        dag: Arc<Dag>,
        /// A new run inherits neither positions nor state of the DAG's last one.
        fresh: bool,
    },
    /// Rows of activations that only waited, as the store has them: bodies that [`crate::Machine::wanted`] or
    /// [`crate::Machine::owed`] named.
    Fetched {
        /// Each with the body of its row in [`crate::row::Table::Activation`].
        bodies: Vec<(ActivationKey, Bytes)>,
    },
    /// A source found a lane. Answered by `Effect::LaneOpen` after the commit (C7).
    OpenLane {
        /// The run.
        run: RunIx,
        /// Index into `DagSpec::sources`.
        source: u16,
        /// The source's name for it, for example a partition.
        name: String,
        /// What makes this lane this lane: a re-created topic has another incarnation (C1).
        incarnation: String,
        /// Resolved first position; ignored if the lane is known.
        first: u64,
    },
    /// Events read from a lane, in read order.
    Ingest {
        /// The lane.
        lane: LaneId,
        /// The events; those already settled or in flight are dropped silently.
        events: Vec<Event>,
    },
    /// The source has nothing unread up to here (flushes lingering, tells `until idle`).
    CaughtUp {
        /// The lane.
        lane: LaneId,
    },
    /// Nobody reads the lane here any more, until it is opened again: what was read and not begun is
    /// forgotten, the rest settles.
    CloseLane {
        /// The lane.
        lane: LaneId,
    },
    /// Positions that can never be read: recorded, then passed over (Kafka: retention outran us).
    Gap {
        /// The lane.
        lane: LaneId,
        /// First unreadable position.
        from: u64,
        /// First readable position after it.
        to: u64,
    },
    /// Simultaneous dispatches the workers can take in total.
    Capacity {
        /// Slots.
        slots: u32,
    },
    /// Members ended.
    Outcomes {
        /// Their dispatch.
        dispatch: DispatchId,
        /// The fence the dispatch was sent under.
        fence: Fence,
        /// How they ended.
        runs: Vec<OutcomeRun>,
    },
    /// Members of a dispatch from this one on were not started and go back uncounted, while those
    /// before them run on (W3).
    Returned {
        /// Their dispatch.
        dispatch: DispatchId,
        /// The fence the dispatch was sent under.
        fence: Fence,
        /// Index of the first of them.
        from: u32,
    },
    /// A dispatch is over; unreported members were not started and go back uncounted (W3).
    Finished {
        /// The dispatch.
        dispatch: DispatchId,
        /// The fence the dispatch was sent under.
        fence: Fence,
    },
    /// Its worker died. Started, unreported members are suspects (W3).
    Died {
        /// The dispatch.
        dispatch: DispatchId,
        /// The fence the dispatch was sent under.
        fence: Fence,
        /// Index of the member that was running, if any had started.
        started: Option<u32>,
        /// What to show if this ends the attempt.
        error: Bytes,
    },
    /// Time has come for what `Machine::next_timer` named.
    Timer,
    /// Take no new work; attempts under way end normally.
    Pause {
        /// The run.
        run: RunIx,
    },
    /// Go on.
    Resume {
        /// The run.
        run: RunIx,
    },
    /// Read nothing more, settle what was read, then rest; the run resumes at the next start.
    Drain {
        /// The run.
        run: RunIx,
    },
    /// End the run for good; its positions are inherited by the next one.
    Stop {
        /// The run.
        run: RunIx,
    },
    /// Run parked activations again (W10).
    Redrive {
        /// The run.
        run: RunIx,
        /// Which.
        selection: Selection,
    },
    /// Give parked activations up: they count as dropped.
    Discard {
        /// The run.
        run: RunIx,
        /// Which.
        selection: Selection,
    },
    /// Put another payload into a parked activation; it stays parked. Tasks that succeeded keep
    /// their results: a redrive runs the failed ones and what is below them with the new payload.
    Amend {
        /// Which.
        activation: ActivationKey,
        /// Which of its events, as [`crate::ParkedView::carries`] counts them.
        event: u32,
        /// The payload. The event keeps its position, its key and its arrival.
        body: Bytes,
    },
    /// A named message from outside (W14).
    Signal {
        /// The run.
        run: RunIx,
        /// Deduplicates.
        id: String,
        /// Which waiters it is for.
        name: String,
        /// Only waiters whose event has this key; 0 for any.
        key: u128,
        /// The message.
        body: Bytes,
        /// Deliver to every waiter instead of the oldest.
        all: bool,
        /// Only to this activation; one that does not wait gets nothing, and the message is not kept.
        to: Option<ActivationKey>,
        /// Unconsumed, it lives until then.
        expires_ms: Ms,
    },
    /// New activations use this version from now on (W16).
    Swap {
        /// The run.
        run: RunIx,
        /// The new version; the same DAG id.
        dag: Arc<Dag>,
        /// As [`Command::RateLimit`], by places in the new version: they hold before anything of it starts.
        rates: Vec<(Limited, u32, Ms)>,
    },
    /// Read stretches of lanes again, each as a lane of its own (W18). Together they are one replay,
    /// and have one generation.
    Replay {
        /// The run.
        run: RunIx,
        /// What.
        stretches: Vec<Stretch>,
        /// How it differs from the first reading.
        mode: ReplayMode,
    },
    /// Let the replays of a run be read on that were not paused; after the shard was loaded again.
    OpenReplays {
        /// The run.
        run: RunIx,
    },
    /// Read a replay no further, or again; what was begun of it settles. It lasts over restarts.
    PauseReplay {
        /// The run.
        run: RunIx,
        /// Its generation.
        replay: u32,
        /// Not: go on.
        paused: bool,
    },
    /// End a replay: what was begun of it settles, the rest is not read.
    StopReplay {
        /// The run.
        run: RunIx,
        /// Its generation.
        replay: u32,
    },
    /// All there is of a replay's stretch was handed over.
    ReplayRead {
        /// The replay's lane.
        lane: LaneId,
    },
    /// The source of a lane goes on at `to`, and nothing between is ever read, by a rule of its own.
    PassOver {
        /// The lane.
        lane: LaneId,
        /// Where it stood.
        from: u64,
        /// Where it goes on.
        to: u64,
    },
    /// Let a lane go on at another position (W18). Ignored while some of it is under way.
    Reset {
        /// The live lane.
        lane: LaneId,
        /// Next position to read.
        to: u64,
        /// Who wants that, for the record.
        by: String,
    },
    /// Slots of a pool (W19); pools are numbered by the driver and shared by all runs.
    Pool {
        /// The pool.
        pool: u16,
        /// Simultaneous executions.
        slots: u32,
    },
    /// Of whose activations the ends are told ([`News::Ended`]), by DAG id; of all until this is said.
    Announce {
        /// The DAGs.
        dags: BTreeSet<String>,
    },
    /// Whoever listens to the run has no room: until that is over it takes nothing in and starts nothing,
    /// and what is out and not begun is recalled; attempts under way end normally. Not durable: the driver says it again after a restart.
    HoldUp {
        /// The run.
        run: RunIx,
        /// Whether it is held up.
        on: bool,
    },
    /// At most so many start per interval (W19).
    RateLimit {
        /// The run.
        run: RunIx,
        /// Of what.
        of: Limited,
        /// Members, or events of a source, per interval.
        members: u32,
        /// Interval, milliseconds.
        interval_ms: u64,
    },
}

/// Positions of a live lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The lane's number.
    pub lane: u32,
    /// First position.
    pub from: u64,
    /// The first position behind it.
    pub to: u64,
}

/// How a replay differs from the first reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplayMode {
    /// Effect keys are its own, so that sinks that know the first ones are hit again.
    pub fresh_keys: bool,
    /// Its tasks change state, in the order of the live lane. Else what they change is dropped.
    pub writes_state: bool,
    /// Only what was passed unread: nothing runs a second time (backfill).
    pub claims: bool,
}

/// What the driver does once the decision is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start reading a lane at this position; skip what `Machine::wants` says is settled.
    LaneOpen {
        /// The lane's id from now on.
        lane: LaneId,
        /// Index into `DagSpec::sources`.
        source: u16,
        /// The source's name for it.
        name: String,
        /// Next position to read.
        position: u64,
    },
    /// The source may go on (`true`) or must stop delivering this lane.
    Credit {
        /// The lane.
        lane: LaneId,
        /// Whether there is room.
        open: bool,
    },
    /// Send a dispatch to a worker; `Machine::dispatch` shows it.
    Dispatch {
        /// Which.
        id: DispatchId,
        /// May be sent before the commit (C3).
        speculative: bool,
    },
    /// Ask a worker to return what it has not started.
    Recall(DispatchId),
    /// Everything below is durable: tell the source, as a hint.
    Ack {
        /// The lane.
        lane: LaneId,
        /// Next position to read.
        position: u64,
    },
    /// Nobody is to read a replay's lane any more: it was read to its end, paused or stopped.
    LaneClose(LaneId),
    /// The run changed its state.
    RunState {
        /// The run.
        run: RunIx,
        /// Its new state.
        state: RunState,
    },
    /// Activations missed their deadline (W13): counted and listed by the faces.
    DeadlineMissed {
        /// The run.
        run: RunIx,
        /// How many.
        count: u32,
        /// Which; no more than [`crate::limits::MISSES_TOLD_MAX`] of them.
        missed: Vec<Missed>,
    },
}

/// An activation that missed a deadline (W13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// Which.
    pub activation: ActivationKey,
    /// When it was due, milliseconds since the Unix epoch.
    pub due_ms: Ms,
    /// The task whose deadline it was; `None`: that of the whole activation.
    pub task: Option<String>,
}

/// Life of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Reading and running.
    Running,
    /// Taking no new work.
    Paused,
    /// Settling what was read.
    Draining,
    /// Drained: rests until it is started again.
    Drained,
    /// Ended by an operator.
    Stopped,
    /// Ended by itself: a loop's `until`, or a triggered DAG.
    Finished,
    /// Ended by `on_failure = "stop"` or a failed loop iteration.
    Failed,
}

/// A decision under construction: what to commit, then what to perform.
#[derive(Debug, Default)]
pub struct Decision {
    /// For one transaction, in order.
    pub writes: Vec<Write>,
    /// For after the commit, in order.
    pub effects: Vec<Effect>,
    /// What other DAGs may hear of, in order. Whoever passes it on does so in the same commit: what is
    /// told and what it tells of are durable together, or not at all.
    pub news: Vec<News>,
    /// What was parked, in order: whoever tells of it does so in the same commit.
    pub parked: Vec<Parked>,
}

/// An activation that was parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parked {
    /// Which.
    pub activation: ActivationKey,
    /// Why.
    pub reason: ParkReason,
    /// Events it stands for.
    pub events: u64,
}

/// Something that other DAGs may hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// An activation settled, or was parked.
    Ended {
        /// Which.
        activation: ActivationKey,
        /// How often it was redriven.
        round: u32,
        /// How it ended.
        ended: Ended,
        /// Its first event.
        event: Event,
        /// Events it stands for.
        events: u64,
    },
    /// An attempt that succeeded has something to say.
    Said {
        /// The activation.
        activation: ActivationKey,
        /// The task, by its id.
        task: String,
        /// Instance of a mapped task, else -1.
        map_index: i32,
        /// What; opaque here.
        said: Vec<Bytes>,
    },
}

/// Counters of a run, in events. `in_flight = seen - done - skipped - parked - dropped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Events taken in.
    pub seen: u64,
    /// Settled well.
    pub done: u64,
    /// Settled with every leaf skipped.
    pub skipped: u64,
    /// Kept after failure.
    pub parked: u64,
    /// Given up.
    pub dropped: u64,
}

impl Counters {
    /// Events taken in and not yet settled or parked.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.seen - self.done - self.skipped - self.parked - self.dropped
    }
}

/// A value in `ctx.state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateValue {
    /// Whatever was set.
    Blob(Bytes),
    /// From `incr` and `max`.
    Int(i64),
    /// From `set_add`.
    Set(std::collections::BTreeSet<Bytes>),
}

/// State of one scope, by name.
pub type ScopeState = BTreeMap<Bytes, StateValue>;
