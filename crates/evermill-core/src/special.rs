//! What happens to runs and activations from outside or by the passing of time: redrive, joins,
//! signals, loops, deadlines, version swaps, replays.

use std::sync::Arc;

use bytes::Bytes;

use crate::activation::{self, Held, ParkReason, Snapshot, Standing};
use crate::bits;
use crate::codec::Writer;
use crate::command::{
    ActivationKey, Decision, Effect, Event, LaneId, Ms, RunIx, RunState, Selection,
};
use crate::dag::{BatchSpec, Dag, LoopSpec, PlanNode, TaskKind};
use crate::limits;
use crate::machine::{Machine, Timer, put};
use crate::row::{Key, Table, Write};
use crate::run::{Materialised, Run, Signal};
use crate::wave::Row;

/// Format number of signal rows.
const SIGNAL_FORMAT: u8 = 1;

/// Parked activations.
impl Machine {
    /// W10: clears the failed tasks and everything below them, in the same activation.
    pub(crate) fn redrive(&mut self, ix: RunIx, selection: &Selection, out: &mut Decision) {
        for key in self.select(ix, selection) {
            let run = self.runs.get_mut(&ix).expect("selected from it");
            let held = run.materialised[&key].clone();
            let Ok((mut snapshot, _)) = Snapshot::decode(key, held.body.clone()) else {
                continue;
            };
            let dag = Arc::clone(&run.dags[usize::from(snapshot.version)]);
            clear_failed(&dag, &mut snapshot);
            snapshot.round += 1;
            run.row.counters.parked -= held.weight;
            let blocked = held.held == Held::Parked(ParkReason::Blocked);
            if blocked
                && let Some((scope, seq)) = held.scope
                && let Some(queue) = run.scopes.get_mut(&scope)
            {
                queue.redriven(seq);
            }
            self.materialise(snapshot, Held::Waiting, held.scope, out);
            self.releases.push(key);
        }
    }

    /// Gives parked activations up.
    pub(crate) fn discard(&mut self, ix: RunIx, selection: &Selection, out: &mut Decision) {
        for key in self.select(ix, selection) {
            let run = self.runs.get_mut(&ix).expect("selected from it");
            let held = run.unhold(key).expect("selected from it");
            run.row.counters.parked -= held.weight;
            run.row.counters.dropped += held.weight;
            out.writes
                .push(Write::Delete(Table::Activation, activation::row_key(key)));
            self.dirty_runs.insert(ix);
            if let Some((scope, seq)) = held.scope {
                if let Some(queue) = run.scopes.get_mut(&scope) {
                    queue.blocked.remove(&seq);
                }
                self.leave_scope(ix, scope, seq);
                self.give_turns_after(scope, ix, seq);
            }
        }
    }

    fn select(&self, ix: RunIx, selection: &Selection) -> Vec<ActivationKey> {
        let Some(run) = self.runs.get(&ix).filter(|run| !run.is_over()) else {
            return Vec::new();
        };
        let parked = |key: &&ActivationKey| {
            run.materialised
                .get(key)
                .is_some_and(|m| matches!(m.held, Held::Parked(_)))
        };
        match selection {
            Selection::All => run.materialised.keys().filter(parked).copied().collect(),
            Selection::Keys(keys) => keys.iter().filter(parked).copied().collect(),
        }
    }

    pub(crate) fn wake_held(&mut self, key: ActivationKey, out: &mut Decision) {
        let Some(run) = self.runs.get(&key.lane.run) else {
            return;
        };
        let Some(held) = run.materialised.get(&key) else {
            return;
        };
        match held.held {
            Held::Waiting => {
                let lane = &self.runs[&key.lane.run].lanes[&key.lane.lane];
                if lane.deferred.contains_key(&key) {
                    let run = self.runs.get_mut(&key.lane.run).expect("looked up above");
                    run.lane(key.lane)
                        .expect("looked up above")
                        .overdue
                        .insert(key);
                } else {
                    self.release_if_due(key);
                }
            }
            Held::Open { until } if until.is_some_and(|until| until <= self.now) => {
                self.time_out_join(key, out);
            }
            _ => {}
        }
    }

