//! Alerts: kept in the commit of what they are about, then handed to whoever the engine was opened
//! with, shown to whoever looks, and fed to sources that listen to them.
//!
//! ```text
//! raise: a row of the outbox, and of each listening inbox --commit--> hooks --told--> the row goes
//!                                                            ^
//! rows that a start, or a shard loaded again, finds ---------+
//! ```
//!
//! So a hook is told at least once. An alert's id is that of its row, the same however often it is
//! told.
//!
//! An alert of a run that listens to alerts itself reaches no source: DAGs that tell of each other
//! would never come to rest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_contract::alert::{Alert, AlertKind, Receipt};
use evermill_contract::manifest::AlertsSource;
use evermill_contract::source::{Arrival, Severity};
use evermill_core::command::{ActivationKey, Missed, Parked, RunIx};
use evermill_core::row::{Key, Row, Table, Write};
use evermill_core::{Machine, ParkReason, RunView};
use evermill_store::{Store, StoreError};

use crate::books::{explained, face_name};
use crate::failpoint::fp;
use crate::groups::After;
use crate::inbox::{Bringer, Inboxes, Shelved};
use crate::input::{Input, Request, SourceKey};
use crate::limits;
use crate::notice::Subject;
use crate::requests::is_over;
use crate::shard::{Shard, Version};
use crate::view::{FailureView, MissView};

/// What an alert is about, and where.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) source: Option<u16>,
    pub(crate) lane: Option<String>,
    pub(crate) position: Option<u64>,
    pub(crate) task: Option<String>,
    pub(crate) count: u64,
}

/// The latest alerts, oldest first, and those that hooks still have to be told of.
#[derive(Debug, Default)]
pub(crate) struct Alerts {
    recent: VecDeque<Alert>,
    /// Raised in this boot.
    raised: u64,
    /// Rows of the outbox, or on their way to it; whether hooks have the alert.
    owed: BTreeMap<Number, bool>,
    told: Arc<Told>,
}

/// Which alert: the boot epoch, and how many were raised before in it.
pub(crate) type Number = (u64, u64);

/// What receipts say, from whatever thread.
#[derive(Debug, Default)]
struct Told {
    any: AtomicBool,
    numbers: Mutex<Vec<Number>>,
}

impl Told {
    fn add(&self, number: Number) {
        // Each statement leaves the list whole.
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.push(number);
        self.any.store(true, Ordering::Release);
    }

    /// Costs a look at a flag when nothing was said.
    fn take(&self) -> Vec<Number> {
        if !self.any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *numbers)
    }
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

    fn show(&mut self, alert: Alert) {
        self.recent.push_back(alert);
        let over = self.recent.len().saturating_sub(limits::ALERTS_KEPT);
        self.recent.drain(..over);
    }
}

/// Alerts that hooks were still to be told of when the store was last written, oldest first.
///
/// # Errors
/// [`StoreError`] for a row that is none of ours.
pub(crate) fn load(store: &mut dyn Store) -> Result<Vec<(Number, Alert)>, StoreError> {
    let mut rows = Vec::new();
    store.load(Table::Outbox, &mut |row| rows.push(row))?;
    let ours = rows.into_iter().filter(|row| row.key.lane == KIND);
    ours.map(|row| {
        read(&row).ok_or_else(|| StoreError::Damaged {
            path: std::path::PathBuf::from("store.db"),
            what: format!("the alert {:?} has a wrong shape", row.key.id),
        })
    })
    .collect()
}

fn read(row: &Row) -> Option<(Number, Alert)> {
    let (epoch, raised) = row.key.id.split_first_chunk()?;
    let number = (
        u64::from_be_bytes(*epoch),
        u64::from_be_bytes(raised.try_into().ok()?),
    );
    let body = row.body.strip_prefix(&[FORMAT])?;
    Some((number, serde_json::from_slice(body).ok()?))
}

/// Which effects of the outbox these are.
const KIND: u32 = 1;
const FORMAT: u8 = 1;

fn key_of((epoch, raised): Number) -> Key {
    Key::numbered(0, KIND, &[epoch, raised])
}

fn put(number: Number, alert: &Alert) -> Write {
    let mut body = vec![FORMAT];
    serde_json::to_writer(&mut body, alert).expect("an alert has string keys only");
    Write::Put(Row {
        table: Table::Outbox,
        key: key_of(number),
        body: body.into(),
    })
}

