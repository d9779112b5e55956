//! Writes to a development broker: what gives `evermill demo` something to do.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use super::mock::DevKafka;
use crate::limits;

/// Writes messages to a [`DevKafka`]; what is not acknowledged yet when it is dropped may be lost.
pub struct DevProducer {
    producer: ThreadedProducer<DefaultProducerContext>,
}

/// A message or a client was refused.
#[derive(Debug, thiserror::Error)]
#[error("the producer of the development broker: {0}")]
pub struct DevProducerError(#[from] KafkaError);

impl DevProducer {
    /// Opens a producer; nothing is sent yet.
    ///
    /// # Errors
    /// When the system refuses a client.
    pub fn open(broker: &DevKafka) -> Result<Self, DevProducerError> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap())
            .set("linger.ms", "0")
            .set(
                "queue.buffering.max.messages",
                limits::DEV_PRODUCER_MESSAGES.to_string(),
            )
            .create()?;
        Ok(Self { producer })
    }

    /// Hands a message over; its key chooses the partition. `false` when too many wait already:
    /// try again later.
    ///
    /// # Errors
    /// When the topic or the message is refused.
    pub fn send(&self, topic: &str, key: &str, value: &str) -> Result<bool, DevProducerError> {
        let record = BaseRecord::to(topic).key(key).payload(value);
        match self.producer.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((refused, _)) => Err(refused.into()),
        }
    }

    /// Waits until the broker has everything.
    ///
    /// # Errors
    /// When it has not after `patience`.
    pub fn flush(&self, patience: Duration) -> Result<(), DevProducerError> {
        Ok(self.producer.flush(patience)?)
    }
}
