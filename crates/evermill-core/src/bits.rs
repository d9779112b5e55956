//! Bitsets as plain words: one bit per member.

use smallvec::{SmallVec, smallvec};

/// A row of its own. Most are short-lived and about few members: those cost no allocation.
pub(crate) type Mask = SmallVec<[u64; 2]>;

/// Words needed for this many bits.
pub(crate) const fn words(bits: usize) -> usize {
    bits.div_ceil(64)
}

/// Whether the bit is set.
pub(crate) fn get(row: &[u64], at: u32) -> bool {
    row[at as usize / 64] >> (at % 64) & 1 == 1
}

/// Sets the bit.
pub(crate) fn set(row: &mut [u64], at: u32) {
    row[at as usize / 64] |= 1 << (at % 64);
}

/// Clears the bit.
pub(crate) fn clear(row: &mut [u64], at: u32) {
    row[at as usize / 64] &= !(1 << (at % 64));
}

/// How many bits are set.
pub(crate) fn count(row: &[u64]) -> u32 {
    row.iter().map(|w| w.count_ones()).sum()
}

/// Whether no bit is set.
pub(crate) fn is_empty(row: &[u64]) -> bool {
    row.iter().all(|&w| w == 0)
}

/// The set bits, ascending.
pub(crate) fn ones(row: &[u64]) -> impl Iterator<Item = u32> + Clone + '_ {
    row.iter().enumerate().flat_map(|(index, &word)| {
        let base = index as u32 * 64;
        std::iter::successors((word != 0).then_some(word), |w| {
            let rest = w & (w - 1);
            (rest != 0).then_some(rest)
        })
        .map(move |w| base + w.trailing_zeros())
    })
}

/// The highest set bit.
pub(crate) fn last(row: &[u64]) -> Option<u32> {
    let word = row.iter().rposition(|&word| word != 0)?;
    Some(word as u32 * 64 + 63 - row[word].leading_zeros())
}

/// Whether every bit of `from..to` is set.
pub(crate) fn all(row: &[u64], from: u32, to: u32) -> bool {
    spans(from, to).all(|(word, mask)| row[word] & mask == mask)
}

/// Sets every bit that is set in `more`.
pub(crate) fn add(row: &mut [u64], more: &[u64]) {
    for (all, more) in row.iter_mut().zip(more) {
        *all |= more;
    }
}

/// The bits of `row` that are set in `other`.
pub(crate) fn both(row: &[u64], other: &[u64]) -> Mask {
    let mut both = Mask::from_slice(row);
    for (bits, other) in both.iter_mut().zip(other) {
        *bits &= other;
    }
    both
}

/// The bits of `row` that are not set in `other`.
pub(crate) fn without(row: &[u64], other: &[u64]) -> Mask {
    let mut rest = Mask::from_slice(row);
    for (bits, other) in rest.iter_mut().zip(other) {
        *bits &= !other;
    }
    rest
}

/// Clears every bit of `from..to`.
pub(crate) fn clear_all(row: &mut [u64], from: u32, to: u32) {
    for (word, mask) in spans(from, to) {
        row[word] &= !mask;
    }
}

/// The words `from..to` touches, each with its bits of the range.
fn spans(from: u32, to: u32) -> impl Iterator<Item = (usize, u64)> {
    (from / 64..to.div_ceil(64)).map(move |word| {
        let low = from.saturating_sub(word * 64);
        let high = (to - word * 64).min(64);
        (word as usize, (!0u64 << low) & (!0u64 >> (64 - high)))
    })
}

/// A row of this many words with no bit set.
pub(crate) fn none(words: usize) -> Mask {
    smallvec![0; words]
}

/// A row with the first `bits` bits set.
pub(crate) fn full(bits: usize) -> Mask {
    let mut row: Mask = smallvec![!0; words(bits)];
    if !bits.is_multiple_of(64)
        && let Some(last) = row.last_mut()
    {
        *last = (1 << (bits % 64)) - 1;
    }
    row
}

/// A row of this many words with one bit set.
pub(crate) fn single(words: usize, at: u32) -> Mask {
    let mut row = none(words);
    set(&mut row, at);
    row
}
