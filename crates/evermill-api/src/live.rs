//! A running engine as lines for a terminal: counts, latency, throughput, and each DAG with what
//! flows through it. [`Watch`] makes a [`Snapshot`] of views; [`lines()`] is a function of one.

use std::time::Duration;

use evermill_engine::view::{Percentiles, RunView};

use crate::drawing::{self, Graph};

mod style;
mod watch;

pub use style::{Line, Style};
pub use watch::Watch;

/// Cells from one count to the next.
const COUNT_CELLS: usize = 12;
/// Where values begin beside their names.
const VALUE_COLUMN: usize = 18;
/// A bar or a history that is shorter says nothing.
const BAR_CELLS_MIN: usize = 8;
/// A longer one says no more.
const BAR_CELLS_MAX: usize = 30;
/// Eighths of a cell, from below.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Everything that is on the screen at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The runs, from above.
    pub runs: Vec<RunPicture>,
    /// What is wrong at the moment, a sentence each.
    pub wrong: Vec<String>,
    /// The last lines that tasks printed.
    pub said: Vec<String>,
    /// How long all this has been going on.
    pub age: Duration,
    /// What can be done now.
    pub hint: String,
}

/// One run, with what changed in it of late.
#[derive(Debug, Clone)]
pub struct RunPicture {
    /// As the engine shows it.
    pub run: RunView,
    /// Events settled per second, of late.
    pub per_second: f64,
    /// Events settled in each half second, the latest last.
    pub history: Vec<u64>,
    /// Events still to be read, where sources can tell.
    pub behind: Option<u64>,
    /// The DAG; empty when it is not known.
    pub graph: Graph,
    /// What flows through each node of the graph.
    pub flows: Vec<Flow>,
}

/// What goes through one node.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Flow {
    /// Events of a source; attempts of a task that ended well.
    pub total: u64,
    /// The same per second, of late.
    pub per_second: f64,
    /// Attempts that failed.
    pub failed: u64,
    /// Members with workers.
    pub running: u64,
}

/// What is left out when a screen is low, the greatest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Counts,
    Wrong,
    Drawing,
    Measures,
    Hint,
    Said,
    Gap,
}

/// The picture, at most `width` cells wide and `height` lines high.
#[must_use]
pub fn lines(snapshot: &Snapshot, width: usize, height: usize) -> Vec<Line> {
    let mut rows: Vec<(Worth, Line)> = Vec::new();
    for run in &snapshot.runs {
        rows.push((Worth::Counts, heading(run, snapshot.age)));
        rows.push((Worth::Gap, Line::default()));
        rows.extend(counts(run).map(|line| (Worth::Counts, line)));
        rows.push((Worth::Gap, Line::default()));
        rows.extend(measures(run, width).map(|line| (Worth::Measures, line)));
        rows.push((Worth::Gap, Line::default()));
        rows.extend(flow(run, width).map(|line| (Worth::Drawing, line)));
        rows.push((Worth::Gap, Line::default()));
    }
    let wrong = snapshot.wrong.iter();
    rows.extend(wrong.map(|why| (Worth::Wrong, one(Style::Bad, &format!("  ! {why}")))));
    let said = snapshot.said.iter();
    rows.extend(said.map(|text| (Worth::Said, one(Style::Faint, &format!("  {text}")))));
    if !snapshot.hint.is_empty() {
        if !snapshot.said.is_empty() {
            rows.push((Worth::Gap, Line::default()));
        }
        rows.push((Worth::Hint, one(Style::Faint, &snapshot.hint)));
    }
    fit(&mut rows, height);
    rows.into_iter()
        .map(|(_, line)| line.clipped(width))
        .collect()
}

fn one(style: Style, text: &str) -> Line {
    let mut line = Line::default();
    line.add(style, text);
    line
}

/// Leaves out what is worth least until the rest fits: gaps from below, older lines before newer
/// ones, a drawing as a whole; of what matters most, the end.
fn fit(rows: &mut Vec<(Worth, Line)>, height: usize) {
    while rows.len() > height {
        let Some(least) = rows.iter().map(|(worth, _)| *worth).max() else {
            return;
        };
        let is_least = |row: &(Worth, Line)| row.0 == least;
        match least {
            Worth::Counts => return rows.truncate(height),
            Worth::Drawing => rows.retain(|row| !is_least(row)),
            Worth::Said => drop(rows.iter().position(is_least).map(|at| rows.remove(at))),
            _ => drop(rows.iter().rposition(is_least).map(|at| rows.remove(at))),
        }
    }
}

fn heading(picture: &RunPicture, age: Duration) -> Line {
    let run = &picture.run;
    let style = match run.state {
        "failed" => Style::Bad,
        "running" => Style::Good,
        _ => Style::Warning,
    };
    let mut line = Line::default();
    line.add(Style::Strong, &run.dag);
    line.add(Style::Plain, "  ").add(style, run.state);
    line.add(Style::Faint, format!("  {}", lasted(age)));
    line
}

