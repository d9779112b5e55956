//! Reading again, and moving positions (W18).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use evermill_contract::source::Place;
use evermill_contract::worker::Outcome;
use evermill_engine::view::{ReplayView, RunView};
use evermill_engine::{
    Drained, Engine, EngineError, Handle, Idle, Operations as _, ReplayAsk, ReplayOrder, ResetAsk,
};

use crate::broker::Broker;
use crate::executor::Workers;
use crate::harness::{
    Ledger, PATIENCE, World, one_task, recording, started, until, until_true, values,
};

const GRACE: Duration = Duration::from_secs(30);

fn from(position: u64) -> ReplayAsk {
    ReplayAsk {
        from: Place::Position(position),
        to: None,
        lane: None,
        source: None,
        dry_run: false,
        new_effect_keys: false,
        with_state: false,
    }
}

fn stretch(first: u64, last: u64) -> ReplayAsk {
    ReplayAsk {
        to: Some(Place::Position(last)),
        ..from(first)
    }
}

fn reset_to(to: Place) -> ResetAsk {
    ResetAsk {
        to,
        lane: None,
        source: None,
        dry_run: false,
        by: "ada".to_owned(),
    }
}

/// A run that has done so many events of one lane.
fn done(world: &World, count: u64) -> Handle {
    world.broker.publish("a", values(0..count));
    let handle = world.open();
    started(&handle, &one_task());
    until(&handle, "the live events", |run| run.done == count);
    handle
}

