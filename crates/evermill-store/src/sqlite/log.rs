//! The write-ahead log before SQLite sees it.
//!
//! SQLite replays the log up to the first frame that does not check, and forgets the rest in
//! silence. After a power loss that is right: the rest is one commit that was never acknowledged.
//! After damage it would drop acknowledged commits. The two can be told apart, because a commit
//! returns only after its fsync: behind the first bad frame there can be at most one commit.
//! Opening empties the log, so frames of earlier boots are never mistaken for later ones.
//!
//! Format: <https://www.sqlite.org/fileformat2.html>, section 4.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::limits::PAGE_BYTES;

const HEAD_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 24;
const FRAME_BYTES: usize = FRAME_HEAD_BYTES + PAGE_BYTES;
/// The last bit says in which byte order the checksums were computed.
const MAGIC: u32 = 0x377F_0682;
const VERSION: u32 = 3_007_000;

/// What a look at the log found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is no such file.
    Missing,
    /// Every frame checks, or what does not is the one commit that a crash may leave.
    Sound,
    /// More than a crash can explain.
    Damaged(String),
}

/// Reads the whole log once.
pub(super) fn scan(path: &Path) -> io::Result<Found> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut head = [0; HEAD_BYTES];
    if !fill(&mut reader, &mut head)? {
        return Ok(Found::Sound);
    }
    let Some(mut chain) = Chain::start(&head) else {
        return bad_head(reader, &head);
    };
    let mut frame = vec![0; FRAME_BYTES];
    let mut good = 0_u64;
    while fill(&mut reader, &mut frame)? {
        if !chain.accepts(&frame) {
            let behind = commits(&frame, chain.salts) + count_commits(reader, chain.salts)?;
            return Ok(judge(good, behind));
        }
        good += 1;
    }
    Ok(Found::Sound)
}

fn judge(good: u64, behind: u64) -> Found {
    if behind < 2 {
        return Found::Sound;
    }
    Found::Damaged(format!(
        "frame {} of the log does not check, and {behind} commits follow it",
        good + 1
    ))
}

/// The header is synced before any frame, so behind a bad one there must be nothing of ours;
/// zeros are what a crash at the very first write leaves.
fn bad_head(reader: impl BufRead, head: &[u8; HEAD_BYTES]) -> io::Result<Found> {
    let damaged = || {
        Ok(Found::Damaged(
            "the header of the log does not check".to_owned(),
        ))
    };
    if head.iter().any(|byte| *byte != 0) {
        return damaged();
    }
    let zeros = reader
        .bytes()
        .try_fold(true, |zeros, byte| io::Result::Ok(zeros && byte? == 0))?;
    if zeros { Ok(Found::Sound) } else { damaged() }
}

fn count_commits(mut reader: impl Read, salts: [u8; 8]) -> io::Result<u64> {
    let mut frame = vec![0; FRAME_BYTES];
    let mut count = 0;
    while fill(&mut reader, &mut frame)? {
        count += commits(&frame, salts);
    }
    Ok(count)
}

/// 1 when the frame claims to end a commit of this log.
fn commits(frame: &[u8], salts: [u8; 8]) -> u64 {
    u64::from(frame[8..16] == salts && frame[4..8] != [0; 4])
}

/// The running checksum over header and frames.
struct Chain {
    salts: [u8; 8],
    big_endian: bool,
    sums: [u32; 2],
}

impl Chain {
    fn start(head: &[u8; HEAD_BYTES]) -> Option<Self> {
        let magic = be(&head[0..4]);
        let page = be(&head[8..12]);
        if magic & !1 != MAGIC || be(&head[4..8]) != VERSION || page as usize != PAGE_BYTES {
            return None;
        }
        let mut salts = [0; 8];
        salts.copy_from_slice(&head[16..24]);
        let mut chain = Self {
            salts,
            big_endian: magic & 1 == 1,
            sums: [0, 0],
        };
        chain.add(&head[..24]);
        (chain.sums == [be(&head[24..28]), be(&head[28..32])]).then_some(chain)
    }

    fn accepts(&mut self, frame: &[u8]) -> bool {
        if frame[8..16] != self.salts || be(&frame[0..4]) == 0 {
            return false;
        }
        self.add(&frame[..8]);
        self.add(&frame[FRAME_HEAD_BYTES..]);
        self.sums == [be(&frame[16..20]), be(&frame[20..24])]
    }

    fn add(&mut self, bytes: &[u8]) {
        let [mut a, mut b] = self.sums;
        let word = |word: &[u8; 4]| {
            if self.big_endian {
                u32::from_be_bytes(*word)
            } else {
                u32::from_le_bytes(*word)
            }
        };
        for pair in bytes.as_chunks::<8>().0 {
            let (words, _) = pair.as_chunks::<4>();
            a = a.wrapping_add(word(&words[0])).wrapping_add(b);
            b = b.wrapping_add(word(&words[1])).wrapping_add(a);
        }
        self.sums = [a, b];
    }
}

fn be(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// Fills the buffer, or says that the file ends before it is full.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
