//! How much history is kept, and how much of what tasks print: an age, a size, or both.

use std::fmt;
use std::time::Duration;

use evermill_engine::LogRetention;
use evermill_engine::limits::LOG_SEGMENT_BYTES;
use evermill_store::limits::{HISTORY_BYTES, SEGMENT_BYTES};

use crate::duration;

/// History beyond any of these goes, the oldest first, in pieces of [`SEGMENT_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retain {
    /// Older than that.
    pub(crate) age: Option<Duration>,
    /// More than that.
    pub(crate) bytes: u64,
}

impl Default for Retain {
    fn default() -> Self {
        Self {
            age: None,
            bytes: HISTORY_BYTES,
        }
    }
}

/// Fewer than four pieces would not be kept in pieces.
const BYTES_MIN: u64 = 4 * SEGMENT_BYTES;

const UNITS: [(&str, u64); 8] = [
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl Retain {
    /// Reads `7d`, `10GB` or `7d,10GB`.
    ///
    /// # Errors
    /// A sentence with the cure.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (age, bytes) = read(text, BYTES_MIN)?;
        let bytes = bytes.unwrap_or(HISTORY_BYTES);
        Ok(Self { age, bytes })
    }
}

/// Output of tasks beyond any of these goes, the oldest first, in segments of [`LOG_SEGMENT_BYTES`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RetainLogs(pub(crate) LogRetention);

impl RetainLogs {
    /// Reads `7d`, `10GB` or `7d,10GB`.
    ///
    /// # Errors
    /// A sentence with the cure.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (age, bytes) = read(text, LOG_SEGMENT_BYTES)?;
        let usual = LogRetention::default();
        Ok(Self(LogRetention {
            age: age.unwrap_or(usual.age),
            bytes: bytes.unwrap_or(usual.bytes),
        }))
    }
}

fn read(text: &str, bytes_min: u64) -> Result<(Option<Duration>, Option<u64>), String> {
    let mut found = (None, None);
    for part in text.split(',').map(str::trim) {
        if let Some(bytes) = bytes(part) {
            if bytes < bytes_min {
                let min = bytes_min >> 20;
                return Err(format!("{part} is too little: keep {min}MiB or more"));
            }
            found.1 = Some(bytes);
        } else if let Ok(age) = duration::parse(part) {
            found.0 = Some(age);
        } else {
            return Err("want an age such as 7d, a size such as 10GB, or both: 7d,10GB".to_owned());
        }
    }
    Ok(found)
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*unit)
}

impl fmt::Display for Retain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.age, self.bytes)
    }
}

impl fmt::Display for RetainLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, Some(self.0.age), self.0.bytes)
    }
}

fn show(f: &mut fmt::Formatter<'_>, age: Option<Duration>, bytes: u64) -> fmt::Result {
    if let Some(age) = age {
        let seconds = age.as_secs();
        match seconds % 86_400 {
            0 => write!(f, "{}d, ", seconds / 86_400)?,
            _ => write!(f, "{seconds}s, ")?,
        }
    }
    match bytes % (1 << 30) {
        0 => write!(f, "{}GiB", bytes >> 30),
        _ => write!(f, "{}MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_a_size_or_both() {
        let week = Some(Duration::from_secs(7 * 86_400));
        assert_eq!(Retain::parse("7d").unwrap().age, week);
        let both = Retain::parse("7d, 10GB").unwrap();
        assert_eq!((both.age, both.bytes), (week, 10_000_000_000));
        assert_eq!(both.to_string(), "7d, 9536MiB");
        assert_eq!(Retain::parse("1GiB").unwrap(), Retain::default());
        assert_eq!(Retain::default().to_string(), "1GiB");
        assert!(Retain::parse("1MB").unwrap_err().contains("64MiB"));
        for wrong in ["", "7", "GB", "7d,", "much"] {
            assert!(
                Retain::parse(wrong).unwrap_err().contains("7d,10GB"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn of_what_tasks_print_what_is_not_said_stays_as_it_is() {
        assert_eq!(RetainLogs::default().to_string(), "30d, 1GiB");
        assert_eq!(RetainLogs::parse("7d").unwrap().to_string(), "7d, 1GiB");
        assert_eq!(
            RetainLogs::parse("64MiB").unwrap().to_string(),
            "30d, 64MiB"
        );
        assert!(RetainLogs::parse("1MiB").unwrap_err().contains("8MiB"));
    }
}
