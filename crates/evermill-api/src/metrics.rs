//! `/metrics`: what the engine's view says, in the text format of Prometheus.
//!
//! Labels are DAGs, sources, tasks and pools, never keys, lanes or run ids, so that there are as many series as
//! somebody has declared things. Past [`limits::TASK_SERIES_MAX`] series those of tasks are left out, and
//! `evermill_tasks_left_out` says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use evermill_engine::Operations;
use evermill_engine::view::{EngineView, PoolView, RunView, STATES};

use crate::access::Who;
use crate::limits;
use crate::problem::Problem;

/// What a metric is, for those who store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Points of a distribution.
    Summary,
}

impl Kind {
    /// Its word in the text format.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    of: Of,
}

#[derive(Debug, Clone, Copy)]
enum Of {
    Engine(fn(&EngineView) -> f64),
    Run(fn(&RunView) -> f64),
    State,
    Latency(fn(&RunView) -> evermill_engine::view::Percentiles),
    Source(fn(&evermill_engine::view::SourceView) -> Option<f64>),
    Attempts,
    TaskRunning,
    Pool(fn(&PoolView) -> Option<f64>),
    LeftOut,
    Process(fn(&Process) -> Option<f64>),
}

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    of: Of,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        help,
        of,
    }
}

const DAG: &[&str] = &["dag"];
const SOURCE: &[&str] = &["dag", "source"];
const POOL: &[&str] = &["pool"];

/// A count, as far as a float holds it: exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "the format knows floats only")]
const fn float(count: u64) -> f64 {
    count as f64
}

