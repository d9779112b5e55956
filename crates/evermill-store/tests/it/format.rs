//! A store written when a format was frozen opens for ever, and is then of the newest format.

use std::path::{Path, PathBuf};

use evermill_core::row::{Key, Row, Table, Write};
use evermill_store::{CommitId, DirLock, Options, SqliteStore, Store};

use crate::workload::{Content, writes};

const COMMITS: u64 = 7;
/// The newest format.
const FORMAT: u32 = 3;

fn open(dir: &Path) -> Box<dyn Store> {
    let lock = DirLock::take(dir).expect("lock");
    let options = Options {
        segment_bytes: 400,
        ..Options::default()
    };
    Box::new(SqliteStore::open(lock, options).expect("store"))
}

fn golden(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/store-{format}.db"))
}

#[test]
fn golden_stores_of_every_format_open_with_their_content() {
    for format in 1..=FORMAT {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::copy(golden(format), dir.path().join("store.db")).expect("golden file");
        opens_with_its_content(dir.path());
    }
}

fn opens_with_its_content(dir: &Path) {
    let mut store = open(dir);
    let header = store.header().clone();
    assert_eq!(
        (header.format, header.epoch, header.clean),
        (FORMAT, 2, true)
    );
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

#[test]
fn an_older_store_takes_new_tables_and_opens_again() {
    takes_new_tables(1, &[Table::Inbox, Table::Spill, Table::Setting]);
    takes_new_tables(2, &[Table::Setting]);
}

fn takes_new_tables(format: u32, tables: &[Table]) {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::copy(golden(format), dir.path().join("store.db")).expect("golden file");
    let mut store = open(dir.path());
    let fence = store.claim(0).expect("claim");
    let row = |table: &Table| Row {
        table: *table,
        key: Key::numbered(0, 1, &[7]),
        body: "new".into(),
    };
    let rows: Vec<Row> = tables.iter().map(row).collect();
    let put = rows.iter().cloned().map(Write::Put).collect();
    store.commit_one(fence, put).expect("commit");
    store.close_clean().expect("close");
    let mut store = open(dir.path());
    for row in rows {
        let mut found = Vec::new();
        store
            .load(row.table, &mut |row| found.push(row))
            .expect("load");
        assert_eq!(found, [row]);
    }
    store.verify().expect("sound");
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
    assert!(!golden(FORMAT).exists(), "a frozen file is not replaced");
    std::fs::copy(dir.path().join("store.db"), golden(FORMAT)).expect("golden file");
}
