//! What every implementation must do. Each check runs on memory and on SQLite; opening again
//! without closing stands for a crash.

use bytes::Bytes;
use evermill_core::row::{HistoryRow, Key, Row, Table, Write};
use evermill_store::{
    Batch, CommitError, CommitId, DirLock, Fence, HistoryQuery, MemoryDisk, MemoryStore, Outcome,
    SqliteStore, Store, StoreError, StoreId, limits,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::sabotage::options;
use crate::workload::{Content, writes};

/// A place that stores can be opened on, one after the other.
pub enum Place {
    Memory(MemoryDisk),
    Sqlite(TempDir),
}

impl Place {
    pub fn all() -> [Self; 2] {
        [Self::memory(), Self::sqlite()]
    }

    pub fn memory() -> Self {
        Self::Memory(MemoryDisk::new(StoreId([7; 16])))
    }

    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("temporary directory"))
    }

    pub fn open(&self) -> Box<dyn Store> {
        match self {
            Self::Memory(disk) => Box::new(MemoryStore::open(disk)),
            Self::Sqlite(dir) => {
                let lock = DirLock::take(dir.path()).expect("lock");
                Box::new(SqliteStore::open(lock, options()).expect("store"))
            }
        }
    }
}

pub fn state(id: &str, body: &str) -> Write {
    Write::Put(Row {
        table: Table::State,
        key: Key {
            run: 1,
            lane: 0,
            id: Bytes::copy_from_slice(id.as_bytes()),
        },
        body: Bytes::copy_from_slice(body.as_bytes()),
    })
}

fn ids(store: &mut dyn Store) -> Vec<String> {
    let mut ids = Vec::new();
    let each = &mut |row: Row| ids.push(String::from_utf8_lossy(&row.key.id).into_owned());
    store.load(Table::State, each).expect("load");
    ids
}

#[test]
fn new_store_is_empty_and_counts_its_first_epoch() {
    for place in Place::all() {
        let mut store = place.open();
        let header = store.header().clone();
        assert_eq!(
            (header.format, header.epoch, header.clean, header.last),
            (3, 1, true, None)
        );
        assert_eq!(Content::of(&mut *store).expect("load"), Content::default());
    }
}

#[test]
fn committed_rows_survive_a_crash_and_keep_their_order() {
    for place in Place::all() {
        let mut store = place.open();
        let fence = store.claim(0).expect("claim");
        let writes = vec![
            state("b", "1"),
            state("a", "2"),
            state("b", "3"),
            state("", "4"),
        ];
        let id = store.commit_one(fence, writes).expect("commit");
        drop(store);
        let mut store = place.open();
        assert_eq!(ids(&mut *store), ["", "a", "b"]);
        assert_eq!(store.header().last, Some(id));
        assert_eq!(store.header().epoch, 2);
        store.verify().expect("sound");
    }
}

#[test]
fn a_reader_finds_the_row_that_was_committed_last_and_nothing_else() {
    for place in Place::all() {
        let mut store = place.open();
        let fence = store.claim(0).expect("claim");
        let mut reader = store.reader().expect("reader");
        let mut body = |id: &str| {
            let key = Key {
                run: 1,
                lane: 0,
                id: Bytes::copy_from_slice(id.as_bytes()),
            };
            reader.row(Table::State, &key).expect("a sound row")
        };
        assert_eq!(body("a"), None);
        for value in ["1", "2"] {
            let writes = vec![state("a", value), state("ab", "other")];
            store.commit_one(fence, writes).expect("commit");
            assert_eq!(body("a").as_deref(), Some(value.as_bytes()));
        }
        let gone = Write::Delete(Table::State, Key::numbered(1, 0, &[]));
        store.commit_one(fence, vec![gone]).expect("commit");
        assert!(body("a").is_some() && body("b").is_none());
    }
}

#[test]
fn only_a_clean_close_counts_as_clean() {
    for place in Place::all() {
        drop(place.open());
        let store = place.open();
        assert!(!store.header().clean, "dropped");
        store.close_clean().expect("close");
        let store = place.open();
        assert!(store.header().clean, "closed");
        drop(store);
        assert!(!place.open().header().clean, "dropped again");
    }
}

