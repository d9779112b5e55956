//! History segments (S2): tables `h_<n>` of bounded size. A full one is closed with a summary, so
//! that readers skip it unread and retention drops it whole.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use evermill_core::row::HistoryRow;
use rusqlite::{Connection, params};

use super::commit::{Tx, only_one};
use super::{SqliteStore, schema};
use crate::error::CommitError;
use crate::header::HistoryState;
use crate::history::HistoryQuery;
use crate::step::Step;
use crate::store::history_bytes;
use crate::sum::Tally;

/// Summary of a closed segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) first_id: u64,
    pub(super) bytes: u64,
    pub(super) rows: Tally,
    pub(super) oldest_ms: i64,
    pub(super) newest_ms: i64,
    /// Lowest and highest position by run and lane.
    pub(super) spans: Spans,
}

type Spans = BTreeMap<(u32, u32), (u64, u64)>;

/// A segment that is being closed, with the sum of its row.
pub(super) struct Closed {
    pub(super) segment: Segment,
    pub(super) sum: u64,
}

impl Segment {
    const HEAD: usize = 6;

    /// Six big-endian numbers, then 24 bytes for each run and lane.
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = [
            self.first_id,
            self.bytes,
            self.rows.rows,
            self.rows.sum,
            self.oldest_ms.cast_unsigned(),
            self.newest_ms.cast_unsigned(),
        ];
        let mut bytes: Vec<u8> = head
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect();
        for ((run, lane), (first, last)) in &self.spans {
            bytes.extend_from_slice(&run.to_be_bytes());
            bytes.extend_from_slice(&lane.to_be_bytes());
            bytes.extend_from_slice(&first.to_be_bytes());
            bytes.extend_from_slice(&last.to_be_bytes());
        }
        bytes
    }

    pub(super) fn decode(number: u64, bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let (head, spans) = numbers.split_at_checked(Self::HEAD)?;
        if !rest.is_empty() || spans.len() % 3 != 0 {
            return None;
        }
        let head: Vec<u64> = head
            .iter()
            .map(|number| u64::from_be_bytes(*number))
            .collect();
        let span = |three: &[[u8; 8]]| {
            let place = u64::from_be_bytes(three[0]);
            let key = ((place >> 32) as u32, place as u32);
            (
                key,
                (u64::from_be_bytes(three[1]), u64::from_be_bytes(three[2])),
            )
        };
        Some(Self {
            number,
            first_id: head[0],
            bytes: head[1],
            rows: Tally {
                rows: head[2],
                sum: head[3],
            },
            oldest_ms: head[4].cast_signed(),
            newest_ms: head[5].cast_signed(),
            spans: spans.chunks_exact(3).map(span).collect(),
        })
    }

    /// Whether the query can find anything here.
    pub(super) fn may_match(&self, query: &HistoryQuery) -> bool {
        let time = query
            .settled_ms
            .as_ref()
            .is_none_or(|asked| asked.start <= self.newest_ms && self.oldest_ms < asked.end);
        let lane = |(run, lane): &(u32, u32), (first, last): &(u64, u64)| {
            query.run.is_none_or(|asked| asked == *run)
                && query.lane.is_none_or(|asked| asked == *lane)
                && query
                    .positions
                    .as_ref()
                    .is_none_or(|asked| first <= asked.end() && asked.start() <= last)
        };
        time && self.spans.iter().any(|(place, span)| lane(place, span))
    }
}

