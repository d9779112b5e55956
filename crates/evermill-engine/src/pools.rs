//! Pools by name: how many slots each has, who said so, and who uses them (W19).
//!
//! What an operator set goes before what the engine was opened with (`evermill.toml`), and that
//! before the usual number. What was set is a row in the table `setting`, so it lasts over restarts:
//! `run = 0`, `lane` = [`KIND`], `id` = the pool's name, body = `u8 1`, `u32` slots (big endian).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use evermill_core::command::Command;
use evermill_core::row::{Key, Row, Table, Write};
use evermill_core::{Machine, PoolTask};
use evermill_store::{Store, StoreError};

use crate::books::{Books, nearest};
use crate::handle::EngineError;
use crate::input::Reply;
use crate::limits;
use crate::prepare::PoolNumbers;
use crate::requests::is_over;
use crate::shard::Shard;
use crate::view::{PoolTaskView, PoolView, PoolWord};

/// Which settings of the table these are.
const KIND: u32 = 1;
const FORMAT: u8 = 1;

/// How large pools are.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolSizes {
    /// The engine was opened with these.
    pub(crate) given: BTreeMap<String, u32>,
    /// An operator has set these.
    set: BTreeMap<String, u32>,
}

impl PoolSizes {
    /// Reads what was set.
    pub(crate) fn load(
        store: &mut dyn Store,
        given: BTreeMap<String, u32>,
    ) -> Result<Self, StoreError> {
        let mut rows = Vec::new();
        store.load(Table::Setting, &mut |row| rows.push(row))?;
        let mut set = BTreeMap::new();
        for row in rows.into_iter().filter(|row| row.key.lane == KIND) {
            let name = String::from_utf8(row.key.id.to_vec()).ok();
            let slots = match row.body.split_first() {
                Some((&FORMAT, slots)) => slots.try_into().ok().map(u32::from_be_bytes),
                _ => None,
            };
            let (Some(name), Some(slots)) = (name, slots) else {
                return Err(StoreError::Damaged {
                    path: std::path::PathBuf::from("store.db"),
                    what: format!("the size of pool {:?} has a wrong shape", row.key.id),
                });
            };
            set.insert(name, slots);
        }
        Ok(Self { given, set })
    }

    fn of(&self, name: &str) -> (u32, PoolWord) {
        let set = self.set.get(name).map(|slots| (*slots, PoolWord::Set));
        let given = self.given.get(name).map(|slots| (*slots, PoolWord::File));
        set.or(given)
            .unwrap_or((limits::POOL_SLOTS, PoolWord::Default))
    }

    /// Sets a size, or forgets what was set: what has to be written for that.
    pub(crate) fn change(&mut self, name: &str, slots: Option<u32>) -> Write {
        let key = Key {
            run: 0,
            lane: KIND,
            id: Bytes::copy_from_slice(name.as_bytes()),
        };
        let Some(slots) = slots else {
            self.set.remove(name);
            return Write::Delete(Table::Setting, key);
        };
        self.set.insert(name.to_owned(), slots);
        let mut body = vec![FORMAT];
        body.extend(slots.to_be_bytes());
        Write::Put(Row {
            table: Table::Setting,
            key,
            body: body.into(),
        })
    }

    /// Refuses a name that nobody uses.
    pub(crate) fn check(&self, name: &str, numbers: &PoolNumbers) -> Result<(), EngineError> {
        let known = self.names(numbers);
        if known.contains(name) {
            return Ok(());
        }
        Err(EngineError::UnknownPool {
            name: name.to_owned(),
            nearest: nearest(name, known.iter().map(String::as_str)),
        })
    }

    /// Every pool that a task names, or somebody gave a size.
    fn names(&self, numbers: &PoolNumbers) -> BTreeSet<String> {
        let named = (0..numbers.len()).filter_map(|pool| numbers.name(pool));
        named
            .chain(self.given.keys().cloned())
            .chain(self.set.keys().cloned())
            .collect()
    }

