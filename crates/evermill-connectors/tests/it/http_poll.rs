//! The HTTP source against a real server on loopback, driven as the engine drives it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_connectors::Environment;
use evermill_contract::manifest::SourceConfig;
use evermill_contract::source::conformance::receiving::{Place, check_all};
use evermill_contract::source::{
    Delivery, Inquiry, Opened, Received, Receiver, Reply as Said, SourceBudget, SourceError, Waker,
};
use evermill_http::testing::{Reply, Server};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that gives these answers in turn, the last one for ever.
fn script(replies: Vec<Reply>) -> Server {
    let replies = Mutex::new(VecDeque::from(replies));
    Server::start(move |_| {
        let mut replies = replies.lock().unwrap();
        match replies.len() {
            1 => replies[0].clone(),
            _ => replies.pop_front().unwrap(),
        }
    })
}

fn open(
    address: &str,
    more: Value,
    budget: SourceBudget,
) -> Result<Box<dyn Receiver>, SourceError> {
    let mut config = json!({"kind": "http", "endpoint": "/status", "poke_interval_ms": 50});
    let more = more.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(more);
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    let environment = Environment {
        connection: &|_| Some(address.to_owned()),
        budget,
        start_date: None,
        diagnostics: Arc::new(|_, _| {}),
    };
    match evermill_connectors::open(&config, &environment)? {
        Opened::Received(receiver) => Ok(receiver),
        _ => panic!("it receives"),
    }
}

/// The engine's part: keeps what is delivered, hands the last memo over at each beginning.
struct Engine {
    receiver: Box<dyn Receiver>,
    memo: Option<Bytes>,
    events: Vec<String>,
    degraded: Vec<String>,
    caught_up: usize,
    /// What the author's function says, where there is one.
    says: Box<dyn Fn(&Inquiry) -> Said>,
}

impl Engine {
    fn start(server: &Server, more: Value) -> Self {
        Self::resume(server, more, None)
    }

    fn resume(server: &Server, more: Value, memo: Option<Bytes>) -> Self {
        let mut receiver = open(&server.url(), more, SourceBudget::default()).unwrap();
        receiver.begin(memo.as_deref()).unwrap();
        Self {
            receiver,
            memo,
            events: Vec::new(),
            degraded: Vec::new(),
            caught_up: 0,
            says: Box::new(|_| panic!("nobody has a function")),
        }
    }

    fn keep(&mut self, delivery: Delivery) {
        let values = delivery.events.iter().map(|event| {
            let value = event.value.as_deref().unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        });
        self.events.extend(values);
        self.memo = delivery.memo.or(self.memo.take());
        self.receiver.kept(delivery.ticket);
    }

    /// Receives until the server has answered so many requests and the last one was heard of.
    fn until(&mut self, wanted: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut out = Vec::new();
        while !wanted(self) {
            assert!(
                Instant::now() < deadline,
                "{:?} {:?}",
                self.events,
                self.degraded
            );
            self.receiver
                .receive(Duration::from_millis(100), &mut out)
                .unwrap();
            for news in out.drain(..) {
                match news {
                    Received::Delivery(delivery) => self.keep(delivery),
                    Received::Ask(inquiry) => {
                        let said = (self.says)(&inquiry);
                        self.receiver.told(inquiry.number, vec![said]);
                    }
                    Received::CaughtUp => self.caught_up += 1,
                    Received::Degraded { reason } => self.degraded.push(reason),
                    Received::Recovered => self.degraded.push("recovered".to_owned()),
                }
            }
        }
    }

    fn until_answers(&mut self, answers: usize) {
        self.until(|engine| engine.caught_up >= answers);
    }
}

#[test]
fn an_edge_fires_once_and_again_after_it_was_false() {
    let server = script(vec![
        Reply::new(404, ""),
        Reply::new(200, "one"),
        Reply::new(200, "still"),
        Reply::new(404, ""),
        Reply::new(200, "two"),
        Reply::new(200, "still"),
    ]);
    let mut engine = Engine::start(&server, json!({}));
    engine.until_answers(7);
    assert_eq!(engine.events, ["one", "two"]);
}

