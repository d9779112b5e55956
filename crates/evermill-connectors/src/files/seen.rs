//! What was seen of a place, over restarts: for each path its last version, in pages that are committed
//! together with the events they stand for.
//!
//! Pages are written like a log. A small one is taken up by the next, so that there are few of them; once
//! most of the log says nothing any more it is written anew.

use std::collections::{BTreeMap, HashMap};

use bytes::{BufMut, Bytes, BytesMut};
use evermill_contract::source::{PAGE_BYTES_MAX, Page, SourceError};
use sha2::{Digest as _, Sha256};

use super::place::Entry;
use crate::limits;

/// First byte of each page.
const FORMAT: u8 = 1;
/// Bytes of a record: 16 of the path's digest, 8 of the version's.
const RECORD: usize = 24;

/// A path, as it is remembered: the first 128 bits of its SHA-256.
type PathKey = u128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    path: PathKey,
    version: u64,
}

/// The last version of a path, and which look saw the path last.
#[derive(Debug, Clone, Copy)]
struct Known {
    version: u64,
    look: u32,
}

/// How much of it is kept.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Files that are gone.
    gone: usize,
    /// Records of a page.
    page: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            gone: limits::FILES_GONE_REMEMBERED,
            page: limits::FILES_PAGE_RECORDS,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    bounds: Bounds,
    known: HashMap<PathKey, Known>,
    /// By number; a later record of a path replaces an earlier one.
    pages: BTreeMap<u64, Vec<Record>>,
    records: usize,
    /// Records at which the log is written anew.
    rewrite_at: usize,
    look: u32,
}

impl Seen {
    /// What committed pages say.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when another build wrote them.
    pub(super) fn read(pages: &BTreeMap<u64, Bytes>) -> Result<Self, SourceError> {
        Self::within(Bounds::default(), pages)
    }

    fn within(bounds: Bounds, pages: &BTreeMap<u64, Bytes>) -> Result<Self, SourceError> {
        let mut seen = Self {
            bounds,
            ..Self::default()
        };
        for (number, page) in pages {
            let records = records(page).ok_or_else(|| {
                SourceError::Refused(
                    "what was remembered of files cannot be read; use the newer build again, or \
                     give the source another name to begin anew"
                        .to_owned(),
                )
            })?;
            for record in &records {
                seen.know(*record);
            }
            seen.records += records.len();
            seen.pages.insert(*number, records);
        }
        seen.rewrite_at = seen.next_rewrite();
        Ok(seen)
    }

    /// A look at the whole place begins.
    pub(super) const fn begin_look(&mut self) {
        self.look += 1;
    }

    /// Whether this version was seen before; its path is there, in any case.
    pub(super) fn knows(&mut self, entry: &Entry) -> bool {
        let record = record(entry);
        let look = self.look;
        self.known.get_mut(&record.path).is_some_and(|known| {
            known.look = look;
            known.version == record.version
        })
    }

    /// These count as seen from now on; what has to be written for it.
    pub(super) fn learn(&mut self, entries: &[Entry]) -> Vec<Page> {
        let fresh: Vec<Record> = entries.iter().map(record).collect();
        for record in &fresh {
            self.know(*record);
        }
        self.records += fresh.len();
        let mut changes = Vec::new();
        if self.records > self.rewrite_at {
            self.write_anew(&fresh, &mut changes);
        } else {
            self.append(fresh, &mut changes);
        }
        changes
    }

    fn know(&mut self, record: Record) {
        let look = self.look;
        let Record { path, version } = record;
        self.known.insert(path, Known { version, look });
    }

