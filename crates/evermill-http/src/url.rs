//! URLs as far as a client needs them: put together, followed, compared by origin, shown.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::Uri;

use crate::error::Error;

/// What a path or query may not hold as it is; a `%` stays, since it may be an escape already.
const ILLEGAL: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// What stands for itself in a query's names and values.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An absolute URL of HTTP, without user, password or fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url(Uri);

/// Scheme, host and port: what may be trusted as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// Whether a request for one may go to the other: the same, or its secure twin at the usual ports.
    pub(crate) fn allows(&self, other: &Self) -> bool {
        let is_upgrade = self.host == other.host
            && (self.scheme.as_str(), self.port) == ("http", 80)
            && (other.scheme.as_str(), other.port) == ("https", 443);
        self == other || is_upgrade
    }
}

impl Url {
    /// Reads an absolute URL.
    ///
    /// # Errors
    /// [`Error::Refused`], without what may be secret in it.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let text = text.split('#').next().unwrap_or_default().trim();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(refused("it has no scheme; write http:// or https://"));
        };
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(refused(&format!("the scheme {scheme:?} is none of HTTP")));
        }
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        if authority.contains('@') {
            return Err(refused(
                "it holds a user or a password, which belong into a connection",
            ));
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        let path = utf8_percent_encode(path, ILLEGAL);
        let authority = authority.to_ascii_lowercase();
        let uri: Uri = format!("{scheme}://{authority}{slash}{path}")
            .parse()
            .map_err(|cause| refused(&format!("{cause}")))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(refused("it has no host"));
        }
        if authority.ends_with(':')
            || (has_port(&authority) && uri.port_u16().is_none_or(|port| port == 0))
        {
            return Err(refused("its port is no number from 1 to 65535"));
        }
        Ok(Self(uri))
    }

    /// A path below this one, as Airflow's connections put it: one after the other, with one slash between.
    pub(crate) fn below(&self, path: &str) -> Result<Self, Error> {
        let base = self.0.path().trim_end_matches('/');
        let slash = match path.chars().next() {
            None | Some('/' | '?') => "",
            Some(_) => "/",
        };
        Self::parse(&format!("{}{base}{slash}{path}", self.place()))
    }

    /// The URL that a `Location` header names, seen from here (RFC 3986, section 5.2).
    pub(crate) fn follow(&self, location: &str) -> Result<Self, Error> {
        let location = location.trim();
        let place = self.place();
        let is_absolute = location
            .split_once(':')
            .is_some_and(|(scheme, _)| is_scheme(scheme));
        if is_absolute {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme()));
        }
        let location = location.split('#').next().unwrap_or_default();
        if location.starts_with('?') {
            return Self::parse(&format!("{place}{}{location}", self.0.path()));
        }
        let (path, query) = match location.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (location, String::new()),
        };
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            let folder = self
                .0
                .path()
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder);
            format!("{folder}/{path}")
        };
        Self::parse(&format!("{place}{}{query}", without_dots(&path)))
    }

    /// The same with names and values behind its query.
    pub(crate) fn with_query(&self, pairs: &[(String, String)]) -> Result<Self, Error> {
        if pairs.is_empty() {
            return Ok(self.clone());
        }
        let pairs = pairs.iter().map(|(name, value)| {
            let [name, value] = [name, value].map(|text| utf8_percent_encode(text, PLAIN));
            format!("{name}={value}")
        });
        let pairs = pairs.collect::<Vec<_>>().join("&");
        let mark = if self.0.query().is_some() { '&' } else { '?' };
        Self::parse(&format!("{}{mark}{pairs}", self.0))
    }

    pub(crate) fn origin(&self) -> Origin {
        let usual = if self.scheme() == "https" { 443 } else { 80 };
        Origin {
            scheme: self.scheme().to_owned(),
            host: self.host().to_owned(),
            port: self.0.port_u16().unwrap_or(usual),
        }
    }

    pub(crate) fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    pub(crate) fn scheme(&self) -> &str {
        self.0.scheme_str().unwrap_or_default()
    }

    pub(crate) const fn uri(&self) -> &Uri {
        &self.0
    }

    fn place(&self) -> String {
        let authority = self
            .0
            .authority()
            .map_or("", |authority| authority.as_str());
        format!("{}://{authority}", self.scheme())
    }

    /// For people: without the query, which may hold a secret.
    pub(crate) fn shown(&self) -> String {
        format!("{}{}", self.place(), self.0.path())
    }
}

