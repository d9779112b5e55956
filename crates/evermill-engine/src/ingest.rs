//! One thread per source: drives `contract::source::Source`, turns its batches into the core's
//! events, and does what the shard orders.
//!
//! ```text
//! lane found -> resolve (again later if it cannot be said) -> told to the shard
//!     -> committed there (C7) -> order to start -> batches, one permit each
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{SendTimeoutError, Sender};
use evermill_contract::source::{
    EventBatch, FirstPosition, LaneFound, LaneName, Origin, Source, SourceError, SourceEvent,
};

use crate::clock::Clock;
use crate::failpoint::fp;
use crate::gate::{Asked, Judged, Keeper};
use crate::input::{First, FoundLane, LastWord, SourceInput, SourceKey};
use crate::limits;
use crate::orders::{Mailbox, Orders, StartLane};
use crate::payload::{self, Held, Keys};
use crate::stall::{Line, Pulse};

/// What a source's thread works with.
pub(crate) struct Ingest {
    pub(crate) key: SourceKey,
    pub(crate) source: Box<dyn Source>,
    pub(crate) first: FirstPosition,
    /// Lanes of which a position is held: name and incarnation.
    pub(crate) held_lanes: BTreeSet<(String, String)>,
    pub(crate) keys: Keys,
    pub(crate) line: Line,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Every lane it finds has a committed position: it reads what was read before.
    pub(crate) again: bool,
    /// A permit per batch that the shard has not taken yet.
    pub(crate) permits: Sender<()>,
    pub(crate) held: Arc<Held>,
    pub(crate) clock: Clock,
    pub(crate) keeper: Keeper,
}

/// The state of the thread beside what it was given.
#[derive(Default)]
struct Lanes {
    /// Found, first position not known yet.
    unresolved: Vec<LaneFound>,
    /// Ordered to start, not started yet.
    unstarted: BTreeMap<LaneName, StartLane>,
    started: BTreeMap<LaneName, StartLane>,
    /// What the shard wants; the source is told this and the bound on memory together.
    credit: BTreeMap<LaneName, bool>,
    /// The shard is behind or memory is short: no lane may deliver.
    throttled: bool,
    /// What the source delivered before it heard of that.
    backlog: VecDeque<SourceEvent>,
    /// What the gate said of the batch at its front.
    judged: Option<Judged>,
    retry_at: Option<Instant>,
    found: bool,
    told_resolved: bool,
}

/// The shard is gone: the thread ends.
struct Gone;

impl Ingest {
    /// The thread's body.
    pub(crate) fn run(mut self) {
        let mut last_word = LastWord::new(self.key, self.line.clone());
        self.mailbox.listen(self.source.waker());
        last_word.end = self.listen();
        self.source.close();
    }

    /// Why the source ended; `None` when it was told to.
    fn listen(&mut self) -> Option<String> {
        let mut lanes = Lanes::default();
        let mut events = Vec::new();
        loop {
            let mut orders = self.mailbox.take();
            self.acknowledge(&mut orders);
            if orders.close {
                return None;
            }
            let wait = if orders.is_empty() {
                lanes.wait(self.keeper.wait())
            } else {
                std::time::Duration::ZERO
            };
            self.obey(orders, &mut lanes);
            let Self {
                source,
                pulse,
                clock,
                ..
            } = self;
            let polled = pulse.within(clock, || source.poll(wait, &mut events));
            if let Err(error) = polled {
                return Some(error.to_string());
            }
            fp!("ingest.polled");
            lanes.backlog.extend(events.drain(..));
            if self.hand_over(&mut lanes).is_err() {
                return None;
            }
            match self.settle_lanes(&mut lanes) {
                Err(Stop::Gone) => return None,
                Err(Stop::Refused(why)) => return Some(why),
                Ok(()) => {}
            }
        }
    }

    /// Passes on what was delivered, until the shard lets us wait.
    fn hand_over(&mut self, lanes: &mut Lanes) -> Result<(), Gone> {
        while let Some(event) = lanes.backlog.pop_front() {
            match event {
                SourceEvent::Batch { lane, batch } => {
                    if let Some(left) = self.batch(&lane, batch, lanes)? {
                        let waits = left.waits;
                        let batch = left.batch;
                        lanes.backlog.push_front(SourceEvent::Batch { lane, batch });
                        if waits {
                            break;
                        }
                    }
                }
                event => self.event(event, lanes)?,
            }
        }
        Ok(())
    }

