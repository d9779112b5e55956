//! The shard's thread: it owns the machine, takes inputs from one bounded channel, and blocks on
//! nothing else.
//!
//! ```text
//! wait -> drain what is queued, apply each, send what may start at once (C3)
//!      -> seal and submit when the store has room for a group; commit right here what a task waits
//!         for, when there is nothing else to do
//!      -> on the store's answer perform the group's effects, in order -> wait
//! ```
//!
//! | state | on | goes to |
//! |---|---|---|
//! | running | a fence refused, an outcome unknown | reloading |
//! | reloading | all attempts ended, rows loaded, resume committed | running |
//! | running | drain | draining: sources closed, runs settle |
//! | draining | settled or out of time | ended: workers ended, store closed cleanly |
//! | any | halt | ended, as after a crash |
//! | any | the store must not be trusted | the process aborts |

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use evermill_contract::alert::AlertSink;
use evermill_contract::manifest::Manifest;
use evermill_contract::source::Severity;
use evermill_contract::worker::Executor;
use evermill_core::Machine;
use evermill_core::command::{
    ActivationKey, Command, Counters, Decision, Effect, LaneId, RunIx, RunState,
};
use evermill_core::dag::Dag;
use evermill_store::{CommitError, CommitId, Committer};

use crate::alerts::Alerts;
use crate::attempts::Attempts;
use crate::board::Board;
use crate::boot::Booted;
use crate::clock::Clock;
use crate::doors::Doors;
use crate::drain::Draining;
use crate::failpoint::fp;
use crate::feeding::Feed;
use crate::groups::{After, Groups};
use crate::hearing::{Hearers, HoldUps};
use crate::histogram::Histogram;
use crate::inbox::Inboxes;
use crate::input::{Input, SourceKey};
use crate::inquiry::Inquiries;
use crate::judging::Judging;
use crate::lanes::{Lane, Listening};
use crate::limits;
use crate::log::Logger;
use crate::manifest::Outline;
use crate::notice::NoticeSink;
use crate::open::{Settings, SourceFactory, StoreFactory};
use crate::payload::Buffers;
use crate::pools::PoolSizes;
use crate::prepare::PoolNumbers;
use crate::record::Record;
use crate::slots::Slots;
use crate::spill::Spill;
use crate::tally::Tally;
use crate::traces::Tracing;
use crate::view::{EngineView, MissView};

/// Everything the thread owns.
pub(crate) struct Shard {
    pub(crate) machine: Machine,
    /// Under construction; its first `performed` effects were looked at for what may start early.
    pub(crate) decision: Decision,
    pub(crate) performed: usize,
    /// Something was applied since the last seal.
    pub(crate) unsealed: bool,
    /// When the first of it was.
    pub(crate) unsealed_at: Instant,
    /// Some of it may not wait for company ([`Shard::may_gather`]).
    pub(crate) pressing: bool,
    /// What follows the commit of `decision` besides its own effects.
    pub(crate) after: Vec<After>,
    /// Runs in which members of a stateful task were redriven; see `note_redrives`.
    pub(crate) redrives: BTreeSet<RunIx>,
    pub(crate) groups: Groups,
    /// A group that this thread has committed by itself.
    pub(crate) answered: Option<(u64, Result<CommitId, CommitError>)>,
    pub(crate) committer: Option<Committer>,
    pub(crate) fence: evermill_store::Fence,
    /// A commit whose outcome has to be looked up after opening again.
    pub(crate) unknown: Option<evermill_store::CommitId>,
    /// Reloads without a commit in between.
    pub(crate) reloads_in_a_row: u32,
    pub(crate) reloads: u32,
    /// Reports refused by machines that were dropped.
    pub(crate) refused_before: u64,

    /// Empty, except under sabotage.
    pub(crate) late: Vec<crate::boot::Report>,

    pub(crate) executor: Box<dyn Executor>,
    pub(crate) slots: Slots,
    pub(crate) inquiries: Inquiries,
    pub(crate) judging: Judging,
    pub(crate) unavailable: Option<String>,
    pub(crate) buffers: Buffers,
    pub(crate) spill: Spill,

    pub(crate) listening: BTreeMap<SourceKey, Listening>,
    pub(crate) lanes: BTreeMap<LaneId, Lane>,
    pub(crate) inboxes: Inboxes,
    pub(crate) feeds: BTreeMap<LaneId, Feed>,
    pub(crate) hearers: Hearers,
    pub(crate) hold_ups: HoldUps,
    pub(crate) runs: BTreeMap<RunIx, RunSlot>,
    pub(crate) versions: BTreeMap<String, Version>,
    /// Files of bundles that are stored, by hash.
    pub(crate) stored_files: BTreeSet<String>,
    pub(crate) pool_sizes: PoolSizes,
    /// What is remembered of each DAG.
    pub(crate) records: BTreeMap<String, Record>,
    /// Of the next source that is listened to.
    pub(crate) next_source: u32,
    pub(crate) pools_told: u16,

