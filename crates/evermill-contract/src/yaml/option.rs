//! The options of DAGs, sources and tasks in YAML: their names, where they go in the manifest, and
//! what a value may be. One list, read by the decoder and by the schema for editors; the names are
//! those of the Python package.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::tree::{Kind, Node};

/// An option.
#[derive(Debug)]
pub(super) struct Opt {
    pub(super) name: &'static str,
    /// The manifest's field.
    pub(super) field: &'static str,
    pub(super) of: Of,
    /// For the schema, a phrase.
    pub(super) about: &'static str,
}

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    Text,
    Flag,
    /// A whole number within these.
    Whole(i64, i64),
    /// Seconds, or a text with a unit; milliseconds in the manifest.
    Duration,
    /// Bytes, or a text with a unit.
    Size,
    Word(&'static [&'static str]),
    Texts,
    /// Some of these.
    Words(&'static [&'static str]),
    /// Names of connections or secrets, each once.
    Names,
    /// So many in so long: `100/s`.
    Rate,
    /// Names and values.
    Environment,
    /// One status of HTTP, or a list of them.
    Statuses,
    /// A map, or the path of a file; whoever has the folder reads that.
    Schema,
}

const fn opt(name: &'static str, field: &'static str, of: Of, about: &'static str) -> Opt {
    Opt {
        name,
        field,
        of,
        about,
    }
}

/// No number of ours is greater.
const MAX: i64 = i32::MAX as i64;

const ALERT_KINDS: &[&str] = &[
    "deadline_missed",
    "freshness_missed",
    "parked",
    "run_failed",
    "source_degraded",
    "source_stalled",
    "source_ended",
    "lane_stopped",
];
const ORDERS: &[&str] = &["none", "key", "partition", "serial"];
const POLICIES: &[&str] = &["park", "block", "drop", "stop"];
const CODECS: &[&str] = &["bytes", "text", "json", "avro", "protobuf"];
const HISTORIES: &[&str] = &["sampled", "full"];
const RULES: &[&str] = &[
    "all_success",
    "all_failed",
    "all_done",
    "all_done_min_one_success",
    "all_skipped",
    "one_success",
    "one_failed",
    "one_done",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "always",
];

/// Where a place outside is, by id.
const CONNECTION: Opt = opt(
    "connection",
    "connection",
    Of::Text,
    "the connection that --connection gives an address to",
);

/// Headers of a request over HTTP.
const HEADERS: Opt = opt(
    "headers",
    "headers",
    Of::Environment,
    "headers beside those of the connection",
);

/// Options of a task that its DAG may set for all of its tasks.
pub(super) const SHARED: &[Opt] = &[
    opt(
        "retries",
        "retries",
        Of::Whole(0, MAX),
        "tries after the first one",
    ),
    opt(
        "retry_delay",
        "retry_delay_ms",
        Of::Duration,
        "wait before the next try",
    ),
    opt(
        "retry_exponential_backoff",
        "retry_exponential_backoff",
        Of::Flag,
        "double the wait each time",
    ),
    opt(
        "max_retry_delay",
        "max_retry_delay_ms",
        Of::Duration,
        "the doubled wait never exceeds this",
    ),
    opt(
        "timeout",
        "timeout_ms",
        Of::Duration,
        "the longest one try may take",
    ),
    opt(
        "on_interrupt",
        "on_interrupt",
        Of::Word(&["rerun", "fail"]),
        "what a try is worth that a crash cut off",
    ),
    opt(
        "pool",
        "pool",
        Of::Text,
        "the pool whose slots the task takes",
    ),
    opt(
        "rate_limit",
        "rate_limit",
        Of::Rate,
        "at most so many of its tries start in so long",
    ),
    opt(
        "rate_limit_per_key",
        "rate_limit_per_key",
        Of::Rate,
        "the same for the events of one key; those of others go on",
    ),
    opt(
        "priority",
        "priority",
        Of::Whole(i32::MIN as i64, MAX),
        "higher goes first",
    ),
    opt(
        "connections",
        "connections",
        Of::Names,
        "connections that it gets, in EVERMILL_CONNECTION_<ID>",
    ),
    opt(
        "secrets",
        "secrets",
        Of::Names,
        "secrets that it gets, in EVERMILL_SECRET_<NAME>",
    ),
    opt(
        "env",
        "env",
        Of::Environment,
        "further environment variables",
    ),
    opt(
        "cwd",
        "cwd",
        Of::Text,
        "working directory, from the DAG's folder",
    ),
    opt(
        "memory_limit",
        "memory_limit_bytes",
        Of::Size,
        "address space that a process of it may take",
    ),
    opt(
        "nice",
        "nice",
        Of::Whole(0, 19),
        "how willingly it lets others go first",
    ),
];

