//! Slots and tokens: which dispatch is where, and what a worker may be asked about it.
//!
//! A token packs the dispatch's number with the low bits of its fence. A report under an old fence
//! still goes to the machine, which refuses and counts it (C5).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use evermill_contract::worker::{Slot, Token};
use evermill_core::command::{DispatchId, Fence};
use evermill_core::dag::{Dag, Order};

use crate::limits;
use crate::manifest::Outline;
use crate::view::WorkerName;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The token of a dispatch under a fence.
pub(crate) fn pack(fence: Fence, id: DispatchId) -> Token {
    let epoch = fence.epoch & mask(limits::TOKEN_EPOCH_BITS);
    let incarnation = u64::from(fence.incarnation) & mask(limits::TOKEN_INCARNATION_BITS);
    let boot = (epoch << limits::TOKEN_INCARNATION_BITS) | incarnation;
    let number = id.0 & mask(limits::TOKEN_DISPATCH_BITS);
    Token((boot << limits::TOKEN_DISPATCH_BITS) | number)
}

/// The dispatch and the fence a token was made from. A fence whose low bits differ from the
/// current one's comes back as those bits: it only has to be another one.
pub(crate) fn unpack(token: Token, current: Fence) -> (DispatchId, Fence) {
    let id = DispatchId(token.0 & mask(limits::TOKEN_DISPATCH_BITS));
    if pack(current, id) == token {
        return (id, current);
    }
    let boot = token.0 >> limits::TOKEN_DISPATCH_BITS;
    let fence = Fence {
        epoch: boot >> limits::TOKEN_INCARNATION_BITS,
        incarnation: (boot & mask(limits::TOKEN_INCARNATION_BITS)) as u32,
    };
    (id, fence)
}

/// A dispatch that is with a worker.
pub(crate) struct Out {
    pub(crate) slot: Slot,
    /// The slots that can run it.
    pub(crate) among: Range<u16>,
    pub(crate) dag: Arc<Dag>,
    pub(crate) outline: Arc<Outline>,
    pub(crate) run: evermill_core::command::RunIx,
    /// Which task of its DAG; none if a source's function is asked.
    pub(crate) task: Option<u16>,
    /// Runs of members with the same arrival: first member and microseconds since 1970. Empty
    /// when the dispatch says nothing about arrival to callable.
    pub(crate) arrivals: Vec<(u32, u64)>,
    pub(crate) members: u32,
    /// Of some batch of a source an event was left out, since no task is to read it.
    pub(crate) left_out: bool,
    /// Members whose outcomes have come.
    pub(crate) reported: u32,
    /// Some of its members have failed before.
    pub(crate) retries: bool,
    /// Some of its members write state and were redriven.
    pub(crate) redrives: bool,
    pub(crate) sent_at: Instant,
    pub(crate) recalled: bool,
}

impl Out {
    /// Members wait behind the one that runs, and need not: they keep no order.
    fn has_rest(&self) -> bool {
        let is_free = self.dag.spec.order == Order::None;
        is_free && !self.recalled && self.reported + 1 < self.members
    }
}

/// Which slots there are and what they hold.
pub(crate) struct Slots {
    ready: Vec<bool>,
    /// Process ids of the latest workers, 0 where none was heard of.
    pids: Vec<u32>,
    load: Vec<usize>,
    out: BTreeMap<u64, Out>,
    /// Dispatches that the machine gave out and no slot could take.
    waiting: VecDeque<DispatchId>,
}

