//! `evermill backfill DAG --from ... --to ...`: instants of a clock that it has passed over.

use std::path::PathBuf;

use evermill_engine::{BackfillAsk, ReplayAnswer};

use super::place;
use super::replay::{begun, line, planned, post};
use crate::failure::Failure;
use crate::reach::Reach;
use crate::table::print;

/// What can be typed behind `backfill`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG id or a run id, as `evermill ps` lists them
    #[arg(value_name = "DAG")]
    dag: String,
    /// The first instant that may be run: a time, a day such as 2026-01-31 (UTC), or an age
    #[arg(long, value_name = "TIME", value_parser = place::time)]
    from: i64,
    /// The last one
    #[arg(long, value_name = "TIME", value_parser = place::time)]
    to: i64,
    /// Which clock, where the DAG has several
    #[arg(long)]
    source: Option<String>,
    /// Say how many it would be, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Also those that ran before, once more
    #[arg(long)]
    reprocess: bool,
    /// Let tasks change `ctx.state`; else it is only read
    #[arg(long)]
    with_state: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Begins it.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let order = BackfillAsk {
        from_ms: args.from,
        to_ms: args.to,
        source: args.source.clone(),
        dry_run: args.dry_run,
        reprocess: args.reprocess,
        with_state: args.with_state,
    };
    let reach = Reach::open(data_dir)?;
    let answer: Result<ReplayAnswer, _> = post(&reach, &args.dag, "backfill", &order);
    let live = reach.is_live();
    reach.close()?;
    let answer = answer?;
    if args.json {
        return print(&line(&answer));
    }
    let instant = |position: u64| place::shown((position / 1_000_000).cast_signed());
    let mut text = planned(&answer, instant);
    let ran = match answer.skipped {
        0 => String::new(),
        count => format!("; {count} ran before or are the clock's own to run"),
    };
    text.push_str(&match answer.replay {
        None if args.dry_run => format!("{} instants would be run{ran}\n", answer.events),
        None => format!("there is nothing to run{ran}\n"),
        Some(number) => format!(
            "backfill {number} of run {}: {} instants {}{ran}\n",
            answer.run,
            answer.events,
            begun(live, "run", &answer.run)
        ),
    });
    print(&text)
}
