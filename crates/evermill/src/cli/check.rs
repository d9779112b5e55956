//! `evermill check`: loads DAG files as `run` does, says everything that is wrong with them, and
//! draws what is right. It starts no source, asks no broker and leaves the data directory alone.

mod files;
pub(super) mod graph;
mod loading;
mod report;
mod schema;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use evermill_api::drawing;
use evermill_contract::manifest::{Fault, Severity};
use evermill_contract::yaml;

pub(super) use self::loading::{
    Loaded, Loading, circles, duplicates, outside, rounds, sorted, unreadable,
};
pub(super) use self::report::text as said;

use self::report::File;
use crate::config::{Config, Level};
use crate::failure::Failure;
use crate::screen::{Fields, Screen};
use crate::vault::Names;
use crate::{duration, sdk};

/// What can be typed behind `check`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// DAG files, or folders to look for them in
    #[arg(required_unless_present = "schema", value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Print the JSON Schema of DAG files in YAML, for editors, and do nothing else
    #[arg(long, conflicts_with = "paths")]
    schema: bool,
    /// What to print on standard output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Where a connection leads, such as kafka=127.0.0.1:9092; also EVERMILL_CONNECTION_<ID>
    #[arg(long = "connection", value_name = "ID=URL|HOST:PORT,...")]
    connections: Vec<String>,
    /// The longest a file may take to load
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    time_limit: Duration,
    /// Fail on warnings, too
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A drawing for the terminal
    Text,
    /// Everything, for programs; docs/spec/check.md has the shape
    Json,
    /// For Graphviz
    Dot,
    /// A picture that needs nothing else
    Svg,
}

/// Checks every file; the faults of one hide nothing of the others.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    if args.schema {
        let schema =
            serde_json::to_string_pretty(&yaml::schema()).expect("it has string keys only");
        // Whoever read it may have left, as `head` does.
        writeln!(io::stdout().lock(), "{schema}").ok();
        return Ok(());
    }
    let names = Names::of(&Config::read(data_dir, &args.connections)?)?;
    let scratch = tempfile::tempdir()
        .map_err(|cause| Failure::failed(format!("no temporary folder: {cause}")))?;
    let mut loading = Loading::new(sdk::folder(scratch.path())?);
    loading.leave_no_trace(args.time_limit);
    let mut checked = files::check(&args.paths, &loading, &names);
    faults_among(&mut checked);
    let out = match args.format {
        Format::Text => report::drawings(&checked),
        Format::Json => report::json(&checked),
        Format::Dot => drawing::dot(&report::graphs(&checked)),
        Format::Svg => drawing::svg(&report::graphs(&checked)),
    };
    // Whoever read it may have left, as `head` does.
    io::stdout().lock().write_all(out.as_bytes()).ok();
    let faults: Vec<_> = checked.iter().flat_map(|file| &file.faults).collect();
    if args.format != Format::Json {
        eprint!("{}", report::text(faults.iter().copied()));
        eprintln!("{}", report::summary(&checked));
    }
    let is_bad = |severity| severity == Severity::Error || args.strict;
    if faults.iter().any(|fault| is_bad(fault.code.severity())) {
        return Err(Failure::dag_file(""));
    }
    Ok(())
}

/// Says what a start does not refuse.
pub(super) fn warn(screen: &Screen, warnings: &[Fault]) {
    for warning in warnings {
        let text = said(std::slice::from_ref(warning));
        let fields = Fields::of_file(&warning.file);
        screen.lines(Level::Warning, &fields, "", text.as_bytes());
    }
}

/// What is wrong with files taken together.
fn faults_among(checked: &mut [File]) {
    let loaded = || checked.iter().filter_map(|file| file.loaded.as_ref());
    let mut faults = duplicates(loaded());
    faults.extend(circles(loaded()));
    let dags = loaded().flat_map(Loaded::dags).collect::<Vec<_>>();
    faults.extend(rounds(&dags));
    for fault in faults {
        let owner = checked.iter_mut().rev().find(|file| {
            let mut paths = file.loaded.iter().flat_map(|loaded| loaded.declared());
            paths.any(|(path, ..)| path == fault.file)
        });
        if let Some(owner) = owner {
            owner.faults.push(fault);
        }
    }
}
