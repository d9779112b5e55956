//! Writing to a queue: ten messages a request, with the effect key and the trace in attributes of each.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use evermill_contract::manifest::SqsSink as Config;
use evermill_contract::sink::{Record, Sink, SinkError};
use evermill_contract::source::SourceError;
use evermill_contract::trace;
use sha2::{Digest as _, Sha256};

use super::api::{self, Attribute, Sent};
use super::queue::Queue;
use crate::aws::{Fault, Kind, hex};
use crate::{limits, side_by_side};

/// The attribute that carries the effect key.
const EFFECT_KEY: &str = "evermill-effect-key";
/// The group of messages without a key, in a queue that wants one.
const GROUP: &str = "evermill";
/// Longer ids of groups and of deduplication are refused.
const ID_CHARACTERS_MAX: usize = 128;

/// A queue being written to.
pub struct SqsSink {
    queue: Queue,
    /// Once it is found.
    url: Mutex<Option<String>>,
}

type Answer = Result<(), SinkError>;

impl SqsSink {
    /// Prepares to write; connects when there is something to send.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub fn open(
        config: &Config,
        connection: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SourceError> {
        Ok(Self {
            queue: Queue::open(&config.queue, &config.connection, connection)?,
            url: Mutex::default(),
        })
    }

    fn url(&self) -> Result<String, Fault> {
        let mut known = self.url.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(url) = &*known {
            return Ok(url.clone());
        }
        let url = self.queue.find()?;
        *known = Some(url.clone());
        Ok(url)
    }

    /// The message that a record is.
    fn message(&self, at: usize, record: &Record) -> Result<Sent, SinkError> {
        let refuse = |why: &str| {
            let queue = &self.queue.name;
            Err(SinkError::ForGood(format!("queue {queue:?}: {why}")))
        };
        let value = record.value.as_deref().unwrap_or_default();
        if value.is_empty() {
            return refuse("SQS takes no message without content");
        }
        let Ok(body) = std::str::from_utf8(value) else {
            return refuse(
                "SQS takes text, and the value is no UTF-8; send it as base64, for example",
            );
        };
        let attributes = [
            (EFFECT_KEY, &record.effect_key),
            (trace::HEADER, &record.traceparent),
            (trace::STATE_HEADER, &record.tracestate),
        ];
        let attributes = attributes.into_iter().filter_map(|(name, value)| {
            let attribute = Attribute {
                data_type: "String".to_owned(),
                string_value: Some(value.clone()?),
                binary_value: None,
            };
            Some((name.to_owned(), attribute))
        });
        let fifo = self.queue.is_fifo();
        let group = record
            .key
            .as_deref()
            .map_or_else(|| GROUP.to_owned(), legal);
        let once = record.effect_key.as_ref().map(|key| legal(key.as_bytes()));
        Ok(Sent {
            id: at.to_string(),
            message_body: body.to_owned(),
            message_attributes: attributes.collect(),
            message_group_id: fifo.then_some(group),
            message_deduplication_id: once.filter(|_| fifo),
        })
    }

