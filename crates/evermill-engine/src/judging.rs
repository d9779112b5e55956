//! Events that no task is to read: what a dispatch does with them, and who looks again at those that
//! were edited or are tried again.
//!
//! ```text
//! dispatch built --> every event fit -------------------------------> to a worker
//!     |
//!     +--> some rejected: those have failed for good, the rest comes in another dispatch
//!     |
//!     +--> edited or redriven, and the gate has to ask somebody: a thread does, the dispatch waits
//! ```

use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::source::{Form, Gate, Severity, Verdict};
use evermill_core::command::{Command, DispatchId, Event, Fence, Outcome, OutcomeRun};

use crate::input::{Input, SourceKey};
use crate::outcome::error_bytes;
use crate::payload::{Parts, Standing, rejection_of};
use crate::shard::Shard;

/// Begins the error of an event that no task is to read.
pub(crate) const INVALID: &str = "invalid: ";

/// What is to be known of a dispatch before it can be sent.
#[derive(Default)]
pub(crate) struct Findings {
    /// Members that have failed, in order, and why.
    pub(crate) rejected: Vec<(u32, String)>,
    /// What the gates have to ask others about.
    pub(crate) open: Vec<Open>,
}

/// A value that a gate has to ask others about.
pub(crate) struct Open {
    gate: Arc<dyn Gate>,
    value: Bytes,
    form: Form,
}

/// What a gate says of an event now.
pub(crate) enum Now {
    /// Its value is to be read as it is.
    Fit,
    /// Its value is this.
    Is(Bytes),
    Rejected(String),
    Open(Open),
}

/// Dispatches that gates have something against.
#[derive(Default)]
pub(crate) struct Judging {
    /// To be answered for, outside of whatever is being done now.
    refused: Vec<(DispatchId, Refusals)>,
    answering: bool,
    /// A thread asks for this one.
    asking: Option<(DispatchId, Fence)>,
    /// It found nobody to ask.
    unanswered: Option<(DispatchId, String)>,
}

/// Members of a dispatch that fail for good, and why.
enum Refusals {
    All(String),
    Some(Vec<(u32, String)>),
}

impl Shard {
    /// Judges an event of a source as it is to be read now. `round`: how often its activation was run
    /// again by hand.
    pub(crate) fn judge_now(&self, key: SourceKey, event: &Event, round: u32) -> Now {
        let parts = Parts::read(&event.body);
        let form = match parts.standing {
            Standing::Fit => return Now::Fit,
            Standing::Rejected(_) if round == 0 => {
                return Now::Rejected(rejection_of(&event.body).unwrap_or_default());
            }
            Standing::Rejected(_) => Form::Sent,
            Standing::Edited => Form::Edited,
        };
        let listening = self.listening.get(&key);
        let gate = listening.and_then(|listening| listening.gate.as_ref());
        let (Some(gate), Some((start, len))) = (gate, parts.value) else {
            return Now::Fit;
        };
        let value = event.body.slice(start as usize..(start + len) as usize);
        let mut new = Vec::new();
        match gate.judge_known(&value, form, &mut new) {
            Some(verdict) => match verdict {
                Verdict::Passes => Now::Fit,
                Verdict::Becomes => Now::Is(Bytes::from(new)),
                Verdict::Rejected(why) => Now::Rejected(why),
            },
            None => Now::Open(Open {
                gate: Arc::clone(gate),
                value,
                form,
            }),
        }
    }

    /// Takes a dispatch that cannot be sent as it is; false when it can.
    pub(crate) fn holds_back(&mut self, id: DispatchId, findings: Findings) -> bool {
        let Findings { rejected, open } = findings;
        let unanswered = self.judging.unanswered.take_if(|(of, _)| *of == id);
        let refusals = match unanswered {
            // Whoever has it run again has it parked again, and hears why.
            Some((_, why)) if !open.is_empty() => Refusals::All(why),
            _ if !open.is_empty() => {
                self.ask_for(id, open);
                return true;
            }
            _ if rejected.is_empty() => return false,
            _ => Refusals::Some(rejected),
        };
        self.judging.refused.push((id, refusals));
        if !std::mem::replace(&mut self.judging.answering, true) {
            // One after the other: each of them may bring the next dispatch about.
            while let Some((id, refusals)) = self.judging.refused.pop() {
                self.refuse(id, refusals);
            }
            self.judging.answering = false;
        }
        true
    }

