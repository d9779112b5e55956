//! Topics of Apache Kafka.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Source, milliseconds, rate};

/// A topic that a DAG listens to.
#[derive(Debug, Clone)]
pub struct Topic {
    config: Value,
    batch: Option<Value>,
    rate_limit: Option<Value>,
}

/// A topic, read from its end on through the connection `kafka_default`.
#[must_use]
pub fn topic(name: &str) -> Topic {
    Topic {
        config: json!({"kind": "kafka", "topic": name}),
        batch: None,
        rate_limit: None,
    }
}

impl Topic {
    /// The group whose committed offsets tell lag tools how far we are.
    #[must_use]
    pub fn group_id(self, group: &str) -> Self {
        self.with("group_id", group)
    }

    /// A partition that was never read is read from its first message on.
    #[must_use]
    pub fn from_earliest(self) -> Self {
        self.with("auto_offset_reset", "earliest")
    }

    /// The connection that [`crate::Local::connection`] gives an address to.
    #[must_use]
    pub fn connection(self, id: &str) -> Self {
        self.with("connection", id)
    }

    /// The list is the event (W8): an activation takes up to `max_events` of a partition, and its first
    /// one waits for company no longer than `linger`. A closure sees them by [`crate::Ctx::events`].
    #[must_use]
    pub fn batch(mut self, max_events: u32, linger: Duration) -> Self {
        let linger_ms = milliseconds(linger);
        self.batch = Some(json!({"max_events": max_events, "linger_ms": linger_ms}));
        self
    }

    /// At most so many of its messages begin in so long; more wait unbegun (W19).
    #[must_use]
    pub fn rate_limit(mut self, messages: u32, per: Duration) -> Self {
        self.rate_limit = Some(rate(messages, per));
        self
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.config[name] = json!(value);
        self
    }
}

impl From<Topic> for Source {
    fn from(topic: Topic) -> Self {
        let mut source = Self::of(topic.config);
        if let Some(batch) = topic.batch {
            source.declared["batch"] = batch;
        }
        if let Some(rate) = topic.rate_limit {
            source.declared["rate_limit"] = rate;
        }
        source
    }
}
