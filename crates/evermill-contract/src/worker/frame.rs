//! The frame: what both sides of a worker's socket write and read.
//!
//! ```text
//! u32 length | u32 call | u32 check | u8 kind | u8 0 | u16 0 | u32 control length | control | raw
//! ```
//! All numbers are little endian. `length` counts the bytes behind itself. `check` is the CRC-32
//! (IEEE) of `call`, `kind` with its zeroes, `control length` and `control`. The raw part is not
//! covered: a socket does not flip bits, what must be noticed is a stream out of step, and there
//! every head fails. Reading fails closed: after the first error the connection is of no use.
//! `docs/spec/frames.md` says what each kind means.

use std::io::{self, Read};

use bytes::{Buf, Bytes};

use super::limits::{CONTROL_BYTES_MAX, FRAME_BYTES_MAX};

/// Version of the format. A change that an older side would misread gets a new number.
pub const PROTOCOL: u32 = 1;
/// Bytes of a frame before its control part.
pub const HEAD_BYTES: usize = 20;

/// What a frame is for. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Worker or fork server: who I am and what I speak.
    Hello = 1,
    /// Engine: what we speak, and the bounds.
    Welcome = 2,
    /// Engine: run this.
    Dispatch = 3,
    /// Worker: members that ended.
    Outcomes = 4,
    /// Worker: the dispatch is over.
    Finished = 5,
    /// Engine: return the unstarted tail.
    Recall = 6,
    /// Worker: a task's question.
    Ask = 7,
    /// Engine: its answer.
    Answer = 8,
    /// Worker: output of members.
    Log = 9,
    /// Worker: a member's progress.
    Progress = 10,
    /// Engine: finish what you have, then exit.
    Retire = 11,
    /// Engine: tasks should stop; return unstarted tails.
    Stop = 12,
    /// Engine to fork server: a worker, please. Carries its descriptors.
    Fork = 13,
    /// Fork server: here it is.
    Forked = 14,
    /// Fork server: a worker ended.
    Ended = 15,
    /// Engine to fork server: import this before the next fork.
    Preload = 16,
    /// Fork server: done, or why not.
    Preloaded = 17,
    /// Worker: members that were not started, while others run on.
    Returned = 18,
}

impl Kind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Dispatch,
            4 => Self::Outcomes,
            5 => Self::Finished,
            6 => Self::Recall,
            7 => Self::Ask,
            8 => Self::Answer,
            9 => Self::Log,
            10 => Self::Progress,
            11 => Self::Retire,
            12 => Self::Stop,
            13 => Self::Fork,
            14 => Self::Forked,
            15 => Self::Ended,
            16 => Self::Preload,
            17 => Self::Preloaded,
            18 => Self::Returned,
            _ => return None,
        })
    }
}

/// A frame that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The conversation: even when the engine opened it, odd when the worker did, 0 for none.
    pub call: u32,
    /// What it is for.
    pub kind: Kind,
    /// Encoded in the agreed codec.
    pub control: Bytes,
    /// Tables and payload, as the kind defines.
    pub raw: Bytes,
}

/// Why a stream of frames cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// A length is beyond its bound or contradicts another.
    #[error("a frame of {length} bytes with {control} bytes of control is not possible")]
    Length {
        /// Bytes behind the length field.
        length: u32,
        /// Bytes of control.
        control: u32,
    },
    /// The check does not fit: something else was written into the stream.
    #[error("a frame's check does not match: something else was written to the worker's socket")]
    Check,
    /// No such kind, or reserved bytes in use.
    #[error("frame kind {0} is not known")]
    Kind(u32),
    /// The control or raw part does not say what its kind must say.
    #[error("a {kind:?} frame is malformed: {reason}")]
    Content {
        /// Of which kind.
        kind: Kind,
        /// What is wrong.
        reason: String,
    },
    /// Reading failed.
    #[error("reading a frame: {0}")]
    Io(#[from] io::Error),
}

