//! What librdkafka tells beside messages: its log, its errors, its statistics, and the signal that
//! something is waiting. All of it is called on the polling thread, except the signal.
//!
//! The identity of a topic comes out of the log: no call of the wrapped library returns it, but the
//! `metadata` debug context writes one line whenever a topic is seen with another id than before
//! ("Topic T changed id from A to B", A being all zeros at first). The wording is librdkafka's; the
//! tests against a mock cluster and a real broker fail when an update changes it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use evermill_contract::source::{DiagnosticSink, Severity};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::statistics::TopicStatistics;

/// A consumer with its side talk; shared with the queues of its lanes.
pub(super) type Client = Arc<BaseConsumer<SideTalk>>;

/// Errors remembered between two polls; more of them say nothing new.
const ERRORS_KEPT: usize = 16;

/// Listens to a client's side talk.
pub(super) struct SideTalk {
    topic: String,
    diagnostics: DiagnosticSink,
    calls: AtomicU64,
    heard: Mutex<Heard>,
}

/// What was heard since it was last asked for.
#[derive(Default)]
pub(super) struct Heard {
    /// The topic's id, when one was told.
    pub(super) topic_id: Option<String>,
    /// The newest statistics.
    pub(super) statistics: Option<TopicStatistics>,
    /// How the last connection broke, in librdkafka's log: not every break is an error to it.
    pub(super) broken: Option<String>,
    /// Errors, oldest first.
    pub(super) errors: VecDeque<(RDKafkaErrorCode, String)>,
}

impl SideTalk {
    pub(super) fn new(topic: &str, diagnostics: DiagnosticSink) -> Self {
        Self {
            topic: topic.to_owned(),
            diagnostics,
            calls: AtomicU64::new(0),
            heard: Mutex::default(),
        }
    }

    /// How often librdkafka has called so far. The wrapper's poll returns nothing both when its
    /// queue is empty and after such a call; this tells the two apart.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Takes what was heard.
    pub(super) fn take(&self) -> Heard {
        std::mem::take(&mut *self.heard())
    }

    /// Takes the newest error and its explanation: the one that a failed poll stands for.
    pub(super) fn take_last_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.heard().errors.pop_back()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for SideTalk {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.called();
        if let Some(id) = topic_id_in(message, &self.topic) {
            self.heard().topic_id = Some(id);
        }
        if facility == "FAIL" {
            // Behind the name of the thread, `[thrd:...]: `.
            let said = message.split_once("]: ").map_or(message, |(_, said)| said);
            self.heard().broken = Some(said.to_owned());
        }
        let severity = match level {
            RDKafkaLogLevel::Debug => return,
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => Severity::Debug,
            RDKafkaLogLevel::Warning => Severity::Warning,
            _ => Severity::Error,
        };
        (self.diagnostics)(severity, &format!("librdkafka {facility}: {message}"));
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.called();
        let read = TopicStatistics::read(statistics, &self.topic);
        self.heard().statistics = read;
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.called();
        let code = error
            .rdkafka_error_code()
            .unwrap_or(RDKafkaErrorCode::Unknown);
        if code == RDKafkaErrorCode::PartitionEOF {
            return;
        }
        (self.diagnostics)(
            Severity::Debug,
            &format!("librdkafka error {code:?}: {reason}"),
        );
        let mut heard = self.heard();
        if heard.errors.len() == ERRORS_KEPT {
            heard.errors.pop_front();
        }
        heard.errors.push_back((code, reason.to_owned()));
    }
}

impl ConsumerContext for SideTalk {}

/// The id in a line about `topic`, in the form that Kafka's own tools print.
fn topic_id_in(line: &str, topic: &str) -> Option<String> {
    let (_, rest) = line.split_once("Topic ")?;
    let rest = rest
        .strip_prefix(topic)?
        .strip_prefix(" changed id from ")?;
    let (_, id) = rest.split_once(" to ")?;
    let id = id.trim();
    let real = !id.is_empty() && id.bytes().any(|byte| byte != b'A');
    real.then(|| id.replace('+', "-").replace('/', "_"))
}

/// Tells the polling thread that something waits for it. Any thread may raise it.
#[derive(Default)]
pub(super) struct Signal {
    state: Mutex<Raised>,
    changed: Condvar,
}

#[derive(Default, Clone, Copy)]
struct Raised {
    waiting: bool,
    woken: bool,
}

impl Signal {
    /// A queue has become non-empty.
    pub(super) fn something_waits(&self) {
        self.raise(|raised| raised.waiting = true);
    }

    /// Someone wants the polling thread back.
    pub(super) fn wake(&self) {
        self.raise(|raised| raised.woken = true);
    }

    fn raise(&self, set: impl FnOnce(&mut Raised)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        set(&mut state);
        self.changed.notify_one();
    }

    /// Waits for either until `deadline`, and lowers the signal. True: something waits.
    /// False: woken, or out of time.
    pub(super) fn wait(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.woken || state.waiting {
                let raised = std::mem::take(&mut *state);
                return !raised.woken;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A callback for librdkafka that raises `signal`.
pub(super) fn raise(signal: &Arc<Signal>) -> impl Fn() + Send + Sync + 'static {
    let signal = Arc::clone(signal);
    move || signal.something_waits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_is_found_in_its_line_only() {
        let line = "[thrd:main]: Topic a b changed id from AAAAAAAAAAAAAAAAAAAAAA to +x/YkQ9";
        assert_eq!(topic_id_in(line, "a b").as_deref(), Some("-x_YkQ9"));
        assert_eq!(topic_id_in(line, "a"), None);
        assert_eq!(
            topic_id_in("Topic t changed id from x to AAAAAAAAAAAAAAAAAAAAAA", "t"),
            None
        );
        assert_eq!(topic_id_in("Topic t partition 0 leader 1", "t"), None);
    }

    #[test]
    fn a_signal_raised_before_the_wait_is_not_missed() {
        let signal = Signal::default();
        signal.something_waits();
        assert!(signal.wait(Instant::now()));
        assert!(!signal.wait(Instant::now()));
        signal.wake();
        signal.something_waits();
        assert!(
            !signal.wait(Instant::now()),
            "a wake ends the poll, what waits is seen by the next"
        );
    }
}
