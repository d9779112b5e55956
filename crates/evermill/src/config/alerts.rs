//! `[[alerts]]`: where alerts go.
//!
//! ```toml
//! [[alerts]]
//! post = "env:ALERTS_URL"          # or a URL, or file:PATH
//! kinds = ["parked", "run_failed"] # all of them unless said
//! dags = ["orders"]                # likewise
//! every = "5m"                     # the shortest time between two; 1m unless said
//!
//! [[alerts]]
//! command = "mail -s evermill ops@example.org"
//! ```

use evermill_connectors::alerts::{HookConfig, HookTo};
use evermill_connectors::limits::ALERTS_EVERY;
use evermill_contract::alert::AlertKind;
use serde::Deserialize;

use super::FILE;
use crate::duration;
use crate::failure::Failure;
use crate::near::nearest;

/// A hook, as it stands in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hook {
    post: Option<String>,
    command: Option<String>,
    #[serde(default)]
    kinds: Vec<String>,
    #[serde(default)]
    dags: Vec<String>,
    every: Option<String>,
}

impl Hook {
    /// What it is called in messages; `number` counts from 1.
    pub(crate) fn name(number: usize) -> String {
        format!("alerts.{number}")
    }

    /// Where it leads, for people: nothing secret.
    pub(crate) fn place(&self) -> String {
        match (&self.post, &self.command) {
            (Some(post), _) if is_elsewhere(post) => post.clone(),
            // The path of such a URL is the secret, as a rule.
            (Some(post), _) => {
                let (scheme, rest) = post.split_once("://").unwrap_or(("http", post));
                let host = rest.split(['/', '?']).next().unwrap_or_default();
                let host = host.rsplit('@').next().unwrap_or_default();
                format!("{scheme}://{host}/***")
            }
            (None, command) => command.clone().unwrap_or_default(),
        }
    }

    /// What it says, checked; secrets are looked up.
    ///
    /// # Errors
    /// A word that is none, neither or both of `post` and `command`, a secret that is not there.
    pub(crate) fn read(&self, number: usize) -> Result<HookConfig, Failure> {
        let name = Self::name(number);
        let wrong = |what: String| {
            Failure::usage(format!(
                "{FILE}: [[alerts]], the {}: {what}",
                ordinal(number)
            ))
        };
        let kind = |word: &String| {
            AlertKind::of(word).ok_or_else(|| {
                let known = AlertKind::ALL.map(AlertKind::word);
                let cure = nearest(word, known.into_iter()).map_or_else(
                    || format!("known: {}", known.join(", ")),
                    |meant| format!("did you mean '{meant}'?"),
                );
                wrong(format!("kinds: there is no kind '{word}'; {cure}"))
            })
        };
        let every = self.every.as_deref().map(|text| {
            duration::parse(text).map_err(|why| wrong(format!("every = \"{text}\": {why}")))
        });
        let to = match (&self.post, &self.command) {
            (Some(post), None) => HookTo::Post(elsewhere(post).map_err(wrong)?),
            (None, Some(command)) => HookTo::Command(command.clone()),
            _ => {
                let what = "want one of post = \"https://...\" and command = \"...\"";
                return Err(wrong(what.to_owned()));
            }
        };
        Ok(HookConfig {
            name,
            kinds: self.kinds.iter().map(kind).collect::<Result<_, _>>()?,
            dags: self.dags.clone(),
            every: every.transpose()?.unwrap_or(ALERTS_EVERY),
            to,
        })
    }
}

/// All of them, checked.
///
/// # Errors
/// As [`Hook::read`].
pub(crate) fn hooks(hooks: &[Hook]) -> Result<Vec<HookConfig>, Failure> {
    let numbered = (1..).zip(hooks);
    numbered.map(|(number, hook)| hook.read(number)).collect()
}

fn is_elsewhere(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

/// A secret where it stands.
fn elsewhere(text: &str) -> Result<String, String> {
    if let Some(name) = text.strip_prefix("env:") {
        return std::env::var(name)
            .map_err(|_| format!("post: the environment has no text {name}"));
    }
    let Some(path) = text.strip_prefix("file:") else {
        return Ok(text.to_owned());
    };
    let read = std::fs::read_to_string(path);
    let read = read.map_err(|cause| format!("post: {path}: {cause}"))?;
    Ok(read.trim().to_owned())
}

fn ordinal(number: usize) -> String {
    match number {
        1 => "first".to_owned(),
        2 => "second".to_owned(),
        3 => "third".to_owned(),
        number => format!("{number}th"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<HookConfig, String> {
        let hook: Hook = toml::from_str(text).map_err(|error| error.to_string())?;
        hook.read(2).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_hook_is_read_and_what_is_wrong_is_named_with_its_cure() {
        let hook = read("post = 'https://h/x'\nkinds = ['parked']\nevery = '5m'").unwrap();
        assert_eq!(hook.kinds, [AlertKind::Parked]);
        assert_eq!(hook.every, Duration::from_secs(300));
        assert_eq!(hook.to, HookTo::Post("https://h/x".into()));
        for (text, part) in [
            ("kinds = []", "want one of post"),
            ("post = 'https://h'\ncommand = 'x'", "want one of post"),
            (
                "command = 'x'\nkinds = ['praked']",
                "did you mean 'parked'?",
            ),
            ("command = 'x'\nevery = 'soon'", "every = \"soon\""),
            ("post = 'env:EVERMILL_NO_SUCH'", "EVERMILL_NO_SUCH"),
            ("comand = 'x'", "comand"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(read("kinds = []").unwrap_err().contains("the second"));
    }

    #[test]
    fn the_path_of_a_hook_is_its_secret() {
        let shown = |post: &str| {
            let hook = Hook {
                post: Some(post.to_owned()),
                ..Hook::default()
            };
            hook.place()
        };
        assert_eq!(
            shown("https://a:b@hooks.example.org/T0/B1/key"),
            "https://hooks.example.org/***"
        );
        assert_eq!(shown("env:ALERTS_URL"), "env:ALERTS_URL");
    }
}
