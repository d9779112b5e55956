//! Replays, which read a stretch of a lane again as lanes of their own, and resets, which move the
//! live position (W18).
//!
//! | a replay's lane | on | goes to |
//! |---|---|---|
//! | being read | `PauseReplay`, drain, crash | not read; goes on at `ResumeReplay` or the next start |
//! | being read, not read | `StopReplay` | what was begun of it settles, then closed |
//! | being read | its last position was read | not read; closed once all of it is settled |
//!
//! A reset closes the live lane and opens another one of the same name at the new position, of a new
//! generation: what waits or is parked keeps its address, and no row is of two readings at once.

use std::collections::BTreeSet;

use crate::command::{Decision, Effect, LaneId, ReplayMode, RunIx, RunState, Stretch};
use crate::lane::{Cursor, Lane, Replay, Reset};
use crate::limits;
use crate::machine::{Machine, put};
use crate::row::{Key, Table, Write};
use crate::run::Run;

impl Machine {
    /// Reads stretches again, together one replay.
    pub(crate) fn replay(
        &mut self,
        ix: RunIx,
        stretches: &[Stretch],
        mode: ReplayMode,
        out: &mut Decision,
    ) {
        let asked_ms = self.now;
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        let generation = run.next_generation();
        for stretch in stretches {
            let original = run.lanes.get(&stretch.lane);
            if original.is_none_or(|lane| lane.cursor.replay.is_some()) {
                continue;
            }
            let parts = if mode.claims {
                run.claim(*stretch)
            } else {
                vec![(stretch.from, stretch.to)]
            };
            for (from, until) in parts.into_iter().filter(|(from, until)| from < until) {
                let original = &run.lanes[&stretch.lane];
                let cursor = Cursor {
                    generation,
                    origin: Some(original.state_lane()),
                    replay: Some(Replay {
                        of: stretch.lane,
                        from,
                        until,
                        asked: until,
                        fresh_keys: mode.fresh_keys,
                        writes_state: mode.writes_state,
                        claims: mode.claims,
                        paused: false,
                        asked_ms,
                    }),
                    reset: None,
                    low: from,
                    ranges: Vec::new(),
                    switches: vec![(0, run.row.current)],
                    passed: Vec::new(),
                    closed: false,
                    ..original.cursor.clone()
                };
                let lane = run.add_lane(cursor, out);
                self.dirty_lanes.insert(lane);
            }
            self.dirty_lanes.insert(LaneId {
                run: ix,
                lane: stretch.lane,
            });
        }
        self.forget_closed(ix, out);
        self.dirty_runs.insert(ix);
        self.reopen_replays(ix, out);
    }

    /// Replays that have not come to their end go on where they stood, those that are paused apart.
    pub(crate) fn reopen_replays(&mut self, ix: RunIx, out: &mut Decision) {
        // Where nothing is taken in, nothing is to be read: it is opened with the next start.
        let takes_in =
            |run: &&mut Run| matches!(run.row.state, RunState::Running | RunState::Paused);
        let Some(run) = self.runs.get_mut(&ix).filter(takes_in) else {
            return;
        };
        let current = run.row.current;
        // Stretches of the same lane come one after the other: they have one reader.
        let place = |lane: &Lane| (lane.cursor.generation, lane.cursor.name.clone());
        let read = run
            .lanes
            .values()
            .filter(|lane| lane.open && lane.cursor.replay.is_some());
        let mut read: BTreeSet<(u32, String)> = read.map(place).collect();
        for lane in run.lanes.values_mut() {
            let goes_on = lane.cursor.replay.is_some_and(|replay| !replay.paused);
            // The version that is run now may lack its source.
            let goes_on = goes_on && lane.cursor.home() == current;
            if !goes_on || lane.cursor.closed || lane.open || lane.is_read_to_its_end() {
                continue;
            }
            if !read.insert(place(lane)) {
                continue;
            }
            lane.open = true;
            lane.credit = true;
            out.effects.push(lane_open(lane));
        }
    }

    /// Stops or starts the reading of a replay; what was begun of it settles.
    pub(crate) fn pause_replay(
        &mut self,
        ix: RunIx,
        generation: u32,
        paused: bool,
        out: &mut Decision,
    ) {
        for id in self.lanes_of_replay(ix, generation) {
            if paused {
                self.leave_replay(id, out);
            }
            if let Some(lane) = self.runs.get_mut(&ix).and_then(|run| run.lane(id)) {
                if let Some(replay) = &mut lane.cursor.replay {
                    replay.paused = paused;
                }
                lane.changed = true;
                self.dirty_lanes.insert(id);
            }
        }
        self.reopen_replays(ix, out);
    }

