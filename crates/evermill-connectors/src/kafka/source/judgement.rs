//! What an error, an impossible position or the statistics mean for a lane.

use std::time::Instant;

use evermill_contract::source::SourceEvent;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::KafkaSource;
use super::positions::range;
use crate::kafka::client::Client;
use crate::kafka::lane::{Lane, LaneState};
use crate::kafka::member::Member;
use crate::kafka::statistics::TopicStatistics;
use crate::limits;

impl KafkaSource {
    /// Draws conclusions from the periodic statistics.
    pub(super) fn review(&mut self, statistics: &TopicStatistics, out: &mut Vec<SourceEvent>) {
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
        let delivering = self.lanes.iter().filter(|lane| lane.is_assigned());
        let trouble = delivering
            .filter_map(|lane| {
                lane.trouble
                    .clone()
                    .or_else(|| statistics.trouble(lane.partition))
            })
            .next();
        let group = self.member.as_ref().and_then(Member::trouble);
        let trouble = trouble.or(group);
        let topic = &self.config.topic;
        self.health.review(
            statistics.any_broker(),
            trouble.map(|trouble| format!("topic {topic:?}: {trouble}")),
        );
    }

    /// Judges an error that librdkafka reported about one lane.
    pub(super) fn failed(
        &mut self,
        consumer: &Client,
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
    pub(super) fn settle_doubts(&mut self, consumer: &Client, out: &mut Vec<SourceEvent>) {
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

    pub(super) fn judge(
        &mut self,
        consumer: &Client,
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

    pub(super) fn diverge(
        &mut self,
        consumer: &Client,
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
}
