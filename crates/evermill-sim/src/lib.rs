//! **Doubts.** Drives the real machine through random histories, with crashes and regrouping, and
//! holds every one of them against an oracle that runs one event at a time.

mod again;
pub mod campaign;
pub mod case;
mod check;
pub mod feature;
pub mod generate;
pub mod graph;
pub mod ledger;
pub mod oracle;
pub mod prng;
pub mod scenario;
pub mod script;
pub mod shrink;
pub mod stage;
pub mod store;
mod trouble;
mod verdict;
mod versions;
pub mod worker;
pub mod world;