/// Options of a task and of a DAG.
pub(super) const BOTH: &[Opt] = &[
    opt(
        "on_failure",
        "on_failure",
        Of::Word(POLICIES),
        "what becomes of an event that has used up its tries",
    ),
    opt(
        "deadline",
        "deadline_ms",
        Of::Duration,
        "from the event to the end, before it counts as late",
    ),
    opt(
        "history",
        "history",
        Of::Word(HISTORIES),
        "how much is remembered of what succeeded",
    ),
];

/// Options of a task alone.
pub(super) const TASK: &[Opt] = &[opt(
    "trigger_rule",
    "trigger_rule",
    Of::Word(RULES),
    "how those before it must have ended",
)];

/// How a sensor is asked: options of `wait_http` beside those of the place.
pub(super) const POKE: &[Opt] = &[
    opt(
        "poke_interval",
        "interval_ms",
        Of::Duration,
        "wait between two questions, a minute unless said",
    ),
    opt(
        "exponential_backoff",
        "exponential",
        Of::Flag,
        "double that wait each time",
    ),
    opt(
        "max_wait",
        "max_interval_ms",
        Of::Duration,
        "the doubled wait never exceeds this",
    ),
    opt(
        "timeout",
        "timeout_ms",
        Of::Duration,
        "how long it waits in all; for ever unless said",
    ),
    opt(
        "soft_fail",
        "soft_fail",
        Of::Flag,
        "one that runs out of time is skipped, not failed",
    ),
];

/// Options of a DAG alone.
pub(super) const DAG: &[Opt] = &[
    opt("tags", "tags", Of::Texts, "labels for people"),
    opt(
        "max_active_runs",
        "max_active_runs",
        Of::Whole(1, MAX),
        "activations under way at any time",
    ),
    opt("order", "order", Of::Word(ORDERS), "what stays in line"),
];

/// Options of any source.
pub(super) const SOURCE: &[Opt] = &[
    opt("order", "order", Of::Word(ORDERS), "what stays in line"),
    opt(
        "freshness",
        "freshness_ms",
        Of::Duration,
        "without progress for so long it counts as stalled",
    ),
    opt(
        "rate_limit",
        "rate_limit",
        Of::Rate,
        "at most so many of its events begin in so long",
    ),
    opt(
        "codec",
        "codec",
        Of::Word(CODECS),
        "what a value has to be; tasks read Avro and Protobuf as JSON",
    ),
    opt(
        "schema",
        "schema",
        Of::Schema,
        "a JSON Schema, an Avro schema or Protobuf's types: a file's path, or the schema itself",
    ),
    opt(
        "schema_registry",
        "schema_registry",
        Of::Text,
        "the connection of the registry that has the schemas of Avro and Protobuf messages",
    ),
];

/// Options of a source's batch.
pub(super) const BATCH: &[Opt] = &[
    opt(
        "max_events",
        "max_events",
        Of::Whole(1, MAX),
        "never more events than this",
    ),
    opt(
        "linger",
        "linger_ms",
        Of::Duration,
        "how long the first one waits for company",
    ),
];

/// Options of a topic of Apache Kafka.
pub(super) const KAFKA: &[Opt] = &[
    opt("topic", "topic", Of::Text, "the topic's name"),
    opt(
        "group_id",
        "group_id",
        Of::Text,
        "the group whose offsets tell lag tools how far we are",
    ),
    opt(
        "auto_offset_reset",
        "auto_offset_reset",
        Of::Word(&["latest", "earliest"]),
        "where a partition begins that was never read",
    ),
    CONNECTION,
    opt(
        "membership",
        "membership",
        Of::Flag,
        "join the group and share its partitions",
    ),
    opt(
        "from_group",
        "from_group",
        Of::Text,
        "begin where this existing group is",
    ),
];

