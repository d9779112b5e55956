//! What operators ask for, the same of a running engine ([`Handle`]) and of a store that no engine
//! runs ([`crate::AtRest`]).

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::alert::Alert;
use evermill_core::command::RunState;

use crate::attempts::AttemptQuery;
use crate::books::Books;
use crate::copy::{self, Checked};
use crate::forgetting::LeftView;
use crate::handle::{EngineError, Handle, Pushed, Started};
use crate::input::{Request, Steer};
use crate::kept::RunLogs;
use crate::limits;
use crate::past::{self, PastQuery};
use crate::publish::state_name;
use crate::replay::{BackfillAsk, ReplayAnswer, ReplayAsk, ReplayOrder, ResetAnswer, ResetAsk};
use crate::survey;
use crate::view::{
    AttemptView, EngineView, ParkedFilter, ParkedPage, PastView, PoolView, ReplayView, RunDetail,
    VersionDiff, WaitPage,
};

/// What to do with a run. Asked for twice, each is done once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Take no new work; attempts under way end normally. It lasts over restarts.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Read nothing more, settle what was read, then rest until the next start.
    Drain,
    /// End the run for good; the next run of the DAG inherits its positions.
    Stop,
}

/// What becomes of parked activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolve {
    /// The failed tasks and what is below them run again (W10).
    Retry,
    /// They are given up and count as dropped.
    Drop,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Matches to leave out before the first.
    pub skip: u64,
    /// At most so many; no more than [`crate::limits::PARKED_LISTED`] in any case.
    pub limit: usize,
    /// With the events themselves; the page then ends after
    /// [`crate::limits::PARKED_LISTED_BYTES`] of them.
    pub payload: bool,
}

/// A named message for a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signal {
    /// Which of its sources it is for.
    pub name: String,
    /// The message.
    pub value: Option<Bytes>,
    /// The event's key.
    pub key: Option<Bytes>,
    /// The same id counts once: within an hour for a source, for as long as the signal lives for tasks.
    pub id: Option<Bytes>,
    /// For each task that waits, not the one that has waited longest.
    pub all: bool,
    /// For how long a task may still come to wait for it, milliseconds; a day unless said.
    pub ttl_ms: Option<u64>,
    /// Only to this activation, by [`crate::view::WaitView::id`].
    pub to: Option<String>,
}

/// How a DAG is switched on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwitchOn {
    /// What its tasks find in `params` and `dag_run.conf`: a JSON object.
    pub conf: Option<Bytes>,
    /// A new run does not go on behind the positions of the stopped one before.
    pub fresh: bool,
    /// Who wants it, for the record.
    pub by: Option<String>,
}

/// What an operator may ask. `run` is a DAG id (its latest run) or a run id.
pub trait Operations: Send + Sync {
    /// Every run.
    ///
    /// # Errors
    /// [`EngineError::Closed`].
    fn overview(&self) -> Result<Arc<EngineView>, EngineError>;

    /// One run.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Closed`].
    fn detail(&self, run: &str) -> Result<RunDetail, EngineError>;

    /// Pauses, resumes, drains or stops.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Refused`] where the run's state has no room for
    /// it, [`EngineError::Closed`].
    fn order(&self, run: &str, order: Order) -> Result<(), EngineError>;

    /// Switches a DAG on, also after a stop. One that is on stays as it is. One without sources gets its
    /// one activation, unless its run was given anything before.
    ///
    /// # Errors
    /// [`EngineError::UnknownDag`], and as [`Handle::start`]; [`EngineError::Refused`] at rest.
    fn switch_on(&self, dag: &str, how: &SwitchOn) -> Result<Started, EngineError>;

    /// Goes back to an earlier version of a DAG: [`Handle::roll_back`].
    ///
    /// # Errors
    /// As there; [`EngineError::Refused`] at rest.
    fn roll_back(&self, dag: &str, version: Option<&str>, by: &str)
    -> Result<Started, EngineError>;

