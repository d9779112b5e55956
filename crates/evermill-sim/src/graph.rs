//! What follows from a DAG's edges, derived here on its own: the oracle must not share the core's
//! layout, or it would share its mistakes.

use std::collections::BTreeSet;

use evermill_core::command::Event;
use evermill_core::dag::{DagSpec, Mapped, Node, TaskKind, TaskSpec};
use evermill_core::rule::TriggerRule;

/// Order, ancestry and plans of a DAG.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Tasks in topological order; ties in the order written.
    pub order: Vec<u16>,
    /// Every descendant of each task.
    pub below: Vec<BTreeSet<u16>>,
    /// Branch parents of each task, and the short circuits above that could cover it.
    pub guards: Vec<Vec<u16>>,
    /// Sources that each task descends from.
    pub sources_above: Vec<BTreeSet<u16>>,
    /// Who makes a task no leaf by taking part in the activation; `None`: it never is one.
    leaf_unless: Vec<Option<Vec<usize>>>,
    /// Its sources wait for each other (W6): a task that is not `one_success` is below several.
    pub joins: bool,
    /// Sources that must have fired before an attempt of each task can start.
    sees: Vec<BTreeSet<u16>>,
    /// Sources whose activations pass through each task (W7).
    passed_by: Vec<BTreeSet<u16>>,
}

impl Graph {
    /// Derives it; the DAG has no cycle.
    #[must_use]
    pub fn of(spec: &DagSpec) -> Self {
        let count = spec.tasks.len();
        let ups: Vec<Vec<u16>> = (0..count).map(|t| task_ups(spec, t)).collect();
        let order = order(&ups);
        let mut below = vec![BTreeSet::new(); count];
        let mut sources_above = vec![BTreeSet::new(); count];
        for &task in order.iter().rev() {
            let down: BTreeSet<u16> = below[usize::from(task)].clone();
            for &up in &ups[usize::from(task)] {
                below[usize::from(up)].insert(task);
                below[usize::from(up)].extend(down.iter().copied());
            }
        }
        for &task in &order {
            let mut above = BTreeSet::new();
            for node in &spec.tasks[usize::from(task)].upstream {
                match *node {
                    Node::Source(source) => drop(above.insert(source)),
                    Node::Task(up) => {
                        above.extend(sources_above[usize::from(up)].iter().copied());
                    }
                }
            }
            sources_above[usize::from(task)] = above;
        }
        let guards: Vec<Vec<u16>> = (0..count as u16).map(|t| guards(spec, &below, t)).collect();
        let untils: Vec<u16> = spec
            .sources
            .iter()
            .filter_map(|source| source.looped?.until)
            .collect();
        let leaf_unless = (0..count as u16)
            .map(|t| {
                let is_up = |other: &usize| {
                    let hidden = untils.contains(&(*other as u16));
                    !spec.tasks[*other].teardown && !hidden && ups[*other].contains(&t)
                };
                let may_be = !spec.tasks[usize::from(t)].teardown;
                may_be.then(|| (0..count).filter(is_up).collect())
            })
            .collect();
        let waits = |(task, above): (&TaskSpec, &BTreeSet<u16>)| {
            above.len() > 1 && task.rule != TriggerRule::OneSuccess
        };
        let joins = spec.tasks.iter().zip(&sources_above).any(waits);
        let sees = sights(spec, &order, &guards);
        let passed_by = passed_by(spec, &below, &sources_above);
        Self {
            order,
            below,
            guards,
            sources_above,
            leaf_unless,
            joins,
            sees,
            passed_by,
        }
    }

    /// What an attempt of this task may look at: of a join, the events of sources that must have
    /// fired before it could start (C3).
    #[must_use]
    pub fn visible(&self, task: u16, events: &[(u16, Event)]) -> Vec<Event> {
        let sees = &self.sees[usize::from(task)];
        let seen = |(source, _): &&(u16, Event)| !self.joins || sees.contains(source);
        events
            .iter()
            .filter(seen)
            .map(|(_, event)| event.clone())
            .collect()
    }

    /// Whether any task may get a verdict while one above it is still out: by its rule, or because
    /// a branch or a short circuit passes it by whatever its other upstreams do.
    #[must_use]
    pub fn judges_early(&self, spec: &DagSpec) -> bool {
        let passed_by =
            |(task, guards): (&TaskSpec, &Vec<u16>)| !guards.is_empty() && task.upstream.len() > 1;
        spec.tasks.iter().any(may_be_judged_early)
            || spec.tasks.iter().zip(&self.guards).any(passed_by)
    }

    /// Whether no activation of any source passes through a task.
    #[must_use]
    pub fn is_adrift(&self, task: usize) -> bool {
        self.passed_by[task].is_empty()
    }

    /// Whether the end of a task decides how an activation ended that passes through these tasks.
    pub fn is_leaf(&self, task: usize, takes_part: impl Fn(usize) -> bool) -> bool {
        let unless = self.leaf_unless[task].as_ref();
        unless.is_some_and(|downs| !downs.iter().any(|&down| takes_part(down)))
    }

    /// Whether a task belongs to an activation that these sources opened or may still join (W7).
    #[must_use]
    pub fn takes_part(&self, task: u16, fired: &BTreeSet<u16>, awaited: &BTreeSet<u16>) -> bool {
        let sources = &self.passed_by[usize::from(task)];
        let triggered = fired.is_empty() && awaited.is_empty();
        triggered || !sources.is_disjoint(fired) || !sources.is_disjoint(awaited)
    }
}