const CATCHUPS: Opt = opt(
    "catchup",
    "catchup",
    Of::Word(&["none", "last", "all"]),
    "what becomes of instants that passed while nobody listened",
);

/// Options of a clock by cron expression.
pub(super) const CRON: &[Opt] = &[
    opt(
        "expr",
        "expr",
        Of::Text,
        "five fields, or six with seconds first",
    ),
    opt(
        "timezone",
        "timezone",
        Of::Text,
        "the IANA time zone of its wall clock",
    ),
    CATCHUPS,
];

/// Options of a clock by interval.
pub(super) const EVERY: &[Opt] = &[
    opt("duration", "interval_ms", Of::Duration, "the interval"),
    CATCHUPS,
];

/// Options of signals.
pub(super) const SIGNAL: &[Opt] = &[opt("name", "name", Of::Text, "the name they are sent to")];

/// Options of a place in which files appear.
pub(super) const FILES: &[Opt] = &[
    opt(
        "path",
        "path",
        Of::Text,
        "a folder or a file, or a URL; wildcards in it are a pattern",
    ),
    opt(
        "pattern",
        "pattern",
        Of::Text,
        "which files below it, such as *.csv or **/*.csv; those in the folder itself unless said",
    ),
    CONNECTION,
    opt(
        "poke_interval",
        "poke_interval_ms",
        Of::Duration,
        "the longest wait between two looks at the whole folder, 10s unless said",
    ),
    opt(
        "settle",
        "settle_ms",
        Of::Duration,
        "so long a file has to stay as it is before it counts as whole, 1s unless said",
    ),
    opt(
        "fire_on_start",
        "fire_on_start",
        Of::Flag,
        "whether what is there at the first look is an event",
    ),
];

/// Options of alerts.
pub(super) const ALERTS: &[Opt] = &[
    opt("kinds", "kinds", Of::Words(ALERT_KINDS), "only these"),
    opt("dags", "dags", Of::Texts, "only about these DAGs"),
];

/// Options of ends of another DAG.
pub(super) const AFTER: &[Opt] = &[
    opt("dag", "dag", Of::Text, "the other DAG's id"),
    opt(
        "states",
        "states",
        Of::Words(&["done", "failed", "skipped"]),
        "which ends of its activations: done unless said",
    ),
];

/// Options of what tasks emit.
pub(super) const TOPIC: &[Opt] = &[
    opt("name", "name", Of::Text, "the topic's name"),
    opt(
        "circle",
        "circle",
        Of::Flag,
        "what is heard may lead back to this topic, and its author sees to it that it ends",
    ),
];

/// Options of a command that is asked again and again.
pub(super) const POLL: &[Opt] = &[
    opt(
        "run",
        "command",
        Of::Text,
        "a command for sh: exit code 0 says yes, 1 says no, any other says nothing; what it prints is the event",
    ),
    opt(
        "poke_interval",
        "poke_interval_ms",
        Of::Duration,
        "wait between two questions, a minute unless said",
    ),
];

/// Options of a loop.
pub(super) const LOOP: &[Opt] = &[
    opt("delay", "delay_ms", Of::Duration, "wait between two laps"),
    opt(
        "max_consecutive_failures",
        "max_consecutive_failures",
        Of::Whole(1, MAX),
        "go on after a failed lap, so often in a row at most",
    ),
];

/// Options of a queue of Amazon SQS.
pub(super) const SQS: &[Opt] = &[
    opt("queue", "queue", Of::Text, "the queue's name, URL or ARN"),
    opt(
        "connection",
        "connection",
        Of::Text,
        "the connection that --connection gives settings to; aws_default needs none",
    ),
    opt(
        "ack",
        "ack",
        Of::Word(&["ingest", "outcome"]),
        "when a message is deleted: once it is kept here, or once its work is done",
    ),
];

/// Options of a queue of Amazon SQS that a task writes to.
pub(super) const TO_SQS: &[Opt] = &[
    opt("queue", "queue", Of::Text, "the queue's name, URL or ARN"),
    opt(
        "connection",
        "connection",
        Of::Text,
        "the connection that --connection gives settings to; aws_default needs none",
    ),
    opt(
        "key",
        "key",
        Of::Text,
        "the group in a FIFO queue: event for the event's own key, none, or a JSON pointer into the value",
    ),
];

