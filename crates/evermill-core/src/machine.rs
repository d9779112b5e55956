//! The machine: the only place where a command meets the state of a shard.
//!
//! `apply` changes memory and adds to a decision; nothing is durable until the driver has committed
//! the sealed decision, and memory runs ahead of the store (C8). A failed commit drops the machine;
//! `resume` builds it again from committed rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::activation::{Held, ParkReason, Snapshot};
use crate::command::{
    ActivationKey, Command, Counters, Decision, DispatchId, Effect, Event, Fence, LaneId, Ms,
    RunIx, RunState, ScopeState, Stretch,
};
use crate::dag::Dag;
use crate::dispatch::{DispatchView, Dispatches};
use crate::few::Few;
use crate::history::Budget;
use crate::lane::{Lane, Replay, Reset};
use crate::packed::Packed;
use crate::pool::Pool;
use crate::row::{Key, Row as StoreRow, Table, Write};
use crate::run::{Materialised, Run, RunRow, Signal, StateScope};
use crate::signal::Whom;
use crate::wave::Wave;

/// What a timer is for. Timers are hints: whoever is woken looks at its own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Holds and deadlines of the wave with this id in this slot.
    Wave(u32, u64),
    /// A materialised activation.
    Held(ActivationKey),
    /// A materialised activation misses its deadline.
    Late(ActivationKey),
    /// A batching lane stops lingering.
    Linger(LaneId),
    /// A loop emits its next iteration.
    Loop(LaneId),
    /// A rate limit opens again.
    Rate(RunIx),
    /// A signal expires.
    Signal(RunIx),
}

/// The state of a shard and its only transition function.
#[derive(Debug)]
pub struct Machine {
    pub(crate) fence: Fence,
    pub(crate) now: Ms,
    pub(crate) runs: BTreeMap<RunIx, Run>,
    pub(crate) waves: Vec<Option<Wave>>,
    pub(crate) free_waves: Vec<u32>,
    pub(crate) next_wave: u64,
    pub(crate) dispatches: Dispatches,
    pub(crate) next_dispatch: u64,
    /// Dispatches from this one on have not run for long yet (W2).
    pub(crate) next_uncovered: DispatchId,
    pub(crate) slots: u32,
    pub(crate) used: u32,
    pub(crate) timers: BTreeSet<(Ms, Timer)>,
    /// Timers of materialised activations ([`Timer::Held`]): there may be many.
    pub(crate) held_timers: Packed<(Ms, ActivationKey), ()>,
    /// Decisions that were sealed.
    pub(crate) sealed: u64,
    /// Activations that began to wait since then.
    pub(crate) fresh_waits: Vec<ActivationKey>,
    /// Those that began to wait in a decision that was sealed and is not known to be durable.
    pub(crate) begun_waits: VecDeque<(u64, Vec<ActivationKey>)>,
    /// Activations that would go on if their bodies were here.
    pub(crate) owed: BTreeSet<ActivationKey>,
    /// Of those, the ones that somebody is bringing.
    pub(crate) fetching: BTreeSet<ActivationKey>,
    pub(crate) pools: BTreeMap<u16, Pool>,
    /// Runs with ready members: by their most important task, then the least served first.
    pub(crate) ready_runs: Few<(i64, u64, RunIx)>,
    /// The share of the run that was served last: who comes anew begins there, not at nothing.
    pub(crate) served: u64,
    /// When it is looked for tasks that were passed over for long; the last dispatch was for one.
    pub(crate) passed_over_at: Ms,
    pub(crate) served_out_of_turn: bool,
    pub(crate) dirty_runs: Few<RunIx>,
    pub(crate) dirty_lanes: Few<LaneId>,
    /// Lanes with pending events.
    pub(crate) hungry: Few<LaneId>,
    /// Materialised activations to put back into waves at the end of this command.
    pub(crate) releases: Vec<ActivationKey>,
    /// Materialised activations that must be alone in the shard, and wait for it (C6).
    pub(crate) lonely: VecDeque<ActivationKey>,
    /// Live waves that must be alone in the shard (C6).
    pub(crate) alone: u32,
    /// Runs that failed under this command: they stop once it is worked off.
    pub(crate) stopping: Vec<RunIx>,
    /// Members touched while another wave was worked on: slot, wave id, member.
    pub(crate) revisit: Vec<(u32, u64, u32)>,
    /// Full rows of history that may still be written.
    pub(crate) history: Budget,
    /// Outcomes refused because of their fence, or because their member had ended (C5).
    pub(crate) refused: u64,
    /// DAGs whose ends are told; all of them until somebody says.
    pub(crate) announced: Option<BTreeSet<String>>,
}

