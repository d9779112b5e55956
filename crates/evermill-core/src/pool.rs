//! Pools (W19): slots that tasks of any DAG share. A slot is one execution: a dispatch takes as many
//! as its worker runs at once, and gives them back as its members end.

use std::collections::BTreeMap;

use crate::bits;
use crate::command::{DispatchId, RunIx};
use crate::dag::{OnInterrupt, Order, TaskSpec};
use crate::dispatch::Dispatch;
use crate::machine::Machine;

/// Slots of a pool.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pool {
    pub(crate) slots: u32,
    pub(crate) used: u32,
}

impl Pool {
    pub(crate) const fn free(&self) -> u32 {
        self.slots.saturating_sub(self.used)
    }
}

/// A pool, as a face lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolView {
    /// Its number.
    pub pool: u16,
    /// Simultaneous executions there may be.
    pub slots: u32,
    /// Executions there are; more than `slots` after it was made smaller, until some end.
    pub used: u32,
    /// Tasks that take or want slots of it.
    pub tasks: Vec<PoolTask>,
}

/// What a task takes of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolTask {
    /// The run.
    pub run: RunIx,
    /// Number of the version in the run.
    pub version: u16,
    /// The task, index into `DagSpec::tasks` of that version.
    pub task: u16,
    /// Executions there are.
    pub used: u32,
    /// Members that could start at once.
    pub waiting: u64,
}

impl TaskSpec {
    /// How many members of a dispatch of this task a worker runs at a time.
    #[must_use]
    pub fn at_once(&self, order: Order) -> u32 {
        let one_by_one =
            order != Order::None || self.batch.is_some() || self.on_interrupt == OnInterrupt::Fail;
        if one_by_one { 1 } else { self.parallel.max(1) }
    }
}

impl Machine {
    /// Every pool that was told a size, with who uses it.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolView> {
        let mut tasks: BTreeMap<u16, BTreeMap<(RunIx, u16, u16), PoolTask>> = BTreeMap::new();
        for run in self.runs.values() {
            for (&(version, task), load) in &run.loads {
                let spec = &run.dags[usize::from(version)].spec.tasks[usize::from(task)];
                let Some(pool) = spec.pool else { continue };
                let waves = load.waves.iter();
                let waves = waves.filter_map(|&ix| self.waves[ix as usize].as_ref());
                let waiting: usize = waves.map(|wave| wave.ready_count(task)).sum();
                let of_task = PoolTask {
                    run: run.ix,
                    version,
                    task,
                    used: 0,
                    waiting: waiting as u64,
                };
                let of_pool = tasks.entry(pool).or_default();
                of_pool.insert((run.ix, version, task), of_task);
            }
        }
        for dispatch in self.dispatches.iter().filter(|d| d.taken > 0) {
            let of_pool = dispatch.pool().and_then(|pool| tasks.get_mut(&pool));
            let place = (dispatch.run, dispatch.version, dispatch.task);
            if let Some(of_task) = of_pool.and_then(|tasks| tasks.get_mut(&place)) {
                of_task.used += dispatch.taken;
            }
        }
        let view = |(&pool, of_pool): (&u16, &Pool)| PoolView {
            pool,
            slots: of_pool.slots,
            used: of_pool.used,
            tasks: tasks
                .remove(&pool)
                .unwrap_or_default()
                .into_values()
                .collect(),
        };
        self.pools.iter().map(view).collect()
    }

    /// Slots of executions that have ended go back while the dispatch goes on; the last one is kept
    /// until it is over, since its worker is not free before.
    pub(crate) fn return_ended_slots(&mut self, id: DispatchId) {
        let Some(dispatch) = self.dispatches.get_mut(id).filter(|d| d.taken > 1) else {
            return;
        };
        let left = bits::count(&dispatch.outstanding).max(1);
        let spare = dispatch.taken.saturating_sub(left);
        dispatch.taken -= spare;
        if let Some(pool) = dispatch.pool().and_then(|pool| self.pools.get_mut(&pool)) {
            pool.used -= spare;
        }
    }
}

impl Dispatch {
    /// The pool it takes slots of.
    pub(crate) fn pool(&self) -> Option<u16> {
        self.dag.spec.tasks[usize::from(self.task)].pool
    }
}
