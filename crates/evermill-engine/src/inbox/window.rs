//! Ids of what came, for as long as the same may come again (P2, S3): packed rows by time, membership
//! in memory, both bounded.

use std::collections::{HashSet, VecDeque};

use bytes::{BufMut, Bytes};
use evermill_contract::source::Arrival;
use evermill_core::row::{Key, Row, Table, Write};
use sha2::{Digest, Sha256};

use crate::limits;

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
}

impl Window {
    /// Those arrivals that did not come before; their ids count from now on.
    pub(super) fn admit<'a>(
        &mut self,
        inbox: u32,
        arrivals: &'a [Arrival],
        now_ms: u64,
        writes: &mut Vec<Write>,
    ) -> Vec<&'a Arrival> {
        if arrivals.iter().all(|arrival| arrival.id.is_none()) {
            return arrivals.iter().collect();
        }
        self.forget(inbox, now_ms, writes);
        let mut fresh = Vec::with_capacity(arrivals.len());
        let mut ids: Vec<u128> = Vec::new();
        for arrival in arrivals {
            let id = arrival.id.as_deref().map(number);
            if id.is_some_and(|id| ids.contains(&id) || self.contains(id)) {
                continue;
            }
            ids.extend(id);
            fresh.push(arrival);
        }
        if ids.is_empty() {
            return fresh;
        }
        ids.sort_unstable();
        self.entries += ids.len();
        let bucket = self.bucket(now_ms);
        let key = Key::numbered(0, inbox, &[bucket.from_ms, bucket.next]);
        bucket.next += 1;
        bucket.ids.extend(&ids);
        let body: Bytes = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
        writes.push(Write::Put(Row {
            table: Table::Dedup,
            key,
            body,
        }));
        fresh
    }

    fn contains(&self, id: u128) -> bool {
        self.buckets.iter().any(|bucket| bucket.ids.contains(&id))
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
            });
        }
        self.buckets
            .back_mut()
            .expect("one was pushed if there was none")
    }

    /// Takes a stored row back in; rows come in order. `None` when it is none.
    pub(super) fn take(&mut self, id: &[u8], body: &[u8]) -> Option<()> {
        let (numbers, rest) = id.as_chunks::<8>();
        let ([from_ms, row], []) = (numbers, rest) else {
            return None;
        };
        let (from_ms, row) = (u64::from_be_bytes(*from_ms), u64::from_be_bytes(*row));
        let (ids, rest) = body.as_chunks::<16>();
        if !rest.is_empty() {
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
            });
        }
        let bucket = self.buckets.back_mut()?;
        bucket.next = row + 1;
        bucket
            .ids
            .extend(ids.iter().map(|id| u128::from_be_bytes(*id)));
        self.entries += ids.len();
        Some(())
    }
}

/// An id of any length as a number: the first 128 bits of its SHA-256.
fn number(id: &[u8]) -> u128 {
    let mut number = [0; 16];
    (&mut number[..]).put_slice(&Sha256::digest(id)[..16]);
    u128::from_be_bytes(number)
}
