//! The handle: how the CLI, the API and tests speak to a running engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Sender, bounded};
use evermill_contract::manifest::Manifest;
use evermill_contract::source::{Arrival, PushRequest, Reject};
pub use evermill_core::command::{ActivationKey, Selection};
use evermill_store::Reader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::board::Board;
use crate::clock::Clock;
use crate::doors::Doors;
use crate::gate;
use crate::input::{Input, Request, Steer};
use crate::limits;
use crate::notice::NoticeSink;
use crate::open::{Settings, SourceFactory};
use crate::operate::SwitchOn;
use crate::prepare::{Preparation, Prepared, Stored};
use crate::record::Why;
use crate::replay::{Again, Ground, ReplayAnswer};
use crate::view::EngineView;

/// A DAG to switch on.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// What the front end loaded.
    pub manifest: Arc<Manifest>,
    /// Which of its DAGs.
    pub dag: String,
    /// Content of every file in `manifest.files`, by the same path.
    pub files: BTreeMap<String, Bytes>,
    /// The environment's own name for the folder the bundle came from, for error messages.
    pub folder: std::path::PathBuf,
    /// Do not inherit positions of an earlier, stopped run (`--fresh`).
    pub fresh: bool,
    /// Go on behind positions that can no longer be read (`--pass-gaps`); else their lane stands
    /// still.
    pub pass_gaps: bool,
}

/// A run that was switched on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// Run id.
    pub run: String,
    /// Version: 64 lower-case hexadecimal digits.
    pub version: String,
    /// It was open already and goes on from its committed positions.
    pub resumed: bool,
    /// The version it ran with until now, if it was running: another one, that it was swapped for, or
    /// the same one, and nothing had to be done.
    pub before: Option<String>,
}

impl Started {
    /// Whether it was running with this version already.
    #[must_use]
    pub fn was_running(&self) -> bool {
        self.before.as_ref() == Some(&self.version)
    }
}

/// What became of the events of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Durable now.
    pub kept: u64,
    /// They came before, under the same id.
    pub repeated: u64,
}

impl Pushed {
    /// One, kept.
    pub(crate) const KEPT: Self = Self {
        kept: 1,
        repeated: 0,
    };
    /// One that came before.
    pub(crate) const REPEATED: Self = Self {
        kept: 0,
        repeated: 1,
    };
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// No source of that name takes requests.
    #[error("no such source takes requests")]
    NotFound,
    /// The source does not accept it.
    #[error("{}", .0.detail)]
    Rejected(Reject),
    /// What is needed to judge it is away; it may be sent again.
    #[error("{0}")]
    Unavailable(String),
    /// The engine could not keep it; [`EngineError::Full`] passes.
    #[error(transparent)]
    Engine(EngineError),
}

