//! Sources against the worlds they listen to.

mod apache_kafka;
mod kafka_world;
mod mock_kafka;
