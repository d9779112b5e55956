//! A store whose commits of a lane's position, or of what an inbox keeps, wait at a gate, or are the last for a while.

use std::sync::{Arc, Condvar, Mutex};

use evermill_core::row::{Row, Table, Write};
use evermill_store::{
    Batch, CommitError, CommitId, Committed, Fault, Faults, Fence, Header, Outcome, Reader, Report,
    Store, StoreError,
};

use crate::harness::PATIENCE;

/// Open at first; shared with every store behind it.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    shut: bool,
    waiting: bool,
    cuts: bool,
}

impl Gate {
    /// From now on a commit that moves a lane or keeps events waits before anything of it is written.
    pub(crate) fn shut(&self) {
        self.0.0.lock().unwrap().shut = true;
    }

    /// Lets it pass.
    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().shut = false;
        self.0.1.notify_all();
    }

    /// The next commit that moves a lane is made; the one after it is not, as if the engine had been
    /// killed between the two.
    pub(crate) fn cut_behind(&self) {
        self.0.0.lock().unwrap().cuts = true;
    }

    /// That has not happened yet.
    pub(crate) fn will_cut(&self) -> bool {
        self.0.0.lock().unwrap().cuts
    }

    /// A commit stands at the gate.
    pub(crate) fn is_reached(&self) -> bool {
        self.0.0.lock().unwrap().waiting
    }

    fn takes_cut(&self) -> bool {
        std::mem::take(&mut self.0.0.lock().unwrap().cuts)
    }

    fn pass(&self) {
        let (state, opened) = &*self.0;
        let mut state = state.lock().unwrap();
        state.waiting = true;
        let shut = |state: &mut State| state.shut;
        let (mut state, late) = opened.wait_timeout_while(state, PATIENCE, shut).unwrap();
        assert!(!late.timed_out(), "nobody opens the gate");
        state.waiting = false;
    }
}

pub(crate) struct GatedStore {
    pub(crate) inner: Box<dyn Store>,
    pub(crate) gate: Gate,
    /// Of the inner store.
    pub(crate) faults: Faults,
}

impl Store for GatedStore {
    fn header(&self) -> &Header {
        self.inner.header()
    }

    fn load(&mut self, table: Table, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.inner.load(table, each)
    }

    fn claim(&mut self, shard: u32) -> Result<Fence, CommitError> {
        self.inner.claim(shard)
    }

    fn commit(&mut self, group: &[Batch]) -> Result<Committed, CommitError> {
        let stops = |write: &Write| match write {
            Write::Put(row) => match row.table {
                Table::Lane => true,
                // The inbox itself has an empty id.
                Table::Inbox => !row.key.id.is_empty(),
                _ => false,
            },
            _ => false,
        };
        if !group.iter().flat_map(|batch| &batch.writes).any(stops) {
            return self.inner.commit(group);
        }
        self.gate.pass();
        let committed = self.inner.commit(group);
        if self.gate.takes_cut() {
            self.faults.next(Fault::UnknownAbsent);
        }
        committed
    }

    fn outcome(&mut self, id: CommitId) -> Result<Outcome, StoreError> {
        self.inner.outcome(id)
    }

    fn tend(&mut self, idle: bool) -> Result<(), StoreError> {
        self.inner.tend(idle)
    }

    fn trim_history(&mut self, before_ms: i64) -> Result<u64, CommitError> {
        self.inner.trim_history(before_ms)
    }

    fn verify(&mut self) -> Result<Report, StoreError> {
        self.inner.verify()
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.inner.reader()
    }

    fn close_clean(self: Box<Self>) -> Result<(), StoreError> {
        self.inner.close_clean()
    }
}
