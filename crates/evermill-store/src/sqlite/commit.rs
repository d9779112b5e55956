//! Writing: one transaction at a time, the header row last in each.
//!
//! The tallies of the header need the sum of a row that goes. It is read from the row itself just
//! before, on a page that the write has to fetch anyway; a sum that has rotted there spoils the
//! tally and is noticed by the next load.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::Arc;

use evermill_core::row::{Key, Row, Table, Write};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

use super::history::{Closed, Segment};
use super::schema::TableSql;
use super::{Options, SqliteStore};
use crate::error::CommitError;
use crate::header::HeaderRow;
use crate::step::Step;
use crate::store::{Batch, Fence, Refused};
use crate::sum::Sums;

/// A transaction that is being written.
pub(super) struct Tx<'a> {
    pub(super) connection: &'a Connection,
    pub(super) options: &'a Options,
    pub(super) sums: Sums,
    /// The header as it will be.
    pub(super) next: HeaderRow,
    /// Segments closed by this transaction.
    pub(super) closed: Vec<Segment>,
}

impl SqliteStore {
    /// Runs one transaction; it is durable when this returns. After an error nothing of it
    /// remains, except that a fatal one leaves that open until the next boot.
    pub(super) fn transact<T>(
        &mut self,
        work: impl FnOnce(&mut Tx<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, CommitError> {
        let mut tx = Tx {
            connection: &self.connection,
            options: &self.options,
            sums: self.sums,
            next: self.row.clone(),
            closed: Vec::new(),
        };
        match tx.run(work) {
            Ok(value) => {
                let Tx { next, closed, .. } = tx;
                self.row = next;
                self.closed_segments.extend(closed);
                Ok(value)
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&mut self, error: &rusqlite::Error) -> CommitError {
        let undone =
            self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok();
        if undone && is_full(error) {
            return CommitError::Full;
        }
        self.stopped = true;
        CommitError::Fatal(Arc::from(format!("{}: {error}", self.path.display())))
    }
}

/// Whether the error only says that the disk is full. A full disk under the log's index is not
/// among them: that error comes after the commit was synced, so the outcome is open.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

impl Tx<'_> {
    fn run<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.connection
            .prepare_cached("BEGIN IMMEDIATE")?
            .execute([])?;
        self.step(Step::CommitBegun);
        let value = work(self)?;
        self.write_header()?;
        self.step(Step::CommitHeaderWritten);
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(value)
    }

    pub(super) fn step(&self, step: Step) {
        self.options.step(step);
    }

    fn write_header(&self) -> rusqlite::Result<()> {
        let body = self.next.encode();
        let sum = Sums::header(&body).cast_signed();
        let mut update = self
            .connection
            .prepare_cached("UPDATE header SET body = ?1, sum = ?2 WHERE id = 1")?;
        only_one(update.execute(params![body, sum])?)
    }

    /// Applies the batches whose fence holds and names the others.
    pub(super) fn apply(&mut self, group: &[Batch]) -> rusqlite::Result<Vec<Refused>> {
        let refused = self.refused(group)?;
        self.step(Step::CommitFenceChecked);
        let mut out = refused.iter().map(|refused| refused.index).peekable();
        for (index, batch) in group.iter().enumerate() {
            if out.next_if_eq(&index).is_none() {
                self.write(&batch.writes)?;
            }
        }
        Ok(refused)
    }

    fn refused(&self, group: &[Batch]) -> rusqlite::Result<Vec<Refused>> {
        let mut tokens = BTreeMap::new();
        let mut refused = Vec::new();
        for (index, batch) in group.iter().enumerate() {
            let given = batch.fence;
            let held = match tokens.get(&given.shard) {
                Some(held) => *held,
                None => self.token(given.shard)?,
            };
            tokens.insert(given.shard, held);
            if held != given.token && !self.options.drops_fence_check() {
                refused.push(Refused { index, given, held });
            }
        }
        Ok(refused)
    }

    /// The token that holds a shard, 0 when nobody ever claimed it.
    fn token(&self, shard: u32) -> rusqlite::Result<u64> {
        let mut select = self
            .connection
            .prepare_cached("SELECT token FROM shard WHERE shard = ?1")?;
        let token = select
            .query_row([shard], |row| row.get::<_, i64>(0))
            .optional()?;
        Ok(token.map_or(0, i64::cast_unsigned))
    }

    /// Gives the shard a new token.
    pub(super) fn claim(&mut self, shard: u32) -> rusqlite::Result<Fence> {
        let mut select = self
            .connection
            .prepare_cached("SELECT token, epoch, sum FROM shard WHERE shard = ?1")?;
        let before = select
            .query_row([shard], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(2)?))
            })
            .optional()?;
        let token = before.map_or(0, |(token, _)| token.cast_unsigned()) + 1;
        let epoch = self.next.epoch;
        let sum = self.sums.shard(shard, token, epoch);
        match before {
            None => self.next.shards.add(sum),
            Some((_, old)) => self.next.shards.change(old.cast_unsigned(), sum),
        }
        let mut put = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO shard VALUES(?1, ?2, ?3, ?4)")?;
        let values = [token, epoch, sum].map(u64::cast_signed);
        only_one(put.execute(params![shard, values[0], values[1], values[2]])?)?;
        Ok(Fence { shard, token })
    }

    fn write(&mut self, writes: &[Write]) -> rusqlite::Result<()> {
        for alike in writes.chunk_by(alike) {
            match &alike[0] {
                Write::Put(first) => self.put_all(first.table, alike)?,
                Write::Delete(table, _) | Write::DeletePrefix(table, _) => {
                    self.delete_all(*table, alike)?;
                }
                Write::History(_) => self.append_all(alike)?,
            }
        }
        Ok(())
    }

    fn put_all(&mut self, table: Table, writes: &[Write]) -> rusqlite::Result<()> {
        let mut insert = self
            .connection
            .prepare_cached(&TableSql::of(table).insert)?;
        for write in writes {
            let Write::Put(row) = write else { continue };
            let sum = self.sums.row(table, &row.key, &row.body);
            let Key { run, lane, id } = &row.key;
            let added = insert.execute(params![
                run,
                lane,
                &id[..],
                &row.body[..],
                sum.cast_signed()
            ])?;
            if added == 1 {
                self.next.tally_mut(table).add(sum);
            } else {
                self.replace(row, sum)?;
            }
        }
        self.step(Step::CommitWrote(table));
        Ok(())
    }

    fn replace(&mut self, row: &Row, sum: u64) -> rusqlite::Result<()> {
        let sql = TableSql::of(row.table);
        let Key { run, lane, id } = &row.key;
        let old: i64 = self
            .connection
            .prepare_cached(&sql.sum)?
            .query_row(params![run, lane, &id[..]], |found| found.get(0))?;
        let mut update = self.connection.prepare_cached(&sql.update)?;
        only_one(update.execute(params![
            run,
            lane,
            &id[..],
            &row.body[..],
            sum.cast_signed()
        ])?)?;
        self.next
            .tally_mut(row.table)
            .change(old.cast_unsigned(), sum);
        Ok(())
    }

    fn delete_all(&mut self, table: Table, writes: &[Write]) -> rusqlite::Result<()> {
        for write in writes {
            match write {
                Write::Delete(_, key) => self.delete(table, key)?,
                Write::DeletePrefix(_, key) => self.delete_prefix(table, key)?,
                Write::Put(_) | Write::History(_) => {}
            }
        }
        self.step(Step::CommitWrote(table));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &Key) -> rusqlite::Result<()> {
        let sql = TableSql::of(table);
        let place = params![key.run, key.lane, &key.id[..]];
        let mut select = self.connection.prepare_cached(&sql.sum)?;
        let Some(old) = select
            .query_row(place, |row| row.get::<_, i64>(0))
            .optional()?
        else {
            return Ok(());
        };
        only_one(
            self.connection
                .prepare_cached(&sql.delete)?
                .execute(place)?,
        )?;
        self.next.tally_mut(table).remove(old.cast_unsigned());
        Ok(())
    }

    fn delete_prefix(&mut self, table: Table, key: &Key) -> rusqlite::Result<()> {
        let sql = TableSql::of(table);
        let from = &key.id[..];
        match end_of_prefix(from) {
            Some(end) => {
                let range = params![key.run, key.lane, from, end];
                self.delete_range(table, &sql.sums_below, &sql.delete_below, range)
            }
            None => {
                let range = params![key.run, key.lane, from];
                self.delete_range(table, &sql.sums_from, &sql.delete_from, range)
            }
        }
    }

    fn delete_range(
        &mut self,
        table: Table,
        sums: &str,
        delete: &str,
        range: &[&dyn rusqlite::ToSql],
    ) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare_cached(sums)?;
        let mut rows = select.query(range)?;
        let tally = self.next.tally_mut(table);
        let mut going = 0;
        while let Some(row) = rows.next()? {
            tally.remove(row.get::<_, i64>(0)?.cast_unsigned());
            going += 1;
        }
        drop(rows);
        if going > 0 {
            self.connection.prepare_cached(delete)?.execute(range)?;
        }
        Ok(())
    }

    fn append_all(&mut self, writes: &[Write]) -> rusqlite::Result<()> {
        let rows = writes.iter().filter_map(|write| match write {
            Write::History(row) => Some(row),
            _ => None,
        });
        self.append_history(rows)?;
        self.step(Step::CommitWroteHistory);
        Ok(())
    }

    /// Notes a closed segment, to be remembered when the transaction is durable.
    pub(super) fn close_segment(&mut self, closed: Closed) {
        self.next.history.closed.add(closed.sum);
        self.closed.push(closed.segment);
    }
}

/// Whether two writes go through the same statement.
fn alike(a: &Write, b: &Write) -> bool {
    let table = |write: &Write| match write {
        Write::Put(row) => Some(row.table),
        Write::Delete(table, _) | Write::DeletePrefix(table, _) => Some(*table),
        Write::History(_) => None,
    };
    discriminant(a) == discriminant(b) && table(a) == table(b)
}

/// The first id behind every id that starts with the prefix; `None` when there is none.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// A statement that must touch exactly one row.
pub(super) fn only_one(changed: usize) -> rusqlite::Result<()> {
    if changed == 1 {
        Ok(())
    } else {
        Err(rusqlite::Error::StatementChangedRows(changed))
    }
}

#[cfg(test)]
mod tests {
    use super::end_of_prefix;

    #[test]
    fn prefix_ends_before_its_successor() {
        assert_eq!(end_of_prefix(b""), None);
        assert_eq!(end_of_prefix(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(end_of_prefix(&[1, 255]), Some(vec![2]));
        assert_eq!(end_of_prefix(&[255, 255]), None);
    }
}