#[test]
fn what_was_seen_is_known_after_a_restart() {
    let server = script(vec![Reply::new(200, "one")]);
    let mut first = Engine::start(&server, json!({}));
    first.until_answers(2);
    assert_eq!(first.events, ["one"]);
    let memo = first.memo.take();
    drop(first);
    let mut second = Engine::resume(&server, json!({}), memo.clone());
    second.until_answers(2);
    assert!(second.events.is_empty());
    // Another question was never answered.
    let mut other = Engine::resume(&server, json!({"endpoint": "/other"}), memo);
    other.until_answers(1);
    assert_eq!(other.events, ["one"]);
}

#[test]
fn a_beginning_forgets_what_was_not_kept() {
    let server = script(vec![Reply::new(200, "one")]);
    let mut engine = Engine::start(&server, json!({}));
    engine.until_answers(1);
    // The commit was lost: the event is delivered again.
    engine.receiver.begin(None).unwrap();
    engine.until_answers(2);
    assert_eq!(engine.events, ["one", "one"]);
}

/// F02.
#[test]
fn trouble_is_unknown_and_said_once() {
    let server = script(vec![
        Reply::new(200, "one"),
        Reply::new(503, ""),
        Reply::new(503, ""),
        Reply::Raw(b"nonsense".to_vec()),
        Reply::new(200, "still"),
    ]);
    let mut engine = Engine::start(&server, json!({}));
    engine.until_answers(3);
    assert_eq!(engine.events, ["one"]);
    let [first, second, last] = &engine.degraded[..] else {
        panic!("{:?}", engine.degraded)
    };
    assert!(first.contains("answered 503"), "{first}");
    assert!(second.contains(&server.url()), "{second}");
    assert_eq!(last, "recovered");
}

/// F01.
#[test]
fn a_timeout_is_unknown() {
    let server = script(vec![Reply::Silence]);
    let address = format!("{}?timeout=50ms", server.url());
    let mut receiver = open(&address, json!({}), SourceBudget::default()).unwrap();
    receiver.begin(None).unwrap();
    let (deadline, mut out) = (Instant::now() + PATIENCE, Vec::new());
    while out.is_empty() && Instant::now() < deadline {
        receiver.receive(Duration::from_secs(1), &mut out).unwrap();
    }
    let [Received::Degraded { reason }] = &out[..] else {
        panic!("{out:?}")
    };
    assert!(reason.contains("no answer within 50ms"), "{reason}");
}

/// F02.
#[test]
fn a_wish_to_be_left_alone_is_granted() {
    let server = Server::start(|_| Reply::new(429, "").with("Retry-After", "3600"));
    let mut engine = Engine::start(&server, json!({}));
    engine.until(|engine| !engine.degraded.is_empty());
    let mut out = Vec::new();
    for _ in 0..3 {
        engine
            .receiver
            .receive(Duration::from_millis(100), &mut out)
            .unwrap();
    }
    assert_eq!((server.seen().len(), out.len()), (1, 0));
}

#[test]
fn an_answer_that_has_not_changed_is_not_sent_again() {
    let server = Server::start(|seen| match seen.header("if-none-match") {
        Some("\"v1\"") => Reply::new(304, ""),
        _ => Reply::new(200, "one").with("ETag", "\"v1\""),
    });
    let mut engine = Engine::start(&server, json!({}));
    engine.until_answers(3);
    assert_eq!(engine.events, ["one"]);
    let asked = server.seen();
    let conditional = asked
        .iter()
        .filter(|seen| seen.header("if-none-match").is_some());
    assert_eq!(conditional.count(), asked.len() - 1);
}

