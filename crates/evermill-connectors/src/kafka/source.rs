//! The source: one client, its lanes, and the round that `poll` makes.
//!
//! A round takes what waits on the lanes, then serves the client's main queue, then lets go of what
//! it took: whatever librdkafka told about the topic by then (that it is another one, say) is
//! known before an event leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use evermill_contract::manifest::KafkaSource as KafkaConfig;
use evermill_contract::source::{
    DiagnosticSink, FirstPosition, LaneName, Place, Resolved, Severity, Source, SourceBudget,
    SourceError, SourceEvent, Waker,
};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Client, SideTalk, Signal, raise};
use super::config::Connection;
use super::health::Health;
use super::lane::{Lane, LaneState, TakenUntil};
use super::member::Member;
use crate::{Environment, limits};

mod discovery;
mod judgement;
mod membership;
mod positions;
mod takeover;

use positions::list;
use takeover::Takeover;

/// The group name of a source that was given none. The client needs one to be assigned partitions;
/// nothing is ever committed under it.
const NO_GROUP: &str = "evermill-without-group";

/// A Kafka topic being listened to.
pub struct KafkaSource {
    config: KafkaConfig,
    connection: Connection,
    budget: SourceBudget,
    diagnostics: DiagnosticSink,
    signal: Arc<Signal>,
    client: Option<Client>,
    /// Our seat in the group, with `membership`.
    member: Option<Member>,
    /// How many lanes the client's prefetch is divided by.
    planned_lanes: usize,
    /// Where `from_group` stands, while lanes are being resolved.
    takeover: Option<Takeover>,
    /// By partition number; empty until the topic was found.
    lanes: Vec<Lane>,
    by_name: BTreeMap<LaneName, usize>,
    topic_id: Option<String>,
    /// Whether the lanes have to be looked up (again), and when.
    discover_at: Option<Instant>,
    discovered_once: bool,
    opened: Instant,
    health: Health,
    /// Said by something else than `poll`.
    pending: Vec<SourceEvent>,
    /// The lane whose turn is next.
    turn: usize,
    acks_due: Instant,
    closed: bool,
}

