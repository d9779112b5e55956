//! From rows to a running machine: at open, and again whenever a shard was dropped (C5).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use evermill_contract::alert::Alert;
use evermill_contract::manifest::Manifest;
use evermill_contract::source::Severity;
use evermill_contract::worker::WorkerEvent;
use evermill_core::Machine;
use evermill_core::command::{
    Command, Decision, DispatchId, Effect, Fence, Ms, OutcomeRun, Parked,
};
use evermill_core::dag::Dag;
use evermill_core::row::{Row, Table};
use evermill_store::{Batch, Committer, Store, StoreError};

use crate::alerts;
use crate::bundle::{self, File};
use crate::failpoint::{self, fp};
use crate::groups::After;
use crate::hearing;
use crate::inbox::Inboxes;
use crate::input::{Input, Request, SourceInput, SourceKey};
use crate::judging::Judging;
use crate::lanes::Parting;
use crate::limits;
use crate::manifest;
use crate::open::OpenError;
use crate::outcome;
use crate::pools::PoolSizes;
use crate::prepare::PoolNumbers;
use crate::record::Record;
use crate::sabotage;
use crate::shard::{Flow, Shard, Version};
use crate::slots;
use crate::spill::Spill;

/// What a boot gives: a machine whose resumption is committed.
pub(crate) struct Booted {
    pub(crate) machine: Machine,
    pub(crate) fence: evermill_store::Fence,
    /// Durable already.
    pub(crate) effects: Vec<Effect>,
    pub(crate) versions: BTreeMap<String, Version>,
    pub(crate) stored_files: BTreeSet<String>,
    pub(crate) records: BTreeMap<String, Record>,
    pub(crate) inboxes: Inboxes,
    pub(crate) pool_sizes: PoolSizes,
    pub(crate) spill: Spill,
    /// That hooks are still to be told of.
    pub(crate) alerts: Vec<(alerts::Number, Alert)>,
    /// What resuming has parked.
    pub(crate) parked: Vec<Parked>,
}

type Resumed = (
    BTreeMap<String, Version>,
    BTreeSet<String>,
    Machine,
    Decision,
);

/// What a boot has to know.
pub(crate) struct Boot<'a> {
    pub(crate) data_dir: &'a Path,
    pub(crate) pools: &'a PoolNumbers,
    /// Of pools, by name, as the engine was opened with them.
    pub(crate) slots: &'a BTreeMap<String, u32>,
    pub(crate) now: Ms,
    pub(crate) incarnation: u32,
    /// The stop before was a crash: events in flight are suspects (C6).
    pub(crate) unclean: bool,
    /// Makes bundles ready for workers.
    pub(crate) unpacks: bool,
}

