//! Checks that every clock passes: a log whose positions are instants, and that time itself writes.
//!
//! A connector's tests implement [`Timeline`] with a clock that makes up for every missed instant, and call
//! [`check_all`].

use std::time::{Duration, Instant};

use super::{Driver, PATIENCE, SLICE};
use crate::source::{CLOSE_WAIT, FirstPosition, LaneName, Source, SourceError};

/// A clock whose time a test moves.
pub trait Timeline {
    /// Opens it, as after a start of the engine; time stands where it was left.
    fn open(&self) -> Box<dyn Source>;
    /// Lets so many of its instants pass.
    fn pass(&self, instants: usize);
    /// Sets the time back by so many of its instants.
    fn turn_back(&self, instants: usize);
}

/// Runs every check, each on a timeline of its own.
pub fn check_all<T: Timeline>(mut timeline: impl FnMut() -> T) {
    nothing_is_delivered_before_start(&timeline());
    every_instant_comes_once_and_in_order(&timeline());
    closed_credit_delivers_nothing_and_loses_nothing(&timeline());
    it_resumes_at_any_instant(&timeline());
    what_has_fired_stays_fired_when_time_is_set_back(&timeline());
    a_first_position_is_the_moment_it_is_asked_for(&timeline());
    a_waker_ends_a_blocked_poll(&timeline());
    an_unknown_lane_is_refused(&timeline());
    closing_ends_within_its_bound(&timeline());
}

fn lane_of(driver: &mut Driver) -> LaneName {
    let lanes = driver.find_lanes(1);
    assert_eq!(lanes.len(), 1, "a clock is one stream of instants");
    lanes[0].clone()
}

/// Starts a clock at this moment, and says where that is.
fn begin(driver: &mut Driver) -> (LaneName, u64) {
    let lane = lane_of(driver);
    let from = driver.resolve(&lane, FirstPosition::Latest);
    driver.start(&lane, from);
    (lane, from)
}

fn positions(driver: &Driver, lane: &LaneName) -> Vec<u64> {
    let seen = driver.delivered.get(lane).map(Vec::as_slice);
    seen.unwrap_or_default().iter().map(|(at, _)| *at).collect()
}

fn receive(driver: &mut Driver, lane: &LaneName, count: usize) -> Vec<u64> {
    driver.receive(lane, count);
    let found = positions(driver, lane);
    assert_eq!(found.len(), count, "no instant comes twice or too early");
    found
}

fn nothing_is_delivered_before_start(timeline: &impl Timeline) {
    let mut driver = Driver::new(timeline.open());
    let lane = lane_of(&mut driver);
    let from = driver.resolve(&lane, FirstPosition::Latest);
    timeline.pass(3);
    driver.watch();
    assert!(driver.delivered.is_empty(), "instants before start_lane");
    driver.start(&lane, from);
    receive(&mut driver, &lane, 3);
}

fn every_instant_comes_once_and_in_order(timeline: &impl Timeline) {
    let mut driver = Driver::new(timeline.open());
    let (lane, from) = begin(&mut driver);
    for passed in 1..=5 {
        timeline.pass(1);
        receive(&mut driver, &lane, passed);
    }
    timeline.pass(20);
    let seen = receive(&mut driver, &lane, 25);
    assert!(seen[0] >= from && seen.is_sorted_by(|a, b| a < b));
}

fn closed_credit_delivers_nothing_and_loses_nothing(timeline: &impl Timeline) {
    let mut driver = Driver::new(timeline.open());
    let (lane, _) = begin(&mut driver);
    timeline.pass(2);
    receive(&mut driver, &lane, 2);
    driver.source().credit(&lane, false);
    timeline.pass(5);
    driver.watch();
    assert_eq!(positions(&driver, &lane).len(), 2, "its credit is closed");
    driver.source().credit(&lane, true);
    receive(&mut driver, &lane, 7);
}

fn it_resumes_at_any_instant(timeline: &impl Timeline) {
    let mut driver = Driver::new(timeline.open());
    let (lane, _) = begin(&mut driver);
    timeline.pass(10);
    let seen = receive(&mut driver, &lane, 10);
    driver.source().close();
    for at in [0, 4, 9] {
        let mut again = Driver::new(timeline.open());
        let lane = lane_of(&mut again);
        again.start(&lane, seen[at]);
        assert_eq!(receive(&mut again, &lane, 10 - at), seen[at..]);
        // Sent back, as after a commit that failed.
        again.delivered.clear();
        again.start(&lane, seen[9]);
        assert_eq!(receive(&mut again, &lane, 1), seen[9..]);
    }
}

/// G01: neither at once nor after a start does an instant fire again that has fired.
fn what_has_fired_stays_fired_when_time_is_set_back(timeline: &impl Timeline) {
    let mut driver = Driver::new(timeline.open());
    let (lane, _) = begin(&mut driver);
    timeline.pass(8);
    let seen = receive(&mut driver, &lane, 8);
    timeline.turn_back(5);
    driver.watch();
    receive(&mut driver, &lane, 8);
    let next = seen[7] + 1;
    let mut again = Driver::new(timeline.open());
    lane_of(&mut again);
    again.start(&lane, next);
    again.watch();
    assert!(again.delivered.is_empty(), "it fired before");
    timeline.pass(7);
    receive(&mut driver, &lane, 10);
    let new = receive(&mut again, &lane, 2);
    assert!(new[0] >= next);
}

fn a_first_position_is_the_moment_it_is_asked_for(timeline: &impl Timeline) {
    let mut driver = Driver::new(timeline.open());
    let lane = lane_of(&mut driver);
    timeline.pass(5);
    let from = driver.resolve(&lane, FirstPosition::Latest);
    timeline.pass(2);
    driver.start(&lane, from);
    receive(&mut driver, &lane, 2);
}

fn a_waker_ends_a_blocked_poll(timeline: &impl Timeline) {
    let mut driver = Driver::new(timeline.open());
    begin(&mut driver);
    let waker = driver.source().waker();
    let started = Instant::now();
    let thread = std::thread::spawn(move || waker.wake());
    driver.poll(PATIENCE);
    thread.join().expect("the waking thread ends");
    assert!(started.elapsed() < PATIENCE, "poll sat out its whole wait");
}

fn an_unknown_lane_is_refused(timeline: &impl Timeline) {
    let mut driver = Driver::new(timeline.open());
    lane_of(&mut driver);
    let stranger = LaneName::from("no such lane");
    let error = driver.source().start_lane(&stranger, 0, None);
    assert!(
        matches!(error, Err(SourceError::Refused(_))),
        "got {error:?}"
    );
    driver.source().credit(&stranger, false);
    driver.source().ack(&stranger, 3);
    driver.poll(SLICE);
}

fn closing_ends_within_its_bound(timeline: &impl Timeline) {
    let mut driver = Driver::new(timeline.open());
    let (lane, _) = begin(&mut driver);
    let started = Instant::now();
    driver.source().close();
    driver.source().close();
    assert!(
        started.elapsed() < CLOSE_WAIT * 2,
        "closing took {:?}",
        started.elapsed()
    );
    timeline.pass(3);
    driver.poll(Duration::from_millis(10));
    assert!(
        positions(&driver, &lane).is_empty(),
        "nothing is delivered after close"
    );
}
