//! Everything that can reach the shard's thread: one closed list, one bounded channel.

use bytes::Bytes;
use crossbeam_channel::Sender;
use evermill_contract::alert::Alert;
use evermill_contract::source::{Arrival, Delivery, Inquiry, LaneName};
use evermill_contract::worker::WorkerEvent;
use evermill_core::command::{LaneId, RunIx, Selection, Stretch};
use evermill_store::{CommitError, CommitId};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::attempts::AttemptQuery;
use crate::compare::Pair;
use crate::forgetting::LeftView;
use crate::handle::{Drained, EngineError, Pushed, Started};
use crate::operate::{Page, Resolve, Signal};
use crate::past::Names;
use crate::payload::Packed;
use crate::prepare::{Prepared, Stored};
use crate::replay::{Again, Ground, ReplayOrder};
use crate::stall::Line;
use crate::swap::Standing;
use crate::view::{
    AttemptView, EngineView, ParkedFilter, ParkedPage, PoolView, ReplayView, RunDetail,
};
use crate::waits::Waits;

pub(crate) enum Input {
    /// From a source's thread.
    Source(SourceKey, SourceInput),
    /// From the executor.
    Worker(WorkerEvent),
    /// A group was answered, by its number.
    Committed(u64, Result<CommitId, CommitError>),
    /// The committer of this boot epoch has something to say besides.
    Store(u64, evermill_store::Event),
    /// A gate has asked others about values that are to be judged again; what it heard, if nothing.
    Judged(Option<String>),
    /// From a handle.
    Request(Request),
}

/// A source of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SourceKey {
    pub(crate) run: RunIx,
    /// Which of all that this engine has listened to; nothing is ever listened to under it again. The
    /// source's place in its DAG is another in each version: see `Shard::place_of`.
    pub(crate) number: u32,
    /// The generation of the replay that a reader of its own reads; 0 for a live one (W18).
    pub(crate) replay: u32,
}

impl SourceKey {
    /// Every one of a run, first to last.
    pub(crate) fn all_of(run: RunIx) -> RangeInclusive<Self> {
        let key = |number, replay| Self {
            run,
            number,
            replay,
        };
        key(0, 0)..=key(u32::MAX, u32::MAX)
    }

    /// Of lanes that no source is listened to for.
    pub(crate) const fn nobody(run: RunIx) -> Self {
        Self {
            run,
            number: u32::MAX,
            replay: 0,
        }
    }

    /// Of whoever reads a replay: it is of one source.
    pub(crate) const fn of_replay(run: RunIx, generation: u32) -> Self {
        Self {
            run,
            number: 0,
            replay: generation,
        }
    }

    pub(crate) const fn is_live(self) -> bool {
        self.replay == 0
    }
}

pub(crate) enum SourceInput {
    /// Lanes were found, and the first positions of those that need one resolved (C7). They are
    /// committed together: no crash leaves some of them to be resolved another time.
    Lanes(Vec<FoundLane>),
    /// Lanes were found, and the first position of each is known.
    Resolved,
    Batch {
        lane: LaneId,
        session: u32,
        packed: Packed,
    },
    /// A batch was dropped after its permit was taken.
    Dropped,
    CaughtUp {
        lane: LaneId,
        session: u32,
        /// The next position to read.
        end: u64,
    },
    /// The source goes on at `to` by a rule of its own.
    Passed {
        lane: LaneId,
        session: u32,
        from: u64,
        to: u64,
    },
    Lag {
        lane: LaneId,
        behind: u64,
    },
    Gap {
        lane: LaneId,
        session: u32,
        from: u64,
        to: u64,
        reason: String,
    },
    Diverged {
        lane: LaneId,
        reason: String,
    },
    /// Another reader is to have this lane.
    Taken(LaneName),
    /// For its inbox.
    Delivery {
        session: u32,
        delivery: Delivery,
    },
    /// A function of its DAG file is to judge something.
    Asks {
        session: u32,
        inquiry: Inquiry,
    },
    /// The outside world has answered: what was delivered so far is all there was.
    Answered,
    /// It waits for outcomes, and some may be there by now.
    Outcomes,
    Degraded(String),
    Recovered,
    /// The source has ended and its thread with it: why, or `None` after an order to close.
    Ended(Option<String>),
}

/// A lane as its source found it.
pub(crate) struct FoundLane {
    pub(crate) name: LaneName,
    pub(crate) incarnation: String,
    pub(crate) first: First,
    pub(crate) shared: bool,
}

/// What its source says of a lane's first position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// We hold a position already, and that holds.
    Held,
    /// It begins here, unless we hold a position.
    At(u64),
    /// Everything below is settled, by us or by another reader of the same lane.
    SettledBelow(u64),
}

/// Where an answer goes.
pub(crate) type Reply<T> = Sender<Result<T, EngineError>>;

