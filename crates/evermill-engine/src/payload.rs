//! Event bodies: what the core carries without looking inside, and how they get to a worker
//! without a copy or an allocation per event.
//!
//! A body is a header of 32 bytes, then key, packed headers, value and rejection, without holes:
//!
//! ```text
//! 0  u64 arrival, microseconds since 1970     16 u32 key length, or NONE
//! 8  i64 event time, milliseconds since 1970  20 u32 headers length
//!    (i64::MIN: unknown)                      24 u32 value length, or NONE
//!                                             28 u32 rejection length, or EDITED
//! ```
//!
//! The rejection says why no task is to read the value, which is then as it came from outside. `EDITED`
//! (and no rejection) says that somebody put another value in, which the gate has not seen.
//!
//! All numbers are little endian. The bodies of a batch lie one after the other in one buffer, so
//! that a dispatch hands whole buffers to the worker and names members by ranges. The format is
//! durable: materialised activations keep their bodies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::{BufMut, Bytes};
use evermill_contract::source::EventBatch;
use evermill_contract::worker::Range;
use evermill_core::command::Event;

use crate::gate::Judged;
use crate::limits;

const HEAD: usize = 32;
const NONE: u32 = u32::MAX;
const EDITED: u32 = u32::MAX;

/// Bytes of events in memory, counted per buffer and given back when its last slice is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held(AtomicUsize);

impl Held {
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The memory of one batch.
struct Buffer {
    bytes: Vec<u8>,
    held: Arc<Held>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.held
            .0
            .fetch_sub(self.bytes.capacity(), Ordering::Relaxed);
    }
}

struct Shared(Arc<Buffer>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// A batch on its way from a source's thread to the shard.
pub(crate) struct Packed {
    /// For the core.
    pub(crate) events: Vec<Event>,
    pub(crate) arrived_us: u64,
    /// Finds the buffer again as long as any of its slices lives.
    pub(crate) origin: Origin,
}

/// Where a buffer lies, without keeping it alive.
pub(crate) struct Origin {
    start: usize,
    len: usize,
    buffer: Weak<Buffer>,
}

/// How the core's key of an event is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Nothing is ordered or joined by key.
    Unused,
    /// Exact up to 15 bytes, else a hash.
    Hashed,
}

/// Lays the events of a batch out as bodies in one new buffer, as they came or as they were judged.
pub(crate) fn pack(
    batch: &EventBatch,
    judged: Option<&Judged>,
    arrived_us: u64,
    keys: Keys,
    held: &Arc<Held>,
) -> Packed {
    let more = judged.map_or(0, Judged::bytes);
    let size = batch.buffer.len() + HEAD * batch.events.len() + more;
    let mut bytes = Vec::with_capacity(size);
    let mut ends = Vec::with_capacity(batch.events.len());
    let judged_events = judged.map_or(batch.events.len(), Judged::events);
    for (index, event) in batch.iter().take(judged_events).enumerate() {
        let (value, rejection) = match judged {
            None => (event.value(), None),
            Some(judged) => judged.value(index, event.value()),
        };
        let headers = &batch.buffer[event.meta.headers.range()];
        put(
            &mut bytes,
            (arrived_us, event.meta.timestamp_ms),
            [event.key(), Some(headers), value, rejection],
        );
        ends.push(bytes.len());
    }
    held.0.fetch_add(bytes.capacity(), Ordering::Relaxed);
    let buffer = Arc::new(Buffer {
        bytes,
        held: Arc::clone(held),
    });
    let whole = Bytes::from_owner(Shared(Arc::clone(&buffer)));
    let mut start = 0;
    let events = batch.iter().zip(ends).map(|(event, end)| {
        let body = whole.slice(start..end);
        start = end;
        Event {
            position: event.meta.position,
            key: match keys {
                Keys::Unused => 0,
                Keys::Hashed => event.key().map_or(0, key_number),
            },
            arrived_ms: arrived_us / 1_000,
            body,
        }
    });
    Packed {
        events: events.collect(),
        arrived_us,
        origin: Origin {
            start: whole.as_ptr() as usize,
            len: whole.len(),
            buffer: Arc::downgrade(&buffer),
        },
    }
}

