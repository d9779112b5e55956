//! Writing to a topic: an idempotent producer, acknowledged by all replicas, with the effect key in a
//! header of each message.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evermill_contract::manifest::KafkaSink as KafkaSinkConfig;
use evermill_contract::sink::{Record, Sink, SinkError};
use evermill_contract::source::{DiagnosticSink, Severity, SourceError};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::config::Connection;
use super::cure;
use crate::limits;

/// The header that carries the effect key.
pub const EFFECT_KEY_HEADER: &str = "evermill-effect-key";

/// A Kafka topic being written to.
pub struct KafkaSink {
    topic: String,
    id: String,
    connection: Connection,
    diagnostics: DiagnosticSink,
    /// Made when it is first needed, and anew when it has failed for good.
    producer: Mutex<Option<Arc<Producer>>>,
}

type Producer = ThreadedProducer<Deliveries>;

impl KafkaSink {
    /// Prepares to write; connects when there is something to send.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub fn open(
        config: &KafkaSinkConfig,
        connection: &dyn Fn(&str) -> Option<String>,
        diagnostics: DiagnosticSink,
    ) -> Result<Self, SourceError> {
        let id = &config.connection;
        let address = connection(id).ok_or_else(|| {
            SourceError::Refused(format!(
                "connection {id:?} of topic {:?} is not set; pass --connection {id}=HOST:PORT",
                config.topic
            ))
        })?;
        Ok(Self {
            topic: config.topic.clone(),
            id: id.clone(),
            connection: Connection::parse(id, &address)?,
            diagnostics,
            producer: Mutex::default(),
        })
    }

    fn producer(&self) -> Result<Arc<Producer>, SinkError> {
        let mut known = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        // An idempotent producer that cannot keep its word sends nothing any more.
        if let Some(producer) = &*known
            && producer.client().fatal_error().is_none()
        {
            return Ok(Arc::clone(producer));
        }
        let deliveries = Deliveries {
            topic: self.topic.clone(),
            id: self.id.clone(),
            diagnostics: Arc::clone(&self.diagnostics),
            trouble: Mutex::default(),
        };
        let made = self.connection.producer().create_with_context(deliveries);
        let producer: Arc<Producer> = Arc::new(made.map_err(|error| {
            SinkError::ForGood(format!(
                "connection {:?}: no Kafka client can be made: {error}",
                self.id
            ))
        })?);
        *known = Some(Arc::clone(&producer));
        Ok(producer)
    }
}

impl Sink for KafkaSink {
    fn send(&self, records: Vec<Record>, wait: Duration) -> Vec<Result<(), SinkError>> {
        let producer = match self.producer() {
            Ok(producer) => producer,
            Err(error) => return records.iter().map(|_| Err(error.clone())).collect(),
        };
        let until = Instant::now() + wait;
        let answers = Arc::new(Answers::new(records.len()));
        for (index, record) in records.iter().enumerate() {
            let answers = Arc::clone(&answers);
            self.enqueue(&producer, record, Ticket { answers, index }, until);
        }
        let answers = answers.wait(until);
        let answer = |answer: Option<Result<(), SinkError>>| {
            answer.unwrap_or_else(|| {
                Err(SinkError::MayPass(format!(
                    "topic {:?}: no answer within {} s{}",
                    self.topic,
                    wait.as_secs(),
                    producer.context().why()
                )))
            })
        };
        answers.into_iter().map(answer).collect()
    }
}

impl KafkaSink {
    /// Hands a record to the client, as soon as that has room.
    fn enqueue(&self, producer: &Producer, record: &Record, ticket: Ticket, until: Instant) {
        let mut ticket = Box::new(ticket);
        loop {
            let (answers, index) = (Arc::clone(&ticket.answers), ticket.index);
            let mut message =
                BaseRecord::<[u8], [u8], Box<Ticket>>::with_opaque_to(&self.topic, ticket);
            message.key = record.key.as_deref();
            message.payload = record.value.as_deref();
            message.headers = headers(record);
            match producer.send(message) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < until =>
                {
                    ticket = back.delivery_opaque;
                    answers.wait_for_room();
                }
                Err((error, _)) => return answers.set(index, Err(judge(&self.topic, &error))),
            }
        }
    }
}

