//! `evermill show RUN`: one run, with what explains its counters.

mod attempts;
mod past;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use evermill_engine::view::{LaneView, Percentiles, RunDetail, SourceView};

use super::logs::{Event, parse_event};
use super::parked::age;
use super::place::time;
use super::replay::progress;
use super::versions::versions_table;
use crate::failure::Failure;
use crate::reach::Reach;
use crate::table::{first_line, ms, print, table};

/// What can be typed behind `show`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG id (its latest run) or a run id, as `evermill ps` lists them
    run: String,
    /// The latest activations that have settled, and how
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "20")]
    recent: Option<usize>,
    /// With --recent: only those that were parked or dropped
    #[arg(long, requires = "recent")]
    problems: bool,
    /// With --recent: only those where this task failed
    #[arg(long, value_name = "TASK", requires = "recent")]
    task: Option<String>,
    /// With --recent: only those with an event of this key
    #[arg(long, value_name = "KEY", requires = "recent")]
    key: Option<String>,
    /// With --recent: only those with this text in an event, an error or a result
    #[arg(long, value_name = "TEXT", requires = "recent")]
    text: Option<String>,
    /// With --recent: only those that settled then or later: a time, a day, or an age such as 2h
    #[arg(long, value_name = "TIME|AGE", requires = "recent", value_parser = time)]
    since: Option<i64>,
    /// What became of one event: its tasks, results, errors and payload, and tries that failed
    #[arg(long, value_name = "[LANE@]POSITION", value_parser = parse_event, conflicts_with = "recent")]
    at: Option<Event>,
    /// What is with workers, and the latest tries that failed or came after one that did
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "20", conflicts_with_all = ["recent", "at"])]
    attempts: Option<usize>,
    /// As a JSON object
    #[arg(long)]
    json: bool,
}

/// Missed deadlines, and alerts, that are shown.
const MISSES_SHOWN: usize = 5;
const ALERTS_SHOWN: usize = 5;
/// Characters of an error that are shown.
const ERROR_WIDTH: usize = 70;

/// Prints it.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    if args.recent.is_some() || args.at.is_some() || args.attempts.is_some() {
        let shown = match args.attempts {
            Some(limit) => attempts::run(&reach, &args.run, limit, args.json),
            None => past::run(&reach, args),
        };
        let closed = reach.close();
        return shown.and(closed);
    }
    let detail = reach.run(&args.run)?;
    let live = reach.is_live();
    reach.close()?;
    if args.json {
        let text = serde_json::to_string(&detail);
        let text = text.map_err(|error| Failure::failed(error.to_string()))?;
        return print(&format!("{text}\n"));
    }
    print(&text(&detail, live))
}

fn text(detail: &RunDetail, live: bool) -> String {
    let mut out = heading(detail, live);
    let sources = detail.run.sources.iter();
    let lanes: Vec<[String; 5]> = sources.flat_map(lane_rows).collect();
    section(
        &mut out,
        "Lanes",
        &["SOURCE", "LANE", "", "NEXT", "BEHIND"],
        lanes,
        3,
    );
    for note in &detail.notes {
        line(&mut out, &format!("  ! {}", note.text));
    }
    for source in &detail.run.sources {
        for trouble in troubles(source) {
            line(&mut out, &format!("  ! {}: {trouble}", source.id));
        }
    }
    again(&mut out, detail);
    let attempts = detail.run.tasks.iter().map(|task| {
        let counts = [task.running, task.succeeded, task.skipped, task.failed];
        let [running, succeeded, skipped, failed] = counts.map(|count| count.to_string());
        [task.id.clone(), running, succeeded, skipped, failed]
    });
    let head = ["TASK", "RUNNING", "SUCCEEDED", "SKIPPED", "FAILED"];
    let title = if live {
        "Tasks, attempts since the engine started"
    } else {
        "Tasks"
    };
    section(&mut out, title, &head, attempts.collect(), 1);
    if detail.versions.len() > 1 {
        titled(&mut out, "Versions", &versions_table(&detail.versions));
    }
    let parked = detail.parked_by.iter().map(|group| {
        let task = group.task.clone().unwrap_or_else(|| "-".to_owned());
        [group.reason.clone(), task, group.count.to_string()]
    });
    let parked: Vec<[String; 3]> = parked.collect();
    let any = !parked.is_empty();
    section(&mut out, "Parked", &["REASON", "TASK", "COUNT"], parked, 2);
    if any {
        line(
            &mut out,
            &format!("  `evermill parked ls {}` lists them", detail.run.run),
        );
    }
    let failures = detail.failures.iter().map(|failure| {
        let place = format!("{}@{}", failure.lane, failure.position);
        let error = first_line(&failure.error, ERROR_WIDTH);
        [
            age(failure.at_ms),
            failure.task.clone(),
            place,
            failure.try_number.to_string(),
            error,
        ]
    });
    let head = ["WHEN", "TASK", "EVENT", "TRY", "ERROR"];
    section(&mut out, "Latest failures", &head, failures.collect(), 5);
    let misses = detail.misses.iter().take(MISSES_SHOWN).map(|miss| {
        let late = Duration::from_millis(miss.at_ms.saturating_sub(miss.due_ms));
        [
            age(miss.at_ms),
            format!("{}@{}", miss.lane, miss.position),
            miss.task.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{late:?}"),
        ]
    });
    let head = ["WHEN", "EVENT", "TASK", "LATE BY"];
    section(
        &mut out,
        "Latest missed deadlines",
        &head,
        misses.collect(),
        3,
    );
    let alerts = detail.alerts.iter().take(ALERTS_SHOWN).map(|alert| {
        let text = first_line(&alert.text, ERROR_WIDTH);
        [age(alert.at_ms), alert.kind.to_string(), text]
    });
    let head = ["WHEN", "KIND", "ALERT"];
    section(&mut out, "Latest alerts", &head, alerts.collect(), 3);
    out
}

