//! Versions (W16) and replays (W18).

use std::sync::Arc;

use crate::command::{Decision, Effect, LaneId, RunIx};
use crate::dag::Dag;
use crate::machine::{Machine, put};
use crate::row::{Key, Table};

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
