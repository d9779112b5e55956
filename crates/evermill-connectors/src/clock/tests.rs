use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evermill_contract::manifest::{Catchup, CronSource, EverySource};
use evermill_contract::source::conformance::timing::{Timeline, check_all};
use evermill_contract::source::{
    FirstPosition, LaneName, Place, Source, SourceBudget, SourceEvent,
};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn cron(expr: &str, zone: &str) -> Instants {
    let source = CronSource {
        expr: expr.to_owned(),
        timezone: zone.to_owned(),
        catchup: Catchup::None,
    };
    Instants::of_cron(&source).unwrap()
}

fn ns(text: &str) -> u64 {
    let at: jiff::Timestamp = text.parse().unwrap();
    u64::try_from(at.as_nanosecond()).unwrap()
}

fn text(ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(ns.into())
        .unwrap()
        .to_string()
}

/// Everything that fires in `from..to`.
fn firing(instants: &Instants, from: &str, to: &str) -> Vec<String> {
    let (mut at, end) = (ns(from), ns(to));
    let mut found = Vec::new();
    while let Some(instant) = instants.from(at).filter(|instant| *instant < end) {
        found.push(text(instant));
        at = instant + 1;
    }
    found
}

/// G02, G03.
/// Daylight saving time: New York leaves winter time on 2026-03-08 at 07:00 UTC and comes back on
/// 2026-11-01 at 06:00 UTC. Lord Howe Island moves by half an hour.
#[test]
fn wall_clocks_that_jump_lose_no_instant_and_double_none() {
    let table: [(&str, &str, &str, &str, &[&str]); 7] = [
        // In the gap: at its end, once, and as usual the next day.
        (
            "30 2 * * *",
            "America/New_York",
            "2026-03-08T00:00:00Z",
            "2026-03-10T00:00:00Z",
            &["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"],
        ),
        // Comes twice: fires the first time.
        (
            "30 1 * * *",
            "America/New_York",
            "2026-11-01T00:00:00Z",
            "2026-11-02T12:00:00Z",
            &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"],
        ),
        // Each hour that passes, whatever it is called.
        (
            "0 * * * *",
            "America/New_York",
            "2026-11-01T04:30:00Z",
            "2026-11-01T07:30:00Z",
            &[
                "2026-11-01T05:00:00Z",
                "2026-11-01T06:00:00Z",
                "2026-11-01T07:00:00Z",
            ],
        ),
        (
            "0 * * * *",
            "America/New_York",
            "2026-03-08T05:30:00Z",
            "2026-03-08T08:30:00Z",
            &[
                "2026-03-08T06:00:00Z",
                "2026-03-08T07:00:00Z",
                "2026-03-08T08:00:00Z",
            ],
        ),
        (
            "0 9 * * *",
            "Europe/Berlin",
            "2026-03-28T00:00:00Z",
            "2026-03-30T00:00:00Z",
            &["2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z"],
        ),
        (
            "0 9 * * *",
            "Australia/Lord_Howe",
            "2026-04-03T12:00:00Z",
            "2026-04-05T12:00:00Z",
            &["2026-04-03T22:00:00Z", "2026-04-04T22:30:00Z"],
        ),
        (
            "*/20 * * * * *",
            "UTC",
            "2026-01-01T00:00:05Z",
            "2026-01-01T00:01:01Z",
            &[
                "2026-01-01T00:00:20Z",
                "2026-01-01T00:00:40Z",
                "2026-01-01T00:01:00Z",
            ],
        ),
    ];
    for (expr, zone, from, to, expected) in table {
        assert_eq!(
            firing(&cron(expr, zone), from, to),
            expected,
            "{expr} {zone}"
        );
    }
}

#[test]
fn the_last_instant_of_a_stretch_is_found() {
    let hourly = cron("0 * * * *", "UTC");
    let (from, to) = (ns("2026-01-01T10:30:00Z"), ns("2026-01-01T13:00:00Z"));
    assert_eq!(
        hourly.last(from, to).map(text).as_deref(),
        Some("2026-01-01T12:00:00Z")
    );
    assert_eq!(hourly.last(from, from + SECOND), None);
    let every = every(10, Some(3 * SECOND));
    assert_eq!(every.last(0, 23 * SECOND), Some(13 * SECOND));
    assert_eq!(every.last(14 * SECOND, 23 * SECOND), None);
    assert_eq!(
        (every.from(0), every.from(4 * SECOND)),
        (Some(3 * SECOND), Some(13 * SECOND))
    );
}

