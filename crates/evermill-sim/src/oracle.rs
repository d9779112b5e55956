//! The oracle: one event at a time, no waves, no dispatches, no crash.
//!
//! Written from `docs/spec/semantics.md` and `docs/spec/trigger-rules.md`, never from the machine;
//! of the core it knows only the plain declarations (`DagSpec`) and the words of the protocol.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use evermill_core::command::{Counters, Event, ScopeState, StateOp, StateValue};
use evermill_core::dag::{DagSpec, Mapped, Node, OnFailure, OnInterrupt, Order, TaskKind};
use evermill_core::rule::TriggerRule;

use crate::graph::Graph;
use crate::script::{Act, Answer, Ask, Resolve, Script, input_hash, own_view};

/// How a task of an activation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It ran and succeeded.
    Success,
    /// It ran and failed for good.
    Failed,
    /// It was not to run.
    Skipped,
    /// It could not run because of a failure above it.
    UpstreamFailed,
}

/// One instance that ran: a task, or one element of a mapped task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Final {
    /// Success, failed or skipped.
    pub state: State,
    /// The try that ended it, from 1.
    pub tries: u32,
    /// The round it ended in: 0, or the number of redrives before it.
    pub round: u32,
    /// The accepted result.
    pub result: Option<Bytes>,
    /// What a branch chose.
    pub chosen: Option<Vec<u16>>,
    /// What a short circuit answered.
    pub proceed: Option<bool>,
    /// Length of the list it returned (W9).
    pub map_length: Option<u32>,
}

/// Instances that ran, by task and map index (-1 when not mapped).
pub type Finals = BTreeMap<(u16, i32), Final>;

/// What is known about a task, given what has ended so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// Not part of this activation (W7).
    Absent,
    /// Too early to say.
    Waits,
    /// It is to run; these instances have not ended.
    Runs(Vec<i32>),
    /// Final.
    Is(State),
}

/// How an activation was counted when it settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Settled {
    /// Settled well.
    Done,
    /// Every leaf skipped.
    Skipped,
    /// Kept after failure; `true`: its scope waits for it.
    Parked(bool),
    /// Given up.
    Dropped,
    /// Parked, and the run ended as failed.
    Stopped,
}

/// An activation: what caused it.
#[derive(Debug, Clone)]
pub struct Activation {
    /// Its identity.
    pub act: Act,
    /// Sources that fired in it.
    pub fired: BTreeSet<u16>,
    /// Its events with their sources, in read order, the opening one first.
    pub events: Vec<(u16, Event)>,
}

/// An activation that settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Final state per task; `None` when it is not part of the activation.
    pub states: Vec<Option<State>>,
    /// Instances that ran.
    pub finals: Finals,
    /// Every instance that ever ran, earlier rounds included, as (task, map index, round, tries).
    pub ran: BTreeSet<(u16, i32, u32, u32)>,
    /// How it is counted.
    pub settled: Settled,
    /// Redrives it took.
    pub rounds: u32,
}

/// Judges every task of an activation from the instances that have ended; `awaited` sources may
/// still fire. Early verdicts are given where trigger-rules.md section 3 allows them.
pub fn evaluate(
    spec: &DagSpec,
    graph: &Graph,
    fired: &BTreeSet<u16>,
    awaited: &BTreeSet<u16>,
    finals: &Finals,
) -> Vec<Judged> {
    let mut known = vec![Judged::Waits; spec.tasks.len()];
    for &task in &graph.order {
        known[usize::from(task)] = judge(spec, graph, fired, awaited, finals, &known, task);
    }
    known
}

fn judge(
    spec: &DagSpec,
    graph: &Graph,
    fired: &BTreeSet<u16>,
    awaited: &BTreeSet<u16>,
    finals: &Finals,
    known: &[Judged],
    task: u16,
) -> Judged {
    let at = usize::from(task);
    if !graph.takes_part(task, fired, awaited) {
        return Judged::Absent;
    }
    // 1. Guards: branch parents and short-circuit ancestors are final before anything is said.
    let guards = &graph.guards[at];
    if guards
        .iter()
        .any(|&g| !matches!(known[usize::from(g)], Judged::Is(_)))
    {
        return Judged::Waits;
    }
    // 2. Sources: none above it fired.
    let above = &graph.sources_above[at];
    if !above.is_empty() && above.is_disjoint(fired) && above.is_disjoint(awaited) {
        return Judged::Is(State::Skipped);
    }
    // 3. and 4. Branch and short circuit.
    if guards.iter().any(|&g| closes(spec, graph, finals, g, task)) {
        return Judged::Is(State::Skipped);
    }
    // 6. The rule. (5., indirect setups, is not generated.)
    match rule_verdict(spec, fired, awaited, finals, known, task) {
        None => Judged::Waits,
        Some(None) => instances(spec, finals, known, task),
        Some(Some(state)) => Judged::Is(state),
    }
}