impl Boot<'_> {
    /// Claims the shard, loads it, resumes the machine and commits that.
    pub(crate) fn boot(&self, store: &mut dyn Store) -> Result<Booted, OpenError> {
        fp!("open.store_opened");
        let fence = store.claim(0)?;
        fp!("open.claimed");
        let (versions, stored_files, machine, mut decision) = self.resume(store)?;
        let mut inboxes = Inboxes::load(store)?;
        let news = std::mem::take(&mut decision.news);
        let mut heard = hearing::pass_on(
            &machine,
            &versions,
            &mut inboxes,
            news,
            self.now * 1_000,
            &mut decision.writes,
        );
        let parked = std::mem::take(&mut decision.parked);
        let mut keeping = alerts::Keeping {
            machine: &machine,
            versions: &versions,
            inboxes: &mut inboxes,
            epoch: store.header().epoch,
            raised: 0,
            now_us: self.now * 1_000,
        };
        heard.extend(keeping.parked(&parked, &mut decision.writes));
        let pool_sizes = PoolSizes::load(store, self.slots.clone())?;
        let records = records(store)?;
        fp!("open.resumed");
        if !decision.writes.is_empty() {
            let writes = decision.writes;
            let committed = store.commit(&[Batch { fence, writes }])?;
            if let Some(refused) = committed.refused.first() {
                return Err(refused.to_error().into());
            }
        }
        fp!("open.resume_committed");
        for (number, shelved) in heard {
            if let Some(inbox) = inboxes.get_mut(number) {
                inbox.shelve(shelved);
            }
        }
        let epoch = store.header().epoch;
        let spill = Spill::load(store, epoch)?;
        let alerts = alerts::load(store)?;
        Ok(Booted {
            machine,
            fence,
            effects: decision.effects,
            versions,
            stored_files,
            records,
            inboxes,
            pool_sizes,
            spill,
            alerts,
            parked,
        })
    }

    /// Loads everything and builds the machine; nothing is written. The decision is sealed: what was
    /// parked or settled and the counters of its run are in one commit.
    pub(crate) fn resume(&self, store: &mut dyn Store) -> Result<Resumed, OpenError> {
        let (versions, stored_files) = self.versions(store)?;
        let rows = machine_rows(store)?;
        fp!("open.loaded");
        let dags = versions
            .iter()
            .map(|(hash, known)| (hash.clone(), Arc::clone(&known.dag)));
        let dags: BTreeMap<String, Arc<Dag>> = dags.collect();
        let fence = Fence {
            epoch: store.header().epoch,
            incarnation: self.incarnation,
        };
        let resumed = Machine::resume(fence, self.now, self.unclean, rows, &dags);
        let (mut machine, mut decision) =
            resumed.map_err(|cause| OpenError::Resume(cause.to_string()))?;
        machine.seal(&mut decision);
        Ok((versions, stored_files, machine, decision))
    }

    /// Compiles every stored version and unpacks its bundle where that is missing.
    fn versions(
        &self,
        store: &mut dyn Store,
    ) -> Result<(BTreeMap<String, Version>, BTreeSet<String>), OpenError> {
        let files: BTreeMap<String, Bytes> = load(store, Table::Bundle)?
            .into_iter()
            .map(|row| (text(&row.key.id), row.body))
            .collect();
        let mut versions = BTreeMap::new();
        let rows = load(store, Table::Version)?.into_iter();
        for row in rows.filter(|row| Record::dag_of(&row.key.id).is_none()) {
            let hash = text(&row.key.id);
            let version = self.version(&hash, &row.body, &files)?;
            versions.insert(hash, version);
        }
        Ok((versions, files.into_keys().collect()))
    }

    fn version(
        &self,
        hash: &str,
        body: &[u8],
        files: &BTreeMap<String, Bytes>,
    ) -> Result<Version, OpenError> {
        let wrong = |what: String| OpenError::Resume(format!("version {hash}: {what}"));
        let stored = Manifest::decode(body).map_err(|cause| wrong(cause.to_string()))?;
        let declared = stored
            .dags
            .first()
            .ok_or_else(|| wrong("holds no DAG".to_owned()))?;
        let mut pools = self.pools;
        let (dag, outline) = manifest::compile(&stored, declared, hash.to_owned(), &mut pools)
            .map_err(|faults| wrong(faults.iter().map(ToString::to_string).collect()))?;
        if self.unpacks {
            self.unpack(hash, &stored, files)?;
        }
        Ok(Version {
            dag: Arc::new(dag),
            outline: Arc::new(outline),
            manifest: Arc::new(stored),
        })
    }

    fn unpack(
        &self,
        hash: &str,
        stored: &Manifest,
        files: &BTreeMap<String, Bytes>,
    ) -> Result<(), OpenError> {
        let with_content = |file: &evermill_contract::manifest::BundleFile| {
            let content = files.get(&file.sha256);
            content.map(|content| File {
                path: file.path.clone(),
                sha256: file.sha256.clone(),
                content: content.clone(),
            })
        };
        let bundle: Vec<File> = stored.files.iter().filter_map(with_content).collect();
        let folder = bundle::folder(self.data_dir, hash);
        bundle::unpack(&folder, &bundle).map_err(|cause| OpenError::System {
            doing: format!("unpacking a bundle into {}", folder.display()),
            cause,
        })?;
        Ok(())
    }
}

