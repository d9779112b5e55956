//! The corruption campaign (S6): what becomes of a store whose files were changed behind its back.
//!
//! Every case copies the files of a sound store, changes them, opens the copy, loads everything and
//! verifies. It counts as
//! *detected* when one of these refuses with a reason; *recovered* when the content is exactly that
//! of an earlier commit; *harmless* when it is exactly that of the last; anything else is
//! *undetected*, the one thing that must not be.

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use evermill_store::{DirLock, Options, SqliteStore, Store, StoreError};

use crate::workload::{Content, writes};

/// Bytes of a page, and of a frame of the log.
const PAGE: usize = 8_192;
const FRAME: usize = 24 + PAGE;
/// Bytes of the log before its first frame.
const LOG_HEAD: usize = 32;

/// The files of a store at one moment.
#[derive(Clone)]
pub struct Files {
    /// `store.db`.
    pub db: Vec<u8>,
    /// `store.db-wal`.
    pub log: Vec<u8>,
}

/// A sound store, and the content after each of its commits.
pub struct Subject {
    files: Files,
    /// The files at earlier moments, for lost writes.
    earlier: Vec<Files>,
    contents: Vec<Content>,
}

/// How the cases of a campaign ended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Cases run.
    pub cases: u64,
    /// Refused with a reason.
    pub detected: u64,
    /// Opened at an earlier commit.
    pub recovered: u64,
    /// Most commits lost by one of these.
    pub most_lost: u64,
    /// Opened with identical content.
    pub harmless: u64,
    /// Opened with content that never was. Must be 0.
    pub undetected: Vec<String>,
    /// Panics. Must be 0.
    pub panics: Vec<String>,
}

impl Counts {
    /// Adds the counts of another part.
    pub fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.detected += other.detected;
        self.recovered += other.recovered;
        self.most_lost = self.most_lost.max(other.most_lost);
        self.harmless += other.harmless;
        self.undetected.extend(other.undetected);
        self.panics.extend(other.panics);
    }

    /// Whether nothing went unnoticed.
    pub fn passed(&self) -> bool {
        self.undetected.is_empty() && self.panics.is_empty()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cases: {} detected, {} recovered to an earlier commit (at most {} lost), \
             {} harmless (content identical), {} undetected, {} panics",
            self.cases,
            self.detected,
            self.recovered,
            self.most_lost,
            self.harmless,
            self.undetected.len(),
            self.panics.len()
        )
    }
}

/// A small generator of our own: the same seed gives the same campaign for ever (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap_or(0)
    }
}

fn open(dir: &Path) -> Result<Box<dyn Store>, StoreError> {
    let lock = DirLock::take(dir).expect("nobody else has it");
    let options = Options {
        segment_bytes: 2_000,
        ..Options::default()
    };
    Ok(Box::new(SqliteStore::open(lock, options)?))
}

fn db(dir: &Path) -> PathBuf {
    dir.join("store.db")
}

fn log(dir: &Path) -> PathBuf {
    dir.join("store.db-wal")
}

impl Files {
    fn read(dir: &Path) -> Self {
        let read = |path| fs::read(path).expect("file of a store");
        Self {
            db: read(db(dir)),
            log: read(log(dir)),
        }
    }
}

impl Subject {
    /// A store killed after so many commits: one third of them lies in the database file, the rest
    /// in the log.
    pub fn killed(dir: &Path, commits: u64) -> Self {
        Self::make(dir, commits, false)
    }

    /// A store closed cleanly after so many commits: the log is empty.
    pub fn closed(dir: &Path, commits: u64) -> Self {
        Self::make(dir, commits, true)
    }

    fn make(dir: &Path, commits: u64, close: bool) -> Self {
        let mut earlier = Vec::new();
        let mut store = open(dir).expect("new store");
        let fence = store.claim(0).expect("claim");
        for seq in 1..=commits {
            store.commit_one(fence, writes(seq)).expect("commit");
            if seq.is_multiple_of(commits / 6) && (close || seq <= commits / 3) {
                // A new life folds the log into the database file.
                drop(store);
                store = open(dir).expect("store");
                earlier.push(Files::read(dir));
            }
        }
        if close {
            store.close_clean().expect("close");
        } else {
            drop(store);
        }
        let files = Files::read(dir);
        earlier.pop_if(|last| last.db == files.db);
        Self {
            files,
            earlier,
            contents: (0..=commits).map(Content::after).collect(),
        }
    }

    /// Bytes of both files.
    pub fn sizes(&self) -> (usize, usize) {
        (self.files.db.len(), self.files.log.len())
    }

