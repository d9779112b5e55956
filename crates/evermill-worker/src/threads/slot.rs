//! A slot's thread: takes dispatches, runs their members, says how they ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evermill_contract::worker::{
    Answer, Death, Dispatch, OrderMode, Outcome, OutcomeRun, Question, Slot as SlotId, TaskError,
    TaskErrorKind, TaskRef, Token, WorkerEvent, limits,
};

use super::Slot;
use super::watch::Watch;

/// Where events go; several threads of the pool deliver them.
pub(crate) type Shared = Arc<dyn Fn(WorkerEvent) + Send + Sync>;

/// What a slot runs.
pub(crate) trait Runs: Send + 'static {
    /// Whether plain successes may wait a moment for more of them: members are short.
    const GATHERS: bool;
    /// Whether a member that takes too long is left to its thread, and the slot gets another one: for
    /// what cannot be ended from outside.
    const IS_LEFT: bool = false;

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

    /// Runs all members in one call (W8); an outcome for each, in order. Whatever cannot do that runs
    /// them one by one.
    fn together(
        &mut self,
        _slot: &Arc<Slot>,
        _events: &Shared,
        _dispatch: &Arc<Dispatch>,
    ) -> Option<Vec<Outcome>> {
        None
    }
}

/// What the engine wants of a slot, and what it does.
#[derive(Default)]
pub(crate) struct State {
    pub(super) queue: VecDeque<Dispatch>,
    pub(super) running: Option<Token>,
    /// What has not been started of the running dispatch is to be returned.
    pub(super) recalled: bool,
    /// Members of the running dispatch; fewer once those behind a long one were returned.
    members: u32,
    /// They keep an order, and all come back at the end.
    ordered: bool,
    pub(crate) stop: Option<Stop>,
    pub(super) end: bool,
    /// Which of its threads the slot listens to, counted from 0: one that was left is not heard.
    pub(crate) life: u32,
    /// The members that run now.
    pub(super) inside: Option<Inside>,
    /// Plain successes that were not reported yet.
    pub(super) gathered: Option<OutcomeRun>,
    /// Members of the running dispatch whose outcome is on its way to the engine, from the first.
    pub(super) reported: u32,
    /// Questions that wait for their answer, by number.
    asking: BTreeMap<u32, Option<Answer>>,
    asked: u32,
}

/// Members that run: one, or all of a dispatch that is one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inside {
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) started_ns: u64,
    pub(super) late_at: Option<Instant>,
}

impl State {
    /// When what runs now has taken too long.
    pub(super) fn due(&self) -> Option<Instant> {
        let late = self.inside?.late_at;
        let kill = self.stop.map(|stop| stop.kill_at);
        late.into_iter().chain(kill).min()
    }

    /// Recalls what runs. The first member behind the one that runs, which come back at once.
    pub(super) fn recall_rest(&mut self) -> Option<u32> {
        self.recalled = true;
        let inside = self.inside.as_ref().filter(|_| !self.ordered)?;
        let from = inside.first + inside.count;
        let is_news = from < self.members;
        self.members = self.members.min(from);
        is_news.then_some(from)
    }

    /// Gives up on the thread that runs: it is not heard any more. What the engine is to be told.
    pub(super) fn leave(&mut self, slot: &Slot, now: Instant) -> Vec<WorkerEvent> {
        let (Some(inside), Some(token)) = (self.inside.take(), self.running.take()) else {
            return Vec::new();
        };
        self.life += 1;
        self.recalled = false;
        self.asking.clear();
        let is_late = inside.late_at.is_some_and(|at| at <= now);
        let mut runs: Vec<OutcomeRun> = self.gathered.take().into_iter().collect();
        if is_late {
            runs.push(OutcomeRun {
                first: inside.first,
                count: inside.count,
                started_ns: inside.started_ns,
                ended_ns: monotonic_ns(),
                outcome: late(),
            });
        }
        self.reported += runs.iter().map(|run| run.count).sum::<u32>();
        let outcomes = (!runs.is_empty()).then_some(WorkerEvent::Outcomes {
            slot: slot.id,
            token,
            runs,
        });
        let died = WorkerEvent::Died {
            slot: slot.id,
            cause: if is_late {
                Death::Timeout
            } else {
                Death::Killed
            },
            token: Some(token),
            started: Some(inside.first + inside.count - 1),
            reported: self.reported,
        };
        let behind = self.queue.drain(..);
        let behind =
            behind.map(|held| crate::pool::returned(slot.id, held.token, held.members.len()));
        let events = outcomes.into_iter().chain([died]).chain(behind).collect();
        if !self.end {
            self.stop = None;
        }
        events
    }
}

