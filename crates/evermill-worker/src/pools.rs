//! Workers of several interpreters behind one face: each has a fork server and slots of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use evermill_contract::worker::{
    Answer, Dispatch, Events, Executor, Slot, TaskRef, Token, WorkerEvent,
};

use crate::config::PoolConfig;
use crate::pool::PythonPool;

/// A pool for each interpreter. A DAG's tasks run in the pool that was named for it, those of any
/// other DAG in the first one.
#[derive(Debug)]
pub struct Pools {
    pools: Vec<(Range<u16>, PythonPool)>,
    of_dag: BTreeMap<String, usize>,
}

impl Pools {
    /// Starts a pool per configuration; each comes with the ids of the DAGs that it serves.
    ///
    /// # Errors
    /// As [`PythonPool::start`]; a sentence also if there is no configuration, or too many slots.
    pub fn start(configs: Vec<(PoolConfig, Vec<String>)>, events: Events) -> Result<Self, String> {
        if configs.is_empty() {
            return Err("no interpreter was named".to_owned());
        }
        let events = Arc::new(events);
        let (mut pools, mut of_dag) = (Vec::new(), BTreeMap::new());
        let mut first: u16 = 0;
        for (config, dags) in configs {
            let end = first
                .checked_add(config.slots)
                .ok_or("there are more than 65,535 workers")?;
            let (tell, offset) = (Arc::clone(&events), first);
            let pool =
                PythonPool::start(config, Box::new(move |event| tell(moved(event, offset))))?;
            of_dag.extend(dags.into_iter().map(|dag| (dag, pools.len())));
            pools.push((first..end, pool));
            first = end;
        }
        Ok(Self { pools, of_dag })
    }

    fn of(&self, task: &TaskRef) -> usize {
        self.of_dag.get(&task.dag).copied().unwrap_or(0)
    }

    /// The pool that has a slot, and the pool's own name for it.
    fn owner(&mut self, slot: Slot) -> (&mut PythonPool, Slot) {
        let (range, pool) = self
            .pools
            .iter_mut()
            .find(|(range, _)| range.contains(&slot.0))
            .expect("the slot exists");
        (pool, Slot(slot.0 - range.start))
    }
}

impl Executor for Pools {
    fn slots(&self) -> u16 {
        self.pools.last().map_or(0, |(range, _)| range.end)
    }

    fn slots_for(&self, task: &TaskRef) -> Range<u16> {
        self.pools[self.of(task)].0.clone()
    }

    fn prepare(&mut self, task: &TaskRef) {
        let pool = self.of(task);
        self.pools[pool].1.prepare(task);
    }

    fn dispatch(&mut self, slot: Slot, dispatch: Dispatch) {
        let (pool, slot) = self.owner(slot);
        pool.dispatch(slot, dispatch);
    }

    fn recall(&mut self, token: Token) {
        for (_, pool) in &mut self.pools {
            pool.recall(token);
        }
    }

    fn kill(&mut self, slot: Slot, grace: Duration) {
        let (pool, slot) = self.owner(slot);
        pool.kill(slot, grace);
    }

    fn answer(&mut self, slot: Slot, call: u32, answer: Answer) {
        let (pool, slot) = self.owner(slot);
        pool.answer(slot, call, answer);
    }

    fn shutdown(&mut self, grace: Duration) {
        for (_, pool) in &mut self.pools {
            pool.shutdown(grace);
        }
    }
}

/// The event with the slot's number among all pools.
fn moved(mut event: WorkerEvent, by: u16) -> WorkerEvent {
    match &mut event {
        WorkerEvent::Ready { slot, .. }
        | WorkerEvent::Outcomes { slot, .. }
        | WorkerEvent::Finished { slot, .. }
        | WorkerEvent::Ask { slot, .. }
        | WorkerEvent::Log { slot, .. }
        | WorkerEvent::Progress { slot, .. }
        | WorkerEvent::Died { slot, .. } => slot.0 += by,
        WorkerEvent::Unavailable { .. } => {}
    }
    event
}
