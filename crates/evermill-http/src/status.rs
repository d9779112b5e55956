//! What a status says about sending the same again.

/// Statuses that say that the request itself is wrong, so that repeating it is of no use.
const FOR_GOOD: [u16; 20] = [
    400, 401, 402, 403, 405, 406, 410, 411, 413, 414, 415, 416, 417, 422, 426, 428, 431, 451, 501,
    505,
];

/// Whether a status says that the same request would always be refused.
#[must_use]
pub fn is_for_good(status: u16) -> bool {
    FOR_GOOD.contains(&status)
}
