//! Slots that are threads of this process: each takes dispatches and runs one member after the other.
//! What a member is, [`Runs`] knows: a command, or a closure. What cannot be ended from outside and takes
//! too long is left to its thread (`watch.rs`).

mod slot;
mod watch;

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
use self::watch::{Ends, Watch};

/// Events that wait for the thread that delivers them: per slot its returned dispatches and its end.
const LATER_PER_SLOT: usize = 8;

/// A thread per slot.
pub(crate) struct Threads {
    slots: Vec<Arc<Slot>>,
    watch: Arc<Watch>,
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
        make: impl Fn() -> R + Send + 'static,
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
        let watch = Arc::new(Watch::default());
        let (watched, told) = (Arc::clone(&watch), Arc::clone(&events));
        let thread = move |slot: &Arc<Slot>| fill(slot, &watched, &told, make());
        for slot in &slots {
            thread(slot)?;
        }
        if R::IS_LEFT {
            let (watch, slots) = (Arc::clone(&watch), slots.clone());
            spawn("evermill-watch", move || {
                watch::run(&watch, &slots, &events, thread);
            })?;
        }
        Ok(Self {
            slots,
            watch,
            later,
        })
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

/// Gives a slot a thread.
fn fill<R: Runs>(
    slot: &Arc<Slot>,
    watch: &Arc<Watch>,
    events: &Shared,
    runs: R,
) -> Result<(), String> {
    let (slot, watch, events) = (Arc::clone(slot), Arc::clone(watch), Arc::clone(events));
    let ends = Ends {
        life: slot.lock().life,
        slot: Arc::clone(&slot),
        watch: Arc::clone(&watch),
    };
    spawn("evermill-task", move || {
        let _ends = ends;
        slot::run(&slot, &watch, &events, runs);
    })
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
                let rest = state.recall_rest();
                drop(state);
                let returned = rest.map(|from| WorkerEvent::Returned {
                    slot: slot.id,
                    token,
                    from,
                });
                // If it comes behind the end of the dispatch it says nothing new.
                returned.map(|event| self.later.send(event).ok());
            }
        }
    }

    fn kill(&mut self, id: SlotId, grace: Duration) {
        let slot = self.slot(id);
        let mut state = slot.lock();
        state.stop.get_or_insert(Stop::now(grace));
        let held: Vec<_> = state.queue.drain(..).collect();
        slot.changed.notify_all();
        let due = state.due();
        drop(state);
        due.into_iter().for_each(|at| self.watch.look_at(at));
        self.return_all(id, held);
    }

    fn answer(&mut self, slot: SlotId, call: u32, answer: Answer) {
        self.slot(slot).answer(call, answer);
    }

    fn shutdown(&mut self, grace: Duration) {
        for slot in &self.slots {
            let mut state = slot.lock();
            state.end = true;
            state.recalled = true;
            state.stop.get_or_insert(Stop::after(grace));
            let held: Vec<_> = state.queue.drain(..).collect();
            slot.changed.notify_all();
            let due = state.due();
            drop(state);
            due.into_iter().for_each(|at| self.watch.look_at(at));
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
        self.watch.close();
    }
}
