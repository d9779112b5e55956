//! `evermill reset RUN --to ...`: a live position is moved, for the record.

use std::path::PathBuf;

use evermill_contract::source::Place;
use evermill_engine::{ResetAnswer, ResetAsk};

use super::place;
use super::replay::{post, told};
use crate::failure::Failure;
use crate::reach::Reach;
use crate::table::table;

/// What can be typed behind `reset`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG id (its latest run) or a run id, as `evermill ps` lists them
    run: String,
    /// Where to go on: a position, `earliest`, `latest`, a time, or an age such as 2h
    #[arg(long, value_name = "POSITION|TIME", value_parser = place::parse)]
    to: Place,
    /// Only this lane, such as orders/3
    #[arg(long)]
    lane: Option<String>,
    /// Which source, where the DAG has several
    #[arg(long)]
    source: Option<String>,
    /// Say where it would go, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Yes, move it
    #[arg(long)]
    yes: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Where no engine runs: the address of a connection, as for `evermill run`
    #[arg(long, value_name = "ID=ADDRESS")]
    connection: Vec<String>,
}

/// Moves it.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let only_looks = args.dry_run || !args.yes;
    let order = ResetAsk {
        to: args.to,
        lane: args.lane.clone(),
        source: args.source.clone(),
        dry_run: only_looks,
        by: whoever(),
    };
    let reach = Reach::open_with(data_dir, &args.connection)?;
    let answer: Result<ResetAnswer, _> = post(&reach, &args.run, "reset", &order);
    reach.close()?;
    let answer = answer?;
    told(
        &answer,
        shown(&answer, only_looks),
        (args.json, args.dry_run, args.yes),
        "nothing was moved; say --yes to move it. What lies behind the new position is read again, what lies \
         before it is not read at all",
    )
}

fn shown(answer: &ResetAnswer, only_looks: bool) -> String {
    let row = |(lane, from, to): &(String, u64, u64)| {
        let effect = match to.cmp(from) {
            std::cmp::Ordering::Less => format!("{} read again", from - to),
            std::cmp::Ordering::Equal => "stays".to_owned(),
            std::cmp::Ordering::Greater => format!("{} left out", to - from),
        };
        [lane.clone(), from.to_string(), to.to_string(), effect]
    };
    let rows = answer.lanes.iter().map(row).collect();
    let mut text = table(["LANE", "STANDS AT", "GOES TO", "POSITIONS"], rows, 1);
    if !only_looks {
        text.push_str(&format!(
            "moved, and on record: `evermill show {}` tells of it\n",
            answer.run
        ));
    }
    text
}

/// For the record: who types.
fn whoever() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"];
    let user = user.iter().find_map(|name| std::env::var(name).ok());
    user.filter(|user| !user.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
