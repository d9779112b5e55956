//! A DAG of closures: how it is declared, and what a closure sees.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use bytes::Bytes;
use evermill_contract::manifest::{OnFailure, Order, TriggerRule};
use evermill_contract::worker::{
    Dispatch, Outcome, Range, Success, TaskError, TaskErrorKind, limits,
};
use evermill_worker::{NativeTask, member};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A DAG: sources, and closures that run for their events.
#[derive(Clone)]
pub struct Dag {
    pub(crate) id: String,
    pub(crate) fields: Map<String, Value>,
    pub(crate) sources: Vec<Value>,
    pub(crate) tasks: Vec<Map<String, Value>>,
    pub(crate) run: BTreeMap<String, NativeTask>,
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
    pub fn source(mut self, id: &str, source: kafka::Topic) -> Self {
        self.sources
            .push(json!({"id": id, "line": 0, "config": source.0}));
        self
    }

    /// A task, right after these sources and tasks. Its closure runs on a thread of the engine, one
    /// event after the other in each slot, and what it returns is there for the tasks after it. It may
    /// await; what it awaits must not need a runtime that is not entered.
    #[must_use]
    pub fn task<R, F>(mut self, id: &str, after: &[&str], run: F) -> Self
    where
        R: Serialize,
        F: AsyncFn(Event, Ctx) -> Result<R, Failure> + Send + Sync + 'static,
    {
        let is_source = |name: &&str| self.sources.iter().any(|source| source["id"] == **name);
        let edge = |name: &&str| {
            let kind = if is_source(name) { "source" } else { "task" };
            json!({"node": name, "kind": kind, "reads_result": true})
        };
        let upstream: Vec<Value> = after.iter().map(edge).collect();
        let mut task = Map::new();
        task.insert("id".to_owned(), json!(id));
        task.insert("kind".to_owned(), json!("call"));
        task.insert("line".to_owned(), json!(0));
        task.insert("upstream".to_owned(), json!(upstream));
        task.insert("wants".to_owned(), json!({"event": true, "ctx": true}));
        self.tasks.push(task);
        let run = move |dispatch: &Arc<Dispatch>, index: u32| {
            let event = Event {
                dispatch: Arc::clone(dispatch),
                index,
            };
            let ctx = Ctx {
                dispatch: Arc::clone(dispatch),
                index,
                calls: AtomicU64::new(0),
            };
            ended(block_on(run(event, ctx)))
        };
        self.run.insert(id.to_owned(), Arc::new(run));
        self
    }

    /// Tries after the first one, for the task before.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        self.option("retries", json!(retries))
    }

    /// The wait before the next try, for the task before.
    #[must_use]
    pub fn retry_delay(self, delay: Duration) -> Self {
        let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.option("retry_delay_ms", json!(ms))
    }

    /// How those before it must have ended, for the task before.
    #[must_use]
    pub fn trigger_rule(self, rule: TriggerRule) -> Self {
        self.option("trigger_rule", json!(rule))
    }

    /// What becomes of an event that has used up its tries, for the task before.
    #[must_use]
    pub fn on_failure(self, policy: OnFailure) -> Self {
        self.option("on_failure", json!(policy))
    }

    /// # Panics
    /// Without a task before it.
    fn option(mut self, name: &str, value: Value) -> Self {
        let task = self.tasks.last_mut();
        let task = task.unwrap_or_else(|| panic!("{name} belongs to a task: call it after task()"));
        task.insert(name.to_owned(), value);
        self
    }
}

/// Topics of Apache Kafka.
pub mod kafka {
    use serde_json::{Value, json};

    /// A topic that a DAG listens to.
    #[derive(Debug, Clone)]
    pub struct Topic(pub(super) Value);

    /// A topic, read from its end on through the connection `kafka_default`.
    #[must_use]
    pub fn topic(name: &str) -> Topic {
        Topic(json!({"kind": "kafka", "topic": name}))
    }

    impl Topic {
        /// The group whose committed offsets tell lag tools how far we are.
        #[must_use]
        pub fn group_id(self, group: &str) -> Self {
            self.with("group_id", group)
        }

        /// A partition that was never read is read from its first message on.
        #[must_use]
        pub fn from_earliest(self) -> Self {
            self.with("auto_offset_reset", "earliest")
        }

        /// The connection that [`crate::Local::connection`] gives an address to.
        #[must_use]
        pub fn connection(self, id: &str) -> Self {
            self.with("connection", id)
        }

        fn with(mut self, name: &str, value: &str) -> Self {
            self.0[name] = json!(value);
            self
        }
    }
}

/// One event, as a closure sees it. Without a source it has no value.
#[derive(Debug, Clone)]
pub struct Event {
    dispatch: Arc<Dispatch>,
    index: u32,
}

