//! Intake: lanes are opened, events come in, waves form; released activations go back into waves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::activation::{self, Entry, Held, ParkReason, Snapshot, Standing};
use crate::bits;
use crate::command::{ActivationKey, Decision, Effect, Event, LaneId, RunIx, RunState};
use crate::dag::{Dag, OnInterrupt, Order, PlanNode, TaskKind};
use crate::lane::{Cursor, Lane, Segment, Suspect};
use crate::limits;
use crate::machine::{Machine, Timer, put};
use crate::row::{Key, Table, Write};
use crate::run::Run;
use crate::scope::Place;
use crate::wave::{Member, Row, Trial, Wave};

impl Machine {
    /// C7: the first position of a lane commits before anything of it is dispatched.
    pub(crate) fn open_lane(
        &mut self,
        ix: RunIx,
        source: u16,
        name: String,
        incarnation: String,
        first: u64,
        out: &mut Decision,
    ) {
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        let same = |lane: &&mut Lane| {
            let cursor = &lane.cursor;
            cursor.replay.is_none()
                && cursor.source == source
                && cursor.name == name
                && cursor.incarnation == incarnation
        };
        let id = if let Some(lane) = run.lanes.values_mut().find(same) {
            lane.open = true;
            lane.credit = true;
            lane.id
        } else {
            let number = run.lanes.keys().next_back().map_or(1, |last| last + 1);
            let id = LaneId {
                run: ix,
                lane: number,
            };
            let cursor = Cursor {
                source,
                name: name.clone(),
                incarnation,
                generation: 0,
                replay: None,
                low: first,
                ranges: Vec::new(),
                switches: vec![(0, run.row.current)],
                closed: false,
            };
            put(
                out,
                Table::Lane,
                Key::numbered(ix, number, &[]),
                cursor.encode(),
            );
            let mut lane = Lane::new(id, cursor);
            lane.open = true;
            run.lanes.insert(number, lane);
            id
        };
        self.dirty_lanes.insert(id);
        self.dirty_runs.insert(ix);
        let lane = &self.runs[&ix].lanes[&id.lane];
        out.effects.push(Effect::LaneOpen {
            lane: id,
            source,
            name,
            position: lane.read,
        });
        if self.loop_of(id).is_some() {
            self.emit_iteration(id);
        }
    }

    /// Takes events in; what was read before, or is known to be settled, is dropped.
    pub(crate) fn ingest(&mut self, id: LaneId, events: Vec<Event>, out: &mut Decision) {
        let Some(run) = self.runs.get_mut(&id.run) else {
            return;
        };
        if !matches!(run.row.state, RunState::Running | RunState::Paused) {
            return;
        }
        let Some(lane) = run.lanes.get(&id.lane) else {
            return;
        };
        let joins = {
            let dag = run.dag();
            dag.plans[usize::from(dag.plan_of_source[usize::from(lane.cursor.source)])].is_join
        };
        let mut joined = Vec::new();
        let lane = run.lanes.get_mut(&id.lane).expect("looked up above");
        lane.caught_up = false;
        for event in events {
            if event.position < lane.read || lane.cursor.closed {
                continue;
            }
            if let Some((_, until)) = lane.cursor.replay
                && event.position >= until
            {
                lane.cursor.closed = true;
                lane.open = false;
                out.effects.push(Effect::LaneClose(id));
                break;
            }
            lane.read = event.position + 1;
            if lane.was_settled(event.position) {
                continue;
            }
            run.row.counters.seen += 1;
            if joins {
                joined.push(event);
            } else {
                lane.events += 1;
                lane.bytes += event.body.len();
                lane.pending.push_back(event);
            }
        }
        if !lane.pending.is_empty() {
            self.hungry.insert(id);
        }
        self.dirty_lanes.insert(id);
        self.dirty_runs.insert(id.run);
        for event in joined {
            self.join(id, event, out);
        }
        let run = self.runs.get_mut(&id.run).expect("looked up above");
        if run.lanes[&id.lane].pending.is_empty() {
            run.register_deferred(id, u64::MAX, &mut self.releases);
        }
    }

