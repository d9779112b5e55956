//! What changes, as it changes, for those who listen: server-sent events.
//!
//! While somebody listens, the engine's view is looked at twice a second and compared with the one before,
//! once for all listeners. What differs is made into events once, and every listener gets those that he
//! wants from the same bytes, one after the other: to write to hundreds at the same moment takes the machine from
//! those who work. Who comes back with the id of the last event he got hears what he missed while
//! that is kept, else he gets the whole picture anew; so does one who takes events too slowly.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_engine::view::{
    EngineView, LongWorkView, NoteView, Percentiles, PoolView, RunDetail, RunView, STATES,
    WorkersView,
};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};

use crate::clock::now_ms;
use crate::limits;
use crate::problem::Problem;
use crate::serve::Service;

/// A run in one line; [`RunDetail`] is all of it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RunLine {
    /// DAG id.
    dag: String,
    /// Run id.
    run: String,
    /// 64 lower-case hexadecimal digits.
    version: String,
    #[schemars(extend("enum" = STATES))]
    state: String,
    /// Events taken in; `in = done + skipped + parked + dropped + in_flight`.
    #[serde(rename = "in")]
    taken_in: u64,
    done: u64,
    skipped: u64,
    parked: u64,
    dropped: u64,
    in_flight: u64,
    /// Arrival to callable, milliseconds.
    latency_ms: Percentiles,
    /// Arrival to committed, milliseconds.
    commit_ms: Percentiles,
    /// Activations that missed a deadline.
    deadlines_missed: u64,
    /// Tasks that wait for a signal, such as somebody's answer.
    awaiting: u64,
    /// Activations that wait outside waves: a retry, a sensor, an earlier one of their order.
    waiting: u64,
    /// What a worker has been at for the longest, if for a while.
    longest: Option<LongWorkView>,
    /// Positions still to be read over all lanes, where the sources can tell.
    behind: Option<u64>,
    /// When a position last moved, milliseconds since the Unix epoch.
    progress_ms: Option<u64>,
    /// Some source is older than `freshness=` allows.
    stale: bool,
    /// What is wrong outside at the moment, with the cure; the first few.
    trouble: Vec<String>,
}

/// The engine beside its runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
struct EngineLine {
    workers: WorkersView,
    log_lines_lost: u64,
    refused_reports: u64,
    reloads: u32,
    /// Set while nothing can be committed; a sentence with the cure.
    stalled: Option<String>,
    /// What else there is to say, such as a DAG file that is broken.
    notes: Vec<NoteView>,
}

/// The whole picture; it takes the place of everything that was told before.
#[derive(Serialize, JsonSchema)]
struct Snapshot<'a> {
    engine: &'a EngineLine,
    runs: Vec<&'a RunLine>,
}

/// A run that is no longer listed.
#[derive(Serialize, JsonSchema)]
struct Gone {
    dag: String,
    run: String,
}

/// A run that was asked for and is not there.
#[derive(Serialize, JsonSchema)]
struct Missing {
    /// As it was asked for.
    run: String,
}

/// Everything up to here was told; its id is where to go on.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Told {
    /// Milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
}

/// What a listener wants to hear.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wants {
    /// Runs that he wants everything of, as he named them.
    pub(crate) runs: BTreeSet<String>,
    pub(crate) pools: bool,
    /// DAGs that he may hear of; `None`: of all.
    pub(crate) dags: Option<Arc<BTreeSet<String>>>,
    /// The last event that he got.
    pub(crate) last: Option<String>,
}

/// No DAG has this name, so that nobody may see it who may see some only.
const EVERY_DAG: &str = "";

#[derive(Debug, Clone, PartialEq)]
enum Topic {
    Overview,
    Run(String),
    Pools,
    Mark,
}

/// Some events of a tick.
#[derive(Debug)]
struct Piece {
    topic: Topic,
    /// The DAG that it is about.
    dag: Option<String>,
    bytes: Bytes,
}

#[derive(Debug)]
struct Tick {
    number: u64,
    pieces: Vec<Piece>,
}

impl Tick {
    fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes.len()).sum()
    }
}

/// What waits for a listener.
#[derive(Debug)]
enum Item {
    Tick(Arc<Tick>),
    Own(Bytes),
}

struct Listener {
    queue: mpsc::Sender<Item>,
    wants: Wants,
    /// Something did not find room.
    behind: bool,
    may_listen: Box<dyn Fn() -> bool + Send>,
}

