//! What tasks printed, kept in `DATA_DIR/logs/RUN/NNNNNNNN.jsonl`: one JSON object a line, in
//! segments of bounded size of which the oldest goes first. It is no part of the truth: nothing is
//! synced, and a disk that is full costs lines, not events.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evermill_contract::worker::LogOrigin;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::open::LogLine;

/// The folder in the data directory.
const FOLDER: &str = "logs";
/// Where output goes that belongs to no run.
const NO_RUN: &str = "workers";
/// What a folder's name may hold beside letters and digits.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A line that a task printed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Which try, from 1; 0 when unknown.
    #[serde(rename = "try", default)]
    pub try_number: u32,
    /// `stdout`, `stderr`, `fd` (C code, child processes), or a level of `logging`: `debug`,
    /// `info`, `warning`, `error`, `critical`.
    pub level: String,
    /// The text, without the line's end.
    pub text: String,
}

/// The writing end; one for all runs.
pub(crate) struct Kept {
    folder: PathBuf,
    segment_bytes: u64,
    open: BTreeMap<Option<Arc<str>>, Segment>,
}

struct Segment {
    folder: PathBuf,
    number: u64,
    file: File,
    bytes: u64,
    bytes_max: u64,
    /// Not yet written.
    pending: Vec<u8>,
}

impl Kept {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            folder: data_dir.join(FOLDER),
            segment_bytes: limits::LOG_SEGMENT_BYTES,
            open: BTreeMap::new(),
        }
    }

    /// Appends a piece of output, line by line; in the file by the next [`Kept::flush`] at the
    /// latest.
    pub(crate) fn write(&mut self, at_ms: u64, line: &LogLine) -> io::Result<()> {
        let segment = match self.open.get_mut(&line.run) {
            Some(segment) => segment,
            None => {
                let folder = self.folder.join(folder_name(line.run.as_deref()));
                let segment = Segment::open(folder, self.segment_bytes)?;
                self.open.entry(line.run.clone()).or_insert(segment)
            }
        };
        let text = String::from_utf8_lossy(&line.text);
        for text in text.lines() {
            let entry = LogEntry {
                at_ms,
                task: line.task.as_deref().map(str::to_owned),
                lane: line.lane.as_deref().map(str::to_owned),
                position: line.position,
                try_number: line.try_number,
                level: level(line.origin).to_owned(),
                text: text.to_owned(),
            };
            serde_json::to_writer(&mut segment.pending, &entry)?;
            segment.pending.push(b'\n');
        }
        if segment.pending.len() >= limits::LOG_PENDING_BYTES {
            return segment.flush();
        }
        Ok(())
    }

    /// Writes what is pending.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.open.values_mut().try_for_each(Segment::flush)
    }
}

impl Segment {
    /// Goes on with the last one there is.
    fn open(folder: PathBuf, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let number = numbers(&folder)?.last().copied().unwrap_or(1);
        let mut file = append_to(&folder, number)?;
        let bytes = file.metadata()?.len();
        // A process that was killed may have left half a line.
        if bytes > 0 && !ends_with_a_line(&path(&folder, number))? {
            file.write_all(b"\n")?;
        }
        Ok(Self {
            folder,
            number,
            file,
            bytes,
            bytes_max,
            pending: Vec::new(),
        })
    }

    /// What cannot be written is lost.
    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.pending);
        if self.bytes >= self.bytes_max {
            self.file = append_to(&self.folder, self.number + 1)?;
            self.number += 1;
            self.bytes = 0;
            let oldest = self.number.saturating_sub(limits::LOG_SEGMENTS_KEPT);
            for number in numbers(&self.folder)?.into_iter().filter(|n| *n <= oldest) {
                fs::remove_file(path(&self.folder, number))?;
            }
        }
        self.bytes += bytes.len() as u64;
        self.file.write_all(&bytes)
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

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.jsonl"))
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

/// Reads what a run's tasks printed, while they print on.
#[derive(Debug)]
pub struct LogReader {
    folder: PathBuf,
    /// The segment that is read, and how far.
    at: (u64, u64),
}

impl LogReader {
    /// Begins with the oldest line that is kept. A run that has printed nothing has no lines.
    #[must_use]
    pub fn new(data_dir: &Path, run: &str) -> Self {
        Self {
            folder: data_dir.join(FOLDER).join(folder_name(Some(run))),
            at: (0, 0),
        }
    }

