//! Values that go to a service over HTTP, from the built binary to a real server on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use evermill::{Ctx, Dag, Engine, Event, kafka, to_http};
use evermill_http::testing::{Reply, Seen, Server};
use serde_json::json;

use crate::mock::Mock;
use crate::process::{Ended, Place, Running, eventually};

/// Doubles numbers; what is odd is left out.
fn dag(options: &str) -> String {
    format!(
        r#"
import evermill

@evermill.task
def double(event):
    n = int(event.text())
    return {{"n": n, "twice": 2 * n}} if n % 2 == 0 else None

@evermill.dag
def pipeline():
    doubled = double(evermill.kafka("t", auto_offset_reset="earliest"))
    evermill.to_http("/orders/{{/n}}", doubled{options})
"#
    )
}

fn start(place: &Place, broker: &Mock, server: &Server, file: &str, more: &[&str]) -> Running {
    let connections = [
        format!("--connection={}", broker.connection()),
        format!("--connection=http={}/api", server.url()),
    ];
    let mut command = place.evermill(["run", file, "--json"]);
    Running::start(command.args(connections).args(more))
}

/// Runs until nothing has happened for so long.
fn to_the_end(place: &Place, broker: &Mock, server: &Server, quiet: &str) -> Ended {
    start(place, broker, server, "dag.py", &["--until-idle", quiet]).end()
}

fn numbers(count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|n| (format!("k{n}"), n.to_string()))
        .collect()
}

fn write(broker: &Mock, count: usize) {
    let numbers = numbers(count);
    let pairs: Vec<_> = numbers.iter().map(|(key, n)| (&key[..], &n[..])).collect();
    broker.write(&pairs);
}

fn key(seen: &Seen) -> String {
    seen.header("idempotency-key")
        .expect("the effect key")
        .to_owned()
}

#[test]
fn results_arrive_once_each_at_a_place_of_their_own_with_their_effect_key() {
    let (place, server) = (Place::new(), Server::start(|_| Reply::new(201, "")));
    let broker = Mock::start(&place);
    write(&broker, 40);
    place.file("dag.py", &dag(r#", method="PUT""#));
    let ended = to_the_end(&place, &broker, &server, "200ms");
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let run = ended.only_run();
    assert_eq!(
        (&run["done"], &run["skipped"]),
        (&20.into(), &20.into()),
        "{run}"
    );
    let seen = server.seen();
    let keys: BTreeSet<_> = seen.iter().map(key).collect();
    assert_eq!((seen.len(), keys.len()), (20, 20), "once each");
    for seen in seen {
        let n: u64 = seen
            .path
            .strip_prefix("/api/orders/")
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(seen.method, "PUT");
        assert_eq!(
            seen.body,
            format!(r#"{{"n":{n},"twice":{}}}"#, 2 * n).into_bytes()
        );
    }
}

#[test]
fn a_kill_loses_nothing_and_what_comes_twice_has_the_same_effect_key() {
    let place = Place::new();
    let server = Server::start(|_| Reply::new(200, ""));
    let broker = Mock::start(&place);
    place.file("dag.py", &dag(""));
    write(&broker, 400);
    for round in 1..=2 {
        let running = start(&place, &broker, &server, "dag.py", &[]);
        // Killed while some are on their way.
        eventually("some are through", || {
            (server.seen().len() >= round * 60).then_some(())
        });
        running.kill();
    }
    let ended = to_the_end(&place, &broker, &server, "300ms");
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], 200);
    let mut by_effect: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for seen in server.seen() {
        by_effect.entry(key(&seen)).or_default().insert(seen.body);
    }
    assert_eq!(by_effect.len(), 200, "each has arrived");
    assert!(by_effect.values().all(|values| values.len() == 1));
}

#[test]
fn under_an_order_requests_arrive_in_it() {
    let (place, server) = (Place::new(), Server::start(|_| Reply::new(200, "")));
    let broker = Mock::start(&place);
    write(&broker, 60);
    let text = dag("").replace("@evermill.dag", "@evermill.dag(order='partition')");
    place.file("dag.py", &text);
    let ended = to_the_end(&place, &broker, &server, "200ms");
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let number = |seen: Seen| -> u64 {
        seen.path
            .strip_prefix("/api/orders/")
            .unwrap()
            .parse()
            .unwrap()
    };
    let found: Vec<_> = server.seen().into_iter().map(number).collect();
    let wanted: Vec<u64> = (0..60).step_by(2).collect();
    assert_eq!(found, wanted);
}

/// Retry-After goes into the timer of the retry: nothing is asked before, and a `kill -9` forgets nothing.
#[test]
fn retry_after_is_a_retry_with_a_timer_and_survives_a_kill() {
    let place = Place::new();
    let times = AtomicUsize::new(0);
    let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let noted = Arc::clone(&asked);
    let server = Server::start(move |_| {
        noted.lock().unwrap().push(Instant::now());
        match times.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::new(429, "slowly").with("Retry-After", "2"),
            _ => Reply::new(200, ""),
        }
    });
    let broker = Mock::start(&place);
    broker.write(&[("a", "2")]);
    place.file("dag.py", &dag(", retry_delay='1ms'"));
    let running = start(&place, &broker, &server, "dag.py", &[]);
    place.wait_for_run(|run| run["tasks"][1]["failed"] == 1);
    running.kill();
    let ended = to_the_end(&place, &broker, &server, "100ms");
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], 1);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2, "asked only when it was time");
    assert!(asked[1] - asked[0] >= Duration::from_secs(2));
    let seen = server.seen();
    assert_eq!(key(&seen[0]), key(&seen[1]));
}

