//! Forming waves out of pending events, and what each member gets on its way.

use std::sync::Arc;

use crate::activation::{ParkReason, Snapshot};
use crate::bits;
use crate::command::{ActivationKey, Decision, Event, LaneId, Limited};
use crate::dag::{Order, PlanNode};
use crate::lane::{Lane, Segment, Suspect};
use crate::limits;
use crate::machine::{Machine, Timer, put};
use crate::restore::silence;
use crate::row::{Key, Table, Write};
use crate::run::Run;
use crate::scope::Place;
use crate::wave::{Member, Row, Wave};

impl Machine {
    /// Forms at most one wave per hungry lane that a worker could use; `true` if any was formed.
    pub(crate) fn form_waves(&mut self, out: &mut Decision) -> bool {
        let mut formed = false;
        let mut at = None;
        while let Some(id) = self.hungry.after(at) {
            at = Some(id);
            if self.may_form(id) {
                let before = self.runs[&id.run].lanes[&id.lane].pending.len();
                if let Some(count) = self.next_wave_size(id, out) {
                    self.count_begun(id, count);
                    self.form_wave(id, count, out);
                }
                // A suspect may have been parked instead: what is behind it comes next.
                formed |= self.runs[&id.run].lanes[&id.lane].pending.len() < before;
            }
            if self.runs[&id.run].lanes[&id.lane].pending.is_empty() {
                self.hungry.remove(id);
            }
        }
        formed
    }

    fn may_form(&self, id: LaneId) -> bool {
        let run = &self.runs[&id.run];
        let lane = &run.lanes[&id.lane];
        let live = lane.segments.iter().filter(|s| s.wave.is_some()).count();
        let idle_slot = self.used < self.slots && run.ready.is_empty();
        run.accepts()
            && run.room(lane) > 0
            && self.alone == 0
            && self.next_lonely().is_none()
            && (run.waiting < limits::MATERIALISED_MAX || lane.is_awaited())
            && (live < limits::WAVES_PER_LANE_EAGER || idle_slot)
    }

    /// How many pending events the next wave takes; `None` if none may be formed now.
    fn next_wave_size(&mut self, id: LaneId, out: &mut Decision) -> Option<usize> {
        let run = self.runs.get_mut(&id.run).expect("hungry lanes have runs");
        let lane = run.lanes.get(&id.lane)?;
        let room = run.room(lane);
        let first = lane.pending.front()?.position;
        let version = lane.version_of(first);
        let source = run.source_of(version, id.lane);
        let of_source = Limited::Source(lane.cursor.source);
        let mut allowed = usize::MAX;
        if let Some(rate) = run.rates.get_mut(&of_source) {
            allowed = rate.room(self.now);
            if allowed == 0 {
                self.timers.insert((rate.opens(), Timer::Rate(id.run)));
                return None;
            }
        }
        let batch = run.dags[usize::from(version)]
            .spec
            .sources
            .get(usize::from(source));
        let lane = run.lanes.get_mut(&id.lane)?;
        if let Some(batch) = batch.and_then(|source| source.batch) {
            let count = self.next_batch(id, batch)?;
            return self.next_probation_batch(id, count, out);
        }
        let most = limits::WAVE_MEMBERS_MAX.min(room).min(allowed);
        let mut size = lane.pending.len().min(most);
        size = size.min(lane.same_version(version));
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
        let Some((at, suspect)) = lane.suspicion(first) else {
            return Some(size.min(lane.probation).max(1));
        };
        if suspect.stops >= limits::SUSPECT_STOPS_MAX && suspect.count == 1 {
            self.park_suspect(id, at, 1, out);
            return None;
        }
        if Self::is_lonely(suspect.stops) {
            let alone_now = self.waves.iter().all(Option::is_none);
            return alone_now.then_some(1);
        }
        let in_range = lane.pending.partition_point(|e| e.position <= suspect.last);
        Some(size.min(in_range.div_ceil(2)).max(1))
    }

    /// C6 for source batches: they cannot be halved (W8), but they run alone, and are parked.
    fn next_probation_batch(
        &mut self,
        id: LaneId,
        count: usize,
        out: &mut Decision,
    ) -> Option<usize> {
        let lane = self.runs.get_mut(&id.run)?.lane(id)?;
        let first = lane.pending.front()?.position;
        let last = lane.pending.get(count - 1)?.position;
        let Some((at, suspect)) = lane.suspicion(first).filter(|_| lane.probation > 0) else {
            return Some(count);
        };
        let was_alone = at == first && suspect.last <= last;
        if suspect.stops >= limits::SUSPECT_STOPS_MAX && was_alone {
            self.park_suspect(id, at, count, out);
            return None;
        }
        let alone_now = self.waves.iter().all(Option::is_none);
        (alone_now || !Self::is_lonely(suspect.stops)).then_some(count)
    }