/// What a face may know of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunView {
    /// Number of the run.
    pub run: RunIx,
    /// Stable name.
    pub name: String,
    /// DAG id.
    pub dag: String,
    /// Hash of the version new activations use.
    pub version: String,
    /// Life.
    pub state: RunState,
    /// Counters, in events.
    pub counters: Counters,
    /// Materialised activations that wait: backoff, sensor, held, open join.
    pub waiting: usize,
    /// Activations that missed their deadline.
    pub deadlines_missed: u64,
}

/// A parked activation, as a face lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedView {
    /// Which.
    pub activation: ActivationKey,
    /// Why.
    pub reason: ParkReason,
    /// Events it stands for.
    pub events: u64,
    /// Times it was redriven.
    pub round: u32,
    /// Hash of the version it is pinned to (W16).
    pub version: String,
    /// Failed tasks (index into `DagSpec::tasks` of that version) with their last error.
    pub errors: Vec<(u16, bytes::Bytes)>,
    /// The events themselves: of its own lane first, then those bound to it (W6).
    pub carries: Vec<Event>,
}

/// A lane, as a face lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneView {
    /// Which.
    pub lane: LaneId,
    /// Index into `DagSpec::sources` of the run's version; meaningless when `retired`.
    pub source: u16,
    /// That source's id; empty for what is triggered by hand.
    pub source_id: String,
    /// The run's version has no such source (W16): nothing new comes from it.
    pub retired: bool,
    /// The source's name for it.
    pub name: String,
    /// Its incarnation (C1).
    pub incarnation: String,
    /// Its generation (W18).
    pub generation: u32,
    /// Next position such that everything read before is settled or materialised, as last sealed.
    pub low: u64,
    /// Next position to read.
    pub read: u64,
    /// The first position of which nothing has begun.
    pub begun: u64,
    /// Events pending or in waves.
    pub in_flight: usize,
    /// Of these, events in waves.
    pub in_waves: usize,
    /// The source has nothing unread.
    pub caught_up: bool,
    /// A source reads it, or is to.
    pub open: bool,
    /// Set for a replay.
    pub replay: Option<Replay>,
    /// It took the place of an earlier one, by somebody's order.
    pub reset: Option<Reset>,
    /// Nothing more is read into it.
    pub closed: bool,
    /// The generation that enters effect keys (C1).
    pub key_generation: u32,
}

impl LaneView {
    /// Whether it is the one that its source reads, and no replay of it.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.replay.is_none() && !self.closed
    }
}

impl Machine {
    /// An empty shard under this fence.
    #[must_use]
    pub fn new(fence: Fence) -> Self {
        Self {
            fence,
            now: 0,
            runs: BTreeMap::new(),
            waves: Vec::new(),
            free_waves: Vec::new(),
            next_wave: (fence.epoch << 32) | (u64::from(fence.incarnation & 0xfff) << 20),
            dispatches: Dispatches::default(),
            next_dispatch: 1,
            next_uncovered: DispatchId(0),
            slots: 0,
            used: 0,
            timers: BTreeSet::new(),
            held_timers: Packed::new(),
            sealed: 0,
            fresh_waits: Vec::new(),
            begun_waits: VecDeque::new(),
            owed: BTreeSet::new(),
            fetching: BTreeSet::new(),
            pools: BTreeMap::new(),
            ready_runs: Few::new(),
            served: 0,
            passed_over_at: 0,
            served_out_of_turn: false,
            dirty_runs: Few::new(),
            dirty_lanes: Few::new(),
            hungry: Few::new(),
            releases: Vec::new(),
            lonely: VecDeque::new(),
            alone: 0,
            stopping: Vec::new(),
            revisit: Vec::new(),
            history: Budget::default(),
            refused: 0,
            announced: None,
        }
    }

