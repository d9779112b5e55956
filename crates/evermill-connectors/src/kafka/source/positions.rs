//! Positions that brokers know: committed ones, the range of a log, and our acknowledgements.

use std::time::Instant;

use evermill_contract::source::{FirstPosition, Origin, Resolved, SourceError};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::Offset;

use super::KafkaSource;
use crate::kafka::client::{Client, SideTalk};
use crate::limits;

impl KafkaSource {
    /// Where a partition that was never read begins.
    pub(super) fn first_position(
        &mut self,
        consumer: &Client,
        partition: i32,
        first: FirstPosition,
    ) -> Result<Resolved, SourceError> {
        if let FirstPosition::CommittedOrEarliest | FirstPosition::CommittedOrLatest = first
            && let Some(position) = self.committed(consumer, partition)?
        {
            return Ok(Resolved {
                position,
                origin: Origin::Committed,
            });
        }
        let (low, high) = range(consumer, self.topic(), partition).map_err(|error| {
            let topic = self.topic();
            SourceError::Unavailable(format!(
                "the range of {topic}/{partition} is not known yet: {error}"
            ))
        })?;
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

    /// What was committed for a partition: by `from_group`, else by our own group.
    pub(super) fn committed(
        &mut self,
        consumer: &Client,
        partition: i32,
    ) -> Result<Option<u64>, SourceError> {
        if let Some(group) = self.config.from_group.clone()
            && let Some(position) = self.taken_over(&group, consumer, partition)?
        {
            return Ok(Some(position));
        }
        if self.config.group_id.is_none() {
            return Ok(None);
        }
        let answer = list(&self.config.topic, partition, Offset::Invalid)
            .and_then(|asked| consumer.committed_offsets(asked, limits::KAFKA_ASK))
            .and_then(|answer| {
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

    /// Tells the broker acknowledged positions, as a hint for lag tools.
    pub(super) fn tell_acks(&mut self, consumer: &Client) -> bool {
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

    /// Tells the last positions, and waits a little for the answer.
    pub(super) fn last_acks(&mut self, consumer: &Client) {
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

/// The lowest position that can be read, and the next one that will be written.
pub(super) fn range(
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

pub(super) fn list(topic: &str, partition: i32, offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition, offset)?;
    Ok(list)
}
