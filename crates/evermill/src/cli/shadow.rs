//! `evermill shadow RUN FILE`: another version of a DAG on the same events, without effects of ours.
//!
//! The events are those that the run has settled and its history remembers whole. They go through an
//! engine in memory that reads no source, acknowledges nothing and sends nothing; what comes of each is
//! compared with what came of it in the run, by lane and position.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::select;
use evermill_contract::manifest::{DagManifest, History, Manifest};
use evermill_contract::sink::{Record, Sink, SinkError};
use evermill_contract::source::{DiagnosticSink, Opened};
use evermill_engine::view::{Blob, PastActivation, PastTask, PastView};
use evermill_engine::{
    Clock, Engine, EngineError, Handle, OpenOptions, Operations as _, PastQuery, Settings,
    StartRequest, limits,
};
use evermill_store::{MemoryDisk, MemoryStore, StoreId};
use evermill_worker::Sinks;
use serde::Serialize;
use serde_json::Value;

use super::run::{self, files, files::Files};
use super::test::commands::without_waits;
use super::test::once::{Event, Once};
use crate::config::Config;
use crate::failure::Failure;
use crate::reach::{Reach, get, part};
use crate::screen::Screen;
use crate::table::{first_line, print, table};
use crate::vault::Vault;
use crate::{sdk, signals};

/// What can be typed behind `shadow`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG id (its latest run) or a run id, as `evermill ps` lists them
    run: String,
    /// The file with the other version; it holds a DAG of the same id
    file: PathBuf,
    /// How many of the latest settled activations
    #[arg(long, value_name = "N", default_value_t = 200)]
    last: usize,
    /// Differences that are shown
    #[arg(long, value_name = "N", default_value_t = 10)]
    examples: usize,
    /// How many workers [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    workers: Option<u16>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Nothing more is about to happen when nothing has for so long.
const QUIET: Duration = Duration::from_millis(200);
const NO_GRACE: Duration = Duration::ZERO;
/// Characters of a value that are shown.
const VALUE_WIDTH: usize = 40;

/// What the comparison comes to.
#[derive(Debug, Default, Serialize)]
struct Report {
    run: String,
    /// Of the run, and of the file.
    versions: [String; 2],
    equal: u64,
    different: u64,
    /// Settled in the run and not in the shadow, and the other way round.
    only_live: u64,
    only_shadow: u64,
    /// Not compared: a child activation, or one whose event is not remembered whole.
    left_out: u64,
    /// What tasks gave to places outside, and was not sent.
    not_sent: u64,
    examples: Vec<Difference>,
}

/// Where they part.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    lane: String,
    position: u64,
    /// Empty where it is the activation's own end.
    task: String,
    live: String,
    shadow: String,
}

/// Compares; fails when there is a difference.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir.clone())?;
    let detail = reach.run(&args.run)?;
    let last = args.last.min(limits::PAST_LISTED);
    let path = format!(
        "runs/{}/activations?payload=true&limit={last}",
        part(&detail.run.run)
    );
    let past: Result<PastView, _> = reach.ask(&get(&path));
    reach.close()?;
    let mut report = Report {
        run: detail.run.run.clone(),
        ..Report::default()
    };
    let live = Live::of(past?, &detail.run.run, &mut report);
    if live.activations.is_empty() {
        return Err(Failure::failed(format!(
            "run '{}' remembers no settled activation whole: there is nothing to compare with. history=\"full\" \
             of a DAG remembers each",
            detail.run.run
        )));
    }
    let place = tempfile::tempdir();
    let place = place.map_err(|cause| Failure::failed(format!("no temporary folder: {cause}")))?;
    let sdk = sdk::folder(place.path())?;
    let files = files::load(std::slice::from_ref(&args.file), &sdk)?;
    let dag = files.dags().find(|dag| dag.id == detail.run.dag);
    let dag = dag.ok_or_else(|| {
        Failure::usage(format!(
            "{} has no DAG '{}'",
            args.file.display(),
            detail.run.dag
        ))
    })?;
    check(dag)?;
    let config = Config::read(data_dir, &[])?;
    let sent = Arc::new(AtomicU64::new(0));
    let shadow = play(
        &files,
        dag,
        &live,
        args.workers,
        config,
        (place.path(), &sdk),
        &sent,
    )?;
    report.not_sent = sent.load(Ordering::Relaxed);
    report.versions = [detail.run.version.clone(), shadow.version];
    compare(
        &live.activations,
        &shadow.activations,
        args.examples,
        &mut report,
    );
    if args.json {
        print(&super::replay::line(&report))?;
    } else {
        print(&text(&report))?;
    }
    let apart = report.different + report.only_live + report.only_shadow;
    match apart {
        0 => Ok(()),
        _ => Err(Failure::failed(format!(
            "{apart} of {} activations came to something else",
            apart + report.equal
        ))),
    }
}