/// What is remembered of each DAG.
pub(crate) fn records(store: &mut dyn Store) -> Result<BTreeMap<String, Record>, OpenError> {
    let mut records = BTreeMap::new();
    for row in load(store, Table::Version)? {
        if let Some(dag) = Record::dag_of(&row.key.id) {
            let record = Record::decode(&row.body).map_err(|cause| {
                OpenError::Resume(format!("the record of DAG '{dag}': {cause}"))
            })?;
            records.insert(dag, record);
        }
    }
    Ok(records)
}

fn text(id: &Bytes) -> String {
    String::from_utf8_lossy(id).into_owned()
}

fn load(store: &mut dyn Store, table: Table) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    store.load(table, &mut |row| rows.push(row))?;
    Ok(rows)
}

/// The rows that belong to the machine.
fn machine_rows(store: &mut dyn Store) -> Result<Vec<Row>, StoreError> {
    let engines_own = [
        Table::Version,
        Table::Bundle,
        Table::Dedup,
        Table::Outbox,
        Table::Inbox,
        Table::Spill,
        Table::Setting,
    ];
    let mut rows = Vec::new();
    for table in Table::ALL
        .into_iter()
        .filter(|table| !engines_own.contains(table))
    {
        rows.extend(load(store, table)?);
    }
    Ok(rows)
}

/// Starts the thread that owns the store.
pub(crate) fn start_committer(
    store: Box<dyn Store>,
    input: crossbeam_channel::Sender<Input>,
) -> Result<Committer, StoreError> {
    let epoch = store.header().epoch;
    Committer::start(store, failpoint::hook(), move |event| {
        // The shard is gone only when nobody waits for the store.
        drop(input.send(Input::Store(epoch, event)));
    })
}

/// Outcomes, as a worker reported them under some fence.
pub(crate) type Report = (DispatchId, Fence, Vec<OutcomeRun>);

/// What outlives a dropped machine.
#[derive(Default)]
struct Kept {
    /// Outcomes that came too late, under the fence they carry.
    reports: Vec<Report>,
    inputs: Vec<Input>,
}

impl Shard {
    /// Drops the machine and builds it again from what is stored. Attempts of the dropped one are
    /// ended first, so that nothing runs twice at the same time (C5).
    pub(crate) fn reload(&mut self, why: &str) -> Flow {
        self.notice(
            Severity::Warning,
            &format!("the shard is dropped and loaded again: {why}"),
        );
        self.reloads += 1;
        self.reloads_in_a_row += 1;
        if self.reloads_in_a_row > limits::RELOADS_IN_A_ROW {
            self.abort(&format!("commits keep failing: {why}"));
        }
        let Some(kept) = self.let_go() else {
            return Flow::End;
        };
        let booted = self.boot_again();
        self.refused_before += self.machine.refused();
        self.machine = booted.machine;
        self.fence = booted.fence;
        self.versions = booted.versions;
        self.stored_files = booted.stored_files;
        self.records = booted.records;
        self.take_back_partings();
        self.inboxes = booted.inboxes;
        self.find_inboxes_again();
        self.forget_hold_ups();
        self.spill = booted.spill;
        self.adopt(booted.effects);
        self.owe(booted.alerts);
        self.note_parked(&booted.parked);
        self.pool_sizes = booted.pool_sizes;
        self.find_hearers();
        self.pools_told = 0;
        self.tell_pools();
        let runs: Vec<_> = self.runs.keys().copied().collect();
        runs.into_iter().for_each(|run| self.tell_rates(run));
        self.forget_unborn();
        if self.draining.is_some() {
            self.drain_runs();
        } else {
            self.open_lanes_again();
        }
        self.take_kept(kept)
    }