    pub(crate) fn caught_up(&mut self, id: LaneId) {
        if let Some(lane) = self.runs.get_mut(&id.run).and_then(|run| run.lane(id)) {
            lane.caught_up = true;
            self.dirty_runs.insert(id.run);
        }
    }

    pub(crate) fn gap(&mut self, id: LaneId, from: u64, to: u64) {
        if let Some(lane) = self.runs.get_mut(&id.run).and_then(|run| run.lane(id))
            && lane.read <= to
            && from <= lane.read
        {
            lane.read = to;
            self.dirty_lanes.insert(id);
        }
    }

    /// Forms at most one wave per hungry lane that a worker could use; `true` if any was formed.
    pub(crate) fn form_waves(&mut self, out: &mut Decision) -> bool {
        let mut formed = false;
        let hungry: Vec<LaneId> = self.hungry.iter().copied().collect();
        for id in hungry {
            if self.may_form(id)
                && let Some(count) = self.next_wave_size(id, out)
            {
                self.form_wave(id, count, out);
                formed = true;
            }
            if self.runs[&id.run].lanes[&id.lane].pending.is_empty() {
                self.hungry.remove(&id);
            }
        }
        formed
    }

    fn may_form(&self, id: LaneId) -> bool {
        let run = &self.runs[&id.run];
        let lane = &run.lanes[&id.lane];
        let live = lane.segments.iter().filter(|s| s.wave.is_some()).count();
        let idle_slot = self.used < self.slots && run.ready.is_empty();
        let active = run.row.counters.in_flight()
            - run
                .lanes
                .values()
                .map(|lane| lane.pending.len() as u64)
                .sum::<u64>();
        let below_max = run
            .dag()
            .spec
            .max_active_runs
            .is_none_or(|max| active < u64::from(max));
        run.accepts()
            && below_max
            && run.waiting < limits::MATERIALISED_MAX
            && (live < limits::WAVES_PER_LANE_EAGER || idle_slot)
    }

    /// How many pending events the next wave takes; `None` if none may be formed now.
    fn next_wave_size(&mut self, id: LaneId, out: &mut Decision) -> Option<usize> {
        let run = self.runs.get_mut(&id.run).expect("hungry lanes have runs");
        let max_active = run.dag().spec.max_active_runs;
        let in_flight = run.row.counters.in_flight();
        let pending_all: u64 = run
            .lanes
            .values()
            .map(|lane| lane.pending.len() as u64)
            .sum();
        let room = max_active.map_or(usize::MAX, |max| {
            (u64::from(max) + pending_all - in_flight) as usize
        });
        let lane = run.lanes.get_mut(&id.lane)?;
        let first = lane.pending.front()?.position;
        let version = lane.cursor.version_at(first);
        let batch = run.dags[usize::from(version)]
            .spec
            .sources
            .get(usize::from(lane.cursor.source));
        if let Some(batch) = batch.and_then(|source| source.batch) {
            return self.next_batch(id, batch);
        }
        let mut size = lane.pending.len().min(limits::WAVE_MEMBERS_MAX).min(room);
        size = size.min(
            lane.pending
                .partition_point(|e| lane.cursor.version_at(e.position) == version),
        );
        if lane.probation == 0 {
            return (size > 0).then_some(size);
        }
        self.next_probation_wave(id, size, out)
    }

    /// C6: after an unclean stop, half of what was in flight, then halves of halves, then alone.
    fn next_probation_wave(
        &mut self,
        id: LaneId,
        size: usize,
        out: &mut Decision,
    ) -> Option<usize> {
        let lane = self.runs.get_mut(&id.run)?.lane(id)?;
        let first = lane.pending.front()?.position;
        let live = lane.segments.iter().any(|s| s.wave.is_some());
        let suspect = lane
            .suspects
            .range(..=first)
            .next_back()
            .map(|(&at, &s)| (at, s));
        let Some((at, suspect)) = suspect.filter(|(_, s)| first <= s.last) else {
            return Some(size.min(lane.probation).max(1));
        };
        if suspect.stops >= limits::SUSPECT_STOPS_MAX && suspect.count == 1 {
            self.park_suspect(id, at, out);
            return None;
        }
        if suspect.stops + 1 >= limits::SUSPECT_STOPS_MAX {
            let alone_now = self.waves.iter().all(Option::is_none);
            return alone_now.then_some(1);
        }
        if live && lane.segments.iter().filter(|s| s.wave.is_some()).count() > 1 {
            return None;
        }
        let in_range = lane.pending.partition_point(|e| e.position <= suspect.last);
        Some(size.min(in_range.div_ceil(2)).max(1))
    }

