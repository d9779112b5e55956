//! What operators do to runs and to what is parked.

use bytes::Bytes;
use evermill_core::Machine;
use evermill_core::command::{
    ActivationKey, Command, Decision, Effect, Event, Fence, LaneId, Outcome, OutcomeRun, RunState,
    Selection,
};

use crate::chain::{chain, dispatches, events};

const FENCE: Fence = Fence {
    epoch: 1,
    incarnation: 0,
};
const LANE: LaneId = LaneId { run: 1, lane: 1 };

fn started(out: &mut Decision) -> Machine {
    let mut machine = Machine::new(FENCE);
    let start = Command::Start {
        run: 1,
        name: "r".into(),
        dag: chain(1),
        fresh: false,
    };
    machine.apply(0, start, out);
    let open = Command::OpenLane {
        run: 1,
        source: 0,
        name: "0".into(),
        incarnation: "t/0".into(),
        first: 0,
    };
    machine.apply(0, open, out);
    machine.apply(0, Command::Capacity { slots: 2 }, out);
    machine
}

/// Ends everything that is out in the same way; what the members carried.
fn end_all(machine: &mut Machine, outcome: &Outcome, out: &mut Decision) -> Vec<Bytes> {
    let mut carried = Vec::new();
    for id in dispatches(out) {
        let view = machine.dispatch(id).expect("it is out");
        let bodies = view.members().map(|member| member.events()[0].body.clone());
        carried.extend(bodies);
        let runs = vec![OutcomeRun {
            first: 0,
            count: view.len() as u32,
            outcome: outcome.clone(),
        }];
        let outcomes = Command::Outcomes {
            dispatch: id,
            fence: FENCE,
            runs,
        };
        machine.apply(1, outcomes, out);
        let finished = Command::Finished {
            dispatch: id,
            fence: FENCE,
        };
        machine.apply(1, finished, out);
    }
    carried
}

#[test]
fn a_start_leaves_a_paused_run_paused() {
    let mut out = Decision::default();
    let mut machine = started(&mut out);
    machine.apply(0, Command::Pause { run: 1 }, &mut out);
    let again = Command::Start {
        run: 2,
        name: "other".into(),
        dag: chain(1),
        fresh: false,
    };
    machine.apply(0, again, &mut out);
    assert_eq!(machine.runs().count(), 1);
    assert_eq!(machine.run(1).map(|run| run.state), Some(RunState::Paused));
}

#[test]
fn an_amended_event_is_redriven_with_its_new_payload() {
    let mut out = Decision::default();
    let mut machine = started(&mut out);
    let ingest = Command::Ingest {
        lane: LANE,
        events: events(0..1),
    };
    machine.apply(0, ingest, &mut out);
    let failed = Outcome::Failed {
        retryable: false,
        after_ms: 0,
        error: Bytes::from_static(b"no"),
    };
    assert_eq!(end_all(&mut machine, &failed, &mut out), ["x"]);
    let parked: Vec<_> = machine.parked(1).collect();
    let activation = parked[0].activation;
    assert_eq!((parked.len(), parked[0].carries.len()), (1, 1));
    let other_event = Command::Amend {
        activation,
        event: 1,
        body: Bytes::from_static(b"nobody's"),
    };
    machine.apply(1, other_event, &mut out);
    let amend = Command::Amend {
        activation,
        event: 0,
        body: Bytes::from_static(b"y"),
    };
    machine.apply(1, amend, &mut out);
    let parked: Vec<Event> = machine.parked(1).flat_map(|view| view.carries).collect();
    assert_eq!(parked[0].body, "y");
    let redrive = Command::Redrive {
        run: 1,
        selection: Selection::All,
    };
    machine.apply(1, redrive, &mut out);
    assert_eq!(end_all(&mut machine, &Outcome::Success, &mut out), ["y"]);
    let counters = machine.run(1).expect("it is there").counters;
    assert_eq!((counters.done, counters.parked), (1, 0));
}

#[test]
fn what_a_run_that_was_stopped_has_parked_is_given_up_but_never_redriven() {
    let mut out = Decision::default();
    let mut machine = started(&mut out);
    let ingest = Command::Ingest {
        lane: LANE,
        events: events(0..3),
    };
    machine.apply(0, ingest, &mut out);
    machine.apply(0, Command::Stop { run: 1 }, &mut out);
    let parked = machine.run(1).expect("it is there").counters.parked;
    assert!(parked > 0);
    out.effects.clear();
    let all = || Selection::All;
    let redrive = Command::Redrive {
        run: 1,
        selection: all(),
    };
    machine.apply(1, redrive, &mut out);
    let sent = |effect: &Effect| matches!(effect, Effect::Dispatch { .. });
    assert!(!out.effects.iter().any(sent));
    let discard = Command::Discard {
        run: 1,
        selection: all(),
    };
    machine.apply(1, discard, &mut out);
    let counters = machine.run(1).expect("it is there").counters;
    assert_eq!((counters.parked, counters.dropped), (0, parked));
}

