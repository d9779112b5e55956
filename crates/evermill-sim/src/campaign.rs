//! Playing cases: one, or very many.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use evermill_core::dag::Dag;

use crate::case::Case;
use crate::feature::{Coverage, Features};
use crate::generate::generate;
use crate::graph::Graph;
use crate::world::World;

/// A case that was played.
#[derive(Debug)]
pub struct Played {
    /// The broken promise, if one was.
    pub flaw: Option<String>,
    /// What was exercised.
    pub coverage: Coverage,
    /// Every step, if asked for.
    pub trace: Vec<String>,
    /// Steps taken.
    pub steps: u64,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of the machine become flaws; they need no backtrace on the terminal.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let of_simulator = PANIC.with(|slot| slot.borrow().is_some());
            if of_simulator {
                PANIC.with(|slot| *slot.borrow_mut() = Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

/// A panic of the machine is a broken promise like any other.
pub(crate) fn guarded(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    quiet_panics();
    PANIC.with(|slot| *slot.borrow_mut() = Some(String::new()));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    let panicked = PANIC
        .with(|slot| slot.borrow_mut().take())
        .unwrap_or_default();
    result.unwrap_or_else(|_| Err(format!("panic: {panicked}")))
}

/// Plays one case from start to comparison.
#[must_use]
pub fn play(case: &Case, trace: bool) -> Played {
    let graph = Graph::of(&case.spec);
    let mut played = Played {
        flaw: None,
        coverage: Coverage::default(),
        trace: Vec::new(),
        steps: 0,
    };
    let dag = match Dag::compile(case.spec.clone()) {
        Ok(dag) => Arc::new(dag),
        Err(faults) => {
            played.flaw = Some(format!("a sound DAG was refused: {}", faults[0]));
            return played;
        }
    };
    let mut world = None;
    let result = guarded(|| {
        let world = world.insert(World::new(case, &graph, dag, trace)?);
        world.play()?;
        world.conclude()
    });
    played.flaw = result.err();
    if let Some(world) = world {
        played.coverage = world.coverage;
        played.trace = world.trace.unwrap_or_default();
        played.steps = world.steps;
    }
    played
}

/// What a campaign found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Cases played.
    pub cases: u64,
    /// Steps over all of them.
    pub steps: u64,
    /// What was exercised.
    pub coverage: Coverage,
    /// Seeds that failed, with the broken promise.
    pub flaws: Vec<(u64, String)>,
}

/// Plays `cases` cases from `seed` on over `threads` threads; ends early after `flaws_max` flaws.
#[must_use]
pub fn run(seed: u64, cases: u64, threads: u64, features: Features, flaws_max: usize) -> Findings {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Findings::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut mine = Findings::default();
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= cases {
                        break;
                    }
                    let number = seed.wrapping_add(at);
                    let played = play(&generate(number, features), false);
                    mine.cases += 1;
                    mine.steps += played.steps;
                    mine.coverage.add(&played.coverage);
                    if let Some(flaw) = played.flaw {
                        mine.flaws.push((number, flaw));
                        if mine.flaws.len() >= flaws_max {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                total.cases += mine.cases;
                total.steps += mine.steps;
                total.coverage.add(&mine.coverage);
                total.flaws.append(&mut mine.flaws);
            });
        }
    });
    let mut findings = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    findings.flaws.sort();
    findings
}
