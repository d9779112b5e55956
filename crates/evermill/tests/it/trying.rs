//! `evermill test`: one activation in the foreground.

use std::io::Write as _;
use std::process::Stdio;

use crate::process::Place;

const ORDERS: &str = r#"
import evermill

@evermill.task(retries=1)
def load(event, ti):
    order = event.json()
    ti.xcom_push("key", (event.key or b"").decode())
    print("loading", order, "of", event.lane, event.position)
    return order["total"]

@evermill.task
def each(load):
    return [1, 2]

@evermill.dag
def orders():
    each(load(evermill.kafka("orders")))
"#;

const BY_HAND: &str = r#"
import evermill

@evermill.task
def greet(dag_run, ds):
    return f"{dag_run.conf['name']} on {ds}"

@evermill.dag
def by_hand():
    greet()

@evermill.dag
def other():
    greet()
"#;

#[test]
fn an_event_is_run_through_the_dag_and_every_task_is_told() {
    let place = Place::new();
    place.file("orders.py", ORDERS);
    let ended = place.finish(["test", "orders.py", "--event", r#"{"total": 5}"#, "--json"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let result = ended.only_run();
    assert_eq!(
        (&result["dag"], &result["state"]),
        (&"orders".into(), &"success".into())
    );
    let load = &result["tasks"][0];
    assert_eq!(
        (&load["task_id"], &load["try_number"]),
        (&"load".into(), &1.into()),
        "{result}"
    );
    assert_eq!(
        (&load["xcoms"]["return_value"], &load["map_index"]),
        (&5.into(), &(-1).into())
    );
    assert!(load["rendered"].is_object() && result["data_interval"][1].is_string());
    assert!(
        ended.stderr.contains("loading {'total': 5}"),
        "{}",
        ended.stderr
    );
    assert!(!place.data_dir().exists());
}

#[test]
fn a_failure_is_shown_with_its_traceback_and_exit_code_1() {
    let place = Place::new();
    place.file("orders.py", ORDERS);
    let ended = place.finish(["test", "orders.py", "--event", "{}"]);
    assert_eq!(ended.code(), 1);
    assert!(
        ended.stderr.contains("KeyError: 'total'"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("_walk.py"), "{}", ended.stderr);
    let row: Vec<&str> = ended
        .stdout
        .lines()
        .nth(1)
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(
        row,
        ["load", "failed", "2", "KeyError:", "'total'"],
        "{}",
        ended.stdout
    );
    assert!(
        ended
            .stdout
            .contains("orders: failed; a running engine would park it")
    );
}

#[test]
fn a_parked_event_keeps_key_lane_and_position_and_a_debugger_has_the_terminal() {
    let place = Place::new();
    place.file("orders.py", ORDERS);
    let line = r#"{"id":"orders-1/kafka/orders/0/7","source":"kafka","lane":"orders/0","payload":[{"position":7,"key":"k","headers":[["h",{"base64":"/w=="}]],"value":"{}"}]}"#;
    let file = place.file("parked.jsonl", line);
    let mut command = place.evermill(["test", "orders.py", "--pdb", "--event"]);
    command.arg(format!("@{}", file.display()));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"p event.key, event.headers\nq\n").unwrap();
    drop(stdin);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("of orders/0 7"), "{said}");
    assert!(said.contains(r"(b'k', [('h', b'\xff')])"), "{said}");
    assert_eq!(ended.status.code(), Some(1));
}

#[test]
fn a_dag_without_source_is_given_conf_and_date() {
    let place = Place::new();
    place.file("hand.py", BY_HAND);
    let date = [
        "--logical-date",
        "2026-01-31",
        "--conf",
        r#"{"name": "Ada"}"#,
    ];
    let arguments = ["test", "hand.py", "--dag", "by_hand", "--json"];
    let ended = place.finish(arguments.into_iter().chain(date));
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let result = ended.only_run();
    assert_eq!(
        result["tasks"][0]["xcoms"]["return_value"],
        "Ada on 2026-01-31"
    );
    assert_eq!(result["data_interval"][0], "2026-01-31T00:00:00+00:00");
}

#[test]
fn what_cannot_be_tested_is_refused_with_the_cure() {
    let place = Place::new();
    place.file("orders.py", ORDERS);
    place.file("hand.py", BY_HAND);
    place.file("broken.py", "import evermill\n\ndef oops(:\n");
    let cases: [(&[&str], i32, &str); 7] = [
        (&["orders.py"], 2, "--event @FILE"),
        (&["hand.py"], 2, "--dag: by_hand, other"),
        (
            &["hand.py", "--dag", "by_hnd"],
            2,
            "did you mean 'by_hand'?",
        ),
        (&["hand.py", "--dag", "other", "--event", "x"], 2, "--conf"),
        (
            &["hand.py", "--dag", "other", "--conf", "[]"],
            2,
            "JSON object",
        ),
        (&["orders.py", "--event", "@nowhere"], 2, "nowhere"),
        (&["broken.py"], 3, "broken.py:3"),
    ];
    for (arguments, code, said) in cases {
        let ended = place.finish(["test"].iter().chain(arguments));
        assert_eq!(ended.code(), code, "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(said),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
}

const COMMANDS: &str = r#"
dag: sums
sources: { incoming: { kafka: { topic: numbers } } }
tasks:
  double: { after: incoming, run: 'read n; echo "doubling $EVERMILL_KEY" >&2; echo $((n * 2))' }
  idle: { after: incoming, run: 'exit 99' }
  small: { after: double, stdin: double, run: 'test "$(cat)" -lt 100', retries: 2, retry_delay: 1h }
"#;

#[test]
fn a_dag_of_commands_is_run_by_an_engine_that_leaves_nothing_behind() {
    let place = Place::new();
    place.file("sums.yaml", COMMANDS);
    let ended = place.finish(["test", "sums.yaml", "--event", "21", "--json"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let result = ended.only_run();
    assert_eq!(result["state"], "success");
    let of = |task: usize| &result["tasks"][task];
    assert_eq!(
        (&of(0)["task_id"], &of(0)["xcoms"]["return_value"]),
        (&"double".into(), &42.into())
    );
    assert_eq!(of(1)["state"], "skipped");
    assert!(ended.stderr.contains("doubling"), "{}", ended.stderr);
    assert!(!place.data_dir().exists());

    let line = r#"{"id":"sums-1/incoming/numbers/0/7","source":"incoming","lane":"numbers/0","payload":[{"position":7,"key":"ada","value":"500"}]}"#;
    let file = place.file("parked.jsonl", line);
    let event = format!("@{}", file.display());
    let ended = place.finish(["test", "sums.yaml", "--event", &event]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("double numbers/0@7: doubling ada"),
        "{}",
        ended.stderr
    );
    let row = ended.stdout.lines().find(|line| line.starts_with("small"));
    let row: Vec<&str> = row.unwrap().split_whitespace().collect();
    assert_eq!(
        row[..4],
        ["small", "failed", "3", "exited:"],
        "{}",
        ended.stdout
    );
    assert!(
        ended
            .stdout
            .contains("sums: failed; a running engine would park it")
    );
}

#[test]
fn a_dag_of_commands_has_no_debugger() {
    let place = Place::new();
    place.file("sums.yaml", COMMANDS);
    let ended = place.finish(["test", "sums.yaml", "--event", "1", "--pdb"]);
    assert_eq!(ended.code(), 2);
    assert!(
        ended.stderr.contains("--pdb is for DAGs in Python"),
        "{}",
        ended.stderr
    );
}