    fn park_suspect(&mut self, id: LaneId, at: u64, out: &mut Decision) {
        let run = self.runs.get_mut(&id.run).expect("suspects have runs");
        let lane = run.lanes.get_mut(&id.lane).expect("suspects have lanes");
        lane.suspects.remove(&at);
        lane.probation = lane.probation.saturating_sub(1);
        let event = lane.pending.pop_front().expect("a suspect was read");
        lane.events -= 1;
        lane.bytes -= event.body.len();
        lane.segments.push_back(Segment {
            wave: None,
            first: event.position,
            last: event.position,
        });
        out.writes.push(Write::Delete(
            Table::Suspect,
            Key::numbered(id.run, id.lane, &[at]),
        ));
        let version = lane.cursor.version_at(event.position);
        let recovered = lane.recovered.remove(&(event.position, 0));
        let snapshot = Snapshot {
            key: ActivationKey {
                lane: id,
                position: event.position,
                child: 0,
            },
            last: event.position,
            version,
            round: 0,
            ordered: false,
            late: false,
            silenced: false,
            events: vec![event],
            bound: Vec::new(),
            entries: recovered.map_or_else(Vec::new, |r| r.entries),
        };
        self.park(snapshot, ParkReason::SuspectCrash, None, out);
        self.dirty_lanes.insert(id);
    }

    fn form_wave(&mut self, id: LaneId, count: usize, out: &mut Decision) {
        let run = self.runs.get_mut(&id.run).expect("hungry lanes have runs");
        let order;
        let wave_ix;
        {
            let lane = run.lanes.get_mut(&id.lane).expect("hungry lanes exist");
            let events: Vec<Event> = lane.pending.drain(..count).collect();
            let first = events[0].position;
            let version = lane.cursor.version_at(first);
            let dag = Arc::clone(&run.dags[usize::from(version)]);
            order = dag.spec.order;
            let source = lane.cursor.source;
            let plan = dag.plan_of_source[usize::from(source)];
            let batched = dag
                .spec
                .sources
                .get(usize::from(source))
                .is_some_and(|s| s.batch.is_some());
            let members = if batched {
                vec![batch_member(id, &events)]
            } else {
                events
                    .iter()
                    .enumerate()
                    .map(|(i, e)| single_member(id, e, i as u32))
                    .collect()
            };
            let last = events[events.len() - 1].position;
            let mut wave = Wave::new(
                self.next_wave,
                id.run,
                (version, dag),
                plan,
                members,
                events,
            );
            self.next_wave += 1;
            wave.lane = Some(id);
            wave.careful = batched || lane.probation > 0;
            if batched {
                lane.batches.remove(&first);
                let key = Key::numbered(id.run, id.lane, &[first]);
                let mut body = crate::codec::Writer::new(1);
                body.int(count as u64);
                put(out, Table::Batch, key, body.finish());
            }
            if lane.probation > 0 {
                track_suspects(lane, &mut wave, out);
            }
            bind_sources(&mut wave, source);
            wave_ix = place(&mut self.waves, &mut self.free_waves, wave);
            lane.segments.push_back(Segment {
                wave: Some(wave_ix),
                first,
                last,
            });
            run.waves += 1;
        }
        if order != Order::None {
            self.enter_scopes(wave_ix);
        }
        self.watch_deadline(wave_ix);
        self.restore_recovered(wave_ix, id);
        self.begin(wave_ix, out);
    }