    /// What is different between two versions of a run's DAG, each named by the beginning of its hash: from
    /// one, or the version that the DAG had before the other, to another, or the one that the run has.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::UnknownVersion`], [`EngineError::Store`],
    /// [`EngineError::Closed`].
    fn compare(
        &self,
        run: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<VersionDiff, EngineError>;

    /// Gives a DAG without sources one activation, with this payload (JSON) if any. It is durable
    /// when this returns the activation's name; at rest it waits for the DAG's next start.
    ///
    /// # Errors
    /// As [`Handle::trigger`].
    fn trigger(&self, run: &str, conf: Option<Bytes>) -> Result<String, EngineError>;

    /// The same, but only once for each `id` within an hour; `None` when it came before.
    ///
    /// # Errors
    /// As [`Handle::trigger`].
    fn trigger_as(
        &self,
        run: &str,
        conf: Option<Bytes>,
        id: Bytes,
    ) -> Result<Option<String>, EngineError>;

    /// Sends a run a signal; it is durable when this returns, and at rest it waits for the next start.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Refused`] when nothing of the DAG takes it,
    /// [`EngineError::NotWaiting`] when whom it is for does not wait,
    /// [`EngineError::Full`], [`EngineError::Closed`].
    fn signal(&self, run: &str, signal: Signal) -> Result<Pushed, EngineError>;

    /// What waits for a signal, by the signal's name, and of each the oldest first.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Store`], [`EngineError::Closed`].
    fn waits(&self, run: &str, signal: Option<&str>, page: Page) -> Result<WaitPage, EngineError>;

    /// The latest alerts, newest first; none where no engine runs.
    ///
    /// # Errors
    /// [`EngineError::Closed`].
    fn alerts(&self) -> Result<Vec<Alert>, EngineError>;

    /// Every pool that a task or a setting names.
    ///
    /// # Errors
    /// [`EngineError::Closed`].
    fn pools(&self) -> Result<Vec<PoolView>, EngineError>;

    /// Gives a pool so many slots, from now on and over restarts; `None` goes back to what
    /// `evermill.toml` says. The pool afterwards; durable when this returns.
    ///
    /// # Errors
    /// [`EngineError::UnknownPool`], [`EngineError::Closed`].
    fn set_pool(&self, name: &str, slots: Option<u32>) -> Result<PoolView, EngineError>;

    /// What is parked.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::NotParked`], [`EngineError::Closed`].
    fn parked(
        &self,
        run: &str,
        which: &ParkedFilter,
        page: Page,
    ) -> Result<ParkedPage, EngineError>;

    /// Runs parked activations again, or gives them up; how many there were. A dry run counts them and
    /// leaves them as they are.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::NotParked`], [`EngineError::Refused`],
    /// [`EngineError::Closed`].
    fn resolve(
        &self,
        run: &str,
        which: &ParkedFilter,
        how: Resolve,
        dry_run: bool,
    ) -> Result<u64, EngineError>;

    /// Gives the `event`-th event of a parked activation another value. It stays parked.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::NotParked`], [`EngineError::Closed`].
    fn amend(&self, run: &str, id: &str, event: u32, value: Bytes) -> Result<(), EngineError>;

    /// What is remembered of activations that have settled, newest first.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Store`], [`EngineError::Closed`].
    fn past(&self, run: &str, wanted: &PastQuery) -> Result<PastView, EngineError>;

    /// Attempts that are with workers, and the latest that failed or came after one that did, newest first:
    /// at most [`limits::ATTEMPTS_KEPT`] of a run, since this engine opened. None at rest.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Closed`].
    fn attempts(&self, run: &str, wanted: &AttemptQuery) -> Result<Vec<AttemptView>, EngineError>;

    /// What the tasks of a run printed, to be read a page at a time. It stays that of this run, also when the
    /// DAG gets another one.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Closed`].
    fn logs(&self, run: &str) -> Result<RunLogs, EngineError>;

    /// What workers print outside any run.
    ///
    /// # Errors
    /// [`EngineError::Closed`].
    fn worker_logs(&self) -> Result<RunLogs, EngineError>;

    /// Reads a stretch of a log source again beside the live run (W18), or says what that would be.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Refused`] with the reason and the cure,
    /// [`EngineError::Source`] when the source does not answer, [`EngineError::Closed`].
    fn replay(&self, run: &str, ask: &ReplayAsk) -> Result<ReplayAnswer, EngineError>;

    /// Runs the instants of a clock that it has passed over, each once, or says which those are.
    ///
    /// # Errors
    /// As [`Operations::replay`].
    fn backfill(&self, run: &str, ask: &BackfillAsk) -> Result<ReplayAnswer, EngineError>;

    /// Every replay and backfill of a run that is on record, oldest first.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Closed`].
    fn replays(&self, run: &str) -> Result<Vec<ReplayView>, EngineError>;

    /// Pauses, resumes or ends one of them.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Refused`], [`EngineError::Closed`].
    fn steer_replay(&self, run: &str, replay: u32, order: ReplayOrder) -> Result<(), EngineError>;

    /// Moves the live position of lanes, for the record, or says where it would go.
    ///
    /// # Errors
    /// As [`Operations::replay`].
    fn reset(&self, run: &str, ask: &ResetAsk) -> Result<ResetAnswer, EngineError>;

    /// Lets go of what is kept for a source that a run's version has not, or says what that is; durable when
    /// this returns.
    ///
    /// # Errors
    /// [`EngineError::UnknownRun`], [`EngineError::Refused`] where somebody still needs it,
    /// [`EngineError::Closed`].
    fn forget_source(
        &self,
        run: &str,
        source: &str,
        dry_run: bool,
    ) -> Result<LeftView, EngineError>;

    /// Copies what is committed at this moment into a file, checks the copy, and only then gives it
    /// its name. Work goes on meanwhile. Takes as long as reading the store twice.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    fn backup(&self, file: &Path) -> Result<Checked, EngineError>;

    /// Checks everything that can be checked: each row, each tally, the file's structure, and that
    /// a machine can go on from it. On a running engine it is a copy that is checked.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    fn verify(&self) -> Result<Checked, EngineError>;
}

impl Operations for Handle {
    fn overview(&self) -> Result<Arc<EngineView>, EngineError> {
        // What is fresh waits for the commits under way, which a disk may hold up. A drained engine
        // still has its last view.
        let fresh = self.ask_within(limits::FRESH_VIEW, |reply| Request::View { reply });
        Ok(fresh.unwrap_or_else(|| self.view()))
    }

