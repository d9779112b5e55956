//! Sources that need the machine's own clockwork: loops (W15) and batches (W8).

use bytes::Bytes;

use crate::activation::Held;
use crate::bits;
use crate::command::{Decision, Event, LaneId, RunIx, RunState};
use crate::dag::{BatchSpec, LoopSpec};
use crate::limits;
use crate::machine::{Machine, Timer};
use crate::wave::Wave;

impl Machine {
    pub(crate) fn loop_of(&self, id: LaneId) -> Option<LoopSpec> {
        let run = self.runs.get(&id.run)?;
        let source = run.source_in(run.row.current, id.lane)?;
        run.dag().spec.sources.get(usize::from(source))?.looped
    }

    /// A loop whose delay ended while its run was paused goes on.
    pub(crate) fn wake_loops(&mut self, ix: RunIx) {
        let lanes = self
            .runs
            .get(&ix)
            .into_iter()
            .flat_map(|run| run.lanes.values());
        let ids: Vec<LaneId> = lanes.map(|lane| lane.id).collect();
        for id in ids {
            self.go_on_looping(id);
        }
    }

    /// The next iteration of this lane, if it is a loop's and none is due later.
    pub(crate) fn go_on_looping(&mut self, id: LaneId) {
        let mut timers = self.timers.iter();
        let waits = timers.any(|(_, timer)| *timer == Timer::Loop(id));
        if self.loop_of(id).is_some() && !waits {
            self.emit_iteration(id);
        }
    }

    /// Whether a lap of this lane has left the lane's books and not settled: in a row of its own, or
    /// back in a wave.
    fn is_under_way(&self, id: LaneId) -> bool {
        let held = self.runs.get(&id.run).is_some_and(|run| {
            let laps = run.materialised.iter().filter(|(key, _)| key.lane == id);
            laps.into_iter()
                .any(|(_, lap)| !matches!(lap.held, Held::Parked(_)))
        });
        let in_a_wave = |wave: &Wave| {
            let laps = wave
                .members
                .iter()
                .enumerate()
                .filter(|(_, m)| m.key.lane == id);
            laps.into_iter()
                .any(|(at, _)| !bits::get(&wave.left, at as u32))
        };
        held || self.releases.iter().any(|key| key.lane == id)
            || self.waves.iter().flatten().any(in_a_wave)
    }

    /// Emits the iteration the loop's lane stands at.
    pub(crate) fn emit_iteration(&mut self, id: LaneId) {
        let (now, under_way) = (self.now, self.is_under_way(id));
        let Some(run) = self.runs.get_mut(&id.run).filter(|run| run.accepts()) else {
            return;
        };
        let Some(lane) = run.lanes.get_mut(&id.lane) else {
            return;
        };
        if lane.events > 0 || under_way || !lane.open {
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
        self.end_lap(id, reached, failed, out);
    }

    /// W15: what follows on the end of a lap; one that is parked as a suspect has failed.
    pub(crate) fn end_lap(&mut self, id: LaneId, reached: bool, failed: bool, out: &mut Decision) {
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
                return self.stopping.push(id.run);
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
