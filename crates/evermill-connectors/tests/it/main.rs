//! Sources against the worlds they listen to.

mod http_poll;
mod kafka_world;
mod mock_kafka;
mod real_kafka;
