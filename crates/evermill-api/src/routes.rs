//! What lies under `/api/v1`: a request in, a response out, whatever carries them.
//!
//! | resource | method | answer |
//! |---|---|---|
//! | `/runs` | GET | the engine and its runs |
//! | `/runs/{run}` | GET | one run |
//! | `/runs/{run}/pause`, `resume`, `drain`, `stop` | POST | the run afterwards |
//! | `/runs/{run}/trigger`, `/dags/{dag}/trigger` | POST, a JSON object or nothing | `{"activation","repeated"}`, durable |
//! | `/runs/{run}/signals/{name}?id=&key=&all=&ttl_ms=` | POST, JSON or nothing | `{"kept","repeated"}`, durable |
//! | `/runs/{run}/past?lane=&position=&problems=&limit=` | GET | what has settled, newest first |
//! | `/runs/{run}/parked?reason=&task=&key=&since_ms=&id=&skip=&limit=&payload=` | GET | a page |
//! | `/runs/{run}/parked/retry`, `drop` | POST, a filter | `{"count"}` |
//! | `/runs/{run}/parked/payload?id=&event=` | PUT, bytes | `{"count"}` |
//! | `/alerts` | GET | the latest alerts, newest first |
//! | `/pools` | GET | every pool: slots, used, waiting, tasks |
//! | `/pools/{name}` | PUT, `{"slots"}` (null: as in `evermill.toml`) | the pool afterwards, durable |
//! | `/dags/{dag}/start` | POST, `{"conf","fresh"}` or nothing | `{"run","version","resumed","before"}` |
//! | `/dags/{dag}/rollback` | POST, `{"version"}` or nothing | the same |
//! | `/runs/{run}/replays` | GET | every replay and backfill on record |
//! | `/runs/{run}/replays`, `backfill` | POST, what is to be read again | what it is, and its number |
//! | `/runs/{run}/replays/{number}/pause`, `resume`, `stop` | POST | all of them afterwards |
//! | `/runs/{run}/reset` | POST, where positions go | where they stood and go |
//! | `/backup` | POST, `{"to"}` | what was copied and checked |
//! | `/verify` | POST | what was checked |
//!
//! `{run}` is a run id or a DAG id, percent-encoded. With the header `Idempotency-Key` a trigger or a signal counts once
//! within an hour; what came before is answered with `repeated`.

use std::path::PathBuf;

use bytes::Bytes;
use evermill_engine::view::ParkedFilter;
use evermill_engine::{Operations, Order, Page, PastQuery, ReplayOrder, Resolve, Signal, SwitchOn};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Where every path begins.
const ROOT: &str = "/api/v1/";

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Look.
    Get,
    /// Do.
    Post,
    /// Replace.
    Put,
}

impl Method {
    /// The method of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let all = [Self::Get, Self::Post, Self::Put];
        all.into_iter().find(|method| method.name() == name)
    }

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

/// A request, complete.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// What came with it.
    pub body: Bytes,
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
}

#[derive(Serialize)]
struct Triggered {
    /// Unless it came before.
    activation: Option<String>,
    repeated: u64,
}

#[derive(Serialize)]
struct Signalled {
    kept: u64,
    repeated: u64,
}

#[derive(Serialize)]
struct Count {
    count: u64,
}

/// How large a pool is to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Slots {
    /// `None`: as the engine was opened with.
    slots: Option<u32>,
}

/// How a DAG is to be switched on.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Start {
    conf: Option<serde_json::Map<String, serde_json::Value>>,
    fresh: bool,
}

/// Which version to go back to.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rollback {
    version: Option<String>,
}

/// What a backup needs to know.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Backup {
    /// A file that is not there yet, as the engine sees it.
    to: PathBuf,
}

