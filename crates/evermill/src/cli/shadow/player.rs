//! The engine of a shadow, and what stands in for the world outside.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use evermill_contract::manifest::DagManifest;
use evermill_contract::sink::{Record, Sink, SinkError};
use evermill_contract::source::{
    FirstPosition, LaneFound, LaneName, Opened, Origin, Resolved, Source, SourceError, SourceEvent,
    Waker,
};
use evermill_engine::view::PastActivation;
use evermill_engine::{
    Clock, Engine, EngineError, Handle, OpenOptions, Operations as _, PastQuery, Settings, limits,
};
use evermill_store::DirLock;
use evermill_worker::{Answer, Shadow, Sinks, Withheld};

use super::{Live, Place, Report, Request, remembering};
use crate::cli::run::{self, files::Files};
use crate::cli::test::commands::without_waits;
use crate::cli::test::once::{Event, batch};
use crate::config::{Config, Retain};
use crate::failure::Failure;
use crate::screen::Screen;
use crate::store;
use crate::vault::Vault;

const NO_GRACE: Duration = Duration::ZERO;
/// How often it is looked whether a round has settled.
const LOOK: Duration = Duration::from_millis(20);
/// History of a shadow: far more than one round.
const HISTORY_BYTES: u64 = 64 << 20;

/// What is not done outside.
#[derive(Clone)]
pub(super) struct Outside(Arc<Mutex<Kept>>);

struct Kept {
    records: u64,
    requests: u64,
    /// The first ones, so many at most.
    shown: Vec<Request>,
    shown_max: usize,
    /// What the run was answered, by task: JSON, or why the task failed.
    answers: BTreeMap<(Place, String), Answer>,
}

