//! Which worker had which try: remembered of what failed, and told of what is under way.

use evermill_contract::worker::{Outcome, TaskError, TaskErrorKind};
use evermill_engine::view::{AttemptState, AttemptView};
use evermill_engine::{AttemptQuery, Handle, Operations as _};

use crate::broker::Broker;
use crate::executor::Workers;
use crate::harness::{World, after_source, request, until, values};

fn failed(message: &str) -> Outcome {
    Outcome::Failed(Box::new(TaskError {
        kind: TaskErrorKind::Raised,
        class: "Error".to_owned(),
        message: message.to_owned(),
        traceback: String::new(),
        retryable: true,
        retry_after_ms: None,
    }))
}

/// The value `1` fails at its first try.
fn once_bad() -> Workers {
    Workers::new(2, |call| match (&*call.value, call.try_number) {
        ("1", 1) => failed("not yet\nsecond line"),
        _ => Outcome::Success(None),
    })
}

fn attempts(handle: &Handle, wanted: AttemptQuery) -> Vec<AttemptView> {
    let wanted = AttemptQuery {
        limit: 100,
        ..wanted
    };
    handle.attempts("d", &wanted).unwrap()
}

fn all(handle: &Handle) -> Vec<AttemptView> {
    attempts(handle, AttemptQuery::default())
}

#[test]
fn tries_that_failed_and_those_after_them_are_told_with_their_worker_and_no_others() {
    let world = World::memory(Broker::with_lanes(&["0"]), once_bad());
    let handle = world.open();
    let task = after_source("work", r#","retries":1,"retry_delay_ms":1"#);
    handle.start(&request(&task, true)).unwrap();
    world.broker.publish("0", values(0..3));
    until(&handle, "all done", |run| run.done == 3);
    let [second, first] = &all(&handle)[..] else {
        panic!("{:?}", all(&handle))
    };
    for (one, number, state) in [
        (first, 1, AttemptState::Failed),
        (second, 2, AttemptState::Success),
    ] {
        assert_eq!((one.try_number, one.state), (number, state), "{one:?}");
        assert_eq!((&*one.lane, one.position, &*one.task), ("0", 1, "work"));
        let worker = one.worker.unwrap();
        assert!(worker.slot < 2 && worker.pid == Some(1), "{worker:?}");
        assert!(one.sent_ms.is_some() && one.started_ms <= one.ended_ms);
    }
    assert!(first.sent_ms <= second.sent_ms);
    assert_eq!(first.error.as_deref(), Some("Error: not yet"));
    assert_eq!(second.error, None);
    // The run tells those that failed.
    let detail = handle.detail("d").unwrap();
    assert_eq!(detail.failures.len(), 1);
    assert_eq!(detail.failures[0].error, "Error: not yet");
    // One event's, one task's.
    let of = |position, task: &str| {
        let wanted = AttemptQuery {
            lane: Some("0".to_owned()),
            position: Some(position),
            task: Some(task.to_owned()),
            ..AttemptQuery::default()
        };
        attempts(&handle, wanted).len()
    };
    assert_eq!([of(1, "work"), of(1, "other"), of(2, "work")], [2, 0, 0]);
    let newest = AttemptQuery {
        limit: 1,
        ..AttemptQuery::default()
    };
    let last = handle.attempts("d", &newest).unwrap();
    assert_eq!(last, std::slice::from_ref(second));
}

#[test]
fn what_is_with_a_worker_is_told_until_it_has_ended() {
    let world = World::memory(Broker::with_lanes(&["0"]), once_bad());
    let handle = world.open();
    handle
        .start(&request(&after_source("work", ""), true))
        .unwrap();
    world.workers.close_gate();
    world.broker.publish("0", values(2..5));
    until(&handle, "with a worker", |run| run.tasks[0].running > 0);
    let sent = all(&handle);
    assert!(!sent.is_empty());
    for one in &sent {
        assert_eq!(one.state, AttemptState::Sent);
        assert!(one.worker.is_some() && one.sent_ms.is_some());
        assert!(one.started_ms.is_none() && one.ended_ms.is_none());
    }
    let one = AttemptQuery {
        position: Some(0),
        ..AttemptQuery::default()
    };
    assert_eq!(attempts(&handle, one).len(), 1);
    world.workers.open_gate();
    until(&handle, "all done", |run| run.done == 3);
    assert_eq!(all(&handle), []);
}

#[test]
fn what_a_worker_is_at_for_long_is_told_and_what_waits_behind_it_does_not_run() {
    let workers = Workers::new(1, |_| Outcome::Success(None));
    let world = World::memory(Broker::with_lanes(&["0"]), workers);
    let handle = world.open();
    handle
        .start(&request(&after_source("work", ""), true))
        .unwrap();
    world.workers.close_gate();
    world.broker.publish("0", values(2..3));
    until(&handle, "with a worker", |run| run.tasks[0].running == 1);
    world.broker.publish("0", values(3..5));
    let run = until(&handle, "for long", |run| {
        run.longest.is_some() && run.taken_in == 3
    });
    assert_eq!(run.longest.unwrap().task, "work");
    assert_eq!((run.in_flight, run.tasks[0].running), (3, 1));
    world.workers.open_gate();
    let run = until(&handle, "all done", |run| run.done == 3);
    assert_eq!((run.longest, run.tasks[0].running), (None, 0));
}

#[test]
fn of_very_many_failures_the_latest_are_remembered() {
    let workers = Workers::new(1, |call| failed(&format!("no {}", call.value)));
    let world = World::memory(Broker::with_lanes(&["0"]), workers);
    let handle = world.open();
    handle
        .start(&request(&after_source("work", ""), true))
        .unwrap();
    let kept = evermill_engine::limits::ATTEMPTS_KEPT as u64;
    world.broker.publish("0", values(0..kept + 20));
    until(&handle, "all parked", |run| run.parked == kept + 20);
    let wanted = AttemptQuery {
        limit: usize::MAX,
        ..AttemptQuery::default()
    };
    let found = handle.attempts("d", &wanted).unwrap();
    assert_eq!(found.len() as u64, kept);
    assert_eq!(found[0].position, kept + 19);
    assert_eq!(
        handle.detail("d").unwrap().failures.len(),
        evermill_engine::limits::FAILURES_KEPT
    );
}
