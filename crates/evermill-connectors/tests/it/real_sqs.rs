//! SQS against programs that speak as it does: moto, and ElasticMQ as a second opinion. Who runs these
//! tests starts them: `cargo xtask aws` prints what to export, and `cargo xtask test` does it all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_connectors::Environment;
use evermill_contract::manifest::{SinkConfig, SourceConfig};
use evermill_contract::sink::Record;
use evermill_contract::source::conformance::receiving::Driver;
use evermill_contract::source::{Opened, SourceBudget};
use evermill_http::{Client, Connection, Method, Request, Target};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// One that runs.
struct Real {
    url: String,
}

impl Real {
    fn of(variable: &str) -> Self {
        let url = std::env::var(variable);
        Self {
            url: url.unwrap_or_else(|_| {
                panic!("{variable} is not set: `cargo xtask aws` starts one and prints its address")
            }),
        }
    }

    fn address(&self) -> String {
        format!(
            "{}?region=us-east-1&access_key_id=a&secret_access_key=b",
            self.url
        )
    }

    /// Asks without a right signature, which they do not mind.
    fn ask(&self, action: &str, asked: &Value) -> Value {
        let client = Client::new(Connection::parse("test", &self.url).unwrap()).unwrap();
        let mut request = Request::new(Method::POST, Target::Below("/".to_owned()));
        let scope = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0";
        for (name, value) in [
            ("authorization", scope),
            ("content-type", "application/x-amz-json-1.0"),
            ("x-amz-target", &format!("AmazonSQS.{action}")),
        ] {
            request.headers.push((name.to_owned(), value.to_owned()));
        }
        request.body = Some(asked.to_string().into_bytes());
        let response = client.send(&request).unwrap();
        let text = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!(response.status, 200, "{action}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// A queue of this test's own.
    fn queue(&self, fifo: bool) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (end, attributes) = match fifo {
            true => (".fifo", json!({"FifoQueue": "true"})),
            false => ("", json!({})),
        };
        let name = format!("q-{}-{number}{end}", std::process::id());
        self.ask(
            "CreateQueue",
            &json!({"QueueName": name, "Attributes": attributes}),
        );
        name
    }

    fn left(&self, queue: &str) -> u64 {
        let url = self.ask("GetQueueUrl", &json!({"QueueName": queue}))["QueueUrl"].clone();
        let names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
        ];
        let told = self.ask(
            "GetQueueAttributes",
            &json!({"QueueUrl": url, "AttributeNames": names}),
        );
        names
            .iter()
            .map(|name| {
                told["Attributes"][name]
                    .as_str()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            })
            .sum()
    }

    fn source(&self, queue: &str, ack: &str) -> Driver {
        self.telling(queue, ack, &Arc::default())
    }

    /// The same, with what it says beside its events.
    fn telling(&self, queue: &str, ack: &str, told: &Arc<Mutex<Vec<String>>>) -> Driver {
        let told = Arc::clone(told);
        let config: SourceConfig =
            serde_json::from_value(json!({"kind": "sqs", "queue": queue, "ack": ack})).unwrap();
        let environment = Environment {
            connection: &|_| Some(self.address()),
            budget: SourceBudget::default(),
            start_date: None,
            diagnostics: Arc::new(move |_, text: &str| told.lock().unwrap().push(text.to_owned())),
        };
        match evermill_connectors::open(&config, &environment).unwrap() {
            Opened::Received(receiver) => Driver::new(receiver, None),
            _ => panic!("it receives"),
        }
    }

