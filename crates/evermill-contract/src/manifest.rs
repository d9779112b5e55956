//! The manifest: the one shape every front end (Python, YAML, Rust) loads to.
//!
//! A front end writes it, the engine reads it; nobody else interprets a DAG file. Format 1 is
//! described in `docs/spec/manifest.md`, with the golden files this module's tests decode.
//!
//! Three conventions hold everywhere:
//! - durations are whole milliseconds and end in `_ms`; sizes are bytes and end in `_bytes`;
//! - a field that holds its default is left out, so that a later optional field changes no version;
//! - an unknown field is refused: a typing mistake must not become a silent default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::alert::AlertKind;

mod clock;
mod code;
mod content;
mod fault;
mod files;
mod http;
mod inside;
mod sink;
mod sqs;
#[cfg(test)]
mod tests;
mod version;
mod webhook;

pub use clock::{Catchup, CronSource, EverySource, LoopSource};
pub use code::{Code, Severity};
pub use content::Codec;
pub use fault::{Fault, ManifestError};
pub use files::{FileSink, FilesSource, check_file_path};
pub use http::{
    HttpBody, HttpCall, HttpCheck, HttpCursor, HttpOp, HttpSink, HttpSource, HttpTest,
    check_endpoint, is_url,
};
pub use inside::{
    AfterSource, Circle, End, Hop, Rounds, TopicSource, circles, listeners_first, rounds,
};
pub use sink::{KafkaSink, SinkConfig, TopicSink};
pub use sqs::{AWS_DEFAULT, SqsAck, SqsSink, SqsSource, check_queue, is_fifo};
pub use version::Version;
pub use webhook::WebhookSource;

/// The format this build reads and writes.
pub const FORMAT: u32 = 1;

/// Everything one entry file declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`]; checked by [`Manifest::decode`] before anything else is looked at.
    pub format: u32,
    /// The file that was loaded, relative to the DAG folder, with `/` between parts.
    pub entry: String,
    /// The DAGs in order of declaration; never empty.
    pub dags: Vec<DagManifest>,
    /// The entry file and what it imports from the DAG folder, sorted by path: the bundle (W16).
    pub files: Vec<BundleFile>,
}

/// One file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleFile {
    /// Relative to the DAG folder, with `/` between parts.
    pub path: String,
    /// SHA-256 of the content, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// One DAG: its sources, its tasks and what holds for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DagManifest {
    /// Unique in the engine; names the run.
    pub id: String,
    /// Where the DAG is declared, relative to the DAG folder.
    pub file: String,
    /// Line of the declaration, from 1.
    pub line: u32,
    /// Labels for people; no meaning to the engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What is kept in order (W4), where a source does not say otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub order: Order,
    /// When activations begin, beside what the sources emit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub schedule: Schedule,
    /// Whether a clock makes up for missed instants. Without a clock it says nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub catchup: bool,
    /// First instant of a clock, RFC 3339. A source listens from now on whatever it says.
    /// Left out of the version: `days_ago(1)` is another instant every day (W17).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_date: Option<String>,
    /// The interpreter; else `EVERMILL_PYTHON`, `$VIRTUAL_ENV`, `python3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// What becomes of an activation that settles as failed (W10).
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_failure: OnFailure,
    /// Longest time from event to settled before an activation counts as late (W13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Activations that are under way at any time; more wait (W19).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_active_runs: Option<u32>,
    /// How much is remembered of activations that simply succeeded.
    #[serde(default, skip_serializing_if = "is_default")]
    pub history: History,
    /// The roots that listen, in order of declaration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceManifest>,
    /// The tasks, in order of declaration (not sorted by their edges).
    pub tasks: Vec<TaskManifest>,
}

/// A root that listens for ever and emits events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceManifest {
    /// Unique among the sources and tasks of the DAG; positions belong to (DAG id, this).
    pub id: String,
    /// Line of the declaration, from 1.
    pub line: u32,
    /// What it listens to.
    pub config: SourceConfig,
    /// Set when a root sensor was promoted (W7): its task id, for faces that show the sensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_from_task: Option<String>,
    /// No-op tasks written before a promoted sensor. They wait for nothing now; the edge still says
    /// that they belong to this source's component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// What this source's activations keep in order, where it is not what the DAG says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// When present the activation is a list of events (W8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<SourceBatch>,
    /// How this source meets the others above a common descendant (W6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
    /// The source counts as stalled when it makes no progress for this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness_ms: Option<u64>,
    /// Events of it that become activations in a stretch of time; more wait unbegun (W19).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Rate>,
    /// What a value is on its way to us. Without it nothing is asked of values, except that the body of
    /// a plain request to a webhook has to be JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<Codec>,
    /// The schema itself: JSON Schema for [`Codec::Json`], an Avro schema for [`Codec::Avro`],
    /// and for [`Codec::Protobuf`] its files or descriptors (`docs/spec/manifest.md`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<serde_json::Value>,
    /// The connection of the registry that has the schemas which messages name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry: Option<String>,
}

