//! Everything that runs user code behind one face: workers of several interpreters, each with a fork
//! server and slots of its own, and slots for what DAG files in YAML declare.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evermill_contract::manifest::DagManifest;
use evermill_contract::settings::{NoSettings, Settings};
use evermill_contract::worker::{
    Answer, Dispatch, Events, Executor, Slot, TaskRef, Token, WorkerEvent,
};

use evermill_contract::yaml;

use crate::config::PoolConfig;
use crate::declared::{Declared, Shadow};
use crate::http;
use crate::native::{NativePool, NativeTask};
use crate::places::{self, Asking, Places};
use crate::pool::PythonPool;
use crate::sinks::{self, Opened, Sending, Sinks};
use crate::threads::Threads;

/// A pool for each interpreter, and two for what files in YAML declare: commands, which need a
/// processor each, and requests, which wait. Any other task of a DAG runs in the pool that was named
/// for it, those of a DAG without one in the first.
pub struct Pools {
    pools: Vec<(Range<u16>, Box<dyn Executor>)>,
    events: Arc<Events>,
    growth: Option<Growth>,
    /// Pools of interpreters that were started on demand.
    of_interpreter: BTreeMap<PathBuf, usize>,
    /// By the folder of a version's bundle.
    of_folder: BTreeMap<String, usize>,
    of_dag: BTreeMap<String, usize>,
    shell: Option<usize>,
    http: Option<usize>,
    sinks: Option<usize>,
    places: Option<usize>,
    /// Tasks that are requests, by DAG and id.
    requests: BTreeSet<(String, String)>,
}

/// How pools come for DAGs that were not known at the start.
pub struct Growth {
    /// A pool for another interpreter, but for its interpreter.
    pub template: PoolConfig,
    /// The interpreter of a DAG, given the one that it names.
    pub interpreter: Interpreter,
}

/// The interpreter of a DAG, given the one that it names, if it names one.
pub type Interpreter = Box<dyn Fn(Option<&str>) -> PathBuf + Send>;

/// What runs the tasks of files in YAML.
#[derive(Debug, Clone)]
pub struct DeclaredConfig {
    /// Slots for commands; without any, there is nobody to run such tasks.
    pub shell_slots: u16,
    /// Tasks that are requests, by DAG and id.
    pub requests: BTreeSet<(String, String)>,
    /// Where connections lead, and secrets that commands ask for.
    pub settings: Arc<dyn Settings>,
    /// Opens the sinks of tasks that have one, in files of any kind.
    pub sinks: Option<Sinks>,
    /// Opens the places of sensors that ask one, in files of any kind.
    pub places: Option<Places>,
    /// DAGs come later, too: there are slots for requests whether any is known or not.
    pub grows: bool,
    /// These are the workers of a shadow: no request is made, and commands are told.
    pub shadow: Option<Shadow>,
}

impl Default for DeclaredConfig {
    fn default() -> Self {
        Self {
            shell_slots: 0,
            requests: BTreeSet::new(),
            settings: Arc::new(NoSettings),
            sinks: None,
            places: None,
            grows: false,
            shadow: None,
        }
    }
}

impl Pools {
    /// Starts a pool per configuration; each comes with the ids of the DAGs that it serves.
    ///
    /// # Errors
    /// As [`PythonPool::start`]; a sentence also if there is nothing to start, or too many slots.
    pub fn start(
        configs: Vec<(PoolConfig, Vec<String>)>,
        declared: DeclaredConfig,
        events: Events,
    ) -> Result<Self, String> {
        let DeclaredConfig {
            shell_slots,
            requests,
            settings,
            sinks,
            places,
            grows,
            shadow,
        } = declared;
        if configs.is_empty() && shell_slots == 0 {
            return Err("no interpreter was named".to_owned());
        }
        let events = Arc::new(events);
        let mut all = Self::empty(&events);
        all.requests = requests;
        for (config, dags) in configs {
            let number = all.pools.len();
            let (slots, first) = (config.slots, all.slots());
            all.of_interpreter
                .insert(config.interpreter.clone(), number);
            let pool = PythonPool::start(config, Box::new(moving(&events, first)))?;
            all.of_dag.extend(dags.into_iter().map(|dag| (dag, number)));
            all.add(slots, Box::new(pool))?;
        }
        if shell_slots > 0 {
            all.shell = Some(all.pools.len());
            all.add_threads(shell_slots, &events, &settings, shadow.as_ref())?;
        }
        if shell_slots > 0 && (grows || !all.requests.is_empty()) {
            all.http = Some(all.pools.len());
            all.add_threads(http::SLOTS, &events, &settings, shadow.as_ref())?;
        }
        if let Some(sinks) = sinks {
            all.add_sinks(sinks, &events)?;
        }
        if let Some(places) = places {
            all.places = Some(all.pools.len());
            let tell = Arc::new(moving(&events, all.slots()));
            let opened = places::Opened::new(places);
            let make = move || Asking(Arc::clone(&opened));
            let threads = Threads::start(places::SLOTS, tell, make)?;
            all.add(places::SLOTS, Box::new(threads))?;
        }
        Ok(all)
    }

    /// The pool of a program's closures, and what sends for those of its tasks that have a sink.
    ///
    /// # Errors
    /// A sentence if the machine gives no thread.
    pub fn native(
        slots: u16,
        tasks: BTreeMap<String, NativeTask>,
        sinks: Option<Sinks>,
        events: Events,
    ) -> Result<Self, String> {
        let events = Arc::new(events);
        let mut all = Self::empty(&events);
        let pool = NativePool::start(slots, tasks, Box::new(moving(&events, 0)))?;
        all.add(slots, Box::new(pool))?;
        if let Some(sinks) = sinks {
            all.add_sinks(sinks, &events)?;
        }
        Ok(all)
    }

