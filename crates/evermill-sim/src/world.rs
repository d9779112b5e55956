//! The world around the machine: clock, source, workers, store, and everything that goes wrong.
//!
//! Each step is one thing that may happen next; a seeded generator chooses among the possible ones.
//! The machine is driven exactly as the engine drives it: apply, seal, commit, perform.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use evermill_core::Machine;
use evermill_core::command::{
    ActivationKey, Command, Counters, Decision, DispatchId, Effect, Event, Fence, LaneId, Ms,
    RunIx, RunState,
};
use evermill_core::dag::{Dag, OnInterrupt};
use evermill_core::row::{Table, Write};

use crate::case::{Case, LaneCase};
use crate::feature::{Coverage, Feature, Mark};
use crate::generate::DAWN_MS;
use crate::graph::Graph;
use crate::ledger::{Fact, Ledger};
use crate::oracle::{Judged, evaluate};
use crate::prng::Prng;
use crate::script::{Act, Script};
use crate::store::SimStore;
use crate::versions::{place_of, turned};
use crate::worker::{Running, some_of};

/// The only run of a case.
pub const RUN: RunIx = 1;

/// Rows that are brought at a time: few, so that some are still owed while other things happen.
const OWED_MAX: usize = 2;

/// Steps after which a case counts as stuck.
const STEPS_MAX: u64 = 200_000;

/// A group on its way to the store.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) decision: Decision,
    pub(crate) facts: Vec<Fact>,
    /// Sources that had fired for attempts put on record as started (C4).
    pub(crate) fired: Vec<(Act, BTreeSet<u16>)>,
    pub(crate) dirty: bool,
    /// Of the run, as of the seal.
    pub(crate) counters: Option<Counters>,
    /// The machine's number of it.
    pub(crate) sealed: u64,
}

/// The reader of one lane.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reader {
    pub(crate) lane: Option<LaneId>,
    pub(crate) next: usize,
    pub(crate) open: bool,
    pub(crate) credit: bool,
    pub(crate) told: bool,
    /// Highest index ever ingested plus one.
    seen: usize,
    /// Highest position the machine ever acknowledged durably.
    pub(crate) low: u64,
    /// The lane it was opened for last.
    pub(crate) opened: Option<LaneId>,
}

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Ingest(usize),
    Seal,
    Commit,
    Work(usize),
    Timer,
    Advance,
    Crash,
    CleanStop,
    Capacity,
    Stale,
    Resolve,
    Pause,
    Signal,
    Swap,
    Replay(usize),
    HoldReplay,
}

/// A member that was sent to a worker.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) at: Ms,
    pub(crate) dispatch: DispatchId,
    pub(crate) task: u16,
    pub(crate) act: Act,
    pub(crate) key: u128,
}

