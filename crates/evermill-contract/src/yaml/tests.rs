//! What a file in YAML comes to, and what is said about a wrong one.

use serde_json::{Value, json};

use super::{read, schema};
use crate::manifest::Code;

const THUMBNAILS: &str = "\
dag: thumbnails
order: key
retries: 1
env: { LEVEL: 3 }
files: [bin/convert]
sources:
  incoming: { kafka: { topic: uploads, group_id: thumbs, auto_offset_reset: earliest } }
tasks:
  make: { after: incoming, run: convert-one, retries: 2, timeout: 30s, env: { SIZE: 64 } }
  store:
    after: [make]
    stdin: make
    run: |
      cat > out
  done: { after: [make, store], trigger_rule: all_done }
";

#[test]
fn a_file_loads_to_the_manifest() {
    let document = read(THUMBNAILS, "thumbs.yaml").unwrap();
    let found = serde_json::to_value(&document.manifest).unwrap();
    let wants = |results: Value| json!({"event": true, "ctx": true, "results": results});
    let expected = json!({
        "format": 1, "entry": "thumbs.yaml", "files": [], "dags": [{
            "id": "thumbnails", "file": "thumbs.yaml", "line": 1, "order": "key",
            "sources": [{"id": "incoming", "line": 7, "config": {
                "kind": "kafka", "topic": "uploads", "group_id": "thumbs", "auto_offset_reset": "earliest"}}],
            "tasks": [
                {"id": "make", "kind": "call", "line": 9, "run": {"command": "convert-one"}, "retries": 2, "timeout_ms": 30_000,
                 "upstream": [{"node": "incoming", "kind": "source", "reads_result": true}],
                 "wants": {"event": true, "ctx": true}, "env": {"LEVEL": "3", "SIZE": "64"}},
                {"id": "store", "kind": "call", "line": 10, "run": {"command": "cat > out\n", "stdin": "make"}, "retries": 1,
                 "upstream": [{"node": "make", "kind": "task", "reads_result": true}],
                 "wants": wants(json!(["make"])), "env": {"LEVEL": "3"}},
                {"id": "done", "kind": "noop", "line": 15, "retries": 1, "trigger_rule": "all_done",
                 "upstream": [{"node": "make", "kind": "task"}, {"node": "store", "kind": "task"}], "env": {"LEVEL": "3"}},
            ],
        }],
    });
    assert_eq!(found, expected);
    assert_eq!(document.files, [("bin/convert".to_owned(), 5)]);
}

