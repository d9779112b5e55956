//! What the machine asks the store to remember: rows of the truth tables, and history.
//!
//! The core decides *what* is written and owns the encoding of every body; the store only keeps
//! bytes. All truth tables have one shape, so that checksums, `verify`, backup and a second
//! implementation on PostgreSQL are written once: `(run, lane, id) -> body`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A truth table. The number is part of the frozen format and never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Table {
    /// One row per run: DAG id, version, state, counters. `lane = 0`, `id` empty.
    Run = 1,
    /// One row per version of a DAG (W17): manifest and bundle references. `run = 0`, `id` = hash.
    Version = 2,
    /// Content-addressed files of bundles (W16). `run = 0`, `id` = hash.
    Bundle = 3,
    /// One row per lane: incarnation, cursor (C2), version switch (W16). `id` empty.
    Lane = 4,
    /// Committed membership of source batches (W8). `id` = first position, big endian.
    Batch = 5,
    /// In flight: one row per (wave, dispatch outcome), append only (S1). `id` = wave, sequence.
    Outcome = 6,
    /// Materialised activations (W2): waiting, held, joined or parked. `id` = activation key.
    Activation = 7,
    /// `ctx.state` (W5). `id` = scope, name.
    State = 8,
    /// Signals not yet consumed, and ids of consumed ones until their TTL (W14). `id` = signal id.
    Signal = 9,
    /// Deduplication ids, packed per ingest batch and time bucket (S3). `id` = bucket, sequence.
    Dedup = 10,
    /// Effects on the outside world that are decided but not confirmed. `id` = sequence.
    Outbox = 11,
    /// Events in flight at an unclean stop, with how often (C6). `id` = first position.
    Suspect = 12,
    /// What sources delivered that cannot be read again, until it is settled. `run = 0`, `lane` =
    /// number of the inbox, `id` = first position, or empty for the inbox itself.
    Inbox = 13,
    /// Results that are too large to travel with their outcome. The driver's own.
    Spill = 14,
    /// What operators have set, such as sizes of pools: by kind and name. `run = 0`, `lane` = kind. The
    /// driver's own.
    Setting = 15,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Run,
        Self::Version,
        Self::Bundle,
        Self::Lane,
        Self::Batch,
        Self::Outcome,
        Self::Activation,
        Self::State,
        Self::Signal,
        Self::Dedup,
        Self::Outbox,
        Self::Suspect,
        Self::Inbox,
        Self::Spill,
        Self::Setting,
    ];

    /// The table's name in SQL and in error messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Version => "version",
            Self::Bundle => "bundle",
            Self::Lane => "lane",
            Self::Batch => "batch",
            Self::Outcome => "outcome",
            Self::Activation => "activation",
            Self::State => "state",
            Self::Signal => "signal",
            Self::Dedup => "dedup",
            Self::Outbox => "outbox",
            Self::Suspect => "suspect",
            Self::Inbox => "inbox",
            Self::Spill => "spill",
            Self::Setting => "setting",
        }
    }
}

/// Address of a row inside its table. Ordered by run, lane, then `id` as bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Run number, unique in the store; 0 for rows that belong to no run.
    pub run: u32,
    /// Lane number, unique in its run; 0 for rows that belong to no lane.
    pub lane: u32,
    /// Rest of the address; numbers in it are big endian, so that byte order is number order.
    pub id: Bytes,
}

impl Key {
    /// A key whose rest is the concatenation of big-endian numbers.
    #[must_use]
    pub fn numbered(run: u32, lane: u32, numbers: &[u64]) -> Self {
        let mut id = Vec::with_capacity(numbers.len() * 8);
        for number in numbers {
            id.extend_from_slice(&number.to_be_bytes());
        }
        Self {
            run,
            lane,
            id: Bytes::from(id),
        }
    }
}

/// A row of a truth table, as loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where it lives.
    pub table: Table,
    /// Its address.
    pub key: Key,
    /// Encoded by the core; the store does not look inside.
    pub body: Bytes,
}

/// One change of durable state. A commit applies its writes in order, all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Insert or replace.
    Put(Row),
    /// Remove; removing what is absent is not an error.
    Delete(Table, Key),
    /// Remove every row of this run and lane whose `id` starts with `key.id`.
    DeletePrefix(Table, Key),
    /// Append one history row (S1, S2): never read by the machine.
    History(HistoryRow),
}

/// What remains of a settled wave: exact counters for all, full rows for some (S1, S4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// Run number.
    pub run: u32,
    /// Lane number.
    pub lane: u32,
    /// Wall-clock time of settling, milliseconds since the Unix epoch.
    pub settled_ms: i64,
    /// Lowest position in the wave.
    pub first: u64,
    /// Highest position in the wave.
    pub last: u64,
    /// Events by how their activation ended.
    pub done: u32,
    /// See `done`.
    pub skipped: u32,
    /// See `done`.
    pub parked: u32,
    /// See `done`.
    pub dropped: u32,
    /// Full rows of failures, retries and samples; empty when there are none. Encoded by the core.
    pub body: Bytes,
}
