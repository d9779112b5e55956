//! Checks that every receiver passes: queues, polled pages.
//!
//! A connector's tests implement [`Place`] and call [`check_all`]. Each check gets a place of its own,
//! waits for conditions, and panics with what it saw when one does not come true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{PATIENCE, QUIET, SLICE, numbered};
use crate::source::{
    Arrival, CLOSE_WAIT, Delivery, ID_BYTES_MAX, MEMO_BYTES_MAX, Received, Receiver, SourceError,
};

/// What a receiver listens to, under the control of a test.
pub trait Place {
    /// Opens a receiver on this place, as after a start of the engine.
    fn open(&mut self) -> Box<dyn Receiver>;
    /// Brings events with these values.
    fn publish(&mut self, values: &[String]);
    /// Whether it is in trouble from now on: it answers, and with nothing but errors.
    fn trouble(&mut self, is: bool);
    /// The reader before is gone: whatever the place had lent to it is free.
    fn reader_is_gone(&mut self) {}
    /// Events it still holds for us; `None` when it never forgets.
    fn holds(&mut self) -> Option<usize> {
        None
    }
}

/// Runs every check, each on a place of its own.
pub fn check_all<P: Place>(mut place: impl FnMut() -> P) {
    each_event_comes_and_tickets_rise(&mut place());
    what_was_kept_does_not_come_again_unrecognised(&mut place());
    what_was_not_kept_comes_again_after_a_new_beginning(&mut place());
    an_empty_place_says_that_it_is_empty(&mut place());
    trouble_is_said_once_and_costs_nothing(&mut place());
    leases_are_kept_and_unknown_tickets_ignored_at_any_time(&mut place());
    what_is_kept_or_settled_is_forgotten_outside(&mut place());
    a_waker_ends_a_blocked_receive(&mut place());
    closing_ends_within_its_bound(&mut place());
}

/// The engine's part: keeps what is delivered, hands the last memo over at each beginning.
pub struct Driver {
    receiver: Box<dyn Receiver>,
    /// Of the last delivery that was kept.
    pub memo: Option<Bytes>,
    /// Every event that was delivered.
    pub events: Vec<Arrival>,
    /// Deliveries that were not kept yet.
    pub open: Vec<Delivery>,
    /// Tickets that were kept and not settled.
    pub kept: Vec<u64>,
    /// How often it was said that all there is was delivered.
    pub caught_up: usize,
    /// Reasons that were said, and `None` for each recovery.
    pub said: Vec<Option<String>>,
    last: u64,
}

impl Driver {
    /// Drives a receiver from its beginning, with what an earlier one had remembered.
    ///
    /// # Panics
    /// If it does not take the memo.
    #[must_use]
    pub fn new(receiver: Box<dyn Receiver>, memo: Option<Bytes>) -> Self {
        let mut driver = Self {
            receiver,
            memo,
            events: Vec::new(),
            open: Vec::new(),
            kept: Vec::new(),
            caught_up: 0,
            said: Vec::new(),
            last: 0,
        };
        driver.begin();
        driver
    }

    /// The receiver itself.
    pub fn receiver(&mut self) -> &mut dyn Receiver {
        self.receiver.as_mut()
    }

    /// Begins again: what was not kept is lost.
    ///
    /// # Panics
    /// If it does not take its own memo.
    pub fn begin(&mut self) {
        self.open.clear();
        self.receiver
            .begin(self.memo.as_deref())
            .expect("it knows its own memo");
    }

    /// Receives once, and keeps nothing.
    ///
    /// # Panics
    /// If the receiver ends, or breaks a bound.
    pub fn receive(&mut self, wait: Duration) {
        let mut out = Vec::new();
        let received: Result<(), SourceError> = self.receiver.receive(wait, &mut out);
        received.expect("the receiver works");
        for news in out {
            match news {
                Received::Delivery(delivery) => self.delivered(delivery),
                Received::Ask(inquiry) => panic!("no function is there to ask: {inquiry:?}"),
                Received::CaughtUp => self.caught_up += 1,
                Received::Degraded { reason } => self.said.push(Some(reason)),
                Received::Recovered => self.said.push(None),
            }
        }
    }

