//! CloudEvents 1.0 over HTTP: binary, structured and batched (the specification's HTTP protocol
//! binding and JSON event format).

use base64::Engine as _;
use bytes::Bytes;
use evermill_contract::source::{Arrival, ID_BYTES_MAX, PushRequest, Reject};
use percent_encoding::percent_decode;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::codec::check_json;
use crate::limits;

const VERSION: &str = "1.0";
const JSON: &str = "application/json";
/// Attributes that every event has.
const REQUIRED: [&str; 3] = ["id", "source", "type"];

/// How a request carries CloudEvents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Binary,
    Structured,
    Batched,
}

/// The events of a request, if it carries any of these.
pub(super) fn read(request: &PushRequest<'_>) -> Option<Result<Vec<Arrival>, Reject>> {
    let mode = match mode(request)? {
        Ok(mode) => mode,
        Err(reject) => return Some(Err(reject)),
    };
    Some(match mode {
        Mode::Binary => binary(request).map(|event| vec![event]),
        Mode::Structured => json(request.body).and_then(|value| Ok(vec![structured(value)?])),
        Mode::Batched => json(request.body).and_then(batched),
    })
}

fn mode(request: &PushRequest<'_>) -> Option<Result<Mode, Reject>> {
    let sort = request.header("content-type");
    let sort = sort.map(|sort| String::from_utf8_lossy(sort).to_ascii_lowercase());
    let sort = sort.as_deref().map_or("", |sort| essence(sort));
    match sort {
        "application/cloudevents+json" => Some(Ok(Mode::Structured)),
        "application/cloudevents-batch+json" => Some(Ok(Mode::Batched)),
        other if other.starts_with("application/cloudevents") => {
            let detail = format!("{other}: of CloudEvents the JSON format is read, and none else");
            Some(Err(Reject {
                status: 415,
                detail,
            }))
        }
        _ => request.header("ce-specversion").map(|_| Ok(Mode::Binary)),
    }
}

/// A media type without its parameters.
fn essence(sort: &str) -> &str {
    sort.split(';').next().unwrap_or_default().trim()
}

fn is_json(sort: &str) -> bool {
    let sort = essence(sort).to_ascii_lowercase();
    sort == JSON || sort == "text/json" || sort.ends_with("+json")
}

fn json(body: &Bytes) -> Result<Value, Reject> {
    check_json(body).map_err(|why| wrong(format!("the body is no JSON: {why}")))?;
    serde_json::from_slice(body).map_err(|cause| wrong(format!("the body is no JSON: {cause}")))
}

/// Attributes are headers, data is the body.
fn binary(request: &PushRequest<'_>) -> Result<Arrival, Reject> {
    let mut attributes = Vec::new();
    for (name, value) in request.headers {
        let Some(name) = name.strip_prefix("ce-") else {
            continue;
        };
        let text = percent_decode(value)
            .decode_utf8()
            .map_err(|_| wrong(format!("ce-{name} is no percent-encoded UTF-8")))?;
        attributes.push((name.to_owned(), text.into_owned()));
    }
    let sort = request.header("content-type");
    let sort = sort.map(|sort| String::from_utf8_lossy(sort).into_owned());
    let value = (!request.body.is_empty() || sort.is_some()).then(|| request.body.clone());
    arrival(attributes, sort, value)
}

fn batched(value: Value) -> Result<Vec<Arrival>, Reject> {
    let Value::Array(events) = value else {
        return Err(wrong("a batch is a JSON list of events".to_owned()));
    };
    if events.len() > limits::WEBHOOK_BATCH_EVENTS {
        let most = limits::WEBHOOK_BATCH_EVENTS;
        let detail = format!("a batch of {} events; {most} at most", events.len());
        return Err(Reject {
            status: 413,
            detail,
        });
    }
    let events = events.into_iter().enumerate();
    let read = |(at, event)| {
        structured(event).map_err(|reject| wrong(format!("event {at}: {}", reject.detail)))
    };
    events.map(read).collect()
}

