//! What the user code of a case does: a pure function of who asks, so that the oracle and the
//! simulated workers get the same answers in whatever order they ask.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use evermill_core::command::{Event, ScopeState, StateOp, StateValue, Success};
use evermill_core::dag::{DagSpec, Node, Order, TaskKind};

use crate::graph::{Graph, runs_early};
use crate::prng::{hash, hash_bytes};

/// An activation, as the simulator names it: lane of the case, position of the first event, child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Act {
    /// Index into the case's lanes.
    pub lane: u16,
    /// Position of its first event.
    pub position: u64,
    /// 0, or the number of a child (W8).
    pub child: u32,
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.lane, self.position)?;
        if self.child > 0 {
            write!(f, "/{}", self.child)
        } else {
            Ok(())
        }
    }
}

/// One attempt that asks what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The activation.
    pub act: Act,
    /// The task, index into `DagSpec::tasks`.
    pub task: u16,
    /// Map index, or -1.
    pub index: i32,
    /// Try number in this round, from 1.
    pub tries: u32,
    /// How often it has said *not yet* in this round, of a sensor.
    pub asked: u32,
    /// Redrives before this attempt.
    pub round: u32,
    /// Hash of everything the attempt could read.
    pub input: u64,
}

/// What the attempt does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It succeeds.
    Success(Success),
    /// It skips itself.
    Skipped,
    /// What it waits for is not there yet.
    NotYet,
    /// It fails.
    Failed {
        /// Whether a further try makes sense.
        retryable: bool,
        /// How long that one waits at least, milliseconds.
        after_ms: u64,
    },
    /// It kills its worker, whenever it runs.
    Dies,
}

/// What is done with an activation that parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolve {
    /// Run it again.
    Redrive,
    /// Give it up.
    Discard,
}

/// Answers, by chance or as written down.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Every answer is derived from it.
    pub seed: u64,
    /// Percent of attempts that fail.
    pub fail: u64,
    /// Percent of failures that cannot be retried.
    pub fatal: u64,
    /// Percent of attempts that skip themselves.
    pub skip: u64,
    /// Per mille of attempts that kill their worker.
    pub die: u64,
    /// Percent of successes with a result.
    pub result: u64,
    /// Percent of short circuits that go on, and of loops that end.
    pub proceed: u64,
    /// Percent of parked activations that are redriven.
    pub redrive: u64,
    /// Percent of those not redriven that are discarded.
    pub discard: u64,
    /// Under serial every task keeps to names of its own.
    pub private_names: bool,
    /// Largest list a task returns.
    pub map_max: u64,
    /// Answers that were written down; they come before chance.
    pub written: BTreeMap<(Act, u16, i32, u32, u32), Answer>,
    /// Interruptions of what must not be repeated (C4): facts of the world, not choices.
    pub interrupted: BTreeSet<(Act, u16, i32, u32, u32)>,
    /// What is done with parked activations, by act and round, where it was written down.
    pub resolves: BTreeMap<(Act, u32), Resolve>,
}

/// Redrives of one activation after which it is left alone or given up.
const ROUNDS_MAX: u32 = 3;

impl Script {
    /// What this attempt does.
    #[must_use]
    pub fn answer(&self, spec: &DagSpec, graph: &Graph, ask: &Ask) -> Answer {
        let key = (ask.act, ask.task, ask.index, ask.round, ask.tries);
        if self.interrupted.contains(&key) {
            return Answer::Failed {
                retryable: false,
                after_ms: 0,
            };
        }
        if let Some(answer) = self.written.get(&key) {
            return answer.clone();
        }
        let of = |salt| self.roll(ask, salt);
        if let Some(needed) = self.pokes(spec, ask)
            && ask.asked < needed
        {
            return Answer::NotYet;
        }
        if of(1) % 1000 < self.die {
            return Answer::Dies;
        }
        if of(2) % 100 < self.fail {
            return Answer::Failed {
                retryable: of(3) % 100 >= self.fatal,
                // Now and then somebody outside says when: soon, or later than any backoff here.
                after_ms: if of(11) % 4 == 0 { of(12) % 20_000 } else { 0 },
            };
        }
        if of(4) % 100 < self.skip {
            return Answer::Skipped;
        }
        Answer::Success(self.success(spec, graph, ask))
    }

    /// What is done with an activation that parked in this round; blocked ones are never left.
    #[must_use]
    pub fn resolve(&self, act: Act, round: u32, blocked: bool) -> Option<Resolve> {
        if let Some(resolve) = self.resolves.get(&(act, round)) {
            return Some(*resolve);
        }
        let roll = |salt| {
            let parts = [self.seed, 77, salt, u64::from(act.lane), act.position];
            hash(&[&parts[..], &[u64::from(act.child), u64::from(round)]].concat()) % 100
        };
        if round < ROUNDS_MAX && roll(0) < self.redrive {
            Some(Resolve::Redrive)
        } else if blocked || roll(1) < self.discard {
            Some(Resolve::Discard)
        } else {
            None
        }
    }

    /// How often a sensor says *not yet* before it says anything else; the same in every try of a round.
    /// One whose time is over at once says it always or never.
    fn pokes(&self, spec: &DagSpec, ask: &Ask) -> Option<u32> {
        let poke = spec.tasks[usize::from(ask.task)].poke?;
        let roll = self.roll(&Ask { tries: 0, ..*ask }, 20);
        Some(match poke.timeout_ms {
            Some(0) if roll.is_multiple_of(2) => u32::MAX,
            Some(0) => 0,
            _ => (roll % 4) as u32,
        })
    }