    /// Members that no task is to run for have failed for good; the others go back uncounted.
    fn refuse(&mut self, dispatch: DispatchId, refusals: Refusals) {
        let fence = self.machine.fence();
        let Some(view) = self.machine.dispatch(dispatch) else {
            return;
        };
        let (of, task) = (view.run(), view.task());
        let failed = |first, count, why: &str| OutcomeRun {
            first,
            count,
            outcome: Outcome::Failed {
                retryable: false,
                after_ms: 0,
                error: error_bytes(why),
            },
        };
        let runs: Vec<OutcomeRun> = match refusals {
            Refusals::All(why) => vec![failed(0, view.members().count() as u32, &why)],
            Refusals::Some(rejected) => rejected
                .into_iter()
                .map(|(member, why)| failed(member, 1, &format!("{INVALID}{why}")))
                .collect(),
        };
        let version = view.dag().spec.version.clone();
        let version = self.versions.get(&version);
        let outlined = version.and_then(|known| known.outline.tasks.get(usize::from(task)));
        if let Some(id) = outlined.map(|task| Arc::clone(&task.id)) {
            let attempts = self.attempts_of(dispatch, &id, &runs, None);
            if let Some(slot) = self.runs.get_mut(&of) {
                slot.tally.count(&id, &runs);
            }
            self.remember_attempts(of, attempts);
        }
        self.apply(Command::Outcomes {
            dispatch,
            fence,
            runs,
        });
        self.apply(Command::Finished { dispatch, fence });
    }

    /// A thread asks, one at a time: it is people who make values be judged again.
    fn ask_for(&mut self, id: DispatchId, open: Vec<Open>) {
        self.slots.wait(id);
        if self.judging.asking.is_some() {
            return;
        }
        let fence = self.machine.fence();
        self.judging.asking = Some((id, fence));
        let input = self.world.input.clone();
        let asked = std::thread::Builder::new()
            .name("evermill-judge".to_owned())
            .spawn(move || {
                let ask = |one: &Open| {
                    let mut new = Vec::new();
                    one.gate.judge(&one.value, one.form, &mut new).err()
                };
                let unanswered = open.iter().find_map(ask).map(|away| away.0);
                // Nobody is left to tell when the shard is gone.
                drop(input.send(Input::Judged(unanswered)));
            });
        if let Err(cause) = asked {
            self.judged(Some(format!("no thread to ask on: {cause}")));
        }
    }

    /// A gate has asked: what waits for it is tried again.
    pub(crate) fn judged(&mut self, unanswered: Option<String>) {
        let Some((id, fence)) = self.judging.asking.take() else {
            return;
        };
        if let Some(why) = unanswered.filter(|_| fence == self.machine.fence()) {
            self.notice(Severity::Warning, &why);
            self.judging.unanswered = Some((id, why));
        }
        self.send_waiting();
    }

    /// Of the members of a source batch that succeeded, those events that no task has seen become a child
    /// of their own (W8).
    pub(crate) fn split_off_rejected(&self, dispatch: DispatchId, runs: &mut Vec<OutcomeRun>) {
        let Some(view) = self.machine.dispatch(dispatch) else {
            return;
        };
        let whole = std::mem::take(runs);
        for run in whole {
            let succeeded = matches!(run.outcome, Outcome::Success | Outcome::SuccessWith(_));
            if !succeeded {
                runs.push(run);
                continue;
            }
            let mut plain = run.first;
            for index in run.first..run.first + run.count {
                let rejected = view.member(index).map_or_else(Vec::new, |member| {
                    let events = member.events().iter().enumerate();
                    let rejected = events.filter(|(_, event)| rejection_of(&event.body).is_some());
                    rejected.map(|(at, _)| at as u32).collect()
                });
                if rejected.is_empty() {
                    continue;
                }
                push(runs, plain, index, &run.outcome);
                let mut success = match &run.outcome {
                    Outcome::SuccessWith(success) => success.clone(),
                    _ => Box::default(),
                };
                success.failed_items = rejected;
                runs.push(OutcomeRun {
                    first: index,
                    count: 1,
                    outcome: Outcome::SuccessWith(success),
                });
                plain = index + 1;
            }
            push(runs, plain, run.first + run.count, &run.outcome);
        }
    }
}

fn push(runs: &mut Vec<OutcomeRun>, from: u32, to: u32, outcome: &Outcome) {
    if from < to {
        runs.push(OutcomeRun {
            first: from,
            count: to - from,
            outcome: outcome.clone(),
        });
    }
}
