//! Events flow, once each, and what is committed survives.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evermill_contract::worker::{Answer, Outcome, Question, StateOp, Success};
use evermill_engine::view::ParkedFilter;
use evermill_engine::{Drained, Idle, Operations as _, Page, Selection, StartRequest};

use crate::broker::Broker;
use crate::executor::Workers;
use crate::harness::{
    Ledger, PATIENCE, World, after_source, one_task, recording, request, started, until, values,
};

const GRACE: Duration = Duration::from_secs(30);
const ALL: Page = Page {
    skip: 0,
    limit: usize::MAX,
    payload: false,
};

#[test]
fn a_burst_runs_the_callable_once_per_event_and_is_acknowledged() {
    let (ledger, workers) = recording(2);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a", values(0..100));
    let run = until(&handle, "100 events", |run| run.done == 100);
    assert_eq!(ledger.len(), 100);
    assert_eq!(ledger.repeated(), Vec::<String>::new());
    assert_eq!((run.taken_in, run.in_flight, run.parked), (100, 0, 0));
    assert!(run.commit_ms.p99.is_some());
    assert_eq!(handle.drain(GRACE).unwrap(), Drained::Settled);
    assert_eq!(world.broker.acked("a"), 100);
}

/// Row C10: a record that was written twice is two inputs, since their positions differ.
#[test]
fn c10_records_of_the_same_content_are_each_an_event() {
    let (ledger, workers) = recording(2);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    started(&handle, &one_task());
    world
        .broker
        .publish("a", ["same", "same", "other"].map(str::to_owned));
    until(&handle, "all three", |run| run.done == 3);
    assert_eq!((ledger.times("same"), ledger.times("other")), (2, 1));
    handle.drain(GRACE).unwrap();
}

#[test]
fn idleness_is_reached_only_after_everything_was_read_and_settled() {
    let (ledger, workers) = recording(2);
    let world = World::memory(Broker::with_lanes(&["a", "b"]), workers);
    world.broker.publish("a", values(0..2_500));
    world.broker.publish("b", values(5_000..7_500));
    let handle = world.open();
    started(&handle, &one_task());
    assert_eq!(
        handle.wait_idle(Duration::from_millis(20), Some(PATIENCE)),
        Idle::Reached
    );
    assert_eq!(ledger.len(), 5_000);
    assert_eq!(handle.view().run("d").unwrap().state, "running");
    handle.drain(GRACE).unwrap();
    assert_eq!(handle.wait_idle(Duration::ZERO, None), Idle::Closed);
}

#[test]
fn a_drained_run_goes_on_where_it_stopped() {
    for sqlite in [false, true] {
        let (ledger, workers) = recording(2);
        let broker = Broker::with_lanes(&["a"]);
        let world = if sqlite {
            World::sqlite(broker, workers)
        } else {
            World::memory(broker, workers)
        };
        world.broker.publish("a", values(0..500));
        let handle = world.open();
        let first = started(&handle, &one_task());
        assert!(!first.resumed);
        until(&handle, "500 events", |run| run.done == 500);
        assert_eq!(handle.drain(GRACE).unwrap(), Drained::Settled);
        assert_eq!(handle.view().run("d").unwrap().state, "drained");
        drop(handle);
        world.broker.publish("a", values(500..800));
        let handle = world.open();
        let again = started(&handle, &one_task());
        assert!(again.resumed);
        assert_eq!(again.run, first.run);
        until(&handle, "800 events", |run| run.done == 800);
        assert_eq!(ledger.repeated(), Vec::<String>::new());
        assert_eq!(ledger.len(), 800);
        handle.drain(GRACE).unwrap();
    }
}

#[test]
fn a_run_after_a_stop_inherits_positions_unless_it_is_fresh() {
    let (ledger, workers) = recording(2);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let fresh = StartRequest {
        fresh: true,
        ..one_task()
    };
    world.broker.publish("a", values(0..10));
    let handle = world.open();
    started(&handle, &one_task());
    until(&handle, "10 events", |run| run.done == 10);
    handle.drain(GRACE).unwrap();

    let handle = world.open();
    let refused = handle.start(&fresh).unwrap_err().to_string();
    assert!(refused.contains("open run 'd-1'"), "{refused}");
    started(&handle, &one_task());
    handle.stop("d").unwrap();
    handle.drain(GRACE).unwrap();

    world.broker.publish("a", values(10..20));
    let handle = world.open();
    let second = started(&handle, &one_task());
    assert_eq!((second.run.as_str(), second.resumed), ("d-2", false));
    until(&handle, "the rest", |run| {
        run.run == "d-2" && run.done == 10
    });
    assert_eq!((ledger.times("9"), ledger.times("10")), (1, 1));
    handle.stop("d-2").unwrap();
    handle.drain(GRACE).unwrap();

    let handle = world.open();
    let third = started(&handle, &fresh);
    assert_eq!((third.run.as_str(), third.resumed), ("d-3", false));
    until(&handle, "all of it again", |run| {
        run.run == "d-3" && run.done == 20
    });
    assert_eq!((ledger.times("0"), ledger.times("10")), (2, 2));
    handle.drain(GRACE).unwrap();
}