    fn detail(&self, run: &str) -> Result<RunDetail, EngineError> {
        let run = run.to_owned();
        self.ask(|reply| Request::Detail { run, reply })?
    }

    fn order(&self, run: &str, order: Order) -> Result<(), EngineError> {
        self.steer(
            run,
            match order {
                Order::Pause => Steer::Pause,
                Order::Resume => Steer::Resume,
                Order::Drain => Steer::Drain,
                Order::Stop => Steer::Stop,
            },
        )
    }

    fn switch_on(&self, dag: &str, how: &SwitchOn) -> Result<Started, EngineError> {
        let started = self
            .start_again_for(dag, how.fresh, how.by.as_deref())
            .map_err(|error| match error {
                EngineError::UnknownDag(name) => EngineError::NoSuchDag {
                    name,
                    place: "the data directory".to_owned(),
                    nearest: None,
                },
                other => other,
            })?;
        self.give_once(&started.run, how)?;
        Ok(started)
    }

    fn roll_back(
        &self,
        dag: &str,
        version: Option<&str>,
        by: &str,
    ) -> Result<Started, EngineError> {
        Handle::roll_back(self, dag, version, by)
    }

    fn compare(
        &self,
        run: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<VersionDiff, EngineError> {
        let (run, from, to) = (
            run.to_owned(),
            from.map(str::to_owned),
            to.map(str::to_owned),
        );
        let pair = self.ask(|reply| Request::Pair {
            run,
            from,
            to,
            reply,
        })??;
        let contents = pair.contents(&mut **self.reader())?;
        Ok(pair.difference(&contents, self.settings()))
    }

    fn trigger(&self, run: &str, conf: Option<Bytes>) -> Result<String, EngineError> {
        Handle::trigger(self, run, conf)
    }

    fn trigger_as(
        &self,
        run: &str,
        conf: Option<Bytes>,
        id: Bytes,
    ) -> Result<Option<String>, EngineError> {
        Handle::trigger_as(self, run, conf, id)
    }

    fn signal(&self, run: &str, signal: Signal) -> Result<Pushed, EngineError> {
        let run = run.to_owned();
        self.ask(|reply| Request::Signal { run, signal, reply })?
    }

    fn waits(&self, run: &str, signal: Option<&str>, page: Page) -> Result<WaitPage, EngineError> {
        let (run, signal) = (run.to_owned(), signal.map(str::to_owned));
        let found = self.ask(|reply| Request::Waits {
            run,
            signal,
            page,
            reply,
        })??;
        found.told(&mut **self.reader())
    }

    fn alerts(&self) -> Result<Vec<Alert>, EngineError> {
        self.ask(|reply| Request::Alerts { reply })?
    }

    fn pools(&self) -> Result<Vec<PoolView>, EngineError> {
        self.ask(|reply| Request::Pools { reply })?
    }

    fn set_pool(&self, name: &str, slots: Option<u32>) -> Result<PoolView, EngineError> {
        let name = name.to_owned();
        self.ask(|reply| Request::SetPool { name, slots, reply })?
    }

    fn parked(
        &self,
        run: &str,
        which: &ParkedFilter,
        page: Page,
    ) -> Result<ParkedPage, EngineError> {
        let (run, which) = (run.to_owned(), which.clone());
        self.ask(|reply| Request::Parked {
            run,
            which,
            page,
            reply,
        })?
    }

    fn resolve(
        &self,
        run: &str,
        which: &ParkedFilter,
        how: Resolve,
        dry_run: bool,
    ) -> Result<u64, EngineError> {
        let (run, which) = (run.to_owned(), which.clone());
        self.ask(|reply| Request::Resolve {
            run,
            which,
            how,
            dry_run,
            reply,
        })?
    }

    fn amend(&self, run: &str, id: &str, event: u32, value: Bytes) -> Result<(), EngineError> {
        let (run, id) = (run.to_owned(), id.to_owned());
        self.ask(|reply| Request::Amend {
            run,
            id,
            event,
            value,
            reply,
        })?
    }

    fn past(&self, run: &str, wanted: &PastQuery) -> Result<PastView, EngineError> {
        let run = run.to_owned();
        let names = self.ask(|reply| Request::Names { run, reply })??;
        past::look(&mut **self.reader(), &names, wanted)
    }

    fn attempts(&self, run: &str, wanted: &AttemptQuery) -> Result<Vec<AttemptView>, EngineError> {
        let (run, wanted) = (run.to_owned(), wanted.clone());
        self.ask(|reply| Request::Attempts { run, wanted, reply })?
    }

    fn logs(&self, run: &str) -> Result<RunLogs, EngineError> {
        let run = run.to_owned();
        let names = self.ask(|reply| Request::Names { run, reply })??;
        Ok(names.logs(self.data_dir()))
    }

    fn worker_logs(&self) -> Result<RunLogs, EngineError> {
        Ok(RunLogs::of_workers(self.data_dir()))
    }

    fn replay(&self, run: &str, ask: &ReplayAsk) -> Result<ReplayAnswer, EngineError> {
        let ground = self.ground(run, ask.source.as_deref())?;
        let (answer, again) = survey::replay(&ground, ask, self.sources(), self.notices())?;
        self.begin(answer, again, ask.dry_run)
    }

    fn backfill(&self, run: &str, ask: &BackfillAsk) -> Result<ReplayAnswer, EngineError> {
        let ground = self.ground(run, ask.source.as_deref())?;
        let ix = ground.run.run;
        let unread = |stretch| self.ask(|reply| Request::Unread { ix, stretch, reply });
        let found = survey::backfill(&ground, ask, unread, self.sources(), self.notices());
        let (answer, again) = found?;
        let nothing = answer.events == 0;
        self.begin(answer, again, ask.dry_run || nothing)
    }

    fn replays(&self, run: &str) -> Result<Vec<ReplayView>, EngineError> {
        let run = run.to_owned();
        self.ask(|reply| Request::Replays { run, reply })?
    }

    fn steer_replay(&self, run: &str, replay: u32, order: ReplayOrder) -> Result<(), EngineError> {
        let (run, steer) = (run.to_owned(), order);
        self.ask(|reply| Request::SteerReplay {
            run,
            replay,
            steer,
            reply,
        })?
    }

    fn reset(&self, run: &str, ask: &ResetAsk) -> Result<ResetAnswer, EngineError> {
        let ground = self.ground(run, ask.source.as_deref())?;
        let (answer, moves) = survey::reset(&ground, ask, self.sources(), self.notices())?;
        if !ask.dry_run {
            let (run, by) = (ground.run.name, ask.by.clone());
            self.ask(|reply| Request::Reset {
                run,
                moves,
                by,
                reply,
            })??;
        }
        Ok(answer)
    }

    fn forget_source(
        &self,
        run: &str,
        source: &str,
        dry_run: bool,
    ) -> Result<LeftView, EngineError> {
        let (run, source) = (run.to_owned(), source.to_owned());
        self.ask(|reply| Request::ForgetSource {
            run,
            source,
            dry_run,
            reply,
        })?
    }

    fn backup(&self, file: &Path) -> Result<Checked, EngineError> {
        copy::backup(&mut **self.reader(), file).map_err(EngineError::store)
    }

    fn verify(&self) -> Result<Checked, EngineError> {
        copy::verify(&mut **self.reader(), self.data_dir()).map_err(EngineError::store)
    }
}

/// Whether an order changes anything in this state, for a run that runs (`live`) or rests in a
/// store.
pub(crate) fn changes(
    order: Order,
    run: &str,
    state: RunState,
    live: bool,
) -> Result<bool, EngineError> {
    use RunState::{Drained, Draining, Failed, Finished, Paused, Running, Stopped};
    let refuse = |why: &str| {
        let state = state_name(state);
        Err(EngineError::Refused(format!(
            "run '{run}' is {state}: {why}"
        )))
    };
    match (order, state) {
        (Order::Pause, Running)
        | (Order::Resume, Paused)
        | (Order::Stop, Running | Paused | Draining | Drained) => Ok(true),
        (Order::Drain, Running | Paused) => Ok(live),
        (Order::Pause, Paused)
        | (Order::Resume, Running)
        | (Order::Drain, _)
        | (Order::Stop, Stopped | Finished | Failed) => Ok(false),
        // At rest that is how an ended engine left it: it goes on at the next start, or then not.
        (Order::Pause, Draining | Drained) if !live => Ok(true),
        (Order::Resume, Draining | Drained) if !live => Ok(false),
        (Order::Pause, Draining | Drained) => {
            refuse("it takes no new work; there is nothing to pause")
        }
        (Order::Resume, Draining | Drained) => {
            refuse("it was not paused; `evermill start`, or `evermill run`, lets it go on")
        }
        (Order::Pause | Order::Resume, Stopped | Finished | Failed) => {
            refuse("it is over; `evermill start`, or `evermill run`, begins a new run of its DAG")
        }
    }
}

/// Whether a run in this state takes its parked activations back.
pub(crate) fn may_resolve(
    books: &Books<'_>,
    run: &evermill_core::RunView,
    how: Resolve,
) -> Result<(), EngineError> {
    let name = &run.name;
    let refuse = |text: String| Err(EngineError::Refused(text));
    let over = matches!(run.state, RunState::Stopped | RunState::Failed);
    if how == Resolve::Retry && over {
        return refuse(format!(
            "run '{name}' is {}: what it parked runs no more; look at it, export it or drop it",
            state_name(run.state)
        ));
    }
    let newer = books
        .runs()
        .find(|other| other.dag == run.dag && !crate::requests::is_over(other.state));
    if let Some(newer) = newer.filter(|_| how == Resolve::Retry && run.state == RunState::Finished)
    {
        return refuse(format!(
            "run '{name}' is finished, and '{}' has taken its place: what '{name}' parked runs no \
             more; look at it, export it or drop it",
            newer.name
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_given_twice_is_done_once_and_one_without_sense_is_refused() {
        use RunState::{Drained, Paused, Running, Stopped};
        let cases = [
            (Order::Pause, Running, true, Some(true)),
            (Order::Pause, Paused, true, Some(false)),
            (Order::Resume, Running, true, Some(false)),
            (Order::Drain, Drained, true, Some(false)),
            (Order::Stop, Stopped, true, Some(false)),
            (Order::Pause, Drained, true, None),
            (Order::Pause, Drained, false, Some(true)),
            (Order::Drain, Running, false, Some(false)),
            (Order::Resume, Stopped, false, None),
        ];
        for (order, state, live, expected) in cases {
            let found = changes(order, "r", state, live).ok();
            assert_eq!(found, expected, "{order:?} {state:?} live {live}");
        }
    }
}
