//! Sources whose events cannot be read again: kept before anybody outside is told, run once, and
//! gone when they are settled.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evermill_contract::source::{Opened, PushRequest};
use evermill_contract::worker::{Outcome, TaskError, TaskErrorKind};
use evermill_core::row::Table;
use evermill_engine::{
    Engine, EngineError, Handle, Idle, Operations, PushError, Pushed, store_options,
};
use evermill_store::{DirLock, Fault, SqliteStore, Store};

use crate::broker::Broker;
use crate::executor::Workers;
use crate::harness::{
    PATIENCE, World, one_task, recording, request, started, until, until_true, values,
};
use crate::queue::{Hook, Queue};

const GRACE: Duration = Duration::from_secs(30);

fn queue_world(workers: Workers) -> (World, Queue) {
    let queue = Queue::default();
    let mut world = World::sqlite(Broker::default(), workers);
    let opened = queue.clone();
    world.opens = Some(Arc::new(move || opened.open()));
    (world, queue)
}

fn hook_world(workers: Workers) -> World {
    let mut world = World::sqlite(Broker::default(), workers);
    world.opens = Some(Arc::new(|| Opened::Pushed(Arc::new(Hook))));
    world
}

fn push(handle: &Handle, id: &str, body: &str) -> Result<Pushed, PushError> {
    let headers = [("id".to_owned(), Bytes::copy_from_slice(id.as_bytes()))];
    let body = Bytes::copy_from_slice(body.as_bytes());
    let request = PushRequest {
        method: "POST",
        query: "",
        headers: &headers,
        body: &body,
    };
    handle.push("d", "in", &request)
}

/// Rows of a store that no engine runs.
fn rows(world: &World, table: Table) -> usize {
    let lock = DirLock::take(world.dir()).unwrap();
    let mut store = SqliteStore::open(lock, store_options()).unwrap();
    let mut count = 0;
    store.load(table, &mut |_| count += 1).unwrap();
    Box::new(store).close_clean().unwrap();
    count
}

#[test]
fn a_queue_is_told_to_forget_what_is_durable_and_each_message_runs_once() {
    let (ledger, workers) = recording(2);
    let (world, queue) = queue_world(workers);
    let handle = world.open();
    started(&handle, &one_task());
    queue.send(values(0..200));
    let run = until(&handle, "all", |run| run.done == 200);
    assert_eq!(run.taken_in, 200);
    assert!(ledger.repeated().is_empty() && ledger.len() == 200);
    until_true("the settled ones", || queue.settled().len() == 200);
    assert_eq!(queue.deleted(), (0..200).collect::<Vec<_>>());
    assert_eq!(
        handle.wait_idle(Duration::ZERO, Some(PATIENCE)),
        Idle::Reached
    );
    handle.drain(GRACE).unwrap();
    assert_eq!(queue.closed(), 1);
    assert_eq!(queue.memos(), [None]);
    assert_eq!(rows(&world, Table::Inbox), 1, "the inbox itself");
    let handle = world.open();
    started(&handle, &one_task());
    queue.send(values(200..201));
    until(&handle, "one more", |run| run.done == 201);
    handle.drain(GRACE).unwrap();
    assert_eq!(queue.memos()[1].as_deref(), Some(&b"199"[..]));
    assert!(ledger.repeated().is_empty());
}

#[test]
fn the_outside_world_hears_of_a_message_only_once_the_store_holds_it() {
    let (_, workers) = recording(2);
    let (world, queue) = queue_world(workers);
    let handle = world.open();
    started(&handle, &one_task());
    queue.send(values(0..5));
    until(&handle, "the first five", |run| run.done == 5);
    until_true("their end", || queue.deleted().len() == 5);
    world.gate.shut();
    queue.send(values(5..6));
    until_true("the commit of the message", || world.gate.is_reached());
    assert_eq!(queue.deleted().len(), 5, "no store holds more yet");
    world.gate.open();
    until_true("the sixth", || queue.deleted().len() == 6);
    handle.drain(GRACE).unwrap();
}

#[test]
fn messages_that_were_kept_survive_a_crash_without_coming_again() {
    let (ledger, workers) = recording(1);
    workers.close_gate();
    let (world, queue) = queue_world(workers.clone());
    let handle = world.open();
    started(&handle, &one_task());
    queue.send(values(0..50));
    until_true("all kept", || queue.deleted().len() == 50);
    handle.halt();
    drop(handle);
    workers.open_gate();
    let handle = world.open();
    started(&handle, &one_task());
    until(&handle, "all", |run| run.done == 50);
    assert_eq!(ledger.len(), 50);
    assert_eq!(
        handle.drain(GRACE).unwrap(),
        evermill_engine::Drained::Settled
    );
}