/// A case being played.
pub struct World<'a> {
    pub(crate) case: &'a Case,
    pub(crate) graph: &'a Graph,
    pub(crate) dag: Arc<Dag>,
    pub(crate) versions: BTreeMap<String, Arc<Dag>>,
    /// The case's script, with the interruptions that happened.
    pub script: Script,
    pub(crate) rng: Prng,
    pub(crate) now: Ms,
    pub(crate) machine: Machine,
    pub(crate) fence: Fence,
    pub(crate) store: SimStore,
    pub(crate) open: Batch,
    pub(crate) queue: VecDeque<Batch>,
    pub(crate) workers: Vec<Running>,
    pub(crate) past: Vec<Running>,
    pub(crate) readers: Vec<Reader>,
    /// What the machine was told.
    pub(crate) live: Ledger,
    /// What of it is committed.
    pub(crate) durable: Ledger,
    /// Events told as done and as skipped, durably.
    pub(crate) told: (u64, u64),
    /// Effect keys used by any attempt, accepted or not.
    pub(crate) effects: BTreeSet<(Act, u16, i32, u32)>,
    /// Starts of attempts that must not be repeated: act, task, index, round, try.
    pub(crate) starts: BTreeSet<(Act, u16, i32, u32, u32)>,
    /// Members whose worker died with others around: they must come back alone.
    pub(crate) suspects: BTreeSet<(Act, u16, i32)>,
    /// Redriven activations: the fence, and the last dispatch that was decided before.
    pub(crate) redriven: BTreeMap<Act, (Fence, DispatchId)>,
    /// The last dispatch that was decided.
    pub(crate) last_dispatch: DispatchId,
    /// Deadlines missed, as told.
    pub(crate) missed: u64,
    /// The version of each activation that was sent.
    pub(crate) pinned: BTreeMap<Act, String>,
    /// When members of rate-limited tasks were issued in this boot, and did not come back unstarted.
    pub(crate) issued: Vec<Issued>,
    pub(crate) signals: u64,
    pub(crate) swaps: u32,
    /// Sources bound in each joined activation that was ever sent (W6).
    pub(crate) bound: BTreeMap<Act, BTreeSet<u16>>,
    /// Activations that have begun in this boot.
    pub(crate) begun: BTreeSet<Act>,
    /// Events in each activation that was ever sent: membership of batches.
    pub(crate) members: BTreeMap<Act, usize>,
    /// Order of accepted or running starts, for scenarios.
    pub(crate) started: Vec<(u16, Act, i32)>,
    /// What was exercised.
    pub coverage: Coverage,
    /// Written down when somebody wants to read it.
    pub trace: Option<Vec<String>>,
    pub(crate) steps: u64,
    /// Unclean stops so far.
    pub crashes: u32,
    pub(crate) clean_stops: u32,
    pub(crate) deaths: u32,
    pub(crate) paused: bool,
    /// A scenario decides every step; nothing is left to chance.
    pub(crate) directed: bool,
}

impl<'a> World<'a> {
    /// A world about to begin.
    ///
    /// # Errors
    /// The machine refuses an empty store.
    pub fn new(
        case: &'a Case,
        graph: &'a Graph,
        dag: Arc<Dag>,
        trace: bool,
    ) -> Result<Self, String> {
        let fence = Fence {
            epoch: 1,
            incarnation: 0,
        };
        let mut versions = BTreeMap::from([(case.spec.version.clone(), Arc::clone(&dag))]);
        for swap in 1..=case.world.swaps {
            let next = turned(&case.spec, swap as usize)?;
            versions.insert(next.spec.version.clone(), Arc::new(next));
        }
        let (machine, decision) = Machine::resume(fence, DAWN_MS, false, Vec::new(), &versions)
            .map_err(|e| format!("resume of an empty store: {e}"))?;
        let mut world = Self {
            case,
            graph,
            dag,
            versions,
            script: case.script.clone(),
            rng: Prng::new(case.world.seed),
            now: DAWN_MS,
            machine,
            fence,
            store: SimStore::default(),
            open: Batch {
                decision,
                dirty: true,
                ..Batch::default()
            },
            queue: VecDeque::new(),
            workers: Vec::new(),
            past: Vec::new(),
            readers: vec![Reader::default(); case.lanes.len()],
            live: Ledger::default(),
            durable: Ledger::default(),
            told: (0, 0),
            effects: BTreeSet::new(),
            starts: BTreeSet::new(),
            suspects: BTreeSet::new(),
            pinned: BTreeMap::new(),
            issued: Vec::new(),
            signals: 0,
            swaps: 0,
            redriven: BTreeMap::new(),
            last_dispatch: DispatchId(0),
            missed: 0,
            bound: BTreeMap::new(),
            begun: BTreeSet::new(),
            members: BTreeMap::new(),
            started: Vec::new(),
            coverage: Coverage::default(),
            trace: trace.then(Vec::new),
            steps: 0,
            crashes: 0,
            clean_stops: 0,
            deaths: 0,
            paused: false,
            directed: false,
        };
        world.greet()?;
        Ok(world)
    }

