//! Which files are events: not seen before, whole, in order. Decides on what a place answered; asks nothing
//! and has no clock of its own.
//!
//! | a version of a file is | and | it becomes |
//! |---|---|---|
//! | not known | the place shows files before they are whole | waiting |
//! | not known | it does not, or the file was moved here whole | ready |
//! | waiting | the same at a look after the settle time | ready |
//! | waiting | another one at any look | waiting, from then on |
//! | waiting | gone | forgotten |
//! | ready | handed out | known |

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use evermill_contract::source::{Page, SourceError};

use super::place::Entry;
use super::seen::Seen;

pub(super) struct Watch {
    seen: Seen,
    settle_ms: u64,
    /// What is there at the first look counts as seen.
    passes_first: bool,
    /// A whole look has been had at this place.
    had_look: bool,
    waiting: HashMap<String, Waiting>,
    ready: VecDeque<Entry>,
    /// What is ready is only to be remembered.
    silent: bool,
    /// The first look is to be remembered once all of it is handed out.
    tells_look: bool,
}

struct Waiting {
    entry: Entry,
    since_ms: u64,
}

/// What is to be committed together.
#[derive(Debug)]
pub(super) struct Step {
    /// Events, unless they were there before anybody looked.
    pub(super) events: Vec<Entry>,
    pub(super) pages: Vec<Page>,
    /// It is the last one of the first look.
    pub(super) ends_first_look: bool,
}

impl Watch {
    /// One that goes on from what is stored; `had_look` if that says so.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when another build wrote that.
    pub(super) fn new(
        pages: &BTreeMap<u64, Bytes>,
        had_look: bool,
        settle_ms: u64,
        passes_first: bool,
    ) -> Result<Self, SourceError> {
        Ok(Self {
            seen: Seen::read(pages)?,
            settle_ms,
            passes_first,
            had_look,
            waiting: HashMap::new(),
            ready: VecDeque::new(),
            silent: false,
            tells_look: false,
        })
    }

    /// Everything that is in the place, or, unless `whole`, everything of it that could be seen.
    pub(super) fn listed(&mut self, now_ms: u64, entries: Vec<Entry>, whole: bool) {
        assert!(self.ready.is_empty(), "nothing is asked before all is told");
        let first = !self.had_look;
        self.silent = first && self.passes_first;
        if whole {
            self.seen.begin_look();
            self.tells_look = first;
            self.had_look = true;
        }
        let mut waited = std::mem::take(&mut self.waiting);
        let mut ready = Vec::new();
        for entry in entries {
            let before = waited.remove(&entry.path);
            self.judge(now_ms, entry, before, self.silent, &mut ready);
        }
        if !whole {
            self.waiting.extend(waited);
        }
        self.line_up(ready);
    }

    /// These again; those of `moved_here` are whole as they are.
    pub(super) fn looked(
        &mut self,
        now_ms: u64,
        paths: &[String],
        found: Vec<Option<Entry>>,
        moved_here: bool,
    ) {
        assert!(self.ready.is_empty(), "nothing is asked before all is told");
        self.silent = false;
        let mut ready = Vec::new();
        for (path, entry) in paths.iter().zip(found) {
            let before = self.waiting.remove(path);
            if let Some(entry) = entry {
                self.judge(now_ms, entry, before, moved_here, &mut ready);
            }
        }
        self.line_up(ready);
    }

    fn judge(
        &mut self,
        now_ms: u64,
        entry: Entry,
        before: Option<Waiting>,
        is_whole: bool,
        ready: &mut Vec<Entry>,
    ) {
        if self.seen.knows(&entry) {
            return;
        }
        let since_ms = match before {
            Some(before) if before.entry == entry => before.since_ms,
            _ => now_ms,
        };
        if is_whole || now_ms >= since_ms + self.settle_ms {
            ready.push(entry);
        } else {
            let path = entry.path.clone();
            self.waiting.insert(path, Waiting { entry, since_ms });
        }
    }

    fn line_up(&mut self, mut ready: Vec<Entry>) {
        let order = |one: &Entry, other: &Entry| {
            (one.modified_ns, &one.path).cmp(&(other.modified_ns, &other.path))
        };
        ready.sort_unstable_by(order);
        self.ready = ready.into();
    }

    /// What is to be handed out next, at most so many files.
    pub(super) fn next(&mut self, most: usize) -> Option<Step> {
        if self.ready.is_empty() && !self.tells_look {
            return None;
        }
        let count = self.ready.len().min(most);
        let files: Vec<Entry> = self.ready.drain(..count).collect();
        let pages = match files.is_empty() {
            true => Vec::new(),
            false => self.seen.learn(&files),
        };
        let ends_first_look = self.ready.is_empty() && std::mem::take(&mut self.tells_look);
        Some(Step {
            events: if self.silent { Vec::new() } else { files },
            pages,
            ends_first_look,
        })
    }