/// Appends a body: arrival and time, then key, headers, value and rejection.
fn put(bytes: &mut Vec<u8>, times: (u64, i64), parts: [Option<&[u8]>; 4]) {
    let [key, headers, value, rejection] = parts;
    bytes.put_u64_le(times.0);
    bytes.put_i64_le(times.1);
    bytes.put_u32_le(key.map_or(NONE, |key| key.len() as u32));
    bytes.put_u32_le(headers.map_or(0, |headers| headers.len() as u32));
    bytes.put_u32_le(value.map_or(NONE, |value| value.len() as u32));
    bytes.put_u32_le(rejection.map_or(0, |rejection| rejection.len() as u32));
    for part in parts.into_iter().flatten() {
        bytes.extend_from_slice(part);
    }
}

/// The body of a batch of one event, with what its gate has against its value.
pub(crate) fn body_of_batch(batch: &EventBatch, rejection: Option<&str>, arrived_us: u64) -> Bytes {
    let judged = rejection.map(Judged::rejected);
    let packed = pack(
        batch,
        judged.as_ref(),
        arrived_us,
        Keys::Unused,
        &Arc::default(),
    );
    let only = packed.events.into_iter().next();
    only.map_or_else(Bytes::new, |event| event.body)
}

/// The body of an event that no source read: a loop's or a body that is none.
pub(crate) fn body_of_value(value: Option<&[u8]>, arrived_us: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(HEAD + value.map_or(0, <[u8]>::len));
    let time = (arrived_us / 1_000) as i64;
    put(&mut bytes, (arrived_us, time), [None, None, value, None]);
    Bytes::from(bytes)
}

/// The same event with a value that somebody edited; a body that is none becomes one.
pub(crate) fn with_value(body: &[u8], value: &[u8]) -> Bytes {
    let parts = Parts::read(body);
    let Some((head, rest)) = body.split_first_chunk::<HEAD>() else {
        return body_of_value(Some(value), parts.arrived_us);
    };
    let length = |part: Option<(u32, u32)>| part.map_or(0, |(_, len)| len as usize);
    let kept = &rest[..length(parts.key) + length(parts.headers)];
    let mut bytes = Vec::with_capacity(HEAD + kept.len() + value.len());
    bytes.extend_from_slice(&head[..24]);
    bytes.put_u32_le(value.len() as u32);
    bytes.put_u32_le(EDITED);
    bytes.extend_from_slice(kept);
    bytes.extend_from_slice(value);
    Bytes::from(bytes)
}

/// An event's key as a number: the key itself up to 15 bytes, else 120 bits of its SHA-256 with
/// `0xff` before them. Never 0, which stands for "no key".
pub(crate) fn key_number(key: &[u8]) -> u128 {
    use sha2::{Digest, Sha256};
    let mut number = [0; 16];
    if key.len() < 16 {
        number[0] = key.len() as u8 + 1;
        number[1..=key.len()].copy_from_slice(key);
    } else {
        number[0] = 0xff;
        number[1..].copy_from_slice(&Sha256::digest(key)[..15]);
    }
    u128::from_be_bytes(number)
}

/// The same of the event that a body is; 0 when it has no key.
pub(crate) fn key_of(body: &[u8]) -> u128 {
    let key = Parts::read(body).key;
    key.map_or(0, |(start, len)| {
        key_number(&body[start as usize..(start + len) as usize])
    })
}

/// A body, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) arrived_us: u64,
    pub(crate) timestamp_ms: i64,
    /// Where the parts lie, counted from the start of the body: start and length.
    pub(crate) key: Option<(u32, u32)>,
    pub(crate) headers: Option<(u32, u32)>,
    pub(crate) value: Option<(u32, u32)>,
    pub(crate) standing: Standing,
}

/// The key of an event, unless it is too long to be repeated with each line of a log. Nothing is copied.
pub(crate) fn short_key(event: &Event) -> Option<Bytes> {
    let (start, length) = Parts::read(&event.body).key?;
    let place = start as usize..(start as usize).checked_add(length as usize)?;
    let is_short = length as usize <= limits::LOG_KEY_BYTES && place.end <= event.body.len();
    is_short.then(|| event.body.slice(place))
}

/// What a gate has said of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing against it, or nobody was asked.
    Fit,
    /// No task is to read it; where the reason lies.
    Rejected((u32, u32)),
    /// Somebody edited it since.
    Edited,
}