/// What is read again, and positions that somebody moved.
fn again(out: &mut String, detail: &RunDetail) {
    let replays = detail.run.replays.iter().map(|replay| {
        let what = format!("{} {}", replay.kind, replay.replay);
        [
            what,
            replay.source.clone(),
            replay.state.clone(),
            progress(replay),
        ]
    });
    let head = ["WHAT", "SOURCE", "STATE", "DONE"];
    section(out, "Read again", &head, replays.collect(), 3);
    for replay in &detail.run.replays {
        if let Some(trouble) = &replay.trouble {
            line(
                out,
                &format!("  ! {} {}: {trouble}", replay.kind, replay.replay),
            );
        }
    }
    let resets = detail.resets.iter().map(|reset| {
        let (from, to) = (reset.from.to_string(), reset.to.to_string());
        [
            age(reset.at_ms),
            reset.by.clone(),
            reset.lane.clone(),
            from,
            to,
        ]
    });
    let head = ["WHEN", "BY", "LANE", "FROM", "TO"];
    section(out, "Positions moved by hand", &head, resets.collect(), 3);
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a String takes everything");
}

/// A titled table, or nothing when it has no rows.
fn section<const N: usize>(
    out: &mut String,
    title: &str,
    head: &[&str; N],
    rows: Vec<[String; N]>,
    numbers: usize,
) {
    if rows.is_empty() {
        return;
    }
    titled(out, title, &table(*head, rows, numbers));
}

fn titled(out: &mut String, title: &str, table: &str) {
    line(out, "");
    line(out, title);
    for row in table.lines() {
        line(out, &format!("  {row}"));
    }
}

fn heading(detail: &RunDetail, live: bool) -> String {
    let run = &detail.run;
    let mut out = String::new();
    let engine = if live { "" } else { ", no engine runs" };
    line(&mut out, &format!("{}  {}{engine}", run.run, run.state));
    let mut field = |name: &str, value: String| line(&mut out, &format!("  {name:<10} {value}"));
    field("DAG", run.dag.clone());
    field(
        "version",
        run.version[..run.version.len().min(12)].to_owned(),
    );
    let mut counts = format!(
        "{} in = {} done + {} skipped + {} parked + {} dropped + {} in flight",
        run.taken_in, run.done, run.skipped, run.parked, run.dropped, run.in_flight
    );
    if run.waiting > 0 {
        write!(
            counts,
            " ({} wait for a time or another event)",
            run.waiting
        )
        .expect("a String takes everything");
    }
    field("events", counts);
    let points =
        |points: Percentiles| format!("{} ms p50, {} ms p99", ms(points.p50), ms(points.p99));
    if run.latency_ms.p50.is_some() {
        field("to task", points(run.latency_ms));
    }
    if run.commit_ms.p50.is_some() {
        field("to commit", points(run.commit_ms));
    }
    if let Some(why) = &detail.stalled {
        field("stalled", why.clone());
    }
    if run.deadlines_missed > 0 {
        field("deadlines", format!("{} missed", run.deadlines_missed));
    }
    out
}

fn lane_rows(source: &SourceView) -> Vec<[String; 5]> {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let row = |lane: &LaneView| {
        let state = if lane.stopped.is_some() {
            "STOPPED"
        } else {
            ""
        };
        let (next, behind) = (number(lane.position), number(lane.behind));
        [
            source.id.clone(),
            lane.name.clone(),
            state.to_owned(),
            next,
            behind,
        ]
    };
    source.lanes.iter().map(row).collect()
}

fn troubles(source: &SourceView) -> Vec<String> {
    let stopped = source.lanes.iter().filter_map(|lane| lane.stopped.clone());
    let stale = super::run::progress::stale(source);
    let told = source.degraded.iter().chain(&source.ended).cloned();
    told.chain(stale).chain(stopped).collect()
}
