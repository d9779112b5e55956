//! History that is too old or too much goes, in whole segments, and nothing else does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use evermill_core::row::{HistoryRow, Write};
use evermill_store::{DirLock, HistoryQuery, Options, SqliteStore, Store};

fn row(position: u64, settled_ms: i64) -> Write {
    Write::History(HistoryRow {
        run: 1,
        lane: 1,
        settled_ms,
        first: position,
        last: position,
        done: 1,
        skipped: 0,
        parked: 0,
        dropped: 0,
        body: Bytes::new(),
    })
}

fn positions(store: &SqliteStore) -> Vec<u64> {
    let query = HistoryQuery::default();
    let page = store
        .reader()
        .expect("reader")
        .history(&query)
        .expect("history");
    page.entries.iter().map(|entry| entry.row.first).collect()
}

#[test]
fn segments_older_than_asked_go_when_the_store_is_tended() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = Options {
        segment_bytes: 200,
        history_age: Some(Duration::from_secs(7 * 86_400)),
        ..Options::default()
    };
    let lock = DirLock::take(dir.path()).expect("lock");
    let mut store = SqliteStore::open(lock, options).expect("open");
    let fence = store.claim(0).expect("claim");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    let now = i64::try_from(now.as_millis()).expect("a time");
    let month_ago = now - 30 * 86_400_000;
    for position in 0..8 {
        let settled = if position < 4 { month_ago } else { now };
        let store: &mut dyn Store = &mut store;
        store
            .commit_one(fence, vec![row(position, settled)])
            .expect("commit");
    }
    let before = positions(&store);
    assert_eq!(before.len(), 8);
    for _ in 0..8 {
        store.tend(true).expect("tend");
    }
    assert_eq!(positions(&store), [7, 6, 5, 4]);
    assert!(store.verify().is_ok());
}
