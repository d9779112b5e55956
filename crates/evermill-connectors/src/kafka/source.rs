//! The source: discovery, delivery, and the judgement of what goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use evermill_contract::manifest::KafkaSource as KafkaConfig;
use evermill_contract::source::{
    DiagnosticSink, FirstPosition, LaneFound, LaneName, Origin, Resolved, Severity, Source,
    SourceBudget, SourceError, SourceEvent, Waker,
};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{SideTalk, Signal, raise};
use super::config::Connection;
use super::health::{Health, Trouble};
use super::lane::{Lane, LaneState, TakenUntil};
use super::statistics::TopicStatistics;
use crate::{Environment, limits};

/// The group name of a source that was given none. The client needs one to be assigned partitions;
/// nothing is ever committed under it.
const NO_GROUP: &str = "evermill-without-group";

/// The incarnation told for brokers that have no topic ids (before Kafka 2.8).
const NO_TOPIC_ID: &str = "no-topic-id";

/// A Kafka topic being listened to.
pub struct KafkaSource {
    config: KafkaConfig,
    connection: Connection,
    budget: SourceBudget,
    diagnostics: DiagnosticSink,
    signal: Arc<Signal>,
    client: Option<Client>,
    /// Reads the offsets of `from_group`, while lanes are being resolved.
    takeover: Option<BaseConsumer>,
    /// By partition number; empty until the topic was found.
    lanes: Vec<Lane>,
    by_name: BTreeMap<LaneName, usize>,
    topic_id: Option<String>,
    /// Whether the lanes have to be looked up (again), and when.
    discover_at: Option<Instant>,
    discovered_once: bool,
    /// Questions after the topic that got no answer.
    unanswered: u32,
    health: Health,
    /// Said by something else than `poll`.
    pending: Vec<SourceEvent>,
    /// The lane whose turn is next.
    turn: usize,
    acks_due: Instant,
    closed: bool,
}

struct Client {
    consumer: Arc<BaseConsumer<SideTalk>>,
    /// How many lanes its prefetch was divided by.
    planned_lanes: usize,
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
            takeover: None,
            lanes: Vec::new(),
            by_name: BTreeMap::new(),
            topic_id: None,
            discover_at: Some(Instant::now()),
            discovered_once: false,
            unanswered: 0,
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

    // ---- the client ----------------------------------------------------------------------------

    fn consumer(&mut self, lanes: usize) -> Result<Arc<BaseConsumer<SideTalk>>, SourceError> {
        if let Some(client) = &self.client
            && client.planned_lanes == lanes
        {
            return Ok(Arc::clone(&client.consumer));
        }
        self.drop_client();
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
        self.client = Some(Client {
            consumer: Arc::clone(&consumer),
            planned_lanes: lanes,
        });
        Ok(consumer)
    }

    /// Lets go of the client on a thread of its own: ending one may wait for its connections.
    /// Returns what tells when it is gone.
    fn drop_client(&mut self) -> Option<mpsc::Receiver<()>> {
        for lane in &mut self.lanes {
            lane.deafen();
        }
        let client = self.client.take()?;
        let (gone, is_gone) = mpsc::sync_channel(1);
        let ended = std::thread::Builder::new()
            .name("kafka-close".to_owned())
            .spawn(move || {
                drop(client);
                // Nobody may be waiting any more, and that is fine.
                drop(gone);
            });
        ended.is_ok().then_some(is_gone)
    }

    fn connected(&self) -> Option<Arc<BaseConsumer<SideTalk>>> {
        self.client
            .as_ref()
            .map(|client| Arc::clone(&client.consumer))
    }

    // ---- discovery -----------------------------------------------------------------------------

    /// Looks the topic up and tells of its lanes.
    fn discover(&mut self, wait: Duration, out: &mut Vec<SourceEvent>) -> Result<(), SourceError> {
        let lanes = self
            .client
            .as_ref()
            .map_or(1, |client| client.planned_lanes);
        let consumer = self.consumer(lanes)?;
        let found = partitions(
            &consumer,
            self.topic(),
            wait.min(limits::KAFKA_DISCOVERY_ASK),
        );
        self.listen(&consumer, out);
        match found {
            Ok(count) => {
                self.health.set(None);
                self.discover_at = None;
                self.consumer(count)?;
                self.found(count, out);
            }
            Err(code) if self.not_yet(code) => {
                self.unanswered += 1;
                self.discover_at = Some(Instant::now());
            }
            Err(code) => {
                self.health.set(Some(self.explain(code)));
                self.discover_at = Some(Instant::now() + limits::KAFKA_ASK_AGAIN);
            }
        }
        self.health.tell(out);
        Ok(())
    }

