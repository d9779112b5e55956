//! The store for tests and the simulator: the same promises as SQLite's, on a "disk" in memory
//! that outlives the store, so that a crash is dropping one and opening another.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use evermill_core::row::{HistoryRow, Key, Row, Table, Write};

use crate::error::{CommitError, StoreError};
use crate::header::FORMAT;
use crate::history::{HistoryEntry, HistoryPage, HistoryQuery};
use crate::limits;
use crate::store::{
    Batch, CommitId, Committed, Fence, Header, Outcome, Reader, Refused, Report, Store, StoreId,
    check_sizes, history_bytes, look_up,
};

/// What survives: cloning it gives another handle to the same content.
#[derive(Debug, Clone)]
pub struct MemoryDisk(Arc<Mutex<Content>>);

#[derive(Debug)]
struct Content {
    store_id: StoreId,
    epoch: u64,
    clean: bool,
    last: Option<CommitId>,
    shards: BTreeMap<u32, u64>,
    tables: BTreeMap<Table, BTreeMap<Key, Bytes>>,
    history: VecDeque<HistoryEntry>,
    history_next: u64,
    history_bytes: u64,
}

impl MemoryDisk {
    /// An empty disk for a store of this name.
    #[must_use]
    pub fn new(store_id: StoreId) -> Self {
        Self(Arc::new(Mutex::new(Content {
            store_id,
            epoch: 0,
            clean: true,
            last: None,
            shards: BTreeMap::new(),
            tables: Table::ALL
                .into_iter()
                .map(|table| (table, BTreeMap::new()))
                .collect(),
            history: VecDeque::new(),
            history_next: 1,
            history_bytes: 0,
        })))
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // Content changes only in steps that cannot panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryStore {
    disk: MemoryDisk,
    header: Header,
}

impl MemoryStore {
    /// Opens the disk; a store opened before on the same disk may write no longer, as if its
    /// process had died.
    #[must_use]
    pub fn open(disk: &MemoryDisk) -> Self {
        let mut content = disk.content();
        content.epoch += 1;
        let header = Header {
            format: FORMAT,
            store_id: content.store_id,
            epoch: content.epoch,
            clean: content.clean,
            last: content.last,
        };
        content.clean = false;
        drop(content);
        Self {
            disk: disk.clone(),
            header,
        }
    }

    fn own(&self) -> Option<MutexGuard<'_, Content>> {
        let content = self.disk.content();
        (content.epoch == self.header.epoch).then_some(content)
    }
}

impl Content {
    fn refused(&self, group: &[Batch]) -> Vec<Refused> {
        let held = |fence: Fence| self.shards.get(&fence.shard).copied().unwrap_or(0);
        let stale = |(_, batch): &(usize, &Batch)| held(batch.fence) != batch.fence.token;
        let refuse = |(index, batch): (usize, &Batch)| Refused {
            index,
            given: batch.fence,
            held: held(batch.fence),
        };
        group.iter().enumerate().filter(stale).map(refuse).collect()
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Put(row) => {
                self.table(row.table)
                    .insert(row.key.clone(), row.body.clone());
            }
            Write::Delete(table, key) => {
                self.table(*table).remove(key);
            }
            Write::DeletePrefix(table, key) => {
                let rows = self.table(*table);
                let inside = |other: &Key| {
                    (other.run, other.lane) == (key.run, key.lane) && other.id.starts_with(&key.id)
                };
                let from = (Bound::Included(key.clone()), Bound::Unbounded);
                let gone: Vec<Key> = rows
                    .range(from)
                    .map(|(key, _)| key)
                    .take_while(|key| inside(key))
                    .cloned()
                    .collect();
                for key in gone {
                    rows.remove(&key);
                }
            }
            Write::History(row) => self.append(row),
        }
    }

    fn append(&mut self, row: &HistoryRow) {
        self.history.push_back(HistoryEntry {
            id: self.history_next,
            row: row.clone(),
        });
        self.history_next += 1;
        self.history_bytes += history_bytes(row);
        while self.history_bytes > limits::HISTORY_BYTES
            && let Some(oldest) = self.history.pop_front()
        {
            self.history_bytes -= history_bytes(&oldest.row);
        }
    }

    fn table(&mut self, table: Table) -> &mut BTreeMap<Key, Bytes> {
        self.tables.entry(table).or_default()
    }
}

impl Store for MemoryStore {
    fn header(&self) -> &Header {
        &self.header
    }

    fn load(&mut self, table: Table, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        // A copy, so that `each` may do as it likes.
        let rows = self.disk.content().table(table).clone();
        for (key, body) in rows {
            each(Row { table, key, body });
        }
        Ok(())
    }

    fn claim(&mut self, shard: u32) -> Result<Fence, CommitError> {
        let mut content = self.own().ok_or(CommitError::Stopped)?;
        let token = content.shards.entry(shard).or_insert(0);
        *token += 1;
        Ok(Fence {
            shard,
            token: *token,
        })
    }

    fn commit(&mut self, group: &[Batch]) -> Result<Committed, CommitError> {
        check_sizes(group)?;
        let mut content = self.own().ok_or(CommitError::Stopped)?;
        let refused = content.refused(group);
        for (index, batch) in group.iter().enumerate() {
            if refused.iter().all(|refused| refused.index != index) {
                batch.writes.iter().for_each(|write| content.apply(write));
            }
        }
        let seq = content.last.map_or(0, |last| last.seq) + 1;
        let id = CommitId {
            epoch: self.header.epoch,
            seq,
        };
        content.last = Some(id);
        Ok(Committed { id, refused })
    }

    fn outcome(&mut self, id: CommitId) -> Result<Outcome, StoreError> {
        look_up(self.disk.content().last, id)
    }

    fn tend(&mut self, _idle: bool) -> Result<(), StoreError> {
        Ok(())
    }

    fn trim_history(&mut self, before_ms: i64) -> Result<u64, CommitError> {
        let mut content = self.own().ok_or(CommitError::Stopped)?;
        let mut gone = 0;
        while content
            .history
            .front()
            .is_some_and(|oldest| oldest.row.settled_ms < before_ms)
        {
            if let Some(oldest) = content.history.pop_front() {
                content.history_bytes -= history_bytes(&oldest.row);
            }
            gone += 1;
        }
        Ok(gone)
    }

    fn verify(&mut self) -> Result<Report, StoreError> {
        let content = self.disk.content();
        Ok(Report {
            rows: content.tables.values().map(|rows| rows.len() as u64).sum(),
            history_rows: content.history.len() as u64,
        })
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(MemoryReader(self.disk.clone())))
    }

    fn close_clean(self: Box<Self>) -> Result<(), StoreError> {
        let stopped = || StoreError::Stopped(Arc::from("the disk was opened again"));
        self.own().ok_or_else(stopped)?.clean = true;
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryReader(MemoryDisk);

impl Reader for MemoryReader {
    fn row(&mut self, table: Table, key: &Key) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.content().table(table).get(key).cloned())
    }

    fn history(&mut self, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        let content = self.0.content();
        let mut page = HistoryPage::default();
        let older = |entry: &&HistoryEntry| query.before.is_none_or(|before| entry.id < before);
        for entry in content.history.iter().rev().filter(older) {
            if page.entries.len() == query.page_rows() || page.examined == limits::HISTORY_SCAN_ROWS
            {
                page.more = Some(entry.id + 1);
                break;
            }
            page.examined += 1;
            if query.matches(&entry.row) {
                page.entries.push(entry.clone());
            }
        }
        Ok(page)
    }
}
