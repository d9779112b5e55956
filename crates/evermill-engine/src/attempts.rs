//! Attempts that somebody may want to look at: those that failed, those after them, and those that a worker's death
//! cut off. The latest of each run are remembered for as long as this process lives.
//!
//! An event whose tasks all succeed at the first try leaves nothing here and costs nothing: its dispatch says that
//! it has no retries, and its report that nothing failed. History knows when such tasks ran, and not where.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use evermill_contract::worker::{self, Token};
use evermill_core::MemberView;
use evermill_core::command::{DispatchId, LaneId, Outcome, OutcomeRun, RunIx};

use crate::books::face_name;
use crate::handle::EngineError;
use crate::limits;
use crate::outcome::cut;
use crate::shard::{RunSlot, Shard};
use crate::slots::{Out, unpack};
use crate::view::{AttemptState, AttemptView, FailureView, WorkerName};

/// Which attempts are wanted; every field narrows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttemptQuery {
    /// Only of this task.
    pub task: Option<String>,
    /// Only of the lane of this name.
    pub lane: Option<String>,
    /// Only of the activation of the event at this position.
    pub position: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    task: Arc<str>,
    lane: LaneId,
    position: u64,
    child: u32,
    map_index: i32,
    round: u32,
    try_number: u32,
    state: AttemptState,
    worker: Option<WorkerName>,
    sent_ms: Option<u64>,
    started_ms: Option<u64>,
    ended_ms: Option<u64>,
    error: Option<Box<str>>,
}

impl Attempt {
    fn is(&self, wanted: &AttemptQuery, names: &LaneNames) -> bool {
        let lane = names.get(&self.lane);
        let is_of =
            |asked: &String| lane.is_some_and(|(face, name)| asked == face || asked == name);
        wanted
            .task
            .as_ref()
            .is_none_or(|asked| **asked == *self.task)
            && wanted.lane.as_ref().is_none_or(is_of)
            && wanted.position.is_none_or(|asked| asked == self.position)
    }

    fn lane(&self, names: &LaneNames) -> String {
        let known = names.get(&self.lane);
        known.map_or_else(String::new, |(face, _)| face.clone())
    }

    fn failure(&self, names: &LaneNames) -> FailureView {
        FailureView {
            at_ms: self.ended_ms.unwrap_or(0),
            task: self.task.to_string(),
            lane: self.lane(names),
            position: self.position,
            try_number: self.try_number,
            error: self.error.as_deref().unwrap_or_default().to_owned(),
        }
    }

    fn view(&self, names: &LaneNames) -> AttemptView {
        AttemptView {
            task: self.task.to_string(),
            lane: self.lane(names),
            position: self.position,
            child: (self.child > 0).then_some(self.child),
            map_index: u32::try_from(self.map_index).ok(),
            round: self.round,
            try_number: self.try_number,
            state: self.state,
            worker: self.worker,
            sent_ms: self.sent_ms,
            started_ms: self.started_ms,
            ended_ms: self.ended_ms,
            error: self.error.as_deref().map(str::to_owned),
        }
    }
}

/// The latest of a run, oldest first.
#[derive(Default)]
pub(crate) struct Attempts(VecDeque<Attempt>);

impl Attempts {
    pub(crate) fn add(&mut self, attempts: Vec<Attempt>) {
        self.0.extend(attempts);
        let over = self.0.len().saturating_sub(limits::ATTEMPTS_KEPT);
        self.0.drain(..over);
    }

    fn failed(&self) -> impl Iterator<Item = &Attempt> {
        let bad = |one: &&Attempt| one.state != AttemptState::Success;
        self.0.iter().rev().filter(bad)
    }
}

/// When a worker ran which members, on the machine's monotonic clock.
pub(crate) struct Stamp {
    members: Range<u32>,
    started_ns: u64,
    ended_ns: u64,
}

impl Stamp {
    /// Of a report, before it is translated.
    pub(crate) fn all(reported: &[worker::OutcomeRun]) -> Vec<Self> {
        let stamp = |run: &worker::OutcomeRun| Self {
            members: run.first..run.first + run.count,
            started_ns: run.started_ns,
            ended_ns: run.ended_ns,
        };
        reported.iter().map(stamp).collect()
    }

