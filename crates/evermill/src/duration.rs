//! Durations as people write them: `500ms`, `10s`, `2m`, `1h`, `7d`.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a duration; for clap, which puts the argument's name before the error.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let ms = number
        .parse::<u64>()
        .ok()
        .zip(unit)
        .and_then(|(n, (_, ms))| n.checked_mul(*ms));
    ms.map(Duration::from_millis).ok_or_else(|| {
        "want a whole number and a unit (ms, s, m, h, d), such as 500ms, 10s or 2m".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_duration_needs_a_whole_number_and_a_unit() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse(text).unwrap().as_millis(), ms, "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 s",
            "10w",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse(text).unwrap_err().contains("10s"), "{text}");
        }
    }
}
