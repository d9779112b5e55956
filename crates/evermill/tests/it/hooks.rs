//! Sources that take requests, from the built binary: what is answered with 2xx is done, once.

use evermill_http::{Client, Connection, Method, Request, Response, Target};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::{Place, Running};

mod cloud_events;
mod conforming;

const ORDERS: &str = "
import evermill

@evermill.task
def load(event):
    print('got', event.text(), dict(event.headers).get('ce-type'))

@evermill.dag
def orders():
    load(evermill.webhook(name='in'))
";

fn start(place: &Place, text: &str) -> Running {
    start_at(place, text, None)
}

/// The same, ended at a step: `name:hit:action`.
fn start_at(place: &Place, text: &str, failpoint: Option<&str>) -> Running {
    let file = place.file("orders.py", text);
    let arguments = [
        "run",
        file.to_str().unwrap(),
        "--json",
        "--listen",
        "127.0.0.1:0",
    ];
    let mut command = place.evermill(arguments);
    if let Some(failpoint) = failpoint {
        command.env("EVERMILL_FAILPOINT", failpoint);
    }
    Running::start(&mut command)
}

/// Where requests are taken.
fn way_in(running: &Running) -> String {
    behind(running, "requests are taken at ")
}

/// Where `/api/v1` and `/hooks` are answered.
fn listening_at(running: &Running) -> String {
    let said = behind(running, "listening on ");
    said.trim_end_matches('/').to_owned()
}

/// What the first line that has `words` says behind them.
fn behind(running: &Running, words: &str) -> String {
    running.wait_for_lines(words, 1);
    let lines = running.said();
    let line = lines.iter().find_map(|line| line.split_once(words));
    line.unwrap().1.trim().to_owned()
}

fn send(url: &str, headers: &[(&str, &str)], body: &str) -> Result<Response, evermill_http::Error> {
    let client = Client::new(Connection::default()).unwrap();
    let mut request = Request::new(Method::POST, Target::Written(url.to_owned()));
    let headers = headers.iter();
    request.headers = headers
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    request.body = Some(body.as_bytes().to_vec());
    client.send(&request)
}

fn kept(response: &Response) -> [u64; 2] {
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(response.status, 200, "{body}");
    ["kept", "repeated"].map(|field| body[field].as_u64().unwrap())
}

fn stopped(running: Running) -> Value {
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended.only_run()
}

#[test]
fn a_request_is_an_event_and_the_same_one_again_is_none() {
    let place = Place::new();
    let running = start(&place, ORDERS);
    let url = way_in(&running);
    assert!(url.ends_with("/hooks/orders/in"), "{url}");
    let key = [("Idempotency-Key", "k1")];
    assert_eq!(kept(&send(&url, &key, "{\"n\": 1}").unwrap()), [1, 0]);
    running.wait_for_lines("got {\"n\": 1} None", 1);
    assert_eq!(kept(&send(&url, &key, "{\"n\": 1}").unwrap()), [0, 1]);
    assert_eq!(kept(&send(&url, &[], "{\"n\": 2}").unwrap()), [1, 0]);
    running.wait_for_lines("got {\"n\": 2} None", 1);
    // Also over restarts.
    assert_eq!(stopped(running)["done"], 2);
    let running = start(&place, ORDERS);
    assert_eq!(
        kept(&send(&way_in(&running), &key, "{\"n\": 1}").unwrap()),
        [0, 1]
    );
    assert_eq!(stopped(running)["in"], 2);
}

#[test]
fn what_was_answered_with_2xx_survives_kill_9() {
    let place = Place::new();
    let gate = place.folder().join("open");
    let text = ORDERS.replace(
        "    print(",
        &format!("    import os, time\n    while not os.path.exists({gate:?}): time.sleep(0.01)\n    print("),
    );
    let running = start(&place, &text);
    let url = way_in(&running);
    for n in 0..5 {
        assert_eq!(kept(&send(&url, &[], &n.to_string()).unwrap()), [1, 0]);
    }
    running.kill();
    std::fs::write(&gate, "").unwrap();
    let running = start(&place, &text);
    place.wait_for_run(|run| run["done"] == 5);
    assert_eq!(stopped(running)["in"], 5);
}

