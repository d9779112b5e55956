//! The clock of slots whose members cannot be ended from outside: closures. One that runs longer than its
//! timeout, or goes on after the engine has ended its slot, is left to its thread. The slot says that
//! its worker died and gets another thread; what the old one still says is not heard.
//!
//! A thread that was left ends when its closure returns. Until then it counts, and a pool has at most
//! [`STRAYS_MAX`] of them: beyond that a slot waits, empty, for one to end.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use evermill_contract::worker::WorkerEvent;

use super::Slot;
use super::slot::Shared;

/// Threads of a pool whose closures did not return in time and run on.
pub(crate) const STRAYS_MAX: usize = 32;
/// How often a slot without a thread says so.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// When to look at the slots again.
#[derive(Default)]
pub(crate) struct Watch {
    plan: Mutex<Plan>,
    changed: Condvar,
}

#[derive(Default)]
struct Plan {
    next: Option<Instant>,
    strays: usize,
    /// A thread that was left has ended.
    room: bool,
    closed: bool,
}

impl Watch {
    /// Something is due then, perhaps earlier than what was known.
    pub(super) fn look_at(&self, at: Instant) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        // The watch finds all that is due later by itself when it looks.
        if plan.next.is_none_or(|next| at < next) {
            plan.next = Some(at);
            self.changed.notify_one();
        }
    }

    pub(super) fn close(&self) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.closed = true;
        self.changed.notify_one();
    }

    fn stray_ended(&self) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.strays -= 1;
        plan.room = true;
        self.changed.notify_one();
    }

    /// Waits until something is due; false when the pool is gone.
    fn wait(&self) -> bool {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            if plan.closed {
                return false;
            }
            if plan.room || plan.next.is_some_and(|at| at <= now) {
                plan.next = None;
                plan.room = false;
                return true;
            }
            plan = match plan.next {
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    let waited = self.changed.wait_timeout(plan, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(plan);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

/// Says that a thread has ended, if its slot has left it.
pub(super) struct Ends {
    pub(super) slot: Arc<Slot>,
    pub(super) watch: Arc<Watch>,
    pub(super) life: u32,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if self.slot.lock().life != self.life {
            self.watch.stray_ended();
        }
    }
}

/// The watch's thread. `refill` gives a slot another thread.
pub(super) fn run(
    watch: &Watch,
    slots: &[Arc<Slot>],
    events: &Shared,
    refill: impl Fn(&Arc<Slot>) -> Result<(), String>,
) {
    let mut empty: Vec<Arc<Slot>> = Vec::new();
    while watch.wait() {
        for slot in slots {
            let left = look(watch, slot);
            if left.is_empty() {
                continue;
            }
            left.into_iter().for_each(|event| events(event));
            if slot.lock().end {
                events(super::slot::gone(slot.id));
            } else {
                empty.push(Arc::clone(slot));
            }
        }
        fill(watch, &mut empty, events, &refill);
    }
}

/// Leaves what has taken too long; what the engine is to be told.
fn look(watch: &Watch, slot: &Arc<Slot>) -> Vec<WorkerEvent> {
    let now = Instant::now();
    let mut state = slot.lock();
    let Some(due) = state.due() else {
        return Vec::new();
    };
    if due > now {
        drop(state);
        watch.look_at(due);
        return Vec::new();
    }
    let mut plan = watch.plan.lock().unwrap_or_else(PoisonError::into_inner);
    plan.strays += 1;
    drop(plan);
    let events = state.leave(slot, now);
    slot.changed.notify_all();
    events
}

fn fill(
    watch: &Watch,
    empty: &mut Vec<Arc<Slot>>,
    events: &Shared,
    refill: &impl Fn(&Arc<Slot>) -> Result<(), String>,
) {
    while let Some(slot) = empty.last() {
        let strays = {
            let plan = watch.plan.lock().unwrap_or_else(PoisonError::into_inner);
            plan.strays
        };
        let filled = if strays >= STRAYS_MAX {
            Err(format!(
                "{strays} closures run on after their timeouts, and no more are left to themselves: a closure \
                 should return when ctx.should_stop() says so"
            ))
        } else {
            refill(slot)
        };
        let Err(reason) = filled else {
            empty.pop();
            continue;
        };
        events(WorkerEvent::Unavailable {
            reason,
            retry_in: SAY_EVERY,
        });
        return watch.look_at(Instant::now() + SAY_EVERY);
    }
}
