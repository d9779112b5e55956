//! **Doubts.** The project's own chores, one module per verb; `cargo xtask help` lists them.
//!
//! Nothing here is a product: the crate imports none of ours and talks to the built binary, to
//! cargo and to a real broker from the outside, as a user would.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks to the terminal"
)]

mod api;
mod aws;
mod aws_emulator;
mod bench;
mod containers;
mod corrupt;
mod crash;
mod demo;
mod deploy;
mod guard;
mod image;
mod kafka;
mod kafka_broker;
mod maven;
mod postgres;
mod postgres_server;
mod programs;
mod python_env;
mod reference;
mod sabotage;
mod sbom;
mod service;
mod sim;
mod steps;
mod test;
mod tidy;
mod web;
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
    /// Play random cases against the core and compare each with the oracle.
    Sim(sim::Args),
    /// Damage stores in every way we know and see whether one case goes unnoticed.
    Corrupt(corrupt::Args),
    /// Measure the main job beside a hand-written consumer loop.
    Bench(bench::Args),
    /// Kill the engine again and again under load, then hold what came out against what went in.
    Crash(crash::Args),
    /// Build deliberate defects in, one at a time; each has to be noticed.
    Sabotage,
    /// Write docs/reference/ from what the code says of itself.
    Reference,
    /// See it live: build the web page and the binary, and run its demo.
    Demo(demo::Args),
    /// Write what the binary is made of, for programs that look for known faults (CycloneDX).
    Sbom(sbom::Args),
    /// Build the web page, which the next build of the binary embeds.
    Web,
    /// Build the container image and take a container of it through a life.
    Image(image::Args),
    /// Set the systemd unit up by the lines of the guide, on a machine in a container, and take it through a life.
    Service(service::Args),
    /// Run the tests' broker in the foreground and print its address.
    Kafka(kafka::Args),
    /// Run the tests' emulators of AWS in the foreground and print their addresses.
    Aws,
    /// Run the tests' PostgreSQL in the foreground and print its address.
    Postgres,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Test(args) => test::run(&args),
        Verb::Tidy => tidy::run(),
        Verb::Sim(args) => sim::run(&args),
        Verb::Corrupt(args) => corrupt::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Crash(args) => crash::run(&args),
        Verb::Sabotage => sabotage::run(),
        Verb::Reference => reference::run(),
        Verb::Demo(args) => demo::run(&args),
        Verb::Sbom(args) => sbom::run(&args),
        Verb::Web => web::run(),
        Verb::Image(args) => image::run(&args),
        Verb::Service(args) => service::run(&args),
        Verb::Kafka(args) => kafka::run(&args),
        Verb::Aws => aws::run(),
        Verb::Postgres => postgres::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
