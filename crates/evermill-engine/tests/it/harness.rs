//! An engine on a fake world that outlives it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_contract::alert::{Alert, AlertKind, AlertSink};
use evermill_contract::manifest::{Manifest, SourceConfig};
use evermill_contract::source::Opened;
use evermill_contract::trace::TraceTaker;
use evermill_contract::worker::Outcome;
use evermill_core::row::{Row, Table};
use evermill_engine::view::RunView;
use evermill_engine::{
    Clock, Engine, Handle, LogLine, NoSettings, OpenError, OpenOptions, SourceFactory,
    StartRequest, Started, StoreFactory, Subject,
};
use evermill_store::{
    DirLock, Faults, FaultyStore, MemoryDisk, MemoryStore, Options, SqliteStore, Store, StoreId,
};

use crate::broker::Broker;
use crate::executor::Workers;
use crate::gate::{Gate, GatedStore};
use crate::queue::Queue;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What survives an engine: broker, disk, ledger.
pub(crate) struct World {
    pub(crate) broker: Broker,
    /// What sources of these ids read in its place.
    pub(crate) others: BTreeMap<String, Broker>,
    /// What sources are, in place of a broker's.
    pub(crate) opens: Option<Arc<dyn Fn() -> Opened + Send + Sync>>,
    pub(crate) workers: Workers,
    pub(crate) faults: Faults,
    pub(crate) gate: Gate,
    pub(crate) disk: Disk,
    pub(crate) notices: Arc<Mutex<Vec<String>>>,
    /// What the notices are about, likewise.
    pub(crate) subjects: Arc<Mutex<Vec<Subject>>>,
    pub(crate) lines: Arc<Mutex<Vec<LogLine>>>,
    pub(crate) alerts: Arc<Mutex<Vec<Alert>>>,
    pub(crate) traces: Option<Arc<dyn TraceTaker>>,
    /// Where alerts go in place of `alerts`.
    pub(crate) hooks: Option<AlertSink>,
    /// Sources that are queues, by id.
    pub(crate) queues: BTreeMap<String, Queue>,
    pub(crate) clock: Clock,
    dir: tempfile::TempDir,
}

#[derive(Clone)]
pub(crate) enum Disk {
    Memory(MemoryDisk),
    Sqlite(PathBuf),
}

impl World {
    pub(crate) fn memory(broker: Broker, workers: Workers) -> Self {
        Self::on(
            Disk::Memory(MemoryDisk::new(StoreId([7; 16]))),
            broker,
            workers,
        )
    }

    pub(crate) fn sqlite(broker: Broker, workers: Workers) -> Self {
        let mut world = Self::on(Disk::Sqlite(PathBuf::new()), broker, workers);
        world.disk = Disk::Sqlite(world.dir.path().to_owned());
        world
    }