    /// Judges a batch and hands it over; what is left of it stays where it was.
    fn batch(
        &mut self,
        lane: &LaneName,
        mut batch: EventBatch,
        lanes: &mut Lanes,
    ) -> Result<Option<Left>, Gone> {
        let mut judged = lanes.judged.take();
        if judged.is_none()
            && let Some((asked, back)) = self.keeper.ask(|gate| Judged::batch(gate, &batch))
        {
            if back {
                self.tell(SourceInput::Recovered)?;
            }
            match asked {
                Asked::Judged(done) => judged = Some(done),
                Asked::Away(news) => {
                    if let Some(reason) = news {
                        self.tell(SourceInput::Degraded(reason))?;
                    }
                    return Ok(Some(Left { batch, waits: true }));
                }
            }
        }
        if !self.may_send()? {
            lanes.judged = judged;
            return Ok(Some(Left { batch, waits: true }));
        }
        let done = judged.as_ref().map_or(batch.events.len(), Judged::events);
        let rest = batch.events.split_off(done);
        self.send(lane, &batch, judged.as_ref(), lanes)?;
        let buffer = batch.buffer;
        Ok((!rest.is_empty()).then(|| Left {
            batch: EventBatch {
                buffer,
                events: rest,
            },
            waits: false,
        }))
    }

    /// Gets a permit for a batch, or gives up so that the source is polled meanwhile.
    fn may_send(&self) -> Result<bool, Gone> {
        match self.permits.send_timeout((), limits::PERMIT_WAIT) {
            Ok(()) => Ok(true),
            Err(SendTimeoutError::Timeout(())) => Ok(false),
            Err(SendTimeoutError::Disconnected(())) => Err(Gone),
        }
    }

    fn obey(&mut self, orders: Orders, lanes: &mut Lanes) {
        for (name, position) in orders.release {
            self.source.release(&name, position);
        }
        for (name, start) in orders.start {
            lanes.started.remove(&name);
            lanes.backlog.retain(|event| !is_about(event, &name));
            lanes.judged = None;
            lanes.unstarted.insert(name, start);
            lanes.retry_at = None;
        }
        for (name, open) in orders.credit {
            self.source.credit(&name, open && !lanes.throttled);
            lanes.credit.insert(name, open);
        }
        self.throttle(lanes);
    }

    fn acknowledge(&mut self, orders: &mut Orders) {
        for (name, position) in std::mem::take(&mut orders.ack) {
            fp!("ingest.ack");
            self.source.ack(&name, position);
        }
    }

    /// Closes every lane while the shard is behind or memory is short.
    fn throttle(&mut self, lanes: &mut Lanes) {
        let bound = if lanes.throttled {
            limits::HELD_BYTES_LOW
        } else {
            limits::HELD_BYTES_HIGH
        };
        let throttled = !lanes.backlog.is_empty() || self.held.bytes() > bound;
        if throttled != lanes.throttled {
            lanes.throttled = throttled;
            for name in lanes.started.keys() {
                let wanted = lanes.credit.get(name).copied().unwrap_or(true);
                self.source.credit(name, wanted && !throttled);
            }
        }
    }

