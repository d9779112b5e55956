//! The DAG model: what authors declare (`DagSpec`), checked and laid out for waves (`Dag`).
//!
//! A DAG is compiled into *plans*, one per group of sources that share a descendant (W6, W7): the
//! nodes an activation of that group passes through, sources first, then tasks in topological
//! order. Waves index nodes by their place in the plan.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::rule::TriggerRule;

/// In which order the activations of a scope may run (W4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// First attempts start in lane order; nothing else is promised.
    #[default]
    None,
    /// First in, first out per task within one key.
    Key,
    /// First in, first out per task within one lane.
    Partition,
    /// An activation settles before the next one of its lane starts.
    Serial,
}

/// What happens to an activation that settled *failed* (W10). Ordered from weakest to strongest:
/// where several failed tasks disagree, the strongest wins.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Recorded and counted, nothing kept.
    Drop,
    /// Kept, visible, redrivable.
    #[default]
    Park,
    /// Kept, and its ordered scope waits for a redrive or a drop.
    Block,
    /// The run fails.
    Stop,
}

/// What an interruption (worker or engine died under the attempt) means (C4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInterrupt {
    /// Run again, uncounted.
    #[default]
    Rerun,
    /// A final failure: the task runs at most once, and its start commits before dispatch.
    Fail,
}

/// What a task does when it runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// User code.
    Call,
    /// User code that chooses which direct downstreams run.
    Branch,
    /// User code whose falsy answer skips what is below: every descendant, or direct ones only.
    ShortCircuit {
        /// Skip every descendant whatever its rule (Airflow's default).
        all_downstream: bool,
    },
    /// Succeeds at once.
    Noop,
    /// Waits this long, then succeeds: a sensor without a worker.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Waits for a signal of this name (W14).
    Signal {
        /// The signal's name.
        name: String,
    },
}

/// Where an edge starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// Index into `DagSpec::sources`.
    Source(u16),
    /// Index into `DagSpec::tasks`.
    Task(u16),
}

/// Waiting time before try `n + 1`: `delay * 2^(n-1)` when exponential, at most `max_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Backoff {
    /// Milliseconds.
    pub delay_ms: u64,
    /// Doubles with every failed try.
    pub exponential: bool,
    /// Milliseconds; the longest wait.
    pub max_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            delay_ms: 1_000,
            exponential: false,
            max_ms: limits::BACKOFF_MS_MAX,
        }
    }
}

impl Backoff {
    /// Milliseconds to wait after the given number of failed tries (1 or more).
    #[must_use]
    pub fn after(&self, failures: u32) -> u64 {
        let doublings = if self.exponential {
            failures.saturating_sub(1).min(40)
        } else {
            0
        };
        self.delay_ms
            .saturating_mul(1 << doublings)
            .min(self.max_ms)
    }
}

/// How often a sensor is asked, and for how long. An attempt that says *not yet* uses up no try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Poke {
    /// Wait after the n-th *not yet*.
    pub wait: Backoff,
    /// Milliseconds from the first *not yet* after which the next one is the last; `None` asks for ever.
    pub timeout_ms: Option<u64>,
    /// One that runs out of time is skipped, not failed.
    pub skips: bool,
}

/// One task, as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Unique in the DAG, sources included.
    pub id: String,
    /// What it does.
    pub kind: TaskKind,
    /// Direct upstreams.
    pub upstream: Vec<Node>,
    /// When it runs.
    pub rule: TriggerRule,
    /// A setup task, for `all_done_setup_success`.
    pub setup: bool,
    /// A teardown task: its own state never decides how the activation ended.
    pub teardown: bool,
    /// Further tries after the first failed one.
    pub retries: u32,
    /// Wait between tries.
    pub backoff: Backoff,
    /// It may say *not yet*: a sensor.
    #[serde(default)]
    pub poke: Option<Poke>,
    /// Policy when the activation settles failed because of this task.
    pub on_failure: OnFailure,
    /// Policy for interruptions.
    pub on_interrupt: OnInterrupt,
    /// Members a vectorised call takes at once (W8); `None` calls once per member.
    pub batch: Option<u32>,
    /// Largest number of simultaneous dispatches of this task; `None` is unlimited.
    pub concurrency: Option<u32>,
    /// Members of one dispatch that a worker runs at once, where nothing is ordered; what a dispatch
    /// takes of its pool (W19).
    pub parallel: u32,
    /// Index into the run's pools.
    pub pool: Option<u16>,
    /// Higher runs first.
    pub priority: i32,
    /// Its input is more than the replayable payload: results, state, a join, a signal (C3).
    pub reads_committed: bool,
    /// Milliseconds from arrival to the end of this task, after which its activation is late (W13).
    pub deadline_ms: Option<u64>,
    /// It writes `ctx.state` (W5).
    pub writes_state: bool,
    /// It reads what members before it in its scope have written, so that a dispatch has one of each scope.
    pub reads_state: bool,
    /// Mapped over the length this upstream task reports (W9), or over a literal length.
    pub mapped: Option<Mapped>,
}

