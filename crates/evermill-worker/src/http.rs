//! Tasks that are requests over HTTP (`http:` in YAML), one at a time in each slot.
//!
//! | what | is |
//! |---|---|
//! | body | what the file says, else the event's content or the result of the task that `body_from:` names |
//! | `Idempotency-Key` | the member's effect key, the same in every attempt |
//! | an expected status | success, and the answer's body the result |
//! | another status | failed; tried again unless it says that the request itself is wrong |
//! | 429 or 503 with `Retry-After` | failed; the next try waits so long at least |
//! | no answer | failed, and tried again |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use evermill_contract::manifest::{HttpBody, HttpCall};
use evermill_contract::settings::Settings;
use evermill_contract::sink::content_type;
use evermill_contract::trace::{HEADER, STATE_HEADER};
use evermill_contract::worker::limits::RESULT_BYTES_MAX;
use evermill_contract::worker::{Dispatch, Outcome, TaskError, TaskErrorKind};
use evermill_http::{
    Client, Connection, Error, Method, Request, Response, Target, asked_to_wait, is_for_good,
};

use crate::declared::{content, success};
use crate::member::{effect_key, traceparent, tracestate};
use crate::threads::{Slot, failed};

/// Slots for tasks that wait for answers; they cost no processor while they wait.
pub(crate) const SLOTS: u16 = 16;

/// Of an answer nobody wants as much becomes the error's text.
const ANSWER_CHARS_MAX: usize = 500;

/// Methods that change nothing.
const SAFE: [Method; 3] = [Method::GET, Method::HEAD, Method::OPTIONS];

/// Makes the requests of one slot, over connections of its own.
pub(crate) struct Http {
    settings: Arc<dyn Settings>,
    /// By connection, each with the address that it was made for; under None for whole URLs.
    clients: BTreeMap<Option<String>, (String, Client)>,
}

/// Where an answer is put for whoever waits.
type Cell = Arc<Mutex<Option<Result<Response, Error>>>>;

impl Http {
    pub(crate) const fn new(settings: Arc<dyn Settings>) -> Self {
        Self {
            settings,
            clients: BTreeMap::new(),
        }
    }

    /// Makes the request for one member; None when the engine stopped it.
    pub(crate) fn run(
        &mut self,
        call: &HttpCall,
        slot: &Arc<Slot>,
        dispatch: &Dispatch,
        index: u32,
    ) -> Option<Outcome> {
        let client = match self.client(call) {
            Ok(client) => client,
            Err(why) => return Some(failed(TaskErrorKind::Load, why, String::new())),
        };
        let request = request(call, dispatch, index);
        let Some(answer) = answer(&client, &request, slot) else {
            // Sockets of requests that were cut off are of no use to others.
            self.clients.remove(&call.needs().map(str::to_owned));
            return None;
        };
        Some(match answer {
            Ok(response) => judge(call, &response),
            Err(error) => no_answer(&error),
        })
    }

    fn client(&mut self, call: &HttpCall) -> Result<Client, String> {
        let id = call.needs();
        let key = id.map(str::to_owned);
        let address = match id {
            None => String::new(),
            Some(id) => self.settings.connection(id)?.ok_or_else(|| {
                format!("the connection '{id}' has no address; give one by --connection {id}=URL")
            })?,
        };
        // A password that was changed counts from the next request on.
        if let Some((made_for, client)) = self.clients.get(&key)
            && *made_for == address
        {
            return Ok(client.clone());
        }
        let connection = match id {
            None => Connection::default(),
            Some(id) => Connection::parse(id, &address).map_err(|error| error.to_string())?,
        };
        let client = Client::new(connection).map_err(|error| error.to_string())?;
        self.clients.insert(key, (address, client.clone()));
        Ok(client)
    }
}

/// Where a request goes, for people: without what its connection adds.
pub(crate) fn place(call: &HttpCall) -> String {
    let place = match (&call.url, call.needs()) {
        (Some(url), _) => url.clone(),
        (None, connection) => {
            let path = call.path.as_deref().unwrap_or_default();
            format!("{}:{path}", connection.unwrap_or_default())
        }
    };
    format!("{} {place}", call.method)
}

