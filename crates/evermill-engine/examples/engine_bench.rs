//! What the engine costs without broker and without Python: a source that always has events, a
//! worker that returns at once, the SQLite store with its real fsync.
//!
//! ```text
//! cargo run --release -p evermill-engine --example engine_bench -- flow  [EVENTS] [BATCH]
//! cargo run --release -p evermill-engine --example engine_bench -- store [RECORDS] [GROUP]
//! cargo run --release -p evermill-engine --example engine_bench -- lap   [EVENTS]
//! ```
//!
//! `flow`: one task per event, events per second and CPU. `store`: every event brings a result of
//! 300 bytes that has to be durable before the task behind it starts, beside a plain rusqlite loop
//! that commits the same records in groups. `lap`: one event at a time, arrival to committed.

#[path = "shared/feed.rs"]
mod feed;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Sender, bounded};
use evermill_contract::source::Opened;
use evermill_contract::worker::{
    Answer, Dispatch, Events, Executor, Outcome, OutcomeRun, Slot, Success, Token, WorkerEvent,
};
use evermill_engine::{Clock, Engine, Handle, NoSettings, OpenOptions, store_options};
use evermill_store::{DirLock, SqliteStore};

use crate::feed::{Feed, FeedSource, request};

const RECORD_BYTES: usize = 300;
const GRACE: Duration = Duration::from_secs(10);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let mut number = |default: u64| {
        arguments
            .next()
            .map_or(default, |text| text.parse().expect("a whole number"))
    };
    match &*what {
        "flow" => flow(number(1_000_000), number(1_000)),
        "store" => store(number(100_000), number(100)),
        "lap" => lap(number(1_000)),
        other => panic!("'{other}': want flow, store or lap"),
    }
}

fn flow(events: u64, batch: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let feed = Feed::new(events, batch);
    let handle = open(dir.path(), &feed, 0);
    let cpu = cpu_seconds();
    let begun = Instant::now();
    handle.start(&request(WORK)).expect("a DAG that starts");
    until_done(&handle, events);
    report("flow", events, begun.elapsed(), cpu_seconds() - cpu);
    show(&handle);
}

fn store(records: u64, group: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let feed = Feed::new(records, group);
    let handle = open(dir.path(), &feed, RECORD_BYTES);
    let cpu = cpu_seconds();
    let begun = Instant::now();
    handle
        .start(&request(&format!("{WORK},{BEHIND}")))
        .expect("a DAG that starts");
    until_done(&handle, records);
    report(
        "store: engine",
        records,
        begun.elapsed(),
        cpu_seconds() - cpu,
    );
    show(&handle);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cpu = cpu_seconds();
    let begun = Instant::now();
    raw(dir.path(), records, group);
    report(
        "store: rusqlite",
        records,
        begun.elapsed(),
        cpu_seconds() - cpu,
    );
}

fn lap(events: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let feed = Feed::new(0, 1);
    let handle = open(dir.path(), &feed, 0);
    handle.start(&request(WORK)).expect("a DAG that starts");
    for event in 1..=events {
        feed.add(1);
        until_done(&handle, event);
    }
    show(&handle);
}