    /// Plays until nothing can happen any more.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn play(&mut self) -> Result<(), String> {
        while self.steps < STEPS_MAX {
            self.steps += 1;
            if !self.step()? {
                return Ok(());
            }
        }
        Err(format!(
            "nothing settles: {STEPS_MAX} steps, {:?}",
            self.machine.run(RUN)
        ))
    }

    pub(crate) fn say(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!(
                "[{:>5} t+{}] {}",
                self.steps,
                self.now - DAWN_MS,
                line(self)
            );
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    /// What the engine says after every start.
    pub(crate) fn greet(&mut self) -> Result<(), String> {
        for (pool, &slots) in self.case.world.pools.iter().enumerate() {
            self.apply(Command::Pool {
                pool: pool as u16,
                slots,
            })?;
        }
        let (dag, slots) = (Arc::clone(&self.dag), self.case.world.slots);
        self.apply(Command::Start {
            run: RUN,
            name: "run".into(),
            dag,
            fresh: false,
        })?;
        for &(of, members, interval_ms) in &self.case.world.rates {
            self.apply(Command::RateLimit {
                run: RUN,
                of,
                members,
                interval_ms,
            })?;
        }
        let state = self.machine.run(RUN).map(|run| run.state);
        if state == Some(RunState::Paused) {
            // A pause lasts over a start, until the operator says so.
            self.apply(Command::Resume { run: RUN })?;
        }
        self.paused = false;
        let live = self.case.lanes.iter().filter(|lane| lane.is_first());
        for lane in live {
            self.apply(Command::OpenLane {
                run: RUN,
                source: place_of(&self.dag.spec, &self.case.spec, lane.source),
                name: lane.name.clone(),
                incarnation: "i".into(),
                first: lane.first,
            })?;
        }
        self.apply(Command::Capacity { slots })
    }

    /// Reads what the machine has let go of, as the store has it.
    fn bring(&mut self, activations: Vec<ActivationKey>) -> Result<(), String> {
        if activations.is_empty() {
            return Ok(());
        }
        let mut bodies = Vec::new();
        for key in activations {
            let body = self.store.row(Table::Activation, &key.row());
            let body = body.ok_or_else(|| format!("{key:?} was let go of and has no row"))?;
            bodies.push((key, body.clone()));
        }
        self.coverage.hit(Mark::Brought);
        self.machine.apply(
            self.now,
            Command::Fetched { bodies },
            &mut self.open.decision,
        );
        Ok(())
    }

    pub(crate) fn apply(&mut self, command: Command) -> Result<(), String> {
        self.say(|_| match &command {
            Command::Start { .. } => "apply Start".into(),
            Command::Ingest { lane, events } => {
                let positions: Vec<u64> = events.iter().map(|e| e.position).collect();
                format!("apply Ingest {}: {positions:?}", lane.lane)
            }
            command => format!("apply {command:?}"),
        });
        let before = self.open.decision.effects.len();
        let wanted = self.machine.wanted(&command);
        self.bring(wanted)?;
        self.machine
            .apply(self.now, command, &mut self.open.decision);
        let owed = self.machine.owed(OWED_MAX);
        self.bring(owed)?;
        self.open.dirty = true;
        let fresh: Vec<Effect> = self.open.decision.effects[before..].to_vec();
        for effect in fresh {
            self.say(|_| format!("  -> {effect:?}"));
            if let Effect::LaneOpen { lane, name, .. } = &effect {
                self.name_lane(*lane, name);
            }
            let Effect::Dispatch { id, speculative } = effect else {
                continue;
            };
            self.last_dispatch = id;
            if self.paused {
                return Err(format!("{id:?} was sent while the run is paused"));
            }
            self.note_start(id)?;
            if speculative && (self.directed || self.rng.chance(70)) {
                let sent = Effect::Dispatch { id, speculative };
                self.open.decision.effects.retain(|e| *e != sent);
                self.coverage.hit(Mark::Speculative);
                self.send(id, true)?;
            }
        }
        Ok(())
    }

    /// Attempts that must not be repeated are on record from the commit that sends them (C4).
    fn note_start(&mut self, id: DispatchId) -> Result<(), String> {
        let Some(running) = self.receive(id)? else {
            return Ok(());
        };
        self.check_rates(&running)?;
        self.check_blocked(&running)?;
        let spec = &self.case.spec.tasks[usize::from(running.task)];
        if spec.on_interrupt == OnInterrupt::Fail {
            for member in &running.members {
                self.fact(Fact::Started(member.act, running.task, member.index))?;
                let fired = (member.act, member.fired.clone());
                self.open.fired.push(fired);
            }
        }
        Ok(())
    }

    pub(crate) fn fact(&mut self, fact: Fact) -> Result<(), String> {
        self.live.note(self.graph, &fact)?;
        self.open.facts.push(fact);
        Ok(())
    }

    fn step(&mut self) -> Result<bool, String> {
        if self.case.world.crash_at.contains(&self.steps) {
            self.crash()?;
            return Ok(true);
        }
        let (usual, rare) = self.possible();
        let step = if usual.is_empty() && !rare.contains(&Step::Advance) {
            // Quiescent: only what an operator may still do.
            if rare.contains(&Step::Resolve) && self.resolve(true)? {
                return Ok(true);
            }
            if let Some(at) = self.next_replay() {
                self.replay(at)?;
                return Ok(true);
            }
            if self.held_replay().is_some_and(|(_, paused)| paused) {
                self.hold_replay()?;
                return Ok(true);
            }
            if self.paused {
                self.toggle_pause()?;
                return Ok(true);
            }
            if self.has_signals() && !self.machine.is_idle(RUN) && self.signals < 2_000 {
                self.signal(None)?;
                return Ok(true);
            }
            return Ok(false);
        } else if usual.is_empty() || (!rare.is_empty() && self.rng.chance(4)) {
            *self.rng.pick(&rare)
        } else {
            *self.rng.pick(&usual)
        };
        match step {
            Step::Ingest(lane) => self.ingest(lane)?,
            Step::Seal => self.seal()?,
            Step::Commit => self.commit()?,
            Step::Work(worker) => self.work(worker)?,
            Step::Timer => self.apply(Command::Timer)?,
            Step::Advance => self.advance()?,
            Step::Crash => self.crash()?,
            Step::CleanStop => self.clean_stop()?,
            Step::Capacity => {
                let slots = self.rng.between(1, u64::from(self.case.world.slots)) as u32;
                self.apply(Command::Capacity { slots })?;
            }
            Step::Stale => self.stale()?,
            Step::Resolve => drop(self.resolve(false)?),
            Step::Pause => self.toggle_pause()?,
            Step::Signal => self.signal(None)?,
            Step::Swap => self.swap()?,
            Step::Replay(at) => self.replay(at)?,
            Step::HoldReplay => self.hold_replay()?,
        }
        Ok(true)
    }

    /// What may happen now: the usual business, and what is rare.
    fn possible(&self) -> (Vec<Step>, Vec<Step>) {
        let (mut usual, mut rare) = (Vec::new(), Vec::new());
        let eager = &self.case.world.eager;
        let mut often = |step: Step, times: u64| (0..times).for_each(|_| usual.push(step));
        for (at, reader) in self.readers.iter().enumerate() {
            let unread = reader.next < self.case.lanes[at].events.len();
            if reader.open && reader.credit && (unread || !reader.told) && !self.case.is_loop() {
                often(Step::Ingest(at), eager[0]);
            }
        }
        if self.open.dirty && self.queue.len() < self.case.world.lag {
            often(Step::Seal, eager[1]);
        }
        if !self.queue.is_empty() {
            often(Step::Commit, eager[2]);
        }
        for at in 0..self.workers.len() {
            often(Step::Work(at), eager[3]);
        }
        match self.machine.next_timer() {
            Some(due) if due <= self.now => often(Step::Timer, eager[4]),
            Some(_) => rare.push(Step::Advance),
            None => {}
        }
        let busy = !usual.is_empty();
        let features = self.case.features;
        let on = |feature, more: bool| features.has(feature) && more;
        if on(
            Feature::Crash,
            self.crashes < self.case.world.crashes && busy,
        ) {
            rare.push(Step::Crash);
        }
        if on(
            Feature::CleanStop,
            self.clean_stops < self.case.world.clean_stops && busy,
        ) {
            rare.push(Step::CleanStop);
        }
        if on(Feature::Stale, busy && !self.past.is_empty()) {
            rare.push(Step::Stale);
        }
        if self.script.redrive + self.script.discard > 0 || !self.script.resolves.is_empty() {
            rare.push(Step::Resolve);
        }
        if busy && self.has_signals() {
            rare.push(Step::Signal);
        }
        if on(Feature::Swap, busy && self.swaps < self.case.world.swaps) {
            rare.push(Step::Swap);
        }
        if let Some(at) = self.next_replay().filter(|_| busy) {
            rare.push(Step::Replay(at));
        }
        if on(Feature::Pause, busy) {
            rare.push(Step::Pause);
        }
        if on(Feature::Replay, busy && self.held_replay().is_some()) {
            rare.push(Step::HoldReplay);
        }
        if busy {
            rare.push(Step::Capacity);
        }
        (usual, rare)
    }

    pub(crate) fn advance(&mut self) -> Result<(), String> {
        if let Some(due) = self.machine.next_timer() {
            self.now = self.now.max(due) + self.rng.below(3);
        }
        self.apply(Command::Timer)
    }

    pub(crate) fn has_unread(&self, at: usize) -> bool {
        let reader = &self.readers[at];
        !self.case.is_loop()
            && reader.open
            && reader.credit
            && reader.next < self.case.lanes[at].events.len()
    }

    fn ingest(&mut self, at: usize) -> Result<(), String> {
        let events = &self.case.lanes[at].events;
        let reader = &mut self.readers[at];
        let Some(lane) = reader.lane else {
            return Ok(());
        };
        if reader.next == events.len() {
            reader.told = true;
            let until = self.case.lanes[at].replay_until;
            let says_so = until.is_some() && self.rng.chance(50);
            return self.apply(match until {
                None => Command::CaughtUp { lane },
                Some(_) if says_so => Command::ReplayRead { lane },
                Some(position) => Command::Ingest {
                    lane,
                    events: vec![Event {
                        position,
                        key: 0,
                        arrived_ms: self.now,
                        body: Bytes::new(),
                    }],
                },
            });
        }
        let chunk = self.rng.between(1, self.case.world.chunk);
        self.ingest_some(at, chunk as usize)
    }

    /// Reads at most this many events of a lane.
    pub(crate) fn ingest_some(&mut self, at: usize, chunk: usize) -> Result<(), String> {
        let events = &self.case.lanes[at].events;
        let reader = &mut self.readers[at];
        let Some(lane) = reader.lane else {
            return Err("the lane is not open".into());
        };
        let until = (reader.next + chunk).min(events.len());
        let batch = events[reader.next..until].to_vec();
        if reader.next < reader.seen {
            self.coverage.hit(Mark::Regroup);
        }
        reader.next = until;
        reader.seen = reader.seen.max(until);
        if batch
            .windows(2)
            .any(|pair| pair[1].position > pair[0].position + 1)
        {
            self.coverage.hit(Mark::Gap);
        }
        self.apply(Command::Ingest {
            lane,
            events: batch,
        })
    }

    pub(crate) fn seal(&mut self) -> Result<(), String> {
        let mut batch = std::mem::take(&mut self.open);
        self.machine.seal(&mut batch.decision);
        batch.sealed = self.machine.sealed();
        self.check_counters()?;
        batch.counters = self.machine.run(RUN).map(|run| run.counters);
        if batch.decision.writes.is_empty()
            && batch.decision.effects.is_empty()
            && batch.facts.is_empty()
        {
            return Ok(());
        }
        self.say(|_| format!("seal: {} writes", batch.decision.writes.len()));
        self.queue.push_back(batch);
        Ok(())
    }

    pub(crate) fn commit(&mut self) -> Result<(), String> {
        let Some(batch) = self.queue.pop_front() else {
            return Ok(());
        };
        let sealed = batch.sealed;
        let effects = self.make_durable(batch)?;
        self.machine.committed(sealed);
        for effect in effects {
            self.perform(effect)?;
        }
        Ok(())
    }

    pub(crate) fn make_durable(&mut self, batch: Batch) -> Result<Vec<Effect>, String> {
        self.store.commit(&batch.decision.writes);
        self.hear(&batch)?;
        let materialises =
            |write: &Write| matches!(write, Write::Put(row) if row.table == Table::Activation);
        if batch.decision.writes.iter().any(materialises) {
            self.coverage.hit(Mark::Materialise);
        }
        for fact in &batch.facts {
            self.durable.note(self.graph, fact)?;
        }
        for (act, fired) in &batch.fired {
            self.bound.entry(*act).or_default().extend(fired);
        }
        for write in &batch.decision.writes {
            self.note_batch(write)?;
        }
        self.say(|w| format!("commit {}: {:?}", w.store.commits, batch.facts));
        Ok(batch.decision.effects)
    }

    /// W8: what a list holds is settled by its row, whether any of its tasks runs or not.
    fn note_batch(&mut self, write: &Write) -> Result<(), String> {
        let Write::Put(row) = write else {
            return Ok(());
        };
        let [_format, count] = row.body[..] else {
            return Ok(());
        };
        let position = row.key.id.get(..8).and_then(|id| id.try_into().ok());
        if row.table == Table::Batch
            && let Some(position) = position.map(u64::from_be_bytes)
        {
            let lane = LaneId {
                run: row.key.run,
                lane: row.key.lane,
            };
            let act = self.act_of(ActivationKey {
                lane,
                position,
                child: 0,
            })?;
            self.members.entry(act).or_insert(usize::from(count));
        }
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<(), String> {
        self.say(|_| format!("  perform {effect:?}"));
        match effect {
            Effect::Dispatch { id, .. } => {
                self.coverage.hit(Mark::Careful);
                self.send(id, false)?;
            }
            Effect::LaneOpen {
                lane,
                name,
                position,
                ..
            } => {
                self.open_reader(lane, &name, position)?;
            }
            Effect::Credit { lane, open } => {
                if !open {
                    self.coverage.hit(Mark::CreditStop);
                }
                for reader in self.readers.iter_mut().filter(|r| r.lane == Some(lane)) {
                    reader.credit = open;
                }
            }
            Effect::Recall(id) => {
                for running in self.workers.iter_mut().filter(|r| r.id == id) {
                    running.recalled = true;
                    self.coverage.hit(Mark::Recall);
                }
            }
            Effect::Ack { lane, position } => self.acknowledge(lane, position)?,
            Effect::DeadlineMissed { count, .. } => {
                self.missed += u64::from(count);
                self.coverage.hit(Mark::Deadline);
            }
            Effect::LaneClose(lane) => {
                for reader in self.readers.iter_mut().filter(|r| r.lane == Some(lane)) {
                    reader.open = false;
                }
            }
            Effect::RunState { .. } => {}
        }
        Ok(())
    }

    /// A lane got its number; it is read once that is committed.
    fn name_lane(&mut self, lane: LaneId, name: &str) {
        if let Some(at) = self.lane_index(lane, name) {
            self.readers[at].lane = Some(lane);
        }
    }

    fn lane_index(&self, lane: LaneId, name: &str) -> Option<usize> {
        let (again, reset) = (self.is_replay(lane), self.is_reset(lane));
        let known = self.machine.lanes(RUN).find(|known| known.lane == lane)?;
        let sources = &self.case.spec.sources;
        let fits = |of: &LaneCase| {
            // A case of a DAG that is triggered by hand has a lane of no source.
            let id = sources.get(usize::from(of.source));
            id.map_or("", |source| &source.id) == known.source_id
                && of.name == name
                && of.replay_until.is_some() == again
                && of.reset == reset
        };
        self.case.lanes.iter().position(fits)
    }

    fn acknowledge(&mut self, lane: LaneId, position: u64) -> Result<(), String> {
        for reader in self.readers.iter_mut().filter(|r| r.lane == Some(lane)) {
            if position < reader.low {
                return Err(format!(
                    "the cursor went back from {} to {position}",
                    reader.low
                ));
            }
            reader.low = position;
        }
        Ok(())
    }

    fn open_reader(&mut self, lane: LaneId, name: &str, position: u64) -> Result<(), String> {
        let Some(at) = self.lane_index(lane, name) else {
            return Err(format!("unknown lane '{name}' was opened"));
        };
        let events = &self.case.lanes[at].events;
        let reader = &mut self.readers[at];
        if position < reader.low {
            return Err(format!(
                "lane {name} reopens at {position}, below {}",
                reader.low
            ));
        }
        let mut next = events.partition_point(|event| event.position < position);
        if self.case.features.has(Feature::Reread) && next > 0 && self.rng.chance(30) {
            next = self.rng.below(next as u64 + 1) as usize;
            self.coverage.hit(Mark::Reread);
        }
        // One that goes on while some of it is under way stands where it was last said to stand.
        let again = reader.opened == Some(lane);
        let low = if again { reader.low } else { position };
        let seen = reader.seen;
        *reader = Reader {
            lane: Some(lane),
            next,
            open: true,
            credit: true,
            told: false,
            seen,
            low,
            opened: Some(lane),
        };
        Ok(())
    }

    /// Hands a dispatch to a worker.
    fn send(&mut self, id: DispatchId, speculative: bool) -> Result<(), String> {
        let Some(running) = self.receive(id)? else {
            return Ok(());
        };
        if self.workers.iter().any(|r| r.id == id) {
            return Err(format!("{id:?} was sent twice"));
        }
        self.check_dispatch(&running, speculative)?;
        self.say(|_| {
            let who: Vec<String> = running
                .members
                .iter()
                .map(|m| format!("{}[{}]#{}", m.act, m.index, m.tries))
                .collect();
            format!(
                "send {id:?} task {} {:?}: {}",
                running.task,
                running.order,
                who.join(" ")
            )
        });
        self.workers.push(running);
        Ok(())
    }

    fn work(&mut self, at: usize) -> Result<(), String> {
        let upcoming = self.workers[at].upcoming();
        let alone = self.workers[at].members.len() == 1;
        let task = usize::from(self.workers[at].task);
        let repeats = self.case.spec.tasks[task].on_interrupt == OnInterrupt::Rerun;
        let may_die = self.deaths < self.case.world.deaths
            && self.case.features.has(Feature::Death)
            && !upcoming.is_empty();
        if may_die && self.rng.chance(6) {
            self.deaths += 1;
            self.report(at, usize::MAX)?;
            let started = if alone && repeats || self.rng.chance(30) {
                None
            } else {
                Some(upcoming[0])
            };
            return self.die(at, started, true);
        }
        let unreported = self.workers[at].unreported.len();
        let slice_over = self.rng.chance(8) && !alone;
        if upcoming.is_empty() || (slice_over && unreported == 0) {
            if unreported > 0 {
                let count = some_of(&mut self.rng, unreported);
                self.report(at, count)?;
            }
            return if self.workers[at].unreported.is_empty() {
                self.finish(at)
            } else {
                Ok(())
            };
        }
        if unreported > 0 && self.rng.chance(40) {
            let count = some_of(&mut self.rng, unreported);
            return self.report(at, count);
        }
        let free = self.workers[at].order == evermill_core::command::DispatchOrder::Independent;
        if free && self.workers[at].next > 0 && self.rng.chance(6) {
            return self.return_rest(at);
        }
        match self.call(at, &upcoming)? {
            Some(killer) => {
                self.report(at, usize::MAX)?;
                self.die(at, Some(killer), false)
            }
            None => Ok(()),
        }
    }

    /// Reports what a worker has ended, oldest first.
    pub(crate) fn report(&mut self, at: usize, count: usize) -> Result<(), String> {
        let runs = self.workers[at].take_report(count);
        if runs.is_empty() {
            return Ok(());
        }
        let (id, fence) = (self.workers[at].id, self.workers[at].fence);
        if self.is_over() {
            // The run has ended: nobody wants to know any more (W10).
            return self.apply(Command::Outcomes {
                dispatch: id,
                fence,
                runs,
            });
        }
        let refused = self.machine.refused();
        for run in &runs {
            for member in run.first..run.first + run.count {
                self.accept(at, member as usize, &run.outcome)?;
            }
        }
        self.apply(Command::Outcomes {
            dispatch: id,
            fence,
            runs,
        })?;
        if self.machine.refused() != refused {
            return Err(format!(
                "a report of {id:?} under the current fence was refused"
            ));
        }
        Ok(())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.machine.run(RUN).is_some_and(|run| {
            matches!(
                run.state,
                RunState::Failed | RunState::Finished | RunState::Stopped
            )
        })
    }

    /// A dispatch is over; what was not reported was not started.
    pub(crate) fn finish(&mut self, at: usize) -> Result<(), String> {
        let running = self.workers.swap_remove(at);
        let left = running.left();
        if !left.is_empty() {
            self.coverage.hit(Mark::Tail);
        }
        self.give_back(&running, &left)?;
        self.unissue(&running, &left);
        let (dispatch, fence) = (running.id, running.fence);
        self.past.push(running);
        self.apply(Command::Finished { dispatch, fence })
    }

    /// A worker gives back what it has not started, and goes on with what it has.
    pub(crate) fn return_rest(&mut self, at: usize) -> Result<(), String> {
        let running = self.workers[at].clone();
        let rest: Vec<usize> = (running.next..running.members.len()).collect();
        if rest.is_empty() {
            return Ok(());
        }
        self.coverage.hit(Mark::Rest);
        self.give_back(&running, &rest)?;
        self.unissue(&running, &rest);
        self.workers[at].members.truncate(running.next);
        let (dispatch, fence) = (running.id, running.fence);
        let from = running.next as u32;
        self.apply(Command::Returned {
            dispatch,
            fence,
            from,
        })
    }

    fn give_back(&mut self, running: &Running, left: &[usize]) -> Result<(), String> {
        let spec = &self.case.spec.tasks[usize::from(running.task)];
        if spec.on_interrupt == OnInterrupt::Fail {
            for &member in left {
                let member = &running.members[member];
                self.fact(Fact::Returned(member.act, running.task, member.index))?;
            }
        }
        Ok(())
    }

    /// The worker died; `started` is the member it was in.
    pub(crate) fn die(
        &mut self,
        at: usize,
        started: Option<usize>,
        by_chance: bool,
    ) -> Result<(), String> {
        self.coverage.hit(Mark::Death);
        let running = self.workers.swap_remove(at);
        let once =
            self.case.spec.tasks[usize::from(running.task)].on_interrupt == OnInterrupt::Fail;
        // A vectorised call has started all its members.
        let started = started.map(|member| {
            if once {
                member.max(running.next.saturating_sub(1))
            } else {
                member
            }
        });
        let mut left = running.left();
        left.retain(|member| {
            started.is_none_or(|started| *member > started || !once && *member != started)
        });
        self.give_back(&running, &left)?;
        self.unissue(&running, &running.left());
        if let Some(member) = started {
            self.interrupted(&running, member, by_chance)?;
        }
        let (dispatch, fence) = (running.id, running.fence);
        let started = started.map(|member| member as u32);
        self.past.push(running);
        self.apply(Command::Died {
            dispatch,
            fence,
            started,
            error: Bytes::from_static(b"died"),
        })
    }

    /// What is known of an activation's tasks from a ledger alone.
    pub(crate) fn judged(&self, ledger: &Ledger, act: Act) -> Vec<Judged> {
        let mut fired = BTreeSet::from([self.case.lanes[usize::from(act.lane)].source]);
        let mut awaited = BTreeSet::new();
        if self.graph.joins {
            fired.extend(self.bound.get(&act).into_iter().flatten());
            let all = 0..self.case.spec.sources.len() as u16;
            awaited.extend(all.filter(|source| !fired.contains(source)));
        }
        let none = crate::oracle::Finals::new();
        let finals = ledger
            .entries
            .get(&act)
            .map_or(&none, |entry| &entry.finals);
        evaluate(&self.case.spec, self.graph, &fired, &awaited, finals)
    }
}
