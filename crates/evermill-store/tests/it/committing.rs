//! The committer: order, grouping, refusals, faults.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Barrier};

use evermill_core::row::Write;
use evermill_store::{
    Batch, CommitError, CommitId, Committer, Event, Fault, Faults, FaultyStore, Fence, Outcome,
    Step, Store,
};

use crate::conformance::{Place, state};
use crate::workload::{Content, writes};

/// More answers than any test here waits for, so that no ticket ever waits.
const ANSWERS: usize = 4_000;

type Answer = Result<CommitId, CommitError>;

fn ticket(answers: &SyncSender<Answer>) -> Box<dyn FnOnce(Answer) + Send> {
    let answers = answers.clone();
    Box::new(move |answer| drop(answers.send(answer)))
}

fn batch(fence: Fence, writes: Vec<Write>) -> Batch {
    Batch { fence, writes }
}

fn start(store: Box<dyn Store>) -> (Committer, Receiver<Event>) {
    let (sender, events) = sync_channel(ANSWERS);
    let committer = Committer::start(store, None, move |event| drop(sender.send(event)));
    (committer.expect("committer"), events)
}

#[test]
fn answers_come_in_order_and_everything_is_durable() {
    for place in Place::all() {
        let mut store = place.open();
        let fence = store.claim(0).expect("claim");
        let (committer, _events) = start(store);
        let (sender, answers) = sync_channel(ANSWERS);
        for seq in 1..=200 {
            committer.submit(batch(fence, writes(seq)), ticket(&sender));
        }
        let ids: Vec<_> = (0..200)
            .map(|_| answers.recv().expect("answer").expect("durable"))
            .collect();
        assert!(ids.is_sorted(), "order is kept");
        drop(committer.stop().expect("store"));
        let mut store = place.open();
        assert_eq!(Content::of(&mut *store).expect("load"), Content::after(200));
    }
}

#[test]
fn what_waits_during_a_commit_goes_into_one_group() {
    let place = Place::sqlite();
    let mut store = place.open();
    let fence = store.claim(0).expect("claim");
    let before = store.header().last.map_or(0, |last| last.seq);
    // The committer stops at its first drained group until everything else is queued.
    let gate = Arc::new(Barrier::new(2));
    let (hook_gate, first) = (Arc::clone(&gate), std::sync::Once::new());
    let hook = Arc::new(move |step| {
        if step == Step::GroupDrained {
            first.call_once(|| {
                hook_gate.wait();
            });
        }
    });
    let committer = Committer::start(store, Some(hook), |_| {}).expect("committer");
    let (sender, answers) = sync_channel(ANSWERS);
    committer.submit(batch(fence, vec![state("first", "")]), ticket(&sender));
    let wait = || answers.recv().expect("answer").expect("durable").seq;
    // Whether or not the first is drained yet, the rest cannot be drained before the gate opens.
    for n in 0..100 {
        committer.submit(
            batch(fence, vec![state(&n.to_string(), "")]),
            ticket(&sender),
        );
    }
    gate.wait();
    let seqs: Vec<_> = (0..101).map(|_| wait()).collect();
    let last = seqs.last().copied().unwrap_or(0);
    assert!(
        last <= before + 2,
        "101 batches took {} commits",
        last - before
    );
}

#[test]
fn refused_fence_fails_its_batch_only() {
    for place in Place::all() {
        let mut store = place.open();
        let old = store.claim(0).expect("claim");
        let new = store.claim(0).expect("claim");
        let (committer, _events) = start(store);
        let (sender, answers) = sync_channel(ANSWERS);
        for fence in [new, old, new] {
            committer.submit(batch(fence, vec![state("a", "")]), ticket(&sender));
        }
        let good: Vec<_> = (0..3)
            .map(|_| answers.recv().expect("answer").is_ok())
            .collect();
        assert_eq!(good, [true, false, true]);
    }
}

#[test]
fn work_between_commits_sees_what_was_submitted_before_it() {
    let place = Place::memory();
    let mut store = place.open();
    let fence = store.claim(0).expect("claim");
    let (committer, _events) = start(store);
    let (sender, _answers) = sync_channel(ANSWERS);
    let (seen_sender, seen) = sync_channel(ANSWERS);
    committer.submit(batch(fence, vec![state("a", "")]), ticket(&sender));
    committer.between(Box::new(move |store| {
        drop(seen_sender.send((Content::of(store).expect("load").rows.len(), store.claim(0))));
    }));
    let (rows, claimed) = seen.recv().expect("ran");
    assert_eq!(rows, 1);
    assert_eq!(claimed.expect("claim").token, fence.token + 1);
}