impl KafkaSource {
    /// Prepares to listen; connects on the first poll.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub fn open(config: &KafkaConfig, environment: &Environment<'_>) -> Result<Self, SourceError> {
        let budget = environment.budget;
        check(config, budget)?;
        let id = &config.connection;
        let address = (environment.connection)(id).ok_or_else(|| {
            SourceError::Refused(format!(
                "connection {id:?} of topic {:?} is not set; pass --connection {id}=HOST:PORT",
                config.topic
            ))
        })?;
        Ok(Self {
            config: config.clone(),
            connection: Connection::parse(id, &address)?,
            budget,
            diagnostics: Arc::clone(&environment.diagnostics),
            signal: Arc::default(),
            client: None,
            member: None,
            planned_lanes: 1,
            takeover: None,
            lanes: Vec::new(),
            by_name: BTreeMap::new(),
            topic_id: None,
            discover_at: Some(Instant::now()),
            discovered_once: false,
            opened: Instant::now(),
            health: Health::default(),
            pending: Vec::new(),
            turn: 0,
            acks_due: Instant::now(),
            closed: false,
        })
    }

    fn topic(&self) -> &str {
        &self.config.topic
    }

    /// The client, made anew when its prefetch was divided by another number of lanes.
    fn consumer(&mut self, lanes: usize) -> Result<Client, SourceError> {
        if let Some(client) = &self.client
            && self.planned_lanes == lanes
        {
            return Ok(Arc::clone(client));
        }
        self.drop_client(None);
        let group = self.config.group_id.as_deref().unwrap_or(NO_GROUP);
        let talk = SideTalk::new(self.topic(), Arc::clone(&self.diagnostics));
        let config = self.connection.consumer(group, lanes, self.budget);
        let mut consumer: BaseConsumer<SideTalk> =
            config.create_with_context(talk).map_err(|error| {
                SourceError::Refused(format!(
                    "connection {:?}: no Kafka client can be made: {error}",
                    self.config.connection
                ))
            })?;
        consumer.set_nonempty_callback(raise(&self.signal));
        let consumer = Arc::new(consumer);
        self.client = Some(Arc::clone(&consumer));
        self.planned_lanes = lanes;
        Ok(consumer)
    }

    /// Lets go of the client, once it has told the broker this hint. Returns what tells when it is
    /// gone.
    fn drop_client(&mut self, hint: Option<TopicPartitionList>) -> Option<mpsc::Receiver<()>> {
        for lane in &mut self.lanes {
            lane.deafen();
        }
        let client = self.client.take()?;
        aside(move || {
            if let Some(hint) = hint {
                drop(client.commit(&hint, CommitMode::Sync));
            }
        })
    }

    /// Leaves the group. Returns what tells when it is done.
    fn leave(&mut self) -> Option<mpsc::Receiver<()>> {
        let member = self.member.take()?;
        member.leave();
        aside(move || drop(member))
    }

    /// Gives every lane that wants it a turn, up to the bound of one poll.
    fn deliver(&mut self, consumer: &Client, out: &mut Vec<SourceEvent>) {
        let count = self.lanes.len();
        let mut bytes = 0;
        for _ in 0..count {
            if bytes >= self.budget.batch_bytes {
                break;
            }
            let index = self.turn % count;
            self.turn = index + 1;
            if self.lanes[index].wants_a_turn() {
                bytes += self.take(consumer, index, out);
            }
        }
    }

    /// Takes one batch off a lane; returns its size in bytes.
    fn take(&mut self, consumer: &Client, index: usize, out: &mut Vec<SourceEvent>) -> usize {
        let talk = Arc::clone(consumer.context());
        let lane = &mut self.lanes[index];
        let (batch, until) = lane.take(&talk, &self.budget);
        let mut bytes = 0;
        if let Some(batch) = batch {
            bytes = batch.events.buffer.len();
            if batch.unreadable_headers > 0 {
                (self.diagnostics)(
                    Severity::Warning,
                    &format!(
                        "{}: {} headers with names that are not UTF-8 were left out",
                        lane.name, batch.unreadable_headers
                    ),
                );
            }
            out.push(SourceEvent::Batch {
                lane: lane.name.clone(),
                batch: batch.events,
            });
        }
        match until {
            TakenUntil::Full | TakenUntil::Empty => {}
            TakenUntil::End => {
                lane.at_end = true;
                lane.trouble = None;
                out.push(SourceEvent::CaughtUp {
                    lane: lane.name.clone(),
                    end: lane.next,
                });
            }
            TakenUntil::Failed(error) => self.failed(consumer, index, &error, out),
        }
        bytes
    }

    fn assign(&mut self, consumer: &Client, index: usize, from: u64) -> Result<(), SourceError> {
        let offset = i64::try_from(from)
            .map_err(|_| SourceError::Refused(format!("position {from} is none of Kafka's")))?;
        self.stop(consumer, index);
        let lane = &mut self.lanes[index];
        if !lane.listens() {
            let queue = consumer
                .split_partition_queue(&self.config.topic, lane.partition)
                .ok_or_else(|| {
                    SourceError::Unavailable(format!("{} is not known yet", lane.name))
                })?;
            lane.listen(queue, &self.signal);
        }
        lane.discard(consumer.context());
        let assigned = list(&self.config.topic, lane.partition, Offset::Offset(offset))
            .and_then(|list| consumer.incremental_assign(&list));
        assigned.map_err(|error| {
            SourceError::Unavailable(format!("{} was not assigned: {error}", lane.name))
        })?;
        lane.begin(from);
        Ok(())
    }

    /// Takes a lane out of the assignment; what was fetched of it is dropped.
    fn stop(&mut self, consumer: &Client, index: usize) {
        let lane = &mut self.lanes[index];
        let assigned = lane.is_assigned();
        lane.state = LaneState::Standing;
        lane.trouble = None;
        if !assigned {
            return;
        }
        let stopped = list(&self.config.topic, lane.partition, Offset::Invalid)
            .and_then(|list| consumer.incremental_unassign(&list));
        if let Err(error) = stopped {
            (self.diagnostics)(
                Severity::Warning,
                &format!("{} not unassigned: {error}", lane.name),
            );
        }
    }

    fn index(&self, lane: &LaneName) -> Option<usize> {
        self.by_name.get(lane).copied()
    }

    fn known(&self, lane: &LaneName) -> Result<usize, SourceError> {
        self.index(lane).ok_or_else(|| {
            SourceError::Refused(format!("{lane} is no lane of topic {:?}", self.topic()))
        })
    }
}

impl Source for KafkaSource {
    fn poll(&mut self, wait: Duration, out: &mut Vec<SourceEvent>) -> Result<(), SourceError> {
        let deadline = Instant::now() + wait;
        out.append(&mut self.pending);
        while !self.closed {
            if self.discover_at.is_some_and(|at| at <= Instant::now()) {
                let left = deadline.saturating_duration_since(Instant::now());
                self.discover(left.max(Duration::from_millis(1)), out)?;
            }
            let mut sleep_until = deadline;
            if let Some(consumer) = self.client.clone() {
                sleep_until = self.round(&consumer, deadline, out);
            }
            if !out.is_empty() || Instant::now() >= deadline {
                break;
            }
            if let Some(at) = self.discover_at {
                sleep_until = sleep_until.min(at);
            }
            let something_waits = self.signal.wait(sleep_until);
            if !something_waits && Instant::now() < sleep_until {
                break;
            }
        }
        Ok(())
    }

    fn resolve(&mut self, lane: &LaneName, first: FirstPosition) -> Result<Resolved, SourceError> {
        let partition = self.lanes[self.known(lane)?].partition;
        let consumer = self.client.clone().ok_or_else(not_connected)?;
        self.first_position(&consumer, partition, first)
    }

    fn locate(&mut self, lane: &LaneName, place: Place) -> Result<u64, SourceError> {
        let partition = self.lanes[self.known(lane)?].partition;
        let consumer = self.client.clone().ok_or_else(not_connected)?;
        self.position_of(&consumer, partition, place)
    }