/// Tells those who listen; one for all servers of a process.
pub(crate) struct Feed {
    service: Service,
    /// Tells this process from the one before.
    epoch: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    number: u64,
    engine: EngineLine,
    runs: BTreeMap<String, RunLine>,
    details: BTreeMap<String, RunDetail>,
    pools: Vec<PoolView>,
    kept: VecDeque<Arc<Tick>>,
    kept_bytes: usize,
    listeners: Vec<Listener>,
    /// Somebody looks.
    ticking: bool,
    told_at: Option<Instant>,
}

/// What was looked at for one tick.
struct Looked {
    view: Arc<EngineView>,
    details: BTreeMap<String, Option<RunDetail>>,
    pools: Option<Vec<PoolView>>,
}

impl Feed {
    pub(crate) fn new(service: Service) -> Arc<Self> {
        Arc::new(Self {
            service,
            epoch: now_ms(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a listener; what is to be sent comes out of what is returned. May wait for the engine.
    pub(crate) fn listen(
        self: &Arc<Self>,
        wants: Wants,
        may_listen: Box<dyn Fn() -> bool + Send>,
    ) -> Result<Events, Problem> {
        if wants.runs.len() > limits::RUNS_WATCHED {
            let text = format!(
                "at most {} runs can be watched at a time",
                limits::RUNS_WATCHED
            );
            return Err(Problem::bad_request(text));
        }
        let looked = self.look(&wants.runs, wants.pools)?;
        let (queue, waiting) = mpsc::channel(limits::TICKS_QUEUED);
        let mut state = self.state();
        if state.listeners.len() >= limits::LISTENERS_MAX {
            let text = format!("{} listen already; come again", limits::LISTENERS_MAX);
            return Err(Problem::new(503, "busy", "Too many listeners", text));
        }
        // The others hear of what is new in it as well, and the picture is that of this moment.
        self.tell(&mut state, &looked);
        let since = wants.last.as_deref().and_then(|id| self.number_of(id));
        let mut first = match since.filter(|number| state.remembers(*number)) {
            Some(number) => state.missed(number, &wants),
            None => VecDeque::from([state.snapshot(&wants)]),
        };
        first.extend(state.own(&wants, &looked));
        first.push_back(self.mark(state.number));
        let turn = limits::TURN * (state.listeners.len() % limits::TURNS) as u32;
        state.listeners.push(Listener {
            queue,
            wants: wants.clone(),
            behind: false,
            may_listen,
        });
        if !state.ticking {
            let feed = Arc::clone(self);
            let thread = std::thread::Builder::new().name("feed".into());
            if thread.spawn(move || feed.run()).is_err() {
                state.listeners.pop();
                let text = "there is no thread; come again";
                return Err(Problem::new(503, "busy", "Too much is under way", text));
            }
            state.ticking = true;
        }
        Ok(Events {
            wants,
            turn,
            first,
            waiting,
            held: None,
        })
    }

    /// Looks and tells until nobody listens any more.
    fn run(&self) {
        loop {
            std::thread::sleep(limits::TICK);
            let (runs, pools) = {
                let mut state = self.state();
                state
                    .listeners
                    .retain(|one| !one.queue.is_closed() && (one.may_listen)());
                if state.listeners.is_empty() {
                    state.ticking = false;
                    return;
                }
                let runs = state.listeners.iter().flat_map(|one| &one.wants.runs);
                let runs: BTreeSet<String> = runs.take(limits::RUNS_LOOKED_AT).cloned().collect();
                (runs, state.listeners.iter().any(|one| one.wants.pools))
            };
            match self.look(&runs, pools) {
                Ok(looked) => self.tell(&mut self.state(), &looked),
                Err(_) => {
                    // The engine has stopped: so does the stream.
                    let mut state = self.state();
                    state.listeners.clear();
                    state.ticking = false;
                    return;
                }
            }
        }
    }

    /// Asks the engine; outside the lock, since it may take a while.
    fn look(&self, runs: &BTreeSet<String>, pools: bool) -> Result<Looked, Problem> {
        let view = self.service.overview()?;
        let detail = |name: &String| (name.clone(), self.service.detail(name).ok());
        Ok(Looked {
            view,
            details: runs.iter().map(detail).collect(),
            pools: if pools {
                Some(self.service.pools()?)
            } else {
                None
            },
        })
    }

    /// Tells everybody what differs from what was told before.
    fn tell(&self, state: &mut State, looked: &Looked) {
        let mut pieces = state.differences(looked);
        let quiet = state.told_at.is_none_or(|at| at.elapsed() >= limits::QUIET);
        if pieces.is_empty() && !quiet {
            return;
        }
        state.told_at = Some(Instant::now());
        state.number += 1;
        pieces.push(Piece {
            topic: Topic::Mark,
            dag: None,
            bytes: self.mark(state.number),
        });
        let tick = Arc::new(Tick {
            number: state.number,
            pieces,
        });
        state.keep(Arc::clone(&tick));
        let mut listeners = std::mem::take(&mut state.listeners);
        for listener in &mut listeners {
            let item = if listener.behind {
                let whole = [
                    vec![state.snapshot(&listener.wants)],
                    state.own(&listener.wants, looked),
                    vec![self.mark(state.number)],
                ];
                Item::Own(whole.concat().concat().into())
            } else {
                Item::Tick(Arc::clone(&tick))
            };
            listener.behind = listener.queue.try_send(item).is_err();
        }
        state.listeners = listeners;
    }

    fn mark(&self, number: u64) -> Bytes {
        let told = event("told", &Told { at_ms: now_ms() });
        let id = format!("id: {}-{number}\n", self.epoch);
        [id.as_bytes(), &told].concat().into()
    }

    /// The tick of an id, if it is one of this process.
    fn number_of(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('-')?;
        (epoch.parse() == Ok(self.epoch)).then_some(())?;
        number.parse().ok()
    }
}

impl State {
    fn differences(&mut self, looked: &Looked) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let view = &looked.view;
        let engine = EngineLine {
            workers: view.workers.clone(),
            log_lines_lost: view.log_lines_lost,
            refused_reports: view.refused_reports,
            reloads: view.reloads,
            stalled: view.stalled.clone(),
            notes: view.notes.clone(),
        };
        let mut add = |topic, dag: Option<&str>, bytes| {
            let dag = dag.map(str::to_owned);
            pieces.push(Piece { topic, dag, bytes });
        };
        if engine != self.engine {
            // It names files of all DAGs: for those who may see all.
            add(Topic::Overview, Some(EVERY_DAG), event("engine", &engine));
            self.engine = engine;
        }
        let mut gone = std::mem::take(&mut self.runs);
        for run in &view.runs {
            let line = RunLine::of(run);
            if gone.remove(&line.run).as_ref() != Some(&line) {
                add(Topic::Overview, Some(&line.dag), event("run", &line));
            }
            self.runs.insert(line.run.clone(), line);
        }
        for RunLine { dag, run, .. } in gone.into_values() {
            let bytes = event("gone", &json!({"dag": dag, "run": run}));
            add(Topic::Overview, Some(&dag), bytes);
        }
        for (name, detail) in &looked.details {
            let Some(detail) = detail else { continue };
            if self.details.get(name) != Some(detail) {
                let dag = Some(detail.run.dag.as_str());
                add(Topic::Run(name.clone()), dag, event("detail", detail));
                self.details.insert(name.clone(), detail.clone());
            }
        }
        self.details
            .retain(|name, _| looked.details.contains_key(name));
        if let Some(pools) = looked.pools.as_ref().filter(|pools| **pools != self.pools) {
            add(Topic::Pools, None, event("pools", pools));
            self.pools.clone_from(pools);
        }
        pieces
    }

    fn keep(&mut self, tick: Arc<Tick>) {
        self.kept_bytes += tick.bytes();
        self.kept.push_back(tick);
        while self.kept.len() > limits::TICKS_KEPT || self.kept_bytes > limits::TICKS_KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else {
                return;
            };
            self.kept_bytes -= oldest.bytes();
        }
    }

    /// Whether everything that followed this tick is still kept.
    fn remembers(&self, number: u64) -> bool {
        let first = self
            .kept
            .front()
            .map_or(self.number + 1, |tick| tick.number);
        number <= self.number && first <= number + 1
    }

    fn missed(&self, number: u64, wants: &Wants) -> VecDeque<Bytes> {
        let ticks = self.kept.iter().filter(|tick| tick.number > number);
        let pieces = ticks.flat_map(|tick| &tick.pieces);
        let wanted = pieces.filter(|piece| piece.topic == Topic::Overview && wants.hear(piece));
        wanted.map(|piece| piece.bytes.clone()).collect()
    }

    fn snapshot(&self, wants: &Wants) -> Bytes {
        let mut runs: Vec<_> = self.runs.values().collect();
        runs.retain(|run| wants.may_see(&run.dag));
        let mut engine = self.engine.clone();
        if wants.dags.is_some() {
            engine.notes.clear();
        }
        let engine = &engine;
        event("snapshot", &Snapshot { engine, runs })
    }

    /// What one listener asked for beside the overview, whole.
    fn own(&self, wants: &Wants, looked: &Looked) -> Vec<Bytes> {
        let mut own = Vec::new();
        for name in &wants.runs {
            match looked.details.get(name).and_then(Option::as_ref) {
                Some(detail) if wants.may_see(&detail.run.dag) => own.push(event("detail", detail)),
                _ => own.push(event("missing", &json!({"run": name}))),
            }
        }
        if let Some(pools) = looked.pools.as_ref().filter(|_| wants.pools) {
            own.push(event("pools", pools));
        }
        own
    }
}

impl Wants {
    fn may_see(&self, dag: &str) -> bool {
        self.dags.as_ref().is_none_or(|dags| dags.contains(dag))
    }

    fn hear(&self, piece: &Piece) -> bool {
        let wanted = match &piece.topic {
            Topic::Overview | Topic::Mark => true,
            Topic::Run(name) => self.runs.contains(name),
            Topic::Pools => self.pools,
        };
        wanted && piece.dag.as_deref().is_none_or(|dag| self.may_see(dag))
    }

    /// What is wanted of a tick; one piece, so that it is one write.
    fn of(&self, tick: &Tick) -> Bytes {
        let wanted = tick.pieces.iter().filter(|piece| self.hear(piece));
        let wanted: Vec<&[u8]> = wanted.map(|piece| &*piece.bytes).collect();
        wanted.concat().into()
    }
}

impl RunLine {
    fn of(run: &RunView) -> Self {
        let sources = || run.sources.iter();
        let lanes = || sources().flat_map(|source| &source.lanes);
        let behind: Vec<u64> = lanes().filter_map(|lane| lane.behind).collect();
        let outside = sources().flat_map(|source| [&source.degraded, &source.ended]);
        let stopped = lanes().map(|lane| &lane.stopped);
        let trouble = outside
            .chain(stopped)
            .flatten()
            .take(limits::TROUBLES_SHOWN);
        Self {
            dag: run.dag.clone(),
            run: run.run.clone(),
            version: run.version.clone(),
            state: run.state.to_owned(),
            taken_in: run.taken_in,
            done: run.done,
            skipped: run.skipped,
            parked: run.parked,
            dropped: run.dropped,
            in_flight: run.in_flight,
            latency_ms: run.latency_ms,
            commit_ms: run.commit_ms,
            deadlines_missed: run.deadlines_missed,
            awaiting: run.awaiting,
            waiting: run.waiting,
            longest: run.longest.clone(),
            behind: (!behind.is_empty()).then(|| behind.iter().sum()),
            progress_ms: sources().filter_map(|source| source.progress_ms).max(),
            stale: sources().any(|source| source.stale),
            trouble: trouble.cloned().collect(),
        }
    }
}

/// What one listener is sent, as it comes.
#[derive(Debug)]
pub(crate) struct Events {
    wants: Wants,
    /// How long after the first listener this one hears of a tick.
    turn: Duration,
    first: VecDeque<Bytes>,
    waiting: mpsc::Receiver<Item>,
    held: Option<(Pin<Box<Sleep>>, Arc<Tick>)>,
}

impl Events {
    /// The next bytes; `None` when there will be no more.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.first.pop_front() {
                return Poll::Ready(Some(bytes));
            }
            if let Some((turn, tick)) = &mut self.held {
                ready!(turn.as_mut().poll(context));
                let bytes = self.wants.of(tick);
                self.held = None;
                return Poll::Ready(Some(bytes));
            }
            match ready!(self.waiting.poll_recv(context)) {
                Some(Item::Own(bytes)) => return Poll::Ready(Some(bytes)),
                Some(Item::Tick(tick)) => self.held = Some((Box::pin(sleep(self.turn)), tick)),
                None => return Poll::Ready(None),
            }
        }
    }
}

pub(crate) fn event<T: Serialize + ?Sized>(name: &str, data: &T) -> Bytes {
    // One line: JSON writes line breaks as escapes.
    let data = serde_json::to_string(data).expect("views have string keys only");
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// The events by name, with the shape of their data.
pub(crate) fn shapes(shapes: &mut SchemaGenerator) -> Value {
    json!({
        "type": "object",
        "description": "events of the stream by name, with the shape of their data",
        "properties": {
            "snapshot": shapes.subschema_for::<Snapshot<'_>>(),
            "engine": shapes.subschema_for::<EngineLine>(),
            "run": shapes.subschema_for::<RunLine>(),
            "gone": shapes.subschema_for::<Gone>(),
            "detail": shapes.subschema_for::<RunDetail>(),
            "missing": shapes.subschema_for::<Missing>(),
            "pools": shapes.subschema_for::<Vec<PoolView>>(),
            "told": shapes.subschema_for::<Told>(),
        },
    })
}

#[cfg(test)]
mod tests;