    /// Applies one command. `now` never goes back; an earlier time counts as the latest one seen.
    pub fn apply(&mut self, now: Ms, command: Command, out: &mut Decision) {
        self.now = self.now.max(now);
        match command {
            Command::Start {
                run,
                name,
                dag,
                fresh,
            } => self.start(run, name, &dag, fresh, out),
            Command::OpenLane {
                run,
                source,
                name,
                incarnation,
                first,
            } => {
                self.open_lane(run, source, name, incarnation, first, out);
            }
            Command::Ingest { lane, events } => self.ingest(lane, events, out),
            Command::CaughtUp { lane } => self.caught_up(lane, out),
            Command::CloseLane { lane } => self.close_lane(lane),
            Command::Gap { lane, from, to } => self.gap(lane, from, to, out),
            Command::PassOver { lane, from, to } => self.pass_over(lane, from, to, out),
            Command::ReplayRead { lane } => self.replay_read(lane, out),
            Command::Capacity { slots } => self.slots = slots,
            Command::Outcomes {
                dispatch,
                fence,
                runs,
            } => {
                self.outcomes(dispatch, fence, runs, out);
            }
            Command::Returned {
                dispatch,
                fence,
                from,
            } => self.returned(dispatch, fence, from, out),
            Command::Finished { dispatch, fence } => self.finished(dispatch, fence, out),
            Command::Died {
                dispatch,
                fence,
                started,
                error,
            } => {
                self.died(dispatch, fence, started, &error, out);
            }
            Command::Timer => self.timer(out),
            Command::Fetched { bodies } => self.fetched(bodies),
            control => self.control(control, out),
        }
        self.pump(out);
    }

    /// What operators and other programs ask for.
    fn control(&mut self, command: Command, out: &mut Decision) {
        match command {
            Command::Pause { run } => self.set_state(run, RunState::Paused, out),
            Command::Resume { run } => {
                self.set_state(run, RunState::Running, out);
                self.wake_loops(run);
            }
            Command::Drain { run } => self.drain(run, out),
            Command::Stop { run } => self.stop(run, RunState::Stopped, out),
            Command::Redrive { run, selection } => self.redrive(run, &selection, out),
            Command::Discard { run, selection } => self.discard(run, &selection, out),
            Command::Amend {
                activation,
                event,
                body,
            } => self.amend(activation, event, body, out),
            Command::Signal {
                run,
                id,
                name,
                key,
                body,
                all,
                to,
                expires_ms,
            } => {
                let signal = Signal {
                    name,
                    key,
                    body,
                    expires: expires_ms,
                    consumed: false,
                };
                self.signal(run, id, signal, Whom { all, to }, out);
            }
            Command::Swap { run, dag, rates } => {
                self.swap(run, &dag);
                for (of, members, interval_ms) in rates {
                    self.rate_limit(run, of, members, interval_ms);
                }
            }
            Command::Announce { dags } => self.announced = Some(dags),
            Command::HoldUp { run, on } => self.hold_up(run, on, out),
            Command::Replay {
                run,
                stretches,
                mode,
            } => self.replay(run, &stretches, mode, out),
            Command::OpenReplays { run } => self.reopen_replays(run, out),
            Command::PauseReplay {
                run,
                replay,
                paused,
            } => self.pause_replay(run, replay, paused, out),
            Command::StopReplay { run, replay } => self.stop_replay(run, replay, out),
            Command::Reset { lane, to, by } => self.reset(lane, to, by, out),
            Command::Pool { pool, slots } => self.pools.entry(pool).or_default().slots = slots,
            Command::RateLimit {
                run,
                of,
                members,
                interval_ms,
            } => {
                self.rate_limit(run, of, members, interval_ms);
            }
            _ => debug_assert!(false, "events are applied, not controlled"),
        }
    }

