//! Checks that every sink passes, wherever it leads: each effect key is seen at the other end, a repeat
//! bears the same one, those of one key stay in order, and what is refused for good says why and holds up
//! nobody.
//!
//! A connector's tests implement [`World`] and call [`check_all`]. Each check gets a world of its own,
//! and panics with what it saw when something does not hold.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Record, Sink, SinkError};

/// A place outside, under the control of a test.
pub trait World {
    /// Opens a sink that leads there, as after a start of the engine.
    fn open(&mut self) -> Box<dyn Sink>;
    /// A record with this value, as the engine would make it for this place.
    fn record(&self, value: &str, effect_key: &str) -> Record;
    /// What the place holds after the records before have been answered: by effect key, each value that
    /// can be told apart there, in order of arrival.
    fn arrived(&mut self) -> BTreeMap<String, Vec<String>>;
    /// The values that arrived, in their order; None where the place has no order.
    fn order(&mut self) -> Option<Vec<String>>;
    /// From now on the place refuses for good what has this value. False when it never refuses anything.
    fn refuse(&mut self, value: &str) -> bool;
    /// The place is away until it is brought back.
    fn away(&mut self, away: bool);
    /// Whether a repeat replaces what was there, or is dropped, so that it is there once.
    fn keeps_one(&self) -> bool;
    /// The bytes of a value that is too large for the place, if there is a bound.
    fn too_large(&self) -> Option<usize>;
}

/// Long enough for any place on loopback; a loaded machine is not a bug.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a place that is away is given.
const SHORT: Duration = Duration::from_secs(2);

/// Runs every check, each on a world of its own.
pub fn check_all<W: World>(mut world: impl FnMut() -> W) {
    every_record_arrives_with_its_effect_key(&mut world());
    a_repeat_with_the_same_effect_key_can_be_told(&mut world());
    one_that_is_refused_for_good_holds_up_no_other(&mut world());
    a_place_that_is_away_is_said_to_be_within_the_wait(&mut world());
    what_was_not_taken_is_taken_later(&mut world());
    many_are_sent_side_by_side_and_answered_in_order(&mut world());
    two_that_are_open_at_once_do_not_mix(&mut world());
    those_of_one_key_arrive_in_order(&mut world());
    one_that_is_too_large_is_refused_for_good_and_says_so(&mut world());
    nothing_is_sent_by_no_records(&mut world());
}

fn send(sink: &dyn Sink, records: Vec<Record>) -> Vec<Result<(), SinkError>> {
    let count = records.len();
    let answers = sink.send(records, PATIENCE);
    assert_eq!(answers.len(), count, "an answer for each record");
    answers
}

fn refused(answer: &Result<(), SinkError>) {
    match answer {
        Err(SinkError::ForGood(why)) => assert!(why.len() > 10, "a reason for people: {why:?}"),
        other => panic!("it is refused for good, not {other:?}"),
    }
}

fn values(arrived: &BTreeMap<String, Vec<String>>, effect_key: &str) -> Vec<String> {
    arrived.get(effect_key).cloned().unwrap_or_default()
}

fn every_record_arrives_with_its_effect_key(world: &mut impl World) {
    let sink = world.open();
    let records = ["a", "b", "c"].map(|value| world.record(value, &format!("key-{value}")));
    for answer in send(&*sink, records.into()) {
        answer.expect("it is taken");
    }
    let arrived = world.arrived();
    for value in ["a", "b", "c"] {
        assert_eq!(values(&arrived, &format!("key-{value}")), [value]);
    }
}

fn a_repeat_with_the_same_effect_key_can_be_told(world: &mut impl World) {
    for _ in 0..2 {
        let sink = world.open();
        let record = world.record("a", "key-a");
        send(&*sink, vec![record]).remove(0).expect("it is taken");
    }
    let arrived = world.arrived();
    assert_eq!(arrived.len(), 1, "one effect key: {arrived:?}");
    let times = if world.keeps_one() { 1 } else { 2 };
    assert_eq!(values(&arrived, "key-a"), vec!["a"; times]);
}

fn one_that_is_refused_for_good_holds_up_no_other(world: &mut impl World) {
    if !world.refuse("bad") {
        return;
    }
    let sink = world.open();
    let records = ["a", "bad", "c"].map(|value| world.record(value, &format!("key-{value}")));
    let answers = send(&*sink, records.into());
    assert_eq!((&answers[0], &answers[2]), (&Ok(()), &Ok(())));
    refused(&answers[1]);
    let arrived = world.arrived();
    assert_eq!(values(&arrived, "key-a"), ["a"]);
    assert_eq!(values(&arrived, "key-c"), ["c"]);
}

