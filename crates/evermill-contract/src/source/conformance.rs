//! Checks that every source passes whose events can be read again. Other kinds have checks of their own:
//! clocks those in [`timing`], what is kept first those in [`receiving`] and, where others bring it, in
//! [`pushing`].
//!
//! A connector's tests implement [`World`] and call [`check_all`]. Each check gets a world of its
//! own, waits for conditions, and panics with what it saw when one does not come true.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub mod pushing;
pub mod receiving;
pub mod timing;

use super::{CLOSE_WAIT, FirstPosition, LaneName, Source, SourceError, SourceEvent};

/// What a source listens to, under the control of a test.
pub trait World {
    /// Opens a source on this world, as after a start of the engine.
    fn open(&mut self) -> Box<dyn Source>;
    /// Appends events with these values to a lane; returns once the world has accepted them.
    fn publish(&mut self, lane: &LaneName, values: &[String]);
    /// How many lanes it has; at least two.
    fn lanes(&self) -> usize;
}

/// Runs every check, each on a world of its own.
pub fn check_all<W: World>(mut world: impl FnMut() -> W) {
    nothing_is_delivered_before_start(&mut world());
    order_is_kept_within_a_lane(&mut world());
    closed_credit_delivers_nothing_and_loses_nothing(&mut world());
    a_lane_resumes_from_any_position(&mut world());
    a_started_lane_can_be_sent_back(&mut world());
    reopening_at_a_position_delivers_again(&mut world());
    the_latest_position_skips_what_was_there(&mut world());
    a_caught_up_lane_says_so(&mut world());
    a_waker_ends_a_blocked_poll(&mut world());
    an_unknown_lane_is_refused(&mut world());
    closing_ends_within_its_bound(&mut world());
}

const PATIENCE: Duration = Duration::from_secs(30);
const SLICE: Duration = Duration::from_millis(50);
/// How long "nothing comes" is watched. A broken source that delivers later passes by luck, a
/// right one never fails.
const QUIET: Duration = Duration::from_millis(600);

/// A source being driven, and all it has said.
pub struct Driver {
    source: Box<dyn Source>,
    /// Every event it delivered, by lane: position and value.
    pub delivered: BTreeMap<LaneName, Vec<(u64, String)>>,
    /// Everything else it said, in order.
    pub said: Vec<SourceEvent>,
}

impl Driver {
    /// Drives `source` from its first poll.
    #[must_use]
    pub fn new(source: Box<dyn Source>) -> Self {
        Self {
            source,
            delivered: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    /// The source itself.
    pub fn source(&mut self) -> &mut dyn Source {
        self.source.as_mut()
    }

    /// Polls once.
    ///
    /// # Panics
    /// If the source fails, or delivers an empty batch or positions that do not rise.
    pub fn poll(&mut self, wait: Duration) {
        let mut out = Vec::new();
        self.source.poll(wait, &mut out).expect("the source works");
        for event in out {
            let SourceEvent::Batch { lane, batch } = event else {
                self.said.push(event);
                continue;
            };
            assert!(!batch.events.is_empty(), "an empty batch of {lane}");
            let seen = self.delivered.entry(lane.clone()).or_default();
            for event in batch.iter() {
                let value = String::from_utf8_lossy(event.value().unwrap_or_default());
                seen.push((event.meta.position, value.into_owned()));
            }
        }
    }

    /// Polls until `done`.
    ///
    /// # Panics
    /// If it does not come true within half a minute; `what` names it.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}; said {:?}, delivered {:?}",
                self.said,
                self.counts()
            );
            self.poll(SLICE);
        }
    }

    /// Polls for a while in which nothing is expected.
    pub fn watch(&mut self) {
        let deadline = Instant::now() + QUIET;
        while Instant::now() < deadline {
            self.poll(SLICE);
        }
    }

    /// Waits until `count` lanes are found and returns their names in order.
    pub fn find_lanes(&mut self, count: usize) -> Vec<LaneName> {
        self.until("the lanes", |driver| driver.lanes().len() >= count);
        self.lanes()
    }

    /// The lanes found so far, in order of name.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneName> {
        let mut lanes: Vec<_> = self.said.iter().filter_map(found).collect();
        lanes.sort();
        lanes.dedup();
        lanes
    }

    /// Resolves a lane, trying again while the world is not ready.
    ///
    /// # Panics
    /// If it is refused or takes longer than half a minute.
    pub fn resolve(&mut self, lane: &LaneName, first: FirstPosition) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.source.resolve(lane, first) {
                Ok(resolved) => return resolved.position,
                Err(SourceError::Unavailable(_)) if Instant::now() < deadline => self.poll(SLICE),
                Err(error) => panic!("cannot resolve {lane}: {error}"),
            }
        }
    }

    /// Finds all lanes and starts each at its first event.
    pub fn start_all(&mut self, count: usize) -> Vec<LaneName> {
        let lanes = self.find_lanes(count);
        for lane in &lanes {
            let from = self.resolve(lane, FirstPosition::Earliest);
            self.start(lane, from);
        }
        lanes
    }

    /// Starts a lane.
    ///
    /// # Panics
    /// If the source does not want to.
    pub fn start(&mut self, lane: &LaneName, from: u64) {
        self.source
            .start_lane(lane, from, None)
            .expect("the lane starts");
    }

    /// The values a lane has delivered.
    #[must_use]
    pub fn values(&self, lane: &LaneName) -> Vec<String> {
        let seen = self
            .delivered
            .get(lane)
            .map(Vec::as_slice)
            .unwrap_or_default();
        seen.iter().map(|(_, value)| value.clone()).collect()
    }

    /// Waits until a lane has delivered `count` events and checks that positions rise.
    ///
    /// # Panics
    /// If they do not come, or do not rise.
    pub fn receive(&mut self, lane: &LaneName, count: usize) -> Vec<(u64, String)> {
        self.until(&format!("{count} events of {lane}"), |driver| {
            driver
                .delivered
                .get(lane)
                .is_some_and(|seen| seen.len() >= count)
        });
        let seen = self.delivered[lane].clone();
        assert!(
            seen.is_sorted_by(|a, b| a.0 < b.0),
            "positions of {lane} rise"
        );
        seen
    }

    fn counts(&self) -> BTreeMap<&str, usize> {
        self.delivered
            .iter()
            .map(|(lane, seen)| (lane.as_str(), seen.len()))
            .collect()
    }
}

