//! What goes to a worker.
//!
//! A small frame is written at once by whoever has it, if the socket has room: a dispatch is then
//! under way without waking a thread of ours first. Everything else goes through the writer, a
//! thread of its own, so that a worker that does not read never holds up the engine; and while the
//! writer has anything, everything queues behind it.

use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use evermill_contract::worker::frame::FrameError;
use evermill_contract::worker::wire::{EncodedDispatch, encode_dispatch};
use evermill_contract::worker::{
    Dispatch, Outcome, OutcomeRun, Slot as SlotId, TaskError, TaskErrorKind, WorkerEvent,
};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use crate::page::monotonic_ns;
use crate::pool::Shared;
use crate::server::spawn;

/// Frames that may wait for the writer: two dispatches, their recalls, stop, retire, answers.
const OUTGOING_MAX: usize = 64;
/// The largest frame that is written where it was made: well below what a socket buffer holds.
const AT_ONCE_BYTES_MAX: usize = 16 * 1024;
/// Members whose places are worth working out on the engine's thread.
const AT_ONCE_MEMBERS_MAX: usize = 64;
/// Parts of one `writev`, as many as every system takes.
const PARTS_MAX: usize = 1024;

/// A frame on its way.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Frame(Vec<u8>),
    Dispatch { call: u32, dispatch: Box<Dispatch> },
}

/// The sending end of a worker's socket. Used under the slot's lock, which is what keeps frames in
/// order.
#[derive(Debug)]
pub(crate) struct Outbox {
    socket: UnixStream,
    writer: Sender<Outgoing>,
    /// Frames that were left to the writer and are not written yet.
    left: Arc<AtomicUsize>,
}

impl Outbox {
    /// Starts the writer of a worker.
    pub(crate) fn start(
        shared: Arc<Shared>,
        slot: SlotId,
        socket: &UnixStream,
    ) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let (ours, theirs) = (
            socket.try_clone().map_err(text)?,
            socket.try_clone().map_err(text)?,
        );
        let (writer, outgoing) = bounded(OUTGOING_MAX);
        let left = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&left);
        spawn(&format!("evermill-to-{}", slot.0), move || {
            write_all(&shared, slot, theirs, &outgoing, &counted);
        })?;
        Ok(Self {
            socket: ours,
            writer,
            left,
        })
    }

    /// Sends a frame; false when the worker has not read for so long that no more can wait.
    pub(crate) fn send(&self, outgoing: Outgoing) -> bool {
        let left = if self.left.load(Ordering::Acquire) == 0 {
            write_at_once(&self.socket, outgoing)
        } else {
            Some(outgoing)
        };
        let Some(left) = left else { return true };
        self.left.fetch_add(1, Ordering::AcqRel);
        // A writer that is gone follows a worker that is gone.
        !matches!(self.writer.try_send(left), Err(TrySendError::Full(_)))
    }
}

/// Writes what is small as far as it goes without waiting; what is left.
fn write_at_once(socket: &UnixStream, outgoing: Outgoing) -> Option<Outgoing> {
    let Outgoing::Dispatch { call, dispatch } = outgoing else {
        return match outgoing {
            Outgoing::Frame(frame) if frame.len() <= AT_ONCE_BYTES_MAX => {
                write_parts_at_once(socket, &[&frame])
            }
            other => Some(other),
        };
    };
    if dispatch.members.len() > AT_ONCE_MEMBERS_MAX {
        return Some(Outgoing::Dispatch { call, dispatch });
    }
    match encode_dispatch(call, &dispatch) {
        Ok(encoded) if encoded.bytes() <= AT_ONCE_BYTES_MAX => {
            write_parts_at_once(socket, &parts_of(&encoded))
        }
        // The writer says so to those who wait for it.
        _ => Some(Outgoing::Dispatch { call, dispatch }),
    }
}

fn write_parts_at_once(socket: &UnixStream, parts: &[&[u8]]) -> Option<Outgoing> {
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = sendmsg(
        socket.as_fd(),
        &slices,
        &mut SendAncillaryBuffer::default(),
        flags,
    );
    let written = match sent {
        Ok(written) => written,
        Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => 0,
        // The reader meets the same end and tells it.
        Err(_) => return None,
    };
    let mut whole = parts.concat();
    (written < whole.len()).then(|| Outgoing::Frame(whole.split_off(written)))
}

fn parts_of(encoded: &EncodedDispatch) -> Vec<&[u8]> {
    std::iter::once(&encoded.head[..])
        .chain(encoded.payload.iter().map(|part| &part[..]))
        .collect()
}

// The writer.

fn write_all(
    shared: &Shared,
    slot: SlotId,
    mut socket: UnixStream,
    outgoing: &Receiver<Outgoing>,
    left: &AtomicUsize,
) {
    for outgoing in outgoing {
        let written = match outgoing {
            Outgoing::Frame(frame) => socket.write_all(&frame),
            Outgoing::Dispatch { call, dispatch } => {
                write_dispatch(shared, slot, &mut socket, call, *dispatch)
            }
        };
        if written.is_err() {
            // The reader meets the same end and tells it.
            return;
        }
        left.fetch_sub(1, Ordering::AcqRel);
    }
}

fn write_dispatch(
    shared: &Shared,
    slot: SlotId,
    socket: &mut UnixStream,
    call: u32,
    dispatch: Dispatch,
) -> io::Result<()> {
    match encode_dispatch(call, &dispatch) {
        Ok(encoded) => write_parts(socket, &parts_of(&encoded)),
        Err(error) => {
            refuse(shared, slot, call, &dispatch, &error);
            Ok(())
        }
    }
}

/// A dispatch that does not fit a frame fails as a whole: sending it again would not help.
fn refuse(shared: &Shared, slot: SlotId, call: u32, dispatch: &Dispatch, error: &FrameError) {
    let mut state = shared.slot(slot);
    let Some(index) = state.in_flight.iter().position(|sent| sent.call == call) else {
        return;
    };
    let refused = state.in_flight.remove(index);
    drop(state);
    let now = monotonic_ns();
    let error = TaskError {
        kind: TaskErrorKind::Load,
        class: "evermill.FrameError".into(),
        message: format!("the members cannot be handed to a worker: {error}"),
        traceback: String::new(),
        retryable: false,
        retry_after_ms: None,
    };
    let run = OutcomeRun {
        first: 0,
        count: refused.map_or(0, |refused| refused.members),
        started_ns: now,
        ended_ns: now,
        outcome: Outcome::Failed(Box::new(error)),
    };
    shared.emit(WorkerEvent::Outcomes {
        slot,
        token: dispatch.token,
        runs: vec![run],
    });
    shared.emit(WorkerEvent::Finished {
        slot,
        token: dispatch.token,
        tail: 0,
    });
}

fn write_parts(socket: &mut UnixStream, parts: &[&[u8]]) -> io::Result<()> {
    for chunk in parts.chunks(PARTS_MAX) {
        let mut slices: Vec<IoSlice<'_>> = chunk.iter().map(|part| IoSlice::new(part)).collect();
        let mut slices = &mut slices[..];
        while slices.iter().any(|slice| !slice.is_empty()) {
            match socket.write_vectored(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
