//! What the machine holds, in the words of the faces. Read by the shard for those who ask a running
//! engine, and by [`crate::AtRest`] for those who ask a store.

use std::collections::BTreeMap;

use bytes::Bytes;
use evermill_contract::source::{Headers, NO_TIMESTAMP};
use evermill_core::command::{ActivationKey, Command, Event};
use evermill_core::dag::{Node, TaskKind, TaskSpec};
use evermill_core::{LaneView, Machine, ParkReason, ParkedView as Parked, RunView};
use memchr::memmem::Finder;

use crate::handle::EngineError;
use crate::judging::INVALID;
use crate::limits;
use crate::manifest::{Outline, TaskOutline};
use crate::operate::Page;
use crate::payload::{self, Parts};
use crate::shard::Version;
use crate::view::{
    Blob, EventView, GraphView, NodeKind, NodeView, PARK_REASONS, ParkedFilter, ParkedGroup,
    ParkedPage, ParkedView,
};

/// The machine and what is known of its versions.
#[derive(Clone, Copy)]
pub(crate) struct Books<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) versions: &'a BTreeMap<String, Version>,
}

/// Where the events of a run are: what waits, runs and is held at each task, and what has passed the first
/// end of an edge alone.
#[derive(Default)]
struct Now<'a> {
    tasks: BTreeMap<&'a str, [u64; 3]>,
    edges: BTreeMap<(&'a str, &'a str), u64>,
}