/// An event as a JSON object.
fn structured(value: Value) -> Result<Arrival, Reject> {
    let Value::Object(mut event) = value else {
        return Err(wrong("an event is a JSON object".to_owned()));
    };
    let sort = match event.remove("datacontenttype") {
        None | Some(Value::Null) => None,
        Some(Value::String(sort)) => Some(sort),
        Some(_) => return Err(wrong("datacontenttype is no text".to_owned())),
    };
    let value = data(&mut event, sort.as_deref().unwrap_or(JSON))?;
    let sort = sort.or_else(|| value.is_some().then(|| JSON.to_owned()));
    let mut attributes = Vec::with_capacity(event.len());
    for (name, value) in event {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Array(_) | Value::Object(_) => {
                return Err(wrong(format!("the attribute {name:?} is no plain value")));
            }
        };
        attributes.push((name, text));
    }
    arrival(attributes, sort, value)
}

fn data(event: &mut Map<String, Value>, sort: &str) -> Result<Option<Bytes>, Reject> {
    match (event.remove("data"), event.remove("data_base64")) {
        (Some(_), Some(_)) => Err(wrong("data and data_base64 exclude each other".to_owned())),
        (None, None) => Ok(None),
        (None, Some(Value::String(code))) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(code);
            let bytes = bytes.map_err(|_| wrong("data_base64 is no base64".to_owned()))?;
            Ok(Some(bytes.into()))
        }
        (None, Some(_)) => Err(wrong("data_base64 is no text".to_owned())),
        // Text of another kind stands in quotes here.
        (Some(Value::String(text)), None) if !is_json(sort) => Ok(Some(text.into())),
        (Some(value), None) => Ok(Some(value.to_string().into())),
    }
}

/// An event whose attributes become headers, as in binary mode.
fn arrival(
    attributes: Vec<(String, String)>,
    sort: Option<String>,
    value: Option<Bytes>,
) -> Result<Arrival, Reject> {
    let named = |name: &str| {
        let mut attributes = attributes.iter();
        attributes.find_map(|(found, text)| (found == name).then_some(text.as_str()))
    };
    match named("specversion") {
        Some(VERSION) => {}
        Some(other) => return Err(wrong(format!("specversion {other:?} is not {VERSION:?}"))),
        None => return Err(wrong("specversion is missing".to_owned())),
    }
    for name in REQUIRED {
        if named(name).is_none_or(str::is_empty) {
            return Err(wrong(format!("the attribute {name} is missing or empty")));
        }
    }
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let odd = attributes.iter().find(|(name, _)| !name.chars().all(legal));
    if let Some((name, _)) = odd {
        let detail = format!("an attribute's name has lower-case letters and digits: {name:?}");
        return Err(wrong(detail));
    }
    let timestamp_ms = match named("time") {
        None => None,
        Some(text) => {
            let time: jiff::Timestamp = text
                .parse()
                .map_err(|_| wrong(format!("time {text:?} is no RFC 3339 timestamp")))?;
            Some(time.as_millisecond())
        }
    };
    let key = named("partitionkey").map(|key| Bytes::copy_from_slice(key.as_bytes()));
    let id = id(
        named("source").unwrap_or_default(),
        named("id").unwrap_or_default(),
    );
    let sort = sort.map(|sort| ("content-type".to_owned(), sort));
    let headers = attributes
        .into_iter()
        .map(|(name, text)| (format!("ce-{name}"), text))
        .chain(sort)
        .map(|(name, text)| (Bytes::from(name), Bytes::from(text)));
    Ok(Arrival {
        timestamp_ms,
        key,
        headers: headers.collect(),
        value,
        id: Some(id),
        rejected: None,
    })
}

/// `source` and `id` together tell an event from any other.
fn id(source: &str, id: &str) -> Bytes {
    let both = format!("{}:{source}{id}", source.len());
    if both.len() <= ID_BYTES_MAX {
        return both.into();
    }
    Bytes::copy_from_slice(&Sha256::digest(both))
}

fn wrong(detail: String) -> Reject {
    Reject {
        status: 400,
        detail: format!("this is no CloudEvent: {detail}"),
    }
}