fn request(call: &HttpCall, dispatch: &Dispatch, index: u32) -> Request {
    let method = Method::from_bytes(call.method.as_bytes()).unwrap_or(Method::POST);
    let target = match &call.url {
        Some(url) => Target::Written(url.clone()),
        None => Target::Below(call.path.clone().unwrap_or_default()),
    };
    let pairs = |map: &BTreeMap<String, String>| {
        let pairs = map.iter();
        pairs
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Vec<_>>()
    };
    let is_safe = SAFE.contains(&method);
    let mut request = Request::new(method, target);
    request.query = pairs(&call.query);
    request.headers = pairs(&call.headers);
    request.timeout = dispatch.timeout;
    request.bytes_max = RESULT_BYTES_MAX;
    let mut default = |name: &str, value: String| {
        let is_set = |(set, _): &(String, String)| set.eq_ignore_ascii_case(name);
        if !request.headers.iter().any(is_set) {
            request.headers.push((name.to_owned(), value));
        }
    };
    if let (Some(name), false) = (&call.idempotency_key, is_safe)
        && let Some(key) = effect_key(dispatch, index, 0)
    {
        default(name, key);
    }
    if let Some(span) = traceparent(dispatch, index) {
        default(HEADER, span);
    }
    if let Some(state) = tracestate(dispatch, index) {
        default(STATE_HEADER, state);
    }
    let (body, sort) = match &call.body {
        Some(HttpBody::Text(text)) => (text.clone().into_bytes(), "text/plain; charset=utf-8"),
        Some(HttpBody::Json(value)) => (value.to_string().into_bytes(), "application/json"),
        None if is_safe && call.body_from.is_none() => return request,
        None => {
            let body = content(dispatch, index, call.body_from.as_deref());
            let is_list = dispatch.members[index as usize].batch.is_some();
            let sort = content_type(&body, is_list && call.body_from.is_none());
            (body, sort)
        }
    };
    default("Content-Type", sort.to_owned());
    request.body = Some(body);
    request
}

/// Sends on another thread, since a slot must end when it is told to; None when it was.
fn answer(client: &Client, request: &Request, slot: &Arc<Slot>) -> Option<Result<Response, Error>> {
    let cell = Cell::default();
    let (filled, client_there) = (Arc::clone(&cell), client.clone());
    let (request, waiting) = (request.clone(), Arc::clone(slot));
    let sent = std::thread::Builder::new()
        .name("evermill-http".to_owned())
        .spawn(move || {
            let answer = client_there.send(&request);
            *filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            // Whoever waits looks into the cell under this lock.
            drop(waiting.lock());
            waiting.changed.notify_all();
        });
    if let Err(cause) = sent {
        let (place, why) = ("no thread to ask on".to_owned(), cause.to_string());
        return Some(Err(Error::Unreachable { place, why }));
    }
    let mut state = slot.lock();
    loop {
        if let Some(answer) = cell.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Some(answer);
        }
        let now = Instant::now();
        state = match state.stop {
            Some(stop) if stop.term_at <= now => {
                drop(state);
                client.cancel();
                return None;
            }
            Some(stop) => slot.wait_for(state, stop.term_at - now),
            None => slot.wait(state),
        };
    }
}

fn judge(call: &HttpCall, response: &Response) -> Outcome {
    let status = response.status;
    let is_expected = match &call.expect[..] {
        [] => (200..300).contains(&status),
        expected => expected.contains(&status),
    };
    if is_expected {
        return success(&response.body);
    }
    let text = String::from_utf8_lossy(&response.body);
    let text: String = text.trim().chars().take(ANSWER_CHARS_MAX).collect();
    let wanted = match &call.expect[..] {
        [] => "200 to 299".to_owned(),
        expected => {
            let expected = expected.iter().map(u16::to_string);
            expected.collect::<Vec<_>>().join(", ")
        }
    };
    let wait = asked_to_wait(response, SystemTime::now());
    let asked = wait.map(|wait| format!("; it asks for a wait of {} s", wait.as_secs()));
    let what = format!(
        "{} {} answered {status}, not {wanted}{}",
        call.method,
        response.place,
        asked.unwrap_or_default()
    );
    Outcome::Failed(Box::new(TaskError {
        kind: TaskErrorKind::Raised,
        class: String::new(),
        message: what,
        traceback: text,
        retryable: !is_for_good(status),
        retry_after_ms: wait.map(milliseconds),
    }))
}

/// At most a day, so it fits.
pub(crate) fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

fn no_answer(error: &Error) -> Outcome {
    let kind = match error {
        Error::Timeout { .. } => TaskErrorKind::Timeout,
        Error::TooLarge { .. } => TaskErrorKind::TooLarge,
        Error::Refused(_) | Error::Unreachable { .. } => TaskErrorKind::Raised,
    };
    Outcome::Failed(Box::new(TaskError {
        kind,
        class: String::new(),
        message: error.to_string(),
        traceback: String::new(),
        retryable: error.may_pass(),
        retry_after_ms: None,
    }))
}
