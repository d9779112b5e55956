//! How long it is kept what tasks printed: by age, and by what all runs have together. Beside this a run has its own
//! bound, which its writer sees to.
//!
//! A check does a bounded piece of work: it lists some folders, or removes some segments, and says whether there is
//! more to do. The segment that is being written is never removed; the last one of a run that prints no more is
//! followed by an empty one first, so that numbers, and with them places in a log, mean one thing for ever.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, ReadDir};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::{append_to, gone_is_fine, index_path, numbers, path};
use crate::limits;

/// How long output of tasks is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRetention {
    /// Lines that are older go, at the latest when they are older by an eighth more.
    pub age: Duration,
    /// Beyond so many bytes, of all runs together, the oldest segments go.
    pub bytes: u64,
}

impl Default for LogRetention {
    fn default() -> Self {
        Self {
            age: limits::LOG_AGE,
            bytes: limits::LOG_BYTES,
        }
    }
}

/// What is known of the files, and what of them has to go.
#[derive(Default)]
pub(super) struct Keeping {
    /// A listing that is under way.
    pass: Option<ReadDir>,
    found: Vec<Old>,
    due: VecDeque<Old>,
}

/// A segment as it was listed.
struct Old {
    folder: OsString,
    number: u64,
    bytes: u64,
    /// When the last of it was written, milliseconds since the Unix epoch.
    ended_ms: u64,
}

impl Keeping {
    /// A bounded piece of it; whether there is more to do. `open`: by folder, the segment that is being written.
    pub(super) fn check(
        &mut self,
        logs: &Path,
        retain: LogRetention,
        now_ms: u64,
        open: &BTreeMap<PathBuf, u64>,
    ) -> io::Result<bool> {
        if self.due.is_empty() && self.list(logs)? {
            return Ok(true);
        }
        if !self.found.is_empty() {
            self.choose(retain, now_ms);
        }
        for _ in 0..limits::LOG_REMOVED_PER_CHECK {
            let Some(old) = self.due.pop_front() else {
                return Ok(false);
            };
            let folder = logs.join(&old.folder);
            if open.get(&folder).is_none_or(|open| old.number < *open) {
                remove(&folder, old.number)?;
            }
        }
        Ok(!self.due.is_empty())
    }

    /// Lists some more folders; whether some are left.
    fn list(&mut self, logs: &Path) -> io::Result<bool> {
        if self.pass.is_none() {
            self.found.clear();
            self.pass = match fs::read_dir(logs) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                folders => Some(folders?),
            };
        }
        for _ in 0..limits::LOG_FOLDERS_PER_CHECK {
            let Some(folder) = self.pass.as_mut().and_then(Iterator::next) else {
                self.pass = None;
                return Ok(false);
            };
            let folder = folder.inspect_err(|_| self.pass = None)?.file_name();
            self.found.extend(segments(logs, &folder));
        }
        Ok(true)
    }

    /// What has to go of what was found, the oldest first.
    fn choose(&mut self, retain: LogRetention, now_ms: u64) {
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|old| (old.ended_ms, old.number));
        let mut bytes: u64 = found.iter().map(|old| old.bytes).sum();
        let age_ms = u64::try_from(retain.age.as_millis()).unwrap_or(u64::MAX);
        let oldest_ms = now_ms.saturating_sub(age_ms);
        for old in found {
            // One that was left in place of others holds nothing.
            let goes = old.bytes > 0 && (bytes > retain.bytes || old.ended_ms < oldest_ms);
            if goes {
                bytes -= old.bytes;
                self.due.push_back(old);
            }
        }
    }
}

/// The segments of a run, with what their indexes take. A folder that goes meanwhile has none.
fn segments(logs: &Path, name: &OsString) -> Vec<Old> {
    let folder = logs.join(name);
    let listed = |number: u64| {
        let found = fs::metadata(path(&folder, number)).ok()?;
        let index = fs::metadata(index_path(&folder, number)).map_or(0, |index| index.len());
        let ended = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        let bytes = found.len();
        Some(Old {
            folder: name.clone(),
            number,
            bytes: if bytes > 0 { bytes + index } else { 0 },
            ended_ms: ended.as_millis() as u64,
        })
    };
    let numbers = numbers(&folder).unwrap_or_default();
    numbers.into_iter().filter_map(listed).collect()
}

