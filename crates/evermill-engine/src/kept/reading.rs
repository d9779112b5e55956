//! Reading what tasks printed, while they print on: a page at a time, from either end or from a place, and never
//! more of the files than a page needs.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FOLDER, LogEntry, NO_RUN, blocks, folder_name, index_path, numbers, path, rank};
use crate::limits;

/// Where the end of a file's last line is looked for first: whoever waits for more asks several times a second.
const LAST_LINE_BYTES: u64 = 1_024;

/// Which lines are wanted; every field narrows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Only of this task.
    pub task: Option<String>,
    /// Only of this lane.
    pub lane: Option<String>,
    /// Only of the event at this position.
    pub position: Option<u64>,
    /// Only of events with this key.
    pub key: Option<String>,
    /// Only of this try, from 1.
    pub try_number: Option<u32>,
    /// Only so bad or worse: one of [`super::LOG_LEVELS`].
    pub level: Option<String>,
    /// Only with this in their text.
    pub text: Option<String>,
    /// Only those that came then or later, milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Only those that came before, likewise.
    pub until_ms: Option<u64>,
}

impl LogFilter {
    pub(super) fn rank_min(&self) -> Option<u8> {
        self.level.as_deref().map(rank)
    }

    /// Whether an index helps.
    pub(super) fn is_indexed(&self) -> bool {
        self.task.is_some()
            || self.position.is_some()
            || self.key.is_some()
            || self.level.is_some()
            || self.since_ms.is_some()
            || self.until_ms.is_some()
    }

    fn wants(&self, entry: &LogEntry) -> bool {
        fn is_so<T: PartialEq>(wanted: &Option<T>, found: &Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        is_so(&self.task, &entry.task)
            && is_so(&self.lane, &entry.lane)
            && is_so(&self.position, &entry.position)
            && is_so(&self.key, &entry.key)
            && self
                .try_number
                .is_none_or(|wanted| wanted == entry.try_number)
            && self
                .rank_min()
                .is_none_or(|least| rank(&entry.level) >= least)
            && self.since_ms.is_none_or(|since| entry.at_ms >= since)
            && self.until_ms.is_none_or(|until| entry.at_ms < until)
            && self
                .text
                .as_deref()
                .is_none_or(|text| entry.text.contains(text))
    }
}

/// From which end a page is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogOrder {
    /// The newest line first.
    #[default]
    Newest,
    /// The oldest line first.
    Oldest,
}

/// Which page is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Which lines.
    pub filter: LogFilter,
    /// From which end.
    pub order: LogOrder,
    /// Where to begin: lines before it, newest first, or after it, oldest first. `None`: at the end, or at the
    /// oldest line.
    pub from: Option<LogPlace>,
    /// At most so many; no more than [`limits::LOG_PAGE_LINES`].
    pub limit: usize,
}

/// A place between two lines: a segment, and the bytes of it that lie before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPlace {
    segment: u64,
    offset: u64,
}

impl fmt::Display for LogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.segment, self.offset)
    }
}

impl FromStr for LogPlace {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (segment, offset) = text.split_once('.').unwrap_or((text, ""));
        Ok(Self {
            segment: segment.parse()?,
            offset: offset.parse()?,
        })
    }
}

/// Some of what the tasks of a run printed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogPage {
    /// In the order that was asked for.
    pub entries: Vec<LogEntry>,
    /// Where the next page in this order begins; absent when there is no more. A page may have few lines, or
    /// none, and still a next one: so much was looked through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Where what comes behind the newest line of this page begins, for `order=oldest` and for the tail.
    pub after: String,
    /// Lines behind the place that was asked for are not kept any more.
    pub missed: bool,
}

/// What the tasks of one run printed.
#[derive(Debug, Clone)]
pub struct RunLogs {
    run: String,
    folder: PathBuf,
    /// Faces' names of lanes that their sources name differently.
    lanes: Vec<(String, String)>,
}

/// How reading a stretch ended.
enum Ended {
    /// There was nothing more of it.
    Through,
    /// The page is full, or enough was read for one.
    Here(u64),
}

/// A page that is being filled.
struct Filling<'a> {
    wanted: &'a LogFilter,
    entries: Vec<LogEntry>,
    limit: usize,
    bytes_left: u64,
}

impl RunLogs {
    /// Of the run of this id, in this data directory.
    #[must_use]
    pub fn new(data_dir: &Path, run: &str) -> Self {
        Self {
            run: run.to_owned(),
            folder: data_dir.join(FOLDER).join(folder_name(Some(run))),
            lanes: Vec::new(),
        }
    }

    /// Of what workers print outside any run: threads and child processes that outlive their task.
    #[must_use]
    pub fn of_workers(data_dir: &Path) -> Self {
        Self {
            run: NO_RUN.to_owned(),
            folder: data_dir.join(FOLDER).join(NO_RUN),
            lanes: Vec::new(),
        }
    }

