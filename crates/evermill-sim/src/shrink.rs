//! Making a failing case small enough to read.

use evermill_core::dag::{Mapped, Node, OnFailure, OnInterrupt, Order, TaskKind, TaskSpec};

use crate::campaign::play;
use crate::case::Case;
use crate::feature::Feature;
use crate::generate::run_loop;
use crate::prng::hash;

/// Schedules tried for each smaller case: a smaller case takes other steps.
const SCHEDULES: u64 = 25;

/// The smallest case found that still breaks the same promise, and how it does.
#[must_use]
pub fn shrink(case: &Case, flaw: &str, mut budget: u32) -> (Case, String) {
    let (mut best, mut best_flaw) = (case.clone(), flaw.to_owned());
    let kind = kind(flaw);
    loop {
        let mut smaller = None;
        for candidate in candidates(&best) {
            for schedule in 0..SCHEDULES {
                if budget == 0 {
                    return (best, best_flaw);
                }
                budget -= 1;
                let mut candidate = candidate.clone();
                if schedule > 0 {
                    candidate.world.seed = hash(&[best.world.seed, schedule]);
                    candidate.script.seed = hash(&[best.script.seed, schedule / 5]);
                    if candidate.is_loop() {
                        run_loop(&mut candidate);
                    }
                }
                if let Some(flaw) = play(&candidate, false).flaw
                    && self::kind(&flaw) == kind
                {
                    smaller = Some((candidate, flaw));
                    break;
                }
            }
            if smaller.is_some() {
                break;
            }
        }
        match smaller {
            Some(found) => (best, best_flaw) = found,
            None => return (best, best_flaw),
        }
    }
}

/// The promise without its numbers.
#[must_use]
pub fn kind(flaw: &str) -> String {
    let words = flaw
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|w| w.len() > 2);
    words.take(7).collect::<Vec<_>>().join(" ")
}

fn candidates(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Case) -> bool| {
        let mut candidate = case.clone();
        if change(&mut candidate) {
            if candidate.is_loop() {
                run_loop(&mut candidate);
            }
            all.push(candidate);
        }
    };
    for feature in [
        Feature::Crash,
        Feature::CleanStop,
        Feature::Death,
        Feature::Stale,
        Feature::Pause,
        Feature::Reread,
    ] {
        with(&|c| {
            let had = c.features.has(feature);
            c.features = c.features.without(feature);
            had
        });
    }
    with(&|c| std::mem::replace(&mut c.world.lag, 1) > 1);
    with(&|c| std::mem::replace(&mut c.world.crashes, 1) > 1);
    with(&|c| std::mem::replace(&mut c.world.slots, 1) > 1);
    with(&|c| std::mem::replace(&mut c.script.fail, 0) > 0);
    with(&|c| std::mem::replace(&mut c.script.skip, 0) > 0);
    with(&|c| std::mem::replace(&mut c.script.die, 0) > 0);
    with(&|c| std::mem::replace(&mut c.script.result, 0) > 0);
    with(&|c| std::mem::replace(&mut c.script.redrive, 0) > 0);
    with(&|c| c.spec.deadline_ms.take().is_some());
    with(&|c| c.spec.max_active_runs.take().is_some());
    with(&|c| {
        let none = c
            .spec
            .tasks
            .iter()
            .all(|t| t.on_failure != OnFailure::Block);
        none && std::mem::replace(&mut c.spec.order, Order::None) != Order::None
    });
    if case.is_loop() {
        // Its events and its last task follow from the rest.
        return all;
    }
    let mut with = |change: &dyn Fn(&mut Case) -> bool| {
        let mut candidate = case.clone();
        if change(&mut candidate) {
            all.push(candidate);
        }
    };
    for lane in 0..case.lanes.len() {
        with(&|c| {
            let others = c
                .lanes
                .iter()
                .filter(|l| l.source == c.lanes[lane].source)
                .count();
            if others > 1 {
                c.lanes.remove(lane);
            }
            others > 1
        });
        let count = case.lanes[lane].events.len();
        // Joined events need their partners.
        if count > 1 && case.spec.sources.len() == 1 {
            with(&|c| c.lanes[lane].events.drain(count / 2..).count() > 0);
            with(&|c| c.lanes[lane].events.drain(..count / 2).count() > 0);
            for event in 0..count.min(12) {
                with(&|c| c.lanes[lane].events.drain(event..=event).count() > 0);
            }
        }
    }
    for task in 0..case.spec.tasks.len() {
        if case.spec.tasks.len() > 1 {
            with(&|c| remove_task(c, task as u16));
        }
        for edge in 0..case.spec.tasks[task].upstream.len() {
            with(&|c| remove_edge(&mut c.spec.tasks[task], edge));
        }
        for simpler in simpler(&case.spec.tasks[task]) {
            with(&|c| {
                c.spec.tasks[task] = simpler.clone();
                true
            });
        }
    }
    all
}

