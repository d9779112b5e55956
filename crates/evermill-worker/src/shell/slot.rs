//! A slot's thread: takes dispatches, runs a command for each member, says how they ended.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_contract::manifest::TaskManifest;
use evermill_contract::worker::{
    Death, Dispatch, LogOrigin, OrderMode, Outcome, OutcomeRun, Success, TaskError, TaskErrorKind,
    Token, WorkerEvent,
};

use super::command::{self, Done, Ended, Job};
use super::{SKIP, Slot, input};

/// Where events go; several threads of the pool deliver them.
pub(crate) type Shared = Arc<dyn Fn(WorkerEvent) + Send + Sync>;

/// What the engine wants of a slot, and what it does.
#[derive(Default)]
pub(crate) struct State {
    pub(super) queue: VecDeque<Dispatch>,
    pub(super) running: Option<Token>,
    /// What has not been started of the running dispatch is to be returned.
    pub(super) recalled: bool,
    pub(super) stop: Option<Stop>,
    pub(super) end: bool,
}

/// The command that runs is to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub(super) term_at: Instant,
    pub(super) kill_at: Instant,
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
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_for<'a>(
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
pub(super) fn run(slot: &Arc<Slot>, events: &Shared) {
    let mut tasks = input::Tasks::default();
    let ready = || WorkerEvent::Ready {
        slot: slot.id,
        pid: std::process::id(),
    };
    events(ready());
    loop {
        let served = slot.next().map(|dispatch| {
            let token = dispatch.token;
            (
                token,
                Serving::new(slot, events, &dispatch).serve(&mut tasks),
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
    dispatch: &'a Dispatch,
    begun: Instant,
    /// Scopes in which a member has failed.
    held: BTreeSet<u32>,
}

impl<'a> Serving<'a> {
    fn new(slot: &'a Arc<Slot>, events: &'a Shared, dispatch: &'a Dispatch) -> Self {
        Self {
            slot,
            events,
            dispatch,
            begun: Instant::now(),
            held: BTreeSet::new(),
        }
    }

    fn serve(mut self, tasks: &mut input::Tasks) -> Served {
        let members = self.dispatch.members.len() as u32;
        let task = match tasks.find(&self.dispatch.task) {
            Ok(task) => task,
            Err(why) => {
                let now = monotonic_ns();
                self.report(
                    0,
                    members,
                    now,
                    failed(TaskErrorKind::Load, why, String::new()),
                );
                return Served::Whole { tail: 0 };
            }
        };
        for index in 0..members {
            let (recalled, stopped) = {
                let state = self.slot.lock();
                (
                    state.recalled,
                    state
                        .stop
                        .is_some_and(|stop| stop.term_at <= Instant::now()),
                )
            };
            if stopped {
                let started = index.checked_sub(1);
                return Served::Cut {
                    started,
                    reported: index,
                };
            }
            if recalled || (index > 0 && self.begun.elapsed() >= self.dispatch.slice) {
                return Served::Whole {
                    tail: members - index,
                };
            }
            let scope = self.dispatch.members[index as usize].scope;
            if self.held.contains(&scope) {
                self.report(index, 1, monotonic_ns(), Outcome::Held);
                continue;
            }
            let started = monotonic_ns();
            let Some(outcome) = self.member(task, index) else {
                return Served::Cut {
                    started: Some(index),
                    reported: index,
                };
            };
            let is_failed = matches!(outcome, Outcome::Failed(_));
            self.report(index, 1, started, outcome);
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
        Served::Whole { tail: 0 }
    }

    /// Runs the command for one member; None when the engine stopped it.
    fn member(&self, task: &TaskManifest, index: u32) -> Option<Outcome> {
        let Some(run) = &task.run else {
            let why = format!("task '{}' has no command", task.id);
            return Some(failed(TaskErrorKind::Load, why, String::new()));
        };
        let dispatch = self.dispatch;
        let member = &dispatch.members[index as usize];
        let own = task
            .env
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        let job = Job {
            command: &run.command,
            memory_bytes_max: task.memory_limit_bytes,
            nice: dispatch.nice,
            folder: &input::folder(task, &dispatch.task),
            env: own.chain(input::variables(dispatch, member)).collect(),
            stdin: input::stdin(task, dispatch, index),
            timeout: dispatch.timeout,
        };
        let (events, slot, token) = (Arc::clone(self.events), self.slot.id, dispatch.token);
        let log = move |text: &[u8]| {
            events(WorkerEvent::Log {
                slot,
                token: Some(token),
                member: Some(index),
                origin: LogOrigin::Stderr,
                text: Bytes::copy_from_slice(text),
            });
        };
        outcome(command::run(job, self.slot, log), dispatch.timeout)
    }

    fn report(&self, first: u32, count: u32, started_ns: u64, outcome: Outcome) {
        let run = OutcomeRun {
            first,
            count,
            started_ns,
            ended_ns: monotonic_ns(),
            outcome,
        };
        (self.events)(WorkerEvent::Outcomes {
            slot: self.slot.id,
            token: self.dispatch.token,
            runs: vec![run],
        });
    }
}

fn outcome(done: Done, timeout: Option<Duration>) -> Option<Outcome> {
    let Done {
        ended,
        stdout,
        stderr,
    } = done;
    let tail = String::from_utf8_lossy(&stderr).into_owned();
    Some(match ended {
        Ended::Stopped => return None,
        Ended::NotStarted(cause) => failed(
            TaskErrorKind::Load,
            format!("sh cannot be started: {cause}"),
            tail,
        ),
        Ended::TimedOut => {
            let limit = timeout.unwrap_or_default();
            failed(
                TaskErrorKind::Timeout,
                format!("longer than {limit:?}"),
                tail,
            )
        }
        Ended::Exited(status) if status.success() => match stdout {
            Some(stdout) => success(&stdout),
            None => {
                let what = "standard output is longer than a result may be".to_owned();
                failed(TaskErrorKind::TooLarge, what, tail)
            }
        },
        Ended::Exited(status) if status.code() == Some(SKIP) => Outcome::Skipped,
        Ended::Exited(status) => failed(TaskErrorKind::Exited, command::said(status), tail),
    })
}

/// What a command printed is its result: as it is if it is JSON, else a text without its last newline.
fn success(stdout: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(stdout);
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim().is_empty() {
        return Outcome::Success(None);
    }
    let (result, map_len) = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) => {
            let length = match &value {
                serde_json::Value::Array(items) => Some(items.len()),
                serde_json::Value::Object(pairs) => Some(pairs.len()),
                _ => None,
            };
            (text.trim().to_owned(), length)
        }
        Err(_) => (serde_json::Value::from(text).to_string(), None),
    };
    Outcome::Success(Some(Box::new(Success {
        result: Some(Bytes::from(result)),
        map_len: map_len.and_then(|length| u32::try_from(length).ok()),
        ..Success::default()
    })))
}

fn failed(kind: TaskErrorKind, message: String, traceback: String) -> Outcome {
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
