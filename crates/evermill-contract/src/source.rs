//! What a source offers and is asked: lanes found, events in order, positions that are ours.
//!
//! A source listens to one place in the outside world for one DAG. The engine drives it on an
//! operating system thread of its own, so every method may block, within the bound it states.
//! The source never decides what is done with an event and never remembers how far it was read:
//! positions belong to the engine's store, and what a broker keeps is a hint (rule C7).
//!
//! The life of a lane:
//!
//! ```text
//! found --(resolve, position committed by the engine)--> start_lane --> delivering <--> paused
//!                                                            ^              |
//!                                                            +-- Gap -------+--> Diverged
//! taken from us: nothing more is delivered --(engine: release)--> found again, some day
//! ```
//!
//! Nothing is delivered before `start_lane`. After [`SourceEvent::Gap`] or
//! [`SourceEvent::Diverged`] the lane stands still until it is started again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

mod batch;
pub mod conformance;
mod gate;
mod receiver;

pub use batch::{BatchBuilder, Event, EventBatch, EventMeta, Headers, NO_TIMESTAMP, Span};
pub use gate::{Form, Gate, JUDGE_WAIT, REJECTION_BYTES_MAX, Unavailable, Verdict};
pub use receiver::{
    Arrival, Delivery, ID_BYTES_MAX, Inquiry, MEMO_BYTES_MAX, PAGE_BYTES_MAX, Page, PushRequest,
    PushSource, Received, Receiver, Reject, Reply,
};

/// A source, opened: how the engine gets at its events.
pub enum Opened {
    /// They can be read again from a position.
    Log(Box<dyn Source>),
    /// They are kept in our store first, as they come.
    Received(Box<dyn Receiver>),
    /// They are brought to us, and kept in our store first.
    Pushed(Arc<dyn PushSource>),
    /// Somebody sends them by name; they are kept in our store first.
    Signalled,
    /// Nobody brings them: each follows on the end of the one before (W15).
    Looped,
    /// One of these whose values are judged before anything else is done with them.
    Gated(Box<Self>, Arc<dyn Gate>),
}

/// A source that is being listened to.
pub trait Source: Send {
    /// Finds lanes, delivers events of started lanes, reports what changed. Returns as soon as
    /// there is something to say, after `wait` at the latest; an empty `out` is an ordinary
    /// answer. Must be called at least every few seconds, also while every lane is paused.
    ///
    /// # Errors
    /// Only what no waiting mends (see [`SourceError::Refused`]); the source is then finished.
    /// A broker that is away is not an error but [`SourceEvent::Degraded`].
    fn poll(&mut self, wait: Duration, out: &mut Vec<SourceEvent>) -> Result<(), SourceError>;

    /// Finds the position at which a lane is to be read for the first time: what the consumer
    /// group had committed, else the earliest or latest position, as an absolute number. Asked for
    /// lanes of which no position is held, and for [shared](LaneFound::shared) ones each time they
    /// are found. Delivers nothing. Blocks for at most [`RESOLVE_WAIT`].
    ///
    /// # Errors
    /// [`SourceError::Unavailable`]: ask again later. [`SourceError::Refused`]: what it was told to
    /// begin from is not there.
    fn resolve(&mut self, lane: &LaneName, first: FirstPosition) -> Result<Resolved, SourceError>;

    /// Finds the position of a place in a lane that was found: that of the first event there or behind
    /// it, or the one that the next event will have. Delivers nothing. Blocks for at most
    /// [`RESOLVE_WAIT`].
    ///
    /// # Errors
    /// [`SourceError::Unavailable`]: ask again later. [`SourceError::Refused`]: it cannot be said, as
    /// for a source of which no part can be read again.
    fn locate(&mut self, _lane: &LaneName, _place: Place) -> Result<u64, SourceError> {
        Err(SourceError::Refused(
            "this source cannot be read again from a place of one's choice".to_owned(),
        ))
    }