#[test]
fn a_commit_of_unknown_outcome_costs_no_message_and_doubles_none() {
    for fault in [Fault::UnknownAbsent, Fault::UnknownCommitted] {
        let (ledger, workers) = recording(2);
        let (world, queue) = queue_world(workers);
        let handle = world.open();
        started(&handle, &one_task());
        for round in 0..4_u64 {
            world.faults.next(fault);
            for number in round * 25..round * 25 + 25 {
                queue.send_as(Some(&number.to_string()), &number.to_string());
            }
            until(&handle, "the round", |run| run.done == (round + 1) * 25);
        }
        assert_eq!(world.faults.fired(), 4);
        until_true("all deleted", || queue.deleted().len() == 100);
        assert_eq!(ledger.len(), 100);
        handle.drain(GRACE).unwrap();
    }
}

#[test]
fn a_request_is_durable_when_it_is_answered_and_the_same_id_counts_once() {
    let (ledger, workers) = recording(1);
    let world = hook_world(workers);
    let handle = world.open();
    started(&handle, &one_task());
    until_true("the door", || {
        handle.push_body_max("d", "in") == Some(1_000)
    });
    let kept = push(&handle, "1", "one").unwrap();
    assert_eq!((kept.kept, kept.repeated), (1, 0));
    let again = push(&handle, "1", "one").unwrap();
    assert_eq!((again.kept, again.repeated), (0, 1));
    handle.halt();
    drop(handle);
    let handle = world.open();
    started(&handle, &one_task());
    until(&handle, "the event", |run| run.done == 1);
    assert_eq!(push(&handle, "1", "one").unwrap().repeated, 1);
    match push(&handle, "2", "") {
        Err(PushError::Rejected(reject)) => assert_eq!(reject.status, 400),
        other => panic!("{other:?}"),
    }
    assert_eq!(ledger.len(), 1);
    handle.drain(GRACE).unwrap();
    assert!(matches!(
        push(&handle, "3", "three"),
        Err(PushError::NotFound | PushError::Engine(_))
    ));
}

#[test]
fn a_source_that_takes_more_than_tasks_can_do_says_that_it_is_full_and_recovers() {
    let (ledger, workers) = recording(1);
    workers.close_gate();
    let world = hook_world(workers.clone());
    let handle = world.open();
    started(&handle, &one_task());
    let large = "x".repeat(4 * 1024 * 1024);
    let refused = (0..20).find_map(|number| {
        let pushed = push(&handle, &number.to_string(), &format!("{number}{large}"));
        pushed.err().map(|error| (number, error))
    });
    let Some((number, PushError::Engine(EngineError::Full(why)))) = refused else {
        panic!("{refused:?}")
    };
    assert!(why.contains("wait already"), "{why}");
    workers.open_gate();
    until(&handle, "what was taken", |run| run.done == number);
    push(&handle, "again", "more").unwrap();
    until(&handle, "more", |run| run.done == number + 1);
    assert_eq!(ledger.len() as u64, number + 1);
    handle.drain(GRACE).unwrap();
}

/// Row E11: while the disk is full nobody is told that a request is kept; what was not answered may be sent
/// again and is done once.
#[test]
fn e11_a_full_disk_answers_no_request_until_it_is_durable() {
    let (ledger, workers) = recording(1);
    let world = hook_world(workers);
    let handle = world.open();
    started(&handle, &one_task());
    until_true("the door", || {
        handle.push_body_max("d", "in") == Some(1_000)
    });
    assert_eq!(push(&handle, "0", "zero").unwrap().kept, 1);
    until(&handle, "the first", |run| run.done == 1);
    for number in 1..6 {
        world.faults.next(Fault::Full);
        let (id, body) = (number.to_string(), format!("n{number}"));
        let pushed = push(&handle, &id, &body);
        if pushed.is_err() {
            assert!(
                matches!(
                    pushed,
                    Err(PushError::Engine(
                        EngineError::Interrupted | EngineError::Full(_) | EngineError::Busy(_)
                    ))
                ),
                "{pushed:?}"
            );
        }
        // Either way: it is there once it was answered.
        let again = push(&handle, &id, &body).unwrap();
        assert_eq!(again.kept + again.repeated, 1);
        if pushed.is_ok() {
            assert_eq!(again.repeated, 1, "what was answered is durable");
        }
    }
    assert!(world.faults.fired() >= 5, "{}", world.faults.fired());
    until(&handle, "all", |run| run.done == 6);
    assert!(ledger.repeated().is_empty() && ledger.len() == 6);
    handle.drain(GRACE).unwrap();
}

