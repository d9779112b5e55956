//! `evermill ps`: the runs of a data directory, from the engine that holds it or else from its store.

use std::path::PathBuf;

use evermill_engine::view::{NoteView, ReplayView, RunView};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::replay::progress;
use crate::failure::Failure;
use crate::reach::{Reach, get};
use crate::table::{ms, print, table};

/// What can be typed behind `ps`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Runs {
    /// As the engine wrote them: it may know more fields than we do.
    runs: Vec<Box<RawValue>>,
    #[serde(default)]
    stalled: Option<String>,
    #[serde(default)]
    notes: Vec<NoteView>,
}

/// Lists the runs.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let Runs {
        runs,
        stalled,
        notes,
    } = reach.ask(&get("runs"))?;
    let live = reach.is_live();
    reach.close()?;
    if args.json {
        let lines = runs.iter().map(|run| format!("{run}\n"));
        return print(&lines.collect::<String>());
    }
    let rows = runs.iter().map(|run| serde_json::from_str(run.get()));
    let rows = rows.collect::<Result<Vec<RunView>, _>>();
    let rows = rows.map_err(|error| Failure::failed(format!("the answer is strange: {error}")))?;
    print(&runs_table(&rows))?;
    print(&replays(&rows))?;
    print(&late(&rows))?;
    for why in stalled.iter().chain(notes.iter().map(|note| &note.text)) {
        eprintln!("! {why}");
    }
    if !live {
        eprintln!("no engine runs on this data directory; this is what its store holds");
    }
    Ok(())
}

/// What is read again beside them.
pub(super) fn replays(runs: &[RunView]) -> String {
    let of_run = |run: &RunView| {
        let line = |replay: &ReplayView| {
            let done = progress(replay);
            format!(
                "{}: {} {} {}, {done}\n",
                run.run, replay.kind, replay.replay, replay.state
            )
        };
        run.replays.iter().map(line).collect::<String>()
    };
    runs.iter().map(of_run).collect()
}

/// What is late, or was, a line each.
pub(super) fn late(runs: &[RunView]) -> String {
    let late = super::run::progress::late(runs).into_iter();
    late.map(|late| format!("{late}\n")).collect()
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

/// One line for each run.
pub(super) fn runs_table(runs: &[RunView]) -> String {
    let row = |run: &RunView| {
        [
            run.dag.clone(),
            run.run.clone(),
            run.state.to_owned(),
            run.taken_in.to_string(),
            run.done.to_string(),
            run.skipped.to_string(),
            run.parked.to_string(),
            run.dropped.to_string(),
            run.in_flight.to_string(),
            format!("{}/{}", ms(run.latency_ms.p50), ms(run.latency_ms.p99)),
        ]
    };
    table(HEAD, runs.iter().map(row).collect(), NUMBERS)
}