impl<'a> Books<'a> {
    pub(crate) fn runs(self) -> impl Iterator<Item = RunView> + 'a {
        self.machine.runs()
    }

    /// The run of this id, or the latest run of the DAG of this id.
    pub(crate) fn find(&self, name: &str) -> Result<RunView, EngineError> {
        let runs: Vec<RunView> = self.runs().collect();
        let by_id = runs.iter().find(|run| run.name == name);
        let found = by_id.or_else(|| runs.iter().rev().find(|run| run.dag == name));
        found.cloned().ok_or_else(|| {
            let names = runs.iter().flat_map(|run| [&run.dag, &run.name]);
            EngineError::UnknownRun {
                name: name.to_owned(),
                nearest: nearest(name, names.map(String::as_str)),
            }
        })
    }

    fn outline(&self, version: &str) -> Option<&'a Outline> {
        Some(&*self.versions.get(version)?.outline)
    }

    /// The DAG of a run, to be drawn, with what is where at the moment; nothing when its version is not known
    /// any more.
    pub(crate) fn graph(&self, run: &RunView) -> GraphView {
        let Some(known) = self.versions.get(&run.version) else {
            return GraphView::default();
        };
        let spec = &known.dag.spec;
        let now = self.now(run);
        let node = |id: &str, kind| {
            let [queued, running, held] = now.tasks.get(id).copied().unwrap_or_default();
            NodeView {
                id: id.to_owned(),
                kind,
                queued,
                running,
                held,
            }
        };
        let sources = spec.sources.iter();
        let sources = sources.map(|source| node(&source.id, NodeKind::Source));
        let kind = |task: &TaskSpec| match task.kind {
            _ if task.mapped.is_some() => NodeKind::Mapped,
            TaskKind::Branch | TaskKind::ShortCircuit { .. } => NodeKind::Choice,
            TaskKind::Noop | TaskKind::Delay { .. } => NodeKind::Noop,
            _ => NodeKind::Task,
        };
        let tasks = spec.tasks.iter().map(|task| node(&task.id, kind(task)));
        let place = |node: &Node| match node {
            Node::Source(index) => usize::from(*index),
            Node::Task(index) => spec.sources.len() + usize::from(*index),
        };
        let into = |(index, task): (usize, &TaskSpec)| {
            let to = spec.sources.len() + index;
            let edges = task.upstream.iter().map(|from| (place(from), to));
            edges.collect::<Vec<_>>()
        };
        let nodes: Vec<NodeView> = sources.chain(tasks).collect();
        let edges: Vec<_> = spec.tasks.iter().enumerate().flat_map(into).collect();
        let queued = |(from, to): &(usize, usize)| {
            let ids = (nodes[*from].id.as_str(), nodes[*to].id.as_str());
            now.edges.get(&ids).copied().unwrap_or(0)
        };
        GraphView {
            queued: edges.iter().map(queued).collect(),
            edges,
            nodes,
        }
    }

    /// What is where in a run, by the ids of tasks and edges, which mean the same in each of its versions.
    fn now(&self, run: &RunView) -> Now<'a> {
        let mut now = Now::default();
        let versions = self.machine.run_versions(run.run);
        for census in self.machine.census(run.run) {
            let version = versions.get(usize::from(census.version));
            let Some(known) = version.and_then(|version| self.versions.get(version)) else {
                continue;
            };
            let spec = &known.dag.spec;
            let task = |index: u16| spec.tasks[usize::from(index)].id.as_str();
            for (index, counts) in census.tasks {
                let sums = now.tasks.entry(task(index)).or_default();
                sums.iter_mut()
                    .zip(counts)
                    .for_each(|(sum, more)| *sum += more);
            }
            for ((from, to), count) in census.edges {
                let from = match from {
                    Node::Source(index) => spec.sources[usize::from(index)].id.as_str(),
                    Node::Task(index) => task(index),
                };
                *now.edges.entry((from, task(to))).or_default() += count;
            }
        }
        now
    }

    /// One page of what is parked.
    pub(crate) fn parked(
        &self,
        run: &str,
        which: &ParkedFilter,
        page: Page,
    ) -> Result<ParkedPage, EngineError> {
        let (mut list, mut bytes) = (ParkedPage::default(), 0);
        let mut groups: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
        let limit = page.limit.min(limits::PARKED_LISTED);
        self.each_parked(run, which, |parked, view| {
            let group = (view.reason.clone(), view.task.clone());
            *groups.entry(group).or_default() += 1;
            let number = list.matched;
            list.matched += 1;
            if number < page.skip || list.next.is_some() {
                return;
            }
            let size = parked.carries.iter().map(|event| event.body.len());
            bytes += if page.payload { size.sum() } else { 0 };
            let too_large = bytes > limits::PARKED_LISTED_BYTES && !list.entries.is_empty();
            if list.entries.len() >= limit || too_large {
                list.next = Some(number);
                return;
            }
            let payload = if page.payload {
                parked.carries.iter().map(event_view).collect()
            } else {
                Vec::new()
            };
            list.entries.push(ParkedView { payload, ..view });
        })?;
        list.groups = by_count(groups);
        Ok(list)
    }

    /// What is parked of a run, by reason and task.
    pub(crate) fn parked_by(&self, run: &str) -> Result<Vec<ParkedGroup>, EngineError> {
        let page = Page {
            skip: 0,
            limit: 0,
            payload: false,
        };
        Ok(self.parked(run, &ParkedFilter::default(), page)?.groups)
    }

    /// The activations that match.
    pub(crate) fn chosen(
        &self,
        run: &str,
        which: &ParkedFilter,
    ) -> Result<Vec<ActivationKey>, EngineError> {
        let mut chosen = Vec::new();
        self.each_parked(run, which, |parked, _| chosen.push(parked.activation))?;
        Ok(chosen)
    }

    /// The command that gives an event of a parked activation another value.
    pub(crate) fn amend(
        &self,
        run: &str,
        id: &str,
        event: u32,
        value: &[u8],
    ) -> Result<Command, EngineError> {
        let which = ParkedFilter {
            ids: vec![id.to_owned()],
            ..ParkedFilter::default()
        };
        let mut found = None;
        self.each_parked(run, &which, |parked, _| found = Some(parked.clone()))?;
        let body = found.as_ref().and_then(|parked| {
            let old = &parked.carries.get(event as usize)?.body;
            Some((parked.activation, payload::with_value(old, value)))
        });
        let (activation, body): (ActivationKey, Bytes) = body.ok_or_else(|| {
            let count = found.map_or(0, |parked| parked.carries.len());
            EngineError::Refused(format!(
                "'{id}' has {count} events, counted from 0; there is no {event}"
            ))
        })?;
        Ok(Command::Amend {
            activation,
            event,
            body,
        })
    }

    /// Hands over every parked activation that matches, in the order of lanes and positions.
    fn each_parked(
        &self,
        run: &str,
        which: &ParkedFilter,
        mut each: impl FnMut(&Parked, ParkedView),
    ) -> Result<(), EngineError> {
        let run = self.find(run)?;
        check_reason(which)?;
        let mut missing: Vec<&str> = which.ids.iter().map(String::as_str).collect();
        let lanes: Vec<LaneView> = self.machine.lanes(run.run).collect();
        for parked in self.machine.parked(run.run) {
            let view = self.parked_view(&run, &lanes, &parked);
            if matches(which, &parked, &view) {
                missing.retain(|id| *id != view.id);
                each(&parked, view);
            }
        }
        match missing.first() {
            Some(id) => Err(EngineError::NotParked((*id).to_owned())),
            None => Ok(()),
        }
    }

    fn parked_view(&self, run: &RunView, lanes: &[LaneView], parked: &Parked) -> ParkedView {
        let key = parked.activation;
        let outline = self.outline(&parked.version);
        let lane = lanes.iter().find(|lane| lane.lane == key.lane);
        let lane_name = lane.map(face_name).unwrap_or_default();
        let lane_name = &*lane_name;
        let source = lane.map(|lane| &*lane.source_id);
        let source = source.filter(|id| !id.is_empty()).unwrap_or(crate::MANUAL);
        let failed = parked.errors.first();
        let mut carries = parked.carries.iter().filter(|_| parked.round == 0);
        let rejection = carries.find_map(|event| payload::rejection_of(&event.body));
        let error = match (rejection, failed) {
            (Some(why), _) => format!("{INVALID}{why}"),
            (None, Some((_, error))) => String::from_utf8_lossy(error).into_owned(),
            (None, None) => explained(parked.reason).to_owned(),
        };
        let task = failed.and_then(|(task, _)| outline?.tasks.get(usize::from(*task)));
        ParkedView {
            key,
            id: name_of(&run.name, source, lane_name, key),
            source: source.to_owned(),
            lane: lane_name.to_owned(),
            position: key.position,
            reason: match parked.reason {
                ParkReason::Failed if is_invalid(task, &error) => PARK_REASONS[1].to_owned(),
                reason => reason_word(reason).to_owned(),
            },
            task: task.map(|task| task.id.to_string()),
            error,
            events: parked.events,
            round: parked.round,
            arrived_ms: parked.carries.first().map_or(0, |event| event.arrived_ms),
            version: parked.version.clone(),
            payload: Vec::new(),
        }
    }
}

