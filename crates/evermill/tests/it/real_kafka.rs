//! With Apache Kafka: the main job, from a topic to a callable.

mod crash;
mod joins;
mod lifecycle;
mod main_job;
mod membership;
mod replaying;
mod secured;
mod sink;
mod takeover;
