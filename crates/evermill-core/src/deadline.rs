//! Deadlines (W13): counted once, cancelling nothing.

use crate::bits;
use crate::command::{Decision, Effect, Ms};
use crate::machine::{Machine, Timer};

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
        let Some(deadline) = wave.dag.spec.deadline_ms else {
            return;
        };
        let mut missed = Vec::new();
        for member in 0..wave.members.len() as u32 {
            let arrived = wave
                .member_events(member)
                .first()
                .map(|event| event.arrived_ms);
            let overdue = arrived.is_some_and(|at| at + deadline <= now);
            let m = &mut wave.members[member as usize];
            if overdue && !m.late && !bits::get(&wave.left, member) {
                m.late = true;
                missed.push(m.outcome(Vec::new()));
            }
        }
        let (run, count) = (wave.run, missed.len() as u32);
        wave.write_row(missed, out);
        self.watch_deadline(ix);
        if count > 0 {
            let row = &mut self.runs.get_mut(&run).expect("waves have runs").row;
            row.deadlines_missed += u64::from(count);
            self.dirty_runs.insert(run);
            out.effects.push(Effect::DeadlineMissed { run, count });
        }
    }
}

impl crate::wave::Wave {
    fn next_deadline(&self) -> Option<Ms> {
        let deadline = self.dag.spec.deadline_ms?;
        let waiting = (0..self.members.len() as u32)
            .filter(|&m| !bits::get(&self.left, m) && !self.members[m as usize].late);
        let arrivals = waiting.filter_map(|m| self.member_events(m).first());
        arrivals.map(|event| event.arrived_ms + deadline).min()
    }
}