/// Whether branch or short circuit `guard` says that `task` is skipped.
fn closes(spec: &DagSpec, graph: &Graph, finals: &Finals, guard: u16, task: u16) -> bool {
    let Some(end) = finals
        .get(&(guard, -1))
        .filter(|f| f.state == State::Success)
    else {
        return false;
    };
    let direct = spec.tasks[usize::from(task)]
        .upstream
        .contains(&Node::Task(guard));
    match spec.tasks[usize::from(guard)].kind {
        TaskKind::Branch => {
            let chosen = end.chosen.as_deref().unwrap_or(&[]);
            let follows = |&c: &u16| c == task || graph.below[usize::from(c)].contains(&task);
            direct && !chosen.iter().any(follows)
        }
        TaskKind::ShortCircuit { all_downstream } => {
            let covers = all_downstream || direct;
            end.proceed == Some(false) && covers && !spec.tasks[usize::from(task)].teardown
        }
        _ => false,
    }
}

/// `None`: wait. `Some(None)`: run. Counting, line by line as in trigger-rules.md section 3.
fn rule_verdict(
    spec: &DagSpec,
    fired: &BTreeSet<u16>,
    awaited: &BTreeSet<u16>,
    finals: &Finals,
    known: &[Judged],
    task: u16,
) -> Option<Option<State>> {
    let spec_of = &spec.tasks[usize::from(task)];
    let (mut success, mut failed, mut upstream_failed, mut skipped, mut waiting) = (0, 0, 0, 0, 0);
    let mut setups = Vec::new();
    for &up in &spec_of.upstream {
        match up {
            Node::Source(source) if fired.contains(&source) => success += 1,
            Node::Source(source) if awaited.contains(&source) => waiting += 1,
            Node::Source(_) => skipped += 1,
            Node::Task(up) => {
                let (states, all) = states_of(finals, known, up);
                waiting += usize::from(!all);
                for state in states {
                    match state {
                        State::Success => success += 1,
                        State::Failed => failed += 1,
                        State::Skipped => skipped += 1,
                        State::UpstreamFailed => upstream_failed += 1,
                    }
                    if spec.tasks[usize::from(up)].setup {
                        setups.push(state);
                    }
                }
            }
        }
    }
    if spec_of.upstream.is_empty() {
        return Some(None);
    }
    let done = waiting == 0;
    let bad = failed + upstream_failed;
    let (run, skip, fail) = (
        Some(None),
        Some(Some(State::Skipped)),
        Some(Some(State::UpstreamFailed)),
    );
    let lines: &[(bool, Option<Option<State>>)] = match spec_of.rule {
        TriggerRule::AllSuccess => &[(bad > 0, fail), (done && skipped > 0, skip), (done, run)],
        TriggerRule::AllFailed => &[(success + skipped > 0, skip), (done, run)],
        TriggerRule::AllDone => &[(done, run)],
        TriggerRule::AllSkipped => &[(success + bad > 0, skip), (done, run)],
        TriggerRule::OneSuccess => &[(success > 0, run), (done && bad > 0, fail), (done, skip)],
        TriggerRule::OneFailed => &[(bad > 0, run), (done, skip)],
        TriggerRule::OneDone => &[(success + failed > 0, run), (done, skip)],
        TriggerRule::NoneFailed => &[(bad > 0, fail), (done, run)],
        TriggerRule::NoneFailedMinOneSuccess => {
            &[(bad > 0, fail), (done && success > 0, run), (done, skip)]
        }
        TriggerRule::NoneSkipped => &[(skipped > 0, skip), (done, run)],
        TriggerRule::Always => &[(true, run)],
        TriggerRule::AllDoneMinOneSuccess => &[
            (skipped > 0, skip),
            (done && success > 0, run),
            (done, fail),
        ],
        TriggerRule::AllDoneSetupSuccess => {
            let any = !setups.is_empty();
            let all_skipped = any && setups.iter().all(|&s| s == State::Skipped);
            let none_good = any && setups.iter().all(|&s| s != State::Success);
            &[
                (done && all_skipped, skip),
                (done && none_good, fail),
                (done, run),
            ]
        }
    };
    lines
        .iter()
        .find(|(holds, _)| *holds)
        .and_then(|(_, verdict)| *verdict)
}

