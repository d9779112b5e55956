//! Slots that are threads of this process: each takes dispatches and runs one member after the other.
//! What a member is, [`Runs`] knows: a command, or a closure.

mod slot;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use evermill_contract::worker::{
    Answer, Dispatch, Executor, Slot as SlotId, Token, WorkerEvent, limits,
};

use crate::pool::returned;
use crate::server::spawn;

pub(crate) use self::slot::{Runs, Shared, failed};
use self::slot::{State, Stop};

/// Events that wait for the thread that delivers them: per slot its returned dispatches and its end.
const LATER_PER_SLOT: usize = 8;

/// A thread per slot.
pub(crate) struct Threads {
    slots: Vec<Arc<Slot>>,
    later: Sender<WorkerEvent>,
}

/// A slot as both its thread and the engine see it.
pub(crate) struct Slot {
    pub(crate) id: SlotId,
    state: Mutex<State>,
    pub(crate) changed: Condvar,
}

impl Slot {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Threads {
    /// Starts a pool, whose slots are ready at once.
    ///
    /// # Errors
    /// A sentence if the machine gives no thread.
    pub(crate) fn start<R: Runs>(
        slots: u16,
        events: Shared,
        make: impl Fn() -> R,
    ) -> Result<Self, String> {
        let (later, queue) = bounded::<WorkerEvent>(usize::from(slots) * LATER_PER_SLOT + 8);
        let deliver = Arc::clone(&events);
        spawn("evermill-task", move || {
            queue.iter().for_each(|event| deliver(event));
        })?;
        let slot = |id| {
            Arc::new(Slot {
                id: SlotId(id),
                state: Mutex::default(),
                changed: Condvar::new(),
            })
        };
        let slots: Vec<_> = (0..slots).map(slot).collect();
        for slot in &slots {
            let (slot, events, runs) = (Arc::clone(slot), Arc::clone(&events), make());
            spawn("evermill-task", move || slot::run(&slot, &events, runs))?;
        }
        Ok(Self { slots, later })
    }

    fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[usize::from(id.0)]
    }

    /// Delivers events on another thread.
    fn return_all(&self, slot: SlotId, dispatches: impl IntoIterator<Item = Dispatch>) {
        for dispatch in dispatches {
            let event = returned(slot, dispatch.token, dispatch.members.len());
            // Gone means that the pool has ended, and with it whoever waits.
            self.later.send(event).ok();
        }
    }
}

impl Executor for Threads {
    fn slots(&self) -> u16 {
        self.slots.len() as u16
    }

    fn dispatch(&mut self, id: SlotId, dispatch: Dispatch) {
        let slot = self.slot(id);
        let mut state = slot.lock();
        if state.end {
            drop(state);
            return self.return_all(id, [dispatch]);
        }
        assert!(
            state.queue.len() < limits::DISPATCHES_PER_SLOT_MAX,
            "the engine counts what a slot holds"
        );
        state.queue.push_back(dispatch);
        slot.changed.notify_all();
    }

    fn recall(&mut self, token: Token) {
        for slot in &self.slots {
            let mut state = slot.lock();
            if let Some(at) = state.queue.iter().position(|held| held.token == token) {
                let held = state.queue.remove(at);
                drop(state);
                self.return_all(slot.id, held);
            } else if state.running == Some(token) {
                state.recalled = true;
            }
        }
    }

    fn kill(&mut self, id: SlotId, grace: Duration) {
        let slot = self.slot(id);
        let mut state = slot.lock();
        state.stop.get_or_insert(Stop::now(grace));
        let held: Vec<_> = state.queue.drain(..).collect();
        slot.changed.notify_all();
        drop(state);
        self.return_all(id, held);
    }

    fn answer(&mut self, _slot: SlotId, _call: u32, _answer: Answer) {
        // Nothing that runs here asks.
    }

    fn shutdown(&mut self, grace: Duration) {
        for slot in &self.slots {
            let mut state = slot.lock();
            state.end = true;
            state.recalled = true;
            state.stop.get_or_insert(Stop::after(grace));
            let held: Vec<_> = state.queue.drain(..).collect();
            slot.changed.notify_all();
            drop(state);
            self.return_all(slot.id, held);
        }
    }
}

impl Drop for Threads {
    /// Without a shutdown before: everything is killed.
    fn drop(&mut self) {
        for slot in &self.slots {
            let mut state = slot.lock();
            state.end = true;
            state.stop = Some(Stop::now(Duration::ZERO));
            slot.changed.notify_all();
        }
    }
}