impl Parts {
    /// Reads a body's header. A body that is none (too short) has no parts: the machine made it,
    /// such as a loop's iteration.
    pub(crate) fn read(body: &[u8]) -> Self {
        let Some((head, rest)) = body.split_first_chunk::<HEAD>() else {
            return Self {
                arrived_us: 0,
                timestamp_ms: i64::MIN,
                key: None,
                headers: None,
                value: None,
                standing: Standing::Fit,
            };
        };
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | (u64::from(word(at + 4)) << 32);
        let mut at = HEAD as u32;
        let end = at + rest.len() as u32;
        let mut take = |len: u32| {
            let len = if len == NONE { 0 } else { len.min(end - at) };
            at += len;
            (at - len, len)
        };
        let (key, headers, value) = (take(word(16)), take(word(20)), take(word(24)));
        let standing = match word(28) {
            0 => Standing::Fit,
            EDITED => Standing::Edited,
            length => Standing::Rejected(take(length)),
        };
        Self {
            arrived_us: long(0),
            timestamp_ms: long(8) as i64,
            key: (word(16) != NONE).then_some(key),
            headers: (headers.1 > 0).then_some(headers),
            value: (word(24) != NONE).then_some(value),
            standing,
        }
    }
}

/// Why no task is to read the event that a body is.
pub(crate) fn rejection_of(body: &[u8]) -> Option<String> {
    let Standing::Rejected((start, len)) = Parts::read(body).standing else {
        return None;
    };
    let text = body.get(start as usize..(start + len) as usize)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Buffers that are alive, by address.
#[derive(Default)]
pub(crate) struct Buffers(BTreeMap<usize, Weak<Buffer>>);

impl Buffers {
    /// Remembers where a batch lies.
    pub(crate) fn add(&mut self, origin: Origin) {
        if self.0.len() >= 2 * (limits::HELD_BYTES_HIGH / limits::BATCH_BYTES) {
            self.0.retain(|_, buffer| buffer.strong_count() > 0);
        }
        // Whatever was remembered inside this stretch of memory is gone: the stretch is new.
        let stale: Vec<usize> = self
            .0
            .range(origin.start..origin.start + origin.len)
            .map(|(&at, _)| at)
            .collect();
        stale.iter().for_each(|at| drop(self.0.remove(at)));
        self.0.insert(origin.start, origin.buffer);
    }

    /// The live buffer this slice is a part of, with its address.
    fn of(&self, slice: &[u8]) -> Option<(usize, Arc<Buffer>)> {
        let at = slice.as_ptr() as usize;
        let (&start, buffer) = self.0.range(..=at).next_back()?;
        let buffer = buffer.upgrade()?;
        (at + slice.len() <= start + buffer.bytes.len()).then_some((start, buffer))
    }
}

/// Collects the buffers of one dispatch.
pub(crate) struct Gather<'a> {
    known: &'a Buffers,
    buffers: Vec<Bytes>,
    /// Address and length of the buffer looked at last, which is nearly always the right one.
    last: Option<(usize, usize, u32)>,
    seen: BTreeMap<usize, u32>,
}

impl<'a> Gather<'a> {
    pub(crate) fn new(known: &'a Buffers) -> Self {
        Self {
            known,
            buffers: Vec::new(),
            last: None,
            seen: BTreeMap::new(),
        }
    }

    /// Names a slice by buffer and place.
    pub(crate) fn range(&mut self, slice: &Bytes) -> Range {
        let (at, len) = (slice.as_ptr() as usize, slice.len());
        let inside =
            |(start, size, _): &(usize, usize, u32)| *start <= at && at + len <= start + size;
        let (start, _, buffer) = match self.last.filter(inside) {
            Some(last) => last,
            None => self.find(slice),
        };
        Range {
            buffer,
            start: (at - start) as u32,
            len: len as u32,
        }
    }

    fn find(&mut self, slice: &Bytes) -> (usize, usize, u32) {
        let Some((start, buffer)) = self.known.of(slice) else {
            self.buffers.push(slice.clone());
            return (
                slice.as_ptr() as usize,
                slice.len(),
                self.buffers.len() as u32 - 1,
            );
        };
        let size = buffer.bytes.len();
        let index = *self.seen.entry(start).or_insert_with(|| {
            self.buffers.push(Bytes::from_owner(Shared(buffer)));
            self.buffers.len() as u32 - 1
        });
        self.last = Some((start, size, index));
        (start, size, index)
    }

