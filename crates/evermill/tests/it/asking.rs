//! Tasks in YAML that ask over HTTP, against a real server on loopback.

use evermill_http::testing::{Reply, Seen, Server};
use rustix::process::Signal;
use serde_json::Value;

use crate::mock::Mock;
use crate::process::{Ended, Place, Running};

fn run(place: &Place, server: &Server, tasks: &str, more: &[&str]) -> Ended {
    Running::start(&mut command(place, server, tasks, more)).end()
}

fn command(place: &Place, server: &Server, text: &str, more: &[&str]) -> std::process::Command {
    let file = place.file("flow.yaml", text);
    let connection = format!("--connection=http={}/api?token=geheim", server.url());
    let arguments = ["run", file.to_str().unwrap(), "--json", &connection];
    let mut command = place.evermill(arguments.iter().chain(more));
    command.env("EVERMILL_PYTHON", "no-such-python");
    command
}

fn keys(seen: &[Seen]) -> Vec<&str> {
    seen.iter()
        .filter_map(|seen| seen.header("idempotency-key"))
        .collect()
}

fn failed(run: &Value, task: &str) -> u64 {
    let tasks = run["tasks"].as_array().unwrap();
    let found = tasks.iter().find(|found| found["id"] == task).unwrap();
    found["failed"].as_u64().unwrap()
}