    /// Whether an unanswered question is still no trouble: a first connection takes its time.
    fn not_yet(&self, code: RDKafkaErrorCode) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(code, Code::OperationTimedOut | Code::BrokerTransportFailure)
            && self.unanswered < limits::KAFKA_DISCOVERY_PATIENCE
            && self.health.last_error().is_none()
    }

    fn explain(&self, code: RDKafkaErrorCode) -> Trouble {
        use RDKafkaErrorCode as Code;
        let topic = self.topic();
        match code {
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                Trouble::topic(format!(
                    "topic {topic:?} does not exist; create it, or correct its name"
                ))
            }
            Code::TopicAuthorizationFailed => {
                Trouble::denied(format!("the brokers do not let us read topic {topic:?}"))
            }
            Code::InvalidTopic => Trouble::topic(format!("{topic:?} is not a name of a topic")),
            code => self.health.last_error().unwrap_or_else(|| {
                let connection = &self.config.connection;
                Trouble::unreachable(format!("connection {connection:?}: no answer yet ({code})"))
            }),
        }
    }

    /// Takes over `count` lanes, telling of those that are new.
    fn found(&mut self, count: usize, out: &mut Vec<SourceEvent>) {
        let appeared = self.discovered_once;
        for partition in self.lanes.len()..count.min(limits::KAFKA_LANES_MAX) {
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            let lane = Lane::new(self.topic(), number);
            out.push(SourceEvent::Lane(LaneFound {
                name: lane.name.clone(),
                incarnation: self.incarnation(number),
                appeared,
            }));
            self.by_name.insert(lane.name.clone(), partition);
            self.lanes.push(lane);
        }
        self.discovered_once = true;
    }

    fn incarnation(&self, partition: i32) -> String {
        format!(
            "{}/{partition}",
            self.topic_id.as_deref().unwrap_or(NO_TOPIC_ID)
        )
    }

    // ---- what librdkafka tells beside messages -------------------------------------------------

    /// Serves the client's main queue. Returns whether the topic turned out to be another one,
    /// in which case every lane was stopped.
    fn listen(
        &mut self,
        consumer: &Arc<BaseConsumer<SideTalk>>,
        out: &mut Vec<SourceEvent>,
    ) -> bool {
        self.serve(consumer);
        let heard = consumer.context().take();
        let recreated = heard
            .topic_id
            .is_some_and(|id| self.identify(consumer, id, out));
        for (code, reason) in heard.errors {
            self.health.heard(code, &reason);
        }
        if let Some(statistics) = heard.statistics {
            self.review(&statistics, out);
        }
        self.health.tell(out);
        recreated
    }

    fn serve(&mut self, consumer: &Arc<BaseConsumer<SideTalk>>) {
        loop {
            let before = consumer.context().calls();
            match consumer.poll(Duration::ZERO) {
                None if consumer.context().calls() == before => return,
                Some(Ok(message)) => {
                    // Lanes have queues of their own, so this does not happen; should an update of
                    // librdkafka change that, the lane is read again rather than left with a hole.
                    let partition = usize::try_from(message.partition()).unwrap_or(usize::MAX);
                    drop(message);
                    if let Some(next) = self.lanes.get(partition).map(|lane| lane.next) {
                        let restarted = self.assign(consumer, partition, next);
                        (self.diagnostics)(
                            Severity::Warning,
                            &format!("partition {partition} was read again: {restarted:?}"),
                        );
                    }
                }
                // Errors were heard by the side talk, with more detail.
                None | Some(Err(_)) => {}
            }
        }
    }

    /// Takes note of the topic's id. When it is another than before, stops every lane.
    fn identify(
        &mut self,
        consumer: &Arc<BaseConsumer<SideTalk>>,
        id: String,
        out: &mut Vec<SourceEvent>,
    ) -> bool {
        let Some(old) = self.topic_id.replace(id.clone()) else {
            return false;
        };
        if old == id {
            return false;
        }
        let reason = format!(
            "topic {:?} was deleted and created anew ({old} is now {id})",
            self.topic()
        );
        for index in 0..self.lanes.len() {
            self.stop(consumer, index);
            out.push(SourceEvent::Diverged {
                lane: self.lanes[index].name.clone(),
                reason: reason.clone(),
            });
        }
        self.lanes.clear();
        self.by_name.clear();
        self.discover_at = Some(Instant::now());
        true
    }

    /// Draws conclusions from the periodic statistics.
    fn review(&mut self, statistics: &TopicStatistics, out: &mut Vec<SourceEvent>) {
        if self.discover_at.is_some() {
            return;
        }
        self.found(statistics.known_partitions(), out);
        for lane in self
            .lanes
            .iter_mut()
            .filter(|lane| lane.state == LaneState::Delivering)
        {
            let Some(partition) = statistics.partitions.get(&lane.partition) else {
                continue;
            };
            let nothing_waits = partition.fetchq_cnt == 0 && !lane.may_hold_more();
            // Transaction markers and compacted positions at the end are passed unseen.
            if lane.at_end && nothing_waits && partition.eof_offset == partition.next_offset {
                let end = u64::try_from(partition.eof_offset).unwrap_or_default();
                if end > lane.next {
                    lane.next = end;
                    out.push(SourceEvent::CaughtUp {
                        lane: lane.name.clone(),
                        end,
                    });
                }
            }
            let end = u64::try_from(partition.ls_offset).unwrap_or(lane.next);
            let behind = end.saturating_sub(lane.next);
            if behind != lane.lag {
                lane.lag = behind;
                out.push(SourceEvent::Lag {
                    lane: lane.name.clone(),
                    behind,
                });
            }
        }
        let delivering = self
            .lanes
            .iter()
            .filter(|lane| lane.state != LaneState::Standing);
        let trouble = delivering
            .filter_map(|lane| {
                lane.trouble
                    .clone()
                    .or_else(|| statistics.trouble(lane.partition))
            })
            .next();
        let topic = &self.config.topic;
        self.health.review(
            statistics.any_broker(),
            trouble.map(|trouble| format!("topic {topic:?}: {trouble}")),
        );
    }

    // ---- delivery ------------------------------------------------------------------------------

    /// Gives every lane that wants it a turn, up to the bound of one poll.
    fn deliver(&mut self, consumer: &Arc<BaseConsumer<SideTalk>>, out: &mut Vec<SourceEvent>) {
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
    fn take(
        &mut self,
        consumer: &Arc<BaseConsumer<SideTalk>>,
        index: usize,
        out: &mut Vec<SourceEvent>,
    ) -> usize {
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

    /// Judges an error that librdkafka reported about one lane.
    fn failed(
        &mut self,
        consumer: &Arc<BaseConsumer<SideTalk>>,
        index: usize,
        error: &KafkaError,
        out: &mut Vec<SourceEvent>,
    ) {
        use RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        let reason = match consumer.context().take_last_error() {
            Some((_, reason)) => reason,
            None => error.to_string(),
        };
        let lane = &mut self.lanes[index];
        match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => {
                lane.state = LaneState::Doubted {
                    ask_at: Instant::now(),
                };
            }
            Code::LogTruncation => {
                self.diverge(
                    consumer,
                    index,
                    format!("the log was truncated: {reason}"),
                    out,
                );
            }
            // librdkafka goes on behind what it cannot read; we do not.
            Code::BadMessage
            | Code::BadCompression
            | Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::MessageSizeTooLarge
            | Code::NotImplemented
            | Code::UnsupportedCompressionType => {
                self.diverge(
                    consumer,
                    index,
                    format!("a record cannot be read: {reason}"),
                    out,
                );
            }
            _ => {
                lane.trouble = Some(format!("partition {}: {reason}", lane.partition));
                self.health.heard(code, &reason);
            }
        }
    }

    /// Asks the brokers about lanes whose position is out of range.
    fn settle_doubts(
        &mut self,
        consumer: &Arc<BaseConsumer<SideTalk>>,
        out: &mut Vec<SourceEvent>,
    ) {
        for index in 0..self.lanes.len() {
            let lane = &mut self.lanes[index];
            if !matches!(lane.state, LaneState::Doubted { ask_at } if ask_at <= Instant::now()) {
                continue;
            }
            match range(consumer, &self.config.topic, lane.partition) {
                Ok((low, high)) => self.judge(consumer, index, low, high, out),
                Err(error) => {
                    lane.trouble = Some(format!("partition {}: {error}", lane.partition));
                    lane.state = LaneState::Doubted {
                        ask_at: Instant::now() + limits::KAFKA_ASK_AGAIN,
                    };
                }
            }
        }
    }

    fn judge(
        &mut self,
        consumer: &Arc<BaseConsumer<SideTalk>>,
        index: usize,
        low: u64,
        high: u64,
        out: &mut Vec<SourceEvent>,
    ) {
        let Lane {
            name, next: from, ..
        } = &self.lanes[index];
        let (lane, from) = (name.clone(), *from);
        if from < low {
            self.stop(consumer, index);
            let reason = format!("positions {from} to {low} were deleted before they were read");
            out.push(SourceEvent::Gap {
                lane,
                from,
                to: low,
                reason,
            });
        } else if from > high {
            let reason = format!(
                "position {from} lies beyond the end, {high}: the log is shorter than what was read"
            );
            self.diverge(consumer, index, reason, out);
        } else {
            let reason = format!(
                "the broker refused position {from}, although it now holds {low} to {high}"
            );
            self.diverge(consumer, index, reason, out);
        }
    }

    fn diverge(
        &mut self,
        consumer: &Arc<BaseConsumer<SideTalk>>,
        index: usize,
        reason: String,
        out: &mut Vec<SourceEvent>,
    ) {
        self.stop(consumer, index);
        out.push(SourceEvent::Diverged {
            lane: self.lanes[index].name.clone(),
            reason,
        });
    }

    // ---- assignment ----------------------------------------------------------------------------

    fn assign(
        &mut self,
        consumer: &Arc<BaseConsumer<SideTalk>>,
        index: usize,
        from: u64,
    ) -> Result<(), SourceError> {
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
    fn stop(&mut self, consumer: &Arc<BaseConsumer<SideTalk>>, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.state == LaneState::Standing {
            return;
        }
        lane.state = LaneState::Standing;
        lane.trouble = None;
        let stopped = list(&self.config.topic, lane.partition, Offset::Invalid)
            .and_then(|list| consumer.incremental_unassign(&list));
        if let Err(error) = stopped {
            (self.diagnostics)(
                Severity::Warning,
                &format!("{} not unassigned: {error}", lane.name),
            );
        }
    }

    // ---- positions -----------------------------------------------------------------------------

    /// What the group has committed for a partition. With `from_group` that group is asked.
    fn committed(
        &mut self,
        consumer: &Arc<BaseConsumer<SideTalk>>,
        partition: i32,
    ) -> Result<Option<u64>, SourceError> {
        let asked = list(&self.config.topic, partition, Offset::Invalid);
        let answer = match (&self.config.from_group, &self.config.group_id) {
            (None, None) => return Ok(None),
            (Some(from), own) if own.as_ref() != Some(from) => {
                let takeover = self.takeover(&from.clone())?;
                asked.and_then(|list| takeover.committed_offsets(list, limits::KAFKA_ASK))
            }
            _ => asked.and_then(|list| consumer.committed_offsets(list, limits::KAFKA_ASK)),
        };
        let answer = answer.and_then(|answer| {
            let found = answer.find_partition(&self.config.topic, partition);
            found.map_or(Ok(Offset::Invalid), |found| {
                found.error().map(|()| found.offset())
            })
        });
        match answer {
            Ok(Offset::Offset(offset)) => Ok(u64::try_from(offset).ok()),
            Ok(_) => Ok(None),
            Err(error) => Err(SourceError::Unavailable(format!(
                "the committed position of {}/{partition} is not known yet: {error}",
                self.topic()
            ))),
        }
    }

    fn takeover(&mut self, group: &str) -> Result<&BaseConsumer, SourceError> {
        if self.takeover.is_none() {
            let config = self.connection.consumer(group, 1, self.budget);
            self.takeover = Some(config.create().map_err(|error| {
                SourceError::Refused(format!("no Kafka client can be made: {error}"))
            })?);
        }
        self.takeover
            .as_ref()
            .ok_or_else(|| SourceError::Unavailable(String::new()))
    }

    /// Tells the broker acknowledged positions, as a hint for lag tools.
    fn tell_acks(&mut self, consumer: &Arc<BaseConsumer<SideTalk>>) -> bool {
        let mut list = TopicPartitionList::new();
        for lane in &mut self.lanes {
            let Some(offset) = lane.ack.take().and_then(|ack| i64::try_from(ack).ok()) else {
                continue;
            };
            let added = list.add_partition_offset(
                &self.config.topic,
                lane.partition,
                Offset::Offset(offset),
            );
            debug_assert!(added.is_ok(), "any number is an offset");
        }
        if list.count() == 0 || self.config.group_id.is_none() {
            return false;
        }
        consumer.commit(&list, CommitMode::Async).is_ok()
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
            if let Some(consumer) = self.connected() {
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
        let consumer = self.connected().ok_or_else(not_connected)?;
        if let FirstPosition::CommittedOrEarliest | FirstPosition::CommittedOrLatest = first
            && let Some(position) = self.committed(&consumer, partition)?
        {
            return Ok(Resolved {
                position,
                origin: Origin::Committed,
            });
        }
        let (low, high) = range(&consumer, self.topic(), partition)
            .map_err(|error| SourceError::Unavailable(format!("{lane}: no range yet: {error}")))?;
        Ok(match first {
            FirstPosition::CommittedOrEarliest | FirstPosition::Earliest => Resolved {
                position: low,
                origin: Origin::Earliest,
            },
            FirstPosition::CommittedOrLatest | FirstPosition::Latest => Resolved {
                position: high,
                origin: Origin::Latest,
            },
        })
    }

    fn start_lane(
        &mut self,
        lane: &LaneName,
        from: u64,
        incarnation: Option<&str>,
    ) -> Result<(), SourceError> {
        let index = self.known(lane)?;
        let consumer = self.connected().ok_or_else(not_connected)?;
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
        self.assign(&consumer, index, from)?;
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

    fn waker(&self) -> Waker {
        let signal = Arc::clone(&self.signal);
        Waker::new(move || signal.wake())
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        if let Some(consumer) = self.connected() {
            self.last_acks(&consumer);
        }
        self.takeover = None;
        self.pending.clear();
        if let Some(gone) = self.drop_client()
            && gone.recv_timeout(limits::KAFKA_SHUTDOWN) == Err(mpsc::RecvTimeoutError::Timeout)
        {
            (self.diagnostics)(
                Severity::Warning,
                "librdkafka takes long to end; left to itself",
            );
        }
    }
}

impl KafkaSource {
    /// Everything one round of `poll` does without waiting. Returns when the next is due.
    fn round(
        &mut self,
        consumer: &Arc<BaseConsumer<SideTalk>>,
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
        if self.acks_due <= Instant::now() {
            self.acks_due = Instant::now() + limits::KAFKA_ACK_INTERVAL;
            self.tell_acks(consumer);
        }
        let doubts = self.lanes.iter().filter_map(|lane| match lane.state {
            LaneState::Doubted { ask_at } => Some(ask_at),
            _ => None,
        });
        doubts.chain([deadline]).min().unwrap_or(deadline)
    }

    /// Tells the last positions, and waits a little for the answer.
    fn last_acks(&mut self, consumer: &Arc<BaseConsumer<SideTalk>>) {
        if !self.tell_acks(consumer) {
            return;
        }
        let deadline = Instant::now() + limits::KAFKA_LAST_ACK;
        loop {
            self.serve(consumer);
            if consumer.context().take().commits > 0 || !self.signal.wait(deadline) {
                return;
            }
        }
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
    if config.membership {
        return Err(SourceError::Refused(
            "membership=True is not supported yet; leave it out to read all partitions".to_owned(),
        ));
    }
    if budget.batch_events == 0 || !(1..=limits::BATCH_BYTES_MAX).contains(&budget.batch_bytes) {
        return Err(SourceError::Refused(format!(
            "the bounds of a batch make no sense: {budget:?}"
        )));
    }
    Ok(())
}

fn not_connected() -> SourceError {
    SourceError::Unavailable("not connected to Kafka".to_owned())
}

/// How many partitions the topic has.
fn partitions(
    consumer: &BaseConsumer<SideTalk>,
    topic: &str,
    wait: Duration,
) -> Result<usize, RDKafkaErrorCode> {
    let metadata = consumer
        .fetch_metadata(Some(topic), wait)
        .map_err(|error| {
            error
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown)
        })?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let found = found.ok_or(RDKafkaErrorCode::UnknownTopicOrPartition)?;
    match found.error() {
        Some(error) => Err(error.into()),
        None if found.partitions().is_empty() => Err(RDKafkaErrorCode::UnknownTopicOrPartition),
        None => Ok(found.partitions().len()),
    }
}

/// The lowest position that can be read, and the next one that will be written.
fn range(
    consumer: &BaseConsumer<SideTalk>,
    topic: &str,
    partition: i32,
) -> KafkaResult<(u64, u64)> {
    let (low, high) = consumer.fetch_watermarks(topic, partition, limits::KAFKA_ASK)?;
    Ok((
        u64::try_from(low).unwrap_or_default(),
        u64::try_from(high).unwrap_or_default(),
    ))
}

fn list(topic: &str, partition: i32, offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition, offset)?;
    Ok(list)
}