impl SourceManifest {
    /// Ids of the connections it needs addresses of.
    pub fn connections(&self) -> impl Iterator<Item = &str> {
        let own = self.config.connection();
        own.into_iter().chain(self.schema_registry.as_deref())
    }
}

/// What a source listens to; `kind` in the JSON names the variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceConfig {
    /// A topic of Apache Kafka.
    Kafka(KafkaSource),
    /// A place that is asked again and again over HTTP.
    Http(HttpSource),
    /// The instants of a cron expression.
    Cron(CronSource),
    /// Instants at equal distances.
    Every(EverySource),
    /// One lap after the other.
    Loop(LoopSource),
    /// Requests that others send to us.
    Webhook(WebhookSource),
    /// Messages that somebody sends by name.
    Signal(SignalSource),
    /// Files that appear in a folder or a bucket.
    Files(FilesSource),
    /// A queue of Amazon SQS.
    Sqs(SqsSource),
    /// What goes wrong with other DAGs.
    Alerts(AlertsSource),
    /// Ends of another DAG's activations.
    After(AfterSource),
    /// What tasks emit.
    Topic(TopicSource),
    /// A function of the DAG file that is asked again and again.
    Poll(PollSource),
}

impl SourceConfig {
    /// Id of the connection it needs an address of.
    #[must_use]
    pub fn connection(&self) -> Option<&str> {
        match self {
            Self::Kafka(kafka) => Some(&kafka.connection),
            Self::Http(http) => http.needs(),
            Self::Files(files) => files.needs(),
            Self::Sqs(queue) => sqs::needed(&queue.connection),
            Self::Cron(_)
            | Self::Every(_)
            | Self::Loop(_)
            | Self::Webhook(_)
            | Self::Signal(_)
            | Self::Alerts(_)
            | Self::After(_)
            | Self::Topic(_)
            | Self::Poll(_) => None,
        }
    }

    /// Whether time alone brings its events: there is no end of its input to wait for.
    #[must_use]
    pub const fn is_clock(&self) -> bool {
        match self {
            Self::Cron(_) | Self::Every(_) => true,
            Self::Kafka(_)
            | Self::Http(_)
            | Self::Loop(_)
            | Self::Webhook(_)
            | Self::Signal(_)
            | Self::Files(_)
            | Self::Sqs(_)
            | Self::Alerts(_)
            | Self::After(_)
            | Self::Topic(_)
            | Self::Poll(_) => false,
        }
    }
}

/// Messages that somebody sends by name: `evermill signal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalSource {
    /// The name they are sent to.
    pub name: String,
}

/// A function of the DAG file, a root sensor's, or a command, that is asked again and again. A worker runs
/// it, outside of any activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollSource {
    /// What the function is called: what is remembered of its answers belongs to this name.
    pub function: String,
    /// The command, in place of a function: it says yes by its exit code 0, no by 1, and nothing by any
    /// other; what it prints is what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Shell>,
    /// Wait between two questions; without it a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poke_interval_ms: Option<u64>,
}

/// Alerts about other DAGs of this engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertsSource {
    /// Only these; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<AlertKind>,
    /// Only about these DAGs; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dags: Vec<String>,
}

/// A topic of Apache Kafka, read by position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSource {
    /// The topic's name.
    pub topic: String,
    /// The group whose committed offsets tell lag tools how far we are. The truth is our own position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// Where a partition without any position begins (C7).
    #[serde(default, skip_serializing_if = "is_default")]
    pub auto_offset_reset: OffsetReset,
    /// The connection id that `--connection` and `EVERMILL_CONNECTION_*` give an address to.
    #[serde(default = "kafka_default", skip_serializing_if = "is_kafka_default")]
    pub connection: String,
    /// Join the group and share its partitions, instead of assigning all of them to ourselves.
    #[serde(default, skip_serializing_if = "is_default")]
    pub membership: bool,
    /// Begin at the offsets this existing group has committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_group: Option<String>,
    /// Longest wait between two checks; never a delay, since Kafka tells us at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poke_interval_ms: Option<u64>,
}

/// Where a partition without any position begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OffsetReset {
    /// With the oldest message the broker still has.
    Earliest,
    /// After the newest one.
    #[default]
    Latest,
}

/// The bounds of a batch whose list *is* the activation (W8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceBatch {
    /// Never more events than this.
    pub max_events: u32,
    /// How long the first event waits for company.
    #[serde(default, skip_serializing_if = "is_default")]
    pub linger_ms: u64,
}

