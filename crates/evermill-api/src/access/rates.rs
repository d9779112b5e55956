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
    buckets: Mutex<HashMap<String, Bucket>>,
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

    fn buckets(&self) -> MutexGuard<'_, HashMap<String, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self, bucket: Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + passed * self.rate.per_second).min(self.rate.burst)
    }

    /// Whether one more would be allowed.
    pub(crate) fn has_room(&self, name: &str) -> bool {
        let bucket = self.buckets().get(name).copied();
        bucket.is_none_or(|bucket| self.left(bucket, Instant::now()) >= 1.0)
    }

    /// Takes one.
    pub(crate) fn take(&self, name: &str) -> Result<(), &'static str> {
        self.take_at(name, Instant::now())
    }

    fn take_at(&self, name: &str, now: Instant) -> Result<(), &'static str> {
        let mut buckets = self.buckets();
        if buckets.len() >= limits::BUCKETS_MAX && !buckets.contains_key(name) {
            buckets.retain(|_, bucket| self.left(*bucket, now) < self.rate.burst);
            if buckets.len() >= limits::BUCKETS_MAX {
                return Err("too many ask at the same time");
            }
        }
        let full = Bucket {
            left: self.rate.burst,
            at: now,
        };
        let bucket = buckets.entry(name.to_owned()).or_insert(full);
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

    #[test]
    fn a_million_addresses_find_no_more_room_than_there_is() {
        let rates = Rates::new(Rate::per_minute(1.0));
        let now = Instant::now();
        let asked = limits::BUCKETS_MAX * 2;
        let taken = (0..asked).filter(|n| rates.take_at(&n.to_string(), now).is_ok());
        assert_eq!(taken.count(), limits::BUCKETS_MAX);
        assert_eq!(rates.buckets().len(), limits::BUCKETS_MAX);
        // Those of before are full again, and make room.
        assert!(rates.take_at("late", now + Duration::from_secs(61)).is_ok());
        assert_eq!(rates.buckets().len(), 1);
    }

    #[test]
    fn one_host_is_one_address() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }
}