    fn event(&mut self, event: SourceEvent, lanes: &mut Lanes) -> Result<(), Gone> {
        match event {
            SourceEvent::Lane(found) => {
                lanes.unresolved.retain(|other| other.name != found.name);
                lanes.unresolved.push(found);
                lanes.found = true;
                lanes.retry_at = None;
                Ok(())
            }
            SourceEvent::LaneTaken { lane } => self.taken(lane, lanes),
            SourceEvent::NoLane => {
                lanes.found = true;
                Ok(())
            }
            // They wait for permits, and have a way of their own.
            SourceEvent::Batch { .. } => Ok(()),
            SourceEvent::CaughtUp { lane, end } => match lanes.started.get(&lane) {
                None => Ok(()),
                Some(start) => self.tell(SourceInput::CaughtUp {
                    lane: start.lane,
                    session: start.session,
                    end,
                }),
            },
            SourceEvent::Passed { lane, from, to } => match lanes.started.get(&lane) {
                None => Ok(()),
                Some(start) => self.tell(SourceInput::Passed {
                    lane: start.lane,
                    session: start.session,
                    from,
                    to,
                }),
            },
            SourceEvent::Lag { lane, behind } => match lanes.started.get(&lane) {
                None => Ok(()),
                Some(start) => self.tell(SourceInput::Lag {
                    lane: start.lane,
                    behind,
                }),
            },
            SourceEvent::Gap {
                lane,
                from,
                to,
                reason,
            } => match lanes.started.remove(&lane) {
                None => Ok(()),
                Some(start) => self.tell(SourceInput::Gap {
                    lane: start.lane,
                    session: start.session,
                    from,
                    to,
                    reason,
                }),
            },
            SourceEvent::Diverged { lane, reason } => match lanes.started.remove(&lane) {
                None => Ok(()),
                Some(start) => self.tell(SourceInput::Diverged {
                    lane: start.lane,
                    reason,
                }),
            },
            SourceEvent::Degraded { reason } => self.tell(SourceInput::Degraded(reason)),
            // Not while whoever the gate asks is away.
            SourceEvent::Recovered if self.keeper.is_away() => Ok(()),
            SourceEvent::Recovered => self.tell(SourceInput::Recovered),
        }
    }

    /// A lane that the shard never heard of is handed on at once.
    fn taken(&mut self, lane: LaneName, lanes: &mut Lanes) -> Result<(), Gone> {
        lanes.unstarted.remove(&lane);
        lanes.started.remove(&lane);
        let unresolved = lanes.unresolved.iter().position(|it| it.name == lane);
        let Some(unresolved) = unresolved else {
            return self.tell(SourceInput::Taken(lane));
        };
        lanes.unresolved.remove(unresolved);
        self.source.release(&lane, None);
        Ok(())
    }

    fn send(
        &self,
        lane: &LaneName,
        batch: &EventBatch,
        judged: Option<&Judged>,
        lanes: &Lanes,
    ) -> Result<(), Gone> {
        let Some(start) = lanes.started.get(lane) else {
            return self.give_back();
        };
        let now_us = self.clock.now_us();
        let packed = payload::pack(batch, judged, now_us, self.keys, &self.held);
        fp!("ingest.packed");
        let sent = self.tell(SourceInput::Batch {
            lane: start.lane,
            session: start.session,
            packed,
        });
        fp!("ingest.sent");
        sent
    }

    /// A batch of a lane that was stopped meanwhile is read again from its start.
    fn give_back(&self) -> Result<(), Gone> {
        self.tell(SourceInput::Dropped)
    }

    /// Resolves and starts what is still to be resolved and started.
    fn settle_lanes(&mut self, lanes: &mut Lanes) -> Result<(), Stop> {
        if lanes.retry_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        lanes.retry_at = None;
        self.resolve_lanes(lanes)?;
        for (name, start) in std::mem::take(&mut lanes.unstarted) {
            let Self {
                source,
                pulse,
                clock,
                ..
            } = self;
            let incarnation = Some(start.incarnation.as_str());
            let begin = || source.start_lane(&name, start.from, incarnation);
            match pulse.within(clock, begin) {
                Ok(()) => {
                    fp!("ingest.lane_started");
                    let wanted = lanes.credit.get(&name).copied().unwrap_or(true);
                    self.source.credit(&name, wanted && !lanes.throttled);
                    lanes.started.insert(name, start);
                }
                Err(SourceError::Unavailable(_)) => {
                    lanes.later(|lanes| drop(lanes.unstarted.insert(name, start)));
                }
                Err(SourceError::Refused(why)) => return Err(Stop::Refused(why)),
            }
        }
        if lanes.found && !lanes.told_resolved && lanes.unresolved.is_empty() {
            lanes.told_resolved = true;
            self.tell(SourceInput::Resolved)?;
        }
        Ok(())
    }

