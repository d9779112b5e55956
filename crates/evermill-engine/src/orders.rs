//! Orders from the shard to a source's thread: a mailbox in which later orders replace earlier
//! ones of the same kind and lane, so that it is bounded by the number of lanes and posting never
//! blocks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use evermill_contract::source::{LaneName, Waker};
use evermill_core::command::LaneId;

/// Where to start, or start again, a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartLane {
    pub(crate) lane: LaneId,
    /// Next position to read.
    pub(crate) from: u64,
    /// What the lane must still be.
    pub(crate) incarnation: String,
    /// Batches carry it back, so that those of before the start are told apart.
    pub(crate) session: u32,
}

/// What a source's thread has to do next.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) start: BTreeMap<LaneName, StartLane>,
    pub(crate) credit: BTreeMap<LaneName, bool>,
    pub(crate) ack: BTreeMap<LaneName, u64>,
    /// Lanes that were taken and may be handed on, with how far they are settled.
    pub(crate) release: BTreeMap<LaneName, Option<u64>>,
    pub(crate) close: bool,
}

impl Orders {
    pub(crate) fn is_empty(&self) -> bool {
        let lanes = self.start.is_empty() && self.credit.is_empty() && self.release.is_empty();
        lanes && self.ack.is_empty() && !self.close
    }
}

/// The mailbox of one source.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    orders: Mutex<Orders>,
    waker: OnceLock<Waker>,
}

impl Mailbox {
    /// Told once by the source's thread: how to get its attention.
    pub(crate) fn listen(&self, waker: Waker) {
        // A source that is made again keeps the first waker's mailbox; there is only one source.
        drop(self.waker.set(waker));
    }

    pub(crate) fn take(&self) -> Orders {
        std::mem::take(&mut *self.lock())
    }

    pub(crate) fn start(&self, name: LaneName, start: StartLane) {
        self.post(|orders| drop(orders.start.insert(name, start)));
    }

    pub(crate) fn credit(&self, name: LaneName, open: bool) {
        self.post(|orders| {
            orders.credit.insert(name, open);
        });
    }

    /// A hint: it may wait until the source looks for itself, unless others read on from there.
    pub(crate) fn ack(&self, name: LaneName, position: u64, shared: bool) {
        if shared {
            return self.post(|orders| {
                orders.ack.insert(name, position);
            });
        }
        self.lock().ack.insert(name, position);
    }

    pub(crate) fn release(&self, name: LaneName, position: Option<u64>) {
        self.post(|orders| {
            orders.start.remove(&name);
            orders.release.insert(name, position);
        });
    }

    pub(crate) fn close(&self) {
        self.post(|orders| orders.close = true);
    }

    fn post(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.lock());
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        // Each statement leaves the orders whole.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
