//! Group commit from the shard's side: seal what was decided, submit it, and act on the answer.

use std::time::Duration;

use evermill_contract::source::Severity;
use evermill_core::command::{Decision, Effect};
use evermill_core::row::{Table, Write};
use evermill_store::{Batch, CommitError, CommitId};

use crate::failpoint::fp;
use crate::groups::{After, Group};
use crate::input::Input;
use crate::limits;
use crate::sabotage;
use crate::shard::{Flow, Shard};

impl Shard {
    /// Seals and submits what was decided, if the store has room for a group: at once when it is
    /// idle; behind a group that is being synced only when it is worth a commit of its own.
    pub(crate) fn submit(&mut self) {
        if !self.unsealed && self.after.is_empty() || self.may_gather() {
            return;
        }
        let waiting = self.groups.submitted();
        let small = self.decision.writes.len() < limits::SECOND_GROUP_WRITES;
        if waiting >= limits::GROUPS_IN_FLIGHT || (waiting > 0 && small) {
            return;
        }
        let (writes, group) = self.seal();
        let (number, durable) = (group.number, group.durable);
        let here = waiting == 0 && self.may_commit_here(&group);
        self.groups.push(group);
        if durable {
            self.perform_durable();
        } else {
            self.write(number, writes, here);
        }
    }

    /// A task waits for this commit, and until it is done there is nothing else to do: no worker is
    /// busy, nothing has come in. Then this thread commits by itself. It saves waking two threads out
    /// of sleep, which on an idle machine takes longer than the commit.
    fn may_commit_here(&self, group: &Group) -> bool {
        self.slots.out() == 0 && group.is_awaited_by_tasks() && self.world.inbox.is_empty()
    }

    /// Whether everything that was decided is committed and done.
    pub(crate) fn is_durable(&self) -> bool {
        !self.unsealed && self.groups.is_empty() && self.after.is_empty()
    }

    /// Nobody waits for this commit but who looks on, and what the workers are busy with brings another one soon:
    /// both can share an fsync. It costs an idle engine nothing, and a busy one that a little more
    /// runs again after a crash.
    fn may_gather(&self) -> bool {
        let looks_on = |after: &After| matches!(after, After::View(_));
        let awaited = self.pressing
            || !self.after.iter().all(looks_on)
            || !self.decision.effects.iter().all(may_be_early);
        !awaited
            && self.unsealed
            && self.slots.out() > 0
            && self.decision.writes.len() < limits::SECOND_GROUP_WRITES
            && self.unsealed_at.elapsed() < limits::GATHER
    }

    /// Time until what was decided is no longer kept for company.
    pub(crate) fn until_gathered(&self) -> Option<Duration> {
        self.may_gather()
            .then(|| limits::GATHER.saturating_sub(self.unsealed_at.elapsed()))
    }

    fn seal(&mut self) -> (Vec<Write>, Group) {
        fp!("commit.before_seal");
        self.machine.seal(&mut self.decision);
        self.sweep_spilled();
        self.speculate();
        let runs = self.changed_runs();
        let parked = std::mem::take(&mut self.decision.parked);
        self.tell_parked(&parked);
        self.unsealed = false;
        self.pressing = false;
        self.performed = 0;
        let Decision {
            writes,
            effects,
            news,
            parked: _,
        } = std::mem::take(&mut self.decision);
        debug_assert!(
            news.is_empty(),
            "sealing tells nothing, and the rest was passed on"
        );
        fp!("commit.sealed");
        let effects = effects
            .into_iter()
            .filter(|effect| !may_be_early(effect))
            .map(After::Effect);
        let mut after: Vec<After> = effects.collect();
        after.append(&mut self.after);
        after.extend(self.to_trace(&writes));
        if sabotage::ack_before_commit() {
            after.iter().for_each(|after| self.ack_early(after));
        }
        self.return_permits();
        let (writes, rest) = split(writes);
        let group = Group {
            number: self.groups.number(),
            after,
            runs,
            sealed: self.machine.sealed(),
            durable: writes.is_empty(),
            rest,
        };
        (writes, group)
    }

