//! The header row: what the store says about itself, as one blob of big-endian `u64`s.
//! `docs/spec/store.md` freezes the order of the fields.

use evermill_core::row::Table;

use crate::store::{CommitId, StoreId};
use crate::sum::Tally;

/// The format this crate writes, and the newest it reads. Older ones become this one at open.
pub(crate) const FORMAT: u32 = 3;

/// The truth tables of a format, which are the first ones of [`Table::ALL`]; `None` for a format
/// that never was.
pub(crate) fn tables_of(format: u32) -> Option<&'static [Table]> {
    match format {
        1 => Some(&Table::ALL[..12]),
        2 => Some(&Table::ALL[..14]),
        3 => Some(&Table::ALL),
        _ => None,
    }
}

/// The decoded header row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeaderRow {
    pub(crate) format: u32,
    pub(crate) store_id: StoreId,
    pub(crate) epoch: u64,
    pub(crate) clean: bool,
    /// Last durable commit; `seq` 0 means none.
    pub(crate) last: CommitId,
    pub(crate) shards: Tally,
    pub(crate) history: HistoryState,
    tables: [Tally; Table::ALL.len()],
}

/// Where history stands: closed segments are tallied, the open one is described here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct HistoryState {
    /// Rows of the table of closed segments.
    pub(crate) closed: Tally,
    /// Number of the open segment.
    pub(crate) open: u64,
    /// Id of the first row of the open segment.
    pub(crate) first_id: u64,
    /// Id the next history row gets.
    pub(crate) next_id: u64,
    /// Bytes of rows in the open segment.
    pub(crate) bytes: u64,
    /// Rows of the open segment.
    pub(crate) rows: Tally,
}

impl HeaderRow {
    /// Header of a new, empty store; nobody has opened it yet.
    pub(crate) fn new(store_id: StoreId) -> Self {
        Self {
            format: FORMAT,
            store_id,
            epoch: 0,
            clean: true,
            last: CommitId { epoch: 0, seq: 0 },
            shards: Tally::default(),
            history: HistoryState {
                first_id: 1,
                next_id: 1,
                ..HistoryState::default()
            },
            tables: [Tally::default(); Table::ALL.len()],
        }
    }

    /// The last durable commit.
    pub(crate) fn last(&self) -> Option<CommitId> {
        (self.last.seq > 0).then_some(self.last)
    }

    /// Tally of a truth table.
    pub(crate) fn tally(&self, table: Table) -> Tally {
        self.tables[table as usize - 1]
    }

    /// Tally of a truth table, to adjust.
    pub(crate) fn tally_mut(&mut self, table: Table) -> &mut Tally {
        &mut self.tables[table as usize - 1]
    }

    /// The truth tables that this store has.
    pub(crate) fn tables(&self) -> &'static [Table] {
        tables_of(self.format).unwrap_or_default()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let [high, low] = halves(self.store_id);
        let history = &self.history;
        let mut fields = vec![
            u64::from(self.format),
            high,
            low,
            self.epoch,
            u64::from(self.clean),
            self.last.epoch,
            self.last.seq,
            self.shards.rows,
            self.shards.sum,
            history.closed.rows,
            history.closed.sum,
            history.open,
            history.first_id,
            history.next_id,
            history.bytes,
            history.rows.sum,
        ];
        for table in self.tables() {
            let tally = self.tally(*table);
            fields.extend([tally.rows, tally.sum]);
        }
        fields
            .iter()
            .flat_map(|field| field.to_be_bytes())
            .collect()
    }

    /// Decodes a header of this format or an older one; `None` when it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let format = u32::try_from(u64::from_be_bytes(*numbers.first()?)).ok()?;
        let tables = tables_of(format)?.len();
        if !rest.is_empty() || numbers.len() != 16 + 2 * tables {
            return None;
        }
        let field = |index: usize| u64::from_be_bytes(numbers[index]);
        let tally = |index: usize| Tally {
            rows: field(index),
            sum: field(index + 1),
        };
        let mut store_id = [0; 16];
        store_id[..8].copy_from_slice(&numbers[1]);
        store_id[8..].copy_from_slice(&numbers[2]);
        let history = HistoryState {
            closed: tally(9),
            open: field(11),
            first_id: field(12),
            next_id: field(13),
            bytes: field(14),
            rows: Tally {
                rows: field(13).checked_sub(field(12))?,
                sum: field(15),
            },
        };
        Some(Self {
            format,
            store_id: StoreId(store_id),
            epoch: field(3),
            clean: match field(4) {
                0 => false,
                1 => true,
                _ => return None,
            },
            last: CommitId {
                epoch: field(5),
                seq: field(6),
            },
            shards: tally(7),
            history,
            // A table that is still to be made is empty.
            tables: std::array::from_fn(|table| {
                if table < tables {
                    tally(16 + 2 * table)
                } else {
                    Tally::default()
                }
            }),
        })
    }
}

fn halves(id: StoreId) -> [u64; 2] {
    let number = u128::from_be_bytes(id.0);
    [(number >> 64) as u64, number as u64]
}
