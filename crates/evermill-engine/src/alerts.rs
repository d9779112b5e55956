//! Alerts: raised once what they are about is durable, kept for whoever looks, handed to whoever the
//! engine was opened with, and to sources that listen to them.
//!
//! An alert of a run that listens to alerts itself reaches no source: DAGs that tell of each other
//! would never come to rest.

use std::collections::VecDeque;

use bytes::Bytes;
use evermill_contract::alert::{Alert, AlertKind};
use evermill_contract::source::{Arrival, Severity};
use evermill_core::command::{Counters, Missed, RunIx};

use crate::input::SourceKey;
use crate::limits;
use crate::shard::Shard;
use crate::view::MissView;

/// What an alert is about, and where.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) source: Option<u16>,
    pub(crate) lane: Option<String>,
    pub(crate) position: Option<u64>,
    pub(crate) task: Option<String>,
    pub(crate) count: u64,
}

/// The latest alerts, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Alerts {
    recent: VecDeque<Alert>,
    /// Raised in this boot.
    raised: u64,
}

impl Alerts {
    /// The latest ones of a run, newest first.
    pub(crate) fn of_run(&self, run: &str) -> Vec<Alert> {
        let of_run = self.recent.iter().rev().filter(|alert| alert.run == run);
        of_run.take(limits::ALERTS_SHOWN).cloned().collect()
    }

    /// All that are kept, newest first.
    pub(crate) fn all(&self) -> Vec<Alert> {
        self.recent.iter().rev().cloned().collect()
    }
}

impl Shard {
    pub(crate) fn raise(&mut self, kind: AlertKind, run: RunIx, about: About, text: String) {
        let Some(slot) = self.runs.get(&run) else {
            return;
        };
        let source = about.source.and_then(|source| {
            let outline = self.outline_of(run)?;
            let source = outline.sources.get(usize::from(source))?;
            Some(source.id.to_string())
        });
        let at_ms = self.world.clock.now_ms();
        self.alerts.raised += 1;
        let alert = Alert {
            // Alerts follow commits and are not told again after a crash: number and boot tell them apart.
            id: format!("{}-{}", self.machine.fence().epoch, self.alerts.raised),
            kind,
            at_ms,
            dag: slot.dag.to_string(),
            run: slot.name.to_string(),
            source,
            lane: about.lane,
            position: about.position,
            task: about.task,
            count: about.count.max(1),
            text,
        };
        (self.world.alerts)(&alert);
        self.tell_listeners(run, &alert);
        self.alerts.recent.push_back(alert);
        let over = self.alerts.recent.len().saturating_sub(limits::ALERTS_KEPT);
        self.alerts.recent.drain(..over);
        self.view_stale = true;
    }

    /// Keeps the alert for sources that listen to its kind.
    fn tell_listeners(&mut self, about: RunIx, alert: &Alert) {
        let listens = |key: &SourceKey| {
            let outline = self.outline_of(key.run)?;
            let place = self.place_of(*key)?;
            outline.sources[usize::from(place)].alerts.as_ref()
        };
        let keys: Vec<SourceKey> = self.listening.keys().copied().collect();
        if keys
            .iter()
            .any(|key| key.run == about && listens(key).is_some())
        {
            return;
        }
        let wanted = |key: &SourceKey| {
            listens(key).is_some_and(|wanted| {
                (wanted.kinds.is_empty() || wanted.kinds.contains(&alert.kind))
                    && (wanted.dags.is_empty() || wanted.dags.contains(&alert.dag))
            })
        };
        let keys: Vec<SourceKey> = keys.into_iter().filter(wanted).collect();
        if keys.is_empty() {
            return;
        }
        let value = serde_json::to_vec(alert).expect("an alert has string keys only");
        let arrival = Arrival {
            timestamp_ms: Some(alert.at_ms as i64),
            key: Some(Bytes::from(alert.dag.clone())),
            value: Some(value.into()),
            id: Some(Bytes::from(alert.id.clone())),
            ..Arrival::default()
        };
        for key in keys {
            if let Err(refused) = self.push(key, std::slice::from_ref(&arrival)) {
                let who = self.source_name(key);
                let text = format!("{who}: an alert is lost: {refused}");
                self.notice(Severity::Warning, &text);
            }
        }
    }

    /// Activations missed a deadline (W13).
    pub(crate) fn deadline_missed(&mut self, run: RunIx, count: u32, missed: &[Missed]) {
        let now = self.world.clock.now_ms();
        let views: Vec<MissView> = missed
            .iter()
            .map(|missed| {
                let activation = missed.activation;
                let mut lanes = self.machine.lanes(run);
                let lane = lanes.find(|lane| lane.lane == activation.lane);
                MissView {
                    at_ms: now,
                    due_ms: missed.due_ms,
                    lane: lane.map_or_else(String::new, |lane| lane.name),
                    position: activation.position,
                    task: missed.task.clone(),
                }
            })
            .collect();
        let Some(slot) = self.runs.get_mut(&run) else {
            return;
        };
        slot.deadlines_missed += u64::from(count);
        slot.misses.extend(views.iter().cloned());
        let over = slot.misses.len().saturating_sub(limits::MISSES_KEPT);
        slot.misses.drain(..over);
        let name = slot.name.clone();
        let first = views.first();
        let of = first.map_or_else(String::new, |miss| {
            let task = miss.task.as_ref();
            let task = task.map_or_else(String::new, |task| format!(" of task '{task}'"));
            format!("{task}, {}@{} among them", miss.lane, miss.position)
        });
        let what = match count {
            1 => "1 activation missed its deadline".to_owned(),
            count => format!("{count} activations missed their deadline"),
        };
        let text = format!("{name}: {what}{of}");
        self.notice(Severity::Warning, &text);
        let about = About {
            lane: first.map(|miss| miss.lane.clone()),
            position: first.map(|miss| miss.position),
            task: first.and_then(|miss| miss.task.clone()),
            count: u64::from(count),
            ..About::default()
        };
        self.raise(AlertKind::DeadlineMissed, run, about, text);
    }

    /// More may be parked than at the last commit.
    pub(crate) fn note_parked(&mut self, run: RunIx, before: Counters, now: Counters) {
        let count = now.parked.saturating_sub(before.parked);
        let Some(slot) = self.runs.get(&run).filter(|_| count > 0) else {
            return;
        };
        let last = slot.failures.back().cloned();
        let why = last.as_ref().map_or_else(String::new, |last| {
            let (task, lane, position) = (&last.task, &last.lane, last.position);
            format!(
                "; the last failure was that of task '{task}' at {lane}@{position}: {}",
                last.error
            )
        });
        let name = slot.name.clone();
        let text = format!(
            "{name}: {count} {} parked{why}. `evermill parked ls {name}` lists what is",
            if count == 1 {
                "activation is"
            } else {
                "activations are"
            },
        );
        let about = About {
            task: last.as_ref().map(|last| last.task.clone()),
            lane: last.as_ref().map(|last| last.lane.clone()),
            position: last.as_ref().map(|last| last.position),
            count,
            ..About::default()
        };
        self.raise(AlertKind::Parked, run, about, text);
    }
}