    /// The same, where lanes may also be asked for as the second of these pairs: `(source's name, face's)`.
    #[must_use]
    pub(crate) fn with_lanes(mut self, lanes: impl Iterator<Item = (String, String)>) -> Self {
        self.lanes = lanes.filter(|(name, face)| name != face).collect();
        self
    }

    /// The run's id.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// A page of it. A run that has printed nothing has no lines.
    ///
    /// # Errors
    /// What the file system says.
    pub fn page(&self, query: &LogQuery) -> io::Result<LogPage> {
        let mut filter = query.filter.clone();
        let mut lanes = self.lanes.iter();
        if let Some((name, _)) = lanes.find(|(_, face)| Some(face) == filter.lane.as_ref()) {
            filter.lane = Some(name.clone());
        }
        let mut filling = Filling {
            wanted: &filter,
            entries: Vec::new(),
            limit: query.limit.min(limits::LOG_PAGE_LINES),
            bytes_left: limits::LOG_PAGE_BYTES,
        };
        let numbers = match numbers(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            numbers => filled(numbers?),
        };
        match query.order {
            LogOrder::Newest => self.newest(query.from, &numbers, &mut filling),
            LogOrder::Oldest => self.oldest(query.from, &numbers, &mut filling),
        }
        .map(|page| LogPage {
            entries: filling.entries,
            ..page
        })
    }

    fn newest(
        &self,
        from: Option<LogPlace>,
        numbers: &[u64],
        filling: &mut Filling<'_>,
    ) -> io::Result<LogPage> {
        let (mut after, mut missed) = (from, false);
        let end = from.unwrap_or(LogPlace {
            segment: u64::MAX,
            offset: u64::MAX,
        });
        if let (Some(from), Some(first)) = (from, numbers.first()) {
            missed = from.segment < *first && from != LogPlace::default();
        }
        let before = numbers
            .iter()
            .rev()
            .filter(|number| **number <= end.segment);
        for &number in before {
            let Some(file) = self.open(number)? else {
                // It was the oldest and went meanwhile: so did what lies before.
                break;
            };
            let mut bytes = whole_lines(&file)?;
            if number == end.segment {
                bytes = bytes.min(end.offset);
            }
            after.get_or_insert(LogPlace {
                segment: number,
                offset: bytes,
            });
            let (stretches, read) =
                blocks::stretches(&index_path(&self.folder, number), bytes, filling.wanted)?;
            filling.spend(read);
            for stretch in stretches.into_iter().rev() {
                if let Ended::Here(offset) = filling.backwards(&file, stretch)? {
                    let next = LogPlace {
                        segment: number,
                        offset,
                    };
                    let is_oldest = offset == 0 && Some(&number) == numbers.first();
                    return Ok(LogPage {
                        next: (!is_oldest).then(|| next.to_string()),
                        after: after.unwrap_or_default().to_string(),
                        missed,
                        ..LogPage::default()
                    });
                }
            }
        }
        Ok(LogPage {
            after: after.unwrap_or_default().to_string(),
            missed,
            ..LogPage::default()
        })
    }

    fn oldest(
        &self,
        from: Option<LogPlace>,
        numbers: &[u64],
        filling: &mut Filling<'_>,
    ) -> io::Result<LogPage> {
        let mut at = from.unwrap_or_default();
        let mut missed = false;
        match (numbers.first(), numbers.last()) {
            // What was begun at the very beginning has missed nothing while that is kept.
            (Some(first), _) if at.segment < *first => {
                missed = from.is_some() && (at.segment > 0 || *first > 1);
                at = LogPlace {
                    segment: *first,
                    offset: 0,
                };
            }
            // It is of another log: what is there now was never seen.
            (_, Some(last)) if at.segment > *last => {
                missed = true;
                at = LogPlace {
                    segment: *numbers.first().unwrap_or(last),
                    offset: 0,
                };
            }
            _ => {}
        }
        let asked = at;
        for &number in numbers.iter().filter(|number| **number >= asked.segment) {
            let Some(file) = self.open(number)? else {
                missed = true;
                continue;
            };
            let bytes = whole_lines(&file)?;
            let begin = if number == asked.segment {
                asked.offset
            } else {
                0
            };
            let begin = if begin > bytes {
                missed = true;
                0
            } else {
                line_begin(&file, begin, bytes)?
            };
            at = LogPlace {
                segment: number,
                offset: bytes,
            };
            let index = index_path(&self.folder, number);
            let (stretches, read) = blocks::stretches(&index, bytes, filling.wanted)?;
            filling.spend(read);
            for stretch in stretches {
                let stretch = stretch.start.max(begin)..stretch.end;
                if stretch.is_empty() {
                    continue;
                }
                if let Ended::Here(offset) = filling.forwards(&file, stretch)? {
                    let next = LogPlace {
                        segment: number,
                        offset,
                    };
                    return Ok(LogPage {
                        next: Some(next.to_string()),
                        after: next.to_string(),
                        missed,
                        ..LogPage::default()
                    });
                }
            }
        }
        Ok(LogPage {
            after: at.to_string(),
            missed,
            ..LogPage::default()
        })
    }