/// Every metric, in the order in which they are told.
pub const METRICS: &[Metric] = &[
    metric(
        "evermill_run_state",
        Kind::Gauge,
        &["dag", "state"],
        "1 for the state that the latest run of the DAG is in, 0 for the others.",
        Of::State,
    ),
    metric(
        "evermill_events_ingested_total",
        Kind::Counter,
        DAG,
        "Events taken in by the latest run of the DAG.",
        Of::Run(|run| float(run.taken_in)),
    ),
    metric(
        "evermill_events_done_total",
        Kind::Counter,
        DAG,
        "Events that settled well.",
        Of::Run(|run| float(run.done)),
    ),
    metric(
        "evermill_events_skipped_total",
        Kind::Counter,
        DAG,
        "Events that settled with every leaf skipped.",
        Of::Run(|run| float(run.skipped)),
    ),
    metric(
        "evermill_events_dropped_total",
        Kind::Counter,
        DAG,
        "Events that were given up.",
        Of::Run(|run| float(run.dropped)),
    ),
    metric(
        "evermill_events_parked",
        Kind::Gauge,
        DAG,
        "Events kept after failure, at the moment.",
        Of::Run(|run| float(run.parked)),
    ),
    metric(
        "evermill_events_in_flight",
        Kind::Gauge,
        DAG,
        "Events neither settled nor parked.",
        Of::Run(|run| float(run.in_flight)),
    ),
    metric(
        "evermill_deadlines_missed_total",
        Kind::Counter,
        DAG,
        "Activations that missed a deadline.",
        Of::Run(|run| float(run.deadlines_missed)),
    ),
    metric(
        "evermill_event_latency_seconds",
        Kind::Summary,
        &["dag", "quantile"],
        "From an event's arrival to the callable of its first task.",
        Of::Latency(|run| run.latency_ms),
    ),
    metric(
        "evermill_event_commit_seconds",
        Kind::Summary,
        &["dag", "quantile"],
        "From an event's arrival to the commit of its end.",
        Of::Latency(|run| run.commit_ms),
    ),
    metric(
        "evermill_source_lag_events",
        Kind::Gauge,
        SOURCE,
        "Positions still to be read over all lanes of the source, where it can tell.",
        Of::Source(|source| {
            let lanes = source.lanes.iter();
            let behind: Vec<u64> = lanes.filter_map(|lane| lane.behind).collect();
            (!behind.is_empty()).then(|| float(behind.iter().sum()))
        }),
    ),
    metric(
        "evermill_source_lanes",
        Kind::Gauge,
        SOURCE,
        "Lanes of the source, such as partitions.",
        Of::Source(|source| Some(float(source.lanes.len() as u64))),
    ),
    metric(
        "evermill_source_lanes_stopped",
        Kind::Gauge,
        SOURCE,
        "Lanes that stand still: positions of them can no longer be read.",
        Of::Source(|source| {
            let stopped = source.lanes.iter().filter(|lane| lane.stopped.is_some());
            Some(float(stopped.count() as u64))
        }),
    ),
    metric(
        "evermill_source_ready",
        Kind::Gauge,
        SOURCE,
        "1 once every lane has a committed position and was read to its end.",
        Of::Source(|source| Some(float(source.ready.into()))),
    ),
    metric(
        "evermill_source_degraded",
        Kind::Gauge,
        SOURCE,
        "1 while something is wrong with the outside world of the source.",
        Of::Source(|source| Some(float(source.degraded.is_some().into()))),
    ),
    metric(
        "evermill_source_ended",
        Kind::Gauge,
        SOURCE,
        "1 once the source delivers nothing any more.",
        Of::Source(|source| Some(float(source.ended.is_some().into()))),
    ),
    metric(
        "evermill_source_stale",
        Kind::Gauge,
        SOURCE,
        "1 while the source has made no progress for longer than `freshness=` allows.",
        Of::Source(|source| Some(float(source.stale.into()))),
    ),
    metric(
        "evermill_source_freshness_missed_total",
        Kind::Counter,
        SOURCE,
        "Times it was stale.",
        Of::Source(|source| Some(float(source.freshness_missed))),
    ),
    metric(
        "evermill_source_progress_timestamp_seconds",
        Kind::Gauge,
        SOURCE,
        "When a position of the source last moved, Unix time.",
        Of::Source(|source| source.progress_ms.map(|ms| float(ms) / 1e3)),
    ),
    metric(
        "evermill_task_attempts_total",
        Kind::Counter,
        &["dag", "task", "outcome"],
        "Attempts that ended, by how they did.",
        Of::Attempts,
    ),
    metric(
        "evermill_task_running",
        Kind::Gauge,
        &["dag", "task"],
        "Members of the task that are with workers.",
        Of::TaskRunning,
    ),
    metric(
        "evermill_tasks_left_out",
        Kind::Gauge,
        &[],
        "Tasks that have no series because there would be too many.",
        Of::LeftOut,
    ),
    metric(
        "evermill_pool_slots",
        Kind::Gauge,
        POOL,
        "Executions the pool allows at a time.",
        Of::Pool(|pool| Some(f64::from(pool.slots))),
    ),
    metric(
        "evermill_pool_used",
        Kind::Gauge,
        POOL,
        "Executions there are.",
        Of::Pool(|pool| pool.used.map(f64::from)),
    ),
    metric(
        "evermill_pool_waiting",
        Kind::Gauge,
        POOL,
        "Members of its tasks that could start but for a slot or a worker.",
        Of::Pool(|pool| pool.waiting.map(float)),
    ),
    metric(
        "evermill_workers_slots",
        Kind::Gauge,
        &[],
        "Slots for workers.",
        Of::Engine(|view| f64::from(view.workers.slots)),
    ),
    metric(
        "evermill_workers_ready",
        Kind::Gauge,
        &[],
        "Slots with a live worker.",
        Of::Engine(|view| f64::from(view.workers.ready)),
    ),
    metric(
        "evermill_workers_dispatches",
        Kind::Gauge,
        &[],
        "Dispatches that are out.",
        Of::Engine(|view| f64::from(view.workers.dispatches)),
    ),
    metric(
        "evermill_workers_unavailable",
        Kind::Gauge,
        &[],
        "1 while no worker can be had.",
        Of::Engine(|view| float(view.workers.unavailable.is_some().into())),
    ),
    metric(
        "evermill_stalled",
        Kind::Gauge,
        &[],
        "1 while nothing can be committed, such as on a full disk.",
        Of::Engine(|view| float(view.stalled.is_some().into())),
    ),
    metric(
        "evermill_reloads_total",
        Kind::Counter,
        &[],
        "Times the state was dropped and loaded again after a commit that failed.",
        Of::Engine(|view| f64::from(view.reloads)),
    ),
    metric(
        "evermill_reports_refused_total",
        Kind::Counter,
        &[],
        "Reports of attempts under an old fence.",
        Of::Engine(|view| float(view.refused_reports)),
    ),
    metric(
        "evermill_log_lines_lost_total",
        Kind::Counter,
        &[],
        "Lines of task output that are lost: they came faster than they are written, or the disk was full.",
        Of::Engine(|view| float(view.log_lines_lost)),
    ),
    metric(
        "evermill_traces_left_out_total",
        Kind::Counter,
        &[],
        "Settled activations of which no trace was told, as there were more than are told in a second.",
        Of::Engine(|view| float(view.traces_left_out)),
    ),
    metric(
        "evermill_traces_lost_total",
        Kind::Counter,
        &[],
        "Settled activations of which no trace reached the collector: it was slow or away, or refused them.",
        Of::Engine(|view| float(view.traces_lost)),
    ),
    metric(
        "process_cpu_seconds_total",
        Kind::Counter,
        &[],
        "CPU time of the engine's own process, without its workers.",
        Of::Process(|process| process.cpu_seconds),
    ),
    metric(
        "process_resident_memory_bytes",
        Kind::Gauge,
        &[],
        "Resident memory of the engine's own process.",
        Of::Process(|process| process.resident_bytes),
    ),
    metric(
        "process_open_fds",
        Kind::Gauge,
        &[],
        "Open file descriptors of the engine's own process.",
        Of::Process(|process| process.open_fds),
    ),
];

