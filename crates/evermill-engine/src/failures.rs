//! The latest failed attempts of a run, for whoever looks at it.

use evermill_contract::worker::Token;
use evermill_core::command::{DispatchId, Outcome, OutcomeRun};

use crate::limits;
use crate::shard::{RunSlot, Shard};
use crate::slots::unpack;
use crate::view::FailureView;

impl RunSlot {
    /// Remembers the latest failures.
    pub(crate) fn note(&mut self, failures: Vec<FailureView>) {
        self.failures.extend(failures);
        let over = self.failures.len().saturating_sub(limits::FAILURES_KEPT);
        self.failures.drain(..over);
    }
}

impl Shard {
    /// Remembers the first of each stretch of failures, before the machine hears of them.
    pub(crate) fn note_failures(&mut self, token: Token, reported: &[OutcomeRun]) {
        let failures: Vec<FailureView> = reported
            .iter()
            .filter_map(|report| self.failure(token, report))
            .collect();
        let run = self.slots.get(token).map(|out| out.run);
        if let Some(slot) = run.and_then(|run| self.runs.get_mut(&run)) {
            slot.note(failures);
        }
    }

    fn failure(&self, token: Token, report: &OutcomeRun) -> Option<FailureView> {
        let (out, task) = self.slots.of_task(token)?;
        let (id, _) = unpack(token, self.machine.fence());
        self.failure_of(id, &out.outline.tasks[usize::from(task)].id, report)
    }

    /// The first member of a stretch of failures of this task.
    pub(crate) fn failure_of(
        &self,
        dispatch: DispatchId,
        task: &str,
        report: &OutcomeRun,
    ) -> Option<FailureView> {
        let Outcome::Failed { error, .. } = &report.outcome else {
            return None;
        };
        let view = self.machine.dispatch(dispatch)?;
        let member = view.member(report.first)?;
        let text = String::from_utf8_lossy(error);
        Some(FailureView {
            at_ms: self.world.clock.now_ms(),
            task: task.to_owned(),
            lane: member.lane_name().to_owned(),
            position: member.activation().position,
            try_number: member.try_number(),
            error: text.lines().next().unwrap_or_default().to_owned(),
        })
    }
}