/// What a mapped task (W9) is expanded over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mapped {
    /// The length an upstream task reported with its success; index into `DagSpec::tasks`.
    Over(u16),
    /// Known when the DAG was written.
    Length(u32),
}

impl TaskSpec {
    /// A plain task with every option at its default.
    #[must_use]
    pub fn new(id: impl Into<String>, upstream: Vec<Node>) -> Self {
        Self {
            id: id.into(),
            kind: TaskKind::Call,
            upstream,
            rule: TriggerRule::default(),
            setup: false,
            teardown: false,
            retries: 0,
            backoff: Backoff::default(),
            poke: None,
            on_failure: OnFailure::default(),
            on_interrupt: OnInterrupt::default(),
            batch: None,
            concurrency: None,
            parallel: 1,
            pool: None,
            priority: 0,
            reads_committed: false,
            deadline_ms: None,
            writes_state: false,
            reads_state: false,
            mapped: None,
        }
    }
}

/// How a source makes activations out of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSpec {
    /// Unique in the DAG, tasks included.
    pub id: String,
    /// A source batch (W8): the activation is the list.
    pub batch: Option<BatchSpec>,
    /// A loop (W15): the machine itself emits the next event.
    pub looped: Option<LoopSpec>,
    /// No-op tasks that were written before it, index into [`DagSpec::tasks`]: they run in each of its
    /// activations (W7).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<u16>,
}

impl SourceSpec {
    /// A source whose every event is an activation.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            batch: None,
            looped: None,
            after: Vec::new(),
        }
    }
}

/// Bounds of a source batch (W8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSpec {
    /// Events in a full batch, at least 1.
    pub max_events: u32,
    /// Milliseconds a partial batch waits for more.
    pub linger_ms: u64,
}

/// How a loop goes on (W15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopSpec {
    /// Milliseconds between settling one iteration and emitting the next.
    pub delay_ms: u64,
    /// Go on after a failed iteration, with a growing pause, at most this often in a row;
    /// `None`: a failed iteration fails the run.
    pub max_consecutive_failures: Option<u32>,
    /// The hidden last task whose short-circuit answer says whether to go on; index into tasks.
    pub until: Option<u16>,
}

/// How sources of one join find each other (W6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JoinSpec {
    /// Bind by equal event key instead of to the oldest open activation.
    pub on_key: bool,
    /// Milliseconds an activation stays open for missing sources.
    pub within_ms: Option<u64>,
    /// At `within_ms`, park instead of skipping what is missing.
    pub park_on_timeout: bool,
}

/// A DAG, as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DagSpec {
    /// Unique in the engine.
    pub id: String,
    /// Hash of the content (W17), lowercase hex.
    pub version: String,
    /// Ordering (W4).
    pub order: Order,
    /// Sources; a DAG without one runs when it is triggered.
    pub sources: Vec<SourceSpec>,
    /// Tasks, in the order they were written.
    pub tasks: Vec<TaskSpec>,
    /// How joined sources bind.
    pub join: JoinSpec,
    /// Milliseconds from arrival after which an unsettled activation has missed its deadline (W13).
    pub deadline_ms: Option<u64>,
    /// Unsettled activations at any time (W19); `None` leaves it to the engine's own bounds.
    pub max_active_runs: Option<u32>,
    /// A full row of history of every activation, with payload and results (S1).
    #[serde(default)]
    pub full_history: bool,
}