/// The loop one would write by hand.
fn raw(dir: &Path, records: u64, group: u64) {
    let mut db = rusqlite::Connection::open(dir.join("raw.db")).expect("a database");
    db.execute_batch(
        "PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
         CREATE TABLE record(id INTEGER PRIMARY KEY, body BLOB NOT NULL);
         CREATE TABLE position(lane INTEGER PRIMARY KEY, at INTEGER NOT NULL);",
    )
    .expect("tables");
    let body = vec![b'x'; RECORD_BYTES];
    let mut next = 0;
    while next < records {
        let transaction = db.transaction().expect("a transaction");
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO record VALUES (?, ?)")
                .expect("a statement");
            for _ in 0..group.min(records - next) {
                insert.execute((next as i64, &body)).expect("an insert");
                next += 1;
            }
            let mut position = transaction
                .prepare_cached("INSERT OR REPLACE INTO position VALUES (1, ?)")
                .expect("a statement");
            position.execute([next as i64]).expect("a position");
        }
        transaction.commit().expect("a commit");
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark talks to people")]
fn report(what: &str, events: u64, took: Duration, cpu: f64) {
    let rate = events as f64 / took.as_secs_f64();
    println!(
        "{what}: {events} in {took:.2?}: {rate:.0}/s, {:.0} per CPU second",
        events as f64 / cpu
    );
}

#[expect(clippy::print_stdout, reason = "a benchmark talks to people")]
fn show(handle: &Handle) {
    let view = handle.fresh_view().expect("a view");
    let run = view.run("d").expect("a run");
    println!("latency {:?}, commit {:?}", run.latency_ms, run.commit_ms);
    handle.drain(GRACE).expect("a drain");
}

fn until_done(handle: &Handle, events: u64) {
    while handle
        .fresh_view()
        .expect("a view")
        .run("d")
        .is_none_or(|run| run.done < events)
    {
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

const WORK: &str =
    r#"{"id":"work","kind":"call","line":2,"upstream":[{"node":"in","kind":"source"}]}"#;
const BEHIND: &str = r#"{"id":"behind","kind":"call","line":3,
    "upstream":[{"node":"work","kind":"task","reads_result":true}]}"#;

fn open(dir: &Path, feed: &Feed, result: usize) -> Handle {
    let (lock, feed) = (dir.to_owned(), feed.clone());
    Engine::open(OpenOptions {
        data_dir: dir.to_owned(),
        store: Box::new(move || {
            Ok(Box::new(SqliteStore::open(
                DirLock::take(&lock)?,
                store_options(),
            )?))
        }),
        executor: Box::new(move |events| Ok(AtOnce::start(events, result))),
        sources: Arc::new(move |_| Ok(Opened::Log(Box::new(FeedSource::new(feed.clone()))))),
        settings: Arc::new(NoSettings),
        pools: BTreeMap::new(),
        clock: Clock::system(),
        log: Box::new(|_| {}),
        retain_logs: evermill_engine::LogRetention::default(),
        notices: Arc::new(|_| {}),
        alerts: Arc::new(evermill_contract::alert::Nobody),
        traces: None,
    })
    .expect("an engine")
}

/// Two workers that return at once, on one thread.
struct AtOnce(Sender<Option<(Slot, Dispatch)>>);

impl AtOnce {
    fn start(events: Events, result: usize) -> Box<dyn Executor> {
        let (orders, line) = bounded::<Option<(Slot, Dispatch)>>(64);
        let result = (result > 0).then(|| Bytes::from(vec![b'7'; result]));
        std::thread::spawn(move || {
            (0..2).for_each(|slot| {
                events(WorkerEvent::Ready {
                    slot: Slot(slot),
                    pid: 0,
                })
            });
            while let Ok(Some((slot, dispatch))) = line.recv() {
                let token = dispatch.token;
                let brings = result.clone().filter(|_| dispatch.task.task == "work");
                events(WorkerEvent::Outcomes {
                    slot,
                    token,
                    runs: outcomes(&dispatch, brings),
                });
                events(WorkerEvent::Finished {
                    slot,
                    token,
                    tail: 0,
                });
            }
            for slot in 0..2 {
                events(WorkerEvent::Died {
                    slot: Slot(slot),
                    cause: evermill_contract::worker::Death::Killed,
                    token: None,
                    started: None,
                    reported: 0,
                });
            }
        });
        Box::new(Self(orders))
    }
}

fn outcomes(dispatch: &Dispatch, brings: Option<Bytes>) -> Vec<OutcomeRun> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    let count = dispatch.members.len() as u32;
    let run = |first, count, outcome| OutcomeRun {
        first,
        count,
        started_ns: now,
        ended_ns: now,
        outcome,
    };
    match brings {
        None => vec![run(0, count, Outcome::Success(None))],
        Some(result) => (0..count)
            .map(|first| {
                let success = Success {
                    result: Some(result.clone()),
                    ..Success::default()
                };
                run(first, 1, Outcome::Success(Some(Box::new(success))))
            })
            .collect(),
    }
}

impl Executor for AtOnce {
    fn slots(&self) -> u16 {
        2
    }
    fn dispatch(&mut self, slot: Slot, dispatch: Dispatch) {
        self.0
            .send(Some((slot, dispatch)))
            .expect("the thread lives");
    }
    fn recall(&mut self, _: Token) {}
    fn kill(&mut self, _: Slot, _: Duration) {}
    fn answer(&mut self, _: Slot, _: u32, _: Answer) {}
    fn shutdown(&mut self, _: Duration) {
        drop(self.0.send(None));
    }
}