    fn delivered(&mut self, delivery: Delivery) {
        assert!(delivery.ticket > self.last, "tickets rise");
        self.last = delivery.ticket;
        let memo = delivery.memo.as_ref().map_or(0, Bytes::len);
        assert!(memo <= MEMO_BYTES_MAX, "a memo of {memo} bytes");
        for event in &delivery.events {
            let id = event.id.as_ref().map_or(0, Bytes::len);
            assert!(id <= ID_BYTES_MAX, "an id of {id} bytes");
        }
        self.events.extend(delivery.events.iter().cloned());
        self.open.push(delivery);
    }

    /// Keeps everything that was delivered: it is durable.
    pub fn keep(&mut self) {
        for delivery in self.open.drain(..) {
            self.memo = delivery.memo.or(self.memo.take());
            self.receiver.kept(delivery.ticket);
            self.kept.push(delivery.ticket);
        }
    }

    /// Settles everything that was kept.
    pub fn settle(&mut self) {
        for ticket in self.kept.drain(..) {
            self.receiver.settled(ticket);
        }
    }

    /// Receives, keeps and settles until `done`.
    ///
    /// # Panics
    /// If it does not come true in time; `what` names it.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        self.poll_until(what, true, &mut done);
    }

    fn poll_until(&mut self, what: &str, keeps: bool, done: &mut dyn FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}; said {:?}, delivered {:?}",
                self.said,
                self.values()
            );
            self.receive(SLICE);
            if keeps {
                self.keep();
                self.settle();
            }
        }
    }

    /// Receives for a while in which nothing is expected.
    pub fn watch(&mut self) {
        let deadline = Instant::now() + QUIET;
        while Instant::now() < deadline {
            self.receive(SLICE);
            self.keep();
            self.settle();
        }
    }

    /// The values of all events, in the order of the alphabet: queues promise no other.
    #[must_use]
    pub fn values(&self) -> Vec<String> {
        let value = |event: &Arrival| {
            let value = event.value.as_deref().unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        let mut values: Vec<_> = self.events.iter().map(value).collect();
        values.sort();
        values
    }
}

fn sorted(mut values: Vec<String>) -> Vec<String> {
    values.sort();
    values
}

fn each_event_comes_and_tickets_rise(place: &mut impl Place) {
    let mut driver = Driver::new(place.open(), None);
    place.publish(&numbered("a", 25));
    driver.until("25 events", |driver| driver.events.len() >= 25);
    place.publish(&numbered("b", 3));
    driver.until("three more", |driver| driver.events.len() >= 28);
    driver.watch();
    let expected = [numbered("a", 25), numbered("b", 3)].concat();
    assert_eq!(driver.values(), sorted(expected));
}

/// D03, D06: what comes again after it was kept bears the id it had.
fn what_was_kept_does_not_come_again_unrecognised(place: &mut impl Place) {
    let mut first = Driver::new(place.open(), None);
    place.publish(&numbered("a", 5));
    first.until("five events", |driver| driver.events.len() >= 5);
    first.receiver().close();
    let (memo, before) = (first.memo.take(), std::mem::take(&mut first.events));
    drop(first);
    place.reader_is_gone();
    let mut second = Driver::new(place.open(), memo);
    place.publish(&numbered("b", 2));
    second.until("both new ones", |driver| {
        let values = driver.values();
        numbered("b", 2).iter().all(|value| values.contains(value))
    });
    second.watch();
    let known: BTreeMap<_, _> = before
        .iter()
        .filter_map(|event| Some((event.id.clone()?, event.value.clone())))
        .collect();
    for event in &second.events {
        let value = event.value.as_deref().unwrap_or_default();
        let same = event.id.as_ref().and_then(|id| known.get(id));
        let is_new = value.starts_with(b"b");
        assert!(
            is_new || same == Some(&event.value),
            "unrecognised: {event:?}"
        );
    }
}

fn what_was_not_kept_comes_again_after_a_new_beginning(place: &mut impl Place) {
    let mut driver = Driver::new(place.open(), None);
    place.publish(&numbered("a", 5));
    let mut all = |driver: &mut Driver| driver.events.len() >= 5;
    driver.poll_until("five events", false, &mut all);
    driver.events.clear();
    driver.begin();
    driver.until("them again", |driver| driver.events.len() >= 5);
    assert_eq!(driver.values(), sorted(numbered("a", 5)));
}