/// How a source meets others above a common descendant (W6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// How long an open activation waits for the missing sources; without it, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<u64>,
    /// Events meet only when their keys are equal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_key: bool,
}

/// One task: what runs, after whom, and under which limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskManifest {
    /// Unique among the sources and tasks of the DAG.
    pub id: String,
    /// What the engine does with it.
    pub kind: TaskKind,
    /// Line of the declaration, from 1.
    pub line: u32,
    /// A command in place of a callable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Shell>,
    /// A request in place of a callable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCall>,
    /// A place outside in place of a callable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<SinkConfig>,
    /// The nodes right before it, in order of declaration, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<Edge>,
    /// When it may run, given the states of its upstream tasks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub trigger_rule: TriggerRule,
    /// Failures allowed beyond the first attempt (W12).
    #[serde(default, skip_serializing_if = "is_default")]
    pub retries: u32,
    /// Wait before the first retry; without it the engine's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_delay_ms: Option<u64>,
    /// Double the wait with each retry.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry_exponential_backoff: bool,
    /// The doubled wait never exceeds this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retry_delay_ms: Option<u64>,
    /// Longest duration of one attempt of one member (W3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Overrides the DAG's policy for failures of this task (W10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// What an attempt is worth that a crash cut off (C4).
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_interrupt: OnInterrupt,
    /// The pool whose slots it takes (W19).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Higher goes first among tasks that wait for the same slots.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// What a sensor waits for by itself: no worker asks, and waiting costs no thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// How a sensor is asked that an attempt has to answer for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poke: Option<Poke>,
    /// What such a sensor asks over HTTP, in place of a callable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polls: Option<HttpSource>,
    /// Members that may start in a stretch of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Rate>,
    /// The same for the members of one event key; those of others go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit_per_key: Option<Rate>,
    /// Members a worker may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Members handed to one vectorised call (W8); identity and outcome stay per member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// Longest time from event to the end of this task (W13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// What has to be shipped with a dispatch.
    #[serde(default, skip_serializing_if = "is_default")]
    pub wants: Wants,
    /// Present when the task runs once per item (W9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<Mapped>,
    /// Overrides the DAG's `history`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// Connections that it may ask for, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<String>,
    /// Secrets that it may ask for, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Topics that it is known to emit to, sorted. There may be others: a task says at run time to whom it
    /// speaks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emits: Vec<String>,
    /// Added to the worker's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory of the worker, an absolute path: a relative one counts from the folder of the
    /// DAG file when that is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Memory a worker may take while it runs the task, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// How much the worker yields to other processes, 0 to 19.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nice: u8,
    /// It judges the events of the source before it, and returns nothing: what fails here is parked as
    /// invalid.
    #[serde(default, skip_serializing_if = "is_default")]
    pub validates: bool,
}

impl TaskManifest {
    /// Topics that it is known to emit to.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let sink = self.sink.as_ref().and_then(|sink| match sink {
            SinkConfig::Topic(topic) => Some(topic.topic.as_str()),
            _ => None,
        });
        self.emits.iter().map(String::as_str).chain(sink)
    }

    /// The connection whose place it asks over HTTP; none if it asks nobody, or by a whole URL.
    #[must_use]
    pub fn asks(&self) -> Option<&str> {
        let request = self.http.as_ref().and_then(HttpCall::needs);
        request.or_else(|| self.polls.as_ref()?.needs())
    }
}

/// What a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// So long.
    DelayMs(u64),
    /// A message of this name; it becomes the task's result.
    Signal(String),
}

/// How often a sensor is asked, and for how long. Each question is one attempt; *not yet* uses up no try,
/// and until the next question nothing runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poke {
    /// Wait between two questions; without it a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Double the wait with each question.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exponential: bool,
    /// The doubled wait never exceeds this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_interval_ms: Option<u64>,
    /// From the first *not yet* on; then it has failed, whatever its retries. Without it, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// One that runs out of time is skipped, not failed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub soft_fail: bool,
    /// An answer that says nothing (5xx, nobody there) is a failed try, as in Airflow; without it, *not yet*.
    #[serde(default, skip_serializing_if = "is_default")]
    pub strict: bool,
}

/// At most so many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Never 0.
    pub members: u32,
    /// Never 0.
    pub interval_ms: u64,
}

/// A command that a shell runs, once per member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shell {
    /// For `sh -c`.
    pub command: String,
    /// The task whose result is on its standard input; without it, the event's content is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
}

