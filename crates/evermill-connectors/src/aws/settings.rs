//! A connection's settings: where the service is, and who asks.
//!
//! | text | means |
//! |---|---|
//! | nothing | what the machine says, as for other programs |
//! | `eu-central-1` | a region |
//! | `http[s]://HOST[:PORT]`, `HOST:PORT` | an endpoint, such as an emulator's |
//! | `aws://[KEY:SECRET@]` | as Airflow writes it |
//! | any of these with `?setting=value&...` | with settings, percent-encoded where needed |

use std::fmt;

use evermill_contract::manifest::AWS_DEFAULT;
use evermill_contract::source::SourceError;
use percent_encoding::percent_decode_str;

use super::credentials::Keys;

/// Every setting, and the names that Airflow and the AWS tools have for it.
const SETTINGS: [(&str, &[&str]); 12] = [
    ("region", &["region_name"]),
    ("endpoint_url", &["host"]),
    ("access_key_id", &["aws_access_key_id"]),
    ("secret_access_key", &["aws_secret_access_key"]),
    ("session_token", &["aws_session_token"]),
    ("profile", &["profile_name"]),
    ("role_arn", &[]),
    ("external_id", &[]),
    ("timeout", &[]),
    ("connect_timeout", &[]),
    ("proxy", &[]),
    ("ca", &[]),
];

/// What a connection says.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    /// The connection's id, for messages.
    pub(crate) id: String,
    pub(crate) region: Option<String>,
    /// A URL without query.
    pub(crate) endpoint: Option<String>,
    pub(crate) keys: Option<Keys>,
    pub(crate) profile: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) external_id: Option<String>,
    /// Settings of the HTTP client, as a query.
    pub(crate) http: String,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("id", &self.id)
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Given {
    id: Option<String>,
    secret: Option<String>,
    token: Option<String>,
}

