//! From views to a picture: what changed between them makes rates and their history.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use evermill_engine::view::{EngineView, RunView};

use super::{Flow, RunPicture};
use crate::drawing::{Graph, Shape};

/// Rates are means over this long: steady enough to be read, quick enough to follow a burst.
const RATE_OVER: Duration = Duration::from_secs(3);
/// One step of a history.
pub(super) const STEP: Duration = Duration::from_millis(500);
/// Steps that are remembered, more than a terminal has columns.
const STEPS_MAX: usize = 400;
/// Looks that are remembered for rates; older ones are left out when somebody looks more often.
const LOOKS_MAX: usize = 64;

/// Remembers what the last views said.
#[derive(Debug)]
pub struct Watch {
    graphs: BTreeMap<String, Graph>,
    runs: BTreeMap<String, Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// When, and the counts of then: events settled, then each node of the graph.
    looks: VecDeque<(Duration, Vec<u64>)>,
    /// Positions of sources at the first look: what came before is not our flow.
    first: Vec<u64>,
    /// Events settled within each step.
    steps: VecDeque<u64>,
    step: u64,
    settled: u64,
}

impl Watch {
    /// `graphs` by DAG id; a run whose DAG has none is shown without a drawing. Every node of a
    /// graph stands for the source or task of its id.
    #[must_use]
    pub fn new(graphs: BTreeMap<String, Graph>) -> Self {
        Self {
            graphs,
            runs: BTreeMap::new(),
        }
    }

    /// Shows runs of a DAG with this drawing from now on.
    pub fn draw(&mut self, dag: &str, graph: Graph) {
        self.graphs.insert(dag.to_owned(), graph);
    }

    /// What a view looks like, given those before it. `now` is any clock that only goes forward.
    pub fn look(&mut self, now: Duration, view: &EngineView) -> Vec<RunPicture> {
        let known = |id: &String| view.runs.iter().any(|run| run.run == *id);
        self.runs.retain(|id, _| known(id));
        let pictures = view.runs.iter().map(|run| {
            let graph = self.graphs.get(&run.dag).cloned().unwrap_or_default();
            let memory = self.runs.entry(run.run.clone()).or_default();
            memory.picture(now, run, graph)
        });
        pictures.collect()
    }
}

impl Memory {
    fn picture(&mut self, now: Duration, run: &RunView, graph: Graph) -> RunPicture {
        let settled = run.done + run.skipped + run.parked + run.dropped;
        let totals = self.totals(run, &graph);
        self.step_to(now, settled);
        let mut counts = vec![settled];
        counts.extend(&totals);
        let rates = self.rates(now, counts);
        let flows = totals.iter().zip(&rates[1..]).zip(&graph.nodes);
        let flow = |((total, rate), node): ((&u64, &f64), &crate::drawing::Node)| {
            let task = run.tasks.iter().find(|task| task.id == node.id);
            Flow {
                total: *total,
                per_second: *rate,
                failed: task.map_or(0, |task| task.failed),
                running: task.map_or(0, |task| task.running),
            }
        };
        let behind = run.sources.iter().flat_map(|source| &source.lanes);
        RunPicture {
            flows: flows.map(flow).collect(),
            per_second: rates[0],
            history: self.steps.iter().copied().collect(),
            behind: behind.filter_map(|lane| lane.behind).reduce(|a, b| a + b),
            run: run.clone(),
            graph,
        }
    }

    /// What went through each node.
    fn totals(&mut self, run: &RunView, graph: &Graph) -> Vec<u64> {
        let positions = run.sources.iter().map(|source| {
            let lanes = source.lanes.iter();
            lanes.filter_map(|lane| lane.position).sum()
        });
        let positions: Vec<u64> = positions.collect();
        self.first.resize(positions.len(), 0);
        if self.looks.is_empty() {
            self.first.clone_from(&positions);
        }
        let total = |node: &crate::drawing::Node| {
            if node.shape != Shape::Source {
                let task = run.tasks.iter().find(|task| task.id == node.id);
                return task.map_or(0, |task| task.succeeded + task.skipped);
            }
            if run.sources.len() == 1 {
                return run.taken_in;
            }
            let at = run.sources.iter().position(|source| source.id == node.id);
            at.map_or(0, |at| positions[at].saturating_sub(self.first[at]))
        };
        graph.nodes.iter().map(total).collect()
    }

    /// Closes the steps that have passed; the one under way is not shown, since it would grow.
    fn step_to(&mut self, now: Duration, settled: u64) {
        let step = (now.as_millis() / STEP.as_millis()) as u64;
        if self.looks.is_empty() {
            (self.step, self.settled) = (step, settled);
        }
        if step > self.step {
            self.steps.push_back(settled.saturating_sub(self.settled));
            let silent = (step - self.step - 1).min(STEPS_MAX as u64);
            self.steps.extend((0..silent).map(|_| 0));
            (self.step, self.settled) = (step, settled);
        }
        let over = self.steps.len().saturating_sub(STEPS_MAX);
        self.steps.drain(..over);
    }

    /// Of each count, how much it grew per second of late.
    fn rates(&mut self, now: Duration, counts: Vec<u64>) -> Vec<f64> {
        while self.looks.len() > 1 && self.looks[1].0 + RATE_OVER <= now {
            self.looks.pop_front();
        }
        let rates = match self.looks.front() {
            Some((then, before)) if *then < now && before.len() == counts.len() => {
                let seconds = (now - *then).as_secs_f64();
                let pairs = counts.iter().zip(before);
                pairs
                    .map(|(count, before)| count.saturating_sub(*before) as f64 / seconds)
                    .collect()
            }
            _ => vec![0.0; counts.len()],
        };
        if self.looks.len() < LOOKS_MAX {
            self.looks.push_back((now, counts));
        }
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::a_view;
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn rates_are_means_over_the_last_seconds() {
        let (graph, view) = a_view();
        let mut watch = Watch::new([("orders".to_owned(), graph)].into());
        let mut seen = Vec::new();
        for (ms, done) in [(0, 0), (1_000, 10), (2_000, 20), (3_000, 80), (6_000, 80)] {
            let mut view = view.clone();
            view.runs[0].done = done;
            seen.push(watch.look(at(ms), &view).remove(0));
        }
        let rates: Vec<f64> = seen.iter().map(|run| run.per_second).collect();
        assert_eq!(rates, [0.0, 10.0, 10.0, 80.0 / 3.0, 0.0]);
        assert_eq!(
            seen[4].history,
            [10, 0, 10, 0, 60, 0, 0, 0, 0, 0, 0, 0].to_vec()
        );
    }

    #[test]
    fn a_run_that_is_gone_is_forgotten() {
        let (graph, view) = a_view();
        let mut watch = Watch::new([("orders".to_owned(), graph)].into());
        watch.look(at(0), &view);
        assert!(watch.look(at(1), &EngineView::default()).is_empty());
        assert!(watch.runs.is_empty());
    }

    #[test]
    fn memory_is_bounded_however_long_and_often_one_looks() {
        let (graph, view) = a_view();
        let mut watch = Watch::new([("orders".to_owned(), graph)].into());
        for ms in (0..300_000).step_by(20) {
            watch.look(at(ms), &view);
        }
        let memory = watch.runs.values().next().unwrap();
        assert!(memory.looks.len() <= LOOKS_MAX && memory.steps.len() <= STEPS_MAX);
    }
}