    fn empty(events: &Arc<Events>) -> Self {
        Self {
            pools: Vec::new(),
            events: Arc::clone(events),
            growth: None,
            of_interpreter: BTreeMap::new(),
            of_folder: BTreeMap::new(),
            of_dag: BTreeMap::new(),
            shell: None,
            http: None,
            sinks: None,
            places: None,
            requests: BTreeSet::new(),
        }
    }

    fn add_sinks(&mut self, sinks: Sinks, events: &Arc<Events>) -> Result<(), String> {
        self.sinks = Some(self.pools.len());
        let tell = Arc::new(moving(events, self.slots()));
        let opened = Opened::new(sinks);
        let make = move || Sending(Arc::clone(&opened));
        let threads = Threads::start(sinks::SLOTS, tell, make)?;
        self.add(sinks::SLOTS, Box::new(threads))
    }

    /// From now on a DAG that names an interpreter of its own gets a pool for it.
    #[must_use]
    pub fn growing(mut self, growth: Growth) -> Self {
        self.growth = Some(growth);
        self
    }

    /// The pool of an interpreter, started if it is met for the first time. One that cannot be started
    /// is told when something is dispatched to it.
    fn pool_of(&mut self, wanted: Option<&str>) -> Option<usize> {
        let growth = self.growth.as_ref()?;
        let interpreter = (growth.interpreter)(wanted);
        if let Some(known) = self.of_interpreter.get(&interpreter) {
            return Some(*known);
        }
        let config = PoolConfig {
            interpreter: interpreter.clone(),
            ..growth.template.clone()
        };
        let (slots, number) = (config.slots, self.pools.len());
        let events = Box::new(moving(&self.events, self.slots()));
        let pool =
            PythonPool::start(config, events).and_then(|pool| self.add(slots, Box::new(pool)));
        match pool {
            Ok(()) => {
                self.of_interpreter.insert(interpreter, number);
                Some(number)
            }
            Err(reason) => {
                let retry_in = Duration::MAX;
                (self.events)(WorkerEvent::Unavailable { reason, retry_in });
                None
            }
        }
    }

    fn add_threads(
        &mut self,
        slots: u16,
        events: &Arc<Events>,
        settings: &Arc<dyn Settings>,
        shadow: Option<&Shadow>,
    ) -> Result<(), String> {
        let tell = Arc::new(moving(events, self.slots()));
        let settings = Arc::clone(settings);
        let shadow = shadow.cloned();
        let make = move || Declared::new(Arc::clone(&settings), shadow.clone());
        self.add(slots, Box::new(Threads::start(slots, tell, make)?))
    }

    fn add(&mut self, slots: u16, pool: Box<dyn Executor>) -> Result<(), String> {
        let first = self.slots();
        let end = first
            .checked_add(slots)
            .ok_or("there are more than 65,535 workers")?;
        self.pools.push((first..end, pool));
        Ok(())
    }

    fn of(&self, task: &TaskRef) -> usize {
        if let (Some(_), Some(sinks)) = (&task.sink, self.sinks) {
            return sinks;
        }
        if let (Some(_), Some(places)) = (&task.polls, self.places) {
            return places;
        }
        if !yaml::is_yaml(&task.entry) {
            let folder = task.folder.as_ref();
            if let Some(pool) = folder.and_then(|folder| self.of_folder.get(folder)) {
                return *pool;
            }
            return self.of_dag.get(&task.dag).copied().unwrap_or(0);
        }
        // Either could run both: what differs is how many they run at once.
        let is_request = || {
            let key = (task.dag.clone(), task.task.clone());
            self.requests.contains(&key)
        };
        let http = self.http.filter(|_| is_request());
        http.or(self.shell).unwrap_or(0)
    }

    /// The pool that has a slot, and the pool's own name for it.
    fn owner(&mut self, slot: Slot) -> (&mut dyn Executor, Slot) {
        let (range, pool) = self
            .pools
            .iter_mut()
            .find(|(range, _)| range.contains(&slot.0))
            .expect("the slot exists");
        (pool.as_mut(), Slot(slot.0 - range.start))
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

    fn declare(&mut self, folder: &str, entry: &str, dag: &DagManifest) {
        if self.growth.is_none() {
            return;
        }
        if yaml::is_yaml(entry) {
            let requests = dag.tasks.iter().filter(|task| task.http.is_some());
            self.requests
                .extend(requests.map(|task| (dag.id.clone(), task.id.clone())));
        } else if let Some(pool) = self.pool_of(dag.python.as_deref()) {
            self.of_folder.insert(folder.to_owned(), pool);
        }
    }

    fn forget(&mut self, folder: &str) {
        self.of_folder.remove(folder);
        for (_, pool) in &mut self.pools {
            pool.forget(folder);
        }
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

/// Delivers events with the slot's number among all pools.
fn moving(events: &Arc<Events>, by: u16) -> impl Fn(WorkerEvent) + Send + Sync + use<> {
    let tell = Arc::clone(events);
    move |event| tell(moved(event, by))
}

fn moved(mut event: WorkerEvent, by: u16) -> WorkerEvent {
    match &mut event {
        WorkerEvent::Ready { slot, .. }
        | WorkerEvent::Outcomes { slot, .. }
        | WorkerEvent::Returned { slot, .. }
        | WorkerEvent::Finished { slot, .. }
        | WorkerEvent::Ask { slot, .. }
        | WorkerEvent::Log { slot, .. }
        | WorkerEvent::Progress { slot, .. }
        | WorkerEvent::Died { slot, .. } => slot.0 += by,
        WorkerEvent::Unavailable { .. } => {}
    }
    event
}
