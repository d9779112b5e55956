//! The bounds of this crate.

/// Longest value that is kept, in bytes: a key or a certificate chain, not a data set.
pub const SECRET_BYTES_MAX: usize = 64 << 10;
/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// How many values a file holds.
pub(crate) const ENTRIES_MAX: usize = 10_000;
/// Longest file that is read.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 30;
/// A shorter value is not masked: it would hide half of every text, and is no secret.
pub const MASKED_BYTES_MIN: usize = 5;
/// A shorter line of a value of several lines is not masked by itself.
pub(crate) const MASKED_LINE_BYTES_MIN: usize = 12;
/// Of what a value becomes in base64, the part that does not depend on its neighbours has to be this long.
pub(crate) const MASKED_BASE64_BYTES_MIN: usize = 8;
/// How many values are masked at once, the latest ones.
pub(crate) const MASKED_VALUES_MAX: usize = 20_000;