#[test]
fn cloud_events_come_in_all_three_modes() {
    let place = Place::new();
    let running = start(&place, ORDERS);
    let url = way_in(&running);
    let event = |id: &str| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "made", "data": id});
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "a"),
        ("ce-source", "/s"),
        ("ce-type", "made"),
        ("content-type", "application/json"),
    ];
    assert_eq!(kept(&send(&url, &binary, "\"a\"").unwrap()), [1, 0]);
    let structured = [("content-type", "application/cloudevents+json")];
    assert_eq!(
        kept(&send(&url, &structured, &event("b").to_string()).unwrap()),
        [1, 0]
    );
    let batched = [("content-type", "application/cloudevents-batch+json")];
    let batch = json!([event("a"), event("c"), event("d")]).to_string();
    assert_eq!(kept(&send(&url, &batched, &batch).unwrap()), [2, 1]);
    for id in ["a", "b", "c", "d"] {
        running.wait_for_lines(&format!("got \"{id}\" b'made'"), 1);
    }
    assert_eq!(stopped(running)["done"], 4);
}

#[test]
fn what_cannot_be_taken_is_refused_with_the_reason_and_keeps_nothing() {
    let place = Place::new();
    let text = ORDERS.replace("name='in'", "name='in', secret='env:HOOK_SECRET'");
    let file = place.file("orders.py", &text);
    let arguments = [
        "run",
        file.to_str().unwrap(),
        "--json",
        "--listen",
        "127.0.0.1:0",
    ];
    let running = Running::start(place.evermill(arguments).env("HOOK_SECRET", "geheim"));
    let url = way_in(&running);
    let refused = |url: &str, headers: &[(&str, &str)], body: &str| {
        let response = send(url, headers, body).unwrap();
        (response.status, String::from_utf8(response.body).unwrap())
    };
    let (status, said) = refused(&url, &[], "{}");
    assert!(
        status == 401 && said.contains("webhook-id"),
        "{status} {said}"
    );
    assert_eq!(refused(&url.replace("/in", "/other"), &[], "{}").0, 404);
    let (status, said) = refused(&url, &[("Origin", "https://evil.example")], "{}");
    assert!(
        status == 403 && said.contains("evil.example"),
        "{status} {said}"
    );
    let long = "x".repeat((4 << 20) + 1);
    assert_eq!(refused(&url, &[], &long).0, 413);
    assert_eq!(stopped(running)["in"], 0);
}

