//! Waits that are a little shorter than they might be, so that many sources do not ask in step.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::limits;

/// A little earlier than this.
pub(crate) fn earlier(wait: Duration) -> Duration {
    // A fresh hasher's keys are random; that is all there is to it.
    let random = RandomState::new().hash_one(0_u8) % 1000;
    let part = f64::from(limits::JITTER_PERCENT) / 100.0 * random as f64 / 1000.0;
    wait.mul_f64(1.0 - part)
}
