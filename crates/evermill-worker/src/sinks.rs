//! Tasks that give a value to a place outside ([`Sink`]) and run no code of anybody.
//!
//! What is to be sent is durable before it is sent: it is a result or an event of an activation whose
//! task is not done. The task is done when the place outside has it. So whatever happens in between,
//! it is sent (again) with the same effect key.
//!
//! | what | is |
//! |---|---|
//! | value | the result of the task that `value_from` names, else the event's content |
//! | a task that returned nothing | the member is skipped: nothing is sent |
//! | refused for good | failed, and not tried again |
//! | no answer, or a refusal that may pass | failed, and tried again |
//! | a topic of other DAGs | nothing is sent: the message is part of the success, and commits with it |
//! | told when to come again | failed, and tried again then, by the retry's own timer |

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use evermill_contract::manifest::{SinkConfig, TopicSink};
use evermill_contract::sink::{Record, Sink, SinkError};
use evermill_contract::template::{Hole, Template, day_and_hour, part_of_path, part_of_url};
use evermill_contract::worker::{
    Dispatch, Emit, Outcome, Success, TaskError, TaskErrorKind, TaskRef,
};
use serde_json::Value;

use crate::declared::{content, plain};
use crate::http::milliseconds;
use crate::member::{effect_key, part, traceparent, tracestate};
use crate::threads::{Runs, Shared, Slot, failed};

/// Slots for tasks that wait for a place outside: more than one task has at a time (the engine's
/// `SINK_CALLS`), so that a place that is away does not hold up the others.
pub(crate) const SLOTS: u16 = 16;

/// How long a place outside may take for what one dispatch sends, unless the task has a timeout. It is
/// away for longer now and then; then it is sent again, and until then nothing new is read.
const WAIT: Duration = Duration::from_secs(300);

/// Opens sinks.
#[derive(Clone)]
pub struct Sinks(Arc<Open>);

type Open = dyn Fn(&SinkConfig) -> Result<Box<dyn Sink>, String> + Send + Sync;

impl Sinks {
    /// `open` makes a sink for a task; an error names the setting and the cure.
    #[must_use]
    pub fn new(
        open: impl Fn(&SinkConfig) -> Result<Box<dyn Sink>, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(open))
    }
}

impl fmt::Debug for Sinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sinks")
    }
}

/// Sinks that are open, shared by the slots.
pub(crate) struct Opened {
    sinks: Sinks,
    open: Mutex<BTreeMap<SinkConfig, Arc<dyn Sink>>>,
}

impl Opened {
    pub(crate) fn new(sinks: Sinks) -> Arc<Self> {
        Arc::new(Self {
            sinks,
            open: Mutex::default(),
        })
    }

    fn sink(&self, config: &SinkConfig) -> Result<Arc<dyn Sink>, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sink) = open.get(config) {
            return Ok(Arc::clone(sink));
        }
        let sink: Arc<dyn Sink> = Arc::from((self.sinks.0)(config)?);
        open.insert(config.clone(), Arc::clone(&sink));
        Ok(sink)
    }
}

/// Sends for one slot.
pub(crate) struct Sending(pub(crate) Arc<Opened>);

impl Runs for Sending {
    const GATHERS: bool = true;
    /// A client that waits for a place outside cannot be told to stop.
    const IS_LEFT: bool = true;

    fn find(&mut self, task: &TaskRef) -> Result<(), String> {
        config(task).map(drop)
    }

    fn member(
        &mut self,
        _slot: &Arc<Slot>,
        _events: &Shared,
        dispatch: &Arc<Dispatch>,
        index: u32,
    ) -> Option<Outcome> {
        self.send(dispatch, index..index + 1).pop()
    }

    fn together(
        &mut self,
        _slot: &Arc<Slot>,
        _events: &Shared,
        dispatch: &Arc<Dispatch>,
    ) -> Option<Vec<Outcome>> {
        Some(self.send(dispatch, 0..dispatch.members.len() as u32))
    }
}

