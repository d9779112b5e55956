//! Where the events of a run are in its graph at the moment, for faces that draw it. Counted when somebody
//! asks: nothing is kept for it.

use std::collections::BTreeMap;

use crate::bits;
use crate::command::RunIx;
use crate::dag::{Node, PlanNode};
use crate::machine::Machine;
use crate::wave::{Row, Wave};

/// What is in a run's waves, by version, for those that anything is under way with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Number of the version in the run.
    pub version: u16,
    /// Members that wait for a slot or for their turn, run, or are held (a retry, a sensor), by task.
    pub tasks: BTreeMap<u16, [u64; 3]>,
    /// Members that have passed the first node and not yet begun at the second, a task.
    pub edges: BTreeMap<(Node, u16), u64>,
}

impl Machine {
    /// Counts what is in the waves of a run.
    #[must_use]
    pub fn census(&self, run: RunIx) -> Vec<Census> {
        let mut found: BTreeMap<u16, Census> = BTreeMap::new();
        for wave in self.waves.iter().flatten().filter(|wave| wave.run == run) {
            let census = found.entry(wave.version).or_insert_with(|| Census {
                version: wave.version,
                ..Census::default()
            });
            census.add(wave);
        }
        found.into_values().collect()
    }
}

impl Census {
    fn add(&mut self, wave: &Wave) {
        let here = bits::without(&wave.everyone(), &wave.left);
        let steps = &wave.plan().steps;
        for (node, step) in (0..).zip(steps) {
            let PlanNode::Task(task) = step.node else {
                continue;
            };
            let count = |row| u64::from(bits::count(&bits::both(wave.row(node, row), &here)));
            let counts = [
                count(Row::Ready) + count(Row::Waits),
                count(Row::Run),
                count(Row::Hold),
            ];
            let of_task = self.tasks.entry(task).or_default();
            for (sum, more) in of_task.iter_mut().zip(counts) {
                *sum += more;
            }
            let mut open = here.clone();
            for row in [Row::Done, Row::Run, Row::Hold] {
                open = bits::without(&open, wave.row(node, row));
            }
            for up in &wave.dag.spec.tasks[usize::from(task)].upstream {
                let above = (0..).zip(steps).find(|(_, step)| is(step.node, *up));
                if let Some((above, _)) = above {
                    let queued = bits::both(&open, wave.row(above, Row::Done));
                    *self.edges.entry((*up, task)).or_default() += u64::from(bits::count(&queued));
                }
            }
        }
    }
}

fn is(step: PlanNode, node: Node) -> bool {
    match (step, node) {
        (PlanNode::Task(a), Node::Task(b)) | (PlanNode::Source(a), Node::Source(b)) => a == b,
        _ => false,
    }
}