    pub(crate) alerts: Alerts,
    pub(crate) tracing: Tracing,
    /// When it was last looked whether sources are stalled.
    pub(crate) looked_at_ms: u64,
    /// Some source is to be fresh.
    pub(crate) watches_freshness: bool,
    pub(crate) draining: Option<Draining>,
    pub(crate) stalled: Option<String>,
    pub(crate) viewed_at: Instant,
    pub(crate) view_took: Duration,
    /// Who waits for the next view.
    pub(crate) viewers: Vec<Sender<Arc<EngineView>>>,
    pub(crate) view_stale: bool,
    /// Nothing was in flight when the view was last looked at.
    pub(crate) resting: bool,
    pub(crate) world: World,
}

/// What the shard was given and never changes.
pub(crate) struct World {
    pub(crate) data_dir: PathBuf,
    pub(crate) store: StoreFactory,
    pub(crate) settings: Arc<dyn Settings>,
    pub(crate) sources: SourceFactory,
    pub(crate) clock: Clock,
    pub(crate) logger: Logger,
    pub(crate) notices: NoticeSink,
    pub(crate) alerts: AlertSink,
    pub(crate) pools: Arc<PoolNumbers>,
    pub(crate) board: Arc<Board>,
    pub(crate) doors: Arc<Doors>,
    pub(crate) inbox: Receiver<Input>,
    pub(crate) input: Sender<Input>,
}

/// A version of a DAG that is known here.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) dag: Arc<Dag>,
    pub(crate) outline: Arc<Outline>,
    /// Of this one DAG.
    pub(crate) manifest: Arc<Manifest>,
}

/// A run, as the engine sees it.
pub(crate) struct RunSlot {
    /// Switched on through this engine: its sources listen.
    pub(crate) started: bool,
    pub(crate) dag: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) version: String,
    /// As of the last commit.
    pub(crate) state: RunState,
    /// As of the last commit.
    pub(crate) counters: Counters,
    /// As of the last seal.
    pub(crate) sealed: Option<(RunState, Counters)>,
    /// Parked and not yet said.
    pub(crate) parked_unsaid: u64,
    pub(crate) parked_said: Option<Instant>,
    pub(crate) latency: Histogram,
    pub(crate) commit: Histogram,
    pub(crate) tally: Tally,
    pub(crate) attempts: Attempts,
    /// Activations that missed a deadline: as of the last commit, and the latest of them.
    pub(crate) deadlines_missed: u64,
    pub(crate) misses: VecDeque<MissView>,
}

/// A panic here is a defect that leaves the machine in an unknown state: the process ends, and the
/// next start resumes from what is committed.
struct EndWithPanic;

impl Drop for EndWithPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// What the loop does next.
pub(crate) enum Flow {
    Go,
    /// Drop the machine and build it again from what is stored (C5).
    Reload(String),
    End,
}

impl Shard {
    pub(crate) fn new(
        booted: Booted,
        committer: Committer,
        executor: Box<dyn Executor>,
        world: World,
    ) -> Self {
        let slots = Slots::new(executor.slots());
        let mut shard = Self {
            machine: booted.machine,
            decision: Decision::default(),
            performed: 0,
            unsealed: false,
            unsealed_at: Instant::now(),
            pressing: false,
            after: Vec::new(),
            redrives: BTreeSet::new(),
            groups: Groups::default(),
            answered: None,
            committer: Some(committer),
            fence: booted.fence,
            unknown: None,
            reloads_in_a_row: 0,
            reloads: 0,
            refused_before: 0,
            late: Vec::new(),
            executor,
            judging: Judging::default(),
            slots,
            inquiries: Inquiries::default(),
            unavailable: None,
            buffers: Buffers::default(),
            spill: booted.spill,
            listening: BTreeMap::new(),
            lanes: BTreeMap::new(),
            inboxes: booted.inboxes,
            feeds: BTreeMap::new(),
            hearers: Hearers::default(),
            hold_ups: HoldUps::default(),
            runs: BTreeMap::new(),
            versions: booted.versions,
            stored_files: booted.stored_files,
            pool_sizes: booted.pool_sizes,
            records: booted.records,
            next_source: 0,
            pools_told: 0,
            alerts: Alerts::default(),
            tracing: Tracing::default(),
            looked_at_ms: 0,
            watches_freshness: false,
            draining: None,
            stalled: None,
            viewed_at: Instant::now(),
            view_took: Duration::ZERO,
            viewers: Vec::new(),
            view_stale: true,
            resting: false,
            world,
        };
        shard.declare_versions();
        shard.adopt(booted.effects);
        shard.owe(booted.alerts);
        shard.note_parked(&booted.parked);
        shard.find_hearers();
        shard.forget_unused_versions();
        shard
    }

    /// The thread's body.
    pub(crate) fn run(mut self) {
        let _guard = EndWithPanic;
        loop {
            let flow = match self.turn() {
                Flow::Go => continue,
                Flow::Reload(why) => self.reload(&why),
                Flow::End => Flow::End,
            };
            if matches!(flow, Flow::End) {
                return self.end();
            }
        }
    }