fn an_empty_place_says_that_it_is_empty(place: &mut impl Place) {
    let mut driver = Driver::new(place.open(), None);
    driver.until("the end of nothing", |driver| driver.caught_up > 0);
    place.publish(&numbered("a", 3));
    driver.until("three events", |driver| driver.events.len() >= 3);
    driver.caught_up = 0;
    driver.until("the end of it", |driver| driver.caught_up > 0);
    assert_eq!(driver.events.len(), 3);
}

/// D09.
fn trouble_is_said_once_and_costs_nothing(place: &mut impl Place) {
    let mut driver = Driver::new(place.open(), None);
    place.publish(&numbered("a", 3));
    driver.until("three events", |driver| driver.events.len() >= 3);
    driver.said.clear();
    place.trouble(true);
    driver.until("the trouble", |driver| !driver.said.is_empty());
    driver.watch();
    // What reads and what tells the place may each have a reason of their own.
    let reasons: BTreeSet<_> = driver.said.iter().flatten().collect();
    assert_eq!(
        reasons.len(),
        driver.said.len(),
        "each said once: {:?}",
        driver.said
    );
    assert!(reasons.iter().all(|why| !why.is_empty()));
    place.trouble(false);
    place.publish(&numbered("b", 2));
    driver.until("what was missed", |driver| driver.events.len() >= 5);
    driver.until("the end of the trouble", |driver| {
        driver.said.last() == Some(&None)
    });
    let expected = [numbered("a", 3), numbered("b", 2)].concat();
    assert_eq!(driver.values(), sorted(expected));
}

fn leases_are_kept_and_unknown_tickets_ignored_at_any_time(place: &mut impl Place) {
    let mut driver = Driver::new(place.open(), None);
    driver.receiver().keep_alive();
    driver.receiver().settled(77);
    place.publish(&numbered("a", 12));
    let mut some = |driver: &mut Driver| {
        driver.receiver().keep_alive();
        !driver.events.is_empty()
    };
    driver.poll_until("an event", false, &mut some);
    driver.keep();
    driver.receiver().keep_alive();
    driver.settle();
    driver.until("all of them", |driver| driver.events.len() >= 12);
    driver.receiver().settled(1);
    driver.receiver().close();
    driver.receiver().keep_alive();
    assert_eq!(driver.values(), sorted(numbered("a", 12)));
}

/// D01: nothing is forgotten before it may be, and then all of it.
fn what_is_kept_or_settled_is_forgotten_outside(place: &mut impl Place) {
    if place.holds().is_none() {
        return;
    }
    let mut driver = Driver::new(place.open(), None);
    place.publish(&numbered("a", 12));
    let mut all = |driver: &mut Driver| driver.events.len() >= 12;
    driver.poll_until("12 events", false, &mut all);
    assert_eq!(place.holds(), Some(12), "nothing of it is durable");
    driver.keep();
    if driver.receiver().waits_for_outcome() {
        let deadline = Instant::now() + QUIET;
        while Instant::now() < deadline {
            driver.receive(SLICE);
        }
        assert_eq!(place.holds(), Some(12), "nothing of it is settled");
        driver.settle();
    }
    driver.until("an empty place", |_| place.holds() == Some(0));
    assert_eq!(driver.events.len(), 12);
}

fn a_waker_ends_a_blocked_receive(place: &mut impl Place) {
    let mut driver = Driver::new(place.open(), None);
    driver.until("the end of nothing", |driver| driver.caught_up > 0);
    let waker = driver.receiver().waker();
    let started = Instant::now();
    let thread = std::thread::spawn(move || waker.wake());
    driver.receive(PATIENCE);
    thread.join().expect("the waking thread ends");
    assert!(started.elapsed() < PATIENCE, "it sat out its whole wait");
}

fn closing_ends_within_its_bound(place: &mut impl Place) {
    let mut driver = Driver::new(place.open(), None);
    place.publish(&numbered("a", 30));
    driver.until("an event", |driver| !driver.events.is_empty());
    let started = Instant::now();
    driver.receiver().close();
    driver.receiver().close();
    let took = started.elapsed();
    assert!(took < CLOSE_WAIT * 2, "closing took {took:?}");
    let before = driver.events.len();
    driver.receive(SLICE);
    assert_eq!(driver.events.len(), before, "nothing comes after close");
}