impl Shard {
    /// Tells of something, once what was decided so far is durable.
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
        let number = (self.machine.fence().epoch, self.alerts.raised);
        let alert = Alert {
            id: id_of(number),
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
        self.tell_listeners(run, &alert);
        let wanted = self.world.alerts.wants(&alert);
        // More of them are told as long as the engine lives, and are no rows.
        if wanted && self.alerts.owed.len() < limits::ALERTS_OWED {
            self.decision.writes.push(put(number, &alert));
            self.alerts.owed.insert(number, false);
        }
        self.after.push(After::Do(Box::new(move |shard| {
            fp!("alert.committed");
            if wanted {
                shard.hand_to_hooks(number, &alert);
            }
            shard.alerts.show(alert);
            shard.view_stale = true;
        })));
        self.unseal();
    }

    fn hand_to_hooks(&mut self, number: Number, alert: &Alert) {
        if let Some(handed) = self.alerts.owed.get_mut(&number) {
            *handed = true;
        }
        let (told, input) = (Arc::clone(&self.alerts.told), self.world.input.clone());
        let receipt = Receipt::new(move || {
            told.add(number);
            // A shard with a full inbox looks anyway, and one that is gone has no use for it.
            drop(input.try_send(Input::Request(Request::Poke)));
        });
        self.world.alerts.take(alert, receipt);
        fp!("alert.handed");
    }

    /// Alerts that were found in the store: hooks are told of those that they have not got yet.
    pub(crate) fn owe(&mut self, found: Vec<(Number, Alert)>) {
        let before = std::mem::take(&mut self.alerts.owed);
        for (number, alert) in found {
            if number.0 == self.machine.fence().epoch {
                // Kept at open.
                self.alerts.raised = self.alerts.raised.max(number.1);
            }
            let handed = before.get(&number).copied().unwrap_or_default();
            self.alerts.owed.insert(number, handed);
            if handed {
                continue;
            }
            if self.world.alerts.wants(&alert) {
                self.hand_to_hooks(number, &alert);
            } else {
                // Its hook is not there any more.
                self.alerts.told.add(number);
            }
            self.alerts.show(alert);
        }
    }

    /// Lets rows go whose alerts were told.
    pub(crate) fn forget_told_alerts(&mut self) {
        for number in self.alerts.told.take() {
            if self.alerts.owed.remove(&number).is_some() {
                let key = key_of(number);
                self.decision.writes.push(Write::Delete(Table::Outbox, key));
                self.unseal();
            }
        }
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
        let wanted = |key: &SourceKey| listens(key).is_some_and(|wanted| wants(wanted, alert));
        let keys: Vec<SourceKey> = keys.into_iter().filter(wanted).collect();
        if keys.is_empty() {
            return;
        }
        let arrival = arrival_of(alert);
        for key in keys {
            if let Err(refused) = self.push(key, std::slice::from_ref(&arrival)) {
                let who = self.source_name(key);
                let text = format!("{who}: an alert is lost: {refused}");
                self.notice_of(Severity::Warning, &self.source_subject(key), &text);
            }
        }
    }

    /// Activations miss a deadline (W13) with what is being decided.
    pub(crate) fn tell_missed(&mut self, run: RunIx, count: u32, missed: &[Missed]) {
        let Some(slot) = self.runs.get(&run) else {
            return;
        };
        let name = slot.name.clone();
        let first = missed.first().map(|first| self.miss_view(run, first));
        let of = first.as_ref().map_or_else(String::new, |miss| {
            let task = miss.task.as_ref();
            let task = task.map_or_else(String::new, |task| format!(" of task '{task}'"));
            format!("{task}, {}@{} among them", miss.lane, miss.position)
        });
        let what = match count {
            1 => "1 activation missed its deadline".to_owned(),
            count => format!("{count} activations missed their deadline"),
        };
        let text = format!("{name}: {what}{of}");
        let about = About {
            lane: first.as_ref().map(|miss| miss.lane.clone()),
            position: first.as_ref().map(|miss| miss.position),
            task: first.and_then(|miss| miss.task),
            count: u64::from(count),
            ..About::default()
        };
        let subject = Subject {
            lane: about.lane.as_deref().map(Arc::from),
            position: about.position,
            task: about.task.as_deref().map(Arc::from),
            ..self.run_subject(run)
        };
        self.notice_of(Severity::Warning, &subject, &text);
        self.raise(AlertKind::DeadlineMissed, run, about, text);
    }

