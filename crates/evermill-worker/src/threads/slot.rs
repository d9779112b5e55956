//! A slot's thread: takes dispatches, runs their members, says how they ended.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evermill_contract::worker::{
    Death, Dispatch, OrderMode, Outcome, OutcomeRun, TaskError, TaskErrorKind, TaskRef, Token,
    WorkerEvent, limits,
};

use super::Slot;

/// Where events go; several threads of the pool deliver them.
pub(crate) type Shared = Arc<dyn Fn(WorkerEvent) + Send + Sync>;

/// What a slot runs.
pub(crate) trait Runs: Send + 'static {
    /// Whether plain successes may wait a moment for more of them: members are short.
    const GATHERS: bool;

    /// Makes sure that there is such a task.
    ///
    /// # Errors
    /// A sentence if there is not.
    fn find(&mut self, task: &TaskRef) -> Result<(), String>;

    /// Runs one member to its end; None when the engine stopped it.
    fn member(
        &mut self,
        slot: &Arc<Slot>,
        events: &Shared,
        dispatch: &Arc<Dispatch>,
        index: u32,
    ) -> Option<Outcome>;
}

/// What the engine wants of a slot, and what it does.
#[derive(Default)]
pub(crate) struct State {
    pub(super) queue: VecDeque<Dispatch>,
    pub(super) running: Option<Token>,
    /// What has not been started of the running dispatch is to be returned.
    pub(super) recalled: bool,
    pub(crate) stop: Option<Stop>,
    pub(super) end: bool,
}

/// The command that runs is to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub(crate) term_at: Instant,
    pub(crate) kill_at: Instant,
}

impl Stop {
    /// TERM at once, KILL after `grace`.
    pub(super) fn now(grace: Duration) -> Self {
        let now = Instant::now();
        Self {
            term_at: now,
            kill_at: now + grace,
        }
    }

    /// TERM after `grace`, KILL a moment later.
    pub(super) fn after(grace: Duration) -> Self {
        let term_at = Instant::now() + grace;
        Self {
            term_at,
            kill_at: term_at + Duration::from_millis(200),
        }
    }
}

impl Slot {
    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait_for<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The next dispatch; None when the slot is told to stop or to end.
    fn next(&self) -> Option<Dispatch> {
        let mut state = self.lock();
        loop {
            if state.end || state.stop.is_some() {
                return None;
            }
            if let Some(dispatch) = state.queue.pop_front() {
                state.running = Some(dispatch.token);
                state.recalled = false;
                return Some(dispatch);
            }
            state = self.wait(state);
        }
    }
}

/// The thread's body.
pub(super) fn run<R: Runs>(slot: &Arc<Slot>, events: &Shared, mut runs: R) {
    let ready = || WorkerEvent::Ready {
        slot: slot.id,
        pid: std::process::id(),
    };
    events(ready());
    loop {
        let served = slot.next().map(|dispatch| {
            let dispatch = Arc::new(dispatch);
            let token = dispatch.token;
            (
                token,
                Serving::new(slot, events, &dispatch).serve(&mut runs),
            )
        });
        let (ends, stopped) = {
            let mut state = slot.lock();
            state.running = None;
            let stopped = state.stop.is_some();
            if !state.end {
                state.stop = None;
            }
            (state.end, stopped)
        };
        let died = |token, started, reported| WorkerEvent::Died {
            slot: slot.id,
            cause: Death::Killed,
            token,
            started,
            reported,
        };
        match served {
            Some((token, Served::Whole { tail })) => events(WorkerEvent::Finished {
                slot: slot.id,
                token,
                tail,
            }),
            Some((token, Served::Cut { started, reported })) => {
                events(died(Some(token), started, reported));
                if !ends {
                    events(ready());
                }
                continue;
            }
            None if stopped && !ends => {
                events(died(None, None, 0));
                events(ready());
            }
            None => {}
        }
        if ends {
            events(died(None, None, 0));
            return;
        }
    }
}

/// How a dispatch ended.
enum Served {
    Whole {
        tail: u32,
    },
    /// The engine stopped it within a member.
    Cut {
        started: Option<u32>,
        reported: u32,
    },
}