    pub(crate) fn finish(self) -> Vec<Bytes> {
        self.buffers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermill_contract::source::{BatchBuilder, NO_TIMESTAMP};

    fn batch(count: u64) -> EventBatch {
        let mut builder = BatchBuilder::default();
        for position in 0..count {
            let value = format!("value {position}");
            let header: (&[u8], Option<&[u8]>) = (b"h", Some(b"x"));
            let headers = (position % 2 == 0).then_some(header);
            let key = (position % 3 > 0).then_some(&b"key"[..]);
            builder.push(position, NO_TIMESTAMP, key, headers, Some(value.as_bytes()));
        }
        builder.finish()
    }

    fn part(body: &[u8], (start, len): (u32, u32)) -> &[u8] {
        &body[start as usize..][..len as usize]
    }

    #[test]
    fn a_body_gives_back_what_the_source_said() {
        let held = Arc::new(Held::default());
        let source = batch(6);
        let packed = pack(&source, None, 5_000_000, Keys::Hashed, &held);
        for (sent, event) in source.iter().zip(&packed.events) {
            let parts = Parts::read(&event.body);
            assert_eq!(parts.arrived_us, 5_000_000);
            assert_eq!(parts.timestamp_ms, NO_TIMESTAMP);
            assert_eq!(parts.key.map(|at| part(&event.body, at)), sent.key());
            assert_eq!(parts.value.map(|at| part(&event.body, at)), sent.value());
            assert_eq!(parts.headers.is_some(), sent.headers().count() > 0);
            assert_eq!(event.key == 0, sent.key().is_none());
        }
    }

    #[test]
    fn another_value_leaves_everything_else_as_it_was() {
        let held = Arc::new(Held::default());
        for event in pack(&batch(6), None, 5_000_000, Keys::Hashed, &held).events {
            let changed = with_value(&event.body, b"something longer than before");
            let (old, new) = (Parts::read(&event.body), Parts::read(&changed));
            let value = new.value.map(|at| part(&changed, at));
            assert_eq!(value, Some(&b"something longer than before"[..]));
            assert_eq!((old.key, old.headers), (new.key, new.headers));
            assert_eq!(old.arrived_us, new.arrived_us);
            assert_eq!(
                (old.standing, new.standing),
                (Standing::Fit, Standing::Edited)
            );
            let back = with_value(&changed, part(&event.body, old.value.unwrap()));
            let back = Parts::read(&back).value.map(|at| part(&back, at).to_vec());
            assert_eq!(back.as_deref(), old.value.map(|at| part(&event.body, at)));
        }
    }

    #[test]
    fn members_of_one_batch_share_one_buffer() {
        let held = Arc::new(Held::default());
        let (one, two) = (
            pack(&batch(5), None, 0, Keys::Unused, &held),
            pack(&batch(5), None, 0, Keys::Unused, &held),
        );
        let mut buffers = Buffers::default();
        buffers.add(one.origin);
        buffers.add(two.origin);
        let loaded = body_of_value(Some(b"from a row"), 1);
        let mut gather = Gather::new(&buffers);
        let bodies: Vec<Bytes> = one
            .events
            .iter()
            .chain(&two.events)
            .map(|e| e.body.clone())
            .chain([loaded])
            .collect();
        let ranges: Vec<Range> = bodies.iter().map(|body| gather.range(body)).collect();
        let found = gather.finish();
        assert_eq!(found.len(), 3);
        for (range, body) in ranges.iter().zip(&bodies) {
            let whole = &found[range.buffer as usize];
            assert_eq!(
                whole.slice(range.start as usize..(range.start + range.len) as usize),
                body
            );
        }
    }

    #[test]
    fn memory_is_given_back_with_the_last_slice() {
        let held = Arc::new(Held::default());
        let mut packed = pack(&batch(5), None, 0, Keys::Unused, &held);
        assert!(held.bytes() > 0);
        let last = packed.events.pop();
        drop(packed);
        assert!(held.bytes() > 0);
        drop(last);
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn keys_are_exact_when_short_and_never_zero() {
        assert_ne!(key_number(b""), 0);
        assert_ne!(key_number(b"\0"), key_number(b"\0\0"));
        assert_ne!(key_number(&[7; 15]), key_number(&[7; 16]));
        assert_eq!(key_number(&[7; 40]), key_number(&[7; 40]));
    }

    #[test]
    fn a_foreign_body_has_no_parts() {
        assert_eq!(Parts::read(b"short").value, None);
        let mut body = body_of_value(Some(b"x"), 1).to_vec();
        body[24..28].copy_from_slice(&9_999_u32.to_le_bytes());
        assert_eq!(Parts::read(&body).value, Some((32, 1)));
    }
}
