//! Connection settings: from what people write to what a client takes.
//!
//! `HOST:PORT`, or `http[s]://[USER:PASSWORD@]HOST[:PORT][/PATH][?setting=value&...]`, the settings
//! percent-encoded where needed: `username`, `password`, `token`, `header.NAME`, `timeout`,
//! `connect_timeout`, `redirects`, `proxy`, `ca`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use percent_encoding::percent_decode_str;
use ureq::http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use crate::error::Error;
use crate::limits;
use crate::url::Url;

const SETTINGS: [&str; 9] = [
    "username",
    "password",
    "token",
    "header.NAME",
    "timeout",
    "connect_timeout",
    "redirects",
    "proxy",
    "ca",
];
/// A word this alike is taken for the one that was meant (Jaro-Winkler).
const ALIKE: f64 = 0.8;

/// A place that speaks HTTP, and how to speak to it.
#[derive(Clone)]
pub struct Connection {
    pub(crate) base: Option<Url>,
    /// Sent to the base's own origin and to nobody else.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) redirects_max: u32,
    pub(crate) proxy: Option<ureq::Proxy>,
    pub(crate) ca: Option<PathBuf>,
}

impl Default for Connection {
    /// No place of its own: for requests whose URL is written out.
    fn default() -> Self {
        Self {
            base: None,
            headers: Vec::new(),
            timeout: limits::TIMEOUT,
            connect_timeout: limits::CONNECT_TIMEOUT,
            redirects_max: limits::REDIRECTS_MAX,
            proxy: None,
            ca: None,
        }
    }
}

/// Who asks.
#[derive(Default)]
struct Credentials {
    username: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

impl Connection {
    /// Reads a connection as people write it; `id` is used in messages.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the part that is wrong, never a secret value.
    pub fn parse(id: &str, text: &str) -> Result<Self, Error> {
        Self::read(text).map_err(|why| {
            Error::Refused(format!(
                "connection {id:?}: {why}. Expected http[s]://HOST[:PORT][/PATH][?setting=value]"
            ))
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        let (place, query) = text.trim().split_once('?').unwrap_or((text.trim(), ""));
        let mut connection = Self::default();
        let mut credentials = Credentials::default();
        let place = credentials.take(place)?;
        let place = if place.contains("://") {
            place
        } else {
            format!("http://{place}")
        };
        connection.base = Some(Url::parse(&place).map_err(|error| error.to_string())?);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)
                .ok_or_else(|| format!("the value of {name} is not percent-encoded UTF-8"))?;
            connection.set(name, value, &mut credentials)?;
        }
        if let Some(value) = credentials.header()? {
            connection.headers.insert(0, (AUTHORIZATION, value));
        }
        Ok(connection)
    }

    fn set(
        &mut self,
        name: &str,
        value: String,
        credentials: &mut Credentials,
    ) -> Result<(), String> {
        match name {
            "username" => credentials.username = Some(value),
            "password" => credentials.password = Some(value),
            "token" => credentials.token = Some(value),
            "timeout" => self.timeout = duration(name, &value)?,
            "connect_timeout" => self.connect_timeout = duration(name, &value)?,
            "redirects" => {
                let count = value.parse().ok();
                let count = count.filter(|count| *count <= limits::REDIRECTS_MAX);
                let bound = limits::REDIRECTS_MAX;
                self.redirects_max = count.ok_or_else(|| {
                    format!("redirects = {value:?} is no whole number from 0 to {bound}")
                })?;
            }
            "proxy" => self.proxy = Some(proxy(&value)?),
            "ca" => self.ca = Some(value.into()),
            name => match name.strip_prefix("header.") {
                Some(header) => self.headers.push(self::header(header, &value)?),
                None => return Err(unknown(name)),
            },
        }
        Ok(())
    }

    /// How long a request may take where it does not say so itself.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The place for people: scheme, host and path; empty if it has none.
    #[must_use]
    pub fn place(&self) -> String {
        self.base.as_ref().map_or_else(String::new, Url::shown)
    }
}

impl Credentials {
    /// Takes user and password out of an address.
    fn take(&mut self, place: &str) -> Result<String, String> {
        let (scheme, rest) = match place.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), place),
        };
        let split = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        let Some((user, host)) = authority.rsplit_once('@') else {
            return Ok(place.to_owned());
        };
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let wrong = || "the user before the host is not percent-encoded UTF-8".to_owned();
        self.username = Some(decoded(user).ok_or_else(wrong)?);
        self.password = Some(decoded(password).ok_or_else(wrong)?);
        Ok(format!("{scheme}{host}{path}"))
    }

    fn header(self) -> Result<Option<HeaderValue>, String> {
        let text = match (self.username, self.password, self.token) {
            (None, None, None) => return Ok(None),
            (None, None, Some(token)) => format!("Bearer {token}"),
            (Some(user), _, None) if user.contains(':') => {
                return Err("a username of basic authentication has no ':'".to_owned());
            }
            (Some(user), password, None) => {
                let pair = format!("{user}:{}", password.unwrap_or_default());
                let pair = base64::engine::general_purpose::STANDARD.encode(pair);
                format!("Basic {pair}")
            }
            (None, Some(_), None) => return Err("a password without a username".to_owned()),
            (_, _, Some(_)) => {
                return Err("a token and a username exclude each other".to_owned());
            }
        };
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| "a credential has a character that no header may have".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())?;
        for (name, _) in &self.headers {
            write!(f, " {name}=***")?;
        }
        Ok(())
    }
}

