//! The store's tests, one binary.

#![allow(
    unreachable_pub,
    reason = "support modules are shared with the examples"
)]

#[path = "../support/campaign.rs"]
mod campaign;
mod child;
mod committing;
mod conformance;
mod corruption;
mod crashing;
mod format;
mod full;
mod locking;
mod power;
mod retention;
mod sabotage;
#[path = "../support/small_disk.rs"]
mod small_disk;
mod tampering;
#[path = "../support/workload.rs"]
mod workload;
