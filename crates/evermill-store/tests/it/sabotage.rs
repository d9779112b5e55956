//! The deliberate defect that `cargo xtask sabotage` has chosen, for the tests that have to notice it.

use evermill_store::Options;

/// The usual options, with the defect that `EVERMILL_SABOTAGE` names where one is built in.
#[cfg(feature = "sabotage")]
pub fn options() -> Options {
    let chosen = std::env::var("EVERMILL_SABOTAGE").unwrap_or_default();
    Options {
        sabotage: evermill_store::Sabotage {
            skip_fsync: chosen == "skip_fsync",
            drop_fence_check: chosen == "drop_fence_check",
        },
        ..Options::default()
    }
}

/// The usual options: no defect is built in.
#[cfg(not(feature = "sabotage"))]
pub fn options() -> Options {
    Options::default()
}
