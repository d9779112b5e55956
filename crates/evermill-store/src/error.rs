//! What can go wrong, with the cure in the text.

use std::path::PathBuf;
use std::sync::Arc;

use crate::store::CommitId;

/// Why a store could not be opened, read or closed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store was written by a newer evermill.
    #[error(
        "{path}: store format {found} is newer than {known}, the newest this evermill knows; \
         start the evermill that wrote it, or a newer one (nothing was changed)"
    )]
    NewerFormat {
        /// The database file.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Newest format known here.
        known: u32,
    },
    /// Content that no evermill wrote: bits rotted, a write was lost, or somebody edited the file.
    #[error(
        "{path}: damaged: {what}; evermill does not start on it. Restore the data directory from a \
         backup, and check the disk"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit, as precisely as known.
        what: String,
    },
    /// The data directory is on a file system without dependable locks and fsync.
    #[error(
        "{path}: is on a network file system ({kind}); keep the data directory on a local disk"
    )]
    Network {
        /// The data directory.
        path: PathBuf,
        /// Name of the file system.
        kind: &'static str,
    },
    /// The operating system or SQLite refused something.
    #[error("{path}: {doing}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The refusal.
        cause: Arc<str>,
    },
    /// Others have committed since; whether that commit was durable can no longer be told.
    #[error("commit {id} is no longer told apart from later ones; ask right after opening")]
    Forgotten {
        /// The commit asked about.
        id: CommitId,
    },
    /// The store was told to stop, or stopped by itself after an error.
    #[error("the store has stopped: {0}")]
    Stopped(Arc<str>),
}

/// Why a commit did not happen, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Somebody else owns the shard now: drop it (C5). Nothing of this batch was applied.
    #[error(
        "shard {shard}: fence {given} is not the stored fence {held}: the shard has a new owner"
    )]
    Fenced {
        /// The shard.
        shard: u32,
        /// Token of the batch.
        given: u64,
        /// Token in the store, 0 when there is none.
        held: u64,
    },
    /// The disk is full. Nothing was applied; the same commit may be tried again.
    #[error("the disk is full; evermill goes on when space returns")]
    Full,
    /// The commit may be durable or not: open again and ask for its outcome.
    #[error("the outcome of commit {0} is unknown; it must be looked up after opening again")]
    Unknown(CommitId),
    /// fsync or I/O failed: what is on the disk is known only after a restart. The caller aborts
    /// the process.
    #[error("the store failed and must not be trusted further ({0}); restart to recover")]
    Fatal(Arc<str>),
    /// A row that no store takes; the batch was not applied.
    #[error("a row of table {table} has {bytes} bytes, more than the limit of {max}")]
    Oversize {
        /// Table of the row, `history` for a history row.
        table: &'static str,
        /// Its size.
        bytes: usize,
        /// [`crate::limits::ROW_BYTES_MAX`].
        max: usize,
    },
    /// The store had stopped before this commit was tried: it is not durable.
    #[error("the store has stopped; this commit was not tried")]
    Stopped,
}

/// Why a data directory could not be taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{path}: in use by {}; only one engine opens a data directory",
        .holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Held {
        /// The data directory.
        path: PathBuf,
        /// Process id of the holder, as it wrote it down.
        holder: Option<u32>,
    },
    /// The directory or its lock file could not be made or opened.
    #[error("{path}: cannot take the data directory: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The refusal.
        cause: Arc<str>,
    },
}
