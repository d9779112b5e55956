//! A chain of tasks under one source: the plainest thing that must work.

use std::sync::Arc;

use bytes::Bytes;
use evermill_core::Machine;
use evermill_core::command::{
    Command, Decision, DispatchId, Effect, Event, Fence, LaneId, Outcome, OutcomeRun,
};
use evermill_core::dag::{Dag, DagSpec, JoinSpec, Node, Order, SourceSpec, TaskSpec};

pub(crate) fn chain(tasks: usize) -> Arc<Dag> {
    let node = |i: usize| {
        if i == 0 {
            Node::Source(0)
        } else {
            Node::Task(i as u16 - 1)
        }
    };
    let spec = DagSpec {
        id: "chain".into(),
        version: "v1".into(),
        order: Order::None,
        sources: vec![SourceSpec::new("in")],
        tasks: (0..tasks)
            .map(|i| TaskSpec::new(format!("t{i}"), vec![node(i)]))
            .collect(),
        join: JoinSpec::default(),
        deadline_ms: None,
        max_active_runs: None,
        full_history: false,
    };
    Arc::new(Dag::compile(spec).expect("a chain is a DAG"))
}

pub(crate) fn events(positions: std::ops::Range<u64>) -> Vec<Event> {
    let body = Bytes::from_static(b"x");
    positions
        .map(|position| Event {
            position,
            key: 0,
            arrived_ms: 0,
            body: body.clone(),
        })
        .collect()
}

pub(crate) fn dispatches(decision: &mut Decision) -> Vec<DispatchId> {
    let taken = std::mem::take(&mut decision.effects);
    taken
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Dispatch { id, .. } => Some(id),
            _ => None,
        })
        .collect()
}

pub(crate) const FENCE: Fence = Fence {
    epoch: 1,
    incarnation: 0,
};
pub(crate) const LANE: LaneId = LaneId { run: 1, lane: 1 };

/// A chain that is switched on, with one lane and two slots.
pub(crate) fn listening(tasks: usize) -> (Machine, Decision) {
    let mut machine = Machine::new(FENCE);
    let mut out = Decision::default();
    let start = Command::Start {
        run: 1,
        name: "r".into(),
        dag: chain(tasks),
        fresh: false,
    };
    let open = Command::OpenLane {
        run: 1,
        source: 0,
        name: "0".into(),
        incarnation: "t/0".into(),
        first: 0,
    };
    for command in [start, open, Command::Capacity { slots: 2 }] {
        machine.apply(0, command, &mut out);
    }
    (machine, out)
}

pub(crate) fn ingest(machine: &mut Machine, positions: std::ops::Range<u64>, out: &mut Decision) {
    let events = events(positions);
    machine.apply(1, Command::Ingest { lane: LANE, events }, out);
}

fn succeed(
    machine: &mut Machine,
    dispatch: DispatchId,
    (first, count): (u32, u32),
    out: &mut Decision,
) {
    let runs = vec![OutcomeRun {
        first,
        count,
        outcome: Outcome::Success,
    }];
    let fence = FENCE;
    let outcomes = Command::Outcomes {
        dispatch,
        fence,
        runs,
    };
    machine.apply(2, outcomes, out);
}

pub(crate) fn finish(machine: &mut Machine, dispatch: DispatchId, out: &mut Decision) {
    let fence = FENCE;
    machine.apply(2, Command::Finished { dispatch, fence }, out);
}

#[test]
fn every_event_passes_every_task_once_and_the_cursor_follows() {
    let (mut machine, mut out) = listening(3);
    ingest(&mut machine, 0..1000, &mut out);
    let mut started = 0;
    loop {
        let ids = dispatches(&mut out);
        if ids.is_empty() {
            break;
        }
        for id in ids {
            let count = machine.dispatch(id).expect("it is out").len() as u32;
            started += count;
            succeed(&mut machine, id, (0, count), &mut out);
            finish(&mut machine, id, &mut out);
        }
    }
    machine.seal(&mut out);
    let run = machine.run(1).expect("it was started");
    assert_eq!(started, 3000);
    assert_eq!(run.counters.done, 1000);
    assert_eq!(run.counters.in_flight(), 0);
    assert_eq!(machine.lanes(1).next().expect("it was opened").low, 1000);
    assert!(machine.is_idle(1));
}

#[test]
fn a_member_can_be_read_after_others_of_its_dispatch_have_settled_with_their_waves() {
    let (mut machine, mut out) = listening(2);
    ingest(&mut machine, 0..1, &mut out);
    ingest(&mut machine, 1..2, &mut out);
    let first = dispatches(&mut out);
    assert_eq!(first.len(), 2, "a wave each");
    for &id in &first {
        succeed(&mut machine, id, (0, 1), &mut out);
    }
    // No slot was free in between, so the second task gets the members of both waves.
    finish(&mut machine, first[0], &mut out);
    let second = dispatches(&mut out);
    let position = |machine: &Machine, index| {
        let view = machine.dispatch(second[0]).expect("it is out");
        view.member(index)
            .map(|member| member.activation().position)
    };
    assert_eq!(
        [0, 1, 2].map(|at| position(&machine, at)),
        [Some(0), Some(1), None]
    );
    succeed(&mut machine, second[0], (0, 1), &mut out);
    assert_eq!(machine.run(1).expect("it was started").counters.done, 1);
    assert_eq!([0, 1].map(|at| position(&machine, at)), [None, Some(1)]);
}

#[test]
fn a_closed_lane_settles_what_was_begun_and_forgets_the_rest() {
    let (mut machine, mut out) = listening(1);
    ingest(&mut machine, 0..4000, &mut out);
    let begun: Vec<DispatchId> = dispatches(&mut out);
    machine.apply(1, Command::CloseLane { lane: LANE }, &mut out);
    let known = machine.lanes(1).next().expect("it is known");
    assert!(known.read < 4000, "what was not begun is not read");
    let mut next = begun;
    while !next.is_empty() {
        for id in std::mem::take(&mut next) {
            let count = machine.dispatch(id).expect("it is out").len() as u32;
            succeed(&mut machine, id, (0, count), &mut out);
            finish(&mut machine, id, &mut out);
        }
        next = dispatches(&mut out);
    }
    ingest(&mut machine, known.read..known.read + 1, &mut out);
    machine.seal(&mut out);
    let lane = machine.lanes(1).next().expect("it is known");
    let counters = machine.run(1).expect("it was started").counters;
    assert_eq!((lane.low, lane.read), (known.read, known.read));
    assert_eq!((counters.seen, counters.done), (known.read, known.read));

    // Opened again, behind what somebody else did meanwhile.
    let (from, to) = (known.read, 5000);
    let lane = LANE;
    machine.apply(3, Command::Gap { lane, from, to }, &mut out);
    let open = Command::OpenLane {
        run: 1,
        source: 0,
        name: "0".into(),
        incarnation: "t/0".into(),
        first: 5000,
    };
    machine.apply(3, open, &mut out);
    let opened = out.effects.iter().find_map(|effect| match effect {
        Effect::LaneOpen { position, .. } => Some(*position),
        _ => None,
    });
    assert_eq!(opened, Some(5000));
}