    /// Ends a replay: what was begun of it settles, also over a crash; the rest is not read.
    pub(crate) fn stop_replay(&mut self, ix: RunIx, generation: u32, out: &mut Decision) {
        for id in self.lanes_of_replay(ix, generation) {
            self.leave_replay(id, out);
            let lane = self.runs.get_mut(&ix).and_then(|run| run.lane(id));
            let Some(lane) = lane else { continue };
            if let Some(replay) = &mut lane.cursor.replay {
                replay.until = lane.read.min(replay.until);
            }
            lane.changed = true;
            self.dirty_lanes.insert(id);
        }
        self.reopen_replays(ix, out);
    }

    /// Everything of a replay's lane was handed over: it ends once all of it has settled.
    pub(crate) fn replay_read(&mut self, id: LaneId, out: &mut Decision) {
        let lane = self.runs.get_mut(&id.run).and_then(|run| run.lane(id));
        let Some(lane) = lane.filter(|lane| lane.open) else {
            return;
        };
        let Some(replay) = lane.cursor.replay else {
            return;
        };
        lane.read = replay.until.max(lane.read);
        lane.open = false;
        lane.caught_up = true;
        lane.bound_suspects(out);
        out.effects.push(Effect::LaneClose(id));
        self.dirty_lanes.insert(id);
        self.dirty_runs.insert(id.run);
        self.reopen_replays(id.run, out);
    }

    /// Drops the records of lanes that were closed long ago, unless something of them waits, is parked
    /// or runs. The newest one stays in any case: numbers are not given out twice.
    fn forget_closed(&mut self, ix: RunIx, out: &mut Decision) {
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        let closed = run.lanes.values().filter(|lane| lane.cursor.closed);
        let mut beyond = closed.count().saturating_sub(limits::LANES_CLOSED_MAX);
        // An activation that joins sources names lanes of others.
        if beyond == 0 || run.dag().plans.iter().any(|plan| plan.is_join) {
            return;
        }
        let mut used: BTreeSet<u32> = run.materialised.keys().map(|key| key.lane.lane).collect();
        let waves = self.waves.iter().flatten().filter(|wave| wave.run == ix);
        used.extend(waves.flat_map(|wave| wave.members.iter().map(|m| m.key.lane.lane)));
        used.extend(self.releases.iter().map(|key| key.lane.lane));
        used.extend(run.lanes.keys().next_back());
        run.lanes.retain(|number, lane| {
            let goes = beyond > 0 && lane.cursor.closed && !used.contains(number);
            if goes {
                beyond -= 1;
                let key = Key::numbered(ix, *number, &[]);
                out.writes.push(Write::Delete(Table::Lane, key));
            }
            !goes
        });
    }

    fn lanes_of_replay(&self, ix: RunIx, generation: u32) -> Vec<LaneId> {
        let lanes = self.runs.get(&ix).map(|run| run.lanes.values());
        let of_it = lanes.into_iter().flatten().filter(|lane| {
            let cursor = &lane.cursor;
            cursor.replay.is_some() && cursor.generation == generation && !cursor.closed
        });
        of_it.map(|lane| lane.id).collect()
    }

    fn leave_replay(&mut self, id: LaneId, out: &mut Decision) {
        let lane = self.runs.get_mut(&id.run).and_then(|run| run.lane(id));
        if lane.is_some_and(|lane| lane.open) {
            self.close_lane(id);
            out.effects.push(Effect::LaneClose(id));
        }
    }

    /// What a source passed over by its own rule: never run, and never to be read again here.
    pub(crate) fn pass_over(&mut self, id: LaneId, from: u64, to: u64, out: &mut Decision) {
        let lane = self.runs.get_mut(&id.run).and_then(|run| run.lane(id));
        let Some(lane) = lane.filter(|lane| from <= lane.read && lane.read < to) else {
            return;
        };
        let from = lane.read;
        lane.cursor.pass(from, to);
        lane.changed = true;
        self.gap(id, from, to, out);
    }

    /// Moves the live position of a lane by closing it and opening another one in its place. Nothing
    /// is done while some of it is under way.
    pub(crate) fn reset(&mut self, id: LaneId, to: u64, by: String, out: &mut Decision) {
        let at_ms = self.now;
        let lane = self.runs.get_mut(&id.run).and_then(|run| run.lane(id));
        let Some(lane) = lane.filter(|lane| lane.cursor.is_live() && lane.is_at_rest()) else {
            return;
        };
        let (was_open, from) = (lane.open, lane.next_unread());
        self.close_lane(id);
        let run = self.runs.get_mut(&id.run).expect("looked up above");
        // Ordered activations that waited for their lane to be read past them come now or never.
        let lane = run.lanes.get_mut(&id.lane).expect("looked up above");
        lane.read = u64::MAX;
        run.register_deferred(id, u64::MAX, &mut self.releases);
        let generation = run.next_generation();
        let current = run.row.current;
        let lane = run.lanes.get_mut(&id.lane).expect("looked up above");
        lane.read = from;
        lane.forget_earlier(out);
        let origin = lane.state_lane();
        let mut cursor = Cursor {
            generation,
            origin: Some(origin),
            reset: Some(Reset {
                from,
                to,
                at_ms,
                by,
            }),
            low: to,
            ranges: Vec::new(),
            switches: vec![(0, current)],
            ..lane.cursor.clone()
        };
        lane.cursor.closed = true;
        lane.changed = true;
        if to < from {
            // What lies behind the new position is read again, and so is nobody's to catch up with.
            cursor.passed.retain(|&(start, _)| start < to);
            if let Some(last) = cursor.passed.last_mut() {
                last.1 = last.1.min(to);
            }
        } else {
            cursor.pass(from, to);
        }
        let successor = run.add_lane(cursor, out);
        if was_open {
            let lane = run.lanes.get_mut(&successor.lane).expect("just added");
            lane.open = true;
            out.effects.push(lane_open(lane));
        }
        self.dirty_lanes.insert(id);
        self.dirty_lanes.insert(successor);
        self.forget_closed(id.run, out);
        self.dirty_runs.insert(id.run);
    }
}

