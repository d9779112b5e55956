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

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use evermill_contract::manifest::SinkConfig;
use evermill_contract::sink::{Record, Sink, SinkError};
use evermill_contract::worker::{Dispatch, Outcome, TaskError, TaskErrorKind, TaskRef};
use serde_json::Value;

use crate::declared::plain;
use crate::member::{effect_key, part};
use crate::threads::{Runs, Shared, Slot, failed};

/// Slots for tasks that wait for a place outside.
pub(crate) const SLOTS: u16 = 4;

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
        for index in members {
            match record(config, dispatch, index) {
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

fn config(task: &TaskRef) -> Result<&SinkConfig, String> {
    let none = || format!("task '{}' has no place to send to", task.task);
    task.sink.as_deref().ok_or_else(none)
}

/// What a member sends; none if its upstream returned nothing.
fn record(config: &SinkConfig, dispatch: &Dispatch, index: u32) -> Result<Option<Record>, String> {
    let member = &dispatch.members[index as usize];
    let value = match config.value_from() {
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
    let is_result = config.value_from().is_some();
    Ok(Some(Record {
        key,
        value: value.map(|value| Bytes::from(if is_result { plain(&value) } else { value })),
        effect_key: effect_key(dispatch, index, 0),
    }))
}

/// What a JSON pointer finds in a value: a text without its quotes.
fn pointed(value: &[u8], pointer: &str) -> Result<Bytes, String> {
    let value: Value = serde_json::from_slice(value).map_err(|error| {
        format!("the key is looked for at {pointer}, and the value is no JSON: {error}")
    })?;
    match value.pointer(pointer) {
        None | Some(Value::Null) => Err(format!("the value has nothing at {pointer} for a key")),
        Some(Value::String(text)) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Some(other) => Ok(Bytes::from(other.to_string())),
    }
}

fn refused(error: SinkError) -> Outcome {
    match error {
        SinkError::ForGood(why) => for_good(why),
        SinkError::MayPass(why) => failed(TaskErrorKind::Raised, why, String::new()),
    }
}

fn for_good(why: String) -> Outcome {
    Outcome::Failed(Box::new(TaskError {
        kind: TaskErrorKind::Raised,
        class: String::new(),
        message: why,
        traceback: String::new(),
        retryable: false,
    }))
}
