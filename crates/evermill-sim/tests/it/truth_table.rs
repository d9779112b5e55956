use std::collections::BTreeSet;

use evermill_core::dag::{DagSpec, JoinSpec, Node, Order, SourceSpec, TaskSpec};
use evermill_core::rule::TriggerRule;
use evermill_sim::graph::Graph;
use evermill_sim::oracle::{Final, Finals, Judged, State, evaluate};

const RULES: [&str; 11] = [
    "all_success",
    "all_failed",
    "all_done",
    "all_skipped",
    "one_success",
    "one_failed",
    "one_done",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "all_done_min_one_success",
];

/// `s`, `f`, `k` end by themselves, `u` is upstream_failed below `f2`; `t` is judged over them.
fn verdict(flags: &str, rule: &str) -> &'static str {
    let task = |id: &str, up: Vec<Node>| TaskSpec::new(id, up);
    let mut tasks: Vec<TaskSpec> = ["s", "f", "k", "f2"]
        .map(|id| task(id, vec![Node::Source(0)]))
        .into();
    tasks.push(task("u", vec![Node::Task(3)]));
    let ups = [('S', 0), ('F', 1), ('U', 4), ('K', 2)];
    let chosen = ups.iter().filter(|(flag, _)| flags.contains(*flag));
    let mut judged = task("t", chosen.map(|(_, up)| Node::Task(*up)).collect());
    judged.rule = TriggerRule::parse(rule).unwrap();
    tasks.push(judged);
    let spec = DagSpec {
        id: "table".into(),
        version: "v".into(),
        order: Order::None,
        sources: vec![SourceSpec::new("source")],
        tasks,
        join: JoinSpec::default(),
        deadline_ms: None,
        max_active_runs: None,
        full_history: false,
    };
    let end = |state| Final {
        state,
        tries: 1,
        round: 0,
        result: None,
        chosen: None,
        proceed: None,
        map_length: None,
    };
    let states = [State::Success, State::Failed, State::Skipped, State::Failed];
    let finals: Finals = states
        .into_iter()
        .enumerate()
        .map(|(t, s)| ((t as u16, -1), end(s)))
        .collect();
    let fired = BTreeSet::from([0]);
    match &evaluate(&spec, &Graph::of(&spec), &fired, &BTreeSet::new(), &finals)[5] {
        Judged::Runs(_) => "run",
        Judged::Is(State::Skipped) => "skip",
        Judged::Is(State::UpstreamFailed) => "UF",
        other => panic!("{flags} {rule}: {other:?}"),
    }
}

#[test]
fn the_oracle_says_what_the_published_truth_table_says() {
    let spec = include_str!("../../../../docs/spec/trigger-rules.md");
    let mut rows = 0;
    for line in spec.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let flags = cells.get(1).copied().unwrap_or_default().trim_matches('`');
        let is_row = cells.len() == RULES.len() + 3 && flags.chars().count() == 4;
        if !is_row || !flags.chars().all(|c| "SFUK·".contains(c)) {
            continue;
        }
        rows += 1;
        for (rule, expected) in RULES.iter().zip(&cells[2..]) {
            assert_eq!(verdict(flags, rule), *expected, "{flags} under {rule}");
        }
        assert_eq!(verdict(flags, "always"), "run");
    }
    assert_eq!(rows, 15, "every combination of flags but none");
}
