//! Sources that ask over HTTP, from the built binary to a real server on loopback.

use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use evermill_http::testing::{Reply, Server};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::{Place, Running, eventually};

/// The seed's second file, as it is.
fn pipeline() -> String {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/model_update_pipeline.py");
    std::fs::read_to_string(file).unwrap()
}

/// The same with a server that is asked as often as possible.
fn impatient() -> String {
    pipeline().replace("poke_interval=60", "poke_interval=0.05")
}

/// A server whose model is deployed (200), pending (404), or that is in trouble (503) or silent (0).
struct Models {
    status: Arc<AtomicU16>,
    server: Server,
}

impl Models {
    fn start(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let told = Arc::clone(&status);
        let server = Server::start(move |_| match told.load(Ordering::SeqCst) {
            0 => Reply::Silence,
            status => Reply::new(status, "{}"),
        });
        Self { status, server }
    }

    /// Changes what it says, and waits until it has said so twice.
    fn say(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
        let asked = self.server.seen().len();
        // The first of them may have been asked before the change.
        assert!(self.server.wait_for(asked + 3).len() >= asked + 3);
    }

    fn command(&self, place: &Place, text: &str, more: &[&str]) -> std::process::Command {
        let file = place.file("models.py", text);
        let connection = format!("--connection=http={}?timeout=200ms", self.server.url());
        let arguments = ["run", file.to_str().unwrap(), "--json", &connection];
        place.evermill(arguments.iter().chain(more))
    }

    fn run(&self, place: &Place, text: &str) -> Running {
        Running::start(&mut self.command(place, text, &[]))
    }
}

const WORKED: &str = "Retraining model with updated data...";

fn stopped(running: Running) -> Value {
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended.only_run()
}

#[test]
fn the_seeds_second_file_fires_when_the_model_is_deployed() {
    let models = Models::start(200);
    let place = Place::new();
    let running = models.run(&place, &pipeline());
    running.wait_for_lines(WORKED, 1);
    let run = stopped(running);
    assert_eq!((&run["in"], &run["done"]), (&json!(1), &json!(1)), "{run}");
    let seen = models.server.seen();
    assert_eq!(seen.len(), 1, "it asks once a minute");
    assert_eq!(seen[0].path, "/model/deployment_status?status=deployed");
}

#[test]
fn each_edge_fires_once_whatever_happens_in_between() {
    let models = Models::start(404);
    let place = Place::new();
    let running = models.run(&place, &impatient());
    models.say(404);
    models.say(200);
    running.wait_for_lines(WORKED, 1);
    // Still true, in trouble, silent, true again: no edge.
    for status in [200, 503, 0, 200] {
        models.say(status);
    }
    assert_eq!(running.count(WORKED), 1);
    models.say(404);
    models.say(200);
    running.wait_for_lines(WORKED, 2);
    let run = stopped(running);
    assert_eq!((&run["in"], &run["done"]), (&json!(2), &json!(2)), "{run}");
}

/// F11.
#[test]
fn what_was_seen_survives_kill_9() {
    let models = Models::start(404);
    let place = Place::new();
    for round in 1..=3 {
        models.status.store(404, Ordering::SeqCst);
        let running = models.run(&place, &impatient());
        models.say(404);
        // True while nobody looks, for all but the first round.
        if round > 1 {
            running.kill();
            models.status.store(200, Ordering::SeqCst);
            let running = models.run(&place, &impatient());
            place.wait_for_run(|run| run["done"] == round);
            models.say(200);
            running.kill();
        } else {
            models.say(200);
            place.wait_for_run(|run| run["done"] == round);
            running.kill();
        }
        let running = models.run(&place, &impatient());
        models.say(200);
        models.say(503);
        models.say(200);
        let run = stopped(running);
        let counts = ["in", "done", "in_flight"].map(|field| run[field].as_u64().unwrap());
        assert_eq!(counts, [round, round, 0], "{run}");
    }
}

/// F13.
#[test]
fn a_kill_at_any_step_of_an_edge_neither_loses_nor_repeats_it() {
    for step in [
        "receive.delivered",
        "inbox.accepted",
        "inbox.kept",
        "inbox.fed",
        "receive.kept",
        "dispatch.sent",
    ] {
        let models = Models::start(200);
        let place = Place::new();
        let mut command = models.command(&place, &impatient(), &[]);
        command.env("EVERMILL_FAILPOINT", format!("{step}:1:abort"));
        let ended = Running::start(&mut command).end();
        assert_eq!(ended.status.code(), None, "{step}: {}", ended.stderr);
        let running = models.run(&place, &impatient());
        place.wait_for_run(|run| run["done"] == 1);
        models.say(200);
        let run = stopped(running);
        let counts = ["in", "done"].map(|field| run[field].as_u64().unwrap());
        assert_eq!(counts, [1, 1], "{step}: {run}");
    }
}

