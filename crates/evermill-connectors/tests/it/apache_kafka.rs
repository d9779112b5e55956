//! The Kafka source against Apache Kafka.