/// Options of a topic that a task writes to.
pub(super) const TO_KAFKA: &[Opt] = &[
    opt("topic", "topic", Of::Text, "the topic's name"),
    CONNECTION,
    opt(
        "key",
        "key",
        Of::Text,
        "event for the event's own key, none, or a JSON pointer into the value",
    ),
];

/// Options of a topic that a task says a value to.
pub(super) const EMIT: &[Opt] = &[
    opt(
        "topic",
        "topic",
        Of::Text,
        "the topic's name, which other DAGs listen to",
    ),
    opt(
        "key",
        "key",
        Of::Text,
        "event for the event's own key, none, or a JSON pointer into the value",
    ),
];

/// Options of a folder or a bucket that a task writes to.
pub(super) const TO_FILE: &[Opt] = &[
    opt(
        "path",
        "path",
        Of::Text,
        "a file's path, or s3://BUCKET/KEY; {effect_key} in it, or {/id}, what stands there in the value",
    ),
    opt(
        "connection",
        "connection",
        Of::Text,
        "the connection that --connection gives settings of a bucket to; aws_default needs none",
    ),
    opt(
        "key",
        "key",
        Of::Text,
        "what {key} is: event for the event's own key, none, or a JSON pointer into the value",
    ),
];

/// Options of a service that a task writes to over HTTP.
pub(super) const TO_HTTP: &[Opt] = &[
    opt(
        "endpoint",
        "endpoint",
        Of::Text,
        "a path below the connection's address, or a whole URL; {/id} is what stands there in the value",
    ),
    CONNECTION,
    opt(
        "method",
        "method",
        Of::Word(&["POST", "PUT", "PATCH", "DELETE"]),
        "POST unless said",
    ),
    HEADERS,
    opt(
        "expect",
        "expect",
        Of::Statuses,
        "statuses that mean that it has arrived; any of 200 to 299 unless said",
    ),
    opt(
        "key",
        "key",
        Of::Text,
        "what {key} is: event for the event's own key, none, or a JSON pointer into the value",
    ),
];

/// Options of a request over HTTP.
pub(super) const HTTP: &[Opt] = &[
    opt("method", "method", Of::Word(METHODS), "POST unless said"),
    opt(
        "url",
        "url",
        Of::Text,
        "a whole URL, in place of connection and path",
    ),
    CONNECTION,
    opt(
        "path",
        "path",
        Of::Text,
        "the path below the connection's address",
    ),
    opt(
        "query",
        "query",
        Of::Environment,
        "names and values for the query",
    ),
    HEADERS,
    opt(
        "expect",
        "expect",
        Of::Statuses,
        "statuses that mean success; any of 200 to 299 unless said",
    ),
];

/// Options of a place that is polled over HTTP.
pub(super) const HTTP_SOURCE: &[Opt] = &[
    opt(
        "endpoint",
        "endpoint",
        Of::Text,
        "a path below the connection's address, or a whole URL",
    ),
    CONNECTION,
    opt(
        "poke_interval",
        "poke_interval_ms",
        Of::Duration,
        "the longest wait between two questions, a minute unless said",
    ),
    opt("method", "method", Of::Word(METHODS), "GET unless said"),
    opt(
        "request_params",
        "request_params",
        Of::Environment,
        "names and values for the query, or for a form where the method has a body",
    ),
    HEADERS,
    opt(
        "select",
        "select",
        Of::Text,
        "a JSON pointer: the event is what it leads to, and a change of it is an edge",
    ),
    opt(
        "fire_on_start",
        "fire_on_start",
        Of::Flag,
        "whether what is true at the first answer is an event",
    ),
];

const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

const UNITS_MS: [(&str, f64); 5] = [
    ("ms", 1.0),
    ("s", 1e3),
    ("m", 6e4),
    ("h", 3.6e6),
    ("d", 8.64e7),
];
/// Greater numbers cannot be held exactly in JSON.
const EXACT_MAX: f64 = 9_007_199_254_740_991.0;

