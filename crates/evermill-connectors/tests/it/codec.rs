//! Gates as a source has them: JSON and its schemas, Avro against a second implementation, and a registry
//! on loopback.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use evermill_connectors::{Environment, codec};
use evermill_contract::manifest::SourceManifest;
use evermill_contract::source::{Form, Gate, SourceBudget, Verdict};
use evermill_http::testing::{Reply, Server};
use serde::Deserialize;
use serde_json::{Value, json};

mod protobuf;

fn source(more: Value) -> SourceManifest {
    let mut source = json!({"id": "in", "line": 1, "config": {"kind": "kafka", "topic": "t"}});
    let more = more.as_object().unwrap().clone();
    source.as_object_mut().unwrap().extend(more);
    serde_json::from_value(source).unwrap()
}

fn gate_at(more: Value, registry: &str) -> Arc<dyn Gate> {
    let environment = Environment {
        connection: &|_| Some(registry.to_owned()),
        start_date: None,
        budget: SourceBudget::default(),
        diagnostics: Arc::new(|_, _| {}),
    };
    codec::gate(&source(more), &environment).unwrap().unwrap()
}

fn gate(more: Value) -> Arc<dyn Gate> {
    gate_at(more, "http://127.0.0.1:1")
}

/// What a value becomes, or why it is rejected.
fn sent(gate: &dyn Gate, value: &[u8]) -> Result<String, String> {
    let mut out = b"before".to_vec();
    let verdict = gate
        .judge(value, Form::Sent, &mut out)
        .expect("nobody is away");
    let new = String::from_utf8(out).unwrap();
    let new = new.strip_prefix("before").unwrap();
    match verdict {
        Verdict::Passes => Ok(String::from_utf8_lossy(value).into_owned()),
        Verdict::Becomes => Ok(new.to_owned()),
        Verdict::Rejected(why) => {
            assert_eq!(new, "", "nothing is left behind");
            Err(why)
        }
    }
}

/// Row C13: what is no text, and what is not of the schema.
#[test]
fn c13_text_and_json_pass_as_they_were_sent_or_say_where_they_are_wrong() {
    let text = gate(json!({"codec": "text"}));
    assert_eq!(sent(&*text, "ü".as_bytes()).unwrap(), "ü");
    let said = sent(&*text, b"ab\xff").unwrap_err();
    assert_eq!(said, "text: it is not UTF-8: bytes ff at byte 2");
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let json = gate(json!({"schema": schema}));
    assert_eq!(sent(&*json, b" {\"n\": 1} ").unwrap(), " {\"n\": 1} ");
    let said = sent(&*json, b"{\"n\": \"private\"}").unwrap_err();
    assert!(
        said.starts_with("schema: found \"pri... (7 characters)\" at /n"),
        "{said}"
    );
    let said = sent(&*json, b"{\"n\": ").unwrap_err();
    assert!(
        said.starts_with("json: nothing more where a value is expected at /n"),
        "{said}"
    );
}

#[test]
fn what_does_not_go_together_is_refused_with_a_cure() {
    for (more, said) in [
        (json!({"codec": "avro"}), "without a schema"),
        (
            json!({"codec": "avro", "schema": "string", "schema_registry": "r"}),
            "exclude each other",
        ),
        (
            json!({"codec": "text", "schema": {}}),
            "only JSON, Avro and Protobuf",
        ),
        (
            json!({"codec": "json", "schema_registry": "r"}),
            "belongs to codec",
        ),
        (json!({"schema": {"type": "objekt"}}), "schema at"),
        (
            json!({"codec": "avro", "schema": {"type": "record"}}),
            "without a name",
        ),
        (
            json!({"codec": "avro", "schema": "Order"}),
            "'Order' is no type",
        ),
    ] {
        let wrong = codec::check(&source(more.clone())).unwrap_err();
        assert!(
            wrong.what.contains(said) && !wrong.cure.is_empty(),
            "{more}: {wrong:?}"
        );
    }
    let clock = json!({"id": "c", "line": 1, "config": {"kind": "every", "interval_ms": 1000}, "codec": "json"});
    let clock = serde_json::from_value(clock).unwrap();
    assert!(
        codec::check(&clock)
            .unwrap_err()
            .what
            .contains("no content")
    );
    assert_eq!(codec::check(&source(json!({"codec": "bytes"}))), Ok(()));
}

// Avro.

