//! Back into waves: what earlier boots committed, and activations whose wait is over; and out of
//! them, into rows of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::activation::{self, Entry, Held, ParkReason, Snapshot, Standing};
use crate::bits;
use crate::command::{ActivationKey, Decision, LaneId, News, Parked, RunIx};
use crate::dag::{Dag, OnInterrupt, Order, PlanNode, TaskKind};
use crate::form::place;
use crate::history::Ended;
use crate::limits;
use crate::machine::{Machine, put};
use crate::row::Table;
use crate::run::{Materialised, Run};
use crate::scope::Place;
use crate::wave::{Member, Row, Trial, Wave};

impl Machine {
    /// Applies what an earlier boot committed about members that were read again.
    pub(crate) fn restore_recovered(&mut self, ix: u32, id: LaneId) {
        let run = self.runs.get_mut(&id.run).expect("waves have runs");
        let lane = run.lanes.get_mut(&id.lane).expect("waves have lanes");
        if lane.recovered.is_empty() {
            return;
        }
        let wave = self.waves[ix as usize].as_mut().expect("just placed");
        let mut restored: Vec<(u32, Vec<Entry>)> = Vec::new();
        for (at, member) in wave.members.iter_mut().enumerate() {
            let recovered = lane
                .recovered
                .remove(&(member.key.position, member.key.child));
            member.late |= recovered.as_ref().is_some_and(|r| r.late);
            restored.extend(recovered.map(|r| (at as u32, r.entries)));
        }
        wave.careful |= !restored.is_empty();
        self.restore(ix, restored);
    }

    /// Puts the standings of members into a fresh wave.
    fn restore(&mut self, ix: u32, members: Vec<(u32, Vec<Entry>)>) {
        let mut mapped: BTreeMap<u16, Vec<(u32, Entry)>> = BTreeMap::new();
        for (member, entries) in members {
            for entry in entries {
                let wave = self.wave_mut(ix);
                let Some(node) = wave.plan().place[usize::from(entry.task)] else {
                    continue;
                };
                if wave.task(node).is_some_and(|task| task.mapped.is_some()) {
                    mapped.entry(node).or_default().push((member, entry));
                } else {
                    self.restore_entry(ix, node, member, member, entry.standing);
                }
            }
        }
        let ordered = self.wave(ix).dag.spec.order != Order::None;
        for (node, entries) in mapped {
            // The list to expand over is known once everything above is restored.
            let everyone = self.wave(ix).everyone();
            let dirty = bits::full(self.wave(ix).plan().steps.len());
            self.sweep(ix, &everyone, dirty);
            for (member, entry) in entries {
                let wave = self.wave_mut(ix);
                if !wave.is(node, Row::Judged, member) {
                    continue;
                }
                if wave.is(node, Row::Waits, member) {
                    wave.take(node, Row::Waits, member);
                    wave.expand_member(node, member);
                }
                let segment = wave.maps.get(&node).and_then(|space| space.segment(member));
                if let Some((first, length)) = segment
                    && entry.instance < length
                {
                    self.restore_entry(ix, node, member, first + entry.instance, entry.standing);
                }
            }
            if ordered {
                self.wave_mut(ix).hold_back(node);
            }
            self.enqueue(ix, node);
        }
    }

    /// `at` is the member, or the instance of a mapped node.
    fn restore_entry(&mut self, ix: u32, node: u16, member: u32, at: u32, standing: Standing) {
        let now = self.now;
        let wave = self.wave_mut(ix);
        match standing {
            Standing::Success {
                failures,
                result,
                map_length,
                forced,
            } => {
                if failures > 0 {
                    wave.trial(node, at).failures = failures;
                }
                wave.restore_success((node, member, at), result, map_length, &forced);
                wave.finish(node, at, Row::Success);
            }
            Standing::Skipped { failures } => {
                let trial = wave.trial(node, at);
                (trial.failures, trial.skipped_itself) = (failures, true);
                wave.finish(node, at, Row::Skipped);
            }
            Standing::Failed { failures, error } => {
                wave.restore_failure(node, at, failures, error);
            }
            Standing::Hold {
                failures,
                due,
                error,
            } => {
                let trial = Trial {
                    failures,
                    due,
                    error,
                    ..Trial::default()
                };
                wave.trials.insert((node, at), trial);
                wave.restore_hold(node, at, due.is_some_and(|due| due <= now));
            }
            Standing::Started { failures } => {
                let task = wave.task(node).expect("entries are of tasks");
                if task.on_interrupt == OnInterrupt::Fail {
                    let error = Bytes::from_static(b"interrupted");
                    wave.restore_failure(node, at, failures + 1, error);
                }
            }
            Standing::Returned => {}
            Standing::Asked {
                asked,
                failures,
                interruptions,
                due,
                error,
            } => {
                wave.restore_tried(node, at, (failures, interruptions), error);
                let trial = wave.trial(node, at);
                (trial.asked, trial.due) = (Some(asked), due);
                if due.is_some() {
                    wave.restore_hold(node, at, due.is_some_and(|due| due <= now));
                }
            }
            Standing::Tried {
                failures,
                interruptions,
                error,
            } => wave.restore_tried(node, at, (failures, interruptions), error),
        }
    }

