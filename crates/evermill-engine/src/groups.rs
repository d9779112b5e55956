//! Groups on their way to the store, in order: a decision's writes, and what follows once they are
//! durable.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::Sender;
use evermill_contract::worker::{Answer, Slot};
use evermill_core::command::{Counters, Effect, RunIx, RunState};
use evermill_core::row::Write;

use crate::shard::Shard;
use crate::view::EngineView;

/// Something to do once a group is durable.
pub(crate) enum After {
    Effect(Effect),
    /// To a task that asked in mid-call: it may only hear what is durable (C8).
    Answer(Slot, u32, Answer),
    /// To a handle: a view that shows this group.
    View(Sender<Arc<EngineView>>),
    /// Anything else, such as answering a handle.
    Do(Box<dyn FnOnce(&mut Shard) + Send>),
}

/// A run as of some group.
pub(crate) type RunMark = (RunIx, RunState, Counters);

/// A group that was sealed.
pub(crate) struct Group {
    pub(crate) number: u64,
    pub(crate) after: Vec<After>,
    /// Runs as of this group.
    pub(crate) runs: Vec<RunMark>,
    /// The machine's own number of the decision.
    pub(crate) sealed: u64,
    /// Nothing is left to wait for but the groups before it.
    pub(crate) durable: bool,
    /// Sabotage only: what a second transaction brings.
    pub(crate) rest: Vec<Write>,
}

impl Group {
    /// A dispatch or an answer to a task follows its commit.
    pub(crate) fn is_awaited_by_tasks(&self) -> bool {
        let by_task = |after: &After| {
            matches!(
                after,
                After::Effect(Effect::Dispatch { .. }) | After::Answer(..)
            )
        };
        self.after.iter().any(by_task)
    }
}

/// The groups between sealing and effects.
#[derive(Default)]
pub(crate) struct Groups {
    queue: VecDeque<Group>,
    next: u64,
    submitted: usize,
}

impl Groups {
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Groups that the store has not answered.
    pub(crate) const fn submitted(&self) -> usize {
        self.submitted
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether this group still waits; one of a dropped machine does not.
    pub(crate) fn waits(&self, number: u64) -> bool {
        self.queue.iter().any(|group| group.number == number)
    }

    /// The one that was sealed last, of those whose effects are to come.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Group> {
        self.queue.back_mut()
    }

    pub(crate) fn push(&mut self, group: Group) {
        self.submitted += usize::from(!group.durable);
        self.queue.push_back(group);
    }

    /// The store has answered; `Some` with what is still to be written of the group.
    pub(crate) fn answered(&mut self, number: u64) -> Vec<Write> {
        let Some(group) = self.queue.iter_mut().find(|group| group.number == number) else {
            return Vec::new();
        };
        let rest = std::mem::take(&mut group.rest);
        if rest.is_empty() {
            group.durable = true;
            self.submitted -= 1;
        }
        rest
    }

    /// The next group whose effects are due.
    pub(crate) fn pop_durable(&mut self) -> Option<Group> {
        if self.queue.front()?.durable {
            self.queue.pop_front()
        } else {
            None
        }
    }

    /// The shard is dropped: what was to follow is handed back.
    pub(crate) fn forget(&mut self) -> Vec<After> {
        self.submitted = 0;
        self.queue.drain(..).flat_map(|group| group.after).collect()
    }
}
