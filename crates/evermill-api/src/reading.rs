//! What is in a request: its body and its query, in the types that the engine knows.

use bytes::Bytes;
use evermill_engine::view::ParkedFilter;
use evermill_engine::{AttemptQuery, LOG_LEVELS, LogOrder, LogQuery, Page, PastQuery, Signal};

use crate::audit::Sought;
use crate::problem::Problem;

/// An order as a JSON object; nothing is the usual one.
pub(crate) fn read_order<T: Default + serde::de::DeserializeOwned>(
    body: &Bytes,
) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body)
        .map_err(|cause| Problem::bad_request(format!("the order: {cause}")))
}

/// What an activation is triggered with: a JSON object, or nothing.
pub(crate) fn read_conf(body: &Bytes) -> Result<Option<Bytes>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body)
        .map_err(|cause| Problem::bad_request(format!("want a JSON object: {cause}")))?;
    Ok(Some(body.clone()))
}

pub(crate) fn read_signal(name: &str, query: &str, body: &Bytes) -> Result<Signal, Problem> {
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
            "to" => {
                let id = value.as_deref().map(String::from_utf8_lossy);
                signal.to = id.map(std::borrow::Cow::into_owned);
            }
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

/// What is to be done, from a request's body.
pub(crate) fn read_wanted<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|cause| Problem::bad_request(format!("the order: {cause}")))
}

/// Entries of a page when nothing else is asked for.
pub(crate) const PAGE_ENTRIES: usize = 100;

/// The page when nothing else is asked for.
const FIRST_PAGE: Page = Page {
    skip: 0,
    limit: PAGE_ENTRIES,
    payload: false,
};

pub(crate) fn read_query(query: &str) -> Result<(ParkedFilter, Page), Problem> {
    let (mut which, mut page) = (ParkedFilter::default(), FIRST_PAGE);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "id" => which.ids.push(value.into_owned()),
            "reason" => which.reason = Some(value.into_owned()),
            "task" => which.task = Some(value.into_owned()),
            "key" => which.key = Some(value.into_owned()),
            "since_ms" => which.since_ms = Some(number(&name, &value)?),
            "cursor" => page.skip = cursor(&value)?,
            "limit" => page.limit = number(&name, &value)?,
            "payload" => page.payload = value == "true",
            _ => return Err(unknown_parameter(&name)),
        }
    }
    Ok((which, page))
}

/// Which part of what waits is wanted, and for which signal.
pub(crate) fn read_waits(query: &str) -> Result<(Option<String>, Page), Problem> {
    let (mut signal, mut page) = (None, FIRST_PAGE);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "signal" => signal = Some(value.into_owned()),
            "cursor" => page.skip = cursor(&value)?,
            "limit" => page.limit = number(&name, &value)?,
            "payload" => page.payload = value == "true",
            _ => return Err(unknown_parameter(&name)),
        }
    }
    Ok((signal, page))
}

/// Which part of the record is wanted.
pub(crate) struct AuditWanted {
    pub(crate) sought: Sought,
    /// Only entries before this one, counted from the oldest.
    pub(crate) before: Option<usize>,
    pub(crate) limit: usize,
}

pub(crate) fn read_audit(query: &str) -> Result<AuditWanted, Problem> {
    let (mut sought, mut before, mut limit) = (Sought::default(), None, PAGE_ENTRIES);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "who" => sought.who = Some(value.into_owned()),
            "what" => sought.what = Some(value.into_owned()),
            "refused" => sought.refused = value == "true",
            "since_ms" => sought.since_ms = Some(number(&name, &value)?),
            "until_ms" => sought.until_ms = Some(number(&name, &value)?),
            "cursor" => before = Some(cursor(&value)?),
            "limit" => limit = number(&name, &value)?,
            _ => return Err(unknown_parameter(&name)),
        }
    }
    Ok(AuditWanted {
        sought,
        before,
        limit,
    })
}

/// Whether only a count is wanted.
pub(crate) fn read_dry_run(query: &str) -> Result<bool, Problem> {
    let mut dry_run = false;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "dry_run" => dry_run = value == "true",
            _ => return Err(unknown_parameter(&name)),
        }
    }
    Ok(dry_run)
}

