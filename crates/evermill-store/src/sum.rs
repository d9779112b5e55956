//! Checksums of rows, and tallies over tables (S6).
//!
//! A row's sum binds its bytes to its place: table, run, lane and id are part of it, and the store
//! id is its seed. A tally is the number of rows and the sum of their sums modulo 2^64: it does not
//! depend on order, so a commit adjusts it without reading the table. XXH3 (64 bits) guards against
//! accidents, not against somebody who edits the file and computes the sums anew.

use evermill_core::row::{HistoryRow, Key, Table};
use twox_hash::XxHash3_64;

use crate::store::StoreId;

/// Number that stands for a table in sums of history rows.
const HISTORY: u8 = 200;
/// Number that stands for the shard table.
const SHARD: u8 = 201;
/// Number that stands for the table of segments.
const SEGMENT: u8 = 202;
/// Number that stands for the header row.
const HEADER: u8 = 203;

/// Computes the sums of one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    seed: u64,
}

impl Sums {
    /// Sums keyed by a store's id.
    #[must_use]
    pub fn new(store: StoreId) -> Self {
        Self {
            seed: XxHash3_64::oneshot(&store.0),
        }
    }

    /// Sum of a row: `xxh3(body, seed = xxh3(table u8 | run u32 | lane u32 | id, seed = store))`,
    /// numbers big endian.
    #[must_use]
    pub fn row(self, table: Table, key: &Key, body: &[u8]) -> u64 {
        self.keyed(table as u8, key.run, key.lane, &key.id, body)
    }

    pub(crate) fn keyed(self, table: u8, run: u32, lane: u32, id: &[u8], body: &[u8]) -> u64 {
        const HEAD: usize = 9;
        const INLINE: usize = 64;
        let mut place = [0_u8; INLINE];
        place[0] = table;
        place[1..5].copy_from_slice(&run.to_be_bytes());
        place[5..HEAD].copy_from_slice(&lane.to_be_bytes());
        let seed = if HEAD + id.len() <= INLINE {
            place[HEAD..HEAD + id.len()].copy_from_slice(id);
            XxHash3_64::oneshot_with_seed(self.seed, &place[..HEAD + id.len()])
        } else {
            let long = [&place[..HEAD], id].concat();
            XxHash3_64::oneshot_with_seed(self.seed, &long)
        };
        XxHash3_64::oneshot_with_seed(seed, body)
    }

    /// Sum of a history row: the place is its id, the numbers come before the body.
    pub(crate) fn history(self, id: u64, row: &HistoryRow) -> u64 {
        let mut bytes = Vec::with_capacity(40 + row.body.len());
        bytes.extend_from_slice(&row.settled_ms.to_be_bytes());
        bytes.extend_from_slice(&row.first.to_be_bytes());
        bytes.extend_from_slice(&row.last.to_be_bytes());
        for count in [row.done, row.skipped, row.parked, row.dropped] {
            bytes.extend_from_slice(&count.to_be_bytes());
        }
        bytes.extend_from_slice(&row.body);
        self.keyed(HISTORY, row.run, row.lane, &id.to_be_bytes(), &bytes)
    }

    /// Sum of a shard's row.
    pub(crate) fn shard(self, shard: u32, token: u64, epoch: u64) -> u64 {
        let body = [token.to_be_bytes(), epoch.to_be_bytes()].concat();
        self.keyed(SHARD, shard, 0, &[], &body)
    }

    /// Sum of a closed segment's row.
    pub(crate) fn segment(self, number: u64, body: &[u8]) -> u64 {
        self.keyed(SEGMENT, 0, 0, &number.to_be_bytes(), body)
    }

    /// Sum of the header row. Its seed is fixed, because it is what the store id is read from.
    pub(crate) fn header(body: &[u8]) -> u64 {
        Self { seed: 0 }.keyed(HEADER, 0, 0, &[], body)
    }
}

/// How many rows a table has, and the sum of their sums modulo 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Number of rows.
    pub rows: u64,
    /// Sum of the row sums, wrapping.
    pub sum: u64,
}

impl Tally {
    /// Counts a row in.
    pub fn add(&mut self, sum: u64) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(sum);
    }

    /// Counts a row out.
    pub fn remove(&mut self, sum: u64) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(sum);
    }

    /// Replaces a row's sum.
    pub fn change(&mut self, old: u64, new: u64) {
        self.sum = self.sum.wrapping_sub(old).wrapping_add(new);
    }
}
