//! Parked activations (W10): redriven, given up, or left behind by a run that ended.

use std::sync::Arc;

use bytes::Bytes;

use crate::activation::{self, Held, ParkReason, Snapshot, Standing};
use crate::bits;
use crate::command::{ActivationKey, Decision, RunIx, RunState, Selection};
use crate::dag::{Dag, PlanNode};
use crate::machine::{Machine, put};
use crate::row::{Table, Write};
use crate::run::Run;

impl Machine {
    /// W10: clears the failed tasks and everything below them, in the same activation. A run that
    /// finished goes on until that has settled, unless the DAG has another run by now.
    pub(crate) fn redrive(&mut self, ix: RunIx, selection: &Selection, out: &mut Decision) {
        let chosen = self.select(ix, selection);
        if chosen.is_empty() || !self.reopens(ix) {
            return;
        }
        for key in chosen {
            let run = self.runs.get_mut(&ix).expect("selected from it");
            let held = run.materialised[&key].clone();
            let Ok((mut snapshot, _)) = Snapshot::decode(key, held.own_body()) else {
                continue;
            };
            let dag = Arc::clone(&run.dags[usize::from(snapshot.version)]);
            clear_failed(&dag, &mut snapshot);
            snapshot.round += 1;
            run.row.counters.parked -= held.weight();
            let blocked = held.held == Held::Parked(ParkReason::Blocked);
            if blocked
                && let Some((scope, seq)) = held.scope()
                && let Some(queue) = run.scopes.get_mut(&scope)
            {
                queue.redriven(seq);
            }
            self.materialise(snapshot, Held::Waiting, held.scope(), out);
            self.release(key);
        }
    }

    /// Whether the run takes a redrive; one that finished is running afterwards.
    fn reopens(&mut self, ix: RunIx) -> bool {
        let run = &self.runs[&ix];
        let open = |other: &Run| other.row.dag == run.row.dag && !other.is_over();
        match run.row.state {
            RunState::Stopped | RunState::Failed => return false,
            RunState::Finished if self.runs.values().any(open) => return false,
            RunState::Finished => {}
            _ => return true,
        }
        let run = self.runs.get_mut(&ix).expect("looked at");
        run.row.state = RunState::Running;
        self.dirty_runs.insert(ix);
        true
    }

    /// Gives parked activations up.
    pub(crate) fn discard(&mut self, ix: RunIx, selection: &Selection, out: &mut Decision) {
        for key in self.select(ix, selection) {
            let run = self.runs.get_mut(&ix).expect("selected from it");
            let held = run.unhold(key).expect("selected from it");
            run.row.counters.parked -= held.weight();
            run.row.counters.dropped += held.weight();
            out.writes
                .push(Write::Delete(Table::Activation, activation::row_key(key)));
            self.dirty_runs.insert(ix);
            if let Some((scope, seq)) = held.scope() {
                self.leave_scope(ix, scope, seq);
            }
        }
    }

    /// Replaces the payload of one event; nothing else changes.
    pub(crate) fn amend(
        &mut self,
        key: ActivationKey,
        event: u32,
        body: Bytes,
        out: &mut Decision,
    ) {
        let run = self.runs.get_mut(&key.lane.run);
        let Some(held) = run.and_then(|run| run.materialised.get_mut(&key)) else {
            return;
        };
        let Ok((mut snapshot, how @ Held::Parked(_))) = Snapshot::decode(key, held.own_body())
        else {
            return;
        };
        let bound = snapshot.bound.iter_mut().map(|(.., event)| event);
        let mut carried = snapshot.events.iter_mut().chain(bound);
        if let Some(event) = carried.nth(event as usize) {
            event.body = body;
            let body = snapshot.encode(how);
            held.bring(body.clone());
            put(out, Table::Activation, activation::row_key(key), body);
        }
    }

    fn select(&self, ix: RunIx, selection: &Selection) -> Vec<ActivationKey> {
        let Some(run) = self.runs.get(&ix) else {
            return Vec::new();
        };
        let parked = |key: &&ActivationKey| {
            run.materialised
                .get(key)
                .is_some_and(|m| matches!(m.held, Held::Parked(_)))
        };
        match selection {
            Selection::All => run.materialised.keys().filter(parked).copied().collect(),
            Selection::Keys(keys) => keys.iter().filter(parked).copied().collect(),
        }
    }