fn headers(record: &Record) -> Option<OwnedHeaders> {
    let known = [
        (EFFECT_KEY_HEADER, record.effect_key.as_deref()),
        (
            evermill_contract::trace::HEADER,
            record.traceparent.as_deref(),
        ),
        (
            evermill_contract::trace::STATE_HEADER,
            record.tracestate.as_deref(),
        ),
    ];
    let known = known.into_iter().filter(|(_, value)| value.is_some());
    known.fold(None, |headers, (key, value)| {
        let headers = headers.unwrap_or_else(OwnedHeaders::new);
        Some(headers.insert(Header { key, value }))
    })
}

/// What became of the records of one call.
struct Answers {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    answers: Vec<Option<Result<(), SinkError>>>,
    open: usize,
}

impl Answers {
    fn new(count: usize) -> Self {
        Self {
            state: Mutex::new(State {
                answers: vec![None; count],
                open: count,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, index: usize, answer: Result<(), SinkError>) {
        let mut state = self.lock();
        if state.answers[index].replace(answer).is_none() {
            state.open -= 1;
        }
        self.changed.notify_all();
    }

    /// An answer makes room; so does one to somebody else, which nobody tells us of.
    fn wait_for_room(&self) {
        let state = self.lock();
        drop(
            self.changed
                .wait_timeout(state, limits::KAFKA_QUEUE_BACKOFF),
        );
    }

    fn wait(&self, until: Instant) -> Vec<Option<Result<(), SinkError>>> {
        let mut state = self.lock();
        while state.open > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // Answers that come later belong to nobody.
        state.answers.clone()
    }
}

/// Where the answer for a record goes.
struct Ticket {
    answers: Arc<Answers>,
    index: usize,
}

/// Hears what becomes of messages, and what is wrong with the connection.
struct Deliveries {
    topic: String,
    id: String,
    diagnostics: DiagnosticSink,
    /// What the brokers, or the way to them, last complained of.
    trouble: Mutex<Option<String>>,
}

impl Deliveries {
    fn why(&self) -> String {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble
            .as_ref()
            .map_or_else(String::new, |why| format!("; {why}"))
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let severity = match level {
            RDKafkaLogLevel::Debug => return,
            _ => Severity::Debug,
        };
        (self.diagnostics)(severity, &format!("librdkafka {facility}: {message}"));
    }

    fn error(&self, error: KafkaError, said: &str) {
        let code = error
            .rdkafka_error_code()
            .unwrap_or(RDKafkaErrorCode::Unknown);
        if code == RDKafkaErrorCode::AllBrokersDown {
            return;
        }
        // Behind it stands how long it took, which is another each time.
        let said = said.rsplit_once(" (after ").map_or(said, |(said, _)| said);
        let told = cure::explain(code, said, &self.id);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_ref() != Some(&told) {
            let text = format!("writing to topic {:?}: {told}", self.topic);
            (self.diagnostics)(Severity::Warning, &text);
            *trouble = Some(told);
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let answer = match result {
            Ok(_) => {
                *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(())
            }
            Err((error, _)) => Err(judge(&self.topic, error)),
        };
        ticket.answers.set(ticket.index, answer);
    }
}

fn judge(topic: &str, error: &KafkaError) -> SinkError {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => SinkError::ForGood(format!(
            "topic {topic:?} takes no message of this size; raise its max.message.bytes, or send less"
        )),
        Code::InvalidRecord | Code::InvalidMessage | Code::InvalidTopic => {
            SinkError::ForGood(format!("topic {topic:?} does not take the message: {code}"))
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic => SinkError::MayPass(format!(
            "topic {topic:?} does not exist; create it, or correct its name"
        )),
        Code::TopicAuthorizationFailed => SinkError::MayPass(format!(
            "the brokers do not let us write to topic {topic:?}; allow WRITE on it"
        )),
        code => SinkError::MayPass(format!("topic {topic:?}: not delivered: {code}")),
    }
}
