//! What a member costs: waves through one worker, two in flight, CPU per member of both sides.
//!
//! `cargo run --release -p evermill-worker --example overhead -- [MEMBERS] [WAVE]`
#![expect(clippy::print_stdout, reason = "an example prints its figures")]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};
use evermill_contract::identity::{IdKind, LaneIdentity};
use evermill_contract::worker::{
    Dispatch, Event, Executor as _, LaneRef, Member, OrderMode, Range, Slot, TaskRef, Token,
    WorkerEvent,
};
use evermill_worker::{PoolConfig, PythonPool};

const DAG: &str = "
import json
import evermill
from evermill import task

@task
def nothing():
    pass

@task
def value(event):
    event.value

@task
def loads(event):
    json.loads(event.value)

@task
def loads_ctx(event, ctx):
    json.loads(event.value)

@task
def returns(event):
    return 1

@evermill.dag
def bench():
    source = evermill.kafka('t')
    source >> nothing()
    for each in (value, loads, loads_ctx, returns):
        each(source)
";

fn main() {
    let mut args = std::env::args()
        .skip(1)
        .map(|arg| arg.parse().expect("a number"));
    let total: usize = args.next().unwrap_or(1_000_000);
    let wave: usize = args.next().unwrap_or(1000);
    let folder = tempfile::tempdir().expect("a folder");
    let entry = folder.path().join("bench.py");
    std::fs::write(&entry, DAG).expect("a file");
    let python = std::env::var_os("EVERMILL_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let mut config = PoolConfig::new(python, 1);
    config.sdk = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python"));
    config.members_per_worker_max = u64::MAX;
    let (to, events) = bounded(64);
    let deliver = move |event| {
        if to.send(event).is_err() {}
    };
    let mut pool = PythonPool::start(config, Box::new(deliver)).expect("a pool");
    let pid = ready(&events);
    println!("{total} members of 200 B in waves of {wave}");
    for task in ["nothing", "value", "loads", "loads_ctx", "returns"] {
        let make = |token| dispatch(entry.to_str().expect("text"), task, wave, token);
        pool.dispatch(Slot(0), make(0));
        finished(&events);
        let (cpu, own, wall) = (cpu_of(&pid.to_string()), cpu_of("self"), Instant::now());
        pool.dispatch(Slot(0), make(1));
        for token in 2..=total / wave {
            pool.dispatch(Slot(0), make(token));
            finished(&events);
        }
        finished(&events);
        let per = |seconds: f64| seconds * 1e9 / total as f64;
        println!(
            "{task:10} wall {:6.0} ns  worker {:6.0} ns  engine side {:6.0} ns",
            per(wall.elapsed().as_secs_f64()),
            per(cpu_of(&pid.to_string()) - cpu),
            per(cpu_of("self") - own),
        );
    }
}

fn ready(events: &Receiver<WorkerEvent>) -> u32 {
    loop {
        match events.recv().expect("an event") {
            WorkerEvent::Ready { pid, .. } => return pid,
            WorkerEvent::Unavailable { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
}

fn finished(events: &Receiver<WorkerEvent>) {
    loop {
        match events.recv().expect("an event") {
            WorkerEvent::Finished { tail, .. } => return assert_eq!(tail, 0),
            WorkerEvent::Died { cause, .. } => panic!("{cause:?}"),
            _ => {}
        }
    }
}

/// User and system time of a process, in seconds.
fn cpu_of(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .expect("fields")
        .split(' ')
        .collect();
    (fields[11].parse::<f64>().expect("ticks") + fields[12].parse::<f64>().expect("ticks")) / 100.0
}

fn dispatch(entry: &str, task: &str, wave: usize, token: usize) -> Dispatch {
    let body = format!(
        "{{\"id\":123456,\"user\":\"someone\",\"amount\":12.5,\"tags\":[\"a\",\"b\"],\"pad\":\"{}\"}}",
        "x".repeat(130)
    );
    let value = body.as_bytes();
    let member = |index: usize| Member {
        event: Event {
            lane: 0,
            position: index as u64,
            id: None,
            timestamp_ms: Some(1_700_000_000_000),
            key: None,
            value: Some(Range {
                buffer: 0,
                start: (index * value.len()) as u32,
                len: value.len() as u32,
            }),
            headers: None,
        },
        has_event: true,
        batch: None,
        joined: None,
        try_number: 1,
        map_index: -1,
        scope: 0,
        state: None,
    };
    Dispatch {
        token: Token(token as u64),
        task: TaskRef {
            entry: entry.into(),
            folder: None,
            dag: "bench".into(),
            run: "bench".into(),
            task: task.into(),
            sink: None,
            polls: None,
        },
        order: OrderMode::Independent,
        vectorised: false,
        slice: Duration::from_secs(3600),
        timeout: None,
        cwd: None,
        nice: 0,
        traced: false,
        lanes: vec![LaneRef {
            identity: Bytes::copy_from_slice(LaneIdentity::new("bench", "kafka", "t/0").as_bytes()),
            kind: IdKind::Position,
            generation: 0,
            source: "kafka".into(),
            lane: "t/0".into(),
        }],
        upstream: Vec::new(),
        members: (0..wave).map(member).collect(),
        events: Vec::new(),
        results: Vec::new(),
        buffers: vec![Bytes::from(value.repeat(wave))],
    }
}
