//! A store that no engine runs: looked at, and changed by operators, through the same machine.
//!
//! Nothing is performed: what a change would set in motion begins with the next engine. A store
//! whose last engine crashed still says so afterwards, since the next one has to know (C6).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use evermill_contract::alert::Alert;
use evermill_contract::source::Arrival;
use evermill_core::Machine;
use evermill_core::command::{Command, Decision, Selection};
use evermill_store::{Fence, Store};

use crate::alerts::Keeping;
use crate::attempts::AttemptQuery;
use crate::books::Books;
use crate::boot::{self, Boot};
use crate::clock::Clock;
use crate::copy::{self, Checked};
use crate::engine::Engine;
use crate::forgetting::LeftView;
use crate::handle::{EngineError, Pushed, Started};
use crate::hearing;
use crate::inbox::{Accepted, Bringer, Inboxes};
use crate::kept::RunLogs;
use crate::notice::NoticeSink;
use crate::open::{NoSettings, OpenError, SourceFactory};
use crate::operate::{self, Operations, Order, Page, Resolve, Signal, SwitchOn};
use crate::past::{self, PastQuery};
use crate::pools::PoolSizes;
use crate::prepare::PoolNumbers;
use crate::publish::state_name;
use crate::record::Record;
use crate::replay::{
    Again, BackfillAsk, ReplayAnswer, ReplayAsk, ReplayOrder, ResetAnswer, ResetAsk, moved,
};
use crate::shard::Version;
use crate::survey;
use crate::swap::version_views;
use crate::triggering::{self, Taker};
use crate::view::{
    AttemptView, EngineView, LaneView, ParkedFilter, ParkedPage, PastView, Percentiles, PoolView,
    ReplayView, RunDetail, RunView, SourceView, TaskView, VersionDiff, WaitPage,
};

/// See [`Engine::at_rest`].
pub struct AtRest(Mutex<State>);

pub(crate) struct State {
    data_dir: PathBuf,
    pub(crate) store: Box<dyn Store>,
    pub(crate) machine: Machine,
    pub(crate) versions: BTreeMap<String, Version>,
    numbers: PoolNumbers,
    pool_sizes: PoolSizes,
    records: BTreeMap<String, Record>,
    /// What resuming would write; goes with the first change.
    pub(crate) pending: Decision,
    /// Alerts so far.
    raised: u64,
    /// Claimed with the first change.
    fence: Option<Fence>,
    clock: Clock,
    /// How sources are looked at that are to be read again.
    sources: Option<SourceFactory>,
}

impl Engine {
    /// Opens a store without running it: no source is read and no task started. Latencies are not
    /// kept and so are unknown, and a source that nobody listens to is not ready.
    ///
    /// # Errors
    /// [`OpenError`] when the store cannot be read or does not fit together.
    pub fn at_rest(data_dir: &Path, mut store: Box<dyn Store>) -> Result<AtRest, OpenError> {
        let clock = Clock::system();
        let (numbers, slots) = (PoolNumbers::default(), BTreeMap::new());
        let boot = Boot {
            data_dir,
            pools: &numbers,
            slots: &slots,
            now: clock.now_ms(),
            incarnation: 0,
            // Whether anything is a suspect is for the next engine to say.
            unclean: false,
            unpacks: false,
        };
        let (versions, _, machine, pending) = boot.resume(&mut *store)?;
        let pool_sizes = PoolSizes::load(&mut *store, slots)?;
        let records = boot::records(&mut *store)?;
        Ok(AtRest(Mutex::new(State {
            data_dir: data_dir.to_owned(),
            store,
            machine,
            versions,
            numbers,
            pool_sizes,
            records,
            pending,
            raised: 0,
            fence: None,
            clock,
            sources: None,
        })))
    }
}

impl AtRest {
    /// Sizes of pools that the next engine will be opened with, unless an operator set others.
    #[must_use]
    pub fn with_pools(self, pools: BTreeMap<String, u32>) -> Self {
        self.lock().pool_sizes.given = pools;
        self
    }

