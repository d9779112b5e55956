//! The built binary from the outside: commands, exit codes, JSON lines, signals, `kill -9`.
//!
//! What needs the real broker lives in [`real_kafka`], what needs a real database in [`real_postgres`],
//! what needs a queue or a bucket in [`real_sqs`] and [`real_s3`]; they fail without it.

mod access;
mod alerting;
mod api;
mod asking;
mod checking;
mod clocks;
mod closures;
mod command_line;
mod configuring;
mod content;
mod demo;
mod deploying;
mod doctor;
mod engine_log;
mod errors;
mod guide;
mod hooks;
mod installation;
mod interpreters;
mod limits;
mod logging;
mod logs;
mod mock;
mod operating;
mod polling;
mod process;
mod real_kafka;
mod real_postgres;
mod real_s3;
mod real_sqs;
mod reference;
mod secrets;
mod sending;
mod sensors;
mod served;
mod serving;
#[path = "../../../evermill-store/tests/support/small_disk.rs"]
mod small_disk;
mod testing;
mod together;
mod topic;
mod traces;
mod trying;
mod writing;
mod yaml;