#[test]
fn what_never_comes_or_is_none_is_refused_by_name() {
    let refusal = |expr: &str, timezone: &str| {
        let source = CronSource {
            expr: expr.to_owned(),
            timezone: timezone.to_owned(),
            catchup: Catchup::None,
        };
        check(&source).unwrap_err().to_string()
    };
    assert!(refusal("0 0 30 2 *", "UTC").contains("names no instant that will ever come"));
    assert!(refusal("61 * * * *", "UTC").starts_with("cron '61 * * * *': "));
    assert!(refusal("* * * * *", "Europe/Berlyn").contains("Europe/Berlyn"));
}

fn every(seconds: u64, start: Option<u64>) -> Instants {
    let source = EverySource {
        interval_ms: seconds * 1_000,
        catchup: Catchup::None,
    };
    Instants::of_interval(&source, start).unwrap()
}

/// A clock whose time is set by hand.
struct Hand {
    now: Arc<AtomicU64>,
    clock: ClockSource,
}

impl Hand {
    fn new(catchup: Catchup, start: Option<u64>, now: u64) -> Self {
        let time = Arc::new(AtomicU64::new(now * SECOND));
        let read = Arc::clone(&time);
        let budget = SourceBudget {
            batch_events: 3,
            ..SourceBudget::default()
        };
        let start = start.map(|start| start * SECOND);
        let clock = ClockSource::on(every(10, None), catchup, start, budget, move || {
            read.load(Ordering::Relaxed)
        });
        let mut hand = Self { now: time, clock };
        assert!(matches!(hand.poll()[..], [SourceEvent::Lane(_)]));
        hand
    }

    fn poll(&mut self) -> Vec<SourceEvent> {
        let mut out = Vec::new();
        self.clock.poll(Duration::ZERO, &mut out).unwrap();
        out
    }

    fn start(&mut self, from: u64) {
        self.clock
            .start_lane(&LaneName::from("clock"), from, None)
            .unwrap();
    }

    fn first(&mut self) -> u64 {
        let resolved = self
            .clock
            .resolve(&LaneName::from("clock"), FirstPosition::Latest);
        resolved.unwrap().position / SECOND
    }

    fn set(&self, now: u64) {
        self.now.store(now * SECOND, Ordering::Relaxed);
    }

    /// Seconds of what is delivered until there is nothing more.
    fn fired(&mut self) -> Vec<u64> {
        let mut seconds = Vec::new();
        loop {
            let events = self.poll();
            if events.is_empty() {
                return seconds;
            }
            for event in events {
                if let SourceEvent::Batch { batch, .. } = event {
                    seconds.extend(batch.events.iter().map(|event| event.position / SECOND));
                }
            }
        }
    }
}

#[test]
fn g01_each_instant_fires_once_when_it_comes() {
    let mut hand = Hand::new(Catchup::None, None, 5);
    let first = hand.first();
    assert_eq!(first, 5);
    hand.start(first * SECOND);
    assert!(matches!(hand.poll()[..], [SourceEvent::CaughtUp { .. }]));
    assert_eq!(hand.fired(), [0; 0]);
    hand.set(10);
    assert_eq!(hand.fired(), [10]);
    // Set back, and late by several: what fired stays fired, what was listened for is not lost.
    hand.set(7);
    assert_eq!(hand.fired(), [0; 0]);
    hand.set(55);
    assert_eq!(hand.fired(), [20, 30, 40, 50]);
}

/// G07.
#[test]
fn g07_instants_that_nobody_saw_pass_fire_as_the_dag_says() {
    let cases: [(Catchup, &[u64]); 3] = [
        (Catchup::None, &[]),
        (Catchup::Last, &[40]),
        (Catchup::All, &[20, 30, 40]),
    ];
    for (catchup, expected) in cases {
        let mut hand = Hand::new(catchup, None, 45);
        hand.start(10 * SECOND + 1);
        let events = [hand.poll(), hand.poll()].concat();
        let passed = events.into_iter().find_map(|event| match event {
            SourceEvent::Passed { from, to, .. } => Some((from, to)),
            _ => None,
        });
        let told = match catchup {
            Catchup::None => Some((10 * SECOND + 1, 45 * SECOND)),
            Catchup::Last => Some((10 * SECOND + 1, 40 * SECOND)),
            Catchup::All => None,
        };
        assert_eq!(passed, told, "{catchup:?}: what is passed over is told");
        let mut hand = Hand::new(catchup, None, 45);
        hand.start(10 * SECOND + 1);
        assert_eq!(hand.fired(), expected, "{catchup:?} after a restart");
        hand.clock.credit(&LaneName::from("clock"), false);
        hand.set(75);
        assert_eq!(hand.fired(), [0; 0], "{catchup:?} while paused");
        hand.clock.credit(&LaneName::from("clock"), true);
        let paused: Vec<u64> = expected.iter().map(|second| second + 30).collect();
        assert_eq!(hand.fired(), paused, "{catchup:?} after a pause");
        hand.set(80);
        assert_eq!(hand.fired(), [80]);
    }
}

