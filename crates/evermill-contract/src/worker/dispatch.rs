//! What a worker gets: members of one task, with their payload bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Token;
use crate::identity::IdKind;
use crate::manifest::{HttpSource, SinkConfig};

/// A lease on members of one task, for at most a slice of time (W3).
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// The engine's name for it.
    pub token: Token,
    /// What to run.
    pub task: TaskRef,
    /// What a failure means for the members behind it.
    pub order: OrderMode,
    /// `@task(batch=N)`: one call gets all members (W8). There is no tail then, and identity
    /// and outcome stay per member.
    pub vectorised: bool,
    /// How long the worker may start new members; then it returns the tail. 50 ms unless there
    /// is a reason.
    pub slice: Duration,
    /// The longest a member may run.
    pub timeout: Option<Duration>,
    /// Working directory of the callable; None for the worker's own.
    pub cwd: Option<String>,
    /// How much it yields to others, 0 to 19, counted from what the engine runs with. A worker
    /// that has yielded once does not come back: a dispatch that yields less gets another one.
    pub nice: u8,
    /// Somebody hears of spans: what a member hands on is its own, not what its event brought
    /// ([`crate::trace`]).
    pub traced: bool,
    /// Lanes the members come from; a member names its own by index.
    pub lanes: Vec<LaneRef>,
    /// Task ids that [`UpstreamResult::upstream`] points into: those shipped with this dispatch.
    /// What is not shipped is asked for (W11).
    pub upstream: Vec<String>,
    /// At least one, at most [`super::limits::MEMBERS_MAX`].
    pub members: Vec<Member>,
    /// Events of source batches and joins; a member names its own by [`Member::batch`] and
    /// [`Member::joined`].
    pub events: Vec<Event>,
    /// Results of upstream tasks, in any order.
    pub results: Vec<UpstreamResult>,
    /// Payload bytes, typically the buffer of one source batch. They are never copied here:
    /// the frame writer sends the parts that ranges point to straight from these buffers.
    pub buffers: Vec<Bytes>,
}

/// A callable: which file, which DAG, which task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskRef {
    /// Path of the DAG file inside the version's stored bundle (W16); distinct per version.
    pub entry: String,
    /// Folder that its imports are looked up in; None for the file's own.
    pub folder: Option<String>,
    /// DAG id.
    pub dag: String,
    /// Run id, for the task's context.
    pub run: String,
    /// Task id.
    pub task: String,
    /// Where its value goes outside, for a task without a callable.
    pub sink: Option<Arc<SinkConfig>>,
    /// What it asks outside, for a sensor without a callable.
    pub polls: Option<Arc<Polled>>,
}

/// A place that a sensor asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Polled {
    /// The question.
    pub config: HttpSource,
    /// An answer that says nothing is a failed try, not *not yet*.
    pub strict: bool,
}

/// Ordering class of a dispatch (W4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderMode {
    /// Members do not care about each other.
    Independent,
    /// After a failure the rest is returned as tail.
    StopOnFailure,
    /// After a failure, later members with the same [`Member::scope`] get [`super::Outcome::Held`].
    SkipSameKey,
}

/// A lane, as far as a worker needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneRef {
    /// Canonical identity prefix ([`crate::identity::LaneIdentity`]); travels once per dispatch.
    pub identity: Bytes,
    /// What the members' positions or ids are.
    pub kind: IdKind,
    /// Generation for effect keys: 0 unless a replay asked for fresh ones (W18).
    pub generation: u32,
    /// `event.source`.
    pub source: String,
    /// `event.lane`.
    pub lane: String,
}

/// A piece of one of the dispatch's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Index into [`Dispatch::buffers`].
    pub buffer: u32,
    /// First byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

/// One event: what a source emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Index into [`Dispatch::lanes`].
    pub lane: u16,
    /// Position, instant (two's complement nanoseconds) or iteration; for lanes identified by
    /// message id or key, the order of reading.
    pub position: u64,
    /// Message id or key that identifies the event where the lane's kind asks for bytes.
    pub id: Option<Range>,
    /// Milliseconds since 1970, if the source knows a time.
    pub timestamp_ms: Option<i64>,
    /// The event's key.
    pub key: Option<Range>,
    /// The event's value.
    pub value: Option<Range>,
    /// Headers as [`crate::source::Headers`] reads them; None if there are none.
    pub headers: Option<Range>,
}

/// One activation's (or mapped instance's) place in a dispatch. Members are named by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its event. For an activation without one (triggered by hand) value and key are absent.
    pub event: Event,
    /// False for an activation that no event caused: the callable sees `event = None`.
    pub has_event: bool,
    /// For a source batch: its events as a part of [`Dispatch::events`].
    pub batch: Option<std::ops::Range<u32>>,
    /// Where several sources feed one activation: the events that the task sees, [`Member::event`]
    /// included if it does, in the order in which the DAG declares the sources, as a part of
    /// [`Dispatch::events`] (W6). Its identity is that of [`Member::event`] all the same.
    pub joined: Option<std::ops::Range<u32>>,
    /// 1 for the first try.
    pub try_number: u16,
    /// Index of a mapped instance, -1 if the task is not mapped.
    pub map_index: i32,
    /// Members with the same number are kept in order ([`OrderMode::SkipSameKey`]): they share
    /// a key, or a lane. 0 for a member that is in no order.
    pub scope: u32,
    /// All that `ctx.state` holds in its scope, committed: a JSON list of names and values in turn. None where it has to
    /// be asked for ([`super::Question::StateGet`]), as behind a member of the same scope.
    pub state: Option<Range>,
}

/// A result shipped with a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamResult {
    /// Whose input it is.
    pub member: u32,
    /// Index into [`Dispatch::upstream`].
    pub upstream: u32,
    /// Encoded value; None if the task succeeded without one.
    pub value: Option<Range>,
}
