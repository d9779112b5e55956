//! The plan: how each life of the engine is to end, and which failpoint's turn it is.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use evermill_engine::failpoint;

use super::chance::Chance;

/// How a life ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// `kill -9`, so many milliseconds after its start.
    AfterStart(u64),
    /// `kill -9`, so many milliseconds after its first effect.
    AfterEffect(u64),
    /// By itself, at this failpoint, which only the first lives of a data directory pass.
    First(&'static str),
    /// By itself, at the failpoint whose turn it is; the number chooses the hit.
    Failpoint(u64),
    /// `kill -9` while the disk has stopped in the middle of a commit, after so long that the broker
    /// would have heard of what is in it; the number chooses the commit.
    Stalled(u64),
    /// SIGTERM: an orderly end.
    Orderly,
}

/// Where the disk stops: all is written, and nothing is committed.
pub(super) const STALL: &str = "store.commit.header_written";

/// Places that this workload cannot reach, each with the reason.
const UNREACHABLE: [&str; 24] = [
    // What is read from a log needs no inbox; `polling.rs` and `hooks.rs` cut there.
    "receive.delivered",
    "receive.kept",
    "inbox.accepted",
    "inbox.kept",
    "inbox.fed",
    // Nobody in this workload has something to judge; `polling.rs` cuts there.
    "inquiry.sent",
    "inquiry.answered",
    // One version and one DAG; `serving/swapping.rs` and `together.rs` cut there.
    "swap.prepared",
    "swap.applied",
    "swap.committed",
    "swap.listening",
    "hearing.passed_on",
    // Nobody is told of anything; `alerting.rs` cuts there.
    "alert.committed",
    "alert.handed",
    // Rows that no source of this workload causes.
    "store.commit.wrote.signal",
    "store.commit.wrote.dedup",
    "store.commit.wrote.outbox",
    "store.commit.wrote.inbox",
    "store.commit.wrote.setting",
    // Needs more history than a round writes; the store's own tests cut there.
    "store.commit.segment_rolled",
    "store.trim.dropped",
    "store.trim.durable",
    // Rare or timed by the store; its own tests cut there.
    "store.checkpoint.before",
    "store.checkpoint.after",
];

/// Places that only the first lives of a data directory pass.
const FIRST: [&str; 6] = [
    "store.open.file_made",
    "store.open.tables_made",
    "store.commit.wrote.version",
    "store.commit.wrote.bundle",
    "shard.lane_found",
    "ingest.resolved",
];

/// Every place that the loop has to hit.
pub(super) fn reachable() -> BTreeSet<&'static str> {
    let names = failpoint::names().into_iter();
    names.filter(|name| !UNREACHABLE.contains(name)).collect()
}

/// Whether a place is passed only at an orderly end.
pub(super) fn is_of_the_end(name: &str) -> bool {
    name.starts_with("drain.") || name.starts_with("store.close.")
}

/// The lives of `cycles` cycles, in rounds of at most `size`.
pub(super) fn rounds(chance: &mut Chance, cycles: usize, size: usize) -> Vec<Vec<End>> {
    let lives = |left: usize| left.min(size);
    let mut rounds = Vec::new();
    let mut left = cycles;
    while left > 0 {
        rounds.push(round(chance, lives(left)));
        left -= lives(left);
    }
    rounds
}

/// A round of failpoints alone, each at its first hit.
pub(super) fn of_failpoints(lives: usize) -> Vec<End> {
    let first = FIRST.into_iter().map(End::First);
    first
        .chain((FIRST.len()..lives).map(|_| End::Failpoint(0)))
        .collect()
}

fn round(chance: &mut Chance, lives: usize) -> Vec<End> {
    let mut ends: Vec<End> = FIRST.map(End::First).into();
    while ends.len() < lives {
        ends.push(match chance.below(20) {
            0..4 => End::AfterStart(chance.below(500)),
            4..8 => End::AfterEffect(chance.below(250)),
            8..17 => End::Failpoint(chance.next()),
            17 => End::Stalled(3 + chance.below(16)),
            _ => End::Orderly,
        });
    }
    ends.truncate(lives);
    ends
}

/// Whose turn it is, over all rounds: each place once before any comes again, and one that was not
/// met comes back soon.
pub(super) struct Turns(Mutex<Queue>);

struct Queue {
    waiting: VecDeque<&'static str>,
    missed: BTreeSet<&'static str>,
    chance: Chance,
}

impl Turns {
    pub(super) fn new(chance: Chance) -> Self {
        let (waiting, missed) = (VecDeque::new(), BTreeSet::new());
        Self(Mutex::new(Queue {
            waiting,
            missed,
            chance,
        }))
    }

    /// A place and the hit at which it strikes: the first in one of two turns, and for a place that
    /// was missed before.
    pub(super) fn next(&self, choice: u64) -> (&'static str, u64) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.is_empty() {
            let names = reachable().into_iter().filter(|name| !FIRST.contains(name));
            let mut names: Vec<_> = names.collect();
            queue.chance.shuffle(&mut names);
            queue.waiting = names.into();
        }
        let name = queue.waiting.pop_front().expect("it was filled");
        let early = queue.missed.contains(name) || is_of_the_end(name) || name.contains("open.");
        let hit = if early || choice.is_multiple_of(2) {
            1
        } else {
            2 + choice / 2 % 8
        };
        (name, hit)
    }

    /// A place was not met in a whole life.
    pub(super) fn missed(&self, name: &'static str) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.missed.insert(name);
        let soon = queue.waiting.len().min(4);
        queue.waiting.insert(soon, name);
    }
}
