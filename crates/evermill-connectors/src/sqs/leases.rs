//! Messages that were received and are not deleted: who hears of them next, and until when others do
//! not see them.
//!
//! ```text
//! out --kept--> (ack="outcome": waits --settled-->) done --deleted--> forgotten
//!  |                                                  ^
//!  +-- begin: given back, forgotten                   +-- received again: deleted again
//! ```
//! No clock and no socket: whoever drives it says what time it is and what SQS answered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::limits;

/// Everything that is held of one queue.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: BTreeMap<String, Lease>,
    /// Messages of a delivery.
    tickets: BTreeMap<u64, Vec<String>>,
    due: VecDeque<String>,
}

#[derive(Debug)]
struct Lease {
    /// The newest one: an older one may be taken and delete nothing.
    receipt: String,
    state: State,
    /// Received with that receipt.
    since: Instant,
    until: Instant,
    /// An answer to a renewal is awaited.
    renewing: bool,
    /// It cannot be renewed any more.
    lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The engine has not said that it is durable.
    Out,
    /// Durable, and not settled.
    Waits,
    /// To be deleted.
    Done,
}

/// A message and the receipt that an entry of a request names it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: String,
    pub(super) receipt: String,
}

/// What an answer says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// It is not ours any more: the lease was over.
    Gone,
    /// Asked again.
    Later,
}

impl Leases {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// A message was received by a request that began then. False: it is held already, under this
    /// receipt from now on.
    pub(super) fn take(&mut self, id: &str, receipt: &str, began: Instant) -> bool {
        let fresh = Lease {
            receipt: receipt.to_owned(),
            state: State::Out,
            since: began,
            until: began + limits::SQS_LEASE,
            renewing: false,
            lost: false,
        };
        let Some(known) = self.held.get_mut(id) else {
            self.held.insert(id.to_owned(), fresh);
            return true;
        };
        let state = known.state;
        *known = Lease { state, ..fresh };
        if state == State::Done {
            self.due.push_back(id.to_owned());
        }
        false
    }

    /// These messages are one delivery.
    pub(super) fn deliver(&mut self, ticket: u64, ids: Vec<String>) {
        self.tickets.insert(ticket, ids);
    }

    /// A delivery is durable; it `waits` for its outcome, or may be deleted.
    pub(super) fn kept(&mut self, ticket: u64, waits: bool) {
        if !waits {
            return self.done(ticket);
        }
        for id in self.tickets.get(&ticket).into_iter().flatten() {
            if let Some(lease) = self.held.get_mut(id) {
                lease.state = State::Waits;
            }
        }
    }

    /// A delivery may be deleted. One that was given back before is nobody's.
    pub(super) fn done(&mut self, ticket: u64) {
        for id in self.tickets.remove(&ticket).unwrap_or_default() {
            if let Some(lease) = self.held.get_mut(&id) {
                lease.state = State::Done;
                self.due.push_back(id);
            }
        }
    }

    /// Forgets what the engine does not hold, to be given back.
    pub(super) fn give_back(&mut self) -> Vec<String> {
        let mut given = Vec::new();
        self.held.retain(|_, lease| {
            let stays = lease.state != State::Out;
            if !stays {
                given.push(std::mem::take(&mut lease.receipt));
            }
            stays
        });
        let held = &self.held;
        self.tickets
            .retain(|_, ids| ids.iter().any(|id| held.contains_key(id)));
        given
    }

    /// How many wait to be deleted.
    pub(super) fn due(&self) -> usize {
        self.due.len()
    }

    /// The next ones to delete, as many as one request takes.
    pub(super) fn take_due(&mut self) -> Vec<Held> {
        let mut taken: Vec<Held> = Vec::new();
        while taken.len() < limits::SQS_BATCH
            && let Some(id) = self.due.pop_front()
        {
            let Some(lease) = self.held.get(&id) else {
                continue;
            };
            if !taken.iter().any(|held| held.id == id) {
                let receipt = lease.receipt.clone();
                taken.push(Held { id, receipt });
            }
        }
        taken
    }

    /// What became of a deletion.
    pub(super) fn deleted(&mut self, held: Held, answer: Answer) {
        let Some(lease) = self.held.get(&held.id) else {
            return;
        };
        if answer == Answer::Later {
            self.due.push_back(held.id);
        } else if lease.receipt == held.receipt {
            // If it was gone it comes again, and is known by its id.
            self.held.remove(&held.id);
        }
        // Else it came again in between and is in line with the newer receipt.
    }

    /// Leases that are to be renewed now, for as long as one is.
    pub(super) fn take_renewals(&mut self, now: Instant) -> Vec<Held> {
        let mut taken = Vec::new();
        for (id, lease) in &mut self.held {
            let left = lease.until.saturating_duration_since(now);
            if lease.renewing || lease.lost || left > limits::SQS_LEASE_LEFT {
                continue;
            }
            lease.renewing = true;
            taken.push(Held {
                id: id.clone(),
                receipt: lease.receipt.clone(),
            });
        }
        taken
    }