impl Run {
    /// Replays and resets count up together over all lanes of the run.
    fn next_generation(&self) -> u32 {
        let used = self.lanes.values().map(|lane| lane.cursor.generation);
        used.max().unwrap_or(0) + 1
    }

    pub(crate) fn add_lane(&mut self, cursor: Cursor, out: &mut Decision) -> LaneId {
        let number = self.lanes.keys().next_back().map_or(1, |last| last + 1);
        let id = LaneId {
            run: self.ix,
            lane: number,
        };
        let key = Key::numbered(self.ix, number, &[]);
        put(out, Table::Lane, key, cursor.encode());
        self.lanes.insert(number, Lane::new(id, cursor));
        id
    }

    /// Takes over what a lane has passed unread between two positions; where nobody reads the lane,
    /// what it has not come to yet as well. It is nobody else's to run from now on.
    fn claim(&mut self, stretch: Stretch) -> Vec<(u64, u64)> {
        let Some(lane) = self.lanes.get_mut(&stretch.lane) else {
            return Vec::new();
        };
        let parts = lane.unread(stretch);
        if let Some(&(_, to)) = parts.last().filter(|&&(_, to)| to > lane.read) {
            let from = std::mem::replace(&mut lane.read, to);
            lane.cursor.pass(from, to);
        }
        let passed = std::mem::take(&mut lane.cursor.passed);
        lane.cursor.passed = without(&passed, &parts);
        lane.changed = true;
        parts
    }
}

impl Lane {
    /// What of a stretch was passed unread, or lies ahead where nobody reads.
    pub(crate) fn unread(&self, stretch: Stretch) -> Vec<(u64, u64)> {
        let mut passed = self.cursor.passed.clone();
        // What lies between is the lane's own to come to.
        let adjoins = (stretch.from..stretch.to).contains(&self.read);
        if !self.open && adjoins && self.pending.is_empty() && self.is_at_rest() {
            passed.push((self.read, stretch.to));
        }
        let cut = |(from, to): (u64, u64)| (from.max(stretch.from), to.min(stretch.to));
        passed
            .into_iter()
            .map(cut)
            .filter(|(from, to)| from < to)
            .collect()
    }

    /// Nothing of it is in a wave.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.events == self.pending.len()
    }

    /// Where reading goes on once what is pending was forgotten.
    fn next_unread(&self) -> u64 {
        let pending = self.pending.front();
        pending.map_or(self.read, |event| event.position)
    }

    fn is_read_to_its_end(&self) -> bool {
        let replay = self.cursor.replay;
        replay.is_some_and(|replay| replay.until <= self.read)
    }

    /// What earlier boots left for positions that will not be read in this lane goes.
    fn forget_earlier(&mut self, out: &mut Decision) {
        let at = |first: u64| Key::numbered(self.id.run, self.id.lane, &[first]);
        for (_, wave) in std::mem::take(&mut self.stale_rows) {
            let rows = Write::DeletePrefix(Table::Outcome, at(wave));
            out.writes.push(rows);
        }
        for first in std::mem::take(&mut self.batches).into_keys() {
            out.writes.push(Write::Delete(Table::Batch, at(first)));
        }
        self.recovered.clear();
        self.leave_probation(out);
    }
}

fn lane_open(lane: &Lane) -> Effect {
    Effect::LaneOpen {
        lane: lane.id,
        source: lane.cursor.source,
        name: lane.cursor.name.clone(),
        position: lane.read,
    }
}

/// Ranges without the parts of them that others have taken.
fn without(ranges: &[(u64, u64)], taken: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut left = Vec::new();
    for &(mut from, to) in ranges {
        for &(start, end) in taken.iter().filter(|&&(start, _)| start < to) {
            if from < start {
                left.push((from, start));
            }
            from = from.max(end);
        }
        if from < to {
            left.push((from, to));
        }
    }
    left
}
