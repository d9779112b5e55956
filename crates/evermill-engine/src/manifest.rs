//! From what front ends declare (`contract::manifest`) to what the core checks and runs
//! (`core::dag`), and to what dispatches need beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evermill_contract::identity::IdKind;
use evermill_contract::manifest::{
    self as declared, Code, DagManifest, Fault, Manifest, MapList, NodeKind, SinkConfig,
    SourceConfig, TaskManifest,
};
use evermill_contract::worker::Polled;
use evermill_core::dag::{
    self, Backoff, BatchSpec, Dag, DagSpec, JoinSpec, LoopSpec, Mapped, Node, OnFailure,
    OnInterrupt, Order, SourceSpec, TaskKind, TaskSpec,
};
use evermill_core::limits::BACKOFF_MS_MAX;
use evermill_core::rule::TriggerRule;

use crate::limits;
use crate::payload::Keys;

/// Wait between two questions to a sensor, where nobody says.
const SENSOR_WAIT_MS: u64 = 60_000;

/// What dispatches and faces need of a version beside the core's `Dag`.
#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) dag: Arc<str>,
    pub(crate) version: String,
    /// The DAG's first instant, RFC 3339.
    pub(crate) start_date: Option<String>,
    /// The entry file inside the bundle.
    pub(crate) entry: String,
    pub(crate) tasks: Vec<TaskOutline>,
    pub(crate) sources: Vec<SourceOutline>,
    /// Its bundle, by content.
    pub(crate) files: Vec<String>,
    /// How event keys reach the core.
    pub(crate) keys: Keys,
    by_id: BTreeMap<Arc<str>, u16>,
}

#[derive(Debug)]
pub(crate) struct TaskOutline {
    pub(crate) id: Arc<str>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) rate: Option<declared::Rate>,
    /// Of members of one key.
    pub(crate) key_rate: Option<declared::Rate>,
    /// The name of the signal it waits for.
    pub(crate) signal: Option<Arc<str>>,
    pub(crate) cwd: Option<String>,
    pub(crate) nice: u8,
    /// Connections and secrets that it may ask for.
    pub(crate) connections: Vec<String>,
    pub(crate) secrets: Vec<String>,
    /// Tasks whose results travel with a dispatch.
    pub(crate) ships: Vec<u16>,
    /// Where its value goes, in place of a callable.
    pub(crate) sink: Option<Arc<SinkConfig>>,
    /// What it asks, in place of a callable.
    pub(crate) polls: Option<Arc<Polled>>,
    /// It judges events, and what fails here is invalid.
    pub(crate) validates: bool,
    /// Nothing runs before it: its start is the event's arrival at a callable.
    pub(crate) first: bool,
}

#[derive(Debug)]
pub(crate) struct SourceOutline {
    pub(crate) id: Arc<str>,
    /// As it was declared, to open it again.
    pub(crate) declared: declared::SourceManifest,
    pub(crate) ids: IdKind,
    pub(crate) rate: Option<declared::Rate>,
    /// The name of the signals it takes.
    pub(crate) signal: Option<Arc<str>>,
    /// The alerts it listens to.
    pub(crate) alerts: Option<declared::AlertsSource>,
    pub(crate) freshness_ms: Option<u64>,
    /// What it hears of other DAGs.
    pub(crate) hears: Option<Hears>,
}

/// What a source hears of other DAGs.
#[derive(Debug, Clone)]
pub(crate) enum Hears {
    /// Ends of a DAG's activations.
    Ends {
        dag: String,
        ends: std::collections::BTreeSet<declared::End>,
    },
    /// What is emitted to a topic.
    Topic(String),
}

impl Outline {
    /// DAGs to whose ends it listens.
    pub(crate) fn heard_dags(&self) -> impl Iterator<Item = String> + '_ {
        self.sources
            .iter()
            .filter_map(|source| match &source.hears {
                Some(Hears::Ends { dag, .. }) => Some(dag.clone()),
                _ => None,
            })
    }

    pub(crate) fn task(&self, id: &str) -> Option<u16> {
        self.by_id.get(id).copied()
    }
}