    /// Parks everything of a run that has not settled (a run that ends keeps what it had begun).
    pub(crate) fn park_unsettled(&mut self, ix: RunIx, out: &mut Decision) {
        for dispatch in self.dispatches.values_mut().filter(|d| d.run == ix) {
            dispatch.outstanding.fill(0);
        }
        let slots: Vec<u32> = (0..self.waves.len() as u32)
            .filter(|&slot| {
                self.waves[slot as usize]
                    .as_ref()
                    .is_some_and(|w| w.run == ix)
            })
            .collect();
        for slot in slots {
            let members = self.wave(slot).members.len() as u32;
            let mask = self.wave(slot).everyone();
            for member in 0..members {
                if !bits::get(&self.wave(slot).left, member) {
                    self.park_member(slot, member, out);
                }
            }
            let nothing = vec![0; bits::words(self.wave(slot).plan().steps.len())];
            self.progress(slot, &mask, nothing, out);
        }
        let run = &self.runs[&ix];
        let waiting: Vec<ActivationKey> = run
            .materialised
            .iter()
            .filter(|(_, m)| !matches!(m.held, Held::Parked(_)))
            .map(|(&key, _)| key)
            .collect();
        for key in waiting {
            let body = self.runs[&ix].materialised[&key].body.clone();
            if let Ok((snapshot, _)) = Snapshot::decode(key, body) {
                self.park(snapshot, ParkReason::RunStopped, None, out);
            }
        }
    }

    fn park_member(&mut self, slot: u32, member: u32, out: &mut Decision) {
        let mut snapshot = self.snapshot(slot, member);
        snapshot.ordered = false;
        self.forget_member(slot, member);
        self.park(snapshot, ParkReason::RunStopped, None, out);
    }

    /// Takes a member out of its wave's and lane's books.
    pub(crate) fn forget_member(&mut self, slot: u32, member: u32) {
        let wave = self.waves[slot as usize]
            .as_mut()
            .expect("members have waves");
        bits::set(&mut wave.left, member);
        let Some(id) = wave.lane else { return };
        let events = wave.member_events(member);
        let (count, bytes) = (
            events.len(),
            events.iter().map(|e| e.body.len()).sum::<usize>(),
        );
        let run = self.runs.get_mut(&wave.run).expect("waves have runs");
        let lane = run.lanes.get_mut(&id.lane).expect("waves have lanes");
        lane.events -= count;
        lane.bytes -= bytes;
        self.dirty_lanes.insert(id);
    }
}

fn clear_failed(dag: &Dag, snapshot: &mut Snapshot) {
    let failed: Vec<u16> = snapshot
        .entries
        .iter()
        .filter(|entry| matches!(entry.standing, Standing::Failed { .. }))
        .map(|entry| entry.task)
        .collect();
    let mut cleared = failed.clone();
    for plan in &dag.plans {
        for &task in &failed {
            let Some(node) = plan.place[usize::from(task)] else {
                continue;
            };
            for &below in &plan.steps[usize::from(node)].below {
                if let PlanNode::Task(task) = plan.steps[usize::from(below)].node {
                    cleared.push(task);
                }
            }
        }
    }
    let failed_instance = |standing: &Standing| matches!(standing, Standing::Failed { .. });
    snapshot.entries.retain(|entry| {
        let below = cleared[failed.len()..].contains(&entry.task);
        !below && !failed_instance(&entry.standing)
    });
}

