//! Events of one lane in one buffer.
//!
//! Every event is one contiguous stretch, `key | headers | value`, and the stretches lie in lane
//! order without holes: any run of consecutive events is one slice of the buffer, and so is any
//! single value. A batch costs two allocations, whatever the number of its events.

use bytes::{BufMut, Bytes, BytesMut};

/// Events of one lane, in lane order.
#[derive(Debug, Clone, Default)]
pub struct EventBatch {
    /// The bytes of all events.
    pub buffer: Bytes,
    /// Where each event lies in `buffer`.
    pub events: Vec<EventMeta>,
}

/// A stretch of a buffer, in bytes: `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The stretch as a range of indices.
    #[must_use]
    pub const fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it holds no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One event of an [`EventBatch`]; spans point into its buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventMeta {
    /// Its position in the lane: rising, not necessarily by one.
    pub position: u64,
    /// When it happened, in milliseconds since 1970 (may be negative), or [`NO_TIMESTAMP`].
    pub timestamp_ms: i64,
    /// Its key; `None` when it has none, which differs from an empty one.
    pub key: Option<Span>,
    /// Its headers, to be read with [`Headers`]; empty when there are none.
    pub headers: Span,
    /// Its value; `None` when it has none (a tombstone), which differs from an empty one.
    pub value: Option<Span>,
}

/// The timestamp of an event that has none.
pub const NO_TIMESTAMP: i64 = i64::MIN;

impl EventBatch {
    /// The events one after the other, with their bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Event<'_>> {
        self.events.iter().map(|meta| Event {
            meta,
            buffer: &self.buffer,
        })
    }

    /// The stretch of the buffer that holds the events `range`, without a copy.
    ///
    /// # Panics
    /// If `range` is out of bounds, as a slice would.
    #[must_use]
    pub fn bytes_of(&self, range: std::ops::Range<usize>) -> Bytes {
        let events = &self.events[range];
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Bytes::new();
        };
        self.buffer
            .slice(first.extent().start as usize..last.extent().end as usize)
    }
}

impl EventMeta {
    /// All bytes of the event: key, headers and value.
    #[must_use]
    pub fn extent(&self) -> Span {
        Span {
            start: self.key.map_or(self.headers.start, |key| key.start),
            end: self.value.map_or(self.headers.end, |value| value.end),
        }
    }
}

/// One event and its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Position, time and spans.
    pub meta: &'a EventMeta,
    buffer: &'a [u8],
}

impl<'a> Event<'a> {
    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.meta.key.map(|span| &self.buffer[span.range()])
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.meta.value.map(|span| &self.buffer[span.range()])
    }

    /// The headers, in the order in which they were sent.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        Headers(&self.buffer[self.meta.headers.range()])
    }
}

/// Reads encoded headers. Each is `u32 name length | name | u32 value length | value`, lengths
/// little endian; a value length of `u32::MAX` means that the header has no value.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a>(&'a [u8]);

const NO_VALUE: u32 = u32::MAX;

impl<'a> Headers<'a> {
    /// Headers out of bytes that [`BatchBuilder`] wrote. Damaged bytes end the iteration.
    #[must_use]
    pub const fn new(encoded: &'a [u8]) -> Self {
        Self(encoded)
    }

    fn take(&mut self, len: u32) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len as usize)?;
        self.0 = rest;
        Some(taken)
    }

    fn take_len(&mut self) -> Option<u32> {
        let (len, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*len))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let name_len = self.take_len()?;
        let name = self.take(name_len)?;
        let value = match self.take_len()? {
            NO_VALUE => None,
            len => Some(self.take(len)?),
        };
        Some((name, value))
    }
}

/// Builds an [`EventBatch`], copying each event once.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    buffer: BytesMut,
    events: Vec<EventMeta>,
}

impl BatchBuilder {
    /// A builder with room for `events` events and `bytes` bytes.
    #[must_use]
    pub fn with_capacity(events: usize, bytes: usize) -> Self {
        Self {
            buffer: BytesMut::with_capacity(bytes),
            events: Vec::with_capacity(events),
        }
    }

