//! What goes wrong and what operators do: stops, late reports, redrives, pauses, signals, swaps.

use std::sync::Arc;

use bytes::Bytes;
use evermill_core::command::{
    ActivationKey, Command, Counters, Fence, Outcome, OutcomeRun, Selection,
};
use evermill_core::dag::{TaskKind, TaskSpec};
use evermill_core::row::Table;
use evermill_core::{Machine, ParkReason};

use crate::check::Book;
use crate::feature::Mark;
use crate::ledger::Fact;
use crate::oracle::{Judged, State};
use crate::script::{Act, Resolve};
use crate::world::{Batch, RUN, World};

impl World<'_> {
    /// Late, repeated and foreign reports: all must be refused without a trace.
    pub(crate) fn stale(&mut self) -> Result<(), String> {
        let running = self.rng.pick(&self.past).clone();
        if self
            .workers
            .iter()
            .any(|r| r.id == running.id && r.fence == running.fence)
        {
            return Ok(());
        }
        if self.machine.next_timer().is_some_and(|due| due <= self.now) {
            // Whatever comes next does what is due, and counts it.
            return Ok(());
        }
        let old = running.fence != self.fence;
        self.coverage.hit(if old {
            Mark::StaleRefused
        } else {
            Mark::DuplicateRefused
        });
        let counters = self.machine.run(RUN).map(|run| run.counters);
        let (dispatch, fence) = (running.id, running.fence);
        if self.rng.chance(50) {
            let (refused, members) = (self.machine.refused(), running.members.len() as u32);
            let outcome = Outcome::Success;
            let run = OutcomeRun {
                first: 0,
                count: members,
                outcome,
            };
            self.apply(Command::Outcomes {
                dispatch,
                fence,
                runs: vec![run],
            })?;
            if self.machine.refused() == refused {
                return Err(format!(
                    "a stale report of {dispatch:?} was not counted as refused"
                ));
            }
        } else if self.rng.chance(50) {
            self.apply(Command::Finished { dispatch, fence })?;
        } else {
            let started = Some(0);
            self.apply(Command::Died {
                dispatch,
                fence,
                started,
                error: Bytes::new(),
            })?;
        }
        let after = self.machine.run(RUN).map(|run| run.counters);
        if after != counters {
            return Err(format!(
                "a stale report of {dispatch:?} changed the counters from {counters:?} to {after:?}"
            ));
        }
        Ok(())
    }

    /// Unclean stop: memory is gone, so is what was not committed; the commit outcome of what was on
    /// its way may be either.
    pub(crate) fn crash(&mut self) -> Result<(), String> {
        let survive = self.rng.below(self.queue.len() as u64 + 1);
        self.crash_with(survive)
    }

    /// Unclean stop; the oldest `survive` commits on their way made it, but nobody heard of it.
    pub(crate) fn crash_with(&mut self, survive: u64) -> Result<(), String> {
        self.crashes += 1;
        self.coverage.hit(Mark::Crash);
        for _ in 0..survive {
            if let Some(batch) = self.queue.pop_front() {
                drop(self.make_durable(batch)?);
            }
        }
        self.say(|_| format!("CRASH, {survive} commits on their way made it"));
        // Attempts that must not be repeated, under way or not: interrupted (C4).
        let open: Vec<(Act, u16, i32)> = self
            .durable
            .entries
            .iter()
            .flat_map(|(act, entry)| {
                entry
                    .started
                    .iter()
                    .map(|&(task, index)| (*act, task, index))
            })
            .collect();
        for (act, task, index) in open {
            self.coverage.hit(Mark::InterruptFail);
            let fact = self.failed_try(&Book::Durable, act, task, index, false, true);
            self.durable.note(self.graph, &fact)?;
        }
        self.reopen(true)
    }

    pub(crate) fn reopen(&mut self, unclean: bool) -> Result<(), String> {
        self.past.append(&mut self.workers);
        self.open = Batch::default();
        self.queue.clear();
        self.live = self.durable.clone();
        self.suspects.clear();
        self.begun.clear();
        // Of what nothing is committed, the next boot decides anew (W16).
        let durable = &self.durable.entries;
        self.pinned.retain(|act, _| {
            durable
                .get(act)
                .is_some_and(|e| !e.finals.is_empty() || !e.failures.is_empty())
        });
        self.issued.clear();
        let same_epoch = unclean && self.rng.chance(20);
        self.fence = if same_epoch {
            Fence {
                epoch: self.fence.epoch,
                incarnation: self.fence.incarnation + 1,
            }
        } else {
            Fence {
                epoch: self.fence.epoch + 1,
                incarnation: 0,
            }
        };
        if !self.directed {
            self.now += self.rng.below(20_000);
        }
        for reader in &mut self.readers {
            reader.open = false;
            reader.told = false;
        }
        let (machine, decision) = Machine::resume(
            self.fence,
            self.now,
            unclean,
            self.store.rows(),
            &self.versions,
        )
        .map_err(|e| format!("resume: {e}"))?;
        self.say(|w| format!("resume under {:?}: {:?}", w.fence, decision.effects));
        if self.store.keys(Table::Suspect).next().is_some() {
            self.coverage.hit(Mark::Probation);
        }
        self.machine = machine;
        // A replay that was asked for and not committed is asked for again.
        for at in 0..self.readers.len() {
            let again = self.case.lanes[at].replay_until.is_some();
            let lane = self.readers[at].lane;
            if again && lane.is_some_and(|lane| !self.is_replay(lane)) {
                self.readers[at].lane = None;
            }
            // What is durable need not have been said.
            let mut lanes = self.machine.lanes(RUN);
            if let Some(view) = lanes.find(|view| Some(view.lane) == lane) {
                self.readers[at].low = self.readers[at].low.max(view.low);
            }
        }
        self.open = Batch {
            sealed: self.machine.sealed(),
            decision,
            facts: Vec::new(),
            fired: Vec::new(),
            dirty: true,
            counters: None,
        };
        // A run that has ended is not started again under its number.
        if self.is_over() { Ok(()) } else { self.greet() }
    }

    /// Clean stop: nothing new is sent, workers give back what they have not started, all commits.
    pub(crate) fn clean_stop(&mut self) -> Result<(), String> {
        self.clean_stops += 1;
        self.coverage.hit(Mark::CleanStop);
        self.say(|_| "CLEAN STOP".into());
        self.apply(Command::Capacity { slots: 0 })?;
        loop {
            while !self.workers.is_empty() {
                self.report(0, usize::MAX)?;
                self.finish(0)?;
            }
            if self.open.dirty {
                self.seal()?;
            }
            if self.queue.is_empty() && self.workers.is_empty() && !self.open.dirty {
                break;
            }
            while !self.queue.is_empty() {
                self.commit()?;
            }
        }
        self.reopen(false)
    }

    /// Redrives or gives up what is parked, as the script says. `true` if anything was.
    pub(crate) fn resolve(&mut self, all: bool) -> Result<bool, String> {
        if self.is_over() {
            // What ended runs on in the next run.
            return Ok(false);
        }
        let parked: Vec<_> = self.machine.parked(RUN).collect();
        let mut any = false;
        for view in parked {
            let key = view.activation;
            let act = self.act_of(key)?;
            if view.reason == ParkReason::SuspectCrash {
                continue;
            }
            let round = self.live.entries.get(&act).map_or(0, |e| e.round);
            let blocked = view.reason == ParkReason::Blocked;
            let Some(resolve) = self.script.resolve(act, round, blocked) else {
                continue;
            };
            if !all && self.rng.chance(50) {
                continue;
            }
            any = true;
            self.resolve_one(key, act, blocked, resolve)?;
        }
        Ok(any)
    }

    /// Redrives or gives up one parked activation.
    pub(crate) fn resolve_one(
        &mut self,
        key: ActivationKey,
        act: Act,
        blocked: bool,
        resolve: Resolve,
    ) -> Result<(), String> {
        if blocked {
            self.coverage.hit(Mark::Blocked);
        }
        let selection = Selection::Keys(vec![key]);
        match resolve {
            Resolve::Redrive => {
                self.coverage.hit(Mark::Redrive);
                let states = self.states(act);
                self.fact(Fact::Redriven(act, states, !blocked))?;
                self.redriven.insert(act, (self.fence, self.last_dispatch));
                self.apply(Command::Redrive {
                    run: RUN,
                    selection,
                })
            }
            Resolve::Discard => {
                self.coverage.hit(Mark::Discard);
                self.fact(Fact::Discarded(act))?;
                self.apply(Command::Discard {
                    run: RUN,
                    selection,
                })
            }
        }
    }

    /// Final states of an activation, as far as they are known.
    pub(crate) fn states(&self, act: Act) -> Vec<Option<State>> {
        let state = |judged: Judged| match judged {
            Judged::Is(state) => Some(state),
            _ => None,
        };
        self.judged(&self.live, act)
            .into_iter()
            .map(state)
            .collect()
    }

    pub(crate) fn toggle_pause(&mut self) -> Result<(), String> {
        self.coverage.hit(Mark::Pause);
        let resume = self.paused;
        self.paused = !resume;
        if resume {
            self.apply(Command::Resume { run: RUN })
        } else {
            self.apply(Command::Pause { run: RUN })
        }
    }

    pub(crate) fn has_signals(&self) -> bool {
        let waits = |task: &TaskSpec| matches!(task.kind, TaskKind::Signal { .. });
        self.case.spec.tasks.iter().any(waits)
    }

    /// A signal for whoever waits longest, or for one activation; sometimes the last one again, which must change nothing.
    pub(crate) fn signal(&mut self, to: Option<Act>) -> Result<(), String> {
        self.coverage.hit(Mark::Signal);
        self.signals += u64::from(self.signals == 0 || self.directed || self.rng.chance(80));
        let all = !self.directed && self.rng.chance(20);
        self.apply(Command::Signal {
            run: RUN,
            id: format!("s{}", self.signals),
            name: "go".into(),
            key: 0,
            body: Bytes::from_static(b"go"),
            all,
            to: to.map(|act| self.key_of(act)).transpose()?,
            expires_ms: self.now + 3_600_000,
        })
    }

    /// The simulator's name for an activation.
    pub(crate) fn act_of(&self, key: ActivationKey) -> Result<Act, String> {
        let lane = self.readers.iter().position(|r| r.lane == Some(key.lane));
        let lane = lane.ok_or_else(|| format!("{key:?} is of no lane that was opened"))?;
        Ok(Act {
            lane: lane as u16,
            position: key.position,
            child: key.child,
        })
    }

    /// Counters of the run, as last seen by the machine.
    pub(crate) fn counters(&self) -> Result<Counters, String> {
        self.machine
            .run(RUN)
            .map(|run| run.counters)
            .ok_or_else(|| "the run is gone".into())
    }

    /// The machine's name for an activation.
    pub(crate) fn key_of(&self, act: Act) -> Result<ActivationKey, String> {
        let reader = self.readers.get(usize::from(act.lane));
        let lane = reader.and_then(|reader| reader.lane);
        Ok(ActivationKey {
            lane: lane.ok_or_else(|| format!("{act} is of no lane that was opened"))?,
            position: act.position,
            child: act.child,
        })
    }

    /// New activations use another version of the same content.
    pub(crate) fn swap(&mut self) -> Result<(), String> {
        self.swaps += 1;
        let version = format!("{}.{}", self.case.spec.version, self.swaps);
        if let Some(dag) = self.versions.get(&version).cloned() {
            self.dag = Arc::clone(&dag);
            self.apply(Command::Swap {
                run: RUN,
                dag,
                rates: Vec::new(),
            })?;
        }
        Ok(())
    }
}
