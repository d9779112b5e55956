//! The source: delivers each instant when it comes.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evermill_contract::manifest::Catchup;
use evermill_contract::source::{
    BatchBuilder, FirstPosition, LaneFound, LaneName, Origin, Place, Resolved, Source,
    SourceBudget, SourceError, SourceEvent, Waker,
};

use super::Instants;
use crate::limits;

/// The one lane of a clock.
const LANE: &str = "clock";
/// The longest wait at a time: the wall clock may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Between two looks that lie further apart than this, nanoseconds, nobody listened: the machine slept, or the
/// wall clock was set ahead.
const AWAY: u64 = 60_000_000_000;

/// A clock that is listened to.
pub struct ClockSource {
    instants: Instants,
    catchup: Catchup,
    /// Where a clock begins that was never read, if not now.
    start: Option<u64>,
    budget: SourceBudget,
    now: Box<dyn Fn() -> u64 + Send>,
    bell: Arc<Bell>,
    found: bool,
    /// Position to go on at; `None` before the lane is started.
    next: Option<u64>,
    /// It was started in this process before.
    started: bool,
    open: bool,
    /// That there is nothing unread was said since the last event.
    told: bool,
    /// Instants that were passed over, to be told of: where it stood and where it goes on.
    passed: Option<(u64, u64)>,
    /// When it was last looked at.
    seen: u64,
}