#[test]
fn the_request_is_what_the_manifest_says() {
    let server = script(vec![Reply::new(200, "")]);
    let more = json!({"request_params": {"status": "de ployed"}, "headers": {"X-A": "1"}});
    Engine::start(&server, more.clone()).until_answers(1);
    let seen = &server.seen()[0];
    assert_eq!(
        (&*seen.method, &*seen.path),
        ("GET", "/status?status=de%20ployed")
    );
    assert_eq!(seen.header("x-a"), Some("1"));
    let server = script(vec![Reply::new(200, "")]);
    let mut more = more;
    more["method"] = "POST".into();
    Engine::start(&server, more).until_answers(1);
    let seen = &server.seen()[0];
    assert_eq!(
        (&*seen.path, &seen.body[..]),
        ("/status", &b"status=de+ployed"[..])
    );
}

#[test]
fn a_list_is_read_from_behind_its_last_item_and_to_its_end_at_once() {
    let server = Server::start(|seen| {
        let since = seen
            .path
            .split_once("since=")
            .map_or(0, |(_, id)| id.parse().unwrap());
        let items: Value = (since + 1..=since + 2)
            .filter(|id| *id <= 5)
            .map(|id| json!({"id": id}))
            .collect();
        Reply::new(200, json!({"items": items}).to_string())
    });
    let config =
        json!({"cursor": {"param": "since", "items": "/items"}, "poke_interval_ms": 3_600_000});
    let mut engine = Engine::start(&server, config.clone());
    // One wait only: the pages in between do not count as the end.
    engine.until_answers(1);
    let ids: Vec<_> = (1..=5).map(|id| format!("{{\"id\":{id}}}")).collect();
    assert_eq!(engine.events, ids);
    let memo = engine.memo.take();
    let mut again = Engine::resume(&server, config, memo);
    again.until_answers(1);
    assert!(again.events.is_empty());
    assert_eq!(server.seen().last().unwrap().path, "/status?since=5");
}

#[test]
fn a_long_list_comes_in_parts_and_the_last_one_has_the_memo() {
    let list: Value = (0..10).map(|id| json!({"id": id})).collect();
    let server = script(vec![Reply::new(200, list.to_string())]);
    let budget = SourceBudget {
        batch_events: 4,
        ..SourceBudget::default()
    };
    let config = json!({"cursor": {"param": "since"}});
    let mut receiver = open(&server.url(), config, budget).unwrap();
    receiver.begin(None).unwrap();
    let (deadline, mut out) = (Instant::now() + PATIENCE, Vec::new());
    while out.is_empty() && Instant::now() < deadline {
        receiver.receive(Duration::from_secs(1), &mut out).unwrap();
    }
    let parts = out.iter().filter_map(|news| match news {
        Received::Delivery(delivery) => Some((delivery.events.len(), delivery.memo.is_some())),
        _ => None,
    });
    let parts: Vec<_> = parts.collect();
    assert_eq!(parts, [(4, false), (4, false), (2, true)]);
}

#[test]
fn a_waiting_source_wakes_and_closes_at_once() {
    let server = script(vec![Reply::Silence]);
    let mut engine = Engine::start(&server, json!({}));
    let waker = engine.receiver.waker();
    let waiting = std::thread::spawn(move || {
        engine.receiver.receive(PATIENCE, &mut Vec::new()).unwrap();
        engine.receiver.close();
    });
    assert_eq!(server.wait_for(1).len(), 1);
    waker.wake();
    waiting.join().unwrap();
}

#[test]
fn wrong_settings_are_refused_with_a_cure() {
    let refused = |address: &str, more| {
        let refused = open(address, more, SourceBudget::default()).map(|_| ());
        refused.unwrap_err().to_string()
    };
    for (address, more, said) in [
        ("ftp://h", json!({}), "ftp"),
        ("h:1", json!({"select": "version"}), "write \"/version\""),
        ("h:1", json!({"method": "A B"}), "method"),
    ] {
        let error = refused(address, more);
        assert!(error.contains(said), "{error}");
    }
}