    /// A new page, which takes up those before it that are no larger.
    fn append(&mut self, fresh: Vec<Record>, changes: &mut Vec<Page>) {
        let mut records = fresh;
        let next = self.pages.keys().next_back().map_or(0, |last| last + 1);
        while let Some(last) = self.pages.last_entry()
            && last.get().len() <= records.len()
            && last.get().len() + records.len() <= self.bounds.page
        {
            let (number, mut before) = last.remove_entry();
            changes.push(forget(number));
            before.append(&mut records);
            records = before;
        }
        for (number, part) in (next..).zip(records.chunks(self.bounds.page)) {
            changes.push(write(number, part));
            self.pages.insert(number, part.to_vec());
        }
    }

    /// Leaves out what was replaced, and of files that are gone all but the latest.
    fn write_anew(&mut self, fresh: &[Record], changes: &mut Vec<Page>) {
        let next = self.pages.keys().next_back().map_or(0, |last| last + 1);
        changes.extend(self.pages.keys().copied().map(forget));
        let pages = std::mem::take(&mut self.pages);
        let all = pages.values().flatten().chain(fresh);
        // From the newest, so that the last record of a path is the first one met.
        let (mut kept, mut gone) = (Vec::new(), 0);
        let mut known = HashMap::with_capacity(self.known.len());
        for record in all.collect::<Vec<_>>().into_iter().rev() {
            let Some(now) = self.known.remove(&record.path) else {
                continue;
            };
            let is_gone = now.look != self.look;
            gone += usize::from(is_gone);
            if !is_gone || gone <= self.bounds.gone {
                known.insert(record.path, now);
                kept.push(*record);
            }
        }
        kept.reverse();
        self.known = known;
        self.records = kept.len();
        self.rewrite_at = self.next_rewrite();
        for (number, part) in (next..).zip(kept.chunks(self.bounds.page)) {
            changes.push(write(number, part));
            self.pages.insert(number, part.to_vec());
        }
    }

    /// Half of what is written then says nothing any more, or there is little of it.
    fn next_rewrite(&self) -> usize {
        (2 * self.records).max(self.bounds.page)
    }
}

fn record(entry: &Entry) -> Record {
    let first = |bytes: &[u8]| -> [u8; 16] {
        let digest = Sha256::digest(bytes);
        *digest.first_chunk().expect("a digest has 32 bytes")
    };
    let version = format!("{} {} {}", entry.size, entry.modified_ns, entry.version);
    Record {
        path: u128::from_be_bytes(first(entry.path.as_bytes())),
        version: (u128::from_be_bytes(first(version.as_bytes())) >> 64) as u64,
    }
}

const fn forget(number: u64) -> Page {
    Page {
        number,
        content: None,
    }
}

/// `u8 format | (16 bytes path | 8 bytes version) ...`.
fn write(number: u64, records: &[Record]) -> Page {
    let mut bytes = BytesMut::with_capacity(1 + RECORD * records.len());
    bytes.put_u8(FORMAT);
    for record in records {
        bytes.put_u128(record.path);
        bytes.put_u64(record.version);
    }
    Page {
        number,
        content: Some(bytes.freeze()),
    }
}

fn records(page: &Bytes) -> Option<Vec<Record>> {
    let (records, rest) = page.strip_prefix(&[FORMAT])?.as_chunks::<RECORD>();
    let read = |bytes: &[u8; RECORD]| {
        let (path, version) = bytes.split_first_chunk::<16>()?;
        Some(Record {
            path: u128::from_be_bytes(*path),
            version: u64::from_be_bytes(version.try_into().ok()?),
        })
    };
    let read: Option<Vec<Record>> = records.iter().map(read).collect();
    read.filter(|_| rest.is_empty())
}

