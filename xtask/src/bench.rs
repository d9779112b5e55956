//! `cargo xtask bench`: the figures of the main job, side by side with what people write by hand.
//! The measuring is in `xtask/python/bench.py`; this brings the release build, the broker and the
//! interpreter.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::kafka_broker::{self, Broker};
use crate::programs;
use crate::python_env::{Packages, PythonEnv};
use crate::web;
use crate::workspace::{self, Fault};

/// Figures that have a script of their own and need no broker.
const WITHOUT_BROKER: [&str; 2] = ["polls", "listeners"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs of each figure; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Messages of a throughput run.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u32,
    /// Only these figures: throughput, closure, state, latency, burst, chain, start,
    /// history, idle, waits, polls, listeners.
    #[arg(long)]
    only: Vec<String>,
}

/// Prints the figures as Markdown.
pub(crate) fn run(args: &Args) -> Result<(), Fault> {
    if args.wants("waits") {
        let example = [
            "run",
            "--release",
            "--package",
            "evermill-core",
            "--example",
        ];
        workspace::run(workspace::cargo().args(example).arg("waits_bench"))?;
        if args.is_only(&["waits"]) {
            return Ok(());
        }
    }
    let python = PythonEnv::ensure(&[Packages::Bench])?;
    if args.wants("listeners") {
        // What a page asks for is timed with the page.
        web::run()?;
    }
    let build = ["build", "--release", "--package", "evermill"];
    workspace::run(workspace::cargo().args(build))?;
    for figure in WITHOUT_BROKER {
        if args.wants(figure) {
            let mut command = Command::new(python.python());
            let script = workspace::root().join(format!("xtask/python/{figure}.py"));
            command.arg("-u").arg(script).arg(built("evermill")?);
            if figure == "listeners" {
                let browser = programs::require(&programs::CHROMIUM)?;
                command.arg("--browser").arg(browser);
            }
            workspace::run(&mut command)?;
        }
    }
    let without_broker = [&["waits"], &WITHOUT_BROKER[..]].concat();
    if args.is_only(&without_broker) {
        return Ok(());
    }
    if args.wants("closure") {
        let example = ["--example", "closure_bench"];
        workspace::run(workspace::cargo().args(build).args(example))?;
    }
    let broker = match env::var("EVERMILL_TEST_KAFKA") {
        Ok(_) => None,
        Err(_) => Some(Broker::start(&kafka_broker::install()?, None)?),
    };
    let address = broker.as_ref().map(Broker::address);
    let address = address.or_else(|| env::var("EVERMILL_TEST_KAFKA").ok());
    let address = address.ok_or("no broker")?;
    let mut command = Command::new(python.python());
    // Unbuffered: a figure is shown once it is there.
    command.arg("-u");
    command.arg(workspace::root().join("xtask/python/bench.py"));
    command.arg(built("evermill")?).arg(address);
    command
        .arg("--closure")
        .arg(built("examples/closure_bench")?);
    command.args(["--runs", &args.runs.to_string()]);
    command.args(["--messages", &args.messages.to_string()]);
    let others = args
        .only
        .iter()
        .filter(|name| !without_broker.contains(&name.as_str()));
    for name in others {
        command.args(["--only", name]);
    }
    workspace::run(&mut command)
}

impl Args {
    /// Whether nothing but some of these is wanted.
    fn is_only(&self, figures: &[&str]) -> bool {
        let mut wanted = self.only.iter();
        !self.only.is_empty() && wanted.all(|name| figures.contains(&name.as_str()))
    }

    fn wants(&self, figure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == figure)
    }
}

fn built(name: &str) -> Result<PathBuf, Fault> {
    let metadata = workspace::metadata()?;
    let target = metadata["target_directory"]
        .as_str()
        .ok_or("no target directory")?;
    Ok(PathBuf::from(target).join("release").join(name))
}
