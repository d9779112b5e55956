//! `evermill rollback DAG [VERSION]`: goes back to an earlier version of a DAG.

use std::path::PathBuf;

use serde_json::json;

use super::start::{ask, print_json, short};
use crate::failure::Failure;
use crate::table::print;

/// What can be typed behind `rollback`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG that runs
    #[arg(value_name = "DAG")]
    dag: String,
    /// The beginning of a version, as `evermill versions ls DAG` lists them; the one before when absent
    #[arg(value_name = "VERSION")]
    version: Option<String>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Goes back: new activations have the earlier version.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let order = json!({"version": args.version});
    let started = ask(&args.dag, "rollback", &order, data_dir)?;
    let version = short(&started.version);
    let text = match &started.before {
        _ if args.json => return print_json(&args.dag, &started),
        Some(before) if *before != started.version => format!(
            "{} is back at version {version}; version {} stays away until its file changes",
            started.run,
            short(before)
        ),
        _ => format!("{} has version {version} already", started.run),
    };
    print(&format!("{text}\n"))
}