/// G01, G05: a wall clock that is set ahead by years, and a machine that slept, are like an engine that was
/// down: no burst, unless the DAG asks for all.
#[test]
fn g01_g05_what_lies_in_a_leap_of_the_clock_is_missed_as_the_dag_says() {
    const YEARS: u64 = 10 * 365 * 86_400;
    let cases: [(Catchup, u64, &[u64]); 3] = [
        (Catchup::None, YEARS, &[]),
        (Catchup::Last, YEARS, &[YEARS + 10]),
        (Catchup::All, 65, &[20, 30, 40, 50, 60, 70]),
    ];
    for (catchup, leap, expected) in cases {
        let mut hand = Hand::new(catchup, None, 5);
        hand.start(5 * SECOND);
        hand.set(10);
        assert_eq!(hand.fired(), [10], "{catchup:?}");
        hand.set(14 + leap);
        let told = hand.poll();
        let passed = told.iter().find_map(|event| match event {
            SourceEvent::Passed { from, to, .. } => Some((*from, *to / SECOND)),
            _ => None,
        });
        let to = match catchup {
            Catchup::None => Some(14 + leap),
            Catchup::Last => Some(leap + 10),
            Catchup::All => None,
        };
        assert_eq!(passed, to.map(|to| (10 * SECOND + 1, to)), "{catchup:?}");
        let mut fired: Vec<u64> = Vec::new();
        for event in told {
            if let SourceEvent::Batch { batch, .. } = event {
                fired.extend(batch.events.iter().map(|event| event.position / SECOND));
            }
        }
        fired.extend(hand.fired());
        assert_eq!(fired, expected, "{catchup:?}");
        // Set back to where it should be: nothing again, and then as usual.
        hand.set(15);
        assert_eq!(hand.fired(), [0; 0], "{catchup:?}");
    }
}

#[test]
fn a_clock_says_how_many_instants_lie_in_a_time_and_where_it_lies() {
    let mut hand = Hand::new(Catchup::All, None, 45);
    let lane = LaneName::from("clock");
    let count = hand.clock.count(&lane, 10 * SECOND, 41 * SECOND);
    assert_eq!(count, Ok(4));
    let place = |hand: &mut Hand, place| hand.clock.locate(&lane, place);
    assert_eq!(place(&mut hand, Place::Time(10_000)), Ok(10 * SECOND));
    assert_eq!(place(&mut hand, Place::Latest), Ok(45 * SECOND));
    let far = hand.clock.count(&lane, 0, u64::MAX / 2);
    assert!(far.is_err(), "{far:?}");
}

#[test]
fn a_start_date_is_where_catching_up_begins() {
    assert_eq!(Hand::new(Catchup::None, Some(10), 45).first(), 45);
    assert_eq!(Hand::new(Catchup::None, Some(60), 45).first(), 60);
    let mut hand = Hand::new(Catchup::All, Some(10), 45);
    let first = hand.first();
    hand.start(first * SECOND);
    assert_eq!(hand.fired(), [10, 20, 30, 40]);
}

/// A clock of one instant per second, whose time a test moves.
struct Seconds {
    now: Arc<AtomicU64>,
    instants: Instants,
}

impl Seconds {
    fn of(instants: Instants) -> Self {
        let now = Arc::new(AtomicU64::new(1_700_000_000 * SECOND + 7));
        Self { now, instants }
    }
}

impl Timeline for Seconds {
    fn open(&self) -> Box<dyn Source> {
        let now = Arc::clone(&self.now);
        let (instants, budget) = (self.instants.clone(), SourceBudget::default());
        let clock = ClockSource::on(instants, Catchup::All, None, budget, move || {
            now.load(Ordering::Relaxed)
        });
        Box::new(clock)
    }

    fn pass(&self, instants: usize) {
        let time = instants as u64 * SECOND;
        self.now.fetch_add(time, Ordering::Relaxed);
    }

    fn turn_back(&self, instants: usize) {
        let time = instants as u64 * SECOND;
        self.now.fetch_sub(time, Ordering::Relaxed);
    }
}

#[test]
fn a_cron_expression_passes_the_checks_of_clocks() {
    check_all(|| Seconds::of(cron("* * * * * *", "America/New_York")));
}

#[test]
fn an_interval_passes_the_checks_of_clocks() {
    check_all(|| Seconds::of(every(1, Some(3 * SECOND))));
}
