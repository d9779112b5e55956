//! Traces: what history remembers of activations is told to whoever traces, once it is committed.
//!
//! History chooses of which (S4): every failure and retry, and of the others as many as there is room for. So a trace
//! costs nothing while an event is under way, and nothing at all where nobody traces. What is read again (W18) is no
//! news.

use std::sync::Arc;

use evermill_contract::trace::{TraceParent, TraceTaker, Traced, TracedTask, Untold};
use evermill_core::command::{LaneId, RunIx};
use evermill_core::history::{PastEvent, Remembered, TaskEnd};
use evermill_core::row::{HistoryRow, Write};

use crate::groups::After;
use crate::lanes::reference;
use crate::limits;
use crate::manifest::Outline;
use crate::past;
use crate::payload::Parts;
use crate::shard::Shard;

/// Where traces go, and how many went there lately.
#[derive(Default)]
pub(crate) struct Tracing {
    taker: Option<Arc<dyn TraceTaker>>,
    /// Seconds since the Unix epoch, and what was told in that one.
    told: (u64, u64),
}

impl Tracing {
    pub(crate) fn new(taker: Option<Arc<dyn TraceTaker>>) -> Self {
        Self {
            taker,
            told: (0, 0),
        }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.taker.is_some()
    }

    pub(crate) fn untold(&self) -> Untold {
        self.taker
            .as_ref()
            .map_or_else(Untold::default, |taker| taker.untold())
    }

    pub(crate) fn finish(&self) {
        if let Some(taker) = &self.taker {
            taker.finish();
        }
    }

    /// How many more may be told.
    fn room(&mut self, now_us: u64) -> u64 {
        let second = now_us / 1_000_000;
        if self.told.0 != second {
            self.told = (second, 0);
        }
        limits::TRACES_PER_SECOND.saturating_sub(self.told.1)
    }
}

impl Shard {
    /// What is to be told of a group once it is durable.
    pub(crate) fn to_trace(&self, writes: &[Write]) -> Option<After> {
        if !self.tracing.is_on() {
            return None;
        }
        let rows = writes.iter().filter_map(|write| match write {
            Write::History(row) if !row.body.is_empty() => Some(row.clone()),
            _ => None,
        });
        let rows: Vec<HistoryRow> = rows.collect();
        if rows.is_empty() {
            return None;
        }
        Some(After::Do(Box::new(move |shard| shard.tell_traces(&rows))))
    }

    fn tell_traces(&mut self, rows: &[HistoryRow]) {
        let now_us = self.world.clock.now_us();
        let mut room = self.tracing.room(now_us);
        let (mut told, mut left_out) = (Vec::new(), 0);
        for row in rows {
            let settled = [row.done, row.skipped, row.parked, row.dropped];
            if room == 0 {
                left_out += settled.map(u64::from).iter().sum::<u64>();
                continue;
            }
            // It was encoded a moment ago.
            for past in Remembered::decode(&row.body).unwrap_or_default() {
                match self.traced(row, past, now_us) {
                    Some(_) if room == 0 => left_out += 1,
                    Some(traced) => {
                        room -= 1;
                        told.push(traced);
                    }
                    None => {}
                }
            }
        }
        self.tracing.told.1 += told.len() as u64;
        if let (Some(taker), true) = (&self.tracing.taker, told.len() as u64 + left_out > 0) {
            taker.take(told, left_out);
        }
    }

    /// None of what is read again, or of a run that is gone.
    fn traced(&self, row: &HistoryRow, past: Remembered, now_us: u64) -> Option<Traced> {
        let run: RunIx = row.run;
        let slot = self.runs.get(&run)?;
        let version = self
            .machine
            .run_versions(run)
            .get(usize::from(past.version))?;
        let outline = &self.versions.get(version)?.outline;
        let (source, lane) = self.source_and_lane(run, past.lane, outline, &slot.name)?;
        let event = past.events.first();
        let body = event.and_then(|event| event.body.as_ref());
        let arrived_us = match body.map(|body| Parts::read(body).arrived_us) {
            Some(known @ 1..) => known,
            _ => event.map_or(0, |event| event.arrived_ms) * 1_000,
        };
        let parent = event.and_then(parent_of);
        if parent.is_some_and(|parent| !parent.sampled) {
            return None;
        }
        let tasks = past.tasks.iter();
        Some(Traced {
            dag: slot.dag.to_string(),
            run: slot.name.to_string(),
            version: version.clone(),
            source,
            lane,
            position: past.position,
            child: past.child,
            round: past.round,
            ended: past::ended(past.ended),
            parent,
            arrived_us,
            settled_us: u64::try_from(row.settled_ms).unwrap_or(0) * 1_000,
            committed_us: now_us,
            tasks: tasks
                .filter_map(|task| traced_task(task, outline))
                .collect(),
        })
    }

    /// By the names that a dispatch has for them: a worker makes ids of these, too.
    fn source_and_lane(
        &self,
        run: RunIx,
        lane: u32,
        outline: &Outline,
        name: &str,
    ) -> Option<(String, String)> {
        let id = LaneId { run, lane };
        let reference = match self.lanes.get(&id) {
            Some(lane) if !lane.source.is_live() => return None,
            Some(lane) => lane.reference.clone(),
            None => {
                let known = self.machine.lanes(run).find(|lane| lane.lane == id)?;
                let sources = &outline.sources;
                let source = sources
                    .iter()
                    .position(|source| *source.id == *known.source_id);
                let source = source
                    .and_then(|at| u16::try_from(at).ok())
                    .unwrap_or(u16::MAX);
                reference(name, outline, source, &known.name, &known.incarnation, 0)
            }
        };
        Some((reference.source, reference.lane))
    }
}

fn parent_of(event: &PastEvent) -> Option<TraceParent> {
    let body = event.body.as_ref()?;
    let (start, len) = Parts::read(body).headers?;
    TraceParent::of_headers(body.get(start as usize..(start + len) as usize)?)
}

/// None of one of which it is not known when it ran.
fn traced_task(task: &TaskEnd, outline: &Outline) -> Option<TracedTask> {
    let (begun, ended) = task.times?;
    let known = outline.tasks.get(usize::from(task.task))?;
    Some(TracedTask {
        task: known.id.to_string(),
        state: past::state(task.state),
        tries: task.tries,
        begun_us: begun * 1_000,
        ended_us: ended * 1_000,
        error: task
            .error
            .as_ref()
            .map(|error| String::from_utf8_lossy(error).into_owned()),
    })
}