    fn trigger_by(
        &self,
        run: &str,
        conf: Option<Bytes>,
        id: Option<Bytes>,
    ) -> Result<Option<String>, EngineError> {
        let mut state = self.lock();
        let found = state.books().find(run)?;
        triggering::may_trigger(&found, false)?;
        let outline = state
            .versions
            .get(&found.version)
            .map(|known| &known.outline);
        if outline.is_none_or(|outline| !outline.sources.is_empty()) {
            return Err(triggering::not_by_hand(&found.dag));
        }
        let arrival = triggering::by_hand(conf, id, state.clock.now_ms());
        let accepted = state.keep(&found, crate::MANUAL, 0, &arrival)?;
        let kept = accepted.shelved;
        Ok(kept.map(|kept| triggering::name_of(&found.name, kept.first)))
    }

    /// Lets sources be looked at, for who wants them read again by the next engine.
    #[must_use]
    pub fn with_sources(self, sources: SourceFactory) -> Self {
        self.lock().sources = Some(sources);
        self
    }

    /// Lets go of the store. A stop that was clean stays clean, and one that was not stays so.
    ///
    /// # Errors
    /// [`OpenError::Store`].
    pub fn close(self) -> Result<(), OpenError> {
        let state = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if state.store.header().clean {
            state.store.close_clean()?;
        }
        Ok(())
    }

    /// The store, for who closes it in his own way.
    pub(crate) fn into_store(self) -> Box<dyn Store> {
        let state = self.0.into_inner();
        state.unwrap_or_else(PoisonError::into_inner).store
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) fn books(&self) -> Books<'_> {
        Books {
            machine: &self.machine,
            versions: &self.versions,
        }
    }

    /// Applies a command and commits what it says; its effects are the next engine's.
    fn apply(&mut self, command: Command) -> Result<(), EngineError> {
        let mut decision = std::mem::take(&mut self.pending);
        self.machine
            .apply(self.clock.now_ms(), command, &mut decision);
        self.machine.seal(&mut decision);
        self.commit(decision)
    }

    pub(crate) fn commit(&mut self, mut decision: Decision) -> Result<(), EngineError> {
        let news = std::mem::take(&mut decision.news);
        if !news.is_empty() || !decision.parked.is_empty() {
            let mut inboxes = Inboxes::load(&mut *self.store).map_err(EngineError::store)?;
            // The next engine reads what is kept from the store.
            drop(hearing::pass_on(
                &self.machine,
                &self.versions,
                &mut inboxes,
                news,
                self.clock.now_us(),
                &mut decision.writes,
            ));
            let mut keeping = Keeping {
                machine: &self.machine,
                versions: &self.versions,
                inboxes: &mut inboxes,
                epoch: self.store.header().epoch,
                raised: self.raised,
                now_us: self.clock.now_us(),
            };
            drop(keeping.parked(&decision.parked, &mut decision.writes));
            self.raised = keeping.raised;
        }
        let refused = |cause: &dyn std::fmt::Display| {
            EngineError::Refused(format!("the store cannot be written: {cause}"))
        };
        let fence = match self.fence {
            Some(fence) => fence,
            None => self.store.claim(0).map_err(|cause| refused(&cause))?,
        };
        self.fence = Some(fence);
        let committed = self.store.commit_one(fence, decision.writes);
        committed.map(drop).map_err(|cause| refused(&cause))
    }

    /// Keeps an event for a source: it is read by the next engine.
    fn keep(
        &mut self,
        run: &evermill_core::RunView,
        source: &str,
        index: u16,
        arrival: &Arrival,
    ) -> Result<Accepted, EngineError> {
        // It goes first, so that both do not give one number to two inboxes.
        if !self.pending.news.is_empty() || !self.pending.parked.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            self.commit(pending)?;
        }
        let mut inboxes = Inboxes::load(&mut *self.store).map_err(EngineError::store)?;
        let lanes = self.machine.lanes(run.run);
        let own = lanes.filter(|lane| !lane.retired && lane.source == index);
        let read = own.map(|lane| lane.read).max();
        let number = inboxes.number(&run.dag, source);
        let inbox = inboxes.get_mut(number).expect("it was just numbered");
        inbox.raise(read.unwrap_or(0));
        let (now_us, mut writes) = (self.clock.now_us(), Vec::new());
        let arrivals = std::slice::from_ref(arrival);
        let accepted = inbox.accept(arrivals, None, now_us, Bringer::Asks, &mut writes);
        // What is refused must not take along what resuming would write.
        let accepted = accepted.map_err(triggering::refusal)?;
        let mut decision = std::mem::take(&mut self.pending);
        decision.writes.append(&mut writes);
        self.commit(decision)?;
        Ok(accepted)
    }

    fn list_pools(&self) -> Vec<PoolView> {
        self.pool_sizes.list(self.books(), &self.numbers, false)
    }

    /// Keeps what was looked at, for the next engine to begin.
    fn begin(
        &mut self,
        mut answer: ReplayAnswer,
        again: &Again,
        dry_run: bool,
    ) -> Result<ReplayAnswer, EngineError> {
        if dry_run {
            return Ok(answer);
        }
        let (command, replay) = self.books().may_replay(again)?;
        self.apply(command)?;
        answer.replay = replay;
        Ok(answer)
    }

    fn sources(&self) -> Result<SourceFactory, EngineError> {
        let refused = || EngineError::Refused("no source can be looked at here".to_owned());
        self.sources.clone().ok_or_else(refused)
    }

    fn view(&self) -> EngineView {
        EngineView {
            runs: self.books().runs().map(|run| self.run_view(&run)).collect(),
            ..EngineView::default()
        }
    }

    fn run_view(&self, run: &evermill_core::RunView) -> RunView {
        let outline = self.versions.get(&run.version).map(|known| &known.outline);
        let sources = outline
            .iter()
            .flat_map(|outline| outline.sources.iter().enumerate());
        let tasks = outline.iter().flat_map(|outline| &outline.tasks);
        let counters = run.counters;
        RunView {
            sources: sources
                .map(|(index, source)| self.source_view(run.run, index, &source.id))
                .collect(),
            tasks: tasks
                .map(|task| TaskView {
                    id: task.id.to_string(),
                    ..TaskView::default()
                })
                .collect(),
            replays: self.books().replays(run, false),
            dag: run.dag.clone(),
            run: run.name.clone(),
            version: run.version.clone(),
            state: state_name(run.state),
            taken_in: counters.seen,
            done: counters.done,
            skipped: counters.skipped,
            parked: counters.parked,
            dropped: counters.dropped,
            in_flight: counters.in_flight(),
            latency_ms: Percentiles::default(),
            commit_ms: Percentiles::default(),
            deadlines_missed: run.deadlines_missed,
            awaiting: self.machine.awaited(run.run).map(|(_, count)| count).sum(),
            waiting: run.waiting as u64,
            longest: None,
        }
    }

    fn source_view(&self, run: u32, index: usize, id: &str) -> SourceView {
        let lanes = self.machine.lanes(run);
        let own = lanes
            .filter(|lane| lane.is_live() && !lane.retired && usize::from(lane.source) == index);
        SourceView {
            id: id.to_owned(),
            lanes: own
                .map(|lane| LaneView {
                    name: lane.name,
                    position: Some(lane.low),
                    ..LaneView::default()
                })
                .collect(),
            ..SourceView::default()
        }
    }
}