/// Something wrong with a DAG, found before it runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{dag}: {message} ({cure})")]
pub struct Fault {
    /// The DAG's id.
    pub dag: String,
    /// The node to look at; the front end knows its file and line.
    pub node: Option<String>,
    /// Stable name of the kind of fault.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub cure: String,
}

/// What a plan node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanNode {
    /// A source: done once its event is bound.
    Source(u16),
    /// A task.
    Task(u16),
}

/// A node in the order and form the sweep reads it.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it stands for.
    pub node: PlanNode,
    /// Direct upstreams, as places in the plan.
    pub up: Vec<u16>,
    /// Those of `up` that are setup tasks.
    pub setup_up: Vec<u16>,
    /// Direct downstreams, as places in the plan.
    pub down: Vec<u16>,
    /// Every descendant, as places in the plan, ascending.
    pub below: Vec<u16>,
    /// Nodes that must be final before this one is judged: branch parents, short circuits above.
    pub guards: Vec<u16>,
    /// Its end counts for how the activation ended.
    pub leaf: bool,
    /// Its upstreams are sources and no-ops only: its input can be replayed (C3).
    pub replayable: bool,
    /// Sources above it, as places in the plan, ascending.
    pub sources_above: Vec<u16>,
    /// Sources whose events its attempts see (C3): those that fired before it could start, as
    /// places in the plan, ascending.
    pub sees: Vec<u16>,
}

/// The nodes an activation of one source group passes through.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Sources first, then tasks in topological order.
    pub steps: Vec<Step>,
    /// How many of `steps` are sources.
    pub sources: usize,
    /// Place of each task of the DAG in this plan, if it is part of it.
    pub place: Vec<Option<u16>>,
    /// Some task waits for a signal.
    pub has_signals: bool,
    /// Activations wait for every source (W6): some task that is not `one_success` descends from
    /// two of them. Else the sources that did not fire are skipped.
    pub is_join: bool,
}

/// A checked DAG, laid out for waves. Immutable.
#[derive(Debug, Clone)]
pub struct Dag {
    /// As declared.
    pub spec: DagSpec,
    /// One per source group; a DAG without sources has one plan with all tasks.
    pub plans: Vec<Plan>,
    /// Plan of each source. A DAG without sources is activated through source 0 of plan 0.
    pub plan_of_source: Vec<u16>,
    /// The failure of a task may end a run of it, and with that everything that waits.
    pub(crate) ends_by_itself: bool,
    /// Milliseconds from arrival, and of which task; `None` for the whole activation (W13).
    pub deadlines: Vec<(u64, Option<u16>)>,
}

fn deadlines(spec: &DagSpec) -> Vec<(u64, Option<u16>)> {
    let tasks = (0..).zip(&spec.tasks);
    let of_tasks = tasks.filter_map(|(index, task)| Some((task.deadline_ms?, Some(index))));
    let whole = spec.deadline_ms.map(|ms| (ms, None));
    whole.into_iter().chain(of_tasks).collect()
}

impl Dag {
    /// Where this version of a DAG has a source of another one; by id, because positions belong to
    /// that. What somebody triggers by hand comes from no source.
    pub(crate) fn place_of(&self, other: &Self, source: u16) -> Option<u16> {
        let Some(known) = other.spec.sources.get(usize::from(source)) else {
            return self.spec.sources.is_empty().then_some(source);
        };
        let mut sources = self.spec.sources.iter();
        let place = sources.position(|source| source.id == known.id);
        place.map(|place| place as u16)
    }

    /// Where this version of a DAG has a task of another one, by id.
    pub(crate) fn task_of(&self, other: &Self, task: u16) -> Option<u16> {
        let known = &other.spec.tasks.get(usize::from(task))?.id;
        let mut tasks = self.spec.tasks.iter();
        let place = tasks.position(|task| task.id == *known);
        place.map(|place| place as u16)
    }

