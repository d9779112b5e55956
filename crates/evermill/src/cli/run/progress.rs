//! The status line of `run`: what somebody who looks now and then wants to know.

use std::fmt::Write as _;

use evermill_engine::view::{EngineView, RunView, SourceView};

use crate::cli::parked::age;

/// One line about the runs of this process; the same text as long as nothing has changed.
pub(in crate::cli) fn line(view: &EngineView) -> String {
    let mut runs: Vec<&RunView> = view.runs.iter().filter(|run| is_at_work(run)).collect();
    if runs.is_empty() {
        runs.extend(&view.runs);
    }
    let mut text = match runs.len() {
        0..=RUNS_SHOWN => runs.into_iter().map(of_run).collect::<Vec<_>>().join(" | "),
        _ => of_many(&runs),
    };
    let troubles = troubles(view);
    let (shown, more) = troubles.split_at(troubles.len().min(TROUBLES_SHOWN));
    shown.iter().for_each(|why| push(&mut text, why));
    if !more.is_empty() {
        push(&mut text, &format!("{} more; `evermill ps`", more.len()));
    }
    text
}

/// Runs and troubles that a line tells one by one.
const RUNS_SHOWN: usize = 8;
const TROUBLES_SHOWN: usize = 8;

/// Their sums.
fn of_many(runs: &[&RunView]) -> String {
    let sum = |of: fn(&RunView) -> u64| runs.iter().map(|run| of(run)).sum::<u64>();
    let running = runs.iter().filter(|run| run.state == "running").count();
    let mut text = format!(
        "{} runs, {running} running: in {}, done {}",
        runs.len(),
        sum(|run| run.taken_in),
        sum(|run| run.done)
    );
    let seldom = [
        ("skipped", sum(|run| run.skipped)),
        ("parked", sum(|run| run.parked)),
        ("dropped", sum(|run| run.dropped)),
    ];
    for (name, count) in seldom.into_iter().filter(|(_, count)| *count > 0) {
        write!(text, ", {name} {count}").expect("a String takes everything");
    }
    let in_flight = sum(|run| run.in_flight);
    write!(text, ", in flight {in_flight}").expect("a String takes everything");
    text
}

/// Not one that an earlier process left in the store, and that nobody has started again.
fn is_at_work(run: &RunView) -> bool {
    let runs = matches!(run.state, "running" | "paused" | "draining");
    let mut tasks = run.tasks.iter();
    let ran = tasks.any(|task| task.succeeded + task.skipped + task.failed + task.running > 0);
    runs || ran || !run.sources.is_empty()
}

/// What is wrong at the moment, a sentence each.
pub(in crate::cli) fn troubles(view: &EngineView) -> Vec<String> {
    let stalled = view.stalled.iter().chain(&view.workers.unavailable);
    let mut troubles: Vec<String> = stalled.cloned().collect();
    for source in view.runs.iter().flat_map(|run| &run.sources) {
        let stopped = source.lanes.iter().filter_map(|lane| lane.stopped.as_ref());
        let of_source = source.degraded.iter().chain(&source.ended).chain(stopped);
        let stale = stale(source);
        let all = of_source.chain(&stale);
        troubles.extend(all.map(|why| format!("{}: {why}", source.id)));
    }
    troubles
}

/// That a source is not as fresh as it says.
pub(in crate::cli) fn stale(source: &SourceView) -> Option<String> {
    source.stale.then(|| {
        let since = source.progress_ms.map_or_else(
            || "nothing of it was settled since the engine started".to_owned(),
            |at_ms| format!("the last of it was settled {}", age(at_ms)),
        );
        format!("not fresh: {since}")
    })
}

/// What is late, or was: a sentence for each run.
pub(in crate::cli) fn late(runs: &[RunView]) -> Vec<String> {
    let of_run = |run: &RunView| {
        let misses = (run.deadlines_missed > 0).then(|| {
            format!(
                "{}: {} missed their deadline",
                run.run, run.deadlines_missed
            )
        });
        let times = |count: u64| {
            if count == 1 {
                "once".to_owned()
            } else {
                format!("{count} times")
            }
        };
        let sources = run
            .sources
            .iter()
            .filter(|source| source.freshness_missed > 0);
        let sources = sources.map(|source| {
            let state = stale(source).unwrap_or_else(|| "fresh again".to_owned());
            let missed = times(source.freshness_missed);
            format!(
                "{}: source {} was not fresh {missed}; {state}",
                run.run, source.id
            )
        });
        misses.into_iter().chain(sources).collect::<Vec<_>>()
    };
    runs.iter().flat_map(of_run).collect()
}

fn push(text: &mut String, why: &str) {
    let gap = if text.is_empty() { "" } else { " ! " };
    write!(text, "{gap}{why}").expect("a String takes everything");
}

