//! What an engine needs from whoever opens it, and what it tells in return.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::alert::AlertSink;
use evermill_contract::manifest::SourceManifest;
pub use evermill_contract::settings::{NoSettings, Settings};
use evermill_contract::source::{DiagnosticSink, FirstPosition, Opened, SourceBudget};
use evermill_contract::trace::TraceTaker;
use evermill_contract::worker::{Events, Executor, LogOrigin};
use evermill_store::{Store, StoreError};

use crate::clock::Clock;
use crate::kept::LogRetention;
use crate::notice::NoticeSink;

/// Everything [`crate::Engine::open`] needs.
pub struct OpenOptions {
    /// The data directory; bundles are unpacked into `bundles/` in it.
    pub data_dir: PathBuf,
    /// Opens the store; called again when a commit's outcome is unknown. The store it opened
    /// before is dropped by then, and its lock on the directory with it. `SqliteStore::open` with
    /// `DirLock::take` inside the closure is all it needs: `?` works on both.
    pub store: StoreFactory,
    /// Makes the executor; called once.
    pub executor: ExecutorFactory,
    /// Makes sources; called when a run starts.
    pub sources: SourceFactory,
    /// Variables, connections and secrets for tasks that ask for them, and what is masked.
    pub settings: Arc<dyn Settings>,
    /// Slots of pools, by name; one that nobody gave any has [`crate::limits::POOL_SLOTS`].
    pub pools: BTreeMap<String, u32>,
    /// The clock.
    pub clock: Clock,
    /// Where output of tasks goes. Called on a thread of its own; when it falls behind for more
    /// than [`crate::limits::LOG_LINES_QUEUED`] lines, lines are dropped and counted.
    pub log: LogSink,
    /// How long it is kept in the data directory.
    pub retain_logs: LogRetention,
    /// Where what the engine itself has to say goes.
    pub notices: NoticeSink,
    /// Where alerts go.
    pub alerts: AlertSink,
    /// Who hears of activations that have settled, if somebody traces.
    pub traces: Option<Arc<dyn TraceTaker>>,
}

/// Opens the store.
pub type StoreFactory = Box<dyn FnMut() -> Result<Box<dyn Store>, OpenError> + Send>;

/// Options for the SQLite store: the defaults, with the failpoints and defects that this build has
/// and the environment chose. A product build has neither.
#[must_use]
pub fn store_options() -> evermill_store::Options {
    evermill_store::Options {
        hook: crate::failpoint::hook(),
        #[cfg(feature = "sabotage")]
        sabotage: crate::sabotage::of_store(),
        ..evermill_store::Options::default()
    }
}

/// Makes the executor around the channel for its events; an error is a sentence with the cure.
pub type ExecutorFactory = Box<dyn FnOnce(Events) -> Result<Box<dyn Executor>, String> + Send>;

/// Makes a source; an error names the setting and the cure.
pub type SourceFactory = Arc<dyn Fn(SourceRequest<'_>) -> Result<Opened, String> + Send + Sync>;

/// Which source is wanted.
pub struct SourceRequest<'a> {
    /// DAG id.
    pub dag: &'a str,
    /// The source, as declared.
    pub source: &'a SourceManifest,
    /// The DAG's first instant, RFC 3339.
    pub start_date: Option<&'a str>,
    /// How much it may hold.
    pub budget: SourceBudget,
    /// Where its diagnostics go.
    pub diagnostics: DiagnosticSink,
}

/// Where a lane of this source begins when we hold no position of it (C7).
#[must_use]
pub const fn first_position(source: &SourceManifest) -> FirstPosition {
    use evermill_contract::manifest::{OffsetReset, SourceConfig};
    match &source.config {
        SourceConfig::Kafka(kafka) => match kafka.auto_offset_reset {
            OffsetReset::Earliest => FirstPosition::CommittedOrEarliest,
            OffsetReset::Latest => FirstPosition::CommittedOrLatest,
        },
        SourceConfig::Cron(_) | SourceConfig::Every(_) | SourceConfig::Loop(_) => {
            FirstPosition::Latest
        }
        // It is kept in an inbox, which begins with its first event.
        SourceConfig::Http(_)
        | SourceConfig::Webhook(_)
        | SourceConfig::Signal(_)
        | SourceConfig::Files(_)
        | SourceConfig::Sqs(_)
        | SourceConfig::Alerts(_)
        | SourceConfig::After(_)
        | SourceConfig::Topic(_)
        | SourceConfig::Poll(_) => FirstPosition::Earliest,
    }
}

/// Where output of tasks goes.
pub type LogSink = Box<dyn FnMut(LogLine) + Send>;

/// A piece of output of user code, with what it belongs to (W20).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// DAG id; `None` for output of a worker outside any dispatch.
    pub dag: Option<Arc<str>>,
    /// Run id.
    pub run: Option<Arc<str>>,
    /// Task id.
    pub task: Option<Arc<str>>,
    /// Position of the member's event, for output tagged with a member.
    pub position: Option<u64>,
    /// Its lane's name.
    pub lane: Option<Arc<str>>,
    /// Key of its event, of the first where there are several, as far as it is kept.
    pub key: Option<Bytes>,
    /// 1 for the first try; 0 when unknown.
    pub try_number: u32,
    /// Slot of the worker that it came from.
    pub worker: Option<u16>,
    /// Where it came from.
    pub origin: LogOrigin,
    /// The text, as written.
    pub text: Bytes,
}

/// Why an engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else has the data directory, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] evermill_store::LockError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first commit (boot epoch, fence) failed.
    #[error("the store cannot be written: {0}")]
    Commit(#[from] evermill_store::CommitError),
    /// What the store holds does not fit together.
    #[error("the stored state cannot be resumed: {0}")]
    Resume(String),
    /// A copy of a store is no whole store.
    #[error("the copy is not sound: {0}")]
    Copy(String),
    /// No executor could be made.
    #[error("no workers: {0}")]
    Executor(String),
    /// The operating system refused a thread or a directory.
    #[error("{doing}: {cause}")]
    System {
        /// What was being done.
        doing: String,
        /// The refusal.
        cause: std::io::Error,
    },
}
