//! One partition: taking messages off librdkafka's queue into a batch, and what is known of it.
//!
//! Each partition keeps a queue of its own. Closing a lane's credit then means leaving its queue
//! alone: librdkafka stops fetching once the queue is full, and what was fetched waits there.
//! (librdkafka's `pause` would throw it away and fetch it again.)

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evermill_contract::source::{BatchBuilder, EventBatch, LaneName, NO_TIMESTAMP, SourceBudget};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message};

use super::client::{SideTalk, Signal};

/// A partition and how far it was delivered.
pub(super) struct Lane {
    pub(super) name: LaneName,
    pub(super) partition: i32,
    pub(super) state: LaneState,
    /// Whether the engine wants events of it.
    pub(super) open: bool,
    /// It came up while we were listening.
    pub(super) appeared: bool,
    /// The next position to deliver.
    pub(super) next: u64,
    /// Everything up to `next` was delivered and nothing more was there.
    pub(super) at_end: bool,
    /// What the engine was last told to lie behind.
    pub(super) lag: u64,
    /// Why its last fetch failed, until one succeeds.
    pub(super) trouble: Option<String>,
    /// Acknowledged and not yet told to the broker.
    pub(super) ack: Option<u64>,
    /// The group has this position, or one above it, when the lane is shared.
    pub(super) group_has: u64,
    /// Events and bytes of the last batch.
    last_batch: (usize, usize),
    queue: Option<PartitionQueue<SideTalk>>,
    ready: Arc<AtomicBool>,
}

/// What a lane does.
///
/// | from | on | to |
/// |---|---|---|
/// | Standing | `start_lane` | Delivering; Announced when the partition is shared |
/// | Announced | the group has its position | Delivering |
/// | Delivering | position out of range | Doubted |
/// | Doubted | the brokers tell the range | Standing, after a gap or divergence |
/// | Delivering, Doubted | topic re-created, log truncated, record unreadable | Standing |
/// | any | the group gives the partition to another member | Standing |
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LaneState {
    /// Not assigned: found, or stopped until it is started again.
    Standing,
    /// Not assigned until the group knows where we begin: who comes after us begins there.
    Announced {
        /// Where we begin.
        from: u64,
    },
    /// Assigned; events flow as credit allows.
    Delivering,
    /// Its position is out of range; the brokers are asked for the range from `ask_at` on.
    Doubted {
        /// When to ask.
        ask_at: Instant,
    },
}

/// How taking messages ended.
pub(super) enum TakenUntil {
    /// A bound was reached; more may be waiting.
    Full,
    /// The queue is empty.
    Empty,
    /// The end of the partition, as of now.
    End,
    /// librdkafka reported an error about this partition.
    Failed(KafkaError),
}

impl Lane {
    pub(super) fn new(topic: &str, partition: i32, appeared: bool) -> Self {
        Self {
            name: LaneName::from(format!("{topic}/{partition}")),
            partition,
            state: LaneState::Standing,
            open: true,
            appeared,
            next: 0,
            at_end: false,
            lag: 0,
            trouble: None,
            ack: None,
            group_has: 0,
            last_batch: (0, 0),
            queue: None,
            ready: Arc::default(),
        }
    }

    /// Takes `queue` as its own; `signal` is raised when messages arrive on it.
    pub(super) fn listen(&mut self, mut queue: PartitionQueue<SideTalk>, signal: &Arc<Signal>) {
        let ready = Arc::clone(&self.ready);
        let signal = Arc::clone(signal);
        queue.set_nonempty_callback(move || {
            ready.store(true, Ordering::Release);
            signal.something_waits();
        });
        self.queue = Some(queue);
    }

    /// Whether it has a queue of its own.
    pub(super) fn listens(&self) -> bool {
        self.queue.is_some()
    }

    /// Lets go of the queue, and with it of the client.
    pub(super) fn deafen(&mut self) {
        self.queue = None;
    }

    /// Throws away what waits on the queue.
    pub(super) fn discard(&mut self, talk: &SideTalk) {
        if let Some(queue) = &self.queue {
            while !matches!(next(queue, talk), Next::Nothing) {}
        }
    }

    /// Begins at `position`.
    pub(super) fn begin(&mut self, position: u64) {
        self.state = LaneState::Delivering;
        self.next = position;
        self.at_end = false;
        self.lag = 0;
        self.trouble = None;
        self.ready.store(true, Ordering::Release);
    }

