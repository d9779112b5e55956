//! A DAG of closures: how it is declared, and what a closure sees.

mod ctx;
mod end;
mod event;
mod failure;
pub mod files;
mod inside;
pub mod kafka;
mod sink;
pub mod sqs;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use evermill_contract::manifest::{
    Codec, History, OnFailure, OnInterrupt, Order, TaskKind, TriggerRule,
};
use evermill_contract::worker::{Outcome, StateOp};
use evermill_worker::{Lease, NativeTask};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

pub use self::ctx::Ctx;
pub use self::event::Event;
pub use self::failure::Failure;
pub use self::inside::{After, after, topic};
pub use self::sink::{Sink, ToHttp, to_file, to_http, to_kafka, to_sqs};
use self::state::Changes;
pub use self::state::State;

/// A DAG: sources, and closures that run for their events.
#[derive(Clone)]
pub struct Dag {
    pub(crate) id: String,
    pub(crate) fields: Map<String, Value>,
    pub(crate) sources: Vec<Value>,
    pub(crate) tasks: Vec<Map<String, Value>>,
    run: BTreeMap<String, Body>,
}

/// What a task of a DAG runs, before it is known what the whole DAG declares.
#[derive(Clone)]
enum Body {
    Each(Arc<Each>),
    Together(Arc<Together>),
}

type Each = dyn Fn(&Arc<Lease>, u32, Uses) -> Outcome + Send + Sync;
type Together = dyn Fn(&Arc<Lease>, Uses) -> Vec<Outcome> + Send + Sync;

/// What a task says about `ctx.state()`.
#[derive(Debug, Clone, Copy)]
struct Uses {
    state: bool,
    ordered: bool,
}

/// What a DAG listens to: made of what the modules for each kind declare.
#[derive(Debug, Clone)]
pub struct Source {
    /// As the manifest has it, but for its id.
    declared: Value,
}

impl Source {
    fn of(config: Value) -> Self {
        Self {
            declared: json!({"line": 0, "config": config}),
        }
    }

    /// What a value has to be; [`Codec::Avro`] and [`Codec::Protobuf`] become JSON, which a closure reads by [`Event::json`]. What
    /// does not pass is parked, and no closure sees it.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.declared["codec"] = json!(codec);
        self
    }

    /// The schema itself: a JSON Schema, with [`Codec::Avro`] an Avro schema,
    /// with [`Codec::Protobuf`] what the manifest's specification says.
    #[must_use]
    pub fn schema(mut self, schema: Value) -> Self {
        self.declared["schema"] = schema;
        self
    }

    /// The connection of the registry that has the schemas of messages; [`crate::Local::connection`]
    /// gives it an address.
    #[must_use]
    pub fn schema_registry(mut self, id: &str) -> Self {
        self.declared["schema_registry"] = json!(id);
        self
    }
}

