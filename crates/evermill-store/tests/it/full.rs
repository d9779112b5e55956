//! A disk that is really full: a small tmpfs of our own, in a mount namespace.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

use evermill_store::{
    Batch, CommitError, CommitId, Committer, DirLock, Event, Options, SqliteStore, Store,
};

use crate::child;
use crate::small_disk;
use crate::workload::{Content, writes};

const ROUNDS: usize = 20;
/// More than is ever told before the test listens.
const ANSWERS: usize = 16;

#[derive(Debug)]
enum Told {
    Answer(Result<CommitId, CommitError>),
    Event(Event),
}

#[test]
fn full_disk_loses_nothing_and_commits_go_on_when_space_returns() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let variables = [(child::DIR, dir.path().as_os_str())];
    let Some((text, errors)) = small_disk::run("full::rounds", "8m", dir.path(), &variables) else {
        return child::say(&small_disk::left_out());
    };
    assert!(
        text.contains(&format!("{ROUNDS} rounds, nothing lost")),
        "{text}{errors}"
    );
}

/// The child, on its tmpfs; alone it does nothing.
#[test]
fn rounds() {
    let Some(dir) = child::dir() else { return };
    let data = dir.join("data");
    let mut store = open(&data);
    let fence = store.claim(0).expect("claim");
    let (sender, told) = sync_channel(ANSWERS);
    let events = sender.clone();
    let committer = Committer::start(store, None, move |event| {
        events.send(Told::Event(event)).expect("the test listens");
    });
    let committer = committer.expect("committer");
    let mut seq = 0;
    for _ in 0..ROUNDS {
        let ballast = dir.join("ballast");
        fill(&ballast);
        loop {
            seq += 1;
            let answers = sender.clone();
            committer.submit(
                Batch {
                    fence,
                    writes: writes(seq),
                },
                Box::new(move |answer| {
                    answers
                        .send(Told::Answer(answer))
                        .expect("the test listens")
                }),
            );
            if was_full(&told, &ballast) {
                break;
            }
        }
    }
    committer
        .stop()
        .expect("store")
        .close_clean()
        .expect("close");
    let mut store = open(&data);
    assert_eq!(Content::of(&mut *store).expect("load"), Content::after(seq));
    store.verify().expect("sound");
    child::say(&format!("{ROUNDS} rounds, nothing lost"));
}

fn open(data: &Path) -> Box<dyn Store> {
    let lock = DirLock::take(data).expect("lock");
    Box::new(SqliteStore::open(lock, Options::default()).expect("store"))
}

/// Takes every byte that is left.
fn fill(ballast: &Path) {
    let mut file = File::create(ballast).expect("ballast");
    loop {
        match file.write_all(&[1; 4_096]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits for the answer; when the disk is full it gives back the ballast first.
fn was_full(told: &Receiver<Told>, ballast: &Path) -> bool {
    let mut full = false;
    loop {
        match told.recv().expect("the committer lives") {
            Told::Answer(answer) => {
                answer.expect("durable in the end");
                return full;
            }
            Told::Event(Event::Full) => {
                full = true;
                std::fs::remove_file(ballast).expect("give back");
            }
            Told::Event(Event::SpaceBack) => assert!(full),
            Told::Event(Event::Stopped(error)) => panic!("{error}"),
        }
    }
}