#[test]
fn results_go_into_requests_and_answers_become_results() {
    let server = Server::start(|seen| match &*seen.path {
        "/api/things?q=a%20b" => Reply::new(201, r#"{"id": 7}"#),
        _ => Reply::new(200, "a text\n"),
    });
    let place = Place::new();
    let text = "
dag: asks
tasks:
  list: { run: 'echo \"[1, 2]\"' }
  make:
    after: list
    http: { path: things, query: { q: a b }, headers: { X-Who: me }, body_from: list, expect: [201] }
  look: { after: make, http: { method: GET, path: /look } }
  show: { after: [make, look], stdin: make, run: 'echo \"made $(cat)\" >&2' }
  tell: { after: look, stdin: look, run: 'echo \"looked <$(cat)>\" >&2' }
";
    let ended = run(&place, &server, text, &[]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    for said in ["made {\"id\": 7}", "looked <a text>"] {
        assert!(
            ended.stderr.contains(said),
            "no {said:?} in {}",
            ended.stderr
        );
    }
    let [made, looked] = &server.seen()[..] else {
        panic!("{:?}", server.seen())
    };
    assert_eq!((&*made.method, &made.body[..]), ("POST", &b"[1, 2]"[..]));
    assert_eq!(made.header("authorization"), Some("Bearer geheim"));
    assert_eq!(made.header("content-type"), Some("application/json"));
    assert_eq!(made.header("x-who"), Some("me"));
    assert_eq!((&*looked.method, &*looked.path), ("GET", "/api/look"));
    assert_eq!(
        (looked.body.len(), looked.header("idempotency-key")),
        (0, None)
    );
    assert_eq!(keys(&server.seen()).len(), 1);
}

#[test]
fn an_event_is_sent_as_it_is_and_a_repeat_carries_the_same_key() {
    let server = Server::start(|seen| {
        let is_first = seen.connection == 0;
        // The first answer breaks off, so that nobody knows what became of the request.
        if is_first {
            Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec())
        } else {
            Reply::new(204, "")
        }
    });
    let place = Place::new();
    let broker = Mock::start(&place);
    broker.write(&[("a", "{\"n\": 1}")]);
    let text = "
dag: sends
sources: { in: { kafka: { topic: t, auto_offset_reset: earliest } } }
tasks:
  send: { after: in, http: { path: /in }, retries: 3, retry_delay: 1ms }
";
    let kafka = format!("--connection={}", broker.connection());
    let ended = run(&place, &server, text, &[&kafka, "--until-idle", "300ms"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let seen = server.seen();
    let bodies: Vec<_> = seen.iter().map(|seen| &seen.body[..]).collect();
    assert_eq!(bodies, [b"{\"n\": 1}", b"{\"n\": 1}"]);
    let keys = keys(&seen);
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
}

#[test]
fn a_status_that_may_pass_is_tried_again_and_one_that_is_our_fault_is_not() {
    let server = Server::start(|seen| match &*seen.path {
        "/api/busy" => Reply::new(503, "come back later"),
        _ => Reply::new(422, "no such colour"),
    });
    let place = Place::new();
    let text = "
dag: fails
retries: 2
retry_delay: 1ms
tasks:
  busy: { http: { path: /busy } }
  wrong: { http: { path: /wrong, body: { colour: blue } } }
";
    let ended = run(&place, &server, text, &[]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let run = ended.only_run();
    assert_eq!(
        (failed(&run, "busy"), failed(&run, "wrong")),
        (3, 1),
        "{run}"
    );
    let wrong = server.seen();
    let wrong = wrong.iter().find(|seen| seen.path == "/api/wrong").unwrap();
    assert_eq!(wrong.body, br#"{"colour":"blue"}"#);
    let parked = place.finish(["parked", "show", "fails-1/manual/manual/0"]);
    let said = format!(
        "POST {}/api/busy answered 503, not 200 to 299",
        server.url()
    );
    assert!(parked.stdout.contains(&said), "{}", parked.stdout);
    assert!(
        parked.stdout.contains("come back later"),
        "{}",
        parked.stdout
    );
}

#[test]
fn an_answer_that_never_comes_ends_with_the_timeout() {
    let server = Server::start(|_| Reply::Silence);
    let place = Place::new();
    let text = "dag: waits\ntasks:\n  ask: { http: { path: /x }, timeout: 200ms }\n";
    let ended = run(&place, &server, text, &[]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let parked = place.finish(["parked", "show", "waits-1/manual/manual/0"]);
    assert!(
        parked.stdout.contains("no answer within 200ms"),
        "{}",
        parked.stdout
    );
}

#[test]
fn a_request_that_a_drain_cut_off_is_made_again_at_the_next_start() {
    let server = Server::start(|seen| match seen.connection {
        0 => Reply::Silence,
        _ => Reply::new(200, ""),
    });
    let place = Place::new();
    let text = "dag: long\ntasks:\n  ask: { http: { path: /x }, timeout: 10m }\n";
    let grace = ["--grace", "100ms"];
    let first = Running::start(&mut command(&place, &server, text, &grace));
    assert_eq!(server.wait_for(1).len(), 1);
    first.signal(Signal::TERM);
    assert_eq!(first.end().code(), 0);
    let again = run(&place, &server, text, &[]);
    assert_eq!(again.code(), 0, "{}", again.stderr);
    let seen = server.seen();
    let keys = keys(&seen);
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
}

/// S11, K07.
#[test]
fn a_redirect_into_the_own_network_fails_and_reaches_nobody() {
    let inside = Server::start(|_| Reply::new(200, "inside"));
    let location = inside.url();
    let server = Server::start(move |_| Reply::new(307, "").with("Location", &location));
    let place = Place::new();
    let text = "dag: sent\ntasks:\n  ask: { http: { path: /x }, retries: 3 }\n";
    let ended = run(&place, &server, text, &[]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_eq!(failed(&ended.only_run(), "ask"), 1);
    assert!(inside.seen().is_empty());
}

#[test]
fn a_connection_without_an_address_or_with_a_wrong_one_is_said_before_anything_starts() {
    let place = Place::new();
    let text = "dag: asks\ntasks:\n  ask: { http: { connection: other, path: /x } }\n";
    let file = place.file("flow.yaml", text);
    let file = file.to_str().unwrap();
    let ended = place.finish(["run", file]);
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    let said = "task 'ask' needs the connection 'other', which has no address";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    let checked = place.finish(["check", file]);
    assert_eq!(checked.code(), 0, "{}", checked.stderr);
    assert!(checked.stderr.contains(said), "{}", checked.stderr);
    let ended = place.finish(["run", file, "--connection", "other=http://h?tokn=geheim"]);
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("did you mean token?"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("geheim"), "{}", ended.stderr);
}
