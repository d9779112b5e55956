//! `cargo xtask sim`: the property campaign against the core, built in release mode.

use crate::workspace::{self, Fault};

/// Where to begin and how long; everything else goes to the simulator as it is.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Random cases to play.
    #[arg(long, default_value_t = 1_000_000)]
    cases: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Further options of the simulator, after `--`: `--only SEED`, `--features LIST`, ...
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<(), Fault> {
    let mut command = workspace::cargo();
    command.args([
        "run",
        "--release",
        "--package",
        "evermill-sim",
        "--bin",
        "evermill-sim",
        "--",
    ]);
    command.args([
        "--cases",
        &args.cases.to_string(),
        "--seed",
        &args.seed.to_string(),
    ]);
    command.args(&args.rest);
    workspace::run(&mut command)
}
