//! A DAG's declaration as something to draw: what is worth a word beside each node.

use std::collections::BTreeMap;

use evermill_api::drawing::{Edge, Graph, Node, Shape};
use evermill_contract::manifest::{
    Catchup, DagManifest, FilesSource, HttpCall, HttpOp, HttpSource, HttpTest, KafkaSource,
    LoopSource, MapList, OffsetReset, Poke, SinkConfig, SourceConfig, SourceManifest, SqsAck,
    SqsSource, TaskKind, TaskManifest, Wait, WebhookSource,
};
use serde::Serialize;

/// What the engine waits between two questions to a sensor, where nobody says.
const SENSOR_INTERVAL_MS: u64 = 60_000;

/// The DAG of a file; sources first, then tasks, each in order of declaration.
pub(in crate::cli) fn of(dag: &DagManifest, file: &str) -> Graph {
    let sources = dag.sources.iter().map(|source| source_node(source, dag));
    let tasks = dag.tasks.iter().map(|task| task_node(task, dag));
    Graph {
        title: format!("{}  {file}:{}", dag.id, dag.line),
        details: vec![about(dag)],
        nodes: sources.chain(tasks).collect(),
        edges: edges(dag),
    }
}

fn about(dag: &DagManifest) -> String {
    let mut said = Vec::new();
    let order = word(&dag.order);
    said.push(format!("order {order}"));
    said.push(format!("after failure {}", word(&dag.on_failure)));
    if dag.sources.is_empty() {
        said.push("no source: run once, by hand".to_owned());
    }
    said.extend(
        dag.deadline_ms
            .map(|ms| format!("deadline {}", duration(ms))),
    );
    said.extend(dag.python.as_ref().map(|python| format!("python {python}")));
    if !dag.tags.is_empty() {
        said.push(format!("tags {}", dag.tags.join(", ")));
    }
    said.join(" · ")
}

fn source_node(source: &SourceManifest, dag: &DagManifest) -> Node {
    let mut said = match &source.config {
        SourceConfig::Kafka(kafka) => topic(kafka),
        SourceConfig::Http(http) => place(http),
        SourceConfig::Webhook(hook) => way_in(hook, &dag.id, &source.id),
        SourceConfig::Cron(cron) => {
            let when = format!("cron {} in {}", cron.expr, cron.timezone);
            with_catchup(when, cron.catchup)
        }
        SourceConfig::Every(every) => {
            let when = format!("every {}", duration(every.interval_ms));
            with_catchup(when, every.catchup)
        }
        SourceConfig::Loop(config) => laps(config),
        SourceConfig::Signal(signal) => vec![format!("signal {}", signal.name)],
        SourceConfig::Files(files) => folder(files),
        SourceConfig::Sqs(sqs) => queue(sqs),
        SourceConfig::Alerts(alerts) => {
            let kinds = alerts.kinds.iter().map(ToString::to_string);
            let what = kinds.chain(alerts.dags.iter().cloned());
            let what: Vec<String> = what.collect();
            vec![format!("alerts {}", what.join(", ")).trim_end().to_owned()]
        }
        SourceConfig::After(after) => {
            let ends: Vec<_> = after.ends().iter().map(word).collect();
            vec![format!("after DAG {} · {}", after.dag, ends.join(", "))]
        }
        SourceConfig::Topic(topic) => vec![format!("topic {}", topic.name)],
        SourceConfig::Poll(poll) => vec![format!(
            "asks {} every {}",
            poll.run.as_ref().map_or_else(
                || poll.function.clone(),
                |run| format!("$ {}", shortened(&run.command))
            ),
            duration(poll.poke_interval_ms.unwrap_or(SENSOR_INTERVAL_MS))
        )],
    };
    said.extend(content(source));
    let order = source.order.filter(|order| *order != dag.order);
    said.extend(order.map(|order| format!("order {}", word(&order))));
    said.extend(source.batch.map(|batch| match batch.linger_ms {
        0 => format!("lists of {} at most", batch.max_events),
        linger => format!(
            "lists of {} at most, within {}",
            batch.max_events,
            duration(linger)
        ),
    }));
    said.extend(
        source
            .freshness_ms
            .map(|ms| format!("freshness {}", duration(ms))),
    );
    if source.promoted_from_task.is_some() {
        said.push("a root sensor: it listens for ever".to_owned());
    }
    Node {
        id: source.id.clone(),
        shape: Shape::Source,
        details: said,
    }
}