    /// Puts a materialised activation back into a wave at the end of this command; one that has not
    /// got its place in its scope back yet follows when it has (W4).
    pub(crate) fn release(&mut self, key: ActivationKey) {
        let run = self
            .runs
            .get_mut(&key.lane.run)
            .expect("activations have runs");
        let lane = run.lane(key.lane).expect("activations have lanes");
        if lane.deferred.contains_key(&key) {
            lane.overdue.insert(key);
        } else {
            self.releases.push(key);
        }
    }

    /// Puts released activations back into waves, together where run, version and plan agree (W2).
    pub(crate) fn rehydrate(&mut self, out: &mut Decision) {
        let mut keys = std::mem::take(&mut self.releases);
        keys.sort_unstable();
        keys.dedup();
        let mut groups: BTreeMap<(RunIx, u16, u16), Vec<(Snapshot, u32)>> = BTreeMap::new();
        for key in keys {
            let Some(run) = self.runs.get(&key.lane.run) else {
                continue;
            };
            let Some(activation) = run.materialised.get(&key) else {
                continue;
            };
            if matches!(activation.held, Held::Parked(_)) {
                continue;
            }
            let Some(body) = activation.body().cloned() else {
                self.owed.insert(key);
                continue;
            };
            let Ok((snapshot, held)) = Snapshot::decode(key, body) else {
                continue;
            };
            let dag = &run.dags[usize::from(snapshot.version)];
            let source = run.source_of(snapshot.version, key.lane.lane);
            let plan = dag.plan_of_source[usize::from(source)];
            groups
                .entry((key.lane.run, snapshot.version, plan))
                .or_default()
                .push((snapshot, held.stops()));
        }
        for ((run, version, plan), mut snapshots) in groups {
            while !snapshots.is_empty() {
                let rest = snapshots.split_off(snapshots.len().min(limits::WAVE_MEMBERS_MAX));
                self.rehydrate_wave(run, version, plan, snapshots, out);
                snapshots = rest;
            }
        }
    }

    fn rehydrate_wave(
        &mut self,
        ix: RunIx,
        version: u16,
        plan: u16,
        snapshots: Vec<(Snapshot, u32)>,
        out: &mut Decision,
    ) {
        let run = self.runs.get_mut(&ix).expect("groups have runs");
        let dag = Arc::clone(&run.dags[usize::from(version)]);
        let (mut members, mut events) = (Vec::new(), Vec::new());
        let (mut restored, mut fired) = (Vec::new(), Vec::new());
        let (mut scopes, mut bound) = (Vec::new(), BTreeMap::new());
        let slot = self
            .free_waves
            .last()
            .copied()
            .unwrap_or(self.waves.len() as u32);
        let alone = snapshots.iter().any(|&(_, stops)| Self::is_lonely(stops));
        for (at, (snapshot, stops)) in snapshots.into_iter().enumerate() {
            let at = at as u32;
            fired.push(snapshot.fired(&dag, plan, run.source_of(version, snapshot.key.lane.lane)));
            scopes.push(run.move_into_wave(snapshot.key, slot, at));
            if dag.plans[usize::from(plan)].is_join {
                run.joins.insert(snapshot.key, (slot, at));
            }
            if !snapshot.bound.is_empty() {
                bound.insert(at, snapshot.bound);
            }
            members.push(Member {
                key: snapshot.key,
                last: snapshot.last,
                first_event: events.len() as u32,
                events: snapshot.events.len() as u32,
                round: snapshot.round,
                late: snapshot.late,
                silenced: snapshot.silenced,
                row: true,
                stops,
            });
            events.extend(snapshot.events);
            restored.push((at, snapshot.entries));
        }
        let mut wave = Wave::new(self.next_wave, ix, (version, dag), plan, members, events);
        self.next_wave += 1;
        wave.careful = true;
        wave.alone = alone;
        self.alone += u32::from(alone);
        wave.scopes = scopes;
        wave.bound = bound;
        for (at, sources) in fired.iter().enumerate() {
            for &source in sources {
                wave.put(source, Row::Success, at as u32);
                wave.put(source, Row::Done, at as u32);
            }
        }
        run.waves += 1;
        let placed = place(&mut self.waves, &mut self.free_waves, wave);
        debug_assert_eq!(placed, slot);
        self.skip_silent_sources(placed);
        self.watch_deadline(placed);
        self.restore(placed, restored);
        self.begin(placed, out);
    }

