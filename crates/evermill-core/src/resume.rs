//! Resume: the machine again, from committed rows.
//!
//! Everything above a lane's `low` is read again by its source; what outcome rows say about those
//! events waits in the lane until they come. Materialised activations come from their own rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::activation::{
    self, Entry, Held, OutcomeMember, OutcomeRow, ParkReason, Snapshot, Standing,
};
use crate::codec::{DecodeError, Reader};
use crate::command::{ActivationKey, Decision, Fence, LaneId, Ms, RunIx};
use crate::dag::{Dag, Order};
use crate::lane::{Cursor, Lane, Recovered, Suspect};
use crate::limits;
use crate::machine::{Machine, Timer, put};
use crate::row::{Key, Row, Table, Write};
use crate::run::{Run, RunRow, Signal};

/// Why rows cannot become a machine again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// A row's body or address is damaged.
    #[error("table {table}: {error}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// What is wrong.
        error: DecodeError,
    },
    /// A row speaks of a run, lane or version that is not there.
    #[error("table {table}: run {run}, lane {lane}: {what} is missing")]
    Missing {
        /// The table.
        table: &'static str,
        /// The run it belongs to.
        run: u32,
        /// The lane it belongs to.
        lane: u32,
        /// What is missing.
        what: String,
    },
}

impl Machine {
    /// Builds the machine from every row of the truth tables. `unclean`: the last stop was no
    /// clean close, so lanes start in probation (C6). The decision holds what the next commit must
    /// say about that; lanes are opened again by `Command::OpenLane`.
    ///
    /// # Errors
    /// A row that does not decode, or that refers to what is not there.
    pub fn resume(
        fence: Fence,
        now: Ms,
        unclean: bool,
        rows: Vec<Row>,
        versions: &BTreeMap<String, Arc<Dag>>,
    ) -> Result<(Self, Decision), ResumeError> {
        let mut machine = Self::new(fence);
        machine.now = now;
        let mut out = Decision::default();
        let mut tables: BTreeMap<Table, Vec<Row>> = BTreeMap::new();
        for row in rows {
            tables.entry(row.table).or_default().push(row);
        }
        let mut take = |table: Table| tables.remove(&table).unwrap_or_default();
        for row in take(Table::Run) {
            machine.resume_run(row, versions)?;
        }
        for row in take(Table::Lane) {
            machine.resume_lane(row, unclean)?;
        }
        for row in take(Table::State) {
            machine.resume_state(&row)?;
        }
        for row in take(Table::Batch) {
            machine.resume_batch(&row, &mut out)?;
        }
        for row in take(Table::Suspect) {
            machine.resume_suspect(&row, unclean, &mut out)?;
        }
        for row in take(Table::Signal) {
            machine.resume_signal(&row)?;
        }
        let mut activations = BTreeMap::new();
        for row in take(Table::Activation) {
            let bad = || missing(&row, "a whole address");
            let key = activation::parse_row_key(&row.key).ok_or_else(bad)?;
            let decoded = Snapshot::decode(key, row.body.clone()).map_err(damaged(&row))?;
            machine.lane_of(&row)?;
            activations.insert(key, decoded);
        }
        let mut outcomes = take(Table::Outcome);
        // By wave, then by row: the order in which they were written.
        outcomes.sort_by(|a, b| a.key.id.cmp(&b.key.id));
        let mut live = BTreeMap::new();
        for row in outcomes {
            machine.resume_outcome(row, &mut activations, &mut live, &mut out)?;
        }
        machine.keep_live_rows(live);
        if unclean {
            machine.suspect_first_windows(&mut out);
        }
        for lane in machine.runs.values_mut().flat_map(|r| r.lanes.values_mut()) {
            lane.suspect_end = lane.suspects.values().map(|suspect| suspect.last).max();
        }
        let mut named: BTreeMap<RunIx, BTreeSet<u16>> = BTreeMap::new();
        for (key, (snapshot, _)) in &activations {
            let of_run = named.entry(key.lane.run).or_default();
            of_run.insert(snapshot.version);
        }
        let runs: Vec<RunIx> = machine.runs.keys().copied().collect();
        for run in runs {
            machine.strike_versions(run, named.get(&run).unwrap_or(&BTreeSet::new()));
        }
        machine.resume_activations(activations, unclean, &mut out);
        machine.register_below_low();
        machine.pump(&mut out);
        Ok((machine, out))
    }