    /// Whether the client fetches it.
    pub(super) fn is_assigned(&self) -> bool {
        matches!(
            self.state,
            LaneState::Delivering | LaneState::Doubted { .. }
        )
    }

    /// Whether something may be waiting that the engine wants.
    pub(super) fn wants_a_turn(&self) -> bool {
        self.open && self.state == LaneState::Delivering && self.ready.load(Ordering::Acquire)
    }

    /// Whether something may be waiting on the queue, wanted or not.
    pub(super) fn may_hold_more(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Takes what waits, up to the bounds of one batch.
    pub(super) fn take(
        &mut self,
        talk: &SideTalk,
        budget: &SourceBudget,
    ) -> (Option<Batch>, TakenUntil) {
        let Some(queue) = &self.queue else {
            return (None, TakenUntil::Empty);
        };
        // Lowered before the queue is read: what arrives meanwhile raises it again.
        self.ready.store(false, Ordering::Release);
        let mut builder = BatchBuilder::with_capacity(0, 0);
        let mut unreadable_headers = 0;
        let until = loop {
            if builder.len() >= budget.batch_events || builder.bytes() >= budget.batch_bytes {
                break TakenUntil::Full;
            }
            match next(queue, talk) {
                // Copied at once, while it is in the processor's cache, and given back.
                Next::Message(message) => {
                    if builder.is_empty() {
                        builder = self.room_for(&message, budget);
                    }
                    unreadable_headers += copy(&message, &mut builder);
                }
                Next::Nothing => break TakenUntil::Empty,
                Next::Error(KafkaError::PartitionEOF(_)) => break TakenUntil::End,
                Next::Error(error) => break TakenUntil::Failed(error),
            }
        };
        if !matches!(until, TakenUntil::Empty) {
            self.ready.store(true, Ordering::Release);
        }
        if builder.is_empty() {
            return (None, until);
        }
        let events = builder.finish();
        self.last_batch = (events.events.len(), events.buffer.len());
        if let Some(last) = events.events.last() {
            self.next = last.position + 1;
            self.at_end = false;
            self.trouble = None;
        }
        (
            Some(Batch {
                events,
                unreadable_headers,
            }),
            until,
        )
    }

    /// An empty batch with about as much room as the last one took, so that a busy lane does not
    /// grow its buffers step by step and a single event does not hold a large one.
    fn room_for(&self, first: &BorrowedMessage<'_>, budget: &SourceBudget) -> BatchBuilder {
        let (events, bytes) = self.last_batch;
        let least = first.key_len() + first.payload_len();
        BatchBuilder::with_capacity(
            events.clamp(1, budget.batch_events),
            bytes.clamp(least, budget.batch_bytes.max(least)),
        )
    }
}

/// A batch, and how many headers of it could not be read.
pub(super) struct Batch {
    pub(super) events: EventBatch,
    pub(super) unreadable_headers: usize,
}

enum Next<'a> {
    Message(BorrowedMessage<'a>),
    Error(KafkaError),
    Nothing,
}

fn next<'a>(queue: &'a PartitionQueue<SideTalk>, talk: &SideTalk) -> Next<'a> {
    loop {
        let before = talk.calls();
        match queue.poll(Duration::ZERO) {
            Some(Ok(message)) => return Next::Message(message),
            Some(Err(error)) => return Next::Error(error),
            None if talk.calls() == before => return Next::Nothing,
            None => {}
        }
    }
}

/// Copies a message to the end of a batch; returns how many of its headers could not be read.
fn copy(message: &BorrowedMessage<'_>, builder: &mut BatchBuilder) -> usize {
    let mut unreadable = 0;
    builder.push(
        u64::try_from(message.offset()).unwrap_or_default(),
        message.timestamp().to_millis().unwrap_or(NO_TIMESTAMP),
        message.key(),
        readable_headers(message, &mut unreadable),
        message.payload(),
    );
    unreadable
}

fn readable_headers<'a>(
    message: &'a BorrowedMessage<'_>,
    unreadable: &mut usize,
) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
    let headers = message.headers();
    let count = headers.map_or(0, BorrowedHeaders::count);
    (0..count).filter_map(move |index| {
        // The wrapper panics at a header name that is not UTF-8, and any producer can send one.
        let read = || headers.and_then(|headers| headers.try_get(index));
        let header = catch_unwind(AssertUnwindSafe(read)).ok().flatten();
        if header.is_none() {
            *unreadable += 1;
        }
        header.map(|header| (header.key.as_bytes(), header.value))
    })
}