#[test]
fn stale_fence_is_refused_and_does_not_hold_up_its_group() {
    for place in Place::all() {
        let mut store = place.open();
        let old = store.claim(0).expect("claim");
        let new = store.claim(0).expect("claim again");
        let other = store.claim(5).expect("another shard");
        let never = Fence { shard: 9, token: 1 };
        let batch = |fence, id| Batch {
            fence,
            writes: vec![state(id, "")],
        };
        let group = [
            batch(old, "old"),
            batch(new, "new"),
            batch(never, "never"),
            batch(other, "other"),
        ];
        let committed = store.commit(&group).expect("commit");
        let refused: Vec<_> = committed
            .refused
            .iter()
            .map(|refused| refused.index)
            .collect();
        assert_eq!(refused, [0, 2]);
        assert_eq!(
            store.commit_one(old, vec![state("old", "")]),
            Err(CommitError::Fenced {
                shard: 0,
                given: old.token,
                held: new.token
            })
        );
        assert_eq!(ids(&mut *store), ["new", "other"]);
        drop(store);
        let mut store = place.open();
        assert!(
            store.commit_one(old, vec![]).is_err(),
            "still refused after a restart"
        );
        store
            .commit_one(new, vec![])
            .expect("a restart alone takes no shard away");
        assert_eq!(store.claim(0).expect("claim").token, new.token + 1);
    }
}

#[test]
fn outcome_of_a_commit_is_looked_up_after_a_crash() {
    for place in Place::all() {
        let mut store = place.open();
        let fence = store.claim(0).expect("claim");
        let id = store
            .commit_one(fence, vec![state("a", "")])
            .expect("commit");
        drop(store);
        let mut store = place.open();
        let later = CommitId {
            epoch: id.epoch,
            seq: id.seq + 1,
        };
        assert_eq!(store.outcome(id).expect("known"), Outcome::Committed);
        assert_eq!(store.outcome(later).expect("known"), Outcome::Absent);
        store.commit_one(fence, vec![]).expect("commit");
        assert!(
            matches!(store.outcome(later), Err(StoreError::Forgotten { .. })),
            "number reused"
        );
    }
}

#[test]
fn prefix_delete_stays_inside_its_run_lane_and_prefix() {
    for place in Place::all() {
        let mut store = place.open();
        let fence = store.claim(0).expect("claim");
        let key = |run, lane, id: &[u8]| Key {
            run,
            lane,
            id: Bytes::copy_from_slice(id),
        };
        let keys = [
            key(1, 1, &[1, 255]),
            key(1, 1, &[2]),
            key(1, 1, &[2, 0]),
            key(1, 1, &[2, 255, 255]),
            key(1, 1, &[3]),
            key(1, 2, &[2, 0]),
            key(2, 1, &[2, 0]),
            key(3, 3, &[255, 255]),
            key(3, 3, &[255, 255, 1]),
            key(3, 4, &[]),
        ];
        let put = |key: &Key| {
            Write::Put(Row {
                table: Table::Dedup,
                key: key.clone(),
                body: Bytes::new(),
            })
        };
        store
            .commit_one(fence, keys.iter().map(put).collect())
            .expect("commit");
        let delete = |key| Write::DeletePrefix(Table::Dedup, key);
        let deletes = vec![
            delete(key(1, 1, &[2])),
            delete(key(3, 3, &[255, 255])),
            delete(key(8, 8, &[])),
        ];
        store.commit_one(fence, deletes).expect("commit");
        let mut left = Vec::new();
        store
            .load(Table::Dedup, &mut |row| left.push(row.key))
            .expect("load");
        let wanted = [&keys[0], &keys[4], &keys[5], &keys[6], &keys[9]].map(Clone::clone);
        assert_eq!(left, wanted);
        store.verify().expect("tally follows");
    }
}

#[test]
fn oversized_row_is_refused_before_anything_is_applied() {
    for place in Place::all() {
        let mut store = place.open();
        let fence = store.claim(0).expect("claim");
        let long = "x".repeat(limits::ROW_ID_BYTES_MAX + 1);
        let refused = store.commit_one(fence, vec![state("a", ""), state(&long, "")]);
        assert!(matches!(
            refused,
            Err(CommitError::Oversize { table: "state", .. })
        ));
        assert!(ids(&mut *store).is_empty());
        store
            .commit_one(fence, vec![state("a", "")])
            .expect("goes on");
    }
}

#[test]
fn store_opened_again_elsewhere_may_write_no_longer() {
    let place = Place::memory();
    let mut old = place.open();
    let fence = old.claim(0).expect("claim");
    let _new = place.open();
    assert_eq!(old.commit_one(fence, vec![]), Err(CommitError::Stopped));
}