/// A header with a name and a value that may be sent.
pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    /// They frame a message, so the client alone knows their values.
    const OURS: [&str; 5] = [
        "connection",
        "content-length",
        "host",
        "te",
        "transfer-encoding",
    ];
    let name = HeaderName::try_from(name).map_err(|_| format!("{name:?} is no header's name"))?;
    if OURS.contains(&name.as_str()) {
        return Err(format!("the header {name} is set by evermill itself"));
    }
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| format!("the value of header {name} has a character that none may have"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn proxy(text: &str) -> Result<ureq::Proxy, String> {
    let is_http = text.starts_with("http://");
    let proxy = ureq::Proxy::new(text).ok().filter(|_| is_http);
    proxy.ok_or_else(|| "proxy is no http://[USER:PASSWORD@]HOST:PORT".to_owned())
}

fn unknown(name: &str) -> String {
    let alike = SETTINGS
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match alike {
        Some((_, known)) => format!("the setting {name:?} is not known; did you mean {known}?"),
        None => format!(
            "the setting {name:?} is not known; known are {}",
            SETTINGS.join(", ")
        ),
    }
}

fn decoded(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    Some(text.into_owned())
}

/// Seconds, or a number with `ms`, `s` or `m`.
fn duration(name: &str, text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "ms" => Some(0.001),
        "" | "s" => Some(1.0),
        "m" => Some(60.0),
        _ => None,
    };
    let seconds = number.parse::<f64>().ok().zip(factor);
    let seconds = seconds.map(|(number, factor)| number * factor);
    let most = limits::TIMEOUT_MAX.as_secs_f64();
    let seconds = seconds.filter(|seconds| (0.001..=most).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        format!("{name} = {text:?} is no duration such as 500ms, 30s or 2m, at most {most} s")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str) -> Vec<String> {
        let connection = Connection::parse("http_default", text).unwrap();
        let headers = connection.headers.iter();
        let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        headers.collect()
    }

    fn refusal(text: &str) -> String {
        let refused = Connection::parse("http_default", text);
        refused.map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn an_address_without_a_scheme_is_plain_http() {
        let place = |text| Connection::parse("x", text).unwrap().place();
        assert_eq!(place("127.0.0.1:8080"), "http://127.0.0.1:8080/");
        assert_eq!(place("[::1]:8080/api"), "http://[::1]:8080/api");
        assert_eq!(place("https://h/v1/?timeout=5s"), "https://h/v1/");
    }

    #[test]
    fn credentials_and_headers_become_headers() {
        assert_eq!(
            sent("http://ann:p%40ss@h"),
            ["authorization: Basic YW5uOnBAc3M="]
        );
        assert_eq!(
            sent("h:1?username=ann&password=p%40ss"),
            ["authorization: Basic YW5uOnBAc3M="]
        );
        assert_eq!(
            sent("https://h?token=abc&header.X-Api-Key=k%201"),
            ["authorization: Bearer abc", "x-api-key: k 1"]
        );
    }

    #[test]
    fn settings_are_read_with_their_units() {
        let text = "h:1?timeout=1.5&connect_timeout=250ms&redirects=0";
        let connection = Connection::parse("x", text).unwrap();
        assert_eq!(connection.timeout, Duration::from_millis(1500));
        assert_eq!(connection.connect_timeout, Duration::from_millis(250));
        assert_eq!(connection.redirects_max, 0);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_said() {
        for (text, said) in [
            ("ftp://h", "ftp"),
            ("h:1?timout=5", "did you mean timeout?"),
            ("h:1?colour=red", "known are username"),
            ("h:1?timeout=0", "timeout"),
            ("h:1?timeout=2h", "timeout"),
            ("h:1?redirects=99", "from 0 to 5"),
            ("h:1?header.Host=x", "host"),
            ("h:1?header.X=geheim%0A", "header x"),
            ("h:1?header.a b=1", "no header's name"),
            ("h:1?token=geheim%0D%0AX:1", "credential"),
            ("http://ann:geheim@h?token=geheim", "exclude"),
            ("h:1?password=geheim", "without a username"),
            ("h:1?proxy=ftp://u:geheim@p", "proxy"),
        ] {
            let error = refusal(text);
            assert!(
                error.contains(said) && error.contains("http_default"),
                "{error}"
            );
            assert!(!error.contains("geheim"), "{error}");
        }
        let text = "http://ann:geheim@h?header.X=geheim";
        let shown = format!("{:?}", Connection::parse("x", text).unwrap());
        assert_eq!(shown, "http://h/ authorization=*** x=***");
    }
}
