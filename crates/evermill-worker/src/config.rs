//! What a pool is made of.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use evermill_contract::worker::wire::Preload;

/// A pool of workers of one interpreter.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// The interpreter, a path or a name to be found in `PATH`.
    pub interpreter: PathBuf,
    /// The folder that holds the package `evermill`; it comes first in `PYTHONPATH`.
    pub sdk: Option<PathBuf>,
    /// How many workers.
    pub slots: u16,
    /// Tasks whose DAG files the fork server imports before the first fork.
    pub preload: Vec<Preload>,
    /// Further environment variables.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; None for the engine's own.
    pub cwd: Option<PathBuf>,
    /// A worker is replaced, between dispatches, after this many members.
    pub members_per_worker_max: u64,
    /// A worker is replaced, between dispatches, when its resident memory passes this.
    pub worker_rss_bytes_max: u64,
    /// The longest from starting an interpreter to its hello.
    pub start_timeout: Duration,
    /// From TERM to KILL, when a member ran out of time.
    pub kill_grace: Duration,
}

impl PoolConfig {
    /// A pool of `slots` workers of `interpreter`, with everything else at its default.
    #[must_use]
    pub fn new(interpreter: impl Into<PathBuf>, slots: u16) -> Self {
        Self {
            interpreter: interpreter.into(),
            sdk: None,
            slots,
            preload: Vec::new(),
            env: Vec::new(),
            cwd: None,
            members_per_worker_max: 10_000_000,
            worker_rss_bytes_max: 2 * 1024 * 1024 * 1024,
            start_timeout: Duration::from_secs(30),
            kill_grace: Duration::from_secs(2),
        }
    }
}
