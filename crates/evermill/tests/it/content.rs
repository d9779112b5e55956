//! What the values of a source have to be, from the built binary: decoded for every kind of task, parked
//! where they are something else, judged again when they are tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use evermill_http::testing::{Reply, Server};
use rustix::process::Signal;
use serde_json::Value;

use crate::mock::Mock;
use crate::process::{Place, Running};

const AVRO: &str = "
dag: words
sources:
  in:
    kafka: { topic: t, auto_offset_reset: earliest }
    codec: avro
    schema_registry: reg
tasks:
  say: { after: in, run: 'echo said $(cat) >&2' }
";

/// A registry that knows `7`, a text; and `9`, once it is told so. While `away` is a status it answers that.
fn registry(away: &Arc<AtomicU16>, knows: &Arc<AtomicU16>) -> Server {
    let (away, knows) = (Arc::clone(away), Arc::clone(knows));
    Server::start(move |seen| {
        let status = away.load(Ordering::SeqCst);
        let known = seen.path == "/schemas/ids/7"
            || seen.path == format!("/schemas/ids/{}", knows.load(Ordering::SeqCst));
        match (status, known) {
            (0, true) => Reply::new(200, r#"{"schema": "\"string\""}"#),
            (0, false) => Reply::new(404, r#"{"error_code": 40403}"#),
            (status, _) => Reply::new(status, "{}"),
        }
    })
}

fn run(place: &Place, mock: &Mock, file: &str, more: &[&str]) -> Running {
    let connection = mock.connection();
    let mut arguments = vec!["run", file, "--json", "--connection", &connection];
    arguments.extend(more);
    Running::start(&mut place.evermill(arguments))
}

fn well(place: &Place, arguments: &[&str]) -> String {
    let ended = place.finish(arguments);
    assert_eq!(ended.code(), 0, "{arguments:?}: {}", ended.stderr);
    ended.stdout
}

fn conserved(run: &Value) {
    let of = |field: &str| run[field].as_u64().expect("a count");
    let parts = ["done", "skipped", "parked", "dropped", "in_flight"];
    let sum: u64 = parts.iter().map(|part| of(part)).sum();
    assert_eq!(of("in"), sum, "{run}");
}

fn end(running: Running) {
    running.signal(Signal::TERM);
    running.end();
}

/// Row C13: bad schema id, no Avro at all, a tombstone; and a registry that is away.
#[test]
fn c13_avro_reaches_a_command_as_json_and_what_is_none_is_parked_and_mended() {
    let place = Place::new();
    let mock = Mock::start(&place);
    let (away, knows) = (Arc::new(AtomicU16::new(503)), Arc::new(AtomicU16::new(0)));
    let registry = registry(&away, &knows);
    let file = place.file("words.yaml", AVRO);
    let file = file.to_str().unwrap();
    let address = format!("reg={}", registry.url());
    let more = ["--connection", address.as_str()];
    let running = run(&place, &mock, file, &more);
    mock.write(&[
        ("a", "\0\0\0\0\x07\x04hi"),
        ("b", "\0\0\0\0\x09\x02x"),
        ("c", "no avro"),
        ("d", "\0\0\0\0\x07\x06you"),
    ]);
    place.wait_for_run(|run| !run["sources"][0]["degraded"].is_null());
    let before = place.ps().remove(0);
    assert_eq!(
        (&before["in"], &before["parked"]),
        (&0.into(), &0.into()),
        "{before}"
    );
    away.store(0, Ordering::SeqCst);
    running.wait_for_lines("said \"hi\"", 1);
    running.wait_for_lines("said \"you\"", 1);
    conserved(&place.wait_for_run(|run| run["done"] == 2 && run["parked"] == 2));

    let list = well(&place, &["parked", "ls", "--group"]);
    let group: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(group, ["words-1", "invalid", "say", "2"], "{list}");
    let shown = well(&place, &["parked", "show", "words-1/in/t/0/2"]);
    assert!(shown.contains("reason    invalid"), "{shown}");
    assert!(shown.contains("it begins with 6e 6f 20 61"), "{shown}");
    let one = ["--where", "reason=invalid,task=say,key=c,since=1h"];
    let dry = well(
        &place,
        &[&["parked", "retry", "--dry-run"][..], &one].concat(),
    );
    assert!(dry.starts_with("1 would run again"), "{dry}");
    well(
        &place,
        &[
            "parked",
            "edit",
            "words-1/in/t/0/2",
            "--payload",
            "\"mended\"",
        ],
    );
    assert!(well(&place, &[&["parked", "retry"][..], &one].concat()).starts_with("1 "));
    running.wait_for_lines("said \"mended\"", 1);
    conserved(&place.wait_for_run(|run| run["done"] == 3 && run["parked"] == 1));
    end(running);

    // The id is registered meanwhile; a new process has not heard that it is not.
    knows.store(9, Ordering::SeqCst);
    let running = run(&place, &mock, file, &more);
    place.wait_until_ready();
    well(&place, &["parked", "retry", "--all"]);
    running.wait_for_lines("said \"x\"", 1);
    conserved(&place.wait_for_run(|run| run["done"] == 4 && run["parked"] == 0));
    end(running);
}

const PYTHON: &str = "
import evermill

@evermill.task
def take(event):
    print('took', event.text())

def odd(event):
    if event.json()['n'] % 2:
        raise ValueError('n is odd')

@evermill.dag
def counts():
    take(evermill.kafka('t', schema='number.schema.json', validator=odd, auto_offset_reset='earliest'))
";

#[test]
fn schema_and_validator_of_a_python_file_park_what_they_refuse_and_retry_asks_them_again() {
    let place = Place::new();
    let mock = Mock::start(&place);
    let file = place.file("counts.py", PYTHON);
    let schema = r#"{"type": "object", "properties": {"n": {"type": "integer", "maximum": 99}}}"#;
    place.file("number.schema.json", schema);
    let running = run(&place, &mock, file.to_str().unwrap(), &[]);
    mock.write(&[
        ("a", "{\"n\": 2}"),
        ("a", "{\"n\": 3}"),
        ("b", "{\"n\": 123456}"),
        ("b", "{\"n\": 1, \"n\": 2}"),
    ]);
    running.wait_for_lines("took {\"n\": 2}", 1);
    conserved(&place.wait_for_run(|run| run["done"] == 1 && run["parked"] == 3));
    let parked = well(
        &place,
        &["parked", "ls", "--json", "--where", "reason=invalid"],
    );
    let errors: Vec<String> = parked
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["error"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert!(errors[0].starts_with("ValueError: n is odd"), "{errors:?}");
    assert!(
        errors[1].starts_with("invalid: schema: found 123*** at /n"),
        "{errors:?}"
    );
    assert!(
        errors[2].contains("the name \"n\" stands twice"),
        "{errors:?}"
    );
    // Mended wrongly, it is parked again; mended rightly, it is done.
    let id = "counts-1/kafka/t/0/2";
    for (payload, done) in [("{\"n\": 1234567}", 1), ("{\"n\": 4}", 2)] {
        well(&place, &["parked", "edit", id, "--payload", payload]);
        well(&place, &["parked", "retry", id]);
        let run = place.wait_for_run(|run| run["done"] == done && run["in_flight"] == 0);
        conserved(&run);
    }
    running.wait_for_lines("took {\"n\": 4}", 1);
    assert_eq!(
        well(&place, &["parked", "drop", "--all", "--dry-run"])
            .lines()
            .next(),
        Some("2 would be dropped")
    );
    assert_eq!(well(&place, &["parked", "drop", "--all"]), "2 dropped");
    conserved(&place.wait_for_run(|run| run["dropped"] == 2 && run["parked"] == 0));
    end(running);
}

#[test]
fn what_cannot_be_of_a_source_is_said_by_check_with_its_line() {
    let place = Place::new();
    let wrong = AVRO.replace("    schema_registry: reg\n", "");
    let file = place.file("words.yaml", &wrong);
    let ended = place.finish(["check", file.to_str().unwrap()]);
    assert_eq!(ended.code(), 3, "{}", ended.stderr);
    let said = &ended.stderr;
    assert!(
        said.contains("words.yaml:4") && said.contains("codec=\"avro\" without a schema"),
        "{said}"
    );
    let missing = AVRO.replace("schema_registry: reg", "schema: nowhere.avsc");
    let file = place.file("words.yaml", &missing);
    let ended = place.finish(["check", file.to_str().unwrap()]);
    assert_eq!(ended.code(), 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("nowhere.avsc"), "{}", ended.stderr);
}

const PROTO: &str = r#"
syntax = "proto3";
package shop;
import "money.proto";
message Order { string who = 1; Money sum = 2; }
message Other { int32 n = 1; }
"#;

const MONEY: &str = r#"syntax = "proto3"; package shop; message Money { int64 cents = 1; }"#;

const ORDERS: &str = "
import evermill

@evermill.task
def take(event):
    order = event.json()
    print('took', order['who'], order.get('sum', {}).get('cents'))

@evermill.dag
def orders():
    take(evermill.kafka('t', codec='protobuf', schema='protos/order.proto#shop.Order', auto_offset_reset='earliest'))
";

fn orders(place: &Place) -> String {
    let protos = place.folder().join("protos");
    std::fs::create_dir(&protos).unwrap();
    std::fs::write(protos.join("order.proto"), PROTO).unwrap();
    std::fs::write(protos.join("money.proto"), MONEY).unwrap();
    let file = place.file("orders.py", ORDERS);
    file.to_str().unwrap().to_owned()
}

/// Row C13: what is no message of its type is parked with the place, and mended as JSON.
#[test]
fn c13_protobuf_reaches_a_task_as_json_and_what_is_none_is_parked_with_its_place() {
    let place = Place::new();
    let mock = Mock::start(&place);
    let file = orders(&place);
    let running = run(&place, &mock, &file, &[]);
    mock.write(&[
        ("a", "\n\x03Ann\x12\x02\x08\x05"),
        ("b", "\n\x03Bob\x12\x05\x08"),
    ]);
    running.wait_for_lines("took Ann 5", 1);
    conserved(&place.wait_for_run(|run| run["done"] == 1 && run["parked"] == 1));
    let id = "orders-1/kafka/t/0/1";
    let shown = well(&place, &["parked", "show", id]);
    let why = "protobuf: it ends after 1 of 5 bytes at /sum";
    assert!(shown.contains(why), "{shown}");
    well(
        &place,
        &["parked", "edit", id, "--payload", r#"{"who": "Bob"}"#],
    );
    well(&place, &["parked", "retry", id]);
    running.wait_for_lines("took Bob None", 1);
    end(running);
    // The same of a file in YAML.
    let yaml = "dag: words\nsources:\n  in: { kafka: { topic: t }, codec: protobuf, schema: 'protos/order.proto#shop.Order' }\ntasks:\n  say: { after: in, run: cat }\n";
    let yaml = place.file("words.yaml", yaml);
    let checked = well(&place, &["check", yaml.to_str().unwrap()]);
    assert!(checked.contains("protobuf"), "{checked}");
}

/// What a source says of its values holds in a test, too.
#[test]
fn a_test_applies_codec_and_schema_to_what_it_is_given() {
    let place = Place::new();
    let file = orders(&place);
    let test = |event: &str| place.finish(["test", &file, "--event", event]);
    for event in [
        "\n\x03Ann\x12\x02\x08\x05",
        r#"{"who": "Ann", "sum": {"cents": 5}}"#,
    ] {
        let ended = test(event);
        assert_eq!(
            ended.code(),
            0,
            "{event:?}: {}{}",
            ended.stdout,
            ended.stderr
        );
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains("took Ann 5"), "{said}");
    }
    let ended = test("\n\x05Ann");
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let why = "would be parked as `invalid`: protobuf: it ends after 3 of 5 bytes at /who";
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
}

/// The same in pytest's process, which asks the command.
#[test]
fn evermill_testing_applies_codec_and_schema_by_the_command() {
    let place = Place::new();
    orders(&place);
    let script = "
from evermill import testing
from orders import orders

sent, read, wrong = b'\\n\\x03Ann\\x12\\x02\\x08\\x05', {'who': 'Bob'}, b'\\n\\x09'
result = testing.run(orders, events=[sent, wrong, read])
assert (result.done, result.parked) == (2, 1), result
ann, bob, refused = result.activations
assert ann.event.json() == {'who': 'Ann', 'sum': {'cents': '5'}}, ann
assert bob.event.json() == {'who': 'Bob'}, bob
assert refused.rejected == 'protobuf: it ends after 0 of 9 bytes at /who', refused
assert not refused.tasks and refused.event.value == wrong
assert testing.run(orders, events=[read], codecs=False).done == 1
";
    let script = place.file("script.py", script);
    let python = std::env::var_os("EVERMILL_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let sdk = concat!(env!("CARGO_MANIFEST_DIR"), "/../../python");
    let run = |command: Option<&str>| {
        let mut process = std::process::Command::new(&python);
        process
            .arg(&script)
            .env("PYTHONPATH", sdk)
            .env("PATH", "")
            .env_remove("EVERMILL_BIN");
        if let Some(command) = command {
            process.env("EVERMILL_BIN", command);
        }
        let done = process.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.success(), said)
    };
    let (well, said) = run(Some(env!("CARGO_BIN_EXE_evermill")));
    assert!(well, "{said}");
    let (well, said) = run(None);
    assert!(!well && said.contains("EVERMILL_BIN"), "{said}");
}