#[test]
fn deterministic_workload_leaves_the_same_content_everywhere() {
    for place in Place::all() {
        let mut store = place.open();
        let fence = store.claim(0).expect("claim");
        for seq in 1..=60 {
            store.commit_one(fence, writes(seq)).expect("commit");
            if seq.is_multiple_of(20) {
                store.tend(true).expect("tend");
                drop(store);
                store = place.open();
                assert_eq!(
                    Content::of(&mut *store).expect("load"),
                    Content::after(seq),
                    "at {seq}"
                );
            }
        }
        store.verify().expect("sound");
        store.close_clean().expect("close");
        assert_eq!(
            Content::of(&mut *place.open()).expect("load"),
            Content::after(60)
        );
    }
}

fn wave(lane: u32, first: u64, settled_ms: i64, parked: u32) -> Write {
    Write::History(HistoryRow {
        run: 1,
        lane,
        settled_ms,
        first,
        last: first + 9,
        done: 10 - parked,
        skipped: 0,
        parked,
        dropped: 0,
        body: Bytes::from_static(b"full rows"),
    })
}

#[test]
fn history_is_found_by_lane_position_time_and_problem() {
    for place in Place::all() {
        let mut store = place.open();
        let fence = store.claim(0).expect("claim");
        let waves = (0..100).map(|n| {
            wave(
                u32::try_from(n % 2).unwrap_or(0),
                n * 10,
                i64::try_from(n).unwrap_or(0) * 1_000,
                u32::from(n == 42),
            )
        });
        store.commit_one(fence, waves.collect()).expect("commit");
        let mut reader = store.reader().expect("reader");
        let mut find = |query: HistoryQuery| {
            let page = reader.history(&query).expect("history");
            page.entries
                .iter()
                .map(|entry| entry.row.first / 10)
                .collect::<Vec<_>>()
        };
        let all = HistoryQuery::default();
        assert_eq!(
            find(HistoryQuery {
                newest: 3,
                ..all.clone()
            }),
            [99, 98, 97]
        );
        assert_eq!(
            find(HistoryQuery {
                newest: 2,
                before: Some(98),
                ..all.clone()
            }),
            [96, 95]
        );
        let lane = HistoryQuery {
            run: Some(1),
            lane: Some(1),
            ..all.clone()
        };
        assert_eq!(
            find(HistoryQuery {
                newest: 2,
                ..lane.clone()
            }),
            [99, 97]
        );
        assert_eq!(
            find(HistoryQuery {
                positions: Some(515..=532),
                ..lane
            }),
            [53, 51]
        );
        assert_eq!(
            find(HistoryQuery {
                settled_ms: Some(5_000..7_000),
                ..all.clone()
            }),
            [6, 5]
        );
        assert_eq!(
            find(HistoryQuery {
                problems: true,
                ..all.clone()
            }),
            [42]
        );
        assert!(
            find(HistoryQuery {
                run: Some(2),
                ..all
            })
            .is_empty()
        );
    }
}

/// Writes over few keys, so that they meet.
fn any_write() -> impl Strategy<Value = Write> {
    let key = (
        0..2_u32,
        0..2_u32,
        prop::collection::vec(prop::sample::select(vec![0, 1, 254, 255]), 0..4),
    )
        .prop_map(|(run, lane, id)| Key {
            run,
            lane,
            id: Bytes::from(id),
        });
    let table = prop::sample::select(vec![Table::State, Table::Outcome]);
    let body = prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    (table, key, body, 0..4_u8).prop_map(|(table, key, body, kind)| match kind {
        0 => Write::Delete(table, key),
        1 => Write::DeletePrefix(table, key),
        _ => Write::Put(Row { table, key, body }),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_writes_leave_what_the_naive_model_says(
        commits in prop::collection::vec(prop::collection::vec(any_write(), 0..12), 1..8)
    ) {
        for place in Place::all() {
            let mut store = place.open();
            let fence = store.claim(0).expect("claim");
            let mut model = Content::default();
            for writes in &commits {
                model.apply(writes);
                store.commit_one(fence, writes.clone()).expect("commit");
            }
            drop(store);
            let mut store = place.open();
            prop_assert_eq!(&Content::of(&mut *store).expect("load"), &model);
            prop_assert!(store.verify().is_ok());
        }
    }
}