fn found(event: &SourceEvent) -> Option<LaneName> {
    match event {
        SourceEvent::Lane(lane) => Some(lane.name.clone()),
        _ => None,
    }
}

/// `count` different values.
#[must_use]
pub fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

fn nothing_is_delivered_before_start(world: &mut impl World) {
    let mut driver = Driver::new(world.open());
    let lanes = driver.find_lanes(world.lanes());
    world.publish(&lanes[0], &numbered("early", 10));
    driver.watch();
    assert!(
        driver.delivered.is_empty(),
        "events before start_lane: {:?}",
        driver.counts()
    );
    let from = driver.resolve(&lanes[0], FirstPosition::Earliest);
    driver.start(&lanes[0], from);
    driver.receive(&lanes[0], 10);
    assert_eq!(driver.values(&lanes[0]), numbered("early", 10));
}

fn order_is_kept_within_a_lane(world: &mut impl World) {
    let mut driver = Driver::new(world.open());
    let lanes = driver.start_all(world.lanes());
    for round in 0..3 {
        for lane in &lanes {
            world.publish(lane, &numbered(&format!("{lane}-{round}-"), 200));
        }
    }
    for lane in &lanes {
        driver.receive(lane, 600);
        let expected: Vec<_> = (0..3)
            .flat_map(|round| numbered(&format!("{lane}-{round}-"), 200))
            .collect();
        assert_eq!(driver.values(lane), expected, "order of {lane}");
    }
}

/// C15: a lane without credit is polled on.
fn closed_credit_delivers_nothing_and_loses_nothing(world: &mut impl World) {
    let mut driver = Driver::new(world.open());
    let lanes = driver.start_all(world.lanes());
    world.publish(&lanes[0], &numbered("a", 5));
    driver.receive(&lanes[0], 5);

    driver.source().credit(&lanes[0], false);
    driver.source().credit(&lanes[0], false);
    world.publish(&lanes[0], &numbered("b", 50));
    world.publish(&lanes[1], &numbered("c", 50));
    driver.receive(&lanes[1], 50);
    driver.watch();
    assert_eq!(
        driver.values(&lanes[0]).len(),
        5,
        "a closed lane delivers nothing"
    );

    driver.source().credit(&lanes[0], true);
    driver.receive(&lanes[0], 55);
    let expected = [numbered("a", 5), numbered("b", 50)].concat();
    assert_eq!(driver.values(&lanes[0]), expected);
}

