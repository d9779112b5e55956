//! Apache Kafka: a topic is a source, each of its partitions a lane, an offset a position.
//!
//! Partitions are assigned by us, unless `membership` shares them in a group; positions come from the
//! engine, never from the broker. `README.md` in this folder says what is detected, and what cannot be.

mod client;
mod config;
mod cure;
mod dev_producer;
mod health;
mod lane;
mod look;
mod member;
mod mock;
mod sink;
mod source;
mod statistics;

pub use config::Connection;
pub use dev_producer::{DevProducer, DevProducerError};
pub use look::look;
pub use mock::{DevKafka, DevKafkaError};
pub use sink::{EFFECT_KEY_HEADER, KafkaSink};
pub use source::KafkaSource;