fn late() -> Outcome {
    let message = "ran longer than its timeout; what it still does is not heard any more";
    failed(TaskErrorKind::Timeout, message.to_owned(), String::new())
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
                state.members = dispatch.members.len() as u32;
                state.ordered = dispatch.order != OrderMode::Independent;
                state.reported = 0;
                return Some(dispatch);
            }
            state = self.wait(state);
        }
    }

    /// Asks the engine on behalf of a member and waits for what it says. A plain success of an earlier
    /// member may not be reported yet: it says nothing that an answer could depend on.
    pub(crate) fn ask(
        &self,
        life: u32,
        events: &Shared,
        member: (Token, u32),
        question: Question,
    ) -> Answer {
        let gone = || Answer::Refused("the attempt that asks has ended".to_owned());
        let mut state = self.lock();
        if state.life != life || state.running != Some(member.0) {
            return gone();
        }
        state.asked = state.asked.wrapping_add(1);
        let call = state.asked;
        state.asking.insert(call, None);
        drop(state);
        events(WorkerEvent::Ask {
            slot: self.id,
            call,
            token: member.0,
            member: member.1,
            question,
        });
        let mut state = self.lock();
        loop {
            match state.asking.get_mut(&call) {
                None => return gone(),
                Some(answer) => {
                    if let Some(answer) = answer.take() {
                        state.asking.remove(&call);
                        return answer;
                    }
                }
            }
            if state.end {
                state.asking.remove(&call);
                return Answer::Refused("the engine is closing".to_owned());
            }
            state = self.wait(state);
        }
    }

    pub(super) fn answer(&self, call: u32, answer: Answer) {
        if let Some(place) = self.lock().asking.get_mut(&call) {
            *place = Some(answer);
            self.changed.notify_all();
        }
    }

    /// Whether a member would better end soon.
    pub(crate) fn should_stop(&self, life: u32) -> bool {
        let state = self.lock();
        state.life != life || state.end || state.stop.is_some()
    }
}

/// The thread's body.
pub(super) fn run<R: Runs>(slot: &Arc<Slot>, watch: &Arc<Watch>, events: &Shared, mut runs: R) {
    let ready = || WorkerEvent::Ready {
        slot: slot.id,
        pid: std::process::id(),
    };
    let life = slot.lock().life;
    events(ready());
    loop {
        let served = slot.next().map(|dispatch| {
            let dispatch = Arc::new(dispatch);
            let token = dispatch.token;
            let watch = R::IS_LEFT.then_some(&**watch);
            let serving = Serving::new(slot, watch, events, &dispatch, life);
            (token, serving.serve(&mut runs))
        });
        if matches!(served, Some((_, Served::Left))) {
            // The slot has gone on without this thread.
            return;
        }
        let (ends, stopped) = {
            let mut state = slot.lock();
            state.running = None;
            let stopped = state.stop.is_some();
            if !state.end {
                state.stop = None;
            }
            (state.end, stopped)
        };
        match served {
            Some((token, Served::Whole { tail })) => events(WorkerEvent::Finished {
                slot: slot.id,
                token,
                tail,
            }),
            Some((token, Served::Cut { started, reported })) => {
                events(WorkerEvent::Died {
                    slot: slot.id,
                    cause: Death::Killed,
                    token: Some(token),
                    started,
                    reported,
                });
                if !ends {
                    events(ready());
                }
                continue;
            }
            None if stopped && !ends => {
                events(gone(slot.id));
                events(ready());
            }
            Some((_, Served::Left)) | None => {}
        }
        if ends {
            events(gone(slot.id));
            return;
        }
    }
}

/// A slot without a worker that had nothing to run.
pub(super) const fn gone(slot: SlotId) -> WorkerEvent {
    WorkerEvent::Died {
        slot,
        cause: Death::Killed,
        token: None,
        started: None,
        reported: 0,
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
    /// It took too long, and the engine was told so: nobody listens any more.
    Left,
}

struct Serving<'a> {
    slot: &'a Arc<Slot>,
    /// Who looks at the clock, if what runs can be left.
    watch: Option<&'a Watch>,
    events: &'a Shared,
    dispatch: &'a Arc<Dispatch>,
    life: u32,
    begun: Instant,
    /// Scopes in which a member has failed.
    held: BTreeSet<u32>,
}

impl<'a> Serving<'a> {
    fn new(
        slot: &'a Arc<Slot>,
        watch: Option<&'a Watch>,
        events: &'a Shared,
        dispatch: &'a Arc<Dispatch>,
        life: u32,
    ) -> Self {
        Self {
            slot,
            watch,
            events,
            dispatch,
            life,
            begun: Instant::now(),
            held: BTreeSet::new(),
        }
    }

