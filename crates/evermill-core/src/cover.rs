//! Attempts that run long (W2): their activations get rows of their own while they stay in their
//! waves, so that the lane need not wait for them.

use std::collections::BTreeSet;

use crate::activation::{self, Held};
use crate::bits;
use crate::command::{ActivationKey, Decision, DispatchId, Ms};
use crate::dispatch::Dispatch;
use crate::limits;
use crate::machine::{Machine, put};
use crate::row::Table;
use crate::wave::Wave;

/// When a dispatch has run for long.
const fn long_at(dispatch: &Dispatch) -> Ms {
    dispatch.issued + limits::ATTEMPT_ROW_MS
}

impl Machine {
    /// When the oldest dispatch without such rows has run for long.
    pub(crate) fn next_long(&self) -> Option<Ms> {
        let oldest = self.dispatches.first_from(self.next_uncovered);
        oldest.map(long_at)
    }

    /// Writes the rows that have become due.
    pub(crate) fn cover_long(&mut self, out: &mut Decision) {
        while let Some(dispatch) = self
            .dispatches
            .first_from(self.next_uncovered)
            .filter(|dispatch| long_at(dispatch) <= self.now)
        {
            self.next_uncovered = DispatchId(dispatch.id.0 + 1);
            let members: BTreeSet<(u32, u32)> = bits::ones(&dispatch.outstanding)
                .map(|index| dispatch.slots[index as usize])
                .map(|slot| {
                    (
                        slot.wave,
                        self.wave(slot.wave).member_of(slot.node, slot.at),
                    )
                })
                .collect();
            for (ix, member) in members {
                self.cover(ix, member, out);
            }
        }
    }

    fn cover(&mut self, ix: u32, member: u32, out: &mut Decision) {
        let wave = self.wave(ix);
        if bits::get(&wave.left, member) || wave.is_covered(member) {
            return;
        }
        let snapshot = self.snapshot(ix, member);
        let wave = self.wave_mut(ix);
        let m = &mut wave.members[member as usize];
        m.row = true;
        let held = Held::Running { stops: m.stops };
        let key = activation::row_key(m.key);
        wave.cover(member);
        put(out, Table::Activation, key, snapshot.encode(held));
        let lane = wave.lane;
        self.dirty_lanes.extend(lane);
    }

    /// C6: what was running at a second unclean stop runs alone; whoever is next, once the shard is
    /// empty.
    pub(crate) fn release_alone(&mut self) -> bool {
        let Some(next) = self.next_lonely() else {
            return false;
        };
        if !self.releases.is_empty() || self.waves.iter().any(Option::is_some) {
            return false;
        }
        let key = self.lonely.remove(next).expect("just found");
        self.release(key);
        true
    }

    /// The first of those that wait to run alone whose run may run anything.
    pub(crate) fn next_lonely(&self) -> Option<usize> {
        let works = |key: &ActivationKey| self.runs[&key.lane.run].works();
        self.lonely.iter().position(works)
    }

    /// Whether this one must be the only one in flight.
    pub(crate) fn is_lonely(stops: u32) -> bool {
        stops + 1 >= limits::SUSPECT_STOPS_MAX
    }

    /// Puts a materialised activation that was running at a stop back, by the stops on its record.
    pub(crate) fn release_running(&mut self, key: ActivationKey, stops: u32) {
        if Self::is_lonely(stops) {
            self.lonely.push_back(key);
        } else {
            self.release(key);
        }
    }
}

impl Wave {
    /// Members that are still here although their lane's cursor does not wait for them.
    pub(crate) fn beyond_the_cursor(&self) -> impl Iterator<Item = ActivationKey> + '_ {
        let may_hold = self.lane.is_none() || !self.covered.is_empty();
        let members = self.members.iter().zip(0..).filter(move |_| may_hold);
        members
            .filter(|&(_, member)| {
                let passed = self.lane.is_none() || self.is_covered(member);
                passed && !bits::get(&self.left, member)
            })
            .map(|(member, _)| member.key)
    }

    /// Whether this member has a row of its own while it is here.
    pub(crate) fn is_covered(&self, member: u32) -> bool {
        !self.covered.is_empty() && bits::get(&self.covered, member)
    }

    fn cover(&mut self, member: u32) {
        self.covered.resize(self.words, 0);
        bits::set(&mut self.covered, member);
    }
}