    fn judge(&self, dir: &Path, files: &Files, name: &str, counts: &mut Counts) {
        counts.cases += 1;
        fs::write(db(dir), &files.db).expect("copy");
        fs::write(log(dir), &files.log).expect("copy");
        let look = || {
            let mut store = open(dir)?;
            let content = Content::of(&mut *store)?;
            store.verify()?;
            Ok::<_, StoreError>(content)
        };
        match catch_unwind(AssertUnwindSafe(look)) {
            Err(_) => counts.panics.push(name.to_owned()),
            Ok(Err(_)) => counts.detected += 1,
            Ok(Ok(content)) => match self
                .contents
                .iter()
                .rev()
                .position(|known| *known == content)
            {
                Some(0) => counts.harmless += 1,
                Some(lost) => {
                    counts.recovered += 1;
                    counts.most_lost = counts.most_lost.max(lost as u64);
                }
                None => counts.undetected.push(name.to_owned()),
            },
        }
    }

    /// One random bit of one file flipped, so many times; each byte is as likely as any other.
    pub fn flips(&self, dir: &Path, flips: u64, seed: u64) -> Counts {
        let mut random = Random(seed);
        let mut counts = Counts::default();
        let (db, log) = self.sizes();
        for _ in 0..flips {
            let at = random.below(db + log);
            let bit = 1_u8 << random.below(8);
            let mut files = self.files.clone();
            match files.db.get_mut(at) {
                Some(byte) => *byte ^= bit,
                None => files.log[at - db] ^= bit,
            }
            let place = if at < db {
                format!("db {at}")
            } else {
                format!("log {}", at - db)
            };
            self.judge(
                dir,
                &files,
                &format!("flip of bit {bit:#04x} at {place}"),
                &mut counts,
            );
        }
        counts
    }

    /// The log cut at every `stride`-th byte of its last two commits, and around the edges of every
    /// other frame; the database file cut at every `stride`-th byte of its last page and
    /// after every other page. `share` is which of how many equal parts of these cases to run.
    pub fn cuts(&self, dir: &Path, stride: usize, share: (usize, usize)) -> Counts {
        let mut counts = Counts::default();
        let (db, log) = self.sizes();
        let tail = self.tail();
        // With a stride, only the first byte of a frame, of its page, and their neighbours.
        let inside = |cut: &usize| cut.saturating_sub(LOG_HEAD) % FRAME;
        let near = |cut: &usize| match stride {
            1 => inside(cut) < 26,
            _ => matches!(inside(cut), 0 | 1 | 24 | 25),
        };
        let log_cuts = (0..tail).filter(near).chain((tail..log).step_by(stride));
        for cut in log_cuts.skip(share.0).step_by(share.1) {
            let mut files = self.files.clone();
            files.log.truncate(cut);
            self.judge(dir, &files, &format!("log cut at {cut}"), &mut counts);
        }
        let last_page = db.saturating_sub(PAGE);
        let db_cuts = (0..last_page)
            .step_by(PAGE)
            .chain((last_page..db).step_by(stride));
        for cut in db_cuts.skip(share.0).step_by(share.1) {
            let mut files = self.files.clone();
            files.db.truncate(cut);
            self.judge(dir, &files, &format!("db cut at {cut}"), &mut counts);
        }
        counts
    }

    /// Where the last two commits begin in the log.
    fn tail(&self) -> usize {
        let frames = self
            .files
            .log
            .get(LOG_HEAD..)
            .unwrap_or_default()
            .chunks_exact(FRAME);
        let ends = frames
            .enumerate()
            .filter(|(_, frame)| frame[4..8] != [0; 4]);
        let ends: Vec<usize> = ends
            .map(|(index, _)| LOG_HEAD + (index + 1) * FRAME)
            .collect();
        ends.len()
            .checked_sub(3)
            .and_then(|index| ends.get(index))
            .copied()
            .unwrap_or(0)
    }

    /// Whole pages of the database file: zeroed, swapped with the next one, and as they were at
    /// earlier moments (lost writes).
    pub fn pages(&self, dir: &Path) -> Counts {
        let mut counts = Counts::default();
        let count = self.files.db.len() / PAGE;
        for page in 0..count {
            let at = page * PAGE..(page + 1) * PAGE;
            let mut files = self.files.clone();
            files.db[at.clone()].fill(0);
            self.judge(dir, &files, &format!("page {page} zeroed"), &mut counts);
            if page + 1 < count {
                let mut files = self.files.clone();
                let (left, right) = files.db[at.start..at.end + PAGE].split_at_mut(PAGE);
                left.swap_with_slice(right);
                self.judge(
                    dir,
                    &files,
                    &format!("pages {page} and {} swapped", page + 1),
                    &mut counts,
                );
            }
            for (moment, earlier) in self.earlier.iter().enumerate() {
                let Some(old) = earlier.db.get(at.clone()) else {
                    continue;
                };
                if *old != self.files.db[at.clone()] {
                    let mut files = self.files.clone();
                    files.db[at.clone()].copy_from_slice(old);
                    self.judge(
                        dir,
                        &files,
                        &format!("page {page} of moment {moment}"),
                        &mut counts,
                    );
                }
            }
        }
        counts
    }
}
