//! What `cargo xtask bench --only closure` compares: the same work for each message of a topic, by a
//! closure behind the engine, and by the loop that people write with librdkafka.
//!
//! ```text
//! closure_bench engine BROKER TOPIC MESSAGES
//! closure_bench loop   BROKER TOPIC MESSAGES
//! ```
//!
//! Both end when they have had so many messages. What they cost is measured from outside.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evermill::{Ctx, Dag, Engine, Event, Failure, kafka};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [way, broker, topic, messages] = &arguments[..] else {
        panic!("want: engine|loop BROKER TOPIC MESSAGES");
    };
    let messages = messages.parse().expect("a number of messages");
    match &**way {
        "engine" => engine(broker, topic, messages),
        "loop" => bare_loop(broker, topic, messages),
        other => panic!("'{other}': want engine or loop"),
    }
}

/// The work: the order is read, and its total is looked at.
fn take(value: &[u8]) -> Result<(), serde_json::Error> {
    let order: serde_json::Value = serde_json::from_slice(value)?;
    black_box(order["amount"].as_f64());
    Ok(())
}

fn engine(broker: &str, topic: &str, messages: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let dag = Dag::new("bench")
        .source("wait", kafka::topic(topic).from_earliest())
        .task("take", &["wait"], async move |event: Event, _: Ctx| {
            take(event.value().unwrap_or_default())?;
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Failure>(())
        });
    let running = Engine::local(dir.path())
        .connection("kafka_default", broker)
        .start(dag)
        .expect("a DAG that starts");
    running.wait_idle(Duration::ZERO);
    let run = running
        .drain(Duration::from_secs(10))
        .expect("an end in order");
    assert_eq!((run.done, run.parked), (messages, 0));
    assert_eq!(taken.load(Ordering::Relaxed), messages);
}

/// Offsets are committed as the client does it unless told otherwise: every 5 s, and at the end.
fn bare_loop(broker: &str, topic: &str, messages: u64) {
    let group = format!("{topic}-{}", std::process::id());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("a subscription");
    let mut left = messages;
    while left > 0 {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else {
            continue;
        };
        let message = message.expect("a message");
        take(message.payload().unwrap_or_default()).expect("an order");
        left -= 1;
    }
}
