//! Ids of what came, for as long as the same may come again (P2, S3): packed rows by time, membership
//! in memory, both bounded.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::BufMut;
use evermill_contract::source::Arrival;
use evermill_core::row::{Key, Row, Table, Write};
use sha2::{Digest, Sha256};

use super::{Bringer, Refusal};
use crate::limits;

/// Third part of the id of a row whose ids are followed by what they stand for.
const WITH_CONTENT: u64 = 1;

/// The ids of one inbox, oldest bucket first.
#[derive(Default)]
pub(super) struct Window {
    buckets: VecDeque<Bucket>,
    entries: usize,
}

struct Bucket {
    /// First millisecond of its time.
    from_ms: u64,
    /// Number of its next row.
    next: u64,
    ids: HashSet<u128>,
    /// What those stand for whose bringer asked.
    contents: HashMap<u128, u64>,
}

impl Window {
    /// Those arrivals that did not come before; their ids count from now on. An id stands for one content:
    /// whoever asks and brings it with another is refused whole.
    pub(super) fn admit<'a>(
        &mut self,
        inbox: u32,
        arrivals: &'a [Arrival],
        by: Bringer,
        now_ms: u64,
        writes: &mut Vec<Write>,
    ) -> Result<Vec<&'a Arrival>, Refusal> {
        if arrivals.iter().all(|arrival| arrival.id.is_none()) {
            return Ok(arrivals.iter().collect());
        }
        self.forget(inbox, now_ms, writes);
        let asks = by == Bringer::Asks;
        let mut fresh = Vec::with_capacity(arrivals.len());
        let mut ids: Vec<(u128, u64)> = Vec::new();
        for (at, arrival) in arrivals.iter().enumerate() {
            let Some(id) = arrival.id.as_deref().map(number) else {
                fresh.push(arrival);
                continue;
            };
            let content = if asks { content(arrival) } else { 0 };
            let mut same = ids.iter().filter(|(known, _)| *known == id);
            match same.next().map(|(_, content)| *content) {
                Some(first) if first == content => {}
                None if !self.contains(id) => {
                    ids.push((id, content));
                    fresh.push(arrival);
                }
                None if !asks || self.content(id).is_none_or(|first| first == content) => {}
                _ => {
                    let of = arrivals.len();
                    return Err(Refusal::Other { at, of });
                }
            }
        }
        if ids.is_empty() {
            return Ok(fresh);
        }
        ids.sort_unstable();
        self.entries += ids.len();
        let bucket = self.bucket(now_ms);
        let row = [bucket.from_ms, bucket.next, WITH_CONTENT];
        bucket.next += 1;
        bucket.ids.extend(ids.iter().map(|(id, _)| id));
        let (row, body): (&[u64], Vec<u8>) = if asks {
            bucket.contents.extend(ids.iter().copied());
            let entry = |(id, content): &(u128, u64)| {
                let (id, content) = (id.to_be_bytes(), content.to_be_bytes());
                id.into_iter().chain(content)
            };
            (&row, ids.iter().flat_map(entry).collect())
        } else {
            let bytes = ids.iter().flat_map(|(id, _)| id.to_be_bytes());
            (&row[..2], bytes.collect())
        };
        writes.push(Write::Put(Row {
            table: Table::Dedup,
            key: Key::numbered(0, inbox, row),
            body: body.into(),
        }));
        Ok(fresh)
    }

    fn contains(&self, id: u128) -> bool {
        self.buckets.iter().any(|bucket| bucket.ids.contains(&id))
    }

    /// What an id stands for, if that is known.
    fn content(&self, id: u128) -> Option<u64> {
        let mut buckets = self.buckets.iter();
        buckets.find_map(|bucket| bucket.contents.get(&id).copied())
    }

    /// Drops buckets that are out of the window, and the oldest ones when there are too many ids.
    fn forget(&mut self, inbox: u32, now_ms: u64, writes: &mut Vec<Write>) {
        let over = |bucket: &Bucket, entries: usize| {
            let end = bucket.from_ms + limits::DEDUP_BUCKET_MS;
            end + limits::DEDUP_WINDOW_MS <= now_ms || entries > limits::DEDUP_ENTRIES
        };
        while let Some(oldest) = self.buckets.front()
            && over(oldest, self.entries)
        {
            writes.push(Write::DeletePrefix(
                Table::Dedup,
                Key::numbered(0, inbox, &[oldest.from_ms]),
            ));
            self.entries -= oldest.ids.len();
            self.buckets.pop_front();
        }
    }

    /// The bucket of this time. A clock that went back uses the newest one.
    fn bucket(&mut self, now_ms: u64) -> &mut Bucket {
        let from_ms = now_ms - now_ms % limits::DEDUP_BUCKET_MS;
        let newest = self.buckets.back().map(|bucket| bucket.from_ms);
        if newest.is_none_or(|newest| newest < from_ms) {
            self.buckets.push_back(Bucket {
                from_ms,
                next: 0,
                ids: HashSet::new(),
                contents: HashMap::new(),
            });
        }
        self.buckets
            .back_mut()
            .expect("one was pushed if there was none")
    }

    /// Takes a stored row back in; rows come in order. `None` when it is none.
    pub(super) fn take(&mut self, id: &[u8], body: &[u8]) -> Option<()> {
        let (numbers, []) = id.as_chunks::<8>() else {
            return None;
        };
        let numbers: Vec<u64> = numbers.iter().map(|n| u64::from_be_bytes(*n)).collect();
        let (from_ms, row, size) = match numbers[..] {
            [from_ms, row] => (from_ms, row, 16),
            [from_ms, row, WITH_CONTENT] => (from_ms, row, 24),
            _ => return None,
        };
        if !body.len().is_multiple_of(size) {
            return None;
        }
        if self
            .buckets
            .back()
            .is_none_or(|newest| newest.from_ms != from_ms)
        {
            self.buckets.push_back(Bucket {
                from_ms,
                next: 0,
                ids: HashSet::new(),
                contents: HashMap::new(),
            });
        }
        let bucket = self.buckets.back_mut()?;
        bucket.next = row + 1;
        for entry in body.chunks_exact(size) {
            let (id, content) = entry.split_first_chunk::<16>()?;
            let id = u128::from_be_bytes(*id);
            bucket.ids.insert(id);
            if let Ok(content) = content.try_into() {
                bucket.contents.insert(id, u64::from_be_bytes(content));
            }
        }
        self.entries += body.len() / size;
        Some(())
    }
}

/// What an arrival says, as a number: the first 64 bits of the SHA-256 of its key and value. Headers do not
/// count: they have the time and the way of each sending in them.
fn content(arrival: &Arrival) -> u64 {
    let mut digest = Sha256::new();
    let parts = [&arrival.key, &arrival.value];
    for part in parts {
        let length = part.as_ref().map_or(u64::MAX, |part| part.len() as u64);
        digest.update(length.to_be_bytes());
        digest.update(part.as_deref().unwrap_or_default());
    }
    let digest = digest.finalize();
    let first = digest.first_chunk::<8>().expect("it has 32 bytes");
    u64::from_be_bytes(*first)
}

/// An id of any length as a number: the first 128 bits of its SHA-256.
fn number(id: &[u8]) -> u128 {
    let mut number = [0; 16];
    (&mut number[..]).put_slice(&Sha256::digest(id)[..16]);
    u128::from_be_bytes(number)
}