/// Removes a segment that nobody writes.
fn remove(folder: &Path, number: u64) -> io::Result<()> {
    if numbers(folder)?.last() == Some(&number) {
        append_to(folder, number + 1)?;
    }
    gone_is_fine(fs::remove_file(path(folder, number)))?;
    gone_is_fine(fs::remove_file(index_path(folder, number)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::super::tests::{line, with_segments_of};
    use super::super::{Kept, LogOrder, LogQuery, RunLogs};
    use super::*;

    const DAY_MS: u64 = 24 * 3_600_000;

    /// A writer with small segments that keeps so much.
    fn keeping(data_dir: &Path, days: u64, bytes: u64) -> Kept {
        Kept {
            retain: LogRetention {
                age: Duration::from_millis(days * DAY_MS),
                bytes,
            },
            ..with_segments_of(data_dir, 1_000)
        }
    }

    /// Checks until there is nothing more to do, and how often that was.
    fn check(kept: &mut Kept, now_ms: u64) -> u32 {
        let mut times = 1;
        while kept.check(now_ms).unwrap() {
            times += 1;
        }
        times
    }

    /// A segment of a run, as if it had been written then.
    fn write(kept: &mut Kept, data_dir: &Path, run: &str, at_ms: u64) {
        let number = last(data_dir, run);
        kept.write(at_ms, &line(run, &"x".repeat(1_000))).unwrap();
        kept.flush().unwrap();
        let file = File::options()
            .write(true)
            .open(path(&data_dir.join("logs").join(run), number));
        let then = UNIX_EPOCH + Duration::from_millis(at_ms);
        file.unwrap().set_modified(then).unwrap();
    }

    fn last(data_dir: &Path, run: &str) -> u64 {
        let numbers = numbers(&data_dir.join("logs").join(run)).unwrap_or_default();
        numbers.last().copied().unwrap_or(1)
    }

    fn times(data_dir: &Path, run: &str) -> Vec<u64> {
        let query = LogQuery {
            order: LogOrder::Oldest,
            limit: 1_000,
            ..LogQuery::default()
        };
        let page = RunLogs::new(data_dir, run).page(&query).unwrap();
        page.entries
            .iter()
            .map(|entry| entry.at_ms / DAY_MS)
            .collect()
    }

    #[test]
    fn lines_older_than_the_age_go_and_so_does_the_last_segment_of_a_run_that_prints_no_more() {
        let place = tempfile::tempdir().unwrap();
        let data_dir = place.path();
        let mut kept = keeping(data_dir, 30, u64::MAX);
        for day in [1, 2, 20, 40] {
            write(&mut kept, data_dir, "on", day * DAY_MS);
        }
        for day in [1, 3] {
            write(&mut kept, data_dir, "ended", day * DAY_MS);
        }
        check(&mut kept, 32 * DAY_MS + 1);
        assert_eq!(
            (times(data_dir, "on"), times(data_dir, "ended")),
            (vec![20, 40], vec![3])
        );
        check(&mut kept, 45 * DAY_MS);
        assert_eq!(times(data_dir, "ended"), Vec::<u64>::new());
        // A place of then is behind nothing of what comes.
        let after = RunLogs::new(data_dir, "ended")
            .page(&LogQuery::default())
            .unwrap()
            .after;
        write(&mut kept, data_dir, "ended", 46 * DAY_MS);
        assert_eq!(times(data_dir, "ended"), [46]);
        assert_eq!(after, "3.0");
    }

    #[test]
    fn of_a_run_that_prints_little_no_line_outlives_the_age_by_more_than_an_eighth() {
        let place = tempfile::tempdir().unwrap();
        let data_dir = place.path();
        let mut kept = Kept {
            segment_bytes: 1 << 20,
            ..keeping(data_dir, 8, u64::MAX)
        };
        for day in 0..30 {
            write(&mut kept, data_dir, "r", day * DAY_MS);
            check(&mut kept, day * DAY_MS);
            let oldest = times(data_dir, "r")[0];
            assert!(day - oldest <= 10, "day {day} has lines of day {oldest}");
        }
        // Over a restart, too: what was begun long ago is closed by who goes on with it.
        write(&mut kept, data_dir, "r", 30 * DAY_MS);
        drop(kept);
        let mut kept = Kept {
            segment_bytes: 1 << 20,
            ..keeping(data_dir, 8, u64::MAX)
        };
        let before = last(data_dir, "r");
        write(&mut kept, data_dir, "r", 36 * DAY_MS);
        check(&mut kept, 36 * DAY_MS);
        assert_eq!(last(data_dir, "r"), before + 1);
    }

    #[test]
    fn beyond_the_total_the_oldest_of_all_runs_go_and_never_what_is_being_written() {
        let place = tempfile::tempdir().unwrap();
        let data_dir = place.path();
        let mut kept = keeping(data_dir, 365, 0);
        for day in [1, 4, 5] {
            write(&mut kept, data_dir, "a", day * DAY_MS);
        }
        for day in [2, 3, 6] {
            write(&mut kept, data_dir, "b", day * DAY_MS);
        }
        let of = |run: &str, day: u64| (times(data_dir, run), day);
        let size: u64 = segments(&data_dir.join("logs"), &"a".into())[0].bytes;
        kept.retain.bytes = 3 * size + size / 2;
        check(&mut kept, 7 * DAY_MS);
        assert_eq!((of("a", 0).0, of("b", 0).0), (vec![4, 5], vec![6]));
        // Even if all of it is too much.
        kept.write(8 * DAY_MS, &line("a", "still being written"))
            .unwrap();
        kept.flush().unwrap();
        kept.retain.bytes = 0;
        check(&mut kept, 8 * DAY_MS);
        assert_eq!((of("a", 0).0, of("b", 0).0), (vec![8], vec![]));
        kept.write(9 * DAY_MS, &line("a", "goes on")).unwrap();
        kept.flush().unwrap();
        assert_eq!(times(data_dir, "a"), [8, 9]);
    }

    #[test]
    fn a_check_lists_and_removes_so_much_and_comes_back_for_the_rest() {
        let place = tempfile::tempdir().unwrap();
        let logs = place.path().join("logs");
        let count = limits::LOG_FOLDERS_PER_CHECK * 2 + 5;
        for run in 0..count {
            let folder = logs.join(format!("run-{run}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(path(&folder, 1), "{\"at_ms\":1}\n").unwrap();
        }
        let mut kept = keeping(place.path(), 30, 0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let times = check(&mut kept, now.as_millis() as u64);
        let listed = count.div_ceil(limits::LOG_FOLDERS_PER_CHECK);
        let removed = count.div_ceil(limits::LOG_REMOVED_PER_CHECK);
        assert!(
            (listed + removed - 2..=listed + removed + 1).contains(&(times as usize)),
            "{times}"
        );
        let left = (0..count).map(|run| segments(&logs, &format!("run-{run}").into()));
        assert_eq!(left.flatten().map(|old| old.bytes).sum::<u64>(), 0);
    }

    #[test]
    fn so_many_logs_are_open_at_a_time_and_those_let_go_are_gone_on_with() {
        let place = tempfile::tempdir().unwrap();
        let mut kept = Kept {
            open_max: 2,
            ..keeping(place.path(), 30, u64::MAX)
        };
        for round in 0..3 {
            for run in ["a", "b", "c"] {
                kept.write(round * DAY_MS, &line(run, "x")).unwrap();
                assert!(kept.open.len() <= 2);
            }
        }
        kept.flush().unwrap();
        for run in ["a", "b", "c"] {
            assert_eq!(times(place.path(), run), [0, 1, 2]);
        }
        assert_eq!(kept.lost(), 0);
    }

    #[test]
    fn who_reads_while_segments_are_removed_gets_each_line_once_or_hears_that_some_are_gone() {
        let place = tempfile::tempdir().unwrap();
        let (data_dir, count) = (place.path().to_owned(), 6_000);
        let writer = std::thread::spawn(move || {
            let mut kept = keeping(&data_dir, 365, 20_000);
            for number in 0..count {
                kept.write(number, &line("r", "x")).unwrap();
                if number % 50 == 0 {
                    kept.check(DAY_MS).unwrap();
                }
            }
            kept.flush().unwrap();
        });
        let logs = RunLogs::new(place.path(), "r");
        let mut query = LogQuery {
            order: LogOrder::Oldest,
            from: Some(super::super::LogPlace::default()),
            limit: 100,
            ..LogQuery::default()
        };
        let mut next = 0;
        while next < count {
            let page = logs.page(&query).unwrap();
            for entry in page.entries {
                assert!(
                    entry.at_ms == next || page.missed && entry.at_ms > next,
                    "{entry:?}"
                );
                next = entry.at_ms + 1;
            }
            query.from = Some(page.after.parse().unwrap());
            let newest = LogQuery {
                limit: 5,
                ..LogQuery::default()
            };
            let newest = logs.page(&newest).unwrap().entries;
            assert!(newest.is_sorted_by(|one, two| one.at_ms > two.at_ms));
        }
        writer.join().unwrap();
    }
}
