//! How much the core alone costs: `cargo run --release -p evermill-core --example core_bench`.
//!
//! Events go through a chain of three tasks; every dispatch is answered at once with plain success.
//! Nothing is stored and nothing runs, but every write is built and dropped, as a commit would take
//! it. Prints the median of five runs: task steps per second in waves of 1,000, activations per
//! second in waves of 1.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::print_stdout,
    reason = "a benchmark reads the clock and prints; the core it measures does neither"
)]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use evermill_core::Machine;
use evermill_core::command::{
    Command, Decision, DispatchId, Effect, Event, Fence, LaneId, Outcome, OutcomeRun,
};
use evermill_core::dag::{Dag, DagSpec, JoinSpec, Node, Order, SourceSpec, TaskSpec};

const TASKS: u64 = 3;
const FENCE: Fence = Fence {
    epoch: 1,
    incarnation: 0,
};
const LANE: LaneId = LaneId { run: 1, lane: 1 };

fn main() {
    let waves_of_1000 = median(|| run(1_000, 3_000_000));
    let waves_of_1 = median(|| run(1, 300_000));
    println!(
        "waves of 1,000: {:.1} M task steps/s",
        waves_of_1000 * TASKS as f64 / 1e6
    );
    println!("waves of 1:     {:.0} activations/s", waves_of_1);
}

fn median(mut measure: impl FnMut() -> f64) -> f64 {
    let mut rates: Vec<f64> = (0..5).map(|_| measure()).collect();
    rates.sort_by(f64::total_cmp);
    rates[2]
}

/// Activations per second.
fn run(wave: u64, total: u64) -> f64 {
    let mut machine = started();
    let body = Bytes::from_static(b"payload");
    let mut batches: Vec<Vec<Event>> = (0..total / wave)
        .map(|n| {
            (n * wave..(n + 1) * wave)
                .map(|p| event(p, &body))
                .collect()
        })
        .collect();
    batches.reverse();
    let mut out = Decision::default();
    let begun = Instant::now();
    let mut now = 1;
    while let Some(events) = batches.pop() {
        now += 1;
        machine.apply(now, Command::Ingest { lane: LANE, events }, &mut out);
        while let Some(id) = next_dispatch(&mut out) {
            let count = machine.dispatch(id).expect("it was just issued").len() as u32;
            let runs = vec![OutcomeRun {
                first: 0,
                count,
                outcome: Outcome::Success,
            }];
            machine.apply(
                now,
                Command::Outcomes {
                    dispatch: id,
                    fence: FENCE,
                    runs,
                },
                &mut out,
            );
            machine.apply(
                now,
                Command::Finished {
                    dispatch: id,
                    fence: FENCE,
                },
                &mut out,
            );
        }
        machine.seal(&mut out);
        out.writes.clear();
        out.effects.clear();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let done = machine.run(1).expect("it was started").counters.done;
    assert_eq!(done, total, "every activation settles");
    total as f64 / seconds
}

fn event(position: u64, body: &Bytes) -> Event {
    Event {
        position,
        key: 0,
        arrived_ms: 0,
        body: body.clone(),
    }
}

fn next_dispatch(out: &mut Decision) -> Option<DispatchId> {
    while let Some(effect) = out.effects.pop() {
        if let Effect::Dispatch { id, .. } = effect {
            return Some(id);
        }
    }
    None
}

fn started() -> Machine {
    let upstream = |i: u16| {
        if i == 0 {
            Node::Source(0)
        } else {
            Node::Task(i - 1)
        }
    };
    let spec = DagSpec {
        id: "chain".into(),
        version: "v1".into(),
        order: Order::None,
        sources: vec![SourceSpec::new("in")],
        tasks: (0..TASKS as u16)
            .map(|i| TaskSpec::new(format!("t{i}"), vec![upstream(i)]))
            .collect(),
        join: JoinSpec::default(),
        deadline_ms: None,
        max_active_runs: None,
        full_history: false,
    };
    let dag = Arc::new(Dag::compile(spec).expect("a chain is a DAG"));
    let mut machine = Machine::new(FENCE);
    let mut out = Decision::default();
    machine.apply(
        0,
        Command::Start {
            run: 1,
            name: "bench".into(),
            dag,
            fresh: false,
        },
        &mut out,
    );
    let (name, incarnation) = ("0".to_owned(), "t/0".to_owned());
    machine.apply(
        0,
        Command::OpenLane {
            run: 1,
            source: 0,
            name,
            incarnation,
            first: 0,
        },
        &mut out,
    );
    machine.apply(0, Command::Capacity { slots: 1 }, &mut out);
    machine
}