/// The media type of the text format.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is there for whoever asks.
pub(crate) fn text(engine: &dyn Operations, who: &Who) -> Result<Vec<u8>, Problem> {
    let view = engine.overview()?;
    // Pools belong to all DAGs.
    let pools = match who.dags {
        None => engine.pools()?,
        Some(_) => Vec::new(),
    };
    let mut runs: BTreeMap<&str, &RunView> = BTreeMap::new();
    for run in view.runs.iter().filter(|run| who.may_see(&run.dag)) {
        // The latest comes last.
        runs.insert(&run.dag, run);
    }
    let runs: Vec<&RunView> = runs.into_values().collect();
    Ok(written(&view, &runs, &pools, &Process::now()).into_bytes())
}

fn written(view: &EngineView, runs: &[&RunView], pools: &[PoolView], process: &Process) -> String {
    let tasks: usize = runs.iter().map(|run| run.tasks.len()).sum();
    let fits = tasks * SERIES_OF_A_TASK <= limits::TASK_SERIES_MAX;
    let mut out = String::new();
    for metric in METRICS {
        let mut lines = Lines {
            metric,
            out: &mut out,
            begun: false,
        };
        match metric.of {
            Of::Engine(value) => lines.add(&[], value(view)),
            Of::Process(value) => lines.add_some(&[], value(process)),
            Of::LeftOut => lines.add(&[], if fits { 0.0 } else { float(tasks as u64) }),
            Of::Pool(value) => {
                for pool in pools {
                    lines.add_some(&[&pool.name], value(pool));
                }
            }
            _ => {
                for run in runs {
                    of_run(metric, run, fits, &mut lines);
                }
            }
        }
    }
    out
}

/// Attempts by outcome, and what runs.
const SERIES_OF_A_TASK: usize = 4;

fn of_run(metric: &Metric, run: &RunView, with_tasks: bool, lines: &mut Lines<'_>) {
    let dag = run.dag.as_str();
    match metric.of {
        Of::Run(value) => lines.add(&[dag], value(run)),
        Of::State => {
            for state in STATES {
                lines.add(&[dag, state], float((state == run.state).into()));
            }
        }
        Of::Latency(value) => {
            let found = value(run);
            lines.add_some(&[dag, "0.5"], found.p50.map(|ms| ms / 1e3));
            lines.add_some(&[dag, "0.99"], found.p99.map(|ms| ms / 1e3));
        }
        Of::Source(value) => {
            for source in &run.sources {
                lines.add_some(&[dag, &source.id], value(source));
            }
        }
        Of::Attempts if with_tasks => {
            for task in run.tasks.iter() {
                lines.add(&[dag, &task.id, "succeeded"], float(task.succeeded));
                lines.add(&[dag, &task.id, "skipped"], float(task.skipped));
                lines.add(&[dag, &task.id, "failed"], float(task.failed));
            }
        }
        Of::TaskRunning if with_tasks => {
            for task in run.tasks.iter() {
                lines.add(&[dag, &task.id], float(task.running));
            }
        }
        _ => {}
    }
}

/// The lines of one metric; its head comes with the first.
struct Lines<'a> {
    metric: &'a Metric,
    out: &'a mut String,
    begun: bool,
}

