//! Judges a request and takes the events out of it; keeping them is the engine's.

use bytes::Bytes;
use evermill_contract::manifest::{Codec, WebhookSource as WebhookConfig};
use evermill_contract::source::{
    Arrival, ID_BYTES_MAX, PushRequest, PushSource, Reject, SourceError,
};
use sha2::{Digest as _, Sha256};

use super::cloud_event;
use super::signature::Secrets;
use crate::codec::check_json;
use crate::limits;

/// Headers that name a plain request, so that it counts once when it is sent again.
const IDS: [&str; 2] = ["webhook-id", "idempotency-key"];
/// Headers that are about the connection or hold secrets, and are nobody's business behind it.
const DROPPED: [&str; 10] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "transfer-encoding",
    "webhook-signature",
];

/// A way in for requests.
pub struct WebhookSource {
    secrets: Secrets,
    /// Nobody says what a body has to be: that of a plain request is JSON.
    wants_json: bool,
}

impl WebhookSource {
    /// Reads the secrets. What bodies have to be is for the gate of a source that says so.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when one cannot be had.
    pub fn open(config: &WebhookConfig, codec: Option<Codec>) -> Result<Self, SourceError> {
        Ok(Self {
            secrets: Secrets::read(&config.secrets)?,
            wants_json: codec.is_none(),
        })
    }

    fn plain(&self, request: &PushRequest<'_>) -> Result<Arrival, Reject> {
        let body = request.body;
        if self.wants_json {
            refuse_form(request)?;
            check_json(body).map_err(|why| Reject {
                status: 400,
                detail: format!("the body is no JSON: {why}"),
            })?;
        }
        let headers = request.headers.iter();
        let headers = headers.filter(|(name, _)| !DROPPED.contains(&name.as_str()));
        Ok(Arrival {
            headers: headers
                .map(|(name, value)| (Bytes::from(name.clone()), value.clone()))
                .collect(),
            value: Some(body.clone()),
            id: IDS.iter().find_map(|name| request.header(name)).map(short),
            ..Arrival::default()
        })
    }
}

/// Says JSON is expected before somebody looks for it in the parts of a form.
fn refuse_form(request: &PushRequest<'_>) -> Result<(), Reject> {
    let sort = request.header("content-type");
    let sort = sort.map(|sort| String::from_utf8_lossy(sort).to_ascii_lowercase());
    match sort.filter(|sort| sort.trim_start().starts_with("multipart/")) {
        None => Ok(()),
        Some(_) => Err(Reject {
            status: 415,
            detail: "a form in parts is not taken apart; send JSON".to_owned(),
        }),
    }
}

impl PushSource for WebhookSource {
    fn accept(&self, request: &PushRequest<'_>, now_ms: u64) -> Result<Vec<Arrival>, Reject> {
        if !matches!(request.method, "POST" | "PUT") {
            return Err(Reject {
                status: 405,
                detail: "send it by POST".to_owned(),
            });
        }
        self.secrets.check(request, now_ms)?;
        let mut events = match cloud_event::read(request) {
            Some(events) => events?,
            None => vec![self.plain(request)?],
        };
        for event in &mut events {
            event
                .timestamp_ms
                .get_or_insert_with(|| i64::try_from(now_ms).unwrap_or(i64::MAX));
        }
        Ok(events)
    }

    fn body_bytes_max(&self) -> usize {
        limits::WEBHOOK_BODY_BYTES_MAX
    }
}

/// An id that an inbox takes.
fn short(id: &Bytes) -> Bytes {
    if id.len() <= ID_BYTES_MAX {
        return id.clone();
    }
    Bytes::copy_from_slice(&Sha256::digest(id))
}