    /// When a member began and ended; of several that share an outcome, about.
    fn of(stamps: &[Self], member: u32) -> Option<(u64, u64)> {
        let at = stamps.partition_point(|stamp| stamp.members.end <= member);
        let stamp = stamps.get(at)?;
        let known = stamp.members.contains(&member) && stamp.started_ns > 0;
        let whole = stamp.ended_ns.saturating_sub(stamp.started_ns);
        let step = whole / u64::from(stamp.members.len() as u32).max(1);
        let started =
            stamp.started_ns + step * u64::from(member.saturating_sub(stamp.members.start));
        known.then_some((started, started + step))
    }
}

/// Names of a run's lanes: among those of the run, and the source's own.
type LaneNames = BTreeMap<LaneId, (String, String)>;

impl Shard {
    /// Remembers what of a report is worth it, before the machine hears of it.
    pub(crate) fn note_attempts(&mut self, token: Token, runs: &[OutcomeRun], stamps: &[Stamp]) {
        let Some((out, task)) = self.slots.of_task(token) else {
            return;
        };
        let failed = |run: &OutcomeRun| matches!(run.outcome, Outcome::Failed { .. });
        if !out.retries && !runs.iter().any(failed) {
            return;
        }
        let (dispatch, _) = unpack(token, self.machine.fence());
        let task = &out.outline.tasks[usize::from(task)].id;
        let mut attempts = self.attempts_of(dispatch, task, runs, Some(out));
        let ahead_ns = self.ahead_us() * 1_000;
        for (member, attempt) in &mut attempts {
            if let Some((started, ended)) = Stamp::of(stamps, *member) {
                attempt.started_ms = Some((started + ahead_ns) / 1_000_000);
                attempt.ended_ms = Some((ended + ahead_ns) / 1_000_000);
            }
        }
        let run = out.run;
        self.remember_attempts(run, attempts);
    }

    /// Of outcomes of one task: those of members that failed, or had failed before. `out`: with whom they were.
    pub(crate) fn attempts_of(
        &self,
        dispatch: DispatchId,
        task: &Arc<str>,
        runs: &[OutcomeRun],
        out: Option<&Out>,
    ) -> Vec<(u32, Attempt)> {
        let Some(view) = self.machine.dispatch(dispatch) else {
            return Vec::new();
        };
        let mut attempts = Vec::new();
        for run in runs {
            let (state, error) = match &run.outcome {
                Outcome::Success | Outcome::SuccessWith(_) => (AttemptState::Success, None),
                Outcome::Skipped => (AttemptState::Skipped, None),
                Outcome::Failed { error, .. } => (AttemptState::Failed, Some(error)),
                // A sensor that says *not yet* uses up no try.
                Outcome::Waiting { .. } => continue,
            };
            let error = error.map(|error| String::from_utf8_lossy(error));
            let end = run.first.saturating_add(run.count);
            for member in run.first..end {
                if attempts.len() >= limits::ATTEMPTS_KEPT {
                    return attempts;
                }
                let Some(found) = view.member(member) else {
                    continue;
                };
                if error.is_some() || found.try_number() > 1 {
                    let attempt = self.attempt(&found, task, (state, error.as_deref()), out);
                    attempts.push((member, attempt));
                }
            }
        }
        attempts
    }

    /// A worker died: what had begun and has no outcome is cut off.
    pub(crate) fn note_cut_off(
        &mut self,
        out: &Out,
        dispatch: DispatchId,
        started: u32,
        error: &str,
    ) {
        let (Some(task), Some(view)) = (out.task, self.machine.dispatch(dispatch)) else {
            return;
        };
        let task = &out.outline.tasks[usize::from(task)].id;
        let members = (out.reported..=started).take(limits::ATTEMPTS_KEPT);
        let attempts = members.filter_map(|member| {
            let found = view.member(member)?;
            let end = (AttemptState::CutOff, Some(error));
            Some((member, self.attempt(&found, task, end, Some(out))))
        });
        let attempts = attempts.collect();
        self.remember_attempts(out.run, attempts);
    }

