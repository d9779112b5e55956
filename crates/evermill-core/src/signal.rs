//! Signals (W14): named messages from outside, and the activations that wait for them.

use bytes::Bytes;

use crate::activation::{self, Held, Snapshot, Standing};
use crate::bits;
use crate::codec::DecodeError;
use crate::codec::Writer;
use crate::command::{ActivationKey, Decision, Event, Ms, RunIx};
use crate::dag::TaskKind;
use crate::machine::{Machine, Timer, put};
use crate::packed::Packed;
use crate::row::{Key, Table, Write};
use crate::run::{Materialised, Run, Signal};
use crate::wave::Row;

/// Who waits for a signal: since when, which activation, which task.
pub(crate) type Waiter = (Ms, ActivationKey, u16);

/// Of those who wait for a signal, who gets it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whom {
    /// Everybody, not the one who has waited longest.
    pub(crate) all: bool,
    /// Only this activation.
    pub(crate) to: Option<ActivationKey>,
}

/// A task of an activation that waits for a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitView {
    /// Which activation.
    pub activation: ActivationKey,
    /// When the activation's (first) event arrived.
    pub since: Ms,
    /// The task, by its place in the version.
    pub task: u16,
}

/// What an activation brought to where it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    /// The version it is pinned to, by its number in the run.
    pub version: u16,
    /// Its events.
    pub events: Vec<Event>,
    /// What its tasks returned so far.
    pub results: Vec<(u16, Bytes)>,
}

/// Format number of signal rows.
const SIGNAL_FORMAT: u8 = 1;

impl Brought {
    /// Reads the row of an activation.
    ///
    /// # Errors
    /// [`DecodeError`] when it is none.
    pub fn read(key: ActivationKey, body: Bytes) -> Result<Self, DecodeError> {
        Ok(Self::of(Snapshot::decode(key, body)?.0))
    }

    fn of(snapshot: Snapshot) -> Self {
        let result = |entry: activation::Entry| match entry.standing {
            Standing::Success { result, .. } => Some((entry.task, result?)),
            _ => None,
        };
        let bound = snapshot.bound.into_iter().map(|(.., event)| event);
        Self {
            version: snapshot.version,
            events: snapshot.events.into_iter().chain(bound).collect(),
            results: snapshot.entries.into_iter().filter_map(result).collect(),
        }
    }
}

impl Machine {
    /// Signals that tasks of a run wait for: the name, and how many do.
    pub fn awaited(&self, run: RunIx) -> impl Iterator<Item = (&str, u64)> {
        let names = self.runs.get(&run).into_iter();
        let names = names.flat_map(|run| &run.waiters);
        let names = names.map(|(name, waiters)| (&**name, waiters.len() as u64));
        names.filter(|(_, count)| *count > 0)
    }

    /// Everything of a run that waits for the signal of this name, the oldest first.
    pub fn waits(&self, run: RunIx, name: &str) -> impl Iterator<Item = WaitView> {
        let waiters = self.runs.get(&run).and_then(|run| run.waiters.get(name));
        let waiters = waiters.into_iter().flat_map(Packed::keys);
        waiters.map(|&(since, activation, task)| WaitView {
            activation,
            since,
            task,
        })
    }

    /// The version that an activation is pinned to which waits for a signal, by its number in the run.
    #[must_use]
    pub fn pinned(&self, key: ActivationKey) -> Option<u16> {
        let run = self.runs.get(&key.lane.run)?;
        let held = run.materialised.get(&key).map(|held| held.version);
        held.or_else(|| Some(self.wave(self.place_in_wave(key)?.0).version))
    }

    /// Whether a signal of this id is known, as one that waits or one that was consumed.
    #[must_use]
    pub fn knows_signal(&self, run: RunIx, id: &str) -> bool {
        let run = self.runs.get(&run);
        run.is_some_and(|run| run.signals.contains_key(id))
    }