impl Outside {
    pub(super) fn new(shown_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Kept {
            records: 0,
            requests: 0,
            shown: Vec::new(),
            shown_max,
            answers: BTreeMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Each statement leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tasks of this round that ask get what was answered in the run.
    pub(super) fn answers(&self, live: &BTreeMap<Place, PastActivation>) {
        let of_activation = live.iter().flat_map(|(place, activation)| {
            activation.tasks.iter().map(|task| {
                let answer = if task.state == "failed" {
                    let why = task
                        .error
                        .as_ref()
                        .map(|error| format!("in the run: {error}"));
                    Err(why.unwrap_or_else(|| "it failed in the run".to_owned()))
                } else {
                    Ok(task
                        .result
                        .as_ref()
                        .and_then(evermill_engine::view::Blob::bytes))
                };
                ((place.clone(), task.task.clone()), answer)
            })
        });
        self.lock().answers = of_activation.collect();
    }

    pub(super) fn tell(&self, report: &mut Report) {
        let mut kept = self.lock();
        (report.not_sent, report.not_asked) = (kept.records, kept.requests);
        report.requests = std::mem::take(&mut kept.shown);
    }

    fn ask(&self, withheld: &Withheld<'_>) -> Answer {
        let mut kept = self.lock();
        kept.requests += 1;
        if kept.shown.len() < kept.shown_max {
            kept.shown.push(Request {
                lane: withheld.lane.to_owned(),
                position: withheld.position,
                task: withheld.task.to_owned(),
                request: withheld.request.clone(),
            });
        }
        let place = (withheld.lane.to_owned(), withheld.position);
        let known = kept.answers.get(&(place, withheld.task.to_owned()));
        // A task that the run has not.
        known.cloned().unwrap_or(Ok(None))
    }
}

/// Takes what is to be sent, and counts it.
struct Swallow(Outside);

impl Sink for Swallow {
    fn send(&self, records: Vec<Record>, _wait: Duration) -> Vec<Result<(), SinkError>> {
        self.0.lock().records += records.len() as u64;
        records.into_iter().map(|_| Ok(())).collect()
    }
}

/// Where the events of one source go in.
type Door = (Sender<Vec<Event>>, Receiver<Vec<Event>>);

/// The engine.
pub(super) struct Player {
    engine: Handle,
    screen: Arc<Screen>,
    run: String,
    pub(super) version: String,
    /// By source id.
    doors: BTreeMap<String, Door>,
}

impl Player {
    pub(super) fn open(
        files: &Files,
        dag: &DagManifest,
        workers: Option<u16>,
        config: Config,
        (place, sdk): (&Path, &Path),
        outside: &Outside,
    ) -> Result<Self, Failure> {
        let screen = Screen::with(config.log);
        let swallow = outside.clone();
        let sinks = Sinks::new(move |_| Ok(Box::new(Swallow(swallow.clone()))));
        let asked = outside.clone();
        let shadow = Shadow::new(move |withheld| asked.ask(withheld));
        let workers = run::pools(workers, files, sdk).in_shadow(sinks, shadow);
        let notices = run::notices(&screen);
        let settings: Arc<dyn Settings> = Arc::new(Vault::open(&config)?);
        let told = evermill_engine::diagnostics(&settings, &notices);
        let of_workers = Arc::clone(&settings);
        let ids = dag.sources.iter().map(|source| source.id.clone());
        // One round at a time, and the next when it has settled.
        let doors: BTreeMap<String, Door> = ids.map(|id| (id, bounded(1))).collect();
        let open = doors.clone();
        let data_dir = place.join("data");
        let lock = DirLock::take(&data_dir).map_err(|cause| Failure::failed(cause.to_string()))?;
        let retain = Retain {
            bytes: HISTORY_BYTES,
            ..config.retain
        };
        let engine = Engine::open(OpenOptions {
            data_dir,
            store: store::factory(lock, retain),
            executor: Box::new(move |events| workers.start(of_workers, told, events)),
            sources: Arc::new(move |request| {
                let events = open
                    .get(&request.source.id)
                    .map(|(_, events)| events.clone());
                let events = events.ok_or("it has no such source")?;
                Ok(Opened::Log(Box::new(Follows::new(events))))
            }),
            settings,
            pools: config.pools,
            clock: Clock::system(),
            log: run::log_lines(&screen, false),
            retain_logs: evermill_engine::LogRetention::default(),
            notices,
            alerts: Arc::new(evermill_contract::alert::Nobody),
            traces: None,
        });
        let engine = engine.map_err(|error| Failure::failed(error.to_string()))?;
        let request = files.requests(true, false).find(|(_, it)| it.id == dag.id);
        let (request, _) = request.expect("it was found in the file");
        let started = engine.start(&remembering(without_waits(request)));
        let started = started.map_err(|error: EngineError| Files::explain(&error))?;
        Ok(Self {
            engine,
            screen,
            run: started.run,
            version: started.version,
            doors,
        })
    }

    /// Feeds a round and waits until it has settled; false when somebody wants it to end.
    pub(super) fn play(&self, round: &Live, signalled: &Receiver<()>) -> Result<bool, Failure> {
        let mut by_source: BTreeMap<&str, Vec<Event>> = BTreeMap::new();
        for (source, event) in round.events.values() {
            by_source.entry(source).or_default().push(event.clone());
        }
        let settled = || {
            let view = self.engine.fresh_view();
            let view = view.map_err(|error| Failure::failed(error.to_string()))?;
            let run = view.runs.iter().find(|run| run.run == self.run);
            Ok::<_, Failure>(run.map_or(0, |run| run.done + run.skipped + run.parked + run.dropped))
        };
        let mut wanted = settled()?;
        for (source, events) in by_source {
            // A source that the other version has not: its events come only in the run.
            if let Some((door, _)) = self.doors.get(source) {
                wanted += events.len() as u64;
                // The other end is held here.
                drop(door.send(events));
            }
        }
        while settled()? < wanted {
            if signalled.recv_timeout(LOOK).is_ok() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What it has settled at these places.
    pub(super) fn settled(
        &self,
        wanted: &BTreeMap<Place, PastActivation>,
    ) -> Result<BTreeMap<Place, PastActivation>, Failure> {
        let query = PastQuery {
            limit: limits::PAST_LISTED,
            ..PastQuery::default()
        };
        let past = self.engine.past(&self.run, &query);
        let past = past.map_err(|error| Failure::failed(error.to_string()))?;
        let place = |it: PastActivation| ((it.lane.clone(), it.position), it);
        let all = past.activations.into_iter().map(place);
        Ok(all
            .filter(|(place, _)| wanted.contains_key(place))
            .collect())
    }

    pub(super) fn close(self) {
        self.engine.drain(NO_GRACE).ok();
        self.screen.finish();
    }
}

/// A source that delivers what it is handed, by lane and in order.
struct Follows {
    events: Receiver<Vec<Event>>,
    lanes: BTreeMap<LaneName, Lane>,
    wake: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Event>,
    started: bool,
    /// It has no credit.
    shut: bool,
    /// Up to where something was delivered and not yet said to be all.
    end: Option<u64>,
}

impl Follows {
    fn new(events: Receiver<Vec<Event>>) -> Self {
        Self {
            events,
            lanes: BTreeMap::new(),
            wake: bounded(1),
        }
    }

    fn take(&mut self, events: Vec<Event>, out: &mut Vec<SourceEvent>) {
        for event in events {
            let name = LaneName::from(&*event.lane);
            let lane = self.lanes.entry(name.clone()).or_insert_with(|| {
                out.push(SourceEvent::Lane(LaneFound {
                    name,
                    incarnation: "shadow".to_owned(),
                    appeared: true,
                    shared: false,
                }));
                Lane::default()
            });
            lane.waiting.push_back(event);
        }
    }
}

impl Source for Follows {
    fn poll(&mut self, wait: Duration, out: &mut Vec<SourceEvent>) -> Result<(), SourceError> {
        for (name, lane) in self.lanes.iter_mut() {
            if !lane.started || lane.shut {
                continue;
            }
            let lane_name = name.clone();
            if let Some(last) = lane.waiting.back() {
                lane.end = Some(last.position + 1);
                let batch = batch(lane.waiting.iter());
                lane.waiting.clear();
                out.push(SourceEvent::Batch {
                    lane: lane_name,
                    batch,
                });
            } else if let Some(end) = lane.end.take() {
                out.push(SourceEvent::CaughtUp {
                    lane: lane_name,
                    end,
                });
            }
        }
        if !out.is_empty() {
            return Ok(());
        }
        select! {
            recv(self.events) -> events => {
                // The other end lives as long as the engine.
                if let Ok(events) = events {
                    self.take(events, out);
                }
            }
            recv(self.wake.1) -> _ => {}
            default(wait) => {}
        }
        Ok(())
    }

    fn resolve(&mut self, lane: &LaneName, _: FirstPosition) -> Result<Resolved, SourceError> {
        let first = self.lanes.get(lane).and_then(|lane| lane.waiting.front());
        Ok(Resolved {
            position: first.map_or(0, |first| first.position),
            origin: Origin::Earliest,
        })
    }

    fn start_lane(&mut self, lane: &LaneName, _: u64, _: Option<&str>) -> Result<(), SourceError> {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.started = true;
        }
        Ok(())
    }

    fn credit(&mut self, lane: &LaneName, open: bool) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.shut = !open;
        }
    }

    fn ack(&mut self, _: &LaneName, _: u64) {}

    fn waker(&self) -> Waker {
        let wake = self.wake.0.clone();
        Waker::new(move || {
            // One is enough to be awake.
            wake.try_send(()).ok();
        })
    }

    fn close(&mut self) {}
}
