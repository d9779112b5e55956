//! Replays, claims and resets (W18), command by command.

use bytes::Bytes;
use evermill_core::command::{
    Command, Decision, Effect, LaneId, News, Outcome, OutcomeRun, ReplayMode, StateOp, Stretch,
    Success,
};
use evermill_core::{LaneView, Machine, StateScope};

use crate::chain::{FENCE, LANE, dispatches, events, finish, ingest, listening};

/// Runs whatever is out until nothing is; each attempt counts what it did.
fn work(machine: &mut Machine, out: &mut Decision) -> u32 {
    let mut done = 0;
    loop {
        let ids = dispatches(out);
        if ids.is_empty() {
            machine.seal(out);
            return done;
        }
        for dispatch in ids {
            let count = machine.dispatch(dispatch).expect("it is out").len() as u32;
            done += count;
            let op = StateOp::Incr(Bytes::from_static(b"n"), 1);
            let outcome = Outcome::SuccessWith(Box::new(Success {
                state: vec![op],
                says: vec![Bytes::from_static(b"said")],
                ..Success::default()
            }));
            let run = OutcomeRun {
                first: 0,
                count,
                outcome,
            };
            let outcomes = Command::Outcomes {
                dispatch,
                fence: FENCE,
                runs: vec![run],
            };
            machine.apply(2, outcomes, out);
            finish(machine, dispatch, out);
        }
    }
}

fn counted(machine: &Machine) -> Vec<(StateScope, i64)> {
    let states = machine.states(1);
    let count = states.map(|(scope, names)| {
        let value = names.values().next().expect("one name");
        let evermill_core::command::StateValue::Int(value) = value else {
            panic!("{value:?}");
        };
        (scope.clone(), *value)
    });
    count.collect()
}

fn replay(machine: &mut Machine, from: u64, to: u64, mode: ReplayMode, out: &mut Decision) {
    let stretches = vec![Stretch {
        lane: LANE.lane,
        from,
        to,
    }];
    let command = Command::Replay {
        run: 1,
        stretches,
        mode,
    };
    machine.apply(3, command, out);
}

fn lanes(machine: &Machine) -> Vec<LaneView> {
    machine.lanes(1).collect()
}

fn opened(out: &Decision) -> Vec<(u32, u64)> {
    let effects = out.effects.iter();
    let opened = effects.filter_map(|effect| match effect {
        Effect::LaneOpen { lane, position, .. } => Some((lane.lane, *position)),
        _ => None,
    });
    opened.collect()
}

fn read(machine: &mut Machine, lane: u32, range: std::ops::Range<u64>, out: &mut Decision) {
    let lane = LaneId { run: 1, lane };
    let events = events(range);
    machine.apply(4, Command::Ingest { lane, events }, out);
}

#[test]
fn a_replay_only_reads_state_unless_it_is_to_change_it() {
    let (mut machine, mut out) = listening(1);
    ingest(&mut machine, 0..10, &mut out);
    assert_eq!(work(&mut machine, &mut out), 10);
    let before = counted(&machine);
    assert_eq!(before.iter().map(|(_, n)| n).sum::<i64>(), 10);
    replay(&mut machine, 0, 5, ReplayMode::default(), &mut out);
    read(&mut machine, 2, 0..6, &mut out);
    assert_eq!(work(&mut machine, &mut out), 5);
    assert_eq!(counted(&machine), before);
    let with_state = ReplayMode {
        writes_state: true,
        ..ReplayMode::default()
    };
    replay(&mut machine, 0, 3, with_state, &mut out);
    read(&mut machine, 3, 0..4, &mut out);
    assert_eq!(work(&mut machine, &mut out), 3);
    assert_eq!(counted(&machine).iter().map(|(_, n)| n).sum::<i64>(), 13);
    let generations: Vec<_> = lanes(&machine).iter().map(|lane| lane.generation).collect();
    assert_eq!(generations, [0, 1, 2]);
    assert!(
        lanes(&machine)[1..]
            .iter()
            .all(|lane| lane.closed && lane.key_generation == 0)
    );
    assert_eq!(machine.run(1).expect("it was started").counters.done, 18);
}

/// What other DAGs would have heard: ends, and what tasks said.
fn told(out: &mut Decision) -> (usize, usize) {
    let news = std::mem::take(&mut out.news);
    let is_end = |one: &&News| matches!(one, News::Ended { .. });
    let ends = news.iter().filter(is_end).count();
    (ends, news.len() - ends)
}

#[test]
fn other_dags_hear_of_a_replay_only_if_its_state_counts_and_of_a_backfill_always() {
    let (mut machine, mut out) = listening(1);
    ingest(&mut machine, 0..10, &mut out);
    work(&mut machine, &mut out);
    assert_eq!(told(&mut out), (10, 10));
    replay(&mut machine, 0, 5, ReplayMode::default(), &mut out);
    read(&mut machine, 2, 0..6, &mut out);
    assert_eq!(work(&mut machine, &mut out), 5);
    assert_eq!(told(&mut out), (0, 0), "it is read again, and no news");
    let with_state = ReplayMode {
        writes_state: true,
        ..ReplayMode::default()
    };
    replay(&mut machine, 0, 3, with_state, &mut out);
    read(&mut machine, 3, 0..4, &mut out);
    assert_eq!(work(&mut machine, &mut out), 3);
    assert_eq!(told(&mut out), (3, 3));
}

