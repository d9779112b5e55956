//! The producer: outside the blast radius, it writes numbered messages and keeps the ledger of what
//! the broker has acknowledged.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::judge::Ledger;
use crate::process::PATIENCE;
use crate::topic;

/// Messages a second, over all partitions.
const RATE: u32 = 300;
/// Messages that the engine may be behind before the producer waits for it: so many that a kill
/// finds work in flight, so few that a slow machine still gets somewhere between two kills.
const BEHIND_MAX: u64 = 150;

/// Notes each acknowledgement.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Ledger>>);

impl ClientContext for Notes {}

impl ProducerContext for Notes {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, seq: Box<u64>) {
        // What was not acknowledged was not promised; the idempotent producer has no unknown ends.
        if let Ok(message) = result {
            let lane = format!("{}/{}", message.topic(), message.partition());
            let position = u64::try_from(message.offset()).expect("it has one");
            self.0.lock().unwrap().insert((lane, position), *seq);
        }
    }
}

/// Writes until it is ended.
pub(super) struct Producer {
    notes: Notes,
    stop: Arc<AtomicBool>,
    settled: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    pub(super) fn start(topic: &str, partitions: u64) -> Self {
        let notes = Notes::default();
        let stop = Arc::<AtomicBool>::default();
        let mut config = topic::client();
        config.set("enable.idempotence", "true");
        let producer: ThreadedProducer<Notes> = config
            .create_with_context(notes.clone())
            .expect("a producer");
        let settled = Arc::<AtomicU64>::default();
        let (topic, stopped, seen) = (topic.to_owned(), Arc::clone(&stop), Arc::clone(&settled));
        let write = move || {
            let mut seq = 0;
            while !stopped.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_secs(1) / RATE);
                if seq > seen.load(Ordering::Acquire) + BEHIND_MAX {
                    continue;
                }
                let value = seq.to_string();
                let partition = i32::try_from(seq % partitions).expect("it is small");
                let record: BaseRecord<'_, (), str, Box<u64>> =
                    BaseRecord::with_opaque_to(&topic, Box::new(seq))
                        .partition(partition)
                        .payload(&value);
                producer
                    .send(record)
                    .map_err(|(why, _)| why)
                    .expect("the queue is not full at this rate");
                seq += 1;
            }
            producer.flush(PATIENCE).expect("the broker acknowledges");
        };
        Self {
            notes,
            stop,
            settled,
            thread: Some(std::thread::spawn(write)),
        }
    }

    /// Tells how many messages the engine has settled.
    pub(super) fn has_settled(&self, messages: u64) {
        self.settled.fetch_max(messages, Ordering::AcqRel);
    }

    /// Stops writing; what was acknowledged, once nothing is open any more.
    pub(super) fn end(mut self) -> Ledger {
        self.stop.store(true, Ordering::Release);
        self.thread
            .take()
            .expect("it ends once")
            .join()
            .expect("the producer does well");
        std::mem::take(&mut self.notes.0.lock().unwrap())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