impl Of {
    /// The manifest's value for what was written, or what may be written instead.
    pub(super) fn read(self, node: &Node) -> Result<Value, String> {
        match (self, &node.kind) {
            (Self::Texts, Kind::List(items)) => {
                let texts = items
                    .iter()
                    .map(|item| text(item).ok_or("write a list of texts"));
                Ok(json!(texts.collect::<Result<Vec<_>, _>>()?))
            }
            (Self::Words(known), Kind::List(items)) => {
                let mut words = Vec::new();
                for item in items {
                    let word = text(item).ok_or_else(|| self.wanted())?;
                    if !known.contains(&word) {
                        return Err(super::nearest(word, known.iter().copied()));
                    }
                    words.push(word);
                }
                Ok(json!(words))
            }
            (Self::Names, Kind::List(items)) => {
                let mut names = BTreeSet::new();
                for item in items {
                    let name = text(item).filter(|name| is_name(name));
                    names.insert(name.ok_or_else(|| self.wanted())?);
                }
                Ok(json!(names))
            }
            (Self::Statuses, Kind::Scalar { .. }) => {
                Ok(json!([status(node).ok_or_else(|| self.wanted())?]))
            }
            (Self::Statuses, Kind::List(items)) if !items.is_empty() => {
                let statuses = items.iter().map(status).collect::<Option<Vec<_>>>();
                Ok(json!(statuses.ok_or_else(|| self.wanted())?))
            }
            (Self::Environment, Kind::Map(pairs)) => {
                let pair = |(key, value): &(super::tree::Key, Node)| {
                    let value = text(value).ok_or("write one text for each name")?;
                    Ok::<_, String>((key.text.clone(), Value::from(value)))
                };
                Ok(Value::Object(
                    pairs.iter().map(pair).collect::<Result<_, _>>()?,
                ))
            }
            (Self::Schema, Kind::Map(_)) => Ok(node.json()),
            (
                Self::Text
                | Self::Schema
                | Self::Flag
                | Self::Whole(..)
                | Self::Duration
                | Self::Size
                | Self::Rate
                | Self::Word(_),
                Kind::Scalar { text, quoted },
            ) => self.scalar(text, *quoted),
            _ => Err(self.wanted()),
        }
    }

    fn scalar(self, text: &str, quoted: bool) -> Result<Value, String> {
        let found = match self {
            Self::Text | Self::Schema => (!text.is_empty()).then(|| json!(text)),
            Self::Flag => match text {
                "true" if !quoted => Some(json!(true)),
                "false" if !quoted => Some(json!(false)),
                _ => None,
            },
            Self::Whole(least, most) => {
                let number = text.parse::<i64>().ok().filter(|_| !quoted);
                let number = number.filter(|number| (least..=most).contains(number));
                number.map(|number| json!(number))
            }
            Self::Size => size(text, quoted).map(|bytes| json!(bytes)),
            Self::Duration => duration(text, quoted).map(|ms| json!(ms)),
            Self::Rate => rate(text),
            Self::Word(words) => words.contains(&text).then(|| json!(text)),
            Self::Texts | Self::Words(_) | Self::Names | Self::Environment | Self::Statuses => None,
        };
        match (found, self) {
            (Some(value), _) => Ok(value),
            (None, Self::Word(words)) => Err(super::nearest(text, words.iter().copied())),
            (None, _) => Err(self.wanted()),
        }
    }

    fn wanted(self) -> String {
        match self {
            Self::Text => "write a text".to_owned(),
            Self::Flag => "write true or false".to_owned(),
            Self::Whole(least, MAX) if least >= 0 => {
                format!("write a whole number, {least} or more")
            }
            Self::Whole(_, MAX) => "write a whole number".to_owned(),
            Self::Whole(least, most) => format!("write a whole number from {least} to {most}"),
            Self::Size => "write bytes, or a number with KiB, MiB, GiB, KB, MB or GB".to_owned(),
            Self::Duration => "write seconds, or a number with ms, s, m, h or d".to_owned(),
            Self::Rate => "write a number and a time, such as 100/s or 5/10m".to_owned(),
            Self::Word(words) => format!("known: {}", words.join(", ")),
            Self::Texts => "write a list of texts".to_owned(),
            Self::Words(words) => format!("write a list of some of {}", words.join(", ")),
            Self::Names => {
                "write a list of names: letters, digits, '_', '-' and '.', 128 at most".to_owned()
            }
            Self::Environment => "write names and values".to_owned(),
            Self::Statuses => "write a status such as 201, or a list of them".to_owned(),
            Self::Schema => "write the path of a file, or a schema as a map".to_owned(),
        }
    }