/// Rules that may say *run* before every upstream is final.
#[must_use]
pub const fn runs_early(rule: TriggerRule) -> bool {
    use TriggerRule as R;
    matches!(rule, R::OneSuccess | R::OneFailed | R::OneDone | R::Always)
}

/// Rules that may say *skip* before every upstream is final.
#[must_use]
pub const fn skips_early(rule: TriggerRule) -> bool {
    use TriggerRule as R;
    matches!(
        rule,
        R::AllSkipped | R::AllFailed | R::NoneSkipped | R::AllDoneMinOneSuccess
    )
}

/// Whether this task may get any verdict, a skip included, before its last upstream has ended: what
/// hangs below it may then run while a sibling is still out.
fn may_be_judged_early(task: &TaskSpec) -> bool {
    use TriggerRule as R;
    task.rule == R::Always
        || task.upstream.len() > 1 && !matches!(task.rule, R::AllDone | R::AllDoneSetupSuccess)
}

/// Which sources have certainly fired when each task runs, whoever was faster.
///
/// Two facts per task, in order: what has fired if it *succeeded or failed* (it ran), and what has
/// fired once it is *final* at all: a skip or an upstream failure may come sooner.
fn sights(spec: &DagSpec, order: &[u16], guards: &[Vec<u16>]) -> Vec<BTreeSet<u16>> {
    use TriggerRule as R;
    let nothing = BTreeSet::new();
    let mut ran = vec![nothing.clone(); spec.tasks.len()];
    let mut ended = ran.clone();
    for &at in order {
        let at = usize::from(at);
        let task = &spec.tasks[at];
        let of = |node: &Node, known: &[BTreeSet<u16>]| match *node {
            Node::Source(source) => BTreeSet::from([source]),
            Node::Task(up) => known[usize::from(up)].clone(),
        };
        let every = |known: &[BTreeSet<u16>]| -> BTreeSet<u16> {
            task.upstream.iter().flat_map(|up| of(up, known)).collect()
        };
        let shared = || {
            let sets = task.upstream.iter().map(|up| of(up, &ended));
            sets.reduce(|a, b| &a & &b).unwrap_or_default()
        };
        let list = match task.mapped {
            Some(Mapped::Over(list)) => Some(list),
            _ => None,
        };
        let waited = guards[at].iter().copied().chain(list);
        let waited: BTreeSet<u16> = waited
            .flat_map(|guard| ended[usize::from(guard)].clone())
            .collect();
        let runs = match task.rule {
            R::Always => nothing.clone(),
            R::AllSuccess => every(&ran),
            rule if runs_early(rule) => shared(),
            _ => every(&ended),
        };
        let ends = match task.rule {
            R::Always => nothing.clone(),
            _ if may_be_judged_early(task) || !guards[at].is_empty() => shared(),
            _ => every(&ended),
        };
        ran[at] = &runs | &waited;
        ended[at] = &ends | &waited;
    }
    ran
}

fn task_ups(spec: &DagSpec, task: usize) -> Vec<u16> {
    let task_of = |node: &Node| match *node {
        Node::Task(up) => Some(up),
        Node::Source(_) => None,
    };
    spec.tasks[task]
        .upstream
        .iter()
        .filter_map(task_of)
        .collect()
}

fn order(ups: &[Vec<u16>]) -> Vec<u16> {
    let mut order: Vec<u16> = Vec::new();
    while order.len() < ups.len() {
        let next = (0..ups.len() as u16)
            .find(|t| !order.contains(t) && ups[usize::from(*t)].iter().all(|u| order.contains(u)));
        order.push(next.expect("the DAG has no cycle"));
    }
    order
}

fn guards(spec: &DagSpec, below: &[BTreeSet<u16>], task: u16) -> Vec<u16> {
    let guards = |&other: &u16| match spec.tasks[usize::from(other)].kind {
        TaskKind::Branch => spec.tasks[usize::from(task)]
            .upstream
            .contains(&Node::Task(other)),
        TaskKind::ShortCircuit {
            all_downstream: true,
        } => below[usize::from(other)].contains(&task),
        TaskKind::ShortCircuit {
            all_downstream: false,
        } => spec.tasks[usize::from(task)]
            .upstream
            .contains(&Node::Task(other)),
        _ => false,
    };
    (0..spec.tasks.len() as u16).filter(guards).collect()
}

/// Which sources' activations pass through each task: the sources that share a descendant go
/// together; with them what is below them, what feeds that, and what hangs below those feeders and
/// below no source (W7).
fn passed_by(
    spec: &DagSpec,
    below: &[BTreeSet<u16>],
    sources_above: &[BTreeSet<u16>],
) -> Vec<BTreeSet<u16>> {
    let mut passed_by = vec![BTreeSet::new(); spec.tasks.len()];
    for source in 0..spec.sources.len() as u16 {
        let (mut group, mut tasks) = (BTreeSet::from([source]), BTreeSet::new());
        let mut size = 0;
        while size != group.len() + tasks.len() {
            size = group.len() + tasks.len();
            for (task, above) in sources_above.iter().enumerate() {
                let feeds = !below[task].is_disjoint(&tasks);
                let hangs = |up: &u16| below[usize::from(*up)].contains(&(task as u16));
                if !above.is_disjoint(&group) {
                    group.extend(above.iter().copied());
                    tasks.insert(task as u16);
                } else if feeds || above.is_empty() && tasks.iter().any(hangs) {
                    tasks.insert(task as u16);
                }
            }
        }
        for task in tasks {
            passed_by[usize::from(task)].insert(source);
        }
    }
    passed_by
}