#[test]
fn full_disk_keeps_order_and_goes_on_when_space_returns() {
    let place = Place::memory();
    let faults = Faults::default();
    [1, 2, 3]
        .into_iter()
        .for_each(|nth| faults.at(nth, Fault::Full));
    let mut store: Box<dyn Store> = Box::new(FaultyStore::new(place.open(), faults.clone()));
    let fence = store.claim(0).expect("claim");
    let (committer, events) = start(store);
    let (sender, answers) = sync_channel(ANSWERS);
    for seq in 1..=5 {
        committer.submit(batch(fence, writes(seq)), ticket(&sender));
    }
    assert!(matches!(events.recv(), Ok(Event::Full)));
    assert!(matches!(events.recv(), Ok(Event::SpaceBack)));
    assert!((0..5).all(|_| answers.recv().expect("answer").is_ok()));
    assert_eq!(faults.fired(), 3);
    let mut store = committer.stop().expect("store");
    assert_eq!(Content::of(&mut *store).expect("load"), Content::after(5));
}

#[test]
fn stop_on_a_full_disk_answers_everybody() {
    let place = Place::memory();
    let faults = Faults::default();
    (1..1_000).for_each(|nth| faults.at(nth, Fault::Full));
    let mut store: Box<dyn Store> = Box::new(FaultyStore::new(place.open(), faults));
    let fence = store.claim(0).expect("claim");
    let (committer, events) = start(store);
    let (sender, answers) = sync_channel(ANSWERS);
    committer.submit(batch(fence, vec![state("a", "")]), ticket(&sender));
    assert!(matches!(events.recv(), Ok(Event::Full)));
    committer.submit(batch(fence, vec![state("b", "")]), ticket(&sender));
    drop(committer.stop().expect("store"));
    let answers: Vec<_> = (0..2).map(|_| answers.recv().expect("answer")).collect();
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
}

#[test]
fn unknown_outcome_is_looked_up_after_opening_again() {
    let cases = [
        (Fault::UnknownCommitted, Outcome::Committed, 2),
        (Fault::UnknownAbsent, Outcome::Absent, 1),
    ];
    for (fault, outcome, rows) in cases {
        for place in Place::all() {
            let faults = Faults::default();
            faults.at(2, fault);
            let mut store: Box<dyn Store> = Box::new(FaultyStore::new(place.open(), faults));
            let fence = store.claim(0).expect("claim");
            let (committer, events) = start(store);
            let (sender, answers) = sync_channel(ANSWERS);
            committer.submit(batch(fence, vec![state("a", "")]), ticket(&sender));
            answers.recv().expect("answer").expect("durable");
            committer.submit(batch(fence, vec![state("b", "")]), ticket(&sender));
            let Err(CommitError::Unknown(id)) = answers.recv().expect("answer") else {
                panic!("{fault:?} was not reported");
            };
            assert!(matches!(
                events.recv(),
                Ok(Event::Stopped(CommitError::Unknown(_)))
            ));
            committer.submit(batch(fence, vec![state("c", "")]), ticket(&sender));
            assert_eq!(answers.recv().expect("answer"), Err(CommitError::Stopped));
            drop(committer.stop().expect("store"));
            let mut store = place.open();
            assert_eq!(store.outcome(id).expect("known"), outcome);
            assert_eq!(Content::of(&mut *store).expect("load").rows.len(), rows);
        }
    }
}

#[test]
fn fatal_error_stops_for_good_and_answers_everybody() {
    for (fault, rows) in [(Fault::FatalBefore, 0), (Fault::FatalAfter, 1)] {
        let place = Place::memory();
        let faults = Faults::default();
        faults.next(fault);
        let mut store: Box<dyn Store> = Box::new(FaultyStore::new(place.open(), faults));
        let fence = store.claim(0).expect("claim");
        let (committer, events) = start(store);
        let (sender, answers) = sync_channel(ANSWERS);
        for _ in 0..10 {
            committer.submit(batch(fence, vec![state("a", "")]), ticket(&sender));
        }
        assert!((0..10).all(|_| answers.recv().expect("answer").is_err()));
        assert!(matches!(
            events.recv(),
            Ok(Event::Stopped(CommitError::Fatal(_)))
        ));
        let store = committer.stop().expect("store");
        assert!(store.close_clean().is_err(), "such a stop is not clean");
        let mut store = place.open();
        assert_eq!(Content::of(&mut *store).expect("load").rows.len(), rows);
        assert!(!store.header().clean);
    }
}

