//! Commits that are a pure function of their number, and what must be in the store after each.

use std::collections::BTreeMap;

use bytes::Bytes;
use evermill_core::row::{HistoryRow, Key, Row, Table, Write};
use evermill_store::{HistoryQuery, Store, StoreError};

/// Everything a store says about its rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// Rows of truth tables.
    pub rows: BTreeMap<(Table, Key), Bytes>,
    /// History by id.
    pub history: BTreeMap<u64, HistoryRow>,
}

/// The writes of the commit with this sequence number.
pub fn writes(seq: u64) -> Vec<Write> {
    let lane = u32::try_from(seq % 3).unwrap_or(0);
    let mut writes: Vec<Write> = (0..seq % 7 + 1)
        .map(|part| put(Table::Outcome, lane, &[seq, part], seq * 31 + part, 300))
        .collect();
    writes.push(Write::Put(row(Table::Lane, lane, &[], seq, 120)));
    // A table of its own in every commit, so that each is written now and then.
    let turn = Table::ALL[seq as usize % Table::ALL.len()];
    writes.push(put(turn, 7, &[seq / 24, seq % 24], seq, 40));
    // Rows that need overflow pages, and keys that differ in length only.
    if seq.is_multiple_of(5) {
        writes.push(put(Table::Activation, lane, &[seq], seq, 20_000));
        writes.push(put(Table::Activation, lane, &[seq, 0], seq, 10));
    }
    if seq.is_multiple_of(4) {
        let old = Key::numbered(1, lane, &[seq.saturating_sub(6)]);
        writes.push(Write::DeletePrefix(Table::Outcome, old));
        writes.push(Write::Delete(
            Table::Activation,
            Key::numbered(1, lane, &[seq.saturating_sub(10)]),
        ));
    }
    for part in 0..seq % 3 {
        writes.push(Write::History(history(seq, part)));
    }
    writes
}

fn put(table: Table, lane: u32, id: &[u64], seed: u64, bytes: usize) -> Write {
    Write::Put(row(table, lane, id, seed, bytes))
}

fn row(table: Table, lane: u32, id: &[u64], seed: u64, bytes: usize) -> Row {
    Row {
        table,
        key: Key::numbered(1, lane, id),
        body: body(seed, bytes),
    }
}

/// Bytes that do not compress and differ between seeds.
pub fn body(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

fn history(seq: u64, part: u64) -> HistoryRow {
    HistoryRow {
        run: 1,
        lane: u32::try_from(seq % 3).unwrap_or(0),
        settled_ms: 1_000 * i64::try_from(seq).unwrap_or(0),
        first: seq * 10,
        last: seq * 10 + 9,
        done: 10,
        skipped: 0,
        parked: u32::from(seq % 8 == 1),
        dropped: 0,
        body: body(seq + part, 150),
    }
}

impl Content {
    /// What the commits `1..=seq` leave, before retention.
    pub fn after(seq: u64) -> Self {
        let mut content = Self::default();
        (1..=seq).for_each(|seq| content.apply(&writes(seq)));
        content
    }

    /// Applies writes the slow and obvious way.
    pub fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Put(row) => {
                    self.rows
                        .insert((row.table, row.key.clone()), row.body.clone());
                }
                Write::Delete(table, key) => {
                    self.rows.remove(&(*table, key.clone()));
                }
                Write::DeletePrefix(table, prefix) => self.rows.retain(|(other, key), _| {
                    other != table
                        || (key.run, key.lane) != (prefix.run, prefix.lane)
                        || !key.id.starts_with(&prefix.id)
                }),
                Write::History(row) => {
                    self.history
                        .insert(self.history.len() as u64 + 1, row.clone());
                }
            }
        }
    }

    /// Everything a store holds.
    ///
    /// # Errors
    /// What the store finds wrong.
    pub fn of(store: &mut dyn Store) -> Result<Self, StoreError> {
        let mut content = Self::default();
        for table in Table::ALL {
            store.load(table, &mut |row| {
                content.rows.insert((row.table, row.key), row.body);
            })?;
        }
        let mut query = HistoryQuery {
            newest: 1_000,
            ..HistoryQuery::default()
        };
        let mut reader = store.reader()?;
        loop {
            let page = reader.history(&query)?;
            content
                .history
                .extend(page.entries.into_iter().map(|entry| (entry.id, entry.row)));
            query.before = page.more;
            if query.before.is_none() {
                return Ok(content);
            }
        }
    }

    /// Whether a store that holds `self` may have retained only the newer part of `whole`'s
    /// history.
    pub fn is_retained_part_of(&self, whole: &Self) -> bool {
        let first = self.history.keys().next().copied().unwrap_or(u64::MAX);
        self.rows == whole.rows
            && (self.history.is_empty() == whole.history.is_empty())
            && self.history.iter().eq(whole.history.range(first..))
    }
}
