//! Positions that brokers know: committed ones, the range of a log, and our acknowledgements.

use std::time::Instant;

use evermill_contract::source::{FirstPosition, Origin, Place, Resolved, SourceError};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
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
        let asks_group = !matches!(first, FirstPosition::Earliest | FirstPosition::Latest);
        if (asks_group || self.shares())
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

    /// Where a place lies in a partition.
    pub(super) fn position_of(
        &self,
        consumer: &Client,
        partition: i32,
        place: Place,
    ) -> Result<u64, SourceError> {
        let topic = self.topic();
        let unknown = |error: KafkaError| {
            SourceError::Unavailable(format!("{topic}/{partition} is not known yet: {error}"))
        };
        let ends = || range(consumer, topic, partition).map_err(unknown);
        let time = match place {
            Place::Position(position) => return Ok(position),
            Place::Earliest => return Ok(ends()?.0),
            Place::Latest => return Ok(ends()?.1),
            Place::Time(time) => time,
        };
        let found = list(topic, partition, Offset::Offset(time.max(0)))
            .and_then(|asked| consumer.offsets_for_times(asked, limits::KAFKA_ASK))
            .and_then(|answer| {
                let found = answer.find_partition(topic, partition);
                found.map_or(Ok(Offset::End), |found| {
                    found.error().map(|()| found.offset())
                })
            })
            .map_err(unknown)?;
        match found {
            Offset::Offset(offset) => Ok(u64::try_from(offset).unwrap_or_default()),
            // Every event is older.
            _ => Ok(ends()?.1),
        }
    }

    /// What was committed for a partition: by `from_group`, else by our own group. The other way
    /// round for a member, since another one may have taken over and gone further.
    pub(super) fn committed(
        &mut self,
        consumer: &Client,
        partition: i32,
    ) -> Result<Option<u64>, SourceError> {
        if self.shares()
            && let Some(position) = self.committed_by_us(consumer, partition)?
        {
            return Ok(Some(position));
        }
        if let Some(group) = self.config.from_group.clone()
            && let Some(position) = self.taken_over(&group, consumer, partition)?
        {
            return Ok(Some(position));
        }
        match self.shares() {
            true => Ok(None),
            false => self.committed_by_us(consumer, partition),
        }
    }

    fn committed_by_us(
        &self,
        consumer: &Client,
        partition: i32,
    ) -> Result<Option<u64>, SourceError> {
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

    /// Tells the broker acknowledged positions: a hint for lag tools, and for the other members of a
    /// group the place to go on from.
    pub(super) fn tell_acks(&mut self, consumer: &Client) {
        if self.shares() {
            self.tell_group();
        } else if let Some(list) = self.untold() {
            // The wrapped library does not tell what came of it, and it is only a hint.
            drop(consumer.commit(&list, CommitMode::Async));
        }
    }

    /// Acknowledged positions that the broker was not told, if it is to be told any.
    pub(super) fn untold(&mut self) -> Option<TopicPartitionList> {
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
        (list.count() > 0 && self.config.group_id.is_some()).then_some(list)
    }

    /// Tells the group the last positions, and waits a little for the answer.
    pub(super) fn last_word(&mut self, consumer: &Client) {
        let deadline = Instant::now() + limits::KAFKA_LAST_ACK;
        loop {
            self.attend(consumer, &mut Vec::new());
            if !self.tell_group() || Instant::now() >= deadline {
                return;
            }
            self.signal.wait(deadline);
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
