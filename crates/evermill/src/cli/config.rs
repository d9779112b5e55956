//! `evermill config show`: every setting, with where it comes from.

use std::fmt::Display;
use std::path::PathBuf;

use evermill_secrets::Kind;
use serde_json::json;

use crate::config::{Explained, Flags, Hook, KNOWN, Known, Origin, Setting};
use crate::connections;
use crate::failure::Failure;
use crate::python;
use crate::table::{print, table};
use crate::vault;

/// What can be typed behind `config`.
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Every setting, with where it comes from; secrets are masked
    Show(Show),
    /// Every setting that there is: its name in evermill.toml, its variable, its flag
    Keys(Keys),
}

#[derive(clap::Args)]
pub(super) struct Keys {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct Show {
    /// As if it stood behind `run`
    #[arg(long = "connection", value_name = "ID=URL|HOST:PORT,...")]
    connections: Vec<String>,
    /// As if it stood behind `run`
    #[arg(long, value_name = "AGE|SIZE")]
    retain: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints them.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    match args {
        Args::Show(args) => show(args, data_dir),
        Args::Keys(args) => keys(args),
    }
}

fn keys(args: &Keys) -> Result<(), Failure> {
    if args.json {
        let line = |known| serde_json::to_string(known).expect("it has string keys only") + "\n";
        return print(&KNOWN.iter().map(line).collect::<String>());
    }
    let or_none = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let row = |known: &Known| {
        let (key, flag) = (or_none(known.key), or_none(known.flag));
        [key, or_none(known.variable), flag, or_none(known.default)]
    };
    let head = ["KEY", "VARIABLE", "FLAG", "DEFAULT"];
    print(&table(head, KNOWN.iter().map(row).collect(), 4))
}

/// A setting, its value, and who said so.
fn row<T: Display>(name: &str, set: &Setting<T>) -> [String; 3] {
    let Setting { value, origin } = set;
    [name.to_owned(), value.to_string(), origin.to_string()]
}

fn show(args: &Show, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let found = Explained::read(Flags {
        data_dir,
        retain: args.retain.as_deref(),
        connections: &args.connections,
        ..Flags::default()
    })?;
    let (interpreter, chosen_by) = python::chosen();
    let mut rows = vec![
        [
            "data_dir".to_owned(),
            found.data_dir.value.display().to_string(),
            found.data_dir.origin.to_string(),
        ],
        row("retain", &found.retain),
        row("retain_logs", &found.retain_logs),
        row("log_format", &found.log_format),
        row("log_level", &found.log_level),
        [
            "python".to_owned(),
            interpreter.display().to_string(),
            chosen_by.to_owned(),
        ],
    ];
    let pools = found.pools.iter();
    rows.extend(pools.map(|(name, slots)| {
        let name = format!("pools.{name}");
        [name, slots.to_string(), Origin::File.to_string()]
    }));
    let alerts = (1..).zip(&found.alerts);
    rows.extend(
        alerts.map(|(number, hook)| [Hook::name(number), hook.place(), Origin::File.to_string()]),
    );
    if let Some(traces) = &found.traces {
        let origin = traces.origin.to_string();
        rows.push(["traces".to_owned(), traces.value.place(), origin]);
    }
    let known = connections::known(&found.connections, &found.data_dir.value)?.into_iter();
    rows.extend(known.map(|one| [format!("connections.{}", one.id), one.address, one.from]));
    let secrets = vault::names(&found.data_dir.value, Kind::Secret)?;
    rows.extend(secrets.into_iter().map(|(name, _)| {
        let from = "secrets set".to_owned();
        [format!("secrets.{name}"), "***".to_owned(), from]
    }));
    if args.json {
        let lines = rows.iter().map(|[name, value, origin]| {
            let line = json!({ "setting": name, "value": value, "from": origin });
            format!("{line}\n")
        });
        return print(&lines.collect::<String>());
    }
    print(&table(["SETTING", "VALUE", "FROM"], rows, 3))
}
