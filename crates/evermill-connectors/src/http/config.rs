//! A source's settings: from what the manifest says to what is asked.

use std::time::Duration;

use evermill_contract::manifest::{HttpCheck, HttpCursor, HttpSource};
use evermill_contract::source::SourceError;
use evermill_http::{Client, Connection, Method, Request, Target};
use sha2::{Digest as _, Sha256};

use crate::{Environment, limits};

/// What is asked, whom, how often, and what the answer has to be.
pub(super) struct Question {
    pub(super) client: Client,
    pub(super) check: HttpCheck,
    pub(super) select: Option<String>,
    pub(super) cursor: Option<HttpCursor>,
    pub(super) fire_on_start: bool,
    pub(super) interval: Duration,
    /// Tells this question from another one of the same source: what was seen of one says nothing
    /// of the other.
    pub(super) mark: String,
    request: Request,
}

impl Question {
    /// # Errors
    /// [`SourceError::Refused`] naming the setting and the cure.
    pub(super) fn new(
        config: &HttpSource,
        environment: &Environment<'_>,
    ) -> Result<Self, SourceError> {
        let connection = match config.needs() {
            None => Connection::default(),
            Some(id) => {
                let address = (environment.connection)(id).ok_or_else(|| {
                    SourceError::Refused(format!(
                        "connection {id:?} of endpoint {:?} is not set; pass --connection {id}=URL",
                        config.endpoint
                    ))
                })?;
                Connection::parse(id, &address).map_err(refused)?
            }
        };
        check_pointers(config)?;
        let interval = Duration::from_millis(config.poke_interval_ms);
        Ok(Self {
            client: Client::new(connection).map_err(refused)?,
            check: config.check.clone(),
            select: config.select.clone(),
            cursor: config.cursor.clone(),
            fire_on_start: config.fire_on_start,
            interval: interval.clamp(limits::HTTP_POKE_MIN, limits::HTTP_WAIT_MAX),
            mark: mark(config),
            request: request(config)?,
        })
    }

    /// The request, from behind this item of a list.
    pub(super) fn request(&self, after: Option<&str>) -> Request {
        let mut request = self.request.clone();
        if let (Some(cursor), Some(after)) = (&self.cursor, after) {
            request.query.retain(|(name, _)| *name != cursor.param);
            request.query.push((cursor.param.clone(), after.to_owned()));
        }
        request
    }
}

fn request(config: &HttpSource) -> Result<Request, SourceError> {
    let method = Method::from_bytes(config.method.as_bytes())
        .map_err(|_| SourceError::Refused(format!("method {:?} is none", config.method)))?;
    let target = match config.needs() {
        None => Target::Written(config.endpoint.clone()),
        Some(_) => Target::Below(config.endpoint.clone()),
    };
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        let pairs = map.iter();
        pairs
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Vec<_>>()
    };
    let has_body = matches!(method.as_str(), "POST" | "PUT" | "PATCH");
    let mut request = Request::new(method, target);
    request.headers = pairs(&config.headers);
    request.bytes_max = limits::HTTP_BODY_BYTES_MAX;
    let params = pairs(&config.request_params);
    if has_body {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&params)
            .finish();
        let sort = "application/x-www-form-urlencoded".to_owned();
        let is_set = |(name, _): &(String, String)| name.eq_ignore_ascii_case("content-type");
        if !request.headers.iter().any(is_set) {
            request.headers.push(("Content-Type".to_owned(), sort));
        }
        request.body = Some(form.into_bytes());
    } else {
        request.query = params;
    }
    Ok(request)
}

fn check_pointers(config: &HttpSource) -> Result<(), SourceError> {
    let tests = config.check.tests.iter().map(|test| &test.pointer);
    let of_cursor = config.cursor.iter();
    let of_cursor = of_cursor.flat_map(|cursor| [&cursor.items, &cursor.id]);
    let mut all = tests.chain(&config.select).chain(of_cursor);
    match all.find(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
        Some(pointer) => Err(SourceError::Refused(format!(
            "{pointer:?} is no JSON pointer; write \"/{pointer}\""
        ))),
        None => Ok(()),
    }
}

/// Headers are left out: a new key asks the same.
fn mark(config: &HttpSource) -> String {
    let asked = (
        &config.endpoint,
        &config.connection,
        &config.method,
        &config.request_params,
        &config.check,
        &config.select,
        &config.cursor,
    );
    let json = serde_json::to_vec(&asked).expect("a manifest is JSON");
    hex(&Sha256::digest(json)[..8])
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn refused(error: evermill_http::Error) -> SourceError {
    SourceError::Refused(error.to_string())
}