pub(crate) fn read_past(query: &str) -> Result<PastQuery, Problem> {
    let mut wanted = PastQuery {
        limit: PAGE_ENTRIES,
        brief: true,
        ..PastQuery::default()
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "lane" => wanted.lane = Some(value.into_owned()),
            "position" => wanted.position = Some(number(&name, &value)?),
            "problems" => wanted.problems = value == "true",
            "state" => wanted.ended = Some(value.into_owned()),
            "task" => wanted.task = Some(value.into_owned()),
            "key" => wanted.key = Some(value.into_owned()),
            "text" => wanted.text = Some(value.into_owned()),
            "since_ms" => wanted.since_ms = Some(number(&name, &value)?),
            "until_ms" => wanted.until_ms = Some(number(&name, &value)?),
            "cursor" => wanted.from = Some(cursor(&value)?),
            "payload" => wanted.brief = value != "true",
            "limit" => wanted.limit = number(&name, &value)?,
            _ => return Err(unknown_parameter(&name)),
        }
    }
    Ok(wanted)
}

/// Which attempts are wanted.
pub(crate) fn read_attempts(query: &str) -> Result<AttemptQuery, Problem> {
    let mut wanted = AttemptQuery {
        limit: PAGE_ENTRIES,
        ..AttemptQuery::default()
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "task" => wanted.task = Some(value.into_owned()),
            "lane" => wanted.lane = Some(value.into_owned()),
            "position" => wanted.position = Some(number(&name, &value)?),
            "limit" => wanted.limit = number(&name, &value)?,
            _ => return Err(unknown_parameter(&name)),
        }
    }
    Ok(wanted)
}

/// Which versions are compared, by the beginnings of their hashes.
pub(crate) fn read_versions(query: &str) -> Result<(Option<String>, Option<String>), Problem> {
    let (mut from, mut to) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "from" => from = Some(value.into_owned()),
            "to" => to = Some(value.into_owned()),
            _ => return Err(unknown_parameter(&name)),
        }
    }
    Ok((from, to))
}

/// Which lines of a run's log are wanted.
pub(crate) fn read_lines(query: &str) -> Result<LogQuery, Problem> {
    let mut wanted = LogQuery {
        limit: PAGE_ENTRIES,
        ..LogQuery::default()
    };
    let filter = &mut wanted.filter;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "task" => filter.task = Some(value.into_owned()),
            "lane" => filter.lane = Some(value.into_owned()),
            "position" => filter.position = Some(number(&name, &value)?),
            "key" => filter.key = Some(value.into_owned()),
            "try" => filter.try_number = Some(number(&name, &value)?),
            "level" => filter.level = Some(word(&name, &value, &LOG_LEVELS)?),
            "text" => filter.text = Some(value.into_owned()),
            "since_ms" => filter.since_ms = Some(number(&name, &value)?),
            "until_ms" => filter.until_ms = Some(number(&name, &value)?),
            "order" => {
                wanted.order = match &*word(&name, &value, &LOG_ORDERS)? {
                    "oldest" => LogOrder::Oldest,
                    _ => LogOrder::Newest,
                };
            }
            "cursor" => wanted.from = Some(cursor(&value)?),
            "limit" => wanted.limit = number(&name, &value)?,
            _ => return Err(unknown_parameter(&name)),
        }
    }
    Ok(wanted)
}

/// From which end a log is read.
pub(crate) const LOG_ORDERS: [&str; 2] = ["newest", "oldest"];

fn word(name: &str, value: &str, known: &[&str]) -> Result<String, Problem> {
    if known.contains(&value) {
        return Ok(value.to_owned());
    }
    let known = known.join(", ");
    Err(Problem::bad_request(format!(
        "{name}={value}: want one of {known}"
    )))
}

pub(crate) fn read_place(query: &str) -> Result<(String, u32), Problem> {
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

pub(crate) fn unknown_parameter(name: &str) -> Problem {
    Problem::bad_request(format!("there is no parameter '{name}' here"))
}

pub(crate) fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N, Problem> {
    let wrong = |_| Problem::bad_request(format!("{name}={value}: want a whole number"));
    value.parse().map_err(wrong)
}

/// Where a page begins, as the page before said.
pub(crate) fn cursor<T: std::str::FromStr>(value: &str) -> Result<T, Problem> {
    let wrong = |_| {
        Problem::bad_request(format!(
            "cursor={value}: want what the page before has as 'next'"
        ))
    };
    value.parse().map_err(wrong)
}