#[test]
fn a_stopped_replay_ends_with_what_was_begun_of_it() {
    let (mut machine, mut out) = listening(1);
    ingest(&mut machine, 0..4_000, &mut out);
    work(&mut machine, &mut out);
    replay(&mut machine, 0, 4_000, ReplayMode::default(), &mut out);
    read(&mut machine, 2, 0..4_000, &mut out);
    machine.apply(5, Command::StopReplay { run: 1, replay: 1 }, &mut out);
    let begun = work(&mut machine, &mut out);
    let lane = &lanes(&machine)[1];
    assert!(0 < begun && begun < 4_000, "{begun}");
    assert!(lane.closed, "{lane:?}");
    assert_eq!(lane.low, u64::from(begun));
    let counters = machine.run(1).expect("it was started").counters;
    assert_eq!(
        (counters.in_flight(), counters.done),
        (0, 4_000 + u64::from(begun))
    );
}

#[test]
fn what_was_passed_unread_is_run_by_one_backfill_and_by_nobody_else() {
    let (mut machine, mut out) = listening(1);
    ingest(&mut machine, 0..10, &mut out);
    work(&mut machine, &mut out);
    let pass = Command::PassOver {
        lane: LANE,
        from: 10,
        to: 50,
    };
    machine.apply(3, pass, &mut out);
    read(&mut machine, 1, 50..60, &mut out);
    work(&mut machine, &mut out);
    let asked = Stretch {
        lane: 1,
        from: 5,
        to: 30,
    };
    assert_eq!(machine.unread(1, asked), [(10, 30)]);
    let claims = ReplayMode {
        claims: true,
        ..ReplayMode::default()
    };
    replay(&mut machine, 5, 30, claims, &mut out);
    assert_eq!(opened(&out), [(2, 10)]);
    assert_eq!(machine.unread(1, asked), []);
    out.effects.clear();
    // What is left of it on both sides is two stretches, read one after the other.
    replay(&mut machine, 0, 20, claims, &mut out);
    assert_eq!(opened(&out), [], "all of that is somebody's");
    replay(&mut machine, 15, 100, claims, &mut out);
    assert_eq!(opened(&out), [(3, 30)]);
    read(&mut machine, 2, 10..31, &mut out);
    assert_eq!(work(&mut machine, &mut out), 20);
    read(&mut machine, 3, 30..51, &mut out);
    assert_eq!(work(&mut machine, &mut out), 20);
    assert_eq!(machine.run(1).expect("it was started").counters.done, 60);
    assert_eq!(lanes(&machine)[0].low, 60, "the live one stays");
}

#[test]
fn a_lane_that_nobody_reads_lets_a_backfill_have_what_lies_ahead() {
    let (mut machine, mut out) = listening(1);
    ingest(&mut machine, 0..10, &mut out);
    work(&mut machine, &mut out);
    machine.apply(3, Command::CloseLane { lane: LANE }, &mut out);
    out.effects.clear();
    let claims = ReplayMode {
        claims: true,
        ..ReplayMode::default()
    };
    replay(&mut machine, 5, 30, claims, &mut out);
    assert_eq!(opened(&out), [(2, 10)]);
    machine.seal(&mut out);
    assert_eq!(
        lanes(&machine)[0].read,
        30,
        "the live one goes on behind it"
    );
}

#[test]
fn a_reset_waits_until_nothing_is_under_way_and_keeps_the_state() {
    let (mut machine, mut out) = listening(1);
    ingest(&mut machine, 0..10, &mut out);
    let reset = |to| Command::Reset {
        lane: LANE,
        to,
        by: "ada".into(),
    };
    machine.apply(3, reset(5), &mut out);
    assert_eq!(lanes(&machine).len(), 1, "some of it is under way");
    work(&mut machine, &mut out);
    machine.apply(3, reset(5), &mut out);
    assert_eq!(opened(&out), [(2, 5)]);
    read(&mut machine, 2, 5..12, &mut out);
    assert_eq!(work(&mut machine, &mut out), 7);
    let total: i64 = counted(&machine).iter().map(|(_, n)| n).sum();
    assert_eq!(
        (total, counted(&machine).len()),
        (17, 1),
        "one scope, as before"
    );
    let all = lanes(&machine);
    assert!(all[0].closed && all[1].is_live(), "{all:?}");
    assert_eq!((all[1].low, all[1].key_generation), (12, 0));
    let record = all[1].reset.as_ref().expect("it was moved");
    assert_eq!((record.from, record.to, &*record.by), (10, 5, "ada"));
    // Its source finds the lane again: the one that is read now.
    let open = Command::OpenLane {
        run: 1,
        source: 0,
        name: "0".into(),
        incarnation: "t/0".into(),
        first: 0,
    };
    out.effects.clear();
    machine.apply(4, open, &mut out);
    assert_eq!(opened(&out), [(2, 12)]);
}
