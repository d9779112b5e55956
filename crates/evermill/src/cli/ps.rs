//! `evermill ps`: the runs of a data directory, from the engine that holds it or else from its store.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evermill_engine::{Engine, store_options};
use evermill_store::{DirLock, LockError, SqliteStore, Store as _};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::Config;
use crate::control;
use crate::failure::Failure;

/// How long an engine may take from locking its directory to answering.
const STARTING: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What can be typed behind `ps`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Lists the runs.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let data_dir = Config::read(data_dir, &[])?.data_dir;
    let runs = runs(&data_dir)?;
    if args.json {
        let lines = runs
            .iter()
            .map(|run| format!("{run}\n"))
            .collect::<String>();
        return print(&lines);
    }
    let rows = runs.iter().map(|run| serde_json::from_str(run.get()));
    let rows = rows.collect::<Result<Vec<Shown>, _>>();
    let rows = rows.map_err(|error| Failure::failed(format!("the answer is strange: {error}")))?;
    print(&table(&rows))
}

fn print(text: &str) -> Result<(), Failure> {
    let written = io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Failure::failed(format!("standard output: {error}")))
}

/// Whoever holds the lock has the truth; an engine that starts or ends is waited for.
fn runs(data_dir: &Path) -> Result<Vec<Box<RawValue>>, Failure> {
    if !data_dir.is_dir() {
        return Err(Failure::usage(format!(
            "{}: there is no such data directory; `evermill run` makes it, --data-dir names another",
            data_dir.display()
        )));
    }
    let deadline = Instant::now() + STARTING;
    loop {
        let held = match DirLock::take(data_dir) {
            Ok(lock) => return stored(lock),
            Err(held @ LockError::Held { .. }) => Failure::locked(held.to_string()),
            Err(error) => return Err(Failure::failed(error.to_string())),
        };
        match control::runs(data_dir) {
            Ok(runs) => return Ok(runs),
            Err(error) if not_there(&error) && Instant::now() < deadline => {
                std::thread::sleep(LOOK_AGAIN);
            }
            Err(error) if not_there(&error) => return Err(held),
            Err(error) => {
                return Err(Failure::failed(format!(
                    "the engine does not answer: {error}"
                )));
            }
        }
    }
}

fn not_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Looks without leaving a trace: what was not closed cleanly stays so, since the next engine has to
/// know of the crash.
fn stored(lock: DirLock) -> Result<Vec<Box<RawValue>>, Failure> {
    let dir = lock.dir().to_owned();
    if !dir.join(SqliteStore::FILE).exists() {
        return Ok(Vec::new());
    }
    let refused = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let mut store = SqliteStore::open(lock, store_options()).map_err(|error| refused(&error))?;
    let view = Engine::inspect(&dir, &mut store).map_err(|error| refused(&error))?;
    if store.header().clean {
        Box::new(store)
            .close_clean()
            .map_err(|error| refused(&error))?;
    }
    let runs = view.runs.iter().map(serde_json::value::to_raw_value);
    runs.collect::<Result<_, _>>()
        .map_err(|error| refused(&error))
}

/// The fields of a run that the table shows.
#[derive(Deserialize)]
struct Shown {
    dag: String,
    run: String,
    state: String,
    #[serde(rename = "in")]
    taken_in: u64,
    done: u64,
    skipped: u64,
    parked: u64,
    dropped: u64,
    in_flight: u64,
    latency_ms: Points,
}

#[derive(Deserialize)]
struct Points {
    p50: Option<f64>,
    p99: Option<f64>,
}

const HEAD: [&str; 10] = [
    "DAG",
    "RUN",
    "STATE",
    "IN",
    "DONE",
    "SKIPPED",
    "PARKED",
    "DROPPED",
    "IN FLIGHT",
    "P50/P99 MS",
];
/// Columns from here on hold numbers.
const NUMBERS: usize = 3;

fn table(runs: &[Shown]) -> String {
    let rows = runs.iter().map(|run| {
        let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        let count = |n: u64| n.to_string();
        [
            run.dag.clone(),
            run.run.clone(),
            run.state.clone(),
            count(run.taken_in),
            count(run.done),
            count(run.skipped),
            count(run.parked),
            count(run.dropped),
            count(run.in_flight),
            format!("{}/{}", ms(run.latency_ms.p50), ms(run.latency_ms.p99)),
        ]
    });
    let rows: Vec<[String; 10]> = std::iter::once(HEAD.map(str::to_owned))
        .chain(rows)
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0);
            if column < NUMBERS {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