/// Joins (W6).
impl Machine {
    /// An event of a source that joins others: binds to an open activation, or opens one.
    pub(crate) fn join(&mut self, id: LaneId, event: Event, out: &mut Decision) {
        let run = self.runs.get_mut(&id.run).expect("lanes have runs");
        let lane = run.lanes.get_mut(&id.lane).expect("lanes exist");
        lane.segments.push_back(crate::lane::Segment {
            wave: None,
            first: event.position,
            last: event.position,
        });
        self.dirty_lanes.insert(id);
        let (version, source) = (run.row.current, lane.cursor.source);
        let dag = Arc::clone(run.dag());
        let plan = dag.plan_of_source[usize::from(source)];
        if let Some(key) = run.oldest_open(&dag, plan, source, event.key) {
            return self.bind(key, source, id, event, out);
        }
        let key = ActivationKey {
            lane: id,
            position: event.position,
            child: 0,
        };
        let since = event.arrived_ms;
        let steps = &dag.plans[usize::from(plan)].steps;
        for step in steps {
            if let PlanNode::Source(other) = step.node
                && other != source
            {
                run.open
                    .entry((plan, other))
                    .or_default()
                    .insert((since, key));
            }
        }
        run.open_keys.insert(key, event.key);
        let until = dag
            .spec
            .join
            .within_ms
            .map(|within| since.max(self.now) + within);
        let snapshot = Snapshot {
            key,
            last: event.position,
            version,
            round: 0,
            ordered: false,
            late: false,
            silenced: false,
            events: vec![event],
            bound: Vec::new(),
            entries: Vec::new(),
        };
        self.materialise(snapshot, Held::Open { until }, None, out);
        let run = self.runs.get_mut(&id.run).expect("lanes have runs");
        run.joins.insert(key, (u32::MAX, 0));
        self.releases.push(key);
    }

    /// A later event of a missing source joins an open activation.
    fn bind(
        &mut self,
        key: ActivationKey,
        source: u16,
        lane: LaneId,
        event: Event,
        out: &mut Decision,
    ) {
        let run = self
            .runs
            .get_mut(&key.lane.run)
            .expect("activations have runs");
        run.close_join(key, Some(source));
        if let Some(held) = run.materialised.get(&key) {
            let Ok((mut snapshot, kind)) = Snapshot::decode(key, held.body.clone()) else {
                return;
            };
            snapshot.bound.push((source, lane, event));
            let scope = held.scope;
            let place = run.joins.get(&key).copied();
            self.materialise(snapshot, kind, scope, out);
            let run = self
                .runs
                .get_mut(&key.lane.run)
                .expect("activations have runs");
            if let Some(place) = place {
                run.joins.insert(key, place);
            }
            self.releases.push(key);
            return;
        }
        let Some(&(ix, member)) = run.joins.get(&key) else {
            return;
        };
        let wave = self.wave_mut(ix);
        wave.members[member as usize]
            .bound
            .push((source, lane, event));
        let node = wave
            .plan()
            .steps
            .iter()
            .position(|s| s.node == PlanNode::Source(source));
        let node = node.expect("joined sources are in the plan") as u16;
        wave.put(node, Row::Success, member);
        wave.put(node, Row::Done, member);
        let (mask, dirty) = (bits::single(wave.words, member), wave.dirty_below(node));
        let snapshot = self.snapshot(ix, member);
        let body = snapshot.encode(Held::Waiting);
        put(out, Table::Activation, activation::row_key(key), body);
        self.progress(ix, &mask, dirty, out);
    }

    /// `within` is over: what is missing is skipped, or the activation parks.
    fn time_out_join(&mut self, key: ActivationKey, out: &mut Decision) {
        let run = self
            .runs
            .get_mut(&key.lane.run)
            .expect("activations have runs");
        run.close_join(key, None);
        let held = run.materialised[&key].clone();
        let Ok((mut snapshot, _)) = Snapshot::decode(key, held.body) else {
            return;
        };
        if run.dags[usize::from(snapshot.version)]
            .spec
            .join
            .park_on_timeout
        {
            return self.park(snapshot, ParkReason::JoinTimeout, None, out);
        }
        snapshot.silenced = true;
        self.materialise(snapshot, Held::Waiting, held.scope, out);
        self.releases.push(key);
    }

