//! **Decides.** State and a command in, a decision out: writes to commit and effects to perform
//! once they are committed. Nothing here waits, reads a clock, touches a file, logs or draws a
//! random number; time is an argument and every collection has a fixed order.

pub mod command;
pub mod dag;
pub mod limits;
pub mod row;
pub mod rule;