/// Numbers pools by name, for all runs of an engine.
pub(crate) trait Pools {
    fn number(&mut self, name: &str) -> u16;
}

/// Compiles one DAG of a manifest under the version it has or was stored by.
pub(crate) fn compile(
    manifest: &Manifest,
    declared: &DagManifest,
    version: String,
    pools: &mut dyn Pools,
) -> Result<(Dag, Outline), Vec<Fault>> {
    let mut reader = Reader {
        declared,
        faults: Vec::new(),
        pools,
    };
    let spec = reader.spec(version);
    let mut faults = reader.faults;
    if !faults.is_empty() {
        return Err(faults);
    }
    let outline = outline(manifest, declared, &spec);
    match Dag::compile(spec) {
        Ok(dag) => {
            let faults = rates_of_joined(declared, &dag);
            if faults.is_empty() {
                Ok((dag, outline))
            } else {
                Err(faults)
            }
        }
        Err(found) => {
            faults.extend(found.into_iter().map(|fault| placed(declared, fault)));
            Err(faults)
        }
    }
}

/// Events that meet others have begun once they are read: their source has no rate of its own.
fn rates_of_joined(declared: &DagManifest, dag: &Dag) -> Vec<Fault> {
    let sources = declared.sources.iter().zip(&dag.plan_of_source);
    let limited = sources.filter(|(source, plan)| {
        source.rate_limit.is_some() && dag.plans[usize::from(**plan)].is_join
    });
    limited
        .map(|(source, _)| Fault {
            file: declared.file.clone(),
            line: source.line,
            column: None,
            code: Code::BadValue,
            message: format!(
                "source '{}': rate_limit, and its events meet those of another source",
                source.id
            ),
            cure: "give the first task after it the rate_limit".to_owned(),
        })
        .collect()
}

/// A fault of the core, with file and line.
fn placed(declared: &DagManifest, fault: dag::Fault) -> Fault {
    let line = fault
        .node
        .as_deref()
        .and_then(|node| line_of(declared, node));
    Fault {
        file: declared.file.clone(),
        line: line.unwrap_or(declared.line),
        column: None,
        code: code_of(fault.code),
        message: format!("DAG '{}': {}", fault.dag, fault.message),
        cure: fault.cure,
    }
}

/// The core's word for a kind of fault, in the words of DAG files. The core refuses more than any
/// front end can write, so several of its words have one page.
fn code_of(core: &str) -> Code {
    match core {
        "block_without_order" => Code::BlockNeedsOrder,
        "duplicate_edge" => Code::BadEdge,
        "empty_id" | "zero_bound" => Code::BadValue,
        "map_not_upstream" => Code::BadMap,
        "too_many_nodes" => Code::TooLarge,
        // What the two call the same; a word that is new in the core shows as the broadest one.
        same => Code::of(same).unwrap_or(Code::BadValue),
    }
}

fn line_of(declared: &DagManifest, node: &str) -> Option<u32> {
    let tasks = declared.tasks.iter().map(|task| (&task.id, task.line));
    let sources = declared
        .sources
        .iter()
        .map(|source| (&source.id, source.line));
    tasks
        .chain(sources)
        .find(|(id, _)| *id == node)
        .map(|(_, line)| line)
}

/// Every fault that starting this DAG would find, without an engine.
#[must_use]
pub fn faults(manifest: &Manifest, declared: &DagManifest) -> Vec<Fault> {
    let mut pools = BTreeMap::new();
    compile(manifest, declared, String::new(), &mut pools)
        .err()
        .unwrap_or_default()
}

impl Pools for BTreeMap<String, u16> {
    fn number(&mut self, name: &str) -> u16 {
        let next = self.len() as u16;
        *self.entry(name.to_owned()).or_insert(next)
    }
}

struct Reader<'a> {
    declared: &'a DagManifest,
    faults: Vec<Fault>,
    pools: &'a mut dyn Pools,
}

