//! `evermill sources forget RUN SOURCE`: events that wait for a source which nobody has any more.

use std::path::PathBuf;

use bytes::Bytes;
use evermill_api::Method;
use evermill_engine::LeftView;

use super::replay::told;
use crate::failure::Failure;
use crate::reach::{Reach, part, request};

/// What can be typed behind `sources`.
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Let go of events that are kept for a source which the DAG has no more, and of what it remembered
    Forget(Forget),
}

#[derive(clap::Args)]
pub(super) struct Forget {
    /// A DAG id or a run id, as `evermill ps` lists them
    run: String,
    /// The source's id, as `evermill show` names it
    source: String,
    /// Say how much it is, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Yes, let go of it
    #[arg(long)]
    yes: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let Args::Forget(asked) = args;
    let only_looks = asked.dry_run || !asked.yes;
    let path = format!(
        "runs/{}/sources/{}?dry_run={only_looks}",
        part(&asked.run),
        part(&asked.source)
    );
    let reach = Reach::open(data_dir)?;
    let left: Result<LeftView, _> = reach.ask(&request(Method::Delete, &path, Bytes::new()));
    reach.close()?;
    let left = left?;
    told(
        &left,
        shown(&left, only_looks),
        (asked.json, asked.dry_run, asked.yes),
        "nothing was let go of; say --yes to do it. These events are done by nobody then, and where they came from \
         may not have them any more",
    )
}

fn shown(left: &LeftView, only_looks: bool) -> String {
    let events = match left.events {
        1 => "1 event".to_owned(),
        events => format!("{events} events"),
    };
    let memory = match left.remembers {
        true => ", and where it had got to outside,",
        false => "",
    };
    let done = match only_looks {
        true => "would be let go of",
        false => "let go of",
    };
    format!(
        "source '{}' of run {}: {events}{memory} {done}\n",
        left.source, left.run
    )
}
