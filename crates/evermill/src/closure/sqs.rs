//! Queues of Amazon SQS.

use evermill_contract::manifest::is_fifo;
use serde_json::{Value, json};

use super::Source;

/// A queue that a DAG listens to.
#[derive(Debug, Clone)]
pub struct Queue {
    config: Value,
}

/// A queue by its name, its URL or its ARN, read through the connection `aws_default`. The messages of a
/// FIFO queue's group stay in line.
#[must_use]
pub fn queue(name: &str) -> Queue {
    Queue {
        config: json!({"kind": "sqs", "queue": name}),
    }
}

impl Queue {
    /// A message is deleted once its work is settled, and not once it is kept here: until then the queue
    /// hides it from others, 12 hours at most.
    #[must_use]
    pub fn ack_outcome(self) -> Self {
        self.with("ack", "outcome")
    }

    /// The connection that [`crate::Local::connection`] gives settings to.
    #[must_use]
    pub fn connection(self, id: &str) -> Self {
        self.with("connection", id)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.config[name] = json!(value);
        self
    }
}

impl From<Queue> for Source {
    fn from(queue: Queue) -> Self {
        let in_line = queue.config["queue"].as_str().is_some_and(is_fifo);
        let mut source = Self::of(queue.config);
        if in_line {
            source.declared["order"] = "key".into();
        }
        source
    }
}
