//! JSON Schema of DAG files in YAML, for editors: made of the same list as the decoder.

use serde_json::{Map, Value, json};

use super::asked::COMPARISONS;
use super::option::{
    AFTER, ALERTS, BATCH, BOTH, CRON, DAG, EMIT, EVERY, FILES, HTTP, HTTP_SOURCE, KAFKA, LOOP, Of,
    Opt, POKE, POLL, SHARED, SIGNAL, SOURCE, SQS, TASK, TO_FILE, TO_HTTP, TO_KAFKA, TO_SQS, TOPIC,
};

/// The schema (draft 2020-12).
#[must_use]
pub fn schema() -> Value {
    let names = json!({"anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
    ]});
    let http = object(
        &[HTTP],
        [
            (
                "body",
                json!({"description": "what is sent: a text, or a value that becomes JSON; else the event's content is"}),
            ),
            (
                "body_from",
                described(json!({"type": "string"}), "the task whose result is sent"),
            ),
            ("idempotency_key", key_header()),
        ],
        &[],
    );
    let to_kafka = sink(TO_KAFKA, "topic", []);
    let to_sqs = sink(TO_SQS, "queue", []);
    let to_file = sink(TO_FILE, "path", []);
    let emit = json!({"anyOf": [{"type": "string", "minLength": 1}, sink(EMIT, "topic", [])]});
    let to_http = sink(TO_HTTP, "endpoint", [("idempotency_key", key_header())]);
    let task = object(
        &[SHARED, BOTH, TASK],
        [
            (
                "after",
                described(names, "what it comes after: sources and tasks"),
            ),
            (
                "run",
                described(
                    json!({"type": "string", "minLength": 1}),
                    "a command for sh; without one the task only joins those before it",
                ),
            ),
            (
                "stdin",
                described(
                    json!({"type": "string"}),
                    "the task whose result is on standard input, else the event's content is",
                ),
            ),
            (
                "http",
                described(http, "a request over HTTP, in place of a command"),
            ),
            (
                "to_kafka",
                described(
                    to_kafka,
                    "a message to a Kafka topic, in place of a command",
                ),
            ),
            (
                "emit",
                described(
                    emit,
                    "a message to the DAGs that listen to this topic, in place of a command",
                ),
            ),
            (
                "to_sqs",
                described(
                    to_sqs,
                    "a message to a queue of Amazon SQS, in place of a command",
                ),
            ),
            (
                "wait",
                described(
                    json!({"anyOf": [Of::Duration.schema(), {
                        "type": "object",
                        "properties": {"signal": {"type": "string", "minLength": 1}},
                        "required": ["signal"],
                        "additionalProperties": false,
                    }]}),
                    "waits so long, or for a message of this name",
                ),
            ),
            (
                "wait_http",
                described(waited_for(), "waits until a place answers as it should"),
            ),
            (
                "to_file",
                described(
                    to_file,
                    "a file in a folder or a bucket, in place of a command",
                ),
            ),
            (
                "to_http",
                described(
                    to_http,
                    "a request to a service that takes the value, in place of a command",
                ),
            ),
        ],
        &[],
    );
    let kafka = object(&[KAFKA], [], &["topic"]);
    let sqs = object(&[SQS], [], &["queue"]);
    let text = json!({"type": "string"});
    let either = |whole: Value| json!({"anyOf": [text, whole]});
    let cron = either(object(&[CRON], [], &["expr"]));
    let every = either(object(&[EVERY], [], &["duration"]));
    let signal = either(object(&[SIGNAL], [], &["name"]));
    let after = either(object(&[AFTER], [], &["dag"]));
    let topic = either(object(&[TOPIC], [], &["name"]));
    let files = either(object(&[FILES], [], &["path"]));
    let poll = either(object(&[POLL], [], &["run"]));
    let laps = either(object(&[LOOP], [], &["delay"]));
    let source = object(
        &[SOURCE],
        [
            ("kafka", described(kafka, "a topic of Apache Kafka")),
            ("sqs", described(sqs, "a queue of Amazon SQS")),
            (
                "http",
                described(polled(), "a place that is asked again and again"),
            ),
            (
                "webhook",
                described(webhook(), "requests that others send to us"),
            ),
            ("cron", described(cron, "the instants of a cron expression")),
            ("every", described(every, "instants at equal distances")),
            (
                "signal",
                described(signal, "messages that somebody sends by name"),
            ),
            (
                "alerts",
                described(
                    object(&[ALERTS], [], &[]),
                    "what goes wrong with other DAGs",
                ),
            ),
            ("loop", described(laps, "one lap after the other")),
            (
                "after",
                described(after, "ends of another DAG's activations"),
            ),
            ("topic", described(topic, "what tasks emit")),
            (
                "poll",
                described(poll, "a command that is asked again and again"),
            ),
            (
                "files",
                described(files, "files that appear in a folder or a bucket"),
            ),
            (
                "batch",
                described(
                    object(&[BATCH], [], &["max_events"]),
                    "the activation is a list of events",
                ),
            ),
        ],
        &[],
    );
    let files = json!({"type": "array", "items": {"type": "string"}});
    let mut dag = object(
        &[DAG, BOTH, SHARED],
        [
            (
                "dag",
                described(
                    json!({"type": "string", "pattern": r"^[\w.-]{1,250}$"}),
                    "the DAG's id",
                ),
            ),
            (
                "files",
                described(
                    files,
                    "files that the commands need, from this file's folder",
                ),
            ),
            (
                "sources",
                json!({"type": "object", "additionalProperties": source}),
            ),
            (
                "tasks",
                json!({"type": "object", "minProperties": 1, "additionalProperties": task}),
            ),
        ],
        &["dag", "tasks"],
    );
    dag["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    dag["title"] = json!("evermill DAG");
    dag
}