    /// Sends one batch until each of it has an answer, or time is up.
    fn deliver(&self, mut batch: Vec<Sent>, until: Instant) -> Vec<(usize, Answer)> {
        let mut answers = Vec::with_capacity(batch.len());
        let mut pause = limits::SQS_AGAIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let sent = self.url().and_then(|url| {
                let timeout = left.min(limits::SQS_CALL).max(Duration::from_millis(1));
                let sent = api::send(&self.queue.client, &url, &batch, timeout);
                sent.map_err(|fault| self.queue.explain(fault))
            });
            let why = match sent {
                Ok(answer) => {
                    let mut why = None;
                    batch.retain(|entry| {
                        let is_ours = |id: &String| *id == entry.id;
                        if answer.successful.iter().any(|done| is_ours(&done.id)) {
                            answers.push((place(entry), Ok(())));
                            return false;
                        }
                        let failed = answer.failed.iter().find(|failed| is_ours(&failed.id));
                        let said = failed.map_or_else(
                            || "it has no answer".to_owned(),
                            |failed| format!("{}: {}", failed.code, failed.message),
                        );
                        let said = format!("queue {:?}: not sent: {said}", self.queue.name);
                        if failed
                            .is_some_and(|failed| failed.sender_fault && !may_pass(&failed.code))
                        {
                            answers.push((place(entry), Err(SinkError::ForGood(said))));
                            return false;
                        }
                        why = Some(SinkError::MayPass(said));
                        true
                    });
                    why
                }
                Err(fault) => {
                    if fault.kind == Kind::Missing {
                        *self.url.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    }
                    let is_it = matches!(fault.kind, Kind::Refused) && is_content(&fault.said);
                    let error = match is_it {
                        true => SinkError::ForGood(fault.said),
                        false => SinkError::MayPass(fault.said),
                    };
                    if !matches!(fault.kind, Kind::Throttled | Kind::Away) {
                        // Waiting here mends nothing: the task's own patience does.
                        answers
                            .extend(batch.iter().map(|entry| (place(entry), Err(error.clone()))));
                        return answers;
                    }
                    Some(error)
                }
            };
            let Some(why) = why else { return answers };
            if Instant::now() + pause >= until {
                answers.extend(batch.iter().map(|entry| (place(entry), Err(why.clone()))));
                return answers;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(limits::SQS_AGAIN_MAX);
        }
    }
}

impl Sink for SqsSink {
    fn send(&self, records: Vec<Record>, wait: Duration) -> Vec<Answer> {
        let until = Instant::now() + wait;
        let mut answers: Vec<Option<Answer>> = vec![None; records.len()];
        let mut messages = Vec::with_capacity(records.len());
        for (at, record) in records.iter().enumerate() {
            match self.message(at, record) {
                Ok(message) => messages.push(message),
                Err(error) => answers[at] = Some(Err(error)),
            }
        }
        drop(records);
        let batches = packed(messages);
        // A FIFO queue's groups keep the order of what is sent.
        let at_once = if self.queue.is_fifo() {
            1
        } else {
            limits::SQS_SENDS
        };
        let deliver = |batch| self.deliver(batch, until);
        for (at, answer) in side_by_side::share(batches, at_once, deliver) {
            answers[at] = Some(answer);
        }
        let none = || Err(SinkError::MayPass("it has no answer".to_owned()));
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(none))
            .collect()
    }
}

/// Which record a message is.
fn place(entry: &Sent) -> usize {
    entry.id.parse().expect("ids are places")
}

/// Messages in their order, as many in one batch as a request takes.
fn packed(messages: Vec<Sent>) -> Vec<Vec<Sent>> {
    let mut batches: Vec<Vec<Sent>> = Vec::new();
    let mut bytes = 0;
    for message in messages {
        let size = message.message_body.len() + 256;
        let fits = batches.last().is_some_and(|batch: &Vec<Sent>| {
            batch.len() < limits::SQS_BATCH && bytes + size <= limits::SQS_SEND_BYTES
        });
        if fits && let Some(batch) = batches.last_mut() {
            bytes += size;
            batch.push(message);
        } else {
            bytes = size;
            batches.push(vec![message]);
        }
    }
    batches
}

/// An id of a group or of deduplication: as it is if SQS takes it, else its digest.
fn legal(id: &[u8]) -> String {
    let text = std::str::from_utf8(id).unwrap_or_default();
    let is_legal = (1..=ID_CHARACTERS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_legal {
        text.to_owned()
    } else {
        hex(&Sha256::digest(id))
    }
}

/// An entry's fault that is the sender's by name and passes all the same.
fn may_pass(code: &str) -> bool {
    code.contains("Throttl") || code.contains("OverLimit") || code.contains("Kms")
}

/// Whether a whole request was refused for what its messages are.
fn is_content(said: &str) -> bool {
    [
        "InvalidMessageContents",
        "BatchRequestTooLong",
        "InvalidParameterValue",
    ]
    .iter()
    .any(|code| said.contains(code))
}
