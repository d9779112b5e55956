//! Limits, from the built binary: pools, rates, activations under way.

use crate::mock::Mock;
use crate::process::{Place, Running};

const HEAD: &str = r#"
import fcntl, json, time, evermill

def note(what):
    with open("@OUT@", "a") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        out.write(what + "\n")
"#;

const POOLED: &str = r#"
@evermill.task(pool="one")
def first(event):
    note("+")
    time.sleep(0.02)
    note("-")

@evermill.task(pool="one")
def second(event):
    note("+")
    time.sleep(0.02)
    note("-")

@evermill.dag
def pooled():
    source = evermill.kafka("t", auto_offset_reset="earliest")
    first(source)
    second(source)
"#;

const RATED: &str = r#"
@evermill.task(rate_limit="5/1h")
def first(event):
    note("+")

@evermill.dag
def rated():
    first(evermill.kafka("t", auto_offset_reset="earliest"))
"#;

const BOUNDED: &str = r#"
@evermill.task
def first(event):
    note("+")

@evermill.task
def second(event):
    time.sleep(0.01)
    note("-")

@evermill.dag(max_active_runs=2)
def bounded():
    source = evermill.kafka("t", auto_offset_reset="earliest")
    first(source) >> second(source)
"#;

const WIDE: &str = r#"
@evermill.task(pool="api", concurrency=8)
async def call(event):
    import asyncio
    note("+")
    await asyncio.sleep(0.02)
    note("-")

@evermill.dag
def wide():
    call(evermill.kafka("t", auto_offset_reset="earliest"))
"#;

const UNEVEN: &str = r#"
import os

@evermill.task
def first(event):
    while event.text() == "7" and not os.path.exists("@OUT@.go"):
        time.sleep(0.05)
    note("+" + event.text())

@evermill.dag
def uneven():
    first(evermill.kafka("t", auto_offset_reset="earliest"))
"#;

const KEYED: &str = r#"
@evermill.task(rate_limit_per_key="2/1h")
def first(event):
    note("+" + event.key.decode())

@evermill.dag
def keyed():
    first(evermill.kafka("t", auto_offset_reset="earliest"))
"#;

const SLOW_SOURCE: &str = r#"
@evermill.task
def first(event):
    note("+")

@evermill.dag
def slow():
    first(evermill.kafka("t", auto_offset_reset="earliest", rate_limit="3/1h"))
"#;

struct Scene {
    place: Place,
    mock: Mock,
    file: std::path::PathBuf,
    out: std::path::PathBuf,
}

impl Scene {
    fn new(text: &str) -> Self {
        let place = Place::new();
        let mock = Mock::start(&place);
        let out = place.file("out", "");
        let text = format!("{HEAD}{text}").replace("@OUT@", out.to_str().expect("UTF-8"));
        let file = place.file("limited.py", &text);
        Self {
            place,
            mock,
            file,
            out,
        }
    }

    fn run(&self, more: &[&str]) -> Running {
        let connection = self.mock.connection();
        let file = self.file.to_str().expect("UTF-8");
        let mut arguments = vec!["run", file, "--workers", "4", "--connection", &connection];
        arguments.extend(more);
        Running::start(&mut self.place.evermill(arguments))
    }

    /// The most that were under way at a time: what begins notes `+`, what ends notes `-`.
    fn most(&self) -> i32 {
        let text = std::fs::read_to_string(&self.out).expect("what tasks wrote");
        let mut now = 0;
        let levels = text.lines().map(|line| {
            now += if line == "+" { 1 } else { -1 };
            now
        });
        levels.max().unwrap_or(0)
    }
}

fn ten() -> Vec<(&'static str, &'static str)> {
    vec![("", "x"); 10]
}

#[test]
fn tasks_of_a_pool_run_one_at_a_time_when_it_has_one_slot() {
    let scene = Scene::new(POOLED);
    scene.place.file("evermill.toml", "[pools]\none = 1\n");
    scene.mock.write(&ten());
    let ended = scene.run(&["--until-idle", "200ms", "--json"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], 10);
    assert_eq!(scene.most(), 1);
    let shown = scene.place.finish(["config", "show"]).stdout;
    assert!(shown.contains("pools.one"), "{shown}");
}

#[test]
fn no_more_members_start_than_a_rate_allows() {
    let scene = Scene::new(RATED);
    scene.mock.write(&ten());
    let running = scene.run(&[]);
    let run = scene.place.wait_for_run(|run| run["done"] == 5);
    assert_eq!(
        (&run["in"], &run["in_flight"]),
        (&10.into(), &5.into()),
        "{run}"
    );
    assert_eq!(scene.most(), 5, "the hour is not over");
    running.kill();
}

#[test]
fn no_more_activations_are_under_way_than_a_dag_allows() {
    let scene = Scene::new(BOUNDED);
    scene.mock.write(&ten());
    let ended = scene.run(&["--until-idle", "200ms", "--json"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], 10);
    assert!(scene.most() <= 2, "{} at a time", scene.most());
}