    /// Waits once, then takes everything that is queued.
    fn turn(&mut self) -> Flow {
        let first = match self.wait() {
            None => self
                .world
                .inbox
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
            Some(time) => self.world.inbox.recv_timeout(time),
        };
        if let Ok(first) = first {
            let mut next = Some(first);
            let mut taken = 0;
            while let Some(input) = next {
                match self.take(input) {
                    Flow::Go => {}
                    other => return other,
                }
                taken += 1;
                next = if taken < limits::INPUTS_PER_TURN {
                    self.next_input()
                } else {
                    None
                };
            }
        }
        self.fire_timer();
        self.unstick();
        self.count_stale();
        self.restart_stalled();
        self.forget_told_alerts();
        self.submit();
        while let Some((number, result)) = self.answered.take() {
            match self.committed(number, result) {
                Flow::Go => self.submit(),
                other => return other,
            }
        }
        self.publish_if_due();
        self.go_on_draining()
    }

    /// What is queued, or what is certain to come at once.
    fn next_input(&self) -> Option<Input> {
        let queued = self.world.inbox.try_recv().ok();
        queued.or_else(|| {
            let expected = self.slots.expects_finish();
            let wait = expected.then_some(limits::FINISH_WAIT)?;
            self.world.inbox.recv_timeout(wait).ok()
        })
    }

    pub(crate) fn take(&mut self, input: Input) -> Flow {
        match input {
            Input::Source(key, input) => {
                self.source(key, input);
                Flow::Go
            }
            Input::Worker(event) => {
                self.worker(event);
                Flow::Go
            }
            Input::Committed(number, result) => self.committed(number, result),
            Input::Store(epoch, event) => self.store_says(epoch, event),
            Input::Judged(unanswered) => {
                self.judged(unanswered);
                Flow::Go
            }
            Input::Request(request) => self.request(request),
        }
    }

    /// Applies a command, with the rows that it needs, and sends at once what may start before the commit.
    pub(crate) fn apply(&mut self, command: Command) {
        let wanted = self.machine.wanted(&command);
        self.bring(wanted);
        self.decide(command);
        let owed = self.machine.owed(limits::BROUGHT_AT_ONCE);
        self.bring(owed);
    }

    /// Reads what the machine has let go of. What is still owed then is due at once: a timer brings it.
    fn bring(&mut self, activations: Vec<ActivationKey>) {
        if activations.is_empty() {
            return;
        }
        let row = |key: ActivationKey| (key, self.spill.waiting(key));
        let bodies = activations.into_iter().map(row).collect();
        self.decide(Command::Fetched { bodies });
    }

    fn decide(&mut self, command: Command) {
        self.pressing |= !matches!(
            command,
            Command::Ingest { .. }
                | Command::CaughtUp { .. }
                | Command::Outcomes { .. }
                | Command::Returned { .. }
                | Command::Finished { .. }
        );
        self.machine
            .apply(self.world.clock.now_ms(), command, &mut self.decision);
        if !self.decision.news.is_empty() {
            self.pass_news_on();
        }
        self.unseal();
        self.view_stale = true;
        self.speculate();
    }

    /// There is something to seal.
    pub(crate) fn unseal(&mut self) {
        if !std::mem::replace(&mut self.unsealed, true) {
            self.unsealed_at = Instant::now();
        }
    }

    /// Sends dispatches whose whole input is replayable (C3), and sees to alerts, before the commit.
    pub(crate) fn speculate(&mut self) {
        while let Some(effect) = self.decision.effects.get(self.performed) {
            self.performed += 1;
            match effect {
                Effect::Dispatch {
                    id,
                    speculative: true,
                } => {
                    let id = *id;
                    fp!("dispatch.speculative");
                    self.send(id);
                }
                // What is told of it is kept by the same commit.
                Effect::DeadlineMissed { run, count, missed } => {
                    let (run, count, missed) = (*run, *count, missed.clone());
                    self.tell_missed(run, count, &missed);
                }
                Effect::RunState {
                    run,
                    state: RunState::Failed,
                } => {
                    let run = *run;
                    self.tell_failed(run);
                }
                _ => {}
            }
        }
    }

    /// Ends the process: going on would risk what is already promised.
    pub(crate) fn abort(&self, why: &str) -> ! {
        let text = format!("evermill stops: {why}. Nothing acknowledged is lost; start it again.");
        self.notice(Severity::Error, &text);
        std::process::abort()
    }

    /// How long nothing has to be done unless an input comes.
    fn wait(&self) -> Option<Duration> {
        crate::timers::shortest([
            crate::timers::until_ms(self.machine.next_timer(), &self.world.clock),
            self.until_view(),
            self.until_drained(),
            self.until_unstuck(),
            self.until_gathered(),
            self.until_stale(),
            self.until_watched(),
        ])
    }
}
