//! `evermill audit`: who changed what over the API.

use std::path::PathBuf;

use evermill_api::{Audit, Entry};
use serde_json::json;

use super::place::shown;
use crate::config::Config;
use crate::failure::Failure;
use crate::table::{print, table};

/// What can be typed behind `audit`.
#[derive(clap::Args)]
pub(super) struct Args {
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
    let begin = found.entries.len().saturating_sub(args.limit);
    let latest = &found.entries[begin..];
    if args.json {
        let lines = latest.iter().map(|entry| format!("{}\n", json!(entry)));
        print(&lines.collect::<String>())?;
    } else {
        let rows = latest.iter().map(row).collect();
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
