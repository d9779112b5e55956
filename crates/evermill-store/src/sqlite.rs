//! The store on SQLite: `DIR/store.db` with its write-ahead log beside it.
//!
//! One connection writes and checkpoints; readers are read-only connections of this process (S5).
//! SQLite's automatic checkpoint is off, because it swallows the result of its fsync: checkpoints
//! run in [`Store::tend`], where an error stops the engine.

mod commit;
mod file;
#[cfg(test)]
mod golden;
mod history;
mod load;
mod log;
mod open;
mod reader;
mod schema;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evermill_core::row::{Row, Table};
use rusqlite::Connection;

use crate::error::{CommitError, StoreError};
use crate::header::HeaderRow;
use crate::limits;
use crate::lock::DirLock;
use crate::step::{Step, StepHook};
use crate::store::{
    Batch, CommitId, Committed, Fence, Header, Outcome, Reader, Report, Store, check_sizes, look_up,
};
use crate::sum::Sums;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Bytes of history kept; the oldest segment goes first.
    pub history_bytes: u64,
    /// Age of a whole segment of history from which on it goes; `None` for never.
    pub history_age: Option<Duration>,
    /// Bytes after which a history segment is closed.
    pub segment_bytes: u64,
    /// Log frames after which an idle store checkpoints.
    pub checkpoint_frames_idle: u64,
    /// Log frames after which a busy store checkpoints too.
    pub checkpoint_frames_max: u64,
    /// Called at every [`Step`].
    pub hook: Option<StepHook>,
    /// Deliberate defects.
    #[cfg(feature = "sabotage")]
    pub sabotage: Sabotage,
}

/// Deliberate defects, to see whether the tests notice them.
#[cfg(feature = "sabotage")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Sabotage {
    /// Commits return before their bytes are on the disk.
    pub skip_fsync: bool,
    /// Every fence is good enough.
    pub drop_fence_check: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_bytes: limits::HISTORY_BYTES,
            history_age: None,
            segment_bytes: limits::SEGMENT_BYTES,
            checkpoint_frames_idle: limits::CHECKPOINT_FRAMES_IDLE,
            checkpoint_frames_max: limits::CHECKPOINT_FRAMES_MAX,
            hook: None,
            #[cfg(feature = "sabotage")]
            sabotage: Sabotage::default(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("history_bytes", &self.history_bytes)
            .field("segment_bytes", &self.segment_bytes)
            .finish_non_exhaustive()
    }
}

impl Options {
    fn step(&self, step: Step) {
        if let Some(hook) = &self.hook {
            hook(step);
        }
    }

    #[cfg(feature = "sabotage")]
    fn skips_fsync(&self) -> bool {
        self.sabotage.skip_fsync
    }

    #[cfg(not(feature = "sabotage"))]
    #[expect(clippy::unused_self, reason = "same face as with the sabotage feature")]
    fn skips_fsync(&self) -> bool {
        false
    }

    #[cfg(feature = "sabotage")]
    fn drops_fence_check(&self) -> bool {
        self.sabotage.drop_fence_check
    }

    #[cfg(not(feature = "sabotage"))]
    #[expect(clippy::unused_self, reason = "same face as with the sabotage feature")]
    fn drops_fence_check(&self) -> bool {
        false
    }
}

/// A data directory, opened and locked.
pub struct SqliteStore {
    /// Closed before the lock goes.
    connection: Connection,
    /// State after the last durable transaction.
    row: HeaderRow,
    opened: Header,
    sums: Sums,
    closed_segments: Vec<history::Segment>,
    options: Options,
    path: PathBuf,
    stopped: bool,
    lock: DirLock,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// The database file's name in the data directory.
    pub const FILE: &'static str = "store.db";

    /// The log's name beside it. It is there for as long as the store is not closed.
    pub const LOG: &'static str = "store.db-wal";

    /// Opens the store of a locked directory, making it if there is none, and counts the boot
    /// epoch up, durably, before it returns.
    ///
    /// Checks the file's header, the log, the schema, the header row, shards and segments; the
    /// rows of the truth tables are checked by [`Store::load`].
    ///
    /// # Errors
    /// [`StoreError`]; a damaged or newer store is left as it is.
    pub fn open(lock: DirLock, options: Options) -> Result<Self, StoreError> {
        open::open(lock, options)
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.lock.dir()
    }

