//! The end of an engine: in order, or at once.
//!
//! ```text
//! settling --everything settled, or grace is over--> ending workers --> closing the store
//! ```

use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use evermill_contract::source::{CLOSE_WAIT, Severity};
use evermill_core::command::{Command, RunState};

use crate::board::Life;
use crate::failpoint::fp;
use crate::handle::Drained;
use crate::input::Input;
use crate::limits;
use crate::shard::{Flow, Shard};

/// A drain under way.
pub(crate) struct Draining {
    deadline: Instant,
    replies: Vec<Sender<Drained>>,
    /// Set once workers were told to end.
    ending: Option<Ending>,
}

struct Ending {
    outcome: Drained,
    /// Sources have let go by then, or are left alone.
    sources_until: Instant,
    until: Instant,
    /// Hooks have told what they could.
    hooks_done: bool,
}

impl Shard {
    pub(crate) fn drain(&mut self, grace: Duration, reply: Sender<Drained>) {
        if let Some(draining) = &mut self.draining {
            // A shorter grace wins.
            draining.deadline = draining.deadline.min(Instant::now() + grace);
            return draining.replies.push(reply);
        }
        fp!("drain.begun");
        self.hush_sources(None);
        self.drain_runs();
        self.draining = Some(Draining {
            deadline: Instant::now() + grace,
            replies: vec![reply],
            ending: None,
        });
    }

    /// Lets every run that runs settle what it has read.
    pub(crate) fn drain_runs(&mut self) {
        let running: Vec<_> = self
            .machine
            .runs()
            .filter(|run| run.state == RunState::Running)
            .map(|run| run.run)
            .collect();
        for run in running {
            self.apply(Command::Drain { run });
        }
    }

    /// Whether workers were told to end: their deaths are no news then.
    pub(crate) fn is_ending(&self) -> bool {
        self.draining
            .as_ref()
            .is_some_and(|draining| draining.ending.is_some())
    }

    pub(crate) fn until_drained(&self) -> Option<Duration> {
        let draining = self.draining.as_ref()?;
        let due = draining
            .ending
            .as_ref()
            .map_or(draining.deadline, |ending| ending.until);
        Some(
            due.saturating_duration_since(Instant::now())
                .min(limits::DRAIN_TICK),
        )
    }

    /// Looks after a drain, once per turn.
    pub(crate) fn go_on_draining(&mut self) -> Flow {
        let Some(draining) = &self.draining else {
            return Flow::Go;
        };
        let now = Instant::now();
        let (late, ending) = (now >= draining.deadline, draining.ending.as_ref());
        let Some(ending) = ending else {
            let settled = self.is_settled();
            if settled || late {
                self.end_workers(if settled {
                    Drained::Settled
                } else {
                    Drained::CutOff
                });
            }
            return Flow::Go;
        };
        let workers_gone = self.slots.ready() == 0 && self.slots.out() == 0;
        let mut sources = self.listening.values();
        let sources_gone =
            now >= ending.sources_until || sources.all(|listening| listening.ended.is_some());
        let committed = self.is_durable();
        let (late, hooks_done) = (now >= ending.until, ending.hooks_done);
        if !(late || workers_gone && sources_gone && committed) {
            return Flow::Go;
        }
        if late || hooks_done {
            return Flow::End;
        }
        // Nobody raises anything any more. What hooks were told of is forgotten with a last commit.
        self.world.alerts.finish();
        self.tracing.finish();
        self.forget_told_alerts();
        let ending = self
            .draining
            .as_mut()
            .and_then(|draining| draining.ending.as_mut());
        if let Some(ending) = ending {
            ending.hooks_done = true;
            ending.until = Instant::now() + limits::WORKERS_END;
        }
        Flow::Go
    }

    /// Every run rests and nothing is out or on its way to the store.
    fn is_settled(&self) -> bool {
        let resting = self
            .machine
            .runs()
            .all(|run| !matches!(run.state, RunState::Running | RunState::Draining));
        resting && self.slots.out() == 0 && self.groups.is_empty() && !self.unsealed
    }

    fn end_workers(&mut self, outcome: Drained) {
        fp!("drain.settled");
        let now = Instant::now();
        self.apply(Command::Capacity { slots: 0 });
        self.slots.forget_waiting();
        self.inquiries.forget();
        self.close_sources(None);
        self.executor.shutdown(Duration::ZERO);
        if let Some(draining) = &mut self.draining {
            draining.ending = Some(Ending {
                outcome,
                sources_until: now + CLOSE_WAIT,
                until: now + limits::WORKERS_END + CLOSE_WAIT,
                hooks_done: false,
            });
        }
    }

    /// The thread's last act: closes the store cleanly after a drain, else just lets go.
    pub(crate) fn end(mut self) {
        let draining = self.draining.take();
        match draining {
            None => self.let_go_at_once(),
            Some(draining) => self.close(draining),
        }
    }

    fn let_go_at_once(mut self) {
        self.executor.shutdown(Duration::ZERO);
        self.close_sources(None);
        let committer = self.committer.take();
        let board = std::sync::Arc::clone(&self.world.board);
        // With the inbox gone, whoever still has something to say hears at once that it is over.
        drop(self);
        drop(committer);
        board.set_life(Life::Closed);
    }

    fn close(mut self, draining: Draining) {
        fp!("drain.workers_ended");
        let outcome = draining
            .ending
            .as_ref()
            .map_or(Drained::CutOff, |ending| ending.outcome);
        let committed = self.groups.is_empty();
        self.say_parked(Duration::ZERO);
        self.publish();
        let closed = self
            .committer
            .take()
            .map(|committer| self.close_store(committer, committed));
        if let Some(Err(cause)) = closed {
            self.notice(
                Severity::Error,
                &format!("the store could not be closed cleanly: {cause}"),
            );
        }
        fp!("drain.store_closed");
        self.world.board.set_life(Life::Closed);
        for reply in draining.replies {
            // The asker may have given up.
            reply.try_send(outcome).ok();
        }
        self.world.logger.finish();
    }

    /// Takes the store back while listening on, so that the committer is never held up.
    fn close_store(
        &mut self,
        committer: evermill_store::Committer,
        committed: bool,
    ) -> Result<(), evermill_store::StoreError> {
        let stopping = std::thread::spawn(move || committer.stop());
        while !stopping.is_finished() {
            let heard = self.world.inbox.recv_timeout(limits::DRAIN_TICK);
            if let Ok(Input::Store(_, event)) = heard {
                self.notice(Severity::Error, &format!("the store says: {event:?}"));
            }
        }
        let store = stopping
            .join()
            .map_err(|_| evermill_store::StoreError::Stopped("its thread panicked".into()))??;
        if committed {
            store.close_clean()
        } else {
            Ok(())
        }
    }
}
