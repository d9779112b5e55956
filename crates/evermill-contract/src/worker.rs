//! **What runs user code**, as the engine sees it: dispatches go in, events come out.
//!
//! The engine speaks to a `Box<dyn Executor>` and never learns whether a fork server, a remote
//! machine or a test double is behind it. What travels to a Python worker is in
//! `docs/spec/frames.md`; the codec is [`frame`] and [`wire`].
//!
//! A slot's life, and the events that tell it:
//!
//! | from | what happens | event |
//! |---|---|---|
//! | starting | the worker said hello | `Ready` |
//! | ready | members run | `Outcomes`, `Log`, `Ask`, `Progress` |
//! | ready | a dispatch is recalled while a member runs long | `Returned`, later `Finished` |
//! | ready | a dispatch ends, by its last member, its slice or a recall | `Finished` |
//! | ready | the process ends, whatever the reason | `Died`, then starting again |
//! | starting | no process can be had | `Unavailable`, then starting again |
//!
//! Every dispatch ends in exactly one `Finished` or `Died` that carries its token; its members
//! are then reported (`Outcomes`), suspects (`Died`) or returned unstarted (the tail).

mod dispatch;
pub mod frame;
pub mod limits;
mod outcome;
mod question;
#[cfg(test)]
mod tests;
pub mod wire;

use std::time::Duration;

use bytes::Bytes;

use crate::manifest::DagManifest;

pub use dispatch::{
    Dispatch, Event, LaneRef, Member, OrderMode, Polled, Range, TaskRef, UpstreamResult,
};
pub use outcome::{Emit, Outcome, OutcomeRun, StateOp, Success, TaskError, TaskErrorKind, Xcom};
pub use question::{Answer, Question};

/// A place where one worker process runs, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// The engine's own name for a dispatch; it packs its fence in here. Nothing below the engine
/// interprets it, and it never reaches user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Runs dispatches in slots. No call blocks, and no call delivers an event on the caller's thread.
pub trait Executor: Send {
    /// How many slots there are; they are `Slot(0)..Slot(slots)`.
    fn slots(&self) -> u16;

    /// The slots whose workers can run a task: all of them, unless tasks need different interpreters.
    fn slots_for(&self, _task: &TaskRef) -> std::ops::Range<u16> {
        0..self.slots()
    }

    /// Tells ahead of time what will be dispatched, so that workers that start from now on have its
    /// file imported already. Only a hint: what fails here fails, and is told, when it runs.
    fn prepare(&mut self, _task: &TaskRef) {}

    /// Tells of a version of a DAG before anything of it is prepared or dispatched: where its bundle is,
    /// its entry file in there, and what it declares. There may be more slots afterwards, never fewer.
    fn declare(&mut self, _folder: &str, _entry: &str, _dag: &DagManifest) {}

    /// Nothing of the version whose bundle is there is dispatched again.
    fn forget(&mut self, _folder: &str) {}

    /// Hands a dispatch to a slot. A slot holds up to [`limits::DISPATCHES_PER_SLOT_MAX`]: one
    /// that runs and one queued behind it, so that the worker never idles. A slot that is still
    /// starting keeps its dispatches until it is ready.
    ///
    /// # Panics
    /// If the slot does not exist or is full: the caller counts `Finished` and `Died`.
    fn dispatch(&mut self, slot: Slot, dispatch: Dispatch);

    /// Asks for the unstarted tail of a dispatch. The member that runs is left alone: if it runs long
    /// enough, those behind it are `Returned` before it ends. `Finished` follows as usual; recalling
    /// what has already ended is no error.
    fn recall(&mut self, token: Token);

    /// Ends the slot's process and its whole group: TERM now, KILL after `grace`. `Died` follows.
    fn kill(&mut self, slot: Slot, grace: Duration);

    /// Answers an [`WorkerEvent::Ask`]. An answer that comes after the worker's death is dropped.
    fn answer(&mut self, slot: Slot, call: u32, answer: Answer);

    /// Lets tasks know that they should stop (`ctx.should_stop()`), returns unstarted tails, and
    /// ends every worker: TERM when `grace` is over, KILL a moment later. No `Ready` follows.
    fn shutdown(&mut self, grace: Duration);
}

