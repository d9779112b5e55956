//! Runs: a DAG switched on, with its versions, lanes, materialised activations and counters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::activation::{Held, ParkReason, Snapshot};
use crate::codec::{DecodeError, Reader, Writer};
use crate::command::{ActivationKey, Counters, LaneId, Limited, Ms, RunIx, RunState, ScopeState};
use crate::dag::{Dag, Order};
use crate::few::Few;
use crate::lane::Lane;
use crate::limits;
use crate::packed::Packed;
use crate::rate::{KeyRates, Rate};
use crate::scope::{Scope, ScopeKey};
use crate::signal::Waiter;

/// Format number of run rows.
const RUN_FORMAT: u8 = 1;

/// The durable part of a run: its row. `seen` is not kept: it follows from the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunRow {
    pub(crate) name: String,
    pub(crate) dag: String,
    pub(crate) state: RunState,
    /// Version hashes; activations refer to them by index.
    pub(crate) versions: Vec<String>,
    /// Index of the version new activations use.
    pub(crate) current: u16,
    pub(crate) counters: Counters,
    pub(crate) deadlines_missed: u64,
    /// Failed loop iterations in a row (W15).
    pub(crate) failures_in_a_row: u32,
}

const STATES: [RunState; 7] = [
    RunState::Running,
    RunState::Paused,
    RunState::Draining,
    RunState::Drained,
    RunState::Stopped,
    RunState::Finished,
    RunState::Failed,
];

impl RunRow {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::new(RUN_FORMAT);
        let state = STATES
            .iter()
            .position(|s| *s == self.state)
            .unwrap_or_default();
        out.text(&self.name).text(&self.dag).byte(state as u8);
        out.int(self.versions.len() as u64);
        for version in &self.versions {
            out.text(version);
        }
        let c = &self.counters;
        out.int(u64::from(self.current));
        out.int(c.done).int(c.skipped).int(c.parked).int(c.dropped);
        out.int(self.deadlines_missed)
            .int(u64::from(self.failures_in_a_row));
        out.finish()
    }

    pub(crate) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut body = Reader::new("run", body, RUN_FORMAT)?;
        let (name, dag) = (body.text()?, body.text()?);
        let state = usize::from(body.byte()?);
        let state = *STATES
            .get(state)
            .ok_or_else(|| body.error("unknown run state"))?;
        let versions = (0..body.length()?)
            .map(|_| body.text())
            .collect::<Result<_, _>>()?;
        let current = body.small()?;
        let mut counters = Counters {
            seen: 0,
            done: body.int()?,
            skipped: body.int()?,
            parked: body.int()?,
            dropped: body.int()?,
        };
        counters.seen = counters.done + counters.skipped + counters.parked + counters.dropped;
        let (deadlines_missed, failures_in_a_row) = (body.int()?, body.small()?);
        body.end()?;
        Ok(Self {
            name,
            dag,
            state,
            versions,
            current,
            counters,
            deadlines_missed,
            failures_in_a_row,
        })
    }
}

/// A materialised activation in memory: its row body, and what must be known without decoding it. There
/// may be a million of them that only wait, so what few have is behind a pointer.
#[derive(Debug, Clone)]
pub(crate) struct Materialised {
    pub(crate) held: Held,
    /// `None` while it lies in the store alone (`idle.rs`).
    body: Option<Box<Bytes>>,
    scope: Option<Box<(ScopeKey, u64)>>,
    key: [u8; 16],
    weight: u32,
    /// The version it is pinned to.
    pub(crate) version: u16,
    /// The decision its row was last written with.
    pub(crate) written: u64,
}

/// What an idle wait costs, beside its key.
const _: () = assert!(size_of::<Materialised>() <= 72);

impl Materialised {
    pub(crate) fn new(snapshot: &Snapshot, held: Held, body: Bytes, written: u64) -> Self {
        let event = snapshot.events.first();
        Self {
            held,
            body: Some(Box::new(body)),
            scope: None,
            key: event.map_or(0, |event| event.key).to_ne_bytes(),
            weight: u32::try_from(snapshot.weight()).unwrap_or(u32::MAX),
            version: snapshot.version,
            written,
        }
    }

    /// Its row's body; `None` while it lies in the store alone.
    pub(crate) fn body(&self) -> Option<&Bytes> {
        self.body.as_deref()
    }

    /// The body of one that is not let go of.
    ///
    /// # Panics
    /// If it is not here: whoever drives the machine brings it first.
    pub(crate) fn own_body(&self) -> Bytes {
        let body = self.body().cloned();
        body.expect("the driver brings what a command needs")
    }

    pub(crate) fn bring(&mut self, body: Bytes) {
        self.body = Some(Box::new(body));
    }

    pub(crate) fn let_go(&mut self) {
        self.body = None;
    }

    /// Place in its scope.
    pub(crate) fn scope(&self) -> Option<(ScopeKey, u64)> {
        self.scope.as_deref().copied()
    }

