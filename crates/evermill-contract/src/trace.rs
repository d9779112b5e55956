//! Traces: what an activation's spans are called, and what is told of one that has settled.
//!
//! Ids are derived, never carried (`docs/spec/identity.md` has the encoding): the engine, which tells of spans, and a
//! worker, which hands one on as the parent of what it starts, come to the same id by themselves. A task that runs
//! again after a crash has the span that it had.
//!
//! The context of others comes as a header of an event, `traceparent` (W3C Trace Context, level 1), and what their
//! systems know of the trace in another, `tracestate`, which is handed on unread.

use std::fmt::{self, Write as _};

use sha2::{Digest, Sha256};

use crate::identity::push_field;
use crate::source::Headers;

/// The header's name.
pub const HEADER: &str = "traceparent";

/// The header of what the systems before us know of a trace.
pub const STATE_HEADER: &str = "tracestate";
/// Bytes of it that are handed on; the standard asks for no more.
const STATE_BYTES_MAX: usize = 512;

const TRACE_DOMAIN: &[u8] = b"evermill.trace.1";
const SPAN_DOMAIN: &[u8] = b"evermill.span.1";
const SAMPLED: u8 = 1;

/// A span as others are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Which trace.
    pub trace: [u8; 16],
    /// Which span of it.
    pub span: [u8; 8],
    /// Whether it is recorded.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads a header's value; none for what is not one, such as ids of zeros.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.trim();
        let mut parts = text.split('-');
        let (version, trace) = (hex::<1>(parts.next()?)?[0], hex::<16>(parts.next()?)?);
        let (span, flags) = (hex::<8>(parts.next()?)?, hex::<1>(parts.next()?)?[0]);
        // A later version may have more parts behind ours.
        let fits = version < 0xff && (version > 0 || parts.next().is_none());
        (fits && trace != [0; 16] && span != [0; 8]).then_some(Self {
            trace,
            span,
            sampled: flags & SAMPLED != 0,
        })
    }

    /// That of an event, out of its packed headers.
    #[must_use]
    pub fn of_headers(packed: &[u8]) -> Option<Self> {
        let mut headers = Headers::new(packed);
        let found = headers.find(|(name, _)| name.eq_ignore_ascii_case(HEADER.as_bytes()));
        Self::parse(found?.1?)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(
            f,
            "00-{}-{}-{flags:02x}",
            text(&self.trace),
            text(&self.span)
        )
    }
}

/// What an event's headers say of the state of its trace, to be handed on beside our span. None without a span, as the
/// standard has it, nor of what is longer than it asks for or no printable ASCII.
#[must_use]
pub fn state_of_headers(packed: &[u8]) -> Option<String> {
    TraceParent::of_headers(packed)?;
    let named = |name: &[u8]| name.eq_ignore_ascii_case(STATE_HEADER.as_bytes());
    let mut state = String::new();
    // Several of them are one, in their order.
    for value in Headers::new(packed).filter_map(|(name, value)| value.filter(|_| named(name))) {
        let value = std::str::from_utf8(value).ok()?.trim();
        if !state.is_empty() && !value.is_empty() {
            state.push(',');
        }
        state.push_str(value);
    }
    let is_plain = state.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    (is_plain && !state.is_empty() && state.len() <= STATE_BYTES_MAX).then_some(state)
}

/// Which activation, by the event that it is about: the first one, where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Run id.
    pub run: &'a str,
    /// Source id.
    pub source: &'a str,
    /// The lane's name.
    pub lane: &'a str,
    /// Position of its event.
    pub position: u64,
}

impl Place<'_> {
    /// The trace of one whose event brings none.
    #[must_use]
    pub fn trace(&self) -> [u8; 16] {
        self.hash(TRACE_DOMAIN, &[])
    }

    /// The span of the whole activation, or of one of its tasks.
    #[must_use]
    pub fn span(&self, task: Option<&str>) -> [u8; 8] {
        self.hash(SPAN_DOMAIN, task.unwrap_or_default().as_bytes())
    }

    /// What a task hands on: its own span, in the trace of its event.
    #[must_use]
    pub fn of_task(&self, task: &str, event: Option<TraceParent>) -> TraceParent {
        TraceParent {
            trace: event.map_or_else(|| self.trace(), |event| event.trace),
            span: self.span(Some(task)),
            sampled: event.is_none_or(|event| event.sampled),
        }
    }

    fn hash<const N: usize>(&self, domain: &[u8], last: &[u8]) -> [u8; N] {
        let mut bytes = Vec::with_capacity(128);
        let position = self.position.to_be_bytes();
        for field in [
            domain,
            self.run.as_bytes(),
            self.source.as_bytes(),
            self.lane.as_bytes(),
            &position,
            last,
        ] {
            push_field(&mut bytes, field);
        }
        let digest = Sha256::digest(&bytes);
        let mut id = [0; N];
        id.copy_from_slice(&digest[..N]);
        id
    }
}