    /// Adds an event.
    ///
    /// # Panics
    /// If the batch would pass 4 GiB: the source's byte bound lies far below.
    pub fn push<'h>(
        &mut self,
        position: u64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
        value: Option<&[u8]>,
    ) {
        let key = key.map(|bytes| self.append(bytes));
        let start = self.offset();
        for (name, value) in headers {
            self.append_header(name, value);
        }
        let headers = Span {
            start,
            end: self.offset(),
        };
        let value = value.map(|bytes| self.append(bytes));
        self.events.push(EventMeta {
            position,
            timestamp_ms,
            key,
            headers,
            value,
        });
    }

    /// Events so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is no event yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The batch.
    #[must_use]
    pub fn finish(self) -> EventBatch {
        EventBatch {
            buffer: self.buffer.freeze(),
            events: self.events,
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.offset();
        self.buffer.put_slice(bytes);
        Span {
            start,
            end: self.offset(),
        }
    }

    fn append_header(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.buffer.put_u32_le(length(name));
        self.buffer.put_slice(name);
        match value {
            None => self.buffer.put_u32_le(NO_VALUE),
            Some(value) => {
                self.buffer.put_u32_le(length(value));
                self.buffer.put_slice(value);
            }
        }
    }

    fn offset(&self) -> u32 {
        u32::try_from(self.buffer.len()).expect("a batch is smaller than 4 GiB")
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a header is smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Header<'a> = (&'a [u8], Option<&'a [u8]>);

    #[test]
    fn null_and_empty_stay_apart() {
        let mut builder = BatchBuilder::default();
        builder.push(7, 1, None, [], Some(b""));
        builder.push(9, NO_TIMESTAMP, Some(b""), [], None);
        let batch = builder.finish();
        let events: Vec<_> = batch.iter().collect();
        assert_eq!((events[0].key(), events[0].value()), (None, Some(&b""[..])));
        assert_eq!((events[1].key(), events[1].value()), (Some(&b""[..]), None));
        assert_eq!(events[1].meta.position, 9);
    }

    #[test]
    fn headers_come_back_in_order_with_repeats_and_nulls() {
        let sent: [Header<'_>; 3] = [(b"a", Some(b"1")), (b"a", None), (b"", Some(b""))];
        let mut builder = BatchBuilder::with_capacity(1, 64);
        builder.push(0, 0, Some(b"k"), sent, Some(b"v"));
        let batch = builder.finish();
        let event = batch.iter().next().unwrap();
        assert_eq!(event.headers().collect::<Vec<_>>(), sent);
        assert_eq!(
            (event.key(), event.value()),
            (Some(&b"k"[..]), Some(&b"v"[..]))
        );
    }

    #[test]
    fn consecutive_events_are_one_slice() {
        let mut builder = BatchBuilder::default();
        builder.push(0, 0, Some(b"k0"), [], Some(b"v0"));
        builder.push(1, 0, None, [], None);
        builder.push(2, 0, None, [], Some(b"v2"));
        builder.push(3, 0, Some(b"k3"), [], None);
        let batch = builder.finish();
        assert_eq!(&batch.bytes_of(0..4)[..], b"k0v0v2k3");
        assert_eq!(&batch.bytes_of(1..3)[..], b"v2");
        assert!(batch.bytes_of(1..2).is_empty());
        assert!(batch.bytes_of(4..4).is_empty());
    }

    #[test]
    fn damaged_headers_end_the_iteration() {
        let mut builder = BatchBuilder::default();
        let header: Header<'_> = (b"name", Some(b"value"));
        builder.push(0, 0, None, [header], None);
        let buffer = builder.finish().buffer;
        for cut in 0..buffer.len() {
            assert_eq!(Headers::new(&buffer[..cut]).count(), 0, "cut at {cut}");
        }
    }
}
