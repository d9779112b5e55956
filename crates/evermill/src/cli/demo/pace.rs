//! How many orders are due: most of them steadily, the rest in waves, as customers come.

use std::time::Duration;

/// From one wave to the next, milliseconds.
const WAVE_EVERY_MS: u64 = 5_000;
/// A wave lasts so long, milliseconds.
const WAVE_MS: u64 = 400;
/// When the first one begins.
const FIRST_MS: u64 = 2_000;
/// Of a hundred orders so many come in waves.
const WAVE_SHARE: u64 = 30;

/// Orders due after this long at so many a second: `rate` on the average of whole wave intervals.
pub(super) fn due(rate: u32, after: Duration) -> u64 {
    let (rate, ms) = (u64::from(rate), after.as_millis() as u64);
    let steady = rate * ms * (100 - WAVE_SHARE) / 100_000;
    let in_waves = match ms.checked_sub(FIRST_MS) {
        None => 0,
        Some(ms) => (ms / WAVE_EVERY_MS) * WAVE_MS + (ms % WAVE_EVERY_MS).min(WAVE_MS),
    };
    let of_a_wave = rate * WAVE_EVERY_MS * WAVE_SHARE / 100_000;
    steady + of_a_wave * in_waves / WAVE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_intervals_bring_the_rate_and_waves_bring_more() {
        let due = |ms| due(50, Duration::from_millis(ms));
        assert_eq!([due(0), due(1_000), due(2_000)], [0, 35, 70]);
        assert_eq!(due(2_400) - due(2_000), 75 + 14);
        assert_eq!([due(5_000), due(10_000), due(600_000)], [250, 500, 30_000]);
        assert!((0..20_000).all(|ms| due(ms) <= due(ms + 1)));
    }
}