/// Ids in the hexadecimal digits that others write them in.
#[must_use]
pub fn text(id: &[u8]) -> String {
    let mut text = String::with_capacity(id.len() * 2);
    for byte in id {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(is_hex) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// An activation that has settled, and whose end is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// DAG id.
    pub dag: String,
    /// Run id.
    pub run: String,
    /// The version that it went through.
    pub version: String,
    /// Its source.
    pub source: String,
    /// Its lane.
    pub lane: String,
    /// Position of its event.
    pub position: u64,
    /// Which of several activations of that event it is, 0 for the only one.
    pub child: u32,
    /// How often it was run again after it had been parked.
    pub round: u32,
    /// `done`, `skipped`, `parked` or `dropped`.
    pub ended: &'static str,
    /// What its event says of where it comes from.
    pub parent: Option<TraceParent>,
    /// When the event arrived, microseconds since the Unix epoch.
    pub arrived_us: u64,
    /// When its last task had ended, likewise.
    pub settled_us: u64,
    /// When that was durable, likewise.
    pub committed_us: u64,
    /// Its tasks of which it is known when they ran.
    pub tasks: Vec<TracedTask>,
}

/// A task of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedTask {
    /// Its id.
    pub task: String,
    /// `success`, `failed`, `skipped` or `upstream_failed`.
    pub state: &'static str,
    /// Attempts that ended.
    pub tries: u32,
    /// When it was first sent to a worker, microseconds since the Unix epoch.
    pub begun_us: u64,
    /// When it ended, likewise.
    pub ended_us: u64,
    /// Its last error.
    pub error: Option<String>,
}

impl Traced {
    /// Its place.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        Place {
            run: &self.run,
            source: &self.source,
            lane: &self.lane,
            position: self.position,
        }
    }
}

/// How many activations nobody was told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Untold {
    /// There were more than are told in a second.
    pub left_out: u64,
    /// The collector was slow, away, or refused them.
    pub lost: u64,
}

/// Takes activations that have settled. It is called on the engine's own thread and must not wait.
pub trait TraceTaker: Send + Sync {
    /// These have. `left_out`: so many more, of which nothing is told.
    fn take(&self, traced: Vec<Traced>, left_out: u64);

    /// Of how many nothing was told, since it began.
    fn untold(&self) -> Untold;

    /// Nothing more comes: what is still here is told, for a while at most.
    fn finish(&self);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{BatchBuilder, NO_TIMESTAMP};

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_and_written_as_the_standard_has_it() {
        let read = TraceParent::parse(GIVEN.as_bytes()).unwrap();
        assert_eq!(read.to_string(), GIVEN);
        assert!(read.sampled);
        let later = format!("cc{}-what-else", &GIVEN[2..]);
        assert_eq!(TraceParent::parse(later.as_bytes()), Some(read));
        let unsampled = GIVEN.replace("-01", "-00");
        assert!(!TraceParent::parse(unsampled.as_bytes()).unwrap().sampled);
    }

    #[test]
    fn what_is_no_header_is_none() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_events_header_is_found_whatever_its_letters() {
        let mut builder = BatchBuilder::with_capacity(1, 256);
        let headers: [(&[u8], Option<&[u8]>); 2] =
            [(b"a", None), (b"TraceParent", Some(GIVEN.as_bytes()))];
        builder.push(7, NO_TIMESTAMP, None, headers, Some(b"x".as_slice()));
        let batch = builder.finish();
        let event = batch.iter().next().unwrap();
        let packed = &batch.buffer[event.meta.headers.range()];
        assert_eq!(TraceParent::of_headers(packed).unwrap().to_string(), GIVEN);
        assert_eq!(TraceParent::of_headers(&[]), None);
    }

    #[test]
    fn the_state_of_a_trace_is_handed_on_as_it_came_and_only_beside_a_span() {
        fn state(headers: &[(&str, &[u8])]) -> Option<String> {
            let mut builder = BatchBuilder::with_capacity(1, 4_096);
            let headers = headers
                .iter()
                .map(|(name, value)| (name.as_bytes(), Some(*value)));
            builder.push(7, NO_TIMESTAMP, None, headers, Some(b"x".as_slice()));
            let batch = builder.finish();
            let event = batch.iter().next().unwrap();
            state_of_headers(&batch.buffer[event.meta.headers.range()])
        }
        let span = ("traceparent", GIVEN.as_bytes());
        let two = [
            span,
            ("TraceState", &b"a=1 "[..]),
            ("tracestate", b"b=2,c=3"),
        ];
        assert_eq!(state(&two).as_deref(), Some("a=1,b=2,c=3"));
        assert_eq!(state(&two[1..]), None);
        let long = [b'x'; STATE_BYTES_MAX + 1];
        for unfit in [&b""[..], b"a=\xff", b"a=\n1", &long] {
            assert_eq!(state(&[span, ("tracestate", unfit)]), None);
        }
        let most = &long[1..];
        assert_eq!(
            state(&[span, ("tracestate", most)]).unwrap().len(),
            STATE_BYTES_MAX
        );
    }

    #[test]
    fn ids_are_the_same_in_rust_and_in_python() {
        // python/tests/test_traces.py has the same.
        let place = Place {
            run: "orders-1",
            source: "kafka",
            lane: "orders/3",
            position: 1207,
        };
        let alone = place.of_task("load", None).to_string();
        assert_eq!(alone, EXPECTED_ALONE);
        let below = place.of_task("load", TraceParent::parse(GIVEN.as_bytes()));
        assert_eq!(
            below.trace,
            TraceParent::parse(GIVEN.as_bytes()).unwrap().trace
        );
        assert_eq!(below.span, place.of_task("load", None).span);
        assert_ne!(below.span, place.span(None));
    }

    const EXPECTED_ALONE: &str = "00-34877763249177607824676d21d918fe-1c43e591aaf92d33-01";
}