impl fmt::Debug for Dag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dag")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Dag {
    /// A DAG without anything in it.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            fields: Map::new(),
            sources: Vec::new(),
            tasks: Vec::new(),
            run: BTreeMap::new(),
        }
    }

    /// What stays in line (W4).
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.fields.insert("order".to_owned(), json!(order));
        self
    }

    /// A source that listens for ever. Tasks name it in what they come after.
    #[must_use]
    pub fn source(mut self, id: &str, source: impl Into<Source>) -> Self {
        let mut declared = source.into().declared;
        declared["id"] = json!(id);
        self.sources.push(declared);
        self
    }

    /// A task, right after these sources and tasks. Its closure runs on a thread of the engine, one
    /// event after the other in each slot, and what it returns is there for the tasks after it. It may
    /// await; what it awaits must not need a runtime that is not entered.
    #[must_use]
    pub fn task<R, F>(self, id: &str, after: &[&str], run: F) -> Self
    where
        R: Serialize,
        F: AsyncFn(Event, Ctx) -> Result<R, Failure> + Send + Sync + 'static,
    {
        self.each(id, TaskKind::Call, after, move |event, ctx, changes| {
            let returned = end::block_on(run(event, ctx));
            end::called(returned, changes())
        })
    }

    /// A task whose closure says which of the tasks right after it go on; the others are skipped.
    #[must_use]
    pub fn branch<I, F>(self, id: &str, after: &[&str], run: F) -> Self
    where
        I: IntoIterator<Item: Into<String>>,
        F: AsyncFn(Event, Ctx) -> Result<I, Failure> + Send + Sync + 'static,
    {
        self.each(id, TaskKind::Branch, after, move |event, ctx, changes| {
            let chosen = end::block_on(run(event, ctx));
            let chosen = chosen.map(|ids| ids.into_iter().map(Into::into).collect());
            end::chose(chosen, changes())
        })
    }

    /// A task whose closure says whether what is after it is run at all.
    #[must_use]
    pub fn short_circuit<F>(self, id: &str, after: &[&str], run: F) -> Self
    where
        F: AsyncFn(Event, Ctx) -> Result<bool, Failure> + Send + Sync + 'static,
    {
        let kind = TaskKind::ShortCircuit;
        self.each(id, kind, after, move |event, ctx, changes| {
            let goes_on = end::block_on(run(event, ctx));
            end::judged(goes_on, changes())
        })
    }

    /// A task whose closure takes up to `max` events in one call (W8). It returns what became of each,
    /// in their order. Events keep their own tries, results and effect keys; only the call is shared.
    #[must_use]
    pub fn batch_task<R, F>(mut self, id: &str, after: &[&str], max: u32, run: F) -> Self
    where
        R: Serialize,
        F: AsyncFn(Vec<(Event, Ctx)>) -> Vec<Result<R, Failure>> + Send + Sync + 'static,
    {
        let together = move |lease: &Arc<Lease>, uses: Uses| {
            let members = 0..lease.dispatch.members.len() as u32;
            let changes: Vec<_> = members.clone().map(|_| uses.changes()).collect();
            let see = |index: u32| {
                let changes = changes[index as usize].clone();
                let ctx = Ctx::new(Arc::clone(lease), index, changes);
                (Event::of_member(Arc::clone(lease), index), ctx)
            };
            let returned = end::block_on(run(members.map(see).collect()));
            let ended = returned.into_iter().enumerate();
            ended
                .map(|(index, returned)| end::called(returned, taken(changes.get(index))))
                .collect()
        };
        self.declare(id, TaskKind::Call, after);
        self.run
            .insert(id.to_owned(), Body::Together(Arc::new(together)));
        self.option("batch", json!(max))
    }

    /// A task that runs once per item of the list that a task returned (W9). What its runs return is a
    /// list for the tasks after it.
    #[must_use]
    pub fn expand<T, R, F>(self, id: &str, list: &str, run: F) -> Self
    where
        T: DeserializeOwned,
        R: Serialize,
        F: AsyncFn(T, Ctx) -> Result<R, Failure> + Send + Sync + 'static,
    {
        let from = list.to_owned();
        let each = move |_: Event, ctx: Ctx, changes: &dyn Fn() -> Vec<StateOp>| {
            let returned = match ctx.item(&from) {
                Ok(item) => end::block_on(run(item, ctx)),
                Err(failure) => Err(failure),
            };
            end::called(returned, changes())
        };
        let over = json!({"over": [{"param": "item", "list": {"task": list}}]});
        self.each(id, TaskKind::Call, &[list], each)
            .option("mapped", over)
    }

    /// A task that gives a value to a place outside: the result of the task `from`, or the events of the
    /// source `from`. It runs no closure: what is to be sent is committed before it is sent, and sent
    /// until it has arrived, with the same effect key each time. A task that returned nothing sends
    /// nothing. Unless [`Dag::retries`] says otherwise it is tried 10,000 times, a minute apart at last.
    #[must_use]
    pub fn send(mut self, id: &str, from: &str, to: impl Into<Sink>) -> Self {
        let mut config = to.into().config;
        let is_source = self.sources.iter().any(|source| source["id"] == from);
        let mut results = Vec::new();
        if !is_source {
            config["value_from"] = json!(from);
            results.push(from);
        }
        self.declare(id, TaskKind::Call, &[from]);
        let task = self.last("send");
        task["wants"]["results"] = json!(results);
        task.insert("sink".to_owned(), config);
        self.retries(10_000)
            .retry_delay(Duration::from_secs(1))
            .retry_backoff(Duration::from_secs(60))
    }

    fn each(
        mut self,
        id: &str,
        kind: TaskKind,
        after: &[&str],
        run: impl Fn(Event, Ctx, &dyn Fn() -> Vec<StateOp>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let each = move |lease: &Arc<Lease>, index: u32, uses: Uses| {
            let changes = uses.changes();
            let event = Event::of_member(Arc::clone(lease), index);
            let ctx = Ctx::new(Arc::clone(lease), index, changes.clone());
            run(event, ctx, &|| taken(Some(&changes)))
        };
        self.declare(id, kind, after);
        self.run.insert(id.to_owned(), Body::Each(Arc::new(each)));
        self
    }

    /// Whether any task gives its value to a place outside.
    pub(crate) fn has_sinks(&self) -> bool {
        self.tasks.iter().any(|task| task.contains_key("sink"))
    }

    fn declare(&mut self, id: &str, kind: TaskKind, after: &[&str]) {
        let is_source = |name: &&str| self.sources.iter().any(|source| source["id"] == **name);
        let edge = |name: &&str| {
            let kind = if is_source(name) { "source" } else { "task" };
            json!({"node": name, "kind": kind, "reads_result": true})
        };
        let upstream: Vec<Value> = after.iter().map(edge).collect();
        let mut task = Map::new();
        task.insert("id".to_owned(), json!(id));
        task.insert("kind".to_owned(), json!(kind));
        task.insert("line".to_owned(), json!(0));
        task.insert("upstream".to_owned(), json!(upstream));
        task.insert("wants".to_owned(), json!({"event": true, "ctx": true}));
        self.tasks.push(task);
    }

    /// The closures, as a pool runs them.
    pub(crate) fn closures(&self) -> BTreeMap<String, NativeTask> {
        let order = self.fields.get("order");
        // A source's word goes before the DAG's.
        let none = json!(Order::None);
        let own = order.unwrap_or(&none);
        let mut orders = self.sources.iter().map(|source| {
            let order = source.get("order");
            order.unwrap_or(own)
        });
        let ordered = if self.sources.is_empty() {
            *own != none
        } else {
            orders.all(|order| *order != none)
        };
        let uses = |id: &str| {
            let task = self.tasks.iter().find(|task| task["id"] == id);
            let state = task.is_some_and(|task| task["wants"]["state"] == true);
            Uses { state, ordered }
        };
        let bind = |(id, body): (&String, &Body)| {
            let uses = uses(id);
            let task = match body.clone() {
                Body::Each(run) => {
                    NativeTask::Each(Arc::new(move |lease, index| run(lease, index, uses)))
                }
                Body::Together(run) => {
                    NativeTask::Together(Arc::new(move |lease| run(lease, uses)))
                }
            };
            (id.clone(), task)
        };
        self.run.iter().map(bind).collect()
    }
}