impl Settings {
    /// The settings of a connection, by its id.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when it is not set and has to be, or says what cannot be.
    pub(crate) fn find(
        id: &str,
        connection: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SourceError> {
        match connection(id) {
            Some(text) => Self::parse(id, &text),
            None if id == AWS_DEFAULT => Self::parse(id, ""),
            None => Err(SourceError::Refused(format!(
                "connection {id:?} is not set; pass --connection {id}=REGION, or use {AWS_DEFAULT}, which takes the machine's own settings"
            ))),
        }
    }

    /// Reads a connection as people write it.
    ///
    /// # Errors
    /// [`SourceError::Refused`] naming the part that is wrong, never a secret.
    pub(crate) fn parse(id: &str, text: &str) -> Result<Self, SourceError> {
        let read = Self::read(text).map_err(|why| {
            SourceError::Refused(format!(
                "connection {id:?}: {why}. Expected a region, an endpoint's URL, or aws://, with ?setting=value&..."
            ))
        })?;
        Ok(Self {
            id: id.to_owned(),
            ..read
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        let (place, query) = text.trim().split_once('?').unwrap_or((text.trim(), ""));
        let (mut settings, mut given) = (Self::default(), Given::default());
        settings.place(place, &mut given)?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, raw) = pair.split_once('=').unwrap_or((pair, ""));
            settings.set(name, raw, &mut given)?;
        }
        settings.keys = match given {
            Given {
                id: Some(id),
                secret: Some(secret),
                token,
            } => Some(Keys {
                id,
                secret,
                token,
                expires: None,
            }),
            Given {
                id: None,
                secret: None,
                token: None,
            } => None,
            _ => return Err("access_key_id and secret_access_key belong together".to_owned()),
        };
        if settings.keys.is_some() && settings.profile.is_some() {
            return Err("profile and access_key_id exclude each other".to_owned());
        }
        Ok(settings)
    }

    fn place(&mut self, place: &str, given: &mut Given) -> Result<(), String> {
        if let Some(rest) = place.strip_prefix("aws://") {
            let (user, host) = rest.rsplit_once('@').unwrap_or(("", rest));
            if !host.trim_end_matches('/').is_empty() {
                return Err("behind aws:// there is no host; write endpoint_url=".to_owned());
            }
            if let Some((id, secret)) = user.split_once(':') {
                given.id = Some(decoded("the key's id", id)?);
                given.secret = Some(decoded("the key's secret", secret)?);
            }
        } else if place.contains("://") || has_port(place) {
            self.endpoint(place)?;
        } else if is_region(place) {
            self.region = Some(place.to_owned());
        } else if !place.is_empty() {
            return Err(format!("{place:?} is neither a region nor a URL"));
        }
        Ok(())
    }

    fn endpoint(&mut self, place: &str) -> Result<(), String> {
        let url = if place.contains("://") {
            place.to_owned()
        } else {
            format!("http://{place}")
        };
        let rest = ["http://", "https://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or("an endpoint begins with http:// or https://")?;
        if rest
            .split('/')
            .next()
            .is_some_and(|host| host.contains('@'))
        {
            return Err(
                "an endpoint holds no credentials; write access_key_id= and secret_access_key="
                    .to_owned(),
            );
        }
        self.endpoint = Some(url.trim_end_matches('/').to_owned());
        Ok(())
    }

    fn set(&mut self, name: &str, raw: &str, given: &mut Given) -> Result<(), String> {
        let known = SETTINGS
            .iter()
            .find(|(known, others)| *known == name || others.contains(&name));
        let Some((name, _)) = known else {
            return Err(unknown(name));
        };
        let value = decoded(name, raw)?;
        if value.is_empty() {
            return Err(format!("{name} has no value"));
        }
        match *name {
            "region" if is_region(&value) => self.region = Some(value),
            "region" => return Err(format!("region {value:?} is none, such as eu-central-1")),
            "endpoint_url" => self.endpoint(&value)?,
            "access_key_id" => given.id = Some(value),
            "secret_access_key" => given.secret = Some(value),
            "session_token" => given.token = Some(value),
            "profile" => self.profile = Some(value),
            "role_arn" => self.role = Some(value),
            "external_id" => self.external_id = Some(value),
            name => {
                let mark = if self.http.is_empty() { "" } else { "&" };
                self.http.push_str(&format!("{mark}{name}={raw}"));
            }
        }
        Ok(())
    }
}

fn decoded(name: &str, text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| format!("the value of {name} is not percent-encoded UTF-8"))?;
    Ok(text.into_owned())
}

fn has_port(place: &str) -> bool {
    let port = place.rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Words and a number with dashes between them. A new region needs no new version of ours.
pub(super) fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [words @ .., number] = &parts[..] else {
        return false;
    };
    let is_word =
        |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    words.len() >= 2
        && words.iter().all(is_word)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn unknown(name: &str) -> String {
    let known = || SETTINGS.iter().map(|(known, _)| *known);
    match crate::near::nearest(name, known()) {
        Some(meant) => format!("the setting {name:?} is not known; did you mean {meant}?"),
        None => {
            let all: Vec<_> = known().collect();
            format!(
                "the setting {name:?} is not known; known are {}",
                all.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Settings {
        Settings::parse("aws_default", text).unwrap()
    }

    #[test]
    fn a_connection_is_a_region_an_endpoint_or_what_airflow_writes() {
        assert_eq!(read("eu-central-1").region.as_deref(), Some("eu-central-1"));
        assert_eq!(
            read("us-gov-west-1").region.as_deref(),
            Some("us-gov-west-1")
        );
        for place in ["127.0.0.1:4566", "http://127.0.0.1:4566/"] {
            let found = read(place);
            assert_eq!(found.endpoint.as_deref(), Some("http://127.0.0.1:4566"));
        }
        let airflow =
            read("aws://AKIA:s%2Fcret@/?region_name=eu-west-1&role_arn=arn:aws:iam::1:role/r");
        let keys = airflow.keys.unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str()), ("AKIA", "s/cret"));
        assert_eq!(airflow.region.as_deref(), Some("eu-west-1"));
        assert_eq!(airflow.role.as_deref(), Some("arn:aws:iam::1:role/r"));
        let http = read("?region=eu-west-1&timeout=5s&ca=%2Fa%20b");
        assert_eq!(http.http, "timeout=5s&ca=%2Fa%20b");
        assert!(read("").keys.is_none() && read("").region.is_none());
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_said() {
        for (text, said) in [
            ("Frankfurt", "neither a region nor a URL"),
            ("ftp://h", "http:// or https://"),
            ("http://me:geheim@h:1", "holds no credentials"),
            ("aws://me:geheim@h", "no host"),
            ("?regoin=eu-west-1", "did you mean region?"),
            ("?colour=red", "known are region"),
            ("?region=west", "such as eu-central-1"),
            ("?secret_access_key=geheim", "belong together"),
            (
                "?access_key_id=a&secret_access_key=geheim&profile=p",
                "exclude each other",
            ),
            ("?session_token=geheim", "belong together"),
            ("?profile=", "has no value"),
        ] {
            let error = Settings::parse("aws_default", text)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(said) && error.contains("aws_default"),
                "{text}: {error}"
            );
            assert!(!error.contains("geheim"), "{error}");
        }
        let shown = format!("{:?}", read("?access_key_id=a&secret_access_key=geheim"));
        assert!(!shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn only_the_default_connection_needs_no_settings() {
        assert!(Settings::find("aws_default", &|_| None).is_ok());
        let error = Settings::find("aws_other", &|_| None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("--connection aws_other=REGION"), "{error}");
    }
}
