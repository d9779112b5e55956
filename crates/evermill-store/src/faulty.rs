//! A store that fails on purpose: the n-th commit, in a chosen way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evermill_core::row::{Row, Table};

use crate::error::{CommitError, StoreError};
use crate::store::{Batch, CommitId, Committed, Fence, Header, Outcome, Reader, Report, Store};

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// [`CommitError::Fatal`]; nothing became durable.
    FatalBefore,
    /// [`CommitError::Fatal`]; the commit is durable all the same.
    FatalAfter,
    /// [`CommitError::Full`]; the same commit may be tried again.
    Full,
    /// [`CommitError::Unknown`]; the commit is durable.
    UnknownCommitted,
    /// [`CommitError::Unknown`]; nothing became durable.
    UnknownAbsent,
}

/// The plan, shared by all stores of one place, over reopenings.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    tried: u64,
    fired: u64,
    planned: BTreeMap<u64, Fault>,
}

impl Faults {
    /// The `nth` tried commit, counted from 1 over all openings, fails in this way.
    pub fn at(&self, nth: u64, fault: Fault) {
        self.plan().planned.insert(nth, fault);
    }

    /// The next commit fails in this way.
    pub fn next(&self, fault: Fault) {
        let mut plan = self.plan();
        let nth = plan.tried + 1;
        plan.planned.insert(nth, fault);
    }

    /// Commits tried so far.
    #[must_use]
    pub fn tried(&self) -> u64 {
        self.plan().tried
    }

    /// Faults that have fired so far.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.plan().fired
    }

    fn take(&self) -> Option<Fault> {
        let mut plan = self.plan();
        plan.tried += 1;
        let nth = plan.tried;
        let fault = plan.planned.remove(&nth);
        plan.fired += u64::from(fault.is_some());
        fault
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store with a plan of faults.
pub struct FaultyStore {
    inner: Box<dyn Store>,
    faults: Faults,
    next_seq: u64,
    stopped: bool,
}

impl FaultyStore {
    /// Wraps a store that was just opened.
    #[must_use]
    pub fn new(inner: Box<dyn Store>, faults: Faults) -> Self {
        let next_seq = inner.header().last.map_or(0, |last| last.seq) + 1;
        Self {
            inner,
            faults,
            next_seq,
            stopped: false,
        }
    }

    fn working(&mut self) -> Result<&mut dyn Store, CommitError> {
        if self.stopped {
            Err(CommitError::Stopped)
        } else {
            Ok(&mut *self.inner)
        }
    }

    /// Stops, after making the group durable if `durable`, and names the commit.
    fn stop(&mut self, group: &[Batch], durable: bool) -> Result<CommitId, CommitError> {
        self.stopped = true;
        let id = CommitId {
            epoch: self.inner.header().epoch,
            seq: self.next_seq,
        };
        if durable {
            self.inner.commit(group)?;
        }
        Ok(id)
    }
}

impl Store for FaultyStore {
    fn header(&self) -> &Header {
        self.inner.header()
    }

    fn load(&mut self, table: Table, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.inner.load(table, each)
    }

    fn claim(&mut self, shard: u32) -> Result<Fence, CommitError> {
        self.working()?.claim(shard)
    }

    fn commit(&mut self, group: &[Batch]) -> Result<Committed, CommitError> {
        self.working()?;
        let fatal = || CommitError::Fatal(Arc::from("injected fault"));
        match self.faults.take() {
            None => {
                let committed = self.inner.commit(group)?;
                self.next_seq = committed.id.seq + 1;
                Ok(committed)
            }
            Some(Fault::Full) => Err(CommitError::Full),
            Some(Fault::FatalBefore) => self.stop(group, false).and(Err(fatal())),
            Some(Fault::FatalAfter) => self.stop(group, true).and(Err(fatal())),
            Some(Fault::UnknownCommitted) => {
                let id = self.stop(group, true)?;
                Err(CommitError::Unknown(id))
            }
            Some(Fault::UnknownAbsent) => {
                let id = self.stop(group, false)?;
                Err(CommitError::Unknown(id))
            }
        }
    }

    fn outcome(&mut self, id: CommitId) -> Result<Outcome, StoreError> {
        self.inner.outcome(id)
    }

    fn tend(&mut self, idle: bool) -> Result<(), StoreError> {
        self.inner.tend(idle)
    }

    fn trim_history(&mut self, before_ms: i64) -> Result<u64, CommitError> {
        self.working()?.trim_history(before_ms)
    }

    fn verify(&mut self) -> Result<Report, StoreError> {
        self.inner.verify()
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.inner.reader()
    }

    fn close_clean(self: Box<Self>) -> Result<(), StoreError> {
        if self.stopped {
            return Err(StoreError::Stopped(Arc::from("injected fault")));
        }
        self.inner.close_clean()
    }
}
