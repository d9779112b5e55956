//! A service over HTTP as a place to send to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evermill_connectors::limits::HTTP_SEND_BYTES_MAX;
use evermill_contract::manifest::SinkConfig;
use evermill_contract::sink::conformance::{World, check_all, plain};
use evermill_contract::sink::{Record, Sink, SinkError};
use evermill_contract::source::DiagnosticSink;
use evermill_http::testing::{Reply, Seen, Server};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

struct Service {
    server: Server,
    away: Arc<AtomicBool>,
    refused: Arc<Mutex<Option<String>>>,
}

impl Service {
    fn new() -> Self {
        let away = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(Mutex::new(None::<String>));
        let (is_away, refuses) = (Arc::clone(&away), Arc::clone(&refused));
        let server = Server::start(move |seen: &Seen| {
            let body = String::from_utf8_lossy(&seen.body);
            if is_away.load(Ordering::SeqCst) {
                Reply::new(502, "away")
            } else if refuses.lock().unwrap().as_deref() == Some(&*body) {
                Reply::new(422, "not like that")
            } else {
                Reply::new(201, "")
            }
        });
        Self {
            server,
            away,
            refused,
        }
    }

    fn taken(&self) -> impl Iterator<Item = (String, String)> {
        let refused = self.refused.lock().unwrap().clone();
        let text = |seen: &Seen| String::from_utf8_lossy(&seen.body).into_owned();
        let seen = self.server.seen().into_iter().map(move |seen| {
            let key = seen.header("idempotency-key").expect("the effect key");
            (key.to_owned(), text(&seen))
        });
        seen.filter(move |(_, body)| refused.as_ref() != Some(body))
    }
}