    fn resume_run(
        &mut self,
        row: Row,
        versions: &BTreeMap<String, Arc<Dag>>,
    ) -> Result<(), ResumeError> {
        let ix = row.key.run;
        let decoded = RunRow::decode(row.body.clone()).map_err(damaged(&row))?;
        let dag = |version: &String| {
            versions
                .get(version)
                .cloned()
                .ok_or_else(|| missing(&row, &format!("version {version}")))
        };
        // A version that was struck off is nobody's: any DAG may stand in its place.
        let current = &decoded.versions[usize::from(decoded.current)];
        let kept = |version| {
            if String::is_empty(version) {
                current
            } else {
                version
            }
        };
        let dags = decoded
            .versions
            .iter()
            .map(|version| dag(kept(version)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut run = Run::new(ix, decoded, dags);
        run.stored = row.body.to_vec();
        self.runs.insert(ix, run);
        self.dirty_runs.insert(ix);
        Ok(())
    }

    fn run_of(&mut self, row: &Row) -> Result<&mut Run, ResumeError> {
        self.runs
            .get_mut(&row.key.run)
            .ok_or_else(|| missing(row, "its run"))
    }

    fn lane_of(&mut self, row: &Row) -> Result<&mut Lane, ResumeError> {
        let lane = row.key.lane;
        self.run_of(row)?
            .lanes
            .get_mut(&lane)
            .ok_or_else(|| missing(row, "its lane"))
    }

    fn resume_lane(&mut self, row: Row, unclean: bool) -> Result<(), ResumeError> {
        let cursor = Cursor::decode(row.body.clone()).map_err(damaged(&row))?;
        let id = LaneId {
            run: row.key.run,
            lane: row.key.lane,
        };
        let run = self.run_of(&row)?;
        let mut lane = Lane::new(id, cursor);
        if unclean {
            lane.probation = limits::PROBATION_EVENTS;
        }
        run.lanes.insert(id.lane, lane);
        Ok(())
    }

    fn resume_state(&mut self, row: &Row) -> Result<(), ResumeError> {
        let (scope, name, value) =
            crate::state::decode(&row.key, row.body.clone()).map_err(damaged(row))?;
        self.run_of(row)?
            .state
            .entry(scope)
            .or_default()
            .insert(name, value);
        Ok(())
    }

    fn resume_batch(&mut self, row: &Row, out: &mut Decision) -> Result<(), ResumeError> {
        let mut body = Reader::new("batch", row.body.clone(), 1).map_err(damaged(row))?;
        let count = body.small().map_err(damaged(row))?;
        let first = position(row)?;
        let lane = self.lane_of(row)?;
        if first < lane.cursor.low {
            out.writes
                .push(Write::Delete(Table::Batch, row.key.clone()));
        } else {
            lane.batches.insert(first, count);
        }
        Ok(())
    }

    /// What was in flight at an unclean stop has one stop more on its record.
    fn resume_suspect(
        &mut self,
        row: &Row,
        unclean: bool,
        out: &mut Decision,
    ) -> Result<(), ResumeError> {
        let mut suspect = Suspect::decode(row.body.clone()).map_err(damaged(row))?;
        let first = position(row)?;
        let lane = self.lane_of(row)?;
        if suspect.last < lane.cursor.low {
            out.writes
                .push(Write::Delete(Table::Suspect, row.key.clone()));
            return Ok(());
        }
        if unclean && suspect.in_flight {
            suspect.stops += 1;
            suspect.in_flight = false;
            put(out, Table::Suspect, row.key.clone(), suspect.encode());
        }
        lane.probation = limits::PROBATION_EVENTS;
        lane.suspects.insert(first, suspect);
        Ok(())
    }

    /// Nothing says what was in flight at a first unclean stop: it may have been anything in the
    /// first window of each lane.
    fn suspect_first_windows(&mut self, out: &mut Decision) {
        for lane in self
            .runs
            .values_mut()
            .flat_map(|run| run.lanes.values_mut())
        {
            let low = lane.cursor.low;
            let replay = lane.cursor.replay;
            let end = replay.map_or(u64::MAX, |replay| replay.until - 1);
            if lane.suspects.is_empty() && low <= end && !lane.cursor.closed {
                let window = Suspect::first_window(end);
                let key = Key::numbered(lane.id.run, lane.id.lane, &[low]);
                put(out, Table::Suspect, key, window.encode());
                lane.suspects.insert(low, window);
            }
        }
    }

    fn resume_signal(&mut self, row: &Row) -> Result<(), ResumeError> {
        let bad = damaged(row);
        let mut body = Reader::new("signal", row.body.clone(), 1).map_err(&bad)?;
        let mut read = || -> Result<Signal, DecodeError> {
            Ok(Signal {
                name: body.text()?,
                key: body.wide()?,
                body: body.bytes()?,
                expires: body.int()?,
                consumed: body.flag()?,
            })
        };
        let signal = read().map_err(&bad)?;
        let id = String::from_utf8_lossy(&row.key.id).into_owned();
        self.timers
            .insert((signal.expires, Timer::Signal(row.key.run)));
        self.run_of(row)?.signals.insert(id, signal);
        Ok(())
    }

    /// Gives what an outcome row says to those it is about. What is in a row of their own now, or
    /// of no use any more, leaves the outcome row: said twice, it would take back what came
    /// between. `live`: per wave, the last position that will be read again and needs its rows.
    fn resume_outcome(
        &mut self,
        row: Row,
        activations: &mut BTreeMap<ActivationKey, (Snapshot, Held)>,
        live: &mut BTreeMap<(LaneId, u64), u64>,
        out: &mut Decision,
    ) -> Result<(), ResumeError> {
        let OutcomeRow { version, members } =
            OutcomeRow::decode(row.body.clone()).map_err(damaged(&row))?;
        let wave = (self.lane_of(&row)?.id, position(&row)?);
        let all = members.len();
        let mut kept = Vec::new();
        for member in members {
            let lane = LaneId {
                run: row.key.run,
                lane: member.lane,
            };
            let key = ActivationKey {
                lane,
                position: member.position,
                child: member.child,
            };
            if let Some((snapshot, held)) = activations.get_mut(&key) {
                snapshot.late |= member.late;
                if snapshot.round == member.round {
                    merge(&mut snapshot.entries, member.entries);
                    put(
                        out,
                        Table::Activation,
                        activation::row_key(key),
                        snapshot.encode(*held),
                    );
                }
            } else if self.recover(&row, version, &member)? {
                let last = live.entry(wave).or_default();
                *last = (*last).max(member.position);
                kept.push(member);
            }
        }
        if kept.is_empty() {
            out.writes.push(Write::Delete(Table::Outcome, row.key));
        } else if kept.len() < all {
            let members = kept;
            let body = OutcomeRow { version, members }.encode();
            put(out, Table::Outcome, row.key, body);
        }
        Ok(())
    }

    /// What is left in outcome rows stays until their lane has passed what they speak of.
    fn keep_live_rows(&mut self, live: BTreeMap<(LaneId, u64), u64>) {
        for ((lane, wave), last) in live {
            let lane = self.runs.get_mut(&lane.run).and_then(|run| run.lane(lane));
            let lane = lane.expect("checked with its rows");
            lane.stale_rows.push((last, wave));
        }
    }

    /// Keeps what a row says of an event until it is read again; whether it will be.
    fn recover(
        &mut self,
        row: &Row,
        version: u16,
        member: &OutcomeMember,
    ) -> Result<bool, ResumeError> {
        let run = self.run_of(row)?;
        let Some(lane) = run.lanes.get_mut(&member.lane) else {
            return Ok(false);
        };
        let position = member.position;
        let gone = position < lane.cursor.low || lane.was_settled(position);
        if gone || member.round > 0 {
            return Ok(false);
        }
        let recovered = lane
            .recovered
            .entry((position, member.child))
            .or_insert_with(|| Recovered {
                version,
                late: false,
                entries: Vec::new(),
            });
        recovered.late |= member.late;
        merge(&mut recovered.entries, member.entries.clone());
        Ok(true)
    }

    /// Materialised activations go on: parked ones rest, waiting ones wait, others are released.
    fn resume_activations(
        &mut self,
        activations: BTreeMap<ActivationKey, (Snapshot, Held)>,
        unclean: bool,
        out: &mut Decision,
    ) {
        for (key, (mut snapshot, mut held)) in activations {
            if let Held::Running { stops } = &mut held
                && unclean
            {
                *stops += 1;
                if *stops >= limits::SUSPECT_STOPS_MAX {
                    let run = self.runs.get_mut(&key.lane.run);
                    let run = run.expect("checked with its lane");
                    run.row.counters.seen += snapshot.weight();
                    snapshot.ordered = false;
                    self.park(snapshot, ParkReason::SuspectCrash, None, out);
                    self.end_lap(key.lane, false, true, out);
                    continue;
                }
                let row = activation::row_key(key);
                put(out, Table::Activation, row, snapshot.encode(held));
            }
            let body = snapshot.encode(held);
            let weight = snapshot.weight();
            self.note_wait(&snapshot, held);
            let written = self.sealed + 1;
            let run = self
                .runs
                .get_mut(&key.lane.run)
                .expect("checked with its lane");
            let dag = Arc::clone(&run.dags[usize::from(snapshot.version)]);
            let parked = matches!(held, Held::Parked(_));
            let deferred = snapshot.ordered && dag.spec.order != Order::None;
            if deferred {
                let lane = run.lanes.get_mut(&key.lane.lane).expect("checked before");
                lane.deferred.insert(key, snapshot.version);
            }
            let materialised = crate::run::Materialised::new(&snapshot, held, body, written);
            run.hold(key, materialised);
            if !parked {
                run.row.counters.seen += weight;
                self.reopen_join(key, &snapshot, &dag);
                self.watch_held_deadline(&snapshot, held);
                match (held, snapshot.due().filter(|&due| due > self.now)) {
                    (Held::Running { stops }, _) => self.release_running(key, stops),
                    (_, Some(due)) => drop(self.held_timers.insert((due, key), ())),
                    (_, None) => self.release(key),
                }
            }
            if let Held::Open { until: Some(until) } = held {
                self.held_timers.insert((until, key), ());
            }
        }
    }

    /// Everything below a lane's `low` is settled or materialised: its order is known already.
    fn register_below_low(&mut self) {
        let releases = &mut self.releases;
        for run in self.runs.values_mut() {
            let lanes: Vec<LaneId> = run.lanes.values().map(|lane| lane.id).collect();
            for id in lanes {
                run.register_deferred(id, u64::MAX, releases);
            }
        }
    }

    /// An activation that still lacks sources is open again (W6).
    fn reopen_join(&mut self, key: ActivationKey, snapshot: &Snapshot, dag: &Dag) {
        let run = self
            .runs
            .get_mut(&key.lane.run)
            .expect("checked with its lane");
        let source = run.source_of(snapshot.version, key.lane.lane);
        let plan_ix = dag.plan_of_source[usize::from(source)];
        let plan = &dag.plans[usize::from(plan_ix)];
        let Some(event) = snapshot.events.first() else {
            return;
        };
        if !plan.is_join || snapshot.silenced {
            return;
        }
        for step in &plan.steps[..plan.sources] {
            let crate::dag::PlanNode::Source(other) = step.node else {
                continue;
            };
            let bound = other == source || snapshot.bound.iter().any(|(s, ..)| *s == other);
            if !bound {
                let open = run
                    .open
                    .entry((snapshot.version, plan_ix, other))
                    .or_default();
                open.insert((event.arrived_ms, key));
                run.open_keys.insert(key, event.key);
            }
        }
    }
}

/// Later standings replace earlier ones, but nothing replaces an end.
fn merge(entries: &mut Vec<Entry>, later: Vec<Entry>) {
    for entry in later {
        let same = |e: &&mut Entry| e.task == entry.task && e.instance == entry.instance;
        match entries.iter_mut().find(same) {
            Some(old) if is_final(&old.standing) => {}
            Some(old) if entry.standing == Standing::Returned => {
                if let Standing::Started { failures } = old.standing {
                    old.standing = before_start(failures);
                }
            }
            Some(old) if old.standing == Standing::Returned => *old = entry,
            Some(old) if rank(&old.standing) > rank(&entry.standing) => {}
            Some(old) => *old = entry,
            None => entries.push(entry),
        }
    }
}

/// How a (task, instance) stood before the start that was taken back.
const fn before_start(failures: u32) -> Standing {
    if failures == 0 {
        return Standing::Returned;
    }
    Standing::Tried {
        failures,
        interruptions: 0,
        error: None,
    }
}

const fn is_final(standing: &Standing) -> bool {
    matches!(
        standing,
        Standing::Success { .. } | Standing::Skipped { .. } | Standing::Failed { .. }
    )
}

/// The later of two standings that are no ends: more failures, then asked more often, then started
/// after held.
const fn rank(standing: &Standing) -> (u32, u32, bool) {
    match standing {
        Standing::Hold { failures, .. } | Standing::Tried { failures, .. } => (*failures, 0, false),
        Standing::Asked {
            failures, asked, ..
        } => (*failures, asked.times, false),
        Standing::Started { failures } => (*failures, 0, true),
        _ => (u32::MAX, 0, true),
    }
}

fn damaged(row: &Row) -> impl Fn(DecodeError) -> ResumeError + use<> {
    let table = row.table.name();
    move |error| ResumeError::Damaged { table, error }
}

fn missing(row: &Row, what: &str) -> ResumeError {
    ResumeError::Missing {
        table: row.table.name(),
        run: row.key.run,
        lane: row.key.lane,
        what: what.to_owned(),
    }
}

/// The first number of a row's address.
fn position(row: &Row) -> Result<u64, ResumeError> {
    let bytes = row.key.id.get(..8).and_then(|b| b.try_into().ok());
    bytes
        .map(u64::from_be_bytes)
        .ok_or_else(|| missing(row, "a whole address"))
}
