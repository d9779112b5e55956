//! The sinks against the one suite: a topic, queues, a bucket. Services over HTTP are in
//! [`crate::http_sink`], folders beside their sink.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_connectors::kafka::EFFECT_KEY_HEADER;
use evermill_connectors::limits::SQS_SEND_BYTES;
use evermill_contract::manifest::SinkConfig;
use evermill_contract::sink::conformance::{World, check_all, plain};
use evermill_contract::sink::{Record, Sink, SinkError};
use evermill_contract::trace::{HEADER, STATE_HEADER};
use evermill_http::testing::{Reply, Server};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, TopicPartitionList};
use serde_json::{Value, json};

use crate::sqs_world::{Fake, NAME};

const PATIENCE: Duration = Duration::from_secs(60);

fn open(config: Value, address: &str) -> Box<dyn Sink> {
    let config: SinkConfig = serde_json::from_value(config).unwrap();
    let address = address.to_owned();
    evermill_connectors::open_sink(&config, &|_| Some(address.clone()), Arc::new(|_, _| {}))
        .unwrap()
}

/// The span that records come from.
const SPAN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// More than librdkafka takes.
const TOO_MUCH: usize = 2 << 20;

struct Topic {
    broker: MockCluster<'static, DefaultProducerContext>,
}

impl Topic {
    fn new() -> Self {
        let broker = MockCluster::new(1).unwrap();
        broker.create_topic("t", 1, 1).unwrap();
        Self { broker }
    }

    /// All it holds: effect key and value.
    fn read(&self) -> Vec<(String, String)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.broker.bootstrap_servers())
            .set("group.id", "reader")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Beginning)
            .unwrap();
        consumer.assign(&list).unwrap();
        let count = consumer.fetch_watermarks("t", 0, PATIENCE).unwrap().1;
        let deadline = Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while (found.len() as i64) < count {
            assert!(Instant::now() < deadline, "{} of {count}", found.len());
            let Some(message) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let message = message.unwrap();
            let headers = message.headers().expect("headers");
            let (header, span, state) = (headers.get(0), headers.get(1), headers.get(2));
            assert_eq!(header.key, EFFECT_KEY_HEADER);
            assert_eq!((span.key, span.value), (HEADER, Some(SPAN.as_bytes())));
            assert_eq!(
                (state.key, state.value),
                (STATE_HEADER, Some(&b"rojo=1"[..]))
            );
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.push((
                text(header.value.unwrap()),
                text(message.payload().unwrap()),
            ));
        }
        found
    }
}

impl World for Topic {
    fn open(&mut self) -> Box<dyn Sink> {
        open(
            json!({"kind": "kafka", "topic": "t"}),
            &self.broker.bootstrap_servers(),
        )
    }
    fn record(&self, value: &str, effect_key: &str) -> Record {
        let record = match value {
            "bad" | "v77" => plain(&"x".repeat(TOO_MUCH), effect_key),
            value => plain(value, effect_key),
        };
        Record {
            traceparent: Some(SPAN.to_owned()),
            tracestate: Some("rojo=1".to_owned()),
            ..record
        }
    }
    fn arrived(&mut self) -> BTreeMap<String, Vec<String>> {
        by_key(self.read())
    }
    fn order(&mut self) -> Option<Vec<String>> {
        Some(self.read().into_iter().map(|(_, value)| value).collect())
    }
    fn refuse(&mut self, value: &str) -> bool {
        matches!(value, "bad" | "v77")
    }
    fn away(&mut self, away: bool) {
        match away {
            true => self.broker.broker_down(1).unwrap(),
            false => self.broker.broker_up(1).unwrap(),
        }
    }
    fn keeps_one(&self) -> bool {
        false
    }
    fn too_large(&self) -> Option<usize> {
        Some(TOO_MUCH)
    }
}

