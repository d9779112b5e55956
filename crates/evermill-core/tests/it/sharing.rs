//! Slots shared by several DAGs (W19).

use std::collections::VecDeque;
use std::sync::Arc;

use evermill_core::Machine;
use evermill_core::command::{Command, Decision, DispatchId, Fence, Outcome, OutcomeRun, RunIx};
use evermill_core::dag::{Dag, DagSpec, JoinSpec, Node, Order, SourceSpec, TaskSpec};

use crate::chain::{dispatches, events};

const FENCE: Fence = Fence {
    epoch: 1,
    incarnation: 0,
};
const SLOTS: u32 = 4;
const EACH: u64 = 500;

fn one_task(id: &str) -> Arc<Dag> {
    let spec = DagSpec {
        id: id.into(),
        version: id.into(),
        order: Order::None,
        sources: vec![SourceSpec::new("in")],
        tasks: vec![TaskSpec::new("work", vec![Node::Source(0)])],
        join: JoinSpec::default(),
        deadline_ms: None,
        max_active_runs: None,
        full_history: false,
    };
    Arc::new(Dag::compile(spec).expect("it is a DAG"))
}

/// H16: a thousand tasks due at once and four slots. No more dispatches are out than there are slots; who comes
/// second is served with the next slot that is free, and neither DAG gets ahead of the other by more than
/// what is out.
#[test]
fn h16_a_thousand_tasks_of_two_dags_that_are_due_at_once_share_the_slots() {
    let (mut machine, mut out) = (Machine::new(FENCE), Decision::default());
    let mut apply = |machine: &mut Machine, command| {
        machine.apply(1, command, &mut out);
        dispatches(&mut out)
    };
    for run in [1, 2] {
        let dag = one_task(&format!("d{run}"));
        let name = format!("r{run}");
        apply(
            &mut machine,
            Command::Start {
                run,
                name,
                dag,
                fresh: false,
            },
        );
        apply(
            &mut machine,
            Command::OpenLane {
                run,
                source: 0,
                name: "in/0".into(),
                incarnation: "i".into(),
                first: 0,
            },
        );
    }
    // All are due before the first may start, those of one DAG before those of the other.
    for run in [1, 2] {
        let lane = machine.lanes(run).next().expect("it is open").lane;
        let events = events(0..EACH);
        apply(&mut machine, Command::Ingest { lane, events });
    }
    let mut out_now: VecDeque<DispatchId> =
        apply(&mut machine, Command::Capacity { slots: SLOTS }).into();
    let of = |machine: &Machine, id: DispatchId| -> (RunIx, u64) {
        let view = machine.dispatch(id).expect("it is out");
        let first = view.members().next().expect("it has members");
        (first.activation().lane.run, view.len() as u64)
    };
    let mut began = [0_u64; 2];
    let (mut starts, mut largest, mut first_of_second) = (0, 0, None);
    let mut begin = |machine: &Machine, ids: &[DispatchId]| {
        for id in ids {
            let (run, members) = of(machine, *id);
            let which = run as usize - 1;
            began[which] += members;
            largest = largest.max(members);
            starts += 1;
            if which == 1 {
                first_of_second.get_or_insert(starts);
            }
            let apart = began[0].abs_diff(began[1]);
            let both = began.iter().all(|began| *began < EACH);
            assert!(
                !both || apart <= u64::from(SLOTS) * largest,
                "{began:?} with dispatches of up to {largest}"
            );
        }
    };
    begin(&machine, &Vec::from(out_now.clone()));
    let mut done = 0;
    while let Some(id) = out_now.pop_front() {
        assert!(out_now.len() < SLOTS as usize, "more are out than slots");
        let (_, members) = of(&machine, id);
        let runs = vec![OutcomeRun {
            first: 0,
            count: members as u32,
            outcome: Outcome::Success,
        }];
        let (dispatch, fence) = (id, FENCE);
        let mut next = apply(
            &mut machine,
            Command::Outcomes {
                dispatch,
                fence,
                runs,
            },
        );
        next.extend(apply(&mut machine, Command::Finished { dispatch, fence }));
        begin(&machine, &next);
        out_now.extend(next);
        done += members;
    }
    assert_eq!((done, began), (2 * EACH, [EACH, EACH]));
    let first = first_of_second.expect("it was served");
    assert!(
        first <= SLOTS + 1,
        "the second DAG was served as number {first}"
    );
}