impl Reader<'_> {
    fn spec(&mut self, version: String) -> DagSpec {
        self.check_sharing();
        let declared = self.declared;
        let join = declared
            .sources
            .iter()
            .filter_map(|source| source.join)
            .next();
        DagSpec {
            id: declared.id.clone(),
            version,
            order: self.order(),
            sources: declared
                .sources
                .iter()
                .map(|source| spec_of(source, declared))
                .collect(),
            tasks: declared.tasks.iter().map(|task| self.task(task)).collect(),
            join: join.map_or_else(JoinSpec::default, |join| JoinSpec {
                on_key: join.on_key,
                within_ms: join.within_ms,
                park_on_timeout: false,
            }),
            deadline_ms: declared.deadline_ms,
            max_active_runs: declared.max_active_runs,
            full_history: self.keeps_all(),
        }
    }

    /// What a shared source cannot do: read without a group, or take state along.
    fn check_sharing(&mut self) {
        let declared = self.declared;
        for source in &declared.sources {
            let SourceConfig::Kafka(kafka) = &source.config else {
                continue;
            };
            if !kafka.membership {
                continue;
            }
            let mut fault = |line, message, cure: &str| {
                self.faults.push(Fault {
                    file: declared.file.clone(),
                    line,
                    column: None,
                    code: Code::BadValue,
                    message,
                    cure: cure.to_owned(),
                });
            };
            let id = &source.id;
            if kafka.group_id.is_none() {
                let message = format!("source '{id}': membership=True, and no group is named");
                fault(source.line, message, "name the group to join: group_id=...");
            }
            let order = source.order.unwrap_or(declared.order);
            let stateful = declared.tasks.iter().find(|task| task.wants.state);
            if let Some(task) = stateful.filter(|_| order != declared::Order::None) {
                let message = format!(
                    "task '{}' keeps ctx.state under an order, and source '{id}' shares its partitions \
                     (membership=True): state stays in its data directory when a partition moves",
                    task.id
                );
                fault(
                    task.line,
                    message,
                    "leave membership out, or keep the state in a database of your own",
                );
            }
        }
    }

    /// The core keeps all of an activation or a sample: what one task asks for holds for its DAG.
    fn keeps_all(&self) -> bool {
        let asked = self.declared.tasks.iter().filter_map(|task| task.history);
        self.declared.history == declared::History::Full
            || asked
                .into_iter()
                .any(|history| history == declared::History::Full)
    }

    /// A source's word goes before its DAG's. The core knows one order for a DAG, so all of its
    /// sources have to mean the same.
    fn order(&mut self) -> Order {
        let own = self.declared.order;
        let of = |source: &declared::SourceManifest| source.order.unwrap_or(own);
        let [first, others @ ..] = &self.declared.sources[..] else {
            return order(own);
        };
        for other in others.iter().filter(|other| of(other) != of(first)) {
            self.faults.push(Fault {
                file: self.declared.file.clone(),
                line: other.line,
                column: None,
                code: Code::MixedOrders,
                message: format!(
                    "DAG '{}': source '{}' keeps another order than source '{}'",
                    self.declared.id, other.id, first.id
                ),
                cure: "give all sources of a DAG the same order".to_owned(),
            });
        }
        order(of(first))
    }

    fn task(&mut self, task: &TaskManifest) -> TaskSpec {
        let upstream = task
            .upstream
            .iter()
            .filter_map(|edge| self.node(task, edge));
        let upstream: Vec<Node> = upstream.collect();
        if task.mapped.is_some() && task.rate_limit_per_key.is_some() {
            let message = format!(
                "task '{}': rate_limit_per_key, and it runs once per item of a list",
                task.id
            );
            self.fault(
                task,
                Code::BadValue,
                message,
                "use rate_limit, or limit the task that makes the list",
            );
        }
        TaskSpec {
            kind: match (&task.wait, task.kind) {
                (Some(declared::Wait::DelayMs(ms)), _) => TaskKind::Delay { ms: *ms },
                (Some(declared::Wait::Signal(name)), _) => TaskKind::Signal { name: name.clone() },
                (None, declared::TaskKind::Call | declared::TaskKind::Sensor) => TaskKind::Call,
                (None, declared::TaskKind::Branch) => TaskKind::Branch,
                (None, declared::TaskKind::ShortCircuit) => TaskKind::ShortCircuit {
                    all_downstream: true,
                },
                (None, declared::TaskKind::Noop) => TaskKind::Noop,
            },
            rule: rule(task.trigger_rule),
            retries: task.retries,
            backoff: backoff(task),
            poke: poke(task),
            on_failure: on_failure(task.on_failure.unwrap_or(self.declared.on_failure)),
            on_interrupt: match task.on_interrupt {
                declared::OnInterrupt::Rerun => OnInterrupt::Rerun,
                declared::OnInterrupt::Fail => OnInterrupt::Fail,
            },
            batch: task.batch.or_else(|| self.sent_together(task)),
            concurrency: task.sink.is_some().then_some(limits::SINK_CALLS),
            parallel: task.concurrency.unwrap_or(1),
            pool: task.pool.as_deref().map(|name| self.pools.number(name)),
            priority: task.priority,
            deadline_ms: task.deadline_ms,
            reads_committed: reads_committed(task),
            writes_state: task.wants.state,
            reads_state: task.wants.reads_state,
            mapped: self.mapped(task),
            ..TaskSpec::new(task.id.clone(), upstream)
        }
    }

    /// Messages of a sink go side by side, unless each waits for the activation before it.
    fn sent_together(&self, task: &TaskManifest) -> Option<u32> {
        let own = self.declared.order;
        let mut orders = self
            .declared
            .sources
            .iter()
            .map(|source| source.order.unwrap_or(own));
        let serial = orders.any(|order| order == declared::Order::Serial);
        let most = match task.sink.as_ref()? {
            SinkConfig::Kafka(_) | SinkConfig::Sqs(_) | SinkConfig::Topic(_) => limits::SINK_BATCH,
            SinkConfig::Http(_) | SinkConfig::File(_) => limits::SINK_REQUESTS,
        };
        (!serial).then_some(most)
    }

    fn node(&mut self, task: &TaskManifest, edge: &declared::Edge) -> Option<Node> {
        let node = match edge.kind {
            NodeKind::Task => task_index(self.declared, &edge.node).map(Node::Task),
            NodeKind::Source => source_index(self.declared, &edge.node).map(Node::Source),
        };
        if node.is_none() {
            let message = format!(
                "task '{}' is downstream of '{}', which does not exist",
                task.id, edge.node
            );
            self.fault(
                task,
                Code::UnknownUpstream,
                message,
                "name an existing task or source",
            );
        }
        node
    }

    fn mapped(&mut self, task: &TaskManifest) -> Option<Mapped> {
        let over = &task.mapped.as_ref()?.over;
        let [only] = over.as_slice() else {
            let message = format!("task '{}' maps over {} lists at once", task.id, over.len());
            self.fault(
                task,
                Code::NotBuilt,
                message,
                "build the combinations in a task and map over its result",
            );
            return None;
        };
        match &only.list {
            MapList::Literal(length) => Some(Mapped::Length(*length)),
            MapList::Task(id) => match task_index(self.declared, id) {
                Some(index) => Some(Mapped::Over(index)),
                None => {
                    let message =
                        format!("task '{}' maps over '{id}', which does not exist", task.id);
                    self.fault(task, Code::BadMap, message, "map over an existing task");
                    None
                }
            },
        }
    }

    fn fault(&mut self, task: &TaskManifest, code: Code, message: String, cure: &str) {
        self.faults.push(Fault {
            file: self.declared.file.clone(),
            line: task.line,
            column: None,
            code,
            message,
            cure: cure.to_owned(),
        });
    }
}

