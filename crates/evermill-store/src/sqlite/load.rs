//! Reading everything back, and judging it: each row by its sum, each table by its tally.

use bytes::Bytes;
use evermill_core::row::{HistoryRow, Key, Row, Table};
use rusqlite::types::ValueRef;

use super::open::sqlite_error;
use super::schema::{self, TableSql};
use super::{SqliteStore, open};
use crate::error::StoreError;
use crate::store::Report;
use crate::sum::Tally;

/// Hands out a table's rows in key order; the tally is judged last.
pub(super) fn table(
    store: &SqliteStore,
    table: Table,
    each: &mut dyn FnMut(Row),
) -> Result<(), StoreError> {
    let failed = |error| sqlite_error(&store.path, "reading a table", &error);
    let name = table.name();
    let mut statement = store
        .connection
        .prepare_cached(&TableSql::of(table).load)
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut tally = Tally::default();
    let mut before: Option<Key> = None;
    while let Some(row) = rows.next().map_err(failed)? {
        let (key, body, sum) = decode(row).ok_or_else(|| {
            store.damaged(format!(
                "table {name} has a row whose columns have wrong types"
            ))
        })?;
        if store.sums.row(table, &key, &body) != sum {
            return Err(store.damaged(format!("table {name}: {} fails its checksum", place(&key))));
        }
        if before.as_ref().is_some_and(|before| *before >= key) {
            return Err(store.damaged(format!("table {name}: {} is out of order", place(&key))));
        }
        tally.add(sum);
        before = Some(key.clone());
        each(Row { table, key, body });
    }
    compare(store, name, tally, store.row.tally(table))
}

/// Checks whatever can be checked.
pub(super) fn verify(store: &SqliteStore) -> Result<Report, StoreError> {
    let failed = |error| sqlite_error(&store.path, "verifying", &error);
    // Pages in memory say nothing about the file.
    store.connection.release_memory().map_err(failed)?;
    let structure: String = store
        .connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(failed)?;
    if structure != "ok" {
        return Err(store.damaged(structure.replace('\n', " ")));
    }
    open::check_schema(
        &store.connection,
        &store.path,
        &store.row,
        &store.closed_segments,
    )?;
    if open::read_header(&store.connection, &store.path)? != store.row {
        return Err(store.damaged("the header row is not the one last written"));
    }
    open::check_shards(&store.connection, &store.path, &store.row, store.sums)?;
    open::read_segments(&store.connection, &store.path, &store.row, store.sums)?;
    let mut report = Report::default();
    for each in Table::ALL {
        table(store, each, &mut |_| report.rows += 1)?;
    }
    for segment in &store.closed_segments {
        history(store, segment.number, segment.first_id, segment.rows)?;
        report.history_rows += segment.rows.rows;
    }
    let open = store.row.history;
    history(store, open.open, open.first_id, open.rows)?;
    report.history_rows += open.rows.rows;
    Ok(report)
}

fn history(store: &SqliteStore, number: u64, first: u64, wanted: Tally) -> Result<(), StoreError> {
    let failed = |error| sqlite_error(&store.path, "reading history", &error);
    let name = format!("h_{number}");
    let sql = format!("{} ORDER BY id", schema::select_history(number));
    let mut statement = store.connection.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut tally = Tally::default();
    while let Some(row) = rows.next().map_err(failed)? {
        let (id, row, sum) = decode_history(row).ok_or_else(|| {
            store.damaged(format!("{name} has a row whose columns have wrong types"))
        })?;
        if id != first + tally.rows {
            return Err(store.damaged(format!(
                "{name}: id {id} where {} is due",
                first + tally.rows
            )));
        }
        if store.sums.history(id, &row) != sum {
            return Err(store.damaged(format!("{name}: row {id} fails its checksum")));
        }
        tally.add(sum);
    }
    compare(store, &name, tally, wanted)
}

fn compare(store: &SqliteStore, name: &str, found: Tally, wanted: Tally) -> Result<(), StoreError> {
    if found.rows != wanted.rows {
        return Err(store.damaged(format!(
            "table {name} has {} rows, the header says {}",
            found.rows, wanted.rows
        )));
    }
    if found.sum != wanted.sum {
        return Err(store.damaged(format!(
            "the rows of table {name} are not the ones last written (an old row, or a foreign one)"
        )));
    }
    Ok(())
}

/// A truth row with its sum, `None` when a column has the wrong type.
pub(super) fn decode(row: &rusqlite::Row<'_>) -> Option<(Key, Bytes, u64)> {
    let key = Key {
        run: number(row, 0)?,
        lane: number(row, 1)?,
        id: blob(row, 2)?,
    };
    Some((key, blob(row, 3)?, integer(row, 4)?.cast_unsigned()))
}

/// A history row with its id and sum, from [`schema::select_history`].
pub(super) fn decode_history(row: &rusqlite::Row<'_>) -> Option<(u64, HistoryRow, u64)> {
    let history = HistoryRow {
        run: number(row, 1)?,
        lane: number(row, 2)?,
        settled_ms: integer(row, 3)?,
        first: integer(row, 4)?.cast_unsigned(),
        last: integer(row, 5)?.cast_unsigned(),
        done: number(row, 6)?,
        skipped: number(row, 7)?,
        parked: number(row, 8)?,
        dropped: number(row, 9)?,
        body: blob(row, 10)?,
    };
    Some((
        integer(row, 0)?.cast_unsigned(),
        history,
        integer(row, 11)?.cast_unsigned(),
    ))
}

fn integer(row: &rusqlite::Row<'_>, column: usize) -> Option<i64> {
    match row.get_ref(column) {
        Ok(ValueRef::Integer(value)) => Some(value),
        _ => None,
    }
}

fn number(row: &rusqlite::Row<'_>, column: usize) -> Option<u32> {
    u32::try_from(integer(row, column)?).ok()
}

fn blob(row: &rusqlite::Row<'_>, column: usize) -> Option<Bytes> {
    match row.get_ref(column) {
        Ok(ValueRef::Blob(bytes)) => Some(Bytes::copy_from_slice(bytes)),
        _ => None,
    }
}

pub(super) fn place(key: &Key) -> String {
    let id: String = key.id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("row run {}, lane {}, id {id}", key.run, key.lane)
}
