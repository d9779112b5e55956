//! A chain of tasks under one source: the plainest thing that must work.

use std::sync::Arc;

use bytes::Bytes;
use evermill_core::Machine;
use evermill_core::command::{
    Command, Decision, DispatchId, Effect, Event, Fence, LaneId, Outcome, OutcomeRun,
};
use evermill_core::dag::{Dag, DagSpec, JoinSpec, Node, Order, SourceSpec, TaskSpec};

fn chain(tasks: usize) -> Arc<Dag> {
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
    };
    Arc::new(Dag::compile(spec).expect("a chain is a DAG"))
}

fn events(positions: std::ops::Range<u64>) -> Vec<Event> {
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

fn dispatches(decision: &mut Decision) -> Vec<DispatchId> {
    let taken = std::mem::take(&mut decision.effects);
    taken
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Dispatch { id, .. } => Some(id),
            _ => None,
        })
        .collect()
}

#[test]
fn every_event_passes_every_task_once_and_the_cursor_follows() {
    let fence = Fence {
        epoch: 1,
        incarnation: 0,
    };
    let mut machine = Machine::new(fence);
    let mut out = Decision::default();
    let lane = LaneId { run: 1, lane: 1 };
    machine.apply(
        0,
        Command::Start {
            run: 1,
            name: "r".into(),
            dag: chain(3),
            fresh: false,
        },
        &mut out,
    );
    let open = Command::OpenLane {
        run: 1,
        source: 0,
        name: "0".into(),
        incarnation: "t/0".into(),
        first: 0,
    };
    machine.apply(0, open, &mut out);
    machine.apply(0, Command::Capacity { slots: 2 }, &mut out);
    machine.apply(
        1,
        Command::Ingest {
            lane,
            events: events(0..1000),
        },
        &mut out,
    );
    let mut started = 0;
    loop {
        let ids = dispatches(&mut out);
        if ids.is_empty() {
            break;
        }
        for id in ids {
            let count = machine.dispatch(id).expect("it is out").len() as u32;
            started += count;
            let runs = vec![OutcomeRun {
                first: 0,
                count,
                outcome: Outcome::Success,
            }];
            machine.apply(
                2,
                Command::Outcomes {
                    dispatch: id,
                    fence,
                    runs,
                },
                &mut out,
            );
            machine.apply(
                2,
                Command::Finished {
                    dispatch: id,
                    fence,
                },
                &mut out,
            );
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
