//! Signals (W14): named messages from outside, and the activations that wait for them.

use bytes::Bytes;

use crate::activation::{self, Held, Snapshot, Standing};
use crate::bits;
use crate::codec::Writer;
use crate::command::{ActivationKey, Decision, Ms, RunIx};
use crate::dag::TaskKind;
use crate::machine::{Machine, Timer, put};
use crate::packed::Packed;
use crate::row::{Key, Table, Write};
use crate::run::{Materialised, Run, Signal};
use crate::wave::Row;

/// Who waits for a signal: since when, which activation, which task.
pub(crate) type Waiter = (Ms, ActivationKey, u16);

/// Format number of signal rows.
const SIGNAL_FORMAT: u8 = 1;

impl Machine {
    pub(crate) fn signal(
        &mut self,
        ix: RunIx,
        id: String,
        signal: Signal,
        all: bool,
        out: &mut Decision,
    ) {
        let Some(run) = self.runs.get_mut(&ix).filter(|run| !run.is_over()) else {
            return;
        };
        if run.signals.contains_key(&id) {
            return;
        }
        self.timers.insert((signal.expires, Timer::Signal(ix)));
        let waiting = run.waiting_for(&signal.name, signal.key);
        let receivers = if all {
            &waiting[..]
        } else {
            &waiting[..waiting.len().min(1)]
        };
        let consumed = !receivers.is_empty();
        let signal = Signal { consumed, ..signal };
        write_signal(ix, &id, &signal, out);
        for &waiter in receivers {
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

    fn deliver_in_wave(&mut self, key: ActivationKey, task: u16, body: &Bytes, out: &mut Decision) {
        let find = |wave: &crate::wave::Wave| {
            let here = |(at, m): (usize, &crate::wave::Member)| {
                (m.key == key && !bits::get(&wave.left, at as u32)).then_some(at as u32)
            };
            wave.members.iter().enumerate().find_map(here)
        };
        let place = self.waves.iter().enumerate().find_map(|(slot, wave)| {
            wave.as_ref()
                .and_then(find)
                .map(|member| (slot as u32, member))
        });
        let Some((ix, member)) = place else { return };
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

    /// Who waits for a signal of this name and key, oldest first.
    pub(crate) fn waiting_for(&self, name: &str, key: u128) -> Vec<Waiter> {
        let fits = |waiter: &ActivationKey| {
            key == 0
                || self
                    .materialised
                    .get(waiter)
                    .is_none_or(|m: &Materialised| m.key() == key)
        };
        let waiters = self.waiters.get(name).into_iter().flat_map(Packed::keys);
        waiters
            .filter(|(_, waiter, _)| fits(waiter))
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
