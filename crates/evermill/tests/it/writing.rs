//! Values that become files, from the built binary to a folder; what a test of a DAG does about places
//! outside.

use std::collections::BTreeMap;
use std::path::Path;

use evermill_http::testing::{Reply, Server};

use crate::mock::Mock;
use crate::process::{Place, Running, eventually};

fn dag(path: &str, options: &str) -> String {
    format!(
        r#"
import evermill

@evermill.task
def double(event):
    n = int(event.text())
    return {{"n": n, "text": str(n) * 5000}} if n % 2 == 0 else None

@evermill.dag
def pipeline():
    doubled = double(evermill.kafka("t", auto_offset_reset="earliest"))
    evermill.to_file({path:?}, doubled{options})
"#
    )
}

fn start(place: &Place, broker: &Mock, file: &str, more: &[&str]) -> Running {
    let connection = format!("--connection={}", broker.connection());
    let mut command = place.evermill(["run", file, "--json", &connection]);
    Running::start(command.args(more))
}

fn write(broker: &Mock, count: usize) {
    let pairs: Vec<_> = (0..count)
        .map(|n| (format!("k{n}"), n.to_string()))
        .collect();
    let pairs: Vec<_> = pairs.iter().map(|(key, n)| (&key[..], &n[..])).collect();
    broker.write(&pairs);
}

/// Every file below a folder with what it holds.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder_now) = folders.pop() {
        for entry in std::fs::read_dir(folder_now).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(content) = std::fs::read_to_string(&path) {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.insert(name, content);
            }
        }
    }
    found
}