impl Slots {
    pub(crate) fn new(count: u16) -> Self {
        Self {
            ready: vec![false; usize::from(count)],
            pids: vec![0; usize::from(count)],
            load: vec![0; usize::from(count)],
            out: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// There may be more of them now.
    pub(crate) fn grow(&mut self, count: u16) {
        let count = count.max(self.count());
        self.ready.resize(usize::from(count), false);
        self.pids.resize(usize::from(count), 0);
        self.load.resize(usize::from(count), 0);
    }

    pub(crate) fn count(&self) -> u16 {
        self.ready.len() as u16
    }

    /// Dispatches that all slots together hold.
    pub(crate) fn capacity(&self) -> u32 {
        (self.load.len() * limits::DISPATCHES_PER_SLOT) as u32
    }

    /// The slot among these that will get to one more dispatch first.
    pub(crate) fn choose(&self, among: Range<u16>) -> Option<Slot> {
        let places = among.map(usize::from);
        let free = places.filter(|&at| self.load[at] < limits::DISPATCHES_PER_SLOT);
        free.min_by_key(|&at| (self.load[at], !self.ready[at]))
            .map(|at| Slot(at as u16))
    }

    pub(crate) fn sent(&mut self, token: Token, out: Out) {
        self.load[usize::from(out.slot.0)] += 1;
        self.out.insert(token.0, out);
    }

    pub(crate) fn get(&self, token: Token) -> Option<&Out> {
        self.out.get(&token.0)
    }

    /// A dispatch of the machine's, and its task.
    pub(crate) fn of_task(&self, token: Token) -> Option<(&Out, u16)> {
        let out = self.get(token)?;
        Some((out, out.task?))
    }

    /// A dispatch is over.
    pub(crate) fn over(&mut self, token: Token) -> Option<Out> {
        let out = self.out.remove(&token.0)?;
        self.load[usize::from(out.slot.0)] -= 1;
        Some(out)
    }

    pub(crate) fn set_ready(&mut self, slot: Slot, ready: bool) {
        if let Some(known) = self.ready.get_mut(usize::from(slot.0)) {
            *known = ready;
        }
    }

    /// It has a live worker.
    pub(crate) fn started(&mut self, slot: Slot, pid: u32) {
        self.set_ready(slot, true);
        if let Some(known) = self.pids.get_mut(usize::from(slot.0)) {
            *known = pid;
        }
    }

    /// Who runs in a slot, or did last.
    pub(crate) fn worker(&self, slot: Slot) -> WorkerName {
        let pid = self.pids.get(usize::from(slot.0)).copied();
        WorkerName {
            slot: slot.0,
            pid: pid.filter(|pid| *pid > 0),
        }
    }

    pub(crate) fn ready(&self) -> u16 {
        self.ready.iter().filter(|&&ready| ready).count() as u16
    }

    /// Dispatches that are with workers, and what they are.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Out> {
        self.out.values()
    }

    pub(crate) fn with_tokens(&self) -> impl Iterator<Item = (Token, &Out)> {
        self.out.iter().map(|(token, out)| (Token(*token), out))
    }

    pub(crate) fn out(&self) -> usize {
        self.out.len()
    }

    /// Counts outcomes.
    pub(crate) fn reported(&mut self, token: Token, members: u32) {
        if let Some(out) = self.out.get_mut(&token.0) {
            out.reported += members;
        }
    }

    /// Every outcome of some dispatch has come, and that it is over has not: a worker says both in one
    /// breath.
    pub(crate) fn expects_finish(&self) -> bool {
        self.out.values().any(|out| out.reported >= out.members)
    }

    /// Of what is with workers for a run, and is of a task, the one that a worker has been at for the longest.
    pub(crate) fn longest(&self, run: evermill_core::command::RunIx) -> Option<&Out> {
        let own = self
            .all()
            .filter(|out| out.run == run && out.task.is_some());
        let long = own.filter(|out| out.sent_at.elapsed() >= limits::LONG_WORK);
        long.filter(|out| self.is_first(out))
            .min_by_key(|out| out.sent_at)
    }

    /// Its worker is at it; who came to the slot later waits there.
    pub(crate) fn is_first(&self, out: &Out) -> bool {
        let mut others = self.all().filter(|other| other.slot == out.slot);
        others.all(|other| other.sent_at >= out.sent_at)
    }

    /// Dispatches that are with workers.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        self.out.keys().map(|&token| Token(token))
    }

