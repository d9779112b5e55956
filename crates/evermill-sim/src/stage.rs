//! Playing a scenario: first as it says, then under random schedules.

use std::sync::Arc;

use evermill_core::ParkReason;
use evermill_core::command::{Command, Counters, StateValue};
use evermill_core::dag::{Dag, Order};
use evermill_core::row::Table;

use crate::campaign::{guarded, play};
use crate::feature::{Coverage, Feature};
use crate::graph::Graph;
use crate::oracle::{Oracle, Scope, Settled, State};
use crate::prng::hash;
use crate::scenario::{Scenario, act, parse, task_of};
use crate::script::{Act, Resolve};
use crate::world::{RUN, World};

type Line<'a> = &'a [&'a str];

/// Checks one scenario file against machine and oracle.
///
/// # Errors
/// Names the line that does not hold, with the steps up to it; or the schedule that fails.
pub fn check(text: &str) -> Result<Coverage, String> {
    let scenario = parse(text)?;
    let mut coverage = check_ends(&scenario)?;
    if !scenario.steps.is_empty() {
        let mut trace = Vec::new();
        let directed = guarded(|| direct(&scenario, &mut coverage, &mut trace));
        directed.map_err(|e| format!("{e}\n{}\n{e}", trace.join("\n")))?;
    }
    for schedule in 0..scenario.schedules {
        let mut case = scenario.case.clone();
        case.world.seed = hash(&[schedule, 7]);
        case.world.slots = 1 + (schedule % 4) as u32;
        case.world.chunk = 1 + schedule % 5;
        let played = play(&case, true);
        coverage.add(&played.coverage);
        if let Some(flaw) = played.flaw {
            let (description, trace) = (case.describe(), played.trace.join("\n"));
            return Err(format!(
                "{flaw}\n{description}{trace}\nschedule {schedule}: {flaw}"
            ));
        }
    }
    Ok(coverage)
}

/// What the file says of the end is what the oracle says.
fn check_ends(scenario: &Scenario) -> Result<Coverage, String> {
    let case = &scenario.case;
    let graph = Graph::of(&case.spec);
    let mut oracle = Oracle::new(&case.spec, &graph, &case.script);
    let mut ended = std::collections::BTreeMap::new();
    let most = case.spec.sources[0]
        .batch
        .map_or(1, |batch| batch.max_events as usize);
    for activation in case.activations(&graph, |_| most, |_| false) {
        ended.insert(activation.act, oracle.run(&activation));
    }
    for (line, words) in &scenario.ends {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let fits = match words[0] {
            "end" => {
                let ended = ended.get(&act(words[1])?);
                check_end(scenario, ended.ok_or("no such activation")?, &words[2..])
            }
            "totals" => check_counters(oracle.totals, &words[1..]),
            _ => check_state(scenario, &oracle.state, &words[1..]),
        };
        fits.map_err(|e| format!("line {line}: the oracle disagrees: {e}"))?;
    }
    Ok(Coverage::default())
}

fn check_end(
    scenario: &Scenario,
    ended: &crate::oracle::Ended,
    words: Line<'_>,
) -> Result<(), String> {
    for word in words {
        let Some((name, expected)) = word.split_once('=') else {
            let is = match ended.settled {
                Settled::Done => "done",
                Settled::Skipped => "skipped",
                Settled::Parked(true) => "blocked",
                Settled::Parked(false) => "parked",
                Settled::Dropped => "dropped",
                Settled::Stopped => "stopped",
            };
            if is != *word {
                return Err(format!("settled {is}"));
            }
            continue;
        };
        let task = task_of(&scenario.case.spec.tasks, name)?;
        let is = match ended.states[usize::from(task)] {
            None => "absent",
            Some(State::Success) => "success",
            Some(State::Failed) => "failed",
            Some(State::Skipped) => "skipped",
            Some(State::UpstreamFailed) => "upstream_failed",
        };
        let (expected, tries) = expected.split_once('#').unwrap_or((expected, ""));
        if is != expected {
            return Err(format!("{name} is {is}"));
        }
        let took = ended
            .finals
            .get(&(task, -1))
            .map_or(0, |end| end.tries)
            .to_string();
        if !tries.is_empty() && took != tries {
            return Err(format!("{name} took {took} tries"));
        }
    }
    Ok(())
}

fn check_counters(counters: Counters, words: Line<'_>) -> Result<(), String> {
    for word in words {
        let (name, expected) = word.split_once('=').ok_or("expected NAME=NUMBER")?;
        let is = match name {
            "seen" => counters.seen,
            "done" => counters.done,
            "skipped" => counters.skipped,
            "parked" => counters.parked,
            "dropped" => counters.dropped,
            "in_flight" => counters.in_flight(),
            _ => return Err(format!("no counter '{name}'")),
        };
        if is.to_string() != expected {
            return Err(format!("{name} is {is}"));
        }
    }
    Ok(())
}

/// `state LANE[/KEY] TASK|- NAME=VALUE`
fn check_state(
    scenario: &Scenario,
    state: &std::collections::BTreeMap<Scope, evermill_core::command::ScopeState>,
    words: Line<'_>,
) -> Result<(), String> {
    let [scope, task, value] = words else {
        return Err("expected: LANE TASK NAME=VALUE".into());
    };
    let task = task_of(&scenario.case.spec.tasks, task).ok();
    let (lane, key) = scope.split_once('/').unwrap_or((scope, "0"));
    let lane = lane.parse().map_err(|_| "no lane number")?;
    let key = key.parse().map_err(|_| "no key number")?;
    let scope = match scenario.case.spec.order {
        Order::None => Scope::Run,
        Order::Serial => Scope::Lane(lane, None),
        Order::Partition => Scope::Lane(lane, task),
        Order::Key => Scope::Key(lane, key, task.unwrap_or_default()),
    };
    let (name, expected) = value.split_once('=').ok_or("expected NAME=VALUE")?;
    let found = state
        .get(&scope)
        .and_then(|values| values.get(name.as_bytes()));
    let is = match found {
        None => "none".into(),
        Some(StateValue::Int(int)) => int.to_string(),
        Some(StateValue::Blob(blob)) => String::from_utf8_lossy(blob).into_owned(),
        Some(StateValue::Set(set)) => {
            let items: Vec<_> = set.iter().map(|i| String::from_utf8_lossy(i)).collect();
            items.join("+")
        }
    };
    if is == expected {
        Ok(())
    } else {
        Err(format!("{name} is {is}"))
    }
}

/// Plays the written steps, then to the end.
fn direct(
    scenario: &Scenario,
    coverage: &mut Coverage,
    trace: &mut Vec<String>,
) -> Result<(), String> {
    let mut case = scenario.case.clone();
    // What goes wrong is written down.
    case.features = case
        .features
        .without(Feature::Crash)
        .without(Feature::CleanStop);
    case.features = case
        .features
        .without(Feature::Death)
        .without(Feature::Stale);
    let graph = Graph::of(&case.spec);
    let dag = Dag::compile(case.spec.clone()).map_err(|faults| faults[0].to_string())?;
    let mut world = World::new(&case, &graph, Arc::new(dag), true)?;
    world.directed = true;
    let mut result = Ok(());
    for (line, words) in &scenario.steps {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        world.steps = *line as u64;
        result = if words[0] == "expect" {
            world.expect(&words[1..])
        } else {
            world.perform_step(&words)
        }
        .map_err(|e| format!("line {line}: {e}"));
        if result.is_err() {
            break;
        }
    }
    world.directed = false;
    let result = result
        .and_then(|()| world.play())
        .and_then(|()| world.conclude());
    coverage.add(&world.coverage);
    *trace = world.trace.take().unwrap_or_default();
    result
}

impl World<'_> {
    fn perform_step(&mut self, words: Line<'_>) -> Result<(), String> {
        let count = |at: usize| {
            words
                .get(at)
                .map_or(Ok(usize::MAX), |w| w.parse::<usize>())
                .map_err(|e| e.to_string())
        };
        match words[0] {
            "open" | "flush" => self.flush(),
            "ingest" => self.ingest_some(count(1)?, count(2)?.min(10_000)),
            "caught_up" => {
                let lane = self.readers[count(1)?].lane.ok_or("the lane is not open")?;
                self.apply(Command::CaughtUp { lane })
            }
            "seal" => self.seal(),
            "commit" => self.commit(),
            "run" => self.each_of(words[1], |world, at| world.run_calls(at, count(2)?)),
            "report" => self.each_of(words[1], |world, at| world.report(at, count(2)?)),
            "finish" => self.each_of(words[1], World::finish),
            "work" => self
                .each_of(words.get(1).copied().unwrap_or("*"), |world, at| {
                    world.run_calls(at, usize::MAX)
                })
                .and_then(|()| {
                    self.each_of(words.get(1).copied().unwrap_or("*"), |world, at| {
                        world.report(at, usize::MAX)?;
                        world.finish(at)
                    })
                }),
            "rest" => self.each_of(words[1], World::return_rest),
            "die" => self.each_of(words[1], |world, at| {
                let started = world.workers[at].upcoming().first().copied();
                world.report(at, usize::MAX)?;
                world.die(at, started, true)
            }),
            "crash" if words.get(1) == Some(&"after") => self.crash_with(u64::MAX),
            "crash" => self.crash_with(0),
            "stop" => self.clean_stop(),
            "stale" => self.stale(),
            "late" => self.late(),
            "signal" => self.signal(words.get(1).map(|word| act(word)).transpose()?),
            "swap" => self.swap(),
            "replay" => self.replay(count(1)?),
            "hold_replay" => self.hold_replay(),
            "reset" => self.reset(count(1)?),
            "wait" => {
                self.now += count(1)? as u64;
                self.apply(Command::Timer)
            }
            "timer" => self.advance(),
            "pause" | "resume" => self.toggle_pause(),
            "capacity" => self.apply(Command::Capacity {
                slots: count(1)? as u32,
            }),
            "redrive" => self.resolve_act(act(words[1])?, Resolve::Redrive),
            "discard" => self.resolve_act(act(words[1])?, Resolve::Discard),
            "settle" => self.settle(),
            other => Err(format!("unknown step '{other}'")),
        }
    }

    /// The oldest worker reports again, under the fence it had.
    fn late(&mut self) -> Result<(), String> {
        let running = self.past.first().ok_or("no worker is gone")?;
        let (dispatch, fence) = (running.id, running.fence);
        let outcome = evermill_core::command::Outcome::Success;
        let runs = vec![evermill_core::command::OutcomeRun {
            first: 0,
            count: 1,
            outcome,
        }];
        self.apply(Command::Outcomes {
            dispatch,
            fence,
            runs,
        })
    }

    fn flush(&mut self) -> Result<(), String> {
        while self.open.dirty || !self.queue.is_empty() {
            if self.open.dirty {
                self.seal()?;
            }
            while !self.queue.is_empty() {
                self.commit()?;
            }
        }
        Ok(())
    }

    /// Does something with every dispatch of a task that is out now; newer ones wait.
    fn each_of(
        &mut self,
        task: &str,
        mut with: impl FnMut(&mut Self, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        let tasks = &self.case.spec.tasks;
        let task = if task == "*" {
            None
        } else {
            Some(task_of(tasks, task)?)
        };
        let out = self
            .workers
            .iter()
            .filter(|r| task.is_none_or(|t| r.task == t));
        let ids: Vec<_> = out.map(|r| r.id).collect();
        if ids.is_empty() {
            return Err("nothing of it is out".into());
        }
        for id in ids {
            if let Some(at) = self.workers.iter().position(|r| r.id == id) {
                with(self, at)?;
            }
        }
        Ok(())
    }

    /// Runs calls of one worker; one that dies takes its dispatch with it.
    fn run_calls(&mut self, at: usize, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let upcoming = self.workers[at].upcoming();
            if upcoming.is_empty() {
                break;
            }
            if let Some(killer) = self.call(at, &upcoming)? {
                self.report(at, usize::MAX)?;
                return self.die(at, Some(killer), false);
            }
        }
        Ok(())
    }

    fn resolve_act(&mut self, act: Act, resolve: Resolve) -> Result<(), String> {
        let found: Vec<_> = self.machine.parked(RUN).collect();
        for view in found {
            if self.act_of(view.activation)? == act {
                let blocked = view.reason == ParkReason::Blocked;
                let round = self.live.entries.get(&act).map_or(0, |e| e.round);
                self.script.resolves.insert((act, round), resolve);
                return self.resolve_one(view.activation, act, blocked, resolve);
            }
        }
        Err(format!("{act} is not parked"))
    }

    /// The plainest way to quiescence: read, commit, work, wait.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..10_000 {
            self.flush()?;
            let mut busy = false;
            for at in 0..self.readers.len() {
                if self.has_unread(at) {
                    self.ingest_some(at, 1_000)?;
                    busy = true;
                }
            }
            if !self.workers.is_empty() {
                self.perform_step(&["work"])?;
                busy = true;
            }
            if !busy && self.machine.next_timer().is_some() {
                self.advance()?;
                busy = true;
            }
            if !busy && !self.open.dirty {
                return Ok(());
            }
        }
        Err("it never settles".into())
    }

    fn expect(&mut self, words: Line<'_>) -> Result<(), String> {
        let tasks = &self.case.spec.tasks;
        let acts = |words: Line<'_>| {
            words
                .iter()
                .filter(|w| **w != "none")
                .map(|w| act(w))
                .collect::<Result<Vec<_>, _>>()
        };
        let equal = |is: String, expected: String| {
            if is == expected {
                Ok(())
            } else {
                Err(format!("it is {is}, not {expected}"))
            }
        };
        match words {
            ["out", task, expected @ ..] => {
                let task = task_of(tasks, task)?;
                let of_task = self.workers.iter().filter(|r| r.task == task);
                let out: Vec<Act> = of_task
                    .flat_map(|r| r.left().into_iter().map(|at| r.members[at].act))
                    .collect();
                let (mut out, mut expected) = (out, acts(expected)?);
                if self.case.spec.order == Order::None {
                    // Retries have no place in the order.
                    out.sort_unstable();
                    expected.sort_unstable();
                }
                equal(format!("{out:?}"), format!("{expected:?}"))
            }
            ["dispatches", task, expected] => {
                let task = task_of(tasks, task)?;
                let out = self.workers.iter().filter(|r| r.task == task).count();
                equal(out.to_string(), (*expected).to_owned())
            }
            ["started", task, expected @ ..] => {
                let task = task_of(tasks, task)?;
                let of_task = self.started.iter().filter(|(t, ..)| *t == task);
                let started: Vec<Act> = of_task.map(|(_, act, _)| *act).collect();
                equal(format!("{started:?}"), format!("{:?}", acts(expected)?))
            }
            ["low", lane, expected] => {
                let reader = lane
                    .parse::<usize>()
                    .ok()
                    .and_then(|at| self.readers.get(at));
                equal(
                    reader.ok_or("no such lane")?.low.to_string(),
                    (*expected).to_owned(),
                )
            }
            ["rows", table, expected] => {
                let found = Table::ALL.into_iter().find(|t| t.name() == *table);
                let rows = self.store.keys(found.ok_or("no such table")?).count();
                equal(rows.to_string(), (*expected).to_owned())
            }
            ["parked", who, expected] => {
                let who = act(who)?;
                let found = self
                    .machine
                    .parked(RUN)
                    .find(|p| self.act_of(p.activation) == Ok(who));
                let is = found.map_or("none".to_owned(), |p| format!("{:?}", p.reason));
                equal(is.to_lowercase(), expected.replace('_', ""))
            }
            ["waiting", expected] => {
                let waiting = self.machine.run(RUN).map_or(0, |run| run.waiting);
                equal(waiting.to_string(), (*expected).to_owned())
            }
            ["timer", expected] => {
                let due = self
                    .machine
                    .next_timer()
                    .map(|due| due.saturating_sub(self.now));
                equal(
                    due.map_or("none".into(), |d| d.to_string()),
                    (*expected).to_owned(),
                )
            }
            ["refused", expected] => {
                equal(self.machine.refused().to_string(), (*expected).to_owned())
            }
            ["missed", expected] => {
                let missed = self.machine.run(RUN).map_or(0, |run| run.deadlines_missed);
                equal(missed.to_string(), (*expected).to_owned())
            }
            ["runs", task, who, expected] => {
                let (task, who) = (task_of(tasks, task)?, act(who)?);
                let runs = self
                    .started
                    .iter()
                    .filter(|(t, act, _)| (*t, *act) == (task, who));
                equal(runs.count().to_string(), (*expected).to_owned())
            }
            ["failures", task, who, expected] => {
                let failures = self.durable.failures(act(who)?, task_of(tasks, task)?, -1);
                equal(failures.to_string(), (*expected).to_owned())
            }
            ["counters", rest @ ..] => check_counters(self.counters()?, rest),
            ["run", expected] => {
                let state = self.machine.run(RUN).map(|run| format!("{:?}", run.state));
                equal(
                    state.unwrap_or_default().to_lowercase(),
                    (*expected).to_owned(),
                )
            }
            _ => Err(format!("unknown expectation '{}'", words.join(" "))),
        }
    }
}