    /// That is durable: whoever looks sees it.
    pub(crate) fn count_missed(&mut self, run: RunIx, count: u32, missed: &[Missed]) {
        let views: Vec<MissView> = missed
            .iter()
            .map(|missed| self.miss_view(run, missed))
            .collect();
        let Some(slot) = self.runs.get_mut(&run) else {
            return;
        };
        slot.deadlines_missed += u64::from(count);
        slot.misses.extend(views);
        let over = slot.misses.len().saturating_sub(limits::MISSES_KEPT);
        slot.misses.drain(..over);
    }

    fn miss_view(&self, run: RunIx, missed: &Missed) -> MissView {
        let activation = missed.activation;
        let mut lanes = self.machine.lanes(run);
        let lane = lanes.find(|lane| lane.lane == activation.lane);
        MissView {
            at_ms: self.world.clock.now_ms(),
            due_ms: missed.due_ms,
            lane: lane.map_or_else(String::new, |lane| lane.name),
            position: activation.position,
            task: missed.task.clone(),
        }
    }

    /// A run fails with what is being decided.
    pub(crate) fn tell_failed(&mut self, run: RunIx) {
        let name = self.runs.get(&run).map_or("", |run| &run.name);
        let text = format!("{name} has failed: `evermill show {name}` says why");
        self.notice_of(Severity::Error, &self.run_subject(run), &text);
        self.raise(AlertKind::RunFailed, run, About::default(), text);
    }

    /// What this commit parks.
    pub(crate) fn tell_parked(&mut self, parked: &[Parked]) {
        for (run, parked) in by_run(parked) {
            let Some(slot) = self.runs.get(&run) else {
                continue;
            };
            let last = self.last_failure(run);
            let (about, text) = about_parked(&self.machine, &slot.name, &parked, last.as_ref());
            let count = about.count;
            self.raise(AlertKind::Parked, run, about, text);
            self.after.push(After::Do(Box::new(move |shard| {
                if let Some(slot) = shard.runs.get_mut(&run) {
                    slot.parked_unsaid += count;
                }
            })));
        }
    }

    /// What resuming has parked is durable, and its alerts with it.
    pub(crate) fn note_parked(&mut self, parked: &[Parked]) {
        for (run, parked) in by_run(parked) {
            if let Some(slot) = self.runs.get_mut(&run) {
                slot.parked_unsaid += events_of(&parked);
            }
        }
    }

    /// Says what was parked, of each run once in a while: where everything fails, each commit has some.
    pub(crate) fn say_parked(&mut self, every: Duration) {
        let mut said = Vec::new();
        for (&run, slot) in &mut self.runs {
            let is_due = slot.parked_said.is_none_or(|at| at.elapsed() >= every);
            if slot.parked_unsaid == 0 || !is_due {
                continue;
            }
            let count = std::mem::take(&mut slot.parked_unsaid);
            slot.parked_said = Some(Instant::now());
            said.push((run, Arc::clone(&slot.name), count));
        }
        for (run, name, count) in said {
            let last = self.last_failure(run);
            let text = text_of(&name, count, &why_failed(last.as_ref()));
            let mut subject = self.run_subject(run);
            if let Some(last) = last {
                subject = Subject {
                    lane: Some(last.lane.into()),
                    position: Some(last.position),
                    task: Some(last.task.into()),
                    try_number: Some(last.try_number),
                    ..subject
                };
            }
            self.notice_of(Severity::Warning, &subject, &text);
        }
    }
}

/// Alerts of what is parked while there is no shard: at open, and at rest. They are rows like others, and
/// told by the next shard.
pub(crate) struct Keeping<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) versions: &'a BTreeMap<String, Version>,
    pub(crate) inboxes: &'a mut Inboxes,
    pub(crate) epoch: u64,
    /// In this epoch, so far.
    pub(crate) raised: u64,
    pub(crate) now_us: u64,
}

