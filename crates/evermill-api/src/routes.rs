//! What lies under `/api/v1`: a request in, a response out, whatever carries them. What there is stands in
//! [`crate::table`].
//!
//! `{run}` is a run id or a DAG id, percent-encoded. With the header `Idempotency-Key` a trigger or a signal counts once
//! within an hour; what came before is answered with `repeated`.

use bytes::Bytes;
use evermill_engine::Operations;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::access::Who;
use crate::beside::Beside;
use crate::problem::Problem;
use crate::table::{Call, ROUTES, Route};

/// Where every path begins.
pub(crate) const ROOT: &str = "/api/v1/";

/// What is done to a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// Look.
    #[default]
    Get,
    /// Do.
    Post,
    /// Replace.
    Put,
    /// Take away.
    Delete,
}

impl Method {
    /// The method of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let all = [Self::Get, Self::Post, Self::Put, Self::Delete];
        all.into_iter().find(|method| method.name() == name)
    }

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// A request, complete.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub who: Who,
    /// What to do.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// What came with it.
    pub body: Bytes,
    /// The header `If-Match`: change it only if it is still this.
    pub if_match: Option<String>,
    /// What makes it the same request when it comes again: the header `Idempotency-Key`.
    pub idempotency_key: Option<Bytes>,
}

/// An answer, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// What the body is.
    pub media_type: &'static str,
    /// JSON.
    pub body: Vec<u8>,
    /// The header `ETag`: which state of the resource this is, where it can be changed.
    pub etag: Option<String>,
    /// The header `Allow`, where the method does not fit.
    pub allow: Option<String>,
}

/// Answers a request that is about an engine.
#[must_use]
pub fn respond(engine: &dyn Operations, request: &Request) -> Response {
    respond_with(engine, None, request)
}

/// The same with what a server knows beside its engine.
pub(crate) fn respond_with(
    engine: &dyn Operations,
    beside: Option<&Beside<'_>>,
    request: &Request,
) -> Response {
    let (path, query) = split(&request.target);
    let found = find(request.method, path).and_then(|(route, parts)| {
        route.check(engine, &request.who, &parts)?;
        (route.act)(&Call {
            engine,
            beside,
            parts,
            query,
            request,
        })
    });
    match found {
        Ok(answer) => Response {
            status: 200,
            media_type: "application/json",
            etag: answer.tag,
            body: answer.body,
            allow: None,
        },
        Err(problem) => problem.into(),
    }
}

/// Path and query of a target.
pub(crate) fn split(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// The row of the table for a request, and what stands in the path in place of the names in braces.
pub(crate) fn find(method: Method, path: &str) -> Result<(&'static Route, Vec<String>), Problem> {
    let unknown = || Problem::no_such_resource(path);
    let below = path.strip_prefix(ROOT).ok_or_else(unknown)?;
    let parts = below
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Problem::bad_request("the path is not UTF-8"))?;
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(named) = fits(route.path, &parts) else {
            continue;
        };
        if route.method == method {
            return Ok((route, named));
        }
        allowed.push(route.method.name());
    }
    match allowed.is_empty() {
        true => Err(unknown()),
        false => Err(Problem::wrong_method(&allowed.join(", "))),
    }
}

fn fits<'a>(path: &str, parts: &[impl AsRef<str> + 'a]) -> Option<Vec<String>> {
    let wanted: Vec<&str> = path.split('/').skip(1).collect();
    if wanted.len() != parts.len() {
        return None;
    }
    let mut named = Vec::new();
    for (wanted, part) in wanted.iter().zip(parts) {
        let part = part.as_ref();
        match wanted.starts_with('{') {
            // An empty name names nothing.
            true if part.is_empty() => return None,
            true => named.push(part.to_owned()),
            false if *wanted == part => {}
            false => return None,
        }
    }
    Some(named)
}

/// Which state of a resource this is.
pub(crate) fn etag(body: &[u8]) -> String {
    let hash = Sha256::digest(body);
    let digits = hash.iter().take(16).map(|byte| format!("{byte:02x}"));
    format!("\"{}\"", digits.collect::<String>())
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        Self {
            status: problem.status,
            media_type: Problem::MEDIA_TYPE,
            body: json(&problem),
            etag: None,
            allow: problem.allow,
        }
    }
}

pub(crate) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("views have string keys only")
}