impl Lines<'_> {
    fn add_some(&mut self, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.add(labels, value);
        }
    }

    fn add(&mut self, labels: &[&str], value: f64) {
        let Metric { name, help, .. } = self.metric;
        if !self.begun {
            self.begun = true;
            let kind = self.metric.kind.word();
            self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        self.out.push_str(name);
        for (at, (label, value)) in self.metric.labels.iter().zip(labels).enumerate() {
            self.out.push(if at == 0 { '{' } else { ',' });
            self.line(format_args!("{label}=\"{}\"", escaped(value)));
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        self.line(format_args!(" {value}\n"));
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("a String takes everything");
    }
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for letter in value.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out
}

/// The engine's own process, where the system tells.
#[derive(Debug, Default)]
struct Process {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    open_fds: Option<f64>,
}

impl Process {
    fn now() -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
        let stat = read("stat");
        // Behind the name, which may hold anything but ends with the last bracket.
        let fields = stat.as_deref().and_then(|stat| stat.rsplit_once(')'));
        let fields: Vec<f64> = fields
            .map(|(_, rest)| {
                rest.split_whitespace()
                    .map(|field| field.parse().unwrap_or(0.0))
            })
            .map(Iterator::collect)
            .unwrap_or_default();
        let status = read("status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().split(' ').next()?.parse::<f64>().ok());
        let fds = std::fs::read_dir("/proc/self/fd").ok();
        Self {
            // Ticks of a hundredth of a second, the unit of this file for all programs.
            cpu_seconds: fields
                .get(11)
                .zip(fields.get(12))
                .map(|(user, own)| (user + own) / 100.0),
            resident_bytes: kib.map(|kib| kib * 1024.0),
            open_fds: fds.map(|fds| float(fds.count() as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermill_engine::view::{Percentiles, SourceView, TaskView};

    fn run(dag: &str, tasks: usize) -> RunView {
        RunView {
            dag: dag.to_owned(),
            run: format!("{dag}-1"),
            version: String::new(),
            state: "running",
            taken_in: 7,
            done: 5,
            skipped: 0,
            parked: 2,
            dropped: 0,
            in_flight: 0,
            latency_ms: Percentiles {
                p50: Some(1.5),
                p99: None,
            },
            commit_ms: Percentiles::default(),
            deadlines_missed: 0,
            awaiting: 0,
            waiting: 0,
            longest: None,
            tasks: (0..tasks)
                .map(|number| TaskView {
                    id: format!("t{number}"),
                    ..TaskView::default()
                })
                .collect(),
            sources: vec![SourceView {
                id: "a\"b\\\n".to_owned(),
                ..SourceView::default()
            }],
            replays: Vec::new(),
        }
    }

    fn told(runs: &[&RunView]) -> String {
        written(&EngineView::default(), runs, &[], &Process::default())
    }

    #[test]
    fn every_metric_is_told_once_with_what_it_is() {
        let run = run("orders", 1);
        let text = told(&[&run]);
        assert!(text.contains("\nevermill_events_ingested_total{dag=\"orders\"} 7\n"));
        assert!(text.contains("\nevermill_run_state{dag=\"orders\",state=\"running\"} 1\n"));
        assert!(
            text.contains(
                "evermill_event_latency_seconds{dag=\"orders\",quantile=\"0.5\"} 0.0015\n"
            )
        );
        assert!(!text.contains("0.99"), "what nobody measured is not there");
        assert!(
            text.contains("source=\"a\\\"b\\\\\\n\""),
            "labels are escaped: {text}"
        );
        for metric in METRICS {
            let heads = text.matches(&format!("# TYPE {} ", metric.name)).count();
            assert!(heads <= 1, "{}", metric.name);
            let counts = metric.name.ends_with("_total");
            assert_eq!(counts, metric.kind == Kind::Counter, "{}", metric.name);
        }
    }

    #[test]
    fn more_tasks_than_anybody_can_store_are_left_out_and_it_is_said() {
        let run = run("huge", limits::TASK_SERIES_MAX / SERIES_OF_A_TASK + 1);
        let text = told(&[&run]);
        assert!(!text.contains("evermill_task_attempts_total"));
        let count = run.tasks.len();
        assert!(text.contains(&format!("\nevermill_tasks_left_out {count}\n")));
        assert!(text.contains("evermill_events_done_total"));
    }
}