/// A shadow would do outside what it only looks like doing.
fn check(dag: &DagManifest) -> Result<(), Failure> {
    if let Some(task) = dag.tasks.iter().find(|task| task.http.is_some()) {
        return Err(Failure::usage(format!(
            "task '{}' of DAG '{}' is a request over HTTP, and a shadow would send it once more",
            task.id, dag.id
        )));
    }
    if dag.sources.iter().any(|source| source.join.is_some()) {
        return Err(Failure::usage(format!(
            "DAG '{}' joins events of several sources; which ones met is not known here",
            dag.id
        )));
    }
    Ok(())
}

type Place = (String, u64);

/// What the run has settled.
struct Live {
    /// By source id.
    events: BTreeMap<String, Vec<Event>>,
    activations: BTreeMap<Place, PastActivation>,
}

impl Live {
    fn of(past: PastView, run: &str, report: &mut Report) -> Self {
        let mut live = Self {
            events: BTreeMap::new(),
            activations: BTreeMap::new(),
        };
        for activation in past.activations {
            let place = (activation.lane.clone(), activation.position);
            // `run/source/lane/position`: whoever has more is a child.
            let end = format!("/{}/{}", activation.lane, activation.position);
            let source = activation.id.strip_prefix(&format!("{run}/"));
            let source = source.and_then(|rest| rest.strip_suffix(&end));
            let [event] = &activation.payload[..] else {
                report.left_out += 1;
                continue;
            };
            let apart = ["replay-", "before-reset-"];
            let is_apart = apart.iter().any(|word| activation.lane.starts_with(word));
            let whole = event.value.is_some() || event.key.is_some();
            let Some(source) = source.filter(|_| !is_apart) else {
                report.left_out += 1;
                continue;
            };
            // A clock's event has neither, and is whole.
            if !whole && event.timestamp_ms.is_none() {
                report.left_out += 1;
                continue;
            }
            let events = live.events.entry(source.to_owned()).or_default();
            events.push(Event {
                position: event.position,
                timestamp_ms: event.timestamp_ms,
                key: event.key.clone(),
                headers: event.headers.clone(),
                value: event.value.clone(),
                lane: activation.lane.clone(),
            });
            live.activations.insert(place, activation);
        }
        live
    }
}

/// What the shadow came to.
struct Shadow {
    version: String,
    activations: BTreeMap<Place, PastActivation>,
}

/// Takes what is to be sent, and counts it.
struct Swallow(Arc<AtomicU64>);

impl Sink for Swallow {
    fn send(&self, records: Vec<Record>, _wait: Duration) -> Vec<Result<(), SinkError>> {
        self.0.fetch_add(records.len() as u64, Ordering::Relaxed);
        records.into_iter().map(|_| Ok(())).collect()
    }
}