fn a_lane_resumes_from_any_position(world: &mut impl World) {
    let mut driver = Driver::new(world.open());
    let lanes = driver.start_all(world.lanes());
    world.publish(&lanes[0], &numbered("e", 30));
    let seen = driver.receive(&lanes[0], 30);
    driver.source().close();

    for start in [0, 7, 29] {
        let mut again = Driver::new(world.open());
        again.find_lanes(world.lanes());
        again.start(&lanes[0], seen[start].0);
        assert_eq!(again.receive(&lanes[0], 30 - start), seen[start..]);
        again.source().close();
    }
}

fn a_started_lane_can_be_sent_back(world: &mut impl World) {
    let mut driver = Driver::new(world.open());
    let lanes = driver.start_all(world.lanes());
    world.publish(&lanes[0], &numbered("e", 40));
    let seen = driver.receive(&lanes[0], 40);
    for back_to in [35, 3, 20] {
        world.publish(&lanes[0], &numbered("more", 1));
        driver.delivered.clear();
        driver.start(&lanes[0], seen[back_to].0);
        let again = driver.receive(&lanes[0], 40 - back_to);
        assert_eq!(
            again[..40 - back_to],
            seen[back_to..],
            "sent back to event {back_to}"
        );
    }
}

fn reopening_at_a_position_delivers_again(world: &mut impl World) {
    let mut first = Driver::new(world.open());
    let lanes = first.start_all(world.lanes());
    world.publish(&lanes[0], &numbered("e", 20));
    let seen = first.receive(&lanes[0], 20);
    first.source().ack(&lanes[0], seen[19].0 + 1);
    drop(first);

    let mut second = Driver::new(world.open());
    second.find_lanes(world.lanes());
    second.start(&lanes[0], seen[10].0);
    let again = second.receive(&lanes[0], 10);
    assert_eq!(
        again,
        seen[10..],
        "an acknowledgement is a hint, the position is the truth"
    );
}

fn the_latest_position_skips_what_was_there(world: &mut impl World) {
    let mut driver = Driver::new(world.open());
    let lanes = driver.find_lanes(world.lanes());
    world.publish(&lanes[0], &numbered("old", 5));
    let from = driver.resolve(&lanes[0], FirstPosition::Latest);
    world.publish(&lanes[0], &numbered("new", 5));
    driver.start(&lanes[0], from);
    driver.receive(&lanes[0], 5);
    assert_eq!(driver.values(&lanes[0]), numbered("new", 5));
}

fn a_caught_up_lane_says_so(world: &mut impl World) {
    let mut driver = Driver::new(world.open());
    let lanes = driver.start_all(world.lanes());
    driver.until("empty lanes to be caught up", |driver| {
        lanes.iter().all(|lane| caught_up(driver, lane, 0))
    });
    world.publish(&lanes[0], &numbered("e", 8));
    let seen = driver.receive(&lanes[0], 8);
    let end = seen[7].0 + 1;
    driver.until("the lane to be caught up again", |driver| {
        caught_up(driver, &lanes[0], end)
    });
}

fn caught_up(driver: &Driver, lane: &LaneName, to: u64) -> bool {
    driver.said.iter().any(
        |event| matches!(event, SourceEvent::CaughtUp { lane: of, end } if of == lane && *end >= to),
    )
}

fn a_waker_ends_a_blocked_poll(world: &mut impl World) {
    let mut driver = Driver::new(world.open());
    driver.start_all(world.lanes());
    let waker = driver.source().waker();
    let started = Instant::now();
    let thread = std::thread::spawn(move || waker.wake());
    driver.poll(PATIENCE);
    thread.join().expect("the waking thread ends");
    assert!(started.elapsed() < PATIENCE, "poll sat out its whole wait");
}

fn an_unknown_lane_is_refused(world: &mut impl World) {
    let mut driver = Driver::new(world.open());
    driver.find_lanes(world.lanes());
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

fn closing_ends_within_its_bound(world: &mut impl World) {
    let mut driver = Driver::new(world.open());
    let lanes = driver.start_all(world.lanes());
    world.publish(&lanes[0], &numbered("e", 100));
    driver.receive(&lanes[0], 1);
    let started = Instant::now();
    driver.source().close();
    driver.source().close();
    assert!(
        started.elapsed() < CLOSE_WAIT * 2,
        "closing took {:?}",
        started.elapsed()
    );
    let before = driver.values(&lanes[0]).len();
    driver.poll(SLICE);
    assert_eq!(
        driver.values(&lanes[0]).len(),
        before,
        "nothing is delivered after close"
    );
}