impl Event {
    fn of(&self) -> &evermill_contract::worker::Event {
        &self.dispatch.members[self.index as usize].event
    }

    fn part(&self, range: Option<Range>) -> Option<&[u8]> {
        range.map(|range| member::part(&self.dispatch, Some(range)))
    }

    /// The content; `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.part(self.of().value)
    }

    /// The content as text.
    ///
    /// # Errors
    /// When it is no UTF-8, or there is none.
    pub fn text(&self) -> Result<&str, Failure> {
        let value = self
            .value()
            .ok_or_else(|| Failure::new("this event has no value (a tombstone)"))?;
        Ok(std::str::from_utf8(value)?)
    }

    /// The content, read as JSON.
    ///
    /// # Errors
    /// When it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        Ok(serde_json::from_str(self.text()?)?)
    }

    /// The key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.part(self.of().key)
    }

    /// Where it stands in its lane.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.of().position
    }

    /// Milliseconds since 1970, if the source knows a time.
    #[must_use]
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.of().timestamp_ms
    }

    /// The source's id.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.dispatch.lanes[usize::from(self.of().lane)].source
    }

    /// The lane's name, such as `orders/3`.
    #[must_use]
    pub fn lane(&self) -> &str {
        &self.dispatch.lanes[usize::from(self.of().lane)].lane
    }
}

/// What a closure is told about its attempt.
#[derive(Debug)]
pub struct Ctx {
    dispatch: Arc<Dispatch>,
    index: u32,
    calls: AtomicU64,
}

impl Ctx {
    /// 1 in the first attempt.
    #[must_use]
    pub fn try_number(&self) -> u16 {
        self.dispatch.members[self.index as usize].try_number
    }

    /// A key for one effect outside, for sinks that recognise repeats: another one with each call, and
    /// the n-th call gives the same one in every attempt.
    #[must_use]
    pub fn effect_key(&self) -> String {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        member::effect_key(&self.dispatch, self.index, call).unwrap_or_default()
    }

    /// What a task right before this one returned; `None` if it returned nothing or did not run.
    ///
    /// # Errors
    /// When it returned something else.
    pub fn result<T: DeserializeOwned>(&self, task: &str) -> Result<Option<T>, Failure> {
        let from = self.dispatch.upstream.iter().position(|id| id == task);
        let found =
            self.dispatch.results.iter().find(|result| {
                result.member == self.index && Some(result.upstream as usize) == from
            });
        let value = found.and_then(|result| result.value);
        let Some(range) = value else { return Ok(None) };
        let json = member::part(&self.dispatch, Some(range));
        Ok(Some(serde_json::from_slice(json)?))
    }
}

/// Why a closure failed, or that it has nothing to do. Every error becomes one by `?`.
#[derive(Debug)]
pub struct Failure {
    message: String,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Failed,
    ForGood,
    Skip,
}

impl Failure {
    /// A failure that may be tried again.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::Failed,
        }
    }

    /// A failure that no further try can help.
    #[must_use]
    pub fn for_good(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::ForGood,
        }
    }

    /// There is nothing to do for this event: the task ends as skipped.
    #[must_use]
    pub fn skip() -> Self {
        Self {
            message: String::new(),
            kind: Kind::Skip,
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

fn ended<R: Serialize>(returned: Result<R, Failure>) -> Outcome {
    let failure = match returned.map(|value| serde_json::to_value(value)) {
        Ok(Ok(Value::Null)) => return Outcome::Success(None),
        Ok(Ok(value)) => match result(&value) {
            Ok(success) => return Outcome::Success(Some(Box::new(success))),
            Err(size) => Failure::for_good(format!(
                "the returned value takes {size} bytes as JSON and at most {} are kept",
                limits::RESULT_BYTES_MAX
            )),
        },
        Ok(Err(why)) => Failure::for_good(format!("the returned value is no JSON: {why}")),
        Err(failure) if failure.kind == Kind::Skip => return Outcome::Skipped,
        Err(failure) => failure,
    };
    Outcome::Failed(Box::new(TaskError {
        kind: TaskErrorKind::Raised,
        class: String::new(),
        retryable: failure.kind != Kind::ForGood,
        message: failure.message,
        traceback: String::new(),
    }))
}

fn result(value: &Value) -> Result<Success, usize> {
    let json = value.to_string();
    if json.len() > limits::RESULT_BYTES_MAX {
        return Err(json.len());
    }
    let length = match value {
        Value::Array(items) => Some(items.len()),
        Value::Object(pairs) => Some(pairs.len()),
        _ => None,
    };
    Ok(Success {
        result: Some(Bytes::from(json)),
        map_len: length.and_then(|length| u32::try_from(length).ok()),
        ..Success::default()
    })
}

/// Runs a future on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    // Most closures never wait: they need no waker of their own.
    if let Poll::Ready(value) = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        return value;
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