    /// Gives every member of an ordered wave its place in its scope.
    fn enter_scopes(&mut self, ix: u32) {
        let wave = self.waves[ix as usize].as_mut().expect("just placed");
        let run = self.runs.get_mut(&wave.run).expect("waves have runs");
        for at in 0..wave.members.len() {
            let member = &wave.members[at];
            if let Some(id) = wave.lane {
                run.register_deferred(id, member.key.position, &mut self.releases);
            }
            let key = wave.events[member.first_event as usize].key;
            let lane = member.key.lane.lane;
            let Some(scope) = Run::order_scope(wave.dag.spec.order, lane, key) else {
                continue;
            };
            let queue = run.scopes.entry(scope).or_default();
            let seq = queue.push(Place::Wave(ix, at as u32), wave.version);
            wave.members[at].scope = Some((scope, seq));
        }
    }

    /// Applies what an earlier boot committed about members that were read again.
    fn restore_recovered(&mut self, ix: u32, id: LaneId) {
        let run = self.runs.get_mut(&id.run).expect("waves have runs");
        let lane = run.lanes.get_mut(&id.lane).expect("waves have lanes");
        if lane.recovered.is_empty() {
            return;
        }
        let wave = self.waves[ix as usize].as_mut().expect("just placed");
        let mut restored: Vec<(u32, Vec<Entry>)> = Vec::new();
        for (at, member) in wave.members.iter().enumerate() {
            let recovered = lane
                .recovered
                .remove(&(member.key.position, member.key.child));
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
        }
    }

    /// `at` is the member, or the instance of a mapped node.
    fn restore_entry(&mut self, ix: u32, node: u16, member: u32, at: u32, standing: Standing) {
        let now = self.now;
        let wave = self.wave_mut(ix);
        let task = wave.task(node).expect("entries are of tasks");
        let (kind, mapped) = (task.kind.clone(), task.mapped.is_some());
        let only_once = task.on_interrupt == OnInterrupt::Fail;
        let words = wave.words;
        let end = |wave: &mut Wave, state: Row| {
            if mapped {
                wave.end_instance(node, at, state);
            } else {
                wave.end(node, state, &bits::single(words, at));
            }
        };
        match standing {
            Standing::Success {
                result,
                map_length,
                forced,
            } => {
                if let Some(length) = map_length {
                    wave.map_lengths.insert((node, member), length);
                }
                if let Some(result) = result {
                    wave.keep(node, at, result);
                }
                let places = wave.places(&forced);
                if !places.is_empty() {
                    wave.force(node, member, places);
                }
                end(wave, Row::Success);
            }
            Standing::Skipped => end(wave, Row::Skipped),
            Standing::Failed { failures, error } => {
                wave.trials.insert(
                    (node, at),
                    Trial {
                        failures,
                        error: Some(error),
                        ..Trial::default()
                    },
                );
                end(wave, Row::Failed);
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
                let passed = due.is_some_and(|due| due <= now);
                match kind {
                    TaskKind::Delay { .. } if passed => end(wave, Row::Success),
                    TaskKind::Delay { .. } => {
                        wave.put(node, Row::Judged, member);
                        wave.put(node, Row::Hold, member);
                    }
                    TaskKind::Signal { .. } => {}
                    _ if passed => {}
                    _ => wave.hold(node, at),
                }
            }
            Standing::Started { .. } if only_once => {
                let error = bytes::Bytes::from_static(b"interrupted");
                wave.trials.insert(
                    (node, at),
                    Trial {
                        error: Some(error),
                        ..Trial::default()
                    },
                );
                end(wave, Row::Failed);
            }
            Standing::Started { .. } => {}
            Standing::Tried {
                failures,
                interruptions,
                error,
            } => {
                let trial = Trial {
                    failures,
                    interruptions,
                    error,
                    ..Trial::default()
                };
                wave.trials.insert((node, at), trial);
            }
        }
    }

    /// First sweep over a new wave.
    fn begin(&mut self, ix: u32, out: &mut Decision) {
        let everyone = self.wave(ix).everyone();
        let dirty = bits::full(self.wave(ix).plan().steps.len());
        self.rearm(ix);
        self.progress(ix, &everyone, dirty, out);
    }

