//! The room that remembers: bytes that survive a crash, and nothing that decides.
//!
//! [`Store`] is the one face; [`SqliteStore`] keeps a data directory, [`MemoryStore`] serves tests
//! and the simulator. The core decides which rows exist and what is in them
//! ([`evermill_core::row`]); the store applies them, all or none, and says when they are durable.
//!
//! One process owns a data directory ([`DirLock`], rule S5), one thread owns the store
//! ([`Committer`], group commit), every batch of writes carries the [`Fence`] of the shard that
//! decided it (C5), and no lost, stale, changed, doubled or invented row goes unnoticed (S6): each
//! row carries a checksum, each table a tally of them, and both are checked by every load.
//! `docs/spec/store.md` freezes the format.

mod committer;
mod error;
mod faulty;
mod header;
mod history;
pub mod limits;
mod lock;
mod memory;
mod sqlite;

mod step;
mod store;
mod sum;

pub use committer::{Between, Committer, Event, Ticket};
pub use error::{CommitError, LockError, StoreError};
pub use faulty::{Fault, Faults, FaultyStore};
pub use history::{HistoryEntry, HistoryPage, HistoryQuery};
pub use lock::{DirLock, leave_to_owner, make_data_dir, refusal};
pub use memory::{MemoryDisk, MemoryStore};
#[cfg(feature = "sabotage")]
pub use sqlite::Sabotage;
pub use sqlite::{Options, SqliteStore};

pub use step::{Step, StepHook};
pub use store::{
    Batch, CommitId, Committed, Fence, Header, Outcome, Reader, Refused, Report, Store, StoreId,
};
pub use sum::{Sums, Tally};