    /// Checks a declaration and lays it out.
    ///
    /// # Errors
    /// Every fault found, not only the first.
    pub fn compile(spec: DagSpec) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults {
            dag: &spec.id,
            list: Vec::new(),
        };
        check_ids(&spec, &mut faults);
        check_edges(&spec, &mut faults);
        check_options(&spec, &mut faults);
        let order = topological(&spec, &mut faults);
        if !faults.list.is_empty() {
            return Err(faults.list);
        }
        let groups = source_groups(&spec, &order);
        let stops = |task: &TaskSpec| task.on_failure == OnFailure::Stop;
        let loops = |source: &SourceSpec| source.looped.is_some();
        let ends_by_itself = spec.tasks.iter().any(stops) || spec.sources.iter().any(loops);
        let mut plan_of_source = vec![0; spec.sources.len().max(1)];
        let mut plans: Vec<Plan> = Vec::with_capacity(groups.len());
        for group in groups {
            for &source in &group {
                plan_of_source[usize::from(source)] = plans.len() as u16;
            }
            plans.push(lay_out(&spec, &order, &group));
        }
        let mut faults = Faults {
            dag: &spec.id,
            list: Vec::new(),
        };
        for (index, task) in spec.tasks.iter().enumerate() {
            if plans.iter().all(|plan| plan.place[index].is_none()) {
                let message = format!(
                    "task '{}' is connected to no source and never runs",
                    task.id
                );
                faults.add(
                    Some(&task.id),
                    "never_runs",
                    message,
                    "put it below a source",
                );
            }
        }
        if faults.list.is_empty() {
            Ok(Self {
                deadlines: deadlines(&spec),
                spec,
                plans,
                plan_of_source,
                ends_by_itself,
            })
        } else {
            Err(faults.list)
        }
    }

    /// The task a plan node stands for.
    #[must_use]
    pub fn task(&self, step: &Step) -> Option<&TaskSpec> {
        match step.node {
            PlanNode::Source(_) => None,
            PlanNode::Task(task) => Some(&self.spec.tasks[usize::from(task)]),
        }
    }
}

struct Faults<'a> {
    dag: &'a str,
    list: Vec<Fault>,
}

impl Faults<'_> {
    fn add(&mut self, node: Option<&str>, code: &'static str, message: String, cure: &str) {
        self.list.push(Fault {
            dag: self.dag.to_owned(),
            node: node.map(str::to_owned),
            code,
            message,
            cure: cure.to_owned(),
        });
    }
}

fn check_ids(spec: &DagSpec, faults: &mut Faults<'_>) {
    let mut seen = BTreeSet::new();
    let ids = spec
        .sources
        .iter()
        .map(|s| &s.id)
        .chain(spec.tasks.iter().map(|t| &t.id));
    for id in ids {
        if id.is_empty() {
            faults.add(
                None,
                "empty_id",
                "a task or source has an empty id".into(),
                "give it an id",
            );
        } else if !seen.insert(id) {
            let message = format!("the id '{id}' is used twice");
            faults.add(Some(id), "duplicate_id", message, "rename one of the two");
        }
    }
    let nodes = spec.sources.len() + spec.tasks.len();
    if nodes > limits::NODES_PER_DAG_MAX {
        let message = format!("{nodes} nodes, more than {}", limits::NODES_PER_DAG_MAX);
        faults.add(
            None,
            "too_many_nodes",
            message,
            "split the DAG, or map one task over a list",
        );
    }
    if spec.tasks.is_empty() {
        faults.add(None, "no_task", "the DAG has no task".into(), "add a task");
    }
}

fn check_edges(spec: &DagSpec, faults: &mut Faults<'_>) {
    for task in &spec.tasks {
        let mut seen = BTreeSet::new();
        for &node in &task.upstream {
            let known = match node {
                Node::Source(source) => usize::from(source) < spec.sources.len(),
                Node::Task(other) => usize::from(other) < spec.tasks.len(),
            };
            if !known {
                let message = format!("task '{}' is downstream of an unknown node", task.id);
                faults.add(
                    Some(&task.id),
                    "unknown_upstream",
                    message,
                    "name an existing node",
                );
            } else if !seen.insert(node) {
                let message = format!("task '{}' names the same upstream twice", task.id);
                faults.add(
                    Some(&task.id),
                    "duplicate_edge",
                    message,
                    "remove one of the two edges",
                );
            }
        }
        if let Some(Mapped::Over(over)) = task.mapped
            && !task.upstream.contains(&Node::Task(over))
        {
            let message = format!(
                "task '{}' is mapped over a task that is not upstream",
                task.id
            );
            faults.add(
                Some(&task.id),
                "map_not_upstream",
                message,
                "map over a direct upstream",
            );
        }
    }
}

