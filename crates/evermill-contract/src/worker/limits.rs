//! Bounds of what engine and workers exchange. The Python side gets those it needs at the
//! handshake, so they are written down only here.

use std::time::Duration;

/// Dispatches a slot may hold: one that runs, one queued.
pub const DISPATCHES_PER_SLOT_MAX: usize = 2;
/// Members of a dispatch.
pub const MEMBERS_MAX: usize = 65_536;
/// A frame without its length field.
pub const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The part of a frame that is encoded text.
pub const CONTROL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// An encoded result; more must be kept elsewhere and passed by reference.
pub const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// An error's message.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// An error's traceback.
pub const ERROR_TRACEBACK_BYTES_MAX: usize = 32 * 1024;
/// How much of a member's output is kept from its beginning ...
pub const LOG_HEAD_BYTES_MAX: usize = 256 * 1024;
/// ... and from its end; what is between is counted and discarded.
pub const LOG_TAIL_BYTES_MAX: usize = 64 * 1024;
/// All output kept of a dispatch, Python level and descriptor level each.
pub const LOG_DISPATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest a finished outcome waits in the worker while it is between members.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(10);
/// Outcome bytes that make the worker flush at once.
pub const FLUSH_BYTES: usize = 64 * 1024;
/// How long members of a dispatch may be started.
pub const SLICE: Duration = Duration::from_millis(50);

const _: () = {
    assert!(RESULT_BYTES_MAX < FRAME_BYTES_MAX / 4);
    assert!(CONTROL_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(ERROR_MESSAGE_BYTES_MAX + ERROR_TRACEBACK_BYTES_MAX < CONTROL_BYTES_MAX);
    assert!(LOG_HEAD_BYTES_MAX + LOG_TAIL_BYTES_MAX <= LOG_DISPATCH_BYTES_MAX);
    assert!(FLUSH_BYTES < FRAME_BYTES_MAX);
    assert!(DISPATCHES_PER_SLOT_MAX >= 1);
};
