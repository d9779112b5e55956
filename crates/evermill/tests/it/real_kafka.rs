//! With Apache Kafka: the main job, from a topic to a callable.

mod crash;
mod lifecycle;
mod main_job;