impl Keeping<'_> {
    /// Nothing of what is told to sources counts as kept before it is shelved.
    pub(crate) fn parked(
        &mut self,
        parked: &[Parked],
        writes: &mut Vec<Write>,
    ) -> Vec<(u32, Shelved)> {
        let mut kept = Vec::new();
        for (run, parked) in by_run(parked) {
            let Some(view) = self.machine.run(run) else {
                continue;
            };
            let (about, text) = about_parked(self.machine, &view.name, &parked, None);
            self.raised += 1;
            let number = (self.epoch, self.raised);
            let alert = Alert {
                id: id_of(number),
                kind: AlertKind::Parked,
                at_ms: self.now_us / 1_000,
                dag: view.dag.clone(),
                run: view.name.clone(),
                source: None,
                lane: about.lane,
                position: about.position,
                task: None,
                count: about.count,
                text,
            };
            writes.push(put(number, &alert));
            kept.extend(self.tell_listeners(&view, &alert, writes));
        }
        kept
    }

    /// Sources that listen are those of runs that are not over, switched on or not.
    fn tell_listeners(
        &mut self,
        about: &RunView,
        alert: &Alert,
        writes: &mut Vec<Write>,
    ) -> Vec<(u32, Shelved)> {
        let mut listeners = Vec::new();
        for run in self.machine.runs().filter(|run| !is_over(run.state)) {
            let known = self.versions.get(&run.version);
            for source in known.iter().flat_map(|known| &known.outline.sources) {
                let Some(wanted) = &source.alerts else {
                    continue;
                };
                if run.run == about.run {
                    return Vec::new();
                }
                if wants(wanted, alert) {
                    listeners.push(self.inboxes.number(&run.dag, &source.id));
                }
            }
        }
        let arrival = arrival_of(alert);
        let mut keep = |number| {
            let arrivals = std::slice::from_ref(&arrival);
            let inbox = self.inboxes.get_mut(number)?;
            // One without room says so to whoever looks; hooks hear of the alert anyway.
            let accepted = inbox.accept(arrivals, None, self.now_us, Bringer::LetIn, writes);
            Some((number, accepted.ok()?.shelved?))
        };
        listeners.into_iter().filter_map(&mut keep).collect()
    }
}

fn id_of((epoch, raised): Number) -> String {
    format!("{epoch}-{raised}")
}

/// Whether a source listens to this one.
fn wants(wanted: &AlertsSource, alert: &Alert) -> bool {
    (wanted.kinds.is_empty() || wanted.kinds.contains(&alert.kind))
        && (wanted.dags.is_empty() || wanted.dags.contains(&alert.dag))
}

/// An alert as an event.
fn arrival_of(alert: &Alert) -> Arrival {
    let value = serde_json::to_vec(alert).expect("an alert has string keys only");
    Arrival {
        timestamp_ms: Some(alert.at_ms as i64),
        key: Some(Bytes::from(alert.dag.clone())),
        value: Some(value.into()),
        id: Some(Bytes::from(alert.id.clone())),
        ..Arrival::default()
    }
}

fn by_run(parked: &[Parked]) -> BTreeMap<RunIx, Vec<Parked>> {
    let mut runs: BTreeMap<RunIx, Vec<Parked>> = BTreeMap::new();
    for one in parked {
        runs.entry(one.activation.lane.run).or_default().push(*one);
    }
    runs
}

fn events_of(parked: &[Parked]) -> u64 {
    parked.iter().map(|parked| parked.events).sum()
}

/// What is parked of one run. One that was in flight at each crash is told of before all others: it may be
/// what ends the engine, and no failure says so.
fn about_parked(
    machine: &Machine,
    run: &str,
    parked: &[Parked],
    last: Option<&FailureView>,
) -> (About, String) {
    let count = events_of(parked);
    let suspect = parked
        .iter()
        .find(|one| one.reason == ParkReason::SuspectCrash);
    let place = |key: ActivationKey| {
        let mut lanes = machine.lanes(key.lane.run);
        let lane = lanes.find(|lane| lane.lane == key.lane);
        lane.map(|lane| face_name(&lane))
    };
    if let Some(suspect) = suspect {
        let (key, reason) = (suspect.activation, explained(suspect.reason));
        let lane = place(key);
        let at = lane.as_deref().unwrap_or_default();
        let why = format!("; {at}@{}: {reason}", key.position);
        let about = About {
            position: Some(key.position),
            lane,
            count,
            ..About::default()
        };
        return (about, text_of(run, count, &why));
    }
    let about = About {
        task: last.map(|last| last.task.clone()),
        lane: last.map(|last| last.lane.clone()),
        position: last.map(|last| last.position),
        count,
        ..About::default()
    };
    (about, text_of(run, count, &why_failed(last)))
}

fn why_failed(last: Option<&FailureView>) -> String {
    last.map_or_else(String::new, |last| {
        let (task, lane, position) = (&last.task, &last.lane, last.position);
        let error = &last.error;
        format!("; the last failure was that of task '{task}' at {lane}@{position}: {error}")
    })
}

/// How many activations of a run were parked, and why.
fn text_of(run: &str, count: u64, why: &str) -> String {
    let are = match count {
        1 => "activation is",
        _ => "activations are",
    };
    format!("{run}: {count} {are} parked{why}. `evermill parked ls {run}` lists what is")
}
