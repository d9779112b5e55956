//! Where a task's value goes outside, in place of a callable.

use serde::{Deserialize, Serialize};

/// A place outside that takes what a task gives it, with the effect key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SinkConfig {
    /// A topic of Apache Kafka.
    Kafka(KafkaSink),
}

/// A topic of Apache Kafka to write to: one message per member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSink {
    /// The topic's name.
    pub topic: String,
    /// The connection id that `--connection` and `EVERMILL_CONNECTION_*` give an address to.
    #[serde(default = "kafka_default", skip_serializing_if = "is_kafka_default")]
    pub connection: String,
    /// The task whose result is the message; without it, the event's content is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<String>,
    /// What the message's key is: `event` for the event's own, `none`, or a JSON pointer into the
    /// value, such as `/customer/id`.
    #[serde(default = "of_event", skip_serializing_if = "is_of_event")]
    pub key: String,
}

impl SinkConfig {
    /// The connection it needs an address of.
    #[must_use]
    pub fn connection(&self) -> &str {
        let Self::Kafka(kafka) = self;
        &kafka.connection
    }
}

fn kafka_default() -> String {
    "kafka_default".to_owned()
}

fn is_kafka_default(connection: &str) -> bool {
    connection == "kafka_default"
}

fn of_event() -> String {
    "event".to_owned()
}

fn is_of_event(key: &str) -> bool {
    key == "event"
}