#[test]
fn what_is_triggered_by_hand_is_durable_and_runs_once() {
    let (ledger, workers) = recording(1);
    workers.close_gate();
    let world = World::sqlite(Broker::default(), workers.clone());
    let dag = request(r#"{"id":"work","kind":"call","line":2}"#, false);
    let handle = world.open();
    started(&handle, &dag);
    let name = handle.trigger("d", Some(Bytes::from_static(b"1"))).unwrap();
    assert_eq!(name, "d-1/manual/manual/0");
    handle.trigger_once("d").unwrap();
    handle.halt();
    drop(handle);
    workers.open_gate();
    let handle = world.open();
    started(&handle, &dag);
    handle.trigger_once("d").unwrap();
    assert_eq!(
        handle.wait_idle(Duration::ZERO, Some(PATIENCE)),
        Idle::Ended
    );
    let view = handle.fresh_view().unwrap();
    let run = view.run("d").unwrap();
    assert_eq!((run.state, run.done), ("finished", 1));
    assert_eq!((ledger.len(), ledger.times("1")), (1, 1));
    let over = handle.trigger("d", None).unwrap_err().to_string();
    assert!(over.contains("is finished"), "{over}");
    handle.drain(GRACE).unwrap();
}

#[test]
fn what_is_triggered_at_rest_waits_for_the_next_start() {
    let (ledger, workers) = recording(1);
    let world = World::sqlite(Broker::default(), workers);
    let dag = request(r#"{"id":"work","kind":"call","line":2}"#, false);
    let handle = world.open();
    started(&handle, &dag);
    handle.drain(GRACE).unwrap();
    drop(handle);
    let lock = DirLock::take(world.dir()).unwrap();
    let store = SqliteStore::open(lock, store_options()).unwrap();
    let rest = Engine::at_rest(world.dir(), Box::new(store)).unwrap();
    let conf = Some(Bytes::from_static(b"1"));
    assert_eq!(rest.trigger("d", conf).unwrap(), "d-1/manual/manual/0");
    rest.close().unwrap();
    let handle = world.open();
    started(&handle, &dag);
    handle.trigger_once("d").unwrap();
    assert_eq!(
        handle.wait_idle(Duration::ZERO, Some(PATIENCE)),
        Idle::Ended
    );
    assert_eq!((ledger.len(), ledger.times("1")), (1, 1));
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_queue_hears_that_a_message_is_settled_however_it_ended() {
    let workers = Workers::new(1, |call| match &call.value[..] {
        "bad" => Outcome::Failed(Box::new(TaskError {
            kind: TaskErrorKind::Raised,
            class: "ValueError".to_owned(),
            message: "no".to_owned(),
            traceback: String::new(),
            retryable: false,
            retry_after_ms: None,
        })),
        _ => Outcome::Success(None),
    });
    let (world, queue) = queue_world(workers);
    let handle = world.open();
    started(&handle, &one_task());
    queue.send(["good".to_owned(), "bad".to_owned(), "fine".to_owned()]);
    let run = until(&handle, "all", |run| run.done + run.parked == 3);
    assert_eq!((run.done, run.parked), (2, 1));
    until_true("all to be settled or put by", || queue.settled().len() == 3);
    handle.drain(GRACE).unwrap();
}

/// D01: under `ack="outcome"` a queue keeps a message for as long as its work takes.
#[test]
fn d01_a_queue_that_waits_for_outcomes_hears_of_each_when_it_is_settled_and_not_before() {
    let (_, workers) = recording(2);
    workers.close_gate();
    let (world, queue) = queue_world(workers.clone());
    let handle = world.open();
    started(&handle, &one_task());
    queue.send(values(0..3));
    until_true("all kept", || queue.deleted().len() == 3);
    // An attempt that runs for a second has a row of its own, and its lane goes on without it.
    until(&handle, "rows of their own", |run| {
        run.sources[0].lanes[0].position >= Some(2)
    });
    assert!(queue.settled().is_empty());
    workers.open_gate();
    until_true("the outcomes", || queue.settled().len() == 3);
    handle.drain(GRACE).unwrap();
}

/// D06: a message that comes again after a crash is told of once the first one is settled.
#[test]
fn d06_a_message_that_came_before_is_settled_with_the_one_that_is_kept() {
    let (ledger, workers) = recording(1);
    let (world, queue) = queue_world(workers.clone());
    let handle = world.open();
    started(&handle, &one_task());
    queue.send_as(Some("a"), "one");
    until_true("the first one", || queue.settled() == [0]);
    workers.close_gate();
    queue.send_as(Some("b"), "two");
    until_true("it is kept", || queue.deleted().len() == 2);
    queue.send_as(Some("b"), "two");
    until_true("it is kept, too", || queue.deleted().len() == 3);
    assert_eq!(queue.settled(), [0]);
    workers.open_gate();
    until_true("both", || queue.settled().len() == 3);
    assert_eq!(ledger.times("two"), 1);
    handle.drain(GRACE).unwrap();
}
