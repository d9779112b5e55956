//! Traces, from the built binary to a collector.

use std::collections::BTreeMap;

use evermill_http::testing::{Reply, Seen, Server};
use evermill_http::{Client, Connection, Method, Request, Target};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Place, Running};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

const FLOW: &str = "
import evermill

@evermill.task
def load(event, ctx):
    print('state', ctx.tracestate)
    print('span', ctx.traceparent)
    return {'n': 1}

@evermill.dag
def flow():
    evermill.to_http('/sent', load(evermill.webhook(name='in')))
";

const IN_YAML: &str = "dag: flow\nsources: { in: { webhook: {} } }\ntasks:\n  note: { after: [in], run: \"echo state ${TRACESTATE:-none} >&2; echo span ${TRACEPARENT:-none} >&2\" }\n";
/// What the systems before us know of the trace.
const STATE: &str = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";

fn start(place: &Place, name: &str, text: &str, more: &[&str]) -> Running {
    let file = place.file(name, text);
    let usual = [
        "run",
        file.to_str().unwrap(),
        "--json",
        "--listen",
        "127.0.0.1:0",
    ];
    Running::start(&mut place.evermill(usual.iter().chain(more)))
}

/// An event that came with this flag, or with no header.
fn send(running: &Running, flags: Option<&str>) {
    const SAID: &str = "requests are taken at ";
    running.wait_for_lines(SAID, 1);
    let lines = running.said();
    let line = lines.iter().find_map(|line| line.split_once(SAID));
    let url = line.unwrap().1.trim().to_owned();
    let mut request = Request::new(Method::POST, Target::Written(url));
    // Without a span it means nothing.
    request.headers = vec![("Tracestate".to_owned(), STATE.to_owned())];
    let header = flags.map(|flags| format!("00-{TRACE}-{SPAN}-{flags}"));
    request
        .headers
        .extend(header.map(|header| ("Traceparent".to_owned(), header)));
    request.body = Some(b"{}".to_vec());
    let client = Client::new(Connection::default()).unwrap();
    assert_eq!(client.send(&request).unwrap().status, 200);
}

fn get(running: &Running, path: &str) -> String {
    const SAID: &str = "listening on ";
    running.wait_for_lines(SAID, 1);
    let lines = running.said();
    let url = lines
        .iter()
        .find_map(|line| line.strip_prefix(SAID))
        .unwrap();
    let request = Request::new(Method::GET, Target::Written(format!("{url}{path}")));
    let client = Client::new(Connection::default()).unwrap();
    let answer = client.send(&request).unwrap();
    String::from_utf8_lossy(&answer.body).into_owned()
}

fn stop(running: Running) -> Value {
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended.only_run()
}

/// What a collector was told, by name; several of one name, in order.
fn spans(seen: &[Seen]) -> BTreeMap<String, Vec<Value>> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for request in seen.iter().filter(|seen| seen.path == "/v1/traces") {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"]
            .as_array()
            .unwrap()
        {
            let name = span["name"].as_str().unwrap().to_owned();
            found.entry(name).or_default().push(span.clone());
        }
    }
    found
}

fn line_of(running: &Running) -> String {
    running.wait_for_lines("span ", 1);
    let lines = running.said();
    let line = lines.iter().find_map(|line| line.split_once("span "));
    line.unwrap().1.trim().to_owned()
}