    /// Every pool; with what is used of it where an engine runs.
    pub(crate) fn list(
        &self,
        books: Books<'_>,
        numbers: &PoolNumbers,
        live: bool,
    ) -> Vec<PoolView> {
        let used = if live {
            used(books.machine)
        } else {
            BTreeMap::new()
        };
        let mut tasks = declared(books, numbers);
        let names = self.names(numbers).into_iter();
        let view = |name: String| {
            let (slots, set_by) = self.of(&name);
            let number =
                (0..numbers.len()).find(|pool| numbers.name(*pool).as_ref() == Some(&name));
            let used = number.and_then(|number| used.get(&number));
            let mut tasks = tasks.remove(&name).unwrap_or_default();
            for task in used.iter().flat_map(|(_, tasks)| tasks.iter()) {
                take_over(&mut tasks, books, task);
            }
            PoolView {
                slots,
                set_by,
                used: live.then(|| used.map_or(0, |(used, _)| *used)),
                waiting: live.then(|| tasks.iter().map(|task| task.waiting).sum()),
                tasks,
                name,
            }
        };
        names.map(view).collect()
    }
}

/// What the machine says of each pool.
fn used(machine: &Machine) -> BTreeMap<u16, (u32, Vec<PoolTask>)> {
    let pools = machine.pools().into_iter();
    pools
        .map(|pool| (pool.pool, (pool.used, pool.tasks)))
        .collect()
}

/// Tasks of runs that are not over, by the pool they name.
fn declared(books: Books<'_>, numbers: &PoolNumbers) -> BTreeMap<String, Vec<PoolTaskView>> {
    let mut tasks: BTreeMap<String, Vec<PoolTaskView>> = BTreeMap::new();
    for run in books.runs().filter(|run| !is_over(run.state)) {
        let Some(known) = books.versions.get(&run.version) else {
            continue;
        };
        for task in &known.dag.spec.tasks {
            if let Some(name) = task.pool.and_then(|pool| numbers.name(pool)) {
                tasks.entry(name).or_default().push(PoolTaskView {
                    dag: run.dag.clone(),
                    run: run.name.clone(),
                    task: task.id.clone(),
                    used: 0,
                    waiting: 0,
                });
            }
        }
    }
    tasks
}

/// Adds what a task has and wants; over a swap two versions of it may.
fn take_over(tasks: &mut Vec<PoolTaskView>, books: Books<'_>, found: &PoolTask) {
    let Some(run) = books.machine.run(found.run) else {
        return;
    };
    let versions = books.machine.run_versions(found.run);
    let version = versions.get(usize::from(found.version));
    let known = version.and_then(|version| books.versions.get(version));
    let Some(spec) = known.and_then(|known| known.dag.spec.tasks.get(usize::from(found.task)))
    else {
        return;
    };
    let same = |task: &&mut PoolTaskView| task.run == run.name && task.task == spec.id;
    if let Some(task) = tasks.iter_mut().find(same) {
        task.used += found.used;
        task.waiting += found.waiting;
    } else if found.used > 0 || found.waiting > 0 {
        tasks.push(PoolTaskView {
            dag: run.dag,
            run: run.name,
            task: spec.id.clone(),
            used: found.used,
            waiting: found.waiting,
        });
    }
}

impl Shard {
    /// Pools that were met for the first time get their slots (W19).
    pub(crate) fn tell_pools(&mut self) {
        while self.pools_told < self.world.pools.len() {
            let pool = self.pools_told;
            self.pools_told += 1;
            self.tell_pool(pool);
        }
    }

    fn tell_pool(&mut self, pool: u16) {
        let Some(name) = self.world.pools.name(pool) else {
            return;
        };
        let (slots, _) = self.pool_sizes.of(&name);
        self.apply(Command::Pool { pool, slots });
    }

    pub(crate) fn list_pools(&self) -> Vec<PoolView> {
        self.pool_sizes.list(self.books(), &self.world.pools, true)
    }

    /// Sets the size of a pool, or goes back to what the engine was opened with; the answer follows
    /// the commit.
    pub(crate) fn set_pool(&mut self, name: &str, slots: Option<u32>, reply: Reply<PoolView>) {
        if let Err(refused) = self.pool_sizes.check(name, &self.world.pools) {
            return crate::requests::answer(&reply, Err(refused));
        }
        let write = self.pool_sizes.change(name, slots);
        self.decision.writes.push(write);
        self.unseal();
        let told =
            (0..self.pools_told).find(|pool| self.world.pools.name(*pool).as_deref() == Some(name));
        if let Some(pool) = told {
            self.tell_pool(pool);
        }
        let pools = self.list_pools().into_iter();
        let found = pools.into_iter().find(|pool| pool.name == name);
        let found = found.unwrap_or_else(|| PoolView::empty(name));
        self.reply_after_commit(reply, Ok(found));
    }
}
