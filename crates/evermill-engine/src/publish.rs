//! What faces see: views of committed state, and whether there is anything left to wait for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use evermill_core::command::{RunIx, RunState};

use crate::board::Life;
use crate::groups::After;
use crate::input::SourceKey;
use crate::lanes::{Listening, Parting};
use crate::limits;
use crate::requests::is_over;
use crate::shard::{RunSlot, Shard};
use crate::view::{EngineView, LaneView, NoteView, RunView, SourceView, WorkersView};

/// The word for a run's state.
pub(crate) const fn state_name(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::Draining => "draining",
        RunState::Drained => "drained",
        RunState::Stopped => "stopped",
        RunState::Finished => "finished",
        RunState::Failed => "failed",
    }
}

impl Shard {
    /// Publishes when the view is old enough, and tells who waits for idleness.
    pub(crate) fn publish_if_due(&mut self) {
        let life = self.life();
        let resting = life != Life::Busy;
        // Whoever waited for rest looks at the view next.
        let came_to_rest = resting && !self.resting;
        self.resting = resting;
        let due = self.until_view().is_some_and(|wait| wait.is_zero());
        if due || self.view_stale && came_to_rest {
            self.publish();
        } else if !self.view_stale && !self.viewers.is_empty() {
            self.show(&self.world.board.view());
        }
        self.world.board.set_life(life);
    }

    /// Time until the published view is to be replaced. Those who look share one, however many they are: it is made
    /// on the thread that everything goes through.
    pub(crate) fn until_view(&self) -> Option<Duration> {
        let age = if !self.viewers.is_empty() {
            let sparing = self.view_took * limits::VIEW_SPARING;
            sparing.clamp(limits::VIEW_AGE_ASKED, limits::VIEW_AGE)
        } else if self.view_stale {
            limits::VIEW_AGE
        } else {
            return None;
        };
        Some(age.saturating_sub(self.viewed_at.elapsed()))
    }

    /// Shows what the commits before this moment say, without one for the purpose.
    pub(crate) fn look(&mut self, reply: Sender<Arc<EngineView>>) {
        if self.stalled.is_some() {
            // It may be hours until there is another one, and they would all wait here.
            self.viewers.push(reply);
        } else if self.unsealed {
            self.after.push(After::View(reply));
        } else if let Some(last) = self.groups.last_mut() {
            last.after.push(After::View(reply));
        } else {
            self.viewers.push(reply);
        }
    }

    pub(crate) fn publish(&mut self) {
        self.say_parked(limits::PARKED_SAID_EVERY);
        self.viewed_at = Instant::now();
        self.view_stale = false;
        let view = Arc::new(self.view());
        self.view_took = self.viewed_at.elapsed();
        self.world.board.publish(Arc::clone(&view));
        self.show(&view);
    }

    fn show(&mut self, view: &Arc<EngineView>) {
        for reply in self.viewers.drain(..) {
            // The asker may have given up.
            drop(reply.try_send(Arc::clone(view)));
        }
    }

    fn view(&self) -> EngineView {
        let untold = self.tracing.untold();
        EngineView {
            traces_left_out: untold.left_out,
            traces_lost: untold.lost,
            runs: self
                .runs
                .iter()
                .map(|(&run, slot)| self.run_view(run, slot))
                .collect(),
            workers: WorkersView {
                slots: self.slots.count(),
                ready: self.slots.ready(),
                dispatches: self.slots.out() as u32,
                unavailable: self.unavailable.clone(),
            },
            log_lines_lost: self.world.logger.lost(),
            refused_reports: self.refused_before + self.machine.refused(),
            reloads: self.reloads,
            stalled: self.stalled.clone(),
            notes: self.notes(),
        }
    }

    fn notes(&self) -> Vec<NoteView> {
        let holding = self.inboxes.holding();
        let started = self.runs.iter().filter(|(_, slot)| slot.started);
        started
            .filter(|(_, slot)| holding.contains(&*slot.dag))
            .flat_map(|(run, _)| self.left_behind(*run))
            .collect()
    }

