//! `cargo xtask corrupt`: the corruption campaign against the store, built in release mode.

use crate::workspace::{self, Fault};

/// How much to damage; the campaign itself is an example of the store's crate.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Random bits to flip, in each of two stores.
    #[arg(long, default_value_t = 10_000)]
    flips: u64,
    /// Cut at every byte of the tail, not at every hundredth.
    #[arg(long)]
    truncate_all: bool,
    /// The seed of the flips.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(args: &Args) -> Result<(), Fault> {
    let mut command = workspace::cargo();
    command.args([
        "run",
        "--release",
        "--package",
        "evermill-store",
        "--example",
        "corrupt",
        "--",
    ]);
    command.args([
        "--flips",
        &args.flips.to_string(),
        "--seed",
        &args.seed.to_string(),
    ]);
    if args.truncate_all {
        command.arg("--truncate-all");
    }
    workspace::run(&mut command)
}
