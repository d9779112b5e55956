//! Which instants a schedule names.

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use evermill_contract::manifest::{CronSource, EverySource};
use evermill_contract::source::SourceError;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

const NANOSECONDS: u64 = 1_000_000;
/// Changes of a wall clock behind which it is looked for an instant.
const LEAPS: usize = 2;

/// The instants of a schedule; all in nanoseconds since 1970.
#[derive(Debug, Clone)]
pub enum Instants {
    /// Those of a cron expression on the wall clock of a time zone.
    Cron {
        /// The expression.
        cron: Box<Cron>,
        /// Whose wall clock.
        zone: TimeZone,
    },
    /// Those at equal distances.
    Every {
        /// The distance, never 0.
        interval: u64,
        /// One of them.
        anchor: u64,
    },
}

impl Instants {
    /// Reads a cron expression and its time zone.
    ///
    /// # Errors
    /// [`SourceError::Refused`]: names the part that is wrong, or says that no instant will ever come.
    pub fn of_cron(source: &CronSource) -> Result<Self, SourceError> {
        let refused = |what: String| SourceError::Refused(what);
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser
            .parse(&source.expr)
            .map_err(|cause| refused(format!("cron '{}': {cause}", source.expr)))?;
        let zone = TimeZone::get(&source.timezone).map_err(|_| {
            refused(format!(
                "timezone '{}': no such zone; write one of the IANA names, such as Europe/Berlin",
                source.timezone
            ))
        })?;
        let instants = Self::Cron {
            cron: Box::new(cron),
            zone,
        };
        if instants.from(0).is_none() {
            return Err(refused(format!(
                "cron '{}' names no instant that will ever come",
                source.expr
            )));
        }
        Ok(instants)
    }

    /// Reads an interval; `start_ns` is one of its instants.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when it is 0.
    pub fn of_interval(source: &EverySource, start_ns: Option<u64>) -> Result<Self, SourceError> {
        if source.interval_ms == 0 {
            let what = "an interval of 0 would never end; a loop goes on at once".to_owned();
            return Err(SourceError::Refused(what));
        }
        Ok(Self::Every {
            interval: source.interval_ms.saturating_mul(NANOSECONDS),
            anchor: start_ns.unwrap_or(0),
        })
    }

    /// The first one that is not before `ns`; `None` when there is none.
    #[must_use]
    pub fn from(&self, ns: u64) -> Option<u64> {
        match self {
            Self::Every { interval, anchor } => {
                let ahead = anchor % interval;
                let past = ns.checked_sub(ahead).map_or(0, |ns| ns.div_ceil(*interval));
                past.checked_mul(*interval)?.checked_add(ahead)
            }
            Self::Cron { cron, zone } => {
                // Whole seconds: the next one that is not before it.
                let second = i64::try_from(ns.div_ceil(1_000_000_000)).ok()?;
                let at = Timestamp::from_second(second).ok()?;
                let next = next(cron, zone, at)?;
                u64::try_from(next.timestamp().as_nanosecond()).ok()
            }
        }
    }

    /// The last one in `from..to`; `None` when none lies there.
    #[must_use]
    pub fn last(&self, from: u64, to: u64) -> Option<u64> {
        let found = match self {
            Self::Every { interval, anchor } => {
                let ahead = anchor % interval;
                let past = to.checked_sub(1)?.checked_sub(ahead)? / interval;
                Some(past * interval + ahead)
            }
            Self::Cron { cron, zone } => {
                let second = i64::try_from(to.div_ceil(1_000_000_000)).ok()?;
                let at = Timestamp::from_second(second).ok()?;
                let before = cron
                    .find_previous_occurrence(&Zoned::new(at, zone.clone()), false)
                    .ok()?;
                u64::try_from(before.timestamp().as_nanosecond()).ok()
            }
        };
        found.filter(|found| (from..to).contains(found))
    }
}

/// The first instant of an expression that is not before `at`. The library gives up where a whole day was
/// left out, as on Samoa; behind that it goes on.
fn next(cron: &Cron, zone: &TimeZone, at: Timestamp) -> Option<Zoned> {
    let from = |at| cron.find_next_occurrence(&Zoned::new(at, zone.clone()), true);
    let leaps = zone.following(at).map(|leap| leap.timestamp());
    let mut tried = std::iter::once(at).chain(leaps.take(LEAPS));
    tried.find_map(|at| from(at).ok())
}

/// Whether a schedule can be read and will ever fire.
///
/// # Errors
/// As [`Instants::of_cron`].
pub fn check(source: &CronSource) -> Result<(), SourceError> {
    Instants::of_cron(source).map(drop)
}
