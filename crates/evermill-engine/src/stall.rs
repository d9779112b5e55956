//! Stalled sources: one whose thread no longer comes back from the source's code, or that delivers
//! nothing while it may and its lag grows. It is left behind and opened again from where we are.
//!
//! | seen | for longer than | then |
//! |---|---|---|
//! | a call into the source does not return | [`limits::SOURCE_STALL_MS`], doubled with each restart in a row | left behind, opened again |
//! | credit is open, the lag grows, nothing comes | the same | the same |
//! | of a source that receives: an answer from outside is overdue | the same | the same |
//! | [`limits::SOURCE_RESTARTS`] of them without progress in between | | the source has ended |

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;
use evermill_contract::alert::AlertKind;
use evermill_contract::source::{FirstPosition, Opened, Severity, SourceBudget};
use evermill_core::command::RunState;

use crate::alerts::About;
use crate::clock::Clock;
use crate::gate::Keeper;
use crate::input::{Input, SourceInput, SourceKey};
use crate::limits;
use crate::notice::{late_name, of_source};
use crate::open::{SourceRequest, first_position};
use crate::payload::Keys;
use crate::shard::Shard;
use crate::sources::{Reading, ungated};

/// Since when a source's thread is inside the source's code, and since when an answer from outside is
/// overdue there; milliseconds since the Unix epoch, 0 for neither.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    call: AtomicU64,
    outside: AtomicU64,
}

impl Pulse {
    /// Calls into the source.
    pub(crate) fn within<T>(&self, clock: &Clock, call: impl FnOnce() -> T) -> T {
        self.call.store(clock.now_ms().max(1), Ordering::Release);
        let answer = call();
        self.call.store(0, Ordering::Release);
        answer
    }

    /// How long an answer from outside is overdue.
    pub(crate) fn overdue(&self, clock: &Clock, by: Option<Duration>) {
        let since = by.map_or(0, |by| {
            clock.now_ms().saturating_sub(by.as_millis() as u64).max(1)
        });
        // Without a change nobody else has to fetch it.
        if self.outside.load(Ordering::Relaxed) == 0 || since == 0 {
            self.outside.store(since, Ordering::Release);
        }
    }

    /// When the call began that has not returned.
    fn since(&self) -> Option<u64> {
        let since = self.call.load(Ordering::Acquire);
        (since > 0).then_some(since)
    }

    fn outside_since(&self) -> Option<u64> {
        let since = self.outside.load(Ordering::Acquire);
        (since > 0).then_some(since)
    }
}

/// The way from a source's thread to the shard. Once the thread was left behind it leads nowhere.
#[derive(Clone)]
pub(crate) struct Line(Arc<Mutex<Option<Sender<Input>>>>);

impl Line {
    pub(crate) fn new(input: Sender<Input>) -> Self {
        Self(Arc::new(Mutex::new(Some(input))))
    }

    /// False when nobody hears it.
    pub(crate) fn say(&self, key: SourceKey, input: SourceInput) -> bool {
        let line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.as_ref()
            .is_some_and(|line| line.send(Input::Source(key, input)).is_ok())
    }

    /// False while something is being said: whoever speaks is not stuck in the source.
    fn cut(&self) -> bool {
        let line = self.0.try_lock();
        line.map(|mut line| *line = None).is_ok()
    }
}

/// What is known of a source's thread.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) line: Line,
    /// Restarts since it last made progress.
    pub(crate) restarts: u32,
}

impl Shard {
    /// Time until it is looked again whether sources are stalled.
    pub(crate) fn until_watched(&self) -> Option<Duration> {
        let any = self
            .listening
            .values()
            .any(|listening| listening.watched.is_some());
        any.then_some(limits::SOURCE_LOOK)
    }

    /// Opens stalled sources again.
    pub(crate) fn restart_stalled(&mut self) {
        let now = self.world.clock.now_ms();
        if now < self.looked_at_ms + limits::SOURCE_LOOK.as_millis() as u64 {
            return;
        }
        self.looked_at_ms = now;
        let keys: Vec<SourceKey> = self.listening.keys().copied().collect();
        for key in keys {
            if let Some(why) = self.stalled(key, now) {
                self.restart(key, &why);
            }
        }
    }