impl Tx<'_> {
    pub(super) fn append_history<'r>(
        &mut self,
        rows: impl Iterator<Item = &'r HistoryRow>,
    ) -> rusqlite::Result<()> {
        let connection = self.connection;
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            if self.next.history.bytes >= self.options.segment_bytes {
                self.roll()?;
            }
            let sql = format!(
                "INSERT INTO h_{} VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                self.next.history.open
            );
            let mut insert = connection.prepare_cached(&sql)?;
            while self.next.history.bytes < self.options.segment_bytes
                && let Some(row) = rows.next()
            {
                self.append_row(&mut insert, row)?;
            }
        }
        Ok(())
    }

    fn append_row(
        &mut self,
        insert: &mut rusqlite::Statement<'_>,
        row: &HistoryRow,
    ) -> rusqlite::Result<()> {
        let history = &mut self.next.history;
        let id = history.next_id;
        let sum = self.sums.history(id, row);
        only_one(insert.execute(params![
            id.cast_signed(),
            row.run,
            row.lane,
            row.settled_ms,
            row.first.cast_signed(),
            row.last.cast_signed(),
            row.done,
            row.skipped,
            row.parked,
            row.dropped,
            &row.body[..],
            sum.cast_signed()
        ])?)?;
        history.next_id += 1;
        history.rows.add(sum);
        history.bytes += history_bytes(row);
        Ok(())
    }

    /// Closes the open segment and opens the next one.
    fn roll(&mut self) -> rusqlite::Result<()> {
        let state = self.next.history;
        let segment = summarise(self.connection, &state)?;
        let body = segment.encode();
        let sum = self.sums.segment(segment.number, &body);
        let mut insert = self
            .connection
            .prepare_cached("INSERT INTO segment VALUES(?1, ?2, ?3)")?;
        only_one(insert.execute(params![
            segment.number.cast_signed(),
            body,
            sum.cast_signed()
        ])?)?;
        self.close_segment(Closed { segment, sum });
        self.next.history = HistoryState {
            closed: self.next.history.closed,
            open: state.open + 1,
            first_id: state.next_id,
            next_id: state.next_id,
            bytes: 0,
            rows: Tally::default(),
        };
        for sql in schema::segment(self.next.history.open) {
            self.connection.execute_batch(&sql)?;
        }
        self.step(Step::CommitSegmentRolled);
        Ok(())
    }

    fn drop_segment(&mut self, segment: &Segment) -> rusqlite::Result<()> {
        let number = segment.number;
        let mut select = self
            .connection
            .prepare_cached("SELECT sum FROM segment WHERE number = ?1")?;
        let sum: i64 = select.query_row([number.cast_signed()], |row| row.get(0))?;
        self.connection
            .execute_batch(&format!("DROP TABLE h_{number}"))?;
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM segment WHERE number = ?1")?;
        only_one(delete.execute([number.cast_signed()])?)?;
        self.next.history.closed.remove(sum.cast_unsigned());
        self.step(Step::TrimDropped);
        Ok(())
    }
}

impl SqliteStore {
    /// Drops the oldest segment when history is larger or older than asked for; one at a time, so
    /// that commits do not wait long.
    pub(super) fn retain_history(&mut self) -> Result<(), CommitError> {
        let closed: u64 = self
            .closed_segments
            .iter()
            .map(|segment| segment.bytes)
            .sum();
        let too_large = closed + self.row.history.bytes > self.options.history_bytes;
        let Some(oldest) = self.closed_segments.first() else {
            return Ok(());
        };
        if too_large || self.is_too_old(oldest) {
            let oldest = oldest.number;
            self.drop_segments(|segment| segment.number == oldest)?;
        }
        Ok(())
    }

    /// Judged by the wall clock, as the time of settling is.
    fn is_too_old(&self, segment: &Segment) -> bool {
        let Some(age) = self.options.history_age else {
            return false;
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let oldest_ms = now.saturating_sub(age).as_millis() as i64;
        segment.newest_ms < oldest_ms
    }

    /// Drops closed segments from the oldest on, while the condition holds; returns the rows gone.
    pub(super) fn drop_segments(
        &mut self,
        goes: impl Fn(&Segment) -> bool,
    ) -> Result<u64, CommitError> {
        let mut gone = 0;
        while let Some(oldest) = self
            .closed_segments
            .first()
            .filter(|segment| goes(segment))
            .cloned()
        {
            self.transact(|tx| tx.drop_segment(&oldest))?;
            self.options.step(Step::TrimDurable);
            self.closed_segments.remove(0);
            gone += oldest.rows.rows;
        }
        Ok(gone)
    }
}

/// Reads the open segment once, to close it.
fn summarise(connection: &Connection, state: &HistoryState) -> rusqlite::Result<Segment> {
    let sql = format!(
        "SELECT run, lane, settled_ms, first, last FROM h_{}",
        state.open
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut spans = Spans::new();
    let (mut oldest_ms, mut newest_ms) = (i64::MAX, i64::MIN);
    while let Some(row) = rows.next()? {
        let settled: i64 = row.get(2)?;
        oldest_ms = oldest_ms.min(settled);
        newest_ms = newest_ms.max(settled);
        let first = row.get::<_, i64>(3)?.cast_unsigned();
        let last = row.get::<_, i64>(4)?.cast_unsigned();
        let span = spans
            .entry((row.get(0)?, row.get(1)?))
            .or_insert((first, last));
        *span = (span.0.min(first), span.1.max(last));
    }
    Ok(Segment {
        number: state.open,
        first_id: state.first_id,
        bytes: state.bytes,
        rows: state.rows,
        oldest_ms,
        newest_ms,
        spans,
    })
}