    pub(crate) fn run_view(&self, run: RunIx, slot: &RunSlot) -> RunView {
        let counters = slot.counters;
        let sources = self.source_views(run);
        let starting = slot.started
            && sources
                .iter()
                .any(|source| !source.ready && source.ended.is_none());
        RunView {
            dag: slot.dag.to_string(),
            run: slot.name.to_string(),
            version: slot.version.clone(),
            state: match slot.state {
                RunState::Running if starting => "starting",
                state => state_name(state),
            },
            taken_in: counters.seen,
            done: counters.done,
            skipped: counters.skipped,
            parked: counters.parked,
            dropped: counters.dropped,
            in_flight: counters.in_flight(),
            latency_ms: slot.latency.percentiles(),
            commit_ms: slot.commit.percentiles(),
            deadlines_missed: slot.deadlines_missed,
            awaiting: self.machine.awaited(run).map(|(_, count)| count).sum(),
            waiting: self.machine.waiting(run) as u64,
            longest: self.longest_work(run),
            tasks: self.task_views(run),
            replays: self.open_replays(run),
            sources,
        }
    }

    fn source_views(&self, run: RunIx) -> Vec<SourceView> {
        let mut of_run: Vec<_> = self.read_now(run).collect();
        // In order of declaration.
        of_run.sort_by_key(|(key, _)| self.place_of(**key));
        let view = |(_, listening): (&SourceKey, &Listening)| SourceView {
            id: listening.id.clone(),
            ready: self.is_ready(listening),
            degraded: listening
                .held_up
                .clone()
                .or_else(|| listening.degraded.clone()),
            ended: listening.ended.clone().flatten(),
            progress_ms: listening.progress.moved.then_some(listening.progress.at_ms),
            stale: listening.progress.stale,
            freshness_missed: listening.progress.missed,
            lanes: listening
                .found
                .iter()
                .map(|(name, found)| {
                    let lane = found.lane.and_then(|lane| self.lanes.get(&lane));
                    LaneView {
                        name: name.as_str().to_owned(),
                        position: lane.map(|lane| lane.position),
                        behind: lane.and_then(|lane| lane.behind),
                        stopped: lane.and_then(|lane| lane.stopped.clone()),
                    }
                })
                .collect(),
        };
        of_run.into_iter().map(view).collect()
    }

    /// Every lane found has a committed position and was read up to its end, or stands still.
    fn is_ready(&self, listening: &Listening) -> bool {
        listening.resolved
            && listening.found.values().all(|found| {
                let lane = found.lane.and_then(|lane| self.lanes.get(&lane));
                lane.is_some_and(|lane| lane.was_caught_up || lane.stopped.is_some())
            })
    }

    /// The sources of a run that are read and stay.
    fn read_now(&self, run: RunIx) -> impl Iterator<Item = (&SourceKey, &Listening)> {
        let reads = |(key, listening): &(&SourceKey, &Listening)| {
            key.is_live() && listening.parting == Parting::No
        };
        self.listening_of(run).filter(reads)
    }

    fn life(&self) -> Life {
        if !self.groups.is_empty() || self.unsealed {
            // Something is to be committed: nobody need ask each run.
            return Life::Busy;
        }
        let started = self.runs.iter().filter(|(_, run)| run.started);
        let (mut any, mut live, mut quiet) = (false, false, true);
        for (&run, slot) in started {
            any = true;
            // Nothing of a drained run happens before somebody starts it again.
            if is_over(slot.state) || slot.state == RunState::Drained {
                continue;
            }
            live = true;
            quiet = quiet && self.is_quiet(run);
        }
        if any && !live {
            return Life::Ended;
        }
        // A source that keeps asking a function is as idle as one that keeps asking a server.
        let works = self.slots.all().any(|out| out.task.is_some());
        if any && quiet && !works {
            Life::IdleSince(Instant::now())
        } else {
            Life::Busy
        }
    }

    /// Sources ready, nothing in flight, retrying or unread.
    fn is_quiet(&self, run: RunIx) -> bool {
        let mut read_up = self.read_now(run).map(|(_, listening)| {
            let reads_on = listening.ended.is_none();
            let caught_up = listening.found.values().all(|found| {
                let lane = found.lane.and_then(|lane| self.lanes.get(&lane));
                lane.is_some_and(|lane| lane.caught_up || lane.stopped.is_some())
            });
            !reads_on || (self.is_ready(listening) && caught_up && listening.applied == 0)
        });
        read_up.all(|done| done) && self.machine.is_idle(run) && !self.replays_read_on(run)
    }
}