fn of_run(run: &RunView) -> String {
    let RunView {
        dag,
        state,
        taken_in,
        done,
        skipped,
        parked,
        dropped,
        in_flight,
        ..
    } = run;
    let mut text = format!("{dag} {state}: in {taken_in}, done {done}");
    let seldom = [
        ("skipped", *skipped),
        ("parked", *parked),
        ("dropped", *dropped),
    ];
    for (name, count) in seldom.into_iter().filter(|(_, count)| *count > 0) {
        write!(text, ", {name} {count}").expect("a String takes everything");
    }
    write!(text, ", in flight {in_flight}").expect("a String takes everything");
    let lanes = run.sources.iter().flat_map(|source| &source.lanes);
    let behind: Vec<u64> = lanes.filter_map(|lane| lane.behind).collect();
    if !behind.is_empty() {
        write!(text, ", behind {}", behind.iter().sum::<u64>()).expect("a String takes everything");
    }
    if run.deadlines_missed > 0 {
        write!(text, ", late {}", run.deadlines_missed).expect("a String takes everything");
    }
    if let (Some(p50), Some(p99)) = (run.latency_ms.p50, run.latency_ms.p99) {
        write!(text, ", {p50:.1} ms p50, {p99:.1} ms p99").expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use evermill_engine::view::{LaneView, Percentiles};

    use super::*;

    fn a_run() -> RunView {
        RunView {
            dag: "orders".into(),
            run: "orders-1".into(),
            version: "0".repeat(64),
            state: "running",
            taken_in: 10,
            done: 7,
            skipped: 0,
            parked: 1,
            dropped: 0,
            in_flight: 2,
            latency_ms: Percentiles {
                p50: Some(1.23),
                p99: Some(4.56),
            },
            commit_ms: Percentiles::default(),
            deadlines_missed: 0,
            awaiting: 0,
            waiting: 0,
            longest: None,
            tasks: std::sync::Arc::default(),
            sources: Vec::new(),
            replays: Vec::new(),
        }
    }

    #[test]
    fn the_line_says_counts_and_latency_and_leaves_out_what_is_nought() {
        let view = EngineView {
            runs: vec![a_run()],
            ..EngineView::default()
        };
        let expected =
            "orders running: in 10, done 7, parked 1, in flight 2, 1.2 ms p50, 4.6 ms p99";
        assert_eq!(line(&view), expected);
    }

    #[test]
    fn of_many_runs_the_line_says_the_sum() {
        let paused = RunView {
            state: "paused",
            ..a_run()
        };
        let view = EngineView {
            runs: std::iter::repeat_n(a_run(), 999).chain([paused]).collect(),
            ..EngineView::default()
        };
        assert_eq!(
            line(&view),
            "1000 runs, 999 running: in 10000, done 7000, parked 1000, in flight 2000"
        );
    }

    #[test]
    fn a_run_that_an_earlier_process_left_is_not_ours_to_report() {
        let left = RunView {
            dag: "left".into(),
            state: "drained",
            ..a_run()
        };
        let view = |runs| EngineView {
            runs,
            ..EngineView::default()
        };
        assert!(!line(&view(vec![left.clone(), a_run()])).contains("left"));
        assert!(line(&view(vec![left])).contains("left drained"));
    }

    #[test]
    fn what_is_late_is_said_of_runs_and_of_sources() {
        let source = |id: &str, stale| SourceView {
            id: id.into(),
            stale,
            freshness_missed: 2,
            ..SourceView::default()
        };
        let run = RunView {
            deadlines_missed: 3,
            sources: vec![source("in", true), source("other", false)],
            ..a_run()
        };
        let never = "not fresh: nothing of it was settled since the engine started";
        assert_eq!(
            late(std::slice::from_ref(&run)),
            [
                "orders-1: 3 missed their deadline".to_owned(),
                format!("orders-1: source in was not fresh 2 times; {never}"),
                "orders-1: source other was not fresh 2 times; fresh again".to_owned(),
            ]
        );
        let view = EngineView {
            runs: vec![run],
            ..EngineView::default()
        };
        let line = line(&view);
        assert!(
            line.contains("late 3") && line.ends_with(&format!("! in: {never}")),
            "{line}"
        );
    }

    #[test]
    fn what_is_wrong_outside_is_said_with_its_source() {
        let lane = LaneView {
            behind: Some(5),
            stopped: Some("a gap".into()),
            ..LaneView::default()
        };
        let degraded = Some("broker away".into());
        let source = SourceView {
            id: "in".into(),
            degraded,
            lanes: vec![lane],
            ..SourceView::default()
        };
        let view = EngineView {
            runs: vec![RunView {
                sources: vec![source],
                ..a_run()
            }],
            ..EngineView::default()
        };
        let line = line(&view);
        assert!(
            line.contains("behind 5") && line.contains("! in: broker away ! in: a gap"),
            "{line}"
        );
    }
}