/// What a handle asks; the answer goes to `reply`.
pub(crate) enum Request {
    /// `None` when the run has changed since it was prepared for.
    Start {
        prepared: Prepared,
        reply: Sender<Result<Option<Started>, EngineError>>,
    },
    /// What another version of a DAG is to take the place of.
    Standing {
        dag: String,
        reply: Sender<Option<Standing>>,
    },
    /// A version that is stored, by the beginning of its hash; without one, the DAG's last.
    Stored {
        dag: String,
        version: Option<String>,
        reply: Sender<Result<Stored, EngineError>>,
    },
    /// Two versions of a DAG that are to be compared, by the beginnings of their hashes.
    Pair {
        run: String,
        from: Option<String>,
        to: Option<String>,
        reply: Sender<Result<Pair, EngineError>>,
    },
    Trigger {
        run: String,
        conf: Option<Bytes>,
        /// What makes it the same when it comes again.
        id: Option<Bytes>,
        /// Not if anything was given to the run before.
        once: bool,
        reply: Sender<Result<Option<String>, EngineError>>,
    },
    Signal {
        run: String,
        signal: Signal,
        reply: Sender<Result<Pushed, EngineError>>,
    },
    /// What waits for signals.
    Waits {
        run: String,
        signal: Option<String>,
        page: Page,
        reply: Sender<Result<Waits, EngineError>>,
    },
    /// Brought from outside to a source that takes it in.
    Push {
        key: SourceKey,
        arrivals: Vec<Arrival>,
        reply: Sender<Result<Pushed, EngineError>>,
    },
    /// What somebody has to know who wants to read a source again.
    Ground {
        run: String,
        source: Option<String>,
        reply: Sender<Result<Ground, EngineError>>,
    },
    /// Read again what was found to be there.
    Replay {
        again: Again,
        reply: Sender<Result<Option<u32>, EngineError>>,
    },
    /// What of a stretch was passed unread.
    Unread {
        ix: RunIx,
        stretch: Stretch,
        reply: Sender<Vec<(u64, u64)>>,
    },
    SteerReplay {
        run: String,
        replay: u32,
        steer: ReplayOrder,
        reply: Sender<Result<(), EngineError>>,
    },
    Replays {
        run: String,
        reply: Sender<Result<Vec<ReplayView>, EngineError>>,
    },
    Reset {
        run: String,
        moves: Vec<(LaneId, u64)>,
        by: String,
        reply: Sender<Result<(), EngineError>>,
    },
    Steer {
        run: String,
        steer: Steer,
        reply: Sender<Result<(), EngineError>>,
    },
    Detail {
        run: String,
        reply: Sender<Result<RunDetail, EngineError>>,
    },
    Attempts {
        run: String,
        wanted: AttemptQuery,
        reply: Sender<Result<Vec<AttemptView>, EngineError>>,
    },
    Names {
        run: String,
        reply: Sender<Result<Names, EngineError>>,
    },
    Parked {
        run: String,
        which: ParkedFilter,
        page: Page,
        reply: Sender<Result<ParkedPage, EngineError>>,
    },
    Resolve {
        run: String,
        which: ParkedFilter,
        how: Resolve,
        dry_run: bool,
        reply: Sender<Result<u64, EngineError>>,
    },
    Amend {
        run: String,
        id: String,
        event: u32,
        value: Bytes,
        reply: Sender<Result<(), EngineError>>,
    },
    Alerts {
        reply: Reply<Vec<Alert>>,
    },
    Pools {
        reply: Reply<Vec<PoolView>>,
    },
    SetPool {
        name: String,
        /// `None`: as the engine was opened with.
        slots: Option<u32>,
        reply: Reply<PoolView>,
    },
    ForgetSource {
        run: String,
        source: String,
        dry_run: bool,
        reply: Reply<LeftView>,
    },
    View {
        reply: Sender<Arc<EngineView>>,
    },
    Drain {
        grace: Duration,
        reply: Sender<Drained>,
    },
    Halt,
    Poke,
}

/// What to do with a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Steer {
    Pause,
    Resume,
    Drain,
    Stop,
    Redrive(Selection),
    Discard(Selection),
}

/// Tells the shard, when it is dropped, that a source's thread has ended, however it did.
pub(crate) struct LastWord {
    key: SourceKey,
    line: Line,
    /// Why; `None` when it was told to.
    pub(crate) end: Option<String>,
}

impl LastWord {
    pub(crate) fn new(key: SourceKey, line: Line) -> Self {
        Self {
            key,
            line,
            end: Some("its thread panicked".to_owned()),
        }
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let ended = SourceInput::Ended(self.end.take());
        // Nobody is left to tell when the shard is gone.
        self.line.say(self.key, ended);
    }
}
