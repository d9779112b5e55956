//! A store written when format 1 was frozen opens for ever.

use std::path::{Path, PathBuf};

use evermill_store::{CommitId, DirLock, Options, SqliteStore, Store};

use crate::workload::{Content, writes};

const COMMITS: u64 = 7;

fn open(dir: &Path) -> Box<dyn Store> {
    let lock = DirLock::take(dir).expect("lock");
    let options = Options {
        segment_bytes: 400,
        ..Options::default()
    };
    Box::new(SqliteStore::open(lock, options).expect("store"))
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/store-1.db")
}

#[test]
fn golden_store_of_format_1_opens_with_its_content() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::copy(golden(), dir.path().join("store.db")).expect("golden file");
    let mut store = open(dir.path());
    let header = store.header().clone();
    assert_eq!((header.format, header.epoch, header.clean), (1, 2, true));
    assert_eq!(
        header.last,
        Some(CommitId {
            epoch: 1,
            seq: COMMITS
        })
    );
    assert_eq!(
        Content::of(&mut *store).expect("load"),
        Content::after(COMMITS)
    );
    store.verify().expect("sound");
    assert_eq!(store.claim(0).expect("claim").token, 2);
}

/// Makes the golden store of a new format; it never replaces one.
#[test]
#[ignore = "run by hand when a format is frozen"]
fn make_golden_store() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut store = open(dir.path());
    let fence = store.claim(0).expect("claim");
    for seq in 1..=COMMITS {
        store.commit_one(fence, writes(seq)).expect("commit");
    }
    store.close_clean().expect("close");
    assert!(!golden().exists(), "a frozen file is not replaced");
    std::fs::copy(dir.path().join("store.db"), golden()).expect("golden file");
}
