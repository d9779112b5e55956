//! An engine in this process, on a data directory of its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use evermill_connectors::Environment;
use evermill_contract::manifest::{BundleFile, DagManifest, FORMAT, Manifest};
use evermill_contract::source::{DiagnosticSink, Severity};
use evermill_engine::view::RunView;
use evermill_engine::{
    Clock, EngineError, Handle, NoSettings, Notice, NoticeSink, OpenError, OpenOptions, Settings,
    SourceFactory, StartRequest, store_options,
};
use evermill_store::{DirLock, LockError, SqliteStore};
use evermill_worker::{Pools, Sinks};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::closure::Dag;

/// Longer than any run.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// How long what is in flight may take to settle when every run has ended.
const GRACE: Duration = Duration::from_secs(10);

/// Where engines come from.
#[derive(Debug, Clone, Copy)]
pub struct Engine;

impl Engine {
    /// An engine of this process that keeps everything in `data_dir`.
    #[must_use]
    pub fn local(data_dir: impl AsRef<Path>) -> Local {
        Local {
            data_dir: data_dir.as_ref().to_owned(),
            connections: BTreeMap::new(),
            workers: std::thread::available_parallelism()
                .map_or(1, usize::from)
                .try_into()
                .unwrap_or(u16::MAX),
            notices: Notices(Arc::new(|_| {})),
        }
    }
}

/// An engine that is not open yet.
#[derive(Debug, Clone)]
pub struct Local {
    data_dir: PathBuf,
    connections: BTreeMap<String, String>,
    workers: u16,
    notices: Notices,
}

/// Where what the engine has to say goes.
#[derive(Clone)]
struct Notices(Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notices")
    }
}

/// Why an engine did not run a DAG.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the data directory, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The engine could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The DAG could not be started, or the engine has stopped.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The declaration is no DAG: what is wrong with it.
    #[error("DAG '{dag}': {why}")]
    Declared {
        /// Its id.
        dag: String,
        /// The field, and what was expected.
        why: String,
    },
    /// The system refused something.
    #[error("{doing}: {cause}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Its reason.
        cause: std::io::Error,
    },
}

impl Local {
    /// Where a connection leads: `HOST:PORT,...` or `kafka://HOST:PORT,...?setting=value`.
    #[must_use]
    pub fn connection(mut self, id: &str, address: &str) -> Self {
        self.connections.insert(id.to_owned(), address.to_owned());
        self
    }

    /// How many events are worked on at once; the number of processors unless somebody says.
    #[must_use]
    pub fn workers(mut self, workers: u16) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Where warnings and errors of the engine go, such as a broker that is away; nowhere unless
    /// somebody says.
    #[must_use]
    pub fn notices(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.notices = Notices(Arc::new(tell));
        self
    }

    /// Runs a DAG until its run has ended by itself, which one with a source never does; a DAG without
    /// one runs once.
    ///
    /// # Errors
    /// [`Error`], with the cure where one is known.
    pub async fn run(self, dag: Dag) -> Result<RunView, Error> {
        let running = self.start(dag)?;
        running.ended().await?;
        running.drain(GRACE)
    }

    /// Opens the engine and switches the DAG on. It goes on until [`Running::drain`], or until what
    /// this returns is dropped.
    ///
    /// # Errors
    /// [`Error`], with the cure where one is known.
    pub fn start(self, dag: Dag) -> Result<Running, Error> {
        let build = build()?;
        let request = request(&dag, &build)?;
        let lock = DirLock::take(&self.data_dir)?;
        let system = |cause| Error::System {
            doing: "the data directory",
            cause,
        };
        let data_dir = std::path::absolute(lock.dir()).map_err(system)?;
        let mut first = Some(lock);
        let dir = data_dir.clone();
        let (workers, tasks, Notices(tell)) = (self.workers, dag.closures(), self.notices);
        let notices: NoticeSink = Arc::new(move |notice: &Notice<'_>| {
            if notice.severity >= Severity::Warning {
                tell(notice.text);
            }
        });
        let settings: Arc<dyn Settings> = Arc::new(NoSettings);
        let told = evermill_engine::diagnostics(&settings, &notices);
        let sinks = dag.has_sinks().then(|| sinks(&self.connections, &told));
        let engine = evermill_engine::Engine::open(OpenOptions {
            data_dir,
            store: Box::new(move || {
                let lock = first.take().map_or_else(|| DirLock::take(&dir), Ok)?;
                Ok(Box::new(SqliteStore::open(lock, store_options())?))
            }),
            executor: Box::new(move |events| {
                Ok(Box::new(Pools::native(workers, tasks, sinks, events)?))
            }),
            sources: sources(self.connections),
            settings,
            pools: BTreeMap::new(),
            clock: Clock::system(),
            log: Box::new(drop),
            retain_logs: evermill_engine::LogRetention::default(),
            notices,
            alerts: Arc::new(evermill_contract::alert::Nobody),
            traces: None,
        })?;
        let run = engine.start(&request)?.run;
        if dag.sources.is_empty() {
            engine.trigger_once(&run)?;
        }
        Ok(Running { engine, run })
    }
}

