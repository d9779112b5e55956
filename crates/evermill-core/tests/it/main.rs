//! What the machine does, command by command.

mod chain;
mod idle;
mod parked;
mod replays;
mod sharing;
mod swap;
