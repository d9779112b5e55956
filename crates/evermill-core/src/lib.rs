//! **Decides.** State and a command in, a decision out: writes to commit and effects to perform
//! once they are committed. Nothing here waits, reads a clock, touches a file, logs or draws a
//! random number; time is an argument and every collection has a fixed order.

mod activation;
mod bits;
mod census;
mod codec;
pub mod command;
mod cover;
pub mod dag;
mod deadline;
mod dispatch;
mod few;
mod flow;
mod form;
#[cfg(test)]
mod golden;
pub mod history;
mod idle;
mod intake;
mod join;
mod lane;
pub mod limits;
mod machine;
mod map;
mod outcome;
mod packed;
mod parked;
mod pool;
mod rate;
mod repeat;
mod replay;
mod restore;
mod resume;
pub mod row;
pub mod rule;
mod run;
mod schedule;
mod scope;
mod sight;
mod signal;
mod standing;
mod state;
mod version;
mod wave;

pub use activation::ParkReason;
pub use census::Census;
pub use codec::DecodeError;
pub use dispatch::{DispatchView, MemberView};
pub use lane::{Replay, Reset};
pub use machine::{LaneView, Machine, ParkedView, RunView};
pub use pool::{PoolTask, PoolView};
pub use resume::ResumeError;
pub use run::StateScope;
pub use scope::ScopeKey;
pub use signal::{Brought, WaitView};