    pub(crate) fn wake_held(&mut self, key: ActivationKey, out: &mut Decision) {
        let Some(run) = self.runs.get(&key.lane.run) else {
            return;
        };
        let Some(held) = run.materialised.get(&key) else {
            return;
        };
        match held.held {
            Held::Open { until } if until.is_some_and(|until| until <= self.now) => {
                self.time_out_join(key, out);
            }
            // One that lacks a source may hold a task in backoff as well.
            Held::Waiting | Held::Open { .. } => {
                self.release_if_due(key);
            }
            Held::Behind | Held::Running { .. } | Held::Parked(_) => {}
        }
    }

    /// Parks everything of a run that has not settled (a run that ends keeps what it had begun).
    pub(crate) fn park_unsettled(&mut self, ix: RunIx, out: &mut Decision) {
        for dispatch in self.dispatches.iter_mut().filter(|d| d.run == ix) {
            dispatch.outstanding.fill(0);
        }
        let slots: Vec<u32> = (0..self.waves.len() as u32)
            .filter(|&slot| {
                self.waves[slot as usize]
                    .as_ref()
                    .is_some_and(|w| w.run == ix)
            })
            .collect();
        for slot in slots {
            let members = self.wave(slot).members.len() as u32;
            let mask = self.wave(slot).everyone();
            for member in 0..members {
                if !bits::get(&self.wave(slot).left, member) {
                    self.park_member(slot, member, out);
                }
            }
            let nothing = bits::none(bits::words(self.wave(slot).plan().steps.len()));
            self.progress(slot, &mask, nothing, out);
        }
        let run = &self.runs[&ix];
        let waiting: Vec<ActivationKey> = run
            .materialised
            .iter()
            .filter(|(_, m)| !matches!(m.held, Held::Parked(_)))
            .map(|(&key, _)| key)
            .collect();
        for key in waiting {
            let body = self.runs[&ix].materialised[&key].own_body();
            if let Ok((snapshot, _)) = Snapshot::decode(key, body) {
                self.park(snapshot, ParkReason::RunStopped, None, out);
            }
        }
    }

    fn park_member(&mut self, slot: u32, member: u32, out: &mut Decision) {
        let mut snapshot = self.snapshot(slot, member);
        snapshot.ordered = false;
        self.forget_member(slot, member);
        self.park(snapshot, ParkReason::RunStopped, None, out);
    }

    /// Takes a member out of its wave's and lane's books.
    pub(crate) fn forget_member(&mut self, slot: u32, member: u32) {
        let wave = self.waves[slot as usize]
            .as_mut()
            .expect("members have waves");
        bits::set(&mut wave.left, member);
        let Some(id) = wave.lane else { return };
        let events = wave.member_events(member);
        let (count, bytes) = (
            events.len(),
            events.iter().map(|e| e.body.len()).sum::<usize>(),
        );
        let run = self.runs.get_mut(&wave.run).expect("waves have runs");
        let lane = run.lanes.get_mut(&id.lane).expect("waves have lanes");
        lane.events -= count;
        lane.bytes -= bytes;
        self.dirty_lanes.insert(id);
    }
}

fn clear_failed(dag: &Dag, snapshot: &mut Snapshot) {
    let failed: Vec<u16> = snapshot
        .entries
        .iter()
        .filter(|entry| matches!(entry.standing, Standing::Failed { .. }))
        .map(|entry| entry.task)
        .collect();
    let mut cleared = failed.clone();
    for plan in &dag.plans {
        for &task in &failed {
            let Some(node) = plan.place[usize::from(task)] else {
                continue;
            };
            for &below in &plan.steps[usize::from(node)].below {
                if let PlanNode::Task(task) = plan.steps[usize::from(below)].node {
                    cleared.push(task);
                }
            }
        }
    }
    let failed_instance = |standing: &Standing| matches!(standing, Standing::Failed { .. });
    snapshot.entries.retain(|entry| {
        let below = cleared[failed.len()..].contains(&entry.task);
        !below && !failed_instance(&entry.standing)
    });
}