fn avro(schema: Value) -> Arc<dyn Gate> {
    gate(json!({"codec": "avro", "schema": schema}))
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

#[derive(Deserialize)]
struct Written {
    schema: Value,
    hex: String,
    json: Value,
}

/// Random schemas and values that fastavro wrote.
fn corpus(seed: u64, count: usize) -> Vec<Written> {
    let python = std::env::var_os("EVERMILL_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/avro_corpus.py");
    let mut command = Command::new(&python);
    let arguments = [seed.to_string(), count.to_string()];
    let done = command.arg(script).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{} needs fastavro (xtask/python/test.txt): {said}",
        python.display()
    );
    let lines = String::from_utf8(done.stdout).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn what_fastavro_writes_becomes_the_json_that_the_guide_promises() {
    for seed in 1..4 {
        for written in corpus(seed, 400) {
            let gate = avro(written.schema.clone());
            let found = sent(&*gate, &bytes(&written.hex));
            let found = found.unwrap_or_else(|why| panic!("{why}: {}", written.schema));
            codec::check_json(found.as_bytes()).unwrap();
            let found: Value = serde_json::from_str(&found).unwrap();
            assert_eq!(found, written.json, "seed {seed}, {}", written.schema);
        }
    }
}

#[test]
fn what_is_cut_off_or_damaged_is_rejected_and_never_more() {
    for written in corpus(9, 200) {
        let gate = avro(written.schema.clone());
        let whole = bytes(&written.hex);
        for end in 0..whole.len() {
            let said = sent(&*gate, &whole[..end]).unwrap_err();
            assert!(said.starts_with("avro: "), "{said}");
        }
        for at in 0..whole.len().min(64) {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(json) = sent(&*gate, &damaged) {
                    codec::check_json(json.as_bytes()).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_fault_knows_its_place_in_the_document() {
    let item =
        json!({"type": "record", "name": "Item", "fields": [{"name": "price", "type": "double"}]});
    let order = json!({"type": "record", "name": "Order", "fields": [
        {"name": "id", "type": "long"},
        {"name": "items", "type": {"type": "array", "items": item}},
    ]});
    let gate = avro(order);
    // id 1, a block of two items, the second cut off.
    let mut value = vec![2, 4];
    value.extend(1.5_f64.to_le_bytes());
    value.extend([0, 0]);
    let said = sent(&*gate, &value).unwrap_err();
    assert_eq!(
        said,
        "avro: 2 bytes left where a double needs 8 at /items/1/price"
    );
    let more = [&[2, 0][..], &[7, 7, 7]].concat();
    let said = sent(&*gate, &more).unwrap_err();
    assert_eq!(said, "avro: 3 bytes more than the schema has at the top");
}

#[test]
fn hostile_bytes_end_at_a_bound() {
    let list =
        json!({"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]});
    let said = sent(&*avro(list.clone()), &[2; 100_000]).unwrap_err();
    assert!(said.contains("values in each other"), "{said}");
    assert_eq!(
        sent(&*avro(list), &[2, 2, 0]).unwrap(),
        r#"{"next":{"next":{"next":null}}}"#
    );
    let endless = json!({"type": "record", "name": "E", "fields": [{"name": "e", "type": "E"}]});
    assert!(
        sent(&*avro(endless), b"")
            .unwrap_err()
            .contains("values in each other")
    );
    let nulls = json!({"type": "array", "items": "null"});
    let said = sent(&*avro(nulls), &[0xfe, 0xff, 0xff, 0xff, 0x0f, 0]).unwrap_err();
    assert!(said.contains("its JSON has more than"), "{said}");
    let twice = json!({"type": "map", "values": "null"});
    let said = sent(&*avro(twice), &[4, 2, b'a', 2, b'a', 0]).unwrap_err();
    assert!(said.contains("stands twice"), "{said}");
    assert!(
        sent(&*avro(json!("long")), &[0xff; 11])
            .unwrap_err()
            .contains("64 bits")
    );
    assert!(
        sent(&*avro(json!("bytes")), &[1])
            .unwrap_err()
            .contains("-1 bytes")
    );
}

#[test]
fn who_edits_an_avro_value_writes_json_or_avro() {
    let gate = avro(json!("string"));
    let edited = |value: &[u8]| {
        let mut out = Vec::new();
        let verdict = gate.judge(value, Form::Edited, &mut out).unwrap();
        (verdict, String::from_utf8(out).unwrap())
    };
    assert_eq!(edited(br#"{"a": 1}"#), (Verdict::Passes, String::new()));
    assert_eq!(
        edited(&[4, b'h', b'i']),
        (Verdict::Becomes, "\"hi\"".to_owned())
    );
    assert!(matches!(edited(b"{"), (Verdict::Rejected(why), _) if why.starts_with("json: ")));
}

// The registry.

/// A registry that knows schema 7, which refers to another; unless it is away.
fn registry(away: Arc<AtomicU16>) -> Server {
    let reference = json!({"type": "enum", "name": "shop.Colour", "symbols": ["RED", "GREEN"]});
    let order = json!({"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "colour", "type": "Colour"},
    ]});
    Server::start(move |seen| {
        let status = away.load(Ordering::SeqCst);
        if status > 0 {
            return Reply::new(status, "{}");
        }
        let schema = |schema: &Value, more: Value| {
            let mut answer = json!({"schema": schema.to_string()});
            let more = more.as_object().unwrap().clone();
            answer.as_object_mut().unwrap().extend(more);
            Reply::new(200, answer.to_string())
        };
        let refers = json!([{"name": "shop.Colour", "subject": "colours/v", "version": 2}]);
        match &seen.path[..] {
            "/base/schemas/ids/7" => schema(&order, json!({"references": refers})),
            "/base/subjects/colours%2Fv/versions/2" => schema(&reference, json!({})),
            "/base/schemas/ids/8" => schema(&json!({}), json!({"schemaType": "PROTOBUF"})),
            "/base/schemas/ids/9" => schema(&json!("Nowhere"), json!({})),
            _ => Reply::new(
                404,
                r#"{"error_code": 40403, "message": "Schema not found"}"#,
            ),
        }
    })
}

fn framed(id: u32, rest: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), rest].concat()
}

#[test]
fn a_schema_is_asked_for_once_with_what_it_refers_to() {
    let server = registry(Arc::default());
    let base = format!("{}/base", server.url());
    let gate = gate_at(json!({"codec": "avro", "schema_registry": "r"}), &base);
    let mut out = Vec::new();
    let message = framed(7, &[2]);
    assert_eq!(
        gate.judge_known(&message, Form::Sent, &mut out),
        None,
        "nobody was asked"
    );
    for _ in 0..3 {
        assert_eq!(sent(&*gate, &message).unwrap(), r#"{"colour":"GREEN"}"#);
    }
    let known = gate.judge_known(&message, Form::Sent, &mut out);
    assert_eq!(
        (known, &out[..]),
        (Some(Verdict::Becomes), &br#"{"colour":"GREEN"}"#[..])
    );
    assert_eq!(server.seen().len(), 2);
    let said = sent(&*gate, &framed(7, &[6])).unwrap_err();
    assert_eq!(
        said,
        "avro: 3 where an enum has 2 words at /colour (schema 7)"
    );
}

/// Row C13: a bad schema id is the message's fault, a registry that is away is not.
#[test]
fn c13_an_unknown_id_is_rejected_and_a_registry_that_is_away_rejects_nothing() {
    let away = Arc::new(AtomicU16::new(0));
    let server = registry(Arc::clone(&away));
    let base = format!("{}/base", server.url());
    let gate = gate_at(json!({"codec": "avro", "schema_registry": "r"}), &base);
    for (value, said) in [
        (framed(404, &[]), "has no schema 404"),
        (framed(8, &[]), "schema 8 is of type PROTOBUF, not AVRO"),
        (framed(9, &[]), "schema 9: 'Nowhere' is no type"),
        (
            b"{\"a\":1}".to_vec(),
            "it begins with 7b 22 61 22, not with a zero byte",
        ),
        (b"".to_vec(), "it begins with nothing"),
        (vec![0, 0, 0], "it begins with 00 00 00"),
    ] {
        let why = sent(&*gate, &value).unwrap_err();
        assert!(why.contains(said), "{why}");
    }
    let asked = server.seen().len();
    sent(&*gate, &framed(404, &[])).unwrap_err();
    assert_eq!(
        server.seen().len(),
        asked,
        "what is not known is remembered for a while"
    );
    for status in [500, 503, 401, 429] {
        away.store(status, Ordering::SeqCst);
        let unavailable = gate.judge(&framed(7, &[2]), Form::Sent, &mut Vec::new());
        let why = unavailable.unwrap_err().0;
        assert!(why.contains(&format!("answered {status}")), "{why}");
    }
    away.store(0, Ordering::SeqCst);
    assert_eq!(
        sent(&*gate, &framed(7, &[0])).unwrap(),
        r#"{"colour":"RED"}"#
    );
    drop(server);
    assert_eq!(
        sent(&*gate, &framed(7, &[0])).unwrap(),
        r#"{"colour":"RED"}"#,
        "kept"
    );
    let unavailable = gate.judge(&framed(11, &[]), Form::Sent, &mut Vec::new());
    assert!(
        unavailable
            .unwrap_err()
            .0
            .contains("the schema registry does not say")
    );
}