/// Answers a request.
#[must_use]
pub fn respond(engine: &dyn Operations, request: &Request) -> Response {
    match route(engine, request) {
        Ok(body) => Response {
            status: 200,
            media_type: "application/json",
            body,
        },
        Err(problem) => problem.into(),
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        Self {
            status: problem.status,
            media_type: Problem::MEDIA_TYPE,
            body: json(&problem),
        }
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("views have string keys only")
}

fn route(engine: &dyn Operations, request: &Request) -> Result<Vec<u8>, Problem> {
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let unknown = || Problem::no_such_resource(path);
    let below = path.strip_prefix(ROOT).ok_or_else(unknown)?;
    let parts = below
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Problem::bad_request("the path is not UTF-8"))?;
    let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
    let wants = |method: Method| {
        let fits = request.method == method;
        fits.then_some(())
            .ok_or_else(|| Problem::wrong_method(method.name()))
    };
    match parts[..] {
        ["runs"] => {
            wants(Method::Get)?;
            Ok(json(&*engine.overview()?))
        }
        ["backup"] => {
            wants(Method::Post)?;
            let Backup { to } = read_wanted(&request.body)?;
            if !to.is_absolute() {
                let detail = format!("{}: want a path from the root", to.display());
                return Err(Problem::bad_request(detail));
            }
            Ok(json(&engine.backup(&to)?))
        }
        ["alerts"] => {
            wants(Method::Get)?;
            Ok(json(&engine.alerts()?))
        }
        ["pools"] => {
            wants(Method::Get)?;
            Ok(json(&engine.pools()?))
        }
        ["pools", name] => {
            wants(Method::Put)?;
            let Slots { slots } = serde_json::from_slice(&request.body)
                .map_err(|cause| Problem::bad_request(format!("the slots: {cause}")))?;
            Ok(json(&engine.set_pool(name, slots)?))
        }
        ["verify"] => {
            wants(Method::Post)?;
            Ok(json(&engine.verify()?))
        }
        ["dags", dag, "start"] => {
            wants(Method::Post)?;
            let Start { conf, fresh } = read_order(&request.body)?;
            let conf = conf.map(|conf| Bytes::from(json(&conf)));
            Ok(json(&engine.switch_on(dag, &SwitchOn { conf, fresh })?))
        }
        ["dags", dag, "rollback"] => {
            wants(Method::Post)?;
            let Rollback { version } = read_order(&request.body)?;
            Ok(json(&engine.roll_back(dag, version.as_deref())?))
        }
        ["runs", run] => {
            wants(Method::Get)?;
            Ok(json(&engine.detail(run)?))
        }
        ["runs", run, "past"] => {
            wants(Method::Get)?;
            Ok(json(&engine.past(run, &read_past(query)?)?))
        }
        ["runs", run, "parked"] => {
            wants(Method::Get)?;
            let (which, page) = read_query(query)?;
            Ok(json(&engine.parked(run, &which, page)?))
        }
        ["runs", run, "parked", "payload"] => {
            wants(Method::Put)?;
            let (id, event) = read_place(query)?;
            engine.amend(run, &id, event, request.body.clone())?;
            Ok(json(&Count { count: 1 }))
        }
        ["runs", run, "parked", how] => {
            let how = resolve_of(how).ok_or_else(unknown)?;
            wants(Method::Post)?;
            let which: ParkedFilter = serde_json::from_slice(&request.body)
                .map_err(|cause| Problem::bad_request(format!("the filter: {cause}")))?;
            let count = engine.resolve(run, &which, how)?;
            Ok(json(&Count { count }))
        }
        ["runs", run, "trigger"] | ["dags", run, "trigger"] => {
            wants(Method::Post)?;
            let conf = read_conf(&request.body)?;
            let activation = match &request.idempotency_key {
                None => Some(engine.trigger(run, conf)?),
                Some(key) => engine.trigger_as(run, conf, key.clone())?,
            };
            let repeated = u64::from(activation.is_none());
            Ok(json(&Triggered {
                activation,
                repeated,
            }))
        }
        ["runs", run, "signals", name] => {
            wants(Method::Post)?;
            let mut signal = read_signal(name, query, &request.body)?;
            signal.id = signal.id.or_else(|| request.idempotency_key.clone());
            let pushed = engine.signal(run, signal)?;
            Ok(json(&Signalled {
                kept: pushed.kept,
                repeated: pushed.repeated,
            }))
        }
        ["runs", run, "replays"] if request.method == Method::Get => {
            Ok(json(&engine.replays(run)?))
        }
        ["runs", run, "replays"] => {
            wants(Method::Post)?;
            Ok(json(&engine.replay(run, &read_wanted(&request.body)?)?))
        }
        ["runs", run, "backfill"] => {
            wants(Method::Post)?;
            Ok(json(&engine.backfill(run, &read_wanted(&request.body)?)?))
        }
        ["runs", run, "replays", replay, order] => {
            let order = replay_order_of(order).ok_or_else(unknown)?;
            wants(Method::Post)?;
            engine.steer_replay(run, number("replay", replay)?, order)?;
            Ok(json(&engine.replays(run)?))
        }
        ["runs", run, "reset"] => {
            wants(Method::Post)?;
            Ok(json(&engine.reset(run, &read_wanted(&request.body)?)?))
        }
        ["runs", run, order] => {
            let order = order_of(order).ok_or_else(unknown)?;
            wants(Method::Post)?;
            engine.order(run, order)?;
            Ok(json(&engine.detail(run)?))
        }
        _ => Err(unknown()),
    }
}

