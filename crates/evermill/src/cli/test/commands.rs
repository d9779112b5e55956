//! One activation of a DAG in YAML: an engine of its own takes it, in memory, and is gone afterwards.
//! Rules, commands and results are those of every run; only the waits between tries are left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::select;
use evermill_contract::manifest::{DagManifest, Manifest};
use evermill_contract::sink::{Record, Sink, SinkError};
use evermill_contract::source::Opened;
use evermill_engine::view::{Blob, PastActivation, PastTask};
use evermill_engine::{
    Clock, Engine, EngineError, Handle, OpenOptions, Operations as _, PastQuery, Settings,
    StartRequest,
};
use evermill_store::{MemoryDisk, MemoryStore, StoreId};
use evermill_worker::Sinks;
use serde_json::{Map, Value};

use super::once::{Event, Once};
use super::report::{Activation, Found, Task};
use crate::cli::check::graph;
use crate::cli::run;
use crate::cli::run::files::Files;
use crate::failure::Failure;
use crate::screen::{Fields, Screen};
use crate::signals;

/// Nothing more is about to happen when nothing has for so long.
const QUIET: Duration = Duration::from_millis(50);
const NO_GRACE: Duration = Duration::ZERO;
/// Of a value that is not sent, as much is shown.
const SHOWN_CHARS: usize = 500;

/// What is to be run.
pub(super) struct Given<'a> {
    pub(super) files: &'a Files,
    pub(super) dag: &'a DagManifest,
    /// Those of one activation, and where they come from.
    pub(super) events: Vec<Event>,
    pub(super) source: Option<String>,
    pub(super) conf: Option<Value>,
    pub(super) date: String,
    pub(super) settings: Arc<dyn Settings>,
    /// Places outside get what tasks send there.
    pub(super) send: bool,
}

/// Runs it to its end; how each task ended.
pub(super) fn run(given: Given<'_>, place: &Path, sdk: &Path) -> Result<Found, Failure> {
    let Given { dag, date, .. } = &given;
    if dag.sources.iter().any(|source| source.join.is_some()) {
        return Err(Failure::usage(format!(
            "DAG '{}' joins events of several sources, and a test gives one",
            dag.id
        )));
    }
    let signalled = signals::catch()?;
    let (dag, date) = (dag.id.clone(), date.clone());
    let screen = Screen::new();
    let engine = open(&given, place.join("data"), sdk, &screen)?;
    let run = start(&engine, given)?;
    let idle = run::idle(engine.clone(), QUIET, None)?;
    select! {
        recv(idle) -> _ => {}
        recv(signalled) -> _ => {
            engine.drain(NO_GRACE).ok();
            return Err(Failure::failed("interrupted: the commands under way were ended"));
        }
    }
    let past = engine.past(
        &run,
        &PastQuery {
            limit: 1,
            ..PastQuery::default()
        },
    );
    let past = past.map_err(|error| Failure::failed(error.to_string()))?;
    engine.drain(NO_GRACE).ok();
    let Some(activation) = past.activations.into_iter().next() else {
        return Err(Failure::failed(format!(
            "the event did not come to its end: a task of DAG '{dag}' waits for what a test cannot give"
        )));
    };
    Ok(Found {
        activations: vec![told(activation)],
        date,
    })
}

fn open(
    given: &Given<'_>,
    data_dir: PathBuf,
    sdk: &Path,
    screen: &Arc<Screen>,
) -> Result<Handle, Failure> {
    let mut workers = run::pools(Some(1), given.files, sdk);
    if !given.send {
        let screen = Arc::clone(screen);
        workers = workers.without_sending(Sinks::new(move |config| {
            let (screen, place) = (Arc::clone(&screen), graph::destination(config));
            Ok(Box::new(Shows { screen, place }))
        }));
    }
    let disk = MemoryDisk::new(StoreId([0; 16]));
    let (events, chosen) = (given.events.clone(), given.source.clone());
    let of_workers = Arc::clone(&given.settings);
    let notices = run::notices(screen);
    let told = evermill_engine::diagnostics(&of_workers, &notices);
    let handle = Engine::open(OpenOptions {
        data_dir,
        store: Box::new(move || Ok(Box::new(MemoryStore::open(&disk)))),
        executor: Box::new(move |events| workers.start(of_workers, told, events)),
        sources: Arc::new(move |request| {
            let is_chosen = chosen.as_ref() == Some(&request.source.id);
            let events: &[Event] = if is_chosen { &events } else { &[] };
            Ok(Opened::Log(Box::new(Once::new(events))))
        }),
        settings: Arc::clone(&given.settings),
        pools: BTreeMap::new(),
        clock: Clock::system(),
        log: run::log_lines(screen, false),
        retain_logs: evermill_engine::LogRetention::default(),
        notices,
        alerts: Arc::new(evermill_contract::alert::Nobody),
        traces: None,
    });
    handle.map_err(|error| Failure::failed(error.to_string()))
}

/// Shows what would be sent.
struct Shows {
    screen: Arc<Screen>,
    place: String,
}

impl Sink for Shows {
    fn send(&self, records: Vec<Record>, _wait: Duration) -> Vec<Result<(), SinkError>> {
        let shown = |record: Record| {
            let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
            let value: String = value.chars().take(SHOWN_CHARS).collect();
            let named = record
                .name
                .map(|name| format!(" {name}"))
                .unwrap_or_default();
            let place = &self.place;
            let text = format!("not sent {place}{named}: {value}");
            self.screen.say(&Fields::default(), &text);
            Ok(())
        };
        records.into_iter().map(shown).collect()
    }
}

fn start(engine: &Handle, given: Given<'_>) -> Result<String, Failure> {
    let refused = |error: EngineError| Files::explain(&error);
    let mut requests = given.files.requests(false, false);
    let (request, dag) = requests
        .find(|(_, dag)| dag.id == given.dag.id)
        .expect("it was chosen among them");
    let run = engine.start(&without_waits(request)).map_err(refused)?.run;
    if dag.sources.is_empty() {
        let conf = given.conf.map(|conf| conf.to_string().into());
        engine.trigger(&run, conf).map_err(refused)?;
    }
    Ok(run)
}

/// Tries follow each other at once.
pub(in crate::cli) fn without_waits(request: StartRequest) -> StartRequest {
    let mut manifest = Manifest::clone(&request.manifest);
    for task in manifest.dags.iter_mut().flat_map(|dag| &mut dag.tasks) {
        task.retry_delay_ms = Some(0);
        task.retry_exponential_backoff = false;
    }
    StartRequest {
        manifest: Arc::new(manifest),
        ..request
    }
}

fn told(past: PastActivation) -> Activation {
    Activation {
        settled: past.ended,
        tasks: past.tasks.into_iter().map(task).collect(),
    }
}

fn task(past: PastTask) -> Task {
    let mut xcoms = Map::new();
    if let Some(Blob::Text(json)) = &past.result {
        let value = serde_json::from_str(json).unwrap_or_else(|_| Value::from(json.clone()));
        xcoms.insert("return_value".to_owned(), value);
    }
    Task {
        task_id: past.task,
        map_index: -1,
        state: past.state,
        try_number: past.tries,
        xcoms,
        error: past.error,
    }
}
