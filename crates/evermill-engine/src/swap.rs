//! Hot swap (W16): a run goes over to another version of its DAG from a committed position on. What
//! has begun ends on the version it began with.
//!
//! ```text
//! prepared (its changed sources are made, on the asker's thread)
//!   -> sources that go away are hushed, their lanes closed; the machine swaps; one commit holds the
//!      version, its bundle and the positions
//!   -> durable: what has gone is closed once nothing of it is under way, what has come is opened
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam_channel::Sender;
use evermill_contract::manifest::{DagManifest, Manifest, SourceConfig, SourceManifest};
use evermill_contract::source::Opened;
use evermill_core::command::{Command, LaneId, Limited, RunIx, RunState};
use evermill_core::row::{Key, Row, Table, Write};

use crate::failpoint::fp;
use crate::groups::After;
use crate::handle::{EngineError, Started};
use crate::input::SourceKey;
use crate::lanes::Parting;
use crate::manifest::Outline;
use crate::payload::Keys;
use crate::prepare::{Prepared, PreparedSource};
use crate::record::{Change, Record};
use crate::requests::rates;
use crate::shard::Shard;
use crate::view::{VersionState, VersionView};

/// What a run has that another version is to take the place of.
#[derive(Clone)]
pub(crate) struct Standing {
    pub(crate) version: String,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) keys: Keys,
    /// Sources that are listened to.
    pub(crate) alive: BTreeSet<String>,
}

impl Standing {
    /// Whether a source of the next version is the one that is listened to now: then nothing of it
    /// changes.
    pub(crate) fn goes_on(&self, next: &DagManifest, source: &SourceManifest, keys: Keys) -> bool {
        let before = self.manifest.dags.first();
        let before = before.filter(|_| self.alive.contains(&source.id));
        let known = before.and_then(|dag| {
            let mut sources = dag.sources.iter();
            Some((dag, sources.find(|known| known.id == source.id)?))
        });
        let Some((dag, known)) = known else {
            return false;
        };
        match (&known.config, &source.config) {
            // The machine's own, or nobody's: the new version's word holds from now on.
            (SourceConfig::Loop(_), SourceConfig::Loop(_))
            | (SourceConfig::Signal(_), SourceConfig::Signal(_)) => true,
            (_, new) => {
                let same_start = !new.is_clock() || dag.start_date == next.start_date;
                // Its place in the file says nothing; how its content is read and judged does.
                let moved = SourceManifest {
                    line: source.line,
                    ..known.clone()
                };
                let same = moved == *source;
                // A log's own thread makes the keys.
                let same_keys = keys == self.keys || !matches!(new, SourceConfig::Kafka(_));
                same && same_start && same_keys
            }
        }
    }
}

type Reply = Sender<Result<Option<Started>, EngineError>>;

impl Shard {
    /// The run of a DAG that listens, if one does.
    pub(crate) fn listening_run(&self, dag: &str) -> Option<RunIx> {
        let mut runs = self.runs.iter();
        let listens = |slot: &crate::shard::RunSlot| {
            slot.started
                && *slot.dag == *dag
                && matches!(slot.state, RunState::Running | RunState::Paused)
        };
        runs.find_map(|(run, slot)| listens(slot).then_some(*run))
    }

    /// What that run has now.
    pub(crate) fn standing(&self, dag: &str) -> Option<Standing> {
        let run = self.listening_run(dag)?;
        let version = &self.runs.get(&run)?.version;
        let known = self.versions.get(version)?;
        let alive = self
            .listening_of(run)
            .filter(|(_, listening)| listening.ended.is_none() && listening.parting == Parting::No);
        Some(Standing {
            version: version.clone(),
            manifest: Arc::clone(&known.manifest),
            keys: known.outline.keys,
            alive: alive.map(|(_, listening)| listening.id.clone()).collect(),
        })
    }

    pub(crate) fn swap(&mut self, run: RunIx, prepared: Prepared, reply: Reply) {
        fp!("swap.prepared");
        let before = self.runs.get(&run).map(|slot| slot.version.clone());
        let (dag, version) = (
            prepared.outline.dag.to_string(),
            prepared.outline.version.clone(),
        );
        if let Some(slot) = self.runs.get(&run) {
            let name = slot.name.to_string();
            self.warm_up(&prepared.outline, &prepared.manifest, &name);
        }
        self.remember(&prepared);
        self.tell_pools();
        let leaving = self.part_with_sources(run, &prepared);
        self.note_change(run, &dag, &version, &prepared);
        let lifted = before
            .as_deref()
            .and_then(|before| self.versions.get(before));
        let mut limits = lifted.map_or_else(Vec::new, |before| {
            lifted_rates(&before.outline, &prepared.outline)
        });
        limits.extend(rates(&prepared.outline));
        self.apply(Command::Swap {
            run,
            dag: Arc::clone(&prepared.dag),
            rates: limits,
        });
        fp!("swap.applied");
        let Some(view) = self.machine.run(run) else {
            return;
        };
        self.note_run(&view);
        self.find_hearers();
        let started = Started {
            run: view.name,
            version,
            resumed: true,
            before,
        };
        let (sources, passes_gaps) = (prepared.sources, prepared.pass_gaps);
        self.after.push(After::Do(Box::new(move |shard| {
            shard.swapped(run, leaving, sources, passes_gaps, started, &reply);
        })));
    }

