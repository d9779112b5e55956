//! DAGs that listen to each other, from the built binary under `kill -9`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::process::{Place, Running, eventually};

const CHAIN: &str = r#"
import evermill

@evermill.task
def lap(event, ctx):
    ctx.state.incr("laps")
    evermill.emit("laps", {"lap": ctx.state.get("laps")}, key="k")

def enough(ctx):
    return ctx.state.get("laps", 0) >= 2000

@evermill.dag
def a():
    lap(evermill.loop(until=enough))

@evermill.task
def hear(event):
    event.json()

@evermill.dag
def b():
    hear(evermill.after("a"))

@evermill.dag
def c():
    hear(evermill.after(b))

@evermill.dag
def t():
    hear(evermill.topic("laps"))
"#;

fn by_dag(runs: Vec<Value>) -> BTreeMap<String, Value> {
    let dag = |run: &Value| run["dag"].as_str().unwrap().to_owned();
    runs.into_iter().map(|run| (dag(&run), run)).collect()
}

fn done(runs: &BTreeMap<String, Value>, dag: &str) -> u64 {
    runs.get(dag).map_or(0, |run| run["done"].as_u64().unwrap())
}

/// Each kill lets another link of the chain get ahead of the next one; two more fall between what a
/// DAG decided and what its listeners have of it.
#[test]
fn counts_are_the_same_along_a_chain_of_dags_however_often_it_is_killed() {
    let place = Place::new();
    let file = place.file("chain.py", CHAIN);
    let file = file.to_str().unwrap();
    for (round, dag) in ["a", "b", "c", "t"].into_iter().enumerate() {
        let running = Running::start(&mut place.evermill(["run", file]));
        let wanted = 250 * (round as u64 + 1);
        eventually("the link to have got so far", || {
            // Before the engine has made its directory there is nothing to ask.
            let ended = place.finish(["ps", "--json"]);
            let runs = (ended.code() == 0).then(|| by_dag(ended.json()))?;
            (done(&runs, dag) >= wanted).then_some(())
        });
        running.kill();
    }
    for hit in [1, 7] {
        let mut command = place.evermill(["run", file]);
        command.env(
            "EVERMILL_FAILPOINT",
            format!("hearing.passed_on:{hit}:abort"),
        );
        let ended = Running::start(&mut command).end();
        assert_eq!(ended.status.code(), None, "killed: {}", ended.stderr);
    }
    let command = ["run", file, "--json", "--until-idle", "500ms"];
    let ended = Running::start(&mut place.evermill(command)).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let runs = by_dag(ended.json());
    let laps = done(&runs, "a");
    assert!(laps >= 2_000, "{runs:?}");
    for dag in ["a", "b", "c", "t"] {
        let run = &runs[dag];
        assert_eq!(
            (&run["in"], &run["done"]),
            (&laps.into(), &laps.into()),
            "{run}"
        );
    }
}

#[test]
fn a_dag_that_listens_to_nobody_says_so_and_a_circle_is_refused() {
    let place = Place::new();
    let lonely = CHAIN
        .split("@evermill.dag\ndef b")
        .next()
        .unwrap()
        .to_owned();
    let text = format!(
        "{lonely}\n@evermill.task\ndef hear(event): pass\n@evermill.dag\ndef x():\n    hear(evermill.after('nowhere'))\n"
    );
    let file = place.file("lonely.py", &text);
    let ended = place.finish(["run", file.to_str().unwrap(), "--until-idle", "100ms"]);
    assert!(
        ended
            .stderr
            .contains("x: source 'after' listens to DAG 'nowhere', which is not here"),
        "{}",
        ended.stderr
    );
    let text = "dag: p\nsources: { s: { after: p } }\ntasks: { w: { after: s, run: 'true' } }\n";
    let file = place.file("circle.yaml", text);
    let ended = place.finish(["run", file.to_str().unwrap()]);
    assert_ne!(ended.code(), 0);
    assert!(
        ended
            .stderr
            .contains("DAG 'p' listens to 'p': they would never come to rest"),
        "{}",
        ended.stderr
    );
}

#[test]
fn check_finds_a_circle_over_files_and_names_its_line() {
    let place = Place::new();
    let dag = |id: &str, of: &str| {
        let text = format!(
            "dag: {id}\nsources:\n  s: {{ after: {of} }}\ntasks: {{ w: {{ after: s, run: 'true' }} }}\n"
        );
        place.file(&format!("{id}.yaml"), &text)
    };
    let files = [dag("p", "q"), dag("q", "r"), dag("r", "p"), dag("s", "p")];
    let mut arguments = vec!["check".to_owned()];
    arguments.extend(files.iter().map(|file| file.display().to_string()));
    let ended = place.finish(&arguments);
    assert_eq!(ended.code(), 3, "{}", ended.stderr);
    let said = "p.yaml:3: error: DAG 'p' listens to 'q' listens to 'r' listens to 'p': they would never come to rest";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    assert_eq!(
        ended.stderr.matches("[cycle]").count(),
        1,
        "{}",
        ended.stderr
    );
}

