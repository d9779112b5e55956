//! Deadlines (W13): of a whole activation, and of tasks in it. An activation is late once, with the
//! first of them that it misses; that is counted and told, and cancels nothing.

use crate::activation::{self, Held, Snapshot, Standing};
use crate::bits;
use crate::command::{ActivationKey, Decision, Effect, Missed, Ms, RunIx};
use crate::dag::Dag;
use crate::limits;
use crate::machine::{Machine, Timer, put};
use crate::row::Table;
use crate::wave::{Row, Wave};

impl Machine {
    /// Registers the timer of a wave's earliest deadline.
    pub(crate) fn watch_deadline(&mut self, ix: u32) {
        let wave = self.wave(ix);
        if let Some(due) = wave.next_deadline() {
            self.timers.insert((due, Timer::Wave(ix, wave.id)));
        }
    }

    pub(crate) fn count_deadlines(&mut self, ix: u32, out: &mut Decision) {
        let now = self.now;
        let wave = self.wave_mut(ix);
        if wave.dag.deadlines.is_empty() {
            return;
        }
        let (mut rows, mut missed) = (Vec::new(), Vec::new());
        for member in 0..wave.members.len() as u32 {
            let overdue = wave.deadline_of(member).filter(|(due, _)| *due <= now);
            if let Some((due, task)) = overdue {
                let missed_by = wave
                    .dag
                    .missed(wave.members[member as usize].key, due, task);
                let m = &mut wave.members[member as usize];
                m.late = true;
                rows.push(m.outcome(Vec::new()));
                missed.push(missed_by);
            }
        }
        let run = wave.run;
        wave.write_row(rows, out);
        self.watch_deadline(ix);
        self.tell_missed(run, missed, out);
    }

    fn tell_missed(&mut self, run: RunIx, mut missed: Vec<Missed>, out: &mut Decision) {
        let count = missed.len() as u32;
        if count == 0 {
            return;
        }
        let row = &mut self.runs.get_mut(&run).expect("waves have runs").row;
        row.deadlines_missed += u64::from(count);
        self.dirty_runs.insert(run);
        missed.truncate(limits::MISSES_TOLD_MAX);
        out.effects
            .push(Effect::DeadlineMissed { run, count, missed });
    }

    /// Registers the timer of an activation that waits in a row of its own.
    pub(crate) fn watch_held_deadline(&mut self, snapshot: &Snapshot, held: Held) {
        // A running one is watched in its wave; what is parked waits for nobody's clock.
        let watched = !matches!(held, Held::Running { .. } | Held::Parked(_));
        let run = self.runs.get(&snapshot.key.lane.run).filter(|_| watched);
        let due = run.and_then(|run| {
            let dag = &run.dags[usize::from(snapshot.version)];
            snapshot.deadline(dag)
        });
        if let Some((due, _)) = due {
            self.timers.insert((due, Timer::Late(snapshot.key)));
        }
    }

    /// It may have missed its deadline while it waits.
    pub(crate) fn count_held_deadline(&mut self, key: ActivationKey, out: &mut Decision) {
        let run = self.runs.get(&key.lane.run);
        let held = run.and_then(|run| run.materialised.get(&key));
        let Some((run, held)) = run.zip(held) else {
            return;
        };
        let kind = held.held;
        if matches!(kind, Held::Running { .. } | Held::Parked(_)) {
            return;
        }
        // One that may miss a deadline has its body here; of one that has missed another, this is left over.
        let Some(body) = held.body().cloned() else {
            return;
        };
        let Ok((mut snapshot, _)) = Snapshot::decode(key, body) else {
            return;
        };
        let dag = std::sync::Arc::clone(&run.dags[usize::from(snapshot.version)]);
        let Some((due, task)) = snapshot.deadline(&dag).filter(|(due, _)| *due <= self.now) else {
            return;
        };
        snapshot.late = true;
        let body = snapshot.encode(kind);
        put(
            out,
            Table::Activation,
            activation::row_key(key),
            body.clone(),
        );
        let written = self.sealed + 1;
        let run = self.runs.get_mut(&key.lane.run).expect("just looked at");
        let held = run.materialised.get_mut(&key).expect("just looked at");
        held.bring(body);
        held.written = written;
        let ix = run.ix;
        self.tell_missed(ix, vec![dag.missed(key, due, task)], out);
    }
}

impl Dag {
    fn missed(&self, activation: ActivationKey, due: Ms, task: Option<u16>) -> Missed {
        let task = task.map(|task| self.spec.tasks[usize::from(task)].id.clone());
        Missed {
            activation,
            due_ms: due,
            task,
        }
    }
}

impl Wave {
    fn next_deadline(&self) -> Option<Ms> {
        if self.dag.deadlines.is_empty() {
            return None;
        }
        let dues = (0..self.members.len() as u32).filter_map(|m| self.deadline_of(m));
        dues.map(|(due, _)| due).min()
    }

    /// The next deadline that a member may miss, and of which task it is.
    fn deadline_of(&self, member: u32) -> Option<(Ms, Option<u16>)> {
        if bits::get(&self.left, member) || self.members[member as usize].late {
            return None;
        }
        let arrived = self.member_events(member).first()?.arrived_ms;
        let pending = |task: &Option<u16>| {
            task.is_none_or(|task| {
                let node = self.plan().place[usize::from(task)];
                node.is_some_and(|node| !self.is(node, Row::Done, member))
            })
        };
        let of_member = self.dag.deadlines.iter();
        let of_member = of_member.filter(|(_, task)| pending(task));
        let (ms, task) = of_member.min()?;
        Some((arrived + ms, *task))
    }
}

impl Snapshot {
    /// The same of an activation with a row of its own: of its tasks those that wait are known.
    pub(crate) fn deadline(&self, dag: &Dag) -> Option<(Ms, Option<u16>)> {
        if self.late {
            return None;
        }
        let arrived = self.events.first()?.arrived_ms;
        let waits = |task: u16| {
            let mut entries = self.entries.iter();
            entries
                .any(|entry| entry.task == task && matches!(entry.standing, Standing::Hold { .. }))
        };
        let of_activation = dag.deadlines.iter();
        let of_activation = of_activation.filter(|(_, task)| task.is_none_or(waits));
        let (ms, task) = of_activation.min()?;
        Some((arrived + ms, *task))
    }
}