    /// Puts released activations back into waves, together where run, version and plan agree (W2).
    pub(crate) fn rehydrate(&mut self, out: &mut Decision) {
        let mut keys = std::mem::take(&mut self.releases);
        keys.sort_unstable();
        keys.dedup();
        let mut groups: BTreeMap<(RunIx, u16, u16), Vec<Snapshot>> = BTreeMap::new();
        for key in keys {
            let Some(run) = self.runs.get(&key.lane.run) else {
                continue;
            };
            let Some(activation) = run.materialised.get(&key) else {
                continue;
            };
            let Ok((snapshot, _)) = Snapshot::decode(key, activation.body.clone()) else {
                continue;
            };
            let dag = &run.dags[usize::from(snapshot.version)];
            let source = run.lanes[&key.lane.lane].cursor.source;
            let plan = dag.plan_of_source[usize::from(source)];
            groups
                .entry((key.lane.run, snapshot.version, plan))
                .or_default()
                .push(snapshot);
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
        snapshots: Vec<Snapshot>,
        out: &mut Decision,
    ) {
        let run = self.runs.get_mut(&ix).expect("groups have runs");
        let dag = Arc::clone(&run.dags[usize::from(version)]);
        let (mut members, mut events) = (Vec::new(), Vec::new());
        let (mut restored, mut fired) = (Vec::new(), Vec::new());
        let slot = self
            .free_waves
            .last()
            .copied()
            .unwrap_or(self.waves.len() as u32);
        for (at, snapshot) in snapshots.into_iter().enumerate() {
            let at = at as u32;
            let held = run
                .unhold(snapshot.key)
                .expect("released activations exist");
            if let Some((scope, seq)) = held.scope
                && let Some(scope) = run.scopes.get_mut(&scope)
            {
                scope.move_to(seq, Place::Wave(slot, at));
            }
            run.joins
                .entry(snapshot.key)
                .and_modify(|place| *place = (slot, at));
            fired.push(snapshot.fired(
                &dag,
                plan,
                run.lanes[&snapshot.key.lane.lane].cursor.source,
            ));
            members.push(Member {
                key: snapshot.key,
                last: snapshot.last,
                first_event: events.len() as u32,
                events: snapshot.events.len() as u32,
                round: snapshot.round,
                scope: held.scope,
                bound: snapshot.bound,
                late: snapshot.late,
                silenced: snapshot.silenced,
                row: true,
            });
            events.extend(snapshot.events);
            restored.push((at, snapshot.entries));
        }
        let mut wave = Wave::new(self.next_wave, ix, (version, dag), plan, members, events);
        self.next_wave += 1;
        wave.careful = true;
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

/// Marks sources that did not fire as skipped, and forces what hangs below silent ones only.
fn silence(wave: &mut Wave, member: u32) {
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

/// The source whose event began these members is done; the others are as the plan says.
fn bind_sources(wave: &mut Wave, source: u16) {
    let dag = Arc::clone(&wave.dag);
    let plan = &dag.plans[usize::from(wave.plan)];
    let everyone = wave.everyone();
    let ours = |step: &crate::dag::Step| step.node == PlanNode::Source(source);
    if let Some(node) = plan.steps.iter().position(ours) {
        for row in [Row::Success, Row::Done] {
            wave.row_mut(node as u16, row).copy_from_slice(&everyone);
        }
    }
    if plan.sources > 1 && !plan.is_join {
        for member in 0..wave.members.len() as u32 {
            silence(wave, member);
        }
    }
}

fn single_member(lane: LaneId, event: &Event, at: u32) -> Member {
    Member {
        key: ActivationKey {
            lane,
            position: event.position,
            child: 0,
        },
        last: event.position,
        first_event: at,
        events: 1,
        round: 0,
        scope: None,
        bound: Vec::new(),
        late: false,
        silenced: false,
        row: false,
    }
}

fn batch_member(lane: LaneId, events: &[Event]) -> Member {
    let last = events[events.len() - 1].position;
    Member {
        last,
        events: events.len() as u32,
        ..single_member(lane, &events[0], 0)
    }
}

/// C6: before anything of a probation wave is dispatched, its members are on record as in flight.
fn track_suspects(lane: &mut Lane, wave: &mut Wave, out: &mut Decision) {
    let (run, number) = (lane.id.run, lane.id.lane);
    let first = wave.members[0].key.position;
    let last = wave.members[wave.members.len() - 1].last;
    let count = wave.events.len() as u32;
    lane.probation = lane.probation.saturating_sub(wave.events.len());
    let covering = lane
        .suspects
        .range(..=first)
        .next_back()
        .map(|(&at, &s)| (at, s));
    let mut stops = 0;
    if let Some((at, old)) = covering.filter(|(_, old)| first <= old.last) {
        stops = old.stops;
        lane.suspects.remove(&at);
        out.writes.push(Write::Delete(
            Table::Suspect,
            Key::numbered(run, number, &[at]),
        ));
        if old.last > last {
            let rest = Suspect {
                count: old.count.saturating_sub(count).max(1),
                in_flight: false,
                ..old
            };
            lane.suspects.insert(last + 1, rest);
            put(
                out,
                Table::Suspect,
                Key::numbered(run, number, &[last + 1]),
                rest.encode(),
            );
        }
    }
    let ours = Suspect {
        last,
        count,
        stops,
        in_flight: true,
    };
    put(
        out,
        Table::Suspect,
        Key::numbered(run, number, &[first]),
        ours.encode(),
    );
    wave.suspect = Some((lane.id, first));
}

fn place(waves: &mut Vec<Option<Wave>>, free: &mut Vec<u32>, wave: Wave) -> u32 {
    if let Some(slot) = free.pop() {
        waves[slot as usize] = Some(wave);
        slot
    } else {
        waves.push(Some(wave));
        waves.len() as u32 - 1
    }
}

impl Lane {
    /// Whether an earlier boot settled or materialised this position.
    pub(crate) fn was_settled(&self, position: u64) -> bool {
        let after = self
            .earlier
            .partition_point(|&(first, _)| first <= position);
        after
            .checked_sub(1)
            .is_some_and(|index| position <= self.earlier[index].1)
    }
}

impl Run {
    /// Ordered activations materialised before a stop take their place in their scope when the
    /// lane is read again past them, so that what lies before them comes first.
    pub(crate) fn register_deferred(
        &mut self,
        id: LaneId,
        below: u64,
        releases: &mut Vec<ActivationKey>,
    ) {
        let Some(lane) = self.lanes.get_mut(&id.lane) else {
            return;
        };
        let below = below.min(lane.read);
        while let Some((&key, &version)) = lane.deferred.first_key_value()
            && key.position < below
        {
            lane.deferred.pop_first();
            let Some(held) = self.materialised.get_mut(&key) else {
                continue;
            };
            let order = self.dags[usize::from(version)].spec.order;
            let Some(scope) = Self::order_scope(order, id.lane, held.key) else {
                continue;
            };
            let queue = self.scopes.entry(scope).or_default();
            let seq = queue.push(Place::Gone, version);
            queue.move_to(seq, Place::Held(key));
            if held.held == Held::Parked(ParkReason::Blocked) {
                queue.blocked.insert(seq);
            } else if held.held != Held::Waiting || lane.overdue.remove(&key) {
                releases.push(key);
            }
            held.scope = Some((scope, seq));
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
    pub(crate) fn errors(&self) -> Vec<(u16, bytes::Bytes)> {
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
        self.materialise(snapshot, Held::Parked(reason), scope, out);
        let run = self
            .runs
            .get_mut(&key.lane.run)
            .expect("activations have runs");
        run.row.counters.parked += run.materialised[&key].weight;
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
        let (key, weight, due) = (snapshot.key, snapshot.weight(), snapshot.due());
        let body = snapshot.encode(held);
        put(
            out,
            Table::Activation,
            activation::row_key(key),
            body.clone(),
        );
        let event_key = snapshot.events.first().map_or(0, |event| event.key);
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
        run.hold(
            key,
            crate::run::Materialised {
                held,
                body,
                weight,
                scope,
                key: event_key,
            },
        );
        let until = match held {
            Held::Open { until } => until,
            Held::Waiting => due,
            _ => None,
        };
        if let Some(due) = until {
            self.timers.insert((due, Timer::Held(key)));
        }
        self.dirty_runs.insert(key.lane.run);
    }
}