    /// W6: where nobody waits for the other sources of the plan, they are skipped, and so is what
    /// hangs below them only.
    fn skip_silent_sources(&mut self, ix: u32) {
        let wave = self.wave_mut(ix);
        let waits = wave.plan().is_join;
        if wave.plan().sources == 1 {
            return;
        }
        for member in 0..wave.members.len() as u32 {
            if !waits || wave.members[member as usize].silenced {
                silence(wave, member);
            }
        }
    }
}

impl Wave {
    fn restore_success(
        &mut self,
        (node, member, at): (u16, u32, u32),
        result: Option<Bytes>,
        map_length: Option<u32>,
        forced: &[u16],
    ) {
        if let Some(length) = map_length {
            self.map_lengths.insert((node, member), length);
        }
        if let Some(result) = result {
            self.keep(node, at, result);
        }
        let places = self.places(forced);
        if !places.is_empty() {
            self.force(node, member, places);
        }
    }

    fn restore_failure(&mut self, node: u16, at: u32, failures: u32, error: Bytes) {
        let trial = Trial {
            failures,
            error: Some(error),
            ..Trial::default()
        };
        self.trials.insert((node, at), trial);
        self.finish(node, at, Row::Failed);
    }

    fn restore_tried(
        &mut self,
        node: u16,
        at: u32,
        (failures, interruptions): (u32, u32),
        error: Option<Bytes>,
    ) {
        let trial = Trial {
            failures,
            interruptions,
            // Whether it has failed since is not kept: better alone once too often (W3).
            alone: interruptions > 0,
            error,
            ..Trial::default()
        };
        self.trials.insert((node, at), trial);
    }

    /// A hold goes on, or is over: then the sweep starts the task anew, and a delay has succeeded.
    fn restore_hold(&mut self, node: u16, at: u32, passed: bool) {
        let kind = self.task(node).map(|task| &task.kind);
        match kind {
            Some(TaskKind::Delay { .. }) if passed => self.finish(node, at, Row::Success),
            Some(TaskKind::Signal { .. }) => {}
            _ if passed => {}
            _ => self.hold(node, at),
        }
    }
}

/// Marks sources that did not fire as skipped, and forces what hangs below silent ones only.
pub(crate) fn silence(wave: &mut Wave, member: u32) {
    let dag = Arc::clone(&wave.dag);
    let plan = &dag.plans[usize::from(wave.plan)];
    for source in 0..plan.sources as u16 {
        if !wave.is(source, Row::Done, member) {
            wave.put(source, Row::Skipped, member);
            wave.put(source, Row::Done, member);
        }
    }
    for (node, step) in plan.steps.iter().enumerate().skip(plan.sources) {
        let silent = |&source: &u16| wave.is(source, Row::Skipped, member);
        if !step.sources_above.is_empty() && step.sources_above.iter().all(silent) {
            wave.put(node as u16, Row::Forced, member);
        }
    }
}

impl Run {
    /// A materialised activation is now this member of the wave in this slot; its scope knows.
    fn move_into_wave(
        &mut self,
        key: ActivationKey,
        slot: u32,
        at: u32,
    ) -> Option<(crate::scope::ScopeKey, u64)> {
        let held = self.unhold(key).expect("released activations exist");
        let place = held.scope();
        if let Some((scope, seq)) = place
            && let Some(scope) = self.scopes.get_mut(&scope)
        {
            scope.move_to(seq, Place::Wave(slot, at));
        }
        place
    }

