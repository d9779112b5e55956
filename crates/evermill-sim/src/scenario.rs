//! Scenario files: one rule each, as text. `README.md` beside them has the format.
//!
//! A file is played twice: step by step as it says, then under many random schedules; both times
//! everything is compared with the oracle, as in the campaign.

use std::collections::BTreeMap;

use bytes::Bytes;
use evermill_core::command::{Event, Limited, StateOp, Success};
use evermill_core::dag::{
    Backoff, BatchSpec, DagSpec, JoinSpec, LoopSpec, Mapped, Node, OnFailure, OnInterrupt, Order,
    Poke, SourceSpec, TaskKind, TaskSpec,
};
use evermill_core::rule::TriggerRule;

use crate::case::{Case, LaneCase, Rough};
use crate::feature::{Feature, Features};
use crate::generate::DAWN_MS;
use crate::script::{Act, Answer, Resolve, Script};

/// A scenario, read.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// DAG, events, answers.
    pub case: Case,
    /// What to do step by step, with line numbers.
    pub steps: Vec<(usize, Vec<String>)>,
    /// What must hold at the end, with line numbers.
    pub ends: Vec<(usize, Vec<String>)>,
    /// Random schedules to play besides.
    pub schedules: u64,
}

type Words<'a> = &'a [&'a str];

/// Reads a scenario.
///
/// # Errors
/// Names the line and what is wrong with it.
pub fn parse(text: &str) -> Result<Scenario, String> {
    let mut reading = Reading::default();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let spaced = line.replace([':', ','], " ").replace("->", " ");
        // Positions keep their colon: `0:7`.
        let words: Vec<&str> = if line.trim_start().starts_with("lane ") {
            spaced.split_whitespace().collect()
        } else {
            line.split_whitespace()
                .map(|w| w.trim_end_matches([':', ',']))
                .collect()
        };
        if words.is_empty() {
            continue;
        }
        reading
            .line(at + 1, &words)
            .map_err(|e| format!("line {}: {e}: {line}", at + 1))?;
    }
    reading.finish()
}

#[derive(Default)]
struct Reading {
    sources: Vec<SourceSpec>,
    /// Name of the task that ends the loop.
    until: Option<String>,
    tasks: Vec<TaskSpec>,
    order: Order,
    join: JoinSpec,
    lanes: Vec<LaneCase>,
    script: Script,
    answers: Vec<Vec<String>>,
    slots: Option<u32>,
    pools: BTreeMap<usize, u32>,
    rates: Vec<(Limited, u32, u64)>,
    swaps: u32,
    crashes: u32,
    deaths: u32,
    deadline_ms: Option<u64>,
    max_active_runs: Option<u32>,
    schedules: Option<u64>,
    steps: Vec<(usize, Vec<String>)>,
    ends: Vec<(usize, Vec<String>)>,
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|_| format!("'{word}' is not a number"))
}

fn bytes(word: &str) -> Bytes {
    Bytes::copy_from_slice(word.as_bytes())
}

/// Reads `LANE:POSITION`.
///
/// # Errors
/// It is not.
pub fn act(word: &str) -> Result<Act, String> {
    let (lane, rest) = word
        .split_once(':')
        .ok_or_else(|| format!("'{word}' is no LANE:POSITION"))?;
    let (position, child) = rest.split_once('/').unwrap_or((rest, "0"));
    Ok(Act {
        lane: number(lane)?,
        position: number(position)?,
        child: number(child)?,
    })
}

/// The task of this name.
///
/// # Errors
/// There is none.
pub fn task_of(tasks: &[TaskSpec], word: &str) -> Result<u16, String> {
    let found = tasks.iter().position(|t| t.id == word);
    found
        .map(|t| t as u16)
        .ok_or_else(|| format!("no task '{word}'"))
}