    /// Until when an open member waits.
    pub(crate) fn join_deadline(&self, ix: u32, member: u32) -> Option<Ms> {
        let wave = self.wave(ix);
        let since = wave.member_events(member).first()?.arrived_ms;
        Some(since + wave.dag.spec.join.within_ms?)
    }
}

impl Run {
    fn oldest_open(&self, dag: &Dag, plan: u16, source: u16, key: u128) -> Option<ActivationKey> {
        let open = self.open.get(&(plan, source))?;
        let fits = |activation: &ActivationKey| {
            !dag.spec.join.on_key || self.join_key(*activation) == Some(key)
        };
        open.iter().map(|(_, activation)| *activation).find(fits)
    }

    fn join_key(&self, activation: ActivationKey) -> Option<u128> {
        self.open_keys.get(&activation).copied()
    }

    /// The activation no longer lacks this source, or any.
    fn close_join(&mut self, key: ActivationKey, source: Option<u16>) {
        for ((_, missing), open) in &mut self.open {
            if source.is_none_or(|source| source == *missing) {
                open.retain(|(_, activation)| *activation != key);
            }
        }
        self.open.retain(|_, open| !open.is_empty());
        if !self
            .open
            .values()
            .flatten()
            .any(|(_, activation)| *activation == key)
        {
            self.open_keys.remove(&key);
        }
    }
}

/// Signals (W14).
impl Machine {
    pub(crate) fn signal(
        &mut self,
        ix: RunIx,
        id: String,
        signal: Signal,
        all: bool,
        out: &mut Decision,
    ) {
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        if run.signals.contains_key(&id) {
            return;
        }
        self.timers.insert((signal.expires, Timer::Signal(ix)));
        let waiting: Vec<(ActivationKey, u16)> = run.waiting_for(&signal);
        let receivers = if all {
            &waiting[..]
        } else {
            &waiting[..waiting.len().min(1)]
        };
        let consumed = !receivers.is_empty();
        let signal = Signal { consumed, ..signal };
        write_signal(ix, &id, &signal, out);
        for &(key, task) in receivers {
            self.deliver(key, task, &signal.body, out);
        }
        let run = self.runs.get_mut(&ix).expect("looked up above");
        run.signals.insert(id, signal);
    }

    /// A member began to wait for a signal: an earlier one may be there already.
    pub(crate) fn await_signals(&mut self, ix: u32, out: &mut Decision) {
        let waits = std::mem::take(&mut self.wave_mut(ix).signal_waits);
        for (node, member) in waits {
            let wave = self.wave(ix);
            let Some(TaskKind::Signal { name }) = wave.task(node).map(|t| t.kind.clone()) else {
                continue;
            };
            let (key, task) = (
                wave.members[member as usize].key,
                wave.task_index(node).expect("signals are tasks"),
            );
            let event = wave.member_events(member).first();
            let (event_key, since) = event.map_or((0, 0), |e| (e.key, e.arrived_ms));
            let run = self.runs.get_mut(&key.lane.run).expect("waves have runs");
            let fits =
                |s: &Signal| !s.consumed && s.name == name && (s.key == 0 || s.key == event_key);
            let early = run
                .signals
                .iter()
                .find(|(_, s)| fits(s))
                .map(|(id, _)| id.clone());
            let Some(id) = early else {
                run.waiters
                    .entry(name)
                    .or_default()
                    .insert((since, key, task));
                continue;
            };
            let signal = run.signals.get_mut(&id).expect("just found");
            signal.consumed = true;
            let signal = signal.clone();
            write_signal(key.lane.run, &id, &signal, out);
            let wave = self.wave_mut(ix);
            wave.keep(node, member, signal.body);
            let mask = bits::single(wave.words, member);
            wave.end(node, Row::Success, &mask);
            let dirty = wave.dirty_below(node);
            self.sweep(ix, &mask, dirty);
            self.revisit.push((ix, self.wave(ix).id, member));
        }
    }