/// How a wait for idleness ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idle {
    /// Every source was ready and nothing was in flight, retrying or unread for that long.
    Reached,
    /// Before that, every run had ended, by itself or because somebody drained or stopped it.
    Ended,
    /// Somebody else drained the engine meanwhile.
    Closed,
    /// The timeout given to the wait has passed.
    TimedOut,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything that was read has settled.
    Settled,
    /// Grace ran out: what was in flight runs again at the next start.
    CutOff,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Ended already, or ends now; nobody is left who could ask.
        drop(self.input.send(Input::Request(Request::Halt)));
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The manifest has no such DAG.
    #[error("there is no DAG '{0}' in this file")]
    UnknownDag(String),
    /// No run has this id, and no DAG of this id has a run.
    #[error("there is no run '{name}'{}; `evermill ps` lists them", did_you_mean(.nearest.as_deref()))]
    UnknownRun {
        /// What was asked for.
        name: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// No version of the DAG is meant, or its files are not kept any more; a sentence that says which are.
    #[error("{0}")]
    UnknownVersion(String),
    /// No task names this pool, and nobody gave it a size.
    #[error("there is no pool '{name}'{}; a pool is one that a task or [pools] in evermill.toml names", did_you_mean(.nearest.as_deref()))]
    UnknownPool {
        /// What was asked for.
        name: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// Nothing is parked under this id.
    #[error("nothing is parked as '{0}'; `evermill parked ls` lists what is")]
    NotParked(String),
    /// Whom a signal is for does not wait for it.
    #[error(
        "'{0}' does not wait for this signal (any more): somebody may have answered; `evermill waits` lists what waits"
    )]
    NotWaiting(String),
    /// The DAG cannot run; every fault.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<evermill_contract::manifest::Fault>),
    /// A file of the bundle is missing or is not what the manifest says.
    #[error("{path}: {what}; load the DAG again")]
    Bundle {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// A source could not be made.
    #[error("{dag}: source '{source_id}': {cause}")]
    Source {
        /// DAG id.
        dag: String,
        /// Source id.
        source_id: String,
        /// With the cure.
        cause: String,
    },
    /// The machine does not do this to a run in its present state.
    #[error("{0}")]
    Refused(String),
    /// What was brought has the id of something else that came before; nothing of it is kept.
    #[error("{0}")]
    OtherContent(String),
    /// There is no such DAG where DAGs come from.
    #[error("there is no DAG '{name}' in {place}{}", did_you_mean(.nearest.as_deref()))]
    NoSuchDag {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        place: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// The DAG listens to its sources.
    #[error("DAG '{0}' listens to its sources and is not triggered by hand")]
    NotByHand(String),
    /// Not now, but soon.
    #[error("{0}")]
    Busy(String),
    /// There is no room for more events before some are done.
    #[error("{0}")]
    Full(String),
    /// The store could not be read, copied or checked.
    #[error("{0}")]
    Store(String),
    /// The commit that was to hold it failed, and the engine loaded its state again.
    #[error("the store refused to keep this; ask again")]
    Interrupted,
    /// The engine has been drained or has stopped by itself.
    #[error("the engine has stopped")]
    Closed,
}

impl EngineError {
    pub(crate) fn store(cause: impl std::fmt::Display) -> Self {
        Self::Store(cause.to_string())
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean '{name}'?"))
}

/// Who sends an event that no task is to read hears of it, and nothing is kept.
fn rejected(arrivals: &[Arrival]) -> Option<Reject> {
    let mut each = arrivals.iter().enumerate();
    let (at, why) = each.find_map(|(at, one)| Some((at, one.rejected.as_ref()?)))?;
    let detail = match arrivals.len() {
        1 => why.clone(),
        _ => format!("event {at}: {why}"),
    };
    Some(Reject {
        status: 422,
        detail,
    })
}

/// A running engine. Clone it freely; the engine goes on until [`Handle::drain`] or
/// [`Handle::halt`], or until the last handle is dropped.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// What all handles of an engine share.
pub(crate) struct Shared {
    pub(crate) input: Sender<Input>,
    pub(crate) board: Arc<Board>,
    pub(crate) doors: Arc<Doors>,
    pub(crate) clock: Clock,
    pub(crate) prepare: Preparation,
    pub(crate) shard: Mutex<Option<JoinHandle<()>>>,
    /// Looks at the store beside the committer.
    pub(crate) reader: Mutex<Box<dyn Reader>>,
    /// What is masked.
    pub(crate) settings: Arc<dyn Settings>,
}

impl Handle {
    pub(crate) fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Switches a DAG on: checks it, keeps its manifest and bundle (W16), resumes its open run or
    /// begins a new one, and starts its sources. Returns once that is committed; sources find
    /// their lanes afterwards ([`crate::view::SourceView::ready`]). A DAG that runs goes over to this
    /// version: new activations have it, sources that stay the same go on, and what is under way ends
    /// as it began.
    ///
    /// # Errors
    /// [`EngineError::UnknownDag`], [`EngineError::Faults`], [`EngineError::Bundle`],
    /// [`EngineError::Source`], [`EngineError::Refused`] for a fresh start of a run that is open,
    /// [`EngineError::Busy`] while a run that was ended lets go of its sources,
    /// [`EngineError::Interrupted`], [`EngineError::Closed`].
    pub fn start(&self, request: &StartRequest) -> Result<Started, EngineError> {
        self.start_for(request, None)
    }

    /// The same, for the record, because somebody asked for it.
    ///
    /// # Errors
    /// As [`Handle::start`].
    pub fn start_for(
        &self,
        request: &StartRequest,
        by: Option<&str>,
    ) -> Result<Started, EngineError> {
        self.start_prepared(|| {
            let dag = request.dag.clone();
            let standing = self.ask(|reply| Request::Standing { dag, reply })?;
            let prepared = self.shared.prepare.prepare(request, standing.as_ref())?;
            Ok(Prepared {
                by: by.map(str::to_owned),
                ..prepared
            })
        })
    }

    /// Switches a DAG on in the version that it had last; its file is not asked, and what a rollback has put
    /// away stays away.
    ///
    /// # Errors
    /// As [`Handle::start`]; [`EngineError::UnknownDag`] for one that never ran.
    pub fn start_again(&self, dag: &str, fresh: bool) -> Result<Started, EngineError> {
        self.start_again_for(dag, fresh, None)
    }

    /// The same, for the record, because somebody asked for it.
    ///
    /// # Errors
    /// As [`Handle::start_again`].
    pub fn start_again_for(
        &self,
        dag: &str,
        fresh: bool,
        by: Option<&str>,
    ) -> Result<Started, EngineError> {
        self.start_prepared(|| {
            let stored = self.stored(dag, None)?;
            let prepared = self.shared.prepare.prepare_stored(&stored)?;
            Ok(Prepared {
                fresh,
                instead_of: stored.put_away,
                by: by.map(str::to_owned),
                ..prepared
            })
        })
    }

    /// Gives a run of a DAG without sources its one activation, unless it was given anything before;
    /// leaves others alone.
    ///
    /// # Errors
    /// As [`Handle::trigger`].
    pub fn give_once(&self, run: &str, how: &SwitchOn) -> Result<(), EngineError> {
        match self.trigger_with(run, how.conf.clone(), true) {
            Ok(_) => Ok(()),
            Err(EngineError::NotByHand(_)) => Ok(()),
            Err(refused) => Err(refused),
        }
    }

    /// Goes back to an earlier version of a DAG that is kept, named by the beginning of its hash; without
    /// one, to the version before. New activations have it. The version that is left does not come back
    /// by itself: see [`VersionView::instead_of`](crate::view::VersionView::instead_of). The record says
    /// who wanted it.
    ///
    /// # Errors
    /// As [`Handle::start`]; [`EngineError::Refused`] lists the versions when none fits.
    pub fn roll_back(
        &self,
        dag: &str,
        version: Option<&str>,
        by: &str,
    ) -> Result<Started, EngineError> {
        let wanted = version.unwrap_or_default();
        self.start_prepared(|| {
            let stored = self.stored(dag, Some(wanted))?;
            if stored.standing.is_none() {
                return Err(EngineError::Refused(format!(
                    "DAG '{dag}' does not run; `evermill start {dag}` switches it on"
                )));
            }
            let prepared = self.shared.prepare.prepare_stored(&stored)?;
            Ok(Prepared {
                why: Why::Rollback,
                instead_of: Some(stored.current),
                by: Some(by.to_owned()),
                ..prepared
            })
        })
    }

    fn stored(&self, dag: &str, version: Option<&str>) -> Result<Stored, EngineError> {
        let (dag, version) = (dag.to_owned(), version.map(str::to_owned));
        self.ask(|reply| Request::Stored {
            dag,
            version,
            reply,
        })?
    }

    /// The run may change while its next version is made ready on this thread.
    fn start_prepared(
        &self,
        prepare: impl Fn() -> Result<Prepared, EngineError>,
    ) -> Result<Started, EngineError> {
        for _ in 0..limits::STARTS_TRIED {
            let prepared = prepare()?;
            let started = self.ask(|reply| Request::Start { prepared, reply })??;
            if let Some(started) = started {
                return Ok(started);
            }
        }
        Err(EngineError::Busy(
            "the run changes all the time; start it again".to_owned(),
        ))
    }

    /// Gives a DAG without sources one activation, with this payload (JSON) if any. It is durable
    /// when this returns the activation's name.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Refused`] when the DAG has sources or its run is
    /// over, [`EngineError::Full`].
    pub fn trigger(&self, run: &str, conf: Option<Bytes>) -> Result<String, EngineError> {
        let triggered = self.trigger_with(run, conf, false)?;
        Ok(triggered.unwrap_or_default())
    }

    /// The same, but only once for each `id` within an hour; `None` when it came before.
    ///
    /// # Errors
    /// As [`Handle::trigger`].
    pub fn trigger_as(
        &self,
        run: &str,
        conf: Option<Bytes>,
        id: Bytes,
    ) -> Result<Option<String>, EngineError> {
        let run = run.to_owned();
        self.ask(|reply| Request::Trigger {
            run,
            conf,
            id: Some(id),
            once: false,
            reply,
        })?
    }

    /// The same, unless the run was given anything before, in this process or an earlier one.
    ///
    /// # Errors
    /// As [`Handle::trigger`].
    pub fn trigger_once(&self, run: &str) -> Result<(), EngineError> {
        self.trigger_with(run, None, true).map(drop)
    }

    fn trigger_with(
        &self,
        run: &str,
        conf: Option<Bytes>,
        once: bool,
    ) -> Result<Option<String>, EngineError> {
        let run = run.to_owned();
        self.ask(|reply| Request::Trigger {
            run,
            conf,
            id: None,
            once,
            reply,
        })?
    }

    /// Brings a request to a source that takes requests. What it says is durable when this returns.
    ///
    /// # Errors
    /// [`PushError`].
    pub fn push(
        &self,
        dag: &str,
        source: &str,
        request: &PushRequest<'_>,
    ) -> Result<Pushed, PushError> {
        let door = self.shared.doors.find(dag, source);
        let door = door.ok_or(PushError::NotFound)?;
        let now_ms = self.shared.clock.now_ms();
        let accepted = door.source.accept(request, now_ms);
        let mut arrivals = accepted.map_err(PushError::Rejected)?;
        if let Some(gate) = &door.gate {
            let judged = gate::arrivals(&**gate, &mut arrivals);
            judged.map_err(|away| PushError::Unavailable(away.0))?;
            if let Some(reject) = rejected(&arrivals) {
                return Err(PushError::Rejected(reject));
            }
        }
        let key = door.key;
        let pushed = self.ask(|reply| Request::Push {
            key,
            arrivals,
            reply,
        });
        pushed.and_then(|pushed| pushed).map_err(PushError::Engine)
    }

    /// Bytes of the largest body that a source takes; `None` when no such source takes requests.
    #[must_use]
    pub fn push_body_max(&self, dag: &str, source: &str) -> Option<usize> {
        let door = self.shared.doors.find(dag, source)?;
        Some(door.source.body_bytes_max())
    }

    /// Takes no new work; attempts under way end normally.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Closed`].
    pub fn pause(&self, run: &str) -> Result<(), EngineError> {
        self.steer(run, Steer::Pause)
    }

    /// Goes on after [`Handle::pause`].
    ///
    /// # Errors
    /// As [`Handle::pause`].
    pub fn resume(&self, run: &str) -> Result<(), EngineError> {
        self.steer(run, Steer::Resume)
    }

    /// Reads nothing more, settles what was read, then rests; the engine stays open. The run goes
    /// on at its next [`Handle::start`].
    ///
    /// # Errors
    /// As [`Handle::pause`].
    pub fn drain_run(&self, run: &str) -> Result<(), EngineError> {
        self.steer(run, Steer::Drain)
    }

    /// Ends a run for good; the next run of the DAG inherits its positions.
    ///
    /// # Errors
    /// As [`Handle::pause`].
    pub fn stop(&self, run: &str) -> Result<(), EngineError> {
        self.steer(run, Steer::Stop)
    }

    /// Runs parked activations again (W10).
    ///
    /// # Errors
    /// As [`Handle::pause`].
    pub fn redrive(&self, run: &str, which: Selection) -> Result<(), EngineError> {
        self.steer(run, Steer::Redrive(which))
    }

    /// Gives parked activations up: they count as dropped.
    ///
    /// # Errors
    /// As [`Handle::pause`].
    pub fn discard(&self, run: &str, which: Selection) -> Result<(), EngineError> {
        self.steer(run, Steer::Discard(which))
    }

    /// The latest published view, at most about 100 ms old while work is done and exact when
    /// nothing happens. Never waits. Still answers after a drain.
    #[must_use]
    pub fn view(&self) -> Arc<EngineView> {
        self.shared.board.view()
    }

    /// A view that includes every commit so far.
    ///
    /// # Errors
    /// [`EngineError::Closed`]; [`Handle::view`] then holds the last one.
    pub fn fresh_view(&self) -> Result<Arc<EngineView>, EngineError> {
        self.ask(|reply| Request::View { reply })
    }

    /// Waits until every source is ready (positions resolved, first poll answered, caught up) and
    /// nothing is in flight, retrying or unread for `quiet` without a break (`--until-idle`).
    /// Parked activations do not count. `timeout` bounds the whole wait.
    #[must_use]
    pub fn wait_idle(&self, quiet: Duration, timeout: Option<Duration>) -> Idle {
        self.shared.board.wait_idle(quiet, timeout)
    }

    /// Ends the engine: sources stop reading, what was read settles within `grace`, workers end
    /// (TERM when `grace` is over, then KILL), everything is committed and the store is closed
    /// cleanly. Every run goes on at its next start. A second call waits for the first.
    ///
    /// # Errors
    /// [`EngineError::Closed`] when the engine had stopped by itself.
    pub fn drain(&self, grace: Duration) -> Result<Drained, EngineError> {
        let drained = self.ask(|reply| Request::Drain { grace, reply });
        self.join();
        drained
    }

    /// Ends the engine at once, as a crash would, except that workers are killed and the store's
    /// files are let go of: nothing more is committed, and the next opening counts an unclean stop.
    pub fn halt(&self) {
        // A closed channel means that the engine has ended already.
        drop(self.shared.input.send(Input::Request(Request::Halt)));
        self.join();
    }

    /// Makes the engine look at its clock now; for tests that moved a manual clock.
    pub fn poke(&self) {
        // As above.
        drop(self.shared.input.send(Input::Request(Request::Poke)));
    }

    pub(crate) fn steer(&self, run: &str, steer: Steer) -> Result<(), EngineError> {
        let run = run.to_owned();
        self.ask(|reply| Request::Steer { run, steer, reply })?
    }

    /// What is known of a source that is to be read again.
    pub(crate) fn ground(&self, run: &str, source: Option<&str>) -> Result<Ground, EngineError> {
        let (run, source) = (run.to_owned(), source.map(str::to_owned));
        self.ask(|reply| Request::Ground { run, source, reply })?
    }

    /// Begins what was looked at, unless somebody only looks.
    pub(crate) fn begin(
        &self,
        mut answer: ReplayAnswer,
        again: Again,
        dry_run: bool,
    ) -> Result<ReplayAnswer, EngineError> {
        if !dry_run {
            answer.replay = self.ask(|reply| Request::Replay { again, reply })??;
        }
        Ok(answer)
    }

    pub(crate) fn sources(&self) -> &SourceFactory {
        &self.shared.prepare.sources
    }

    pub(crate) fn notices(&self) -> &NoticeSink {
        &self.shared.prepare.notices
    }

    pub(crate) fn ask<T>(
        &self,
        request: impl FnOnce(Sender<T>) -> Request,
    ) -> Result<T, EngineError> {
        let (reply, answer) = bounded(1);
        let request = Input::Request(request(reply));
        self.shared
            .input
            .send(request)
            .map_err(|_| EngineError::Closed)?;
        answer
            .recv()
            .map_err(|_| match self.shared.board.is_closed() {
                true => EngineError::Closed,
                false => EngineError::Interrupted,
            })
    }

    /// As [`Handle::ask`], but `None` when there is no answer in time.
    pub(crate) fn ask_within<T>(
        &self,
        patience: Duration,
        request: impl FnOnce(Sender<T>) -> Request,
    ) -> Option<T> {
        let (reply, answer) = bounded(1);
        let request = Input::Request(request(reply));
        self.shared.input.send_timeout(request, patience).ok()?;
        answer.recv_timeout(patience).ok()
    }

    /// One copy at a time.
    pub(crate) fn reader(&self) -> MutexGuard<'_, Box<dyn Reader>> {
        let reader = &self.shared.reader;
        reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn settings(&self) -> &dyn Settings {
        &*self.shared.settings
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.shared.prepare.data_dir
    }

    fn join(&self) {
        let thread = self
            .shared
            .shard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic was reported by the panic hook; the board says "closed" either way.
            drop(thread.join());
        }
    }
}