fn play(
    files: &Files,
    dag: &DagManifest,
    live: &Live,
    workers: Option<u16>,
    config: Config,
    (place, sdk): (&Path, &Path),
    sent: &Arc<AtomicU64>,
) -> Result<Shadow, Failure> {
    let signalled = signals::catch()?;
    let screen = Screen::new();
    let counted = Arc::clone(sent);
    let sinks = Sinks::new(move |_| Ok(Box::new(Swallow(Arc::clone(&counted)))));
    let workers = run::pools(workers, files, sdk).in_shadow(sinks);
    let notices: DiagnosticSink = {
        let screen = Arc::clone(&screen);
        Arc::new(move |severity, text: &str| run::notice(&screen, severity, text))
    };
    let (told, disk) = (Arc::clone(&notices), MemoryDisk::new(StoreId([0; 16])));
    let settings: Arc<dyn Settings> = Arc::new(Vault::open(&config)?);
    let of_workers = Arc::clone(&settings);
    let events = live.events.clone();
    let engine = Engine::open(OpenOptions {
        data_dir: place.join("data"),
        store: Box::new(move || Ok(Box::new(MemoryStore::open(&disk)))),
        executor: Box::new(move |events| workers.start(of_workers, told, events)),
        sources: Arc::new(move |request| {
            let own = events.get(&request.source.id).map_or(&[][..], |own| own);
            Ok(Opened::Log(Box::new(Once::new(own))))
        }),
        settings,
        pools: config.pools,
        clock: Clock::system(),
        log: run::log_lines(&screen, false),
        notices,
        alerts: Arc::new(evermill_contract::alert::Nobody),
    });
    let engine = engine.map_err(|error| Failure::failed(error.to_string()))?;
    let request = files.requests(true, false).find(|(_, it)| it.id == dag.id);
    let (request, _) = request.expect("it was found in the file");
    let started = engine.start(&remembering(without_waits(request)));
    let started = started.map_err(|error: EngineError| Files::explain(&error))?;
    let idle = run::idle(engine.clone(), QUIET, None)?;
    select! {
        recv(idle) -> _ => {}
        recv(signalled) -> _ => {
            engine.drain(NO_GRACE).ok();
            return Err(Failure::failed("interrupted"));
        }
    }
    let activations = settled(&engine, &started.run);
    engine.drain(NO_GRACE).ok();
    Ok(Shadow {
        version: started.version,
        activations: activations?,
    })
}

/// Each activation of it is remembered, however fast they come.
fn remembering(request: StartRequest) -> StartRequest {
    let mut manifest = Manifest::clone(&request.manifest);
    for dag in &mut manifest.dags {
        dag.history = History::Full;
        for task in &mut dag.tasks {
            task.history = None;
        }
    }
    StartRequest {
        manifest: Arc::new(manifest),
        ..request
    }
}

fn settled(engine: &Handle, run: &str) -> Result<BTreeMap<Place, PastActivation>, Failure> {
    let wanted = PastQuery {
        limit: limits::PAST_LISTED,
        ..PastQuery::default()
    };
    let past = engine.past(run, &wanted);
    let past = past.map_err(|error| Failure::failed(error.to_string()))?;
    let place = |it: PastActivation| ((it.lane.clone(), it.position), it);
    Ok(past.activations.into_iter().map(place).collect())
}

fn compare(
    live: &BTreeMap<Place, PastActivation>,
    shadow: &BTreeMap<Place, PastActivation>,
    examples: usize,
    report: &mut Report,
) {
    let places: BTreeSet<&Place> = live.keys().chain(shadow.keys()).collect();
    for place in places {
        let (live, shadow) = (live.get(place), shadow.get(place));
        let found = match (live, shadow) {
            (Some(live), Some(shadow)) => differences(live, shadow),
            (one, other) => {
                let ended = |it: Option<&PastActivation>| {
                    it.map_or_else(|| "not settled".to_owned(), |it| it.ended.clone())
                };
                let (count, whole) = match one {
                    Some(_) => (&mut report.only_live, (ended(one), ended(other))),
                    None => (&mut report.only_shadow, (ended(one), ended(other))),
                };
                *count += 1;
                let told = difference(place, "", whole);
                if report.examples.len() < examples {
                    report.examples.push(told);
                }
                continue;
            }
        };
        if found.is_empty() {
            report.equal += 1;
            continue;
        }
        report.different += 1;
        let room = examples.saturating_sub(report.examples.len());
        report.examples.extend(found.into_iter().take(room));
    }
}

