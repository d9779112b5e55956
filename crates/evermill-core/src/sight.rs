//! Which sources' events an attempt may see (C3, W6).
//!
//! Several sources can feed one activation, at different times. An attempt sees the events of those
//! sources that must have fired before it could start, whatever the timing: no more, or what it sees
//! would depend on who was faster.

use std::collections::BTreeSet;

use crate::dag::{DagSpec, PlanNode, Step, TaskKind};
use crate::rule::TriggerRule;

type Sources = BTreeSet<u16>;

/// Per step of a plan, the sources (as places in the plan, ascending) that have fired by the time
/// it runs.
pub(crate) fn fired_before(spec: &DagSpec, steps: &[Step]) -> Vec<Vec<u16>> {
    let (mut at_run, mut at_end): (Vec<Sources>, Vec<Sources>) = (Vec::new(), Vec::new());
    for (place, step) in steps.iter().enumerate() {
        let PlanNode::Task(task) = step.node else {
            let itself = Sources::from([place as u16]);
            at_run.push(itself.clone());
            at_end.push(itself);
            continue;
        };
        let rule = spec.tasks[usize::from(task)].rule;
        let guards = all(&step.guards, &at_end);
        let run = match rule {
            TriggerRule::Always => Sources::new(),
            TriggerRule::AllSuccess => all(&step.up, &at_run),
            TriggerRule::OneSuccess | TriggerRule::OneFailed | TriggerRule::OneDone => {
                common(&step.up, &at_end)
            }
            _ => all(&step.up, &at_end),
        };
        let end = if rule == TriggerRule::Always {
            Sources::new()
        } else if waits_for_all(rule, step) && !is_forcible(spec, steps, step) {
            all(&step.up, &at_end)
        } else {
            common(&step.up, &at_end)
        };
        at_run.push(&run | &guards);
        at_end.push(&end | &guards);
    }
    at_run
        .into_iter()
        .map(|sources| sources.into_iter().collect())
        .collect()
}

/// No verdict of any kind is given before every upstream is final.
fn waits_for_all(rule: TriggerRule, step: &Step) -> bool {
    step.up.len() < 2
        || matches!(
            rule,
            TriggerRule::AllDone | TriggerRule::AllDoneSetupSuccess
        )
}

/// A branch or short circuit may skip it before its other upstreams are final.
fn is_forcible(spec: &DagSpec, steps: &[Step], step: &Step) -> bool {
    step.guards
        .iter()
        .any(|&guard| match steps[usize::from(guard)].node {
            PlanNode::Task(task) => matches!(
                spec.tasks[usize::from(task)].kind,
                TaskKind::Branch | TaskKind::ShortCircuit { .. }
            ),
            PlanNode::Source(_) => false,
        })
}

fn all(nodes: &[u16], sees: &[Sources]) -> Sources {
    let each = nodes.iter().map(|&node| &sees[usize::from(node)]);
    each.flatten().copied().collect()
}

fn common(nodes: &[u16], sees: &[Sources]) -> Sources {
    let mut each = nodes.iter().map(|&node| &sees[usize::from(node)]);
    let first = each.next().cloned().unwrap_or_default();
    each.fold(first, |common, sources| &common & sources)
}
