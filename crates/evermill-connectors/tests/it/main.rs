//! Sources against the worlds they listen to.

mod clocks;
mod codec;
mod files;
mod http_poll;
mod http_sink;
mod kafka_world;
mod mock_kafka;
mod real_kafka;
mod real_sqs;
mod sinks;
mod sqs;
mod sqs_world;