impl Sending {
    fn send(&self, dispatch: &Dispatch, members: std::ops::Range<u32>) -> Vec<Outcome> {
        if let Ok(SinkConfig::Topic(topic)) = config(&dispatch.task) {
            return members.map(|index| said(topic, dispatch, index)).collect();
        }
        let sink = config(&dispatch.task).and_then(|config| Ok((config, self.0.sink(config)?)));
        let (config, sink) = match sink {
            Ok(found) => found,
            Err(why) => {
                let load = |_| failed(TaskErrorKind::Load, why.clone(), String::new());
                return members.map(load).collect();
            }
        };
        let mut outcomes = Vec::new();
        let (mut records, mut sent) = (Vec::new(), Vec::new());
        let name = config.name().map(Template::parse).transpose();
        let name = match name {
            Ok(name) => name,
            Err(why) => return members.map(|_| for_good(why.clone())).collect(),
        };
        for index in members {
            match record(config, name.as_ref(), dispatch, index) {
                Ok(None) => outcomes.push(Outcome::Skipped),
                Ok(Some(record)) => {
                    sent.push(outcomes.len());
                    records.push(record);
                    outcomes.push(Outcome::Success(None));
                }
                Err(why) => outcomes.push(for_good(why)),
            }
        }
        let wait = dispatch.timeout.unwrap_or(WAIT);
        for (at, answer) in sent.into_iter().zip(sink.send(records, wait)) {
            if let Err(error) = answer {
                outcomes[at] = refused(error);
            }
        }
        outcomes
    }
}

/// What a member says to other DAGs: it counts with its success, so that nothing has to be sent here.
fn said(topic: &TopicSink, dispatch: &Dispatch, index: u32) -> Outcome {
    let config = SinkConfig::Topic(topic.clone());
    let record = match record(&config, None, dispatch, index) {
        Ok(None) => return Outcome::Skipped,
        Ok(Some(record)) => record,
        Err(why) => return for_good(why),
    };
    let text = |what: &str, bytes: &[u8]| {
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("{what} is no UTF-8"))
    };
    let value = record.value.as_deref().unwrap_or(b"null");
    let value = match serde_json::from_slice::<Value>(value) {
        Ok(_) => text("the value", value),
        // Plain text.
        Err(_) => text("the value", value).map(|plain| Value::String(plain).to_string()),
    };
    let key = record.key.as_deref().map(|key| text("the key", key));
    match (value, key.transpose()) {
        (Ok(value), Ok(key)) => Outcome::Success(Some(Box::new(Success {
            says: vec![Emit {
                topic: topic.topic.clone(),
                value,
                key,
            }],
            ..Success::default()
        }))),
        (Err(why), _) | (_, Err(why)) => for_good(why),
    }
}

fn config(task: &TaskRef) -> Result<&SinkConfig, String> {
    let none = || format!("task '{}' has no place to send to", task.task);
    task.sink.as_deref().ok_or_else(none)
}