    /// Lets sources that the next version has not, or has differently, deliver nothing more.
    fn part_with_sources(&mut self, run: RunIx, next: &Prepared) -> Vec<SourceKey> {
        let comes = |id: &str| next.sources.iter().find(|source| source.id == id);
        let stays = |id: &str| {
            let mut sources = next.outline.sources.iter();
            sources.any(|source| *source.id == *id) && comes(id).is_none()
        };
        let leaving = self.listening_of(run).filter(|(key, listening)| {
            let read = key.is_live() && listening.parting == Parting::No;
            read && !stays(&listening.id)
        });
        let leaving: Vec<SourceKey> = leaving.map(|(key, _)| *key).collect();
        for key in &leaving {
            let Some(listening) = self.listening.get_mut(key) else {
                continue;
            };
            listening.parting = Parting::Asked;
            listening.hushed = true;
            // What is kept of it goes on through the same lane.
            let goes_on = listening.inbox.is_some()
                && comes(&listening.id).is_some_and(|source| is_for_an_inbox(&source.source));
            let lanes = listening.found.iter();
            let lanes: Vec<_> = lanes
                .filter_map(|(name, found)| Some((name.clone(), found.lane?)))
                .collect();
            for (name, lane) in lanes {
                if let Some(listening) = self.listening.get(key) {
                    listening.mailbox.credit(name, false);
                }
                if !goes_on {
                    self.leave_lane(lane);
                }
            }
        }
        leaving
    }

    /// What was read of a lane and not begun is read again by whoever opens it next.
    fn leave_lane(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            // What is still on its way was read for nothing.
            lane.session += 1;
        }
        self.apply(Command::CloseLane { lane: id });
    }

    /// The swap is durable.
    fn swapped(
        &mut self,
        run: RunIx,
        leaving: Vec<SourceKey>,
        sources: Vec<PreparedSource>,
        passes_gaps: bool,
        started: Started,
        reply: &Reply,
    ) {
        fp!("swap.committed");
        for key in &leaving {
            if let Some(listening) = self.listening.get_mut(key) {
                listening.parting = Parting::Agreed;
            }
        }
        let manual = self
            .outline_of(run)
            .is_some_and(|outline| outline.sources.is_empty());
        self.listen(run, sources, passes_gaps);
        if manual {
            self.open_manual_lane(run);
        }
        fp!("swap.listening");
        leaving.into_iter().for_each(|key| self.part_with(key));
        let all: Vec<SourceKey> = self.listening_of(run).map(|(key, _)| *key).collect();
        all.into_iter().for_each(|key| self.watch_freshness(key));
        self.forget_unused_versions();
        // The asker may have given up.
        drop(reply.try_send(Ok(Some(started))));
    }

    /// Closes a source that the run's version has no more, once nothing of it is under way: until then
    /// it hears what becomes of what it delivered.
    pub(crate) fn part_with(&mut self, key: SourceKey) {
        let Some(listening) = self.listening.get(&key) else {
            return;
        };
        if listening.parting != Parting::Agreed {
            return;
        }
        let settled = |(id, lane): (&LaneId, &crate::lanes::Lane)| {
            let known = self.machine.lanes(id.run).find(|known| known.lane == *id);
            known.is_none_or(|known| known.low == known.read && known.low == lane.position)
        };
        let mut lanes = self.lanes.iter().filter(|(_, lane)| lane.source == key);
        if !lanes.all(settled) {
            return;
        }
        self.world.doors.close_at(key);
        listening.mailbox.close();
        if let Some(desk) = listening.desk() {
            desk.close();
        }
        if listening.inbox.is_some() {
            self.feeds.retain(|lane, _| {
                let lane = self.lanes.get(lane);
                lane.is_none_or(|lane| lane.source != key)
            });
        }
        if listening.inbox.is_some() || listening.looped {
            // No thread is waited for.
            self.listening.remove(&key);
        }
        self.view_stale = true;
    }

    /// Keeps what a run went over to, in the commit that makes it so.
    pub(crate) fn note_change(&mut self, run: RunIx, dag: &str, version: &str, by: &Prepared) {
        let record = self.records.entry(dag.to_owned()).or_default();
        let known = record
            .changes
            .last()
            .is_some_and(|last| last.version == *version && last.instead_of == by.instead_of);
        if known {
            return;
        }
        let lanes = self.machine.lanes(run);
        let from = lanes.filter(|lane| lane.generation == 0 && !lane.retired);
        let name = self.runs.get(&run).map(|slot| slot.name.to_string());
        record.add(Change {
            version: version.to_owned(),
            at_ms: self.world.clock.now_ms(),
            why: by.why,
            run: name.unwrap_or_default(),
            from: from.map(|lane| (lane.name, lane.begun)).collect(),
            instead_of: by.instead_of.clone(),
            by: by.by.clone(),
        });
        let row = Row {
            table: Table::Version,
            key: Key {
                run: 0,
                lane: 0,
                id: Record::row_id(dag),
            },
            body: record.encode(),
        };
        self.decision.writes.push(Write::Put(row));
        self.unseal();
    }

    /// A swap that was not committed has not happened: what was to go stays.
    pub(crate) fn take_back_partings(&mut self) {
        for listening in self.listening.values_mut() {
            if listening.parting == Parting::Asked {
                listening.parting = Parting::No;
                listening.hushed = false;
            }
        }
    }
}