#[test]
fn an_answer_that_names_another_status_is_not_what_was_asked_for() {
    let place = Place::new();
    let says = |status: &'static str| {
        Server::start(move |_| Reply::new(200, format!("{{\"status\": \"{status}\"}}")))
    };
    for (status, fired) in [("pending", 0), ("deployed", 1)] {
        let server = says(status);
        let file = place.file("models.py", &impatient());
        let connection = format!("--connection=http={}", server.url());
        let arguments = ["run", file.to_str().unwrap(), "--json", &connection];
        let ended = place.finish(arguments.into_iter().chain(["--until-idle", "100ms"]));
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert_eq!(ended.only_run()["in"], fired, "{status}");
    }
}

const NATIVE: &str = "
import evermill

@evermill.task
def show(event):
    print('got', event.text(), event.headers, event.source)

@evermill.dag
def versions():
    show(evermill.http('/models/latest', select='/version', poke_interval=0.05,
                       response_check={'pointer': '/state', 'equals': 'deployed'}))
";

#[test]
fn a_change_of_what_is_selected_is_an_event_with_that_value() {
    let version = Arc::new(AtomicU16::new(1));
    let told = Arc::clone(&version);
    let server = Server::start(move |_| {
        let version = told.load(Ordering::SeqCst);
        let state = if version == 3 { "pending" } else { "deployed" };
        Reply::new(200, json!({"version": version, "state": state}).to_string())
    });
    let place = Place::new();
    let file = place.file("versions.py", NATIVE);
    let connection = format!("--connection=http={}", server.url());
    let arguments = ["run", file.to_str().unwrap(), "--json", &connection];
    let running = Running::start(&mut place.evermill(arguments));
    running.wait_for_lines("got 1 [('content-type', b'application/json')] http", 1);
    version.store(2, Ordering::SeqCst);
    running.wait_for_lines("got 2", 1);
    version.store(3, Ordering::SeqCst);
    let asked = server.seen().len();
    assert!(server.wait_for(asked + 3).len() > asked);
    version.store(4, Ordering::SeqCst);
    running.wait_for_lines("got 4", 1);
    assert_eq!(stopped(running)["in"], 3);
}

const LIST: &str = "
import evermill

@evermill.task
def show(event):
    print('item', event.json()['id'])

@evermill.dag
def items():
    show(evermill.http('/items', cursor='since', poke_interval=0.05))
";

#[test]
fn each_item_of_a_list_is_an_event_once_over_restarts() {
    let newest = Arc::new(AtomicU16::new(5));
    let told = Arc::clone(&newest);
    let server = Server::start(move |seen| {
        let since = seen.path.split_once("since=");
        let since: u16 = since.map_or(0, |(_, id)| id.parse().unwrap());
        let newest = told.load(Ordering::SeqCst);
        let page: Value = (since + 1..=newest)
            .take(2)
            .map(|id| json!({"id": id}))
            .collect();
        Reply::new(200, page.to_string())
    });
    let place = Place::new();
    let file = place.file("items.py", LIST);
    let connection = format!("--connection=http={}", server.url());
    let arguments = ["run", file.to_str().unwrap(), "--json", &connection];
    let first = Running::start(&mut place.evermill(arguments));
    first.wait_for_lines("item ", 5);
    first.kill();
    newest.store(8, Ordering::SeqCst);
    let second = Running::start(&mut place.evermill(arguments));
    place.wait_for_run(|run| run["done"] == 8);
    let run = stopped(second);
    assert_eq!((&run["in"], &run["done"]), (&json!(8), &json!(8)), "{run}");
}

#[test]
fn a_server_that_is_away_is_said_and_waited_for() {
    let place = Place::new();
    let file = place.file("models.py", &impatient());
    let run = [
        "run",
        file.to_str().unwrap(),
        "--connection",
        "http=127.0.0.1:9",
    ];
    let running = Running::start(&mut place.evermill(run));
    let said = eventually("it is said", || {
        let runs = place.finish(["ps", "--json"]);
        let runs = (runs.code() == 0).then(|| runs.json())?;
        let degraded = &runs.first()?["sources"][0]["degraded"];
        degraded.as_str().map(str::to_owned)
    });
    assert!(
        said.contains("http://127.0.0.1:9/model/deployment_status"),
        "{said}"
    );
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
}