    fn start_lane(
        &mut self,
        lane: &LaneName,
        from: u64,
        incarnation: Option<&str>,
    ) -> Result<(), SourceError> {
        let index = self.known(lane)?;
        let consumer = self.client.clone().ok_or_else(not_connected)?;
        let now = self.incarnation(self.lanes[index].partition);
        if let Some(expected) = incarnation.filter(|expected| *expected != now) {
            self.stop(&consumer, index);
            let reason = format!(
                "topic {:?} was deleted and created anew ({expected} is now {now})",
                self.topic()
            );
            self.pending.push(SourceEvent::Diverged {
                lane: lane.clone(),
                reason,
            });
            return Ok(());
        }
        if self.shares() {
            // When it is no longer ours, that is on its way to the engine.
            if self.is_ours(self.lanes[index].partition) {
                self.stop(&consumer, index);
                let lane = &mut self.lanes[index];
                lane.state = LaneState::Announced { from };
                (lane.group_has, lane.ack) = (from, None);
                self.acks_due = Instant::now();
            }
        } else {
            self.assign(&consumer, index, from)?;
        }
        if self
            .lanes
            .iter()
            .all(|lane| lane.state != LaneState::Standing)
        {
            self.takeover = None;
        }
        Ok(())
    }

    fn credit(&mut self, lane: &LaneName, open: bool) {
        if let Some(index) = self.index(lane) {
            self.lanes[index].open = open;
        }
    }

    fn ack(&mut self, lane: &LaneName, position: u64) {
        if let Some(index) = self.index(lane) {
            self.lanes[index].ack = Some(position);
        }
    }

    fn release(&mut self, lane: &LaneName, position: Option<u64>) {
        if let Some(index) = self.index(lane) {
            self.released(index, position);
        }
    }

    fn waker(&self) -> Waker {
        let signal = Arc::clone(&self.signal);
        Waker::new(move || signal.wake())
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let mut hint = None;
        if let Some(consumer) = self.client.clone() {
            if self.shares() {
                self.last_word(&consumer);
            } else {
                hint = self.untold();
            }
        }
        self.takeover = None;
        self.pending.clear();
        let left = self.leave();
        let until = Instant::now() + limits::KAFKA_SHUTDOWN;
        for gone in [left, self.drop_client(hint)].into_iter().flatten() {
            let time = until.saturating_duration_since(Instant::now());
            if gone.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout) {
                (self.diagnostics)(
                    Severity::Warning,
                    "librdkafka takes long to end; left to itself",
                );
            }
        }
    }
}

impl KafkaSource {
    /// Everything one round of `poll` does without waiting. Returns when the next is due.
    fn round(
        &mut self,
        consumer: &Client,
        deadline: Instant,
        out: &mut Vec<SourceEvent>,
    ) -> Instant {
        let mut taken = Vec::new();
        self.deliver(consumer, &mut taken);
        self.settle_doubts(consumer, &mut taken);
        // librdkafka tells of a new topic id before it fetches under it. So if nothing was told by
        // now, what was taken belongs to the topic we know; else it must not be delivered.
        if !self.listen(consumer, out) {
            out.append(&mut taken);
        }
        self.attend(consumer, out);
        if self.acks_due <= Instant::now() {
            self.acks_due = Instant::now() + self.ack_interval();
            self.tell_acks(consumer);
        }
        let doubts = self.lanes.iter().filter_map(|lane| match lane.state {
            LaneState::Doubted { ask_at } => Some(ask_at),
            _ => None,
        });
        let due = doubts.chain(self.shared_acks_due());
        due.chain([deadline]).min().unwrap_or(deadline)
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.close();
    }
}

fn check(config: &KafkaConfig, budget: SourceBudget) -> Result<(), SourceError> {
    if config.topic.is_empty() {
        return Err(SourceError::Refused(
            "topic is empty; name the Kafka topic to read".to_owned(),
        ));
    }
    if config.membership && config.group_id.is_none() {
        return Err(SourceError::Refused(
            "membership=True joins a consumer group, and none is named; add group_id=".to_owned(),
        ));
    }
    if budget.batch_events == 0 || !(1..=limits::BATCH_BYTES_MAX).contains(&budget.batch_bytes) {
        return Err(SourceError::Refused(format!(
            "the bounds of a batch make no sense: {budget:?}"
        )));
    }
    Ok(())
}

/// Ends something on a thread of its own, since that may wait for connections. Returns what tells
/// when it is done.
fn aside(end: impl FnOnce() + Send + 'static) -> Option<mpsc::Receiver<()>> {
    let (done, is_done) = mpsc::sync_channel(1);
    let ended = std::thread::Builder::new()
        .name("kafka-close".to_owned())
        .spawn(move || {
            end();
            // Nobody may be waiting any more, and that is fine.
            drop(done);
        });
    ended.is_ok().then_some(is_done)
}

fn not_connected() -> SourceError {
    SourceError::Unavailable("not connected to Kafka".to_owned())
}
