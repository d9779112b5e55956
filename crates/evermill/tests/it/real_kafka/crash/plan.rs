//! The plan of a round: how each life of the engine is to end.

use std::collections::BTreeSet;

use evermill_engine::failpoint;

use super::chance::Chance;

/// How a life ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// `kill -9`, so long after its start.
    AfterStart(u64),
    /// `kill -9`, so long after its first effect.
    AfterEffect(u64),
    /// By itself, at a failpoint's n-th hit.
    At(&'static str, u64),
    /// By itself, at a failpoint of an orderly end.
    AtEnd(&'static str),
    /// SIGTERM: an orderly end.
    Orderly,
}

/// The lives of one round.
pub(super) struct Plan(pub(super) Vec<End>);

/// Places that this workload cannot reach, each with the reason.
const UNREACHABLE: [&str; 9] = [
    // A first start without any table is over in one commit: the second step follows the first.
    // These rows belong to features that the DAG under test has no use for.
    "store.commit.wrote.signal",
    "store.commit.wrote.dedup",
    "store.commit.wrote.outbox",
    // Nothing waits for more than a second.
    "store.commit.wrote.activation",
    // Needs more history than a round writes; the store's own tests cut there.
    "store.commit.segment_rolled",
    "store.trim.dropped",
    "store.trim.durable",
    // Reached only when the disk fills up or time is asked for.
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
    failpoint::names().into_iter().filter(|name| !UNREACHABLE.contains(name)).collect()
}

impl Plan {
    /// Plans for `cycles` lives, at most `size` in a round.
    pub(super) fn rounds(chance: &mut Chance, cycles: usize, size: usize) -> Vec<Self> {
        let mut others: Vec<_> = reachable().into_iter().filter(|name| !FIRST.contains(name)).collect();
        chance.shuffle(&mut others);
        let mut turn = others.into_iter().cycle();
        let mut plans = Vec::new();
        let mut left = cycles;
        while left > 0 {
            let lives = left.min(size);
            plans.push(Self::round(chance, lives, &mut turn));
            left -= lives;
        }
        plans
    }

    fn round(chance: &mut Chance, lives: usize, turn: &mut impl Iterator<Item = &'static str>) -> Self {
        let mut ends: Vec<End> = FIRST.map(|name| End::At(name, 1)).into();
        while ends.len() < lives {
            ends.push(match chance.below(10) {
                0..2 => End::AfterStart(chance.below(500)),
                2..5 => End::AfterEffect(chance.below(250)),
                5..9 => at(turn.next().expect("it never ends"), chance),
                _ => End::Orderly,
            });
        }
        ends.truncate(lives);
        Self(ends)
    }
}

fn at(name: &'static str, chance: &mut Chance) -> End {
    let of_the_end = name.starts_with("drain.") || name.starts_with("store.close.");
    let of_the_start = name.starts_with("open.") || name.starts_with("start.") || name.starts_with("store.open.");
    match (of_the_end, of_the_start) {
        (true, _) => End::AtEnd(name),
        (_, true) => End::At(name, 1),
        // Early and late in a life, and in its first commits more often.
        _ => {
            let most = 1 << chance.below(5);
            End::At(name, 1 + chance.below(most))
        }
    }
}
