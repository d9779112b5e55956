//! The board: what the shard's thread publishes for everybody else to read.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::handle::Idle;
use crate::view::EngineView;

/// Latest view and idleness. Written by the shard, read by anybody.
#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    view: Arc<EngineView>,
    life: Life,
}

/// Whether there is anything left to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Life {
    /// A source is not ready, or something is in flight, retrying or unread.
    #[default]
    Busy,
    /// Nothing is, since then; the first such moment counts.
    IdleSince(Instant),
    /// Every run ended by itself.
    Ended,
    /// The engine is closed.
    Closed,
}

impl Board {
    pub(crate) fn view(&self) -> Arc<EngineView> {
        Arc::clone(&self.lock().view)
    }

    pub(crate) fn publish(&self, view: Arc<EngineView>) {
        self.lock().view = view;
    }

    pub(crate) fn set_life(&self, life: Life) {
        let mut state = self.lock();
        let still_idle = matches!((state.life, life), (Life::IdleSince(_), Life::IdleSince(_)));
        if state.life != life && !still_idle {
            state.life = life;
            self.changed.notify_all();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().life == Life::Closed
    }

    pub(crate) fn wait_idle(&self, quiet: Duration, timeout: Option<Duration>) -> Idle {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let until = match state.life {
                Life::Ended => return Idle::Ended,
                Life::Closed => return Idle::Closed,
                Life::IdleSince(since) if now >= since + quiet => return Idle::Reached,
                Life::IdleSince(since) => Some(since + quiet),
                Life::Busy => None,
            };
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Idle::TimedOut;
            }
            let wake = until.into_iter().chain(deadline).min();
            state = match wake {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(wake) => {
                    let wait = self.changed.wait_timeout(state, wake - now);
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each statement leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
