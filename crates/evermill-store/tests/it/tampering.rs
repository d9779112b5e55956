//! S6: whatever is changed behind the store's back is noticed, and named.

use std::path::Path;

use evermill_store::{DirLock, Options, SqliteStore, Store, StoreError};
use rusqlite::Connection;

use crate::workload::{Content, writes};

fn open(dir: &Path) -> Result<Box<dyn Store>, StoreError> {
    let lock = DirLock::take(dir).expect("lock");
    let options = Options {
        segment_bytes: 1_000,
        ..Options::default()
    };
    Ok(Box::new(SqliteStore::open(lock, options)?))
}

fn commit(store: &mut dyn Store, seqs: std::ops::RangeInclusive<u64>) {
    let fence = store.claim(0).expect("claim");
    for seq in seqs {
        store.commit_one(fence, writes(seq)).expect("commit");
    }
}

/// What a store says after this SQL was run on its file; it was sound before.
fn after(sql: &str) -> String {
    let dir = tempfile::tempdir().expect("temporary directory");
    {
        let mut store = open(dir.path()).expect("store");
        commit(&mut *store, 1..=30);
        store.verify().expect("sound");
        store.close_clean().expect("close");
    }
    let file = Connection::open(dir.path().join("store.db")).expect("file");
    file.execute_batch(sql).expect("SQL runs");
    drop(file);
    let look = |dir: &Path| {
        let mut store = open(dir)?;
        Content::of(&mut *store)?;
        store.verify()
    };
    match look(dir.path()) {
        Err(StoreError::Damaged { what, .. }) => what,
        other => panic!("{sql}: {other:?}"),
    }
}

#[test]
fn changed_removed_doubled_and_stale_rows_are_noticed_and_named() {
    let cases = [
        (
            "UPDATE outcome SET body = x'00' WHERE run = 1 AND lane = 2",
            "table outcome: row run 1, lane 2",
        ),
        (
            "UPDATE lane SET sum = sum + 1 WHERE lane = 1",
            "table lane: row run 1, lane 1",
        ),
        (
            "UPDATE activation SET lane = 9 WHERE lane = 0",
            "fails its checksum",
        ),
        ("DELETE FROM lane WHERE lane = 1", "table lane has"),
        ("DELETE FROM outcome", "table outcome has 0 rows"),
        (
            "INSERT INTO state SELECT run + 1, lane, id, body, sum FROM state",
            "fails its checksum",
        ),
        (
            "INSERT INTO suspect SELECT run, lane, id, body, sum FROM outcome",
            "fails its checksum",
        ),
        ("UPDATE outcome SET id = CAST(id AS TEXT)", "wrong types"),
        ("UPDATE header SET sum = 0", "header row fails its checksum"),
        (
            "UPDATE header SET body = x'0000', sum = 0",
            "header row fails its checksum",
        ),
        ("DELETE FROM header", "header row"),
        (
            "UPDATE shard SET token = 9",
            "shard's row fails its checksum",
        ),
        ("DELETE FROM shard", "table shard"),
        (
            "UPDATE segment SET body = x'00' WHERE number = 1",
            "segment's row fails its checksum",
        ),
        ("DELETE FROM segment WHERE number = 0", "table segment"),
        ("UPDATE h_1 SET done = 9", "h_1: row"),
        (
            "DELETE FROM h_1 WHERE id = (SELECT max(id) FROM h_1)",
            "table h_1 has",
        ),
        ("UPDATE h_0 SET id = id + 1000000", "fails its checksum"),
        ("DROP TABLE signal", "the schema lacks"),
        ("CREATE TABLE signal_2(x)", "which is not evermill's"),
        (
            "CREATE TRIGGER t AFTER DELETE ON lane BEGIN DELETE FROM outcome; END",
            "not evermill's",
        ),
    ];
    for (sql, told) in cases {
        let what = after(sql);
        assert!(what.contains(told), "{sql}: {what}");
    }
}