/// What had a rate in the version before and has none now is as fast as it can.
fn lifted_rates(before: &Outline, now: &Outline) -> Vec<(Limited, u32, u64)> {
    let of_tasks = before.tasks.iter().flat_map(|task| {
        let place = now.task(&task.id);
        let next = place.map(|place| &now.tasks[usize::from(place)]);
        let whole = task.rate.is_some() && next.is_some_and(|next| next.rate.is_none());
        let keys = task.key_rate.is_some() && next.is_some_and(|next| next.key_rate.is_none());
        let whole = place.filter(|_| whole).map(Limited::Task);
        whole
            .into_iter()
            .chain(place.filter(|_| keys).map(Limited::Key))
    });
    let sources = before.sources.iter();
    let of_sources = sources.filter(|source| source.rate.is_some());
    let of_sources = of_sources.filter_map(|source| {
        let mut next = now.sources.iter();
        let place = next.position(|next| next.id == source.id)?;
        let lifted = now.sources[place].rate.is_none();
        lifted.then_some(Limited::Source(place as u16))
    });
    let lifted = of_tasks.chain(of_sources);
    lifted.map(|of| (of, u32::MAX, 1)).collect()
}

fn is_for_an_inbox(source: &Opened) -> bool {
    match source {
        Opened::Gated(source, _) => is_for_an_inbox(source),
        Opened::Received(_) | Opened::Pushed(_) | Opened::Signalled => true,
        Opened::Log(_) | Opened::Looped => false,
    }
}

/// The versions of a DAG, the newest first: those that it had, and those that something is still under
/// way with.
pub(crate) fn version_views(
    record: Option<&Record>,
    current: &str,
    in_flight: &std::collections::BTreeMap<String, u64>,
    is_stored: impl Fn(&str) -> bool,
) -> Vec<VersionView> {
    let none = Record::default();
    let record = record.unwrap_or(&none);
    let latest = record.changes.len().saturating_sub(1);
    let view = |version: &str| {
        let count = in_flight.get(version).copied().unwrap_or(0);
        let stored = is_stored(version);
        let state = match () {
            () if version == current => VersionState::Current,
            () if record.put_away() == Some(version) => VersionState::PutAway,
            () if count > 0 => VersionState::Ending,
            () if stored => VersionState::Kept,
            () => VersionState::Forgotten,
        };
        VersionView {
            version: version.to_owned(),
            state,
            stored,
            in_flight: count,
            ..VersionView::default()
        }
    };
    let mut told = BTreeSet::new();
    let changes = record.changes.iter().enumerate().rev();
    let changes = changes.map(|(place, change)| {
        let known = view(&change.version);
        // The newest of several times that it was gone over to has them.
        let first = told.insert(change.version.as_str());
        VersionView {
            since_ms: Some(change.at_ms),
            why: change.why,
            by: change.by.clone(),
            run: change.run.clone(),
            from: change.from.clone(),
            instead_of: change.instead_of.clone(),
            current: place == latest && change.version == *current,
            in_flight: if first { known.in_flight } else { 0 },
            ..known
        }
    });
    let mut views: Vec<VersionView> = changes.collect();
    let others = in_flight.iter().filter(|(_, count)| **count > 0);
    let others = others.filter(|(version, _)| !told.contains(version.as_str()));
    views.extend(others.map(|(version, _)| VersionView {
        current: *version == *current,
        ..view(version)
    }));
    views
}