    fn roll(&self, ask: &Ask, salt: u64) -> u64 {
        let act = ask.act;
        hash(&[
            self.seed,
            salt,
            u64::from(act.lane),
            act.position,
            u64::from(act.child),
            u64::from(ask.task),
            ask.index as u64,
            u64::from(ask.tries),
            u64::from(ask.round),
        ])
    }

    fn success(&self, spec: &DagSpec, graph: &Graph, ask: &Ask) -> Success {
        let of = |salt| self.roll(ask, salt);
        let task = &spec.tasks[usize::from(ask.task)];
        let mut success = Success::default();
        if of(5) % 100 < self.result {
            let parts = [
                ask.input,
                u64::from(ask.task),
                ask.index as u64,
                u64::from(ask.tries),
            ];
            success.result = Some(Bytes::copy_from_slice(&hash(&parts).to_be_bytes()));
        }
        match task.kind {
            TaskKind::Branch => {
                let follows = |&t: &u16| {
                    let direct = spec.tasks[usize::from(t)]
                        .upstream
                        .contains(&Node::Task(ask.task));
                    let odds = if direct { 60 } else { 5 };
                    of(100 + u64::from(t)) % 100 < odds
                };
                let below = &graph.below[usize::from(ask.task)];
                success.chosen = Some(below.iter().copied().filter(follows).collect());
            }
            TaskKind::ShortCircuit { .. } => success.proceed = Some(of(6) % 100 < self.proceed),
            _ => {}
        }
        if spec
            .tasks
            .iter()
            .any(|t| t.mapped == Some(evermill_core::dag::Mapped::Over(ask.task)))
        {
            success.map_length = Some((of(7) % (self.map_max + 1)) as u32);
        }
        if task.writes_state {
            success.state = self.state_ops(spec, ask);
        }
        success
    }

    fn state_ops(&self, spec: &DagSpec, ask: &Ask) -> Vec<StateOp> {
        let of = |salt| self.roll(ask, salt);
        let own = if self.private_names {
            own_suffix(ask.task)
        } else {
            String::new()
        };
        let name = |n: &str| Bytes::from(format!("{n}{own}"));
        let mut ops = vec![StateOp::Incr(name("count"), (of(10) % 5) as i64 - 1)];
        if of(11) % 2 == 0 {
            ops.push(StateOp::Max(name("max"), (of(12) % 1000) as i64));
        }
        if of(13) % 3 == 0 {
            ops.push(StateOp::SetAdd(
                name("set"),
                Bytes::copy_from_slice(&[(of(14) % 9) as u8]),
            ));
        }
        if spec.order != Order::None {
            if of(15) % 2 == 0 {
                let value = Bytes::copy_from_slice(&ask.input.to_be_bytes());
                ops.push(StateOp::Set(name("last"), value));
            } else if of(15) % 5 == 1 {
                ops.push(StateOp::Delete(name("last")));
            }
        }
        ops
    }

    /// How many effects each attempt of this instance has.
    #[must_use]
    pub fn calls(&self, act: Act, task: u16, index: i32) -> u32 {
        let parts = [
            self.seed,
            99,
            u64::from(act.lane),
            act.position,
            u64::from(task),
            index as u64,
        ];
        (hash(&parts) % 3) as u32
    }
}

/// What marks the state names that a task keeps to itself.
fn own_suffix(task: u16) -> String {
    format!("@{task}")
}

/// The part of a state that a task may look at.
#[must_use]
pub fn own_view(script: &Script, task: u16, mut view: ScopeState) -> ScopeState {
    if script.private_names {
        view.retain(|name, _| name.ends_with(own_suffix(task).as_bytes()));
    }
    view
}

/// Whether a task's attempts read the results of its upstreams: only if it says so (C3), and only
/// if its rule waits for all of them, else what it could see would depend on timing.
#[must_use]
pub fn reads_results(spec: &DagSpec, task: u16) -> bool {
    let task = &spec.tasks[usize::from(task)];
    task.reads_committed && !runs_early(task.rule)
}

/// Whether a task's attempts read `ctx.state`; under no order reads are refused (W5).
#[must_use]
pub fn reads_state(spec: &DagSpec, task: u16) -> bool {
    spec.order != Order::None && spec.tasks[usize::from(task)].writes_state
}

/// Hash of everything an attempt could read: its events, results of direct upstreams, state.
pub fn input_hash(
    spec: &DagSpec,
    task: u16,
    events: &[Event],
    state: &ScopeState,
    mut results: impl FnMut(u16) -> Vec<(i32, Bytes)>,
) -> u64 {
    let mut parts: Vec<u64> = Vec::new();
    for event in events {
        parts.extend([event.position, hash_bytes(&event.body)]);
    }
    if reads_results(spec, task) {
        let mut ups: Vec<u16> = Vec::new();
        for node in &spec.tasks[usize::from(task)].upstream {
            if let Node::Task(up) = *node {
                ups.push(up);
            }
        }
        ups.sort_unstable();
        for up in ups {
            for (index, result) in results(up) {
                parts.extend([1, u64::from(up), index as u64, hash_bytes(&result)]);
            }
        }
    }
    if reads_state(spec, task) {
        for (name, value) in state {
            parts.extend([2, hash_bytes(name), state_hash(value)]);
        }
    }
    hash(&parts)
}

fn state_hash(value: &StateValue) -> u64 {
    match value {
        StateValue::Blob(bytes) => hash(&[1, hash_bytes(bytes)]),
        StateValue::Int(int) => hash(&[2, *int as u64]),
        StateValue::Set(set) => hash(&set.iter().map(|b| hash_bytes(b)).collect::<Vec<_>>()),
    }
}