impl Reading {
    fn line(&mut self, at: usize, words: Words<'_>) -> Result<(), String> {
        let owned = || words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let rest = &words[1..];
        match words[0] {
            "order" => self.order = order(rest.first().copied().unwrap_or_default())?,
            "source" => self.source(rest)?,
            "lane" => self.lane(rest)?,
            "replay" => self.replay(rest)?,
            "reset" => self.reset(rest)?,
            "task" => self.task(rest)?,
            "answer" => self.answers.push(owned()[1..].to_vec()),
            "resolve" => self.resolve(rest)?,
            "results" => self.script.result = 100,
            "slots" => self.slots = Some(number(rest[0])?),
            "pool" => drop(self.pools.insert(number(rest[0])?, number(rest[1])?)),
            "swaps" => self.swaps = number(rest[0])?,
            "rate" | "rate_per_key" | "rate_of" => {
                let of = match words[0] {
                    "rate" => Limited::Task(task_of(&self.tasks, rest[0])?),
                    "rate_per_key" => Limited::Key(task_of(&self.tasks, rest[0])?),
                    _ => {
                        let source = self.sources.iter().position(|s| s.id == rest[0]);
                        Limited::Source(source.ok_or("rate_of which source?")? as u16)
                    }
                };
                self.rates.push((of, number(rest[1])?, number(rest[2])?));
            }
            "crashes" => self.crashes = number(rest[0])?,
            "deaths" => self.deaths = number(rest[0])?,
            "deadline" => self.deadline_ms = Some(number(rest[0])?),
            "active" => self.max_active_runs = Some(number(rest[0])?),
            "schedules" => self.schedules = Some(number(rest[0])?),
            "end" | "totals" | "state" => self.ends.push((at, owned())),
            "do" => self.steps.push((at, owned()[1..].to_vec())),
            "expect" => self.steps.push((at, owned())),
            other => return Err(format!("unknown word '{other}'")),
        }
        Ok(())
    }

    fn source(&mut self, words: Words<'_>) -> Result<(), String> {
        let mut source = SourceSpec::new(words[0]);
        for word in &words[1..] {
            if let Some(("join", how)) = word.split_once('=') {
                self.join.on_key = how == "key";
                continue;
            }
            let within = word
                .split_once('=')
                .filter(|(name, _)| name.starts_with("within"));
            if let Some((name, ms)) = within {
                self.join.within_ms = Some(number(ms)?);
                self.join.park_on_timeout = name == "within_park";
                continue;
            }
            if self.loop_option(&mut source, word)? {
                continue;
            }
            let batch = source.batch.get_or_insert(BatchSpec {
                max_events: 1,
                linger_ms: 0,
            });
            match word.split_once('=') {
                Some(("batch", n)) => batch.max_events = number(n)?,
                Some(("linger", n)) => batch.linger_ms = number(n)?,
                _ => return Err(format!("unknown option '{word}'")),
            }
        }
        self.sources.push(source);
        Ok(())
    }

    /// `loop=MS until=TASK failures=N`; the lane of such a source lists the laps it takes.
    fn loop_option(&mut self, source: &mut SourceSpec, word: &str) -> Result<bool, String> {
        let Some((name @ ("loop" | "until" | "failures"), value)) = word.split_once('=') else {
            return Ok(false);
        };
        let looped = source.looped.get_or_insert(LoopSpec {
            delay_ms: 0,
            max_consecutive_failures: None,
            until: None,
        });
        match name {
            "loop" => looped.delay_ms = number(value)?,
            "failures" => looped.max_consecutive_failures = Some(number(value)?),
            _ => self.until = Some(value.into()),
        }
        Ok(true)
    }