    fn send(&self, queue: &str, records: Vec<Record>) {
        let config: SinkConfig =
            serde_json::from_value(json!({"kind": "sqs", "queue": queue})).unwrap();
        let sink =
            evermill_connectors::open_sink(&config, &|_| Some(self.address()), Arc::new(|_, _| {}));
        let answers = sink.unwrap().send(records, PATIENCE);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    fn what_is_sent_is_received_once_and_deleted(&self) {
        for ack in ["ingest", "outcome"] {
            let queue = self.queue(false);
            self.send(
                &queue,
                (0..45).map(|n| record(&n.to_string(), None)).collect(),
            );
            assert_eq!(self.left(&queue), 45);
            let mut driver = self.source(&queue, ack);
            driver.until("all", |driver| driver.events.len() >= 45);
            driver.until("an empty queue", |_| self.left(&queue) == 0);
            driver.until("the end", |driver| driver.caught_up > 0);
            let mut numbers: Vec<u32> = driver
                .values()
                .iter()
                .map(|value| value.parse().unwrap())
                .collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..45).collect::<Vec<_>>(), "{ack}");
            let event = &driver.events[0];
            let header = |name: &str| {
                let found = event.headers.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            };
            let value = String::from_utf8_lossy(event.value.as_deref().unwrap()).into_owned();
            assert_eq!(header("evermill-effect-key"), Some(format!("e{value}")));
            assert!(
                header("AWS.MessageId").is_some() && event.timestamp_ms > Some(1_700_000_000_000)
            );
            driver.receiver().close();
        }
    }

    fn groups_stay_in_line_and_what_is_sent_twice_comes_once(&self) {
        let queue = self.queue(true);
        let records: Vec<_> = (0..40)
            .map(|n| record(&format!("{n:02}"), Some(["x", "y"][n % 2])))
            .collect();
        self.send(&queue, records.clone());
        self.send(&queue, records);
        let mut driver = self.source(&queue, "ingest");
        driver.until("all", |driver| driver.events.len() >= 40);
        driver.until("an empty queue", |_| self.left(&queue) == 0);
        assert_eq!(driver.events.len(), 40);
        let mut groups: BTreeMap<Bytes, Vec<Bytes>> = BTreeMap::new();
        for event in &driver.events {
            let group = groups.entry(event.key.clone().unwrap()).or_default();
            group.push(event.value.clone().unwrap());
        }
        assert_eq!(groups.len(), 2);
        assert!(
            groups.values().all(|values| values.is_sorted()),
            "{groups:?}"
        );
    }

    fn what_is_given_back_comes_at_once(&self) {
        let queue = self.queue(false);
        self.send(
            &queue,
            (0..15).map(|n| record(&n.to_string(), None)).collect(),
        );
        let mut first = self.source(&queue, "ingest");
        while first.events.len() < 10 {
            first.receive(Duration::from_millis(50));
        }
        first.receiver().close();
        let mut second = self.source(&queue, "ingest");
        second.until("all", |driver| driver.events.len() >= 15);
    }

    /// D05: two engines on one queue share its messages; none is lost, and none runs at both.
    fn d05_two_readers_share_a_queue(&self) {
        let queue = self.queue(false);
        self.send(
            &queue,
            (0..60).map(|n| record(&n.to_string(), None)).collect(),
        );
        let (mut one, mut other) = (self.source(&queue, "ingest"), self.source(&queue, "ingest"));
        let deadline = Instant::now() + PATIENCE;
        while self.left(&queue) > 0 {
            assert!(Instant::now() < deadline, "{} are left", self.left(&queue));
            for driver in [&mut one, &mut other] {
                driver.receive(Duration::from_millis(20));
                driver.keep();
                driver.settle();
            }
        }
        let all = one.values().into_iter().chain(other.values());
        let mut numbers: Vec<u32> = all.map(|value| value.parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..60).collect::<Vec<_>>());
        one.receiver().close();
        other.receiver().close();
    }

    /// D10: what the queue's own policy moves away, since readers died of it or with it, is in the
    /// dead-letter queue, and a source reads it there.
    fn d10_a_message_that_the_queue_moves_away_is_read_where_it_went(&self) {
        let (dead, queue) = (self.queue(false), self.queue(false));
        let url = |queue: &str| {
            let found = self.ask("GetQueueUrl", &json!({"QueueName": queue}));
            found["QueueUrl"].as_str().unwrap().to_owned()
        };
        let named = json!({"QueueUrl": url(&dead), "AttributeNames": ["QueueArn"]});
        let arn = self.ask("GetQueueAttributes", &named)["Attributes"]["QueueArn"].clone();
        let policy = json!({"deadLetterTargetArn": arn, "maxReceiveCount": 3}).to_string();
        let attributes = json!({"QueueUrl": url(&queue), "Attributes": {"RedrivePolicy": policy}});
        self.ask("SetQueueAttributes", &attributes);
        self.send(&queue, vec![record("poison", None)]);
        // Received and given back, as by one that ends before it has kept it.
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        for _ in 0..3 {
            let mut reader = self.telling(&queue, "ingest", &told);
            while reader.events.is_empty() {
                reader.receive(Duration::from_millis(50));
            }
            reader.receiver().close();
        }
        let said = told.lock().unwrap().join(
            "
",
        );
        assert!(
            said.contains("for the 3rd time") && said.contains("dead-letter queue"),
            "{said}"
        );
        let mut second = self.source(&queue, "ingest");
        second.until("the message is moved", |_| self.left(&dead) == 1);
        assert_eq!((second.events.len(), self.left(&queue)), (0, 0));
        second.receiver().close();
        let mut reader = self.source(&dead, "ingest");
        reader.until("the message", |driver| !driver.events.is_empty());
        assert_eq!(reader.values(), ["poison"]);
        reader.until("an empty queue", |_| self.left(&dead) == 0);
    }

    fn a_missing_queue_is_said_with_the_one_that_was_meant(&self) {
        let queue = self.queue(false);
        let mut driver = self.source(&format!("{queue}x"), "ingest");
        driver.until("trouble", |driver| !driver.said.is_empty());
        let said = driver.said[0].clone().unwrap();
        assert!(
            said.contains("does not exist") && said.contains(&format!("did you mean {queue:?}?")),
            "{said}"
        );
    }
}

