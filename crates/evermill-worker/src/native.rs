//! Tasks that are closures of this process, on threads of their own. A closure that panics fails.
//!
//! A thread cannot be ended from outside. So a closure that runs longer than its timeout has failed (the
//! attempt is counted, what it returns later is refused), is asked to stop
//! ([`Lease::should_stop`]), and keeps its thread until it returns; its slot goes on with another one. A
//! pool leaves at most 32 threads like that: beyond it, a slot waits for one to end.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evermill_contract::worker::{
    Answer, Dispatch, Events, Executor, Outcome, Question, Slot as SlotId, TaskErrorKind, TaskRef,
    Token, WorkerEvent,
};

use crate::threads::{Runs, Shared, Slot, Threads, failed};

/// A closure as a pool runs it.
#[derive(Clone)]
pub enum NativeTask {
    /// Runs the member of this index.
    Each(Arc<Each>),
    /// Runs all members in one call (W8): an outcome for each, in order.
    Together(Arc<Together>),
}

/// What runs the member of an index.
type Each = dyn Fn(&Arc<Lease>, u32) -> Outcome + Send + Sync;
/// What runs all members.
type Together = dyn Fn(&Arc<Lease>) -> Vec<Outcome> + Send + Sync;

/// A dispatch that runs on a thread, and the way from there to the engine.
pub struct Lease {
    /// What runs.
    pub dispatch: Arc<Dispatch>,
    slot: Arc<Slot>,
    events: Shared,
    life: u32,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("token", &self.dispatch.token)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// Asks the engine on behalf of a member, and waits on this thread for what it says.
    #[must_use]
    pub fn ask(&self, member: u32, question: Question) -> Answer {
        let member = (self.dispatch.token, member);
        self.slot.ask(self.life, &self.events, member, question)
    }

    /// Whether what runs would better return soon: the engine is closing, or nobody waits for it
    /// any more.
    #[must_use]
    pub fn should_stop(&self) -> bool {
        self.slot.should_stop(self.life)
    }

    /// Shows how far a member is; the value is JSON.
    pub fn progress(&self, member: u32, value: Bytes) {
        (self.events)(WorkerEvent::Progress {
            slot: self.slot.id,
            token: self.dispatch.token,
            member,
            value,
        });
    }
}

/// Runs closures in slots.
pub struct NativePool(Threads);

impl NativePool {
    /// Starts a pool for the tasks of one DAG, by their ids.
    ///
    /// # Errors
    /// A sentence if the machine gives no thread.
    pub fn start(
        slots: u16,
        tasks: BTreeMap<String, NativeTask>,
        events: Events,
    ) -> Result<Self, String> {
        let tasks = Arc::new(tasks);
        let make = move || Closures {
            tasks: Arc::clone(&tasks),
            lease: None,
        };
        Ok(Self(Threads::start(slots, Arc::from(events), make)?))
    }
}

struct Closures {
    tasks: Arc<BTreeMap<String, NativeTask>>,
    /// That of the dispatch that runs.
    lease: Option<Arc<Lease>>,
}

impl Closures {
    fn lease(
        &mut self,
        slot: &Arc<Slot>,
        events: &Shared,
        dispatch: &Arc<Dispatch>,
    ) -> &Arc<Lease> {
        let same = |lease: &Arc<Lease>| Arc::ptr_eq(&lease.dispatch, dispatch);
        if !self.lease.as_ref().is_some_and(same) {
            self.lease = None;
        }
        self.lease.get_or_insert_with(|| {
            Arc::new(Lease {
                dispatch: Arc::clone(dispatch),
                slot: Arc::clone(slot),
                events: Arc::clone(events),
                life: slot.lock().life,
            })
        })
    }
}

impl Runs for Closures {
    const GATHERS: bool = true;
    const IS_LEFT: bool = true;

    fn find(&mut self, task: &TaskRef) -> Result<(), String> {
        let known = self.tasks.contains_key(&task.task);
        known
            .then_some(())
            .ok_or_else(|| format!("this program has no task '{}'", task.task))
    }

    fn member(
        &mut self,
        slot: &Arc<Slot>,
        events: &Shared,
        dispatch: &Arc<Dispatch>,
        index: u32,
    ) -> Option<Outcome> {
        let tasks = Arc::clone(&self.tasks);
        let lease = self.lease(slot, events, dispatch);
        let ended = match &tasks[&dispatch.task.task] {
            NativeTask::Each(run) => catch_unwind(AssertUnwindSafe(|| run(lease, index))),
            NativeTask::Together(_) => {
                let why = "this closure takes many events, and the engine sent one".to_owned();
                return Some(failed(TaskErrorKind::Load, why, String::new()));
            }
        };
        Some(ended.unwrap_or_else(|panic| panicked(&*panic)))
    }

    fn together(
        &mut self,
        slot: &Arc<Slot>,
        events: &Shared,
        dispatch: &Arc<Dispatch>,
    ) -> Option<Vec<Outcome>> {
        let tasks = Arc::clone(&self.tasks);
        let NativeTask::Together(run) = &tasks[&dispatch.task.task] else {
            return None;
        };
        let lease = self.lease(slot, events, dispatch);
        let ended = catch_unwind(AssertUnwindSafe(|| run(lease)));
        let members = dispatch.members.len();
        Some(match ended {
            Ok(outcomes) if outcomes.len() == members => outcomes,
            Ok(outcomes) => {
                let why = format!(
                    "it got {members} events and gave {} results",
                    outcomes.len()
                );
                vec![failed(TaskErrorKind::Raised, why, String::new()); members]
            }
            Err(panic) => vec![panicked(&*panic); members],
        })
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Outcome {
    let why = format!("panicked: {}", said(panic));
    failed(TaskErrorKind::Raised, why, String::new())
}

/// A panic's message, which is a text in all but odd cases.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with a value that is no text")
}

impl Executor for NativePool {
    fn slots(&self) -> u16 {
        self.0.slots()
    }

    fn slots_for(&self, task: &TaskRef) -> Range<u16> {
        self.0.slots_for(task)
    }

    fn dispatch(&mut self, slot: SlotId, dispatch: Dispatch) {
        self.0.dispatch(slot, dispatch);
    }

    fn recall(&mut self, token: Token) {
        self.0.recall(token);
    }

    fn kill(&mut self, slot: SlotId, grace: Duration) {
        self.0.kill(slot, grace);
    }

    fn answer(&mut self, slot: SlotId, call: u32, answer: Answer) {
        self.0.answer(slot, call, answer);
    }

    fn shutdown(&mut self, grace: Duration) {
        self.0.shutdown(grace);
    }
}