/// Line, code, message and cure of every fault.
fn faults(text: &str) -> Vec<(u32, Code, String)> {
    let found = read(text, "flow.yaml").err().unwrap_or_default();
    let said = |fault: &crate::manifest::Fault| format!("{}; {}", fault.message, fault.cure);
    found
        .iter()
        .map(|fault| (fault.line, fault.code, said(fault)))
        .collect()
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_line_and_cure() {
    let text = "\
dag: flow
oder: key
sources:
  in: { kafka: { topic: 'a b', group: x } }
  idle: { kafka: { topic: idle } }
tasks:
  one: { after: inn, run: 'true', retires: 3 }
  two: { after: [in], run: 'true', timeout: soon, order: key }
  two: { after: in }
  three: { after: two, http: { url: x }, stdin: one }
";
    let found = faults(text);
    let expected = [
        (
            2,
            Code::UnknownOption,
            "DAG 'flow' has no option 'oder'; did you mean 'order'?",
        ),
        (
            9,
            Code::DuplicateId,
            "'two' stands twice in tasks: the other one is at line 8; give one of them another name",
        ),
        (
            4,
            Code::UnknownOption,
            "kafka of source 'in' has no option 'group'; did you mean 'group_id'?",
        ),
        (
            4,
            Code::NeverFires,
            "source 'in': no Kafka topic can be called 'a b', so no event would ever come; a topic's name has letters, digits, '.', '_' and '-', at most 249",
        ),
        (
            7,
            Code::UnknownOption,
            "task 'one' has no option 'retires'; did you mean 'retries'?",
        ),
        (
            8,
            Code::BadValue,
            "task 'two': timeout: 'soon' is not possible; write seconds, or a number with ms, s, m, h or d",
        ),
        (
            8,
            Code::UnknownOption,
            "task 'two' has no option 'order'; it is an option of a DAG",
        ),
        (
            10,
            Code::BadValue,
            "http of task 'three': url: 'x' is not possible; write http:// or https:// and a host; credentials belong into a connection",
        ),
        (
            10,
            Code::BadValue,
            "task 'three': stdin: a request has no standard input; write body_from: in http",
        ),
        (
            5,
            Code::NoTask,
            "no task comes after source 'idle'; name it in a task's after:, or remove it",
        ),
        (
            7,
            Code::UnknownUpstream,
            "task 'one' comes after 'inn', which is no task or source of DAG 'flow'; did you mean 'in'?",
        ),
        (
            10,
            Code::BadValue,
            "task 'three': body_from: 'one' does not come right before it; name it in after:, too",
        ),
    ];
    let expected = expected.map(|(line, code, said)| (line, code, said.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn a_request_loads_to_the_manifest() {
    let text = "\
dag: calls
tasks:
  a: { http: { path: /a } }
  b:
    after: a
    http:
      method: PUT
      url: https://h/x
      query: { n: 1 }
      headers: { X-A: b }
      body_from: a
      expect: 201
      idempotency_key: X-Key
  c: { after: b, http: { connection: other, path: c, body: { n: 1, s: '1', l: [true, null, x] }, expect: [200, 404], idempotency_key: false } }
  d: { http: { path: d, body: 'text' } }
";
    let document = read(text, "calls.yaml").unwrap();
    let tasks = serde_json::to_value(&document.manifest.dags[0].tasks).unwrap();
    let http: Vec<_> = (0..4).map(|at| tasks[at]["http"].clone()).collect();
    let expected = [
        json!({"path": "/a"}),
        json!({"method": "PUT", "url": "https://h/x", "query": {"n": "1"}, "headers": {"X-A": "b"},
               "body_from": "a", "expect": [201], "idempotency_key": "X-Key"}),
        json!({"connection": "other", "path": "c", "body": {"json": {"n": 1, "s": "1", "l": [true, null, "x"]}},
               "expect": [200, 404], "idempotency_key": null}),
        json!({"path": "d", "body": {"text": "text"}}),
    ];
    assert_eq!(http, expected);
    assert_eq!(tasks[1]["wants"]["results"], json!(["a"]));
    assert_eq!(tasks[1]["kind"], "call");
    let call = document.manifest.dags[0].tasks[0].http.clone().unwrap();
    assert_eq!(call.idempotency_key.as_deref(), Some("Idempotency-Key"));
    assert_eq!(
        (call.needs(), call.method.as_str()),
        (Some("http_default"), "POST")
    );
}

#[test]
fn a_topic_to_write_to_loads_to_the_manifest() {
    let text = "\
dag: copies
sources: { in: { kafka: { topic: a } } }
tasks:
  shout: { after: in, run: tr a-z A-Z }
  out: { after: shout, to_kafka: { topic: b, value_from: shout, key: /id, connection: other } }
  copy: { after: in, to_kafka: { topic: c }, retries: 1 }
";
    let document = read(text, "copies.yaml").unwrap();
    let tasks = serde_json::to_value(&document.manifest.dags[0].tasks).unwrap();
    assert_eq!(
        tasks[1]["sink"],
        json!({"kind": "kafka", "topic": "b", "connection": "other", "key": "/id", "value_from": "shout"})
    );
    assert_eq!(tasks[1]["retries"], 10_000);
    assert_eq!(tasks[1]["wants"]["results"], json!(["shout"]));
    assert_eq!(tasks[2]["sink"], json!({"kind": "kafka", "topic": "c"}));
    assert_eq!(tasks[2]["retries"], 1);
}

#[test]
fn a_topic_of_other_dags_to_say_to_loads_to_the_manifest() {
    let text = "\
dag: copies
sources: { in: { topic: { name: a, circle: true } } }
tasks:
  shout: { after: in, run: tr a-z A-Z }
  out: { after: shout, emit: { topic: b, value_from: shout, key: /id } }
  copy: { after: in, emit: c }
";
    let document = read(text, "copies.yaml").unwrap();
    let dag = &document.manifest.dags[0];
    let shown = serde_json::to_value(dag).unwrap();
    assert_eq!(
        shown["sources"][0]["config"],
        json!({"kind": "topic", "name": "a", "circle": true})
    );
    let tasks = &shown["tasks"];
    assert_eq!(
        tasks[1]["sink"],
        json!({"kind": "topic", "topic": "b", "key": "/id", "value_from": "shout"})
    );
    assert_eq!(
        tasks[1]["retries"],
        json!(null),
        "nothing outside can be away"
    );
    assert_eq!(tasks[2]["sink"], json!({"kind": "topic", "topic": "c"}));
    let topics = dag.tasks.iter().flat_map(|task| task.topics());
    assert_eq!(topics.collect::<Vec<_>>(), ["b", "c"]);
    for (wrong, cure) in [
        ("emit: a b", "letters, digits"),
        ("emit: {}", "has no topic"),
        (
            "emit: { topic: b, connection: c }",
            "has no option 'connection'",
        ),
        ("emit: b, run: x", "has run and emit"),
    ] {
        let text = text.replace("emit: c", wrong);
        let faults = read(&text, "copies.yaml").unwrap_err();
        let said: String = faults.iter().map(ToString::to_string).collect();
        assert!(said.contains(cure), "{wrong}: {said}");
    }
}

#[test]
fn a_command_to_ask_loads_to_the_manifest_under_the_name_of_its_source() {
    let text = "\
dag: disks
sources:
  full: { poll: { run: df, poke_interval: 5m } }
  short: { poll: test -e x }
tasks:
  tell: { after: [full, short], run: cat }
";
    let document = read(text, "disks.yaml").unwrap();
    let shown = serde_json::to_value(&document.manifest.dags[0].sources).unwrap();
    assert_eq!(
        shown[0]["config"],
        json!({"kind": "poll", "function": "full", "run": {"command": "df"}, "poke_interval_ms": 300_000})
    );
    assert_eq!(
        shown[1]["config"],
        json!({"kind": "poll", "function": "short", "run": {"command": "test -e x"}})
    );
    for (wrong, cure) in [
        ("poll: {}", "has no run"),
        (
            "poll: { run: x, poke_intervall: 5m }",
            "did you mean 'poke_interval'?",
        ),
    ] {
        let text = text.replace("poll: test -e x", wrong);
        let faults = read(&text, "disks.yaml").unwrap_err();
        let said: String = faults.iter().map(ToString::to_string).collect();
        assert!(said.contains(cure), "{wrong}: {said}");
    }
}

#[test]
fn a_queue_loads_to_the_manifest_and_a_fifo_one_is_in_line_unless_it_is_told_not_to() {
    let text = "\
dag: jobs
sources:
  plain: { sqs: { queue: jobs, ack: outcome } }
  fifo: { sqs: { queue: jobs.fifo } }
  loose: { sqs: { queue: loose.fifo, connection: other }, order: none }
tasks:
  work: { after: [plain, fifo, loose], run: x }
  out: { after: work, to_sqs: { queue: done.fifo, value_from: work, key: /id } }
";
    let document = read(text, "jobs.yaml").unwrap();
    let dag = serde_json::to_value(&document.manifest.dags[0]).unwrap();
    let configs = json!([
        {"kind": "sqs", "queue": "jobs", "ack": "outcome"},
        {"kind": "sqs", "queue": "jobs.fifo"},
        {"kind": "sqs", "queue": "loose.fifo", "connection": "other"},
    ]);
    for (at, order) in [json!(null), json!("key"), json!("none")]
        .iter()
        .enumerate()
    {
        assert_eq!(dag["sources"][at]["config"], configs[at]);
        assert_eq!(dag["sources"][at]["order"], *order);
    }
    assert_eq!(
        dag["tasks"][1]["sink"],
        json!({"kind": "sqs", "queue": "done.fifo", "key": "/id", "value_from": "work"})
    );
}

#[test]
fn what_is_wrong_with_a_queue_is_said() {
    for (sqs, said) in [
        ("{}", "has no queue"),
        ("{ queue: a.b }", "write a queue's name"),
        (
            "{ queue: 'arn:aws:sns:r:1:t' }",
            "arn:aws:sqs:REGION:ACCOUNT:NAME",
        ),
        ("{ queue: a, ack: later }", "known: ingest, outcome"),
        ("{ queue: a, visibility: 5 }", "has no option 'visibility'"),
    ] {
        let text = format!(
            "dag: d\nsources: {{ in: {{ sqs: {sqs} }} }}\ntasks:\n  b: {{ after: in, run: x }}\n"
        );
        let faults = read(&text, "d.yaml").unwrap_err();
        let found: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert!(found.join("\n").contains(said), "{sqs}: {found:?}");
    }
}

#[test]
fn what_is_wrong_with_a_topic_to_write_to_is_said() {
    for (task, said) in [
        ("to_kafka: {}", "has no topic"),
        ("to_kafka: { topic: b, key: id }", "a JSON pointer"),
        ("to_kafka: { topic: b, keys: /id }", "did you mean 'key'?"),
        ("to_kafka: { topic: b }, run: x", "has run and to_kafka"),
        ("to_kafka: { topic: b }, stdin: a", "value_from:"),
        ("to_kafka: { topic: b, value_from: x }", "right before it"),
        ("to_sqs: {}", "has no queue"),
        ("to_sqs: { queue: two words }", "write a queue's name"),
        ("to_sqs: { queue: b }, run: x", "has run and to_sqs"),
        (
            "to_sqs: { queue: b }, to_kafka: { topic: b }",
            "has to_sqs and to_kafka",
        ),
    ] {
        let text = format!("dag: d\ntasks:\n  a: {{ run: x }}\n  b: {{ after: a, {task} }}\n");
        let faults = read(&text, "d.yaml").unwrap_err();
        let found: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert!(found.join("\n").contains(said), "{task}: {found:?}");
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    for (http, said) in [
        ("{}", "does not say whom to ask"),
        ("{ url: 'http://h', path: /x }", "has url and path"),
        (
            "{ url: 'http://u:p@h' }",
            "credentials belong into a connection",
        ),
        ("{ path: x, expect: 20 }", "write a status such as 201"),
        ("{ path: x, expect: [] }", "write a status such as 201"),
        ("{ path: x, method: get }", "GET"),
        (
            "{ path: x, body: a, body_from: y }",
            "leave one of them out",
        ),
        (
            "{ path: x, idempotency_key: 'a b' }",
            "write a header's name",
        ),
        ("{ path: x, pth: y }", "did you mean 'path'?"),
        ("x", "a map is expected"),
    ] {
        let text =
            format!("dag: a\ntasks:\n  y: {{ run: z }}\n  x: {{ after: y, http: {http} }}\n");
        let found = faults(&text);
        let is_said = |fault: &&(u32, Code, String)| fault.0 == 4 && fault.2.contains(said);
        assert!(
            found.iter().any(|fault| is_said(&fault)),
            "{http}: {found:?}"
        );
    }
}

#[test]
fn what_is_no_dag_is_said_in_one_sentence() {
    let code = |text: &str| faults(text).first().map(|fault| (fault.0, fault.1));
    for (text, expected) in [
        ("", (0, Code::NoDag)),
        ("# nothing\n", (0, Code::NoDag)),
        ("tasks: {}\n", (1, Code::NoDag)),
        ("- dag\n", (1, Code::BadValue)),
        ("dag: a\n", (1, Code::NoTask)),
        ("dag: a b\ntasks: { x: { run: y } }\n", (1, Code::BadValue)),
        ("dag: a\ntasks: [x]\n", (2, Code::BadValue)),
        ("dag: a\ntasks:\n\tx: 1\n", (3, Code::SyntaxError)),
        (
            "dag: a\nfiles: [../x]\ntasks: { x: { run: y } }\n",
            (2, Code::BadValue),
        ),
    ] {
        assert_eq!(code(text), Some(expected), "{text:?}: {:?}", faults(text));
    }
}

#[test]
fn each_document_of_a_file_is_a_dag() {
    let text = "dag: a\ntasks: { x: { run: y } }\n---\ndag: b\ntasks: { x: { run: y } }\n";
    let manifest = read(text, "two.yaml").unwrap().manifest;
    let ids: Vec<_> = manifest
        .dags
        .iter()
        .map(|dag| (dag.id.as_str(), dag.line))
        .collect();
    assert_eq!(ids, [("a", 1), ("b", 4)]);
}

#[test]
fn the_schema_for_editors_is_the_one_in_the_docs() {
    let written: Value =
        serde_json::from_str(include_str!("../../../../docs/spec/dag.schema.json")).unwrap();
    assert!(
        written == schema(),
        "write it anew: evermill check --schema > docs/spec/dag.schema.json\n{:#}",
        schema()
    );
}

/// The config of the only source of a DAG, or what is wrong with it.
fn config(source: &str) -> Result<Value, String> {
    let text =
        format!("dag: a\nsources: {{ s: {source} }}\ntasks: {{ x: {{ run: y, after: s }} }}\n");
    match read(&text, "flow.yaml") {
        Ok(document) => {
            let source = &document.manifest.dags[0].sources[0];
            Ok(serde_json::to_value(&source.config).unwrap())
        }
        Err(faults) => Err(format!("{}; {}", faults[0].message, faults[0].cure)),
    }
}

#[test]
fn a_polled_place_and_a_webhook_load_to_the_manifest() {
    for (source, expected) in [
        (
            "{ http: { endpoint: /x } }",
            json!({"kind": "http", "endpoint": "/x"}),
        ),
        (
            "{ http: { endpoint: /x, poke_interval: 500ms, request_params: { n: 1 }, select: /v, fire_on_start: false } }",
            json!({"kind": "http", "endpoint": "/x", "poke_interval_ms": 500, "request_params": {"n": "1"},
                   "select": "/v", "fire_on_start": false}),
        ),
        (
            "{ http: { endpoint: /x, response_check: [{ status: 200, pointer: /s, equals: '1' }, { pointer: /n, above: 1 }] } }",
            json!({"kind": "http", "endpoint": "/x", "check": {"status": [200], "tests": [
                {"pointer": "/s", "op": "equals", "value": "1"}, {"pointer": "/n", "op": "above", "value": 1}]}}),
        ),
        (
            "{ http: { endpoint: /x, cursor: since } }",
            json!({"kind": "http", "endpoint": "/x", "cursor": {"param": "since"}}),
        ),
        (
            "{ http: { endpoint: /x, cursor: { param: after, items: /rows, newest_first: true } } }",
            json!({"kind": "http", "endpoint": "/x",
                   "cursor": {"param": "after", "items": "/rows", "newest_first": true}}),
        ),
        (
            "{ files: '/in/*.csv' }",
            json!({"kind": "files", "path": "/in/*.csv"}),
        ),
        (
            "{ files: { path: in, pattern: '**/*.csv', settle: 5s, poke_interval: 1m, fire_on_start: false } }",
            json!({"kind": "files", "path": "in", "pattern": "**/*.csv", "settle_ms": 5_000,
                   "poke_interval_ms": 60_000, "fire_on_start": false}),
        ),
        ("{ webhook: }", json!({"kind": "webhook"})),
        ("{ webhook: {} }", json!({"kind": "webhook"})),
        (
            "{ webhook: { secret: [env:A, env:B] } }",
            json!({"kind": "webhook", "secrets": ["env:A", "env:B"]}),
        ),
    ] {
        assert_eq!(config(source), Ok(expected), "{source}");
    }
}

#[test]
fn what_is_wrong_with_a_polled_place_or_a_webhook_is_said() {
    for (source, said) in [
        ("{ http: {} }", "has no endpoint"),
        (
            "{ http: { endpoint: x, poke: 3 } }",
            "did you mean 'poke_interval'?",
        ),
        (
            "{ http: { endpoint: x, response_check: ok } }",
            "write a map",
        ),
        (
            "{ http: { endpoint: x, response_check: { pointer: /s } } }",
            "one of equals",
        ),
        (
            "{ http: { endpoint: x, response_check: { pointer: s, equals: 1 } } }",
            "JSON pointer",
        ),
        (
            "{ http: { endpoint: x, response_check: { pointer: /s, equal: 1 } } }",
            "did you mean 'equals'?",
        ),
        (
            "{ http: { endpoint: x, response_check: { pointer: /s, above: high } } }",
            "cannot compare",
        ),
        (
            "{ http: { endpoint: x, cursor: { items: /x } } }",
            "the name of the parameter",
        ),
        (
            "{ http: { endpoint: x, select: /v, cursor: since } }",
            "exclude each other",
        ),
        ("{ webhook: { secret: [a, b, c] } }", "a list of two"),
        (
            "{ webhook: , codec: xml }",
            "known: bytes, text, json, avro",
        ),
        ("{ webhook: { codec: text } }", "beside webhook:, not in it"),
        (
            "{ webhook: , schema: [a] }",
            "the path of a file, or a schema",
        ),
        ("{ webhook: { secrets: a } }", "did you mean 'secret'?"),
    ] {
        let wrong = config(source).unwrap_err();
        assert!(wrong.contains(said), "{source}: {wrong}");
    }
}

#[test]
fn rates_hold_for_tasks_keys_and_sources_and_alerts_are_a_source() {
    let text = "dag: a\nsources:\n  s: { alerts: { kinds: [parked], dags: [orders] }, rate_limit: 3/m }\n\
                tasks: { x: { run: y, after: s, rate_limit: 100/s, rate_limit_per_key: 5/10m } }\n";
    let manifest = read(text, "flow.yaml").unwrap().manifest;
    let dag = serde_json::to_value(&manifest.dags[0]).unwrap();
    let source = &dag["sources"][0];
    assert_eq!(source["rate_limit"]["interval_ms"], 60_000, "{source}");
    let expected = json!({"kind": "alerts", "kinds": ["parked"], "dags": ["orders"]});
    assert_eq!(source["config"], expected);
    let task = &dag["tasks"][0];
    assert_eq!(
        task["rate_limit"],
        json!({"members": 100, "interval_ms": 1_000})
    );
    assert_eq!(task["rate_limit_per_key"]["interval_ms"], 600_000);
    let all = config("{ alerts: }").unwrap();
    assert_eq!(all, json!({"kind": "alerts"}));
    let wrong = config("{ alerts: { kinds: [praked] } }").unwrap_err();
    assert!(wrong.contains("parked"), "{wrong}");
}

#[test]
fn what_values_have_to_be_is_the_same_for_every_kind_of_source() {
    for kind in [
        "kafka: { topic: t }",
        "http: { endpoint: /x }",
        "webhook: {}",
    ] {
        let text = format!(
            "dag: d\nsources:\n  a:\n    {kind}\n    codec: avro\n    schema_registry: reg\n    schema: {{ type: object }}\ntasks:\n  t: {{ after: a, run: cat }}\n"
        );
        let document = super::read(&text, "d.yaml").unwrap();
        let source = &document.manifest.dags[0].sources[0];
        assert_eq!(source.codec, Some(crate::manifest::Codec::Avro), "{kind}");
        assert_eq!(source.schema, Some(json!({"type": "object"})));
        assert!(source.connections().any(|id| id == "reg"));
    }
}

#[test]
fn tasks_that_wait_become_sensors() {
    let text = "
dag: waits
sources: { in: { signal: go } }
tasks:
  pause: { after: in, wait: 10m }
  approve: { after: pause, wait: { signal: approve } }
  ready:
    after: approve
    wait_http: { endpoint: /m, select: /v, poke_interval: 5s, timeout: 1h, soft_fail: true, response_check: { pointer: /ok, equals: true } }
  usual: { after: ready, wait_http: { endpoint: /m } }
";
    let read = read(text, "flow.yaml").unwrap();
    let tasks = serde_json::to_value(&read.manifest.dags[0].tasks).unwrap();
    assert_eq!(tasks[0]["kind"], "sensor");
    assert_eq!(tasks[0]["wait"], json!({"delay_ms": 600_000}));
    assert_eq!(tasks[1]["wait"], json!({"signal": "approve"}));
    let poke = json!({"interval_ms": 5_000, "timeout_ms": 3_600_000, "soft_fail": true});
    assert_eq!(tasks[2]["poke"], poke);
    assert_eq!(tasks[2]["polls"]["select"], "/v");
    assert_eq!(tasks[3]["poke"], json!({"interval_ms": 60_000}));
}

#[test]
fn what_is_wrong_with_a_wait_is_said() {
    let task = |task: &str| {
        let text = format!(
            "dag: d\nsources: {{ in: {{ signal: go }} }}\ntasks:\n  w: {{ after: in, {task} }}\n"
        );
        let faults = read(&text, "flow.yaml").map(drop).unwrap_err();
        faults
            .into_iter()
            .map(|fault| format!("{} {}", fault.message, fault.cure))
            .collect::<String>()
    };
    for (given, said) in [
        ("wait: soon", "{ signal: NAME }"),
        ("wait: { message: x }", "{ signal: NAME }"),
        ("wait: 1m, run: 'true'", "has run and wait"),
        (
            "wait: 1m, wait_http: { endpoint: /x }",
            "has wait and wait_http",
        ),
        ("wait_http: { poke_interval: 1s }", "has no endpoint"),
        (
            "wait_http: { endpoint: /x, fire_on_start: false }",
            "an option of a source",
        ),
        (
            "wait_http: { endpoint: /x, cursor: since }",
            "a cursor is for a source",
        ),
        ("wait_http: { endpoint: /x, timeoutt: 1s }", "timeoutt"),
    ] {
        let found = task(given);
        assert!(found.contains(said), "{given}: {found}");
    }
}
