//! Questions about history (S4) and their answers.

use std::ops::{Range, RangeInclusive};

use evermill_core::row::HistoryRow;

/// Which history rows to return. Every field narrows; the default asks for the newest rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only this run.
    pub run: Option<u32>,
    /// Only this lane.
    pub lane: Option<u32>,
    /// Only waves that overlap these positions. Meaningful together with `run` and `lane`.
    pub positions: Option<RangeInclusive<u64>>,
    /// Only waves settled in this time, milliseconds since the Unix epoch.
    pub settled_ms: Option<Range<i64>>,
    /// Only waves with parked or dropped events.
    pub problems: bool,
    /// Only rows older than this one: [`HistoryPage::more`] of the page before.
    pub before: Option<u64>,
    /// At most so many rows; 0 means [`crate::limits::HISTORY_PAGE_ROWS`].
    pub newest: usize,
}

/// A history row with its place in history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Grows by one with every history row, over restarts too.
    pub id: u64,
    /// The row.
    pub row: HistoryRow,
}

/// A part of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// Matching rows, newest first.
    pub entries: Vec<HistoryEntry>,
    /// Rows looked at, for "sampled: n of m".
    pub examined: u64,
    /// Where to go on when the page or the scan budget
    /// ([`crate::limits::HISTORY_SCAN_ROWS`]) was used up; `None` at the end of history.
    pub more: Option<u64>,
}

impl HistoryQuery {
    /// Whether a row is asked for.
    #[must_use]
    pub fn matches(&self, row: &HistoryRow) -> bool {
        self.run.is_none_or(|run| run == row.run)
            && self.lane.is_none_or(|lane| lane == row.lane)
            && self
                .positions
                .as_ref()
                .is_none_or(|asked| row.first <= *asked.end() && *asked.start() <= row.last)
            && self
                .settled_ms
                .as_ref()
                .is_none_or(|asked| asked.contains(&row.settled_ms))
            && (!self.problems || row.parked > 0 || row.dropped > 0)
    }

    /// How many rows a page holds.
    #[must_use]
    pub(crate) fn page_rows(&self) -> usize {
        match self.newest {
            0 => crate::limits::HISTORY_PAGE_ROWS,
            asked => asked.min(crate::limits::HISTORY_PAGE_ROWS_MAX),
        }
    }
}
