//! Sensors inside an activation, from the built binary: a wait is a row, and outlives the process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use evermill_http::testing::{Reply, Server};
use rustix::process::Signal;
use serde_json::json;

use crate::process::{Place, Running, eventually};

/// A server that answers what a test says.
fn told(body: &Arc<Mutex<(u16, String)>>) -> Server {
    let body = Arc::clone(body);
    Server::start(move |_| {
        let (status, text) = body.lock().unwrap().clone();
        Reply::new(status, text)
    })
}

fn say(body: &Mutex<(u16, String)>, status: u16, text: &str) {
    *body.lock().unwrap() = (status, text.to_owned());
}

fn start(place: &Place, text: &str, more: &[&str]) -> Running {
    let file = place.file("flow.py", text);
    let arguments = ["run", file.to_str().unwrap(), "--json"];
    Running::start(&mut place.evermill(arguments.iter().chain(more)))
}

const POKED: &str = r#"
import os
import evermill

@evermill.task
def before():
    print("before ran")

@evermill.sensor(poke_interval=0.05, retries=0)
def there(ctx):
    print("asked, try", ctx.try_number)
    return evermill.PokeReturnValue(os.path.exists("SIGN"), "found it")

@evermill.task
def after(found):
    print("after:", found)

@evermill.dag
def flow():
    first = before()
    sensor = there()
    first >> sensor
    after(sensor)
"#;

#[test]
fn a_sensor_is_asked_without_using_up_tries_and_waits_on_after_kill_9() {
    let place = Place::new();
    let sign = place.file("sign", "");
    std::fs::remove_file(&sign).unwrap();
    let text = POKED.replace("SIGN", sign.to_str().unwrap());
    let running = start(&place, &text, &[]);
    running.wait_for_lines("asked, try 1", 4);
    assert_eq!(running.count("before ran"), 1);
    running.kill();
    let running = start(&place, &text, &[]);
    running.wait_for_lines("asked, try 1", 2);
    assert_eq!(running.count("before ran"), 0, "it is not begun anew");
    std::fs::write(&sign, "").unwrap();
    running.wait_for_lines("after: found it", 1);
    running.signal(Signal::TERM);
    let ended = running.end();
    let run = ended.only_run();
    let counts = ["in", "done", "parked"].map(|field| run[field].as_u64().unwrap());
    assert_eq!(counts, [1, 1, 0], "{run}");
}

#[test]
fn one_that_runs_out_of_time_fails_whatever_its_retries_or_is_skipped() {
    let flow = |options: &str| {
        format!(
            "import evermill\n@evermill.sensor(poke_interval=0.02, timeout=0.3, retries=5{options})\n\
             def never(): return False\n@evermill.task\ndef after(): print('after')\n\
             @evermill.dag\ndef flow():\n    never() >> after()\n"
        )
    };
    for (options, expected) in [("", [0, 1]), (", soft_fail=True", [1, 0])] {
        let place = Place::new();
        let running = start(&place, &flow(options), &[]);
        place.wait_for_run(|run| run["in_flight"] == 0 && run["in"] == 1);
        running.signal(Signal::TERM);
        let run = running.end().only_run();
        let counts = ["skipped", "parked"].map(|field| run[field].as_u64().unwrap());
        assert_eq!(counts, expected, "{run}");
    }
}

const PLACE: &str = r#"
import evermill

@evermill.task
def before():
    return 1

@evermill.task
def after(found):
    print("after:", found)

@evermill.dag
def flow():
    after(evermill.wait_http("/model", poke_interval=0.05, after=before(), CHECK))
"#;

