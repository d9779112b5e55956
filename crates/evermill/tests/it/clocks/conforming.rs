//! What every DAG keeps that nothing but time sets going: a cron expression, an interval, a loop,
//! `@continuous` and `@once`. A schedule that is new gets a line in [`SCHEDULES`].

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use super::Timed;
use crate::process::Running;

/// Notes each activation by its position; one without an event by a word.
const NOTE: &str = r#"
import evermill
from airflow import DAG
from airflow.operators.python import PythonOperator

def note(event=None, **context):
    with open("@OUT@", "a") as out:
        out.write(f"{event.position if event else 'once'}\n")

def native(source):
    @evermill.task
    def work(event):
        note(event)

    @evermill.dag
    def timed():
        work(source())

def scheduled(schedule):
    with DAG("timed", schedule=schedule, max_active_runs=1):
        PythonOperator(task_id="work", python_callable=note)
"#;

struct Schedule {
    /// What is declared behind [`NOTE`].
    text: &'static str,
    /// Whether it ever ends by itself, and then after how many activations.
    ends: Option<u64>,
}

const SCHEDULES: [Schedule; 5] = [
    Schedule {
        text: "native(lambda: evermill.cron('* * * * * *', catchup='all'))",
        ends: None,
    },
    Schedule {
        text: "native(lambda: evermill.every('50ms', catchup='all'))",
        ends: None,
    },
    Schedule {
        text: "native(lambda: evermill.loop(delay='20ms'))",
        ends: None,
    },
    Schedule {
        text: "scheduled('@continuous')",
        ends: None,
    },
    Schedule {
        text: "scheduled('@once')",
        ends: Some(1),
    },
];

struct Scene<'a> {
    schedule: &'a Schedule,
    timed: Timed,
}

impl<'a> Scene<'a> {
    fn new(schedule: &'a Schedule) -> Self {
        let text = format!("{NOTE}\n{}\n", schedule.text);
        let timed = Timed::new(&text);
        Self { schedule, timed }
    }

    fn well(&self, arguments: &[&str]) {
        let ended = self.timed.place.finish(arguments);
        let (text, said) = (self.schedule.text, &ended.stderr);
        assert_eq!(ended.code(), 0, "{text}: {arguments:?}: {said}");
    }

    /// Positions of activations that ran, each once.
    fn names(&self) -> BTreeSet<String> {
        self.timed.lines().into_iter().collect()
    }

    /// Waits until `more` activations have run than there were, as far as there will be any.
    fn until_more(&self, than: usize, more: usize) {
        let most = self.schedule.ends.map_or(usize::MAX, |ends| ends as usize);
        let wanted = (than + more).min(most);
        crate::process::eventually("activations", || {
            (self.names().len() >= wanted).then_some(())
        });
    }

    /// One run, whose counters fit to each other and to what ran.
    fn assert_once_each(&self) {
        let run = self.timed.place.ps().remove(0);
        let text = self.schedule.text;
        let of = |field: &str| run[field].as_u64().unwrap();
        let parts = ["done", "skipped", "parked", "dropped", "in_flight"];
        let sum: u64 = parts.iter().map(|part| of(part)).sum();
        assert_eq!(of("in"), sum, "{text}: {run}");
        let names = self.names().len() as u64;
        // What ran and was not committed is in flight, or nobody's yet.
        assert!(of("done") <= names, "{text}: {names} ran, {run}");
        if let Some(ends) = self.schedule.ends {
            assert_eq!(names, ends, "{text}: {run}");
        }
    }
}

fn end(running: Running) {
    running.signal(Signal::TERM);
    running.end();
}

/// Kills and orderly ends, and what is started again behind them, make no activation two and lose none.
#[test]
fn each_activation_of_a_schedule_counts_once_over_kills_and_ends() {
    for schedule in &SCHEDULES {
        let scene = Scene::new(schedule);
        for orderly in [false, true, false] {
            let before = scene.names().len();
            let running = scene.timed.run(&[]);
            scene.until_more(before, 2);
            if orderly {
                end(running);
            } else {
                running.kill();
            }
            scene.assert_once_each();
        }
        let ran = scene.names().len() as u64;
        let running = scene.timed.run(&[]);
        let done = |run: &Value| run["done"].as_u64() >= Some(ran);
        scene.timed.place.wait_for_run(done);
        end(running);
        let run = scene.timed.place.ps().remove(0);
        assert_eq!(
            run["done"].as_u64().unwrap() as usize,
            scene.names().len(),
            "{}: after an orderly end all that ran is done: {run}",
            schedule.text
        );
    }
}

/// While a run is paused nothing of it begins, over a restart too; then it goes on.
#[test]
fn a_schedule_that_is_paused_begins_nothing_until_it_is_resumed() {
    // What is over cannot be paused.
    for schedule in SCHEDULES.iter().filter(|schedule| schedule.ends.is_none()) {
        let scene = Scene::new(schedule);
        let running = scene.timed.run(&[]);
        scene.until_more(0, 2);
        scene.well(&["pause", "timed"]);
        // What was read before waits in flight.
        let rests = |run: &Value| run["state"] == "paused" && run["tasks"][0]["running"] == 0;
        scene.timed.place.wait_for_run(rests);
        let before = scene.names();
        end(running);
        let running = scene.timed.run(&[]);
        running.wait_for_lines("is paused", 1);
        assert_eq!(scene.names(), before, "{}", schedule.text);
        scene.well(&["resume", "timed"]);
        scene.until_more(before.len(), 2);
        scene.well(&["stop", "timed"]);
        end(running);
        let run = scene.timed.place.ps().remove(0);
        assert_eq!(run["state"], "stopped", "{}: {run}", schedule.text);
        scene.assert_once_each();
    }
}
