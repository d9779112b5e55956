//! Many records at a time, for sinks that send each by itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_contract::sink::{Record, SinkError};

type Answer = Result<(), SinkError>;

/// How one try of a delivery ended.
pub(crate) enum Attempt {
    /// With this.
    Over(Answer),
    /// The place is away, for this reason: it is tried again within the time.
    Again(String),
}

/// Tries until there is an answer, or until `end`. Between two tries it waits: first `pause`, then twice as
/// long each time, up to `pause_max`. A try is told how long it may take.
pub(crate) fn until(
    end: Instant,
    pause: Duration,
    pause_max: Duration,
    mut attempt: impl FnMut(Duration) -> Attempt,
) -> Answer {
    let mut pause = pause;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let why = "there was no time left to send it".to_owned();
            return Err(SinkError::MayPass(why));
        }
        let why = match attempt(left) {
            Attempt::Over(answer) => return answer,
            Attempt::Again(why) => why,
        };
        if Instant::now() + pause >= end {
            return Err(SinkError::MayPass(why));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(pause_max);
    }
}

/// Sends records side by side, at most `at_once` at a time, those of one key one after the other: an
/// answer for each, in order.
pub(crate) fn send(
    records: &[Record],
    at_once: usize,
    deliver: impl Fn(&Record) -> Answer + Sync,
) -> Vec<Answer> {
    if let [record] = records {
        return vec![deliver(record)];
    }
    let mut answers: Vec<Option<Answer>> = vec![None; records.len()];
    let in_turn = |line: Vec<usize>| {
        let each = line.into_iter().map(|at| (at, deliver(&records[at])));
        each.collect()
    };
    for (at, answer) in share(lines(records), at_once, in_turn) {
        answers[at] = Some(answer);
    }
    let none = || Err(SinkError::MayPass("it was not sent".to_owned()));
    answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(none))
        .collect()
}

/// Has each part done by one of at most `at_once` threads, this one among them: all answers, in no order. A
/// part whose thread panics has none.
pub(crate) fn share<T: Send, A: Send>(
    parts: Vec<T>,
    at_once: usize,
    work: impl Fn(T) -> Vec<A> + Sync,
) -> Vec<A> {
    let threads = parts.len().min(at_once);
    let rest = Mutex::new(parts.into_iter());
    let work = || {
        let mut answers = Vec::new();
        loop {
            let next = rest.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(part) = next else { return answers };
            answers.extend(work(part));
        }
    };
    thread::scope(|scope| {
        let more: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut answers = work();
        for thread in more {
            answers.extend(thread.join().unwrap_or_default());
        }
        answers
    })
}

/// The places of records that wait for each other, in their order.
fn lines(records: &[Record]) -> Vec<Vec<usize>> {
    let mut lines: Vec<Vec<usize>> = Vec::new();
    let mut of_key: HashMap<&Bytes, usize> = HashMap::new();
    for (at, record) in records.iter().enumerate() {
        match &record.key {
            None => lines.push(vec![at]),
            Some(key) => {
                let line = *of_key.entry(key).or_insert(lines.len());
                if line == lines.len() {
                    lines.push(Vec::new());
                }
                lines[line].push(at);
            }
        }
    }
    lines
}
