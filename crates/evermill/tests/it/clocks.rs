//! Sources that need nothing but time, from the built binary: clocks, loops, `@continuous`, and the
//! task that never ends.

use std::collections::BTreeSet;

use rustix::process::Signal;

use crate::process::{Place, Running, eventually};

mod conforming;

/// Notes the instant of each event.
const EVERY: &str = r#"
import evermill

@evermill.task
def note(event):
    with open("@OUT@", "a") as out:
        out.write(f"{event.timestamp.timestamp():.3f}\n")

@evermill.dag
def ticks():
    note(evermill.every("100ms", catchup="@CATCHUP@"))
"#;

const LAPS: &str = r#"
import evermill

@evermill.task
def step(event, ctx):
    lap = (ctx.state.get("lap") or 0) + 1
    ctx.state.set("lap", lap)
    with open("@OUT@", "a") as out:
        out.write(f"{event.position} {lap}\n")
    return lap

def enough(step):
    return step >= 60

@evermill.dag
def laps():
    step(evermill.loop(delay="5ms", until=enough))
"#;

const CONTINUOUS: &str = r#"
from airflow import DAG
from airflow.operators.python import PythonOperator

def work():
    with open("@OUT@", "a") as out:
        out.write("lap\n")
    with open("@OUT@") as laps:
        if len(laps.readlines()) == 2:
            raise ValueError("the second lap fails")

with DAG("always", schedule="@continuous", max_active_runs=1):
    PythonOperator(task_id="work", python_callable=work)
"#;

const DAILY: &str = r#"
from datetime import datetime, timedelta, timezone
from airflow import DAG
from airflow.operators.python import PythonOperator

def work(ds):
    with open("@OUT@", "a") as out:
        out.write(f"{ds}\n")

today = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
with DAG("daily", schedule="@daily", start_date=today - timedelta(days=3), catchup=True):
    PythonOperator(task_id="work", python_callable=work)
"#;

struct Timed {
    place: Place,
    file: std::path::PathBuf,
    out: std::path::PathBuf,
}

impl Timed {
    fn new(text: &str) -> Self {
        let place = Place::new();
        let out = place.file("out", "");
        let text = text.replace("@OUT@", out.to_str().expect("UTF-8"));
        let file = place.file("timed.py", &text);
        Self { place, file, out }
    }

    fn run(&self, more: &[&str]) -> Running {
        let mut arguments = vec!["run", self.file.to_str().expect("UTF-8")];
        arguments.extend(more);
        Running::start(&mut self.place.evermill(arguments))
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.out).expect("what tasks wrote");
        text.lines().map(str::to_owned).collect()
    }

    fn until_lines(&self, count: usize) {
        eventually("what tasks write", || {
            (self.lines().len() >= count).then_some(())
        });
    }
}

/// Notes the instant of each event; while there is a file `gate`, it waits.
const GATED: &str = r#"
import os, time
import evermill

@evermill.task
def note(event):
    while os.path.exists("@OUT@.gate"):
        time.sleep(0.01)
    with open("@OUT@", "a") as out:
        out.write(f"{event.timestamp.timestamp():.0f}\n")

@evermill.dag
def ticks():
    note(evermill.every("1h"))
"#;

#[test]
fn a_backfill_runs_each_instant_that_nobody_ran_over_a_kill_and_a_second_one_finds_nothing() {
    let timed = Timed::new(GATED);
    let running = timed.run(&[]);
    timed.place.wait_until_ready();
    let well = |arguments: &[&str]| {
        let ended = timed.place.finish(arguments);
        assert_eq!(ended.code(), 0, "{arguments:?}: {}", ended.stderr);
        ended.stdout
    };
    let days = [
        "backfill",
        "ticks",
        "--from",
        "2026-01-01",
        "--to",
        "2026-01-10T23:59:59Z",
    ];
    let looked = well(&[&days[..], &["--dry-run"]].concat());
    assert!(looked.contains("240 instants would be run"), "{looked}");
    let gate = timed.out.with_file_name("out.gate");
    std::fs::write(&gate, "").expect("a gate");
    let begun = well(&days);
    assert!(
        begun.contains("backfill 1 of run ticks-1: 240 instants"),
        "{begun}"
    );
    timed.place.wait_for_run(|run| run["in_flight"] != 0);
    running.kill();
    std::fs::remove_file(&gate).expect("a gate");

    let running = timed.run(&[]);
    let done = timed.place.wait_for_run(|run| {
        let all = run["done"].as_u64() >= Some(240) && run["in_flight"] == 0;
        all && run["replays"].as_array().is_some_and(Vec::is_empty)
    });
    assert_eq!(done["in"], done["done"]);
    let instants: BTreeSet<String> = timed.lines().into_iter().collect();
    let first = 1_767_225_600;
    for hour in 0..240 {
        assert!(
            instants.contains(&(first + hour * 3600).to_string()),
            "hour {hour}"
        );
    }
    let again = well(&days);
    assert!(again.contains("nothing to run; 240 ran before"), "{again}");
    let once_more = well(&[&days[..], &["--reprocess", "--dry-run"]].concat());
    assert!(
        once_more.contains("240 instants would be run"),
        "{once_more}"
    );
    drop(running);
}

/// Notes how many instants its state knows of.
const COUNTED: &str = r#"
import evermill

@evermill.task
def count(event, ctx):
    seen = ctx.state.get("seen", 0) + 1
    ctx.state.set("seen", seen)
    with open("@OUT@", "a") as out:
        out.write(f"{seen}\n")

@evermill.dag(order="serial")
def days():
    count(evermill.every("1d"))
"#;