/// How two activations of one event differ: in what a task returned or how it ended, else as a whole.
fn differences(live: &PastActivation, shadow: &PastActivation) -> Vec<Difference> {
    let place = (live.lane.clone(), live.position);
    let by_id = |tasks: &[PastTask]| -> BTreeMap<String, PastTask> {
        tasks
            .iter()
            .map(|task| (task.task.clone(), task.clone()))
            .collect()
    };
    let (ours, theirs) = (by_id(&live.tasks), by_id(&shadow.tasks));
    let ids: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let mut found = Vec::new();
    for id in ids {
        let (one, other) = (ours.get(id), theirs.get(id));
        let state = |task: Option<&PastTask>| task.map(|task| task.state.clone());
        let value = |task: Option<&PastTask>| task.and_then(|task| json(task.result.as_ref()));
        if state(one) == state(other) && value(one) == value(other) {
            continue;
        }
        let told = |task: Option<&PastTask>| match task {
            None => "no such task".to_owned(),
            Some(task) => json(task.result.as_ref()).map_or_else(
                || task.state.clone(),
                |value| format!("{} {value}", task.state),
            ),
        };
        found.push(difference(&place, id, (told(one), told(other))));
    }
    if found.is_empty() && live.ended != shadow.ended {
        let ended = (live.ended.clone(), shadow.ended.clone());
        found.push(difference(&place, "", ended));
    }
    found
}

fn difference(
    (lane, position): &Place,
    task: &str,
    (live, shadow): (String, String),
) -> Difference {
    Difference {
        lane: lane.clone(),
        position: *position,
        task: task.to_owned(),
        live,
        shadow,
    }
}

/// A result, so that the order of names in an object is no difference.
fn json(result: Option<&Blob>) -> Option<Value> {
    let bytes = result?.bytes()?;
    serde_json::from_slice(&bytes).ok()
}

fn text(report: &Report) -> String {
    let short = |version: &str| version[..version.len().min(12)].to_owned();
    let [live, shadow] = &report.versions;
    let mut text = format!(
        "{} equal, {} different, {} only in run {}, {} only in the shadow; version {} beside {}\n",
        report.equal,
        report.different,
        report.only_live,
        report.run,
        report.only_shadow,
        short(live),
        short(shadow)
    );
    if report.left_out > 0 {
        text.push_str(&format!(
            "{} were not compared: not remembered whole\n",
            report.left_out
        ));
    }
    if report.not_sent > 0 {
        text.push_str(&format!(
            "{} records for places outside were not sent\n",
            report.not_sent
        ));
    }
    let row = |it: &Difference| {
        let task = if it.task.is_empty() { "-" } else { &it.task };
        [
            format!("{}@{}", it.lane, it.position),
            task.to_owned(),
            first_line(&it.live, VALUE_WIDTH),
            first_line(&it.shadow, VALUE_WIDTH),
        ]
    };
    if !report.examples.is_empty() {
        let rows = report.examples.iter().map(row).collect();
        text.push_str(&table(["EVENT", "TASK", "LIVE", "SHADOW"], rows, 4));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activation(position: u64, state: &str, result: &str) -> PastActivation {
        PastActivation {
            id: format!("r/s/l/{position}"),
            lane: "l".into(),
            position,
            ended: "done".into(),
            round: 0,
            arrived_ms: 0,
            settled_ms: 0,
            tasks: vec![PastTask {
                task: "t".into(),
                state: state.into(),
                tries: 1,
                instances: None,
                took_ms: None,
                result: Some(Blob::Text(result.into())),
                error: None,
            }],
            payload: Vec::new(),
        }
    }

    fn by_place(all: Vec<PastActivation>) -> BTreeMap<Place, PastActivation> {
        let place = |it: PastActivation| ((it.lane.clone(), it.position), it);
        all.into_iter().map(place).collect()
    }

    #[test]
    fn what_came_of_an_event_is_compared_by_task_state_and_value() {
        let live = by_place(vec![
            activation(1, "success", r#"{"a":1,"b":2}"#),
            activation(2, "success", "5"),
            activation(3, "success", "5"),
            activation(4, "success", "5"),
        ]);
        let shadow = by_place(vec![
            activation(1, "success", r#"{"b":2,"a":1}"#),
            activation(2, "success", "6"),
            activation(3, "failed", "5"),
            activation(9, "success", "5"),
        ]);
        let mut report = Report::default();
        compare(&live, &shadow, 3, &mut report);
        assert_eq!((report.equal, report.different), (1, 2));
        assert_eq!((report.only_live, report.only_shadow), (1, 1));
        assert_eq!(report.examples.len(), 3, "no more than asked for");
        let first = &report.examples[0];
        assert_eq!((first.position, &*first.task), (2, "t"));
        assert_eq!((&*first.live, &*first.shadow), ("success 5", "success 6"));
    }
}