    /// Completes a decision: cursors, counters, hints and credit. Once per commit.
    pub fn seal(&mut self, out: &mut Decision) {
        self.seal_waits();
        let mut at = None;
        while let Some(id) = self.dirty_lanes.after(at) {
            at = Some(id);
            let Some(run) = self.runs.get_mut(&id.run) else {
                continue;
            };
            let Some(lane) = run.lanes.get(&id.lane) else {
                continue;
            };
            let full = run.is_full(lane);
            let lane = run.lanes.get_mut(&id.lane).expect("looked up above");
            if lane.advance(&self.waves) {
                let low = lane.cursor.low;
                lane.stale_rows.retain(|&(last, wave)| {
                    if last < low {
                        let key = Key::numbered(id.run, id.lane, &[wave]);
                        out.writes.push(Write::DeletePrefix(Table::Outcome, key));
                    }
                    last >= low
                });
                put(
                    out,
                    Table::Lane,
                    Key::numbered(id.run, id.lane, &[]),
                    lane.cursor.encode(),
                );
                out.effects.push(Effect::Ack {
                    lane: id,
                    position: low,
                });
            }
            if lane.probation > 0 && lane.is_through() {
                lane.leave_probation(out);
            }
            let room = lane.has_room() && !full;
            if lane.open && room != lane.credit {
                lane.credit = room;
                out.effects.push(Effect::Credit {
                    lane: id,
                    open: room,
                });
            }
        }
        // A run that comes to rest here dirties its lanes: they are sealed with the next commit.
        self.dirty_lanes.clear();
        let mut at = None;
        while let Some(ix) = self.dirty_runs.after(at) {
            at = Some(ix);
            self.rest_if_done(ix, out);
            let Some(run) = self.runs.get_mut(&ix) else {
                continue;
            };
            if let Some(body) = run.seal() {
                put(out, Table::Run, Key::numbered(ix, 0, &[]), body);
            }
        }
        self.dirty_runs.clear();
    }

    /// When the driver must send `Command::Timer` at the latest.
    #[must_use]
    pub fn next_timer(&self) -> Option<Ms> {
        let timer = self.timers.first().map(|(due, _)| *due);
        let held = self.held_timers.first().map(|((due, _), ())| *due);
        // What is owed is due.
        let owed = (!self.owed.is_empty()).then_some(self.now);
        let all = [timer, held, owed, self.next_long()];
        all.into_iter().flatten().min()
    }

