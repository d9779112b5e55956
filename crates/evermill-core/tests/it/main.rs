//! What the machine does, command by command.

mod chain;
mod parked;
mod replays;
mod swap;
