//! What became of an activation of another DAG: the question of a sensor that waits for it.
//!
//! It is named by its instant, so the other DAG has to be run by a clock. History has the answer, and for one
//! that is parked the machine has; whatever neither knows has not ended yet.

use bytes::Bytes;
use evermill_contract::identity::IdKind;
use evermill_contract::worker::Answer;
use evermill_core::command::{ActivationKey, LaneId, RunIx};
use evermill_core::history::{Ended, TaskState};
use evermill_store::HistoryQuery;
use serde_json::{Map, Value, json};

use crate::limits;
use crate::shard::Shard;

impl Shard {
    /// How the activation of a DAG for an instant ended: `{"state": ..., "tasks": {id: state}}`, or nothing as
    /// long as it has not.
    pub(crate) fn ended_elsewhere(&self, dag: &str, at_ms: i64) -> Answer {
        let runs: Vec<RunIx> = self
            .machine
            .runs()
            .filter(|run| run.dag == *dag)
            .map(|run| run.run)
            .collect();
        if runs.is_empty() {
            // It may come.
            return Answer::Missing;
        }
        let mut has_clock = false;
        for &run in runs.iter().rev() {
            for lane in self.clocks_of(run) {
                has_clock = true;
                let Ok(position) = u64::try_from(at_ms).map(|ms| ms.saturating_mul(1_000_000))
                else {
                    return Answer::Refused(format!("{at_ms} ms lies before 1970"));
                };
                match self.ended_at(lane, position) {
                    Ok(Some(told)) => return Answer::Value(Bytes::from(told.to_string())),
                    Ok(None) => {}
                    Err(why) => return Answer::Refused(why),
                }
            }
        }
        if has_clock {
            return Answer::Missing;
        }
        Answer::Refused(format!(
            "DAG '{dag}' has no schedule here, so none of its activations belongs to this date; \
             evermill.after('{dag}') hears of each one that ends"
        ))
    }

    fn clocks_of(&self, run: RunIx) -> impl Iterator<Item = LaneId> + '_ {
        let outline = self.outline_of(run);
        self.machine.lanes(run).filter_map(move |lane| {
            let source = outline?.sources.get(usize::from(lane.source))?;
            let is_clock = !lane.retired && source.ids == IdKind::Instant;
            is_clock.then_some(lane.lane)
        })
    }

    fn ended_at(&self, lane: LaneId, position: u64) -> Result<Option<Value>, String> {
        let key = ActivationKey {
            lane,
            position,
            child: 0,
        };
        let mut query = HistoryQuery {
            run: Some(lane.run),
            positions: Some(position..=position),
            ..HistoryQuery::default()
        };
        for _ in 0..limits::PAST_PAGES {
            let page = self.spill.history(&query)?;
            for entry in &page.entries {
                let found = evermill_core::history::Remembered::decode(&entry.row.body)
                    .map_err(|cause| cause.to_string())?;
                let mut found = found.into_iter().rev();
                if let Some(past) =
                    found.find(|past| past.lane == lane.lane && past.position == position)
                {
                    let names = self.task_names(lane.run, past.version);
                    let tasks = past.tasks.iter().filter_map(|task| {
                        let name = names.get(usize::from(task.task))?;
                        Some((name.clone(), json!(word(task.state))))
                    });
                    let state = match past.ended {
                        Ended::Done => "done",
                        Ended::Skipped => "skipped",
                        Ended::Parked | Ended::Dropped => "failed",
                    };
                    // Of those that are redriven, the last end counts, and history begins with it.
                    let tasks: Map<String, Value> = tasks.collect();
                    return Ok(Some(json!({"state": state, "tasks": tasks})));
                }
            }
            match page.more {
                Some(more) => query.before = Some(more),
                None => break,
            }
        }
        let mut parked = self.machine.parked(lane.run);
        let is_parked = parked.any(|parked| parked.activation == key);
        Ok(is_parked.then(|| json!({"state": "failed", "tasks": {}})))
    }

    fn task_names(&self, run: RunIx, version: u16) -> Vec<String> {
        let hash = self.machine.run_versions(run).get(usize::from(version));
        let version = hash.and_then(|hash| self.versions.get(hash));
        let tasks = version.map(|version| version.outline.tasks.iter());
        let names = tasks.into_iter().flatten();
        names.map(|task| task.id.to_string()).collect()
    }
}

const fn word(state: TaskState) -> &'static str {
    match state {
        TaskState::Success => "success",
        TaskState::Failed => "failed",
        TaskState::Skipped => "skipped",
        TaskState::UpstreamFailed => "upstream_failed",
    }
}