    fn on(disk: Disk, broker: Broker, workers: Workers) -> Self {
        Self {
            broker,
            others: BTreeMap::new(),
            opens: None,
            workers,
            faults: Faults::default(),
            gate: Gate::default(),
            disk,
            notices: Arc::default(),
            subjects: Arc::default(),
            lines: Arc::default(),
            alerts: Arc::default(),
            traces: None,
            hooks: None,
            queues: BTreeMap::new(),
            clock: Clock::system(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn open(&self) -> Handle {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Handle, OpenError> {
        let workers = self.workers.clone();
        let (notices, subjects) = (Arc::clone(&self.notices), Arc::clone(&self.subjects));
        let lines = Arc::clone(&self.lines);
        let alerts = Arc::clone(&self.alerts);
        Engine::open(OpenOptions {
            data_dir: self.dir.path().to_owned(),
            store: self.store(),
            executor: Box::new(move |events| Ok(workers.start(events))),
            sources: self.sources(),
            settings: Arc::new(NoSettings),
            pools: BTreeMap::new(),
            clock: self.clock.clone(),
            log: Box::new(move |line| lines.lock().unwrap().push(line)),
            retain_logs: evermill_engine::LogRetention::default(),
            notices: Arc::new(move |notice| {
                notices.lock().unwrap().push(notice.text.to_owned());
                subjects.lock().unwrap().push(notice.subject.clone());
            }),
            alerts: self.hooks.clone().unwrap_or_else(|| {
                Arc::new(move |alert: &Alert| alerts.lock().unwrap().push(alert.clone()))
            }),
            traces: self.traces.clone(),
        })
    }

    pub(crate) fn sources(&self) -> SourceFactory {
        let (broker, others) = (self.broker.clone(), self.others.clone());
        let (opens, queues) = (self.opens.clone(), self.queues.clone());
        Arc::new(move |request| {
            if let Some(queue) = queues.get(&request.source.id) {
                return Ok(queue.open());
            }
            let is_inside = matches!(
                request.source.config,
                SourceConfig::After(_)
                    | SourceConfig::Topic(_)
                    | SourceConfig::Alerts(_)
                    | SourceConfig::Signal(_)
            );
            if is_inside {
                return Ok(Opened::Signalled);
            }
            if let Some(opens) = &opens {
                return Ok(opens());
            }
            let named = others.get(&request.source.id).unwrap_or(&broker);
            Ok(Opened::Log(named.source(request.budget)))
        })
    }

    pub(crate) fn store(&self) -> StoreFactory {
        let (disk, faults) = (self.disk.clone(), self.faults.clone());
        let gate = self.gate.clone();
        Box::new(move || {
            let store: Box<dyn Store> = match &disk {
                Disk::Memory(disk) => Box::new(MemoryStore::open(disk)),
                Disk::Sqlite(dir) => {
                    Box::new(SqliteStore::open(DirLock::take(dir)?, Options::default())?)
                }
            };
            let inner = Box::new(FaultyStore::new(store, faults.clone()));
            let gate = gate.clone();
            let faults = faults.clone();
            Ok(Box::new(GatedStore {
                inner,
                gate,
                faults,
            }))
        })
    }

    /// What the store holds while no engine has it.
    pub(crate) fn rows(&self, table: Table) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut store = self.store()().unwrap();
        store.load(table, &mut |row| rows.push(row)).unwrap();
        rows
    }

    /// What was told of this kind.
    pub(crate) fn alerts_of(&self, kind: AlertKind) -> Vec<Alert> {
        let alerts = self.alerts.lock().unwrap();
        alerts
            .iter()
            .filter(|alert| alert.kind == kind)
            .cloned()
            .collect()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A DAG of one source, unless `sources` is empty, and these tasks (JSON of the manifest).
pub(crate) fn request(tasks: &str, source: bool) -> StartRequest {
    request_of(tasks, if source { &["in"] } else { &[] })
}

/// A DAG with this id, these sources and these tasks (JSON of the manifest).
pub(crate) fn dag(id: &str, sources: &str, tasks: &str) -> StartRequest {
    let file = Bytes::from_static(b"# a DAG file\n");
    let json = format!(
        r#"{{"format":1,"entry":"d.py","dags":[{{"id":"{id}","file":"d.py","line":1,"sources":[{sources}],"tasks":[{tasks}]}}],
            "files":[{{"path":"d.py","sha256":"{}"}}]}}"#,
        sha256(&file)
    );
    StartRequest {
        manifest: Arc::new(Manifest::decode(json.as_bytes()).unwrap()),
        dag: id.to_owned(),
        files: BTreeMap::from([("d.py".to_owned(), file)]),
        folder: PathBuf::from("dags"),
        fresh: false,
        pass_gaps: false,
    }
}

/// The same with sources of these ids.
pub(crate) fn request_of(tasks: &str, sources: &[&str]) -> StartRequest {
    let file = Bytes::from_static(b"# a DAG file\n");
    let declared = sources.iter().map(|id| {
        format!(
            r#"{{"id":"{id}","line":1,"config":{{"kind":"kafka","topic":"t","auto_offset_reset":"earliest"}}}}"#
        )
    });
    let sources = match declared.collect::<Vec<_>>().join(",") {
        none if none.is_empty() => none,
        some => format!(r#""sources":[{some}],"#),
    };
    let json = format!(
        r#"{{"format":1,"entry":"d.py","dags":[{{"id":"d","file":"d.py","line":1,{sources}"tasks":[{tasks}]}}],
            "files":[{{"path":"d.py","sha256":"{}"}}]}}"#,
        sha256(&file)
    );
    StartRequest {
        manifest: Arc::new(Manifest::decode(json.as_bytes()).unwrap()),
        dag: "d".to_owned(),
        files: BTreeMap::from([("d.py".to_owned(), file)]),
        folder: PathBuf::from("dags"),
        fresh: false,
        pass_gaps: false,
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// One task behind the source.
pub(crate) fn one_task() -> StartRequest {
    request(&after_source("work", ""), true)
}

pub(crate) fn after_source(id: &str, more: &str) -> String {
    format!(
        r#"{{"id":"{id}","kind":"call","line":2,"upstream":[{{"node":"in","kind":"source"}}]{more}}}"#
    )
}

pub(crate) fn started(handle: &Handle, request: &StartRequest) -> Started {
    handle.start(request).unwrap()
}

/// Waits until the run's committed view satisfies `done`.
pub(crate) fn until(handle: &Handle, what: &str, done: impl Fn(&RunView) -> bool) -> RunView {
    until_of(handle, "d", what, done)
}

/// The same of another DAG.
pub(crate) fn until_of(
    handle: &Handle,
    dag: &str,
    what: &str,
    done: impl Fn(&RunView) -> bool,
) -> RunView {
    let begun = Instant::now();
    loop {
        let view = handle.fresh_view().unwrap();
        let run = view.run(dag).cloned();
        if let Some(run) = run.clone().filter(|run| done(run)) {
            return run;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "waited in vain for {what}: {view:?}"
        );
        std::thread::yield_now();
    }
}

/// Workers that note each value and succeed.
pub(crate) fn recording(slots: u16) -> (Ledger, Workers) {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(slots, move |call| {
        notes.note(call.value.clone());
        Outcome::Success(None)
    });
    (ledger, workers)
}

pub(crate) fn until_true(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// What user code did: how often it ran for each value.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<BTreeMap<String, u32>>>);

impl Ledger {
    pub(crate) fn note(&self, what: impl Into<String>) {
        *self.0.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Values that did not run exactly once.
    pub(crate) fn repeated(&self) -> Vec<String> {
        let ledger = self.0.lock().unwrap();
        ledger
            .iter()
            .filter(|(_, times)| **times != 1)
            .map(|(value, _)| value.clone())
            .collect()
    }

    pub(crate) fn times(&self, what: &str) -> u32 {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

pub(crate) fn values(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|n| n.to_string())
}

/// The request with another field in each source, or in the DAG.
pub(crate) fn with(
    request: &StartRequest,
    change: impl Fn(&mut serde_json::Value),
) -> StartRequest {
    let mut json = serde_json::to_value(&*request.manifest).unwrap();
    change(&mut json["dags"][0]);
    let json = serde_json::to_vec(&json).unwrap();
    let manifest = Manifest::decode(&json).unwrap();
    StartRequest {
        manifest: Arc::new(manifest),
        ..request.clone()
    }
}