#[test]
fn panicking_ticket_does_not_leave_others_waiting() {
    let place = Place::memory();
    let mut store = place.open();
    let fence = store.claim(0).expect("claim");
    let (committer, _events) = start(store);
    let (sender, answers) = sync_channel(ANSWERS);
    committer.submit(batch(fence, vec![]), Box::new(|_| panic!("on purpose")));
    for _ in 0..2_000 {
        committer.submit(batch(fence, vec![]), ticket(&sender));
    }
    let answered = (0..2_000)
        .filter(|_| answers.recv().expect("answer").is_err())
        .count();
    assert!(answered > 0);
    assert!(committer.stop().is_err());
}

/// Commits on this thread, as soon as the committer's own rests.
fn here(committer: &Committer, mut given: Batch) -> Answer {
    loop {
        match committer.commit_here(given) {
            Ok(answer) => return answer,
            Err(back) => given = back,
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_caller_that_commits_by_itself_keeps_order_with_what_is_submitted() {
    for place in Place::all() {
        let mut store = place.open();
        let fence = store.claim(0).expect("claim");
        let (committer, _events) = start(store);
        let (sender, answers) = sync_channel(ANSWERS);
        let mut ids = Vec::new();
        for seq in 1..=60 {
            if seq % 3 == 0 {
                committer.submit(batch(fence, writes(seq)), ticket(&sender));
                ids.push(answers.recv().expect("answer").expect("durable"));
            } else {
                ids.push(here(&committer, batch(fence, writes(seq))).expect("durable"));
            }
        }
        assert!(ids.is_sorted(), "order is kept");
        drop(committer.stop().expect("store"));
        let mut store = place.open();
        assert_eq!(Content::of(&mut *store).expect("load"), Content::after(60));
    }
}

#[test]
fn a_caller_does_not_commit_ahead_of_what_is_queued() {
    let place = Place::memory();
    let mut store = place.open();
    let fence = store.claim(0).expect("claim");
    let (committer, _events) = start(store);
    let (sender, answers) = sync_channel(ANSWERS);
    let gate = Arc::new(Barrier::new(2));
    let theirs = Arc::clone(&gate);
    committer.between(Box::new(move |_| {
        theirs.wait();
    }));
    committer.submit(batch(fence, vec![state("a", "")]), ticket(&sender));
    let refused = committer.commit_here(batch(fence, vec![state("b", "")]));
    assert_eq!(refused, Err(batch(fence, vec![state("b", "")])));
    gate.wait();
    answers.recv().expect("answer").expect("durable");
    here(&committer, batch(fence, vec![state("b", "")])).expect("durable");
}

#[test]
fn a_caller_that_commits_by_itself_hears_what_went_wrong() {
    let place = Place::memory();
    let faults = Faults::default();
    let mut store: Box<dyn Store> = Box::new(FaultyStore::new(place.open(), faults.clone()));
    let old = store.claim(0).expect("claim");
    let fence = store.claim(0).expect("claim");
    let (committer, events) = start(store);
    let (sender, answers) = sync_channel(ANSWERS);
    let one = || batch(fence, vec![state("a", "")]);
    let fenced = here(&committer, batch(old, vec![state("a", "")]));
    assert!(matches!(fenced, Err(CommitError::Fenced { .. })));

    // A full disk is waited out by the thread.
    here(&committer, one()).expect("durable");
    faults.next(Fault::Full);
    let fired = faults.fired();
    while faults.fired() == fired {
        if let Ok(answer) = committer.commit_here(one()) {
            panic!("a full disk was answered {answer:?}");
        }
    }
    committer.submit(one(), ticket(&sender));
    answers.recv().expect("answer").expect("durable");

    faults.next(Fault::FatalBefore);
    let fatal = here(&committer, one());
    assert!(matches!(fatal, Err(CommitError::Fatal(_))), "{fatal:?}");
    committer.submit(one(), ticket(&sender));
    assert_eq!(
        answers.recv().expect("answer"),
        Err(CommitError::Stopped),
        "nothing is committed behind it"
    );
    assert!(
        events.try_recv().is_err(),
        "the caller knows, nobody else is told"
    );
}

#[test]
fn what_takes_long_to_write_is_left_to_the_thread() {
    let place = Place::memory();
    let mut store = place.open();
    let fence = store.claim(0).expect("claim");
    let (committer, _events) = start(store);
    here(&committer, batch(fence, vec![state("small", "")])).expect("durable");
    let large = "x".repeat(evermill_store::limits::COMMIT_HERE_BYTES + 1);
    let given = committer.commit_here(batch(fence, vec![state("large", &large)]));
    assert!(given.is_err(), "{:?}", given.map(|_| ()));
}