/// For what a source says that is only looked at: what matters comes back as an error.
fn silent() -> NoticeSink {
    Arc::new(|_| {})
}

impl Operations for AtRest {
    fn overview(&self) -> Result<Arc<EngineView>, EngineError> {
        Ok(Arc::new(self.lock().view()))
    }

    fn detail(&self, run: &str) -> Result<RunDetail, EngineError> {
        let state = self.lock();
        let found = state.books().find(run)?;
        Ok(RunDetail {
            run: state.run_view(&found),
            stalled: None,
            misses: Vec::new(),
            alerts: Vec::new(),
            parked_by: state.books().parked_by(run)?,
            failures: Vec::new(),
            graph: state.books().graph(&found),
            versions: version_views(
                state.records.get(&found.dag),
                &found.version,
                &state.machine.in_flight_by_version(found.run),
                |version| state.versions.contains_key(version),
            ),
            notes: Vec::new(),
            resets: state.books().resets(&found),
        })
    }

    fn order(&self, run: &str, order: Order) -> Result<(), EngineError> {
        let mut state = self.lock();
        let found = state.books().find(run)?;
        if !operate::changes(order, &found.name, found.state, false)? {
            return Ok(());
        }
        let run = found.run;
        state.apply(match order {
            Order::Pause => Command::Pause { run },
            Order::Resume => Command::Resume { run },
            Order::Drain => Command::Drain { run },
            Order::Stop => Command::Stop { run },
        })
    }