/// A place outside that a task writes to.
fn sink<const N: usize>(
    options: &'static [Opt],
    must: &str,
    more: [(&'static str, Value); N],
) -> Value {
    let about = "the task whose result is written, else the event's content is";
    let from = described(json!({"type": "string"}), about);
    let more = more.into_iter().chain([("value_from", from)]);
    object(&[options], more, &[must])
}

fn key_header() -> Value {
    described(
        json!({"anyOf": [{"type": "string", "minLength": 1}, {"const": false}]}),
        "the header that carries the effect key, Idempotency-Key unless said; false for none",
    )
}

/// A place that a task waits for: it is asked as a source asks one, but for what is a source's own.
fn waited_for() -> Value {
    let mut place = polled();
    if let Some(properties) = place["properties"].as_object_mut() {
        properties.remove("fire_on_start");
        properties.remove("cursor");
        let asked = object(&[POKE], [], &[]);
        for (name, schema) in asked["properties"].as_object().into_iter().flatten() {
            properties.insert(name.clone(), schema.clone());
        }
    }
    place
}

fn polled() -> Value {
    let pointer = json!({"type": "string", "pattern": "^/"});
    let mut check: Map<String, Value> = Map::new();
    check.insert("status".into(), Of::Statuses.schema());
    check.insert("pointer".into(), pointer.clone());
    check.extend(COMPARISONS.map(|name| (name.to_owned(), json!(true))));
    let check = json!({"type": "object", "properties": check, "additionalProperties": false});
    let check = json!({"anyOf": [check, {"type": "array", "items": check}]});
    let cursor = json!({
        "type": "object",
        "properties": {
            "param": {"type": "string", "minLength": 1},
            "items": pointer,
            "id": pointer,
            "newest_first": {"type": "boolean"},
        },
        "required": ["param"],
        "additionalProperties": false,
    });
    let cursor = json!({"anyOf": [{"type": "string", "minLength": 1}, cursor]});
    object(
        &[HTTP_SOURCE],
        [
            (
                "response_check",
                described(check, "what has to hold of an answer"),
            ),
            (
                "cursor",
                described(
                    cursor,
                    "the answer is a list, of which each new item is an event",
                ),
            ),
        ],
        &["endpoint"],
    )
}

fn webhook() -> Value {
    let secret = json!({"type": "string", "minLength": 1});
    let secrets = json!({"type": "array", "minItems": 1, "maxItems": 2, "items": secret});
    let secret = json!({"anyOf": [secret, secrets]});
    let about = "what requests are signed with: env:NAME, file:PATH, or two of these";
    object(&[], [("secret", described(secret, about))], &[])
}

fn object<'a>(
    options: &[&[Opt]],
    more: impl IntoIterator<Item = (&'a str, Value)>,
    required: &[&str],
) -> Value {
    let of_option = |opt: &Opt| (opt.name.to_owned(), described(opt.of.schema(), opt.about));
    let options = options.iter().flat_map(|some| some.iter()).map(of_option);
    let more = more
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema));
    let properties: Map<String, Value> = options.chain(more).collect();
    let mut made =
        json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        made["required"] = json!(required);
    }
    made
}

fn described(mut schema: Value, about: &str) -> Value {
    schema["description"] = json!(about);
    schema
}