#[test]
fn an_engine_that_was_cut_down_loses_nothing_and_repeats_only_what_was_not_committed() {
    let (ledger, workers) = recording(2);
    let world = World::sqlite(Broker::with_lanes(&["a"]), workers);
    let mut sent = 0;
    for round in 0..5 {
        world.broker.publish("a", values(sent..sent + 1_000));
        sent += 1_000;
        let handle = world.open();
        started(&handle, &one_task());
        until(&handle, "some events", |run| run.done > round * 700);
        handle.halt();
    }
    let handle = world.open();
    started(&handle, &one_task());
    let all = |run: &evermill_engine::view::RunView| run.taken_in == sent && run.in_flight == 0;
    let run = until(&handle, "every event", all);
    assert_eq!(run.done + run.parked, sent);
    // Events that were in flight at three stops are kept aside until somebody says so (C6).
    handle.redrive("d", Selection::All).unwrap();
    until(&handle, "what was kept aside", |run| run.done == sent);
    assert_eq!(ledger.len() as u64, sent);
    handle.drain(GRACE).unwrap();
}

#[test]
fn results_travel_to_the_tasks_that_bind_them() {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(2, move |call| {
        if call.task == "first" {
            let result = Bytes::from(format!("\"{}!\"", call.value));
            let success = Success {
                result: Some(result),
                ..Success::default()
            };
            return Outcome::Success(Some(Box::new(success)));
        }
        notes.note(format!("{:?}", call.results));
        Outcome::Success(None)
    });
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    world.broker.publish("a", values(0..300));
    let handle = world.open();
    let second = r#"{"id":"second","kind":"call","line":3,"upstream":[{"node":"first","kind":"task","reads_result":true}]}"#;
    started(
        &handle,
        &request(&format!("{},{second}", after_source("first", "")), true),
    );
    until(&handle, "300 events", |run| run.done == 300);
    assert_eq!(ledger.len(), 300);
    assert_eq!(ledger.times(r#"[("first", "\"7!\"")]"#), 1);
    handle.drain(GRACE).unwrap();
}

#[test]
fn c14_an_exhausted_task_parks_its_event_and_a_redrive_runs_it_again() {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(1, move |call| {
        notes.note(format!("{} try {}", call.value, call.try_number));
        if call.value == "3" && notes.times("3 again") == 0 {
            let error = evermill_contract::worker::TaskError {
                kind: evermill_contract::worker::TaskErrorKind::Raised,
                class: "ValueError".to_owned(),
                message: "three".to_owned(),
                traceback: String::new(),
                retryable: true,
                retry_after_ms: None,
            };
            return Outcome::Failed(Box::new(error));
        }
        Outcome::Success(None)
    });
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    world.broker.publish("a", values(0..10));
    let handle = world.open();
    let task = after_source("work", r#","retries":2,"retry_delay_ms":1"#);
    started(&handle, &request(&task, true));
    until(&handle, "a parked event", |run| {
        run.parked == 1 && run.done == 9
    });
    let parked = handle.parked("d", &ParkedFilter::default(), ALL).unwrap();
    assert_eq!(parked.matched, 1);
    let parked = parked.entries;
    assert_eq!(parked[0].id, "d-1/in/a/3");
    assert_eq!(parked[0].task.as_deref(), Some("work"));
    assert!(parked[0].error.contains("ValueError: three"), "{parked:?}");
    assert_eq!(ledger.times("3 try 3"), 1);
    ledger.note("3 again");
    handle
        .redrive("d", Selection::Keys(vec![parked[0].key]))
        .unwrap();
    let run = until(&handle, "the redrive", |run| {
        run.done == 10 && run.parked == 0
    });
    let attempts: Vec<_> = run.tasks.iter().collect();
    assert!(
        matches!(attempts[..], [task] if (task.succeeded, task.failed) == (10, 3)),
        "{attempts:?}"
    );
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_dag_without_sources_is_triggered_once_and_finishes() {
    let (ledger, workers) = recording(1);
    let world = World::memory(Broker::default(), workers);
    let handle = world.open();
    let dag = request(r#"{"id":"work","kind":"call","line":2}"#, false);
    started(&handle, &dag);
    handle
        .trigger("d", Some(Bytes::from_static(b"{}")))
        .unwrap();
    assert_eq!(
        handle.wait_idle(Duration::ZERO, Some(PATIENCE)),
        Idle::Ended
    );
    let view = handle.fresh_view().unwrap();
    let run = view.run("d").unwrap();
    assert_eq!(
        (run.state, run.done, ledger.times("{}")),
        ("finished", 1, 1)
    );
    handle.drain(GRACE).unwrap();
}

#[test]
fn the_bundle_is_unpacked_again_when_its_folder_is_gone() {
    let (_, workers) = recording(1);
    let world = World::sqlite(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    let version = started(&handle, &one_task()).version;
    handle.drain(GRACE).unwrap();
    drop(handle);
    let file = world.dir().join("bundles").join(version).join("d.py");
    std::fs::remove_file(&file).unwrap();
    let handle = world.open();
    assert_eq!(std::fs::read(file).unwrap(), b"# a DAG file\n");
    handle.drain(GRACE).unwrap();
}

#[test]
fn versions_that_nothing_needs_any_more_are_forgotten_but_for_the_latest_few() {
    let (ledger, workers) = recording(1);
    let world = World::sqlite(Broker::with_lanes(&["a"]), workers);
    let bundles = || {
        let folders = std::fs::read_dir(world.dir().join("bundles")).unwrap();
        let names = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<String>>()
    };
    let mut versions = Vec::new();
    let kept = evermill_engine::limits::VERSIONS_KEPT as u64;
    for done in 1..=kept + 2 {
        world.broker.publish("a", values(done - 1..done));
        let handle = world.open();
        let edited = request(&after_source(&format!("task_{done}"), ""), true);
        versions.push(started(&handle, &edited).version);
        until(&handle, "the event", |run| run.done == done);
        handle.drain(GRACE).unwrap();
    }
    world.open().halt();
    assert_eq!(bundles(), versions[2..].iter().cloned().collect());
    assert_eq!(ledger.len() as u64, kept + 2);
}

#[test]
fn a_task_that_asks_hears_what_is_committed() {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(2, move |call| {
        if call.task == "first" {
            let result = Bytes::from(format!("[{}]", call.value));
            let incr = StateOp::Incr {
                name: "seen".to_owned(),
                by: 1.into(),
            };
            return Outcome::Success(Some(Box::new(Success {
                result: Some(result),
                state_ops: vec![incr],
                ..Success::default()
            })));
        }
        let pulled = (call.ask)(Question::XcomPull {
            task_id: "first".to_owned(),
            key: "return_value".to_owned(),
            map_index: None,
        });
        assert_eq!(
            pulled,
            Answer::Value(Bytes::from(format!("[{}]", call.value)))
        );
        let missing = (call.ask)(Question::Variable {
            name: "none".to_owned(),
        });
        assert_eq!(missing, Answer::Missing);
        match (call.ask)(Question::StateGet {
            name: "seen".to_owned(),
        }) {
            Answer::Value(seen) => notes.note(String::from_utf8_lossy(&seen)),
            other => panic!("{other:?}"),
        }
        Outcome::Success(None)
    });
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    let second = r#"{"id":"second","kind":"call","line":3,"wants":{"ctx":true,"state":true},
        "upstream":[{"node":"first","kind":"task"}]}"#;
    let first = after_source("first", r#","wants":{"ctx":true,"state":true}"#);
    started(&handle, &request(&format!("{first},{second}"), true));
    for round in 1..=20 {
        world.broker.publish("a", values(round..round + 1));
        until(&handle, "the event", |run| run.done == round);
    }
    assert_eq!(
        (ledger.times("1"), ledger.times("20"), ledger.len()),
        (1, 1, 20)
    );
    handle.drain(GRACE).unwrap();
}

/// By each event; all of them fit into the queue of lines.
const PRINTS: usize = 2_000;

#[test]
fn output_is_told_apart_by_task_event_and_try() {
    let workers = Workers::new(1, |call| {
        for _ in 0..PRINTS {
            (call.print)(&format!("hello {}", call.value));
        }
        Outcome::Success(None)
    });
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    world.broker.publish("a", values(0..3));
    let handle = world.open();
    let run = started(&handle, &one_task()).run;
    until(&handle, "3 events", |run| run.done == 3);
    handle.drain(GRACE).unwrap();
    let lines = world.lines.lock().unwrap();
    assert_eq!(
        lines.len(),
        3 * PRINTS,
        "what was printed is shown before the end"
    );
    let line = &lines[3 * PRINTS - 1];
    assert_eq!(
        (line.run.as_deref(), line.task.as_deref()),
        (Some(&*run), Some("work"))
    );
    assert_eq!(
        (line.lane.as_deref(), line.position, line.try_number),
        (Some("a"), Some(2), 1)
    );
    assert_eq!(&line.text[..], b"hello 2");
}

#[test]
fn those_who_look_at_the_same_time_share_a_view() {
    const THREADS: usize = 4;
    const LOOKS: usize = 50;
    let (_, workers) = recording(2);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a", values(0..20_000));
    let looks = || -> Vec<_> { (0..LOOKS).map(|_| handle.fresh_view().unwrap()).collect() };
    let seen: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(looks)).collect();
        let seen = threads.into_iter().map(|thread| thread.join().unwrap());
        seen.flatten().collect()
    });
    let different: BTreeSet<_> = seen.iter().map(Arc::as_ptr).collect();
    assert!(
        different.len() < THREADS * LOOKS,
        "each look costs the engine a view"
    );
    until(&handle, "rest", |run| run.done == 20_000);
    handle.drain(GRACE).unwrap();
}