    fn take_kept(&mut self, kept: Kept) -> Flow {
        if sabotage::accept_second_result() {
            self.late = kept.reports;
        } else {
            for (dispatch, fence, runs) in kept.reports {
                self.apply(Command::Outcomes {
                    dispatch,
                    fence,
                    runs,
                });
            }
        }
        for input in kept.inputs {
            match self.take(input) {
                Flow::Go => {}
                other => return other,
            }
        }
        Flow::Go
    }

    /// Ends every attempt and the committer; `None` when the engine is to end meanwhile. Returns
    /// what has to be looked at afterwards.
    fn let_go(&mut self) -> Option<Kept> {
        self.decision = Decision::default();
        self.performed = 0;
        self.unsealed = false;
        self.pressing = false;
        let mut kept = Kept::default();
        // Whoever waits for a commit that failed hears that by his reply being dropped.
        let after = self.groups.forget().into_iter().chain(self.after.drain(..));
        self.viewers.extend(after.filter_map(|after| match after {
            After::View(reply) => Some(reply),
            After::Effect(_) | After::Answer(..) | After::Do(_) => None,
        }));
        self.slots.forget_waiting();
        self.inquiries.forget();
        self.judging = Judging::default();
        self.return_permits();
        let busy: Vec<_> = self.slots.busy().collect();
        // What a worker has not got yet comes back by itself; the rest ends with its worker.
        for token in self.slots.tokens() {
            self.executor.recall(token);
        }
        for slot in busy {
            self.executor.kill(slot, limits::RELOAD_GRACE);
        }
        let stopping = self.committer.take().map(stop_aside);
        let (mut halt, begun) = (false, Instant::now());
        let stopped =
            |thread: &Option<JoinHandle<()>>| thread.as_ref().is_none_or(JoinHandle::is_finished);
        while self.slots.out() > 0 || !stopped(&stopping) {
            if begun.elapsed() > limits::WORKERS_END {
                self.abort("workers could not be ended");
            }
            match self.world.inbox.recv_timeout(limits::RELOAD_TICK) {
                Ok(Input::Worker(event)) => self.old_report(event, &mut kept),
                Ok(Input::Request(Request::Halt)) => halt = true,
                Ok(input @ Input::Request(_)) => kept.inputs.push(input),
                Ok(Input::Source(key, input)) => self.old_source_input(key, input, &mut kept),
                Ok(Input::Committed(..) | Input::Store(..) | Input::Judged(_)) | Err(_) => {}
            }
        }
        (!halt).then_some(kept)
    }

    /// A report under the old fence: kept, so that the new machine refuses and counts it.
    fn old_report(&mut self, event: WorkerEvent, kept: &mut Kept) {
        match event {
            // Its members are the old machine's.
            WorkerEvent::Returned { .. } => {}
            WorkerEvent::Finished { token, .. } => drop(self.slots.over(token)),
            WorkerEvent::Died { slot, token, .. } => {
                self.slots.set_ready(slot, false);
                drop(token.and_then(|token| self.slots.over(token)));
            }
            WorkerEvent::Ready { slot, pid } => self.slots.started(slot, pid),
            WorkerEvent::Outcomes { token, runs, .. } => {
                if let Some((out, task)) = self.slots.of_task(token) {
                    let runs = outcome::runs(runs, &out.dag, &out.outline, task);
                    let (dispatch, fence) = slots::unpack(token, self.machine.fence());
                    kept.reports.push((dispatch, fence, runs));
                }
            }
            // A task of a dropped attempt hears nothing any more: it is being killed.
            WorkerEvent::Ask { .. } => {}
            WorkerEvent::Log { .. }
            | WorkerEvent::Progress { .. }
            | WorkerEvent::Unavailable { .. } => kept.inputs.push(Input::Worker(event)),
        }
    }

