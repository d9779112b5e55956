//! Finding the topic and its lanes, and noticing when they change.

use std::time::{Duration, Instant};

use evermill_contract::source::{Severity, SourceError, SourceEvent};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;

use super::KafkaSource;
use crate::kafka::client::{Client, SideTalk};
use crate::kafka::cure;
use crate::kafka::health::Trouble;
use crate::kafka::lane::Lane;
use crate::limits;

/// The incarnation told for brokers that have no topic ids (before Kafka 2.8).
const NO_TOPIC_ID: &str = "no-topic-id";

impl KafkaSource {
    /// Looks the topic up and tells of its lanes.
    pub(super) fn discover(
        &mut self,
        wait: Duration,
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), SourceError> {
        let consumer = self.consumer(self.planned_lanes)?;
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
                drop(consumer);
                self.consumer(count)?;
                self.join()?;
                self.found(count, out);
            }
            Err(code) if self.not_yet(code) => {
                self.discover_at = Some(Instant::now() + limits::KAFKA_ASK_AGAIN_SOON);
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
    pub(super) fn not_yet(&self, code: RDKafkaErrorCode) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(code, Code::OperationTimedOut | Code::BrokerTransportFailure)
            && self.opened.elapsed() < limits::KAFKA_DISCOVERY_PATIENCE
            && self.health.last_error().is_none()
    }

    pub(super) fn explain(&self, code: RDKafkaErrorCode) -> Trouble {
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
    pub(super) fn found(&mut self, count: usize, out: &mut Vec<SourceEvent>) {
        let appeared = self.discovered_once;
        for partition in self.lanes.len()..count.min(limits::KAFKA_LANES_MAX) {
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            let lane = Lane::new(self.topic(), number, appeared);
            self.by_name.insert(lane.name.clone(), partition);
            self.lanes.push(lane);
            if self.is_ours(number) {
                self.tell_lane(partition, out);
            }
        }
        self.discovered_once = true;
    }

    pub(super) fn incarnation(&self, partition: i32) -> String {
        format!(
            "{}/{partition}",
            self.topic_id.as_deref().unwrap_or(NO_TOPIC_ID)
        )
    }

    /// Serves the client's main queue. Returns whether the topic turned out to be another one,
    /// in which case every lane was stopped.
    pub(super) fn listen(&mut self, consumer: &Client, out: &mut Vec<SourceEvent>) -> bool {
        self.serve(consumer);
        let heard = consumer.context().take();
        let recreated = heard
            .topic_id
            .is_some_and(|id| self.identify(consumer, id, out));
        if let Some(how) = heard.broken {
            let code = RDKafkaErrorCode::BrokerTransportFailure;
            self.health
                .broke(&cure::explain(code, &how, &self.config.connection));
        }
        for (code, said) in heard.errors {
            let told = cure::explain(code, &said, &self.config.connection);
            self.health.heard(code, &told);
        }
        if let Some(statistics) = heard.statistics {
            self.review(&statistics, out);
        }
        self.health.tell(out);
        recreated
    }

    pub(super) fn serve(&mut self, consumer: &Client) {
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
    pub(super) fn identify(
        &mut self,
        consumer: &Client,
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
            if !self.is_ours(self.lanes[index].partition) {
                continue;
            }
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
}

/// How many partitions the topic has.
pub(super) fn partitions(
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