/// Whether what failed is the event itself, and not what a task did with it.
fn is_invalid(task: Option<&TaskOutline>, error: &str) -> bool {
    task.is_some_and(|task| task.validates) || error.starts_with(INVALID)
}

/// A lane's name among those of its run: replays, and lanes that another one took the place of, have
/// one of their own.
pub(crate) fn face_name(lane: &LaneView) -> String {
    let (name, generation) = (&lane.name, lane.generation);
    match (&lane.replay, lane.closed) {
        (Some(_), _) => format!("replay-{generation}:{name}"),
        (None, true) => format!("before-reset-{generation}:{name}"),
        (None, false) => name.clone(),
    }
}

fn check_reason(which: &ParkedFilter) -> Result<(), EngineError> {
    let Some(reason) = &which.reason else {
        return Ok(());
    };
    if PARK_REASONS.contains(&reason.as_str()) {
        return Ok(());
    }
    Err(EngineError::Refused(format!(
        "nothing is parked for the reason '{reason}'; the reasons are {}",
        PARK_REASONS.join(", ")
    )))
}

fn matches(which: &ParkedFilter, parked: &Parked, view: &ParkedView) -> bool {
    let is = |asked: &Option<String>, found: Option<&str>| {
        asked.as_deref().is_none_or(|asked| found == Some(asked))
    };
    let has_key = |asked: &String| {
        let mut keys = parked.carries.iter().map(|event| key_of(&event.body));
        keys.any(|key| key == Some(asked.as_bytes()))
    };
    (which.ids.is_empty() || which.ids.contains(&view.id))
        && is(&which.reason, Some(&view.reason))
        && is(&which.task, view.task.as_deref())
        && which.key.as_ref().is_none_or(has_key)
        && which.since_ms.is_none_or(|since| view.arrived_ms >= since)
}

