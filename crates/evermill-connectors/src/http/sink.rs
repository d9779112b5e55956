//! A service that takes what is sent: a request per record, with the effect key as `Idempotency-Key`.
//!
//! | what comes back | is |
//! |---|---|
//! | a status that is expected, 2xx unless said; for `DELETE` also 404 and 410 | arrived |
//! | 429 or 503 with `Retry-After` | not before so long; nothing else is sent meanwhile |
//! | 502, 503 or 504 without it; nobody there | away: sent again from here, within the time that is given |
//! | 401 or 403, a redirect that drops the body, any other 3xx, 4xx or 5xx, no answer in time | may pass |
//! | a status that says that the request itself is wrong | refused for good |

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use evermill_contract::manifest::HttpSink as Config;
use evermill_contract::sink::{Record, Sink, SinkError, content_type};
use evermill_contract::source::{DiagnosticSink, Severity, SourceError};
use evermill_http::{
    Client, Connection, Error, Method, Request, Response, Target, asked_to_wait, is_for_good,
};

use super::config::refused;
use crate::side_by_side::{Attempt, until};
use crate::{limits, side_by_side};

/// Of an answer that says no, as much is shown.
const ANSWER_CHARS_MAX: usize = 300;

/// A service that takes records.
pub struct HttpSink {
    client: Client,
    config: Config,
    method: Method,
    diagnostics: DiagnosticSink,
    state: Mutex<State>,
}

/// What the service last said of itself.
#[derive(Default)]
struct State {
    /// It wants to be left alone until then.
    quiet: Option<(Instant, String)>,
    /// Why it counts as away.
    trouble: Option<String>,
}

type Answer = Result<(), SinkError>;