fn has_port(authority: &str) -> bool {
    let behind = authority
        .rsplit_once(']')
        .map_or(authority, |(_, rest)| rest);
    behind.contains(':')
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Removes `.` and `..` from a path that begins with a slash (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    for (at, part) in parts.iter().enumerate() {
        let is_last = at + 1 == parts.len();
        match *part {
            "." | ".." => {
                if *part == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

fn refused(why: &str) -> Error {
    Error::Refused(format!("the URL cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn references_are_resolved_as_rfc_3986_shows() {
        let base = url("http://a/b/c/d;p?q");
        // Section 5.4, without what names a fragment or no scheme of HTTP.
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("g#s/../x", "http://a/b/c/g"),
            ("https://h:1/x y", "https://h:1/x%20y"),
        ] {
            assert_eq!(
                base.follow(reference).unwrap(),
                url(expected),
                "{reference}"
            );
        }
        assert!(base.follow("file:///etc/passwd").is_err());
        assert!(base.follow("http://user:pass@b/").is_err());
    }

    #[test]
    fn an_endpoint_is_put_behind_the_base_with_one_slash() {
        for (base, path, expected) in [
            (
                "http://h:8080",
                "/model/status",
                "http://h:8080/model/status",
            ),
            ("http://h:8080/", "model", "http://h:8080/model"),
            ("http://h/api/", "/v1?x=1", "http://h/api/v1?x=1"),
            ("http://h/api", "", "http://h/api"),
            ("http://h/api", "?x=1", "http://h/api?x=1"),
            ("http://h", "//other/x", "http://h//other/x"),
            ("http://h", "/ä b", "http://h/%C3%A4%20b"),
        ] {
            assert_eq!(url(base).below(path).unwrap(), url(expected));
        }
        // A path cannot change who is asked.
        assert_eq!(url("http://h").below("@evil/x").unwrap().host(), "h");
    }

    #[test]
    fn queries_are_encoded_and_added() {
        let pairs = [
            ("a b".to_owned(), "ü&=".to_owned()),
            ("c".to_owned(), String::new()),
        ];
        assert_eq!(
            url("http://h/x?y=1").with_query(&pairs).unwrap(),
            url("http://h/x?y=1&a%20b=%C3%BC%26%3D&c=")
        );
    }

    #[test]
    fn what_is_no_url_of_http_is_refused_without_its_secrets() {
        for text in [
            "",
            "h",
            "ftp://h",
            "http://",
            "http://:80",
            "http:///x",
            "http://h:0",
            "http://h:",
            "http://h:99999",
            "http://u:geheim@h/",
            "http://h h/",
            "http://[::1/",
        ] {
            let error = Url::parse(text).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{error}");
        }
        assert_eq!(url("HTTP://Host/A").shown(), "http://host/A");
        assert_eq!(url("http://h/a?token=geheim").shown(), "http://h/a");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let allows = |one: &str, other: &str| url(one).origin().allows(&url(other).origin());
        assert!(allows("http://h/a", "http://h:80/b"));
        assert!(allows("http://h", "https://h"));
        assert!(!allows("https://h", "http://h"));
        assert!(!allows("http://h:1", "http://h:2"));
        assert!(!allows("http://h:1", "https://h"));
        assert!(!allows("http://h", "http://g"));
    }
}