const DATASETS: &str = r#"
from datetime import timedelta
from airflow import DAG, Dataset
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import PythonOperator

with DAG("makes", schedule=timedelta(seconds=1)):
    EmptyOperator(task_id="made", outlets=[Dataset("s3://bucket/x")])

with DAG("takes", schedule=[Dataset("s3://bucket/x")]):
    PythonOperator(task_id="take", python_callable=lambda event: print("heard", event.json()["uri"]))
"#;

#[test]
fn a_dag_whose_schedule_is_a_dataset_runs_once_for_each_time_it_is_made() {
    let place = Place::new();
    let file = place.file("datasets.py", DATASETS);
    let running = Running::start(&mut place.evermill(["run", file.to_str().unwrap(), "--json"]));
    running.wait_for_lines("heard s3://bucket/x", 2);
    running.signal(rustix::process::Signal::TERM);
    let runs = by_dag(running.end().json());
    // What was said as the end came may still lie in the inbox.
    assert!((2..=done(&runs, "makes")).contains(&done(&runs, "takes")));
}

const SAYING: &str = r#"dag: say
tasks:
  make: { run: "echo '{\"n\": 7, \"who\": \"ada\"}'" }
  text: { run: "echo plain text" }
  none: { run: "true" }
  out: { after: make, emit: { topic: said, value_from: make, key: /who } }
  words: { after: text, emit: { topic: said, value_from: text, key: none } }
  nothing: { after: none, emit: { topic: said, value_from: none, key: none } }
---
dag: hear
sources: { t: { topic: said } }
tasks:
  note: { after: t, run: "printf '%s|%s\n' \"$(cat)\" \"$EVERMILL_KEY\" >> @OUT@" }
"#;

#[test]
fn a_task_in_yaml_says_a_value_to_a_topic_and_other_dags_hear_it_once() {
    let place = Place::new();
    let out = place.file("out", "");
    let text = SAYING.replace("@OUT@", out.to_str().unwrap());
    let file = place.file("said.yaml", &text);
    let ended = place.finish([
        "run",
        file.to_str().unwrap(),
        "--json",
        "--until-idle",
        "300ms",
    ]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let runs = by_dag(ended.json());
    assert_eq!(
        (done(&runs, "say"), done(&runs, "hear")),
        (1, 2),
        "{}",
        ended.stderr
    );
    let heard = std::fs::read_to_string(&out).unwrap();
    let mut heard: Vec<&str> = heard.lines().collect();
    heard.sort_unstable();
    assert_eq!(heard, [r#""plain text"|"#, r#"{"n": 7, "who": "ada"}|ada"#]);
    assert!(!ended.stderr.contains("topic_circle"), "{}", ended.stderr);
}

/// What one file says and another one hears is seen where both are there.
#[test]
fn a_circle_of_topics_over_two_files_is_told_by_check_run_and_serve_unless_it_is_meant() {
    let place = Place::new();
    let dag = |name: &str, hears: &str, says: &str| {
        format!(
            "dag: {name}\nsources: {{ in: {{ topic: {hears} }} }}\ntasks: {{ out: {{ after: in, emit: {says} }} }}\n"
        )
    };
    std::fs::create_dir(place.folder().join("dags")).unwrap();
    let a = place.file("dags/a.yaml", &dag("a", "t", "u"));
    let b = place.file("dags/b.yaml", &dag("b", "u", "t"));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let told = |stderr: &str| {
        assert!(stderr.contains("a.yaml:2: warning:"), "{stderr}");
        assert!(stderr.contains("[topic_circle]"), "{stderr}");
        let way = "task 'out' of DAG 'a' emits to 'u', which DAG 'b' hears (";
        assert!(
            stderr.contains(way) && stderr.contains("b.yaml:2)"),
            "{stderr}"
        );
    };
    let checked = place.finish(["check", "dags"]);
    assert_eq!(checked.code(), 0);
    told(&checked.stderr);
    assert_eq!(place.finish(["check", "dags", "--strict"]).code(), 3);
    assert!(!place.finish(["check", a]).stderr.contains("topic_circle"));
    let ran = place.finish(["run", a, b, "--until-idle", "100ms"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    told(&ran.stderr);
    let mut command = place.evermill(["serve", "--dags", "dags", "--listen", "127.0.0.1:0"]);
    let serving = Running::start(&mut command);
    serving.wait_for_lines("[topic_circle]", 1);
    serving.signal(rustix::process::Signal::TERM);
    assert_eq!(serving.end().code(), 0);
    place.file("dags/b.yaml", &dag("b", "{ name: u, circle: true }", "t"));
    assert!(
        !place
            .finish(["check", "dags"])
            .stderr
            .contains("topic_circle")
    );
}
