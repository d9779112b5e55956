//! `evermill audit`: who changed what, over the API or by a command.

use std::path::PathBuf;

use evermill_api::{Audit, Entry, Sought};
use serde_json::json;

use super::place::{shown, time};
use crate::config::Config;
use crate::failure::Failure;
use crate::table::{print, table};

/// What can be typed behind `audit`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only what this one did: the name of a token, `local`, or `uid N`
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Only where this stands in method and target, such as `connections/`
    #[arg(long, value_name = "TEXT")]
    what: Option<String>,
    /// Only what was refused or failed
    #[arg(long)]
    refused: bool,
    /// Only what was done then or later: a time, a day, or an age such as 2h
    #[arg(long, value_name = "TIME|AGE", value_parser = time)]
    since: Option<i64>,
    /// At most so many, the latest
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints the latest entries, the oldest first; fails when somebody has changed the record.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let folder = Config::read(data_dir, &[])?.data_dir;
    let found = Audit::at(&folder).read();
    let found = found.map_err(|cause| Failure::failed(format!("{}: {cause}", folder.display())))?;
    let sought = Sought {
        who: args.who.clone(),
        what: args.what.clone(),
        refused: args.refused,
        since_ms: args.since.and_then(|since| u64::try_from(since).ok()),
        until_ms: None,
    };
    let fits: Vec<&Entry> = found
        .entries
        .iter()
        .filter(|entry| sought.fits(entry))
        .collect();
    let latest = &fits[fits.len().saturating_sub(args.limit)..];
    if args.json {
        let lines = latest.iter().map(|entry| format!("{}\n", json!(entry)));
        print(&lines.collect::<String>())?;
    } else {
        let rows = latest.iter().copied().map(row).collect();
        print(&table(["WHEN", "WHO", "FROM", "WHAT", "ANSWER"], rows, 4))?;
    }
    match found.broken[..] {
        [] => Ok(()),
        [line, ..] => Err(Failure::failed(format!(
            "{}: line {line} of the record was cut off, or does not follow from the one before: somebody changed it, \
             or the machine died while it was written",
            folder.join("audit.log").display()
        ))),
    }
}

fn row(entry: &Entry) -> [String; 5] {
    [
        shown(i64::try_from(entry.at_ms).unwrap_or(i64::MAX)),
        entry.who.clone(),
        entry.from.clone(),
        format!("{} {}", entry.method, entry.target),
        entry.status.to_string(),
    ]
}
