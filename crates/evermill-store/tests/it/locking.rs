//! One engine per data directory (S5).

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};
use std::thread;

use evermill_store::{DirLock, LockError};

use crate::child;

#[test]
fn of_fifty_racing_openers_exactly_one_wins_and_the_others_name_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for _ in 0..20 {
        let start = Arc::new(Barrier::new(50));
        let end = Arc::new(Barrier::new(50));
        let racers: Vec<_> = (0..50)
            .map(|_| {
                let (start, end, dir) = (
                    Arc::clone(&start),
                    Arc::clone(&end),
                    dir.path().join("data"),
                );
                thread::spawn(move || {
                    start.wait();
                    let taken = DirLock::take(&dir);
                    // Nobody lets go before everybody has tried.
                    end.wait();
                    taken.map(drop)
                })
            })
            .collect();
        let results: Vec<_> = racers
            .into_iter()
            .map(|racer| racer.join().expect("racer"))
            .collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for error in results.into_iter().filter_map(Result::err) {
            let LockError::Held { holder, .. } = error else {
                panic!("{error}")
            };
            assert_eq!(holder, Some(std::process::id()));
        }
    }
}

#[test]
fn lock_dies_with_its_process_and_names_it_until_then() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut holder = Command::new(std::env::current_exe().expect("test binary"))
        .args(["--exact", "locking::hold_the_lock", "--nocapture"])
        .env(child::DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("child");
    let mut lines = BufReader::new(holder.stdout.take().expect("pipe")).lines();
    assert!(
        lines.any(|line| line.is_ok_and(|line| line.contains("holding"))),
        "child holds"
    );
    let Err(error) = DirLock::take(dir.path()) else {
        panic!("two holders")
    };
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", holder.id())),
        "{error}"
    );
    holder.kill().expect("kill -9");
    holder.wait().expect("child");
    DirLock::take(dir.path()).expect("free again");
}

/// The child of the test above; alone it does nothing.
#[test]
fn hold_the_lock() {
    let Some(dir) = child::dir() else { return };
    let _lock = DirLock::take(&dir).expect("lock");
    child::say("holding");
    loop {
        thread::park();
    }
}
