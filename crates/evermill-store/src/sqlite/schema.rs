//! The SQL of every table, frozen by `docs/spec/store.md`.

use std::sync::LazyLock;

use evermill_core::row::Table;
use rusqlite::Connection;

/// Header, shards and closed segments.
pub(super) const HEADER: &str =
    "CREATE TABLE header(id INTEGER PRIMARY KEY, body BLOB, sum INTEGER)";
pub(super) const SHARD: &str =
    "CREATE TABLE shard(shard INTEGER PRIMARY KEY, token INTEGER, epoch INTEGER, sum INTEGER)";
pub(super) const SEGMENT: &str =
    "CREATE TABLE segment(number INTEGER PRIMARY KEY, body BLOB, sum INTEGER)";

/// A truth table.
pub(super) fn truth(table: Table) -> String {
    format!(
        "CREATE TABLE {}(run INTEGER, lane INTEGER, id BLOB, body BLOB, sum INTEGER, \
         PRIMARY KEY(run, lane, id)) WITHOUT ROWID",
        table.name()
    )
}

/// A history segment and the index of what did not end well.
pub(super) fn segment(number: u64) -> [String; 2] {
    [
        format!(
            "CREATE TABLE h_{number}(id INTEGER PRIMARY KEY, run INTEGER, lane INTEGER, \
             settled_ms INTEGER, first INTEGER, last INTEGER, done INTEGER, skipped INTEGER, \
             parked INTEGER, dropped INTEGER, body BLOB, sum INTEGER)"
        ),
        format!(
            "CREATE INDEX h_{number}_problem ON h_{number}(id) WHERE parked > 0 OR dropped > 0"
        ),
    ]
}

/// Statements that make an empty store, without its rows.
pub(super) fn all(tables: &[Table], segments: impl Iterator<Item = u64>) -> Vec<String> {
    let fixed = [HEADER, SHARD, SEGMENT].map(str::to_owned);
    fixed
        .into_iter()
        .chain(tables.iter().map(|table| truth(*table)))
        .chain(segments.flat_map(segment))
        .collect()
}

/// Compares the schema with what it must be; the answer names the first difference.
pub(super) fn difference(
    connection: &Connection,
    tables: &[Table],
    segments: impl Iterator<Item = u64>,
) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare("SELECT sql FROM sqlite_schema")?;
    let mut found = statement
        .query_map([], |row| row.get::<_, Option<String>>(0))?
        .map(|sql| sql.map(Option::unwrap_or_default))
        .collect::<Result<Vec<_>, _>>()?;
    let mut wanted = all(tables, segments);
    found.sort_unstable();
    wanted.sort_unstable();
    if found == wanted {
        return Ok(None);
    }
    let foreign = found.iter().find(|sql| !wanted.contains(sql));
    let missing = wanted.iter().find(|sql| !found.contains(sql));
    Ok(Some(match (missing, foreign) {
        (Some(sql), _) => format!("the schema lacks `{sql}`"),
        (None, Some(sql)) => format!("the schema has `{sql}`, which is not evermill's"),
        (None, None) => "the schema has a table twice".to_owned(),
    }))
}

/// The statements on one truth table.
#[derive(Debug)]
pub(super) struct TableSql {
    /// Adds a row unless its key is there.
    pub(super) insert: String,
    /// Replaces a row.
    pub(super) update: String,
    /// Sum of one row.
    pub(super) sum: String,
    /// Removes one row.
    pub(super) delete: String,
    /// Sums of the rows of a run and lane from an id on; `_below` ends before another id.
    pub(super) sums_from: String,
    pub(super) sums_below: String,
    pub(super) delete_from: String,
    pub(super) delete_below: String,
    /// Every row in key order.
    pub(super) load: String,
    /// One row, with the columns of `load`.
    pub(super) one: String,
}

impl TableSql {
    fn new(table: Table) -> Self {
        let name = table.name();
        let one = "run = ?1 AND lane = ?2 AND id = ?3";
        let from = "run = ?1 AND lane = ?2 AND id >= ?3";
        let below = "run = ?1 AND lane = ?2 AND id >= ?3 AND id < ?4";
        Self {
            insert: format!("INSERT INTO {name} VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING"),
            update: format!("UPDATE {name} SET body = ?4, sum = ?5 WHERE {one}"),
            sum: format!("SELECT sum FROM {name} WHERE {one}"),
            delete: format!("DELETE FROM {name} WHERE {one}"),
            sums_from: format!("SELECT sum FROM {name} WHERE {from}"),
            sums_below: format!("SELECT sum FROM {name} WHERE {below}"),
            delete_from: format!("DELETE FROM {name} WHERE {from}"),
            delete_below: format!("DELETE FROM {name} WHERE {below}"),
            load: format!("SELECT run, lane, id, body, sum FROM {name} ORDER BY run, lane, id"),
            one: format!("SELECT run, lane, id, body, sum FROM {name} WHERE {one}"),
        }
    }

    /// The statements of a table.
    pub(super) fn of(table: Table) -> &'static Self {
        static ALL: LazyLock<[TableSql; Table::ALL.len()]> =
            LazyLock::new(|| Table::ALL.map(TableSql::new));
        &ALL[table as usize - 1]
    }
}

/// Every column of a segment, in the order that decoding expects.
pub(super) fn select_history(number: u64) -> String {
    format!(
        "SELECT id, run, lane, settled_ms, first, last, done, skipped, parked, dropped, body, sum \
         FROM h_{number}"
    )
}
