//! What the machine does, command by command.

mod chain;
mod parked;
mod swap;
