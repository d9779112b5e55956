//! A simulated worker: one dispatch, run member by member in the order it asks for.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use evermill_core::command::{
    DispatchId, DispatchOrder, Event, Fence, Outcome, OutcomeRun, ScopeState, Success,
};

use crate::prng::Prng;
use crate::script::{Act, Answer};

/// One member as the worker got it.
#[derive(Debug, Clone)]
pub struct Member {
    /// The activation.
    pub act: Act,
    /// Map index, or -1.
    pub index: i32,
    /// Try number, from 1.
    pub tries: u32,
    /// How often it has said *not yet*, of a sensor.
    pub asked: u32,
    /// Redrives before.
    pub round: u32,
    /// Sources that have fired for its activation.
    pub fired: BTreeSet<u16>,
    /// The events it sees with their sources, the opening one first.
    pub events: Vec<(u16, Event)>,
    /// Results of direct upstream tasks.
    pub results: BTreeMap<u16, Vec<(i32, Bytes)>>,
    /// The ordering scope: lane and key.
    pub scope: (u16, u128),
    /// State as it was when the dispatch was sent.
    pub state: ScopeState,
}

/// A dispatch at work.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its number.
    pub id: DispatchId,
    /// The fence it was sent under.
    pub fence: Fence,
    /// The task, index into `DagSpec::tasks`.
    pub task: u16,
    /// The version its members are pinned to.
    pub version: String,
    /// What a failure means for the members after it.
    pub order: DispatchOrder,
    /// Members taken by one call.
    pub call: usize,
    /// Scopes are ordered: a call takes one member of each.
    pub ordered: bool,
    /// Members, in the order to run them.
    pub members: Vec<Member>,
    /// The next member to look at.
    pub next: usize,
    /// Scopes with a failure.
    pub failed: Vec<(u16, u128)>,
    /// Ended, not reported, by member.
    pub unreported: BTreeMap<u32, Outcome>,
    /// Reported, by member.
    pub reported: BTreeMap<u32, Outcome>,
    /// State written by members of this dispatch, by scope.
    pub overlays: BTreeMap<(u16, u128), ScopeState>,
    /// It was recalled.
    pub recalled: bool,
}

impl Running {
    /// The members that the next call takes; empty when there is nothing left to start.
    #[must_use]
    pub fn upcoming(&self) -> Vec<usize> {
        let stop = self.order == DispatchOrder::StopOnFailure && !self.failed.is_empty();
        if stop || self.recalled {
            return Vec::new();
        }
        let startable = |&at: &usize| match self.order {
            DispatchOrder::Independent | DispatchOrder::StopOnFailure => true,
            DispatchOrder::SkipSameScope => !self.failed.contains(&self.members[at].scope),
        };
        let mut taken: Vec<usize> = Vec::new();
        for at in (self.next..self.members.len()).filter(startable) {
            let scope = self.members[at].scope;
            let shares = taken
                .iter()
                .any(|&other| self.members[other].scope == scope);
            if taken.len() == self.call || self.ordered && shares {
                break;
            }
            taken.push(at);
        }
        taken
    }

    /// Takes some of what is unreported, oldest first, as the wire carries it.
    pub fn take_report(&mut self, count: usize) -> Vec<OutcomeRun> {
        let mut runs: Vec<OutcomeRun> = Vec::new();
        for _ in 0..count {
            let Some((member, outcome)) = self.unreported.pop_first() else {
                break;
            };
            self.reported.insert(member, outcome.clone());
            match runs.last_mut() {
                Some(run) if run.first + run.count == member && run.outcome == outcome => {
                    run.count += 1;
                }
                _ => runs.push(OutcomeRun {
                    first: member,
                    count: 1,
                    outcome,
                }),
            }
        }
        runs
    }

    /// Members that were not reported.
    #[must_use]
    pub fn left(&self) -> Vec<usize> {
        (0..self.members.len())
            .filter(|at| !self.reported.contains_key(&(*at as u32)))
            .collect()
    }
}

/// An answer as the wire carries it; `None` for one that never gets there.
#[must_use]
pub fn outcome(answer: &Answer) -> Option<Outcome> {
    Some(match answer {
        Answer::Success(success) if *success == Success::default() => Outcome::Success,
        Answer::Success(success) => Outcome::SuccessWith(Box::new(success.clone())),
        Answer::Skipped => Outcome::Skipped,
        Answer::NotYet => Outcome::Waiting { until: None },
        Answer::Failed {
            retryable,
            after_ms,
        } => Outcome::Failed {
            retryable: *retryable,
            after_ms: *after_ms,
            error: Bytes::from_static(b"scripted"),
        },
        Answer::Dies => return None,
    })
}

/// How many of `left` to take now: often one, sometimes all.
pub const fn some_of(rng: &mut Prng, left: usize) -> usize {
    match rng.below(4) {
        0 => left,
        1 => 1,
        _ => rng.between(1, left as u64) as usize,
    }
}