fn sources(connections: BTreeMap<String, String>) -> SourceFactory {
    Arc::new(move |request| {
        let environment = Environment {
            connection: &|id| connections.get(id).cloned(),
            start_date: request.start_date,
            budget: request.budget,
            diagnostics: request.diagnostics,
        };
        evermill_connectors::open_source(request.source, &environment)
            .map_err(|error| error.to_string())
    })
}

fn sinks(connections: &BTreeMap<String, String>, notices: &DiagnosticSink) -> Sinks {
    let (connections, notices) = (connections.clone(), Arc::clone(notices));
    Sinks::new(move |config| {
        let address = |id: &str| connections.get(id).cloned();
        evermill_connectors::open_sink(config, &address, Arc::clone(&notices))
            .map_err(|error| error.to_string())
    })
}

/// The build id (W17): closures cannot be compared, so another program is another version.
fn build() -> Result<String, Error> {
    let read = std::env::current_exe().and_then(std::fs::read);
    let program = read.map_err(|cause| Error::System {
        doing: "this program's file, whose content is its version",
        cause,
    })?;
    Ok(hex(&program))
}

fn hex(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn request(dag: &Dag, build: &str) -> Result<StartRequest, Error> {
    const ENTRY: &str = "build";
    let mut fields = dag.fields.clone();
    fields.insert("id".to_owned(), json!(dag.id));
    fields.insert("file".to_owned(), json!(ENTRY));
    fields.insert("line".to_owned(), json!(0));
    fields.insert("sources".to_owned(), json!(dag.sources));
    fields.insert("tasks".to_owned(), json!(dag.tasks));
    let declared: DagManifest =
        serde_json::from_value(Value::Object(fields)).map_err(|why| Error::Declared {
            dag: dag.id.clone(),
            why: why.to_string(),
        })?;
    let content = Bytes::from(build.to_owned());
    let file = BundleFile {
        path: ENTRY.to_owned(),
        sha256: hex(&content),
    };
    Ok(StartRequest {
        manifest: Arc::new(Manifest {
            format: FORMAT,
            entry: ENTRY.to_owned(),
            dags: vec![declared],
            files: vec![file],
        }),
        dag: dag.id.clone(),
        files: BTreeMap::from([(ENTRY.to_owned(), content)]),
        folder: PathBuf::new(),
        fresh: false,
        pass_gaps: false,
    })
}

/// A run that goes on in this process.
pub struct Running {
    engine: Handle,
    run: String,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// How it stands, as of the last commit; at most about 100 ms old while work is done.
    #[must_use]
    pub fn view(&self) -> Option<RunView> {
        self.engine.view().run(&self.run).cloned()
    }

    /// Waits until every source was read to its end and nothing has been in flight for `quiet`.
    /// Blocks this thread.
    pub fn wait_idle(&self, quiet: Duration) {
        drop(self.engine.wait_idle(quiet, None));
    }

    /// Waits until the run has ended by itself.
    ///
    /// # Errors
    /// When there is no thread to wait on.
    pub async fn ended(&self) -> Result<(), Error> {
        let told = Told::default();
        let (teller, engine) = (told.clone(), self.engine.clone());
        let wait = move || {
            drop(engine.wait_idle(FOR_EVER, None));
            teller.tell();
        };
        let thread = std::thread::Builder::new()
            .name("ended".to_owned())
            .spawn(wait);
        thread.map_err(|cause| Error::System {
            doing: "a thread that waits",
            cause,
        })?;
        told.await;
        Ok(())
    }

    /// Reads nothing more, settles what was read within `grace`, and closes the engine. The next start
    /// on the same data directory goes on from there. Blocks this thread.
    ///
    /// # Errors
    /// When the engine has stopped by itself.
    pub fn drain(self, grace: Duration) -> Result<RunView, Error> {
        self.engine.drain(grace)?;
        let view = self.engine.view();
        Ok(view.run(&self.run).cloned().ok_or(EngineError::Closed)?)
    }
}

/// Something that happens once, on another thread.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<(bool, Option<Waker>)>>);

impl Told {
    fn tell(&self) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Future for Told {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(context.waker().clone());
        Poll::Pending
    }
}
