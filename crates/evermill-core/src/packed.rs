//! A sorted map of many small things that costs little more than they do.
//!
//! The keys of what waits mostly come in order, and a tree of the standard library then leaves every node
//! half empty. Here a chunk is filled to its end before the next one is begun:
//!
//! ```text
//! tree:  from the first key on      k0 ─┐        k64 ─┐
//! chunks: sorted, never empty       [k0 k1 .. k63]  [k64 k65 ..]
//! ```

use std::collections::BTreeMap;
use std::ops::{Bound, Index, Range};

/// Entries of one chunk.
const CHUNK: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Packed<K, V> {
    /// By a key that is not after any of the chunk's, and after all of those before it.
    chunks: BTreeMap<K, Vec<(K, V)>>,
    len: usize,
}

impl<K: Ord + Copy, V> Packed<K, V> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: BTreeMap::new(),
            len: 0,
        }
    }

    /// Takes the place of what was there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let Some((_, chunk)) = self.chunks.range_mut(..=key).next_back() else {
            self.insert_first(key, value);
            return None;
        };
        match chunk.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => return Some(std::mem::replace(&mut chunk[at].1, value)),
            Err(at) if chunk.len() < CHUNK => chunk.insert(at, (key, value)),
            Err(CHUNK) => drop(self.chunks.insert(key, vec![(key, value)])),
            Err(at) => {
                let mut upper = chunk.split_off(CHUNK / 2);
                match at.checked_sub(CHUNK / 2) {
                    Some(at) => upper.insert(at, (key, value)),
                    None => chunk.insert(at, (key, value)),
                }
                self.chunks.insert(upper[0].0, upper);
            }
        }
        self.len += 1;
        None
    }

    /// Before all others.
    fn insert_first(&mut self, key: K, value: V) {
        let mut chunk = match self.chunks.first_entry() {
            Some(first) if first.get().len() < CHUNK => first.remove(),
            _ => Vec::new(),
        };
        chunk.insert(0, (key, value));
        self.chunks.insert(key, chunk);
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (&at, chunk) = self.chunks.range_mut(..=*key).next_back()?;
        let place = chunk.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        let (_, value) = chunk.remove(place);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(&at);
        } else if chunk.len() <= CHUNK / 4 {
            self.thin_out(at);
        }
        Some(value)
    }

    /// A chunk with few entries takes those of the next one in, or gives room back.
    fn thin_out(&mut self, at: K) {
        let after = (Bound::Excluded(at), Bound::Unbounded);
        let few = self.chunks[&at].len();
        let next = self.chunks.range(after).next();
        let next = next.filter(|(_, next)| few + next.len() <= CHUNK / 2);
        let next = next.map(|(&next, _)| next);
        let mut taken = next.and_then(|next| self.chunks.remove(&next));
        let chunk = self.chunks.get_mut(&at).expect("it has entries");
        if let Some(taken) = &mut taken {
            chunk.append(taken);
        }
        if chunk.capacity() > 2 * chunk.len() {
            chunk.shrink_to(chunk.len() + CHUNK / 8);
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let (_, chunk) = self.chunks.range(..=*key).next_back()?;
        let place = chunk.binary_search_by(|(other, _)| other.cmp(key));
        place.ok().map(|place| &chunk[place].1)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (_, chunk) = self.chunks.range_mut(..=*key).next_back()?;
        let place = chunk.binary_search_by(|(other, _)| other.cmp(key));
        place.ok().map(|place| &mut chunk[place].1)
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The entry with the smallest key.
    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        let (key, value) = self.chunks.values().next()?.first()?;
        Some((key, value))
    }

    /// All of them, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks
            .values()
            .flatten()
            .map(|(key, value)| (key, value))
    }

    /// Those within these bounds, by key.
    pub(crate) fn range(&self, range: Range<K>) -> impl Iterator<Item = (&K, &V)> {
        let begins = self.chunks.range(..=range.start).next_back();
        let begins = begins.map_or(range.start, |(&begins, _)| begins);
        let chunks = self.chunks.range(begins..).map(|(_, chunk)| chunk);
        chunks
            .flatten()
            .map(|(key, value)| (key, value))
            .skip_while(move |(key, _)| **key < range.start)
            .take_while(move |(key, _)| **key < range.end)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord + Copy, V> Default for Packed<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Copy, V> Index<&K> for Packed<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("it is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator of the tests' own, so that each run is the same.
    fn next(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *seed >> 33
    }

    fn check(packed: &Packed<u64, u64>, plain: &BTreeMap<u64, u64>) {
        assert!(packed.iter().eq(plain.iter()));
        assert_eq!(packed.len, plain.len());
        assert_eq!(packed.first(), plain.first_key_value());
        let mut last = None;
        for (at, chunk) in &packed.chunks {
            assert!(!chunk.is_empty() && chunk.len() <= CHUNK);
            assert!(*at <= chunk[0].0 && last < Some(*at));
            last = chunk.last().map(|(key, _)| *key);
        }
    }

    #[test]
    fn it_says_what_a_plain_tree_says_whatever_is_done_to_it() {
        for seed in 1..20_u64 {
            let (mut packed, mut plain) = (Packed::new(), BTreeMap::new());
            let mut random = seed;
            // Few keys make collisions, many make chunks; some seeds grow and others shrink.
            let keys = 1 << (4 + seed % 9);
            for step in 0..3_000 {
                let key = next(&mut random) % keys;
                if next(&mut random) % 20 < 8 + seed % 5 {
                    assert_eq!(packed.insert(key, step), plain.insert(key, step));
                } else {
                    assert_eq!(packed.remove(&key), plain.remove(&key));
                }
                let other = next(&mut random) % keys;
                assert_eq!(packed.get(&other), plain.get(&other));
                assert_eq!(packed.get_mut(&other), plain.get_mut(&other));
                if step % 50 == 0 {
                    check(&packed, &plain);
                    let (low, high) = (key.min(other), key.max(other));
                    assert!(packed.range(low..high).eq(plain.range(low..high)));
                }
            }
        }
    }

    #[test]
    fn keys_in_order_fill_their_chunks() {
        let mut packed = Packed::new();
        for key in 0..10_000_u64 {
            packed.insert(key, ());
        }
        assert_eq!(packed.chunks.len(), 10_000_usize.div_ceil(CHUNK));
        assert!(
            packed
                .chunks
                .values()
                .all(|chunk| chunk.capacity() <= CHUNK)
        );
    }

    #[test]
    fn what_is_left_of_many_keeps_little_room() {
        let mut packed = Packed::new();
        for key in 0..10_000_u64 {
            packed.insert(key, ());
        }
        for key in (0..10_000).filter(|key| key % 100 != 0) {
            packed.remove(&key);
        }
        let room: usize = packed.chunks.values().map(Vec::capacity).sum();
        assert!(packed.len == 100 && room <= 1_000, "{room}");
    }
}