#[test]
fn row_of_an_earlier_commit_is_noticed_though_its_own_sum_is_good() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("store.db");
    let lives = |range: std::ops::RangeInclusive<u64>| {
        let mut store = open(dir.path()).expect("store");
        commit(&mut *store, range);
        store.close_clean().expect("close");
    };
    lives(1..=9);
    let old: (Vec<u8>, i64) = Connection::open(&path)
        .and_then(|file| {
            file.query_row("SELECT body, sum FROM lane WHERE lane = 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
        })
        .expect("old row");
    lives(10..=20);
    let file = Connection::open(&path).expect("file");
    file.execute("UPDATE lane SET body = ?1, sum = ?2 WHERE lane = 1", old)
        .expect("lost write");
    drop(file);
    let Err(StoreError::Damaged { what, .. }) =
        open(dir.path()).and_then(|mut store| Content::of(&mut *store))
    else {
        panic!("a stale row was taken for the last one");
    };
    assert!(
        what.contains("table lane are not the ones last written"),
        "{what}"
    );
}

#[test]
fn rotten_sum_that_a_commit_replaces_is_noticed_all_the_same() {
    let dir = tempfile::tempdir().expect("temporary directory");
    {
        let mut store = open(dir.path()).expect("store");
        commit(&mut *store, 1..=6);
        store.close_clean().expect("close");
    }
    let file = Connection::open(dir.path().join("store.db")).expect("file");
    file.execute_batch("UPDATE lane SET sum = sum + 1 WHERE lane = 1")
        .expect("SQL");
    drop(file);
    // Nobody loads before the row is replaced: the sum that goes is the rotten one.
    let mut store = open(dir.path()).expect("store");
    commit(&mut *store, 7..=9);
    assert!(store.verify().is_err());
}

#[test]
fn newer_format_is_refused_with_the_cure_and_left_alone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    drop(open(dir.path()).expect("store").close_clean());
    let file = Connection::open(dir.path().join("store.db")).expect("file");
    file.execute_batch("PRAGMA user_version = 4; PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("SQL");
    drop(file);
    let before = std::fs::read(dir.path().join("store.db")).expect("file");
    let Err(error) = open(dir.path()).map(|_| ()) else {
        panic!("opened")
    };
    let text = error.to_string();
    assert!(
        text.contains("format 4 is newer than 3") && text.contains("start the evermill"),
        "{text}"
    );
    assert_eq!(
        std::fs::read(dir.path().join("store.db")).expect("file"),
        before
    );
}

#[test]
fn foreign_and_missing_files_are_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("store.db");
    let refusal = || {
        open(dir.path())
            .map(|_| ())
            .expect_err("refused")
            .to_string()
    };
    std::fs::write(&path, "hello").expect("write");
    assert!(refusal().contains("first 100 bytes"));
    std::fs::write(&path, "x".repeat(8_192)).expect("write");
    assert!(refusal().contains("not an SQLite database"));
    std::fs::remove_file(&path).expect("remove");
    let file = Connection::open(&path).expect("file");
    file.execute_batch("CREATE TABLE mine(x)").expect("SQL");
    drop(file);
    assert!(refusal().contains("application id"));
    std::fs::remove_file(&path).expect("remove");
    std::fs::write(dir.path().join("store.db-wal"), "x").expect("write");
    assert!(refusal().contains("is missing, but its log"));
}

#[test]
fn file_keeps_the_page_layout_it_was_made_with() {
    let dir = tempfile::tempdir().expect("temporary directory");
    drop(open(dir.path()).expect("store").close_clean());
    let head = std::fs::read(dir.path().join("store.db")).expect("file");
    assert_eq!(&head[16..18], &8_192_u16.to_be_bytes(), "page size");
    assert_eq!(head[20], 8, "bytes reserved per page");
    let file = Connection::open(dir.path().join("store.db")).expect("file");
    let answer = |pragma: &str| {
        file.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0))
            .expect("pragma")
    };
    assert_eq!(answer("page_size"), 8_192);
    assert_eq!(answer("auto_vacuum"), 0);
}