    /// The fence outcomes must carry.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// A dispatch that is not over.
    #[must_use]
    pub fn dispatch(&self, id: DispatchId) -> Option<DispatchView<'_>> {
        DispatchView::of(self, id)
    }

    /// Materialised activations of a run that wait; see [`RunView::waiting`].
    pub fn waiting(&self, run: RunIx) -> usize {
        self.runs.get(&run).map_or(0, |run| run.waiting)
    }

    /// Every run, by number.
    pub fn runs(&self) -> impl Iterator<Item = RunView> + '_ {
        self.runs.values().map(view)
    }

    /// One run.
    #[must_use]
    pub fn run(&self, run: RunIx) -> Option<RunView> {
        self.runs.get(&run).map(view)
    }

    /// The versions of a run, by the number that history and activations name them by; empty where
    /// one was struck off.
    #[must_use]
    pub fn run_versions(&self, run: RunIx) -> &[String] {
        self.runs.get(&run).map_or(&[], |run| &run.row.versions)
    }

    /// The lanes of a run.
    pub fn lanes(&self, run: RunIx) -> impl Iterator<Item = LaneView> + '_ {
        self.runs.get(&run).into_iter().flat_map(|run| {
            let id_of = |lane: &Lane| {
                let home = &run.dags[usize::from(lane.cursor.home())];
                let source = home.spec.sources.get(usize::from(lane.cursor.source));
                source.map_or_else(String::new, |source| source.id.clone())
            };
            run.lanes.values().map(move |lane| LaneView {
                lane: lane.id,
                source_id: id_of(lane),
                source: lane.cursor.source,
                retired: lane.cursor.home() != run.row.current,
                name: lane.cursor.name.clone(),
                incarnation: lane.cursor.incarnation.clone(),
                generation: lane.cursor.generation,
                low: lane.cursor.low,
                read: lane.read,
                begun: lane
                    .pending
                    .front()
                    .map_or(lane.read, |event| event.position),
                in_flight: lane.events,
                in_waves: lane.events - lane.pending.len(),
                caught_up: lane.caught_up,
                open: lane.open,
                replay: lane.cursor.replay,
                reset: lane.cursor.reset.clone(),
                closed: lane.cursor.closed,
                key_generation: lane.key_generation(),
            })
        })
    }

    /// Whether a replay of a run has not come to its end.
    #[must_use]
    pub fn has_open_replays(&self, run: RunIx) -> bool {
        let run = self.runs.get(&run);
        run.is_some_and(|run| {
            let mut lanes = run.lanes.values();
            lanes.any(|lane| lane.cursor.replay.is_some() && !lane.cursor.closed)
        })
    }

    /// Generations of the lanes of a run that are replays, neither at their end nor paused.
    pub fn replays_under_way(&self, run: RunIx) -> impl Iterator<Item = u32> + '_ {
        let lanes = self
            .runs
            .get(&run)
            .into_iter()
            .flat_map(|run| run.lanes.values());
        let cursors = lanes
            .map(|lane| &lane.cursor)
            .filter(|cursor| !cursor.closed);
        cursors
            .filter(|cursor| cursor.replay.is_some_and(|replay| !replay.paused))
            .map(|cursor| cursor.generation)
    }

    /// What of a stretch was passed unread, or lies ahead of a lane that nobody reads: what a backfill
    /// of it would run.
    #[must_use]
    pub fn unread(&self, run: RunIx, stretch: Stretch) -> Vec<(u64, u64)> {
        let run = self.runs.get(&run);
        let lane = run.and_then(|run| run.lanes.get(&stretch.lane));
        lane.map_or_else(Vec::new, |lane| lane.unread(stretch))
    }

    /// Whether a lane may take more events now; who hands them over without waiting for credit asks
    /// before each batch.
    #[must_use]
    pub fn has_room(&self, id: LaneId) -> bool {
        self.runs.get(&id.run).is_some_and(|run| {
            let lane = run.lanes.get(&id.lane);
            lane.is_some_and(|lane| lane.open && lane.has_room() && !run.is_full(lane))
        })
    }

    /// The parked activations of a run, by address.
    pub fn parked(&self, run: RunIx) -> impl Iterator<Item = ParkedView> + '_ {
        let run = self.runs.get(&run).into_iter();
        run.flat_map(|run| {
            let all = run.materialised.iter();
            all.filter_map(|(key, activation)| parked_view(run, *key, activation))
        })
    }

    /// Leaves those of these activations that are not over, as of the last seal: read but not settled,
    /// still to be read again after a stop, or in rows of their own. What a driver keeps for the others
    /// can go.
    pub fn keep_open(&self, activations: &mut BTreeSet<ActivationKey>) {
        // Their lane's cursor has passed them, and still they are in waves: those that were put back
        // from rows, and those that got rows because they run for long.
        let passed = self
            .waves
            .iter()
            .flatten()
            .flat_map(Wave::beyond_the_cursor);
        let under_way: BTreeSet<ActivationKey> = passed.collect();
        activations.retain(|key| {
            let Some(run) = self.runs.get(&key.lane.run) else {
                return false;
            };
            let lane = run.lanes.get(&key.lane.lane);
            let passed = lane.is_none_or(|lane| lane.cursor.has_passed(key.position));
            !passed || run.materialised.contains_key(key) || under_way.contains(key)
        });
    }

    /// Of each of these stretches of a lane, all below its cursor, whether something that began there is
    /// not over: it waits in a row of its own, or goes on from one. What is parked is over. With source
    /// batches, what began before a stretch may reach into it, and counts.
    #[must_use]
    pub fn unsettled(&self, id: LaneId, stretches: &[Range<u64>]) -> Vec<bool> {
        let under_way: BTreeSet<u64> = self
            .waves
            .iter()
            .flatten()
            .flat_map(Wave::beyond_the_cursor)
            .filter(|key| key.lane == id)
            .map(|key| key.position)
            .collect();
        let run = self.runs.get(&id.run);
        let lane = run.and_then(|run| Some((run, run.lanes.get(&id.lane)?)));
        let Some((run, lane)) = lane else {
            return vec![false; stretches.len()];
        };
        let source = usize::from(lane.cursor.source);
        let sources = run.dags.iter().map(|dag| &dag.spec.sources);
        let batched = sources.filter_map(|sources| sources.get(source));
        let batched = batched.into_iter().any(|source| source.batch.is_some());
        let is_open = |stretch: &Range<u64>| {
            let stretch = if batched {
                0..stretch.end
            } else {
                stretch.clone()
            };
            let from = |position| ActivationKey {
                lane: id,
                position,
                child: 0,
            };
            let mut rows = run
                .materialised
                .range(from(stretch.start)..from(stretch.end));
            let waits = rows.any(|(_, row)| !matches!(row.held, Held::Parked(_)));
            waits || under_way.range(stretch).next().is_some()
        };
        stretches.iter().map(is_open).collect()
    }

    /// The state of one scope.
    #[must_use]
    pub fn scope_state(&self, run: RunIx, scope: &StateScope) -> Option<&ScopeState> {
        self.runs.get(&run)?.state.get(scope)
    }

    /// Every scope's state of a run.
    pub fn states(&self, run: RunIx) -> impl Iterator<Item = (&StateScope, &ScopeState)> + '_ {
        self.runs.get(&run).into_iter().flat_map(|run| &run.state)
    }

    /// Nothing pending, in a wave or waiting; parked activations do not count.
    #[must_use]
    pub fn is_idle(&self, run: RunIx) -> bool {
        self.runs.get(&run).is_none_or(|run| {
            run.waves == 0
                && run.waiting == 0
                && run.lanes.values().all(|lane| lane.pending.is_empty())
        })
    }

    /// Outcomes refused so far in this boot (C5).
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    pub(crate) fn wave(&self, ix: u32) -> &Wave {
        self.waves[ix as usize]
            .as_ref()
            .expect("a referenced wave is live")
    }

    pub(crate) fn wave_mut(&mut self, ix: u32) -> &mut Wave {
        self.waves[ix as usize]
            .as_mut()
            .expect("a referenced wave is live")
    }

    fn start(&mut self, ix: RunIx, name: String, dag: &Arc<Dag>, fresh: bool, out: &mut Decision) {
        let open = self
            .runs
            .values()
            .find(|r| r.row.dag == dag.spec.id && !r.is_over());
        if let Some(ix) = open.map(|run| run.ix) {
            if self.runs[&ix].dag().spec.version != dag.spec.version {
                self.swap(ix, dag);
            }
            // Who paused it says when it goes on.
            if self.runs[&ix].row.state != RunState::Paused {
                self.set_state(ix, RunState::Running, out);
            }
            self.reopen_replays(ix, out);
            return;
        }
        let row = RunRow {
            name,
            dag: dag.spec.id.clone(),
            state: RunState::Running,
            versions: vec![dag.spec.version.clone()],
            current: 0,
            counters: Counters::default(),
            deadlines_missed: 0,
            failures_in_a_row: 0,
        };
        let mut run = Run::new(ix, row, vec![Arc::clone(dag)]);
        if !fresh {
            self.inherit(&mut run, out);
        }
        self.runs.insert(ix, run);
        self.dirty_runs.insert(ix);
        out.effects.push(Effect::RunState {
            run: ix,
            state: RunState::Running,
        });
    }

    /// A new run of a DAG goes on where its last one ended: positions and state.
    fn inherit(&mut self, run: &mut Run, out: &mut Decision) {
        let last = self
            .runs
            .values()
            .rev()
            .find(|r| r.row.dag == run.row.dag && r.is_over());
        let Some(last) = last else { return };
        let live = last.lanes.values();
        for lane in live.filter(|lane| lane.cursor.is_live()) {
            let mut cursor = lane.cursor.clone();
            // Positions belong to a source's id; its place in the DAG may be another now.
            let home = &last.dags[usize::from(cursor.home())];
            let Some(place) = run.dag().place_of(home, cursor.source) else {
                continue;
            };
            cursor.source = place;
            cursor.switches = vec![(0, 0)];
            let id = LaneId {
                run: run.ix,
                lane: lane.id.lane,
            };
            put(
                out,
                Table::Lane,
                Key::numbered(id.run, id.lane, &[]),
                cursor.encode(),
            );
            run.lanes
                .insert(id.lane, crate::lane::Lane::new(id, cursor));
        }
        run.state.clone_from(&last.state);
        for (scope, names) in &run.state {
            for (name, value) in names {
                out.writes
                    .push(crate::state::write(run.ix, scope, name, value));
            }
        }
    }

    pub(crate) fn set_state(&mut self, ix: RunIx, state: RunState, out: &mut Decision) {
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        if run.is_over() || run.row.state == state {
            return;
        }
        run.row.state = state;
        let lanes: Vec<LaneId> = run.lanes.values().map(|lane| lane.id).collect();
        self.dirty_lanes.extend(lanes);
        self.dirty_runs.insert(ix);
        out.effects.push(Effect::RunState { run: ix, state });
    }

    /// Forgets what was read and not begun; the rest settles.
    fn drain(&mut self, ix: RunIx, out: &mut Decision) {
        self.set_state(ix, RunState::Draining, out);
        self.forget_pending(ix);
    }

    /// Ends a run: attempts out there are recalled, their outcomes no longer matter.
    pub(crate) fn stop(&mut self, ix: RunIx, state: RunState, out: &mut Decision) {
        self.set_state(ix, state, out);
        self.forget_pending(ix);
        self.park_unsettled(ix, out);
        let recalled = self.dispatches.iter().filter(|d| d.run == ix).map(|d| d.id);
        out.effects.extend(recalled.map(Effect::Recall));
    }

    fn forget_pending(&mut self, ix: RunIx) {
        let lanes = self.runs.get(&ix).map(|run| run.lanes.values());
        let lanes: Vec<LaneId> = lanes.into_iter().flatten().map(|lane| lane.id).collect();
        for lane in lanes {
            self.close_lane(lane);
        }
        self.dirty_runs.insert(ix);
    }

    /// A draining run with nothing in a wave rests; a triggered DAG with nothing left is finished.
    fn rest_if_done(&mut self, ix: RunIx, out: &mut Decision) {
        let Some(run) = self.runs.get(&ix) else {
            return;
        };
        // One that nobody has triggered yet waits for that.
        let triggered = run.dag().spec.sources.is_empty() && run.row.counters.seen > 0;
        let mut live = run.lanes.values();
        let all_read = !run.lanes.is_empty()
            && live.all(|lane| lane.caught_up || lane.cursor.home() != run.row.current);
        let next = match run.row.state {
            RunState::Draining if run.waves == 0 => RunState::Drained,
            RunState::Running if triggered && all_read && self.is_idle(ix) => RunState::Finished,
            _ => return,
        };
        self.set_state(ix, next, out);
    }

    /// Its lanes take nothing in while somebody who listens has no room.
    fn hold_up(&mut self, ix: RunIx, on: bool, out: &mut Decision) {
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        run.held_up = on;
        let lanes: Vec<LaneId> = run.lanes.values().map(|lane| lane.id).collect();
        self.dirty_lanes.extend(lanes);
        if on {
            let recalled = self.dispatches.iter().filter(|d| d.run == ix).map(|d| d.id);
            out.effects.extend(recalled.map(Effect::Recall));
        } else {
            self.wake_loops(ix);
        }
    }

    /// The last step of every command: put released activations into waves, form waves while
    /// workers could use them, hand out work.
    pub(crate) fn pump(&mut self, out: &mut Decision) {
        loop {
            for run in std::mem::take(&mut self.stopping) {
                self.stop(run, RunState::Failed, out);
            }
            while self.revisit(out) || !self.releases.is_empty() || self.release_alone() {
                self.rehydrate(out);
            }
            self.schedule(out);
            let formed = self.form_waves(out);
            let settled = self.releases.is_empty() && self.revisit.is_empty();
            if !formed && settled && self.stopping.is_empty() {
                return;
            }
        }
    }
}

/// A row to insert or replace.
pub(crate) fn put(out: &mut Decision, table: Table, key: Key, body: bytes::Bytes) {
    out.writes.push(Write::Put(StoreRow { table, key, body }));
}

fn parked_view(run: &Run, key: ActivationKey, activation: &Materialised) -> Option<ParkedView> {
    let Held::Parked(reason) = activation.held else {
        return None;
    };
    let (snapshot, _) = Snapshot::decode(key, activation.own_body()).ok()?;
    let bound = snapshot.bound.iter().map(|(.., event)| event);
    Some(ParkedView {
        activation: key,
        reason,
        events: activation.weight(),
        round: snapshot.round,
        version: run.row.versions[usize::from(snapshot.version)].clone(),
        errors: snapshot.errors(),
        carries: snapshot.events.iter().chain(bound).cloned().collect(),
    })
}

fn view(run: &Run) -> RunView {
    RunView {
        run: run.ix,
        name: run.row.name.clone(),
        dag: run.row.dag.clone(),
        version: run.row.versions[usize::from(run.row.current)].clone(),
        state: run.row.state,
        counters: run.row.counters,
        waiting: run.waiting,
        deadlines_missed: run.row.deadlines_missed,
    }
}