#[test]
fn a_backfill_changes_state_only_when_it_is_asked_to() {
    let timed = Timed::new(COUNTED);
    let running = timed.run(&[]);
    timed.place.wait_until_ready();
    let mut lines = timed.lines().len();
    let mut backfill = |from: &str, to: &str, more: &[&str]| {
        let days = ["backfill", "days", "--from", from, "--to", to];
        let ended = timed.place.finish([&days[..], more].concat());
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        lines += 3;
        timed.until_lines(lines);
        timed
            .place
            .wait_for_run(|run| run["replays"].as_array().is_some_and(Vec::is_empty));
        timed.lines()[lines - 3..].join(" ")
    };
    let dropped = backfill("2026-01-01", "2026-01-03", &[]);
    assert_eq!(dropped, "1 1 1", "each reads what is committed");
    let kept = backfill("2026-01-04", "2026-01-06", &["--with-state"]);
    assert_eq!(kept, "1 2 3");
    let once_more = backfill("2026-01-01", "2026-01-03", &["--reprocess", "--with-state"]);
    assert_eq!(once_more, "4 5 6");
    drop(running);
}

#[test]
fn each_instant_is_one_activation_over_kills_and_orderly_ends() {
    let timed = Timed::new(&EVERY.replace("@CATCHUP@", "all"));
    for end in 0..4_u32 {
        let before = timed.lines().len();
        let running = timed.run(&[]);
        timed.until_lines(before + 5);
        if end % 2 == 0 {
            running.kill();
        } else {
            running.signal(Signal::TERM);
            assert_eq!(running.end().code(), 0);
        }
    }
    let ended = timed.place.ps();
    let done = ended[0]["done"].as_u64().expect("a count");
    let mut instants: Vec<u64> = Vec::new();
    for line in timed.lines() {
        let seconds: f64 = line.parse().expect("seconds");
        instants.push((seconds * 1_000.0).round() as u64);
    }
    let distinct: BTreeSet<u64> = instants.iter().copied().collect();
    assert!(distinct.iter().all(|ms| ms % 100 == 0), "{distinct:?}");
    let (first, last) = (distinct.first().unwrap(), distinct.last().unwrap());
    assert_eq!(
        (last - first) / 100 + 1,
        distinct.len() as u64,
        "catchup='all' leaves none out: {distinct:?}"
    );
    assert!(done <= distinct.len() as u64, "{done} done, {distinct:?}");
    // A kill repeats what was under way and not committed, so twice at most in two of them.
    let times = |instant: &u64| instants.iter().filter(|other| *other == instant).count();
    assert!(
        distinct.iter().all(|instant| times(instant) <= 3),
        "{instants:?}"
    );
}

#[test]
fn instants_of_the_time_before_and_between_fire_once_each_when_airflow_catches_up() {
    let timed = Timed::new(DAILY);
    let running = timed.run(&[]);
    let run = timed
        .place
        .wait_for_run(|run| run["done"].as_u64() >= Some(4));
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
    let mut days = timed.lines();
    days.sort_unstable();
    days.dedup();
    assert_eq!(days.len() as u64, run["done"].as_u64().unwrap(), "{days:?}");
}

#[test]
fn a_loop_goes_on_where_it_was_killed_and_ends_when_its_condition_holds() {
    let timed = Timed::new(LAPS);
    for _ in 0..3 {
        let before = timed.lines().len();
        let running = timed.run(&[]);
        timed.until_lines(before + 10);
        running.kill();
    }
    let ended = timed.run(&["--json"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let run = ended.only_run();
    assert_eq!(
        (&run["state"], &run["done"]),
        (&"finished".into(), &60.into()),
        "{run}"
    );
    let laps: BTreeSet<String> = timed.lines().into_iter().collect();
    let expected: BTreeSet<String> = (0..60).map(|lap| format!("{lap} {}", lap + 1)).collect();
    assert_eq!(laps, expected, "state and laps go together");
}

#[test]
fn a_continuous_dag_of_airflow_goes_on_after_a_lap_that_failed() {
    let timed = Timed::new(CONTINUOUS);
    let running = timed.run(&[]);
    let run = timed
        .place
        .wait_for_run(|run| run["done"].as_u64() >= Some(3));
    assert_eq!(run["parked"], 1, "{run}");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 1, "something is parked");
}

#[test]
fn waiting_for_the_end_of_a_clock_is_refused() {
    let timed = Timed::new(&EVERY.replace("@CATCHUP@", "none"));
    let ended = timed.run(&["--until-idle", "1s"]).end();
    assert_eq!(ended.code(), 2);
    assert!(
        ended.stderr.contains("source 'every' is a clock"),
        "{}",
        ended.stderr
    );
}

/// The third file of the text this project grew from, unchanged, and with a condition that holds.
#[test]
fn a_task_that_never_ends_runs_until_it_is_stopped_and_ends_when_its_condition_holds() {
    let example = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/long_running_simulation.py"
    );
    let text = std::fs::read_to_string(example).expect("the example");
    let timed = Timed::new(&text);
    let running = timed.run(&["--grace", "100ms", "--json"]);
    running.wait_for_lines("simulate manual@0: Running Simulation...", 1);
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("runs at the next start"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.only_run()["in_flight"], 1);
    let again = timed.run(&[]);
    again.wait_for_lines("simulate manual@0: Running Simulation...", 1);
    again.kill();
    let ends = text
        .replace("return False #Placeholder", "return True #Placeholder")
        .replace("time.sleep(10)", "time.sleep(0.1)");
    let timed = Timed::new(&ends);
    let ended = timed.run(&["--json"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["state"], "finished");
}