    /// How many events there are from one position up to another, at most: a source that would have
    /// to read for it counts positions. Blocks for at most [`RESOLVE_WAIT`].
    ///
    /// # Errors
    /// As [`Source::locate`].
    fn count(&mut self, _lane: &LaneName, from: u64, to: u64) -> Result<u64, SourceError> {
        Ok(to.saturating_sub(from))
    }

    /// Starts, or restarts elsewhere, the delivery of a lane: the next event has the lowest
    /// position that is `from` or above. Events in flight from before are dropped. The lane's
    /// credit is kept; it is open at first.
    ///
    /// `incarnation` is what the engine stored when it first resolved the lane. When the lane is
    /// another one by now, it does not start and [`SourceEvent::Diverged`] follows. `None` means
    /// the incarnation that was reported last.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`]: ask again later. [`SourceError::Refused`]: unknown lane.
    fn start_lane(
        &mut self,
        lane: &LaneName,
        from: u64,
        incarnation: Option<&str>,
    ) -> Result<(), SourceError>;

    /// Opens or closes the credit of a lane. Once closed, no later `poll` delivers events of it;
    /// what was prefetched is kept or read again. Asking twice changes nothing.
    fn credit(&mut self, lane: &LaneName, open: bool);

    /// Tells the broker, as a hint for its lag tools, that `position` is the next one to read.
    /// Never blocks; failures are counted by the source and otherwise ignored.
    fn ack(&mut self, lane: &LaneName, position: u64);

    /// What was read of a lane that was [taken](SourceEvent::LaneTaken) is settled below
    /// `position`, and nothing of it is under way any more: it may be handed on. `None`: it was
    /// never started. Never blocks.
    fn release(&mut self, _lane: &LaneName, _position: Option<u64>) {}

    /// Something any thread may call to make a blocked `poll` (or the next one) return at once.
    fn waker(&self) -> Waker;

    /// Stops listening and lets go of every connection, within [`CLOSE_WAIT`]. Nothing is
    /// delivered afterwards.
    fn close(&mut self);
}

/// The longest that [`Source::resolve`] may block.
pub const RESOLVE_WAIT: Duration = Duration::from_secs(5);

/// The longest that [`Source::close`] may block.
pub const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// A place in a lane, as people name it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The first event that can still be read.
    Earliest,
    /// Behind the last event there is.
    Latest,
    /// The first event of this time or later, milliseconds since the Unix epoch.
    Time(i64),
    /// This position.
    Position(u64),
}

/// What a source has to tell.
#[derive(Debug, Clone)]
pub enum SourceEvent {
    /// A lane exists and is ours to read. Said once per incarnation, and again after it was taken;
    /// the engine answers with `start_lane`.
    Lane(LaneFound),
    /// Another reader is to have this lane: nothing more of it is delivered. The engine lets what it
    /// began settle and answers with [`Source::release`]; the source waits for that as long as it can.
    LaneTaken {
        /// The lane.
        lane: LaneName,
    },
    /// Other readers have every lane: there is nothing to read here until one is found.
    NoLane,
    /// Events of one started lane, in lane order, never empty.
    Batch {
        /// The lane they belong to.
        lane: LaneName,
        /// The events.
        batch: EventBatch,
    },
    /// All that the lane holds at this moment below `end` was delivered. Said again after later
    /// events, and for a lane that is empty. `end` may lie above the last event's position
    /// (transaction markers, compaction): reading on from `end` loses nothing.
    CaughtUp {
        /// The lane.
        lane: LaneName,
        /// The next position to read.
        end: u64,
    },
    /// How much lies between what was delivered and the end of the lane, for views.
    Lag {
        /// The lane.
        lane: LaneName,
        /// Positions (not necessarily events) that are still to be read.
        behind: u64,
    },
    /// Positions `from..to` are gone (retention outran us). The lane stands still: the engine
    /// records the gap and, if its policy says so, calls `start_lane(lane, to)`.
    Gap {
        /// The lane.
        lane: LaneName,
        /// The position that was asked for.
        from: u64,
        /// The lowest position that can still be read.
        to: u64,
        /// One sentence for people.
        reason: String,
    },
    /// Positions `from..to` are passed over, by a rule of the source: what they hold is never
    /// delivered, and the lane goes on at `to` by itself.
    Passed {
        /// The lane.
        lane: LaneName,
        /// Where it stood.
        from: u64,
        /// Where it goes on.
        to: u64,
    },
    /// The lane is no longer the one whose positions we hold: re-created, truncated, shorter than
    /// what was read, or damaged where we read. It stands still; reading on would mix two
    /// histories or skip events unseen.
    Diverged {
        /// The lane.
        lane: LaneName,
        /// One sentence for people.
        reason: String,
    },
    /// The outside world is away or refuses us. The source goes on trying by itself. Said once
    /// per reason.
    Degraded {
        /// What is wrong and what would mend it; holds no secrets.
        reason: String,
    },
    /// All is well again after `Degraded`.
    Recovered,
}

