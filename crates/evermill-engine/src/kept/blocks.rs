//! What lies in each stretch of a segment, so that whoever looks for one event reads a few stretches and not
//! 128 MiB: `NNNNNNNN.idx`, a record of [`RECORD_BYTES`] for each block of about 64 KiB.
//!
//! ```text
//! 0  u32 start, 4 u32 end: bytes of the segment     24 u64 levels, a bit for each rank
//! 8  u64 first, 16 u64 last: milliseconds           32 a Bloom filter of tasks, positions and keys
//! then u64: FNV-1a of what stands before
//! ```
//!
//! All numbers are little endian. It only ever says that something is *not* there. What no record describes (the
//! end of a segment, what a killed process left, a record that is damaged) is read through, so that a lost index
//! costs time and no line.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{LogEntry, LogFilter, rank};

const FILTER_BYTES: usize = 1_024;
const FILTER_AT: usize = 32;
const CHECK_AT: usize = FILTER_AT + FILTER_BYTES;
/// Bytes of a record.
const RECORD_BYTES: usize = CHECK_AT + 8;
/// Bits that stand for a word.
const BITS: u64 = 4;

/// A stretch of a segment.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) start: u64,
    first_ms: u64,
    last_ms: u64,
    levels: u64,
    filter: Box<[u8; FILTER_BYTES]>,
}

impl Block {
    /// One that begins there and holds nothing yet.
    pub(super) fn at(start: u64) -> Self {
        Self {
            start,
            first_ms: u64::MAX,
            last_ms: 0,
            levels: 0,
            filter: Box::new([0; FILTER_BYTES]),
        }
    }

    pub(super) fn add(&mut self, entry: &LogEntry) {
        self.first_ms = self.first_ms.min(entry.at_ms);
        self.last_ms = self.last_ms.max(entry.at_ms);
        self.levels |= 1 << rank(&entry.level);
        let words = [
            entry.task.as_deref().map(of_task),
            entry.position.map(of_position),
            entry.key.as_deref().map(of_key),
        ];
        for word in words.into_iter().flatten() {
            for bit in bits(word) {
                self.filter[bit / 8] |= 1 << (bit % 8);
            }
        }
    }

    /// Whether a line that is wanted may be in it.
    fn may_have(&self, wanted: &LogFilter) -> bool {
        let words = [
            wanted.task.as_deref().map(of_task),
            wanted.position.map(of_position),
            wanted.key.as_deref().map(of_key),
        ];
        let has = |word| bits(word).all(|bit| self.filter[bit / 8] & (1 << (bit % 8)) != 0);
        words.into_iter().flatten().all(has)
            && wanted.since_ms.is_none_or(|since| self.last_ms >= since)
            && wanted.until_ms.is_none_or(|until| self.first_ms < until)
            && wanted
                .rank_min()
                .is_none_or(|least| self.levels >> least != 0)
    }

    fn record(&self, end: u64) -> Vec<u8> {
        let mut record = Vec::with_capacity(RECORD_BYTES);
        for place in [self.start, end] {
            // Segments are far smaller; one that is not is read through.
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            record.extend(place.to_le_bytes());
        }
        for number in [self.first_ms, self.last_ms, self.levels] {
            record.extend(number.to_le_bytes());
        }
        record.extend(&*self.filter);
        let check = fnv(FNV_BASIS, &record);
        record.extend(check.to_le_bytes());
        record
    }

    /// The block of a record, and where it ends; `None` for one that is damaged.
    fn read(record: &[u8]) -> Option<(Self, u64)> {
        let long = |at: usize| Some(u64::from_le_bytes(record.get(at..at + 8)?.try_into().ok()?));
        let short = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
        if long(CHECK_AT)? != fnv(FNV_BASIS, &record[..CHECK_AT]) {
            return None;
        }
        let block = Self {
            start: short(0)?.into(),
            first_ms: long(8)?,
            last_ms: long(16)?,
            levels: long(24)?,
            filter: Box::new(record[FILTER_AT..CHECK_AT].try_into().ok()?),
        };
        Some((block, short(4)?.into()))
    }
}

/// The writing end of an index.
pub(super) struct Blocks {
    file: File,
    records: u64,
}

impl Blocks {
    /// Goes on with the index of a segment that holds so many bytes. After a power cut a segment may hold
    /// less than its index says, and what is written next is not what that was.
    pub(super) fn open(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .read(true)
            .open(path)?;
        let known = fs::read(path)?;
        let whole = known.chunks(RECORD_BYTES).map_while(Block::read);
        let records = whole.take_while(|(_, end)| *end <= bytes).count() as u64;
        file.set_len(records * RECORD_BYTES as u64)?;
        Ok(Self { file, records })
    }

    pub(super) fn add(&mut self, block: &Block, end: u64) -> io::Result<()> {
        let place = self.records * RECORD_BYTES as u64;
        self.file.write_all_at(&block.record(end), place)?;
        self.records += 1;
        Ok(())
    }
}

/// The stretches of a segment of so many bytes where wanted lines may be, in order, and the bytes that were
/// read to know it.
pub(super) fn stretches(
    path: &Path,
    bytes: u64,
    wanted: &LogFilter,
) -> io::Result<(Vec<Range<u64>>, u64)> {
    if !wanted.is_indexed() {
        return Ok((std::iter::once(0..bytes).collect(), 0));
    }
    let known = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        known => known?,
    };
    let (mut found, mut at) = (Vec::<Range<u64>>::new(), 0);
    let mut add = |stretch: Range<u64>| match found.last_mut() {
        Some(last) if last.end == stretch.start => last.end = stretch.end,
        _ if stretch.is_empty() => {}
        _ => found.push(stretch),
    };
    for (block, end) in known.chunks(RECORD_BYTES).filter_map(Block::read) {
        if block.start < at || end <= block.start || end > bytes {
            continue;
        }
        add(at..block.start);
        if block.may_have(wanted) {
            add(block.start..end);
        }
        at = end;
    }
    add(at..bytes);
    Ok((found, known.len() as u64))
}

fn of_task(id: &str) -> u64 {
    fnv(fnv(FNV_BASIS, b"task "), id.as_bytes())
}

fn of_position(position: u64) -> u64 {
    fnv(fnv(FNV_BASIS, b"position "), &position.to_le_bytes())
}

fn of_key(key: &str) -> u64 {
    fnv(fnv(FNV_BASIS, b"key "), key.as_bytes())
}

/// The bits of a word.
fn bits(word: u64) -> impl Iterator<Item = usize> {
    // The two halves of what is well mixed by then.
    let mixed = (word ^ (word >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (first, step) = (mixed >> 32, (mixed & 0xffff_ffff) | 1);
    let places = (FILTER_BYTES * 8) as u64;
    (0..BITS).map(move |n| (first.wrapping_add(n.wrapping_mul(step)) % places) as usize)
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: written to files, so it is always this one.
fn fnv(basis: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(basis, step)
}
