//! Addresses of connections: the references in them, and what of them must not be seen.
//!
//! `[SCHEME://][USER[:PASSWORD]@]PLACE[?setting=value&...]`. The password, the value of a setting, or the
//! whole address can be a reference: `secret:NAME`, `env:NAME` or `file:/PATH`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

/// What stays as it is in a URL, whatever part of it (RFC 3986, "unreserved").
pub(crate) const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where a value stands that is not written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A secret of this name.
    Secret(&'a str),
    /// A variable of the environment.
    Variable(&'a str),
    /// A file, by an absolute path.
    File(&'a str),
}

impl<'a> Reference<'a> {
    /// What a text refers to, if it does.
    #[must_use]
    pub fn of(text: &'a str) -> Option<Self> {
        let (sort, name) = text.split_once(':')?;
        match sort {
            _ if name.is_empty() => None,
            "secret" => Some(Self::Secret(name)),
            "env" => Some(Self::Variable(name)),
            // A URL has two strokes there.
            "file" if name.starts_with('/') && !name.starts_with("//") => Some(Self::File(name)),
            _ => None,
        }
    }
}

/// An address without references.
#[derive(Clone, PartialEq, Eq)]
pub struct Resolved {
    /// As a client reads it.
    pub address: String,
    /// What of it must not be seen, as it is: not percent-encoded.
    pub hidden: Vec<String>,
}

/// An address in its parts, each as it is written.
struct Parts<'a> {
    scheme: Option<&'a str>,
    user: Option<&'a str>,
    password: Option<&'a str>,
    place: &'a str,
    settings: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Parts<'a> {
    fn of(address: &'a str) -> Self {
        let (place, query) = match address.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (address, None),
        };
        let (scheme, place) = match place.split_once("://") {
            Some((scheme, place)) => (Some(scheme), place),
            None => (None, place),
        };
        let (login, place) = match place.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, place),
        };
        let (user, password) = match login.map(|login| login.split_once(':')) {
            Some(Some((user, password))) => (Some(user), Some(password)),
            Some(None) => (login, None),
            None => (None, None),
        };
        let settings = query.into_iter().flat_map(|query| query.split('&'));
        let pair = |setting: &'a str| match setting.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (setting, None),
        };
        Self {
            scheme,
            user,
            password,
            place,
            settings: settings.map(pair).collect(),
        }
    }

    /// Puts them together again, with other words for password and settings.
    fn join(
        &self,
        mut password: impl FnMut(&str) -> Result<String, String>,
        mut setting: impl FnMut(&str, &str) -> Result<String, String>,
    ) -> Result<String, String> {
        let mut text = String::new();
        if let Some(scheme) = self.scheme {
            text.push_str(&format!("{scheme}://"));
        }
        if let Some(user) = self.user {
            text.push_str(user);
            if let Some(written) = self.password {
                text.push(':');
                text.push_str(&password(written)?);
            }
            text.push('@');
        }
        text.push_str(self.place);
        for (at, (name, value)) in self.settings.iter().enumerate() {
            text.push(if at == 0 { '?' } else { '&' });
            text.push_str(name);
            if let Some(value) = value {
                text.push('=');
                text.push_str(&setting(name, value)?);
            }
        }
        Ok(text)
    }
}

