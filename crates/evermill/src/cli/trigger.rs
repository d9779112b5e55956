//! `evermill trigger DAG`: one activation by hand, durable when the command ends.

use std::path::PathBuf;

use bytes::Bytes;
use evermill_api::Method;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::reach::{self, Reach, part};
use crate::table::print;

/// What can be typed behind `trigger`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG id or a run id, as `evermill ps` lists them
    #[arg(value_name = "DAG")]
    dag: String,
    /// What its tasks find in `dag_run.conf`: a JSON object
    #[arg(long, value_name = "JSON|@FILE|-")]
    conf: Option<String>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize, Serialize)]
struct Triggered {
    activation: String,
}

/// Triggers, on a running engine or for the next one.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let conf = args.conf.as_deref().map(read).transpose()?;
    let reach = Reach::open(data_dir)?;
    let path = format!("runs/{}/trigger", part(&args.dag));
    let request = reach::request(Method::Post, &path, conf.unwrap_or_default());
    let triggered: Result<Triggered, _> = reach.ask(&request);
    let live = reach.is_live();
    reach.close()?;
    let triggered = triggered?;
    if args.json {
        let line = serde_json::to_string(&triggered).expect("a name is a string");
        return print(&format!("{line}\n"));
    }
    let when = if live {
        ""
    } else {
        ": no engine runs; it runs with the next `evermill run`"
    };
    print(&format!("{} is kept{when}\n", triggered.activation))
}

/// A JSON object, as it was typed, of a file, or of standard input.
pub(super) fn read(conf: &str) -> Result<Bytes, Failure> {
    let content = match conf.strip_prefix('@') {
        Some(file) => std::fs::read(file)
            .map_err(|cause| Failure::usage(format!("--conf {conf}: {cause}")))?,
        None if conf == "-" => std::io::read_to_string(std::io::stdin())
            .map_err(|cause| Failure::usage(format!("--conf -: {cause}")))?
            .into_bytes(),
        None => conf.as_bytes().to_vec(),
    };
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&content)
        .map_err(|cause| Failure::usage(format!("--conf: want a JSON object: {cause}")))?;
    Ok(Bytes::from(content))
}