    /// Ordered activations materialised before a stop take their place in their scope when the
    /// lane has begun everything before them again, so that this comes first.
    pub(crate) fn register_deferred(
        &mut self,
        id: LaneId,
        below: u64,
        releases: &mut Vec<ActivationKey>,
    ) {
        let Some(lane) = self.lanes.get_mut(&id.lane) else {
            return;
        };
        let next = lane.pending.front().map_or(lane.read, |e| e.position);
        let (below, order_lane) = (below.min(next), lane.order_lane());
        while let Some((&key, &version)) = lane.deferred.first_key_value()
            && key.position < below
        {
            lane.deferred.pop_first();
            let keeps_place = |held: &Held| match held {
                Held::Parked(reason) => *reason == ParkReason::Blocked,
                _ => true,
            };
            let Some(held) = self
                .materialised
                .get_mut(&key)
                .filter(|m| keeps_place(&m.held))
            else {
                continue;
            };
            let order = self.dags[usize::from(version)].spec.order;
            let Some(scope) = Self::order_scope(order, order_lane, held.key()) else {
                continue;
            };
            let queue = self.scopes.entry(scope).or_default();
            let seq = queue.push(Place::Gone, version);
            queue.move_to(seq, Place::Held(key));
            if held.held == Held::Parked(ParkReason::Blocked) {
                queue.blocked.insert(seq);
            } else if lane.overdue.remove(&key)
                || held.held != Held::Waiting
                || queue.may_have_turn(seq)
            {
                releases.push(key);
            }
            held.put_into(Some((scope, seq)));
        }
    }
}

impl Snapshot {
    /// Sources whose events this activation has, as places in the plan.
    fn fired(&self, dag: &Dag, plan: u16, source: u16) -> Vec<u16> {
        let steps = &dag.plans[usize::from(plan)].steps;
        let place = |source: u16| {
            steps
                .iter()
                .position(|s| s.node == PlanNode::Source(source))
                .map(|p| p as u16)
        };
        let sources = std::iter::once(source).chain(self.bound.iter().map(|(s, ..)| *s));
        sources.filter_map(place).collect()
    }

    /// Failed tasks with their last error.
    pub(crate) fn errors(&self) -> Vec<(u16, Bytes)> {
        let error = |entry: &Entry| match &entry.standing {
            Standing::Failed { error, .. } => Some((entry.task, error.clone())),
            _ => None,
        };
        self.entries.iter().filter_map(error).collect()
    }
}

impl Machine {
    /// Keeps a settled activation as parked.
    pub(crate) fn park(
        &mut self,
        snapshot: Snapshot,
        reason: ParkReason,
        scope: Option<(crate::scope::ScopeKey, u64)>,
        out: &mut Decision,
    ) {
        let key = snapshot.key;
        let run = self.runs.get_mut(&key.lane.run);
        let run = run.expect("activations have runs");
        run.forget_waits(&snapshot);
        // What a run that ends leaves behind has not ended.
        let tells = reason != ParkReason::RunStopped
            && self.announces(&self.runs[&key.lane.run].row.dag)
            && self.tells(key.lane);
        if let Some(event) = snapshot.events.first().filter(|_| tells) {
            out.news.push(News::Ended {
                activation: key,
                round: snapshot.round,
                ended: Ended::Parked,
                event: event.clone(),
                events: snapshot.weight(),
            });
        }
        self.materialise(snapshot, Held::Parked(reason), scope, out);
        let run = self
            .runs
            .get_mut(&key.lane.run)
            .expect("activations have runs");
        run.row.counters.parked += run.materialised[&key].weight();
        self.dirty_runs.insert(key.lane.run);
    }

    /// Gives an activation a row of its own.
    pub(crate) fn materialise(
        &mut self,
        snapshot: Snapshot,
        held: Held,
        scope: Option<(crate::scope::ScopeKey, u64)>,
        out: &mut Decision,
    ) {
        let (key, due) = (snapshot.key, snapshot.due());
        self.note_wait(&snapshot, held);
        let written = self.sealed + 1;
        self.watch_held_deadline(&snapshot, held);
        let body = snapshot.encode(held);
        put(
            out,
            Table::Activation,
            activation::row_key(key),
            body.clone(),
        );
        let run = self
            .runs
            .get_mut(&key.lane.run)
            .expect("activations have runs");
        if let Some((scope, seq)) = scope
            && let Some(scope) = run.scopes.get_mut(&scope)
        {
            scope.move_to(seq, Place::Held(key));
        }
        run.joins.remove(&key);
        let mut materialised = Materialised::new(&snapshot, held, body, written);
        materialised.put_into(scope);
        if let Held::Parked(reason) = held {
            out.parked.push(Parked {
                activation: key,
                reason,
                events: materialised.weight(),
            });
        }
        run.hold(key, materialised);
        let until = match held {
            Held::Open { until } => until,
            Held::Waiting => due,
            _ => None,
        };
        if let Some(due) = until {
            self.held_timers.insert((due, key), ());
        }
        self.dirty_runs.insert(key.lane.run);
    }
}
