//! Tasks that are closures of this process, on threads of their own. A closure that panics fails; one
//! that never returns holds its slot, since a thread cannot be ended from outside.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use evermill_contract::worker::{
    Answer, Dispatch, Events, Executor, Outcome, Slot as SlotId, TaskErrorKind, TaskRef, Token,
};

use crate::threads::{Runs, Shared, Slot, Threads, failed};

/// Runs one member of a dispatch: the dispatch, and the member's index in it.
pub type NativeTask = Arc<dyn Fn(&Arc<Dispatch>, u32) -> Outcome + Send + Sync>;

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
        let make = || Closures {
            tasks: Arc::clone(&tasks),
        };
        Ok(Self(Threads::start(slots, Arc::from(events), make)?))
    }
}

struct Closures {
    tasks: Arc<BTreeMap<String, NativeTask>>,
}

impl Runs for Closures {
    const GATHERS: bool = true;

    fn find(&mut self, task: &TaskRef) -> Result<(), String> {
        let known = self.tasks.contains_key(&task.task);
        known
            .then_some(())
            .ok_or_else(|| format!("this program has no task '{}'", task.task))
    }

    fn member(
        &mut self,
        _slot: &Arc<Slot>,
        _events: &Shared,
        dispatch: &Arc<Dispatch>,
        index: u32,
    ) -> Option<Outcome> {
        let task = &self.tasks[&dispatch.task.task];
        let ended = catch_unwind(AssertUnwindSafe(|| task(dispatch, index)));
        Some(ended.unwrap_or_else(|panic| {
            let why = format!("panicked: {}", said(&*panic));
            failed(TaskErrorKind::Raised, why, String::new())
        }))
    }
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
