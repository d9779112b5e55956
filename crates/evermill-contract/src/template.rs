//! Names made of what is sent: a path with `{...}` where a part of the record stands, such as
//! `/orders/{/id}` or `{date}/{effect_key}.json`.
//!
//! Whoever reads such a name elsewhere must be able to trust its shape, so what is filled in is one part
//! of a path and never more: it brings no separator, and never leads to the folder above.

use std::fmt::{self, Write as _};

/// A name with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hole(Hole),
}

/// What a hole is filled with: the same in every attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hole {
    /// The effect key.
    EffectKey,
    /// The record's key.
    Key,
    /// The id of the source whose event it is.
    Source,
    /// The day of the event in UTC, as `2026-11-30`.
    Date,
    /// The hour of the event in UTC, as `07`.
    Hour,
    /// What a JSON pointer finds in the value.
    Pointer(String),
}

/// What may stand in braces.
const KNOWN: &str = "write {effect_key}, {key}, {source}, {date}, {hour} or a JSON pointer into the value such as {/customer/id}; \
     {{ and }} are braces";

impl Template {
    /// Reads a name with holes.
    ///
    /// # Errors
    /// What is wrong with it, and what may be written instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                plain.push_str(&from[..1]);
                rest = after;
                continue;
            }
            let Some((inside, after)) =
                from.strip_prefix('{').and_then(|from| from.split_once('}'))
            else {
                return Err(format!("a brace stands alone; {KNOWN}"));
            };
            let hole = hole(inside).ok_or_else(|| format!("{{{inside}}} is unknown; {KNOWN}"))?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Hole(hole));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// The holes, in their order.
    pub fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Hole(hole) => Some(hole),
        })
    }

    /// The text before the first hole.
    #[must_use]
    pub fn beginning(&self) -> &str {
        match self.0.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// The name, with what `find` has for each hole.
    ///
    /// # Errors
    /// The first one that `find` gives.
    pub fn fill(&self, find: impl Fn(&Hole) -> Result<String, String>) -> Result<String, String> {
        let mut name = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Hole(hole) => name.push_str(&find(hole)?),
            }
        }
        Ok(name)
    }
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EffectKey => "effect_key",
            Self::Key => "key",
            Self::Source => "source",
            Self::Date => "date",
            Self::Hour => "hour",
            Self::Pointer(pointer) => pointer,
        })
    }
}

fn hole(inside: &str) -> Option<Hole> {
    Some(match inside {
        "effect_key" => Hole::EffectKey,
        "key" => Hole::Key,
        "source" => Hole::Source,
        "date" => Hole::Date,
        "hour" => Hole::Hour,
        pointer if pointer.starts_with('/') => Hole::Pointer(pointer.to_owned()),
        _ => return None,
    })
}

/// A text as one segment of a URL's path, or as a value in its query.
///
/// # Errors
/// When no escape makes one of it: it is empty, or leads to another folder.
pub fn part_of_url(text: &str) -> Result<String, String> {
    one_part(text)?;
    let mut part = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            part.push(char::from(byte));
        } else {
            write!(part, "%{byte:02X}").expect("a text can be written to");
        }
    }
    Ok(part)
}

/// A text as a part of a file's name, or of an object's.
///
/// # Errors
/// When it would be more than a part of a name, or none.
pub fn part_of_path(text: &str) -> Result<String, String> {
    one_part(text)?;
    match text
        .chars()
        .find(|c| matches!(c, '/' | '\\') || c.is_control())
    {
        Some(bad) => Err(format!(
            "{text:?} has {bad:?} in it, which no part of a file's name may have"
        )),
        None => Ok(text.to_owned()),
    }
}

fn one_part(text: &str) -> Result<(), String> {
    match text {
        "" => Err("it is empty, which is no part of a name".to_owned()),
        "." | ".." => Err(format!("{text:?} leads to another folder")),
        _ => Ok(()),
    }
}

/// The day and the hour of an instant in UTC; None before 1970 or after 9999.
#[must_use]
pub fn day_and_hour(ms_since_1970: i64) -> Option<(String, String)> {
    let hours = ms_since_1970.div_euclid(3_600_000);
    let (days, hour) = (hours.div_euclid(24), hours.rem_euclid(24));
    // Years that begin in March put the leap day at their end (Hinnant's civil_from_days).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let shown = (1970..=9999).contains(&year);
    shown.then(|| (format!("{year}-{month:02}-{day:02}"), format!("{hour:02}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let template = Template::parse(text)?;
        template.fill(|hole| {
            Ok(match hole {
                Hole::EffectKey => "k7".to_owned(),
                Hole::Pointer(pointer) => format!("<{pointer}>"),
                other => format!("{other:?}"),
            })
        })
    }

    #[test]
    fn holes_are_filled_and_braces_can_be_written() {
        assert_eq!(filled("/orders").unwrap(), "/orders");
        assert_eq!(
            filled("{/a/b}-{effect_key}.json").unwrap(),
            "</a/b>-k7.json"
        );
        assert_eq!(
            filled("{date}/{hour}/{source}{key}").unwrap(),
            "Date/Hour/SourceKey"
        );
        assert_eq!(filled("{{{effect_key}}}").unwrap(), "{k7}");
        assert_eq!(filled("").unwrap(), "");
    }

    #[test]
    fn what_no_hole_can_be_is_said_with_what_can() {
        for bad in ["{id}", "{}", "a{", "a}", "{effect_key", "{ key }"] {
            let said = Template::parse(bad).unwrap_err();
            assert!(said.contains("{/customer/id}"), "{bad}: {said}");
        }
    }

    #[test]
    fn what_is_filled_in_is_one_part_of_a_path_and_never_more() {
        assert_eq!(
            part_of_url("a b/..?x=1&é").unwrap(),
            "a%20b%2F..%3Fx%3D1%26%C3%A9"
        );
        assert_eq!(part_of_path("a b..é").unwrap(), "a b..é");
        for bad in ["", ".", ".."] {
            assert!(
                part_of_url(bad).is_err() && part_of_path(bad).is_err(),
                "{bad}"
            );
        }
        for bad in ["../x", "a/b", "a\\b", "a\0", "a\nb"] {
            assert!(part_of_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn days_and_hours_are_those_of_the_calendar() {
        let shown = |ms| day_and_hour(ms).map(|(day, hour)| format!("{day}T{hour}"));
        assert_eq!(shown(0).as_deref(), Some("1970-01-01T00"));
        assert_eq!(shown(951_782_399_999).as_deref(), Some("2000-02-28T23"));
        assert_eq!(shown(951_782_400_000).as_deref(), Some("2000-02-29T00"));
        assert_eq!(shown(1_796_049_725_000).as_deref(), Some("2026-11-30T14"));
        assert_eq!(shown(253_402_300_799_000).as_deref(), Some("9999-12-31T23"));
        assert_eq!((shown(-1), shown(253_402_300_800_000)), (None, None));
    }
}
