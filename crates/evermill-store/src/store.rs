//! The face of every store, and the small types that cross it.

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use evermill_core::row::{HistoryRow, Key, Row, Table, Write};

use crate::error::{CommitError, StoreError};
use crate::history::{HistoryPage, HistoryQuery};
use crate::limits;

/// Random 128-bit name of a store, given at creation. It also keys the row checksums, so that a
/// row that was copied in from another store is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Who may write for a shard: the stored token must equal this one, judged inside the
/// transaction (C5). Only [`Store::claim`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The shard; a solo engine has one, number 0.
    pub shard: u32,
    /// Grows by one with every claim of the shard, over restarts too.
    pub token: u64,
}

/// Number of a commit. `seq` grows by one with every commit and never repeats among durable
/// commits; `epoch` tells apart two commits that were tried under the same `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId {
    /// Boot epoch of the store that tried the commit.
    pub epoch: u64,
    /// Sequence number, from 1.
    pub seq: u64,
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

/// What the store knew about itself when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Format of the truth tables, see `docs/spec/store.md`.
    pub format: u32,
    /// Name of this store.
    pub store_id: StoreId,
    /// Boot epoch of this opening, already durable: counts openings from 1.
    pub epoch: u64,
    /// Whether the opening before this one ended with [`Store::close_clean`]; true for a new
    /// store. False means probation (C6).
    pub clean: bool,
    /// The last durable commit at the time of opening.
    pub last: Option<CommitId>,
}

/// Writes that belong together, decided under one fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The right to write.
    pub fence: Fence,
    /// Applied in order.
    pub writes: Vec<Write>,
}

/// A batch that was left out of a commit because its fence is no longer the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Index of the batch in its group.
    pub index: usize,
    /// The fence it carried.
    pub given: Fence,
    /// The token the store holds; 0 when nobody ever claimed the shard.
    pub held: u64,
}

impl Refused {
    /// The same as an error, for the one who submitted the batch.
    #[must_use]
    pub fn to_error(self) -> CommitError {
        CommitError::Fenced {
            shard: self.given.shard,
            given: self.given.token,
            held: self.held,
        }
    }
}

/// A durable commit. Batches of the group that are not in `refused` are in it, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its number.
    pub id: CommitId,
    /// Batches left out, by ascending index.
    pub refused: Vec<Refused>,
}

/// Answer to "what became of that commit?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Committed,
    /// It left no trace and never will.
    Absent,
}

/// What [`Store::verify`] looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Rows of truth tables, each with its checksum, all with their tally.
    pub rows: u64,
    /// Rows of history.
    pub history_rows: u64,
}

/// A place that remembers. Object safe; owned by one thread, usually the [`crate::Committer`]'s.
///
/// After [`CommitError::Unknown`] or [`CommitError::Fatal`] the store refuses every further write:
/// drop it, open the place again, ask [`Store::outcome`].
pub trait Store: Send {
    /// What was known at opening.
    fn header(&self) -> &Header;

    /// Hands every row of a table to `each`, in key order.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a row fails its checksum or the table its tally. Rows handed
    /// out before the error may be good or not: act on them only after `Ok`.
    fn load(&mut self, table: Table, each: &mut dyn FnMut(Row)) -> Result<(), StoreError>;

    /// Takes the right to write for a shard away from whoever had it, durably.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn claim(&mut self, shard: u32) -> Result<Fence, CommitError>;

    /// Applies a group of batches as one transaction and returns when it is durable. Each batch's
    /// fence is compared with the stored one inside that transaction; a refused batch is left out
    /// and does not hold up the others.
    ///
    /// # Errors
    /// [`CommitError::Full`] (nothing was applied, may be tried again), [`CommitError::Unknown`],
    /// [`CommitError::Fatal`], [`CommitError::Stopped`].
    fn commit(&mut self, group: &[Batch]) -> Result<Committed, CommitError>;

    /// What became of a commit, asked after opening again.
    ///
    /// # Errors
    /// [`StoreError::Forgotten`] when later openings have committed since, so that the answer
    /// would be a guess.
    fn outcome(&mut self, id: CommitId) -> Result<Outcome, StoreError>;

    /// Housekeeping that may take milliseconds, called between groups. `idle` says that nobody
    /// waits; without it only what cannot be put off any longer is done.
    ///
    /// # Errors
    /// Any error here is fatal for the process, like [`CommitError::Fatal`], except that a full
    /// disk is not an error: housekeeping is then put off.
    fn tend(&mut self, idle: bool) -> Result<(), StoreError>;

