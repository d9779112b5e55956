//! Reading beside the writer, on a read-only connection of this process.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use evermill_core::row::{Key, Table};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::history::Segment;
use super::load::{decode, decode_history, place};
use super::open::{read_header, read_segments, sqlite_error};
use super::schema::{self, TableSql};
use crate::error::StoreError;
use crate::history::{HistoryEntry, HistoryPage, HistoryQuery};
use crate::limits;
use crate::store::Reader;
use crate::sum::Sums;

/// Pages copied at a time.
const COPY_PAGES: i32 = 1_024;
/// Pages a reader keeps in memory.
const CACHE_PAGES: usize = 128;

#[derive(Debug)]
pub(super) struct SqliteReader {
    connection: Connection,
    path: PathBuf,
    sums: Sums,
}

impl SqliteReader {
    pub(super) fn open(path: &Path, sums: Sums) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(path, flags)?;
            // Only the writer checkpoints, also when a reader is the last to go.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.execute_batch(&format!(
                "PRAGMA query_only=ON; PRAGMA cache_size={CACHE_PAGES}"
            ))?;
            Ok(connection)
        };
        let connection =
            open().map_err(|error| sqlite_error(path, "opening for reading", &error))?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            sums,
        })
    }

    /// Looks through one segment; true when the page is full or the budget used up.
    fn look(
        &self,
        number: u64,
        query: &HistoryQuery,
        page: &mut HistoryPage,
    ) -> Result<bool, StoreError> {
        let failed = |error| sqlite_error(&self.path, "reading history", &error);
        let damaged = |what: String| StoreError::Damaged {
            path: self.path.clone(),
            what,
        };
        let problems = if query.problems {
            " AND (parked > 0 OR dropped > 0)"
        } else {
            ""
        };
        let sql = format!(
            "{} WHERE id < ?1{problems} ORDER BY id DESC",
            schema::select_history(number)
        );
        let before = query.before.map_or(i64::MAX, u64::cast_signed);
        let mut statement = self.connection.prepare(&sql).map_err(failed)?;
        let mut rows = statement.query([before]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let (id, row, sum) = decode_history(row)
                .ok_or_else(|| damaged(format!("h_{number} has wrong types")))?;
            if page.entries.len() == query.page_rows() || page.examined == limits::HISTORY_SCAN_ROWS
            {
                page.more = Some(id + 1);
                return Ok(true);
            }
            page.examined += 1;
            if query.matches(&row) {
                if self.sums.history(id, &row) != sum {
                    return Err(damaged(format!("h_{number}: row {id} fails its checksum")));
                }
                page.entries.push(HistoryEntry { id, row });
            }
        }
        Ok(false)
    }
}

impl Reader for SqliteReader {
    fn row(&mut self, table: Table, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let failed = |error| sqlite_error(&self.path, "reading a row", &error);
        let name = table.name();
        let damaged = |what: &str| StoreError::Damaged {
            path: self.path.clone(),
            what: format!("table {name}: {} {what}", place(key)),
        };
        let one = &TableSql::of(table).one;
        let mut statement = self.connection.prepare_cached(one).map_err(failed)?;
        let mut rows = statement
            .query((key.run, key.lane, &key.id[..]))
            .map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else {
            return Ok(None);
        };
        let (found, body, sum) = decode(row).ok_or_else(|| damaged("has wrong types"))?;
        if found != *key || self.sums.row(table, key, &body) != sum {
            return Err(damaged("fails its checksum"));
        }
        Ok(Some(body))
    }

    fn history(&mut self, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        // One snapshot for header, segments and rows; it ends when `_snapshot` is dropped.
        let _snapshot = self
            .connection
            .unchecked_transaction()
            .map_err(|error| sqlite_error(&self.path, "reading history", &error))?;
        let header = read_header(&self.connection, &self.path)?;
        let closed = read_segments(&self.connection, &self.path, &header, self.sums)?;
        let mut page = HistoryPage::default();
        if self.look(header.history.open, query, &mut page)? {
            return Ok(page);
        }
        let newer =
            |segment: &&Segment| query.before.is_none_or(|before| segment.first_id < before);
        for segment in closed.iter().rev().filter(newer) {
            if segment.may_match(query) && self.look(segment.number, query, &mut page)? {
                break;
            }
        }
        Ok(page)
    }

    fn copy_into(&mut self, file: &Path) -> Result<(), StoreError> {
        let failed = |error| sqlite_error(file, "copying the store", &error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut copy = Connection::open_with_flags(file, flags).map_err(failed)?;
        // Without one snapshot over all steps, each commit would make the copy begin again.
        let snapshot = self.connection.unchecked_transaction().map_err(failed)?;
        read_header(&snapshot, &self.path)?;
        let backup = Backup::new(&snapshot, &mut copy).map_err(failed)?;
        loop {
            match backup.step(COPY_PAGES).map_err(failed)? {
                StepResult::Done => break,
                // Nobody else knows of the new file, and readers wait for nobody: it goes on.
                _ => std::thread::yield_now(),
            }
        }
        drop(backup);
        copy.close().map_err(|(_, error)| failed(error))
    }
}