/// An order as a JSON object; nothing is the usual one.
fn read_order<T: Default + serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body)
        .map_err(|cause| Problem::bad_request(format!("the order: {cause}")))
}

/// What an activation is triggered with: a JSON object, or nothing.
fn read_conf(body: &Bytes) -> Result<Option<Bytes>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body)
        .map_err(|cause| Problem::bad_request(format!("want a JSON object: {cause}")))?;
    Ok(Some(body.clone()))
}

fn read_signal(name: &str, query: &str, body: &Bytes) -> Result<Signal, Problem> {
    let mut signal = Signal {
        name: name.to_owned(),
        ..Signal::default()
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = Some(Bytes::from(value.into_owned()));
        match &*name {
            "id" => signal.id = value,
            "key" => signal.key = value,
            "all" => signal.all = value.as_deref() == Some(b"true"),
            "ttl_ms" => {
                let text = value
                    .as_deref()
                    .map(String::from_utf8_lossy)
                    .unwrap_or_default();
                signal.ttl_ms = Some(number(&name, &text)?);
            }
            _ => return Err(unknown_parameter(&name)),
        }
    }
    if !body.is_empty() {
        serde_json::from_slice::<serde::de::IgnoredAny>(body)
            .map_err(|cause| Problem::bad_request(format!("the message is not JSON: {cause}")))?;
        signal.value = Some(body.clone());
    }
    Ok(signal)
}

fn order_of(word: &str) -> Option<Order> {
    Some(match word {
        "pause" => Order::Pause,
        "resume" => Order::Resume,
        "drain" => Order::Drain,
        "stop" => Order::Stop,
        _ => return None,
    })
}

/// What is to be done, from a request's body.
fn read_wanted<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|cause| Problem::bad_request(format!("the order: {cause}")))
}

fn replay_order_of(word: &str) -> Option<ReplayOrder> {
    Some(match word {
        "pause" => ReplayOrder::Pause,
        "resume" => ReplayOrder::Resume,
        "stop" => ReplayOrder::Stop,
        _ => return None,
    })
}

fn resolve_of(word: &str) -> Option<Resolve> {
    Some(match word {
        "retry" => Resolve::Retry,
        "drop" => Resolve::Drop,
        _ => return None,
    })
}

/// Entries of a page when nothing else is asked for.
const PAGE_ENTRIES: usize = 100;

fn read_query(query: &str) -> Result<(ParkedFilter, Page), Problem> {
    let mut which = ParkedFilter::default();
    let mut page = Page {
        skip: 0,
        limit: PAGE_ENTRIES,
        payload: false,
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "id" => which.ids.push(value.into_owned()),
            "reason" => which.reason = Some(value.into_owned()),
            "task" => which.task = Some(value.into_owned()),
            "key" => which.key = Some(value.into_owned()),
            "since_ms" => which.since_ms = Some(number(&name, &value)?),
            "skip" => page.skip = number(&name, &value)?,
            "limit" => page.limit = number(&name, &value)?,
            "payload" => page.payload = value == "true",
            _ => return Err(unknown_parameter(&name)),
        }
    }
    Ok((which, page))
}

fn read_past(query: &str) -> Result<PastQuery, Problem> {
    let mut wanted = PastQuery {
        limit: PAGE_ENTRIES,
        ..PastQuery::default()
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "lane" => wanted.lane = Some(value.into_owned()),
            "position" => wanted.position = Some(number(&name, &value)?),
            "problems" => wanted.problems = value == "true",
            "limit" => wanted.limit = number(&name, &value)?,
            _ => return Err(unknown_parameter(&name)),
        }
    }
    Ok(wanted)
}

fn read_place(query: &str) -> Result<(String, u32), Problem> {
    let (mut id, mut event) = (None, 0);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "id" => id = Some(value.into_owned()),
            "event" => event = number(&name, &value)?,
            _ => return Err(unknown_parameter(&name)),
        }
    }
    let id = id.ok_or_else(|| Problem::bad_request("?id= names what is to be changed"))?;
    Ok((id, event))
}

fn unknown_parameter(name: &str) -> Problem {
    Problem::bad_request(format!("there is no parameter '{name}' here"))
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N, Problem> {
    let wrong = |_| Problem::bad_request(format!("{name}={value}: want a whole number"));
    value.parse().map_err(wrong)
}