#[test]
fn what_the_service_never_takes_is_parked_and_says_why() {
    let place = Place::new();
    let server = Server::start(|_| Reply::new(422, "n is too small"));
    let broker = Mock::start(&place);
    broker.write(&[("a", "2")]);
    place.file("dag.py", &dag(""));
    let ended = to_the_end(&place, &broker, &server, "200ms");
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_eq!(ended.only_run()["parked"], 1);
    let shown = place.finish(["parked", "ls", "pipeline"]);
    assert!(
        shown.stdout.contains("answered 422: n is"),
        "{}{}",
        shown.stdout,
        shown.stderr
    );
    assert_eq!(server.seen().len(), 1, "it is not asked again");
}

#[test]
fn a_value_that_would_lead_elsewhere_is_parked_and_nothing_is_asked() {
    let (place, server) = (Place::new(), Server::start(|_| Reply::new(200, "")));
    let broker = Mock::start(&place);
    broker.write(&[("..", "1"), ("a/b", "2")]);
    place.file(
        "flow.yaml",
        "dag: flow\n\
         sources: { in: { kafka: { topic: t, auto_offset_reset: earliest } } }\n\
         tasks:\n  out: { after: in, to_http: { endpoint: '/of/{key}', method: PUT } }\n",
    );
    let ended = start(
        &place,
        &broker,
        &server,
        "flow.yaml",
        &["--until-idle", "200ms"],
    )
    .end();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let run = ended.only_run();
    assert_eq!((&run["done"], &run["parked"]), (&1.into(), &1.into()));
    let paths: Vec<_> = server.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/api/of/a%2Fb"]);
    let shown = place.finish(["parked", "ls", "flow"]);
    assert!(
        shown.stdout.contains("leads to another folder"),
        "{}",
        shown.stdout
    );
}

#[test]
fn a_service_that_is_away_is_waited_for_and_said() {
    let place = Place::new();
    let there = Arc::new(AtomicBool::new(false));
    let is_there = Arc::clone(&there);
    let server = Server::start(move |_| match is_there.load(Ordering::SeqCst) {
        true => Reply::new(200, ""),
        false => Reply::new(502, "no upstream"),
    });
    let broker = Mock::start(&place);
    write(&broker, 10);
    place.file("dag.py", &dag(""));
    let running = start(
        &place,
        &broker,
        &server,
        "dag.py",
        &["--until-idle", "200ms"],
    );
    running.wait_for_lines(
        "answered 502: no upstream; it is sent again until it arrives",
        1,
    );
    there.store(true, Ordering::SeqCst);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(
        ended.only_run()["tasks"][1]["failed"],
        0,
        "no try was used up"
    );
}