fn task_index(declared: &DagManifest, id: &str) -> Option<u16> {
    declared
        .tasks
        .iter()
        .position(|task| task.id == id)
        .map(|index| index as u16)
}

fn source_index(declared: &DagManifest, id: &str) -> Option<u16> {
    declared
        .sources
        .iter()
        .position(|source| source.id == id)
        .map(|index| index as u16)
}

fn spec_of(source: &declared::SourceManifest, dag: &DagManifest) -> SourceSpec {
    let index_of = |id: &String| {
        let index = dag.tasks.iter().position(|task| task.id == *id);
        index.map(|index| index as u16)
    };
    SourceSpec {
        looped: match &source.config {
            SourceConfig::Loop(config) => Some(LoopSpec {
                delay_ms: config.delay_ms,
                max_consecutive_failures: config.max_consecutive_failures,
                until: config.until.as_ref().and_then(index_of),
            }),
            _ => None,
        },
        batch: source.batch.map(|batch| BatchSpec {
            max_events: batch.max_events,
            linger_ms: batch.linger_ms,
        }),
        after: source.after.iter().filter_map(index_of).collect(),
        ..SourceSpec::new(source.id.clone())
    }
}

const fn order(order: declared::Order) -> Order {
    match order {
        declared::Order::None => Order::None,
        declared::Order::Key => Order::Key,
        declared::Order::Partition => Order::Partition,
        declared::Order::Serial => Order::Serial,
    }
}

