//! `evermill start DAG`: switches a DAG of a running server on.

use std::path::PathBuf;

use bytes::Bytes;
use evermill_api::Method;
use evermill_engine::Started;
use serde_json::{Value, json};

use super::trigger;
use crate::failure::Failure;
use crate::reach::{self, Reach, part};
use crate::table::print;

/// What can be typed behind `start`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG of the server's folder
    #[arg(value_name = "DAG")]
    dag: String,
    /// What the one activation of a DAG without sources finds in `dag_run.conf`: a JSON object
    #[arg(long, value_name = "JSON|@FILE|-")]
    conf: Option<String>,
    /// Begin where the sources say, not where the stopped run before ended
    #[arg(long)]
    fresh: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Switches it on; one that is on stays as it is.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let conf = args.conf.as_deref().map(trigger::read).transpose()?;
    let conf = conf.map(|conf| serde_json::from_slice::<Value>(&conf).unwrap_or_default());
    let order = json!({"conf": conf, "fresh": args.fresh});
    let started = ask(&args.dag, "start", &order, data_dir)?;
    let version = short(&started.version);
    let text = match &started.before {
        _ if args.json => return print_json(&args.dag, &started),
        Some(before) if *before == started.version => {
            format!("{} is on already, with version {version}", started.run)
        }
        Some(before) => format!(
            "{} goes over to version {version} (was {})",
            started.run,
            short(before)
        ),
        None if started.resumed => format!("{} goes on, with version {version}", started.run),
        None => format!("{} is on, with version {version}", started.run),
    };
    print(&format!("{text}\n"))
}

/// Asks the server for something that is about a DAG and ends in a run.
pub(super) fn ask(
    dag: &str,
    verb: &str,
    order: &Value,
    data_dir: Option<PathBuf>,
) -> Result<Started, Failure> {
    let reach = Reach::open(data_dir)?;
    let path = format!("dags/{}/{verb}", part(dag));
    let body = Bytes::from(order.to_string());
    let started = reach.ask(&reach::request(Method::Post, &path, body));
    let closed = reach.close();
    let started = started?;
    closed.map(|()| started)
}

pub(super) fn print_json(dag: &str, started: &Started) -> Result<(), Failure> {
    let line = json!({
        "dag": dag,
        "run": started.run,
        "version": started.version,
        "before": started.before,
        "resumed": started.resumed,
    });
    print(&format!("{line}\n"))
}

pub(super) fn short(version: &str) -> &str {
    &version[..version.len().min(12)]
}