#[test]
fn an_activation_is_open_from_its_reading_until_it_is_over_also_while_it_is_parked_or_redriven() {
    let mut out = Decision::default();
    let mut machine = started(&mut out);
    let key = |position| ActivationKey {
        lane: LANE,
        position,
        child: 0,
    };
    let open = |machine: &Machine| {
        let mut keys = (0..3).map(key).collect();
        machine.keep_open(&mut keys);
        keys.iter().map(|key| key.position).collect::<Vec<u64>>()
    };
    // What nobody has read yet may have been read before a stop.
    assert_eq!(open(&machine), [0, 1, 2]);
    let ingest = |positions| Command::Ingest {
        lane: LANE,
        events: events(positions),
    };
    machine.apply(0, ingest(0..1), &mut out);
    end_all(&mut machine, &Outcome::Success, &mut out);
    machine.seal(&mut out);
    assert_eq!(open(&machine), [1, 2]);
    let failed = Outcome::Failed {
        retryable: false,
        after_ms: 0,
        error: Bytes::from_static(b"no"),
    };
    machine.apply(0, ingest(1..2), &mut out);
    end_all(&mut machine, &failed, &mut out);
    machine.seal(&mut out);
    assert_eq!(open(&machine), [1, 2], "parked");
    let redrive = Command::Redrive {
        run: 1,
        selection: Selection::All,
    };
    machine.apply(1, redrive, &mut out);
    machine.seal(&mut out);
    assert_eq!(open(&machine), [1, 2], "under way again");
    end_all(&mut machine, &Outcome::Success, &mut out);
    machine.seal(&mut out);
    assert_eq!(open(&machine), [2]);
}

#[test]
fn an_activation_that_runs_for_long_is_open_although_its_lane_goes_on() {
    let mut out = Decision::default();
    let mut machine = started(&mut out);
    let ingest = Command::Ingest {
        lane: LANE,
        events: events(0..1),
    };
    machine.apply(0, ingest, &mut out);
    machine.apply(10_000, Command::Timer, &mut out);
    machine.seal(&mut out);
    assert_eq!(machine.lanes(1).next().map(|lane| lane.low), Some(1));
    let open = |machine: &Machine| {
        let key = ActivationKey {
            lane: LANE,
            position: 0,
            child: 0,
        };
        let mut keys = [key].into();
        machine.keep_open(&mut keys);
        keys.len()
    };
    assert_eq!(open(&machine), 1, "it runs");
    end_all(&mut machine, &Outcome::Success, &mut out);
    machine.seal(&mut out);
    assert_eq!(open(&machine), 0, "it is over");
}

#[test]
fn what_runs_on_below_the_cursor_is_not_settled_and_what_is_parked_is() {
    let mut out = Decision::default();
    let mut machine = started(&mut out);
    let open = |machine: &Machine| machine.unsettled(LANE, &[0..1, 1..2, 0..2]);
    let ingest = |positions| Command::Ingest {
        lane: LANE,
        events: events(positions),
    };
    machine.apply(0, ingest(0..1), &mut out);
    // It has run for long: its lane goes on, and it is not over.
    machine.apply(10_000, Command::Timer, &mut out);
    machine.seal(&mut out);
    assert_eq!(open(&machine), [true, false, true]);
    end_all(&mut machine, &Outcome::Success, &mut out);
    machine.seal(&mut out);
    assert_eq!(open(&machine), [false, false, false]);
    let failed = Outcome::Failed {
        retryable: false,
        after_ms: 0,
        error: Bytes::from_static(b"no"),
    };
    machine.apply(10_000, ingest(1..2), &mut out);
    end_all(&mut machine, &failed, &mut out);
    machine.seal(&mut out);
    assert_eq!(open(&machine), [false, false, false], "it is parked");
    let redrive = Command::Redrive {
        run: 1,
        selection: Selection::All,
    };
    machine.apply(10_000, redrive, &mut out);
    machine.seal(&mut out);
    assert_eq!(open(&machine), [false, true, true], "it runs again");
}
