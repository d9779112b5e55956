//! How often each task of a run ended how, since this engine opened: flow for people who watch.
//!
//! Attempts are counted as workers report them, so this may run ahead of the last commit; the
//! counters of events never do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use evermill_contract::worker::Token;
use evermill_core::command::{Outcome, OutcomeRun, RunIx};

use crate::manifest::Outline;
use crate::shard::Shard;
use crate::view::{LongWorkView, TaskView};

/// Ends of attempts by task id, which means the same in every version of a DAG.
#[derive(Default)]
pub(crate) struct Tally {
    ends: BTreeMap<Arc<str>, Ends>,
    /// Of which version, and what was shown last while nothing was with a worker; none once something
    /// was counted.
    shown: RefCell<Option<(String, Arc<[TaskView]>)>>,
}

#[derive(Default, Clone, Copy)]
struct Ends {
    succeeded: u64,
    skipped: u64,
    failed: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, task: &Arc<str>, runs: &[OutcomeRun]) {
        self.shown.take();
        if !self.ends.contains_key(task) {
            self.ends.insert(Arc::clone(task), Ends::default());
        }
        let Some(ends) = self.ends.get_mut(task) else {
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

    /// The tasks of a run in order of declaration. Most runs rest most of the time: theirs are kept.
    pub(crate) fn task_views(&self, run: RunIx) -> Arc<[TaskView]> {
        let (Some(slot), Some(outline)) = (self.runs.get(&run), self.outline_of(run)) else {
            return Arc::default();
        };
        let mut running = self.members_out(run, outline);
        let rests = running.is_empty();
        let mut shown = slot.tally.shown.borrow_mut();
        if let Some((version, tasks)) = &*shown
            && rests
            && *version == slot.version
        {
            return Arc::clone(tasks);
        }
        let view = |task: &crate::manifest::TaskOutline| {
            let ends = slot.tally.ends.get(&task.id).copied().unwrap_or_default();
            TaskView {
                id: task.id.to_string(),
                succeeded: ends.succeeded,
                skipped: ends.skipped,
                failed: ends.failed,
                running: running.remove(&task.id).unwrap_or(0),
            }
        };
        let tasks: Arc<[TaskView]> = outline.tasks.iter().map(view).collect();
        *shown = rests.then(|| (slot.version.clone(), Arc::clone(&tasks)));
        tasks
    }

    pub(crate) fn longest_work(&self, run: RunIx) -> Option<LongWorkView> {
        let out = self.slots.longest(run)?;
        Some(LongWorkView {
            task: out.outline.tasks[usize::from(out.task?)].id.to_string(),
            since_ms: self.sent_ms(out),
        })
    }

    /// Members of the dispatches that workers are at, by task.
    fn members_out(&self, run: RunIx, outline: &Outline) -> BTreeMap<Arc<str>, u64> {
        let mut members = BTreeMap::new();
        for out in self.slots.all().filter(|out| out.run == run) {
            // A function of a source is no task.
            let Some(task) = out.task else { continue };
            let task = &out.outline.tasks[usize::from(task)].id;
            if outline.task(task).is_some() && self.slots.is_first(out) {
                *members.entry(Arc::clone(task)).or_default() += u64::from(out.members);
            }
        }
        members
    }
}
