//! History for the faces: what is remembered of activations that have settled (S4). Read beside the
//! writer, never by the shard.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use evermill_core::command::RunIx;
use evermill_core::history::{Ended, Remembered, TaskEnd, TaskState};
use evermill_store::{HistoryEntry, HistoryQuery, Reader};
use memchr::memmem::Finder;

use crate::books::{Books, event_has, event_parts, face_name};
use crate::handle::EngineError;
use crate::kept::RunLogs;
use crate::limits;
use crate::manifest::Outline;
use crate::outcome;
use crate::spill;
use crate::view::{Blob, EventView, PastTask, PastView};

/// Which part of history is wanted; every field narrows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PastQuery {
    /// Only of the lane of this name.
    pub lane: Option<String>,
    /// Only the activation of the event at this position.
    pub position: Option<u64>,
    /// Only activations that were parked or dropped.
    pub problems: bool,
    /// Only activations that ended so: [`crate::view::PastActivation::ended`].
    pub ended: Option<String>,
    /// Only those where this task failed.
    pub task: Option<String>,
    /// Only those with an event of this key.
    pub key: Option<String>,
    /// Only those with this text in an event, an error or a result.
    pub text: Option<String>,
    /// Only those that settled then or later, milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Only those that settled before, likewise.
    pub until_ms: Option<i64>,
    /// Where to go on: [`PastView::next`] of the page before.
    pub from: Option<PastPlace>,
    /// Without payloads and results.
    pub brief: bool,
    /// At most so many; no more than [`limits::PAST_LISTED`].
    pub limit: usize,
}

/// A place in history: a row, and how many of the activations it remembers lie before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastPlace {
    row: u64,
    skip: usize,
}

impl fmt::Display for PastPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.row, self.skip)
    }
}

impl std::str::FromStr for PastPlace {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (row, skip) = text.split_once('.').unwrap_or((text, "0"));
        Ok(Self {
            row: row.parse()?,
            skip: skip.parse()?,
        })
    }
}

/// The names behind the numbers that history is written in.
pub(crate) struct Names {
    run: RunIx,
    name: String,
    /// Source id, lane name, and the source's own name for it, by the lane's number.
    lanes: BTreeMap<u32, (String, String, String)>,
    /// By the number an activation is pinned to; `None` for one that nothing needs any more.
    versions: Vec<Option<Arc<Outline>>>,
}

impl Books<'_> {
    pub(crate) fn names(&self, run: &str) -> Result<Names, EngineError> {
        let run = self.find(run)?;
        let lanes = self.machine.lanes(run.run).map(|lane| {
            let face = face_name(&lane);
            let source = match lane.source_id {
                none if none.is_empty() => crate::MANUAL.to_owned(),
                id => id,
            };
            (lane.lane.lane, (source, face, lane.name))
        });
        let known = |hash: &String| Some(Arc::clone(&self.versions.get(hash)?.outline));
        Ok(Names {
            lanes: lanes.collect(),
            versions: self
                .machine
                .run_versions(run.run)
                .iter()
                .map(known)
                .collect(),
            run: run.run,
            name: run.name,
        })
    }
}

impl Names {
    /// What the tasks of the run printed. Lanes may be asked for as history names them.
    pub(crate) fn logs(&self, data_dir: &Path) -> RunLogs {
        let lanes = self.lanes.values();
        let lanes = lanes.map(|(_, face, name)| (name.clone(), face.clone()));
        RunLogs::new(data_dir, &self.name).with_lanes(lanes)
    }
}

/// Looks through history, newest first, until enough was found or the scan budget is used up.
pub(crate) fn look(
    reader: &mut dyn Reader,
    names: &Names,
    wanted: &PastQuery,
) -> Result<PastView, EngineError> {
    let limit = wanted.limit.min(limits::PAST_LISTED);
    let settled_ms = (wanted.since_ms.is_some() || wanted.until_ms.is_some())
        .then(|| wanted.since_ms.unwrap_or(0)..wanted.until_ms.unwrap_or(i64::MAX));
    let mut query = HistoryQuery {
        run: Some(names.run),
        positions: wanted.position.map(|at| at..=at),
        settled_ms,
        problems: wanted.problems,
        before: wanted.from.map(|place| place.row.saturating_add(1)),
        ..HistoryQuery::default()
    };
    let text = wanted.text.as_ref().map(Finder::new);
    let mut view = PastView::default();
    for _ in 0..limits::PAST_PAGES {
        let page = reader.history(&query).map_err(EngineError::store)?;
        for entry in &page.entries {
            if let Some(next) = names.add(entry, wanted, text.as_ref(), limit, &mut view)? {
                view.more = true;
                view.next = Some(next.to_string());
                return Ok(view);
            }
        }
        match page.more {
            Some(more) => query.before = Some(more),
            None => return Ok(view),
        }
    }
    view.more = true;
    let place = |before: u64| PastPlace {
        row: before.saturating_sub(1),
        skip: 0,
    };
    view.next = query.before.map(|before| place(before).to_string());
    Ok(view)
}