/// F02, F13: what a function says decides the edge; what it cannot say changes nothing.
#[test]
fn a_function_has_the_last_word_and_what_it_finds_is_the_event() {
    let server = script(vec![
        Reply::new(404, "not asked about"),
        Reply::new(200, "no"),
        Reply::new(200, "raises"),
        Reply::new(200, "v1"),
        Reply::new(503, "not asked about"),
        Reply::new(200, "v1"),
        Reply::new(200, "raises"),
        Reply::new(200, "v2"),
        Reply::new(200, "no"),
        Reply::new(200, "v2"),
        Reply::new(200, "v2"),
    ]);
    let mut engine = Engine::start(&server, json!({"check": {"function": "version"}}));
    engine.says = Box::new(|inquiry| {
        assert_eq!(inquiry.function, "response_check");
        let [about] = &inquiry.about[..] else {
            panic!("it is asked about one answer")
        };
        assert_eq!(about.headers[0].1, "200");
        match about.value.as_deref().unwrap_or_default() {
            b"no" => Said::Returned(Some("[false]".into())),
            b"raises" => Said::Failed("ValueError: what is it?".into()),
            version => {
                let version = String::from_utf8_lossy(version);
                Said::Returned(Some(format!("[true, {{\"at\": \"{version}\"}}]").into()))
            }
        }
    });
    engine.until_answers(8);
    assert_eq!(
        engine.events,
        [r#"{"at":"v1"}"#, r#"{"at":"v2"}"#, r#"{"at":"v2"}"#]
    );
    let failed = |why: &&String| why.ends_with("response_check failed: ValueError: what is it?");
    assert_eq!(
        engine.degraded.iter().filter(failed).count(),
        2,
        "{:?}",
        engine.degraded
    );
}

/// A list that grows, as the checks for all receivers see it.
struct List {
    items: Arc<Mutex<Vec<String>>>,
    trouble: Arc<AtomicBool>,
    server: Server,
}

impl List {
    fn new() -> Self {
        let (items, trouble) = (
            Arc::<Mutex<Vec<String>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (told, is_in_trouble) = (Arc::clone(&items), Arc::clone(&trouble));
        let server = Server::start(move |seen| {
            if is_in_trouble.load(Ordering::SeqCst) {
                return Reply::new(503, "");
            }
            let since = seen.path.split_once("since=");
            let since: usize = since.map_or(0, |(_, id)| id.parse().unwrap());
            let items = told.lock().unwrap();
            let page = items.iter().enumerate().skip(since).take(10);
            let page: Value = page
                .map(|(at, value)| json!({"id": at + 1, "value": value}))
                .collect();
            Reply::new(200, page.to_string())
        });
        Self {
            items,
            trouble,
            server,
        }
    }
}

impl Place for List {
    fn open(&mut self) -> Box<dyn Receiver> {
        let config = json!({"cursor": {"param": "since"}});
        let inner = open(&self.server.url(), config, SourceBudget::default()).unwrap();
        Box::new(Values(inner))
    }

    fn publish(&mut self, values: &[String]) {
        self.items.lock().unwrap().extend_from_slice(values);
    }

    fn trouble(&mut self, is: bool) {
        self.trouble.store(is, Ordering::SeqCst);
    }
}

/// The receiver, whose events are what was published and not the items around it.
struct Values(Box<dyn Receiver>);

impl Receiver for Values {
    fn begin(&mut self, memo: Option<&[u8]>) -> Result<(), SourceError> {
        self.0.begin(memo)
    }
    fn receive(&mut self, wait: Duration, out: &mut Vec<Received>) -> Result<(), SourceError> {
        self.0.receive(wait, out)?;
        for news in out {
            let Received::Delivery(delivery) = news else {
                continue;
            };
            for event in &mut delivery.events {
                let item: Value = serde_json::from_slice(event.value.as_deref().unwrap()).unwrap();
                event.value = Some(item["value"].as_str().unwrap().to_owned().into());
            }
        }
        Ok(())
    }
    fn kept(&mut self, ticket: u64) {
        self.0.kept(ticket);
    }
    fn settled(&mut self, ticket: u64) {
        self.0.settled(ticket);
    }
    fn keep_alive(&mut self) {
        self.0.keep_alive();
    }
    fn waker(&self) -> Waker {
        self.0.waker()
    }
    fn close(&mut self) {
        self.0.close();
    }
}

#[test]
fn it_is_a_receiver() {
    check_all(List::new);
}