    fn serve<R: Runs>(mut self, runs: &mut R) -> Served {
        let members = self.dispatch.members.len() as u32;
        if let Err(why) = runs.find(&self.dispatch.task) {
            let outcome = failed(TaskErrorKind::Load, why, String::new());
            self.report(0, members, monotonic_ns(), outcome);
            return Served::Whole { tail: 0 };
        }
        if self.dispatch.vectorised
            && let Some(served) = self.serve_together(runs)
        {
            return served;
        }
        for index in 0..members {
            let scope = self.dispatch.members[index as usize].scope;
            if self.held.contains(&scope) {
                self.report(index, 1, monotonic_ns(), Outcome::Held);
                continue;
            }
            let started = monotonic_ns();
            if let Some(served) = self.enter(index, 1, started) {
                self.flush();
                return served;
            }
            let outcome = runs.member(self.slot, self.events, self.dispatch, index);
            let plain = R::GATHERS && matches!(outcome, Some(Outcome::Success(None)));
            if !self.ended(plain.then_some((index, started))) {
                return Served::Left;
            }
            let Some(outcome) = outcome else {
                self.flush();
                return Served::Cut {
                    started: Some(index),
                    reported: index,
                };
            };
            let is_failed = matches!(outcome, Outcome::Failed(_));
            if !plain {
                self.report(index, 1, started, outcome);
            }
            match self.dispatch.order {
                OrderMode::StopOnFailure if is_failed => {
                    return Served::Whole {
                        tail: self.slot.lock().members - index - 1,
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

    /// One call for all members; None if these are run one by one.
    fn serve_together<R: Runs>(&self, runs: &mut R) -> Option<Served> {
        let members = self.dispatch.members.len() as u32;
        let started = monotonic_ns();
        if let Some(served) = self.enter(0, members, started) {
            return Some(served);
        }
        let outcomes = runs.together(self.slot, self.events, self.dispatch);
        if !self.ended(None) {
            return Some(Served::Left);
        }
        for (index, outcome) in outcomes?.into_iter().enumerate() {
            self.report(index as u32, 1, started, outcome);
        }
        Some(Served::Whole { tail: 0 })
    }

    /// Notes that members start; or how the dispatch ends before them.
    fn enter(&self, first: u32, count: u32, started_ns: u64) -> Option<Served> {
        let limit = self.dispatch.timeout.filter(|_| self.watch.is_some());
        let late_at = limit.map(|limit| Instant::now() + limit);
        let is_over = first > 0 && self.begun.elapsed() >= self.dispatch.slice;
        let mut state = self.slot.lock();
        let stop = state.stop.map(|stop| stop.term_at);
        if stop.is_some_and(|at| at <= Instant::now()) {
            return Some(Served::Cut {
                started: first.checked_sub(1),
                reported: first,
            });
        }
        if state.recalled || is_over {
            return Some(Served::Whole {
                tail: state.members - first,
            });
        }
        state.inside = Some(Inside {
            first,
            count,
            started_ns,
            late_at,
        });
        drop(state);
        if let (Some(watch), Some(at)) = (self.watch, late_at) {
            watch.look_at(at);
        }
        None
    }

    /// Notes that members have ended, a plain success with its index and start; false when nobody
    /// listens any more.
    fn ended(&self, plain: Option<(u32, u64)>) -> bool {
        let mut state = self.slot.lock();
        if state.life != self.life {
            return false;
        }
        state.inside = None;
        if let Some((index, started_ns)) = plain {
            let now = monotonic_ns();
            let run = state.gathered.get_or_insert(OutcomeRun {
                first: index,
                count: 0,
                started_ns,
                ended_ns: now,
                outcome: Outcome::Success(None),
            });
            (run.count, run.ended_ns) = (run.count + 1, now);
            let waited_ns = now.saturating_sub(run.started_ns);
            drop(state);
            if waited_ns >= limits::FLUSH_INTERVAL.as_nanos() as u64 {
                self.flush();
            }
        }
        true
    }

    fn flush(&self) {
        let gathered = {
            let mut state = self.slot.lock();
            let gathered = state.gathered.take();
            state.reported += gathered.as_ref().map_or(0, |run| run.count);
            gathered
        };
        if let Some(run) = gathered {
            self.tell(run);
        }
    }

    fn report(&self, first: u32, count: u32, started_ns: u64, outcome: Outcome) {
        self.flush();
        self.slot.lock().reported += count;
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
        retry_after_ms: None,
    }))
}

/// The machine's monotonic clock, on which everybody stamps what is reported.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
