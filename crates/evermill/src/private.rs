//! Keeps what this process has in memory to itself: secrets, keys and what its environment says of them.

/// No dump of our memory is written, whatever limits we were started with, and what runs as the same user, as tasks
/// do, can neither look into it nor read our environment in `/proc`. Programs that we start are not meant: theirs
/// begins anew with them.
///
/// Only Linux can be told so; elsewhere nothing happens.
pub(crate) fn keep_memory_private() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // A system that refuses has other ways; nobody is worse off than before.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    }
}
