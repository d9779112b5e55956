//! The producer: a thread that writes orders to the broker at its pace, and no faster than the
//! pipeline takes them.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use evermill_connectors::kafka::{DevKafka, DevProducer};
use evermill_engine::view::EngineView;

use super::orders::Orders;
use super::pace;
use crate::failure::Failure;

/// Where orders are written.
pub(super) const TOPIC: &str = "orders";
/// Orders that wait in the pipeline or before it at which no more are sent. What the broker keeps
/// (5 MB a partition) holds many times as many, so nothing is ever overtaken by its retention; and
/// at the end they are settled within seconds.
const BACKLOG_MAX: u64 = 1_000;
/// How often orders are sent.
const STEP: Duration = Duration::from_millis(10);
/// How long the broker may take to acknowledge the last ones.
const FLUSH: Duration = Duration::from_secs(5);

/// A shop that is closed at first.
pub(super) struct Shop {
    producer: Option<DevProducer>,
    rate: u32,
    seller: Option<Seller>,
}

struct Seller {
    /// Whether to hold back; dropped to end.
    held: Sender<bool>,
    thread: JoinHandle<Result<(), Failure>>,
}

impl Shop {
    /// A shop with so many orders a second.
    ///
    /// # Errors
    /// When the system refuses a client.
    pub(super) fn new(broker: &DevKafka, rate: u32) -> Result<Self, Failure> {
        Ok(Self {
            producer: Some(DevProducer::open(broker).map_err(refused)?),
            rate,
            seller: None,
        })
    }

    /// Orders come from now on.
    ///
    /// # Errors
    /// When there is no thread.
    pub(super) fn open(&mut self) -> Result<(), Failure> {
        let Some(producer) = self.producer.take() else {
            return Ok(());
        };
        let (held, hears) = bounded::<bool>(1);
        let rate = self.rate;
        let sell = move || {
            let mut orders = Orders::new();
            let (mut sent, mut open, mut is_held) = (0, Duration::ZERO, false);
            let mut looked = Instant::now();
            loop {
                match hears.recv_timeout(STEP) {
                    Ok(now) => is_held = now,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        return producer.flush(FLUSH).map_err(refused);
                    }
                }
                // While nobody can keep up the shop's clock stands still.
                let passed = looked.elapsed();
                looked += passed;
                open += if is_held { Duration::ZERO } else { passed };
                while sent < pace::due(rate, open) {
                    sell(&producer, &mut orders)?;
                    sent += 1;
                }
            }
        };
        let thread = std::thread::Builder::new().name("shop".into()).spawn(sell);
        let thread = thread.map_err(|error| Failure::failed(format!("no thread: {error}")))?;
        self.seller = Some(Seller { held, thread });
        Ok(())
    }

    /// Holds orders back while too many wait.
    ///
    /// # Errors
    /// What ended the producer.
    pub(super) fn hear_of_backlog(&mut self, view: &EngineView) -> Result<(), Failure> {
        let Some(seller) = &self.seller else {
            return Ok(());
        };
        if seller.thread.is_finished() {
            return self.end();
        }
        let lanes = view.runs.iter().flat_map(|run| &run.sources);
        let lanes = lanes.flat_map(|source| &source.lanes);
        let unread: u64 = lanes.filter_map(|lane| lane.behind).sum();
        let in_flight: u64 = view.runs.iter().map(|run| run.in_flight).sum();
        // Full when it has not looked yet: the next word comes soon.
        seller.held.try_send(unread + in_flight > BACKLOG_MAX).ok();
        Ok(())
    }

    /// No more orders; returns once the broker has all of them.
    ///
    /// # Errors
    /// When it does not take them.
    pub(super) fn close(mut self) -> Result<(), Failure> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Failure> {
        let Some(Seller { held, thread }) = self.seller.take() else {
            return Ok(());
        };
        drop(held);
        let panicked = |_| Err(Failure::failed("the producer has panicked; see above"));
        thread.join().unwrap_or_else(panicked)
    }
}

/// Hands over one order, waiting while the broker is behind.
fn sell(producer: &DevProducer, orders: &mut Orders) -> Result<(), Failure> {
    let order = orders.next();
    let deadline = Instant::now() + FLUSH;
    while !producer
        .send(TOPIC, order.customer, &order.json)
        .map_err(refused)?
    {
        if Instant::now() > deadline {
            return Err(Failure::failed("the demo's broker takes no more orders"));
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}