/// Where an executor delivers its events: the engine's bounded channel. It may block, and then
/// the worker behind it waits too; that is the backpressure.
pub type Events = Box<dyn Fn(WorkerEvent) + Send + Sync>;

/// What an executor tells the engine. Events of one slot come in order.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerEvent {
    /// The slot has a live worker.
    Ready {
        /// Which slot.
        slot: Slot,
        /// Its process id, for people.
        pid: u32,
    },
    /// Some members have ended. Runs are in member order and follow those of the event before.
    Outcomes {
        /// Which slot.
        slot: Slot,
        /// Which dispatch.
        token: Token,
        /// A run of plain successes is one entry.
        runs: Vec<OutcomeRun>,
    },
    /// A dispatch was recalled and a member of it runs long: those behind it come back unstarted. They
    /// did not use up a try, and are members of this dispatch no longer.
    Returned {
        /// Which slot.
        slot: Slot,
        /// Which dispatch.
        token: Token,
        /// The first of them; all after it come back as well.
        from: u32,
    },
    /// A dispatch is over and the worker lives on.
    Finished {
        /// Which slot.
        slot: Slot,
        /// Which dispatch.
        token: Token,
        /// How many members at the end were not started; they did not use up a try.
        tail: u32,
    },
    /// A task asks something in mid-call and waits. Answer with the same `call`.
    Ask {
        /// Which slot.
        slot: Slot,
        /// The worker's name for the question.
        call: u32,
        /// Which dispatch.
        token: Token,
        /// Who asks.
        member: u32,
        /// What.
        question: Question,
    },
    /// Output of user code (W20).
    Log {
        /// Which slot.
        slot: Slot,
        /// The dispatch that ran, if any did.
        token: Option<Token>,
        /// The member, for Python's prints and logging; None for output at descriptor level.
        member: Option<u32>,
        /// Where it came from.
        origin: LogOrigin,
        /// The text, without promise of UTF-8 at descriptor level.
        text: Bytes,
    },
    /// `ctx.progress(x)`: shown to people, never a decision.
    Progress {
        /// Which slot.
        slot: Slot,
        /// Which dispatch.
        token: Token,
        /// Whose progress.
        member: u32,
        /// JSON of the value given.
        value: Bytes,
    },
    /// The process of a slot is gone, with its whole group. If a dispatch was queued behind
    /// the one named here, a `Finished` with all its members follows.
    Died {
        /// Which slot.
        slot: Slot,
        /// Why.
        cause: Death,
        /// The dispatch that ran, if any did.
        token: Option<Token>,
        /// Highest member that had started, read from the shared page; None if none had. Under
        /// [`Death::Timeout`] it is the one that ran out of time, and has its outcome.
        started: Option<u32>,
        /// How many members, from 0, had their outcome reported. Members `reported..=started`
        /// are suspects (W3); those after `started` never ran.
        reported: u32,
    },
    /// No worker can be had: interpreter missing, SDK not importable, start too slow. The
    /// executor tries again by itself.
    Unavailable {
        /// What went wrong, in a sentence with the cure where one is known.
        reason: String,
        /// When it tries again.
        retry_in: Duration,
    },
}

/// Where a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOrigin {
    /// `print` or `sys.stdout.write`.
    Stdout,
    /// `sys.stderr.write`.
    Stderr,
    /// `logging`, with Python's numeric level (10 debug .. 50 critical).
    Logging(u8),
    /// Descriptors 1 and 2 of the process: C code, child processes.
    Descriptor,
}

/// Why a worker process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// It exited by itself (`os._exit`, an abort of the interpreter) with this status.
    Exited(i32),
    /// A signal that we did not send: 11 is a segmentation fault, 9 often the memory killer.
    Signalled(i32),
    /// Member `started` ran longer than the dispatch allows; its outcome
    /// ([`TaskErrorKind::Timeout`]) came just before.
    Timeout,
    /// The engine asked for it.
    Killed,
    /// It broke the protocol: what, in a sentence.
    Protocol(String),
    /// The fork server died and its workers were killed with it.
    ServerLost,
}