/// Final states of a task's instances, and whether these are all.
fn states_of(finals: &Finals, known: &[Judged], task: u16) -> (Vec<State>, bool) {
    let ended: Vec<State> = finals
        .range((task, i32::MIN)..=(task, i32::MAX))
        .map(|(_, f)| f.state)
        .collect();
    match &known[usize::from(task)] {
        Judged::Is(state) if ended.is_empty() => (vec![*state], true),
        Judged::Is(_) => (ended, true),
        Judged::Runs(_) => (ended, false),
        Judged::Waits | Judged::Absent => (Vec::new(), false),
    }
}

/// A task whose verdict is to run: which instances are left, or how it ended (W9).
fn instances(spec: &DagSpec, finals: &Finals, known: &[Judged], task: u16) -> Judged {
    let kind = &spec.tasks[usize::from(task)].kind;
    if matches!(
        kind,
        TaskKind::Noop | TaskKind::Delay { .. } | TaskKind::Signal { .. }
    ) {
        return Judged::Is(State::Success);
    }
    let wanted: Vec<i32> = match spec.tasks[usize::from(task)].mapped {
        None => vec![-1],
        Some(Mapped::Length(length)) => (0..length as i32).collect(),
        Some(Mapped::Over(up)) => {
            if !matches!(known[usize::from(up)], Judged::Is(_)) {
                return Judged::Waits;
            }
            match finals.get(&(up, -1)).and_then(|f| f.map_length) {
                Some(length) => (0..length as i32).collect(),
                None => return Judged::Is(State::Failed),
            }
        }
    };
    let left: Vec<i32> = wanted
        .iter()
        .copied()
        .filter(|&i| !finals.contains_key(&(task, i)))
        .collect();
    if !left.is_empty() {
        return Judged::Runs(left);
    }
    let ends = || wanted.iter().map(|&i| finals[&(task, i)].state);
    if ends().any(|s| s == State::Failed) {
        Judged::Is(State::Failed)
    } else if ends().all(|s| s == State::Skipped) {
        Judged::Is(State::Skipped)
    } else {
        Judged::Is(State::Success)
    }
}

/// Interprets activations one after the other.
#[derive(Debug)]
pub struct Oracle<'a> {
    spec: &'a DagSpec,
    graph: &'a Graph,
    script: &'a Script,
    /// `ctx.state`, by scope.
    pub state: BTreeMap<Scope, ScopeState>,
    /// Events by how their activation ended.
    pub totals: Counters,
}

/// Takes out what a redrive runs again (W10): failed tasks, of mapped ones the failed instances, and
/// everything below.
pub fn clear(graph: &Graph, states: &[Option<State>], finals: &mut Finals) {
    let failed: Vec<u16> = (0..states.len() as u16)
        .filter(|&t| states[usize::from(t)] == Some(State::Failed))
        .collect();
    let below = |task: u16| {
        failed
            .iter()
            .any(|f| graph.below[usize::from(*f)].contains(&task))
    };
    finals.retain(|(task, _), end| {
        let cleared = failed.contains(task) && end.state == State::Failed;
        !below(*task) && !cleared
    });
}

/// A scope of `ctx.state` (W5): the ordering scope, and the task where names are private.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The run, for DAGs without an order.
    Run,
    /// A lane; under `partition` a name is private to a task.
    Lane(u16, Option<u16>),
    /// A lane, key and task.
    Key(u16, u128, u16),
}

impl<'a> Oracle<'a> {
    /// An oracle that has seen nothing.
    #[must_use]
    pub const fn new(spec: &'a DagSpec, graph: &'a Graph, script: &'a Script) -> Self {
        let totals = Counters {
            seen: 0,
            done: 0,
            skipped: 0,
            parked: 0,
            dropped: 0,
        };
        Self {
            spec,
            graph,
            script,
            state: BTreeMap::new(),
            totals,
        }
    }

