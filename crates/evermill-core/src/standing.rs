//! How members stand: verdicts on settled ones, holds, and what a row must say of them.

use bytes::Bytes;

use crate::activation::{Entry, Snapshot, Standing};
use crate::bits::{self, Mask};
use crate::command::Ms;
use crate::dag::{OnFailure, Order, TaskKind};
use crate::machine::Machine;
use crate::map::no_instance;
use crate::wave::{Row, Wave};

impl Machine {
    /// A member as it stands, for a row of its own.
    pub(crate) fn snapshot(&self, ix: u32, member: u32) -> Snapshot {
        let wave = self.wave(ix);
        let m = &wave.members[member as usize];
        let mut entries = Vec::new();
        for node in wave.plan().sources as u16..wave.plan().steps.len() as u16 {
            wave.standings(node, member, &mut entries);
        }
        Snapshot {
            key: m.key,
            last: m.last,
            version: wave.version,
            round: m.round,
            ordered: wave.scope(member).is_some(),
            late: m.late,
            silenced: m.silenced,
            events: wave.member_events(member).to_vec(),
            bound: wave.bound(member).to_vec(),
            entries,
        }
    }
}

impl Wave {
    /// How settled members ended: those with a failed leaf, and those with every leaf skipped.
    pub(crate) fn verdicts(&self, settled: &[u64]) -> (Mask, Mask) {
        let (mut failed, mut skipped) = (bits::none(self.words), Mask::from_slice(settled));
        let leaves = self
            .plan()
            .steps
            .iter()
            .enumerate()
            .filter(|(_, step)| step.leaf);
        let mut any_leaf = false;
        for (node, _) in leaves {
            let node = node as u16;
            any_leaf = true;
            for word in 0..self.words {
                let bad =
                    self.row(node, Row::Failed)[word] | self.row(node, Row::UpstreamFailed)[word];
                let other = bad | self.row(node, Row::Success)[word];
                failed[word] |= bad & settled[word];
                skipped[word] &= self.row(node, Row::Skipped)[word] & !other;
            }
        }
        if !any_leaf {
            skipped.fill(0);
        }
        (failed, skipped)
    }

    /// What becomes of a member that failed: the strictest word of its failed tasks (W10).
    pub(crate) fn failure_policy(&self, member: u32) -> OnFailure {
        (self.plan().sources as u16..self.plan().steps.len() as u16)
            .filter(|&node| self.is(node, Row::Failed, member))
            .filter_map(|node| self.task(node).map(|task| task.on_failure))
            .max()
            .unwrap_or(OnFailure::Park)
    }

    /// W4: a task that failed for good under `block` or `stop`, and what is below it, does not
    /// count as done before the activation settles.
    pub(crate) fn withholds(&self, node: u16, member: u32) -> bool {
        let steps = &self.plan().steps;
        (self.plan().sources as u16..steps.len() as u16).any(|other| {
            let holds_back = self
                .task(other)
                .is_some_and(|t| t.on_failure >= OnFailure::Block);
            holds_back
                && self.is(other, Row::Failed, member)
                && (other == node || steps[usize::from(other)].below.binary_search(&node).is_ok())
        })
    }

    /// Nothing but counting is to be done when its members settle.
    pub(crate) fn is_plain(&self) -> bool {
        let looped = self
            .dag
            .spec
            .sources
            .iter()
            .any(|source| source.looped.is_some());
        self.lane.is_some()
            && self.covered.is_empty()
            && self.dag.spec.order == Order::None
            && !self.plan().is_join
            && !looped
    }

    /// Its only member is a source batch (W8).
    pub(crate) fn is_batch(&self) -> bool {
        self.lane.is_some() && self.events.len() > self.members.len()
            || self.lane.is_some()
                && self
                    .dag
                    .spec
                    .sources
                    .iter()
                    .any(|source| source.batch.is_some())
                && self.members.len() == 1
    }

    /// The nodes whose verdict may change when this one ends.
    pub(crate) fn dirty_below(&self, node: u16) -> Mask {
        let plan = self.plan();
        let step = &plan.steps[usize::from(node)];
        let mut dirty = bits::none(bits::words(plan.steps.len()));
        let guarded = matches!(
            self.task(node).map(|task| &task.kind),
            Some(TaskKind::ShortCircuit {
                all_downstream: true
            })
        );
        for &below in if guarded { &step.below } else { &step.down } {
            bits::set(&mut dirty, u32::from(below));
        }
        dirty
    }

    /// The member an entry of `trials` is about: itself, or that of an instance.
    pub(crate) fn member_of(&self, node: u16, at: u32) -> u32 {
        self.maps.get(&node).map_or(at, |space| space.locate(at).0)
    }

    /// Starts a hold of a member, or of an instance of a mapped node.
    pub(crate) fn hold(&mut self, node: u16, at: u32) {
        if let Some(space) = self.maps.get_mut(&node) {
            bits::clear(&mut space.run, at);
            bits::clear(&mut space.ready, at);
            bits::set(&mut space.hold, at);
        } else {
            self.take(node, Row::Run, at);
            self.put(node, Row::Judged, at);
            self.put(node, Row::Hold, at);
        }
    }

    /// Ends a hold: ready, or waiting for its turn.
    pub(crate) fn unhold(&mut self, node: u16, at: u32, ordered: bool) {
        if let Some(space) = self.maps.get_mut(&node) {
            bits::clear(&mut space.hold, at);
        } else {
            self.take(node, Row::Hold, at);
        }
        self.make_runnable(node, at, ordered);
    }

