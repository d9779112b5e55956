//! `kill -9` at every step, every time the step is reached, and again during recovery.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evermill_store::{DirLock, Options, SqliteStore, Step, Store};

use crate::child;
use crate::workload::{Content, writes};

/// Step and how often it is passed before the kill, as `name:hits`.
const KILL: &str = "EVERMILL_STORE_KILL";
/// Commits a life does before it closes cleanly.
const COMMITS: u64 = 16;
/// Steps of the committer's thread, which the child below does not use.
const NOT_HERE: [Step; 2] = [Step::GroupDrained, Step::GroupUnanswered];

/// Small bounds, so that a few commits roll segments, drop them and checkpoint.
fn options() -> Options {
    Options {
        segment_bytes: 600,
        history_bytes: 1_500,
        checkpoint_frames_idle: 20,
        checkpoint_frames_max: 40,
        ..Options::default()
    }
}

fn open(dir: &Path, options: Options) -> Box<dyn Store> {
    let lock = DirLock::take(dir).expect("lock");
    Box::new(SqliteStore::open(lock, options).expect("store"))
}

/// Lets a child live on the directory; returns the last commit it told of and whether it was killed.
fn live(dir: &Path, kill: &str) -> (Option<u64>, bool) {
    let output = Command::new(std::env::current_exe().expect("test binary"))
        .args(["--exact", "crashing::life", "--nocapture"])
        .env(child::DIR, dir)
        .env(KILL, kill)
        .stdin(Stdio::null())
        .output()
        .expect("child");
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text
        .lines()
        .filter_map(|line| line.strip_prefix("durable ")?.parse().ok())
        .next_back();
    let killed = output.status.code().is_none();
    assert!(
        killed || output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    (told, killed)
}

/// The child: opens, commits from where the store stands, closes. Alone it does nothing.
#[test]
fn life() {
    let Some(dir) = child::dir() else { return };
    let kill = std::env::var(KILL).expect("set by the parent");
    let (step, hits) = kill.split_once(':').expect("name:hits");
    let (step, left) = (
        step.to_owned(),
        AtomicU64::new(hits.parse().expect("number")),
    );
    let hook = move |reached: Step| {
        if reached.name() == step && left.fetch_sub(1, Ordering::Relaxed) == 0 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .expect("kill -9");
        }
    };
    let mut store = open(
        &dir,
        Options {
            hook: Some(Arc::new(hook)),
            ..options()
        },
    );
    let fence = store.claim(0).expect("claim");
    let from = store.header().last.map_or(0, |last| last.seq) + 1;
    for seq in from..from + COMMITS {
        store.commit_one(fence, writes(seq)).expect("commit");
        child::say(&format!("durable {seq}"));
        store.tend(seq.is_multiple_of(5)).expect("tend");
    }
    store.trim_history(i64::MAX).expect("trim");
    store.close_clean().expect("close");
}

/// Opens what a killed child left: every commit it told of is there, whole, and at most one more.
fn check(dir: &Path, told: u64, context: &str) -> u64 {
    let mut store = open(dir, options());
    let last = store.header().last.map_or(0, |last| last.seq);
    assert!(
        (told..=told + 1).contains(&last),
        "{context}: told {told}, found {last}"
    );
    store
        .verify()
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let content = Content::of(&mut *store).expect("load");
    assert_eq!(content.rows, Content::after(last).rows, "{context}");
    assert!(
        content.is_retained_part_of(&Content::after(last)),
        "{context}: history"
    );
    last
}

#[test]
fn killed_at_any_step_every_told_commit_is_there_and_none_in_part() {
    let mut reached = BTreeSet::new();
    for step in Step::ALL
        .into_iter()
        .filter(|step| !NOT_HERE.contains(step))
    {
        // The first passes, and some later ones, when segments and checkpoints are under way.
        for hits in [0, 1, 2, 7, 13] {
            let dir = tempfile::tempdir().expect("temporary directory");
            let kill = format!("{}:{hits}", step.name());
            let (told, killed) = live(dir.path(), &kill);
            if !killed {
                break;
            }
            reached.insert(step.name());
            let last = check(dir.path(), told.unwrap_or(0), &kill);
            // A second life goes on from there and ends by itself or at the same step.
            let (told, _) = live(dir.path(), &kill);
            check(
                dir.path(),
                told.unwrap_or(last),
                &format!("{kill}, second life"),
            );
        }
    }
    let missed: Vec<_> = Step::ALL
        .into_iter()
        .filter(|step| !NOT_HERE.contains(step) && !reached.contains(step.name()))
        .map(Step::name)
        .collect();
    assert!(missed.is_empty(), "steps never reached: {missed:?}");
}

#[test]
fn killed_five_times_during_recovery_it_still_recovers() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (told, killed) = live(dir.path(), "store.commit.header_written:9");
    assert!(killed);
    for step in [
        Step::OpenLocked,
        Step::OpenLogScanned,
        Step::OpenEpochCommitted,
        Step::OpenCheckpointed,
        Step::CommitBegun,
    ] {
        let (_, killed) = live(dir.path(), &format!("{}:0", step.name()));
        assert!(killed, "{}", step.name());
    }
    check(
        dir.path(),
        told.expect("commits before the kill"),
        "after five",
    );
}

#[test]
fn killed_while_an_older_format_becomes_the_newest_nothing_is_lost() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/store-1.db");
    for step in [
        Step::OpenLogScanned,
        Step::CommitBegun,
        Step::CommitHeaderWritten,
        Step::OpenEpochCommitted,
        Step::OpenCheckpointed,
    ] {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::copy(&golden, dir.path().join("store.db")).expect("golden file");
        let (_, killed) = live(dir.path(), &format!("{}:0", step.name()));
        assert!(killed, "{}", step.name());
        check(dir.path(), 7, step.name());
    }
}