const _: () = assert!(RECORD * limits::FILES_PAGE_RECORDS < PAGE_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize, version: &str) -> Entry {
        Entry {
            path: format!("/in/{number}"),
            size: 1,
            modified_ns: 7,
            version: version.to_owned(),
        }
    }

    const BOUNDS: Bounds = Bounds { gone: 40, page: 16 };

    /// A memory and the pages that are committed.
    struct Rig {
        seen: Seen,
        stored: BTreeMap<u64, Bytes>,
        written: usize,
    }

    impl Rig {
        fn new(bounds: Bounds) -> Self {
            let stored = BTreeMap::new();
            Self {
                seen: Seen::within(bounds, &stored).unwrap(),
                stored,
                written: 0,
            }
        }

        fn learn(&mut self, entries: &[Entry]) {
            for page in self.seen.learn(entries) {
                match page.content {
                    Some(content) => {
                        self.written += content.len();
                        self.stored.insert(page.number, content);
                    }
                    None => drop(self.stored.remove(&page.number).expect("it was written")),
                }
            }
        }

        fn restart(&mut self) {
            self.seen = Seen::within(self.seen.bounds, &self.stored).unwrap();
        }

        /// All of these are there, and nothing else is; how many of them are known.
        fn look(&mut self, entries: &[Entry]) -> usize {
            self.seen.begin_look();
            let known = entries.iter().filter(|entry| self.seen.knows(entry));
            known.count()
        }

        fn stored(&self) -> usize {
            let bytes: usize = self.stored.values().map(|page| page.len() - 1).sum();
            bytes / RECORD
        }
    }

    fn some(range: std::ops::Range<usize>) -> Vec<Entry> {
        range.map(|number| entry(number, "a")).collect()
    }

    #[test]
    fn what_was_learned_is_known_after_a_restart_and_another_version_is_not() {
        let mut rig = Rig::new(BOUNDS);
        let many = some(0..200);
        many.chunks(30).for_each(|part| rig.learn(part));
        rig.restart();
        assert_eq!(rig.look(&many), 200);
        assert!(!rig.seen.knows(&entry(3, "b")));
        rig.learn(&[entry(3, "b")]);
        rig.restart();
        assert!(rig.seen.knows(&entry(3, "b")));
        assert!(!rig.seen.knows(&entry(3, "a")), "one version at a time");
    }

    #[test]
    fn files_that_come_one_by_one_leave_few_pages_and_are_written_a_few_times_each() {
        let mut rig = Rig::new(Bounds::default());
        let all = some(0..1_000);
        for one in &all {
            rig.learn(std::slice::from_ref(one));
        }
        assert!(rig.stored.len() <= 10, "{} pages", rig.stored.len());
        assert!(rig.written <= 1_000 * (RECORD + 1) * 10, "{}", rig.written);
    }

    #[test]
    fn a_folder_that_is_worked_off_is_remembered_in_bounded_room() {
        let mut rig = Rig::new(BOUNDS);
        for from in (0..1_000).step_by(10) {
            let now = some(from..from + 10);
            rig.look(&now);
            rig.learn(&now);
            let most = 2 * (BOUNDS.gone + 10) + 10;
            assert!(rig.stored() <= most, "{} records", rig.stored());
        }
        rig.restart();
        assert_eq!(rig.look(&some(960..1_000)), 40, "the latest");
        assert_eq!(rig.look(&some(0..10)), 0, "the oldest");
    }

    #[test]
    fn what_is_there_is_never_forgotten_however_much_comes_and_goes() {
        let mut rig = Rig::new(BOUNDS);
        let stays = some(0..50);
        rig.look(&stays);
        rig.learn(&stays);
        for from in (1_000..3_000).step_by(10) {
            let now = [stays.clone(), some(from..from + 10)].concat();
            rig.look(&now);
            rig.learn(&now[50..]);
        }
        rig.restart();
        assert_eq!(rig.look(&stays), 50);
    }

    #[test]
    fn pages_of_another_build_are_refused_with_a_cure() {
        for page in [&b"\x02"[..], b"", b"\x01half a record"] {
            let pages = BTreeMap::from([(0, Bytes::copy_from_slice(page))]);
            let refused = Seen::read(&pages).unwrap_err().to_string();
            assert!(refused.contains("another name"), "{refused}");
        }
    }
}
