//! Asks a source's gate about values, on the thread that has them.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_contract::source::{Arrival, EventBatch, Form, Gate, Unavailable, Verdict};

use crate::limits;

/// What a gate has said of the events of a batch, in their order.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// The values that took the place of others.
    new: Vec<u8>,
    of: Vec<Judgement>,
}

#[derive(Debug)]
enum Judgement {
    Passes,
    Becomes(Range<usize>),
    Rejected(String),
}

impl Judged {
    /// Judges the values of a batch from its first event on, and not all of them when new ones take much
    /// room. An event without a value passes.
    pub(crate) fn batch(gate: &dyn Gate, batch: &EventBatch) -> Result<Self, Unavailable> {
        let mut judged = Self::default();
        judged.of.reserve(batch.events.len());
        for event in batch.iter() {
            if judged.new.len() > limits::JUDGED_BYTES {
                break;
            }
            let start = judged.new.len();
            let verdict = match event.value() {
                None => Verdict::Passes,
                Some(value) => gate.judge(value, Form::Sent, &mut judged.new)?,
            };
            judged.of.push(match verdict {
                Verdict::Passes => Judgement::Passes,
                Verdict::Becomes => Judgement::Becomes(start..judged.new.len()),
                Verdict::Rejected(why) => Judgement::Rejected(why),
            });
        }
        Ok(judged)
    }

    /// Of one event that is rejected.
    pub(crate) fn rejected(why: &str) -> Self {
        Self {
            new: Vec::new(),
            of: vec![Judgement::Rejected(why.to_owned())],
        }
    }

    /// How many events were judged.
    pub(crate) fn events(&self) -> usize {
        self.of.len()
    }

    /// Bytes that are added to those of the batch, at most.
    pub(crate) fn bytes(&self) -> usize {
        let reasons = self.of.iter().map(|one| match one {
            Judgement::Rejected(why) => why.len(),
            Judgement::Passes | Judgement::Becomes(_) => 0,
        });
        self.new.len() + reasons.sum::<usize>()
    }

    /// The value of an event, and why no task is to read it.
    pub(crate) fn value<'v>(
        &'v self,
        event: usize,
        came: Option<&'v [u8]>,
    ) -> (Option<&'v [u8]>, Option<&'v [u8]>) {
        match &self.of[event] {
            Judgement::Passes => (came, None),
            Judgement::Becomes(range) => (Some(&self.new[range.clone()]), None),
            Judgement::Rejected(why) => (came, Some(why.as_bytes())),
        }
    }
}

/// Judges what arrived, all or nothing; one that is rejected keeps its value and the reason.
pub(crate) fn arrivals(gate: &dyn Gate, arrivals: &mut [Arrival]) -> Result<(), Unavailable> {
    let mut judged = Vec::with_capacity(arrivals.len());
    for arrival in &*arrivals {
        let mut new = Vec::new();
        let verdict = match &arrival.value {
            None => Verdict::Passes,
            Some(value) => gate.judge(value, Form::Sent, &mut new)?,
        };
        judged.push((verdict, new));
    }
    for (arrival, (verdict, new)) in arrivals.iter_mut().zip(judged) {
        match verdict {
            Verdict::Passes => {}
            Verdict::Becomes => arrival.value = Some(Bytes::from(new)),
            Verdict::Rejected(why) => arrival.rejected = Some(why),
        }
    }
    Ok(())
}

/// The gate of a source on its thread, and whether whoever it asks is away.
#[derive(Default)]
pub(crate) struct Keeper {
    gate: Option<Arc<dyn Gate>>,
    away: Option<Away>,
}

struct Away {
    until: Instant,
    wait: Duration,
}

/// What came of asking a gate.
pub(crate) enum Asked<T> {
    Judged(T),
    /// Whoever it asks is away; the sentence is there when that is news.
    Away(Option<String>),
}

impl Keeper {
    pub(crate) const fn new(gate: Option<Arc<dyn Gate>>) -> Self {
        Self { gate, away: None }
    }

    pub(crate) fn gate(&self) -> Option<Arc<dyn Gate>> {
        self.gate.clone()
    }

    /// How long nothing can be judged.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let away = self.away.as_ref()?;
        Some(away.until.saturating_duration_since(Instant::now()))
    }

    pub(crate) const fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Judges by the gate; whether it is back since is the second part.
    pub(crate) fn ask<T>(
        &mut self,
        judge: impl FnOnce(&dyn Gate) -> Result<T, Unavailable>,
    ) -> Option<(Asked<T>, bool)> {
        let gate = self.gate.as_deref()?;
        if self.wait().is_some_and(|wait| !wait.is_zero()) {
            return Some((Asked::Away(None), false));
        }
        Some(match judge(gate) {
            Ok(judged) => (Asked::Judged(judged), self.away.take().is_some()),
            Err(Unavailable(reason)) => {
                let before = self.away.take();
                let wait = before
                    .as_ref()
                    .map_or(limits::JUDGE_RETRY_FIRST, |away| away.wait * 2)
                    .min(limits::JUDGE_RETRY_MAX);
                let until = Instant::now() + wait;
                self.away = Some(Away { until, wait });
                (Asked::Away(before.is_none().then_some(reason)), false)
            }
        })
    }
}