#[test]
fn a_request_in_yaml_waits_as_long_as_the_service_asks() {
    let place = Place::new();
    let times = AtomicUsize::new(0);
    let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let noted = Arc::clone(&asked);
    let server = Server::start(move |_| {
        noted.lock().unwrap().push(Instant::now());
        match times.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::new(503, "soon").with("Retry-After", "2"),
            _ => Reply::new(200, "[]"),
        }
    });
    let text = format!(
        "dag: ask\ntasks:\n  get: {{ http: {{ url: '{}/x' }}, retries: 1, retry_delay: 1ms }}\n",
        server.url()
    );
    let file = place.file("ask.yaml", &text);
    let ended = place.finish(["run".as_ref(), file.as_os_str(), "--json".as_ref()]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let asked = asked.lock().unwrap();
    assert!(asked[1] - asked[0] >= Duration::from_secs(2));
}

#[test]
fn a_dag_of_closures_sends_what_a_closure_returned() {
    let (place, server) = (Place::new(), Server::start(|_| Reply::new(200, "")));
    let broker = Mock::start(&place);
    write(&broker, 4);
    let dag = Dag::new("flow")
        .source("in", kafka::topic("t").from_earliest())
        .task("double", &["in"], async |event: Event, _: Ctx| {
            let n: u64 = event.text()?.parse().unwrap();
            Ok(n.is_multiple_of(2).then(|| json!({"n": n})))
        })
        .send(
            "out",
            "double",
            to_http("/n/{/n}").method("PUT").header("X-Of", "1"),
        );
    let address = broker.connection();
    let running = Engine::local(place.data_dir())
        .connection("kafka_default", address.strip_prefix("kafka=").unwrap())
        .connection("http_default", &server.url())
        .start(dag)
        .unwrap();
    running.wait_idle(Duration::from_millis(200));
    let run = running.drain(Duration::from_secs(10)).unwrap();
    assert_eq!((run.done, run.skipped, run.parked), (2, 2, 0));
    let mut paths: Vec<_> = server.seen().into_iter().map(|seen| seen.path).collect();
    paths.sort();
    assert_eq!(paths, ["/n/0", "/n/2"]);
    assert_eq!(server.seen()[0].header("x-of"), Some("1"));
}

#[test]
fn check_draws_where_a_value_goes_and_names_a_connection_without_an_address() {
    let place = Place::new();
    place.file("dag.py", &dag(r#", method="PATCH""#));
    let checked = place.finish(["check", "dag.py"]);
    let all = format!("{}{}", checked.stdout, checked.stderr);
    for said in [
        "to PATCH /orders/{/n} · connection http_default",
        "connection 'http_default', which has no address here",
    ] {
        assert!(all.contains(said), "{all}");
    }
}

#[test]
fn what_cannot_be_in_yaml_is_said_with_line_and_cure() {
    let place = Place::new();
    for (to, said) in [
        ("{ method: PUT }", "has no endpoint"),
        ("{ endpoint: '/x/{id}' }", "{/customer/id}"),
        ("{ endpoint: 'https://{key}/x' }", "behind the host"),
        ("{ endpoint: /x, method: GET }", "POST, PUT, PATCH, DELETE"),
        ("{ endpoint: /x, idempotency_key: true }", "a header's name"),
        ("{ endpoint: /x, exepct: 201 }", "did you mean 'expect'?"),
    ] {
        let text = format!(
            "dag: flow\nsources: {{ in: {{ every: 1s }} }}\ntasks:\n  out: {{ after: in, to_http: {to} }}\n"
        );
        place.file("flow.yaml", &text);
        let checked = place.finish(["check", "flow.yaml"]);
        assert_eq!(checked.code(), 3, "{to}");
        let all = format!("{}{}", checked.stdout, checked.stderr);
        assert!(
            all.contains("flow.yaml:4") && all.contains(said),
            "{to}: {all}"
        );
    }
}