    /// Finds the first positions of lanes that need one, and tells of all that are known together.
    fn resolve_lanes(&mut self, lanes: &mut Lanes) -> Result<(), Stop> {
        let mut found = Vec::new();
        let mut unresolved = std::mem::take(&mut lanes.unresolved).into_iter();
        while let Some(lane) = unresolved.next() {
            match self.first_of(&lane) {
                Ok(first) => {
                    fp!("ingest.resolved");
                    found.push(FoundLane {
                        name: lane.name,
                        incarnation: lane.incarnation,
                        first,
                        shared: lane.shared,
                    });
                }
                Err(SourceError::Unavailable(_)) => {
                    // Each question may take seconds: orders are looked at before the others.
                    lanes.later(|lanes| {
                        lanes.unresolved.push(lane);
                        lanes.unresolved.extend(unresolved.by_ref());
                    });
                }
                Err(SourceError::Refused(why)) => return Err(Stop::Refused(why)),
            }
        }
        if !found.is_empty() {
            self.tell(SourceInput::Lanes(found))?;
        }
        Ok(())
    }

    /// Where a lane begins. One that was added while nobody listened is read from its first event,
    /// as one that is added while we do.
    fn first_of(&mut self, lane: &LaneFound) -> Result<First, SourceError> {
        let held = (lane.name.to_string(), lane.incarnation.clone());
        if self.again || (!lane.shared && self.held_lanes.contains(&held)) {
            return Ok(First::Held);
        }
        let first = if lane.appeared {
            FirstPosition::Earliest
        } else if self.knows_the_stream_of(&lane.name) {
            FirstPosition::CommittedOrEarliest
        } else {
            self.first
        };
        let Self {
            source,
            pulse,
            clock,
            ..
        } = self;
        let resolved = pulse.within(clock, || source.resolve(&lane.name, first))?;
        Ok(match resolved.origin {
            Origin::Committed if lane.shared => First::SettledBelow(resolved.position),
            _ => First::At(resolved.position),
        })
    }

    /// Whether another lane of the same stream (`orders/1` beside `orders/0`) was read before.
    fn knows_the_stream_of(&self, lane: &LaneName) -> bool {
        let stream = |name: &str| name.rsplit_once('/').map(|(stream, _)| stream.to_owned());
        let of_lane = stream(lane.as_str());
        let mut held = self.held_lanes.iter();
        of_lane.is_some() && held.any(|(name, _)| stream(name) == of_lane)
    }

    fn tell(&self, input: SourceInput) -> Result<(), Gone> {
        if self.line.say(self.key, input) {
            Ok(())
        } else {
            Err(Gone)
        }
    }
}

/// What could not be handed over yet.
struct Left {
    batch: EventBatch,
    /// Others are not to be tried either.
    waits: bool,
}

/// Whether it tells of the delivery of this lane.
fn is_about(event: &SourceEvent, name: &LaneName) -> bool {
    match event {
        SourceEvent::Batch { lane, .. }
        | SourceEvent::CaughtUp { lane, .. }
        | SourceEvent::Lag { lane, .. }
        | SourceEvent::Gap { lane, .. }
        | SourceEvent::Passed { lane, .. }
        | SourceEvent::Diverged { lane, .. } => lane == name,
        SourceEvent::Lane(_)
        | SourceEvent::LaneTaken { .. }
        | SourceEvent::NoLane
        | SourceEvent::Degraded { .. }
        | SourceEvent::Recovered => false,
    }
}

/// Why lanes could not be settled.
enum Stop {
    Gone,
    Refused(String),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Lanes {
    /// How long the next poll may wait: not at all while lanes are to be settled. `away`: how long
    /// nothing can be judged.
    fn wait(&self, away: Option<std::time::Duration>) -> std::time::Duration {
        let pending = !self.unresolved.is_empty() || !self.unstarted.is_empty();
        if let Some(away) = away.filter(|_| !pending) {
            return away.min(limits::POLL_WAIT);
        }
        match self.retry_at {
            Some(at) => at
                .saturating_duration_since(Instant::now())
                .min(limits::POLL_WAIT),
            None if pending => std::time::Duration::ZERO,
            None if !self.backlog.is_empty() => std::time::Duration::ZERO,
            None if self.throttled => limits::THROTTLE_WAIT,
            None => limits::POLL_WAIT,
        }
    }

    fn later(&mut self, keep: impl FnOnce(&mut Self)) {
        keep(self);
        self.retry_at = Some(Instant::now() + limits::SOURCE_RETRY);
    }
}
