//! A durable store in memory: rows, and the history that was appended.

use std::collections::BTreeMap;

use bytes::Bytes;
use evermill_core::row::{HistoryRow, Key, Row, Table, Write};

/// What survives a crash.
#[derive(Debug, Clone, Default)]
pub struct SimStore {
    rows: BTreeMap<(Table, Key), Bytes>,
    /// Everything appended to history.
    pub history: Vec<HistoryRow>,
    /// Commits applied.
    pub commits: u64,
}

impl SimStore {
    /// One transaction: all of these, in order.
    pub fn commit(&mut self, writes: &[Write]) {
        self.commits += 1;
        for write in writes {
            match write {
                Write::Put(row) => {
                    self.rows
                        .insert((row.table, row.key.clone()), row.body.clone());
                }
                Write::Delete(table, key) => {
                    self.rows.remove(&(*table, key.clone()));
                }
                Write::DeletePrefix(table, key) => {
                    let inside = |(of, at): &(Table, Key)| {
                        of == table
                            && (at.run, at.lane) == (key.run, key.lane)
                            && at.id.starts_with(&key.id)
                    };
                    self.rows.retain(|address, _| !inside(address));
                }
                Write::History(row) => self.history.push(row.clone()),
            }
        }
    }

    /// Everything, as the engine loads it.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let row = |((table, key), body): (&(Table, Key), &Bytes)| Row {
            table: *table,
            key: key.clone(),
            body: body.clone(),
        };
        self.rows.iter().map(row).collect()
    }

    /// The body of one row.
    #[must_use]
    pub fn row(&self, table: Table, key: &Key) -> Option<&Bytes> {
        self.rows.get(&(table, key.clone()))
    }

    /// Addresses in one table.
    pub fn keys(&self, table: Table) -> impl Iterator<Item = &Key> + '_ {
        self.rows
            .keys()
            .filter(move |(of, _)| *of == table)
            .map(|(_, key)| key)
    }
}
