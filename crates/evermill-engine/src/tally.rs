//! How often each task of a run ended how, since this engine opened: flow for people who watch.
//!
//! Attempts are counted as workers report them, so this may run ahead of the last commit; the
//! counters of events never do.

use std::collections::BTreeMap;
use std::sync::Arc;

use evermill_contract::worker::Token;
use evermill_core::command::{Outcome, OutcomeRun, RunIx};

use crate::manifest::Outline;
use crate::shard::Shard;
use crate::view::TaskView;

/// Ends of attempts by task id, which means the same in every version of a DAG.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<Arc<str>, Ends>);

#[derive(Default, Clone, Copy)]
struct Ends {
    succeeded: u64,
    skipped: u64,
    failed: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, task: &Arc<str>, runs: &[OutcomeRun]) {
        if !self.0.contains_key(task) {
            self.0.insert(Arc::clone(task), Ends::default());
        }
        let Some(ends) = self.0.get_mut(task) else {
            return;
        };
        for run in runs {
            let end = match run.outcome {
                Outcome::Success | Outcome::SuccessWith(_) => &mut ends.succeeded,
                Outcome::Skipped => &mut ends.skipped,
                Outcome::Failed { .. } => &mut ends.failed,
                // Not an end.
                Outcome::Waiting { .. } => continue,
            };
            *end += u64::from(run.count);
        }
    }
}

impl Shard {
    /// Counts what a current attempt reported; the machine refuses what others do.
    pub(crate) fn tally(&mut self, token: Token, runs: &[OutcomeRun]) {
        let Some((out, task)) = self.slots.of_task(token) else {
            return;
        };
        if let Some(run) = self.runs.get_mut(&out.run) {
            run.tally
                .count(&out.outline.tasks[usize::from(task)].id, runs);
        }
    }

    /// The tasks of a run in order of declaration.
    pub(crate) fn task_views(&self, run: RunIx) -> Vec<TaskView> {
        let (Some(slot), Some(outline)) = (self.runs.get(&run), self.outline_of(run)) else {
            return Vec::new();
        };
        let mut running = self.members_out(run, outline);
        let view = |task: &crate::manifest::TaskOutline| {
            let ends = slot.tally.0.get(&task.id).copied().unwrap_or_default();
            TaskView {
                id: task.id.to_string(),
                succeeded: ends.succeeded,
                skipped: ends.skipped,
                failed: ends.failed,
                running: running.remove(&task.id).unwrap_or(0),
            }
        };
        outline.tasks.iter().map(view).collect()
    }

    /// Members of the dispatches that are with workers, by task.
    fn members_out(&self, run: RunIx, outline: &Outline) -> BTreeMap<Arc<str>, u64> {
        let mut members = BTreeMap::new();
        for out in self.slots.all().filter(|out| out.run == run) {
            // A function of a source is no task.
            let Some(task) = out.task else { continue };
            let task = &out.outline.tasks[usize::from(task)].id;
            if outline.task(task).is_some() {
                *members.entry(Arc::clone(task)).or_default() += u64::from(out.members);
            }
        }
        members
    }
}