    fn deliver(&mut self, key: ActivationKey, task: u16, body: &Bytes, out: &mut Decision) {
        let run = self
            .runs
            .get_mut(&key.lane.run)
            .expect("activations have runs");
        for waiters in run.waiters.values_mut() {
            waiters.retain(|(_, waiter, of)| (*waiter, *of) != (key, task));
        }
        let Some(held) = run.materialised.get(&key).cloned() else {
            return self.deliver_in_wave(key, task, body, out);
        };
        let Ok((mut snapshot, _)) = Snapshot::decode(key, held.body) else {
            return;
        };
        snapshot.entries.retain(|entry| entry.task != task);
        let standing = Standing::Success {
            result: Some(body.clone()),
            map_length: None,
            forced: Vec::new(),
        };
        snapshot.entries.push(activation::Entry {
            task,
            instance: 0,
            standing,
        });
        self.materialise(snapshot, Held::Waiting, held.scope, out);
        self.releases.push(key);
    }

    fn deliver_in_wave(&mut self, key: ActivationKey, task: u16, body: &Bytes, out: &mut Decision) {
        let find = |wave: &crate::wave::Wave| {
            let here = |(at, m): (usize, &crate::wave::Member)| {
                (m.key == key && !bits::get(&wave.left, at as u32)).then_some(at as u32)
            };
            wave.members.iter().enumerate().find_map(here)
        };
        let place = self.waves.iter().enumerate().find_map(|(slot, wave)| {
            wave.as_ref()
                .and_then(find)
                .map(|member| (slot as u32, member))
        });
        let Some((ix, member)) = place else { return };
        let wave = self.wave_mut(ix);
        let Some(node) = wave.plan().place[usize::from(task)] else {
            return;
        };
        wave.keep(node, member, body.clone());
        let mask = bits::single(wave.words, member);
        wave.end(node, Row::Success, &mask);
        let dirty = wave.dirty_below(node);
        self.progress(ix, &mask, dirty, out);
    }

    pub(crate) fn expire_signals(&mut self, ix: RunIx, out: &mut Decision) {
        let now = self.now;
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        run.signals.retain(|id, signal| {
            let live = signal.expires > now;
            if !live {
                let key = Key {
                    run: ix,
                    lane: 0,
                    id: Bytes::from(id.clone().into_bytes()),
                };
                out.writes.push(Write::Delete(Table::Signal, key));
            }
            live
        });
    }
}

impl Run {
    /// Who waits for this signal, oldest first.
    fn waiting_for(&self, signal: &Signal) -> Vec<(ActivationKey, u16)> {
        let fits = |key: &ActivationKey| {
            signal.key == 0
                || self
                    .materialised
                    .get(key)
                    .is_none_or(|m: &Materialised| m.key == signal.key)
        };
        let waiters = self.waiters.get(&signal.name).into_iter().flatten();
        waiters
            .filter(|(_, key, _)| fits(key))
            .map(|&(_, key, task)| (key, task))
            .collect()
    }
}

fn write_signal(ix: RunIx, id: &str, signal: &Signal, out: &mut Decision) {
    let mut body = Writer::new(SIGNAL_FORMAT);
    body.text(&signal.name)
        .wide(signal.key)
        .bytes(&signal.body)
        .int(signal.expires);
    body.flag(signal.consumed);
    let key = Key {
        run: ix,
        lane: 0,
        id: Bytes::copy_from_slice(id.as_bytes()),
    };
    put(out, Table::Signal, key, body.finish());
}

/// Loops (W15) and source batches (W8).
impl Machine {
    pub(crate) fn loop_of(&self, id: LaneId) -> Option<LoopSpec> {
        let run = self.runs.get(&id.run)?;
        let source = run.lanes.get(&id.lane)?.cursor.source;
        run.dag().spec.sources.get(usize::from(source))?.looped
    }

