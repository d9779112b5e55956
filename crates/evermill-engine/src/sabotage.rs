//! Deliberate defects that the campaigns must catch, behind the feature `sabotage`, one at a time,
//! chosen by `EVERMILL_SABOTAGE`. Without the feature every question is answered "no" at compile
//! time. `skip_fsync` and `drop_fence_check` live in the store; [`crate::store_options`] sets them.

/// Every defect, by the name the variable takes.
#[cfg(feature = "sabotage")]
const ALL: [&str; 5] = [
    "skip_fsync",
    "ack_before_commit",
    "position_before_result",
    "drop_fence_check",
    "accept_second_result",
];

/// Broker and lanes hear of positions before they are durable.
pub(crate) fn ack_before_commit() -> bool {
    chosen("ack_before_commit")
}

/// Positions are committed in a transaction of their own, before the results they stand for.
pub(crate) fn position_before_result() -> bool {
    chosen("position_before_result")
}

/// Reports of attempts under an old fence are taken for current ones.
pub(crate) fn accept_second_result() -> bool {
    chosen("accept_second_result")
}

#[cfg(feature = "sabotage")]
fn chosen(name: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN.get_or_init(read).as_deref() == Some(name)
}

#[cfg(feature = "sabotage")]
fn read() -> Option<String> {
    let chosen = std::env::var("EVERMILL_SABOTAGE").ok()?;
    assert!(
        ALL.contains(&&*chosen),
        "EVERMILL_SABOTAGE={chosen}: want one of {ALL:?}"
    );
    Some(chosen)
}

/// The store's own defects, where one is chosen.
#[cfg(feature = "sabotage")]
pub(crate) fn of_store() -> evermill_store::Sabotage {
    evermill_store::Sabotage {
        skip_fsync: chosen("skip_fsync"),
        drop_fence_check: chosen("drop_fence_check"),
    }
}

#[cfg(not(feature = "sabotage"))]
const fn chosen(_name: &str) -> bool {
    false
}
