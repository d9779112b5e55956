//! Where a task's value goes outside, in place of a callable.

use serde::{Deserialize, Serialize};

use super::files::FileSink;
use super::http::HttpSink;
use super::sqs::{self, SqsSink};

/// A place that takes what a task gives it: one outside, with the effect key, or a topic of other DAGs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SinkConfig {
    /// A topic of Apache Kafka.
    Kafka(KafkaSink),
    /// A queue of Amazon SQS.
    Sqs(SqsSink),
    /// A service over HTTP.
    Http(HttpSink),
    /// A folder, or a bucket.
    File(FileSink),
    /// A topic of other DAGs, inside: it is said in the commit of the task's success.
    Topic(TopicSink),
}

/// A topic that other DAGs listen to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSink {
    /// The topic's name.
    pub topic: String,
    /// The task whose result is the message; without it, the event's content is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<String>,
    /// What the message's key is: `event` for the event's own, `none`, or a JSON pointer into the
    /// value, such as `/customer/id`.
    #[serde(default = "of_event", skip_serializing_if = "is_of_event")]
    pub key: String,
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
    pub fn connection(&self) -> Option<&str> {
        match self {
            Self::Kafka(kafka) => Some(&kafka.connection),
            Self::Sqs(queue) => sqs::needed(&queue.connection),
            Self::Http(http) => http.needs(),
            Self::File(file) => file.needs(),
            Self::Topic(_) => None,
        }
    }

    /// The task whose result is sent; without it, the event's content is.
    #[must_use]
    pub fn value_from(&self) -> Option<&str> {
        match self {
            Self::Kafka(kafka) => kafka.value_from.as_deref(),
            Self::Sqs(queue) => queue.value_from.as_deref(),
            Self::Http(http) => http.value_from.as_deref(),
            Self::File(file) => file.value_from.as_deref(),
            Self::Topic(topic) => topic.value_from.as_deref(),
        }
    }

    /// Where the key of what is sent comes from: `event`, `none`, or a JSON pointer into the value.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Kafka(kafka) => &kafka.key,
            Self::Sqs(queue) => &queue.key,
            Self::Http(http) => &http.key,
            Self::File(file) => &file.key,
            Self::Topic(topic) => &topic.key,
        }
    }

    /// Where each record goes, as a [`crate::template::Template`], if the place is another one for each.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Kafka(_) | Self::Sqs(_) | Self::Topic(_) => None,
            Self::Http(http) => Some(&http.endpoint),
            Self::File(file) => Some(&file.path),
        }
    }
}

fn kafka_default() -> String {
    "kafka_default".to_owned()
}

fn is_kafka_default(connection: &str) -> bool {
    connection == "kafka_default"
}

pub(super) fn of_event() -> String {
    "event".to_owned()
}

pub(super) fn is_of_event(key: &str) -> bool {
    key == "event"
}
