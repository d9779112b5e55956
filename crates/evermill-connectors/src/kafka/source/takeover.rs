//! Taking over where another consumer group stands (`from_group=`), at the very first start.
//!
//! The group is asked once for all partitions. What it committed is a promise of whoever ran it, so
//! nothing here is passed over in silence: a group that is not there ends the source before a single
//! position is committed, and one that is still at work is named.

use std::collections::BTreeMap;

use evermill_contract::manifest::OffsetReset;
use evermill_contract::source::{Severity, SourceError};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;

use super::KafkaSource;
use super::positions::range;
use crate::kafka::client::Client;
use crate::limits;

/// What another group had committed when it was asked, by partition.
pub(super) struct Takeover(BTreeMap<i32, u64>);

impl KafkaSource {
    /// Where `group` stands in a partition; `None` when it has committed nothing for it.
    pub(super) fn taken_over(
        &mut self,
        group: &str,
        consumer: &Client,
        partition: i32,
    ) -> Result<Option<u64>, SourceError> {
        let position = match &self.takeover {
            Some(Takeover(offsets)) => offsets.get(&partition).copied(),
            None => {
                let offsets = self.ask_group(group)?;
                let position = offsets.get(&partition).copied();
                self.takeover = Some(Takeover(offsets));
                position
            }
        };
        if let Some(position) = position {
            self.check_end(group, consumer, partition, position)?;
        }
        Ok(position)
    }

    fn ask_group(&self, group: &str) -> Result<BTreeMap<i32, u64>, SourceError> {
        let config = self.connection.consumer(group, 1, self.budget);
        let asker: BaseConsumer = config.create().map_err(|error| {
            SourceError::Refused(format!("from_group: no Kafka client can be made: {error}"))
        })?;
        let mut asked = TopicPartitionList::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            asked.add_partition(self.topic(), lane.partition);
        }
        let unknown = |error| {
            SourceError::Unavailable(format!(
                "what group {group:?} has committed is not known yet: {error}"
            ))
        };
        let answer = asker
            .committed_offsets(asked, limits::KAFKA_ASK)
            .map_err(unknown)?;
        let mut offsets = BTreeMap::new();
        for found in answer.elements_for_topic(self.topic()) {
            found.error().map_err(unknown)?;
            if let Offset::Offset(offset) = found.offset()
                && let Ok(offset) = u64::try_from(offset)
            {
                offsets.insert(found.partition(), offset);
            }
        }
        self.judge_group(group, &asker, &offsets)?;
        Ok(offsets)
    }

    /// Refuses a group with nothing to take over, and tells of what its owner would not expect.
    fn judge_group(
        &self,
        group: &str,
        asker: &BaseConsumer,
        offsets: &BTreeMap<i32, u64>,
    ) -> Result<(), SourceError> {
        let topic = self.topic();
        let reset = match self.config.auto_offset_reset {
            OffsetReset::Earliest => "earliest",
            OffsetReset::Latest => "latest",
        };
        if offsets.is_empty() {
            return Err(SourceError::Refused(format!(
                "from_group={group:?}: there is no such consumer group, or it has committed nothing \
                 for topic {topic:?} (the broker forgets offsets of a group that stays away). \
                 Correct the name; or leave from_group out to begin at auto_offset_reset={reset:?}"
            )));
        }
        let without: Vec<String> = self
            .lanes
            .iter()
            .filter(|lane| !offsets.contains_key(&lane.partition))
            .map(|lane| lane.partition.to_string())
            .collect();
        if !without.is_empty() {
            self.warn(&format!(
                "from_group={group:?} has committed nothing for partition {} of topic {topic:?}: \
                 there auto_offset_reset={reset:?} holds",
                without.join(", ")
            ));
        }
        let at_work = members(asker, group);
        if at_work > 0 {
            self.warn(&format!(
                "from_group={group:?} is still at work, with {at_work} active {}: evermill begins at \
                 what it has committed by now, and until it is stopped both process every message",
                if at_work == 1 { "member" } else { "members" }
            ));
        }
        for (partition, offset) in offsets {
            let line =
                format!("{topic}/{partition} is taken over from group {group:?} at {offset}");
            (self.diagnostics)(Severity::Info, &line);
        }
        Ok(())
    }

    /// A position beyond the end was committed for another log: no message of this one has it.
    fn check_end(
        &self,
        group: &str,
        consumer: &Client,
        partition: i32,
        position: u64,
    ) -> Result<(), SourceError> {
        let topic = self.topic();
        let (_, end) = range(consumer, topic, partition).map_err(|error| {
            SourceError::Unavailable(format!(
                "the range of {topic}/{partition} is not known yet: {error}"
            ))
        })?;
        if position <= end {
            return Ok(());
        }
        Err(SourceError::Refused(format!(
            "from_group={group:?} stands at {position} in {topic}/{partition}, which ends at {end}: \
             the topic was made anew, or has lost its end, since. Reset the group's offsets \
             (kafka-consumer-groups --reset-offsets), or leave from_group out"
        )))
    }

    fn warn(&self, text: &str) {
        (self.diagnostics)(Severity::Warning, text);
    }
}

/// Members of a group, as far as the brokers tell us.
fn members(asker: &BaseConsumer, group: &str) -> usize {
    let found = asker.fetch_group_list(Some(group), limits::KAFKA_ASK);
    let groups = found.as_ref().map_or(&[][..], |list| list.groups());
    groups.iter().map(|group| group.members().len()).sum()
}
