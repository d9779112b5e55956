//! Sends a request, follows redirects, reads a bounded answer.

use std::error::Error as _;
use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use ureq::http::{self, HeaderMap, HeaderName, HeaderValue, Method};
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::DefaultConnector;

use crate::connection::{Connection, header};
use crate::error::Error;
use crate::guard::{self, Guard, NotPublic};
use crate::url::{Origin, Url};
use crate::{limits, roots};

/// Speaks over one connection, and keeps its sockets for the next request.
#[derive(Clone)]
pub struct Client {
    connection: Connection,
    /// For hosts that somebody of ours has named.
    open: Agent,
    /// For all others.
    guarded: Agent,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// How.
    pub method: Method,
    /// Whom.
    pub target: Target,
    /// Names and values for the query, not encoded yet.
    pub query: Vec<(String, String)>,
    /// Headers beside the connection's own, which they replace.
    pub headers: Vec<(String, String)>,
    /// The body; none differs from an empty one.
    pub body: Option<Vec<u8>>,
    /// The longest it may take in all; without it the connection's.
    pub timeout: Option<Duration>,
    /// The longest body of an answer, after decompression.
    pub bytes_max: usize,
    /// What counts is that the body arrives, not what comes back: a redirect that would go on without
    /// the body is the answer, and an answer that is longer than `bytes_max`, or breaks off, is cut.
    pub delivers: bool,
}

/// Whom a request asks. Who named the place decides what may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A path and query below the connection's address.
    Below(String),
    /// A whole URL that the DAG's author wrote.
    Written(String),
    /// A whole URL out of a payload: public addresses and the connection's own host, nothing else.
    Foreign(String),
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status, 200 to 599.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, decompressed.
    pub body: Vec<u8>,
    /// Who answered, for people: without the query.
    pub place: String,
}

impl Request {
    /// A request with nothing but a method and a target.
    #[must_use]
    pub fn new(method: Method, target: Target) -> Self {
        Self {
            method,
            target,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            timeout: None,
            bytes_max: limits::BODY_BYTES_MAX,
            delivers: false,
        }
    }
}

impl Response {
    /// A header's text; None when it is missing or no text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A request on its way, from one place to the next.
struct Hop<'a> {
    url: Url,
    method: Method,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<&'a [u8]>,
}

impl Client {
    /// Makes a client; nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::Refused`] when TLS has nobody to believe.
    pub fn new(connection: Connection) -> Result<Self, Error> {
        let agent = |public_only| agent(&connection, public_only);
        Ok(Self {
            open: agent(false)?,
            guarded: agent(true)?,
            connection,
        })
    }

    /// The connection it speaks over.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Ends what is under way, on whatever thread, at once. The client is of no use afterwards.
    pub fn cancel(&self) {
        self.open.clone().shutdown();
        self.guarded.clone().shutdown();
    }

    /// Sends a request and reads the whole answer. An answer of any status is no error.
    ///
    /// # Errors
    /// [`Error`]; see [`Error::may_pass`].
    pub fn send(&self, request: &Request) -> Result<Response, Error> {
        let timeout = request.timeout.unwrap_or(self.connection.timeout);
        let deadline = Instant::now() + timeout;
        let (url, trusted) = self.place(&request.target)?;
        let mut hop = Hop {
            url: url.with_query(&request.query)?,
            method: request.method.clone(),
            headers: self.headers(request, &url)?,
            body: request.body.as_deref(),
        };
        for _ in 0..=self.connection.redirects_max {
            let response = self.ask(&hop, &trusted, deadline, timeout)?;
            let Some(next) = next(&hop, &response, request.delivers)? else {
                return read(response, &hop.url, request, timeout);
            };
            hop = next;
        }
        Err(Error::Refused(format!(
            "{}: more than {} redirects",
            hop.url.shown(),
            self.connection.redirects_max
        )))
    }