struct Serving<'a> {
    slot: &'a Arc<Slot>,
    events: &'a Shared,
    dispatch: &'a Arc<Dispatch>,
    begun: Instant,
    /// Scopes in which a member has failed.
    held: BTreeSet<u32>,
    /// Plain successes that were not reported yet.
    gathered: Option<OutcomeRun>,
}

impl<'a> Serving<'a> {
    fn new(slot: &'a Arc<Slot>, events: &'a Shared, dispatch: &'a Arc<Dispatch>) -> Self {
        Self {
            slot,
            events,
            dispatch,
            begun: Instant::now(),
            held: BTreeSet::new(),
            gathered: None,
        }
    }

    fn serve<R: Runs>(mut self, runs: &mut R) -> Served {
        let members = self.dispatch.members.len() as u32;
        if let Err(why) = runs.find(&self.dispatch.task) {
            let outcome = failed(TaskErrorKind::Load, why, String::new());
            self.report(0, members, monotonic_ns(), outcome);
            return Served::Whole { tail: 0 };
        }
        for index in 0..members {
            if let Some(served) = self.before(index) {
                self.flush();
                return served;
            }
            let scope = self.dispatch.members[index as usize].scope;
            if self.held.contains(&scope) {
                self.report(index, 1, monotonic_ns(), Outcome::Held);
                continue;
            }
            let started = monotonic_ns();
            let Some(outcome) = runs.member(self.slot, self.events, self.dispatch, index) else {
                self.flush();
                return Served::Cut {
                    started: Some(index),
                    reported: index,
                };
            };
            let is_failed = matches!(outcome, Outcome::Failed(_));
            match outcome {
                Outcome::Success(None) if R::GATHERS => self.gather(index, started),
                outcome => self.report(index, 1, started, outcome),
            }
            match self.dispatch.order {
                OrderMode::StopOnFailure if is_failed => {
                    return Served::Whole {
                        tail: members - index - 1,
                    };
                }
                // Scope 0 is none, so nobody else is in it.
                OrderMode::SkipSameKey if is_failed && scope > 0 => drop(self.held.insert(scope)),
                _ => {}
            }
        }
        self.flush();
        Served::Whole { tail: 0 }
    }

    /// Whether the dispatch ends before this member.
    fn before(&self, index: u32) -> Option<Served> {
        let (recalled, stopped) = {
            let state = self.slot.lock();
            let stop = state.stop.map(|stop| stop.term_at);
            (state.recalled, stop.is_some_and(|at| at <= Instant::now()))
        };
        if stopped {
            return Some(Served::Cut {
                started: index.checked_sub(1),
                reported: index,
            });
        }
        let is_over = index > 0 && self.begun.elapsed() >= self.dispatch.slice;
        (recalled || is_over).then(|| Served::Whole {
            tail: self.dispatch.members.len() as u32 - index,
        })
    }

    /// Keeps a plain success for company, for a moment.
    fn gather(&mut self, index: u32, started_ns: u64) {
        let now = monotonic_ns();
        let run = self.gathered.get_or_insert(OutcomeRun {
            first: index,
            count: 0,
            started_ns,
            ended_ns: now,
            outcome: Outcome::Success(None),
        });
        (run.count, run.ended_ns) = (run.count + 1, now);
        if now.saturating_sub(run.started_ns) >= limits::FLUSH_INTERVAL.as_nanos() as u64 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if let Some(run) = self.gathered.take() {
            self.tell(run);
        }
    }

    fn report(&mut self, first: u32, count: u32, started_ns: u64, outcome: Outcome) {
        self.flush();
        self.tell(OutcomeRun {
            first,
            count,
            started_ns,
            ended_ns: monotonic_ns(),
            outcome,
        });
    }

    fn tell(&self, run: OutcomeRun) {
        (self.events)(WorkerEvent::Outcomes {
            slot: self.slot.id,
            token: self.dispatch.token,
            runs: vec![run],
        });
    }
}

/// A failure, in words for people.
pub(crate) fn failed(kind: TaskErrorKind, message: String, traceback: String) -> Outcome {
    Outcome::Failed(Box::new(TaskError {
        kind,
        class: String::new(),
        message,
        traceback,
        retryable: kind != TaskErrorKind::TooLarge,
    }))
}

/// The machine's monotonic clock, on which everybody stamps what is reported.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