    fn open(&self, number: u64) -> io::Result<Option<File>> {
        match File::open(path(&self.folder, number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => file.map(Some),
        }
    }
}

impl Filling<'_> {
    fn spend(&mut self, bytes: u64) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// Takes a line if it is wanted. Half a line that a killed process left is passed over.
    fn take(&mut self, line: &[u8]) {
        if let Ok(entry) = serde_json::from_slice::<LogEntry>(line)
            && self.wanted.wants(&entry)
        {
            self.entries.push(entry);
        }
    }

    /// Of whole lines, the last first.
    fn backwards(&mut self, file: &File, stretch: Range<u64>) -> io::Result<Ended> {
        let mut end = stretch.end;
        let mut window = limits::LOG_READ_BYTES;
        while end > stretch.start {
            if self.bytes_left == 0 {
                return Ok(Ended::Here(end));
            }
            let start = end.saturating_sub(window).max(stretch.start);
            let bytes = read(file, start..end)?;
            self.spend(bytes.len() as u64);
            // Where the first whole line begins.
            let begin = match start == stretch.start {
                true => 0,
                false => match bytes.iter().position(|byte| *byte == b'\n') {
                    Some(at) if at + 1 < bytes.len() => at + 1,
                    // A line that is longer than all that.
                    _ => {
                        window *= 2;
                        continue;
                    }
                },
            };
            let mut at = end;
            for line in bytes[begin..].split_inclusive(|byte| *byte == b'\n').rev() {
                if self.entries.len() >= self.limit {
                    return Ok(Ended::Here(at));
                }
                self.take(line);
                at -= line.len() as u64;
            }
            end = at;
            window = limits::LOG_READ_BYTES;
        }
        match self.entries.len() >= self.limit {
            true => Ok(Ended::Here(stretch.start)),
            false => Ok(Ended::Through),
        }
    }

    /// Of whole lines, the first first.
    fn forwards(&mut self, file: &File, stretch: Range<u64>) -> io::Result<Ended> {
        let mut at = stretch.start;
        let mut window = limits::LOG_READ_BYTES;
        while at < stretch.end {
            if self.bytes_left == 0 {
                return Ok(Ended::Here(at));
            }
            let end = at.saturating_add(window).min(stretch.end);
            let bytes = read(file, at..end)?;
            self.spend(bytes.len() as u64);
            let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') else {
                if end == stretch.end {
                    return Ok(Ended::Through);
                }
                window *= 2;
                continue;
            };
            for line in bytes[..=last].split_inclusive(|byte| *byte == b'\n') {
                if self.entries.len() >= self.limit {
                    return Ok(Ended::Here(at));
                }
                self.take(line);
                at += line.len() as u64;
            }
            window = limits::LOG_READ_BYTES;
        }
        Ok(Ended::Through)
    }
}

/// Without holes: a folder that is listed while segments come may show one and not the one before it. Who opens it sees
/// whether it is there.
pub(super) fn filled(numbers: Vec<u64>) -> Vec<u64> {
    let mut all = Vec::with_capacity(numbers.len());
    for number in numbers {
        let next = all.last().map_or(number, |last| last + 1);
        // A wider hole is not of segments that come.
        if number - next < limits::LOG_SEGMENTS_KEPT {
            all.extend(next..number);
        }
        all.push(number);
    }
    all
}

/// Bytes of a file up to the end of its last whole line: half a record may be on its way, or a process was
/// killed over it.
fn whole_lines(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut window = LAST_LINE_BYTES;
    while end > 0 {
        let start = end.saturating_sub(window);
        window = limits::LOG_READ_BYTES;
        let bytes = read(file, start..end)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Where the first line begins that does not begin before this place, which somebody may have made up.
fn line_begin(file: &File, place: u64, bytes: u64) -> io::Result<u64> {
    let mut at = match place {
        0 => return Ok(0),
        place => place - 1,
    };
    while at < bytes {
        let found = read(
            file,
            at..at.saturating_add(limits::LOG_READ_BYTES).min(bytes),
        )?;
        if let Some(end) = found.iter().position(|byte| *byte == b'\n') {
            return Ok(at + end as u64 + 1);
        }
        at += found.len() as u64;
    }
    Ok(bytes)
}

fn read(file: &File, place: Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (place.end - place.start) as usize];
    file.read_exact_at(&mut bytes, place.start)?;
    Ok(bytes)
}
