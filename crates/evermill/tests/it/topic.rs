//! Topics of the real broker, and a producer beside the engine.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::process::PATIENCE;

/// The broker that the tests run against.
pub(crate) fn address() -> String {
    std::env::var("EVERMILL_TEST_KAFKA").unwrap_or_else(|_| {
        panic!(
            "EVERMILL_TEST_KAFKA is not set: this test needs Apache Kafka. Run `cargo xtask test`, or start \
             a broker by `cargo xtask kafka` and export EVERMILL_TEST_KAFKA=127.0.0.1:PORT"
        )
    })
}

/// A topic that no other test has.
pub(crate) struct Topic {
    pub(crate) name: String,
    producer: BaseProducer,
}

impl Topic {
    pub(crate) fn new(partitions: i32) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("it-{}-{number}", std::process::id());
        Self::named(&name, partitions)
    }

    /// A topic of a given name, made if there is none.
    pub(crate) fn named(name: &str, partitions: i32) -> Self {
        let config = client();
        let admin: AdminClient<DefaultClientContext> = config.create().expect("an admin client");
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let made = block_on(admin.create_topics([&topic], &options)).expect("the broker answers");
        for result in made {
            match result {
                Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, why)) => panic!("topic {name}: {why}"),
            }
        }
        Self {
            name: name.to_owned(),
            producer: config.create().expect("a producer"),
        }
    }

    /// Gives it more partitions.
    pub(crate) fn grow(&self, partitions: usize) {
        let admin: AdminClient<DefaultClientContext> = client().create().expect("an admin client");
        let grown = NewPartitions::new(&self.name, partitions);
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let made = block_on(admin.create_partitions([&grown], &options));
        let made = made.expect("the broker answers").remove(0);
        made.expect("partitions are added");
    }

    /// Writes one message per value and returns once the broker has acknowledged all.
    pub(crate) fn write<V: AsRef<[u8]>>(
        &self,
        partition: i32,
        values: impl IntoIterator<Item = V>,
    ) {
        for value in values {
            let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(&self.name)
                .partition(partition)
                .payload(value.as_ref());
            let deadline = Instant::now() + PATIENCE;
            while let Err((why, back)) = self.producer.send(record) {
                assert!(Instant::now() < deadline, "the producer stays full: {why}");
                self.producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        self.producer
            .flush(PATIENCE)
            .expect("the broker acknowledges");
    }
}

pub(crate) fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address())
        .set("acks", "all")
        .set("linger.ms", "1");
    config
}

/// The admin client speaks in futures that its own thread completes.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