#[test]
fn a_place_can_be_polled_from_yaml() {
    let server = Server::start(|_| Reply::new(200, json!({"version": 7}).to_string()));
    let place = Place::new();
    let text = "
dag: versions
sources:
  model: { http: { endpoint: /latest, poke_interval: 50ms, select: /version, response_check: { pointer: /version, above: 6 } } }
tasks:
  show: { after: model, run: 'echo \"version $(cat) of $EVERMILL_SOURCE\" >&2' }
";
    let file = place.file("versions.yaml", text);
    let connection = format!("--connection=http={}", server.url());
    let ended = place.finish([
        "run",
        file.to_str().unwrap(),
        &connection,
        "--until-idle",
        "200ms",
    ]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("version 7 of model"),
        "{}",
        ended.stderr
    );
}

/// The seed's second file with a function of its own.
fn with_function() -> String {
    let check = "response_check=lambda response: response.json().get('ready'), poke_interval=0.05";
    pipeline().replace("poke_interval=60", check)
}

/// A server whose answer is JSON that a test changes.
fn told(body: &Arc<Mutex<String>>) -> Server {
    let body = Arc::clone(body);
    Server::start(move |_| Reply::new(200, body.lock().unwrap().clone()))
}

fn run_against(server: &Server, place: &Place, text: &str, failpoint: Option<&str>) -> Running {
    let file = place.file("models.py", text);
    let connection = format!("--connection=http={}?timeout=2s", server.url());
    let mut command = place.evermill(["run", file.to_str().unwrap(), "--json", &connection]);
    if let Some(step) = failpoint {
        command.env("EVERMILL_FAILPOINT", format!("{step}:1:abort"));
    }
    Running::start(&mut command)
}

/// F02, F11: true, false and what a function cannot say.
#[test]
fn a_function_of_the_file_decides_what_an_answer_means() {
    let body = Arc::new(Mutex::new(r#"{"ready": false}"#.to_owned()));
    let (server, place) = (told(&body), Place::new());
    let say = |text: &str| {
        text.clone_into(&mut body.lock().unwrap());
        let asked = server.seen().len();
        assert!(server.wait_for(asked + 3).len() >= asked + 3);
    };
    let running = run_against(&server, &place, &with_function(), None);
    say(r#"{"ready": false}"#);
    say(r#"{"ready": true}"#);
    running.wait_for_lines(WORKED, 1);
    // The function raises: nothing changes.
    say("no JSON");
    say(r#"{"ready": true}"#);
    assert_eq!(running.count(WORKED), 1);
    say(r#"{"ready": false}"#);
    say(r#"{"ready": true}"#);
    running.wait_for_lines(WORKED, 2);
    let run = stopped(running);
    assert_eq!((&run["in"], &run["done"]), (&json!(2), &json!(2)), "{run}");
}

/// F11, F13: the worker, the engine, before and after the commit.
#[test]
fn a_kill_while_a_function_judges_neither_loses_nor_repeats_an_edge() {
    for step in [
        "inquiry.sent",
        "inquiry.answered",
        "receive.delivered",
        "inbox.kept",
    ] {
        let body = Arc::new(Mutex::new(r#"{"ready": true}"#.to_owned()));
        let (server, place) = (told(&body), Place::new());
        let ended = run_against(&server, &place, &with_function(), Some(step)).end();
        assert_eq!(ended.status.code(), None, "{step}: {}", ended.stderr);
        let running = run_against(&server, &place, &with_function(), None);
        place.wait_for_run(|run| run["done"] == 1);
        let asked = server.seen().len();
        assert!(server.wait_for(asked + 3).len() >= asked + 3);
        let run = stopped(running);
        let counts = ["in", "done"].map(|field| run[field].as_u64().unwrap());
        assert_eq!(counts, [1, 1], "{step}: {run}");
    }
}

#[test]
fn a_function_that_ends_its_worker_says_nothing_and_the_source_asks_on() {
    let body = Arc::new(Mutex::new(r#"{"ready": true, "die": true}"#.to_owned()));
    let (server, place) = (told(&body), Place::new());
    let deadly = pipeline().replace(
        "poke_interval=60",
        "response_check=lambda r: __import__('os')._exit(3) if r.json().get('die') else r.json()['ready'], poke_interval=0.05",
    );
    let running = run_against(&server, &place, &deadly, None);
    running.wait_for_lines(
        "response_check failed: the worker process ended by itself with status 3",
        1,
    );
    r#"{"ready": true}"#.clone_into(&mut body.lock().unwrap());
    running.wait_for_lines(WORKED, 1);
    let run = stopped(running);
    assert_eq!((&run["in"], &run["done"]), (&json!(1), &json!(1)), "{run}");
}