/// A lane that a source found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneFound {
    /// Its name, unique within the source and the same for ever, such as `orders/3`.
    pub name: LaneName,
    /// What tells it from another lane of the same name: part of every activation's identity (C1).
    pub incarnation: String,
    /// It appeared while we were listening, so that all of its events are new to us: its first
    /// position is the earliest one, whatever the DAG says about a first start. The same holds
    /// for a lane found at the start when the store knows other lanes of this source.
    pub appeared: bool,
    /// Others read the same lane, in turn: what they have settled is settled for us, so its first
    /// position counts even when we hold one, and the larger holds.
    pub shared: bool,
}

/// The name of a lane; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneName(Arc<str>);

impl LaneName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for LaneName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for LaneName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a lane of which we hold no position begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstPosition {
    /// The group's committed position, else the first event there is.
    CommittedOrEarliest,
    /// The group's committed position, else the next event that comes.
    CommittedOrLatest,
    /// The first event there is, whatever the group has committed.
    Earliest,
    /// The next event that comes, whatever the group has committed.
    Latest,
}

/// A first position, as an absolute number, and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// The next position to read.
    pub position: u64,
    /// What decided it.
    pub origin: Origin,
}

/// What decided a first position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The consumer group had committed it.
    Committed,
    /// The first event there is.
    Earliest,
    /// The end of the lane at that moment.
    Latest,
}

/// Why a source could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The outside world did not answer, or not yet. Trying again later is right.
    #[error("{0}")]
    Unavailable(String),
    /// What was asked cannot work as it stands: a setting, a name, a connection. Names the
    /// setting and the cure; holds no secrets.
    #[error("{0}")]
    Refused(String),
}

/// Makes a blocked [`Source::poll`] return; see [`Source::waker`].
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`, which must neither block nor panic.
    #[must_use]
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Wakes the source.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// Where a source's own diagnostics go; a source never prints.
pub type DiagnosticSink = Arc<dyn Fn(Severity, &str) + Send + Sync>;

/// How much a diagnostic line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Of interest to whoever looks for a fault.
    Debug,
    /// An ordinary change.
    Info,
    /// Something that may need attention.
    Warning,
    /// Something failed.
    Error,
}

/// How much a source may hold, given by the engine from its credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceBudget {
    /// Events in one [`EventBatch`], at most.
    pub batch_events: usize,
    /// An [`EventBatch`] is closed once it holds this many bytes, so that only its last event
    /// passes the bound. `poll` hands out at most two such batches at a time.
    pub batch_bytes: usize,
    /// Bytes fetched ahead of `poll`, over all lanes. A target: one fetch may overshoot it.
    pub prefetch_bytes: usize,
}

impl Default for SourceBudget {
    /// Enough to keep a worker busy, a small part of what the engine may use in memory.
    fn default() -> Self {
        Self {
            batch_events: 4096,
            batch_bytes: 1 << 20,
            prefetch_bytes: 4 << 20,
        }
    }
}