    /// Emits the iteration the loop's lane stands at.
    pub(crate) fn emit_iteration(&mut self, id: LaneId) {
        let now = self.now;
        let Some(run) = self.runs.get_mut(&id.run).filter(|run| run.accepts()) else {
            return;
        };
        let Some(lane) = run.lanes.get_mut(&id.lane) else {
            return;
        };
        if lane.events > 0 || !lane.open {
            return;
        }
        let event = Event {
            position: lane.read,
            key: 0,
            arrived_ms: now,
            body: Bytes::new(),
        };
        lane.read += 1;
        lane.events += 1;
        lane.pending.push_back(event);
        run.row.counters.seen += 1;
        self.hungry.insert(id);
        self.dirty_lanes.insert(id);
        self.dirty_runs.insert(id.run);
    }

    /// A member settled: if it was an iteration, the next one follows in the same commit.
    pub(crate) fn after_iteration(
        &mut self,
        ix: u32,
        member: u32,
        failed: bool,
        out: &mut Decision,
    ) {
        let wave = self.wave(ix);
        let (id, reached) = (wave.members[member as usize].key.lane, wave.until_reached);
        let Some(spec) = self.loop_of(id) else { return };
        let run = self.runs.get_mut(&id.run).expect("lanes have runs");
        if reached && !failed {
            return self.set_state(id.run, RunState::Finished, out);
        }
        run.row.failures_in_a_row = if failed {
            run.row.failures_in_a_row + 1
        } else {
            0
        };
        let in_a_row = run.row.failures_in_a_row;
        let mut delay = spec.delay_ms;
        if failed {
            if spec
                .max_consecutive_failures
                .is_none_or(|most| in_a_row > most)
            {
                return self.stop(id.run, RunState::Failed, out);
            }
            let pause = 1_000u64 << in_a_row.min(16);
            delay = delay.max(pause.min(limits::LOOP_PAUSE_MS_MAX));
        }
        self.timers.insert((self.now + delay, Timer::Loop(id)));
    }

    /// How many pending events the next source batch takes.
    pub(crate) fn next_batch(&mut self, id: LaneId, batch: BatchSpec) -> Option<usize> {
        let lane = self.runs.get_mut(&id.run)?.lane(id)?;
        let first = lane.pending.front()?;
        if let Some(&count) = lane.batches.get(&first.position) {
            return (lane.pending.len() >= count as usize).then_some(count as usize);
        }
        let most = batch.max_events as usize;
        let next_known = lane
            .batches
            .range(first.position..)
            .next()
            .map(|(&at, _)| at);
        let free = next_known.map_or(lane.pending.len(), |at| {
            lane.pending.partition_point(|event| event.position < at)
        });
        if free >= most {
            return Some(most);
        }
        let lingered = lane.linger.is_some_and(|due| due <= self.now);
        if lingered || next_known.is_some() {
            lane.linger = None;
            return Some(free);
        }
        if lane.linger.is_none() {
            let due = self.now + batch.linger_ms;
            lane.linger = Some(due);
            self.timers.insert((due, Timer::Linger(id)));
        }
        None
    }

    pub(crate) fn stop_lingering(&mut self, id: LaneId) {
        let pending = self
            .runs
            .get(&id.run)
            .and_then(|run| run.lanes.get(&id.lane))
            .is_some_and(|lane| !lane.pending.is_empty());
        if pending {
            self.hungry.insert(id);
        }
    }
}

/// Deadlines (W13).
impl Machine {
    /// Registers the timer of a wave's earliest deadline.
    pub(crate) fn watch_deadline(&mut self, ix: u32) {
        let wave = self.wave(ix);
        if let Some(due) = wave.next_deadline() {
            self.timers.insert((due, Timer::Wave(ix, wave.id)));
        }
    }

