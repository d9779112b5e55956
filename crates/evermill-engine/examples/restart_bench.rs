//! How soon an engine works again after `kill -9`: activations that wait in rows of their own, more in
//! flight with committed outcomes, and the write-ahead log as the kill left it (the store bounds it:
//! `CHECKPOINT_FRAMES_MAX`, 24 MiB).
//!
//! ```text
//! cargo run --release -p evermill-engine --example restart_bench -- [MATERIALISED] [IN_FLIGHT]
//! ```
//!
//! A child process fills the data directory and is killed; then this process opens it and takes the
//! time until the store is open, and until the first dispatch reaches a worker.

#[path = "shared/feed.rs"]
mod feed;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use evermill_contract::source::Opened;
use evermill_contract::worker::{
    Answer, Dispatch, Events, Executor, Outcome, OutcomeRun, Slot, TaskError, TaskErrorKind, Token,
    WorkerEvent,
};
use evermill_engine::{Clock, Engine, Handle, NoSettings, OpenOptions, store_options};
use evermill_store::{DirLock, SqliteStore};

use crate::feed::{Feed, FeedSource, request};

/// `later` waits for an hour and leaves its wave; `soon` is tried again within it. Both for ever.
const TASKS: &str = r#"
    {"id":"first","kind":"call","line":2,"upstream":[{"node":"in","kind":"source"}]},
    {"id":"second","kind":"call","line":3,"upstream":[{"node":"first","kind":"task"}],
     "retries":1000000,"retry_delay_ms":DELAY}"#;
/// The child says so once the directory is full.
const FULL: &str = "full";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", dir, materialised, in_flight] => {
            fill(Path::new(dir), whole(materialised), whole(in_flight));
        }
        rest => {
            let numbers: Vec<u64> = rest.iter().map(|text| whole(text)).collect();
            let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
            restart(number(0, 100_000), number(1, 7_000));
        }
    }
}

fn whole(text: &str) -> u64 {
    text.parse().expect("a whole number")
}

fn tasks(delay_ms: u64) -> String {
    TASKS.replace("DELAY", &delay_ms.to_string())
}

/// Never returns: it waits to be killed.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn fill(dir: &Path, materialised: u64, in_flight: u64) {
    let feed = Feed::new(materialised, 1_000);
    let handle = open(dir, &feed, |task| task == "first", bounded(1).0);
    handle.start(&request(&tasks(3_600_000))).expect("a DAG");
    // A position that is passed without being settled has a row of its own.
    until(&handle, |low, _| low == materialised);
    // What is read from here on is tried again every half second, inside its wave.
    handle.drain(Duration::from_secs(10)).expect("a drain");
    drop(handle);
    let handle = open(dir, &feed, |task| task == "first", bounded(1).0);
    handle.start(&request(&tasks(500))).expect("a DAG");
    feed.add(in_flight);
    until(&handle, |_, seen| seen == materialised + in_flight);
    println!("{FULL}");
    loop {
        std::thread::park();
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark talks to people")]
fn restart(materialised: u64, in_flight: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["fill", &dir.path().display().to_string()])
        .args([materialised, in_flight].map(|number| number.to_string()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let said = BufReader::new(child.stdout.take().expect("piped"));
    let full = said.lines().map_while(Result::ok).any(|line| line == FULL);
    assert!(full, "the child ended before the directory was full");
    child.kill().expect("a kill");
    child.wait().expect("an end");
    let log = std::fs::metadata(dir.path().join(format!("{}-wal", SqliteStore::FILE)))
        .map_or(0, |file| file.len());
    let (dispatched, first) = bounded(1);
    let feed = Feed::new(materialised + in_flight, 1_000);
    let begun = Instant::now();
    let handle = open(dir.path(), &feed, |_| true, dispatched);
    let opened = begun.elapsed();
    handle.start(&request(&tasks(500))).expect("a DAG");
    let at: Instant = first.recv().expect("a dispatch");
    println!(
        "{materialised} materialised, {in_flight} in flight, {} MiB of log: engine open after \
         {opened:.0?}, first dispatch after {:.0?}",
        log >> 20,
        at - begun
    );
    handle.drain(Duration::ZERO).expect("a drain");
}

fn until(handle: &Handle, full: impl Fn(u64, u64) -> bool) {
    loop {
        let view = handle.fresh_view().expect("a view");
        let run = view.run("d").expect("a run");
        let lane = run.sources.first().and_then(|source| source.lanes.first());
        let low = lane.and_then(|lane| lane.position).unwrap_or_default();
        if full(low, run.taken_in) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn open(
    dir: &Path,
    feed: &Feed,
    succeeds: impl Fn(&str) -> bool + Send + 'static,
    first: Sender<Instant>,
) -> Handle {
    let (lock, feed) = (dir.to_owned(), feed.clone());
    Engine::open(OpenOptions {
        data_dir: dir.to_owned(),
        store: Box::new(move || {
            Ok(Box::new(SqliteStore::open(
                DirLock::take(&lock)?,
                store_options(),
            )?))
        }),
        executor: Box::new(move |events| Ok(Verdicts::start(events, succeeds, first))),
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

/// One worker whose tasks succeed or fail at once, by their name.
struct Verdicts(Sender<Option<(Slot, Dispatch)>>);

impl Verdicts {
    fn start(
        events: Events,
        succeeds: impl Fn(&str) -> bool + Send + 'static,
        first: Sender<Instant>,
    ) -> Box<dyn Executor> {
        let (orders, line): (_, Receiver<Option<(Slot, Dispatch)>>) = bounded(64);
        std::thread::spawn(move || {
            let slot = Slot(0);
            events(WorkerEvent::Ready { slot, pid: 0 });
            while let Ok(Some((slot, dispatch))) = line.recv() {
                first.try_send(Instant::now()).ok();
                let token = dispatch.token;
                let good = succeeds(&dispatch.task.task);
                let outcome = if good {
                    Outcome::Success(None)
                } else {
                    Outcome::Failed(Box::new(failure()))
                };
                let runs = vec![OutcomeRun {
                    first: 0,
                    count: dispatch.members.len() as u32,
                    started_ns: 0,
                    ended_ns: 0,
                    outcome,
                }];
                events(WorkerEvent::Outcomes { slot, token, runs });
                events(WorkerEvent::Finished {
                    slot,
                    token,
                    tail: 0,
                });
            }
            events(WorkerEvent::Died {
                slot,
                cause: evermill_contract::worker::Death::Killed,
                token: None,
                started: None,
                reported: 0,
            });
        });
        Box::new(Self(orders))
    }
}

fn failure() -> TaskError {
    TaskError {
        kind: TaskErrorKind::Raised,
        class: "Later".to_owned(),
        message: "not yet".to_owned(),
        traceback: String::new(),
        retryable: true,
        retry_after_ms: None,
    }
}

impl Executor for Verdicts {
    fn slots(&self) -> u16 {
        1
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