fn the_replay(handle: &Handle) -> ReplayView {
    let mut all = handle.replays("d").unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn conserved(run: &RunView) -> bool {
    run.taken_in == run.done + run.skipped + run.parked + run.dropped + run.in_flight
}

#[test]
fn g07_a_replay_reads_its_stretch_again_beside_live_events_with_the_same_effect_keys() {
    let (keys, fresh) = (Arc::new(AtomicU32::new(0)), Ledger::default());
    let (seen, notes) = (Arc::clone(&keys), fresh.clone());
    let workers = Workers::new(2, move |call| {
        seen.fetch_max(call.generation, Ordering::Relaxed);
        notes.note(call.value.clone());
        Outcome::Success(None)
    });
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = done(&world, 100);
    let answer = handle.replay("d", &stretch(10, 19)).unwrap();
    assert_eq!((answer.replay, answer.events), (Some(1), 10));
    world.broker.publish("a", values(100..120));
    let run = until(&handle, "both", |run| run.done == 130);
    assert!(conserved(&run), "{run:?}");
    for value in 0..120 {
        let times = fresh.times(&value.to_string());
        assert_eq!(times, 1 + u32::from((10..20).contains(&value)), "{value}");
    }
    assert_eq!(keys.load(Ordering::Relaxed), 0);
    until(&handle, "its end", |run| run.replays.is_empty());
    let replay = the_replay(&handle);
    assert_eq!(
        (replay.state.as_str(), replay.done, replay.total),
        ("done", 10, 10)
    );
    let lanes = &run.sources[0].lanes;
    assert_eq!(lanes.len(), 1, "{lanes:?}");
    assert_eq!(handle.drain(GRACE).unwrap(), Drained::Settled);
    assert_eq!(
        world.broker.acked("a"),
        120,
        "the live position is nobody else's"
    );
}

#[test]
fn a_replay_may_ask_for_effect_keys_of_its_own() {
    let keys = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&keys);
    let workers = Workers::new(1, move |call| {
        seen.fetch_max(call.generation, Ordering::Relaxed);
        Outcome::Success(None)
    });
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = done(&world, 5);
    let ask = ReplayAsk {
        new_effect_keys: true,
        ..from(2)
    };
    handle.replay("d", &ask).unwrap();
    until(&handle, "the replay", |run| run.done == 8);
    assert_eq!(keys.load(Ordering::Relaxed), 1);
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_dry_run_says_what_would_be_read_and_begins_nothing() {
    let (ledger, workers) = recording(1);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = done(&world, 50);
    world.broker.forget_below("a", 5);
    let ask = ReplayAsk {
        from: Place::Time(3),
        to: Some(Place::Time(40)),
        dry_run: true,
        ..from(0)
    };
    let answer = handle.replay("d", &ask).unwrap();
    assert_eq!((answer.replay, answer.events), (None, 35));
    let lane = &answer.lanes[0];
    assert_eq!((lane.from, lane.to), (5, 40), "what is gone is left out");
    assert_eq!(lane.first.map(|first| first.position), Some(5));
    assert_eq!(lane.last.map(|last| last.position), Some(39));
    assert!(lane.bytes > Some(0));
    assert!(handle.replays("d").unwrap().is_empty());
    assert_eq!(ledger.repeated(), Vec::<String>::new());
    handle.drain(GRACE).unwrap();
}

#[test]
fn what_cannot_be_read_again_is_refused_with_the_cure() {
    let (_, workers) = recording(1);
    let world = World::memory(Broker::with_lanes(&["a", "b"]), workers);
    let handle = done(&world, 20);
    world.broker.publish("b", values(100..110));
    until(&handle, "the other lane", |run| run.done == 30);
    world.broker.forget_below("a", 5);
    let refused = |ask: &ReplayAsk| match handle.replay("d", ask) {
        Err(EngineError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    let why = refused(&from(7));
    assert!(why.contains("--lane (a, b)"), "{why}");
    let of_a = |ask: ReplayAsk| ReplayAsk {
        lane: Some("a".to_owned()),
        ..ask
    };
    let why = refused(&of_a(from(3)));
    assert!(why.contains("--from 5"), "{why}");
    let why = refused(&of_a(from(20)));
    assert!(why.contains("nothing lies there"), "{why}");
    let why = refused(&ReplayAsk {
        source: Some("out".to_owned()),
        ..from(7)
    });
    assert!(why.contains("it has in"), "{why}");
    let beyond = handle.replay("d", &of_a(stretch(15, 1_000))).unwrap();
    assert_eq!(beyond.events, 5);
    assert!(beyond.notes[0].contains("up to 20"), "{:?}", beyond.notes);
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_replay_goes_on_after_a_crash_and_every_event_of_it_counts_once() {
    for sqlite in [false, true] {
        let (ledger, workers) = recording(2);
        let broker = Broker::with_lanes(&["a"]);
        let gate = workers.clone();
        let world = if sqlite {
            World::sqlite(broker, workers)
        } else {
            World::memory(broker, workers)
        };
        let handle = done(&world, 3_000);
        gate.close_gate();
        handle.replay("d", &from(0)).unwrap();
        until(&handle, "some of it under way", |run| run.in_flight > 0);
        handle.halt();
        drop(handle);
        gate.open_gate();
        let handle = world.open();
        started(&handle, &one_task());
        let run = until(&handle, "all of it", |run| {
            run.done == 6_000 && run.replays.is_empty()
        });
        assert!(conserved(&run), "{run:?}");
        assert_eq!(run.taken_in, 6_000);
        assert_eq!(ledger.len(), 3_000);
        assert_eq!(the_replay(&handle).state, "done");
        handle.drain(GRACE).unwrap();
    }
}

#[test]
fn a_replay_is_paused_over_a_restart_goes_on_and_is_stopped() {
    let (ledger, workers) = recording(1);
    let gate = workers.clone();
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = done(&world, 20_000);
    gate.close_gate();
    handle.replay("d", &from(0)).unwrap();
    until(&handle, "some of it under way", |run| run.in_flight > 0);
    handle.steer_replay("d", 1, ReplayOrder::Pause).unwrap();
    handle.steer_replay("d", 1, ReplayOrder::Pause).unwrap();
    gate.open_gate();
    until(&handle, "what was begun", |run| run.in_flight == 0);
    let paused = the_replay(&handle);
    assert_eq!(paused.state, "paused");
    assert!(paused.done < 20_000, "{paused:?}");
    assert_eq!(
        handle.wait_idle(Duration::ZERO, Some(PATIENCE)),
        Idle::Reached,
        "nobody waits for what is paused"
    );
    handle.drain(GRACE).unwrap();
    drop(handle);

    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a", values(20_000..20_001));
    until_true("the live event", || ledger.times("20000") == 1);
    assert_eq!(the_replay(&handle).state, "paused");
    gate.close_gate();
    handle.steer_replay("d", 1, ReplayOrder::Resume).unwrap();
    until(&handle, "more of it under way", |run| run.in_flight > 0);
    handle.steer_replay("d", 1, ReplayOrder::Stop).unwrap();
    gate.open_gate();
    let run = until(&handle, "its end", |run| run.replays.is_empty());
    let stopped = the_replay(&handle);
    assert_eq!(stopped.state, "stopped");
    assert!(stopped.done < stopped.total, "{stopped:?}");
    assert_eq!(run.done, 20_001 + stopped.done);
    assert!(conserved(&run), "{run:?}");
    let again = handle.steer_replay("d", 1, ReplayOrder::Resume);
    assert!(matches!(again, Err(EngineError::Refused(_))), "{again:?}");
    handle.drain(GRACE).unwrap();
}

#[test]
fn idleness_waits_for_a_replay_and_gaps_in_it_are_passed() {
    let (ledger, workers) = recording(1);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = done(&world, 100);
    handle.drain(GRACE).unwrap();
    drop(handle);
    let rest = Engine::at_rest(world.dir(), world.store()().unwrap()).unwrap();
    let rest = rest.with_sources(world.sources());
    assert_eq!(rest.replay("d", &from(10)).unwrap().replay, Some(1));
    rest.close().unwrap();
    // Retention is faster than the next start.
    world.broker.forget_below("a", 40);
    let handle = world.open();
    started(&handle, &one_task());
    assert_eq!(
        handle.wait_idle(Duration::ZERO, Some(PATIENCE)),
        Idle::Reached
    );
    assert_eq!((ledger.times("39"), ledger.times("40")), (1, 2));
    assert_eq!(the_replay(&handle).state, "done");
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_reset_moves_the_live_position_both_ways_and_is_on_record() {
    let (ledger, workers) = recording(1);
    let world = World::memory(Broker::with_lanes(&["a"]), workers);
    let handle = done(&world, 50);
    let running = handle.reset("d", &reset_to(Place::Earliest));
    let Err(EngineError::Refused(why)) = running else {
        panic!("{running:?}");
    };
    assert!(why.contains("evermill pause"), "{why}");
    handle.pause("d").unwrap();
    let looks = ResetAsk {
        dry_run: true,
        ..reset_to(Place::Position(30))
    };
    let looked = handle.reset("d", &looks).unwrap();
    assert_eq!(looked.lanes, [("a".to_owned(), 50, 30)]);
    assert!(handle.detail("d").unwrap().resets.is_empty());
    handle.reset("d", &reset_to(Place::Position(30))).unwrap();
    handle.resume("d").unwrap();
    let run = until(&handle, "what is read again", |run| run.done == 70);
    assert!(conserved(&run), "{run:?}");
    assert_eq!((ledger.times("29"), ledger.times("30")), (1, 2));
    until(&handle, "its position", |run| {
        run.sources[0].lanes[0].position == Some(50)
    });
    handle.drain(GRACE).unwrap();
    drop(handle);

    world.broker.publish("a", values(50..60));
    let rest = Engine::at_rest(world.dir(), world.store()().unwrap()).unwrap();
    let rest = rest.with_sources(world.sources());
    rest.reset("d", &reset_to(Place::Time(55))).unwrap();
    rest.close().unwrap();
    let handle = world.open();
    started(&handle, &one_task());
    until(&handle, "what lies behind", |run| run.done == 75);
    assert_eq!((ledger.times("54"), ledger.times("55")), (0, 1));
    let resets = handle.detail("d").unwrap().resets;
    let told: Vec<_> = resets
        .iter()
        .map(|it| (it.from, it.to, it.by.as_str()))
        .collect();
    assert_eq!(told, [(50, 30, "ada"), (50, 55, "ada")]);
    handle.drain(GRACE).unwrap();
}