    pub(crate) fn count_deadlines(&mut self, ix: u32, out: &mut Decision) {
        let now = self.now;
        let wave = self.wave_mut(ix);
        let Some(deadline) = wave.dag.spec.deadline_ms else {
            return;
        };
        let mut missed = 0;
        for member in 0..wave.members.len() as u32 {
            let arrived = wave
                .member_events(member)
                .first()
                .map(|event| event.arrived_ms);
            let overdue = arrived.is_some_and(|at| at + deadline <= now);
            let m = &mut wave.members[member as usize];
            if overdue && !m.late && !bits::get(&wave.left, member) {
                m.late = true;
                missed += 1;
            }
        }
        let run = wave.run;
        self.watch_deadline(ix);
        if missed > 0 {
            let row = &mut self.runs.get_mut(&run).expect("waves have runs").row;
            row.deadlines_missed += u64::from(missed);
            self.dirty_runs.insert(run);
            out.effects
                .push(Effect::DeadlineMissed { run, count: missed });
        }
    }
}

impl crate::wave::Wave {
    fn next_deadline(&self) -> Option<Ms> {
        let deadline = self.dag.spec.deadline_ms?;
        let waiting = (0..self.members.len() as u32)
            .filter(|&m| !bits::get(&self.left, m) && !self.members[m as usize].late);
        let arrivals = waiting.filter_map(|m| self.member_events(m).first());
        arrivals.map(|event| event.arrived_ms + deadline).min()
    }
}

/// Versions (W16) and replays (W18).
impl Machine {
    /// New activations use this version from what is read next on.
    pub(crate) fn swap(&mut self, ix: RunIx, dag: &Arc<Dag>) {
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        let known = run.row.versions.iter().position(|v| *v == dag.spec.version);
        let version = known.unwrap_or(run.row.versions.len()) as u16;
        if known.is_none() {
            run.row.versions.push(dag.spec.version.clone());
            run.dags.push(Arc::clone(dag));
        }
        if version == run.row.current {
            return;
        }
        run.row.current = version;
        for lane in run.lanes.values_mut() {
            let from = lane
                .pending
                .front()
                .map_or(lane.read, |event| event.position);
            lane.cursor.switches.retain(|&(at, _)| at < from);
            lane.cursor.switches.push((from, version));
            lane.changed = true;
            self.dirty_lanes.insert(lane.id);
        }
        self.dirty_runs.insert(ix);
    }

    /// Reads a stretch of a lane again as a lane of its own.
    pub(crate) fn replay(&mut self, id: LaneId, from: u64, to: u64, out: &mut Decision) {
        let Some(run) = self.runs.get_mut(&id.run) else {
            return;
        };
        let Some(original) = run.lanes.get(&id.lane).map(|lane| lane.cursor.clone()) else {
            return;
        };
        let number = run.lanes.keys().next_back().map_or(1, |last| last + 1);
        let replays = run
            .lanes
            .values()
            .filter(|lane| lane.cursor.replay.is_some_and(|(of, _)| of == id.lane));
        let generation = replays
            .map(|lane| lane.cursor.generation)
            .max()
            .unwrap_or(0)
            + 1;
        let lane_id = LaneId {
            run: id.run,
            lane: number,
        };
        let cursor = crate::lane::Cursor {
            generation,
            replay: Some((id.lane, to)),
            low: from,
            ranges: Vec::new(),
            switches: vec![(0, run.row.current)],
            closed: false,
            ..original
        };
        put(
            out,
            Table::Lane,
            Key::numbered(id.run, number, &[]),
            cursor.encode(),
        );
        out.effects.push(Effect::LaneOpen {
            lane: lane_id,
            source: cursor.source,
            name: cursor.name.clone(),
            position: from,
        });
        let mut lane = crate::lane::Lane::new(lane_id, cursor);
        lane.open = true;
        run.lanes.insert(number, lane);
        self.dirty_lanes.insert(lane_id);
        self.dirty_runs.insert(id.run);
    }
}
