//! **Assembles.** The binary `evermill`: the command line, the configuration, and the rooms put
//! together. Nothing here decides anything that is not about how the program is called.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks to the terminal"
)]

mod cli;
mod config;
mod connections;
mod control;
mod descriptors;
mod duration;
mod failure;
mod folder;
mod listen;
mod near;
mod on_record;
mod private;
mod python;
mod reach;
mod screen;
mod sdk;
mod signals;
mod sources;
mod store;
mod table;
mod vault;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    private::keep_memory_private();
    descriptors::allow_many();
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let message = failure.to_string();
            if !message.is_empty() {
                eprintln!("error: {message}");
            }
            failure.exit_code()
        }
    }
}