    fn park_suspect(&mut self, id: LaneId, at: u64, count: usize, out: &mut Decision) {
        let run = self.runs.get_mut(&id.run).expect("suspects have runs");
        let lane = run.lanes.get_mut(&id.lane).expect("suspects have lanes");
        lane.suspects.remove(&at);
        lane.probation = lane.probation.saturating_sub(count);
        let events: Vec<Event> = lane.pending.drain(..count).collect();
        let (position, last) = (events[0].position, events[count - 1].position);
        lane.events -= count;
        lane.bytes -= events.iter().map(|event| event.body.len()).sum::<usize>();
        lane.segments.push_back(Segment {
            wave: None,
            first: position,
            last,
        });
        let key = |first: u64| Key::numbered(id.run, id.lane, &[first]);
        out.writes.push(Write::Delete(Table::Suspect, key(at)));
        if lane.batches.remove(&position).is_some() {
            out.writes.push(Write::Delete(Table::Batch, key(position)));
        }
        let version = lane.version_of(position);
        let recovered = lane.recovered.remove(&(position, 0));
        let snapshot = Snapshot {
            key: ActivationKey {
                lane: id,
                position,
                child: 0,
            },
            last,
            version,
            round: 0,
            ordered: false,
            late: false,
            silenced: false,
            events,
            bound: Vec::new(),
            entries: recovered.map_or_else(Vec::new, |r| r.entries),
        };
        self.park(snapshot, ParkReason::SuspectCrash, None, out);
        self.end_lap(id, false, true, out);
        self.dirty_lanes.insert(id);
        let run = self.runs.get_mut(&id.run).expect("suspects have runs");
        run.register_deferred(id, u64::MAX, &mut self.releases);
    }

    fn form_wave(&mut self, id: LaneId, count: usize, out: &mut Decision) {
        let run = self.runs.get_mut(&id.run).expect("hungry lanes have runs");
        let order;
        let wave_ix;
        {
            let lane = run.lanes.get_mut(&id.lane).expect("hungry lanes exist");
            let events: Vec<Event> = lane.pending.drain(..count).collect();
            let first = events[0].position;
            let version = lane.version_of(first);
            let source = run.source_of(version, id.lane);
            let dag = Arc::clone(&run.dags[usize::from(version)]);
            let lane = run.lanes.get_mut(&id.lane).expect("hungry lanes exist");
            order = dag.spec.order;
            let plan = dag.plan_of_source[usize::from(source)];
            let batched = dag
                .spec
                .sources
                .get(usize::from(source))
                .is_some_and(|s| s.batch.is_some());
            let members = if batched {
                vec![batch_member(id, &events)]
            } else {
                let numbered = events.iter().enumerate();
                numbered
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
            self.alone += u32::from(wave.alone);
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
            let run = self.runs.get_mut(&id.run).expect("hungry lanes have runs");
            run.register_deferred(id, u64::MAX, &mut self.releases);
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
            let lane = run.lanes[&member.key.lane.lane].order_lane();
            let Some(scope) = Run::order_scope(wave.dag.spec.order, lane, key) else {
                continue;
            };
            let queue = run.scopes.entry(scope).or_default();
            let seq = queue.push(Place::Wave(ix, at as u32), wave.version);
            wave.scopes.push(Some((scope, seq)));
        }
    }

    /// First sweep over a new wave.
    pub(crate) fn begin(&mut self, ix: u32, out: &mut Decision) {
        let everyone = self.wave(ix).everyone();
        let dirty = bits::full(self.wave(ix).plan().steps.len());
        self.rearm(ix);
        self.progress(ix, &everyone, dirty, out);
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
        late: false,
        silenced: false,
        row: false,
        stops: 0,
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
    let mut stops = 0;
    if let Some((at, old)) = lane.suspicion(first) {
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
    wave.alone = Machine::is_lonely(stops);
    if lane.probation == 0 {
        lane.leave_probation(out);
    }
}

pub(crate) fn place(waves: &mut Vec<Option<Wave>>, free: &mut Vec<u32>, wave: Wave) -> u32 {
    if let Some(slot) = free.pop() {
        waves[slot as usize] = Some(wave);
        slot
    } else {
        waves.push(Some(wave));
        waves.len() as u32 - 1
    }
}