fn topic(kafka: &KafkaSource) -> Vec<String> {
    let mut said = vec![format!("kafka topic {}", kafka.topic)];
    let group = kafka.group_id.as_ref();
    said.extend(group.map(|group| format!("group {group}")));
    said.push(match (&kafka.from_group, kafka.auto_offset_reset) {
        (Some(group), _) => format!("from where {group} is"),
        (None, OffsetReset::Earliest) => "from earliest".to_owned(),
        (None, OffsetReset::Latest) => "from latest".to_owned(),
    });
    said.push(format!("connection {}", kafka.connection));
    said
}

fn queue(sqs: &SqsSource) -> Vec<String> {
    let deleted = match sqs.ack {
        SqsAck::Ingest => "deleted once it is kept",
        SqsAck::Outcome => "deleted once it is settled",
    };
    vec![
        format!("sqs queue {}", sqs.queue),
        deleted.to_owned(),
        format!("connection {}", sqs.connection),
    ]
}

fn with_catchup(when: String, catchup: Catchup) -> Vec<String> {
    let missed = match catchup {
        Catchup::None => return vec![when],
        Catchup::Last => "the latest missed instant fires",
        Catchup::All => "missed instants fire",
    };
    vec![when, missed.to_owned()]
}

fn laps(config: &LoopSource) -> Vec<String> {
    let mut said = vec![match config.delay_ms {
        0 => "one lap after the other".to_owned(),
        delay => format!("one lap after the other, {} apart", duration(delay)),
    }];
    let failures = config.max_consecutive_failures;
    said.extend(failures.map(|most| format!("goes on after {most} failures in a row at most")));
    said
}

fn folder(files: &FilesSource) -> Vec<String> {
    let below = files.pattern.as_deref();
    let mut said = vec![match below {
        Some(pattern) => format!("files {}/{pattern}", files.path.trim_end_matches('/')),
        None => format!("files {}", files.path),
    }];
    // An object of a bucket is whole as soon as it is there.
    let waits = files.scheme() != Some("s3");
    said.extend(waits.then(|| format!("whole after {}", duration(files.settle_ms))));
    said.extend((!files.fire_on_start).then(|| "not those of the start".to_owned()));
    let connection = files.connection.as_ref();
    said.extend(connection.map(|id| format!("connection {id}")));
    said
}

fn way_in(hook: &WebhookSource, dag: &str, source: &str) -> Vec<String> {
    let signed = match hook.secrets.len() {
        0 => "not signed".to_owned(),
        1 => "signed".to_owned(),
        secrets => format!("signed with one of {secrets} secrets"),
    };
    vec![format!("webhook /hooks/{dag}/{source}"), signed]
}