    pub(crate) fn put_into(&mut self, scope: Option<(ScopeKey, u64)>) {
        self.scope = scope.map(Box::new);
    }

    /// The first event's ordering and join key.
    pub(crate) const fn key(&self) -> u128 {
        u128::from_ne_bytes(self.key)
    }

    /// Events it counts for.
    pub(crate) fn weight(&self) -> u64 {
        self.weight.into()
    }

    fn blocked_events(&self) -> u64 {
        match self.held {
            Held::Parked(ParkReason::Blocked) => self.weight(),
            _ => 0,
        }
    }
}

/// Where state lives (W5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateScope {
    /// The ordering scope; all zero under `order = "none"`.
    pub scope: ScopeKey,
    /// The task its names are private to under FIFO; empty when they are shared.
    pub task: String,
}

/// A signal that was sent (W14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) name: String,
    pub(crate) key: u128,
    pub(crate) body: Bytes,
    pub(crate) expires: Ms,
    /// Kept only so that its id is known.
    pub(crate) consumed: bool,
}

/// Order in which a run's ready tasks are served: priority, then the most downstream first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) unimportance: i64,
    pub(crate) shallowness: u16,
    pub(crate) version: u16,
    pub(crate) task: u16,
}

/// What there is to do of a task, and what is under way.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Wave slots with ready members.
    pub(crate) waves: VecDeque<u32>,
    /// Dispatches out.
    pub(crate) out: u32,
    /// It has something to do since then, or was last served then.
    pub(crate) since: Ms,
}

/// A run in memory.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) ix: RunIx,
    pub(crate) row: RunRow,
    /// `row` as the store has it, or will have it with the last sealed decision.
    pub(crate) stored: Vec<u8>,
    pub(crate) dags: Vec<Arc<Dag>>,
    pub(crate) lanes: BTreeMap<u32, Lane>,
    pub(crate) materialised: Packed<ActivationKey, Materialised>,
    /// Of `materialised`, those not parked.
    pub(crate) waiting: usize,
    /// Events of blocked activations: parked, but in the way (W19).
    pub(crate) blocked: u64,
    pub(crate) scopes: BTreeMap<ScopeKey, Scope>,
    /// By scope and by the task its names are private to (W5); `u16::MAX` when they are shared.
    pub(crate) state: BTreeMap<StateScope, ScopeState>,
    /// What there is to do and under way, by (version, task).
    pub(crate) loads: BTreeMap<(u16, u16), Load>,
    pub(crate) ready: Few<Turn>,
    /// Of tasks and sources (W19).
    pub(crate) rates: BTreeMap<Limited, Rate>,
    /// Of the keys of a task (W19).
    pub(crate) key_rates: BTreeMap<u16, KeyRates>,
    /// Live waves.
    pub(crate) waves: usize,
    /// Open joins lacking a source: (version, plan, source), as the version counts them, ->
    /// (opened, activation).
    pub(crate) open: BTreeMap<(u16, u16, u16), BTreeSet<(Ms, ActivationKey)>>,
    /// Join keys of open activations.
    pub(crate) open_keys: BTreeMap<ActivationKey, u128>,
    /// Where activations of joins are: a wave slot and member; absent while materialised.
    pub(crate) joins: BTreeMap<ActivationKey, (u32, u32)>,
    /// Who waits for a signal: name -> (since, activation, task).
    pub(crate) waiters: BTreeMap<String, Packed<Waiter, ()>>,
    pub(crate) signals: BTreeMap<String, Signal>,
    /// Its share so far, in dispatches: fairness between runs.
    pub(crate) served: u64,
    /// Under what it stands among the runs with ready members.
    pub(crate) place: Option<(i64, u64)>,
    /// Whoever listens to it has no room.
    pub(crate) held_up: bool,
}

impl Run {
    pub(crate) fn new(ix: RunIx, row: RunRow, dags: Vec<Arc<Dag>>) -> Self {
        Self {
            ix,
            row,
            stored: Vec::new(),
            dags,
            lanes: BTreeMap::new(),
            materialised: Packed::new(),
            waiting: 0,
            blocked: 0,
            scopes: BTreeMap::new(),
            state: BTreeMap::new(),
            loads: BTreeMap::new(),
            ready: Few::new(),
            rates: BTreeMap::new(),
            key_rates: BTreeMap::new(),
            waves: 0,
            open: BTreeMap::new(),
            open_keys: BTreeMap::new(),
            joins: BTreeMap::new(),
            waiters: BTreeMap::new(),
            signals: BTreeMap::new(),
            served: 0,
            place: None,
            held_up: false,
        }
    }

    /// The row's body, if the store does not have it yet.
    pub(crate) fn seal(&mut self) -> Option<Bytes> {
        let body = self.row.encode();
        if self.stored == body {
            return None;
        }
        self.stored.clear();
        self.stored.extend_from_slice(&body);
        Some(body)
    }

