//! Lanes that several readers share in turn: given, taken, given again.

use std::time::Duration;

use evermill_contract::worker::Outcome;
use evermill_engine::Drained;
use evermill_store::Fault;

use crate::broker::Broker;
use crate::executor::Workers;
use crate::harness::{Ledger, PATIENCE, World, one_task, started, until, values};

const GRACE: Duration = Duration::from_secs(30);

fn shared(slots: u16) -> (Ledger, World) {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(slots, move |call| {
        notes.note(call.value.clone());
        Outcome::Success(None)
    });
    let broker = Broker::with_lanes(&["a/0", "a/1"]);
    broker.share();
    (ledger, World::memory(broker, workers))
}

fn released(broker: &Broker, lane: &str) -> Option<u64> {
    let begun = std::time::Instant::now();
    loop {
        if let Some(position) = broker.released(lane) {
            return position;
        }
        assert!(begun.elapsed() < PATIENCE, "{lane} is never released");
        std::thread::yield_now();
    }
}

#[test]
fn a_lane_that_was_taken_is_handed_on_when_all_that_was_begun_is_durable() {
    let (ledger, world) = shared(1);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.give("a/0", 0);
    world.workers.close_gate();
    world.broker.publish("a/0", values(0..5_000));
    until(&handle, "work in hand", |run| run.in_flight > 0);
    world.broker.take("a/0");
    until(&handle, "no lane", |run| run.sources[0].lanes.is_empty());
    assert_eq!(world.broker.released("a/0"), None, "a task is at work");

    world.workers.open_gate();
    let position = released(&world.broker, "a/0").expect("it was started");
    assert_eq!(ledger.len() as u64, position, "what was not begun is left");
    let run = until(&handle, "rest", |run| run.in_flight == 0);
    assert_eq!((run.taken_in, run.done), (position, position));
    assert!(position < 5_000, "the rest is for the other reader");
}

#[test]
fn a_lane_that_comes_back_is_read_from_where_any_reader_has_got_to() {
    let (ledger, world) = shared(2);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a/0", values(0..100));
    world.broker.give("a/0", 0);
    until(&handle, "the first part", |run| run.done == 100);
    world.broker.take("a/0");
    assert_eq!(released(&world.broker, "a/0"), Some(100));

    // Another reader did fifty more.
    world.broker.publish("a/0", values(100..200));
    world.broker.give("a/0", 150);
    until(&handle, "the last part", |run| run.done == 150);
    assert_eq!(ledger.times("149"), 0);
    assert_eq!(ledger.times("150"), 1);
    assert_eq!(handle.drain(GRACE).unwrap(), Drained::Settled);
    drop(handle);

    // What we hold ourselves wins over a group that has heard less.
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.give("a/0", 120);
    world.broker.publish("a/0", values(200..210));
    until(&handle, "the new ones", |run| run.done == 160);
    assert_eq!(ledger.repeated(), Vec::<String>::new());

    // While we were away again, another reader went on.
    assert_eq!(handle.drain(GRACE).unwrap(), Drained::Settled);
    drop(handle);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a/0", values(210..230));
    world.broker.give("a/0", 220);
    until(&handle, "the last ones", |run| run.done == 170);
    assert_eq!((ledger.times("219"), ledger.times("220")), (0, 1));
}

#[test]
fn work_cut_off_at_a_stop_is_not_begun_again_when_another_reader_did_it() {
    let (ledger, world) = shared(1);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.give("a/0", 0);
    world.workers.close_gate();
    world.broker.publish("a/0", values(0..50));
    until(&handle, "work in hand", |run| run.in_flight == 50);
    handle.halt();
    drop(handle);
    world.workers.open_gate();

    let handle = world.open();
    started(&handle, &one_task());
    world.broker.give("a/0", 50);
    world.broker.publish("a/0", values(50..60));
    let run = until(&handle, "the new ones", |run| run.done >= 10);
    assert_eq!((run.taken_in, run.in_flight), (10, 0));
    assert_eq!(ledger.times("50"), 1);
}

#[test]
fn a_lane_that_was_taken_is_handed_on_after_a_reload_too() {
    for fault in [Fault::UnknownAbsent, Fault::UnknownCommitted] {
        let (ledger, world) = shared(1);
        let handle = world.open();
        started(&handle, &one_task());
        world.broker.give("a/0", 0);
        world.broker.give("a/1", 0);
        until(&handle, "both lanes", |run| run.sources[0].lanes.len() == 2);
        world.workers.close_gate();
        world.broker.publish("a/0", values(0..50));
        until(&handle, "work in hand", |run| run.in_flight == 50);
        world.broker.take("a/0");
        until(&handle, "one lane", |run| run.sources[0].lanes.len() == 1);
        world.faults.next(fault);
        world.workers.open_gate();
        let position = released(&world.broker, "a/0").expect("it was started");
        assert_eq!(world.broker.acked("a/0").max(position), position);

        // The other reader goes on from there; nothing below is missing.
        world.broker.give("a/0", position);
        until(&handle, "all", |run| run.done == 50);
        assert_eq!(ledger.len(), 50);
    }
}
