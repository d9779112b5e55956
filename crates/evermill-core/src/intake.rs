//! Intake: lanes are opened, events come in.

use crate::command::{Decision, Effect, Event, LaneId, RunIx, RunState};
use crate::lane::{Cursor, Lane};
use crate::machine::Machine;
use crate::row::{Key, Table, Write};

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
        let current = run.row.current;
        let same = |lane: &&mut Lane| {
            let cursor = &lane.cursor;
            cursor.is_live()
                && cursor.home() == current
                && cursor.source == source
                && cursor.name == name
                && cursor.incarnation == incarnation
        };
        let id = if let Some(lane) = run.lanes.values_mut().find(same) {
            lane.open = true;
            lane.credit = true;
            lane.id
        } else {
            let mut cursor = Cursor {
                source,
                name: name.clone(),
                incarnation,
                generation: 0,
                origin: None,
                replay: None,
                reset: None,
                low: first,
                ranges: Vec::new(),
                switches: vec![(0, run.row.current)],
                passed: Vec::new(),
                closed: false,
            };
            cursor.pass(0, first);
            let id = run.add_lane(cursor, out);
            let lane = run.lanes.get_mut(&id.lane).expect("just added");
            lane.open = true;
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
            self.go_on_looping(id);
            let lane = self.runs.get_mut(&ix).and_then(|run| run.lane(id));
            lane.expect("just opened").bound_suspects(out);
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
        if !run.has_source_of(id.lane) {
            return;
        }
        let joins = {
            let dag = run.dag();
            dag.plans[usize::from(dag.plan_of_source[usize::from(lane.cursor.source)])].is_join
        };
        let mut joined = Vec::new();
        let lane = run.lanes.get_mut(&id.lane).expect("looked up above");
        lane.caught_up = false;
        let mut read_to_its_end = false;
        for event in events {
            if event.position < lane.read || !lane.open {
                continue;
            }
            let replay = lane.cursor.replay;
            if replay.is_some_and(|replay| event.position >= replay.until) {
                read_to_its_end = true;
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
        if read_to_its_end {
            self.replay_read(id, out);
        }
        for event in joined {
            self.join(id, event, out);
        }
        let run = self.runs.get_mut(&id.run).expect("looked up above");
        run.register_deferred(id, u64::MAX, &mut self.releases);
    }

    pub(crate) fn caught_up(&mut self, id: LaneId, out: &mut Decision) {
        if let Some(lane) = self.runs.get_mut(&id.run).and_then(|run| run.lane(id)) {
            lane.caught_up = true;
            lane.bound_suspects(out);
            self.dirty_lanes.insert(id);
            self.dirty_runs.insert(id.run);
        }
    }

    /// Forgets what was read of a lane and not begun; it is read again once the lane is opened.
    pub(crate) fn close_lane(&mut self, id: LaneId) {
        let Some(run) = self.runs.get_mut(&id.run) else {
            return;
        };
        let Some(lane) = run.lanes.get_mut(&id.lane) else {
            return;
        };
        if let Some(first) = lane.pending.front() {
            lane.read = first.position;
        }
        let forgotten = lane.pending.len();
        lane.events -= forgotten;
        lane.bytes -= lane.pending.iter().map(|e| e.body.len()).sum::<usize>();
        lane.pending.clear();
        lane.open = false;
        run.row.counters.seen -= forgotten as u64;
        self.hungry.remove(id);
        self.dirty_lanes.insert(id);
        self.dirty_runs.insert(id.run);
    }

    /// Passes over positions that are not to be read here: what was on record of them goes too.
    pub(crate) fn gap(&mut self, id: LaneId, from: u64, to: u64, out: &mut Decision) {
        let Some(run) = self.runs.get_mut(&id.run) else {
            return;
        };
        let Some(lane) = run
            .lane(id)
            .filter(|lane| lane.read <= to && from <= lane.read)
        else {
            return;
        };
        lane.read = to;
        lane.recovered = lane.recovered.split_off(&(to, 0));
        let batches = lane.batches.split_off(&to);
        for first in std::mem::replace(&mut lane.batches, batches).into_keys() {
            let key = Key::numbered(id.run, id.lane, &[first]);
            out.writes.push(Write::Delete(Table::Batch, key));
        }
        run.register_deferred(id, to, &mut self.releases);
        self.dirty_lanes.insert(id);
        self.dirty_runs.insert(id.run);
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