fn check_options(spec: &DagSpec, faults: &mut Faults<'_>) {
    for task in &spec.tasks {
        let ordered = spec.order != Order::None;
        if task.on_failure == OnFailure::Block && !ordered {
            let message = format!(
                "task '{}' blocks on failure, but nothing is ordered",
                task.id
            );
            let cure = "set order= to key, partition or serial, or use on_failure='park'";
            faults.add(Some(&task.id), "block_without_order", message, cure);
        }
        if task.poke.is_some() && task.on_interrupt == OnInterrupt::Fail {
            let message = format!("sensor '{}' is asked more than once by nature", task.id);
            let cure = "leave on_interrupt='fail' out";
            faults.add(Some(&task.id), "sensor_runs_once", message, cure);
        }
        if task.batch == Some(0) || task.concurrency == Some(0) {
            let message = format!("task '{}' has a batch or concurrency of 0", task.id);
            faults.add(
                Some(&task.id),
                "zero_bound",
                message,
                "use 1 or more, or leave it out",
            );
        }
    }
    for source in &spec.sources {
        if source.batch.is_some_and(|b| b.max_events == 0) {
            let message = format!("source '{}' batches 0 events", source.id);
            faults.add(
                Some(&source.id),
                "zero_bound",
                message,
                "use max_events=1 or more",
            );
        }
    }
}

/// Task indexes so that every task comes after its upstreams; ties in the order written.
fn topological(spec: &DagSpec, faults: &mut Faults<'_>) -> Vec<u16> {
    let count = spec.tasks.len();
    let mut waiting = vec![0usize; count];
    let mut down: Vec<Vec<u16>> = vec![Vec::new(); count];
    for (index, task) in spec.tasks.iter().enumerate() {
        for &node in &task.upstream {
            if let Node::Task(up) = node
                && usize::from(up) < count
            {
                waiting[index] += 1;
                down[usize::from(up)].push(index as u16);
            }
        }
    }
    let mut free: BTreeSet<u16> = (0..count)
        .filter(|&i| waiting[i] == 0)
        .map(|i| i as u16)
        .collect();
    let mut order = Vec::with_capacity(count);
    while let Some(next) = free.pop_first() {
        order.push(next);
        for &below in &down[usize::from(next)] {
            waiting[usize::from(below)] -= 1;
            if waiting[usize::from(below)] == 0 {
                free.insert(below);
            }
        }
    }
    if order.len() < count {
        let path = cycle_path(spec, &waiting);
        let message = format!("the tasks form a cycle: {}", path.join(" -> "));
        faults.add(
            path.first().map(String::as_str),
            "cycle",
            message,
            "remove one of these edges",
        );
    }
    order
}

/// Walks upstream among the tasks that never became free until one repeats.
fn cycle_path(spec: &DagSpec, waiting: &[usize]) -> Vec<String> {
    let Some(start) = waiting.iter().position(|&w| w > 0) else {
        return Vec::new();
    };
    let (mut walk, mut at) = (Vec::new(), start);
    while !walk.contains(&at) {
        walk.push(at);
        let stuck_upstream = spec.tasks[at].upstream.iter().find_map(|node| match node {
            Node::Task(up) if waiting[usize::from(*up)] > 0 => Some(usize::from(*up)),
            _ => None,
        });
        match stuck_upstream {
            Some(up) => at = up,
            None => break,
        }
    }
    let from = walk.iter().position(|&i| i == at).unwrap_or(0);
    let mut path: Vec<String> = walk[from..]
        .iter()
        .map(|&i| spec.tasks[i].id.clone())
        .collect();
    path.push(spec.tasks[at].id.clone());
    path.reverse();
    path
}

