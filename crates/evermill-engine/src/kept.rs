//! What tasks printed, kept in `DATA_DIR/logs/RUN/NNNNNNNN.jsonl`: one JSON object a line, in
//! segments of bounded size of which the oldest goes first. Beside each lies `NNNNNNNN.idx`, by which a reader
//! passes over what he does not look for ([`blocks`]). It is no part of the truth: nothing is synced, and a disk
//! that is full costs lines, not events.

mod blocks;
mod keeping;
mod reading;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evermill_contract::worker::LogOrigin;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::blocks::{Block, Blocks};
use self::keeping::Keeping;
pub use self::keeping::LogRetention;
pub use self::reading::{LogFilter, LogOrder, LogPage, LogPlace, LogQuery, RunLogs};
use crate::limits;
use crate::open::LogLine;

/// The folder in the data directory.
const FOLDER: &str = "logs";
/// Where output goes that belongs to no run.
const NO_RUN: &str = "workers";
/// What a folder's name may hold beside letters and digits.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// What a line may be, the least of it first; each of these words stands for itself and for what is worse.
pub const LOG_LEVELS: [&str; 5] = ["debug", "info", "warning", "error", "critical"];

/// A line that a task printed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogEntry {
    /// When it came, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Task id; `None` for output of a worker outside any task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Lane name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Position of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Key of the event, of the first where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Which try, from 1; 0 when unknown.
    #[serde(rename = "try", default)]
    pub try_number: u32,
    /// Slot of the worker, for output outside any run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u16>,
    /// `stdout`, `stderr`, `fd` (C code, child processes), or a level of `logging`: `debug`,
    /// `info`, `warning`, `error`, `critical`.
    pub level: String,
    /// The text, without the line's end.
    pub text: String,
}

/// How bad a line of this level is: its place in [`LOG_LEVELS`]. What was printed says nothing of that and
/// counts as `info`.
fn rank(level: &str) -> u8 {
    let known = LOG_LEVELS.iter().position(|known| *known == level);
    known.map_or(1, |rank| rank as u8)
}

/// The writing end; one for all runs.
pub(crate) struct Kept {
    folder: PathBuf,
    segment_bytes: u64,
    open: BTreeMap<Option<Arc<str>>, Segment>,
    open_max: usize,
    retain: LogRetention,
    keeping: Keeping,
    /// Lines that could not be written.
    lost: u64,
}

struct Segment {
    folder: PathBuf,
    number: u64,
    file: File,
    /// What the file holds.
    bytes: u64,
    bytes_max: u64,
    /// Not yet written.
    pending: Vec<u8>,
    /// Of what follows the last block, `pending` included.
    block: Block,
    blocks: Blocks,
    /// A write failed, so that the file may end in half a line.
    is_torn: bool,
    /// When the first line of the file came, and the last that was given to it; milliseconds since the Unix epoch.
    began_ms: Option<u64>,
    last_ms: u64,
}

impl Kept {
    pub(crate) fn new(data_dir: &Path, retain: LogRetention) -> Self {
        Self {
            folder: data_dir.join(FOLDER),
            segment_bytes: limits::LOG_SEGMENT_BYTES,
            open: BTreeMap::new(),
            open_max: limits::LOG_FILES_OPEN,
            retain,
            keeping: Keeping::default(),
            lost: 0,
        }
    }

    /// How many lines could not be written.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Removes some of what is kept for too long; whether there is more to do.
    pub(crate) fn check(&mut self, now_ms: u64) -> io::Result<bool> {
        let age_ms = u64::try_from(self.retain.age.as_millis()).unwrap_or(u64::MAX);
        // Nobody writes what nobody has written for so long, and what was begun so long ago ends here.
        let oldest_ms = now_ms.saturating_sub(age_ms);
        let flushed = self.flush();
        self.open.retain(|_, segment| segment.last_ms >= oldest_ms);
        for segment in self.open.values_mut() {
            if segment
                .began_ms
                .is_some_and(|at| now_ms.saturating_sub(at) > age_ms / 8)
            {
                segment.begin_next()?;
            }
        }
        let open = self.open.values();
        let open = open.map(|segment| (segment.folder.clone(), segment.number));
        let open = open.collect();
        let more = self
            .keeping
            .check(&self.folder, self.retain, now_ms, &open)?;
        flushed.map(|()| more)
    }