/// Nobody waits for a long task who does not have to: neither behind it in its dispatch, nor in a dispatch
/// that waits for its worker.
#[test]
fn one_long_event_holds_up_no_other() {
    let scene = Scene::new(UNEVEN);
    let numbers: Vec<_> = (0..60).map(|number| number.to_string()).collect();
    let messages: Vec<_> = numbers.iter().map(|number| ("", number.as_str())).collect();
    scene.mock.write(&messages);
    let running = scene.run(&["--until-idle", "200ms", "--json"]);
    let run = scene.place.wait_for_run(|run| run["done"] == 59);
    assert_eq!(run["in_flight"], 1, "{run}");
    std::fs::write(scene.out.with_extension("go"), "").expect("it is written");
    let ended = running.end();
    assert_eq!(ended.only_run()["done"], 60, "{}", ended.stderr);
    let written = std::fs::read_to_string(&scene.out).expect("what tasks wrote");
    let mut ran: Vec<&str> = written.lines().map(|line| &line[1..]).collect();
    assert_eq!(ran.last(), Some(&"7"));
    ran.sort_unstable();
    ran.dedup();
    assert_eq!((ran.len(), written.lines().count()), (60, 60), "once each");
}

#[test]
fn a_pool_without_slots_and_a_rate_that_is_none_are_refused() {
    let scene = Scene::new(POOLED);
    scene.place.file("evermill.toml", "[pools]\none = 0\n");
    let ended = scene.run(&[]).end();
    assert_eq!(ended.code(), 2);
    assert!(ended.stderr.contains("one = 0"), "{}", ended.stderr);
    let scene = Scene::new(&RATED.replace("5/1h", "5 an hour"));
    let ended = scene.run(&[]).end();
    assert_eq!(ended.code(), 3);
    assert!(
        ended.stderr.contains("such as \"100/s\""),
        "{}",
        ended.stderr
    );
}

/// W19: a slot is an execution, not a dispatch that holds many of them.
#[test]
fn a_pool_counts_members_that_run_side_by_side_in_one_worker() {
    let scene = Scene::new(WIDE);
    scene.place.file("evermill.toml", "[pools]\napi = 3\n");
    scene.mock.write(&vec![("", "x"); 30]);
    let ended = scene.run(&["--until-idle", "200ms", "--json"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], 30);
    assert!(scene.most() <= 3, "{} at a time", scene.most());
}

#[test]
fn the_slots_of_a_pool_are_changed_while_it_is_used_and_last_over_restarts() {
    let scene = Scene::new(POOLED);
    scene.place.file("evermill.toml", "[pools]\none = 1\n");
    let said = |arguments: &[&str]| {
        let ended = scene.place.finish(arguments);
        assert_eq!(ended.code(), 0, "{arguments:?}: {}", ended.stderr);
        ended.stdout
    };
    let running = scene.run(&[]);
    scene.place.wait_for_run(|run| run["state"] == "running");
    let stopped = said(&["pools", "set", "one", "0"]);
    assert!(stopped.contains("nothing more of its tasks"), "{stopped}");
    scene.mock.write(&ten());
    scene.place.wait_for_run(|run| run["in"] == 10);
    let pool = said(&["pools", "ls", "--json"]);
    let pool: serde_json::Value = serde_json::from_str(&pool).expect("one line");
    let word = |field: &str| pool[field].clone();
    assert_eq!(
        (word("slots"), word("used"), word("waiting"), word("set_by")),
        (0.into(), 0.into(), 20.into(), "set".into()),
        "{pool}"
    );
    let tasks = pool["tasks"].as_array().expect("a list").iter();
    let tasks: Vec<_> = tasks.map(|task| task["task"].clone()).collect();
    assert_eq!(tasks, ["first", "second"]);
    running.kill();
    let rest = said(&["pools", "ls"]);
    assert!(rest.contains("pools set"), "{rest}");
    let running = scene.run(&[]);
    scene
        .place
        .wait_for_run(|run| run["in"] == 10 && run["state"] == "running");
    assert_eq!(scene.most(), 0, "it has no slots in the next engine either");
    let table = said(&["pools", "ls"]);
    assert!(table.contains("pooled.first, pooled.second"), "{table}");
    let reset = said(&["pools", "reset", "one"]);
    assert!(reset.contains("1 slot (evermill.toml)"), "{reset}");
    scene.place.wait_for_run(|run| run["done"] == 10);
    assert_eq!(scene.most(), 1);
    let unknown = scene.place.finish(["pools", "set", "ome", "3"]);
    assert_eq!(unknown.code(), 2);
    assert!(
        unknown.stderr.contains("did you mean 'one'?"),
        "{}",
        unknown.stderr
    );
    running.kill();
}

#[test]
fn a_rate_per_key_holds_up_one_key_and_no_other() {
    let scene = Scene::new(KEYED);
    let mut events = vec![("loud", "x"); 8];
    events.push(("calm", "x"));
    scene.mock.write(&events);
    let running = scene.run(&[]);
    let run = scene.place.wait_for_run(|run| run["done"] == 3);
    assert_eq!(run["in_flight"], 6, "{run}");
    let text = std::fs::read_to_string(&scene.out).expect("what tasks wrote");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["+calm", "+loud", "+loud"]);
    running.kill();
}

/// F03: however often a source fires, no more events begin than it is allowed.
#[test]
fn f03_the_rate_of_a_source_lets_no_more_of_its_events_begin() {
    let scene = Scene::new(SLOW_SOURCE);
    scene.mock.write(&ten());
    let running = scene.run(&[]);
    let run = scene.place.wait_for_run(|run| run["done"] == 3);
    assert_eq!(
        (&run["in"], &run["in_flight"]),
        (&10.into(), &7.into()),
        "{run}"
    );
    running.kill();
}
