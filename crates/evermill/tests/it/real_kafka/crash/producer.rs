//! The producer: outside the blast radius, it writes numbered messages and keeps the ledger of what
//! the broker has acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::judge::Ledger;
use crate::process::PATIENCE;
use crate::topic;

/// Messages a second, over all partitions: so many that a kill finds work in flight, and so few
/// that the engine catches up between kills.
const RATE: u32 = 300;

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
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    pub(super) fn start(topic: &str, partitions: u64) -> Self {
        let notes = Notes::default();
        let stop = Arc::<AtomicBool>::default();
        let mut config = topic::client();
        config.set("enable.idempotence", "true");
        let producer: ThreadedProducer<Notes> = config.create_with_context(notes.clone()).expect("a producer");
        let (topic, stopped) = (topic.to_owned(), Arc::clone(&stop));
        let write = move || {
            for seq in 0.. {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                let value = seq.to_string();
                let partition = i32::try_from(seq % partitions).expect("it is small");
                let record: BaseRecord<'_, (), str, Box<u64>> =
                    BaseRecord::with_opaque_to(&topic, Box::new(seq)).partition(partition).payload(&value);
                producer.send(record).map_err(|(why, _)| why).expect("the queue is not full at this rate");
                std::thread::sleep(Duration::from_secs(1) / RATE);
            }
            producer.flush(PATIENCE).expect("the broker acknowledges");
        };
        Self { notes, stop, thread: Some(std::thread::spawn(write)) }
    }

    /// Stops writing; what was acknowledged, once nothing is open any more.
    pub(super) fn end(mut self) -> Ledger {
        self.stop.store(true, Ordering::Release);
        self.thread.take().expect("it ends once").join().expect("the producer does well");
        std::mem::take(&mut self.notes.0.lock().unwrap())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
