//! `evermill api`: what the HTTP API says of itself.

use evermill_api::{METRICS, Metric};
use serde_json::json;

use crate::failure::Failure;
use crate::table::{print, table};

/// What can be typed behind `api`.
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Print its description for programs that make clients: OpenAPI 3.1, JSON
    Openapi,
    /// List what /metrics tells
    Metrics {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

/// Prints.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let json = match args {
        Args::Openapi => return print(&format!("{:#}\n", evermill_api::document())),
        Args::Metrics { json } => *json,
    };
    if json {
        let lines = METRICS.iter().map(|metric| {
            let kind = metric.kind.word();
            let Metric {
                name, labels, help, ..
            } = metric;
            let line = json!({"name": name, "type": kind, "labels": labels, "help": help});
            format!("{line}\n")
        });
        return print(&lines.collect::<String>());
    }
    let row = |metric: &Metric| {
        [
            metric.name.to_owned(),
            metric.kind.word().to_owned(),
            metric.labels.join(", "),
            metric.help.to_owned(),
        ]
    };
    let rows = METRICS.iter().map(row).collect();
    print(&table(
        ["METRIC", "TYPE", "LABELS", "WHAT IT SAYS"],
        rows,
        4,
    ))
}