    /// Where a request begins, and the origins that it may reach whatever their address.
    fn place(&self, target: &Target) -> Result<(Url, Vec<Origin>), Error> {
        let base = self.connection.base.as_ref();
        let mut trusted: Vec<_> = base.map(Url::origin).into_iter().collect();
        let url = match target {
            Target::Below(path) => {
                let base = base.ok_or_else(|| {
                    Error::Refused("a path without a connection to put it behind".to_owned())
                })?;
                base.below(path)?
            }
            Target::Written(text) => {
                let url = Url::parse(text)?;
                trusted.push(url.origin());
                url
            }
            Target::Foreign(text) => Url::parse(text)?,
        };
        Ok((url, trusted))
    }

    /// The request's headers, and the connection's for its own host.
    fn headers(
        &self,
        request: &Request,
        url: &Url,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
        let own = request
            .headers
            .iter()
            .map(|(name, value)| header(name, value));
        let mut headers: Vec<_> = own.collect::<Result<_, _>>().map_err(Error::Refused)?;
        let base = self.connection.base.as_ref().map(Url::origin);
        if base.is_some_and(|base| base.allows(&url.origin())) {
            for (name, value) in &self.connection.headers {
                if !headers.iter().any(|(other, _)| other == name) {
                    headers.push((name.clone(), value.clone()));
                }
            }
        }
        Ok(headers)
    }

    fn ask(
        &self,
        hop: &Hop<'_>,
        trusted: &[Origin],
        deadline: Instant,
        timeout: Duration,
    ) -> Result<http::Response<ureq::Body>, Error> {
        let origin = hop.url.origin();
        let is_trusted = trusted.iter().any(|own| own.allows(&origin));
        if !is_trusted && self.connection.proxy.is_some() {
            // The proxy resolves names and we cannot see to what; its own rules hold for those.
            refuse_literal(&hop.url)?;
        }
        let agent = if is_trusted {
            &self.open
        } else {
            &self.guarded
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let mut request = http::Request::new(hop.body.unwrap_or_default());
        *request.method_mut() = hop.method.clone();
        *request.uri_mut() = hop.url.uri().clone();
        request.headers_mut().extend(hop.headers.iter().cloned());
        let told = |error| explain(error, &hop.url, timeout);
        if hop.body.is_none() {
            let request = agent.configure_request(request.map(|_| ()));
            let limited = request.timeout_global(Some(left)).build();
            return agent.run(limited).map_err(told);
        }
        let request = agent.configure_request(request);
        let limited = request.timeout_global(Some(left)).build();
        agent.run(limited).map_err(told)
    }
}

/// A client of the library that follows nothing by itself: redirects are judged here.
fn agent(connection: &Connection, public_only: bool) -> Result<Agent, Error> {
    let is_secure = connection
        .base
        .as_ref()
        .is_none_or(|base| base.scheme() == "https");
    let roots = match &connection.ca {
        Some(file) => roots::of_file(file).map_err(Error::Refused)?,
        // Without https there may be a machine without roots; a redirect to https fails there.
        None => match roots::of_machine() {
            Ok(roots) => roots,
            Err(why) if is_secure && connection.base.is_some() => return Err(Error::Refused(why)),
            Err(_) => ureq::tls::RootCerts::new_with_certs(&[]),
        },
    };
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(connection.proxy.clone())
        .tls_config(tls)
        .timeout_connect(Some(connection.connect_timeout))
        .max_response_header_size(limits::HEAD_BYTES_MAX)
        .max_idle_connections(limits::IDLE_CONNECTIONS)
        .max_idle_connections_per_host(limits::IDLE_CONNECTIONS_PER_HOST)
        .max_idle_age(limits::IDLE_TIME)
        .allow_non_standard_methods(true)
        .user_agent(concat!("evermill/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(Agent::with_parts(
        config,
        DefaultConnector::default(),
        Guard::new(public_only),
    ))
}

/// The next place of a redirect (RFC 9110, section 15.4); None for any other answer.
fn next<'a>(
    hop: &Hop<'a>,
    response: &http::Response<ureq::Body>,
    delivers: bool,
) -> Result<Option<Hop<'a>>, Error> {
    let status = response.status().as_u16();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let becomes_get = match status {
        303 => hop.method != Method::HEAD,
        301 | 302 => hop.method == Method::POST,
        _ => false,
    };
    if delivers && becomes_get {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION);
    let Some(location) = location.and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let url = hop
        .url
        .follow(location)
        .map_err(|error| Error::Refused(format!("{}: its redirect: {error}", hop.url.shown())))?;
    if hop.url.scheme() == "https" && url.scheme() == "http" {
        return Err(Error::Refused(format!(
            "{}: redirects from https to http, to {}",
            hop.url.shown(),
            url.shown()
        )));
    }
    // What was meant for one place is told to no other.
    let stays = hop.url.origin().allows(&url.origin());
    let headers = hop.headers.iter();
    let headers = headers
        .filter(|(name, _)| stays || *name == ACCEPT || *name == CONTENT_TYPE)
        .filter(|(name, _)| !(becomes_get && *name == CONTENT_TYPE));
    Ok(Some(Hop {
        url,
        method: if becomes_get {
            Method::GET
        } else {
            hop.method.clone()
        },
        headers: headers.cloned().collect(),
        body: hop.body.filter(|_| !becomes_get),
    }))
}

