//! What is on the screen, at two widths and when it is low.

use std::sync::Arc;

use evermill_engine::view::{EngineView, LaneView, SourceView, TaskView};

use super::*;
use crate::drawing::{Edge, Node, Shape};

/// A shop's orders: read, charged with a second try now and then, and one of two ways to go.
pub(super) fn a_view() -> (Graph, EngineView) {
    let nodes = [
        ("orders", Shape::Source),
        ("price", Shape::Task),
        ("charge", Shape::Task),
        ("choose", Shape::Choice),
        ("courier", Shape::Task),
        ("post", Shape::Task),
    ];
    let edges = [(0, 1), (1, 2), (2, 3), (3, 4), (3, 5)];
    let node = |(id, shape): (&str, Shape)| Node {
        id: id.to_owned(),
        shape,
        details: Vec::new(),
    };
    let edge = |(from, to)| Edge {
        from,
        to,
        carries: true,
    };
    let graph = Graph {
        nodes: nodes.map(node).into(),
        edges: edges.map(edge).into(),
        ..Graph::default()
    };
    let task = |(id, succeeded, failed): (&str, u64, u64)| TaskView {
        id: id.to_owned(),
        succeeded,
        failed,
        ..TaskView::default()
    };
    let tasks = [
        ("price", 1_234, 0),
        ("charge", 1_230, 12),
        ("choose", 1_230, 0),
        ("courier", 101, 0),
        ("post", 1_129, 0),
    ];
    let lane = |behind| LaneView {
        behind: Some(behind),
        ..LaneView::default()
    };
    let run = RunView {
        dag: "orders".into(),
        run: "orders-1".into(),
        version: "0".repeat(64),
        state: "running",
        taken_in: 1_234,
        done: 1_230,
        skipped: 0,
        parked: 0,
        dropped: 0,
        in_flight: 4,
        latency_ms: Percentiles {
            p50: Some(1.93),
            p99: Some(12.4),
        },
        commit_ms: Percentiles {
            p50: Some(9.2),
            p99: None,
        },
        deadlines_missed: 0,
        awaiting: 0,
        waiting: 0,
        longest: None,
        tasks: tasks.map(task).into(),
        replays: Vec::new(),
        sources: vec![SourceView {
            id: "orders".into(),
            lanes: vec![lane(2), lane(0)],
            ..SourceView::default()
        }],
    };
    let view = EngineView {
        runs: vec![run],
        ..EngineView::default()
    };
    (graph, view)
}

fn a_snapshot() -> Snapshot {
    let (graph, view) = a_view();
    let mut watch = Watch::new([("orders".to_owned(), graph)].into());
    let mut earlier = view.clone();
    let run = &mut earlier.runs[0];
    (run.taken_in, run.done) = (1_134, 1_132);
    for (task, count) in Arc::make_mut(&mut run.tasks)
        .iter_mut()
        .zip([100, 99, 98, 9, 90])
    {
        task.succeeded -= count;
    }
    watch.look(Duration::ZERO, &earlier);
    let mut runs = watch.look(Duration::from_secs(2), &view);
    runs[0].history = (0..200).map(|step| [10, 14, 50, 80][step % 4]).collect();
    Snapshot {
        runs,
        wrong: Vec::new(),
        said: vec!["courier orders/1@77: on its way to Ada".into()],
        age: Duration::from_secs(75),
        hint: "Ctrl-C ends it".into(),
    }
}

fn shown(snapshot: &Snapshot, width: usize, height: usize) -> String {
    let lines = lines(snapshot, width, height);
    assert!(lines.len() <= height, "{} lines", lines.len());
    assert!(lines.iter().all(|line| line.width() <= width));
    let text = lines.iter().map(|line| line.text() + "\n");
    text.collect()
}

const AT_80: &str = "\
orders  running  1 min 15 s

  events in   done        parked      in flight   behind
  1,234       1,230       0           4           2

  arrival to task     1.9 ms p50        12 ms p99
  arrival to disk     9.2 ms p50         -    p99
  events a second      49  ▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█

  ◉     orders          50/s      1,234    ━━━━━━━━━━━━━━━━━━━
  │
  ●     price           50/s      1,234    ━━━━━━━━━━━━━━━━━━━
  │
  ●     charge          50/s      1,230    ━━━━━━━━━━━━━━━━━━━  12 failed tries
  │
  ◆     choose          49/s      1,230    ━━━━━━━━━━━━━━━━━━━
  ├─▶●  courier        4.5/s        101    ━━
  ╰─▶●  post            45/s      1,129    ━━━━━━━━━━━━━━━━━━

  courier orders/1@77: on its way to Ada

Ctrl-C ends it
";

const AT_120: &str = "\
orders  running  1 min 15 s

  events in   done        parked      in flight   behind
  1,234       1,230       0           4           2

  arrival to task     1.9 ms p50        12 ms p99
  arrival to disk     9.2 ms p50         -    p99
  events a second      49  ▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█▂▃▆█

  ◉     orders          50/s      1,234    ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
  │
  ●     price           50/s      1,234    ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
  │
  ●     charge          50/s      1,230    ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  12 failed tries
  │
  ◆     choose          49/s      1,230    ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
  ├─▶●  courier        4.5/s        101    ━━━
  ╰─▶●  post            45/s      1,129    ━━━━━━━━━━━━━━━━━━━━━━━━━━━

  courier orders/1@77: on its way to Ada

Ctrl-C ends it
";

#[test]
fn the_picture_at_80_and_at_120_columns() {
    for (width, expected) in [(80, AT_80), (120, AT_120)] {
        let found = shown(&a_snapshot(), width, 40);
        assert_eq!(found, expected, "at {width}:\n{found}");
    }
}

#[test]
fn a_low_screen_keeps_the_counts_and_what_is_wrong() {
    let snapshot = Snapshot {
        wrong: vec!["orders: the broker is away".into()],
        ..a_snapshot()
    };
    for height in 0..=40 {
        let text = shown(&snapshot, 80, height);
        assert!(height < 3 || text.contains("1,234"), "{text}");
        assert!(
            height < 4 || text.contains("! orders: the broker"),
            "{text}"
        );
        assert!(height < 16 || text.contains("courier"), "{text}");
    }
}

#[test]
fn a_narrow_screen_cuts_lines_and_breaks_none() {
    for width in 0..=80 {
        shown(&a_snapshot(), width, 40);
    }
}

#[test]
fn numbers_are_as_people_write_them() {
    let counts = [0, 999, 1_000, 1_234_567];
    assert_eq!(counts.map(grouped), ["0", "999", "1,000", "1,234,567"]);
    let rates = [0.0, 0.04, 9.94, 9.96, 1_499.6];
    assert_eq!(rates.map(per_second), ["0", "0.0", "9.9", "10", "1,500"]);
    let ages = [9, 75, 3_725].map(|s| lasted(Duration::from_secs(s)));
    assert_eq!(ages, ["9 s", "1 min 15 s", "1 h 2 min"]);
    let latencies = [None, Some(0.04), Some(123.4), Some(12_345.0)].map(milliseconds);
    let latencies = latencies.map(|text| text.trim().to_owned());
    assert_eq!(latencies, ["-", "0.0 ms", "123 ms", "12.3 s"]);
}

#[test]
fn a_sparkline_is_full_at_its_highest_step_and_low_at_none() {
    assert_eq!(sparkline(&[0, 1, 50, 100], 10), "▁▂▅█");
    assert_eq!(sparkline(&[9, 0, 0], 2), "▁▁");
    assert_eq!(sparkline(&[], 10), "");
}
