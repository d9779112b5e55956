//! Commits that fail, workers that hang, sources that are faster than anybody.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::bounded;
use evermill_contract::worker::Outcome;
use evermill_engine::{Drained, EngineError, StartRequest};
use evermill_store::Fault;

use crate::broker::Broker;
use crate::executor::Workers;
use crate::harness::{PATIENCE, World, one_task, recording, started, until, until_true, values};

const GRACE: Duration = Duration::from_secs(30);

#[test]
fn a_commit_of_unknown_outcome_reloads_the_shard_and_loses_nothing() {
    for fault in [Fault::UnknownAbsent, Fault::UnknownCommitted] {
        let (ledger, workers) = recording(2);
        let world = World::memory(Broker::with_lanes(&["a", "b"]), workers);
        let handle = world.open();
        started(&handle, &one_task());
        for round in 0..4_u64 {
            world.faults.next(fault);
            world
                .broker
                .publish("a", values(round * 100..round * 100 + 50));
            world
                .broker
                .publish("b", values(round * 100 + 50..round * 100 + 100));
            until(&handle, "the round", |run| run.done == (round + 1) * 100);
        }
        assert_eq!(world.faults.fired(), 4);
        assert_eq!(handle.fresh_view().unwrap().reloads, 4);
        assert_eq!(ledger.len(), 400);
        assert_eq!(handle.drain(GRACE).unwrap(), Drained::Settled);
    }
}

/// A kill at this moment would leave an event acknowledged upstream that no store holds. The
/// sabotage `ack_before_commit` has to fail here.
#[test]
fn a_source_hears_of_a_position_only_once_the_store_holds_it() {
    let (ledger, workers) = recording(2);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a", values(0..10));
    until_true("the first acknowledgement", || {
        world.broker.acked("a") == 10
    });
    world.gate.shut();
    world.broker.publish("a", values(10..20));
    until_true("the commit of the position", || world.gate.is_reached());
    world.broker.until_heard();
    assert_eq!(world.broker.acked("a"), 10, "no store holds more yet");
    assert!(ledger.len() > 10, "what waits at the gate has run");
    world.gate.open();
    until_true("the second acknowledgement", || {
        world.broker.acked("a") == 20
    });
    handle.drain(GRACE).unwrap();
}

/// C8: the machine knows already that the second ten are done; no crash takes back what a reader was
/// told.
#[test]
fn a_reader_sees_what_is_committed_and_nothing_else() {
    let (ledger, workers) = recording(2);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a", values(0..10));
    until(&handle, "the first ten", |run| run.done == 10);
    world.gate.shut();
    world.broker.publish("a", values(10..20));
    until_true("the commit of the second ten", || world.gate.is_reached());
    until_true("the second ten to have run", || ledger.len() == 20);
    let run = handle.view().runs[0].clone();
    assert!(run.done < 20, "told before its commit: {}", run.done);
    let settled = run.done + run.skipped + run.parked + run.dropped;
    assert_eq!(run.taken_in, settled + run.in_flight);
    world.gate.open();
    until(&handle, "the second ten", |run| run.done == 20);
    handle.drain(GRACE).unwrap();
}