fn read(
    response: http::Response<ureq::Body>,
    url: &Url,
    request: &Request,
    timeout: Duration,
) -> Result<Response, Error> {
    let (head, body) = response.into_parts();
    let mut bytes = Vec::new();
    let bytes_max = request.bytes_max;
    let bound = bytes_max as u64 + u64::from(!request.delivers);
    let whole = body.into_reader().take(bound).read_to_end(&mut bytes);
    if let Err(cause) = whole
        && !request.delivers
    {
        return Err(explain(ureq::Error::from(cause), url, timeout));
    }
    if bytes.len() > bytes_max {
        let place = url.shown();
        return Err(Error::TooLarge { place, bytes_max });
    }
    Ok(Response {
        status: head.status.as_u16(),
        headers: head.headers,
        body: bytes,
        place: url.shown(),
    })
}

fn refuse_literal(url: &Url) -> Result<(), Error> {
    let host = url.host();
    let is_ours = guard::literal(host).is_some_and(|address| !guard::is_public(address));
    if is_ours || host == "localhost" || host.ends_with(".localhost") {
        return Err(not_public(url, host));
    }
    Ok(())
}

fn not_public(url: &Url, what: &str) -> Error {
    Error::Refused(format!(
        "{}: leads to {what}, an address that is not public; only a host that a connection or the \
         DAG file names may be inside the own network",
        url.shown()
    ))
}

/// The library's error in our words, without secrets.
fn explain(error: ureq::Error, url: &Url, timeout: Duration) -> Error {
    let place = url.shown();
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            let why = "no connection in time".to_owned();
            Error::Unreachable { place, why }
        }
        ureq::Error::Timeout(_) => Error::Timeout {
            place,
            after: timeout,
        },
        ureq::Error::HostNotFound => Error::Unreachable {
            place,
            why: "this host's name has no address".to_owned(),
        },
        ureq::Error::BadUri(why) => Error::Refused(format!("{place}: {why}")),
        ureq::Error::Http(why) => Error::Refused(format!("{place}: {why}")),
        ureq::Error::Other(cause) => match cause.downcast_ref::<NotPublic>() {
            Some(NotPublic(address)) => not_public(url, &address.to_string()),
            None => Error::Unreachable {
                place,
                why: cause.to_string(),
            },
        },
        ureq::Error::Io(cause) => Error::Unreachable {
            place,
            why: of_io(&cause),
        },
        other => Error::Unreachable {
            place,
            why: other.to_string(),
        },
    }
}

/// An error of a socket, or one of TLS that a socket carries.
fn of_io(cause: &std::io::Error) -> String {
    let inner = cause.get_ref().map(ToString::to_string);
    let behind = cause.source().map(ToString::to_string);
    inner.or(behind).unwrap_or_else(|| cause.to_string())
}
