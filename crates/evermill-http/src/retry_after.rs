//! How long a server wants to be left alone.

use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, header::RETRY_AFTER};

use crate::Response;
use crate::limits::RETRY_AFTER_MAX;

/// The wait that a response asks for (RFC 9110, section 10.2.3): seconds, or a date, which is counted
/// from `now`. At most [`RETRY_AFTER_MAX`]; None when it asks for none.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait = if is_number {
        // More digits than a number of ours has: very long.
        text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        until.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The same where an answer means that it is too early: for 429 and 503 alone.
#[must_use]
pub fn asked_to_wait(response: &Response, now: SystemTime) -> Option<Duration> {
    let is_early = matches!(response.status, 429 | 503);
    is_early.then(|| retry_after(&response.headers, now))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        // Sunday, 6 November 1994, 08:49:37 GMT.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        retry_after(&headers, now)
    }

    /// F02.
    #[test]
    fn seconds_and_dates_are_read_and_bounded() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(asked("120"), seconds(120));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:07 GMT"), seconds(30));
        assert_eq!(asked("Sunday, 06-Nov-94 08:50:07 GMT"), seconds(30));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT"), seconds(0));
        assert_eq!(asked("99999999999999999999999"), Some(RETRY_AFTER_MAX));
        for nonsense in ["", "soon", "-5", "1.5"] {
            assert_eq!(asked(nonsense), None, "{nonsense}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), SystemTime::now()), None);
    }
}
