//! What time it is, for those who read it later.

use std::time::{SystemTime, UNIX_EPOCH};

/// This moment, milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