    /// Runs one activation to its end, redrives included.
    pub fn run(&mut self, activation: &Activation) -> Ended {
        let (mut finals, mut ran, mut round) = (Finals::new(), BTreeSet::new(), 0);
        let mut left_order = false;
        loop {
            let states = self.round(activation, &mut finals, &mut ran, round);
            let mut settled = self.settle(&states);
            // Parking and its redrive leave the order: there is no scope left to block (W4).
            if left_order && settled == Settled::Parked(true) {
                settled = Settled::Parked(false);
            }
            let parked = matches!(settled, Settled::Parked(_));
            let resolved = if parked {
                self.script
                    .resolve(activation.act, round, settled == Settled::Parked(true))
            } else {
                None
            };
            match resolved {
                Some(Resolve::Redrive) => {
                    clear(self.graph, &states, &mut finals);
                    left_order |= settled == Settled::Parked(false);
                    round += 1;
                    continue;
                }
                Some(Resolve::Discard) => settled = Settled::Dropped,
                None => {}
            }
            self.count(settled, activation.events.len() as u64);
            return Ended {
                states,
                finals,
                ran,
                settled,
                rounds: round,
            };
        }
    }

    /// Runs what is to run, in topological order, until every task is final.
    fn round(
        &mut self,
        activation: &Activation,
        finals: &mut Finals,
        ran: &mut BTreeSet<(u16, i32, u32, u32)>,
        round: u32,
    ) -> Vec<Option<State>> {
        let mut written: BTreeMap<(u16, i32), Vec<StateOp>> = BTreeMap::new();
        let known = loop {
            let known = evaluate(
                self.spec,
                self.graph,
                &activation.fired,
                &BTreeSet::new(),
                finals,
            );
            let next = self
                .graph
                .order
                .iter()
                .find_map(|&t| match &known[usize::from(t)] {
                    Judged::Runs(left) => Some((t, left[0])),
                    _ => None,
                });
            let Some((task, index)) = next else {
                break known;
            };
            let (end, ops) = self.attempts(activation, finals, &written, (task, index), round);
            ran.insert((task, index, round, end.tries));
            finals.insert((task, index), end);
            written.insert((task, index), ops);
        };
        for &task in &self.graph.order {
            for (_, ops) in written.range((task, i32::MIN)..=(task, i32::MAX)) {
                let scope = self.state.entry(self.scope(activation, task)).or_default();
                ops.iter().for_each(|op| apply(scope, op));
            }
        }
        known
            .into_iter()
            .map(|judged| match judged {
                Judged::Is(state) => Some(state),
                _ => None,
            })
            .collect()
    }

    /// All tries of one instance.
    fn attempts(
        &self,
        activation: &Activation,
        finals: &Finals,
        written: &BTreeMap<(u16, i32), Vec<StateOp>>,
        (task, index): (u16, i32),
        round: u32,
    ) -> (Final, Vec<StateOp>) {
        let spec = &self.spec.tasks[usize::from(task)];
        let view = own_view(self.script, task, self.view(activation, written, task));
        let events = self.graph.visible(task, &activation.events);
        let input = input_hash(self.spec, task, &events, &view, |up| {
            let of = finals.range((up, i32::MIN)..=(up, i32::MAX));
            of.filter_map(|(&(_, i), f)| f.result.clone().map(|r| (i, r)))
                .collect()
        });
        for tries in 1.. {
            let ask = Ask {
                act: activation.act,
                task,
                index,
                tries,
                // It has been asked often enough.
                asked: u32::MAX - 1,
                round,
                input,
            };
            let mut end = Final {
                state: State::Skipped,
                tries,
                round,
                result: None,
                chosen: None,
                proceed: None,
                map_length: None,
            };
            match self.script.answer(self.spec, self.graph, &ask) {
                Answer::Success(success) => {
                    end.state = State::Success;
                    end.result = success.result;
                    end.chosen = success.chosen;
                    end.proceed = success.proceed;
                    end.map_length = success.map_length;
                    return (end, success.state);
                }
                Answer::NotYet if spec.poke.is_some_and(|poke| poke.skips) => {
                    return (end, Vec::new());
                }
                Answer::NotYet => {
                    end.state = State::Failed;
                    return (end, Vec::new());
                }
                Answer::Skipped => return (end, Vec::new()),
                Answer::Failed { retryable, .. } if !retryable || tries > spec.retries => {
                    end.state = State::Failed;
                    return (end, Vec::new());
                }
                Answer::Dies if tries > spec.retries || spec.on_interrupt == OnInterrupt::Fail => {
                    end.state = State::Failed;
                    return (end, Vec::new());
                }
                Answer::Failed { .. } | Answer::Dies => {}
            }
        }
        unreachable!("tries end")
    }

