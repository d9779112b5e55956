//! The comparison at the end: what the machine did against what the oracle says.

use std::collections::{BTreeMap, BTreeSet};

use evermill_core::ParkReason;
use evermill_core::command::{ActivationKey, LaneId, RunState, ScopeState};
use evermill_core::dag::Order;
use evermill_core::history::{self, Remembered, TaskState};
use evermill_core::row::{Key, Table};

use crate::feature::{Feature, Mark};
use crate::oracle::{Activation, Ended, Oracle, Scope, Settled, State};
use crate::script::Act;
use crate::world::{RUN, World};

/// Full rows of history, by activation and round.
type Past = BTreeMap<(Act, u32), Vec<Remembered>>;

impl World<'_> {
    /// Compares everything, restarts cleanly, compares again.
    ///
    /// # Errors
    /// The first difference.
    pub fn conclude(&mut self) -> Result<(), String> {
        let parked = self.machine.parked(RUN);
        let suspects = parked
            .filter(|p| p.reason == ParkReason::SuspectCrash)
            .count() as u64;
        let left_over = self.graph.joins && (1..=suspects).contains(&self.counters()?.in_flight());
        if left_over {
            // These wait for events that are parked as suspects (W6).
            self.coverage.hit(Mark::SuspectParked);
            return Ok(());
        }
        if self.case.is_loop() && suspects > 0 {
            // What becomes of the laps after such a one is not decided (W15).
            self.coverage.hit(Mark::SuspectParked);
            return Ok(());
        }
        self.check_settled()?;
        self.compare()?;
        let before = self.counters()?;
        self.clean_stop()?;
        self.play()?;
        if self.counters()? != before {
            return Err(format!(
                "counters were {before:?}, after a restart {:?}",
                self.counters()?
            ));
        }
        self.compare()?;
        self.check_rows()
    }

    /// Liveness: nothing is under way any more.
    fn check_settled(&self) -> Result<(), String> {
        if self.run_failed() {
            return Ok(());
        }
        let counters = self.counters()?;
        if counters.in_flight() > 0 || !self.machine.is_idle(RUN) {
            return Err(format!("nothing happens any more, but {counters:?}"));
        }
        for (at, reader) in self.readers.iter().enumerate() {
            let last = self.case.lanes[at]
                .events
                .last()
                .map_or(0, |e| e.position + 1);
            if self.case.lanes[at].replay_until.is_some() {
                // Once it is closed nobody hears of it any more.
                self.check_replay(reader.lane, last)?;
                continue;
            }
            if reader.low < last && !self.is_over() {
                let name = &self.case.lanes[at].name;
                return Err(format!(
                    "lane {name} stays at {}, its end is {last}",
                    reader.low
                ));
            }
        }
        Ok(())
    }

    fn check_replay(&self, lane: Option<LaneId>, last: u64) -> Result<(), String> {
        let mut lanes = self.machine.lanes(RUN);
        let view = lanes.find(|view| Some(view.lane) == lane);
        match view.filter(|view| view.low < last && !self.is_over()) {
            None => Ok(()),
            Some(view) => Err(format!("the replay of {} stays at {}", view.name, view.low)),
        }
    }

    fn run_failed(&self) -> bool {
        self.machine
            .run(RUN)
            .is_some_and(|run| run.state == RunState::Failed)
    }

    /// What caused what: every event in one activation, batches and joins as they were observed.
    fn activations(&self) -> Vec<Activation> {
        let size = |act: &Act| self.members.get(act).copied().unwrap_or(1);
        let parked = self.machine.parked(RUN);
        let parked: BTreeSet<Act> = parked
            .filter_map(|view| self.act_of(view.activation).ok())
            .collect();
        self.case.activations(self.graph, size, |act| {
            // Sent, parked without ever being sent, or given up as such.
            self.bound.contains_key(act)
                || self.live.entries.contains_key(act)
                || parked.contains(act)
        })
    }

    fn compare(&mut self) -> Result<(), String> {
        let past = self.read_history()?;
        let activations = self.activations();
        let script = self.script.clone();
        let mut oracle = Oracle::new(&self.case.spec, self.graph, &script);
        let mut parked: BTreeMap<Act, ParkReason> = BTreeMap::new();
        for view in self.machine.parked(RUN) {
            parked.insert(self.act_of(view.activation)?, view.reason);
        }
        let (mut exact, mut effects) = (true, BTreeSet::new());
        for activation in &activations {
            let ended = oracle.run(activation);
            let act = activation.act;
            for &(task, index, _, _) in &ended.ran {
                let calls = script.calls(act, task, index);
                effects.extend((0..calls).map(|call| (act, task, index, call)));
            }
            if parked.get(&act) == Some(&ParkReason::SuspectCrash) {
                if self.crashes < 3 {
                    return Err(format!("{act} is parked after {} stops (C6)", self.crashes));
                }
                self.coverage.hit(Mark::SuspectParked);
                exact = false;
                continue;
            }
            // What came after a suspect saw a state without it.
            let unsure = !exact && self.case.features.has(Feature::State);
            if self.run_failed() || unsure {
                exact = false;
                self.compare_part(act, &ended)?;
                continue;
            }
            self.compare_one(act, &ended, parked.get(&act))?;
            self.compare_history(act, &ended, &past)?;
            self.cover(&ended, activation.events.len());
        }
        if self.run_failed() {
            return self.check_stopped(&activations, &script);
        }
        let missed = self.machine.run(RUN).map_or(0, |run| run.deadlines_missed);
        if missed > activations.len() as u64 || self.missed > missed {
            let (told, count) = (self.missed, activations.len());
            return Err(format!(
                "{missed} deadlines missed, {told} told, {count} activations (W13)"
            ));
        }
        if !exact {
            return Ok(());
        }
        // An attempt that was interrupted may not have come to its effects.
        let cut_short = |(act, task, index, _): &&(Act, u16, i32, u32)| {
            script
                .interrupted
                .iter()
                .any(|(a, t, i, ..)| (a, t, i) == (act, task, index))
        };
        let extra: Vec<_> = self.effects.difference(&effects).collect();
        let missing: Vec<_> = effects
            .difference(&self.effects)
            .filter(|e| !cut_short(e))
            .collect();
        if !extra.is_empty() || !missing.is_empty() {
            return Err(format!(
                "effect keys differ: too many {extra:?}, missing {missing:?}"
            ));
        }
        if self.counters()? != oracle.totals {
            return Err(format!(
                "totals {:?}, expected {:?}",
                self.counters()?,
                oracle.totals
            ));
        }
        self.compare_state(&oracle.state)
    }

    /// Every full row of history, by activation and round.
    fn read_history(&self) -> Result<Past, String> {
        let mut past = Past::new();
        for wave in &self.store.history {
            let rows = Remembered::decode(&wave.body).map_err(|e| e.to_string())?;
            for row in rows {
                let lane = LaneId {
                    run: RUN,
                    lane: row.lane,
                };
                let act = self.act_of(ActivationKey {
                    lane,
                    position: row.position,
                    child: row.child,
                })?;
                past.entry((act, row.round)).or_default().push(row);
            }
        }
        Ok(past)
    }

    fn compare_one(
        &self,
        act: Act,
        ended: &Ended,
        parked: Option<&ParkReason>,
    ) -> Result<(), String> {
        let empty = crate::ledger::Entry::default();
        let entry = self.durable.entries.get(&act).unwrap_or(&empty);
        if entry.finals != ended.finals {
            let keys: BTreeSet<_> = entry.finals.keys().chain(ended.finals.keys()).collect();
            let differs = |key: &&&(u16, i32)| entry.finals.get(**key) != ended.finals.get(**key);
            let lines = keys.iter().filter(differs).map(|key| {
                let (got, want) = (entry.finals.get(*key), ended.finals.get(*key));
                format!("{key:?}: {got:?}, expected {want:?}")
            });
            return Err(format!(
                "{act} ended otherwise: {}",
                lines.collect::<Vec<_>>().join("; ")
            ));
        }
        if entry.ran != ended.ran || entry.round != ended.rounds {
            return Err(format!(
                "{act} ran {:?}, expected {:?}",
                entry.ran, ended.ran
            ));
        }
        let expected = match ended.settled {
            Settled::Parked(true) => Some(ParkReason::Blocked),
            Settled::Parked(false) | Settled::Stopped => Some(ParkReason::Failed),
            Settled::Done | Settled::Skipped | Settled::Dropped => None,
        };
        if parked.copied() != expected {
            return Err(format!("{act} is parked {parked:?}, expected {expected:?}"));
        }
        Ok(())
    }

    /// S1: where all is remembered, the last round of an activation has one full row, and it says
    /// what came of every task.
    fn compare_history(&self, act: Act, ended: &Ended, past: &Past) -> Result<(), String> {
        if !self.case.spec.full_history {
            return Ok(());
        }
        let entry = self.durable.entries.get(&act);
        if self.graph.joins && entry.is_none() {
            // Of a join that was never sent nobody knows which event opened it.
            return Ok(());
        }
        let rows = past.get(&(act, ended.rounds));
        let [row] = rows.map_or(&[][..], Vec::as_slice) else {
            return Err(format!(
                "{act} round {} has full rows {rows:?}",
                ended.rounds
            ));
        };
        let how = match ended.settled {
            // It was kept, and given up later.
            _ if entry.is_some_and(|entry| entry.discarded) => history::Ended::Parked,
            Settled::Done => history::Ended::Done,
            Settled::Skipped => history::Ended::Skipped,
            Settled::Parked(_) | Settled::Stopped => history::Ended::Parked,
            Settled::Dropped => history::Ended::Dropped,
        };
        let mut states = vec![None; ended.states.len()];
        for end in &row.tasks {
            states[usize::from(end.task)] = Some(match end.state {
                TaskState::Success => State::Success,
                TaskState::Failed => State::Failed,
                TaskState::Skipped => State::Skipped,
                TaskState::UpstreamFailed => State::UpstreamFailed,
            });
            let own = ended.finals.get(&(end.task, -1));
            if own.is_some_and(|own| own.round == ended.rounds && own.tries != end.tries) {
                return Err(format!("{act} is remembered with {end:?}, was {own:?}"));
            }
        }
        if row.ended != how || states != ended.states {
            let want = &ended.states;
            return Err(format!(
                "{act} is remembered as {row:?}, was {how:?} {want:?}"
            ));
        }
        Ok(())
    }

    /// After `stop`: what did end, ended as it should.
    fn compare_part(&self, act: Act, ended: &Ended) -> Result<(), String> {
        let Some(entry) = self.durable.entries.get(&act) else {
            return Ok(());
        };
        for ran in &entry.ran {
            if !ended.ran.contains(ran) {
                return Err(format!("{act} ran {ran:?}, expected only {:?}", ended.ran));
            }
        }
        Ok(())
    }

    /// W10: a run that ended keeps nothing in flight, and something did stop it.
    fn check_stopped(
        &mut self,
        activations: &[Activation],
        script: &crate::script::Script,
    ) -> Result<(), String> {
        self.coverage.hit(Mark::Stopped);
        let mut oracle = Oracle::new(&self.case.spec, self.graph, script);
        let loops = self.case.is_loop();
        let stops =
            |settled| settled == Settled::Stopped || loops && matches!(settled, Settled::Parked(_));
        let stopped = activations.iter().any(|a| stops(oracle.run(a).settled));
        let counters = self.counters()?;
        if !stopped {
            return Err("the run failed, and no activation stops it".into());
        }
        if counters.in_flight() > 0 {
            return Err(format!(
                "the run failed with events in flight: {counters:?}"
            ));
        }
        Ok(())
    }

    fn compare_state(&self, expected: &BTreeMap<Scope, ScopeState>) -> Result<(), String> {
        let mut got: BTreeMap<Scope, ScopeState> = BTreeMap::new();
        for (scope, state) in self
            .machine
            .states(RUN)
            .filter(|(_, state)| !state.is_empty())
        {
            let lane = self
                .readers
                .iter()
                .position(|r| r.lane.is_some_and(|l| l.lane == scope.scope.lane));
            let lane = lane.unwrap_or(0) as u16;
            let task = self.case.spec.tasks.iter().position(|t| t.id == scope.task);
            let task = task.map(|t| t as u16);
            let scope = match self.case.spec.order {
                Order::None => Scope::Run,
                Order::Serial => Scope::Lane(lane, None),
                Order::Partition => Scope::Lane(lane, task),
                Order::Key => Scope::Key(lane, scope.scope.key, task.unwrap_or(u16::MAX)),
            };
            got.insert(scope, state.clone());
        }
        let expected: BTreeMap<Scope, ScopeState> = expected
            .iter()
            .filter(|(_, state)| !state.is_empty())
            .map(|(scope, state)| (*scope, state.clone()))
            .collect();
        if got == expected {
            Ok(())
        } else {
            Err(format!("state {got:?}, expected {expected:?}"))
        }
    }

    /// Rows of what has settled are gone.
    fn check_rows(&self) -> Result<(), String> {
        if self.run_failed() {
            return Ok(());
        }
        // Suspicion may wait for events that have not come yet (C6).
        let lows: BTreeMap<u32, u64> = self
            .machine
            .lanes(RUN)
            .map(|lane| (lane.lane.lane, lane.low))
            .collect();
        let unread = |key: &&Key| {
            let position = key
                .id
                .get(..8)
                .and_then(|id| id.try_into().ok())
                .map(u64::from_be_bytes);
            position >= lows.get(&key.lane).copied()
        };
        for table in [Table::Outcome, Table::Batch, Table::Suspect] {
            let rows = self.store.keys(table);
            let left: Vec<_> = rows
                .filter(|k| table != Table::Suspect || !unread(k))
                .collect();
            if !left.is_empty() {
                return Err(format!("rows are left in {}: {left:?}", table.name()));
            }
        }
        let rows = self.store.keys(Table::Activation).count();
        let parked = self.machine.parked(RUN).count();
        if rows != parked {
            return Err(format!(
                "{rows} activation rows, {parked} parked activations"
            ));
        }
        Ok(())
    }

    fn cover(&mut self, ended: &Ended, events: usize) {
        self.coverage.hit(Mark::Event);
        self.coverage.hit(match ended.settled {
            Settled::Done => Mark::Done,
            Settled::Skipped => Mark::Skipped,
            Settled::Parked(true) => Mark::Blocked,
            Settled::Parked(false) => Mark::Parked,
            Settled::Dropped => Mark::Dropped,
            Settled::Stopped => Mark::Stopped,
        });
        if let Some(batch) = self.case.spec.sources[0].batch {
            let full = events == batch.max_events as usize;
            self.coverage
                .hit(if full { Mark::Batch } else { Mark::BatchLinger });
        }
        for (task, state) in ended.states.iter().enumerate() {
            if state.is_some() {
                self.cover_task(task, ended, *state == Some(State::Skipped));
            }
        }
    }

    fn cover_task(&mut self, task: usize, ended: &Ended, skipped: bool) {
        use evermill_core::dag::TaskKind;
        use evermill_core::rule::TriggerRule as R;
        let spec = &self.case.spec.tasks[task];
        let end = ended.finals.get(&(task as u16, -1));
        match spec.kind {
            TaskKind::Noop => self.coverage.hit(Mark::Noop),
            TaskKind::Delay { .. } => self.coverage.hit(Mark::Delay),
            TaskKind::ShortCircuit { all_downstream }
                if end.is_some_and(|e| e.proceed == Some(false)) =>
            {
                self.coverage.hit(if all_downstream {
                    Mark::ShortCircuitAll
                } else {
                    Mark::ShortCircuitDirect
                });
            }
            _ => {}
        }
        if spec.mapped.is_some() {
            let ran = ended.finals.keys().any(|(t, _)| *t == task as u16);
            if ran {
                self.coverage.hit(Mark::Map);
            } else if skipped {
                self.coverage.hit(Mark::MapEmpty);
            }
        }
        if self.graph.sources_above[task].is_empty() {
            self.coverage.hit(Mark::Root);
        }
        self.coverage.hit(match self.case.spec.order {
            Order::None => Mark::OrderNone,
            Order::Key => Mark::OrderKey,
            Order::Partition => Mark::OrderPartition,
            Order::Serial => Mark::OrderSerial,
        });
        self.coverage.hit(match spec.rule {
            R::AllSuccess => Mark::RuleAllSuccess,
            R::AllFailed => Mark::RuleAllFailed,
            R::AllDone => Mark::RuleAllDone,
            R::AllSkipped => Mark::RuleAllSkipped,
            R::OneSuccess => Mark::RuleOneSuccess,
            R::OneFailed => Mark::RuleOneFailed,
            R::OneDone => Mark::RuleOneDone,
            R::NoneFailed => Mark::RuleNoneFailed,
            R::NoneFailedMinOneSuccess => Mark::RuleNoneFailedMinOneSuccess,
            R::NoneSkipped => Mark::RuleNoneSkipped,
            R::Always => Mark::RuleAlways,
            R::AllDoneMinOneSuccess => Mark::RuleAllDoneMinOneSuccess,
            R::AllDoneSetupSuccess => Mark::RuleAllDoneSetupSuccess,
        });
    }
}
