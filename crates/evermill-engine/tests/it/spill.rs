//! Large results: rows of their own, for as long as their activation is not over.

use std::time::Duration;

use bytes::Bytes;
use evermill_contract::worker::{
    Answer, Outcome, Question, Success, TaskError, TaskErrorKind, Xcom,
};
use evermill_core::row::Table;
use evermill_engine::{Selection, StartRequest};

use crate::broker::Broker;
use crate::executor::{Call, Workers};
use crate::harness::{Ledger, World, after_source, request, started, until, values};

const GRACE: Duration = Duration::from_secs(30);
const LARGE: usize = 300_000;

/// `first` returns a large text, `second` binds it.
fn two_tasks() -> StartRequest {
    let second = r#"{"id":"second","kind":"call","line":3,"upstream":[{"node":"first","kind":"task","reads_result":true}]}"#;
    request(&format!("{},{second}", after_source("first", "")), true)
}

fn large(value: &str) -> String {
    format!("\"{value} {}\"", "x".repeat(LARGE))
}

fn succeed(value: &str) -> Outcome {
    Outcome::Success(Some(Box::new(Success {
        result: Some(Bytes::from(large(value))),
        xcoms: vec![Xcom {
            key: "aside".to_owned(),
            value: Bytes::from_static(b"7"),
        }],
        ..Success::default()
    })))
}

fn fail() -> Outcome {
    Outcome::Failed(Box::new(TaskError {
        kind: TaskErrorKind::Raised,
        class: "ValueError".to_owned(),
        message: "no".to_owned(),
        traceback: String::new(),
        retryable: false,
        retry_after_ms: None,
    }))
}

/// Whether a call has the large result of `first` for its value.
fn has_result(call: &Call<'_>) -> bool {
    let wanted = large(&call.value);
    call.results
        .iter()
        .any(|(task, result)| task == "first" && *result == wanted)
}

#[test]
fn a_large_result_travels_by_reference_and_its_row_goes_when_the_activation_is_over() {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(2, move |call| {
        if call.task == "first" {
            return succeed(&call.value);
        }
        assert!(has_result(call), "{} results", call.results.len());
        let aside = (call.ask)(Question::XcomPull {
            task_id: "first".to_owned(),
            key: "aside".to_owned(),
            map_index: None,
        });
        assert_eq!(aside, Answer::Value(Bytes::from_static(b"7")));
        notes.note(call.value.clone());
        Outcome::Success(None)
    });
    let world = World::sqlite(Broker::with_lanes(&["a"]), workers);
    // More than what stays at hand in memory.
    world.broker.publish("a", values(0..100));
    let handle = world.open();
    started(&handle, &two_tasks());
    until(&handle, "100 events", |run| run.done == 100);
    handle.drain(GRACE).unwrap();
    assert_eq!((ledger.len(), ledger.repeated()), (100, Vec::new()));
    assert_eq!(world.rows(Table::Spill).len(), 0);
}

#[test]
fn a_large_result_survives_an_engine_that_was_cut_down_and_its_task_does_not_run_again() {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(2, move |call| {
        notes.note(format!("{} {}", call.task, call.value));
        if call.task == "first" {
            return succeed(&call.value);
        }
        if notes.times("go on") == 0 {
            return fail();
        }
        assert!(has_result(call), "{} results", call.results.len());
        Outcome::Success(None)
    });
    let world = World::sqlite(Broker::with_lanes(&["a"]), workers);
    world.broker.publish("a", values(0..3));
    let handle = world.open();
    started(&handle, &two_tasks());
    until(&handle, "parked events", |run| run.parked == 3);
    handle.halt();
    let kept = world.rows(Table::Spill);
    assert_eq!(kept.len(), 3);
    assert!(kept.iter().all(|row| row.body.len() > LARGE));
    for table in [Table::Outcome, Table::Activation] {
        let fat = world
            .rows(table)
            .into_iter()
            .find(|row| row.body.len() > 1_000);
        assert_eq!(fat, None, "{table:?} holds the result itself");
    }
    ledger.note("go on");
    let handle = world.open();
    started(&handle, &two_tasks());
    handle.redrive("d", Selection::All).unwrap();
    until(&handle, "the redrive", |run| {
        run.done == 3 && run.parked == 0
    });
    for value in 0..3 {
        assert_eq!(ledger.times(&format!("first {value}")), 1);
    }
    handle.halt();
    assert_eq!(world.rows(Table::Spill).len(), 0);
}

#[test]
fn a_large_result_that_was_committed_is_there_for_a_task_that_a_crash_cut_off() {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let (begun, has_begun) = crossbeam_channel::bounded(1);
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let workers = Workers::new(1, move |call| {
        notes.note(format!("{} {}", call.task, call.value));
        if call.task == "first" {
            return succeed(&call.value);
        }
        assert!(has_result(call), "{} results", call.results.len());
        if notes.times("second 0") == 1 {
            begun.send(()).unwrap();
            // Disconnected when the engine is gone.
            released.recv().unwrap_err();
        }
        Outcome::Success(None)
    });
    let world = World::sqlite(Broker::with_lanes(&["a"]), workers);
    world.broker.publish("a", values(0..1));
    let handle = world.open();
    started(&handle, &two_tasks());
    has_begun.recv_timeout(crate::harness::PATIENCE).unwrap();
    handle.halt();
    drop(release);
    assert_eq!(world.rows(Table::Spill).len(), 1);
    let handle = world.open();
    started(&handle, &two_tasks());
    until(&handle, "the event", |run| run.done == 1);
    assert_eq!((ledger.times("first 0"), ledger.times("second 0")), (1, 2));
    handle.halt();
    assert_eq!(world.rows(Table::Spill).len(), 0);
}
