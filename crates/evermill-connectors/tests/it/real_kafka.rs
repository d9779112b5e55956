//! The Kafka source against Apache Kafka itself: what the mock cluster cannot show.

mod apache;
mod secured;
