//! The few numbers we take from librdkafka's periodic statistics (JSON; the format is described in
//! its `STATISTICS.md`).

use std::collections::BTreeMap;

use serde::Deserialize;

/// The state of one topic's partitions and of the brokers that lead them.
#[derive(Debug, Default)]
pub(super) struct TopicStatistics {
    /// By partition number.
    pub(super) partitions: BTreeMap<i32, PartitionStatistics>,
    /// Brokers we are connected to, by number.
    connected: Vec<i32>,
}

/// One partition, as librdkafka sees it. Positions are negative while unknown.
#[derive(Debug, Default, Clone, Deserialize)]
pub(super) struct PartitionStatistics {
    leader: i32,
    unknown: bool,
    /// Messages fetched and not yet taken.
    pub(super) fetchq_cnt: i64,
    /// The next position to fetch.
    pub(super) next_offset: i64,
    /// The end at which the last fetch found nothing more.
    pub(super) eof_offset: i64,
    /// The end of what committed transactions have written.
    pub(super) ls_offset: i64,
}

impl TopicStatistics {
    /// Reads the statistics of `topic`; `None` when they make no sense.
    pub(super) fn read(json: &[u8], topic: &str) -> Option<Self> {
        let mut all: Everything = serde_json::from_slice(json).ok()?;
        let connected = all
            .brokers
            .into_values()
            .filter(|broker| broker.state == "UP");
        Some(Self {
            connected: connected.map(|broker| broker.nodeid).collect(),
            partitions: all
                .topics
                .remove(topic)
                .map(|topic| topic.partitions)
                .unwrap_or_default(),
        })
    }

    /// How many partitions the topic has, numbered from 0, as far as is known.
    pub(super) fn known_partitions(&self) -> usize {
        self.partitions
            .iter()
            .filter(|(number, it)| **number >= 0 && !it.unknown)
            .count()
    }

    /// Whether any broker is connected.
    pub(super) fn any_broker(&self) -> bool {
        !self.connected.is_empty()
    }

    /// Why a partition cannot be read at this moment, if it cannot.
    pub(super) fn trouble(&self, partition: i32) -> Option<String> {
        let Some(it) = self.partitions.get(&partition).filter(|it| !it.unknown) else {
            return Some(format!(
                "partition {partition} does not exist on the brokers"
            ));
        };
        if it.leader < 0 {
            return Some(format!("partition {partition} has no leader"));
        }
        if !self.connected.contains(&it.leader) {
            return Some(format!("broker {} cannot be reached", it.leader));
        }
        None
    }
}

#[derive(Deserialize)]
struct Everything {
    #[serde(default)]
    brokers: BTreeMap<String, BrokerEntry>,
    #[serde(default)]
    topics: BTreeMap<String, TopicEntry>,
}

#[derive(Deserialize)]
struct BrokerEntry {
    nodeid: i32,
    state: String,
}

#[derive(Deserialize)]
struct TopicEntry {
    #[serde(default)]
    partitions: BTreeMap<i32, PartitionStatistics>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{"name":"x","brokers":{
        "a:1/1":{"nodeid":1,"state":"UP","rtt":{"min":3}},"b:1/2":{"nodeid":2,"state":"DOWN"}},
        "topics":{"t":{"topic":"t","partitions":{
        "0":{"leader":1,"unknown":false,"fetchq_cnt":3,"next_offset":9,"eof_offset":9,"ls_offset":9,"x":1},
        "1":{"leader":2,"unknown":false,"fetchq_cnt":0,"next_offset":9,"eof_offset":9,"ls_offset":9},
        "2":{"leader":-1,"unknown":false,"fetchq_cnt":0,"next_offset":9,"eof_offset":9,"ls_offset":9},
        "3":{"leader":1,"unknown":true,"fetchq_cnt":0,"next_offset":9,"eof_offset":9,"ls_offset":9},
        "-1":{"leader":-1,"unknown":false,"fetchq_cnt":0,"next_offset":-1,"eof_offset":-1,"ls_offset":-1}}}}}"#;

    #[test]
    fn trouble_is_told_per_partition() {
        let statistics = TopicStatistics::read(SAMPLE.as_bytes(), "t").unwrap();
        assert_eq!(statistics.known_partitions(), 3);
        assert!(statistics.any_broker());
        assert_eq!(statistics.trouble(0), None);
        assert!(statistics.trouble(1).unwrap().contains("broker 2"));
        assert!(statistics.trouble(2).unwrap().contains("no leader"));
        assert!(statistics.trouble(3).unwrap().contains("does not exist"));
        assert!(statistics.trouble(9).unwrap().contains("does not exist"));
        assert_eq!(statistics.partitions[&0].fetchq_cnt, 3);
    }

    #[test]
    fn another_topic_has_no_partitions() {
        let statistics = TopicStatistics::read(SAMPLE.as_bytes(), "other").unwrap();
        assert_eq!(statistics.known_partitions(), 0);
        assert!(TopicStatistics::read(b"nonsense", "t").is_none());
    }
}