/// What the engine does with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Run it and keep what it returns.
    Call,
    /// Run it; it returns the ids of the tasks right after it that go on, the others are skipped.
    Branch,
    /// Run it; a false result skips everything after it.
    ShortCircuit,
    /// Ask it again and again until it says yes.
    Sensor,
    /// Nothing to run: it succeeds as soon as its trigger rule holds.
    Noop,
}

/// An edge, seen from the task it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Id of a source or a task of the same DAG.
    pub node: String,
    /// Which of the two.
    pub kind: NodeKind,
    /// Whether what the node gives (an event, a result) is bound to a parameter.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reads_result: bool,
}

/// What an edge comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// Another task.
    Task,
    /// A source.
    Source,
}

/// What a task's callable asks for, so that a dispatch carries no more (W11).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wants {
    /// The event, or the list of a batch.
    #[serde(default, skip_serializing_if = "is_default")]
    pub event: bool,
    /// The context: anything that needs identity, calls back, or logs by name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ctx: bool,
    /// It may touch `ctx.state`. False only when that is certain (C3: a dispatch that reads state waits).
    #[serde(default, skip_serializing_if = "is_default")]
    pub state: bool,
    /// It reads `ctx.state`, for all that can be seen: members of one scope in one dispatch would wait for each other.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reads_state: bool,
    /// Tasks whose results are bound to parameters; ancestors, not only those right before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<String>,
}

/// A task that runs once per item, or per combination of items when it maps over several (W9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapped {
    /// The lists; the last one turns fastest.
    pub over: Vec<MapOver>,
}

/// One list a task maps over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapOver {
    /// The parameter that gets an item.
    pub param: String,
    /// Where the list comes from.
    pub list: MapList,
}

/// Where the list of a mapped task comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapList {
    /// The result of this task, known when it has run.
    Task(String),
    /// A list in the DAG file; this many items.
    Literal(u32),
}

/// What is kept in order (W4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// First attempts start in lane order; retries do not.
    #[default]
    None,
    /// First in, first out per task, among events of equal key.
    Key,
    /// First in, first out per task, within a partition.
    Partition,
    /// An activation settles before the next one starts.
    Serial,
}

/// When activations begin, beside what the sources emit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// By hand; or by sources alone.
    #[default]
    None,
    /// The sources' DAG is meant to run for ever: the same as none when there is a source.
    Continuous,
    /// Once, when the run starts.
    Once,
}

/// What becomes of an activation that settles as failed (W10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Kept, visible, redrivable; the others go on.
    #[default]
    Park,
    /// Its ordered scope waits for somebody's decision.
    Block,
    /// Recorded and counted, nothing more.
    Drop,
    /// The run fails.
    Stop,
}

/// What an attempt is worth that a crash cut off (C4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInterrupt {
    /// Run it again; the task may have acted outside already.
    #[default]
    Rerun,
    /// Count it as failed: at most one attempt ever starts.
    Fail,
}

/// How much is remembered of activations that simply succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// Exact counters for all, rows for a sample.
    #[default]
    Sampled,
    /// A row with results for each.
    Full,
}

/// When a task may run, given the states of its upstream tasks; Airflow's names and meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerRule {
    /// All succeeded.
    #[default]
    AllSuccess,
    /// All failed.
    AllFailed,
    /// All ended, however.
    AllDone,
    /// All ended and at least one succeeded.
    AllDoneMinOneSuccess,
    /// All ended, the set-up tasks among them well.
    AllDoneSetupSuccess,
    /// All were skipped.
    AllSkipped,
    /// One succeeded; does not wait for the others.
    OneSuccess,
    /// One failed; does not wait for the others.
    OneFailed,
    /// One succeeded or failed; does not wait for the others.
    OneDone,
    /// None failed: each succeeded or was skipped.
    NoneFailed,
    /// None failed and at least one succeeded.
    #[serde(alias = "none_failed_or_skipped")]
    NoneFailedMinOneSuccess,
    /// None was skipped.
    NoneSkipped,
    /// At once.
    #[serde(alias = "dummy")]
    Always,
}

impl Manifest {
    /// Reads a manifest that a front end wrote.
    ///
    /// # Errors
    /// [`ManifestError::Format`] when another build wrote it, [`ManifestError::Shape`] when a field is
    /// missing, unknown or of the wrong type (with the place in the JSON).
    pub fn decode(json: &[u8]) -> Result<Self, ManifestError> {
        let found = serde_json::from_slice::<FormatOnly>(json)?.format;
        if found != FORMAT {
            return Err(ManifestError::Format { found });
        }
        Ok(serde_json::from_slice(json)?)
    }
}

/// Looks at the format before the fields of another format can be complained about.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn kafka_default() -> String {
    "kafka_default".to_owned()
}

fn is_kafka_default(value: &str) -> bool {
    value == "kafka_default"
}