    /// The segment of a run; with too many open ones, that which was written to the longest ago is let go.
    fn segment(&mut self, run: &Option<Arc<str>>) -> io::Result<&mut Segment> {
        if !self.open.contains_key(run) {
            let folder = self.folder.join(folder_name(run.as_deref()));
            if self.open.len() >= self.open_max {
                let idle = self.open.iter().min_by_key(|(_, segment)| segment.last_ms);
                let idle = idle.map(|(run, _)| run.clone()).unwrap_or_default();
                if let Some(mut segment) = self.open.remove(&idle) {
                    self.lost += segment.flush().1;
                }
            }
            let segment = Segment::open(folder, self.segment_bytes)?;
            self.open.insert(run.clone(), segment);
        }
        Ok(self.open.get_mut(run).expect("it was put there"))
    }

    /// Appends a piece of output, line by line; in the file by the next [`Kept::flush`] at the
    /// latest.
    pub(crate) fn write(&mut self, at_ms: u64, line: &LogLine) -> io::Result<()> {
        let text = String::from_utf8_lossy(&line.text);
        let segment = match self.segment(&line.run) {
            Ok(segment) => segment,
            Err(cause) => {
                self.lost += text.lines().count() as u64;
                return Err(cause);
            }
        };
        let key = line.key.as_ref();
        let mut entry = LogEntry {
            at_ms,
            task: line.task.as_deref().map(str::to_owned),
            lane: line.lane.as_deref().map(str::to_owned),
            position: line.position,
            key: key.map(|key| String::from_utf8_lossy(key).into_owned()),
            try_number: line.try_number,
            worker: line.worker.filter(|_| line.run.is_none()),
            level: level(line.origin).to_owned(),
            text: String::new(),
        };
        segment.last_ms = at_ms;
        segment.block.add(&entry);
        for text in text.lines() {
            text.clone_into(&mut entry.text);
            serde_json::to_writer(&mut segment.pending, &entry)?;
            segment.pending.push(b'\n');
        }
        if segment.pending.len() < limits::LOG_PENDING_BYTES {
            return Ok(());
        }
        let (written, lost) = segment.flush();
        self.lost += lost;
        written
    }

    /// Writes what is pending. One file that cannot be written holds up no other.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let mut all = Ok(());
        for segment in self.open.values_mut() {
            let (written, lost) = segment.flush();
            self.lost += lost;
            all = all.and(written);
        }
        all
    }
}

impl Segment {
    /// Goes on with the last one there is.
    fn open(folder: PathBuf, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let number = numbers(&folder)?.last().copied().unwrap_or(1);
        let file = append_to(&folder, number)?;
        let bytes = file.metadata()?.len();
        let mut segment = Self {
            blocks: Blocks::open(&index_path(&folder, number), bytes)?,
            block: Block::at(bytes),
            folder,
            number,
            file,
            bytes,
            bytes_max,
            pending: Vec::new(),
            is_torn: false,
            began_ms: None,
            last_ms: 0,
        };
        // A process that was killed may have left half a line.
        segment.mend()?;
        segment.began_ms = first_ms(&path(&segment.folder, number))?;
        Ok(segment)
    }

    /// Ends half a line, so that it costs no other.
    fn mend(&mut self) -> io::Result<()> {
        self.bytes = self.file.metadata()?.len();
        if self.bytes > 0 && !ends_with_a_line(&path(&self.folder, self.number))? {
            self.file.write_all(b"\n")?;
            self.bytes += 1;
        }
        self.is_torn = false;
        Ok(())
    }