const fn on_failure(policy: declared::OnFailure) -> OnFailure {
    match policy {
        declared::OnFailure::Park => OnFailure::Park,
        declared::OnFailure::Block => OnFailure::Block,
        declared::OnFailure::Drop => OnFailure::Drop,
        declared::OnFailure::Stop => OnFailure::Stop,
    }
}

const fn rule(rule: declared::TriggerRule) -> TriggerRule {
    match rule {
        declared::TriggerRule::AllSuccess => TriggerRule::AllSuccess,
        declared::TriggerRule::AllFailed => TriggerRule::AllFailed,
        declared::TriggerRule::AllDone => TriggerRule::AllDone,
        declared::TriggerRule::AllDoneMinOneSuccess => TriggerRule::AllDoneMinOneSuccess,
        declared::TriggerRule::AllDoneSetupSuccess => TriggerRule::AllDoneSetupSuccess,
        declared::TriggerRule::AllSkipped => TriggerRule::AllSkipped,
        declared::TriggerRule::OneSuccess => TriggerRule::OneSuccess,
        declared::TriggerRule::OneFailed => TriggerRule::OneFailed,
        declared::TriggerRule::OneDone => TriggerRule::OneDone,
        declared::TriggerRule::NoneFailed => TriggerRule::NoneFailed,
        declared::TriggerRule::NoneFailedMinOneSuccess => TriggerRule::NoneFailedMinOneSuccess,
        declared::TriggerRule::NoneSkipped => TriggerRule::NoneSkipped,
        declared::TriggerRule::Always => TriggerRule::Always,
    }
}

fn backoff(task: &TaskManifest) -> Backoff {
    let usual = Backoff::default();
    Backoff {
        delay_ms: task.retry_delay_ms.unwrap_or(usual.delay_ms),
        exponential: task.retry_exponential_backoff,
        max_ms: task
            .max_retry_delay_ms
            .map_or(usual.max_ms, |max| max.min(BACKOFF_MS_MAX)),
    }
}

/// How a sensor is asked, unless the core itself knows when it is over.
fn poke(task: &TaskManifest) -> Option<dag::Poke> {
    let is_asked = task.kind == declared::TaskKind::Sensor && task.wait.is_none();
    let said = task.poke.unwrap_or_default();
    is_asked.then(|| dag::Poke {
        wait: Backoff {
            delay_ms: said.interval_ms.unwrap_or(SENSOR_WAIT_MS),
            exponential: said.exponential,
            max_ms: said
                .max_interval_ms
                .map_or(BACKOFF_MS_MAX, |max| max.min(BACKOFF_MS_MAX)),
        },
        timeout_ms: said.timeout_ms,
        skips: said.soft_fail,
    })
}

/// Whether the task's input is more than the replayable payload (C3).
fn reads_committed(task: &TaskManifest) -> bool {
    let binds = |edge: &declared::Edge| edge.kind == NodeKind::Task && edge.reads_result;
    task.wants.state
        || !task.wants.results.is_empty()
        || task.upstream.iter().any(binds)
        || task.mapped.is_some()
}

