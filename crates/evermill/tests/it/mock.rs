//! A broker in memory, started by `evermill dev kafka`, and a producer for it.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::process::{PATIENCE, Place, Running};

/// The broker and its only topic, `t`, with one partition.
pub(crate) struct Mock {
    address: String,
    producer: BaseProducer,
    _broker: Running,
}

impl Mock {
    pub(crate) fn start(place: &Place) -> Self {
        let broker = Running::start(&mut place.evermill(["dev", "kafka", "--topic", "t:1"]));
        let address = broker.first_line();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &address);
        Self {
            producer: config.create().expect("a producer"),
            address,
            _broker: broker,
        }
    }

    /// What goes behind `--connection`.
    pub(crate) fn connection(&self) -> String {
        format!("kafka={}", self.address)
    }

    /// Writes messages with these keys and values, and returns once they are there.
    pub(crate) fn write(&self, messages: &[(&str, &str)]) {
        for (key, value) in messages {
            let mut record = BaseRecord::to("t").partition(0).key(*key).payload(*value);
            let deadline = Instant::now() + PATIENCE;
            while let Err((why, back)) = self.producer.send(record) {
                assert!(Instant::now() < deadline, "the producer stays full: {why}");
                self.producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        let flushed = self.producer.flush(PATIENCE);
        flushed.expect("the broker acknowledges");
    }
}