/// Names above, numbers below. What is nought and seldom anything else is left out.
fn counts(picture: &RunPicture) -> impl Iterator<Item = Line> {
    let run = &picture.run;
    let bad = if run.parked > 0 {
        Style::Bad
    } else {
        Style::Strong
    };
    let all = [
        ("events in", Some(run.taken_in), Style::Strong, true),
        ("done", Some(run.done), Style::Strong, true),
        ("skipped", Some(run.skipped), Style::Strong, run.skipped > 0),
        ("dropped", Some(run.dropped), Style::Bad, run.dropped > 0),
        ("parked", Some(run.parked), bad, true),
        ("in flight", Some(run.in_flight), Style::Strong, true),
        (
            "behind",
            picture.behind,
            Style::Strong,
            picture.behind.is_some(),
        ),
    ];
    let mut lines = [one(Style::Plain, "  "), one(Style::Plain, "  ")];
    let shown = all.into_iter().filter(|(.., is_shown)| *is_shown);
    for (at, (name, count, style, _)) in shown.enumerate() {
        let column = 2 + at * COUNT_CELLS;
        lines[0].to(column).add(Style::Faint, name);
        lines[1]
            .to(column)
            .add(style, grouped(count.unwrap_or_default()));
    }
    lines.into_iter()
}

/// Latencies and throughput.
fn measures(picture: &RunPicture, width: usize) -> impl Iterator<Item = Line> {
    let latency = |name: &str, found: Percentiles| {
        let mut line = one(Style::Faint, &format!("  {name}"));
        line.to(VALUE_COLUMN)
            .add(Style::Plain, milliseconds(found.p50));
        line.add(Style::Faint, " p50   ");
        line.add(Style::Plain, milliseconds(found.p99));
        line.add(Style::Faint, " p99");
        line
    };
    let mut rate = one(Style::Faint, "  events a second");
    rate.to(VALUE_COLUMN);
    rate.add(
        Style::Plain,
        format!("{:>7}", per_second(picture.per_second)),
    );
    let room = width.saturating_sub(rate.width() + 4);
    if room >= BAR_CELLS_MIN {
        rate.add(Style::Plain, "  ");
        rate.add(Style::Good, sparkline(&picture.history, room));
    }
    [
        latency("arrival to task", picture.run.latency_ms),
        latency("arrival to disk", picture.run.commit_ms),
        rate,
    ]
    .into_iter()
}

/// The latest of a history, each step a cell, the highest of them full.
fn sparkline(history: &[u64], cells: usize) -> String {
    let shown = &history[history.len().saturating_sub(cells)..];
    let top = shown.iter().copied().max().unwrap_or(0).max(1);
    let level = |count: &u64| LEVELS[((count * 7).div_ceil(top)) as usize];
    shown.iter().map(level).collect()
}

/// The DAG, with what flows beside each node.
fn flow(picture: &RunPicture, width: usize) -> impl Iterator<Item = Line> {
    let rows = drawing::rails(&picture.graph);
    let nodes = &picture.graph.nodes;
    let rails = rows.iter().map(|row| row.rails.chars().count()).max();
    let ids = nodes.iter().map(|node| node.id.chars().count()).max();
    let (rails, ids) = (rails.unwrap_or(0), ids.unwrap_or(0));
    let numbers = rails + ids + 6;
    let bar_at = numbers + 2 * COUNT_CELLS;
    let bar = width.saturating_sub(bar_at + 20).min(BAR_CELLS_MAX);
    let rates = picture.flows.iter().map(|flow| flow.per_second);
    let top = rates.fold(1.0, f64::max);
    let line = |row: &drawing::RailRow| {
        let mut line = one(Style::Plain, "  ");
        let Some((node, flow)) = row
            .node
            .and_then(|at| Some((&nodes[at], picture.flows.get(at)?)))
        else {
            line.add(Style::Faint, &row.rails);
            return line;
        };
        let at_work = flow.per_second > 0.0 || flow.running > 0;
        let style = if at_work { Style::Good } else { Style::Faint };
        for cell in row.rails.chars() {
            let is_node = "◉●◆■○".contains(cell);
            line.add(if is_node { style } else { Style::Faint }, cell.to_string());
        }
        line.to(rails + 4).add(Style::Plain, &node.id).to(numbers);
        line.add(
            Style::Plain,
            format!("{:>9}/s", per_second(flow.per_second)),
        );
        line.add(Style::Faint, format!("{:>11}", grouped(flow.total)));
        if bar >= BAR_CELLS_MIN {
            let cells = (flow.per_second / top * bar as f64).ceil() as usize;
            line.to(bar_at + 2).add(style, "━".repeat(cells));
            line.to(bar_at + 2 + bar);
        }
        if flow.failed > 0 {
            let tries = if flow.failed == 1 { "try" } else { "tries" };
            let text = format!("  {} failed {tries}", grouped(flow.failed));
            line.add(Style::Warning, text);
        } else if flow.running > 0 && flow.per_second < 1.0 {
            line.add(Style::Faint, format!("  {} at work", grouped(flow.running)));
        }
        line
    };
    rows.iter().map(line).collect::<Vec<_>>().into_iter()
}

/// Thousands apart, as people read them.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A rate; a slow one with a decimal.
fn per_second(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 {
        format!("{rate:.1}")
    } else {
        grouped(rate.round() as u64)
    }
}

/// In seven cells and a unit; a dash before anything was measured.
fn milliseconds(ms: Option<f64>) -> String {
    match ms {
        None => format!("{:>7}   ", "-"),
        Some(ms) if ms < 9.95 => format!("{ms:>7.1} ms"),
        Some(ms) if ms < 9_999.5 => format!("{ms:>7.0} ms"),
        Some(ms) => format!("{:>7.1} s ", ms / 1_000.0),
    }
}

fn lasted(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests;
