//! The pool: the engine's side of it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use evermill_contract::worker::frame::Kind;
use evermill_contract::worker::wire::{encode_answer, small};
use evermill_contract::worker::{
    Answer, Death, Dispatch, Events, Executor, Slot as SlotId, TaskRef, Token, WorkerEvent,
};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::Signal;

use crate::config::{PoolConfig, Preload};
use crate::output::Output;
use crate::server::{signal_group, spawn};
use crate::slot::{Kill, Slot};
use crate::supervisor::{Message, Supervisor};
use crate::watch;

/// Imports that may wait for the supervisor; a server starts DAGs by the thousand.
const HINTS_MAX: usize = 64;

/// Workers of one Python interpreter.
#[derive(Debug)]
pub struct PythonPool {
    shared: Arc<Shared>,
}

/// What the pool's threads share.
pub(crate) struct Shared {
    pub(crate) config: PoolConfig,
    pub(crate) events: Events,
    slots: Vec<Mutex<Slot>>,
    pub(crate) inbox: Sender<Message>,
    /// Pipes that the watch reads.
    pub(crate) outputs: Mutex<Vec<Output>>,
    pub(crate) wake: OwnedFd,
    /// The watch sleeps until it is woken.
    pub(crate) asleep: AtomicBool,
    /// When shutdown turns to signals.
    pub(crate) close_at: Mutex<Option<Instant>>,
    /// No thread of the pool is to go on.
    pub(crate) ended: AtomicBool,
    /// Hints that the supervisor has not taken yet.
    pub(crate) hints: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl PythonPool {
    /// Starts a pool. It returns at once; `Ready` or `Unavailable` follow as events, on threads
    /// of the pool.
    ///
    /// # Errors
    /// A sentence if the machine gives no thread or descriptor.
    pub fn start(config: PoolConfig, events: Events) -> Result<Self, String> {
        let slots = config.slots;
        // Per slot: two dispatches that can be returned, an end, a need; the rest is the server's.
        let (inbox, messages) = bounded(usize::from(slots) * 8 + 64 + HINTS_MAX);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| format!("no event descriptor: {error}"))?;
        let shared = Arc::new(Shared {
            config,
            events,
            slots: (0..slots).map(|_| Mutex::default()).collect(),
            inbox,
            outputs: Mutex::default(),
            wake,
            asleep: AtomicBool::new(false),
            close_at: Mutex::default(),
            ended: AtomicBool::new(false),
            hints: AtomicUsize::new(0),
        });
        let supervisor = Supervisor::new(Arc::clone(&shared), messages);
        spawn("evermill-workers", move || supervisor.run())?;
        let watched = Arc::clone(&shared);
        spawn("evermill-watch", move || watch::run(&watched))?;
        Ok(Self { shared })
    }
}

impl Executor for PythonPool {
    fn slots(&self) -> u16 {
        self.shared.config.slots
    }

    fn prepare(&mut self, task: &TaskRef) {
        let TaskRef {
            entry,
            folder,
            dag,
            task,
            ..
        } = task.clone();
        self.shared.hint(Message::Prepare(Preload {
            entry,
            folder,
            dag,
            task,
        }));
    }

    fn forget(&mut self, folder: &str) {
        self.shared.hint(Message::Forget(folder.to_owned()));
    }

    fn dispatch(&mut self, slot: SlotId, dispatch: Dispatch) {
        let token = dispatch.token;
        let members = dispatch.members.len();
        let closed = {
            let mut slot = self.shared.slot(slot);
            if !slot.closed {
                slot.take(dispatch);
            }
            slot.closed
        };
        if closed {
            self.shared.emit_later(returned(slot, token, members));
        }
        if self.shared.asleep.load(Ordering::Acquire) {
            self.shared.wake();
        }
    }

    fn recall(&mut self, token: Token) {
        for id in self.shared.ids() {
            let recalled = self.shared.slot(id).recall(token);
            for (token, members) in recalled {
                self.shared.emit_later(returned(id, token, members));
            }
        }
    }

    fn kill(&mut self, slot: SlotId, grace: Duration) {
        let mut slot = self.shared.slot(slot);
        begin_kill(&mut slot, Death::Killed, None, grace);
        drop(slot);
        self.shared.wake();
    }

    fn answer(&mut self, slot: SlotId, call: u32, answer: Answer) {
        let mut slot = self.shared.slot(slot);
        if let Some(asked) = slot.answered(call) {
            slot.send(encode_answer(asked, &answer));
        }
    }

    fn shutdown(&mut self, grace: Duration) {
        for id in self.shared.ids() {
            let mut slot = self.shared.slot(id);
            slot.closed = true;
            slot.send(small(0, Kind::Stop, &serde_json::json!({})));
            slot.send(small(0, Kind::Retire, &serde_json::json!({})));
            let held: Vec<_> = slot.held.drain(..).collect();
            drop(slot);
            for dispatch in held {
                self.shared
                    .emit_later(returned(id, dispatch.token, dispatch.members.len()));
            }
        }
        *self
            .shared
            .close_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + grace);
        self.shared.tell(Message::Close);
        self.shared.wake();
    }
}

impl Drop for PythonPool {
    /// Without a shutdown before: everything is killed.
    fn drop(&mut self) {
        for id in self.shared.ids() {
            let mut slot = self.shared.slot(id);
            slot.closed = true;
            if let Some(connection) = &slot.connection {
                signal_group(connection.pid, Signal::KILL);
            }
        }
        self.shared.ended.store(true, Ordering::Release);
        self.shared.tell(Message::Abandon);
        self.shared.wake();
    }
}

impl Shared {
    pub(crate) fn slot(&self, slot: SlotId) -> MutexGuard<'_, Slot> {
        self.slots[usize::from(slot.0)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = SlotId> + use<> {
        (0..self.config.slots).map(SlotId)
    }

    /// Delivers an event; never called with a slot locked, nor on the engine's thread.
    pub(crate) fn emit(&self, event: WorkerEvent) {
        (self.events)(event);
    }

    /// Delivers an event on another thread.
    fn emit_later(&self, event: WorkerEvent) {
        self.tell(Message::Emit(Box::new(event)));
    }

    /// Tells the supervisor what would be of use; when many wait, it does without.
    fn hint(&self, message: Message) {
        if self.hints.fetch_add(1, Ordering::AcqRel) < HINTS_MAX {
            self.tell(message);
        } else {
            self.hints.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Tells the supervisor, without waiting.
    fn tell(&self, message: Message) {
        // Full cannot be, by the bound; gone means that the pool has ended.
        if self.inbox.try_send(message).is_err() {}
    }

    pub(crate) fn wake(&self) {
        // A full counter wakes as well.
        if rustix::io::write(&self.wake, &1u64.to_ne_bytes()).is_err() {}
    }
}

/// Sends TERM and remembers when KILL is due. A kill under way is left as it is.
pub(crate) fn begin_kill(slot: &mut Slot, cause: Death, member: Option<u32>, grace: Duration) {
    if slot.kill.is_some() {
        return;
    }
    let Some(connection) = &slot.connection else {
        return;
    };
    signal_group(connection.pid, Signal::TERM);
    slot.kill = Some(Kill {
        cause,
        member,
        kill_at: Some(Instant::now() + grace),
    });
}

/// A dispatch none of whose members were started.
pub(crate) fn returned(slot: SlotId, token: Token, members: usize) -> WorkerEvent {
    WorkerEvent::Finished {
        slot,
        token,
        tail: u32::try_from(members).unwrap_or(u32::MAX),
    }
}