    /// Drops history segments whose every row settled before this time (milliseconds since the
    /// Unix epoch) and returns how many rows went.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn trim_history(&mut self, before_ms: i64) -> Result<u64, CommitError>;

    /// Checks everything that can be checked: every row, every tally, the file's structure.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the first damage found.
    fn verify(&mut self) -> Result<Report, StoreError>;

    /// A second pair of eyes, for other threads of this process; it sees committed state only.
    ///
    /// # Errors
    /// [`StoreError`] when the place cannot be opened for reading.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;

    /// Marks the stop as clean and closes.
    ///
    /// # Errors
    /// [`StoreError`]; the next opening then counts the stop as unclean.
    fn close_clean(self: Box<Self>) -> Result<(), StoreError>;
}

impl dyn Store + '_ {
    /// Commits one batch.
    ///
    /// # Errors
    /// As [`Store::commit`], and [`CommitError::Fenced`].
    pub fn commit_one(
        &mut self,
        fence: Fence,
        writes: Vec<Write>,
    ) -> Result<CommitId, CommitError> {
        let committed = self.commit(&[Batch { fence, writes }])?;
        match committed.refused.first() {
            Some(refused) => Err(refused.to_error()),
            None => Ok(committed.id),
        }
    }
}

/// Reads what is committed while the committer writes.
pub trait Reader: Send {
    /// The body of one row of a truth table, `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`], also when the row fails its checksum.
    fn row(&mut self, table: Table, key: &Key) -> Result<Option<Bytes>, StoreError>;

    /// History rows that match, newest first.
    ///
    /// # Errors
    /// [`StoreError`], also when a row fails its checksum.
    fn history(&mut self, query: &HistoryQuery) -> Result<HistoryPage, StoreError>;

    /// Copies everything that is committed at this moment into a database file that is not there
    /// yet. Commits go on meanwhile and are not in it. The copy says that its store was not closed;
    /// whoever opens it needs an empty log beside it ([`crate::SqliteStore::LOG`]).
    ///
    /// # Errors
    /// [`StoreError::Io`], also for a store that keeps nothing in a file.
    fn copy_into(&mut self, file: &Path) -> Result<(), StoreError> {
        Err(StoreError::Io {
            path: file.to_owned(),
            doing: "copying the store",
            cause: "it is kept in memory alone".into(),
        })
    }
}

/// Refuses what no store takes, before anything is applied.
pub(crate) fn check_sizes(group: &[Batch]) -> Result<(), CommitError> {
    group
        .iter()
        .flat_map(|batch| &batch.writes)
        .try_for_each(check_size)
}

fn check_size(write: &Write) -> Result<(), CommitError> {
    let (table, id, body) = match write {
        Write::Put(row) => (row.table.name(), row.key.id.len(), row.body.len()),
        Write::Delete(table, key) | Write::DeletePrefix(table, key) => {
            (table.name(), key.id.len(), 0)
        }
        Write::History(row) => ("history", 0, row.body.len()),
    };
    if id > limits::ROW_ID_BYTES_MAX {
        return Err(CommitError::Oversize {
            table,
            bytes: id,
            max: limits::ROW_ID_BYTES_MAX,
        });
    }
    if body > limits::ROW_BYTES_MAX {
        return Err(CommitError::Oversize {
            table,
            bytes: body,
            max: limits::ROW_BYTES_MAX,
        });
    }
    Ok(())
}

/// Bytes a write adds to a group or a queue.
pub(crate) fn write_bytes(write: &Write) -> usize {
    const ROW: usize = 24;
    match write {
        Write::Put(row) => ROW + row.key.id.len() + row.body.len(),
        Write::Delete(_, key) | Write::DeletePrefix(_, key) => ROW + key.id.len(),
        Write::History(row) => ROW + 40 + row.body.len(),
    }
}

/// Bytes a history row counts for against the bounds of segments and of history.
pub(crate) fn history_bytes(row: &HistoryRow) -> u64 {
    64 + row.body.len() as u64
}

/// Answers [`Store::outcome`] from the last durable commit.
pub(crate) fn look_up(last: Option<CommitId>, asked: CommitId) -> Result<Outcome, StoreError> {
    match last {
        Some(last) if asked.seq <= last.seq && asked.epoch == last.epoch => Ok(Outcome::Committed),
        // A later opening reused the number: only the absent commit's epoch may differ.
        Some(last) if asked.seq <= last.seq => Err(StoreError::Forgotten { id: asked }),
        _ => Ok(Outcome::Absent),
    }
}