impl Names {
    /// Adds what a row remembers, as far as `limit` allows; where the next page begins when it does not.
    fn add(
        &self,
        entry: &HistoryEntry,
        wanted: &PastQuery,
        text: Option<&Finder<'_>>,
        limit: usize,
        view: &mut PastView,
    ) -> Result<Option<PastPlace>, EngineError> {
        let row = &entry.row;
        let found = Remembered::decode(&row.body).map_err(EngineError::store)?;
        let begin = wanted.from.filter(|place| place.row == entry.id);
        let begin = begin.map_or(0, |place| place.skip);
        if begin == 0 {
            let settled = [row.done, row.skipped, row.parked, row.dropped];
            view.settled += settled.map(u64::from).iter().sum::<u64>();
            view.kept += found.len() as u64;
        }
        for (at, past) in found.iter().rev().enumerate().skip(begin) {
            if !self.is_wanted(past, wanted) || text.is_some_and(|text| !has_text(past, text)) {
                continue;
            }
            if view.activations.len() >= limit {
                return Ok(Some(PastPlace {
                    row: entry.id,
                    skip: at,
                }));
            }
            let mut told = self.told(past, row.settled_ms);
            if wanted.brief {
                told.payload.clear();
                told.tasks.iter_mut().for_each(|task| task.result = None);
            }
            view.activations.push(told);
        }
        Ok(None)
    }

    fn is_wanted(&self, past: &Remembered, wanted: &PastQuery) -> bool {
        let lane = self.lanes.get(&past.lane);
        let bad = matches!(past.ended, Ended::Parked | Ended::Dropped);
        let is_of =
            |asked: &String| lane.is_some_and(|(_, face, name)| asked == face || asked == name);
        wanted.lane.as_ref().is_none_or(is_of)
            && wanted.position.is_none_or(|at| at == past.position)
            && (!wanted.problems || bad)
            && wanted
                .ended
                .as_ref()
                .is_none_or(|word| word == ended(past.ended))
            && wanted
                .task
                .as_ref()
                .is_none_or(|id| self.failed_at(past, id))
            && wanted.key.as_ref().is_none_or(|key| has_key(past, key))
    }

    fn failed_at(&self, past: &Remembered, id: &str) -> bool {
        let outline = self.versions.get(usize::from(past.version));
        let outline = outline.and_then(Option::as_deref);
        past.tasks.iter().any(|task| {
            let known = outline.and_then(|outline| outline.tasks.get(usize::from(task.task)));
            task.state == TaskState::Failed && known.is_some_and(|known| *known.id == *id)
        })
    }

    fn told(&self, past: &Remembered, settled_ms: i64) -> crate::view::PastActivation {
        let outline = self.versions.get(usize::from(past.version));
        let outline = outline.and_then(Option::as_deref);
        let (source, lane, _) = self.lanes.get(&past.lane).cloned().unwrap_or_default();
        let child = match past.child {
            0 => String::new(),
            child => format!("/{child}"),
        };
        let arrived_ms = past.events.first().map_or(0, |event| event.arrived_ms);
        crate::view::PastActivation {
            id: format!("{}/{source}/{lane}/{}{child}", self.name, past.position),
            lane,
            position: past.position,
            ended: ended(past.ended).to_owned(),
            round: past.round,
            version: outline.map(|outline| outline.version.clone()),
            arrived_ms,
            settled_ms: u64::try_from(settled_ms).unwrap_or(0),
            tasks: past.tasks.iter().map(|task| told(task, outline)).collect(),
            payload: past
                .events
                .iter()
                .map(|event| match &event.body {
                    Some(body) => event_parts(event.position, body),
                    None => EventView {
                        position: event.position,
                        ..EventView::default()
                    },
                })
                .collect(),
        }
    }
}

pub(crate) const fn ended(how: Ended) -> &'static str {
    match how {
        Ended::Done => "done",
        Ended::Skipped => "skipped",
        Ended::Parked => "parked",
        Ended::Dropped => "dropped",
    }
}

pub(crate) const fn state(how: TaskState) -> &'static str {
    match how {
        TaskState::Success => "success",
        TaskState::Failed => "failed",
        TaskState::Skipped => "skipped",
        TaskState::UpstreamFailed => "upstream_failed",
    }
}

/// An event that was too long to be kept is of no key.
fn has_key(past: &Remembered, key: &str) -> bool {
    let bodies = past.events.iter().filter_map(|event| event.body.as_ref());
    let mut keys = bodies.map(|body| event_parts(0, body).key);
    keys.any(|found| found.and_then(|found| found.bytes()).as_deref() == Some(key.as_bytes()))
}

/// Whether a text is in what is remembered of events, errors and results.
fn has_text(past: &Remembered, text: &Finder<'_>) -> bool {
    let mut bodies = past.events.iter().filter_map(|event| event.body.as_ref());
    let in_task = |task: &TaskEnd| {
        let of_error = task.error.as_ref();
        of_error.is_some_and(|error| text.find(error).is_some())
            || result(task).is_some_and(|json| text.find(&json).is_some())
    };
    bodies.any(|body| event_has(body, text)) || past.tasks.iter().any(in_task)
}

/// What a callable returned, as JSON.
fn result(task: &TaskEnd) -> Option<Bytes> {
    // What had a row of its own is gone with it.
    let kept = task
        .result
        .as_ref()
        .filter(|kept| !spill::is_reference(kept))?;
    outcome::returned(kept)
}

fn told(task: &TaskEnd, outline: Option<&Outline>) -> PastTask {
    let known = outline.and_then(|outline| outline.tasks.get(usize::from(task.task)));
    PastTask {
        task: known.map_or_else(
            || format!("task {}", task.task),
            |known| known.id.to_string(),
        ),
        state: state(task.state).to_owned(),
        tries: task.tries,
        instances: task.instances,
        started_ms: task.times.map(|(issued, _)| issued),
        took_ms: task
            .times
            .map(|(issued, ended)| ended.saturating_sub(issued)),
        result: result(task).map(|json| Blob::of(&json)),
        error: task
            .error
            .as_ref()
            .map(|error| String::from_utf8_lossy(error).into_owned()),
    }
}