fn content(n: usize) -> String {
    format!(r#"{{"n":{n},"text":"{}"}}"#, n.to_string().repeat(5000))
}

/// A relative path counts from the DAG's folder; folders are made; names come from the value.
#[test]
fn each_result_is_a_file_of_its_own_name() {
    let place = Place::new();
    let broker = Mock::start(&place);
    write(&broker, 20);
    place.file("dag.py", &dag("out/{date}/n-{/n}.json", ""));
    let ended = start(&place, &broker, "dag.py", &["--until-idle", "200ms"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let found = files(&place.folder().join("out"));
    assert_eq!(found.len(), 10, "{:?}", found.keys());
    for (name, written) in found {
        let (day, file) = name.split_once('/').unwrap();
        assert_eq!(day.len(), "2026-11-30".len(), "{day}");
        let n: usize = file
            .strip_prefix("n-")
            .unwrap()
            .strip_suffix(".json")
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(written, content(n));
    }
}

/// Killed again and again: whatever is there under its name is whole, and in the end all is there once.
#[test]
fn a_kill_at_any_moment_leaves_whole_files_and_nothing_else_in_the_end() {
    let place = Place::new();
    let broker = Mock::start(&place);
    place.file("dag.py", &dag("out/{effect_key}.json", ""));
    let out = place.folder().join("out");
    write(&broker, 600);
    let whole = |found: &BTreeMap<String, String>| {
        for (name, written) in found.iter().filter(|(name, _)| !name.starts_with('.')) {
            let end = written.find(',').unwrap_or(0);
            let n = written
                .get(r#"{"n":"#.len()..end)
                .and_then(|n| n.parse().ok());
            assert_eq!(Some(written), n.map(content).as_ref(), "{name}");
        }
    };
    // A third time would be taken for the event's own fault (C6).
    for round in 1..=2 {
        let running = start(&place, &broker, "dag.py", &[]);
        eventually("some are written", || {
            (files(&out).len() >= round * 60).then_some(())
        });
        running.kill();
        whole(&files(&out));
    }
    let ended = start(&place, &broker, "dag.py", &["--until-idle", "300ms"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], 300);
    let found = files(&out);
    whole(&found);
    assert_eq!(found.len(), 300, "each once, and nothing unfinished");
}

#[test]
fn a_value_that_would_lead_out_of_the_folder_is_parked_and_writes_nothing() {
    let place = Place::new();
    let broker = Mock::start(&place);
    broker.write(&[("../../../tmp/evil", "1"), ("..", "2"), ("fine", "3")]);
    place.file(
        "flow.yaml",
        "dag: flow\n\
         sources: { in: { kafka: { topic: t, auto_offset_reset: earliest } } }\n\
         tasks:\n  out: { after: in, to_file: { path: 'out/{key}' } }\n",
    );
    let ended = start(&place, &broker, "flow.yaml", &["--until-idle", "200ms"]).end();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let run = ended.only_run();
    assert_eq!((&run["done"], &run["parked"]), (&1.into(), &2.into()));
    let found = files(&place.folder().join("out"));
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [("fine".to_owned(), "3".to_owned())]
    );
}

#[test]
fn the_list_of_a_batch_is_one_file_an_event_a_line() {
    let place = Place::new();
    let broker = Mock::start(&place);
    broker.write(&[("a", "1"), ("a", "2"), ("a", "3")]);
    place.file(
        "dag.py",
        "
import evermill

@evermill.dag
def flow():
    batch = evermill.kafka('t', auto_offset_reset='earliest').batch(max_events=3, linger=30)
    evermill.to_file('out/{effect_key}', batch)
",
    );
    let ended = start(&place, &broker, "dag.py", &["--until-idle", "200ms"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let found = files(&place.folder().join("out"));
    assert_eq!(found.into_values().collect::<Vec<_>>(), ["1\n2\n3\n"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_waited_for() {
    let place = Place::new();
    let broker = Mock::start(&place);
    broker.write(&[("a", "2")]);
    // A file where the folder should be.
    let out = place.file("out", "");
    place.file("dag.py", &dag("out/{/n}.json", ", retry_delay='50ms'"));
    let running = start(&place, &broker, "dag.py", &["--until-idle", "200ms"]);
    place.wait_for_run(|run| run["tasks"][1]["failed"].as_u64() >= Some(1));
    std::fs::remove_file(&out).unwrap();
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(files(&out).into_keys().collect::<Vec<_>>(), ["2.json"]);
}

#[test]
fn what_no_path_can_be_is_said_with_its_cure() {
    let place = Place::new();
    for (path, said) in [
        ("out/all.json", "write over the one before"),
        ("out/{id}", "{/customer/id}"),
        ("out/{date}/", "ends with a folder"),
        ("s3://Bucket/{key}", "lower-case"),
        ("s3://{key}/x", "no braces"),
        ("ftp://host/{key}", "cannot be written"),
    ] {
        let yaml = format!(
            "dag: flow\nsources: {{ in: {{ every: 1s }} }}\ntasks:\n  out: {{ after: in, to_file: {{ path: '{path}' }} }}\n"
        );
        place.file("flow.yaml", &yaml);
        place.file("flow.py", &dag(path, ""));
        for file in ["flow.yaml", "flow.py"] {
            let checked = place.finish(["check", file]);
            assert_eq!(checked.code(), 3, "{file} {path}");
            let all = format!("{}{}", checked.stdout, checked.stderr);
            assert!(all.contains(file) && all.contains(said), "{path}: {all}");
        }
    }
}

#[test]
fn a_test_of_a_dag_sends_nothing_unless_it_is_told_to() {
    let (place, server) = (Place::new(), Server::start(|_| Reply::new(200, "")));
    let file = place.file(
        "flow.yaml",
        "dag: flow\n\
         sources: { in: { kafka: t } }\n\
         tasks:\n  \
         tell: { after: in, to_http: { endpoint: '/x/{/n}' } }\n  \
         keep: { after: in, to_file: { path: 'out/{/n}' } }\n"
            .replace("{ kafka: t }", "{ kafka: { topic: t } }")
            .as_str(),
    );
    let connection = format!("--connection=http={}", server.url());
    let file = file.to_str().unwrap();
    let tested = place.finish(["test", file, "--event", r#"{"n": 7}"#, &connection]);
    assert_eq!(tested.code(), 0, "{}", tested.stderr);
    assert!(
        tested.stderr.contains("not sent to POST /x/{/n}")
            && tested.stderr.contains(r#"/x/7: {"n": 7}"#),
        "{}",
        tested.stderr
    );
    assert_eq!(server.seen().len(), 0);
    assert!(files(&place.folder().join("out")).is_empty());
    let arguments = [
        "test",
        file,
        "--event",
        r#"{"n": 7}"#,
        &connection,
        "--send",
    ];
    let tested = place.finish(arguments);
    assert_eq!(tested.code(), 0, "{}", tested.stderr);
    assert_eq!(server.seen()[0].path, "/x/7");
    let found = files(&place.folder().join("out"));
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [("7".to_owned(), r#"{"n": 7}"#.to_owned())]
    );
    place.file("dag.py", &dag("out/{/n}", ""));
    let tested = place.finish(["test", "dag.py", "--event", "4"]);
    assert_eq!(tested.code(), 0, "{}", tested.stderr);
    assert_eq!(files(&place.folder().join("out")).len(), 1, "nothing more");
    let refused = place.finish(["test", "dag.py", "--event", "4", "--send"]);
    assert_eq!(refused.code(), 2);
    assert!(
        refused.stderr.contains("--send is for DAGs in YAML"),
        "{}",
        refused.stderr
    );
}
