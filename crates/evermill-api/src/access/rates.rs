//! How often somebody may do something: a bucket of permissions for each that fills up again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits;

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    per_second: f64,
    burst: f64,
}

impl Rate {
    /// So many a minute.
    pub(crate) const fn per_minute(count: f64) -> Self {
        Self::per_second(count / 60.0, count)
    }

    /// So many a second, and so many at once.
    pub(crate) const fn per_second(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst }
    }
}

/// Buckets by name; those that are full again are forgotten when room is needed.
pub(crate) struct Rates {
    rate: Rate,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    by_name: HashMap<String, Bucket>,
    /// When room was made last: it means to look at all of them, which a flood must not buy with each request.
    swept: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            buckets: Mutex::default(),
        }
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self, bucket: Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + passed * self.rate.per_second).min(self.rate.burst)
    }

    /// Takes one.
    pub(crate) fn take(&self, name: &str) -> Result<(), &'static str> {
        self.take_at(name, Instant::now())
    }

    fn take_at(&self, name: &str, now: Instant) -> Result<(), &'static str> {
        let mut guard = self.buckets();
        let Buckets { by_name, swept } = &mut *guard;
        if by_name.len() >= limits::BUCKETS_MAX && !by_name.contains_key(name) {
            let rests = |at: Instant| now.saturating_duration_since(at) >= limits::BUCKETS_SWEEP;
            if swept.is_none_or(rests) {
                by_name.retain(|_, bucket| self.left(*bucket, now) < self.rate.burst);
                *swept = Some(now);
            }
            if by_name.len() >= limits::BUCKETS_MAX {
                return Err("too many ask at the same time");
            }
        }
        let full = Bucket {
            left: self.rate.burst,
            at: now,
        };
        let bucket = by_name.entry(name.to_owned()).or_insert(full);
        let left = self.left(*bucket, now);
        if left < 1.0 {
            return Err("this is more than may be asked in a second");
        }
        *bucket = Bucket {
            left: left - 1.0,
            at: now,
        };
        Ok(())
    }
}

/// What counts as one address: in IPv6 a host has a whole network to choose from.
pub(crate) fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// S13.
    #[test]
    fn a_bucket_gives_what_it_holds_and_fills_up_again() {
        let rates = Rates::new(Rate::per_second(2.0, 3.0));
        let begin = Instant::now();
        let taken = |ms| {
            rates
                .take_at("a", begin + Duration::from_millis(ms))
                .is_ok()
        };
        assert_eq!([0, 0, 0, 0].map(taken), [true, true, true, false]);
        assert_eq!([499, 500, 500].map(taken), [false, true, false]);
        assert!(rates.take_at("b", begin).is_ok(), "each has his own");
        assert_eq!([60_000; 4].map(taken), [true, true, true, false]);
    }

    /// S13.
    #[test]
    fn a_million_addresses_find_no_more_room_than_there_is() {
        let rates = Rates::new(Rate::per_minute(1.0));
        let now = Instant::now();
        let names = (0..1_000_000_u32).map(|n| network(IpAddr::V4(n.into())));
        let taken = names.filter(|name| rates.take_at(name, now).is_ok());
        assert_eq!(taken.count(), limits::BUCKETS_MAX);
        let known = |rates: &Rates| rates.buckets().by_name.len();
        assert_eq!(known(&rates), limits::BUCKETS_MAX);
        // Those of before are full again, and make room.
        assert!(rates.take_at("late", now + Duration::from_secs(61)).is_ok());
        assert_eq!(known(&rates), 1);
    }

    /// S13.
    #[test]
    fn a_full_table_is_not_looked_through_with_each_request() {
        let rates = Rates::new(Rate::per_minute(60.0));
        let begin = Instant::now();
        for n in 0..limits::BUCKETS_MAX {
            rates.take_at(&n.to_string(), begin).unwrap();
        }
        assert!(rates.take_at("first", begin).is_err(), "it is full");
        let after = |time| rates.take_at("second", begin + time).is_ok();
        assert!(!after(limits::BUCKETS_SWEEP - Duration::from_millis(1)));
        assert!(after(limits::BUCKETS_SWEEP), "all of them are full again");
    }

    /// S13.
    #[test]
    fn one_host_is_one_address() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }
}