fn by_key(arrived: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, Vec<String>> {
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in arrived {
        by_key.entry(key).or_default().push(value);
    }
    by_key
}

#[test]
fn a_topic_is_a_sink() {
    check_all(Topic::new);
}

struct Queue {
    fake: Fake,
    name: &'static str,
    away: Arc<AtomicBool>,
}

impl Queue {
    fn new(name: &'static str) -> Self {
        let (fake, away) = (Fake::start(), Arc::new(AtomicBool::new(false)));
        let is_away = Arc::clone(&away);
        fake.misbehave(move |action, asked| {
            if is_away.load(Ordering::SeqCst) {
                return Some(Reply::new(503, "away"));
            }
            let entries = asked["Entries"]
                .as_array()
                .filter(|_| action == "SendMessageBatch")?;
            let bytes = |entry: &Value| entry["MessageBody"].as_str().map_or(0, str::len);
            let all: usize = entries.iter().map(bytes).sum();
            let said = json!({"__type": "com.amazonaws.sqs#BatchRequestTooLong", "message": "x"});
            (all > SQS_SEND_BYTES).then(|| Reply::new(400, said.to_string()))
        });
        Self { fake, name, away }
    }

    fn is_fifo(&self) -> bool {
        self.name != NAME
    }
}

impl World for Queue {
    fn open(&mut self) -> Box<dyn Sink> {
        self.fake.sink(self.name)
    }
    fn record(&self, value: &str, effect_key: &str) -> Record {
        let record = plain(value, effect_key);
        match value {
            // SQS takes text alone.
            "bad" | "v77" => Record {
                value: Some(Bytes::from_static(&[0xff])),
                ..record
            },
            _ => record,
        }
    }
    fn arrived(&mut self) -> BTreeMap<String, Vec<String>> {
        let messages = self.fake.messages().into_iter();
        by_key(messages.map(|(body, attributes, _)| {
            let key = attributes["evermill-effect-key"]["StringValue"].as_str();
            (key.expect("the effect key").to_owned(), body)
        }))
    }
    fn order(&mut self) -> Option<Vec<String>> {
        let messages = self.fake.messages().into_iter();
        self.is_fifo()
            .then(|| messages.map(|(body, ..)| body).collect())
    }
    fn refuse(&mut self, value: &str) -> bool {
        matches!(value, "bad" | "v77")
    }
    fn away(&mut self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
    fn keeps_one(&self) -> bool {
        self.is_fifo()
    }
    fn too_large(&self) -> Option<usize> {
        Some(SQS_SEND_BYTES + 1)
    }
}

#[test]
fn a_queue_is_a_sink() {
    check_all(|| Queue::new(NAME));
}

#[test]
fn a_fifo_queue_is_a_sink_that_drops_repeats() {
    check_all(|| Queue::new("orders.fifo"));
}

/// A bucket of our own.
struct Bucket {
    server: Server,
    objects: Arc<Mutex<BTreeMap<String, (String, String)>>>,
    away: Arc<AtomicBool>,
}

impl Bucket {
    fn new() -> Self {
        let objects: Arc<Mutex<BTreeMap<String, (String, String)>>> = Arc::default();
        let away = Arc::new(AtomicBool::new(false));
        let (kept, is_away) = (Arc::clone(&objects), Arc::clone(&away));
        let server = Server::start(move |seen| {
            if is_away.load(Ordering::SeqCst) {
                return Reply::new(503, "<Error><Code>SlowDown</Code></Error>");
            }
            assert_eq!(seen.method, "PUT");
            assert!(
                seen.header("authorization")
                    .unwrap()
                    .contains("/s3/aws4_request")
            );
            let key = seen
                .header("x-amz-meta-evermill-effect-key")
                .unwrap()
                .to_owned();
            let body = String::from_utf8_lossy(&seen.body).into_owned();
            kept.lock().unwrap().insert(seen.path.clone(), (key, body));
            Reply::new(200, "")
        });
        Self {
            server,
            objects,
            away,
        }
    }

    fn sink(&self) -> Box<dyn Sink> {
        let address = format!(
            "{}?region=eu-west-1&access_key_id=a&secret_access_key=geheim",
            self.server.url()
        );
        open(
            json!({"kind": "file", "path": "s3://data-1/out/{effect_key}"}),
            &address,
        )
    }
}

fn object(key: &str, value: &str, effect_key: &str) -> Record {
    Record {
        name: Some(format!("s3://data-1/{key}")),
        ..plain(value, effect_key)
    }
}

impl World for Bucket {
    fn open(&mut self) -> Box<dyn Sink> {
        self.sink()
    }
    fn record(&self, value: &str, effect_key: &str) -> Record {
        match value {
            "bad" | "v77" => object(&"x".repeat(2_000), value, effect_key),
            _ => object(&format!("out/{effect_key}"), value, effect_key),
        }
    }
    fn arrived(&mut self) -> BTreeMap<String, Vec<String>> {
        let objects = self.objects.lock().unwrap();
        by_key(objects.values().cloned())
    }
    fn order(&mut self) -> Option<Vec<String>> {
        None
    }
    fn refuse(&mut self, value: &str) -> bool {
        matches!(value, "bad" | "v77")
    }
    fn away(&mut self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
    fn keeps_one(&self) -> bool {
        true
    }
    fn too_large(&self) -> Option<usize> {
        None
    }
}

#[test]
fn a_bucket_is_a_sink() {
    check_all(Bucket::new);
}

#[test]
fn keys_of_objects_are_signed_as_they_are_asked_for_and_lead_nowhere_else() {
    let bucket = Bucket::new();
    let sink = bucket.sink();
    let once = |record| sink.send(vec![record], PATIENCE).remove(0);
    assert_eq!(once(object("a b/ü+1=&.json", "{}", "k")), Ok(()));
    let seen = bucket.server.seen();
    assert_eq!(seen[0].path, "/data-1/a%20b/%C3%BC%2B1%3D%26.json");
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    for key in ["../other/x", "a/../b", "a//b", "", "a/."] {
        let answer = once(object(key, "{}", "k"));
        assert!(
            matches!(answer, Err(SinkError::ForGood(_))),
            "{key}: {answer:?}"
        );
    }
    let elsewhere = Record {
        name: Some("s3://data-2/x".to_owned()),
        ..plain("{}", "k")
    };
    assert!(matches!(once(elsewhere), Err(SinkError::ForGood(_))));
    assert_eq!(bucket.server.seen().len(), 1);
}