    /// Hands over every whole line that came since the last call.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&mut self, mut each: impl FnMut(LogEntry)) -> io::Result<()> {
        loop {
            let later = match numbers(&self.folder) {
                Ok(numbers) => numbers.into_iter().filter(|number| *number >= self.at.0),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let later: Vec<u64> = later.collect();
            let Some(&number) = later.first() else {
                return Ok(());
            };
            if number > self.at.0 {
                self.at = (number, 0);
            }
            match self.read_segment(&mut each) {
                // It was the oldest and went meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            if later.len() == 1 {
                return Ok(());
            }
            // Nothing is added to one that has a successor.
            self.at = (number + 1, 0);
        }
    }

    fn read_segment(&mut self, each: &mut impl FnMut(LogEntry)) -> io::Result<()> {
        let mut file = File::open(path(&self.folder, self.at.0))?;
        file.seek(SeekFrom::Start(self.at.1))?;
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = lines.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                return Ok(());
            }
            self.at.1 += read as u64;
            // Half a line that a killed process left is passed over.
            if let Ok(entry) = serde_json::from_slice(&line) {
                each(entry);
            }
        }
    }

    /// The last lines that `wanted` chooses, at most `count`, oldest first.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn last(
        &mut self,
        count: usize,
        wanted: impl Fn(&LogEntry) -> bool,
    ) -> io::Result<VecDeque<LogEntry>> {
        let mut last = VecDeque::new();
        self.read(|entry| {
            if wanted(&entry) {
                last.push_back(entry);
                if last.len() > count {
                    last.pop_front();
                }
            }
        })?;
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn line(run: &str, text: &str) -> LogLine {
        LogLine {
            dag: Some("d".into()),
            run: Some(run.into()),
            task: Some("t".into()),
            position: Some(7),
            lane: Some("l/0".into()),
            try_number: 2,
            origin: LogOrigin::Logging(30),
            text: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    fn keep(data_dir: &Path, at_ms: u64, text: &str) {
        let mut kept = Kept::new(data_dir);
        kept.write(at_ms, &line("r", text)).unwrap();
        kept.flush().unwrap();
    }

    fn texts(reader: &mut LogReader) -> Vec<String> {
        let mut texts = Vec::new();
        reader.read(|entry| texts.push(entry.text)).unwrap();
        texts
    }

    #[test]
    fn a_reader_gets_each_line_once_while_more_are_written() {
        let place = tempfile::tempdir().unwrap();
        let mut reader = LogReader::new(place.path(), "r/1");
        assert_eq!(texts(&mut reader), [""; 0]);
        let mut kept = Kept::new(place.path());
        kept.write(5, &line("r/1", "one\ntwo\n")).unwrap();
        kept.write(5, &line("other", "not mine")).unwrap();
        kept.flush().unwrap();
        let mut found = Vec::new();
        reader.read(|entry| found.push(entry)).unwrap();
        let expected = LogEntry {
            at_ms: 5,
            task: Some("t".into()),
            lane: Some("l/0".into()),
            position: Some(7),
            try_number: 2,
            level: "warning".into(),
            text: "one".into(),
        };
        assert_eq!((found.len(), &found[0]), (2, &expected));
        kept.write(6, &line("r/1", "three")).unwrap();
        kept.flush().unwrap();
        assert_eq!(texts(&mut reader), ["three"]);
    }

    #[test]
    fn half_a_line_of_a_killed_process_costs_no_other() {
        let place = tempfile::tempdir().unwrap();
        keep(place.path(), 5, "one");
        let segment = place.path().join("logs/r/00000001.jsonl");
        let mut file = OpenOptions::new().append(true).open(segment).unwrap();
        file.write_all(b"{\"at_ms\":6,\"te").unwrap();
        keep(place.path(), 7, "two");
        assert_eq!(
            texts(&mut LogReader::new(place.path(), "r")),
            ["one", "two"]
        );
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let place = tempfile::tempdir().unwrap();
        let mut kept = Kept {
            segment_bytes: 1_000,
            ..Kept::new(place.path())
        };
        let long = "x".repeat(1_000);
        for number in 0..limits::LOG_SEGMENTS_KEPT + 3 {
            kept.write(number, &line("r", &long)).unwrap();
            kept.flush().unwrap();
        }
        let mut reader = LogReader::new(place.path(), "r");
        let last = reader.last(usize::MAX, |_| true).unwrap();
        assert_eq!(last.len() as u64, limits::LOG_SEGMENTS_KEPT);
        assert_eq!(last[0].at_ms, 3);
        assert_eq!(reader.last(1, |_| true).unwrap().len(), 0);
    }
}