    /// Ready, or waiting for its turn.
    pub(crate) fn make_runnable(&mut self, node: u16, at: u32, ordered: bool) {
        let Some(space) = self.maps.get_mut(&node) else {
            return self.put(node, if ordered { Row::Waits } else { Row::Ready }, at);
        };
        if ordered {
            bits::set(&mut space.waits, at);
            let (member, _) = space.locate(at);
            self.put(node, Row::Waits, member);
        } else {
            bits::set(&mut space.ready, at);
        }
    }

    /// Whether this member, or instance of a mapped node, is held.
    pub(crate) fn is_held(&self, node: u16, at: u32) -> bool {
        self.maps.get(&node).map_or_else(
            || self.is(node, Row::Hold, at),
            |space| bits::get(&space.hold, at),
        )
    }

    /// Whether this member is held at this node, and until when.
    pub(crate) fn held_until(&self, node: u16, member: u32) -> (bool, Option<Ms>) {
        let due = |at: u32| self.trials.get(&(node, at)).and_then(|trial| trial.due);
        let Some(space) = self.maps.get(&node) else {
            return (self.is(node, Row::Hold, member), due(member));
        };
        let Some((first, length)) = space.segment(member) else {
            return (false, None);
        };
        let held: Vec<u32> = (first..first + length)
            .filter(|&instance| bits::get(&space.hold, instance))
            .collect();
        (
            !held.is_empty(),
            held.iter().filter_map(|&instance| due(instance)).min(),
        )
    }

    /// Places in the plan of these tasks.
    pub(crate) fn places(&self, tasks: &[u16]) -> Vec<u16> {
        tasks
            .iter()
            .filter_map(|&task| self.plan().place[usize::from(task)])
            .collect()
    }

    /// Keeps a result of a member, or of an instance of a mapped node.
    pub(crate) fn keep(&mut self, node: u16, at: u32, result: Bytes) {
        if let Some(space) = self.maps.get_mut(&node) {
            space.results.insert(at, result);
        } else {
            self.keep_result(node, at, result);
        }
    }

    /// Adds how a member stands at a node, unless that follows from the rest.
    pub(crate) fn standings(&self, node: u16, member: u32, entries: &mut Vec<Entry>) {
        let Some(task) = self.task_index(node) else {
            return;
        };
        let space = self.maps.get(&node);
        let segment = space.and_then(|space| space.segment(member));
        if let (Some(space), Some((first, length))) = (space, segment) {
            for index in 0..length {
                let at = first + index;
                let state = [
                    (&space.success, Row::Success),
                    (&space.failed, Row::Failed),
                    (&space.skipped, Row::Skipped),
                    (&space.hold, Row::Hold),
                ]
                .into_iter()
                .find(|(row, _)| bits::get(row, at))
                .map(|(_, state)| state);
                let result = space.results.get(&at).cloned();
                entries.extend(
                    self.standing(node, member, at, state, result)
                        .map(|standing| Entry {
                            task,
                            instance: index,
                            standing,
                        }),
                );
            }
            return;
        }
        if matches!(self.task(node).map(|t| &t.kind), Some(TaskKind::Noop)) {
            return;
        }
        let rows = [Row::Success, Row::Failed, Row::Skipped, Row::Hold];
        let state = rows.into_iter().find(|&row| self.is(node, row, member));
        // Of a mapped task without instances only its failure is worth a word: a redrive clears
        // what hangs below it, and people want to know.
        let mapped = self.task(node).is_some_and(|t| t.mapped.is_some());
        let derived = state == Some(Row::Skipped) && !self.is_own_skip(node, member);
        if derived || (mapped && state != Some(Row::Failed)) {
            return;
        }
        let result = self.result(node, member).cloned();
        let at = if mapped { no_instance(member) } else { member };
        entries.extend(
            self.standing(node, member, at, state, result)
                .map(|standing| Entry {
                    task,
                    instance: 0,
                    standing,
                }),
        );
    }

    /// A skip that follows from a verdict needs no entry; one the task asked for does.
    fn is_own_skip(&self, node: u16, member: u32) -> bool {
        self.trials
            .get(&(node, member))
            .is_some_and(|trial| trial.skipped_itself)
    }

    fn standing(
        &self,
        node: u16,
        member: u32,
        at: u32,
        state: Option<Row>,
        result: Option<Bytes>,
    ) -> Option<Standing> {
        let trial = self.trials.get(&(node, at));
        let failures = trial.map_or(0, |trial| trial.failures);
        let error = trial.and_then(|trial| trial.error.clone());
        if let (None | Some(Row::Hold), Some(trial)) = (state, trial)
            && let Some(asked) = trial.asked
        {
            return Some(Standing::Asked {
                asked,
                failures,
                interruptions: trial.interruptions,
                due: trial.due.filter(|_| state.is_some()),
                error,
            });
        }
        Some(match state {
            Some(Row::Success) => {
                let skipped = self
                    .choices
                    .get(&(node, member))
                    .cloned()
                    .unwrap_or_default();
                let forced = skipped.iter().filter_map(|&n| self.task_index(n)).collect();
                let map_length = self.map_lengths.get(&(node, member)).copied();
                Standing::Success {
                    failures,
                    result,
                    map_length,
                    forced,
                }
            }
            Some(Row::Failed) => Standing::Failed {
                failures,
                error: error.unwrap_or_default(),
            },
            Some(Row::Skipped) => Standing::Skipped { failures },
            Some(Row::Hold) => Standing::Hold {
                failures,
                due: trial.and_then(|trial| trial.due),
                error,
            },
            _ => {
                let trial = trial.filter(|t| t.failures > 0 || t.interruptions > 0)?;
                Standing::Tried {
                    failures,
                    interruptions: trial.interruptions,
                    error,
                }
            }
        })
    }
}