    fn damaged(&self, what: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            what: what.into(),
        }
    }

    fn working(&self) -> Result<(), CommitError> {
        if self.stopped {
            Err(CommitError::Stopped)
        } else {
            Ok(())
        }
    }

    /// Frames in the log that are not yet in the database file.
    fn frames_behind(&self) -> rusqlite::Result<u64> {
        let (log, folded) = checkpoint(&self.connection, "NOOP")?;
        Ok(log.saturating_sub(folded))
    }
}

impl Store for SqliteStore {
    fn header(&self) -> &Header {
        &self.opened
    }

    fn load(&mut self, table: Table, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        load::table(self, table, each)
    }

    fn claim(&mut self, shard: u32) -> Result<Fence, CommitError> {
        self.working()?;
        let fence = self.transact(|tx| tx.claim(shard))?;
        self.options.step(Step::ClaimDurable);
        Ok(fence)
    }

    fn commit(&mut self, group: &[Batch]) -> Result<Committed, CommitError> {
        check_sizes(group)?;
        self.working()?;
        let id = CommitId {
            epoch: self.row.epoch,
            seq: self.row.last.seq + 1,
        };
        let refused = self.transact(|tx| {
            tx.next.last = id;
            tx.apply(group)
        })?;
        self.options.step(Step::CommitDurable);
        Ok(Committed { id, refused })
    }

    fn outcome(&mut self, id: CommitId) -> Result<Outcome, StoreError> {
        look_up(self.row.last(), id)
    }

    fn tend(&mut self, idle: bool) -> Result<(), StoreError> {
        if self.stopped {
            return Ok(());
        }
        let failed = |store: &Self, doing, error| open::sqlite_error(&store.path, doing, &error);
        let due = if idle {
            self.options.checkpoint_frames_idle
        } else {
            self.options.checkpoint_frames_max
        };
        let behind = self
            .frames_behind()
            .map_err(|error| failed(self, "reading the log", error))?;
        if behind >= due {
            self.options.step(Step::CheckpointBefore);
            match checkpoint(&self.connection, "PASSIVE") {
                Ok(_) => self.options.step(Step::CheckpointAfter),
                Err(error) if commit::is_full(&error) => {}
                Err(error) => return Err(failed(self, "checkpointing", error)),
            }
        }
        match self.retain_history() {
            Ok(()) | Err(CommitError::Full) => Ok(()),
            Err(error) => Err(StoreError::Stopped(Arc::from(error.to_string()))),
        }
    }

    fn trim_history(&mut self, before_ms: i64) -> Result<u64, CommitError> {
        self.working()?;
        self.drop_segments(|segment| segment.newest_ms < before_ms)
    }

    fn verify(&mut self) -> Result<Report, StoreError> {
        load::verify(self)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(reader::SqliteReader::open(&self.path, self.sums)?))
    }

    fn close_clean(mut self: Box<Self>) -> Result<(), StoreError> {
        let stopped = |error: CommitError| StoreError::Stopped(Arc::from(error.to_string()));
        self.working().map_err(stopped)?;
        self.transact(|tx| {
            tx.next.clean = true;
            Ok(())
        })
        .map_err(stopped)?;
        self.options.step(Step::CloseMarked);
        checkpoint(&self.connection, "TRUNCATE")
            .map_err(|error| open::sqlite_error(&self.path, "checkpointing", &error))?;
        self.options.step(Step::CloseCheckpointed);
        let Self {
            connection,
            path,
            lock,
            ..
        } = *self;
        connection
            .close()
            .map_err(|(_, error)| open::sqlite_error(&path, "closing", &error))?;
        drop(lock);
        Ok(())
    }
}

/// Runs a checkpoint and returns the frames in the log and those in the database file.
fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<(u64, u64)> {
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| {
            let frames = |column| {
                row.get::<_, i64>(column)
                    .map(|n| u64::try_from(n).unwrap_or(0))
            };
            Ok((frames(1)?, frames(2)?))
        })
}