/// Puts values in the place of references; `look_up` finds them.
///
/// # Errors
/// What `look_up` says.
pub fn resolve(
    address: &str,
    look_up: &dyn Fn(Reference<'_>) -> Result<Zeroizing<String>, String>,
) -> Result<Resolved, String> {
    let mut hidden = Vec::new();
    let whole = Reference::of(address.trim()).map(look_up).transpose()?;
    let address = match &whole {
        None => address,
        Some(text) => {
            let text = text.trim();
            hidden.push(text.to_owned());
            text
        }
    };
    let is_written = whole.is_none();
    let mut find = |written: &str, hides: bool| {
        let plain = decoded(written);
        let reference = Reference::of(&plain).filter(|_| is_written);
        let Some(reference) = reference else {
            if hides {
                hidden.extend(password_in(&plain));
                hidden.push(plain);
            }
            return Ok(written.to_owned());
        };
        let value = look_up(reference)?;
        let value = value.trim_end_matches(['\n', '\r']);
        hidden.push(value.to_owned());
        Ok(utf8_percent_encode(value, RESERVED).to_string())
    };
    let parts = Parts::of(address);
    let mut find_setting = Vec::new();
    for (name, value) in &parts.settings {
        let found = value.map(|value| find(value, is_hidden(name))).transpose();
        find_setting.push(found?.unwrap_or_default());
    }
    let mut found = find_setting.into_iter();
    let address = parts.join(
        |password| find(password, true),
        |_, _| Ok(found.next().unwrap_or_default()),
    )?;
    hidden.retain(|value| !value.is_empty());
    Ok(Resolved { address, hidden })
}

/// An address without what others must not see; references are no secrets.
#[must_use]
pub fn shown(address: &str) -> String {
    let mask = |written: &str| match Reference::of(&decoded(written)) {
        Some(_) => written.to_owned(),
        None => "***".to_owned(),
    };
    if Reference::of(address.trim()).is_some() {
        return address.to_owned();
    }
    let joined = Parts::of(address).join(
        |password| Ok(mask(password)),
        |name, value| {
            Ok(if is_hidden(name) {
                mask(value)
            } else {
                value.to_owned()
            })
        },
    );
    joined.unwrap_or_default()
}

/// The password that is written out in an address, in its place before the host.
#[must_use]
pub fn password_in(address: &str) -> Option<String> {
    let password = decoded(Parts::of(address).password?);
    Reference::of(&password).is_none().then_some(password)
}

/// Whether a setting's value must not be seen, by its name.
#[must_use]
pub fn is_hidden(setting: &str) -> bool {
    const WORDS: [&str; 7] = [
        "password",
        "secret",
        "token",
        "key.pem",
        "jaas",
        "credential",
        "api_key",
    ];
    let name = setting.to_lowercase();
    // Any header may be somebody's key, and a proxy may come with its password.
    let is_whole = name.starts_with("header.") || name == "proxy";
    is_whole || WORDS.iter().any(|word| name.contains(word))
}

fn decoded(written: &str) -> String {
    percent_decode_str(written).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(reference: Reference<'_>) -> Result<Zeroizing<String>, String> {
        let value = match reference {
            Reference::Secret("pw") => "a&b c",
            Reference::Variable("URL") => "postgresql://ada:p%40w@h/db?sslpassword=q",
            Reference::File("/run/token") => "t0k\n",
            other => return Err(format!("nothing at {other:?}")),
        };
        Ok(Zeroizing::new(value.to_owned()))
    }

    #[test]
    fn references_are_found_in_every_place_and_written_as_a_url_needs_it() {
        for (given, address, hidden) in [
            (
                "h:1?sasl.password=secret:pw&client.id=me",
                "h:1?sasl.password=a%26b%20c&client.id=me",
                &["a&b c"][..],
            ),
            (
                "kafka://ada:secret:pw@h:1,i:2",
                "kafka://ada:a%26b%20c@h:1,i:2",
                &["a&b c"],
            ),
            (
                "https://h/v1?token=file:/run/token&timeout=5s",
                "https://h/v1?token=t0k&timeout=5s",
                &["t0k"],
            ),
            (
                "https://h/v1?token=file%3A%2Frun%2Ftoken",
                "https://h/v1?token=t0k",
                &["t0k"],
            ),
            (
                "env:URL",
                "postgresql://ada:p%40w@h/db?sslpassword=q",
                &["postgresql://ada:p%40w@h/db?sslpassword=q", "q", "p@w"],
            ),
            (
                "https://h?proxy=http://u:pass@p:1",
                "https://h?proxy=http://u:pass@p:1",
                &["pass", "http://u:pass@p:1"],
            ),
            ("h:1,i:2", "h:1,i:2", &[]),
            ("file:///var/data", "file:///var/data", &[]),
        ] {
            let found = resolve(given, &look_up).unwrap();
            assert_eq!(found.address, address);
            assert_eq!(found.hidden, hidden, "{given}");
        }
        let error = resolve("h:1?password=secret:nobody", &look_up).err();
        assert!(error.unwrap().contains("nobody"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        for (given, shown_as) in [
            ("h:1,h:2", "h:1,h:2"),
            ("kafka://ada:pw@h:1", "kafka://ada:***@h:1"),
            ("kafka://ada@h:1", "kafka://ada@h:1"),
            ("ada:pw@h:1/api", "ada:***@h:1/api"),
            (
                "h:1?sasl.password=pw&client.id=me",
                "h:1?sasl.password=***&client.id=me",
            ),
            (
                "h:1?ssl.key.pem=x&sasl.jaas.config=y",
                "h:1?ssl.key.pem=***&sasl.jaas.config=***",
            ),
            (
                "https://h/v1?header.X-Api-Key=k&token=t&proxy=http://u:p@h:1&timeout=5s",
                "https://h/v1?header.X-Api-Key=***&token=***&proxy=***&timeout=5s",
            ),
            (
                "kafka://ada:secret:pw@h:1?token=env:TOKEN",
                "kafka://ada:secret:pw@h:1?token=env:TOKEN",
            ),
            ("secret:warehouse", "secret:warehouse"),
        ] {
            assert_eq!(shown(given), shown_as);
        }
    }
}
