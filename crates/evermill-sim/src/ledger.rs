//! What the world knows to have been accepted: its own book-keeping, kept apart from the machine's.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::Graph;
use crate::oracle::{Final, Finals, State, clear};
use crate::script::Act;

/// Something that becomes true with a commit.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A failed try with tries left.
    Tried(Act, u16, i32),
    /// An instance ended.
    Ended(Act, u16, i32, Final),
    /// An attempt of a task that must not be repeated has started (C4).
    Started(Act, u16, i32),
    /// That attempt came back unstarted.
    Returned(Act, u16, i32),
    /// An activation was redriven, with these final states. `true`: it left the order.
    Redriven(Act, Vec<Option<State>>, bool),
    /// An activation was given up.
    Discarded(Act),
}

/// One activation.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Instances that ended, in the current round.
    pub finals: Finals,
    /// Failed tries in the current round.
    pub failures: BTreeMap<(u16, i32), u32>,
    /// Redrives.
    pub round: u32,
    /// Given up by hand.
    pub discarded: bool,
    /// Started attempts that must not be repeated.
    pub started: BTreeSet<(u16, i32)>,
    /// It parked, left the order and was redriven (W4).
    pub left_order: bool,
    /// Every instance that ended, all rounds: (task, map index, round, tries).
    pub ran: BTreeSet<(u16, i32, u32, u32)>,
}

/// All activations.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// By activation.
    pub entries: BTreeMap<Act, Entry>,
}

impl Ledger {
    /// Takes a fact in. An error says which promise it breaks.
    ///
    /// # Errors
    /// A second result for the same instance and round.
    pub fn note(&mut self, graph: &Graph, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Tried(act, task, index) => {
                let entry = self.entries.entry(*act).or_default();
                *entry.failures.entry((*task, *index)).or_default() += 1;
                entry.started.remove(&(*task, *index));
            }
            Fact::Ended(act, task, index, end) => {
                let entry = self.entries.entry(*act).or_default();
                if end.state == State::Failed {
                    *entry.failures.entry((*task, *index)).or_default() += 1;
                }
                entry.started.remove(&(*task, *index));
                entry.ran.insert((*task, *index, end.round, end.tries));
                if entry.finals.insert((*task, *index), end.clone()).is_some() {
                    return Err(format!("a second result for {act} task {task}[{index}]"));
                }
            }
            Fact::Started(act, task, index) => {
                self.entries
                    .entry(*act)
                    .or_default()
                    .started
                    .insert((*task, *index));
            }
            Fact::Returned(act, task, index) => {
                self.entries
                    .entry(*act)
                    .or_default()
                    .started
                    .remove(&(*task, *index));
            }
            Fact::Redriven(act, states, leaves) => {
                let entry = self.entries.entry(*act).or_default();
                entry.round += 1;
                entry.left_order |= leaves;
                clear(graph, states, &mut entry.finals);
                entry.failures.clear();
            }
            Fact::Discarded(act) => self.entries.entry(*act).or_default().discarded = true,
        }
        Ok(())
    }

    /// The tries of an instance so far.
    #[must_use]
    pub fn failures(&self, act: Act, task: u16, index: i32) -> u32 {
        let of = |entry: &Entry| entry.failures.get(&(task, index)).copied();
        self.entries.get(&act).and_then(of).unwrap_or(0)
    }
}