/// Options of the task before them.
impl Dag {
    /// Tries after the first one.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        self.option("retries", json!(retries))
    }

    /// The wait before the next try.
    #[must_use]
    pub fn retry_delay(self, delay: Duration) -> Self {
        self.option("retry_delay_ms", json!(milliseconds(delay)))
    }

    /// The wait doubles with each try, up to this.
    #[must_use]
    pub fn retry_backoff(self, max_delay: Duration) -> Self {
        self.option("retry_exponential_backoff", json!(true))
            .option("max_retry_delay_ms", json!(milliseconds(max_delay)))
    }

    /// The longest that one try may take. One that takes longer has failed: it counts, the next try or
    /// the failure follows, and whatever the closure returns later is refused. But a thread cannot be
    /// ended from outside: the closure runs on until it returns ([`Ctx::should_stop`] tells it to), and
    /// what it still does happens. Its slot goes on with another thread; an engine leaves at most
    /// 32 threads behind like that and then waits for one of them.
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        self.option("timeout_ms", json!(milliseconds(limit)))
    }

    /// How those before it must have ended.
    #[must_use]
    pub fn trigger_rule(self, rule: TriggerRule) -> Self {
        self.option("trigger_rule", json!(rule))
    }

    /// What becomes of an event that has used up its tries.
    #[must_use]
    pub fn on_failure(self, policy: OnFailure) -> Self {
        self.option("on_failure", json!(policy))
    }

    /// What a try is worth that a crash cut off (C4).
    #[must_use]
    pub fn on_interrupt(self, policy: OnInterrupt) -> Self {
        self.option("on_interrupt", json!(policy))
    }

    /// The pool whose slots it takes (W19).
    #[must_use]
    pub fn pool(self, name: &str) -> Self {
        self.option("pool", json!(name))
    }

    /// Higher goes first among tasks that wait for the same slots.
    #[must_use]
    pub fn priority(self, priority: i32) -> Self {
        self.option("priority", json!(priority))
    }

    /// At most so many of its tries start in so long (W19).
    #[must_use]
    pub fn rate_limit(self, members: u32, per: Duration) -> Self {
        self.option("rate_limit", rate(members, per))
    }

    /// The same for the events of one key; those of others go on. Events without a key are not held up.
    #[must_use]
    pub fn rate_limit_per_key(self, members: u32, per: Duration) -> Self {
        self.option("rate_limit_per_key", rate(members, per))
    }

    /// The longest time from the event to the end of this task, before it counts as late (W13).
    #[must_use]
    pub fn deadline(self, limit: Duration) -> Self {
        self.option("deadline_ms", json!(milliseconds(limit)))
    }

    /// How much is remembered of events that simply succeeded.
    #[must_use]
    pub fn history(self, history: History) -> Self {
        self.option("history", json!(history))
    }

    /// It uses [`Ctx::state`]. Then it starts only when what it could read is committed.
    #[must_use]
    pub fn state(mut self) -> Self {
        self.last("state")["wants"]["state"] = json!(true);
        self
    }

    /// # Panics
    /// Without a task before it.
    fn option(mut self, name: &str, value: Value) -> Self {
        self.last(name).insert(name.to_owned(), value);
        self
    }

    fn last(&mut self, name: &str) -> &mut Map<String, Value> {
        let task = self.tasks.last_mut();
        task.unwrap_or_else(|| panic!("{name} belongs to a task: call it after task()"))
    }
}

impl Uses {
    fn changes(self) -> Option<Arc<Changes>> {
        self.state.then(|| Arc::new(Changes::new(self.ordered)))
    }
}

fn taken(changes: Option<&Option<Arc<Changes>>>) -> Vec<StateOp> {
    let changes = changes.and_then(Option::as_ref);
    changes.map_or_else(Vec::new, |changes| changes.take())
}

/// Nothing is at least one in a millisecond, so that no limit stands still for ever.
fn rate(members: u32, per: Duration) -> Value {
    json!({"members": members.max(1), "interval_ms": milliseconds(per).max(1)})
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