    fn switch_on(&self, dag: &str, _how: &SwitchOn) -> Result<Started, EngineError> {
        Err(at_rest("start", dag))
    }

    fn roll_back(
        &self,
        dag: &str,
        _version: Option<&str>,
        _by: &str,
    ) -> Result<Started, EngineError> {
        Err(at_rest("rollback", dag))
    }

    /// Nothing is masked: who opens a store reads its files anyway.
    fn compare(
        &self,
        run: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<VersionDiff, EngineError> {
        let state = self.lock();
        let found = state.books().find(run)?;
        let record = state.records.get(&found.dag);
        let pair = state.books().pair(record, &found, from, to)?;
        let mut reader = state.store.reader().map_err(EngineError::store)?;
        let contents = pair.contents(&mut *reader)?;
        Ok(pair.difference(&contents, &NoSettings))
    }

    fn trigger(&self, run: &str, conf: Option<Bytes>) -> Result<String, EngineError> {
        Ok(self.trigger_by(run, conf, None)?.unwrap_or_default())
    }

    fn trigger_as(
        &self,
        run: &str,
        conf: Option<Bytes>,
        id: Bytes,
    ) -> Result<Option<String>, EngineError> {
        self.trigger_by(run, conf, Some(id))
    }

    fn signal(&self, run: &str, signal: Signal) -> Result<Pushed, EngineError> {
        let mut state = self.lock();
        let found = state.books().find(run)?;
        triggering::may_trigger(&found, false)?;
        let known = state.versions.get(&found.version);
        let outline = known.map(|known| Arc::clone(&known.outline));
        let now_ms = state.clock.now_ms();
        let arrival = triggering::arrival(&signal, now_ms);
        match triggering::taker(outline.as_deref(), &found.dag, &signal.name)? {
            Taker::Source(index, id) => {
                triggering::not_to_one(&signal, &id)?;
                let accepted = state.keep(&found, &id, index, &arrival)?;
                Ok(triggering::pushed(&accepted))
            }
            Taker::Tasks => {
                let now_us = state.clock.now_us();
                match state.books().for_tasks(&found, &signal, now_us)? {
                    None => Ok(Pushed::REPEATED),
                    Some(command) => state.apply(command).map(|()| Pushed::KEPT),
                }
            }
        }
    }

    fn waits(&self, run: &str, signal: Option<&str>, page: Page) -> Result<WaitPage, EngineError> {
        let state = self.lock();
        let found = state.books().waits(run, signal, page)?;
        let mut reader = state.store.reader().map_err(EngineError::store)?;
        found.told(&mut *reader)
    }

    /// Those that hooks will be told of by the next engine.
    fn alerts(&self) -> Result<Vec<Alert>, EngineError> {
        let mut state = self.lock();
        let owed = crate::alerts::load(&mut *state.store).map_err(EngineError::store)?;
        Ok(owed.into_iter().rev().map(|(_, alert)| alert).collect())
    }

    fn pools(&self) -> Result<Vec<PoolView>, EngineError> {
        let state = self.lock();
        Ok(state.list_pools())
    }

    fn set_pool(&self, name: &str, slots: Option<u32>) -> Result<PoolView, EngineError> {
        let mut state = self.lock();
        state.pool_sizes.check(name, &state.numbers)?;
        let mut decision = std::mem::take(&mut state.pending);
        decision.writes.push(state.pool_sizes.change(name, slots));
        state.commit(decision)?;
        let found = state
            .list_pools()
            .into_iter()
            .find(|pool| pool.name == name);
        Ok(found.unwrap_or_else(|| PoolView::empty(name)))
    }

    fn parked(
        &self,
        run: &str,
        which: &ParkedFilter,
        page: Page,
    ) -> Result<ParkedPage, EngineError> {
        self.lock().books().parked(run, which, page)
    }

    fn resolve(
        &self,
        run: &str,
        which: &ParkedFilter,
        how: Resolve,
        dry_run: bool,
    ) -> Result<u64, EngineError> {
        let mut state = self.lock();
        let found = state.books().find(run)?;
        operate::may_resolve(&state.books(), &found, how)?;
        let keys = state.books().chosen(run, which)?;
        let count = keys.len() as u64;
        if count > 0 && !dry_run {
            let (run, selection) = (found.run, Selection::Keys(keys));
            state.apply(match how {
                Resolve::Retry => Command::Redrive { run, selection },
                Resolve::Drop => Command::Discard { run, selection },
            })?;
        }
        Ok(count)
    }

    fn amend(&self, run: &str, id: &str, event: u32, value: Bytes) -> Result<(), EngineError> {
        let mut state = self.lock();
        let command = state.books().amend(run, id, event, &value)?;
        state.apply(command)
    }

    fn past(&self, run: &str, wanted: &PastQuery) -> Result<PastView, EngineError> {
        let state = self.lock();
        let names = state.books().names(run)?;
        let mut reader = state.store.reader().map_err(EngineError::store)?;
        past::look(&mut *reader, &names, wanted)
    }

    fn attempts(&self, run: &str, _: &AttemptQuery) -> Result<Vec<AttemptView>, EngineError> {
        self.lock().books().find(run).map(|_| Vec::new())
    }

    fn logs(&self, run: &str) -> Result<RunLogs, EngineError> {
        let state = self.lock();
        Ok(state.books().names(run)?.logs(&state.data_dir))
    }

    fn worker_logs(&self) -> Result<RunLogs, EngineError> {
        Ok(RunLogs::of_workers(&self.lock().data_dir))
    }

    fn replay(&self, run: &str, ask: &ReplayAsk) -> Result<ReplayAnswer, EngineError> {
        let mut state = self.lock();
        let ground = state.books().ground(run, ask.source.as_deref())?;
        let (answer, again) = survey::replay(&ground, ask, &state.sources()?, &silent())?;
        state.begin(answer, &again, ask.dry_run)
    }

    fn backfill(&self, run: &str, ask: &BackfillAsk) -> Result<ReplayAnswer, EngineError> {
        let mut state = self.lock();
        let ground = state.books().ground(run, ask.source.as_deref())?;
        let unread = |stretch| Ok(state.machine.unread(ground.run.run, stretch));
        let found = survey::backfill(&ground, ask, unread, &state.sources()?, &silent());
        let (answer, again) = found?;
        let nothing = answer.events == 0;
        state.begin(answer, &again, ask.dry_run || nothing)
    }

    fn replays(&self, run: &str) -> Result<Vec<ReplayView>, EngineError> {
        let state = self.lock();
        let run = state.books().find(run)?;
        Ok(state.books().replays(&run, true))
    }

    fn steer_replay(&self, run: &str, replay: u32, order: ReplayOrder) -> Result<(), EngineError> {
        let mut state = self.lock();
        let found = state.books().find(run)?;
        let command = state.books().may_steer(&found, replay, order)?;
        command.map_or(Ok(()), |command| state.apply(command))
    }

    fn forget_source(
        &self,
        run: &str,
        source: &str,
        dry_run: bool,
    ) -> Result<LeftView, EngineError> {
        self.lock().forget_source(run, source, dry_run)
    }

    fn reset(&self, run: &str, ask: &ResetAsk) -> Result<ResetAnswer, EngineError> {
        let mut state = self.lock();
        let ground = state.books().ground(run, ask.source.as_deref())?;
        let (answer, moves) = survey::reset(&ground, ask, &state.sources()?, &silent())?;
        if ask.dry_run {
            return Ok(answer);
        }
        // Nothing runs, whatever state it was left in.
        for (lane, to) in moves {
            state.apply(moved(lane, to, &ask.by))?;
        }
        Ok(answer)
    }

    fn backup(&self, file: &Path) -> Result<Checked, EngineError> {
        let mut reader = self.lock().store.reader().map_err(EngineError::store)?;
        copy::backup(&mut *reader, file).map_err(EngineError::store)
    }

    fn verify(&self) -> Result<Checked, EngineError> {
        let report = self.lock().store.verify().map_err(EngineError::store)?;
        Ok(Checked {
            rows: report.rows,
            history_rows: report.history_rows,
            bytes: 0,
        })
    }
}

/// Of what only an engine does.
fn at_rest(verb: &str, dag: &str) -> EngineError {
    EngineError::Refused(format!(
        "no engine runs on this data directory; `evermill serve` starts one, and then \
         `evermill {verb} {dag}` does this"
    ))
}
