//! **Doubts.** The project's own chores, one module per verb; `cargo xtask help` lists them.
//!
//! Nothing here is a product: the crate imports none of ours and talks to the built binary, to
//! cargo and to a real broker from the outside, as a user would.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks to the terminal"
)]

mod kafka;
mod kafka_broker;
mod programs;
mod python_env;
mod steps;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_version_flag = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the tests need, start a real broker, run everything, stop the broker.
    Test(test::Args),
    /// Check the house rules that no compiler checks.
    Tidy,
    /// Run the tests' broker in the foreground and print its address.
    Kafka(kafka::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Test(args) => test::run(&args),
        Verb::Tidy => tidy::run(),
        Verb::Kafka(args) => kafka::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