    /// `lane NAME of SOURCE from N: POSITION[/KEY] ...`
    fn lane(&mut self, words: Words<'_>) -> Result<(), String> {
        let [name, "of", source, "from", first, events @ ..] = words else {
            return Err("expected: lane NAME of SOURCE from N: POSITION[/KEY] ...".into());
        };
        let source = self.sources.iter().position(|s| s.id == *source);
        let source = source.ok_or("no such source")? as u16;
        let event = |word: &&str| {
            let (position, key) = word.split_once('/').unwrap_or((word, "0"));
            Ok::<_, String>(Event {
                position: number(position)?,
                key: number(key)?,
                arrived_ms: DAWN_MS,
                body: bytes(word),
            })
        };
        let events = events.iter().map(event).collect::<Result<_, _>>()?;
        self.lanes.push(LaneCase {
            source,
            name: (*name).into(),
            first: number(first)?,
            events,
            replay_until: None,
            fresh_keys: false,
            reset: false,
        });
        Ok(())
    }

    /// `replay LANE from FIRST to UNTIL [fresh_keys]`
    fn replay(&mut self, words: Words<'_>) -> Result<(), String> {
        let [lane, "from", first, "to", until, how @ ..] = words else {
            return Err("expected: replay LANE from POSITION to POSITION [fresh_keys]".into());
        };
        let (first, until) = (number(first)?, number::<u64>(until)?);
        let mut replay = self.numbered(lane)?.clone();
        replay.fresh_keys = how == ["fresh_keys"];
        replay
            .events
            .retain(|e| (first..until).contains(&e.position));
        replay.first = first;
        replay.replay_until = Some(until);
        self.lanes.push(replay);
        Ok(())
    }

    /// `reset LANE to POSITION`
    fn reset(&mut self, words: Words<'_>) -> Result<(), String> {
        let [lane, "to", to] = words else {
            return Err("expected: reset LANE to POSITION".into());
        };
        let mut after = self.numbered(lane)?.clone();
        after.first = number(to)?;
        after.events.retain(|event| event.position >= after.first);
        after.reset = true;
        self.lanes.push(after);
        Ok(())
    }

    fn numbered(&self, number_of_it: &str) -> Result<&LaneCase, String> {
        let lane = self.lanes.get(number::<usize>(number_of_it)?);
        lane.ok_or_else(|| "no such lane".into())
    }

    /// `task NAME < UP UP: OPTION ...`
    fn task(&mut self, words: Words<'_>) -> Result<(), String> {
        let mut task = TaskSpec::new(words[0], Vec::new());
        for word in &words[1..] {
            if *word == "<" {
                continue;
            }
            if let Some(source) = self.sources.iter().position(|s| s.id == *word) {
                task.upstream.push(Node::Source(source as u16));
            } else if let Ok(up) = task_of(&self.tasks, word) {
                task.upstream.push(Node::Task(up));
            } else {
                self.option(&mut task, word)?;
            }
        }
        self.tasks.push(task);
        Ok(())
    }

