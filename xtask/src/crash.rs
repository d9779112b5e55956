//! `cargo xtask crash`: the kill loop, as long as wanted. The loop itself is a test of the binary
//! (`crates/evermill/tests/it/real_kafka/crash.rs`), which CI runs with fewer cycles.

use std::env;
use std::process::Command;

use crate::kafka_broker::{self, Broker};
use crate::python_env::{Packages, PythonEnv};
use crate::workspace::{self, Fault};

/// The same profile as in CI, so that nothing is built twice.
const PROFILE: &str = "ci";
const LOOP: &str = "real_kafka::crash::no_kill_loses_an_event_or_counts_it_twice";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Lives of the engine. From 300 on, every failpoint has to be hit.
    #[arg(long, default_value_t = 3000)]
    cycles: u32,
    /// Of the plan of kills; printed when left out.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the loop; its own output says what came of it.
pub(crate) fn run(args: &Args) -> Result<(), Fault> {
    let world = World::open()?;
    let mut command = world.kill_loop(&[], args.cycles);
    if let Some(seed) = args.seed {
        command.env("EVERMILL_CRASH_SEED", seed.to_string());
    }
    workspace::run(&mut command)
}

/// What the loop needs beside the binary: a broker, which ends with this, and an interpreter.
pub(crate) struct World {
    address: String,
    python: PythonEnv,
    _broker: Option<Broker>,
}

impl World {
    /// Takes the broker of the environment, or starts one.
    pub(crate) fn open() -> Result<Self, Fault> {
        let python = PythonEnv::ensure(&[Packages::Test])?;
        if let Ok(address) = env::var("EVERMILL_TEST_KAFKA") {
            return Ok(Self {
                address,
                python,
                _broker: None,
            });
        }
        let broker = Broker::start(&kafka_broker::install()?, None)?;
        Ok(Self {
            address: broker.address(),
            python,
            _broker: Some(broker),
        })
    }

    /// The loop, in a binary built with these features of `evermill`.
    pub(crate) fn kill_loop(&self, features: &[&str], cycles: u32) -> Command {
        let mut command = workspace::cargo();
        command.args([
            "test",
            "--profile",
            PROFILE,
            "--package",
            "evermill",
            "--test",
            "it",
        ]);
        command.args(["--features", &features.join(",")]);
        command.args(["--", "--exact", "--nocapture", LOOP]);
        command.env("EVERMILL_TEST_KAFKA", &self.address);
        command.env("EVERMILL_TEST_PYTHON", self.python.python());
        command.env("EVERMILL_CRASH_CYCLES", cycles.to_string());
        command
    }
}