/// Row E08, S12: bodies that are too long, are not what they say, or end nowhere. Nothing of them is kept, and the next
/// one is served.
#[test]
fn e08_a_body_without_measure_or_end_is_refused_and_hurts_nobody_else() {
    use std::io::{Read as _, Write as _};
    let place = Place::new();
    let running = start(&place, ORDERS);
    let url = way_in(&running);
    let (host, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .unwrap();
    let answer = |headers: &str, body: &[u8]| {
        let mut stream = std::net::TcpStream::connect(host).unwrap();
        let head = format!(
            "POST /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        // Whoever has gone in the midst of it sends nothing more.
        if matches!(body, b"hi" | b"5\r\nhel") {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let mut said = Vec::new();
        // A connection that is cut says nothing, which is no success either.
        stream.read_to_end(&mut said).ok();
        let said = String::from_utf8_lossy(&said).into_owned();
        let status = said.split(' ').nth(1).unwrap_or("none");
        status.to_owned()
    };
    assert_eq!(answer("content-length: 1", b"1"), "200");
    let large = b"400000\r\n".to_vec();
    let large = [large, vec![b' '; 0x40_0000], b"\r\n5\r\nhello\r\n".to_vec()].concat();
    for (headers, body) in [
        ("content-length: five", &b"hello"[..]),
        ("content-length: 5", b"hi"),
        ("content-length: 5\r\ncontent-length: 6", b"hello!"),
        (
            "transfer-encoding: chunked\r\ncontent-length: 5",
            b"5\r\nhello\r\n0\r\n\r\n",
        ),
        ("transfer-encoding: chunked", b"5\r\nhel"),
        ("transfer-encoding: chunked", b"x\r\nhello"),
        ("transfer-encoding: chunked", b"ffffffffffffffff\r\nhello"),
        ("transfer-encoding: chunked", &large),
        ("transfer-encoding: gzip", b"hello"),
    ] {
        let status = answer(headers, body);
        let refused = ["400", "408", "411", "413", "501", "none"].contains(&&*status);
        let shown = &body[..body.len().min(20)];
        assert!(refused, "{headers:?} {shown:?}: {status}");
    }
    assert_eq!(answer("content-length: 1", b"2"), "200");
    assert_eq!(
        answer("transfer-encoding: chunked", b"1\r\n3\r\n0\r\n\r\n"),
        "200"
    );
    place.wait_for_run(|run| run["done"] == 3);
    assert_eq!(stopped(running)["in"], 3);
}

/// Row E07, S07: who sends a signed request again, within its time, sends nothing new.
#[test]
fn e07_a_signed_request_is_taken_and_a_replay_of_it_is_a_repeat() {
    let place = Place::new();
    let text = ORDERS.replace("name='in'", "name='in', secret=['env:OLD', 'env:NEW']");
    let file = place.file("orders.py", &text);
    let arguments = [
        "run",
        file.to_str().unwrap(),
        "--json",
        "--listen",
        "127.0.0.1:0",
    ];
    let mut command = place.evermill(arguments);
    let running = Running::start(command.env("OLD", "one").env("NEW", "two"));
    let url = way_in(&running);
    // Signed by another program than ours.
    let sign = "import base64, hashlib, hmac, sys, time; at = str(int(time.time())); \
                code = hmac.new(b'two', f'm1.{at}.{{}}'.encode(), hashlib.sha256).digest(); \
                print(at, base64.b64encode(code).decode())";
    let signed = std::process::Command::new("python3")
        .args(["-c", sign])
        .output()
        .unwrap();
    let signed = String::from_utf8(signed.stdout).unwrap();
    let (at, code) = signed.trim().split_once(' ').unwrap();
    let signature = format!("v1,{code}");
    let headers = [
        ("webhook-id", "m1"),
        ("webhook-timestamp", at),
        ("webhook-signature", signature.as_str()),
    ];
    assert_eq!(kept(&send(&url, &headers, "{}").unwrap()), [1, 0]);
    assert_eq!(kept(&send(&url, &headers, "{}").unwrap()), [0, 1]);
    assert_eq!(stopped(running)["done"], 1);
}

/// S01.
#[test]
fn nobody_is_listened_to_from_elsewhere_and_a_missing_secret_is_said() {
    let place = Place::new();
    let file = place.file("orders.py", ORDERS);
    let file = file.to_str().unwrap();
    let ended = place.finish(["run", file, "--listen", "0.0.0.0:0"]);
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("can be reached from elsewhere"),
        "{}",
        ended.stderr
    );
    let text = ORDERS.replace("name='in'", "name='in', secret='env:NO_SUCH_SECRET'");
    let file = place.file("orders.py", &text);
    let ended = place.finish(["run", file.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("NO_SUCH_SECRET"), "{}", ended.stderr);
}

#[test]
fn the_socket_of_a_run_answers_over_tcp_too_when_it_is_asked_to() {
    let place = Place::new();
    let running = start(&place, ORDERS);
    let url = way_in(&running);
    let root = url.split("/hooks").next().unwrap();
    let client = Client::new(Connection::default()).unwrap();
    let get = |path: &str| {
        let target = Target::Written(format!("{root}{path}"));
        client.send(&Request::new(Method::GET, target)).unwrap()
    };
    assert_eq!(get("/healthz").body, br#"{"status":"ok"}"#);
    let runs: Value = serde_json::from_slice(&get("/api/v1/runs").body).unwrap();
    assert_eq!(runs["runs"][0]["dag"], "orders", "{runs}");
    assert_eq!(get("/else").status, 404);
    stopped(running);
}

/// Row E12, S13: fifty times what may wait is refused, and what was taken is done.
#[test]
fn e12_a_flood_is_refused_with_429_until_there_is_room_and_nothing_taken_is_lost() {
    let place = Place::new();
    let gate = place.folder().join("open");
    let text = format!(
        "
import os, time
import evermill

@evermill.task
def load(event):
    while not os.path.exists({gate:?}):
        time.sleep(0.01)
    print('done', len(event.value))

@evermill.dag
def orders():
    load(evermill.webhook(name='in', codec='bytes'))
"
    );
    let running = start(&place, &text);
    let url = way_in(&running);
    let body = "x".repeat(4 << 20);
    let mut taken = 0;
    // Far more than the 32 MiB that may wait.
    let refused = loop {
        let response = send(&url, &[], &body).unwrap();
        if response.status != 200 {
            break response;
        }
        taken += 1;
        assert!(taken < 32, "nothing is refused");
    };
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    std::fs::write(&gate, "").unwrap();
    place.wait_for_run(|run| run["done"] == taken);
    assert_eq!(kept(&send(&url, &[], &body).unwrap()), [1, 0]);
    running.wait_for_lines("done 4194304", taken + 1);
    assert_eq!(stopped(running)["in"], taken + 1);
}

const BY_HAND: &str = "
import evermill, os, time

@evermill.task
def work():
    while not os.path.exists(GATE): time.sleep(0.01)

@evermill.dag
def nightly():
    work()

@evermill.task
def hear(event):
    print('heard', event.text())

@evermill.dag
def flow():
    hear(evermill.signal('go'))
";

#[test]
fn activations_and_signals_over_http_count_once_for_a_key_and_strangers_are_refused() {
    let place = Place::new();
    let gate = place.folder().join("open");
    let running = start(&place, &BY_HAND.replace("GATE", &format!("{gate:?}")));
    let root = listening_at(&running);
    let ask = |path: &str, headers: &[(&str, &str)], body: &str| {
        let response = send(&format!("{root}/api/v1/{path}"), headers, body).unwrap();
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        (response.status, body)
    };
    let key = [("Idempotency-Key", "k1")];
    let trigger = "dags/nightly/trigger";
    let (status, first) = ask(trigger, &key, r#"{"day": 1}"#);
    assert_eq!((status, &first["repeated"]), (200, &json!(0)), "{first}");
    assert!(
        first["activation"]
            .as_str()
            .unwrap()
            .starts_with("nightly-")
    );
    let (_, again) = ask(trigger, &key, r#"{"day": 1}"#);
    assert_eq!(again, json!({"activation": null, "repeated": 1}));
    assert_eq!(ask(trigger, &[], "[]").0, 400, "a conf is an object");
    assert_eq!(ask("dags/nowhere/trigger", &[], "").0, 404);
    let strange = [("Origin", "https://elsewhere.example")];
    assert_eq!(ask(trigger, &strange, "").0, 403);
    let signal = "runs/flow/signals/go";
    assert_eq!(ask(signal, &key, "7").1, json!({"kept": 1, "repeated": 0}));
    assert_eq!(ask(signal, &key, "7").1, json!({"kept": 0, "repeated": 1}));
    // What waits at the gate may have every worker.
    std::fs::write(&gate, "").unwrap();
    running.wait_for_lines("heard 7", 1);
    running.signal(Signal::TERM);
    let ended = running.end();
    let runs = ended.json();
    let nightly = runs.iter().find(|run| run["dag"] == "nightly").unwrap();
    // The one that `run` gives, and one by hand.
    assert_eq!(nightly["in"], 2, "{nightly}");
}