#[test]
fn a_place_is_asked_until_it_answers_as_it_should() {
    let body = Arc::new(Mutex::new((404, String::new())));
    let (server, place) = (told(&body), Place::new());
    let check = "select='/version', response_check={'pointer': '/state', 'equals': 'deployed'}";
    let connection = format!("--connection=http={}", server.url());
    let running = start(&place, &PLACE.replace("CHECK", check), &[&connection]);
    let more = |server: &Server| {
        let asked = server.seen().len();
        assert!(server.wait_for(asked + 2).len() >= asked + 2);
    };
    more(&server);
    say(&body, 503, "in trouble");
    running.wait_for_lines("answered 503", 1);
    say(&body, 200, r#"{"state": "pending", "version": 1}"#);
    more(&server);
    assert_eq!(running.count("after:"), 0);
    say(&body, 200, r#"{"state": "deployed", "version": 2}"#);
    running.wait_for_lines("after: 2", 1);
    running.signal(Signal::TERM);
    let run = running.end().only_run();
    assert_eq!((&run["in"], &run["done"]), (&json!(1), &json!(1)), "{run}");
}

#[test]
fn a_function_judges_what_a_place_answers_in_a_worker() {
    let body = Arc::new(Mutex::new((200, r#"{"n": 1}"#.to_owned())));
    let (server, place) = (told(&body), Place::new());
    let check =
        "response_check=lambda r: evermill.PokeReturnValue(r.json()['n'] > 1, r.json()['n'])";
    let connection = format!("--connection=http={}", server.url());
    let running = start(&place, &PLACE.replace("CHECK", check), &[&connection]);
    assert!(server.wait_for(3).len() >= 3);
    assert_eq!(running.count("after:"), 0);
    say(&body, 200, r#"{"n": 7}"#);
    running.wait_for_lines("after: 7", 1);
    running.signal(Signal::TERM);
    let run = running.end().only_run();
    assert_eq!((&run["in"], &run["done"]), (&json!(1), &json!(1)), "{run}");
}

/// Airflow's sensor fails a try on 503, and its retries decide.
#[test]
fn airflows_http_sensor_counts_trouble_as_a_failed_try() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(404, ""),
        1 => Reply::new(503, ""),
        _ => Reply::new(200, "{}"),
    });
    let place = Place::new();
    let text = "from datetime import timedelta\nfrom airflow import DAG\nfrom airflow.operators.python import PythonOperator\n\
                from airflow.providers.http.sensors.http import HttpSensor\n\
                with DAG('flow', schedule=None):\n    \
                PythonOperator(task_id='a', python_callable=lambda: 1) >> \
                HttpSensor(task_id='h', endpoint='/x', poke_interval=0.02, retries=1, retry_delay=timedelta(seconds=0.02)) >> \
                PythonOperator(task_id='b', python_callable=lambda: print('after'))\n";
    let connection = format!("--connection=http={}", server.url());
    let running = start(&place, text, &[&connection]);
    running.wait_for_lines("after", 1);
    running.signal(Signal::TERM);
    let run = running.end().only_run();
    assert_eq!((&run["in"], &run["done"]), (&json!(1), &json!(1)), "{run}");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

const POLLED: &str = r#"
import os
import evermill

def there():
    if not os.path.exists("SIGN"):
        return False
    with open("SIGN") as file:
        return evermill.PokeReturnValue(True, file.read())

@evermill.task
def after(event):
    print("found:", event.json())

@evermill.dag
def flow():
    after(evermill.poll(there, poke_interval=0.05))
"#;

#[test]
fn a_polled_function_fires_once_for_each_edge_over_kill_9() {
    let place = Place::new();
    let sign = place.file("sign", "");
    std::fs::remove_file(&sign).unwrap();
    let text = POLLED.replace("SIGN", sign.to_str().unwrap());
    let write = |text: &str| {
        // Whole at once: what is found is what was written.
        let half = place.file("half", text);
        std::fs::rename(half, &sign).unwrap();
    };
    let running = start(&place, &text, &[]);
    write("one");
    running.wait_for_lines("found: one", 1);
    place.wait_for_run(|run| run["done"] == 1);
    running.kill();
    let running = start(&place, &text, &[]);
    write("two");
    running.wait_for_lines("found: two", 1);
    assert_eq!(running.count("found: one"), 0, "the edge was seen before");
    running.signal(Signal::TERM);
    let run = running.end().only_run();
    let counts = ["in", "done"].map(|field| run[field].as_u64().unwrap());
    assert_eq!(counts, [2, 2], "{run}");
}

#[test]
fn a_polled_function_that_raises_says_so_and_is_asked_again() {
    let place = Place::new();
    let text = "import evermill\nasked = []\ndef there():\n    raise ValueError('no such thing')\n\
                @evermill.task\ndef a(event): pass\n@evermill.dag\ndef flow():\n    a(evermill.poll(there, poke_interval=0.05))\n";
    let running = start(&place, text, &[]);
    place.wait_for_run(|run| {
        let said = run["sources"][0]["degraded"].as_str();
        said.is_some_and(|said| said.contains("there failed: ValueError: no such thing"))
    });
    running.signal(Signal::TERM);
    assert_eq!(running.end().only_run()["in"], json!(0));
}

const ROOT: &str = r#"
import time
from airflow import DAG
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import PythonOperator
from airflow.sensors.base import BaseSensorOperator, PokeReturnValue

class Mine(BaseSensorOperator):
    def poke(self, context):
        time.sleep(0.2)  # Nearly all the time somebody asks, and the run is idle all the same.
        return PokeReturnValue(True, {"ds": context["ds"]})

with DAG("flow", schedule=None):
    EmptyOperator(task_id="start") >> Mine(task_id="mine", poke_interval=0.05) >> PythonOperator(task_id="after", python_callable=lambda ti: print("after"))
"#;

#[test]
fn airflows_root_sensor_listens_and_is_a_task_in_an_activation_by_hand() {
    let place = Place::new();
    let running = start(&place, ROOT, &["--until-idle", "300ms"]);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(
        ended.only_run()["in"],
        json!(1),
        "one edge, however often it is asked"
    );
    let file = place.file("flow.py", ROOT);
    let tested = place.finish(["test", file.to_str().unwrap(), "--json"]);
    assert_eq!(tested.code(), 0, "{}", tested.stderr);
    let tasks: serde_json::Value = serde_json::from_str(&tested.stdout).unwrap();
    let ids: Vec<_> = tasks["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["task_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["start", "mine", "after"], "{tasks}");
}

const ELSEWHERE: &str = r#"
from datetime import timedelta
from airflow import DAG
from airflow.operators.python import PythonOperator
from airflow.sensors.external_task import ExternalTaskSensor

with DAG("orders", schedule=timedelta(seconds=1)):
    PythonOperator(task_id="load", python_callable=lambda ts: print("loaded", ts))

with DAG("flow", schedule=timedelta(seconds=1)):
    ExternalTaskSensor(
        task_id="wait", external_dag_id="orders", external_task_id="load", poke_interval=0.05
    ) >> PythonOperator(task_id="after", python_callable=lambda ts: print("waited", ts))
"#;

#[test]
fn airflows_sensor_of_another_dag_waits_for_the_same_date() {
    let place = Place::new();
    let running = start(&place, ELSEWHERE, &[]);
    running.wait_for_lines("waited", 2);
    running.signal(Signal::TERM);
    let ended = running.end();
    let dates = |word: &str| -> Vec<String> {
        let lines = ended.stderr.lines().filter(|line| line.contains(word));
        let dates = lines.filter_map(|line| line.split(word).nth(1));
        dates.map(|date| date.trim().to_owned()).collect()
    };
    let (loaded, waited) = (dates("loaded "), dates("waited "));
    assert!(
        waited.len() >= 2 && waited.iter().all(|date| loaded.contains(date)),
        "{}",
        ended.stderr
    );
}

/// A command as source: an edge is an event, also over restarts, and what says nothing changes nothing.
#[test]
fn a_command_that_is_asked_fires_on_edges_and_not_again_after_a_restart() {
    let place = Place::new();
    let (gate, out) = (place.folder().join("gate"), place.file("out", ""));
    let text = format!(
        "dag: disks\nsources:\n  full: {{ poll: {{ run: \"test ! -e {gate}.broken || exit 7; test -e {gate} && cat {gate}\", poke_interval: 100ms }} }}\n\
         tasks:\n  tell: {{ after: full, run: \"cat >> {out}; echo >> {out}\" }}\n",
        gate = gate.display(),
        out = out.display(),
    );
    let file = place.file("disks.yaml", &text);
    let lines = || std::fs::read_to_string(&out).unwrap();
    let fired = |count: u64| {
        place.wait_for_run(|run| run["done"].as_u64() == Some(count) && run["in_flight"] == 0);
    };
    let running = Running::start(&mut place.evermill(["run", file.to_str().unwrap()]));
    place.wait_until_ready();
    std::fs::write(&gate, "{\"left\": 3}").unwrap();
    fired(1);
    running.kill();
    let running = Running::start(&mut place.evermill(["run", file.to_str().unwrap()]));
    place.wait_until_ready();
    // It says nothing: what was seen stays.
    let broken = place.folder().join("gate.broken");
    std::fs::write(&broken, "").unwrap();
    eventually("that it says nothing", || {
        let shown = place.finish(["show", "disks"]).stdout;
        shown.contains("exit code 7").then_some(())
    });
    std::fs::remove_file(&broken).unwrap();
    std::fs::write(&gate, "{\"left\": 2}").unwrap();
    fired(2);
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
    assert_eq!(lines(), "{\"left\":3}\n{\"left\":2}\n");
}
