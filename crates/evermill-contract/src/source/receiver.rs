//! What a source offers whose events cannot be read again: queues, polled pages, webhooks.
//!
//! A log is read again from our position; these are not. So the engine keeps what they deliver
//! in its own store, in an *inbox*, and reads that like a log. Only when it is durable there is the
//! outside world told: a message deleted, a request answered, an observation remembered.
//!
//! ```text
//! receive -> Delivery -> committed (events, ids, memo: one transaction) -> kept(ticket)
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{SourceError, Waker};

/// A source that is asked for deliveries, on an operating system thread of its own.
pub trait Receiver: Send {
    /// Called once, before anything else: what the last committed delivery with a memo remembered,
    /// in this run or an earlier one. `None` at the very first start.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when the memo is of another shape; says what to do.
    fn begin(&mut self, memo: Option<&[u8]>) -> Result<(), SourceError>;

    /// Called right before [`Receiver::begin`]: the pages that committed deliveries left, by number.
    fn recall(&mut self, _pages: &BTreeMap<u64, Bytes>) {}

    /// Waits for something to say, for `wait` at most; an empty `out` is an ordinary answer. Not
    /// called while there is no room, except with [`Receiver::keep_alive`].
    ///
    /// # Errors
    /// Only what no waiting mends; the source is then finished. An outside world that is away is
    /// [`Received::Degraded`].
    fn receive(&mut self, wait: Duration, out: &mut Vec<Received>) -> Result<(), SourceError>;

    /// A delivery is durable: the outside world may forget it. Said once per delivery, in order. A
    /// delivery of which this is never said (a crash came first) may be received again.
    fn kept(&mut self, ticket: u64);

    /// Whether it wants to hear of [`Receiver::settled`]. Asked once, before anything else.
    fn waits_for_outcome(&self) -> bool {
        false
    }

    /// Every activation of a delivery's events is settled, and that is durable: done, skipped, dropped, or
    /// parked here. Said after [`Receiver::kept`] and in any order, if [`Receiver::waits_for_outcome`]; for
    /// queues that are to keep a message until its work is done. Of a delivery whose events all came before,
    /// said once everything that had come by then is settled. A delivery of which it was never said (a crash,
    /// an end) may be received again; one that a new beginning has made void is to be ignored.
    fn settled(&mut self, _ticket: u64) {}

    /// The author's function has said something about an [`Inquiry`] of this number. Never said of one
    /// from before [`Receiver::begin`].
    fn told(&mut self, _number: u64, _replies: Vec<Reply>) {}

    /// Called every few seconds, also while there is no room: leases are extended here.
    fn keep_alive(&mut self) {}

    /// How long an answer of the outside world is overdue: since a request took longer than it may. `None`
    /// when none is, as it has to be of a source whose requests always end.
    fn overdue(&self) -> Option<Duration> {
        None
    }

    /// Something any thread may call to make a blocked `receive` return at once.
    fn waker(&self) -> Waker;

    /// Stops listening, within [`super::CLOSE_WAIT`].
    fn close(&mut self);
}

/// What a receiver has to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// Something to keep.
    Delivery(Delivery),
    /// Something that the author's own function has to judge; [`Receiver::told`] follows. At most one
    /// is out at a time.
    Ask(Inquiry),
    /// The outside world has answered, and all that it holds at this moment has been delivered.
    /// Who waits for the end of the input waits for this.
    CaughtUp,
    /// It is away or refuses us. The receiver goes on trying. Said once per reason; no secrets.
    Degraded {
        /// What is wrong and what would mend it.
        reason: String,
    },
    /// All is well again.
    Recovered,
}

/// What is committed together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delivery {
    /// Named again in [`Receiver::kept`]; the receiver's own count.
    pub ticket: u64,
    /// Events in order; none when only the memo changes.
    pub events: Vec<Arrival>,
    /// What to remember with them, in place of the last memo: an observation, a cursor. At most
    /// [`MEMO_BYTES_MAX`].
    pub memo: Option<Bytes>,
    /// Changes to what is remembered beside the memo, for a memory that grows with what was seen.
    pub pages: Vec<Page>,
}

/// A change to one page of a receiver's memory; committed with the delivery it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The receiver's own number of it.
    pub number: u64,
    /// What it holds from now on, at most [`PAGE_BYTES_MAX`]; `None`: it is forgotten.
    pub content: Option<Bytes>,
}

/// What a source cannot judge by itself: a function of the DAG file is to say, in a worker. Nothing of it
/// is durable: whoever asks does so again after a crash.
#[derive(Debug, Clone, PartialEq)]
pub struct Inquiry {
    /// Named again in [`Receiver::told`]; the receiver's own count.
    pub number: u64,
    /// Which of the source's functions: the name of the option it was given as, `response_check`.
    pub function: &'static str,
    /// What it is called with, once for each.
    pub about: Vec<Arrival>,
}

/// What a function said of one thing it was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It returned this, as JSON; `None` for Python's None.
    Returned(Option<Bytes>),
    /// It did not say: it raised, ran too long, or took its worker down. One sentence.
    Failed(String),
}

/// An event as it arrived. The engine gives it its position.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arrival {
    /// When it happened, milliseconds since 1970; `None` when nobody said.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<(Bytes, Bytes)>,
    /// Its value.
    pub value: Option<Bytes>,
    /// What makes it the same event when it comes again: within the window of the source it is then
    /// dropped (P2). At most [`ID_BYTES_MAX`].
    pub id: Option<Bytes>,
    /// Why no task is to read its value ([`super::Verdict::Rejected`]): it is kept to be parked. Set by
    /// the engine, which asks the gate.
    pub rejected: Option<String>,
}

/// A source whose events are brought to us: it turns a request into events and does nothing else.
pub trait PushSource: Send + Sync {
    /// Judges and reads one request. `now_ms` is the time of arrival, since 1970.
    ///
    /// # Errors
    /// [`Reject`]: nothing is kept.
    fn accept(&self, request: &PushRequest<'_>, now_ms: u64) -> Result<Vec<Arrival>, Reject>;

    /// Bytes of the largest body it wants to see.
    fn body_bytes_max(&self) -> usize;
}

/// A request as it came in.
#[derive(Debug, Clone, Copy)]
pub struct PushRequest<'a> {
    /// Method, upper case.
    pub method: &'a str,
    /// Query string without `?`; empty when there is none.
    pub query: &'a str,
    /// Headers in order; names in lower case.
    pub headers: &'a [(String, Bytes)],
    /// The body, whole.
    pub body: &'a Bytes,
}

impl PushRequest<'_> {
    /// The first header of this lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        let mut headers = self.headers.iter();
        headers.find_map(|(found, value)| (found == name).then_some(value))
    }
}

/// Why a request was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// HTTP status, 400 to 499.
    pub status: u16,
    /// What is wrong and what would mend it; holds no secrets.
    pub detail: String,
}

/// The longest memo of a source, in bytes.
pub const MEMO_BYTES_MAX: usize = 64 * 1024;

/// The longest page of a source's memory, in bytes.
pub const PAGE_BYTES_MAX: usize = 128 * 1024;

/// The longest id of an event, in bytes; a longer one is for the source to hash.
pub const ID_BYTES_MAX: usize = 512;