/// Sources that share a descendant belong together (W6); the others fire independently.
fn source_groups(spec: &DagSpec, order: &[u16]) -> Vec<Vec<u16>> {
    if spec.sources.is_empty() {
        return vec![Vec::new()];
    }
    let mut group_of: Vec<u16> = (0..spec.sources.len() as u16).collect();
    let mut above: Vec<BTreeSet<u16>> = vec![BTreeSet::new(); spec.tasks.len()];
    for &task in order {
        let mut sources = BTreeSet::new();
        for &node in &spec.tasks[usize::from(task)].upstream {
            match node {
                Node::Source(source) => drop(sources.insert(source)),
                Node::Task(up) => sources.extend(above[usize::from(up)].iter().copied()),
            }
        }
        let groups: BTreeSet<u16> = sources.iter().map(|&s| group_of[usize::from(s)]).collect();
        if let Some(&first) = groups.first() {
            for group in &mut group_of {
                if groups.contains(group) {
                    *group = first;
                }
            }
        }
        above[usize::from(task)] = sources;
    }
    let mut members: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    for (source, &group) in group_of.iter().enumerate() {
        members.entry(group).or_default().push(source as u16);
    }
    members.into_values().collect()
}

/// Which tasks an activation of these sources passes through (W7): what is below them, what feeds
/// that, and what hangs below those feeders without any source above it.
fn tasks_of_group(spec: &DagSpec, order: &[u16], group: &[u16]) -> BTreeSet<u16> {
    if spec.sources.is_empty() {
        return order.iter().copied().collect();
    }
    let mut below_any = BTreeSet::new();
    let of_group = group
        .iter()
        .filter_map(|&source| spec.sources.get(usize::from(source)));
    let mut tasks: BTreeSet<u16> = of_group.flat_map(|s| s.after.iter().copied()).collect();
    for &task in order {
        for node in &spec.tasks[usize::from(task)].upstream {
            let (any, ours) = match node {
                Node::Source(source) => (true, group.contains(source)),
                Node::Task(up) => (below_any.contains(up), tasks.contains(up)),
            };
            if any {
                below_any.insert(task);
            }
            if ours {
                tasks.insert(task);
            }
        }
    }
    loop {
        let before = tasks.len();
        for &task in order.iter().chain(order.iter().rev()) {
            for node in &spec.tasks[usize::from(task)].upstream {
                let Node::Task(up) = node else { continue };
                if tasks.contains(&task) {
                    tasks.insert(*up);
                } else if tasks.contains(up) && !below_any.contains(&task) {
                    tasks.insert(task);
                }
            }
        }
        if tasks.len() == before {
            return tasks;
        }
    }
}

fn lay_out(spec: &DagSpec, order: &[u16], group: &[u16]) -> Plan {
    let tasks = tasks_of_group(spec, order, group);
    // A DAG without sources gets one implicit trigger node, which is nobody's upstream.
    let sources: Vec<u16> = if group.is_empty() {
        vec![0]
    } else {
        group.to_vec()
    };
    let mut place = vec![None; spec.tasks.len()];
    for (&task, next) in order
        .iter()
        .filter(|t| tasks.contains(t))
        .zip(sources.len() as u16..)
    {
        place[usize::from(task)] = Some(next);
    }
    let mut steps: Vec<Step> = sources
        .iter()
        .map(|&source| blank_step(PlanNode::Source(source)))
        .collect();
    for &task in order.iter().filter(|t| tasks.contains(t)) {
        let mut step = blank_step(PlanNode::Task(task));
        for &node in &spec.tasks[usize::from(task)].upstream {
            let up = match node {
                Node::Source(s) => sources.iter().position(|&x| x == s).map(|i| i as u16),
                Node::Task(t) => place[usize::from(t)],
            };
            let Some(up) = up else { continue };
            step.up.push(up);
            if let Node::Task(t) = node
                && spec.tasks[usize::from(t)].setup
            {
                step.setup_up.push(up);
            }
        }
        steps.push(step);
    }
    link(spec, &mut steps);
    let sees = crate::sight::fired_before(spec, &steps);
    for (step, sees) in steps.iter_mut().zip(sees) {
        step.sees = sees;
    }
    let waits = |step: &Step| match step.node {
        PlanNode::Source(_) => false,
        PlanNode::Task(task) => {
            spec.tasks[usize::from(task)].rule != TriggerRule::OneSuccess
                && step.sources_above.len() > 1
        }
    };
    let is_join = steps.iter().any(waits);
    let kind = |&task: &u16| &spec.tasks[usize::from(task)].kind;
    let has_signals = tasks
        .iter()
        .any(|task| matches!(kind(task), TaskKind::Signal { .. }));
    Plan {
        sources: sources.len(),
        steps,
        place,
        has_signals,
        is_join,
    }
}