/// What the values of a source have to be.
fn content(source: &SourceManifest) -> Option<String> {
    let codec = source.codec.map(|codec| word(&codec));
    let schema = source.schema.as_ref().map(|_| "a schema".to_owned());
    let registry = source.schema_registry.as_ref();
    let registry = registry.map(|id| format!("schemas from {id}"));
    let parts: Vec<String> = codec.into_iter().chain(schema).chain(registry).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn place(http: &HttpSource) -> Vec<String> {
    let mut said = asked(http);
    said.insert(1, format!("every {}", duration(http.poke_interval_ms)));
    said.extend((!http.fire_on_start).then(|| "not at the start".to_owned()));
    said
}

/// How often a sensor is asked, and for how long.
fn poked(poke: &Poke) -> Vec<String> {
    let interval = duration(poke.interval_ms.unwrap_or(SENSOR_INTERVAL_MS));
    let doubles = if poke.exponential { ", doubling" } else { "" };
    let mut said = vec![format!("every {interval}{doubles}")];
    said.extend(poke.timeout_ms.map(|ms| {
        let end = if poke.soft_fail { "skipped" } else { "failed" };
        format!("{end} after {}", duration(ms))
    }));
    said
}

/// What is asked, and what has to hold of the answer.
fn asked(http: &HttpSource) -> Vec<String> {
    let statuses = http.check.status.iter().map(u16::to_string);
    let statuses: Vec<_> = statuses.collect();
    let is_named = !statuses.is_empty();
    let mut said = vec![format!(
        "http {} {}",
        http.method,
        shortened(&http.endpoint)
    )];
    said.extend(is_named.then(|| format!("when it answers {}", statuses.join(" or "))));
    said.extend(http.check.tests.iter().map(test));
    let function = http.check.function.as_ref();
    said.extend(function.map(|name| format!("when {name} says so")));
    let select = http.select.as_ref();
    said.extend(select.map(|select| format!("each change of {select}")));
    let cursor = http.cursor.as_ref();
    said.extend(cursor.map(|cursor| format!("each new item after {}", cursor.param)));
    said.extend(http.needs().map(|id| format!("connection {id}")));
    said
}

fn test(test: &HttpTest) -> String {
    let (pointer, value) = (&test.pointer, &test.value);
    match test.op {
        HttpOp::SameText => format!("when {pointer} is {value}"),
        op => format!("when {pointer} {} {value}", word(&op).replace('_', " ")),
    }
}

/// A task's request, as `curl` users would say it.
fn request(call: &HttpCall) -> String {
    match &call.url {
        Some(url) => format!("{} {}", call.method, shortened(url)),
        None => {
            let path = shortened(call.path.as_deref().unwrap_or("/"));
            format!("{} {path} · connection {}", call.method, call.connection)
        }
    }
}

/// Where a task's value goes.
pub(in crate::cli) fn destination(sink: &SinkConfig) -> String {
    let key = match sink.key() {
        "event" => String::new(),
        "none" => " · no key".to_owned(),
        pointer => format!(" · key {pointer}"),
    };
    let (place, connection) = match sink {
        SinkConfig::Kafka(kafka) => (
            format!("kafka topic {}", kafka.topic),
            Some(kafka.connection.as_str()),
        ),
        SinkConfig::Sqs(sqs) => (
            format!("sqs queue {}", sqs.queue),
            Some(sqs.connection.as_str()),
        ),
        SinkConfig::File(file) => (
            format!("file {}", file.path),
            file.in_bucket().map(|_| file.connection.as_str()),
        ),
        SinkConfig::Http(http) => (
            format!("{} {}", http.method, shortened(&http.endpoint)),
            http.needs(),
        ),
        SinkConfig::Topic(topic) => (format!("topic {} of other DAGs", topic.topic), None),
    };
    let connection = connection.map(|id| format!(" · connection {id}"));
    format!("to {place}{key}{}", connection.unwrap_or_default())
}

fn task_node(task: &TaskManifest, dag: &DagManifest) -> Node {
    let shape = match task.kind {
        TaskKind::Noop => Shape::Noop,
        TaskKind::Branch | TaskKind::ShortCircuit => Shape::Choice,
        TaskKind::Call | TaskKind::Sensor if task.mapped.is_some() => Shape::Mapped,
        TaskKind::Call | TaskKind::Sensor => Shape::Task,
    };
    let mut said = Vec::new();
    said.extend(
        task.run
            .as_ref()
            .map(|run| format!("$ {}", shortened(&run.command))),
    );
    said.extend(task.http.as_ref().map(request));
    said.extend(task.sink.as_ref().map(destination));
    said.extend(task.wait.as_ref().map(|wait| match wait {
        Wait::DelayMs(ms) => format!("waits {}", duration(*ms)),
        Wait::Signal(name) => format!("waits for signal {name}"),
    }));
    let told = task.wait.is_some() || task.kind == TaskKind::Call;
    said.extend((!told).then(|| word(&task.kind).replace('_', " ")));
    said.extend(task.polls.iter().flat_map(asked));
    let polled = task.kind == TaskKind::Sensor && task.wait.is_none();
    said.extend(
        polled
            .then(|| task.poke.unwrap_or_default())
            .iter()
            .flat_map(poked),
    );
    let lists = task.mapped.iter().flat_map(|mapped| &mapped.over);
    said.extend(lists.map(|over| match &over.list {
        MapList::Task(id) => format!("once per {} of {id}", over.param),
        MapList::Literal(length) => format!("once per {} of {length}", over.param),
    }));
    said.extend(unless_default(&task.trigger_rule).map(|rule| format!("rule {rule}")));
    if task.retries > 0 {
        let after = task
            .retry_delay_ms
            .map_or_else(String::new, |ms| format!(" after {}", duration(ms)));
        let grows = if task.retry_exponential_backoff {
            ", doubling"
        } else {
            ""
        };
        said.push(format!("retries {}{after}{grows}", task.retries));
    }
    said.extend(
        task.timeout_ms
            .map(|ms| format!("timeout {}", duration(ms))),
    );
    said.extend(task.batch.map(|batch| format!("{batch} a call")));
    said.extend(task.concurrency.map(|many| format!("concurrency {many}")));
    said.extend(task.pool.as_ref().map(|pool| format!("pool {pool}")));
    said.extend((task.priority != 0).then(|| format!("priority {}", task.priority)));
    said.extend(
        task.deadline_ms
            .map(|ms| format!("deadline {}", duration(ms))),
    );
    let after_failure = task.on_failure.filter(|policy| *policy != dag.on_failure);
    said.extend(after_failure.map(|policy| format!("after failure {}", word(&policy))));
    said.extend(unless_default(&task.on_interrupt).map(|policy| format!("on interrupt {policy}")));
    said.extend(task.wants.state.then(|| "state".to_owned()));
    Node {
        id: task.id.clone(),
        shape,
        details: said,
    }
}

/// The first line of a command, at most as long as a glance.
fn shortened(command: &str) -> String {
    const GLANCE: usize = 40;
    let first = command.trim().lines().next().unwrap_or_default();
    let shown: String = first.chars().take(GLANCE).collect();
    let is_whole = shown.len() == command.trim().len();
    format!("{shown}{}", if is_whole { "" } else { "…" })
}

fn edges(dag: &DagManifest) -> Vec<Edge> {
    // A source and a task never have one id.
    let sources = dag.sources.iter().map(|source| source.id.as_str());
    let ids = sources.chain(dag.tasks.iter().map(|task| task.id.as_str()));
    let places: BTreeMap<&str, usize> = ids.enumerate().map(|(place, id)| (id, place)).collect();
    let place = |id: &String| places.get(id.as_str()).copied();
    let mut edges = Vec::new();
    for (to, of) in (dag.sources.len()..).zip(&dag.tasks) {
        for edge in &of.upstream {
            edges.extend(place(&edge.node).map(|from| Edge {
                from,
                to,
                carries: edge.reads_result,
            }));
        }
    }
    for (to, of) in dag.sources.iter().enumerate() {
        let before = of.after.iter().filter_map(place);
        edges.extend(before.map(|from| Edge {
            from,
            to,
            carries: false,
        }));
    }
    edges
}

/// The word of an enumeration, as authors write it.
fn word(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).expect("a word is JSON");
    json.as_str().unwrap_or_default().to_owned()
}

fn unless_default<T: Default + PartialEq + Serialize>(value: &T) -> Option<String> {
    (*value != T::default()).then(|| word(value))
}

/// In the greatest unit that leaves no rest.
fn duration(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let fits = |unit: &&(u64, &str)| ms >= unit.0 && ms.is_multiple_of(unit.0);
    let unit = UNITS.iter().find(fits).unwrap_or(&(1, "ms"));
    format!("{}{}", ms / unit.0, unit.1)
}
