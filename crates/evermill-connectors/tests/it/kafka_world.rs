//! A Kafka topic as a [`World`], on whatever broker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evermill_connectors::Environment;
use evermill_connectors::kafka::{DevKafka, KafkaSource};
use evermill_contract::manifest::{KafkaSource as KafkaConfig, OffsetReset};
use evermill_contract::source::conformance::World;
use evermill_contract::source::{LaneName, Source, SourceBudget, SourceError};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One topic, and how to write to it.
pub(crate) struct Topic {
    pub(crate) connection: String,
    pub(crate) config: KafkaConfig,
    pub(crate) budget: SourceBudget,
    pub(crate) lanes: usize,
    pub(crate) producer: BaseProducer,
    /// What the sources of this topic have said on the side.
    pub(crate) diagnostics: Arc<Mutex<Vec<String>>>,
    /// The development broker that holds it, if one does.
    pub(crate) dev: Option<DevKafka>,
    bootstrap: String,
}

impl Topic {
    /// A topic of a broker at `bootstrap`, reached by sources through `connection`.
    pub(crate) fn new(bootstrap: &str, connection: String, name: &str, lanes: usize) -> Self {
        Self {
            connection,
            config: config(name),
            budget: SourceBudget::default(),
            lanes,
            producer: client(bootstrap).create().expect("a producer"),
            diagnostics: Arc::default(),
            dev: None,
            bootstrap: bootstrap.to_owned(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.topic
    }

    /// The address its producer uses.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The development broker that holds it.
    pub(crate) fn dev(&self) -> &DevKafka {
        self.dev.as_ref().expect("a topic of a development broker")
    }

    /// Opens a source that may be refused.
    pub(crate) fn try_open(&self) -> Result<KafkaSource, SourceError> {
        let diagnostics = Arc::clone(&self.diagnostics);
        KafkaSource::open(
            &self.config,
            &Environment {
                start_date: None,
                connection: &|id| (id == "kafka_default").then(|| self.connection.clone()),
                budget: self.budget,
                diagnostics: Arc::new(move |severity, line| {
                    diagnostics
                        .lock()
                        .unwrap()
                        .push(format!("{severity:?} {line}"));
                }),
            },
        )
    }

    /// Writes records with keys, values and headers as given; returns once all are accepted.
    pub(crate) fn write(&self, partition: i32, records: &[Record<'_>]) {
        for record in records {
            let mut headers = rdkafka::message::OwnedHeaders::new();
            for (key, value) in record.headers {
                headers = headers.insert(rdkafka::message::Header { key, value: *value });
            }
            let mut message: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to(self.name()).partition(partition);
            message.key = record.key;
            message.payload = record.value;
            message.headers = (!record.headers.is_empty()).then_some(headers);
            self.send(message);
        }
        self.producer
            .flush(PATIENCE)
            .expect("the broker accepts the records");
    }

    fn send(&self, mut message: BaseRecord<'_, [u8], [u8]>) {
        let deadline = Instant::now() + PATIENCE;
        while let Err((error, back)) = self.producer.send(message) {
            assert!(
                Instant::now() < deadline,
                "the producer stays full: {error}"
            );
            self.producer.poll(Duration::from_millis(10));
            message = back;
        }
    }
}

/// One record to write.
#[derive(Default)]
pub(crate) struct Record<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl World for Topic {
    fn open(&mut self) -> Box<dyn Source> {
        Box::new(self.try_open().expect("the source opens"))
    }

    fn publish(&mut self, lane: &LaneName, values: &[String]) {
        let records: Vec<_> = values
            .iter()
            .map(|value| Record {
                value: Some(value.as_bytes()),
                ..Record::default()
            })
            .collect();
        self.write(partition_of(lane), &records);
    }

    fn lanes(&self) -> usize {
        self.lanes
    }
}

pub(crate) fn partition_of(lane: &LaneName) -> i32 {
    let (_, partition) = lane.as_str().rsplit_once('/').expect("topic/partition");
    partition.parse().expect("a number")
}

/// A client configuration with the settings every client here needs.
pub(crate) fn client(bootstrap: &str) -> ClientConfig {
    let settings = HashMap::from([
        ("bootstrap.servers".to_owned(), bootstrap.to_owned()),
        ("linger.ms".to_owned(), "0".to_owned()),
    ]);
    settings.into_iter().collect()
}

/// The settings of a source that reads `topic`.
pub(crate) fn config(topic: &str) -> KafkaConfig {
    KafkaConfig {
        topic: topic.to_owned(),
        group_id: None,
        auto_offset_reset: OffsetReset::Earliest,
        connection: "kafka_default".to_owned(),
        membership: false,
        from_group: None,
        poke_interval_ms: None,
    }
}