    fn write(&mut self, number: u64, writes: Vec<Write>, here: bool) {
        let Some(committer) = &self.committer else {
            return;
        };
        let input = self.world.input.clone();
        let batch = Batch {
            fence: self.fence,
            writes,
        };
        let committed = if here {
            committer.commit_here(batch)
        } else {
            Err(batch)
        };
        match committed {
            Ok(result) => self.answered = Some((number, result)),
            Err(batch) => committer.submit(
                batch,
                Box::new(move |result| {
                    // The shard is gone only when nobody waits for the answer.
                    drop(input.send(Input::Committed(number, result)));
                }),
            ),
        }
        fp!("commit.submitted");
    }

    /// The store has answered.
    pub(crate) fn committed(&mut self, number: u64, result: Result<CommitId, CommitError>) -> Flow {
        fp!(
            "commit.answered",
            return Flow::Reload("a failpoint says so".to_owned())
        );
        if !self.groups.waits(number) {
            return Flow::Go;
        }
        match result {
            Ok(_) => {
                self.reloads_in_a_row = 0;
                let rest = self.groups.answered(number);
                if rest.is_empty() {
                    self.perform_durable();
                } else {
                    self.write(number, rest, false);
                }
                Flow::Go
            }
            Err(CommitError::Fatal(why)) => self.abort(&why),
            Err(CommitError::Unknown(id)) => {
                self.unknown = Some(id);
                Flow::Reload(CommitError::Unknown(id).to_string())
            }
            // What was in line behind a batch that failed is not tried; the first one said why.
            Err(error) => Flow::Reload(error.to_string()),
        }
    }

    pub(crate) fn store_says(&mut self, epoch: u64, event: evermill_store::Event) -> Flow {
        if epoch != self.machine.fence().epoch {
            // An opening that is over.
            return Flow::Go;
        }
        match event {
            evermill_store::Event::Full => {
                let text = "the disk is full: nothing new is read until space returns";
                self.stalled = Some(text.to_owned());
                self.notice(Severity::Error, text);
            }
            evermill_store::Event::SpaceBack => {
                self.stalled = None;
                let text = "the disk has space again: reading goes on";
                // As loud as what it takes back.
                self.notice(Severity::Warning, text);
            }
            evermill_store::Event::Stopped(CommitError::Fatal(why)) => self.abort(&why),
            evermill_store::Event::Stopped(error) => return Flow::Reload(error.to_string()),
        }
        self.view_stale = true;
        Flow::Go
    }

    /// Runs whose state or counters differ from what was sealed last.
    fn changed_runs(&mut self) -> Vec<crate::groups::RunMark> {
        let mut changed = Vec::new();
        for (&run, slot) in &mut self.runs {
            let Some((state, counters)) = self
                .machine
                .run(run)
                .map(|view| (view.state, view.counters))
            else {
                continue;
            };
            if slot.sealed != Some((state, counters)) {
                slot.sealed = Some((state, counters));
                changed.push((run, state, counters));
            }
        }
        changed
    }

    /// Batches applied so far are about to be durable: their sources may send as many again.
    pub(crate) fn return_permits(&mut self) {
        for listening in self.listening.values_mut() {
            for _ in 0..std::mem::take(&mut listening.applied) {
                // One permit lies there for each batch that was sent.
                listening.permits.try_recv().ok();
            }
        }
    }
}

/// What [`Shard::speculate`] has performed already.
const fn may_be_early(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Dispatch {
            speculative: true,
            ..
        }
    )
}

/// Sabotage: positions go first, in a transaction of their own.
fn split(writes: Vec<Write>) -> (Vec<Write>, Vec<Write>) {
    if !sabotage::position_before_result() {
        return (writes, Vec::new());
    }
    let position = |write: &Write| matches!(write, Write::Put(row) if row.table == Table::Lane);
    let (first, rest): (Vec<Write>, Vec<Write>) = writes.into_iter().partition(position);
    if first.is_empty() {
        (rest, first)
    } else {
        (first, rest)
    }
}
