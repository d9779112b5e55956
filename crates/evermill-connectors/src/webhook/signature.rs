//! Whether a request comes from whom it says: HMAC-SHA256 over id, time and body, as the Standard
//! Webhooks specification has it.
//!
//! ```text
//! webhook-id: msg_1          webhook-timestamp: 1732300000          webhook-signature: v1,BASE64 v1,BASE64
//! BASE64 = HMAC-SHA256(secret, "{id}.{timestamp}.{body}")
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evermill_contract::source::{PushRequest, Reject, SourceError};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::limits;

/// Marks a secret that stands in base64.
const PREFIX: &str = "whsec_";
/// The version of the scheme, in front of each signature.
const VERSION: &str = "v1";

/// What requests are signed with.
pub(super) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// Reads secrets as people write them.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when one cannot be had, without a word of it.
    pub(super) fn read(written: &[String]) -> Result<Self, SourceError> {
        if written.len() > limits::WEBHOOK_SECRETS_MAX {
            let most = limits::WEBHOOK_SECRETS_MAX;
            return Err(SourceError::Refused(format!(
                "{} secrets are active at once; {most} at most: the old one and the new one",
                written.len()
            )));
        }
        let keys = written.iter().map(|written| key(written));
        let keys = keys
            .collect::<Result<_, _>>()
            .map_err(SourceError::Refused)?;
        Ok(Self(keys))
    }

    /// Judges a request that came at `now_ms`; the id that it was signed with, if it has to be signed.
    pub(super) fn check(&self, request: &PushRequest<'_>, now_ms: u64) -> Result<(), Reject> {
        if self.0.is_empty() {
            return Ok(());
        }
        let id = header(request, "webhook-id")?;
        let timestamp = header(request, "webhook-timestamp")?;
        let signature = header(request, "webhook-signature")?;
        let sent_s: i64 = timestamp
            .parse()
            .map_err(|_| unsigned("webhook-timestamp is no number of seconds since 1970"))?;
        let now_s = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        let window_s = i64::try_from(limits::WEBHOOK_TIME_WINDOW.as_secs()).unwrap_or(i64::MAX);
        if now_s.saturating_sub(sent_s).saturating_abs() > window_s {
            return Err(unsigned(&format!(
                "webhook-timestamp is more than {window_s} s from our clock"
            )));
        }
        let given = signature.split(' ').filter_map(|one| {
            let (version, code) = one.split_once(',')?;
            (version == VERSION).then(|| STANDARD.decode(code).ok())?
        });
        for given in given.take(limits::WEBHOOK_SIGNATURES_MAX) {
            let is_ours = |key: &Vec<u8>| {
                let mut mac = mac(key);
                for part in [id.as_bytes(), b".", timestamp.as_bytes(), b"."] {
                    mac.update(part);
                }
                mac.update(request.body);
                // In constant time.
                mac.verify_slice(&given).is_ok()
            };
            if self.0.iter().any(is_ours) {
                return Ok(());
            }
        }
        Err(unsigned(
            "no signature fits; is it the right secret, and the body as it was signed?",
        ))
    }
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn header<'a>(request: &PushRequest<'a>, name: &str) -> Result<&'a str, Reject> {
    let mut headers = request.headers.iter();
    let found = headers.find_map(|(found, value)| (found == name).then_some(value));
    let text = found.and_then(|value| std::str::from_utf8(value).ok());
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| unsigned(&format!("the header {name} is missing")))
}

fn unsigned(why: &str) -> Reject {
    Reject {
        status: 401,
        detail: format!("the request is not signed as it has to be: {why}"),
    }
}

/// The key of a secret as it is written.
fn key(written: &str) -> Result<Vec<u8>, String> {
    let secret = if let Some(name) = written.strip_prefix("env:") {
        std::env::var(name).map_err(|_| format!("secret: the environment has no text {name}"))?
    } else if let Some(path) = written.strip_prefix("file:") {
        let text =
            std::fs::read_to_string(path).map_err(|cause| format!("secret: {path}: {cause}"))?;
        text.trim_end_matches(['\n', '\r']).to_owned()
    } else {
        written.to_owned()
    };
    let key = match secret.strip_prefix(PREFIX) {
        Some(code) => STANDARD
            .decode(code)
            .map_err(|_| format!("secret: what comes after {PREFIX} is no base64"))?,
        None => secret.into_bytes(),
    };
    if key.is_empty() {
        return Err("secret: it is empty, so that everybody knows it".to_owned());
    }
    Ok(key)
}
