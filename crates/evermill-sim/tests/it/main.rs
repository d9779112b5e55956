//! The simulator's own tests: the campaign that every change must pass, scenarios, the oracle.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod campaign;
mod scenarios;
mod truth_table;