const fn blank_step(node: PlanNode) -> Step {
    Step {
        node,
        up: Vec::new(),
        setup_up: Vec::new(),
        down: Vec::new(),
        below: Vec::new(),
        guards: Vec::new(),
        leaf: false,
        replayable: false,
        sources_above: Vec::new(),
        sees: Vec::new(),
    }
}

/// Fills what follows from the upstream lists: downstreams, descendants, guards, leaves.
fn link(spec: &DagSpec, steps: &mut [Step]) {
    for at in 0..steps.len() {
        let mut above = BTreeSet::new();
        for &up in &steps[at].up {
            match steps[usize::from(up)].node {
                PlanNode::Source(_) => drop(above.insert(up)),
                PlanNode::Task(_) => above.extend(&steps[usize::from(up)].sources_above),
            }
        }
        steps[at].sources_above = above.into_iter().collect();
        for up in steps[at].up.clone() {
            steps[usize::from(up)].down.push(at as u16);
        }
    }
    for at in (0..steps.len()).rev() {
        let mut below: BTreeSet<u16> = steps[at].down.iter().copied().collect();
        for &down in &steps[at].down {
            below.extend(steps[usize::from(down)].below.iter().copied());
        }
        steps[at].below = below.into_iter().collect();
    }
    for at in 0..steps.len() {
        let PlanNode::Task(task) = steps[at].node else {
            continue;
        };
        let guarded = match spec.tasks[usize::from(task)].kind {
            TaskKind::ShortCircuit {
                all_downstream: true,
            } => steps[at].below.clone(),
            TaskKind::ShortCircuit {
                all_downstream: false,
            }
            | TaskKind::Branch => steps[at].down.clone(),
            _ => Vec::new(),
        };
        for below in guarded {
            steps[usize::from(below)].guards.push(at as u16);
        }
        // A mapped task needs its list whatever its rule says (W9).
        if let Some(Mapped::Over(over)) = spec.tasks[usize::from(task)].mapped {
            let list = steps.iter().position(|s| s.node == PlanNode::Task(over));
            steps[at].guards.extend(list.map(|list| list as u16));
        }
    }
    let untils: Vec<u16> = spec
        .sources
        .iter()
        .filter_map(|s| s.looped.as_ref().and_then(|l| l.until))
        .collect();
    let teardown = |step: &Step| match step.node {
        PlanNode::Task(task) => spec.tasks[usize::from(task)].teardown || untils.contains(&task),
        PlanNode::Source(_) => false,
    };
    let teardowns: Vec<bool> = steps.iter().map(teardown).collect();
    for at in 0..steps.len() {
        let is_task = matches!(steps[at].node, PlanNode::Task(_));
        let nothing_below = steps[at].down.iter().all(|&d| teardowns[usize::from(d)]);
        let is_until = matches!(steps[at].node, PlanNode::Task(task) if untils.contains(&task));
        steps[at].leaf = is_task && (is_until || !teardowns[at]) && nothing_below;
        let plain = |up: &u16| match steps[usize::from(*up)].node {
            PlanNode::Source(_) => true,
            PlanNode::Task(task) => {
                spec.tasks[usize::from(task)].kind == TaskKind::Noop
                    && steps[usize::from(*up)].replayable
            }
        };
        steps[at].replayable = steps[at].up.iter().all(plain);
    }
}