/// The head and control of a frame whose raw part has `raw_bytes` bytes and follows.
///
/// # Errors
/// [`FrameError::Length`] if the frame would pass its bounds.
pub fn begin(
    call: u32,
    kind: Kind,
    control: &[u8],
    raw_bytes: usize,
) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + control.len());
    let total = HEAD_BYTES - 4 + control.len() + raw_bytes;
    if control.len() > CONTROL_BYTES_MAX || total > FRAME_BYTES_MAX {
        return Err(FrameError::Length {
            length: u32::try_from(total).unwrap_or(u32::MAX),
            control: u32::try_from(control.len()).unwrap_or(u32::MAX),
        });
    }
    bytes.extend_from_slice(&narrow(total).to_le_bytes());
    bytes.extend_from_slice(&call.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&u32::from(kind as u8).to_le_bytes());
    bytes.extend_from_slice(&narrow(control.len()).to_le_bytes());
    bytes.extend_from_slice(control);
    let check = checksum(&bytes);
    bytes[8..12].copy_from_slice(&check.to_le_bytes());
    Ok(bytes)
}

/// A whole frame whose raw part is small.
///
/// # Errors
/// [`FrameError::Length`] if the frame would pass its bounds.
pub fn encode(call: u32, kind: Kind, control: &[u8], raw: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut bytes = begin(call, kind, control, raw.len())?;
    bytes.extend_from_slice(raw);
    Ok(bytes)
}

/// Reads the next frame; None at an orderly end of the stream.
///
/// # Errors
/// Any error means that the stream cannot be read on.
pub fn read(from: &mut impl Read) -> Result<Option<Frame>, FrameError> {
    let mut head = [0; HEAD_BYTES];
    let mut filled = 0;
    while filled < HEAD_BYTES {
        match from.read(&mut head[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(FrameError::Truncated),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let [length, call, check, kind, control_len] =
        std::array::from_fn(|index| (&head[index * 4..]).get_u32_le());
    let rest = (length as usize).wrapping_sub(HEAD_BYTES - 4);
    if length as usize > FRAME_BYTES_MAX
        || rest > FRAME_BYTES_MAX
        || control_len as usize > CONTROL_BYTES_MAX.min(rest)
    {
        return Err(FrameError::Length {
            length,
            control: control_len,
        });
    }
    let control = read_part(from, control_len as usize)?;
    if check != checksum_parts(&head, &control) {
        return Err(FrameError::Check);
    }
    let kind = u8::try_from(kind)
        .ok()
        .and_then(Kind::from_number)
        .ok_or(FrameError::Kind(kind))?;
    // Only a head that proved itself may make us reserve what it announces.
    let raw = read_part(from, rest - control_len as usize)?;
    Ok(Some(Frame {
        call,
        kind,
        control,
        raw,
    }))
}

fn read_part(from: &mut impl Read, len: usize) -> Result<Bytes, FrameError> {
    let mut part = Vec::with_capacity(len);
    from.take(len as u64).read_to_end(&mut part)?;
    if part.len() == len {
        Ok(Bytes::from(part))
    } else {
        Err(FrameError::Truncated)
    }
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("bounded by FRAME_BYTES_MAX")
}

fn checksum(frame: &[u8]) -> u32 {
    let (head, control) = frame.split_at(HEAD_BYTES);
    checksum_parts(head.try_into().expect("split at its length"), control)
}

fn checksum_parts(head: &[u8; HEAD_BYTES], control: &[u8]) -> u32 {
    let mut state = !0;
    for part in [&head[4..8], &head[12..], control] {
        for byte in part {
            state = CRC_TABLE[usize::from(state as u8 ^ byte)] ^ (state >> 8);
        }
    }
    !state
}

/// CRC-32 with the reversed polynomial of IEEE 802.3, as in zlib, which is what Python has.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                0xedb8_8320 ^ (value >> 1)
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};
