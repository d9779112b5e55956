//! Ordering scopes (W4): who may start what next within a key, a partition or a serial lane.
//!
//! A scope is a queue of unsettled activations in lane order. Under FIFO, activation number `seq`
//! may start task `t` when every earlier one is done at `t`: when `frontier[t] == seq`. Under
//! `serial` it may start anything once it is the front. Activations of a newer version wait until
//! the front is of their version (W16).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::command::ActivationKey;

/// What events are ordered by: a key, or a lane (with `key = 0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeKey {
    /// The lane; 0 when the scope is a key.
    pub lane: u32,
    /// The key; 0 when the scope is a lane.
    pub key: u128,
}

/// Where an unsettled activation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Member of the wave in this slot.
    Wave(u32, u32),
    /// Materialised.
    Held(ActivationKey),
    /// Settled, but an earlier one is not.
    Gone,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    place: Place,
    version: u16,
}

/// The queue of one scope.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    base: u64,
    queue: VecDeque<Slot>,
    frontier: BTreeMap<(u16, u16), u64>,
    ahead: BTreeSet<(u16, u16, u64)>,
    /// Activations that settled blocked: later ones start nothing while there are any.
    pub(crate) blocked: BTreeSet<u64>,
    /// Materialised activations in the queue.
    pub(crate) held: u32,
}

impl Scope {
    pub(crate) fn push(&mut self, place: Place, version: u16) -> u64 {
        self.queue.push_back(Slot { place, version });
        self.base + self.queue.len() as u64 - 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn place(&self, seq: u64) -> Option<Place> {
        let index = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.queue.get(index).map(|slot| slot.place)
    }

    /// Every place from this sequence number on, with its number.
    pub(crate) fn places_from(&self, seq: u64) -> impl Iterator<Item = (u64, Place)> + '_ {
        let skip = usize::try_from(seq.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let base = self.base;
        self.queue
            .iter()
            .enumerate()
            .skip(skip)
            .map(move |(i, s)| (base + i as u64, s.place))
    }

    pub(crate) fn move_to(&mut self, seq: u64, place: Place) {
        let index = (seq - self.base) as usize;
        let old = std::mem::replace(&mut self.queue[index].place, place);
        self.held -= u32::from(matches!(old, Place::Held(_)));
        self.held += u32::from(matches!(place, Place::Held(_)));
    }

    /// Whether an earlier one is materialised: it may be long.
    pub(crate) fn held_before(&self, seq: u64) -> bool {
        let earlier = usize::try_from(seq.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.held > 0
            && self
                .queue
                .iter()
                .take(earlier)
                .any(|slot| matches!(slot.place, Place::Held(_)))
    }

    fn frontier(&self, version: u16, task: u16) -> u64 {
        self.frontier
            .get(&(version, task))
            .copied()
            .unwrap_or(0)
            .max(self.base)
    }

    /// Whether this activation may start this task now.
    pub(crate) fn may_start(&self, seq: u64, version: u16, task: u16, serial: bool) -> bool {
        let front_is_ours = self
            .queue
            .front()
            .is_some_and(|slot| slot.version == version);
        let its_turn = if serial {
            seq == self.base
        } else {
            // Below the frontier: it was done here before, and runs again after a redrive or a wait.
            seq <= self.frontier(version, task)
        };
        let unblocked = self.blocked.first().is_none_or(|&first| seq <= first);
        unblocked && front_is_ours && its_turn
    }

    /// Whether this activation could start anything now.
    pub(crate) fn may_have_turn(&self, seq: u64) -> bool {
        seq == self.base || self.frontier.values().any(|&front| seq <= front)
    }

    /// A blocked activation runs again; it keeps its place, and later ones wait on.
    pub(crate) fn redriven(&mut self, seq: u64) {
        debug_assert!(
            self.blocked.contains(&seq),
            "only blocked activations keep their place"
        );
    }

    /// This activation is done at this task; the next one's number, if it is now its turn.
    pub(crate) fn done_at(&mut self, seq: u64, version: u16, task: u16) -> Option<u64> {
        let mut front = self.frontier(version, task);
        if seq < front {
            return None;
        }
        if seq > front {
            self.ahead.insert((version, task, seq));
            return None;
        }
        front += 1;
        while self.ahead.remove(&(version, task, front)) {
            front += 1;
        }
        self.frontier.insert((version, task), front);
        Some(front)
    }

    /// This activation settled or left the order; `true` if the front moved.
    pub(crate) fn settle(&mut self, seq: u64) -> bool {
        let Some(index) = seq.checked_sub(self.base).map(|i| i as usize) else {
            return false;
        };
        if index >= self.queue.len() {
            return false;
        }
        self.move_to(seq, Place::Gone);
        let before = self.base;
        while self
            .queue
            .front()
            .is_some_and(|slot| slot.place == Place::Gone)
        {
            self.queue.pop_front();
            self.base += 1;
        }
        if self.base != before {
            let base = self.base;
            // A task's frontier may now stand among those that are done ahead.
            let mut frontier = std::mem::take(&mut self.frontier);
            for ((version, task), front) in &mut frontier {
                *front = (*front).max(base);
                while self.ahead.remove(&(*version, *task, *front)) {
                    *front += 1;
                }
            }
            self.frontier = frontier;
            self.ahead.retain(|&(_, _, ahead)| ahead >= base);
        }
        self.base != before
    }
}