impl HttpSink {
    /// Prepares to send; connects when there is something to send.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub fn open(
        config: &Config,
        connection: &dyn Fn(&str) -> Option<String>,
        diagnostics: DiagnosticSink,
    ) -> Result<Self, SourceError> {
        let to = match config.needs() {
            None => Connection::default(),
            Some(id) => {
                let address = connection(id).ok_or_else(|| {
                    SourceError::Refused(format!(
                        "connection {id:?} of endpoint {:?} is not set; pass --connection {id}=URL",
                        config.endpoint
                    ))
                })?;
                Connection::parse(id, &address).map_err(refused)?
            }
        };
        let method = Method::from_bytes(config.method.as_bytes()).map_err(|_| {
            SourceError::Refused(format!("method {:?} is none of HTTP", config.method))
        })?;
        Ok(Self {
            client: Client::new(to).map_err(refused)?,
            config: config.clone(),
            method,
            diagnostics,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a record until it has arrived, is refused, or the time is over.
    fn deliver(&self, record: &Record, end: Instant) -> Answer {
        let size = record.value.as_ref().map_or(0, |value| value.len());
        if size > limits::HTTP_SEND_BYTES_MAX {
            return Err(SinkError::ForGood(format!(
                "the value has {size} bytes; a request carries {} at most",
                limits::HTTP_SEND_BYTES_MAX
            )));
        }
        let place = record.name.as_deref().unwrap_or_default();
        let path = place.split(['?', '#']).next().unwrap_or_default();
        if path.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(SinkError::ForGood(format!(
                "{path:?} leads to another folder than the endpoint says"
            )));
        }
        until(end, limits::HTTP_AWAY, limits::HTTP_AWAY_MAX, |left| {
            if let Err(error) = self.is_quiet() {
                return Attempt::Over(Err(error));
            }
            match self.ask(record, left) {
                Attempt::Over(answer) => {
                    self.there();
                    Attempt::Over(answer)
                }
                Attempt::Again(why) => {
                    self.away(&why);
                    Attempt::Again(why)
                }
            }
        })
    }

    fn ask(&self, record: &Record, left: Duration) -> Attempt {
        let response = match self.client.send(&self.request(record, left)) {
            Ok(response) => response,
            Err(error @ Error::Unreachable { .. }) => return Attempt::Again(error.to_string()),
            Err(error) if error.may_pass() => {
                return Attempt::Over(Err(SinkError::MayPass(error.to_string())));
            }
            Err(error) => return Attempt::Over(Err(SinkError::ForGood(error.to_string()))),
        };
        let status = response.status;
        if self.is_arrived(status) {
            return Attempt::Over(Ok(()));
        }
        let why = self.said(&response);
        if let Some(after) = asked_to_wait(&response, SystemTime::now()) {
            let why = format!("{why}; it asks for a wait of {} s", after.as_secs());
            let until = Instant::now() + after;
            let mut state = self.lock();
            if state.quiet.as_ref().is_none_or(|(known, _)| *known < until) {
                state.quiet = Some((until, why.clone()));
            }
            return Attempt::Over(Err(SinkError::Later { why, after }));
        }
        match status {
            502..=504 => Attempt::Again(why),
            // Who may do what is put right elsewhere, and then it is right for the same request.
            401 | 403 => Attempt::Over(Err(SinkError::MayPass(why))),
            status if is_for_good(status) => Attempt::Over(Err(SinkError::ForGood(why))),
            _ => Attempt::Over(Err(SinkError::MayPass(why))),
        }
    }

    fn request(&self, record: &Record, left: Duration) -> Request {
        let place = record.name.clone().unwrap_or_default();
        let target = match self.config.needs() {
            None => Target::Written(place),
            Some(_) => Target::Below(place),
        };
        let mut request = Request::new(self.method.clone(), target);
        let headers = self.config.headers.iter();
        request.headers = headers
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut default = |name: &str, value: &str| {
            let is_set = |(set, _): &(String, String)| set.eq_ignore_ascii_case(name);
            if !request.headers.iter().any(is_set) {
                request.headers.push((name.to_owned(), value.to_owned()));
            }
        };
        if let (Some(name), Some(key)) = (&self.config.idempotency_key, &record.effect_key) {
            default(name, key);
        }
        if let Some(span) = &record.traceparent {
            default(evermill_contract::trace::HEADER, span);
        }
        if let Some(state) = &record.tracestate {
            default(evermill_contract::trace::STATE_HEADER, state);
        }
        if self.method != Method::DELETE {
            let body = record.value.as_deref().unwrap_or_default();
            default("Content-Type", content_type(body, record.is_list));
            request.body = Some(body.to_vec());
        }
        request.timeout = Some(left.min(self.client.connection().timeout()));
        request.bytes_max = limits::HTTP_ANSWER_BYTES;
        request.delivers = true;
        request
    }

    fn is_arrived(&self, status: u16) -> bool {
        match &self.config.expect[..] {
            // What is gone already was taken away by the try before, of which we did not hear.
            [] => {
                (200..300).contains(&status)
                    || (self.method == Method::DELETE && matches!(status, 404 | 410))
            }
            expected => expected.contains(&status),
        }
    }

    fn said(&self, response: &Response) -> String {
        let text = String::from_utf8_lossy(&response.body);
        let text: String = text.trim().chars().take(ANSWER_CHARS_MAX).collect();
        let colon = if text.is_empty() { "" } else { ": " };
        let (method, place, status) = (&self.method, &response.place, response.status);
        let leads = response
            .header("location")
            .filter(|_| matches!(status, 301..=303))
            .map_or_else(String::new, |_| {
                ", a redirect on which the body would be lost; name the place it leads to"
                    .to_owned()
            });
        format!("{method} {place} answered {status}{leads}{colon}{text}")
    }

    /// While the service wants to be left alone, nothing is sent there.
    fn is_quiet(&self) -> Answer {
        let mut state = self.lock();
        let Some((until, why)) = &state.quiet else {
            return Ok(());
        };
        let after = until.saturating_duration_since(Instant::now());
        if after.is_zero() {
            state.quiet = None;
            return Ok(());
        }
        let why = why.clone();
        Err(SinkError::Later { why, after })
    }

    fn away(&self, why: &str) {
        let mut state = self.lock();
        if state.trouble.as_deref() != Some(why) {
            let text = format!("sending over HTTP: {why}; it is sent again until it arrives");
            (self.diagnostics)(Severity::Warning, &text);
            state.trouble = Some(why.to_owned());
        }
    }

    fn there(&self) {
        self.lock().trouble = None;
    }
}

impl Sink for HttpSink {
    fn send(&self, records: Vec<Record>, wait: Duration) -> Vec<Answer> {
        let end = Instant::now() + wait;
        side_by_side::send(&records, limits::HTTP_SENDS, |record| {
            self.deliver(record, end)
        })
    }
}