    /// What cannot be written is lost: so many lines.
    fn flush(&mut self) -> (io::Result<()>, u64) {
        if self.pending.is_empty() {
            return (Ok(()), 0);
        }
        let bytes = std::mem::take(&mut self.pending);
        let mut written = 0;
        let done = self.append(&bytes, &mut written);
        self.is_torn |= done.is_err();
        // The line that was torn is no line.
        let left = bytes[written..].iter().filter(|byte| **byte == b'\n');
        (done, left.count() as u64)
    }

    fn append(&mut self, bytes: &[u8], written: &mut usize) -> io::Result<()> {
        if self.is_torn {
            self.mend()?;
            // It says where its block begins as it was before.
            self.block.start = self.bytes;
        }
        while *written < bytes.len() {
            match self.file.write(&bytes[*written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => *written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.began_ms.get_or_insert(self.last_ms);
        self.bytes += bytes.len() as u64;
        let is_full = self.bytes >= self.bytes_max;
        if is_full || self.bytes - self.block.start >= limits::LOG_BLOCK_BYTES {
            let next = Block::at(self.bytes);
            let block = std::mem::replace(&mut self.block, next);
            // Without it these lines are read through, and nothing else is lost.
            drop(self.blocks.add(&block, self.bytes));
        }
        if is_full {
            self.begin_next()?;
        }
        Ok(())
    }

    fn begin_next(&mut self) -> io::Result<()> {
        let number = self.number + 1;
        let blocks = Blocks::open(&index_path(&self.folder, number), 0)?;
        // Once it is there nothing is added to the one before, and readers know it.
        self.file = append_to(&self.folder, number)?;
        self.blocks = blocks;
        self.number = number;
        self.bytes = 0;
        self.block = Block::at(0);
        self.began_ms = None;
        let oldest = number.saturating_sub(limits::LOG_SEGMENTS_KEPT);
        for number in numbers(&self.folder)?.into_iter().filter(|n| *n <= oldest) {
            fs::remove_file(path(&self.folder, number))?;
            gone_is_fine(fs::remove_file(index_path(&self.folder, number)))?;
        }
        Ok(())
    }
}

fn gone_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn append_to(folder: &Path, number: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).open(path(folder, number))
}

fn ends_with_a_line(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// When the first line of a segment came; `None` for one without any.
fn first_ms(path: &Path) -> io::Result<Option<u64>> {
    #[derive(Deserialize)]
    struct At {
        at_ms: u64,
    }
    let mut line = Vec::new();
    let file = io::BufReader::new(File::open(path)?.take(limits::LOG_READ_BYTES));
    io::BufRead::read_until(&mut { file }, b'\n', &mut line)?;
    let found = serde_json::from_slice::<At>(&line).map(|line| line.at_ms);
    // Of one that cannot be read nothing is known: it is as old as can be.
    Ok((!line.is_empty()).then(|| found.unwrap_or(0)))
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.jsonl"))
}

fn index_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.idx"))
}

fn folder_name(run: Option<&str>) -> String {
    run.map_or_else(
        || NO_RUN.to_owned(),
        |run| utf8_percent_encode(run, ENCODED).to_string(),
    )
}

/// Segments, oldest first.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

const fn level(origin: LogOrigin) -> &'static str {
    match origin {
        LogOrigin::Stdout => "stdout",
        LogOrigin::Stderr => "stderr",
        LogOrigin::Descriptor => "fd",
        LogOrigin::Logging(0..20) => "debug",
        LogOrigin::Logging(20..30) => "info",
        LogOrigin::Logging(30..40) => "warning",
        LogOrigin::Logging(40..50) => "error",
        LogOrigin::Logging(50..) => "critical",
    }
}

#[cfg(test)]
mod tests;