/// The sabotage `position_before_result` has to fail here: its positions pass events whose outcomes
/// are in the next commit.
#[test]
fn what_is_done_is_committed_while_another_task_runs_on() {
    let (begun, has_begun) = bounded(1);
    let (release, released) = bounded::<()>(0);
    let workers = Workers::new(2, move |call| {
        if call.value == "0" {
            begun.send(()).unwrap();
            // Disconnected at the end of the test.
            released.recv().unwrap_err();
        }
        Outcome::Success(None)
    });
    let world = World::memory(Broker::with_lanes(&["slow", "quick"]), workers);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("slow", values(0..1));
    has_begun.recv_timeout(PATIENCE).unwrap();
    world.broker.publish("quick", values(1..2));
    until_true("the quick one's position", || {
        world.broker.acked("quick") == 1
    });
    assert_eq!(world.broker.acked("slow"), 0);
    drop(release);
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_position_and_the_outcomes_below_it_are_one_commit() {
    let (_, workers) = recording(2);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a", values(0..10));
    until_true("the first acknowledgement", || {
        world.broker.acked("a") == 10
    });
    world.gate.cut_behind();
    world.broker.publish("a", values(10..20));
    until_true("the next position", || !world.gate.will_cut());
    // At the latest their commit is the one that fails.
    world.broker.publish("a", values(20..30));
    until_true("the cut", || world.faults.fired() == 1);
    let run = until(&handle, "the end of the lane", |run| {
        world.broker.acked("a") == 30 && run.in_flight == 0
    });
    assert_eq!(
        (run.taken_in, run.done),
        (30, 30),
        "positions passed events"
    );
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_full_disk_is_waited_out() {
    let (ledger, workers) = recording(2);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    started(&handle, &one_task());
    world.faults.next(Fault::Full);
    world.broker.publish("a", values(0..100));
    let run = until(&handle, "100 events", |run| run.done == 100);
    assert_eq!(run.in_flight, 0);
    assert_eq!(ledger.repeated(), Vec::<String>::new());
    assert_eq!(handle.fresh_view().unwrap().reloads, 0);
    handle.drain(GRACE).unwrap();
    assert!(
        world
            .notices
            .lock()
            .unwrap()
            .iter()
            .any(|text| text.contains("disk is full"))
    );
}

#[test]
fn on_a_full_disk_who_looks_waits_for_no_commit() {
    let (_, workers) = recording(2);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    started(&handle, &one_task());
    let tried = world.faults.tried();
    (1..10_000).for_each(|more| world.faults.at(tried + more, Fault::Full));
    world.broker.publish("a", values(0..10));
    until_true("a full disk", || handle.view().stalled.is_some());
    let (looking, (told, seen)) = (handle.clone(), bounded(1));
    std::thread::spawn(move || told.send(looking.fresh_view()));
    let view = seen.recv_timeout(PATIENCE).unwrap().unwrap();
    let why = view.stalled.as_deref().unwrap_or_default();
    assert!(why.contains("the disk is full"), "{why}");
    assert_eq!(view.run("d").unwrap().done, 0);
    handle.halt();
}

/// S16.
#[test]
fn a_report_under_an_old_fence_is_refused_and_counted() {
    let (ledger, workers) = recording(1);
    workers.reports_when_killed.store(true, Ordering::SeqCst);
    workers.close_gate();
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a", values(0..1));
    until_true("a dispatch", || {
        world.workers.dispatches.load(Ordering::SeqCst) == 1
    });
    // The attempt is out. The next commit fails, the attempt is killed, and reports all the same.
    world.faults.next(Fault::UnknownAbsent);
    world.broker.publish("a", values(1..2));
    until_true("the dispatch after the reload", || {
        let reloaded = handle.fresh_view().is_ok_and(|view| view.reloads == 1);
        reloaded && world.workers.dispatches.load(Ordering::SeqCst) >= 2
    });
    let view = handle.fresh_view().unwrap();
    assert_eq!((view.refused_reports, view.run("d").unwrap().done), (1, 0));
    world.workers.open_gate();
    until(&handle, "both events", |run| run.done == 2);
    assert_eq!(handle.fresh_view().unwrap().refused_reports, 1);
    assert_eq!((ledger.times("0"), ledger.times("1")), (1, 1));
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_source_that_is_faster_than_the_workers_is_held_up() {
    let (ledger, workers) = recording(1);
    workers.close_gate();
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    world.broker.publish("a", values(0..60_000));
    let handle = world.open();
    started(&handle, &one_task());
    until_true("closed credit", || {
        let before = world.broker.delivered();
        let full = before >= evermill_core::limits::LANE_EVENTS_HIGH as u64;
        full && handle
            .fresh_view()
            .is_ok_and(|view| view.run("d").is_some_and(|run| run.taken_in >= before))
    });
    let most = evermill_core::limits::LANE_EVENTS_HIGH
        + evermill_engine::limits::BATCHES_QUEUED_PER_SOURCE
            * evermill_engine::limits::BATCH_EVENTS
            * 2;
    assert!(
        world.broker.delivered() <= most as u64,
        "{}",
        world.broker.delivered()
    );
    world.workers.open_gate();
    until(&handle, "every event", |run| run.done == 60_000);
    assert_eq!(ledger.len(), 60_000);
    assert_eq!(ledger.repeated(), Vec::<String>::new());
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_drain_without_time_cuts_off_what_hangs_and_the_next_start_runs_it() {
    let (ledger, workers) = recording(1);
    workers.close_gate();
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    world.broker.publish("a", values(0..10));
    let handle = world.open();
    started(&handle, &one_task());
    until_true("a dispatch", || {
        world.workers.dispatches.load(Ordering::SeqCst) > 0
    });
    assert_eq!(handle.drain(Duration::ZERO).unwrap(), Drained::CutOff);
    assert_eq!(ledger.len(), 0);
    assert!(matches!(handle.pause("d"), Err(EngineError::Closed)));
    drop(handle);
    world.workers.open_gate();
    let handle = world.open();
    started(&handle, &one_task());
    until(&handle, "every event", |run| run.done == 10);
    assert_eq!(ledger.repeated(), Vec::<String>::new());
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_paused_run_takes_nothing_new_until_it_is_resumed() {
    let (ledger, workers) = recording(1);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    let run = started(&handle, &one_task()).run;
    handle.pause(&run).unwrap();
    world.broker.publish("a", values(0..10));
    assert!(started(&handle, &one_task()).was_running());
    assert_eq!(
        handle.fresh_view().unwrap().run("d").unwrap().state,
        "paused"
    );
    handle.resume("d").unwrap();
    until(&handle, "every event", |run| run.done == 10);
    assert_eq!(ledger.len(), 10);
    assert!(matches!(
        handle.stop("nobody"),
        Err(EngineError::UnknownRun { .. })
    ));
    handle.drain(GRACE).unwrap();
}

#[test]
fn c05_a_gap_stops_its_lane_until_somebody_says_to_pass_it() {
    let (ledger, workers) = recording(1);
    let world = World::memory(Broker::with_lanes(&["a", "b"]), workers);
    world.broker.publish("a", values(0..50));
    world.broker.publish("b", values(50..60));
    world.broker.forget_below("a", 20);
    let handle = world.open();
    started(&handle, &one_task());
    let stands = |run: &evermill_engine::view::RunView| {
        let lanes = run.sources.iter().flat_map(|source| &source.lanes);
        let mut stopped = lanes.filter(|lane| lane.stopped.is_some());
        stopped.any(|lane| lane.name == "a" && lane.position == Some(0))
    };
    let run = until(&handle, "the other lane", |run| {
        run.done == 10 && stands(run)
    });
    assert_eq!((run.taken_in, ledger.len()), (10, 10));
    handle.drain(GRACE).unwrap();
    let notices = world.notices.lock().unwrap().join("\n");
    assert!(notices.contains("positions 0 to 20 can no longer be read (retention)"));
    assert!(notices.contains("--pass-gaps"), "{notices}");
    let subjects = world.subjects.lock().unwrap().clone();
    let about = subjects.iter().find(|about| about.lane.is_some()).unwrap();
    let said = [&about.dag, &about.run, &about.source, &about.lane];
    let said = said.map(|field| field.as_deref().unwrap_or_default());
    assert_eq!(said, ["d", "d-1", "in", "a"]);
    assert_eq!(about.position, Some(0));

    let handle = world.open();
    let pass_gaps = StartRequest {
        pass_gaps: true,
        ..one_task()
    };
    started(&handle, &pass_gaps);
    until(&handle, "what is left", |run| run.done == 40);
    assert_eq!((ledger.times("19"), ledger.times("20")), (0, 1));
    handle.drain(GRACE).unwrap();
    assert_eq!(world.broker.acked("a"), 50);
}

#[test]
fn a_drain_survives_a_reload() {
    let (ledger, workers) = recording(1);
    workers.close_gate();
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a", values(0..100));
    until_true("a dispatch", || {
        world.workers.dispatches.load(Ordering::SeqCst) == 1
    });
    let draining = handle.clone();
    world.faults.next(Fault::UnknownAbsent);
    let drain = std::thread::spawn(move || draining.drain(GRACE));
    until_true("the reload", || {
        world.faults.fired() == 1 && handle.view().reloads == 1
    });
    world.workers.open_gate();
    assert_eq!(drain.join().unwrap().unwrap(), Drained::Settled);
    let run = handle.view().run("d").cloned().unwrap();
    assert_eq!((run.state, run.in_flight), ("drained", 0));
    drop(handle);
    let handle = world.open();
    started(&handle, &one_task());
    until(&handle, "every event", |run| run.done == 100);
    assert_eq!(ledger.repeated(), Vec::<String>::new());
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_run_that_was_drained_can_be_started_again_in_the_same_engine() {
    let (ledger, workers) = recording(1);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    world.broker.publish("a", values(0..10));
    let handle = world.open();
    started(&handle, &one_task());
    until(&handle, "10 events", |run| run.done == 10);
    handle.drain_run("d").unwrap();
    until(&handle, "rest", |run| run.state == "drained");
    world.broker.publish("a", values(10..20));
    until_true("the second start", || handle.start(&one_task()).is_ok());
    until(&handle, "20 events", |run| run.done == 20);
    assert_eq!((ledger.len(), ledger.repeated().len()), (20, 0));
    handle.drain(GRACE).unwrap();
}