    /// Batches of a session that is over are dropped; news of the source itself are kept.
    fn old_source_input(&mut self, key: SourceKey, input: SourceInput, kept: &mut Kept) {
        match input {
            SourceInput::Batch { .. } | SourceInput::Dropped => {
                if let Some(listening) = self.listening.get_mut(&key) {
                    listening.applied += 1;
                }
                self.return_permits();
            }
            // What was not committed is delivered again: each source is told to begin anew.
            SourceInput::Delivery { .. } | SourceInput::Asks { .. } => {}
            SourceInput::CaughtUp { .. }
            | SourceInput::Lag { .. }
            | SourceInput::Passed { .. }
            | SourceInput::Gap { .. } => {}
            other => kept.inputs.push(Input::Source(key, other)),
        }
    }

    fn boot_again(&mut self) -> Booted {
        let mut store = match (self.world.store)() {
            Ok(store) => store,
            Err(cause) => self.abort(&cause.to_string()),
        };
        if let Some(id) = self.unknown.take() {
            let outcome = store.outcome(id);
            self.notice(Severity::Info, &format!("commit {id}: {outcome:?}"));
        }
        let boot = Boot {
            data_dir: &self.world.data_dir,
            pools: &self.world.pools,
            slots: &self.pool_sizes.given,
            now: self.world.clock.now_ms(),
            incarnation: self.machine.fence().incarnation + 1,
            // Our own attempts were ended one by one: nobody is a suspect.
            unclean: false,
            unpacks: true,
        };
        let booted = boot.boot(&mut *store);
        let committer = booted
            .and_then(|booted| Ok((booted, start_committer(store, self.world.input.clone())?)));
        match committer {
            Ok((booted, committer)) => {
                self.committer = Some(committer);
                booted
            }
            Err(cause) => self.abort(&cause.to_string()),
        }
    }

    /// A start that was not committed has no sources; it may be asked for again.
    fn forget_unborn(&mut self) {
        let listens: BTreeSet<_> = self.listening.keys().map(|key| key.run).collect();
        let versions = &self.versions;
        for (run, slot) in &mut self.runs {
            let outline = versions.get(&slot.version).map(|known| &known.outline);
            let manual = outline.is_some_and(|outline| outline.sources.is_empty());
            slot.started &= manual || listens.contains(run);
        }
    }

    /// Runs are as they were stored; their lanes are read again from committed positions.
    fn open_lanes_again(&mut self) {
        for lane in self.lanes.values_mut() {
            // Whatever is still on its way was read in a session that is over.
            lane.session += 1;
        }
        self.hand_on_again();
        let reading = self
            .listening
            .iter()
            .filter(|(_, listening)| listening.ended.is_none() && listening.parting == Parting::No);
        let found: Vec<_> = reading
            .filter(|(key, _)| key.is_live())
            .flat_map(|(key, listening)| listening.found.keys().map(|name| (*key, name.clone())))
            .collect();
        for (key, name) in found {
            self.open_lane(key, &name);
        }
        let manual: Vec<_> = self
            .runs
            .iter()
            .filter(|(_, run)| run.started && !crate::requests::is_over(run.state))
            .filter(|(run, _)| {
                self.outline_of(**run)
                    .is_some_and(|outline| outline.sources.is_empty())
            })
            .map(|(run, _)| *run)
            .collect();
        for run in manual {
            self.open_manual_lane(run);
        }
        let started = self.runs.iter().filter(|(_, run)| run.started);
        let started: Vec<_> = started.map(|(run, _)| *run).collect();
        for run in started {
            self.apply(Command::OpenReplays { run });
        }
    }
}

/// Ends the committer on a thread of its own, so that what it still has to say finds a reader.
fn stop_aside(committer: Committer) -> JoinHandle<()> {
    std::thread::spawn(move || drop(committer.stop()))
}
