//! `--where reason=,task=,key=,since=,run=`.

use std::time::{SystemTime, UNIX_EPOCH};

use evermill_engine::view::{PARK_REASONS, ParkedFilter};

use crate::duration;
use crate::failure::Failure;

/// Which of all that is parked.
#[derive(Debug, Clone, Default, clap::Args)]
pub(in crate::cli) struct Where {
    /// Only those with all of: reason=, task=, key=, run=, since= (an age such as 2h, or a time
    /// such as 2026-01-31T12:00:00Z)
    #[arg(id = "filter", long = "where", value_name = "NAME=VALUE,...")]
    pub(super) terms: Vec<String>,
    #[arg(skip)]
    pub(super) run: Option<String>,
}

const NAMES: [&str; 5] = ["reason", "task", "key", "run", "since"];

impl Where {
    pub(super) fn is_empty(&self) -> bool {
        self.terms.is_empty() && self.run.is_none()
    }

    /// Reads the terms; a run that was named goes to [`Where::run`].
    ///
    /// # Errors
    /// A term that is none, an unknown name or reason, a time that is none.
    pub(super) fn read(mut self) -> Result<(Self, ParkedFilter), Failure> {
        let mut filter = ParkedFilter::default();
        for term in self.terms.iter().flat_map(|terms| split(terms)) {
            let (name, value) = term.split_once('=').unwrap_or((term, ""));
            if value.is_empty() || !NAMES.contains(&name) {
                return Err(Failure::usage(format!(
                    "--where {term}: want NAME=VALUE with a name of {}",
                    NAMES.join(", ")
                )));
            }
            let value = value.to_owned();
            match name {
                "reason" => filter.reason = Some(known_reason(value)?),
                "task" => filter.task = Some(value),
                "key" => filter.key = Some(value),
                "run" => self.run = Some(value),
                _ => filter.since_ms = Some(since(&value)?),
            }
        }
        Ok((self, filter))
    }
}

/// A comma that no `NAME=` follows belongs to the value before it.
fn split(terms: &str) -> Vec<&str> {
    let begins = |at: &usize| {
        let rest = &terms[at + 1..];
        rest.split_once('=')
            .is_some_and(|(name, _)| !name.contains(','))
    };
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in terms.match_indices(',') {
        if begins(&at) {
            parts.push(&terms[start..at]);
            start = at + 1;
        }
    }
    parts.push(&terms[start..]);
    parts
}

fn known_reason(word: String) -> Result<String, Failure> {
    if PARK_REASONS.contains(&word.as_str()) {
        return Ok(word);
    }
    Err(Failure::usage(format!(
        "--where reason={word}: the reasons are {}",
        PARK_REASONS.join(", ")
    )))
}

/// Milliseconds since the Unix epoch.
fn since(text: &str) -> Result<u64, Failure> {
    if let Ok(age) = duration::parse(text) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        return Ok(now.saturating_sub(age).as_millis() as u64);
    }
    let time: Result<jiff::Timestamp, _> = text.parse();
    let ms = time
        .ok()
        .and_then(|time| u64::try_from(time.as_millisecond()).ok());
    ms.ok_or_else(|| {
        Failure::usage(format!(
            "--where since={text}: want an age such as 30m or 2h, or a time such as 2026-01-31T12:00:00Z"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(terms: &[&str]) -> Result<(Where, ParkedFilter), Failure> {
        let terms = terms.iter().map(|term| (*term).to_owned()).collect();
        Where { terms, run: None }.read()
    }

    #[test]
    fn terms_are_read_one_by_one_and_commas_may_be_part_of_a_value() {
        let (which, filter) = read(&["reason=failed,task=load", "key=a,b,run=orders"]).unwrap();
        assert_eq!(filter.reason.as_deref(), Some("failed"));
        assert_eq!(filter.task.as_deref(), Some("load"));
        assert_eq!(filter.key.as_deref(), Some("a,b"));
        assert_eq!(which.run.as_deref(), Some("orders"));
        let (_, filter) = read(&["since=1970-01-01T00:00:01Z"]).unwrap();
        assert_eq!(filter.since_ms, Some(1_000));
        assert!(read(&["since=2h"]).unwrap().1.since_ms > Some(1_000));
    }

    #[test]
    fn what_is_no_term_is_refused_with_the_names_there_are() {
        for wrong in [
            "reason",
            "reason=",
            "colour=red",
            "reason=odd",
            "since=soon",
        ] {
            let said = read(&[wrong]).unwrap_err().to_string();
            assert!(said.contains(wrong), "{said}");
        }
    }
}
