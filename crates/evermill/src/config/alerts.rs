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
//! smtp = "smtps://user:password@mail.example.org" # or a reference, a connection's id
//! from = "evermill@example.org"
//! to = ["ops@example.org"]
//!
//! [[alerts]]
//! command = "mail -s evermill ops@example.org"
//! ```

use evermill_connectors::alerts::{HookConfig, HookTo, MailTo};
use evermill_connectors::limits::ALERTS_EVERY;
use evermill_contract::alert::AlertKind;
use evermill_contract::settings::Settings as _;
use evermill_secrets::Reference;
use serde::Deserialize;

use super::FILE;
use crate::duration;
use crate::failure::Failure;
use crate::near::nearest;
use crate::vault::Vault;

/// A hook, as it stands in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hook {
    post: Option<String>,
    smtp: Option<String>,
    from: Option<String>,
    #[serde(default)]
    to: Vec<String>,
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
        match self.post.as_ref().or(self.smtp.as_ref()) {
            Some(place) => {
                // The path of such a URL is the secret, as a rule.
                let Some((scheme, rest)) = place.split_once("://") else {
                    return place.clone();
                };
                let path = if self.post.is_some() { "/***" } else { "" };
                let host = rest.split(['/', '?']).next().unwrap_or_default();
                let host = host.rsplit('@').next().unwrap_or_default();
                format!("{scheme}://{host}{path}")
            }
            None => self.command.clone().unwrap_or_default(),
        }
    }

    /// What it says, checked; secrets are looked up.
    ///
    /// # Errors
    /// A word that is none, not one of `post`, `smtp` and `command`, a secret or a connection that is not
    /// there.
    pub(crate) fn read(&self, number: usize, vault: &Vault) -> Result<HookConfig, Failure> {
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
        let of_mail = [("from", self.from.is_some()), ("to", !self.to.is_empty())];
        let extra = of_mail.iter().find(|(_, given)| *given);
        if let Some((field, _)) = extra.filter(|_| self.smtp.is_none()) {
            return Err(wrong(format!("{field} is for smtp = \"smtps://...\"")));
        }
        let to = match (&self.post, &self.smtp, &self.command) {
            (Some(post), None, None) => {
                HookTo::Post(elsewhere("post", post, vault).map_err(wrong)?)
            }
            (None, Some(smtp), None) => {
                let (Some(from), false) = (&self.from, self.to.is_empty()) else {
                    let what = "smtp wants from = \"evermill@...\" and to = [\"...\"]";
                    return Err(wrong(what.to_owned()));
                };
                HookTo::Mail(MailTo {
                    server: elsewhere("smtp", smtp, vault).map_err(wrong)?,
                    from: from.clone(),
                    to: self.to.clone(),
                })
            }
            (None, None, Some(command)) => HookTo::Command(command.clone()),
            _ => {
                let what = "want one of post = \"https://...\", smtp = \"smtps://...\" and command = \"...\"";
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
pub(crate) fn hooks(hooks: &[Hook], vault: &Vault) -> Result<Vec<HookConfig>, Failure> {
    let numbered = (1..).zip(hooks);
    numbered
        .map(|(number, hook)| hook.read(number, vault))
        .collect()
}

/// A place as it stands, or where it stands: in the environment, in a file, as a secret, or as a
/// connection.
fn elsewhere(field: &str, text: &str, vault: &Vault) -> Result<String, String> {
    let named = |why: String| format!("{field}: {why}");
    if let Some(path) = text.strip_prefix("file:") {
        // Unlike a connection's, this one may be relative.
        let read = std::fs::read_to_string(path);
        let read = read.map_err(|cause| named(format!("{path}: {cause}")))?;
        return Ok(read.trim().to_owned());
    }
    if text.contains("://") || Reference::of(text).is_some() {
        return vault.resolved(text).map_err(named);
    }
    let found = vault.connection(text).map_err(named)?;
    let known = vault.names().map_err(named)?.connections;
    found.ok_or_else(|| {
        let cure = nearest(text, known.iter().map(String::as_str)).map_or_else(
            || format!("write a URL, or give the connection an address: --connection {text}=URL"),
            |meant| format!("did you mean '{meant}'?"),
        );
        format!("{field} = \"{text}\": there is no such connection; {cure}")
    })
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
        let given = [("chat".to_owned(), "https://chat/x".to_owned())];
        let place = tempfile::tempdir().unwrap();
        let vault = Vault::with(given.into(), place.path()).unwrap();
        hook.read(2, &vault).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_hook_is_read_and_what_is_wrong_is_named_with_its_cure() {
        let hook = read("post = 'https://h/x'\nkinds = ['parked']\nevery = '5m'").unwrap();
        assert_eq!(hook.kinds, [AlertKind::Parked]);
        assert_eq!(hook.every, Duration::from_secs(300));
        assert_eq!(hook.to, HookTo::Post("https://h/x".into()));
        let hook = read("post = 'chat'").unwrap();
        assert_eq!(hook.to, HookTo::Post("https://chat/x".into()));
        let hook = read("smtp = 'smtps://h'\nfrom = 'a@b'\nto = ['c@d']").unwrap();
        assert!(matches!(hook.to, HookTo::Mail(mail) if mail.to == ["c@d"]));
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
            ("post = 'chatt'", "did you mean 'chat'?"),
            ("post = 'https://h'\nto = ['a@b']", "to is for smtp"),
            ("smtp = 'smtps://h'\nto = ['a@b']", "smtp wants from"),
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
        let mail = Hook {
            smtp: Some("smtps://a:b@mail.example.org?tls=required".to_owned()),
            ..Hook::default()
        };
        assert_eq!(mail.place(), "smtps://mail.example.org");
    }
}