    /// Those that have been held for as long as SQS allows; each is said once.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<String> {
        let end = |lease: &Lease| lease.since + limits::SQS_LEASE_MAX;
        let over = |lease: &Lease| now + limits::SQS_LEASE > end(lease);
        let mut taken = Vec::new();
        for (id, lease) in &mut self.held {
            if !lease.lost && over(lease) {
                lease.lost = true;
                taken.push(id.clone());
            }
        }
        taken
    }

    /// What became of a renewal that was asked for at that time. True: the lease is lost by it.
    pub(super) fn renewed(&mut self, held: &Held, answer: Answer, asked: Instant) -> bool {
        let Some(lease) = self.held.get_mut(&held.id) else {
            return false;
        };
        if lease.receipt != held.receipt {
            return false;
        }
        lease.renewing = false;
        match answer {
            Answer::Done => lease.until = asked + limits::SQS_LEASE,
            Answer::Gone => lease.lost = true,
            Answer::Later => {}
        }
        answer == Answer::Gone && lease.state != State::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn ids(held: &[Held]) -> Vec<&str> {
        held.iter().map(|held| held.id.as_str()).collect()
    }

    /// One message, received and delivered.
    fn one(now: Instant) -> Leases {
        let mut leases = Leases::default();
        assert!(leases.take("a", "r1", now));
        leases.deliver(1, vec!["a".to_owned()]);
        leases
    }

    /// D02, D04.
    #[test]
    fn d04_a_message_that_comes_again_is_deleted_by_its_newest_receipt() {
        let now = Instant::now();
        let mut leases = one(now);
        assert!(!leases.take("a", "r2", now), "it is held already");
        leases.kept(1, false);
        let due = leases.take_due();
        assert_eq!(
            due,
            [Held {
                id: "a".to_owned(),
                receipt: "r2".to_owned()
            }]
        );
        // It comes a third time while the deletion is on its way: what that deleted is not known.
        assert!(!leases.take("a", "r3", now));
        leases.deleted(due[0].clone(), Answer::Done);
        assert_eq!(leases.take_due()[0].receipt, "r3");
        assert_eq!(leases.len(), 1);
    }

    /// D03, D09.
    #[test]
    fn d03_a_deletion_that_failed_is_tried_again_and_one_that_is_gone_is_not() {
        let mut leases = one(Instant::now());
        leases.kept(1, false);
        let due = leases.take_due();
        assert_eq!(leases.due(), 0);
        leases.deleted(due[0].clone(), Answer::Later);
        let due = leases.take_due();
        assert_eq!(ids(&due), ["a"]);
        leases.deleted(due[0].clone(), Answer::Gone);
        assert_eq!((leases.len(), leases.due()), (0, 0));
    }

    /// D01.
    #[test]
    fn d01_a_lease_is_renewed_until_its_outcome_is_known() {
        let now = Instant::now();
        let mut leases = one(now);
        leases.kept(1, true);
        assert_eq!(leases.due(), 0, "its work is not done");
        let mut at = now;
        for _ in 0..100 {
            assert!(leases.take_renewals(at).is_empty());
            at += limits::SQS_LEASE - limits::SQS_LEASE_LEFT;
            let renewals = leases.take_renewals(at);
            assert_eq!(ids(&renewals), ["a"]);
            assert!(leases.take_renewals(at).is_empty(), "asked once at a time");
            assert!(!leases.renewed(&renewals[0], Answer::Done, at));
        }
        leases.done(1);
        assert_eq!(ids(&leases.take_due()), ["a"]);
    }

    #[test]
    fn a_renewal_that_failed_is_asked_again_and_one_of_an_old_receipt_says_nothing() {
        let now = Instant::now();
        let mut leases = one(now);
        let late = now + limits::SQS_LEASE;
        let renewals = leases.take_renewals(late);
        leases.renewed(&renewals[0], Answer::Later, late);
        let renewals = leases.take_renewals(late);
        assert_eq!(ids(&renewals), ["a"]);
        leases.take("a", "r2", late);
        assert!(!leases.renewed(&renewals[0], Answer::Gone, late));
        assert!(leases.take_renewals(late).is_empty(), "r2 is fresh");
    }

    /// D08.
    #[test]
    fn d08_after_twelve_hours_a_lease_is_said_to_be_lost_and_asked_for_no_more() {
        let now = Instant::now();
        let mut leases = one(now);
        leases.kept(1, true);
        let end = now + limits::SQS_LEASE_MAX;
        assert!(
            leases
                .take_overdue(end - limits::SQS_LEASE - SECOND)
                .is_empty()
        );
        assert_eq!(leases.take_overdue(end - SECOND), ["a"]);
        assert!(leases.take_overdue(end).is_empty(), "said once");
        assert!(leases.take_renewals(end).is_empty());
        // It comes again and is known: its work goes on, and ends with a deletion.
        assert!(!leases.take("a", "r2", end));
        assert!(leases.take_overdue(end + SECOND).is_empty());
        leases.done(1);
        assert_eq!(leases.take_due()[0].receipt, "r2");
    }

    #[test]
    fn what_the_engine_does_not_hold_is_given_back_and_what_it_holds_is_not() {
        let now = Instant::now();
        let mut leases = one(now);
        leases.take("b", "s1", now);
        leases.deliver(2, vec!["b".to_owned()]);
        leases.take("c", "t1", now);
        leases.kept(1, true);
        assert_eq!(leases.give_back(), ["s1", "t1"]);
        assert_eq!(leases.len(), 1);
        leases.done(2);
        leases.kept(2, false);
        assert_eq!(leases.due(), 0, "nobody's any more");
        leases.done(1);
        assert_eq!(leases.due(), 1);
    }

    #[test]
    fn a_request_takes_ten_at_most_and_none_twice() {
        let now = Instant::now();
        let mut leases = Leases::default();
        let all: Vec<String> = (0..12).map(|n| format!("{n:02}")).collect();
        for id in &all {
            leases.take(id, "r", now);
        }
        leases.deliver(1, all);
        leases.kept(1, false);
        leases.take("00", "r2", now);
        assert_eq!(leases.take_due().len(), 10);
        assert_eq!(ids(&leases.take_due()), ["10", "11", "00"]);
    }
}
