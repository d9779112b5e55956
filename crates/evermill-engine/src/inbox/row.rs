//! The rows of an inbox, as `docs/spec/inbox.md` fixes them.

use bytes::{BufMut, Bytes};
use evermill_contract::source::{Arrival, BatchBuilder, NO_TIMESTAMP};

use super::Shelved;
use crate::payload;

/// First byte of each row.
const FORMAT: u8 = 1;

/// The row of the inbox itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) next: u64,
    pub(super) dag: &'a str,
    pub(super) source: &'a str,
    pub(super) memo: Option<&'a [u8]>,
}

impl<'a> Head<'a> {
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(
            14 + self.dag.len() + self.source.len() + self.memo.map_or(0, <[u8]>::len),
        );
        bytes.put_u8(FORMAT);
        bytes.put_u64(self.next);
        for name in [self.dag, self.source] {
            bytes.put_u16(name.len() as u16);
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes.put_u8(u8::from(self.memo.is_some()));
        bytes.extend_from_slice(self.memo.unwrap_or_default());
        Bytes::from(bytes)
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(&[FORMAT])?;
        let (next, mut rest) = bytes.split_first_chunk::<8>()?;
        let mut name = || {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (name, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
            rest = after;
            std::str::from_utf8(name).ok()
        };
        let (dag, source) = (name()?, name()?);
        let (&has_memo, memo) = rest.split_first()?;
        Some(Self {
            next: u64::from_be_bytes(*next),
            dag,
            source,
            memo: match has_memo {
                0 if memo.is_empty() => None,
                1 => Some(memo),
                _ => return None,
            },
        })
    }
}

/// Bytes an arrival takes, at least.
pub(super) fn size(arrival: &Arrival) -> usize {
    let headers = arrival.headers.iter();
    arrival.key.as_ref().map_or(0, Bytes::len)
        + arrival.value.as_ref().map_or(0, Bytes::len)
        + arrival.rejected.as_ref().map_or(0, String::len)
        + headers
            .map(|(name, value)| 8 + name.len() + value.len())
            .sum::<usize>()
}

/// The body of an event, in the one shape that all events have.
pub(crate) fn body(arrival: &Arrival, now_us: u64) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(1, size(arrival));
    let headers: Vec<_> = arrival
        .headers
        .iter()
        .map(|(name, value)| (&name[..], Some(&value[..])))
        .collect();
    builder.push(
        0,
        arrival.timestamp_ms.unwrap_or(NO_TIMESTAMP),
        arrival.key.as_deref(),
        headers,
        arrival.value.as_deref(),
    );
    payload::body_of_batch(&builder.finish(), arrival.rejected.as_deref(), now_us)
}

/// `u8 format | u64 arrival | (u32 length | body) ...`.
pub(super) fn events(shelved: &Shelved) -> Bytes {
    let size = 9 + shelved.bytes() + 4 * shelved.bodies.len();
    let mut bytes = Vec::with_capacity(size);
    bytes.put_u8(FORMAT);
    bytes.put_u64(shelved.arrived_us);
    for body in &shelved.bodies {
        bytes.put_u32(body.len() as u32);
        bytes.extend_from_slice(body);
    }
    Bytes::from(bytes)
}

/// First byte of a page's id, which tells it from the rows of events.
const PAGE: u8 = 1;

/// `u8 1 | u64 number`.
pub(super) fn page_id(number: u64) -> [u8; 9] {
    let mut id = [PAGE; 9];
    id[1..].copy_from_slice(&number.to_be_bytes());
    id
}

/// `u8 format | content`.
pub(super) fn page(content: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + content.len());
    bytes.put_u8(FORMAT);
    bytes.extend_from_slice(content);
    Bytes::from(bytes)
}

/// Number and content of a page.
pub(super) fn read_page(id: &[u8], body: &Bytes) -> Option<(u64, Bytes)> {
    let number = <[u8; 8]>::try_from(id.strip_prefix(&[PAGE])?).ok()?;
    body.strip_prefix(&[FORMAT])?;
    Some((u64::from_be_bytes(number), body.slice(1..)))
}

/// Bodies are slices of the row.
pub(super) fn read_events(first: u64, row: &Bytes) -> Option<Shelved> {
    let head = row.strip_prefix(&[FORMAT])?.first_chunk::<8>()?;
    let mut bodies = Vec::new();
    let mut at = 9;
    while at < row.len() {
        let length = row.get(at..at + 4)?.first_chunk::<4>()?;
        let end = at + 4 + u32::from_be_bytes(*length) as usize;
        if end > row.len() {
            return None;
        }
        bodies.push(row.slice(at + 4..end));
        at = end;
    }
    Some(Shelved {
        first,
        bodies,
        arrived_us: u64::from_be_bytes(*head),
    })
}