    /// What an activation that waits for a signal has brought; `None` while it lies in the store alone, or
    /// when it does not wait.
    #[must_use]
    pub fn brought(&self, key: ActivationKey) -> Option<Brought> {
        let run = self.runs.get(&key.lane.run)?;
        if let Some(held) = run.materialised.get(&key) {
            return Brought::read(key, held.body()?.clone()).ok();
        }
        let (ix, member) = self.place_in_wave(key)?;
        Some(Brought::of(self.snapshot(ix, member)))
    }

    pub(crate) fn signal(
        &mut self,
        ix: RunIx,
        id: String,
        signal: Signal,
        whom: Whom,
        out: &mut Decision,
    ) {
        let Some(run) = self.runs.get_mut(&ix).filter(|run| !run.is_over()) else {
            return;
        };
        if run.signals.contains_key(&id) {
            return;
        }
        let receivers = run.waiting_for(&signal.name, signal.key, whom);
        if receivers.is_empty() && whom.to.is_some() {
            // Kept, it would go to another one.
            return;
        }
        self.timers.insert((signal.expires, Timer::Signal(ix)));
        let consumed = !receivers.is_empty();
        let signal = Signal { consumed, ..signal };
        write_signal(ix, &id, &signal, out);
        for waiter in receivers {
            self.deliver(&signal.name, waiter, &signal.body, out);
        }
        let run = self.runs.get_mut(&ix).expect("looked up above");
        run.signals.insert(id, signal);
    }

    /// A member began to wait for a signal: an earlier one may be there already.
    pub(crate) fn await_signals(&mut self, ix: u32, out: &mut Decision) {
        let waits = std::mem::take(&mut self.wave_mut(ix).signal_waits);
        for (node, member) in waits {
            let wave = self.wave(ix);
            let Some(TaskKind::Signal { name }) = wave.task(node).map(|t| t.kind.clone()) else {
                continue;
            };
            let (key, task) = (
                wave.members[member as usize].key,
                wave.task_index(node).expect("signals are tasks"),
            );
            let event = wave.member_events(member).first();
            let (event_key, since) = event.map_or((0, 0), |e| (e.key, e.arrived_ms));
            let run = self.runs.get_mut(&key.lane.run).expect("waves have runs");
            let fits =
                |s: &Signal| !s.consumed && s.name == name && (s.key == 0 || s.key == event_key);
            let early = run
                .signals
                .iter()
                .find(|(_, s)| fits(s))
                .map(|(id, _)| id.clone());
            let Some(id) = early else {
                run.waiters
                    .entry(name)
                    .or_default()
                    .insert((since, key, task), ());
                continue;
            };
            let signal = run.signals.get_mut(&id).expect("just found");
            signal.consumed = true;
            let signal = signal.clone();
            write_signal(key.lane.run, &id, &signal, out);
            let wave = self.wave_mut(ix);
            wave.keep(node, member, signal.body);
            let mask = bits::single(wave.words, member);
            wave.end(node, Row::Success, &mask);
            let dirty = wave.dirty_below(node);
            // Who got it commits with the signal: nobody else will.
            self.record(ix, node, &mask, out);
            self.sweep(ix, &mask, dirty);
        }
    }

    fn deliver(&mut self, name: &str, waiter: Waiter, body: &Bytes, out: &mut Decision) {
        let (_, key, task) = waiter;
        let run = self
            .runs
            .get_mut(&key.lane.run)
            .expect("activations have runs");
        if let Some(waiters) = run.waiters.get_mut(name) {
            waiters.remove(&waiter);
        }
        let Some(held) = run.materialised.get(&key).cloned() else {
            return self.deliver_in_wave(key, task, body, out);
        };
        let Ok((mut snapshot, _)) = Snapshot::decode(key, held.own_body()) else {
            return;
        };
        snapshot.entries.retain(|entry| entry.task != task);
        let standing = Standing::Success {
            failures: 0,
            result: Some(body.clone()),
            map_length: None,
            forced: Vec::new(),
        };
        snapshot.entries.push(activation::Entry {
            task,
            instance: 0,
            standing,
        });
        self.materialise(snapshot, Held::Waiting, held.scope(), out);
        self.release(key);
    }