    pub(crate) fn remember_attempts(&mut self, run: RunIx, attempts: Vec<(u32, Attempt)>) {
        if let Some(slot) = self.runs.get_mut(&run) {
            let attempts = attempts.into_iter().map(|(_, attempt)| attempt);
            slot.attempts.add(attempts.collect());
        }
    }

    /// One that ends now, or is still with a worker.
    fn attempt(
        &self,
        member: &MemberView<'_>,
        task: &Arc<str>,
        (state, error): (AttemptState, Option<&str>),
        out: Option<&Out>,
    ) -> Attempt {
        let key = member.activation();
        let line = error.map(|error| error.lines().next().unwrap_or_default());
        Attempt {
            task: Arc::clone(task),
            lane: key.lane,
            position: key.position,
            child: key.child,
            map_index: member.map_index(),
            round: member.round(),
            try_number: member.try_number(),
            state,
            worker: out.map(|out| self.slots.worker(out.slot)),
            sent_ms: out.map(|out| self.sent_ms(out)),
            started_ms: None,
            ended_ms: (state != AttemptState::Sent).then(|| self.world.clock.now_ms()),
            error: line.map(|line| cut(line, limits::ATTEMPT_ERROR_BYTES).into()),
        }
    }

    pub(crate) fn sent_ms(&self, out: &Out) -> u64 {
        let past = out.sent_at.elapsed().as_millis() as u64;
        self.world.clock.now_ms().saturating_sub(past)
    }

    fn lane_names(&self, run: RunIx) -> LaneNames {
        let lanes = self.machine.lanes(run);
        lanes
            .map(|lane| (lane.lane, (face_name(&lane), lane.name)))
            .collect()
    }

    /// The latest failed ones, newest first.
    pub(crate) fn failures(&self, run: RunIx, slot: &RunSlot) -> Vec<FailureView> {
        let names = match slot.attempts.0.is_empty() {
            true => LaneNames::new(),
            false => self.lane_names(run),
        };
        let failures = slot.attempts.failed().take(limits::FAILURES_KEPT);
        failures.map(|one| one.failure(&names)).collect()
    }

    /// The latest failed one.
    pub(crate) fn last_failure(&self, run: RunIx) -> Option<FailureView> {
        let last = self.runs.get(&run)?.attempts.failed().next()?;
        Some(last.failure(&self.lane_names(run)))
    }

    /// What is with workers, and what is remembered, the newest first.
    pub(crate) fn attempts(
        &self,
        run: &str,
        wanted: &AttemptQuery,
    ) -> Result<Vec<AttemptView>, EngineError> {
        let run = self.books().find(run)?.run;
        let names = self.lane_names(run);
        let mut found = self.sent(run, wanted, &names);
        if let Some(slot) = self.runs.get(&run) {
            let ended = slot.attempts.0.iter().rev();
            let ended = ended.filter(|one| one.is(wanted, &names));
            found.extend(ended.map(|one| one.view(&names)));
        }
        found.truncate(wanted.limit);
        Ok(found)
    }

    /// What is with workers: of each dispatch the member whose turn it is, or the one that is asked for.
    fn sent(&self, run: RunIx, wanted: &AttemptQuery, names: &LaneNames) -> Vec<AttemptView> {
        let mut found: Vec<AttemptView> = Vec::new();
        for (token, out) in self.slots.with_tokens().filter(|(_, out)| out.run == run) {
            let (id, fence) = unpack(token, self.machine.fence());
            let view = self.machine.dispatch(id);
            let view = view.filter(|_| fence == self.machine.fence());
            let (Some(task), Some(view)) = (out.task, view) else {
                continue;
            };
            let task = &out.outline.tasks[usize::from(task)].id;
            let next = out.reported..out.members;
            let members = match wanted.position {
                Some(_) => next,
                None => next.start..next.end.min(next.start + 1),
            };
            for member in members.filter_map(|member| view.member(member)) {
                let one = self.attempt(&member, task, (AttemptState::Sent, None), Some(out));
                if one.is(wanted, names) {
                    found.push(one.view(names));
                }
            }
        }
        found.sort_by_key(|one| std::cmp::Reverse(one.sent_ms));
        found
    }
}
