//! Time, as the engine reads it. The core never does: it gets time as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's own clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until a test moves it; starts at `now_us`. After moving it call
    /// [`crate::Handle::poke`], so that due timers are looked at.
    #[must_use]
    pub fn manual(now_us: u64) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(now_us))))
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
                }),
            Source::Manual(now) => now.load(Ordering::Acquire),
        }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_us() / 1_000
    }

    /// Moves a manual clock forward; the system's clock does not listen.
    pub fn advance_us(&self, by: u64) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(by, Ordering::AcqRel);
        }
    }
}
