//! The kill loop: `kill -9` at random and at every failpoint, under load, again and again; then the
//! ledger of what went in is held against what came out.
//!
//! Cycles come in rounds. A round has a topic, a data directory and a judgement of its own, and the
//! rounds of two threads run beside each other. Within a round the producer never stops, and each
//! cycle is one life of the engine. What decides about a life has a seed, so a plan can be repeated;
//! the moments, which the machine's load decides about too, cannot.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `EVERMILL_CRASH_CYCLES` | lives in all | 300 |
//! | `EVERMILL_CRASH_SEED` | of the plan | the time |
//! | `EVERMILL_CRASH_SABOTAGE` | passed on as `EVERMILL_SABOTAGE` | none |
#![allow(clippy::print_stdout, reason = "a campaign says what it has done")]

mod chance;
mod effects;
mod judge;
mod lists;
mod plan;
mod producer;
mod round;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use self::chance::Chance;
use self::plan::Turns;
use self::round::{Round, Tally};

/// Lives in a round: enough for every failpoint of a first start and some of the others.
const ROUND: usize = 50;
const THREADS: usize = 2;
/// From this many cycles on the failpoints that were missed get further rounds.
const ALL_AFTER: usize = 300;
/// A slow machine may miss this many in a short loop; from ten times as many cycles on, none.
const MISSED_MAX: usize = 3;
const FURTHER_ROUNDS: u64 = 6;

#[test]
fn no_kill_loses_an_event_or_counts_it_twice() {
    let number =
        |name, default| std::env::var(name).map_or(default, |text| text.parse().expect(name));
    let cycles = usize::try_from(number("EVERMILL_CRASH_CYCLES", 300)).expect("a number of cycles");
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let seed = number("EVERMILL_CRASH_SEED", clock);
    let sabotage = std::env::var("EVERMILL_CRASH_SABOTAGE").ok();
    println!("{cycles} cycles, seed {seed}");

    let mut chance = Chance::new(seed);
    let plans = Mutex::new(plan::rounds(&mut chance, cycles, ROUND));
    let turns = Turns::new(chance);
    let total = Mutex::new(Tally::default());
    let number = AtomicU64::new(0);
    let further = AtomicU64::new(if cycles < ALL_AFTER {
        FURTHER_ROUNDS
    } else {
        0
    });
    let missing = || total.lock().unwrap().hit.len() < plan::reachable().len();
    let next = || {
        let planned = plans.lock().unwrap().pop();
        planned.or_else(|| {
            let more = missing() && further.fetch_add(1, Ordering::Relaxed) < FURTHER_ROUNDS;
            more.then(|| plan::of_failpoints(ROUND / 2))
        })
    };
    let work = || {
        while let Some(plan) = next() {
            let number = number.fetch_add(1, Ordering::Relaxed);
            let tally = Round::new(number, &turns, sabotage.as_deref()).run(plan);
            println!("round {number}: {tally}");
            let mut total = total.lock().unwrap();
            total.add(tally);
            if !total.faults.is_empty() {
                plans.lock().unwrap().clear();
                further.store(FURTHER_ROUNDS, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(work))));

    let total = total.into_inner().unwrap();
    println!("in all: {total}");
    let missed: BTreeSet<_> = plan::reachable().difference(&total.hit).copied().collect();
    println!(
        "failpoints hit: {} of {}; missed: {missed:?}",
        total.hit.len(),
        plan::reachable().len()
    );
    assert!(
        total.faults.is_empty(),
        "seed {seed}:\n{}",
        total.faults.join("\n")
    );
    assert!(
        total.in_flight > 0,
        "no kill hit work in flight: the loop proves nothing"
    );
    let allowed = match cycles / ALL_AFTER {
        0 => usize::MAX,
        1..10 => MISSED_MAX,
        _ => 0,
    };
    assert!(
        missed.len() <= allowed,
        "seed {seed}: never reached: {missed:?}"
    );
}
