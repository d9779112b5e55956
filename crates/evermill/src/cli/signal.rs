//! `evermill signal RUN NAME`: a named message for a run, durable when the command ends.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use evermill_api::Method;
use serde::Deserialize;

use crate::duration;
use crate::failure::Failure;
use crate::reach::{self, Reach, part};
use crate::table::print;

/// What can be typed behind `signal`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG id or a run id, as `evermill ps` lists them
    #[arg(value_name = "RUN")]
    run: String,
    /// The name that a source of the DAG takes, or tasks of it wait for
    #[arg(value_name = "NAME")]
    name: String,
    /// The message
    #[arg(value_name = "JSON")]
    message: Option<String>,
    /// Sent again under the same id it counts once
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The event's key; of tasks that wait only those whose event has it
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// To every task that waits, not the one that has waited longest
    #[arg(long)]
    all: bool,
    /// Only to the activation of this id, as `evermill waits` lists them; refused when it does not wait
    #[arg(long, value_name = "ACTIVATION", conflicts_with_all = ["all", "key"])]
    to: Option<String>,
    /// For how long a task may still come to wait for it [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    ttl: Option<Duration>,
}

#[derive(Deserialize)]
struct Signalled {
    kept: u64,
}

/// Sends it, to a running engine or for the next one.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    if let Some(message) = &args.message {
        serde_json::from_str::<serde::de::IgnoredAny>(message)
            .map_err(|cause| Failure::usage(format!("the message is not JSON: {cause}")))?;
    }
    let reach = Reach::open(data_dir)?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("id", &args.id), ("key", &args.key)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    if let Some(to) = &args.to {
        query.append_pair("to", to);
    }
    if args.all {
        query.append_pair("all", "true");
    }
    if let Some(ttl) = args.ttl {
        query.append_pair("ttl_ms", &ttl.as_millis().to_string());
    }
    let (run, name) = (part(&args.run), part(&args.name));
    let path = format!("runs/{run}/signals/{name}?{}", query.finish());
    let body = Bytes::from(args.message.clone().unwrap_or_default());
    let sent: Result<Signalled, _> = reach.ask(&reach::request(Method::Post, &path, body));
    let live = reach.is_live();
    reach.close()?;
    let said = match (sent?.kept, live) {
        (0, _) => "was sent before under this id and counts once",
        (_, true) => "is kept",
        (_, false) => "is kept: no engine runs; the next `evermill run` takes it",
    };
    print(&format!("signal '{}' {said}\n", args.name))
}