fn a_place_that_is_away_is_said_to_be_within_the_wait(world: &mut impl World) {
    world.away(true);
    let sink = world.open();
    let record = world.record("a", "key-a");
    let begun = Instant::now();
    let answer = sink.send(vec![record], SHORT).remove(0);
    let may_pass = |error: &SinkError| !matches!(error, SinkError::ForGood(_));
    assert!(answer.as_ref().is_err_and(may_pass), "{answer:?}");
    assert!(begun.elapsed() < SHORT + PATIENCE, "it waits for ever");
    world.away(false);
}

fn what_was_not_taken_is_taken_later(world: &mut impl World) {
    world.away(true);
    let sink = world.open();
    let record = world.record("a", "key-a");
    drop(sink.send(vec![record.clone()], SHORT));
    world.away(false);
    // The same sink: what is away comes back, and nobody opens anything anew for it.
    let begun = Instant::now();
    while let Err(error) = sink.send(vec![record.clone()], SHORT).remove(0) {
        assert!(begun.elapsed() < PATIENCE, "{error}");
    }
    assert!(!values(&world.arrived(), "key-a").is_empty());
}

fn many_are_sent_side_by_side_and_answered_in_order(world: &mut impl World) {
    let refuses = world.refuse("v77");
    let sink = world.open();
    let name = |n: usize| format!("v{n}");
    let records = (0..200).map(|n| world.record(&name(n), &format!("key-{n}")));
    let answers = send(&*sink, records.collect());
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_ok(), n != 77 || !refuses, "{n}: {answer:?}");
    }
    let arrived = world.arrived();
    for n in (0..200).filter(|n| *n != 77) {
        assert_eq!(values(&arrived, &format!("key-{n}")), [name(n)]);
    }
}

fn two_that_are_open_at_once_do_not_mix(world: &mut impl World) {
    let (one, other) = (world.open(), world.open());
    let of = |value: &str| world.record(value, &format!("key-{value}"));
    let (first, second) = (of("a"), of("b"));
    std::thread::scope(|scope| {
        scope.spawn(|| send(&*one, vec![first]).remove(0).expect("it is taken"));
        scope.spawn(|| send(&*other, vec![second]).remove(0).expect("it is taken"));
    });
    drop(one);
    let third = world.record("c", "key-c");
    send(&*other, vec![third])
        .remove(0)
        .expect("it is open still");
    let arrived = world.arrived();
    for value in ["a", "b", "c"] {
        assert_eq!(values(&arrived, &format!("key-{value}")), [value]);
    }
}

fn those_of_one_key_arrive_in_order(world: &mut impl World) {
    let sink = world.open();
    let keyed = |n: usize| Record {
        key: Some(Bytes::from(format!("k{}", n % 5))),
        ..world.record(&format!("o{n}"), &format!("key-{n}"))
    };
    let records: Vec<Record> = (0..100).map(keyed).collect();
    for answer in send(&*sink, records) {
        answer.expect("it is taken");
    }
    let Some(order) = world.order() else { return };
    assert_eq!(order.len(), 100);
    for key in 0..5 {
        let number = |value: &String| value[1..].parse::<usize>().expect("a number");
        let of_key = order.iter().map(number).filter(|n| n % 5 == key);
        assert!(of_key.is_sorted(), "key {key}: {order:?}");
    }
}

fn one_that_is_too_large_is_refused_for_good_and_says_so(world: &mut impl World) {
    let Some(bytes) = world.too_large() else {
        return;
    };
    let sink = world.open();
    let large = world.record(&"x".repeat(bytes), "key-x");
    let after = world.record("b", "key-b");
    let answers = send(&*sink, vec![large, after]);
    refused(&answers[0]);
    assert_eq!(answers[1], Ok(()));
    assert_eq!(values(&world.arrived(), "key-b"), ["b"]);
}

fn nothing_is_sent_by_no_records(world: &mut impl World) {
    let sink = world.open();
    assert_eq!(send(&*sink, Vec::new()), []);
    assert!(world.arrived().is_empty());
}

/// A record of a value and an effect key, for places that need no more.
#[must_use]
pub fn plain(value: &str, effect_key: &str) -> Record {
    Record {
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        effect_key: Some(effect_key.to_owned()),
        ..Record::default()
    }
}
