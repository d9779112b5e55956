//! Fixed histograms of durations: logarithmic buckets, no allocation, nothing per event.

use crate::view::Percentiles;

/// Buckets per doubling.
const STEPS: usize = 16;
/// Doublings: 1 us to about 18 minutes; longer counts as the longest.
const DOUBLINGS: usize = 31;

/// Counts of durations by microseconds, each bucket about 4 % wide.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Box<[u64; STEPS * DOUBLINGS]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: Box::new([0; STEPS * DOUBLINGS]),
            total: 0,
        }
    }
}

impl Histogram {
    /// Counts `count` durations.
    pub(crate) fn record(&mut self, micros: u64, count: u64) {
        if count > 0 {
            self.counts[bucket(micros)] += count;
            self.total += count;
        }
    }

    /// Counts `count` durations that are evenly spread between two.
    pub(crate) fn record_spread(&mut self, first: u64, last: u64, count: u64) {
        let parts = count.clamp(1, 16);
        for part in 0..parts {
            let share = (part + 1) * count / parts - part * count / parts;
            let at = first.min(last) + first.abs_diff(last) * (2 * part + 1) / (2 * parts);
            self.record(at, share);
        }
    }

    /// Durations counted.
    #[cfg(test)]
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50: self.at_most(50),
            p99: self.at_most(99),
        }
    }

    /// Milliseconds that so many of 100 values do not pass.
    fn at_most(&self, percent: u64) -> Option<f64> {
        if self.total == 0 {
            return None;
        }
        let wanted = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some((upper(index) as f64) / 1_000.0);
            }
        }
        None
    }
}

/// Values below `STEPS` have a bucket each; above, each doubling has `STEPS` of them.
fn bucket(micros: u64) -> usize {
    let value = micros.max(1);
    let doubling = value.ilog2() as usize;
    let steps = STEPS.ilog2() as usize;
    let index = if doubling < steps {
        value as usize
    } else {
        let within = (value >> (doubling - steps)) as usize - STEPS;
        (doubling - steps + 1) * STEPS + within
    };
    index.min(STEPS * DOUBLINGS - 1)
}

/// The highest value of a bucket.
fn upper(index: usize) -> u64 {
    let (doubling, within) = (index / STEPS, index % STEPS);
    if doubling == 0 {
        return within as u64;
    }
    (((STEPS + within + 1) as u64) << (doubling - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_are_narrow() {
        for value in (1..5_000).chain([65_535, 65_536, 1 << 20, (1 << 29) + 12_345]) {
            let index = bucket(value);
            assert!(upper(index) >= value, "{value} in {index}");
            assert!(index == 0 || upper(index - 1) < value, "{value} in {index}");
            assert!(upper(index) - value <= value / 15, "{value} in {index}");
        }
    }

    #[test]
    fn percentiles_are_none_until_something_was_measured() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentiles(), Percentiles::default());
        histogram.record(1_000, 99);
        histogram.record(1_000_000, 1);
        let found = histogram.percentiles();
        assert!((0.99..1.07).contains(&found.p50.unwrap()), "{found:?}");
        assert!((0.99..1.07).contains(&found.p99.unwrap()), "{found:?}");
        histogram.record(1_000_000, 1);
        assert!(histogram.percentiles().p99.unwrap() > 999.0);
    }

    #[test]
    fn a_spread_counts_each_value_once() {
        let mut histogram = Histogram::default();
        histogram.record_spread(100, 10_000, 1_000);
        assert_eq!(histogram.total, 1_000);
        histogram.record_spread(5, 5, 3);
        assert_eq!(histogram.total, 1_003);
    }

    #[test]
    fn the_longest_durations_share_the_last_bucket() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX, 1);
        assert!(histogram.percentiles().p50.is_some());
    }
}