    fn stalled(&self, key: SourceKey, now: u64) -> Option<String> {
        let listening = self.listening.get(&key)?;
        let watched = listening.watched.as_ref()?;
        let state = self.runs.get(&key.run)?.state;
        let live = matches!(state, RunState::Running | RunState::Paused);
        if listening.ended.is_some() || listening.hushed || !live {
            return None;
        }
        let patience = limits::SOURCE_STALL_MS << watched.restarts.min(8);
        let long = |since: u64| now.saturating_sub(since) >= patience;
        if watched.pulse.since().is_some_and(long) {
            let seconds = patience / 1_000;
            return Some(format!("it has not answered for {seconds} s"));
        }
        if watched.pulse.outside_since().is_some_and(long) {
            let seconds = patience / 1_000;
            return Some(format!("what it asked outside is {seconds} s overdue"));
        }
        let lanes = listening.found.values().filter_map(|found| found.lane);
        let lanes = lanes.filter_map(|id| Some((id, self.lanes.get(&id)?)));
        let lagging = lanes.filter(|(_, lane)| lane.stopped.is_none());
        let mut lagging = lagging.filter(|(id, lane)| {
            let grown = lane.lag_since.filter(|(since, first)| {
                long(*since) && lane.behind.is_some_and(|behind| behind > *first)
            });
            grown.is_some() && self.machine.has_room(*id)
        });
        let (_, lane) = lagging.next()?;
        let behind = lane.behind.unwrap_or_default();
        let name = &lane.name;
        Some(format!(
            "{name} is {behind} behind, and nothing comes although it may"
        ))
    }

    fn restart(&mut self, key: SourceKey, why: &str) {
        let Some(listening) = self.listening.get_mut(&key) else {
            return;
        };
        let Some(watched) = &listening.watched else {
            return;
        };
        if !watched.line.cut() {
            return;
        }
        // If it comes back it finds that it is to end.
        listening.mailbox.close();
        if let Some(desk) = &listening.receives {
            desk.close();
        }
        let (restarts, progress) = (watched.restarts + 1, listening.progress);
        let passes_gaps = listening.passes_gaps;
        let id = listening.id.clone();
        let about = About {
            source: self.place_of(key),
            ..About::default()
        };
        let who = self.source_name(key);
        if restarts > limits::SOURCE_RESTARTS {
            let text = format!(
                "{who} has ended: {why}, and opening it again has not helped {} times",
                limits::SOURCE_RESTARTS
            );
            return self.give_up(key, about, text);
        }
        let text = format!("{who} is stalled: {why}; it is opened again, from where we are");
        self.notice_of(Severity::Warning, &self.source_subject(key), &text);
        self.raise(AlertKind::SourceStalled, key.run, about.clone(), text);
        let made = match self.make_again(key) {
            Ok(made) => made,
            Err(cause) => return self.give_up(key, about, format!("{who} has ended: {cause}")),
        };
        let (made, first, keeper) = made;
        match made {
            Opened::Received(receiver) => self.receive_again(key, receiver, keeper),
            Opened::Log(source) => {
                let outline = self.outline_of(key.run);
                let keys = outline.map_or(Keys::Unused, |outline| outline.keys);
                let how = Reading {
                    first,
                    keys,
                    passes_gaps,
                    keeper,
                };
                self.read(key, &id, source, how);
            }
            _ => {
                let text = format!("{who} has ended: it is another kind of source by now");
                return self.give_up(key, about, text);
            }
        }
        self.watch_freshness(key);
        if let Some(listening) = self.listening.get_mut(&key) {
            listening.progress = progress;
            if let Some(watched) = &mut listening.watched {
                watched.restarts = restarts;
            }
        }
    }

    fn give_up(&mut self, key: SourceKey, about: About, text: String) {
        self.notice_of(Severity::Error, &self.source_subject(key), &text);
        if let Some(listening) = self.listening.get_mut(&key) {
            listening.watched = None;
            listening.ended = Some(Some(text.clone()));
        }
        self.raise(AlertKind::SourceEnded, key.run, about, text);
    }

    /// The same source once more.
    fn make_again(&self, key: SourceKey) -> Result<(Opened, FirstPosition, Keeper), String> {
        let outline = self.outline_of(key.run);
        let outline = outline.ok_or("its DAG is not known any more")?;
        let place = self.place_of(key);
        let source = place.and_then(|place| outline.sources.get(usize::from(place)));
        let source = &source
            .ok_or("its DAG has no such source any more")?
            .declared;
        let made = (self.world.sources)(SourceRequest {
            dag: &outline.dag,
            source,
            start_date: outline.start_date.as_deref(),
            budget: SourceBudget {
                batch_events: limits::BATCH_EVENTS,
                batch_bytes: limits::BATCH_BYTES,
                prefetch_bytes: limits::PREFETCH_BYTES,
            },
            diagnostics: of_source(
                &self.world.notices,
                &outline.dag,
                &source.id,
                late_name(self.run_subject(key.run).run),
            ),
        })?;
        let (made, gate) = ungated(made);
        Ok((made, first_position(source), Keeper::new(gate)))
    }
}