    /// Slots that hold dispatches.
    pub(crate) fn busy(&self) -> impl Iterator<Item = Slot> + '_ {
        let busy = |&at: &usize| self.load[at] > 0;
        (0..self.load.len()).filter(busy).map(|at| Slot(at as u16))
    }

    /// What could start elsewhere at once and waits for a dispatch that has run for longer than a slice
    /// or two: the one behind it, or else its own members behind the one that runs.
    pub(crate) fn stuck(&self) -> Option<Token> {
        let is_idle = |at: usize| self.load[at] == 0 && self.ready[at];
        if !(0..self.load.len()).any(is_idle) || !self.waiting.is_empty() || !self.has_queued() {
            return None;
        }
        let slice = evermill_contract::worker::limits::SLICE;
        let mut begun: BTreeMap<Slot, Instant> = BTreeMap::new();
        for out in self.out.values() {
            let first = begun.entry(out.slot).or_insert(out.sent_at);
            *first = out.sent_at.min(*first);
        }
        let movable = |out: &Out| !out.recalled && out.among.clone().map(usize::from).any(is_idle);
        let stands = |out: &Out| begun[&out.slot].elapsed() > 2 * slice;
        let stuck = || {
            let all = self.out.iter();
            all.filter(|(_, out)| movable(out) && stands(out))
        };
        let waits = |out: &Out| out.sent_at > begun[&out.slot];
        let behind = stuck().find(|(_, out)| waits(out));
        let found = behind.or_else(|| stuck().find(|(_, out)| out.has_rest()));
        found.map(|(&token, _)| Token(token))
    }

    /// Something waits behind something else: a dispatch in a slot, or a member in a dispatch.
    pub(crate) fn has_queued(&self) -> bool {
        self.load.iter().any(|&load| load > 1) || self.out.values().any(Out::has_rest)
    }

    /// Of a dispatch only the members before this one are left.
    pub(crate) fn shrink(&mut self, token: Token, from: u32) {
        if let Some(out) = self.out.get_mut(&token.0) {
            out.members = out.members.min(from);
        }
    }

    pub(crate) fn recalled(&mut self, token: Token) {
        if let Some(out) = self.out.get_mut(&token.0) {
            out.recalled = true;
        }
    }

    pub(crate) fn wait(&mut self, id: DispatchId) {
        self.waiting.push_back(id);
    }

    /// Those that wait, to be tried again, if there is room for any.
    pub(crate) fn take_waiting(&mut self) -> VecDeque<DispatchId> {
        let room = self
            .load
            .iter()
            .any(|&load| load < limits::DISPATCHES_PER_SLOT);
        if room {
            std::mem::take(&mut self.waiting)
        } else {
            VecDeque::new()
        }
    }

    pub(crate) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FENCE: Fence = Fence {
        epoch: 5_000,
        incarnation: 3,
    };

    #[test]
    fn a_dispatch_gets_a_slot_that_can_run_it_or_none() {
        let mut slots = Slots::new(4);
        assert_eq!(slots.choose(2..4), Some(Slot(2)));
        slots.load = vec![0, 0, 1, limits::DISPATCHES_PER_SLOT];
        assert_eq!(slots.choose(2..4), Some(Slot(2)));
        slots.load[2] = limits::DISPATCHES_PER_SLOT;
        assert_eq!(slots.choose(2..4), None);
        slots.wait(DispatchId(7));
        assert_eq!(slots.take_waiting(), [DispatchId(7)], "others have room");
        slots.wait(DispatchId(7));
        slots.load = vec![limits::DISPATCHES_PER_SLOT; 4];
        assert!(slots.take_waiting().is_empty(), "nobody has");
        assert_eq!(slots.waiting, [DispatchId(7)]);
    }

    #[test]
    fn a_token_gives_back_its_dispatch_and_fence() {
        let token = pack(FENCE, DispatchId(77));
        assert_eq!(unpack(token, FENCE), (DispatchId(77), FENCE));
    }

    #[test]
    fn a_token_of_another_boot_or_incarnation_never_looks_current() {
        for other in [
            Fence {
                epoch: 4_999,
                incarnation: 3,
            },
            Fence {
                epoch: 5_000,
                incarnation: 2,
            },
        ] {
            let (id, fence) = unpack(pack(other, DispatchId(77)), FENCE);
            assert_eq!(id, DispatchId(77));
            assert_ne!(fence, FENCE);
        }
    }
}
