//! Places in a lane, as people type them: a position, `earliest`, `latest`, a time or an age.

use std::time::{SystemTime, UNIX_EPOCH};

use evermill_contract::source::Place;

use crate::duration;

/// Reads a place; for clap, which puts the argument's name before the error.
pub(super) fn parse(text: &str) -> Result<Place, String> {
    match text {
        "earliest" => return Ok(Place::Earliest),
        "latest" => return Ok(Place::Latest),
        _ => {}
    }
    if let Ok(position) = text.parse() {
        return Ok(Place::Position(position));
    }
    time(text).map(Place::Time).map_err(|_| {
        "want a position such as 1200, earliest, latest, a time such as 2026-01-31T12:00:00Z, a day such \
         as 2026-01-31 (UTC), or an age such as 2h"
            .to_owned()
    })
}

/// Reads a time, milliseconds since the Unix epoch; for clap.
pub(super) fn time(text: &str) -> Result<i64, String> {
    if let Ok(age) = duration::parse(text) {
        let then = u128::from(now_ms()).saturating_sub(age.as_millis());
        return Ok(i64::try_from(then).unwrap_or(i64::MAX));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let utc = jiff::tz::TimeZone::UTC;
    let civil = text.parse::<jiff::civil::DateTime>();
    let zoned = civil.ok().and_then(|civil| civil.to_zoned(utc).ok());
    let time = zoned.map(|zoned| zoned.timestamp().as_millisecond());
    time.ok_or_else(|| {
        "want a time such as 2026-01-31T12:00:00Z, a day such as 2026-01-31 (UTC), or an age such as 2h"
            .to_owned()
    })
}

/// This moment, milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// A time as people read it, in UTC.
pub(super) fn shown(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_position_an_end_a_time_or_an_age() {
        assert_eq!(parse("1200"), Ok(Place::Position(1200)));
        assert_eq!(parse("earliest"), Ok(Place::Earliest));
        assert_eq!(parse("latest"), Ok(Place::Latest));
        assert_eq!(parse("1970-01-02"), Ok(Place::Time(86_400_000)));
        assert_eq!(parse("1970-01-01T00:00:01Z"), Ok(Place::Time(1_000)));
        assert_eq!(parse("1970-01-01T01:00:01+01:00"), Ok(Place::Time(1_000)));
        assert!(matches!(parse("2h"), Ok(Place::Time(ms)) if ms > 0));
        for wrong in ["", "-1", "soon", "2h30", "2026-13-01"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
