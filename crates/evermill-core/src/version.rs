//! Versions (W16) and replays (W18).

use std::collections::BTreeSet;
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
        let free = || run.row.versions.iter().position(String::is_empty);
        let version = known.or_else(free).unwrap_or(run.row.versions.len()) as u16;
        if known.is_none() {
            let place = usize::from(version);
            run.row
                .versions
                .resize(run.row.versions.len().max(place + 1), String::new());
            run.row.versions[place].clone_from(&dag.spec.version);
            run.dags.resize(run.row.versions.len(), Arc::clone(dag));
            run.dags[place] = Arc::clone(dag);
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

    /// Versions that nothing durable names any more lose their place in their run's list, but for
    /// the current one. `named`: run and version of activations with rows of their own.
    pub(crate) fn strike_versions(&mut self, mut named: BTreeSet<(RunIx, u16)>) {
        for (&ix, run) in &mut self.runs {
            named.insert((ix, run.row.current));
            for lane in run.lanes.values() {
                named.extend(
                    lane.cursor
                        .switches
                        .iter()
                        .map(|&(_, version)| (ix, version)),
                );
                named.extend(lane.recovered.values().map(|r| (ix, r.version)));
            }
            for (version, name) in run.row.versions.iter_mut().enumerate() {
                if !named.contains(&(ix, version as u16)) {
                    name.clear();
                }
            }
        }
    }

    /// Every version some run may still need, by hash.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        let named = self.runs.values().flat_map(|run| &run.row.versions);
        named
            .map(String::as_str)
            .filter(|version| !version.is_empty())
    }

    /// Replays that have not come to their end go on where they stood.
    pub(crate) fn reopen_replays(&mut self, ix: RunIx, out: &mut Decision) {
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        for lane in run.lanes.values_mut() {
            if lane.cursor.replay.is_none() || lane.cursor.closed || lane.open {
                continue;
            }
            lane.open = true;
            lane.credit = true;
            out.effects.push(Effect::LaneOpen {
                lane: lane.id,
                source: lane.cursor.source,
                name: lane.cursor.name.clone(),
                position: lane.read,
            });
        }
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