fn record(value: &str, key: Option<&str>) -> Record {
    Record {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        effect_key: Some(format!("e{value}")),
        ..Record::default()
    }
}

mod real_moto {
    use super::Real;

    fn real() -> Real {
        Real::of("EVERMILL_TEST_SQS")
    }

    #[test]
    fn what_is_sent_is_received_once_and_deleted() {
        real().what_is_sent_is_received_once_and_deleted();
    }

    #[test]
    fn groups_stay_in_line_and_what_is_sent_twice_comes_once() {
        real().groups_stay_in_line_and_what_is_sent_twice_comes_once();
    }

    #[test]
    fn what_is_given_back_comes_at_once() {
        real().what_is_given_back_comes_at_once();
    }

    #[test]
    fn d05_two_readers_share_a_queue() {
        real().d05_two_readers_share_a_queue();
    }

    #[test]
    fn d10_a_message_that_the_queue_moves_away_is_read_where_it_went() {
        real().d10_a_message_that_the_queue_moves_away_is_read_where_it_went();
    }

    #[test]
    fn a_missing_queue_is_said_with_the_one_that_was_meant() {
        real().a_missing_queue_is_said_with_the_one_that_was_meant();
    }
}

mod real_elasticmq {
    use super::Real;

    fn real() -> Real {
        Real::of("EVERMILL_TEST_ELASTICMQ")
    }

    #[test]
    fn what_is_sent_is_received_once_and_deleted() {
        real().what_is_sent_is_received_once_and_deleted();
    }

    #[test]
    fn groups_stay_in_line_and_what_is_sent_twice_comes_once() {
        real().groups_stay_in_line_and_what_is_sent_twice_comes_once();
    }

    #[test]
    fn what_is_given_back_comes_at_once() {
        real().what_is_given_back_comes_at_once();
    }

    #[test]
    fn d05_two_readers_share_a_queue() {
        real().d05_two_readers_share_a_queue();
    }

    #[test]
    fn d10_a_message_that_the_queue_moves_away_is_read_where_it_went() {
        real().d10_a_message_that_the_queue_moves_away_is_read_where_it_went();
    }

    #[test]
    fn a_missing_queue_is_said_with_the_one_that_was_meant() {
        real().a_missing_queue_is_said_with_the_one_that_was_meant();
    }
}