fn key_of(body: &[u8]) -> Option<&[u8]> {
    slice(body, Parts::read(body).key?)
}

fn slice(body: &[u8], (start, len): (u32, u32)) -> Option<&[u8]> {
    body.get(start as usize..)?.get(..len as usize)
}

fn event_view(event: &Event) -> EventView {
    event_parts(event.position, &event.body)
}

/// Whether this text is in the key, the headers or the value of an event's body.
pub(crate) fn event_has(body: &[u8], text: &Finder<'_>) -> bool {
    let parts = Parts::read(body);
    let places = [parts.key, parts.headers, parts.value];
    let mut slices = places.iter().filter_map(|place| slice(body, (*place)?));
    slices.any(|slice| text.find(slice).is_some())
}

/// An event's body, cut into its parts.
pub(crate) fn event_parts(position: u64, body: &[u8]) -> EventView {
    let parts = Parts::read(body);
    let blob = |place: Option<(u32, u32)>| Some(Blob::of(slice(body, place?)?));
    let headers = parts.headers.and_then(|place| slice(body, place));
    let headers = Headers::new(headers.unwrap_or_default()).map(|(name, value)| {
        let name = String::from_utf8_lossy(name).into_owned();
        (name, value.map(Blob::of))
    });
    EventView {
        position,
        timestamp_ms: (parts.timestamp_ms != NO_TIMESTAMP).then_some(parts.timestamp_ms),
        key: blob(parts.key),
        headers: headers.collect(),
        value: blob(parts.value),
    }
}

fn by_count(groups: BTreeMap<(String, Option<String>), u64>) -> Vec<ParkedGroup> {
    let groups = groups.into_iter();
    let mut groups: Vec<ParkedGroup> = groups
        .map(|((reason, task), count)| ParkedGroup {
            reason,
            task,
            count,
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

pub(crate) fn name_of(run: &str, source: &str, lane: &str, key: ActivationKey) -> String {
    let child = match key.child {
        0 => String::new(),
        child => format!("/{child}"),
    };
    format!("{run}/{source}/{lane}/{}{child}", key.position)
}

const fn reason_word(reason: ParkReason) -> &'static str {
    match reason {
        ParkReason::Failed => PARK_REASONS[0],
        ParkReason::SuspectCrash => PARK_REASONS[2],
        ParkReason::JoinTimeout => PARK_REASONS[3],
        ParkReason::Blocked => PARK_REASONS[4],
        ParkReason::RunStopped => PARK_REASONS[5],
    }
}

/// What to show where no task failed.
pub(crate) const fn explained(reason: ParkReason) -> &'static str {
    match reason {
        ParkReason::Failed | ParkReason::Blocked => "a task failed",
        ParkReason::SuspectCrash => {
            "it was being worked on each time the engine died, and is taken for the cause"
        }
        ParkReason::JoinTimeout => "the events it waited for did not come in time",
        ParkReason::RunStopped => "its run was stopped before it was done",
    }
}

/// The name somebody probably meant.
pub(crate) fn nearest<'n>(typed: &str, known: impl Iterator<Item = &'n str>) -> Option<String> {
    let near = known.map(|name| (strsim::damerau_levenshtein(typed, name), name));
    let (distance, name) = near.min()?;
    (distance <= 1 + typed.chars().count() / 4).then(|| name.to_owned())
}
