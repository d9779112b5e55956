//! Bitsets as plain words: one bit per member.

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
pub(crate) fn ones(row: &[u64]) -> impl Iterator<Item = u32> + '_ {
    row.iter().enumerate().flat_map(|(index, &word)| {
        let base = index as u32 * 64;
        std::iter::successors((word != 0).then_some(word), |w| {
            let rest = w & (w - 1);
            (rest != 0).then_some(rest)
        })
        .map(move |w| base + w.trailing_zeros())
    })
}

/// A row with the first `bits` bits set.
pub(crate) fn full(bits: usize) -> Vec<u64> {
    let mut row = vec![!0; words(bits)];
    if !bits.is_multiple_of(64)
        && let Some(last) = row.last_mut()
    {
        *last = (1 << (bits % 64)) - 1;
    }
    row
}

/// A row of this many words with one bit set.
pub(crate) fn single(words: usize, at: u32) -> Vec<u64> {
    let mut row = vec![0; words];
    set(&mut row, at);
    row
}