    pub(crate) fn dag(&self) -> &Arc<Dag> {
        &self.dags[usize::from(self.row.current)]
    }

    pub(crate) fn lane(&mut self, lane: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(&lane.lane)
    }

    /// The place of a lane's source in a version, if that version has it (W16).
    pub(crate) fn source_in(&self, version: u16, lane: u32) -> Option<u16> {
        let cursor = &self.lanes.get(&lane)?.cursor;
        let home = cursor.home();
        if home == version {
            return Some(cursor.source);
        }
        let [from, to] = [home, version].map(|version| &self.dags[usize::from(version)]);
        to.place_of(from, cursor.source)
    }

    /// The place of a lane's source in the version of an activation that came from it.
    pub(crate) fn source_of(&self, version: u16, lane: u32) -> u16 {
        let place = self.source_in(version, lane);
        place.expect("a version has the sources of its own activations")
    }

    /// Whether new activations may come from a lane: the current version has its source.
    pub(crate) fn has_source_of(&self, lane: u32) -> bool {
        let lane = self.lanes.get(&lane);
        lane.is_some_and(|lane| lane.cursor.home() == self.row.current)
    }

    /// Events in waves or materialised and in the way: what `max_active_runs` bounds (W19).
    pub(crate) fn active(&self) -> u64 {
        let pending = self.lanes.values().map(|lane| lane.pending.len() as u64);
        self.row.counters.in_flight() + self.blocked - pending.sum::<u64>()
    }

    /// How many more events of a lane `max_active_runs` lets begin (W19). What had begun before a
    /// stop, and has to begin again, comes before what is new in other lanes.
    pub(crate) fn room(&self, lane: &Lane) -> usize {
        let Some(max) = self.dag().spec.max_active_runs else {
            return usize::MAX;
        };
        let room = u64::from(max).saturating_sub(self.active()) as usize;
        if lane.is_awaited() {
            return room.max(1);
        }
        let mut open = self.lanes.values().filter(|other| other.open);
        if open.any(Lane::is_awaited) { 0 } else { room }
    }

    pub(crate) fn accepts(&self) -> bool {
        self.row.state == RunState::Running && !self.held_up
    }

    /// Whether this lane of it may take no more events now, whatever room it has.
    pub(crate) fn is_full(&self, lane: &Lane) -> bool {
        self.waiting >= limits::MATERIALISED_MAX && !lane.is_awaited()
            || self.row.counters.parked >= limits::PARKED_MAX as u64
            || !self.accepts()
    }

    pub(crate) fn works(&self) -> bool {
        matches!(self.row.state, RunState::Running | RunState::Draining) && !self.held_up
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(
            self.row.state,
            RunState::Stopped | RunState::Finished | RunState::Failed
        )
    }

    /// The scope an activation is ordered in (W4); `None` when nothing is ordered.
    pub(crate) fn order_scope(order: Order, lane: u32, key: u128) -> Option<ScopeKey> {
        match order {
            Order::None => None,
            Order::Key => Some(ScopeKey { lane, key }),
            Order::Partition | Order::Serial => Some(ScopeKey { lane, key: 0 }),
        }
    }

    /// The scope its state lives in (W5).
    pub(crate) fn state_scope(dag: &Dag, task: u16, lane: u32, key: u128) -> StateScope {
        let order = dag.spec.order;
        let scope = Self::order_scope(order, lane, key).unwrap_or(ScopeKey { lane: 0, key: 0 });
        let private = matches!(order, Order::Key | Order::Partition);
        let task = &dag.spec.tasks[usize::from(task)].id;
        StateScope {
            scope,
            task: if private { task.clone() } else { String::new() },
        }
    }

    pub(crate) fn hold(&mut self, key: ActivationKey, materialised: Materialised) {
        self.waiting += usize::from(!matches!(materialised.held, Held::Parked(_)));
        self.blocked += materialised.blocked_events();
        if let Some(old) = self.materialised.insert(key, materialised) {
            self.uncount(&old);
        }
    }

    fn uncount(&mut self, gone: &Materialised) {
        self.waiting -= usize::from(!matches!(gone.held, Held::Parked(_)));
        self.blocked -= gone.blocked_events();
    }

    pub(crate) fn unhold(&mut self, key: ActivationKey) -> Option<Materialised> {
        let old = self.materialised.remove(&key)?;
        self.uncount(&old);
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_the_store_has_is_not_written_again() {
        let row = RunRow {
            name: "run".into(),
            dag: "dag".into(),
            state: RunState::Running,
            versions: vec!["v1".into()],
            current: 0,
            counters: Counters::default(),
            deadlines_missed: 0,
            failures_in_a_row: 0,
        };
        let mut run = Run::new(1, row, Vec::new());
        assert!(run.seal().is_some());
        assert_eq!(run.seal(), None);
        // What was only read is in no row; what settled is.
        run.row.counters.seen += 1;
        assert_eq!(run.seal(), None);
        run.row.counters.done += 1;
        assert!(run.seal().is_some());
    }
}
