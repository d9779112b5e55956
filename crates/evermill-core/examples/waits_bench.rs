//! What an idle wait costs: `cargo run --release -p evermill-core --example waits_bench [WAITS [PAYLOAD]]`.
//!
//! So many events (a million unless said) come to a task that waits for a day. Each has a payload of so many
//! bytes (64 unless said, the engine's head of 32 included). Prints what the process has grown by for each, the
//! bytes of its row, and how many threads there are. What the store adds to a row is not in it.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::print_stdout,
    reason = "a benchmark looks at its process and prints; the core it measures does neither"
)]

use std::sync::Arc;

use bytes::Bytes;
use evermill_core::Machine;
use evermill_core::command::{Command, Decision, Event, Fence, LaneId};
use evermill_core::dag::{Dag, DagSpec, JoinSpec, Node, Order, SourceSpec, TaskKind, TaskSpec};
use evermill_core::row::Write;

const FENCE: Fence = Fence {
    epoch: 1,
    incarnation: 0,
};
const LANE: LaneId = LaneId { run: 1, lane: 1 };
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Events that come at once.
const TOGETHER: u64 = 1_000;

fn main() {
    let mut given = std::env::args().skip(1);
    let mut number = |usual: u64| {
        given
            .next()
            .map_or(usual, |text| text.parse().expect("a number"))
    };
    let (waits, payload) = (number(1_000_000), number(64) as usize);
    let mut machine = started();
    let mut out = Decision::default();
    let mut rows = 0_u64;
    let before = status("VmRSS:");
    let mut position = 0;
    while position < waits {
        let events = (position..waits.min(position + TOGETHER)).map(|position| Event {
            position,
            key: 0,
            arrived_ms: 1,
            body: Bytes::from(vec![7; payload]),
        });
        let events: Vec<Event> = events.collect();
        position += events.len() as u64;
        machine.apply(1, Command::Ingest { lane: LANE, events }, &mut out);
        machine.seal(&mut out);
        // Whoever commits says so: what only waits then lies in the store alone.
        machine.committed(machine.sealed());
        for write in out.writes.drain(..) {
            if let Write::Put(row) = write {
                rows += (row.key.id.len() + row.body.len()) as u64;
            }
        }
        out.effects.clear();
    }
    drop(out);
    let waiting = machine.run(1).expect("it was started").waiting as u64;
    assert_eq!(waiting, waits, "every one waits");
    let grown = (status("VmRSS:") - before) * 1024;
    println!(
        "{waits} waits of {payload} bytes: {} bytes of memory and {} bytes of rows each, {} thread",
        grown / waits,
        rows / waits,
        status("Threads:"),
    );
}

/// A number of `/proc/self/status`; sizes are in KiB.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).expect("a number")
}

fn started() -> Machine {
    let wait = TaskSpec {
        kind: TaskKind::Delay { ms: DAY_MS },
        ..TaskSpec::new("wait", vec![Node::Source(0)])
    };
    let spec = DagSpec {
        id: "waits".into(),
        version: "v1".into(),
        order: Order::None,
        sources: vec![SourceSpec::new("in")],
        tasks: vec![wait, TaskSpec::new("after", vec![Node::Task(0)])],
        join: JoinSpec::default(),
        deadline_ms: None,
        max_active_runs: None,
        full_history: false,
    };
    let dag = Arc::new(Dag::compile(spec).expect("it is a DAG"));
    let mut machine = Machine::new(FENCE);
    let mut out = Decision::default();
    let start = Command::Start {
        run: 1,
        name: "bench".into(),
        dag,
        fresh: false,
    };
    machine.apply(0, start, &mut out);
    let open = Command::OpenLane {
        run: 1,
        source: 0,
        name: "0".to_owned(),
        incarnation: "t/0".to_owned(),
        first: 0,
    };
    machine.apply(0, open, &mut out);
    machine.apply(0, Command::Capacity { slots: 1 }, &mut out);
    machine
}