/// What a member sends; none if its upstream returned nothing.
fn record(
    config: &SinkConfig,
    name: Option<&Template>,
    dispatch: &Dispatch,
    index: u32,
) -> Result<Option<Record>, String> {
    let member = &dispatch.members[index as usize];
    let is_result = config.value_from().is_some();
    // Other DAGs get what the task returned, as it is.
    let is_plain = is_result && !matches!(config, SinkConfig::Topic(_));
    let value = match config.value_from() {
        None if member.batch.is_some() => Some(content(dispatch, index, None)),
        None => member
            .event
            .value
            .map(|value| part(dispatch, Some(value)).to_vec()),
        Some(from) => {
            let from = dispatch.upstream.iter().position(|id| id == from);
            let mut results = dispatch.results.iter();
            let result = results
                .find(|result| result.member == index && Some(result.upstream as usize) == from);
            match result.and_then(|result| result.value) {
                None => return Ok(None),
                Some(value) => Some(part(dispatch, Some(value)).to_vec()),
            }
        }
    };
    let key = match config.key() {
        "none" => None,
        "event" => {
            let key = member.event.key.filter(|_| member.batch.is_none());
            key.map(|key| Bytes::copy_from_slice(part(dispatch, Some(key))))
        }
        pointer => Some(pointed(value.as_deref().unwrap_or_default(), pointer)?),
    };
    let effect_key = effect_key(dispatch, index, 0);
    let encode = match config {
        SinkConfig::Http(_) => part_of_url,
        SinkConfig::Kafka(_) | SinkConfig::Sqs(_) | SinkConfig::File(_) | SinkConfig::Topic(_) => {
            part_of_path
        }
    };
    let find = |hole: &Hole| {
        let found = fill(
            hole,
            value.as_deref(),
            key.as_deref(),
            effect_key.as_deref(),
            dispatch,
            index,
        );
        found
            .and_then(|found| encode(&found))
            .map_err(|why| format!("{{{hole}}}: {why}"))
    };
    let name = name.map(|name| name.fill(find)).transpose()?;
    Ok(Some(Record {
        key,
        value: value.map(|value| Bytes::from(if is_plain { plain(&value) } else { value })),
        effect_key,
        traceparent: traceparent(dispatch, index),
        tracestate: tracestate(dispatch, index),
        name,
        is_list: member.batch.is_some() && !is_result,
    }))
}

/// What stands in a hole of a record's name.
fn fill(
    hole: &Hole,
    value: Option<&[u8]>,
    key: Option<&[u8]>,
    effect_key: Option<&str>,
    dispatch: &Dispatch,
    index: u32,
) -> Result<String, String> {
    let text =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| "it is no UTF-8".to_owned());
    let event = &dispatch.members[index as usize].event;
    let when = || {
        let when = event.timestamp_ms.and_then(day_and_hour);
        when.ok_or_else(|| "the event has no time".to_owned())
    };
    match hole {
        Hole::EffectKey => effect_key
            .map(str::to_owned)
            .ok_or_else(|| "it has none".to_owned()),
        Hole::Key => text(key.ok_or_else(|| "it has no key".to_owned())?),
        Hole::Source => {
            let lane = dispatch.lanes.get(usize::from(event.lane));
            lane.map(|lane| lane.source.clone())
                .ok_or_else(|| "it has no source".to_owned())
        }
        Hole::Date => Ok(when()?.0),
        Hole::Hour => Ok(when()?.1),
        Hole::Pointer(pointer) => text(&pointed(value.unwrap_or_default(), pointer)?),
    }
}

/// What a JSON pointer finds in a value: a text without its quotes.
fn pointed(value: &[u8], pointer: &str) -> Result<Bytes, String> {
    let value: Value = serde_json::from_slice(value).map_err(|error| {
        format!("the value, in which {pointer} is looked for, is no JSON: {error}")
    })?;
    match value.pointer(pointer) {
        None | Some(Value::Null) => Err(format!("the value has nothing at {pointer}")),
        Some(Value::String(text)) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Some(other) => Ok(Bytes::from(other.to_string())),
    }
}

fn refused(error: SinkError) -> Outcome {
    match error {
        SinkError::ForGood(why) => for_good(why),
        SinkError::MayPass(why) => failed(TaskErrorKind::Raised, why, String::new()),
        SinkError::Later { why, after } => raised(why, true, Some(milliseconds(after))),
    }
}

fn for_good(why: String) -> Outcome {
    raised(why, false, None)
}

fn raised(why: String, retryable: bool, retry_after_ms: Option<u64>) -> Outcome {
    Outcome::Failed(Box::new(TaskError {
        kind: TaskErrorKind::Raised,
        class: String::new(),
        message: why,
        traceback: String::new(),
        retryable,
        retry_after_ms,
    }))
}