    /// Nothing is ready and nothing waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.ready.is_empty() && !self.tells_look && self.waiting.is_empty()
    }

    /// When a file that waits has to be looked at again.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let due = self.waiting.values();
        due.map(|waiting| waiting.since_ms + self.settle_ms).min()
    }

    /// The files to be looked at again by now.
    pub(super) fn due(&self, now_ms: u64) -> Vec<String> {
        let due = self.waiting.values();
        let due = due.filter(|waiting| waiting.since_ms + self.settle_ms <= now_ms);
        due.map(|waiting| waiting.entry.path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: u64 = 1_000;

    fn entry(path: &str, modified: i64, version: &str) -> Entry {
        Entry {
            path: path.to_owned(),
            size: 1,
            modified_ns: modified,
            version: version.to_owned(),
        }
    }

    fn watch() -> Watch {
        Watch::new(&BTreeMap::new(), true, SETTLE, false).unwrap()
    }

    fn told(watch: &mut Watch) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(step) = watch.next(2) {
            assert!(step.events.len() <= 2);
            told.extend(step.events.into_iter().map(|entry| entry.path));
        }
        told
    }

    #[test]
    fn a_file_is_an_event_once_it_has_not_changed_for_the_settle_time() {
        let mut watch = watch();
        watch.listed(0, vec![entry("a", 1, "1")], true);
        assert!(told(&mut watch).is_empty() && !watch.is_quiet());
        assert_eq!(watch.due_ms(), Some(1_000));
        // Still being written.
        watch.listed(900, vec![entry("a", 2, "2")], true);
        watch.listed(1_000, vec![entry("a", 2, "2")], true);
        assert!(told(&mut watch).is_empty());
        assert_eq!(watch.due(1_899), Vec::<String>::new());
        let due = watch.due(1_900);
        watch.looked(1_900, &due, vec![Some(entry("a", 2, "2"))], false);
        assert_eq!(told(&mut watch), ["a"]);
        watch.listed(2_000, vec![entry("a", 2, "2")], true);
        assert!(told(&mut watch).is_empty() && watch.is_quiet());
    }

    #[test]
    fn each_version_of_a_file_is_an_event_and_its_end_is_none() {
        let mut watch = watch();
        let mut see = |at, entries: Vec<Entry>| {
            watch.listed(at, entries.clone(), true);
            watch.listed(at + SETTLE, entries, true);
            told(&mut watch).len()
        };
        // Replaced: the same size and time, another file.
        assert_eq!(see(0, vec![entry("a", 1, "inode 1")]), 1);
        assert_eq!(see(2_000, vec![entry("a", 1, "inode 2")]), 1);
        assert_eq!(see(4_000, vec![]), 0);
        assert_eq!(see(6_000, vec![entry("a", 1, "inode 2")]), 0, "it was away");
        assert_eq!(see(8_000, vec![entry("a", 1, "inode 1")]), 1);
    }

    #[test]
    fn files_come_by_age_then_by_name() {
        let mut watch = watch();
        let all = ["d", "b", "c", "a"].map(|name| entry(name, i64::from(name == "a"), "1"));
        watch.listed(0, all.to_vec(), true);
        watch.listed(SETTLE, all.to_vec(), true);
        assert_eq!(told(&mut watch), ["b", "c", "d", "a"]);
    }

    #[test]
    fn one_that_was_moved_here_does_not_wait() {
        let mut watch = watch();
        let paths = ["a".to_owned(), "gone".to_owned()];
        watch.looked(5, &paths, vec![Some(entry("a", 1, "1")), None], true);
        assert_eq!(told(&mut watch), ["a"]);
        watch.looked(6, &paths, vec![Some(entry("a", 1, "1")), None], true);
        assert!(told(&mut watch).is_empty() && watch.is_quiet());
    }

    #[test]
    fn one_that_goes_while_it_waits_is_forgotten_unless_the_look_was_not_whole() {
        let mut watch = watch();
        watch.listed(0, vec![entry("a", 1, "1")], true);
        watch.listed(500, vec![], false);
        assert!(!watch.is_quiet());
        watch.listed(600, vec![], true);
        assert!(watch.is_quiet());
    }

    #[test]
    fn what_is_there_at_the_first_look_is_passed_over_if_asked_for() {
        let mut watch = Watch::new(&BTreeMap::new(), false, SETTLE, true).unwrap();
        let three = ["a", "b", "c"].map(|name| entry(name, 1, "1"));
        watch.listed(0, three.to_vec(), true);
        let steps: Vec<Step> = std::iter::from_fn(|| watch.next(2)).collect();
        assert_eq!(steps.len(), 2);
        assert!(steps.iter().all(|step| step.events.is_empty()));
        assert!(!steps[0].ends_first_look && steps[1].ends_first_look);
        watch.listed(9_000, [&three[..], &[entry("d", 2, "1")]].concat(), true);
        watch.looked(
            11_000,
            &["d".to_owned()],
            vec![Some(entry("d", 2, "1"))],
            false,
        );
        assert_eq!(told(&mut watch), ["d"]);
    }

    #[test]
    fn the_first_look_is_remembered_also_when_it_finds_nothing() {
        let mut watch = Watch::new(&BTreeMap::new(), false, SETTLE, true).unwrap();
        watch.listed(0, vec![], false);
        assert!(watch.next(9).is_none(), "that was not all there is");
        watch.listed(1, vec![], true);
        assert!(watch.next(9).unwrap().ends_first_look);
        assert!(watch.next(9).is_none());
    }
}