    fn option(&self, task: &mut TaskSpec, word: &str) -> Result<(), String> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "branch" => task.kind = TaskKind::Branch,
            "short" => {
                task.kind = TaskKind::ShortCircuit {
                    all_downstream: true,
                }
            }
            "short_direct" => {
                task.kind = TaskKind::ShortCircuit {
                    all_downstream: false,
                }
            }
            "noop" => task.kind = TaskKind::Noop,
            "delay" => task.kind = TaskKind::Delay { ms: number(value)? },
            "signal" => task.kind = TaskKind::Signal { name: value.into() },
            "rule" => {
                task.rule =
                    TriggerRule::parse(value).ok_or_else(|| format!("no rule '{value}'"))?;
            }
            "retries" => task.retries = number(value)?,
            "backoff" => {
                task.backoff = Backoff {
                    delay_ms: number(value)?,
                    ..task.backoff
                }
            }
            "exponential" => task.backoff.exponential = true,
            // `poke=INTERVAL/TIMEOUT` or `poke=INTERVAL`; `skips` says what becomes of one out of time.
            "poke" => {
                let (interval, timeout) = value.split_once('/').unwrap_or((value, ""));
                task.poke = Some(Poke {
                    wait: Backoff {
                        delay_ms: number(interval)?,
                        ..Backoff::default()
                    },
                    timeout_ms: match timeout {
                        "" => None,
                        timeout => Some(number(timeout)?),
                    },
                    skips: false,
                });
            }
            "skips" => task.poke.as_mut().ok_or("skips of no poke=")?.skips = true,
            "on_failure" => {
                task.on_failure = match value {
                    "park" => OnFailure::Park,
                    "drop" => OnFailure::Drop,
                    "block" => OnFailure::Block,
                    "stop" => OnFailure::Stop,
                    _ => return Err(format!("no policy '{value}'")),
                };
            }
            "once" => task.on_interrupt = OnInterrupt::Fail,
            "reads" => task.reads_committed = true,
            "recalls" => task.reads_state = true,
            "state" => {
                task.writes_state = true;
                task.reads_committed |= self.order != Order::None;
            }
            "batch" => task.batch = Some(number(value)?),
            "concurrency" => task.concurrency = Some(number(value)?),
            "deadline" => task.deadline_ms = Some(number(value)?),
            "parallel" => task.parallel = number(value)?,
            "priority" => task.priority = number(value)?,
            "pool" => task.pool = Some(number(value)?),
            "setup" => task.setup = true,
            "teardown" => task.teardown = true,
            "map" => {
                task.mapped = Some(match task_of(&self.tasks, value) {
                    Ok(over) => Mapped::Over(over),
                    Err(_) => Mapped::Length(number(value)?),
                });
            }
            _ => return Err(format!("unknown node or option '{word}'")),
        }
        Ok(())
    }

    /// `resolve ACT round N redrive|discard`
    fn resolve(&mut self, words: Words<'_>) -> Result<(), String> {
        let [who, "round", round, what] = words else {
            return Err("expected: resolve ACT round N redrive|discard".into());
        };
        let what = match *what {
            "redrive" => Resolve::Redrive,
            "discard" => Resolve::Discard,
            other => return Err(format!("'{other}' is neither redrive nor discard")),
        };
        self.script
            .resolves
            .insert((act(who)?, number(round)?), what);
        Ok(())
    }

    /// `answer ACT|* TASK[INDEX] [try N] [round N] WORD ...`
    fn answers(&mut self) -> Result<(), String> {
        for words in std::mem::take(&mut self.answers) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let [who, name, rest @ ..] = &words[..] else {
                return Err("answer what?".into());
            };
            let (name, index) = match name.split_once('[') {
                Some((name, index)) => (name, number(index.trim_end_matches(']'))?),
                None => (*name, -1),
            };
            let task = task_of(&self.tasks, name)?;
            let (mut tries, mut round, mut rest) = (1, 0, rest);
            while let [word @ ("try" | "round"), value, more @ ..] = rest {
                *(if *word == "try" {
                    &mut tries
                } else {
                    &mut round
                }) = number(value)?;
                rest = more;
            }
            let answer = answer(&self.tasks, rest)?;
            let all = self.lanes.iter().enumerate().flat_map(|(lane, l)| {
                l.events.iter().map(move |e| Act {
                    lane: lane as u16,
                    position: e.position,
                    child: 0,
                })
            });
            let acts: Vec<Act> = if *who == "*" {
                all.collect()
            } else {
                vec![act(who)?]
            };
            for act in acts {
                self.script
                    .written
                    .insert((act, task, index, round, tries), answer.clone());
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Scenario, String> {
        self.answers()?;
        let until = self.until.as_deref();
        let until = until.map(|name| task_of(&self.tasks, name)).transpose()?;
        for looped in self.sources.iter_mut().filter_map(|s| s.looped.as_mut()) {
            looped.until = until;
        }
        if self.lanes.is_empty() || self.tasks.is_empty() {
            return Err("a scenario needs a source, a lane and a task".into());
        }
        let mut features = Features::NONE;
        for (on, feature) in [
            (self.crashes > 0, Feature::Crash),
            (self.crashes > 0, Feature::CleanStop),
            (self.crashes > 0, Feature::Stale),
            (self.deaths > 0, Feature::Death),
            (self.swaps > 0, Feature::Swap),
        ] {
            if on {
                features = features.with(feature);
            }
        }
        let pool_count = self.pools.keys().next_back().map_or(0, |last| last + 1);
        let case = Case {
            seed: 0,
            features,
            spec: DagSpec {
                id: "scenario".into(),
                version: "v1".into(),
                order: self.order,
                sources: self.sources,
                tasks: self.tasks,
                join: self.join,
                deadline_ms: self.deadline_ms,
                max_active_runs: self.max_active_runs,
                full_history: true,
            },
            lanes: self.lanes,
            script: self.script,
            world: Rough {
                seed: 1,
                slots: self.slots.unwrap_or(2),
                chunk: 100,
                crashes: self.crashes,
                clean_stops: self.crashes,
                deaths: self.deaths,
                lag: 2,
                crash_at: Default::default(),
                rates: self.rates,
                swaps: self.swaps,
                eager: [2; 8],
                pools: (0..pool_count)
                    .map(|p| self.pools.get(&p).copied().unwrap_or(1))
                    .collect(),
            },
        };
        let schedules = self.schedules.unwrap_or(40);
        Ok(Scenario {
            case,
            steps: self.steps,
            ends: self.ends,
            schedules,
        })
    }
}

const fn failed(retryable: bool, after_ms: u64) -> Answer {
    Answer::Failed {
        retryable,
        after_ms,
    }
}

fn order(word: &str) -> Result<Order, String> {
    Ok(match word {
        "none" => Order::None,
        "key" => Order::Key,
        "partition" => Order::Partition,
        "serial" => Order::Serial,
        _ => return Err(format!("no order '{word}'")),
    })
}

/// `fail | fail after MS | fatal | skip | die`, or what a success brings, word by word.
fn answer(tasks: &[TaskSpec], words: Words<'_>) -> Result<Answer, String> {
    let mut success = Success::default();
    let mut rest = words;
    loop {
        rest = match rest {
            [] => return Ok(Answer::Success(success)),
            ["fail"] => return Ok(failed(true, 0)),
            ["fail", "after", ms] => return Ok(failed(true, number(ms)?)),
            ["fatal"] => return Ok(failed(false, 0)),
            ["skip"] => return Ok(Answer::Skipped),
            ["not_yet"] => return Ok(Answer::NotYet),
            ["die"] => return Ok(Answer::Dies),
            ["ok", more @ ..] => more,
            ["yes", more @ ..] => {
                success.proceed = Some(true);
                more
            }
            ["no", more @ ..] => {
                success.proceed = Some(false);
                more
            }
            ["choose", chosen @ ..] => {
                let chosen = chosen.iter().map(|name| task_of(tasks, name));
                success.chosen = Some(chosen.collect::<Result<_, _>>()?);
                &[]
            }
            ["list", length, more @ ..] => {
                success.map_length = Some(number(length)?);
                more
            }
            ["result", text, more @ ..] => {
                success.result = Some(bytes(text));
                more
            }
            ["incr", name, by, more @ ..] => {
                success.state.push(StateOp::Incr(bytes(name), number(by)?));
                more
            }
            ["max", name, value, more @ ..] => {
                success
                    .state
                    .push(StateOp::Max(bytes(name), number(value)?));
                more
            }
            ["set", name, value, more @ ..] => {
                success.state.push(StateOp::Set(bytes(name), bytes(value)));
                more
            }
            ["add", name, value, more @ ..] => {
                success
                    .state
                    .push(StateOp::SetAdd(bytes(name), bytes(value)));
                more
            }
            [other, ..] => return Err(format!("unknown answer '{other}'")),
        };
    }
}