impl World for Service {
    fn open(&mut self) -> Box<dyn Sink> {
        open(&self.server, json!({}))
    }
    fn record(&self, value: &str, effect_key: &str) -> Record {
        to("/in", value, effect_key)
    }
    fn arrived(&mut self) -> BTreeMap<String, Vec<String>> {
        let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in self.taken() {
            arrived.entry(key).or_default().push(value);
        }
        arrived
    }
    fn order(&mut self) -> Option<Vec<String>> {
        Some(self.taken().map(|(_, value)| value).collect())
    }
    fn refuse(&mut self, value: &str) -> bool {
        *self.refused.lock().unwrap() = Some(value.to_owned());
        true
    }
    fn away(&mut self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
    fn keeps_one(&self) -> bool {
        false
    }
    fn too_large(&self) -> Option<usize> {
        Some(HTTP_SEND_BYTES_MAX + 1)
    }
}

fn to(place: &str, value: &str, effect_key: &str) -> Record {
    Record {
        name: Some(place.to_owned()),
        ..plain(value, effect_key)
    }
}

fn open_with(
    address: &str,
    more: &Value,
    diagnostics: DiagnosticSink,
) -> Result<Box<dyn Sink>, String> {
    let mut config = json!({"kind": "http", "endpoint": "/in"});
    let more = more.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(more);
    let config: SinkConfig = serde_json::from_value(config).unwrap();
    let address = Some(address.to_owned()).filter(|address| !address.is_empty());
    evermill_connectors::open_sink(&config, &|_| address.clone(), diagnostics)
        .map_err(|error| error.to_string())
}

fn open(server: &Server, more: Value) -> Box<dyn Sink> {
    open_with(&server.url(), &more, Arc::new(|_, _| {})).unwrap()
}

fn once(sink: &dyn Sink, record: Record) -> Result<(), SinkError> {
    sink.send(vec![record], PATIENCE).remove(0)
}

#[test]
fn a_service_over_http_is_a_sink() {
    check_all(Service::new);
}

#[test]
fn method_headers_place_and_sort_of_content_are_as_declared() {
    let server = Server::start(|_| Reply::new(204, ""));
    let sink = open(
        &server,
        json!({"method": "PUT", "headers": {"X-Own": "1"}, "idempotency_key": "X-Key"}),
    );
    for (value, is_list) in [(r#"{"n": 1}"#, false), ("text", false), ("1\n2\n", true)] {
        let record = Record {
            is_list,
            ..to("/orders/a%20b?x=1", value, "k")
        };
        assert_eq!(once(&*sink, record), Ok(()));
    }
    let seen = server.seen();
    assert_eq!(
        (&seen[0].method[..], &seen[0].path[..]),
        ("PUT", "/orders/a%20b?x=1")
    );
    assert_eq!(seen[0].header("x-own"), Some("1"));
    assert_eq!(seen[0].header("x-key"), Some("k"));
    let sorts: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("content-type"))
        .collect();
    assert_eq!(
        sorts,
        [
            Some("application/json"),
            Some("text/plain; charset=utf-8"),
            Some("application/x-ndjson")
        ]
    );
}

#[test]
fn what_is_deleted_already_counts_as_deleted_and_a_delete_has_no_body() {
    for status in [204, 404, 410] {
        let server = Server::start(move |_| Reply::new(status, "gone"));
        let sink = open(&server, json!({"method": "DELETE"}));
        assert_eq!(once(&*sink, to("/orders/7", r#"{"id":7}"#, "k")), Ok(()));
        let seen = server.seen();
        assert_eq!((&seen[0].method[..], seen[0].body.len()), ("DELETE", 0));
    }
}

/// F02 for what is sent: seconds and dates are honoured, and nothing is sent meanwhile.
#[test]
fn f02_retry_after_is_for_the_engines_timer_and_the_service_is_left_alone_until_then() {
    for status in [429, 503] {
        let server =
            Server::start(move |_| Reply::new(status, "slowly").with("Retry-After", "3600"));
        let sink = open(&server, json!({}));
        let begun = Instant::now();
        for n in 0..3 {
            let answer = once(&*sink, to("/in", "a", &format!("k{n}")));
            let Err(SinkError::Later { why, after }) = answer else {
                panic!("{answer:?}");
            };
            assert!(why.contains("asks for a wait of 3600 s"), "{why}");
            let passed = begun.elapsed();
            assert!(
                after <= Duration::from_secs(3600) && after + passed >= Duration::from_secs(3600)
            );
        }
        assert_eq!(server.seen().len(), 1, "it is left alone");
    }
}

#[test]
fn a_wait_that_is_over_is_over_for_all_and_the_key_is_the_same() {
    let times = AtomicUsize::new(0);
    let server = Server::start(move |_| match times.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(429, "").with("Retry-After", "0"),
        _ => Reply::new(200, ""),
    });
    let sink = open(&server, json!({}));
    let first = once(&*sink, to("/in", "a", "k"));
    let zero = Duration::ZERO;
    assert!(matches!(first, Err(SinkError::Later { after, .. }) if after == zero));
    assert_eq!(once(&*sink, to("/in", "a", "k")), Ok(()));
    let keys = server.seen();
    let keys: Vec<_> = keys
        .iter()
        .map(|seen| seen.header("idempotency-key"))
        .collect();
    assert_eq!(keys, [Some("k"); 2]);
}

#[test]
fn each_status_is_taken_for_what_it_is() {
    for (status, expected) in [
        (200, "arrived"),
        (299, "arrived"),
        (301, "may pass"),
        (304, "may pass"),
        (400, "for good"),
        (401, "may pass"),
        (403, "may pass"),
        (404, "may pass"),
        (409, "may pass"),
        (413, "for good"),
        (422, "for good"),
        (429, "may pass"),
        (500, "may pass"),
        (501, "for good"),
    ] {
        let server = Server::start(move |_| Reply::new(status, "so it is").with("Location", "/x"));
        let sink = open(&server, json!({}));
        let answer = once(&*sink, to("/in", "a", "k"));
        let found = match &answer {
            Ok(()) => "arrived",
            Err(SinkError::ForGood(_)) => "for good",
            Err(SinkError::MayPass(_)) => "may pass",
            Err(SinkError::Later { .. }) => "later",
        };
        assert_eq!(found, expected, "{status}: {answer:?}");
        if let Err(error) = answer {
            let said = error.to_string();
            assert!(
                said.contains(&status.to_string()) && (status == 304 || said.contains("so it is")),
                "{said}"
            );
        }
    }
    let server = Server::start(|_| Reply::new(409, ""));
    let sink = open(&server, json!({"expect": [200, 409]}));
    assert_eq!(once(&*sink, to("/in", "a", "k")), Ok(()));
}

#[test]
fn a_redirect_on_which_the_body_would_be_lost_is_no_arrival() {
    for (status, arrives) in [
        (301, false),
        (302, false),
        (303, false),
        (307, true),
        (308, true),
    ] {
        let server = Server::start(move |seen| match &seen.path[..] {
            "/in" => Reply::new(status, "").with("Location", "/there"),
            _ => Reply::new(200, ""),
        });
        let sink = open(&server, json!({}));
        let answer = once(&*sink, to("/in", "a", "k"));
        assert_eq!(answer.is_ok(), arrives, "{status}: {answer:?}");
        let seen = server.seen();
        if arrives {
            assert_eq!(
                (&seen[1].method[..], &seen[1].body[..]),
                ("POST", &b"a"[..])
            );
        } else {
            assert!(
                answer
                    .unwrap_err()
                    .to_string()
                    .contains("the body would be lost")
            );
            assert_eq!(seen.len(), 1);
        }
    }
}

/// F08 for what is sent: who answers may not lead into our own network.
#[test]
fn f08_a_redirect_into_our_own_network_is_refused() {
    let server = Server::start(|seen| match &seen.path[..] {
        "/in" => Reply::new(307, "").with("Location", "http://127.0.0.2:9/admin"),
        _ => Reply::new(200, ""),
    });
    let sink = open(&server, json!({}));
    let answer = once(&*sink, to("/in", "a", "k"));
    let Err(SinkError::ForGood(why)) = answer else {
        panic!("{answer:?}");
    };
    assert!(why.contains("not public"), "{why}");
}

#[test]
fn a_long_answer_to_what_arrived_is_no_failure() {
    let server = Server::start(|_| Reply::new(201, "x".repeat(1 << 20)));
    let sink = open(&server, json!({}));
    assert_eq!(once(&*sink, to("/in", "a", "k")), Ok(()));
}

#[test]
fn one_that_is_away_is_waited_for_and_said_once() {
    let times = AtomicUsize::new(0);
    let server = Server::start(move |_| match times.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Reply::new(503, "later"),
        _ => Reply::new(200, ""),
    });
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let teller = Arc::clone(&told);
    let diagnostics: DiagnosticSink =
        Arc::new(move |_, text| teller.lock().unwrap().push(text.to_owned()));
    let sink = open_with(&server.url(), &json!({}), diagnostics).unwrap();
    assert_eq!(once(&*sink, to("/in", "a", "k")), Ok(()));
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("answered 503: later"), "{told:?}");
}

#[test]
fn credentials_go_with_each_request_and_stay_out_of_every_text() {
    let server = Server::start(|_| Reply::new(400, "no"));
    let address = server.url().replace("http://", "http://ann:geheim@");
    let sink = open_with(&address, &json!({}), Arc::new(|_, _| {})).unwrap();
    let answer = once(&*sink, to("/in?token=geheim", "a", "k"));
    let said = answer.unwrap_err().to_string();
    assert!(!said.contains("geheim"), "{said}");
    let seen = server.seen();
    assert_eq!(
        seen[0].header("authorization"),
        Some("Basic YW5uOmdlaGVpbQ==")
    );
}

#[test]
fn a_connection_that_is_not_set_is_named_with_its_cure() {
    let Err(said) = open_with("", &json!({}), Arc::new(|_, _| {})) else {
        panic!("it opens");
    };
    assert!(said.contains("--connection http_default=URL"), "{said}");
}
