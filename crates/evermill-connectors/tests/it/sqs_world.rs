//! A queue of our own that speaks as SQS does, and misbehaves when a test says so. Time does not pass
//! in it: leases run out when a test lets them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use evermill_connectors::Environment;
use evermill_contract::manifest::{SinkConfig, SourceConfig};
use evermill_contract::sink::Sink;
use evermill_contract::source::conformance::receiving::Place;
use evermill_contract::source::{DiagnosticSink, Opened, Receiver, SourceBudget, SourceError};
use evermill_http::testing::{Reply, Seen, Server};
use serde_json::{Value, json};

pub(crate) const NAME: &str = "orders";

/// What a call is answered with in place of the right answer; by its name, and what was asked.
pub(crate) type Mischief = dyn Fn(&str, &Value) -> Option<Reply> + Send + Sync;

/// The queue, and the server in front of it.
pub(crate) struct Fake {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    next: u64,
    messages: BTreeMap<u64, Message>,
    /// Every call, with what was asked.
    pub(crate) calls: Vec<(String, Value)>,
    mischief: Option<Arc<Mischief>>,
    closed: bool,
    /// Deduplication ids that were sent.
    once: BTreeSet<String>,
}

#[derive(Clone)]
struct Message {
    body: Value,
    attributes: Value,
    group: Option<String>,
    /// Hidden, under the newest receipt.
    lease: Option<String>,
    received: u64,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let answering = Arc::clone(&shared);
        let server = Server::start(move |seen| answering.answer(seen));
        Self { server, shared }
    }

    pub(crate) fn address(&self) -> String {
        format!(
            "{}?region=eu-west-1&access_key_id=a&secret_access_key=geheim",
            self.server.url()
        )
    }

    pub(crate) fn source(&self, more: Value) -> Box<dyn Receiver> {
        let quiet: DiagnosticSink = Arc::new(|_, _| {});
        self.source_of(NAME, more, quiet).unwrap()
    }

    pub(crate) fn source_of(
        &self,
        queue: &str,
        more: Value,
        diagnostics: DiagnosticSink,
    ) -> Result<Box<dyn Receiver>, SourceError> {
        let mut config = json!({"kind": "sqs", "queue": queue});
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let config: SourceConfig = serde_json::from_value(config).unwrap();
        let environment = Environment {
            connection: &|_| Some(self.address()),
            budget: SourceBudget::default(),
            start_date: None,
            diagnostics,
        };
        match evermill_connectors::open(&config, &environment)? {
            Opened::Received(receiver) => Ok(receiver),
            _ => panic!("it receives"),
        }
    }

    pub(crate) fn sink(&self, queue: &str) -> Box<dyn Sink> {
        let config = json!({"kind": "sqs", "queue": queue});
        let config: SinkConfig = serde_json::from_value(config).unwrap();
        let quiet: DiagnosticSink = Arc::new(|_, _| {});
        evermill_connectors::open_sink(&config, &|_| Some(self.address()), quiet).unwrap()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    pub(crate) fn send(&self, value: &str, group: Option<&str>) {
        self.lock()
            .add(json!(value), json!({}), group.map(str::to_owned));
        self.shared.changed.notify_all();
    }

    /// Every lease runs out.
    pub(crate) fn expire(&self) {
        let mut state = self.lock();
        state
            .messages
            .values_mut()
            .for_each(|message| message.lease = None);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Answers calls as this says, and rightly where it says nothing.
    pub(crate) fn misbehave(
        &self,
        how: impl Fn(&str, &Value) -> Option<Reply> + Send + Sync + 'static,
    ) {
        self.lock().mischief = Some(Arc::new(how));
        self.shared.changed.notify_all();
    }

    pub(crate) fn behave(&self) {
        self.lock().mischief = None;
        self.shared.changed.notify_all();
    }

    pub(crate) fn left(&self) -> usize {
        self.lock().messages.len()
    }

    /// Bodies of the messages there are, in their order, with what was sent along.
    pub(crate) fn messages(&self) -> Vec<(String, Value, Option<String>)> {
        let state = self.lock();
        let all = state.messages.values();
        let all = all.map(|message| {
            let body = message.body.as_str().unwrap().to_owned();
            (body, message.attributes.clone(), message.group.clone())
        });
        all.collect()
    }

    pub(crate) fn calls(&self, action: &str) -> Vec<Value> {
        let state = self.lock();
        let calls = state.calls.iter().filter(|(name, _)| name == action);
        calls.map(|(_, asked)| asked.clone()).collect()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.server.seen()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl State {
    fn add(&mut self, body: Value, attributes: Value, group: Option<String>) {
        self.next += 1;
        let message = Message {
            body,
            attributes,
            group,
            lease: None,
            received: 0,
        };
        self.messages.insert(self.next, message);
    }

    fn by_receipt(&mut self, entry: &Value) -> Option<u64> {
        let receipt = entry["ReceiptHandle"].as_str()?;
        let (number, _) = receipt.split_once('/')?;
        number.parse().ok()
    }

    /// What can be received now.
    fn receive(&mut self, most: usize) -> Vec<Value> {
        // A group that has a message with a reader holds the others back.
        let hidden = self
            .messages
            .values()
            .filter(|message| message.lease.is_some());
        let held: BTreeSet<String> = hidden.filter_map(|message| message.group.clone()).collect();
        let mut found = Vec::new();
        for (number, message) in &mut self.messages {
            let is_held = message
                .group
                .as_ref()
                .is_some_and(|group| held.contains(group));
            if found.len() == most || message.lease.is_some() || is_held {
                continue;
            }
            message.received += 1;
            let receipt = format!("{number}/{}", message.received);
            message.lease = Some(receipt.clone());
            let mut attributes = json!({
                "SentTimestamp": "1700000000000",
                "ApproximateReceiveCount": message.received.to_string(),
            });
            if let Some(group) = &message.group {
                attributes["MessageGroupId"] = json!(group);
            }
            found.push(json!({
                "MessageId": format!("id-{number}"),
                "ReceiptHandle": receipt,
                "Body": message.body,
                "Attributes": attributes,
                "MessageAttributes": message.attributes,
            }));
        }
        found
    }
}

/// An error as SQS says it.
pub(crate) fn error(status: u16, code: &str) -> Reply {
    let body = json!({"__type": format!("com.amazonaws.sqs#{code}"), "message": "said the queue"});
    Reply::new(status, body.to_string())
}

impl Shared {
    fn answer(&self, seen: &Seen) -> Reply {
        let target = seen.header("x-amz-target").unwrap_or_default();
        let action = target.rsplit('.').next().unwrap().to_owned();
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        let mut state = self.state.lock().unwrap();
        state.calls.push((action.clone(), asked.clone()));
        let mut waited = Duration::ZERO;
        loop {
            let mischief = state.mischief.clone();
            if let Some(reply) = mischief.and_then(|how| how(&action, &asked)) {
                return reply;
            }
            if action != "ReceiveMessage" {
                break;
            }
            let most = asked["MaxNumberOfMessages"].as_u64().unwrap() as usize;
            let found = state.receive(most);
            let patience = Duration::from_secs(asked["WaitTimeSeconds"].as_u64().unwrap());
            // A second of waiting is a twentieth here: tests wait for the end of a queue often.
            if !found.is_empty() || waited >= patience / 20 || state.closed {
                return Reply::new(200, json!({"Messages": found}).to_string());
            }
            let part = Duration::from_millis(10);
            waited += part;
            state = self.changed.wait_timeout(state, part).unwrap().0;
        }
        self.changed.notify_all();
        let entries = asked["Entries"].as_array().cloned().unwrap_or_default();
        let done = |entries: &[Value]| {
            let done: Vec<_> = entries
                .iter()
                .map(|entry| json!({"Id": entry["Id"]}))
                .collect();
            Reply::new(200, json!({"Successful": done, "Failed": []}).to_string())
        };
        match action.as_str() {
            "GetQueueUrl" => {
                let url = format!(
                    "https://elsewhere/1/{}",
                    asked["QueueName"].as_str().unwrap()
                );
                Reply::new(200, json!({"QueueUrl": url}).to_string())
            }
            "ListQueues" => Reply::new(
                200,
                json!({"QueueUrls": [format!("https://elsewhere/1/{NAME}")]}).to_string(),
            ),
            "DeleteMessageBatch" => {
                for entry in &entries {
                    let number = state.by_receipt(entry).unwrap();
                    let message = state.messages.get(&number);
                    let newest = message.and_then(|message| message.lease.as_deref());
                    // An old receipt is taken, and nothing is deleted (D04).
                    if newest == entry["ReceiptHandle"].as_str() {
                        state.messages.remove(&number);
                    }
                }
                done(&entries)
            }
            "ChangeMessageVisibilityBatch" => {
                for entry in &entries {
                    let number = state.by_receipt(entry).unwrap();
                    if entry["VisibilityTimeout"] == 0
                        && let Some(message) = state.messages.get_mut(&number)
                    {
                        message.lease = None;
                    }
                }
                done(&entries)
            }
            "SendMessageBatch" => {
                for entry in &entries {
                    let once = entry["MessageDeduplicationId"].as_str().map(str::to_owned);
                    if once.is_none_or(|once| state.once.insert(once)) {
                        let group = entry["MessageGroupId"].as_str().map(str::to_owned);
                        let attributes = entry["MessageAttributes"].clone();
                        state.add(entry["MessageBody"].clone(), attributes, group);
                    }
                }
                done(&entries)
            }
            other => panic!("nobody asks for {other}"),
        }
    }
}

/// The queue as the checks for all receivers see it.
pub(crate) struct Queue {
    pub(crate) fake: Fake,
    pub(crate) ack: &'static str,
}

impl Place for Queue {
    fn open(&mut self) -> Box<dyn Receiver> {
        self.fake.source(json!({"ack": self.ack}))
    }

    fn publish(&mut self, values: &[String]) {
        values.iter().for_each(|value| self.fake.send(value, None));
    }

    fn trouble(&mut self, is: bool) {
        if is {
            self.fake.misbehave(|_, _| Some(Reply::new(503, "")));
        } else {
            self.fake.behave();
        }
    }

    fn reader_is_gone(&mut self) {
        self.fake.expire();
    }

    fn holds(&mut self) -> Option<usize> {
        Some(self.fake.left())
    }
}