    /// A wave's slot and a member of it.
    fn place_in_wave(&self, key: ActivationKey) -> Option<(u32, u32)> {
        let find = |wave: &crate::wave::Wave| {
            let here = |(at, m): (usize, &crate::wave::Member)| {
                (m.key == key && !bits::get(&wave.left, at as u32)).then_some(at as u32)
            };
            wave.members.iter().enumerate().find_map(here)
        };
        self.waves.iter().enumerate().find_map(|(slot, wave)| {
            let member = wave.as_ref().and_then(find)?;
            Some((slot as u32, member))
        })
    }

    fn deliver_in_wave(&mut self, key: ActivationKey, task: u16, body: &Bytes, out: &mut Decision) {
        let Some((ix, member)) = self.place_in_wave(key) else {
            return;
        };
        let wave = self.wave_mut(ix);
        let Some(node) = wave.plan().place[usize::from(task)] else {
            return;
        };
        wave.keep(node, member, body.clone());
        let mask = bits::single(wave.words, member);
        wave.end(node, Row::Success, &mask);
        let dirty = wave.dirty_below(node);
        self.record(ix, node, &mask, out);
        self.progress(ix, &mask, dirty, out);
    }

    pub(crate) fn expire_signals(&mut self, ix: RunIx, out: &mut Decision) {
        let now = self.now;
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        run.signals.retain(|id, signal| {
            let live = signal.expires > now;
            if !live {
                let key = Key {
                    run: ix,
                    lane: 0,
                    id: Bytes::from(id.clone().into_bytes()),
                };
                out.writes.push(Write::Delete(Table::Signal, key));
            }
            live
        });
    }
}

impl Run {
    /// An activation that is parked waits for no signal; redriven, it begins to wait anew.
    pub(crate) fn forget_waits(&mut self, snapshot: &Snapshot) {
        let Some(event) = snapshot.events.first() else {
            return;
        };
        let dag = std::sync::Arc::clone(&self.dags[usize::from(snapshot.version)]);
        for (task, spec) in dag.spec.tasks.iter().enumerate() {
            if let TaskKind::Signal { name } = &spec.kind
                && let Some(waiters) = self.waiters.get_mut(name)
            {
                waiters.remove(&(event.arrived_ms, snapshot.key, task as u16));
            }
        }
    }

    /// Who gets a signal of this name and key, oldest first.
    pub(crate) fn waiting_for(&self, name: &str, key: u128, whom: Whom) -> Vec<Waiter> {
        let fits = |waiter: &ActivationKey| {
            let is_meant = whom.to.is_none_or(|to| to == *waiter);
            let has_key = key == 0
                || self
                    .materialised
                    .get(waiter)
                    .is_none_or(|m: &Materialised| m.key() == key);
            is_meant && has_key
        };
        let most = if whom.all { usize::MAX } else { 1 };
        let waiters = self.waiters.get(name).into_iter().flat_map(Packed::keys);
        waiters
            .filter(|(_, waiter, _)| fits(waiter))
            .take(most)
            .copied()
            .collect()
    }
}

fn write_signal(ix: RunIx, id: &str, signal: &Signal, out: &mut Decision) {
    let mut body = Writer::new(SIGNAL_FORMAT);
    body.text(&signal.name)
        .wide(signal.key)
        .bytes(&signal.body)
        .int(signal.expires);
    body.flag(signal.consumed);
    let key = Key {
        run: ix,
        lane: 0,
        id: Bytes::copy_from_slice(id.as_bytes()),
    };
    put(out, Table::Signal, key, body.finish());
}