#[test]
fn an_event_goes_on_in_the_trace_that_it_came_with_through_tasks_to_what_they_send() {
    let server = Server::start(|_| Reply::new(200, "{}"));
    let place = Place::new();
    let (connection, url) = (format!("http={}", server.url()), server.url());
    let more = ["--connection", &connection, "--otlp-endpoint", &url];
    let running = start(&place, "flow.py", FLOW, &more);
    send(&running, Some("01"));
    let handed_on = line_of(&running);
    assert_eq!(running.count(&format!("state {STATE}")), 1);
    drop(server.wait_for(1));
    assert_eq!(stop(running)["done"], 1);
    let seen = server.seen();
    let spans = spans(&seen);
    let root = &spans["flow in"][0];
    assert_eq!(
        (&root["traceId"], &root["parentSpanId"]),
        (&TRACE.into(), &SPAN.into())
    );
    assert_eq!(root["kind"], 5);
    let load = &spans["load"][0];
    assert_eq!(
        handed_on,
        format!("00-{TRACE}-{}-01", load["spanId"].as_str().unwrap())
    );
    // What was sent outside has the span of the task that sent it.
    let sent = seen.iter().find(|seen| seen.path == "/sent").unwrap();
    assert_eq!(sent.header("tracestate"), Some(STATE));
    let header = sent.header("traceparent").unwrap();
    let of_sender = header.split('-').nth(2).unwrap();
    let all = || spans.values().flatten();
    let sender = all()
        .find(|span| span["spanId"] == of_sender)
        .expect("the span of the sender");
    assert!(!["load", "commit", "flow in"].contains(&sender["name"].as_str().unwrap()));
    let time = |span: &Value, name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    for span in [load, sender, &spans["commit"][0]] {
        assert_eq!(span["traceId"], TRACE);
        assert_eq!(span["parentSpanId"], root["spanId"]);
        assert!(time(span, "startTimeUnixNano") <= time(span, "endTimeUnixNano"));
        assert!(time(span, "endTimeUnixNano") <= time(root, "endTimeUnixNano"));
    }
    assert_eq!(all().count(), 4, "{spans:?}");
}

#[test]
fn an_event_without_a_trace_begins_one_and_one_that_is_not_sampled_is_not_told() {
    let server = Server::start(|_| Reply::new(200, "{}"));
    let place = Place::new();
    let mut command = place.evermill([
        "run",
        place.file("flow.yaml", IN_YAML).to_str().unwrap(),
        "--json",
        "--listen",
        "127.0.0.1:0",
    ]);
    // As any program of OpenTelemetry is told.
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", server.url());
    let running = Running::start(&mut command);
    send(&running, Some("00"));
    let unsampled = line_of(&running);
    assert!(unsampled.starts_with(&format!("00-{TRACE}-")) && unsampled.ends_with("-00"));
    send(&running, None);
    running.wait_for_lines("span ", 2);
    assert_eq!(stop(running)["done"], 2);
    let spans = spans(&server.seen());
    assert_eq!(spans["flow in"].len(), 1, "{spans:?}");
    let root = &spans["flow in"][0];
    assert!(root.get("parentSpanId").is_none());
    assert_ne!(root["traceId"], TRACE);
    assert_eq!(spans["note"][0]["traceId"], root["traceId"]);
}

#[test]
fn without_a_collector_what_an_event_brought_is_handed_on_as_it_is() {
    let place = Place::new();
    let running = start(&place, "flow.yaml", IN_YAML, &[]);
    send(&running, Some("01"));
    assert_eq!(line_of(&running), format!("00-{TRACE}-{SPAN}-01"));
    send(&running, None);
    running.wait_for_lines("span none", 1);
    assert_eq!(running.count(&format!("state {STATE}")), 1);
    assert_eq!(running.count("state none"), 1);
    assert_eq!(stop(running)["done"], 2);
}

#[test]
fn a_collector_that_is_away_costs_traces_and_nothing_else() {
    let place = Place::new();
    // Nobody listens on the port of discard.
    let running = start(
        &place,
        "flow.yaml",
        IN_YAML,
        &["--otlp-endpoint", "http://127.0.0.1:9"],
    );
    send(&running, Some("01"));
    running.wait_for_lines("span ", 1);
    running.wait_for_lines("warning: traces: ", 1);
    assert!(running.said().iter().any(|line| line.contains("4318")));
    let metrics = get(&running, "/metrics");
    for line in [
        "evermill_traces_lost_total 1",
        "evermill_traces_left_out_total 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
    assert_eq!(stop(running)["done"], 1);
}

#[test]
fn a_place_that_is_no_url_is_refused_before_anything_runs() {
    let place = Place::new();
    place.file("flow.yaml", IN_YAML);
    let ended = place.finish([
        "run",
        "flow.yaml",
        "--otlp-endpoint",
        "ftp://localhost:4318",
    ]);
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    for part in ["--otlp-endpoint", "http[s]://HOST"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}