fn outline(manifest: &Manifest, declared: &DagManifest, spec: &DagSpec) -> Outline {
    let tasks: Vec<TaskOutline> = declared
        .tasks
        .iter()
        .map(|task| task_outline(declared, task))
        .collect();
    let by_id = tasks
        .iter()
        .enumerate()
        .map(|(index, task)| (Arc::clone(&task.id), index as u16));
    let waits = |task: &TaskSpec| matches!(task.kind, TaskKind::Signal { .. });
    // A signal may be for the events of one key.
    let waits = spec.tasks.iter().any(waits);
    let mut limited = declared.tasks.iter();
    let limited = limited.any(|task| task.rate_limit_per_key.is_some());
    let keyed = spec.order == Order::Key || spec.join.on_key || waits || limited;
    Outline {
        dag: declared.id.as_str().into(),
        version: spec.version.clone(),
        entry: manifest.entry.clone(),
        start_date: declared.start_date.clone(),
        keys: if keyed { Keys::Hashed } else { Keys::Unused },
        sources: declared.sources.iter().map(source_outline).collect(),
        files: manifest
            .files
            .iter()
            .map(|file| file.sha256.clone())
            .collect(),
        by_id: by_id.collect(),
        tasks,
    }
}

fn task_outline(declared: &DagManifest, task: &TaskManifest) -> TaskOutline {
    let bound = task
        .upstream
        .iter()
        .filter(|edge| edge.kind == NodeKind::Task && edge.reads_result);
    let mapped = task
        .mapped
        .iter()
        .flat_map(|mapped| &mapped.over)
        .filter_map(|over| match &over.list {
            MapList::Task(id) => Some(id),
            MapList::Literal(_) => None,
        });
    let named = task
        .wants
        .results
        .iter()
        .chain(bound.map(|edge| &edge.node))
        .chain(mapped);
    let mut ships: Vec<u16> = named.filter_map(|id| task_index(declared, id)).collect();
    ships.sort_unstable();
    ships.dedup();
    let runs_before = |edge: &declared::Edge| {
        edge.kind == NodeKind::Task
            && declared
                .tasks
                .iter()
                .any(|other| other.id == edge.node && other.kind != declared::TaskKind::Noop)
    };
    TaskOutline {
        id: task.id.as_str().into(),
        timeout: task.timeout_ms.map(Duration::from_millis),
        rate: task.rate_limit,
        key_rate: task.rate_limit_per_key,
        signal: match &task.wait {
            Some(declared::Wait::Signal(name)) => Some(name.as_str().into()),
            _ => None,
        },
        cwd: task.cwd.clone(),
        nice: task.nice,
        connections: task.connections.clone(),
        secrets: task.secrets.clone(),
        sink: task.sink.clone().map(Arc::new),
        polls: task.polls.clone().map(|config| {
            let strict = task.poke.is_some_and(|poke| poke.strict);
            Arc::new(Polled { config, strict })
        }),
        validates: task.validates,
        ships,
        first: !task.upstream.iter().any(runs_before),
    }
}

fn source_outline(source: &declared::SourceManifest) -> SourceOutline {
    SourceOutline {
        id: source.id.as_str().into(),
        declared: source.clone(),
        rate: source.rate_limit,
        freshness_ms: source.freshness_ms,
        alerts: match &source.config {
            SourceConfig::Alerts(alerts) => Some(alerts.clone()),
            _ => None,
        },
        hears: match &source.config {
            SourceConfig::After(after) => Some(Hears::Ends {
                dag: after.dag.clone(),
                ends: after.ends(),
            }),
            SourceConfig::Topic(topic) => Some(Hears::Topic(topic.name.clone())),
            _ => None,
        },
        signal: match &source.config {
            SourceConfig::Signal(signal) => Some(signal.name.as_str().into()),
            _ => None,
        },
        ids: match source.config {
            SourceConfig::Kafka(_)
            | SourceConfig::Http(_)
            | SourceConfig::Webhook(_)
            | SourceConfig::Signal(_)
            | SourceConfig::Files(_)
            | SourceConfig::Sqs(_)
            | SourceConfig::Alerts(_)
            | SourceConfig::After(_)
            | SourceConfig::Topic(_)
            | SourceConfig::Poll(_) => IdKind::Position,
            SourceConfig::Cron(_) | SourceConfig::Every(_) => IdKind::Instant,
            SourceConfig::Loop(_) => IdKind::Iteration,
        },
    }
}