    /// The scope that a task's state lives in.
    fn scope(&self, activation: &Activation, task: u16) -> Scope {
        let lane = activation.act.lane;
        match self.spec.order {
            Order::None => Scope::Run,
            Order::Partition => Scope::Lane(lane, Some(task)),
            Order::Serial => Scope::Lane(lane, None),
            Order::Key => Scope::Key(lane, activation.events[0].1.key, task),
        }
    }

    /// What a task sees: what earlier activations left, then the writes of its ancestors in this one.
    fn view(
        &self,
        activation: &Activation,
        written: &BTreeMap<(u16, i32), Vec<StateOp>>,
        task: u16,
    ) -> ScopeState {
        let mut view = self
            .state
            .get(&self.scope(activation, task))
            .cloned()
            .unwrap_or_default();
        if self.spec.order == Order::Serial {
            let above = |up: &u16| self.graph.below[usize::from(*up)].contains(&task);
            for up in self.graph.order.iter().copied().filter(above) {
                for (_, ops) in written.range((up, i32::MIN)..=(up, i32::MAX)) {
                    ops.iter().for_each(|op| apply(&mut view, op));
                }
            }
        }
        view
    }

    /// The table of section 0, then the policy of W10.
    fn settle(&self, states: &[Option<State>]) -> Settled {
        let leaves = || {
            let leaf = |(at, state): (usize, &Option<State>)| {
                let takes_part = |task: usize| states[task].is_some();
                state.filter(|_| self.graph.is_leaf(at, takes_part))
            };
            states.iter().enumerate().filter_map(leaf)
        };
        if !leaves().any(|s| matches!(s, State::Failed | State::UpstreamFailed)) {
            let all_skipped = leaves().count() > 0 && leaves().all(|s| s == State::Skipped);
            return if all_skipped {
                Settled::Skipped
            } else {
                Settled::Done
            };
        }
        let failed = states
            .iter()
            .zip(&self.spec.tasks)
            .filter(|(s, _)| **s == Some(State::Failed));
        match failed
            .map(|(_, task)| task.on_failure)
            .max()
            .unwrap_or_default()
        {
            OnFailure::Drop => Settled::Dropped,
            OnFailure::Park => Settled::Parked(false),
            OnFailure::Block => Settled::Parked(true),
            OnFailure::Stop => Settled::Stopped,
        }
    }

    const fn count(&mut self, settled: Settled, events: u64) {
        self.totals.seen += events;
        match settled {
            Settled::Done => self.totals.done += events,
            Settled::Skipped => self.totals.skipped += events,
            Settled::Parked(_) | Settled::Stopped => self.totals.parked += events,
            Settled::Dropped => self.totals.dropped += events,
        }
    }
}

/// Applies one change of state.
pub fn apply(state: &mut ScopeState, op: &StateOp) {
    let int = |state: &ScopeState, name: &Bytes| match state.get(name) {
        Some(StateValue::Int(value)) => Some(*value),
        _ => None,
    };
    match op {
        StateOp::Set(name, value) => {
            state.insert(name.clone(), StateValue::Blob(value.clone()));
        }
        StateOp::Delete(name) => {
            state.remove(name);
        }
        StateOp::Incr(name, by) => {
            let value = int(state, name).unwrap_or(0).wrapping_add(*by);
            state.insert(name.clone(), StateValue::Int(value));
        }
        StateOp::Max(name, other) => {
            let value = int(state, name).map_or(*other, |value| value.max(*other));
            state.insert(name.clone(), StateValue::Int(value));
        }
        StateOp::SetAdd(name, item) => {
            let slot = state
                .entry(name.clone())
                .or_insert(StateValue::Set(BTreeSet::new()));
            if let StateValue::Set(set) = slot {
                set.insert(item.clone());
            }
        }
    }
}