    /// As JSON Schema.
    pub(super) fn schema(self) -> Value {
        match self {
            Self::Text => json!({"type": "string", "minLength": 1}),
            Self::Flag => json!({"type": "boolean"}),
            Self::Whole(least, most) => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            Self::Size => json!({"anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(B|[KMG]|[KMG]i?B)$"},
            ]}),
            Self::Duration => json!({"anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s|m|h|d)$"},
            ]}),
            Self::Rate => {
                json!({"type": "string", "pattern": r"^\d+/(\d+(\.\d+)?)?(ms|s|m|h|d)$"})
            }
            Self::Word(words) => json!({"enum": words}),
            Self::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Self::Words(words) => json!({"type": "array", "items": {"enum": words}}),
            Self::Names => json!({
                "type": "array",
                "items": {"type": "string", "pattern": r"^[A-Za-z0-9_.-]{1,128}$"},
            }),
            Self::Statuses => {
                let status = json!({"type": "integer", "minimum": 100, "maximum": 599});
                json!({"anyOf": [status, {"type": "array", "minItems": 1, "items": status}]})
            }
            Self::Schema => {
                json!({"anyOf": [{"type": "string", "minLength": 1}, {"type": "object"}]})
            }
            Self::Environment => json!({
                "type": "object",
                "additionalProperties": {"type": ["string", "number", "boolean"]},
            }),
        }
    }
}

/// The text of a scalar.
pub(super) fn text(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar { text, .. } if !node.is_empty() => Some(text),
        _ => None,
    }
}

/// As in the Python package, and where secrets are kept.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(fits)
}

fn status(node: &Node) -> Option<u16> {
    let status = text(node)?.parse().ok()?;
    (100..=599).contains(&status).then_some(status)
}

fn duration(text: &str, quoted: bool) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "" if !quoted => 1e3,
        unit => UNITS_MS.iter().find(|(name, _)| *name == unit)?.1,
    };
    let ms = number * factor;
    (0.0..=EXACT_MAX).contains(&ms).then_some(ms.round() as u64)
}

fn rate(text: &str) -> Option<Value> {
    let (members, time) = text.split_once('/')?;
    let members: i64 = members.trim().parse().ok()?;
    let time = time.trim();
    let alone = time.starts_with(|c: char| c.is_ascii_alphabetic());
    let one = if alone {
        format!("1{time}")
    } else {
        time.to_owned()
    };
    let interval_ms = duration(&one, true).filter(|ms| *ms > 0)?;
    let fits = (1..=MAX).contains(&members);
    fits.then(|| json!({"members": members, "interval_ms": interval_ms}))
}

fn size(text: &str, quoted: bool) -> Option<u64> {
    const UNITS: [(&str, f64); 10] = [
        ("b", 1.0),
        ("k", 1024.0),
        ("m", 1_048_576.0),
        ("g", 1_073_741_824.0),
        ("kib", 1024.0),
        ("mib", 1_048_576.0),
        ("gib", 1_073_741_824.0),
        ("kb", 1e3),
        ("mb", 1e6),
        ("gb", 1e9),
    ];
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    if unit.is_empty() {
        return number.parse().ok().filter(|bytes| *bytes > 0 && !quoted);
    }
    let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let bytes = number.parse::<f64>().ok()? * factor;
    (1.0..=EXACT_MAX).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_seconds_or_has_a_unit() {
        let plain = |text| duration(text, false);
        assert_eq!(
            ["30", "1.5", "500ms", "2m", "1 h", "3d"].map(plain),
            [
                Some(30_000),
                Some(1_500),
                Some(500),
                Some(120_000),
                Some(3_600_000),
                Some(259_200_000)
            ]
        );
        assert_eq!(
            ["", "s", "-1", "1x", "1e9", "."].map(plain),
            [None, None, None, None, None, None]
        );
        assert_eq!(duration("30", true), None);
    }

    #[test]
    fn a_size_is_bytes_or_has_a_unit() {
        let sizes = ["7", "1KiB", "1.5 MB", "2g", "0", "x", "1 XB"].map(|text| size(text, false));
        let expected = [Some(7), Some(1_024), Some(1_500_000), Some(2_147_483_648)];
        assert_eq!(sizes[..4], expected);
        assert_eq!(sizes[4..], [None, None, None]);
    }
}