/// The task with one of its options at the default.
fn simpler(task: &TaskSpec) -> Vec<TaskSpec> {
    let plain = TaskSpec::new(task.id.clone(), task.upstream.clone());
    let mut all = vec![
        plain.clone(),
        TaskSpec {
            kind: TaskKind::Call,
            ..task.clone()
        },
        TaskSpec {
            rule: plain.rule,
            ..task.clone()
        },
        TaskSpec {
            retries: 0,
            ..task.clone()
        },
        TaskSpec {
            backoff: plain.backoff,
            ..task.clone()
        },
        TaskSpec {
            on_failure: OnFailure::Park,
            ..task.clone()
        },
        TaskSpec {
            on_interrupt: OnInterrupt::Rerun,
            ..task.clone()
        },
        TaskSpec {
            batch: None,
            ..task.clone()
        },
        TaskSpec {
            concurrency: None,
            parallel: 1,
            deadline_ms: None,
            pool: None,
            priority: 0,
            ..task.clone()
        },
        TaskSpec {
            writes_state: false,
            reads_state: false,
            ..task.clone()
        },
        TaskSpec {
            reads_state: false,
            ..task.clone()
        },
        TaskSpec {
            reads_committed: false,
            writes_state: false,
            reads_state: false,
            ..task.clone()
        },
        TaskSpec {
            setup: false,
            teardown: false,
            ..task.clone()
        },
        TaskSpec {
            mapped: None,
            ..task.clone()
        },
    ];
    all.retain(|simpler| simpler != task);
    all
}

fn remove_edge(task: &mut TaskSpec, edge: usize) -> bool {
    let removed = task.upstream.remove(edge);
    let over = matches!((task.mapped, removed), (Some(Mapped::Over(a)), Node::Task(b)) if a == b);
    if over {
        task.mapped = None;
    }
    if task.upstream.is_empty() {
        task.upstream.push(Node::Source(0));
    }
    removed != Node::Source(0) || task.upstream.len() > 1
}

fn remove_task(case: &mut Case, gone: u16) -> bool {
    let removed = case.spec.tasks.remove(usize::from(gone));
    let shift = |task: u16| if task > gone { task - 1 } else { task };
    for task in &mut case.spec.tasks {
        if task.upstream.contains(&Node::Task(gone)) {
            for up in &removed.upstream {
                if !task.upstream.contains(up) {
                    task.upstream.push(*up);
                }
            }
        }
        task.upstream.retain(|up| *up != Node::Task(gone));
        for up in &mut task.upstream {
            if let Node::Task(up) = up {
                *up = shift(*up);
            }
        }
        task.mapped = match task.mapped {
            Some(Mapped::Over(up)) if up == gone => None,
            Some(Mapped::Over(up)) => Some(Mapped::Over(shift(up))),
            other => other,
        };
        if task.upstream.is_empty() {
            task.upstream.push(Node::Source(0));
        }
    }
    true
}
