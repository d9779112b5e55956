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