#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl ClockSource {
    /// A clock on the system's time.
    #[must_use]
    pub fn new(
        instants: Instants,
        catchup: Catchup,
        start: Option<u64>,
        budget: SourceBudget,
    ) -> Self {
        Self::on(instants, catchup, start, budget, system_now)
    }

    /// A clock on any time: nanoseconds since 1970.
    pub fn on(
        instants: Instants,
        catchup: Catchup,
        start: Option<u64>,
        budget: SourceBudget,
        now: impl Fn() -> u64 + Send + 'static,
    ) -> Self {
        Self {
            instants,
            catchup,
            start,
            budget,
            now: Box::new(now),
            bell: Arc::default(),
            found: false,
            next: None,
            started: false,
            open: true,
            told: false,
            passed: None,
            seen: u64::MAX,
        }
    }

    /// What passed while nobody looked is missed, as what passes while nothing runs.
    fn look(&mut self) {
        let now = (self.now)();
        let seen = std::mem::replace(&mut self.seen, now);
        if self.open && now > seen.saturating_add(AWAY) {
            self.next = self.next.map(|next| self.go_on(next));
        }
    }

    /// Passes over what nobody saw pass, as far as the DAG says, and tells of it.
    fn go_on(&mut self, from: u64) -> u64 {
        let to = self.caught_up(from);
        let passed = self.instants.from(from).filter(|instant| *instant < to);
        if passed.is_some() {
            self.passed = Some((self.passed.map_or(from, |(first, _)| first), to));
        }
        to
    }

    fn caught_up(&self, from: u64) -> u64 {
        let now = (self.now)();
        if from >= now {
            return from;
        }
        match self.catchup {
            Catchup::None => now,
            Catchup::Last => self.instants.last(from, now).unwrap_or(now),
            Catchup::All => from,
        }
    }

    /// Delivers what is due; the next instant.
    fn deliver(&mut self, from: u64, out: &mut Vec<SourceEvent>) -> Option<u64> {
        let now = (self.now)();
        let mut due = self.instants.from(from);
        let mut batch = BatchBuilder::default();
        let mut next = from;
        while let Some(instant) = due.filter(|instant| *instant <= now)
            && batch.len() < self.budget.batch_events
        {
            let ms = (instant / 1_000_000).cast_signed();
            batch.push(instant, ms, None, [], None);
            next = instant + 1;
            due = self.instants.from(next);
        }
        if !batch.is_empty() {
            out.push(SourceEvent::Batch {
                lane: LANE.into(),
                batch: batch.finish(),
            });
            self.told = false;
        }
        self.next = Some(next);
        let later = due.is_none_or(|due| due > now);
        if later && !self.told {
            self.told = true;
            out.push(SourceEvent::CaughtUp {
                lane: LANE.into(),
                // Between the last instant and now there is none.
                end: next.max(now.saturating_add(1)),
            });
        }
        due
    }

    fn wait(&self, time: Duration) {
        let rung = self.bell.rung.lock();
        let rung = rung.unwrap_or_else(PoisonError::into_inner);
        let still = self
            .bell
            .changed
            .wait_timeout_while(rung, time.min(LOOK_AGAIN), |rung| !*rung);
        *still.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

impl Source for ClockSource {
    fn poll(&mut self, wait: Duration, out: &mut Vec<SourceEvent>) -> Result<(), SourceError> {
        if !self.found {
            self.found = true;
            out.push(SourceEvent::Lane(LaneFound {
                name: LANE.into(),
                incarnation: LANE.to_owned(),
                appeared: false,
                shared: false,
            }));
            return Ok(());
        }
        self.look();
        if let Some((from, to)) = self.passed.take() {
            let lane = LANE.into();
            out.push(SourceEvent::Passed { lane, from, to });
            return Ok(());
        }
        let from = self.next.filter(|_| self.open);
        let due = from.and_then(|from| self.deliver(from, out));
        if out.is_empty() {
            let until = due.map(|due| Duration::from_nanos(due.saturating_sub((self.now)())));
            self.wait(until.map_or(wait, |until| until.min(wait)));
            self.look();
            // What was passed over is told first.
            let from = self.next.filter(|_| self.open && self.passed.is_none());
            if let Some(from) = from {
                self.deliver(from, out);
            }
        }
        Ok(())
    }

    fn resolve(
        &mut self,
        _lane: &LaneName,
        _first: FirstPosition,
    ) -> Result<Resolved, SourceError> {
        let now = (self.now)();
        let position = match (self.start, self.catchup) {
            (Some(start), Catchup::All) => start,
            // The latest that is missed counts from the start, too.
            (Some(start), Catchup::Last) => start,
            (Some(start), Catchup::None) => start.max(now),
            (None, _) => now,
        };
        Ok(Resolved {
            position,
            origin: Origin::Latest,
        })
    }

    fn locate(&mut self, _lane: &LaneName, place: Place) -> Result<u64, SourceError> {
        Ok(match place {
            Place::Earliest => self.start.unwrap_or(0),
            Place::Latest => (self.now)(),
            Place::Time(ms) => u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000),
            Place::Position(position) => position,
        })
    }

    fn count(&mut self, _lane: &LaneName, from: u64, to: u64) -> Result<u64, SourceError> {
        let mut next = self.instants.from(from);
        let mut count = 0;
        while let Some(instant) = next.filter(|instant| *instant < to) {
            count += 1;
            if count > limits::CLOCK_COUNT_MAX {
                return Err(SourceError::Refused(format!(
                    "more than {} instants lie in that time; name a shorter one",
                    limits::CLOCK_COUNT_MAX
                )));
            }
            next = self.instants.from(instant + 1);
        }
        Ok(count)
    }

    fn start_lane(
        &mut self,
        lane: &LaneName,
        from: u64,
        _incarnation: Option<&str>,
    ) -> Result<(), SourceError> {
        if lane.as_str() != LANE {
            return Err(SourceError::Refused(format!(
                "a clock has no lane '{lane}'; its only one is '{LANE}'"
            )));
        }
        // The shard was loaded again: nobody has been away.
        let again = std::mem::replace(&mut self.started, true);
        self.passed = None;
        self.next = Some(if again { from } else { self.go_on(from) });
        self.told = false;
        Ok(())
    }

    fn credit(&mut self, lane: &LaneName, open: bool) {
        if lane.as_str() != LANE {
            return;
        }
        if open && !self.open {
            self.next = self.next.map(|next| self.go_on(next));
        }
        self.open = open;
    }

    fn ack(&mut self, _lane: &LaneName, _position: u64) {}

    fn waker(&self) -> Waker {
        let bell = Arc::clone(&self.bell);
        Waker::new(move || {
            *bell.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
            bell.changed.notify_all();
        })
    }

    fn close(&mut self) {
        self.next = None;
    }
}

fn system_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
