//! What one DAG hears of another: kept in the commit that settles what it tells of.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evermill_contract::source::Place;
use evermill_contract::worker::{Emit, Outcome, Success, TaskError, TaskErrorKind};
use evermill_engine::{EngineError, Handle, Operations as _, ReplayAsk, StartRequest};
use evermill_store::Fault;
use serde_json::Value;

use crate::broker::Broker;
use crate::executor::{Call, Workers};
use crate::harness::{Ledger, World, after_source, dag, started, until_of, until_true, values};

const GRACE: Duration = Duration::from_secs(30);
const KAFKA: &str =
    r#"{"id":"in","line":1,"config":{"kind":"kafka","topic":"t","auto_offset_reset":"earliest"}}"#;

fn after(of: &str, states: &str) -> String {
    format!(r#"{{"id":"in","line":1,"config":{{"kind":"after","dag":"{of}"{states}}}}}"#)
}

fn topic(name: &str) -> String {
    format!(r#"{{"id":"in","line":1,"config":{{"kind":"topic","name":"{name}"}}}}"#)
}

/// A DAG with one task, which has the DAG's name.
fn one(id: &str, source: &str) -> StartRequest {
    dag(id, source, &after_source(id, ""))
}

/// Who listens is started first, as `run` does.
fn chain(handle: &Handle) {
    for request in [
        one("c", &after("b", "")),
        one("b", &after("a", "")),
        one("a", KAFKA),
    ] {
        started(handle, &request);
    }
}

/// Notes task and value; an event of another DAG by the position it tells of.
fn note(ledger: &Ledger, call: &Call<'_>) {
    let told: Value = serde_json::from_str(&call.value).unwrap_or_default();
    let what = told["position"].as_u64().map_or_else(
        || format!("{} {}", call.task, call.value),
        |position| format!("{} after {position}", call.task),
    );
    ledger.note(what);
}

fn noting(slots: u16) -> (Ledger, Workers) {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(slots, move |call| {
        note(&notes, call);
        Outcome::Success(None)
    });
    (ledger, workers)
}

fn failed() -> Outcome {
    Outcome::Failed(Box::new(TaskError {
        kind: TaskErrorKind::Raised,
        class: "ValueError".to_owned(),
        message: "no".to_owned(),
        traceback: String::new(),
        retryable: true,
        retry_after_ms: None,
    }))
}

fn saying(topic: &str, value: String, key: Option<&str>) -> Outcome {
    Outcome::Success(Some(Box::new(Success {
        says: vec![Emit {
            topic: topic.to_owned(),
            value,
            key: key.map(str::to_owned),
        }],
        ..Success::default()
    })))
}

#[test]
fn each_end_is_heard_once_along_a_chain_of_three() {
    let (ledger, workers) = noting(2);
    let world = World::memory(Broker::with_lanes(&["l"]), workers);
    let handle = world.open();
    chain(&handle);
    world.broker.publish("l", values(0..500));
    let last = until_of(&handle, "c", "all", |run| run.done == 500);
    assert_eq!(last.taken_in, 500);
    assert!(ledger.repeated().is_empty(), "{:?}", ledger.repeated());
    assert_eq!(ledger.len(), 1_500);
    handle.drain(GRACE).unwrap();
}

#[test]
fn what_is_heard_is_committed_with_what_it_tells_of_or_not_at_all() {
    for fault in [Fault::UnknownAbsent, Fault::UnknownCommitted] {
        let (_, workers) = noting(2);
        let world = World::memory(Broker::with_lanes(&["l"]), workers);
        let handle = world.open();
        chain(&handle);
        for round in 1..=4_u64 {
            world.faults.next(fault);
            world
                .broker
                .publish("l", values((round - 1) * 100..round * 100));
            for id in ["a", "b", "c"] {
                let run = until_of(&handle, id, "the round", |run| run.done >= round * 100);
                assert_eq!((run.taken_in, run.done), (round * 100, round * 100), "{id}");
            }
        }
        assert_eq!(world.faults.fired(), 4);
        handle.drain(GRACE).unwrap();
    }
}

/// W18: who listens is no part of a replay, unless its state counts.
#[test]
fn what_is_read_again_is_heard_only_if_its_state_counts() {
    let (_, workers) = noting(2);
    let world = World::memory(Broker::with_lanes(&["l"]), workers);
    let handle = world.open();
    chain(&handle);
    world.broker.publish("l", values(0..50));
    until_of(&handle, "c", "all", |run| run.done == 50);
    let mut ask = ReplayAsk {
        from: Place::Position(0),
        to: Some(Place::Position(19)),
        lane: None,
        source: None,
        dry_run: false,
        new_effect_keys: false,
        with_state: false,
    };
    let ended = |count| {
        until_true("the replay's end", || {
            let all = handle.replays("a").unwrap();
            all.len() == count && all.iter().all(|replay| replay.state == "done")
        });
    };
    handle.replay("a", &ask).unwrap();
    ended(1);
    until_of(&handle, "a", "the replay", |run| run.done == 70);
    // What was told is kept in the commit that settles what it tells of: there is nothing to wait for.
    for id in ["b", "c"] {
        let run = until_of(&handle, id, "nothing more", |run| run.in_flight == 0);
        assert_eq!(run.taken_in, 50, "{id}");
    }
    ask.with_state = true;
    handle.replay("a", &ask).unwrap();
    ended(2);
    for id in ["b", "c"] {
        let run = until_of(&handle, id, "what counts", |run| run.done == 70);
        assert_eq!(run.taken_in, 70, "{id}");
    }
    handle.drain(GRACE).unwrap();
}

/// A crash at any moment; each time another part of the chain has got further than the next.
#[test]
fn a_crash_neither_loses_nor_doubles_what_is_heard() {
    let (_, workers) = noting(2);
    let world = World::sqlite(Broker::with_lanes(&["l"]), workers);
    for round in 1..=5_u64 {
        let handle = world.open();
        chain(&handle);
        world
            .broker
            .publish("l", values((round - 1) * 300..round * 300));
        let id = ["a", "b", "c"][(round % 3) as usize];
        until_of(&handle, id, "some", |run| run.done > (round - 1) * 300 + 40);
        handle.halt();
    }
    let handle = world.open();
    chain(&handle);
    for id in ["a", "b", "c"] {
        let run = until_of(&handle, id, "all", |run| run.done >= 1_500);
        assert_eq!((run.taken_in, run.done), (1_500, 1_500), "{id}");
    }
    handle.drain(GRACE).unwrap();
}

#[test]
fn one_hears_of_the_ends_that_one_asked_for() {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(2, move |call| {
        if call.task == "a" {
            return match call.value.as_str() {
                "0" => failed(),
                "1" => Outcome::Skipped,
                _ => Outcome::Success(None),
            };
        }
        let told: Value = serde_json::from_str(&call.value).unwrap();
        assert_eq!((&told["dag"], &told["run"]), (&"a".into(), &"a-4".into()));
        assert_eq!(told["lane"], "l");
        notes.note(format!(
            "{} {} {}",
            call.task, told["state"], told["position"]
        ));
        Outcome::Success(None)
    });
    let world = World::memory(Broker::with_lanes(&["l"]), workers);
    let handle = world.open();
    for (id, states) in [
        ("well", ""),
        ("ill", r#","states":["failed"]"#),
        ("all", r#","states":["done","failed","skipped"]"#),
    ] {
        started(&handle, &one(id, &after("a", states)));
    }
    started(&handle, &one("a", KAFKA));
    world.broker.publish("l", values(0..3));
    until_of(&handle, "all", "every end", |run| run.done == 3);
    until_of(&handle, "well", "the good end", |run| run.done == 1);
    until_of(&handle, "ill", "the bad end", |run| run.done == 1);
    for expected in [
        "well \"done\" 2",
        "ill \"failed\" 0",
        "all \"failed\" 0",
        "all \"skipped\" 1",
        "all \"done\" 2",
    ] {
        assert_eq!(ledger.times(expected), 1, "{expected}");
    }
    assert_eq!(ledger.len(), 5);
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_message_counts_once_its_attempt_has_succeeded_and_reaches_everyone_who_listens() {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(2, move |call| {
        if call.task == "a" {
            return match (call.value.as_str(), call.try_number) {
                ("1", 1) => failed(),
                ("2", _) => saying("nobody", "7".to_owned(), None),
                _ => saying("orders", format!(r#"{{"n":{}}}"#, call.value), Some("k")),
            };
        }
        notes.note(format!("{} {}", call.task, call.value));
        Outcome::Success(None)
    });
    let world = World::memory(Broker::with_lanes(&["l"]), workers);
    let handle = world.open();
    started(&handle, &one("x", &topic("orders")));
    started(&handle, &one("y", &topic("orders")));
    let retried = after_source("a", r#","retries":1,"retry_delay_ms":1"#);
    started(&handle, &dag("a", KAFKA, &retried));
    world.broker.publish("l", values(0..5));
    for id in ["x", "y"] {
        until_of(&handle, id, "four", |run| run.done == 4);
    }
    until_of(&handle, "a", "all", |run| run.done == 5);
    let expected: BTreeSet<String> = ["x", "y"]
        .iter()
        .flat_map(|id| [0, 1, 3, 4].map(|n| format!(r#"{id} {{"n":{n}}}"#)))
        .collect();
    assert!(expected.iter().all(|what| ledger.times(what) == 1));
    assert_eq!(ledger.len(), expected.len());
    let notices = world.notices.lock().unwrap().clone();
    let said = notices.iter().filter(|text| text.contains("'nobody'"));
    assert_eq!(said.count(), 1, "{notices:?}");
    handle.drain(GRACE).unwrap();
}

#[test]
fn who_has_no_room_holds_up_those_who_fill_it_and_nothing_is_lost() {
    let (open, seen) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Mutex::new(0_u64)),
    );
    let (gate, count) = (Arc::clone(&open), Arc::clone(&seen));
    let big = format!("\"{}\"", "x".repeat(500_000));
    let workers = Workers::new(2, move |call| {
        if call.task == "a" {
            return saying("big", big.clone(), None);
        }
        if !gate.load(Ordering::SeqCst) {
            return failed();
        }
        *count.lock().unwrap() += 1;
        Outcome::Success(None)
    });
    let world = World::memory(Broker::with_lanes(&["l"]), workers);
    let handle = world.open();
    let patient = after_source(
        "x",
        r#","retries":1000000,"retry_delay_ms":10,"max_retry_delay_ms":10"#,
    );
    started(&handle, &dag("x", &topic("big"), &patient));
    handle.pause("x").unwrap();
    started(&handle, &one("a", KAFKA));
    world.broker.publish("l", values(0..200));
    let held = |run: &evermill_engine::view::RunView| {
        let reason = run.sources[0].degraded.as_deref();
        reason.is_some_and(|reason| reason.contains("held up"))
    };
    until_of(&handle, "a", "a hold-up", held);
    world.broker.publish("l", values(200..300));
    open.store(true, Ordering::SeqCst);
    handle.resume("x").unwrap();
    until_of(&handle, "x", "all of it", |run| run.done == 300);
    assert_eq!(*seen.lock().unwrap(), 300);
    until_of(&handle, "a", "the end", |run| run.done == 300 && !held(run));
    handle.drain(GRACE).unwrap();
}

#[test]
fn who_was_stopped_for_good_hears_nothing_and_holds_nobody_up() {
    let (ledger, workers) = noting(2);
    let world = World::memory(Broker::with_lanes(&["l"]), workers);
    let handle = world.open();
    started(&handle, &one("b", &after("a", "")));
    started(&handle, &one("a", KAFKA));
    world.broker.publish("l", values(0..10));
    until_of(&handle, "b", "ten", |run| run.done == 10);
    handle.stop("b").unwrap();
    world.broker.publish("l", values(10..20));
    until_of(&handle, "a", "twenty", |run| run.done == 20);
    until_true("the source to be closed", || {
        handle.start(&one("b", &after("a", ""))).is_ok()
    });
    world.broker.publish("l", values(20..30));
    until_of(&handle, "a", "thirty", |run| run.done == 30);
    until_of(&handle, "b", "the last ten", |run| run.done == 10);
    assert_eq!(ledger.times("b after 15"), 0);
    assert_eq!(ledger.times("b after 25"), 1);
    handle.drain(GRACE).unwrap();
}

#[test]
fn dags_that_would_hear_of_themselves_are_refused() {
    let (_, workers) = noting(1);
    let world = World::memory(Broker::with_lanes(&["l"]), workers);
    let handle = world.open();
    let refused = |request: &StartRequest| match handle.start(request) {
        Err(EngineError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    let why = refused(&one("a", &after("a", "")));
    assert!(why.contains("never come to rest"), "{why}");
    started(&handle, &one("a", &after("c", "")));
    started(&handle, &one("b", &after("a", "")));
    let why = refused(&one("c", &after("b", "")));
    assert!(
        why.contains("'c' listens to 'b' listens to 'a' listens to 'c'"),
        "{why}"
    );
    handle.drain(GRACE).unwrap();
}
