//! When each token was used last, `DATA_DIR/tokens.used`: so that tokens that nobody uses are found and taken back.
//!
//! It is known to the minute, so a busy token costs a write a minute. What cannot be kept is lost: nobody is kept
//! waiting, or out, for it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::limits;

/// By the ids of tokens, milliseconds since the Unix epoch.
pub(super) type Times = BTreeMap<String, u64>;

pub(super) struct Used {
    path: PathBuf,
    /// As it was written last; none before it was needed.
    known: Mutex<Option<Times>>,
}

impl Used {
    pub(super) fn at(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join("tokens.used"),
            known: Mutex::default(),
        }
    }

    /// What is kept.
    pub(super) fn read(&self) -> Times {
        let bytes = fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// A token was used; of those that are no more nothing is kept.
    pub(super) fn mark(&self, id: &str, now_ms: u64, is_token: impl Fn(&str) -> bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let times = known.get_or_insert_with(|| self.read());
        let fresh = |last: &u64| now_ms.abs_diff(*last) < limits::USED_TO_MS;
        if times.get(id).is_some_and(fresh) {
            return;
        }
        times.insert(id.to_owned(), now_ms);
        times.retain(|id, _| is_token(id));
        self.write(times).ok();
    }

    /// Not synced: after a power loss it is a minute older.
    fn write(&self, times: &Times) -> io::Result<()> {
        let half = self.path.with_extension("used.new");
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        options
            .open(&half)?
            .write_all(&serde_json::to_vec(times)?)?;
        fs::rename(&half, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S03.
    #[test]
    fn the_last_use_of_a_token_is_known_to_the_minute_and_gone_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let used = Used::at(folder.path());
        let kept = |id: &str| Used::at(folder.path()).read().get(id).copied();
        let minute = limits::USED_TO_MS;
        for (now, id, expected) in [
            (10 * minute, "a", 10 * minute),
            (11 * minute - 1, "a", 10 * minute),
            (11 * minute, "a", 11 * minute),
            (11 * minute, "b", 11 * minute),
            // A clock that was set back is followed.
            (5 * minute, "a", 5 * minute),
        ] {
            used.mark(id, now, |_| true);
            assert_eq!(kept(id), Some(expected), "{id} at {now}");
        }
        used.mark("c", 20 * minute, |id| id != "a");
        assert_eq!(
            (kept("a"), kept("b"), kept("c")),
            (None, Some(11 * minute), Some(20 * minute))
        );
        fs::write(folder.path().join("tokens.used"), "{").unwrap();
        Used::at(folder.path()).mark("d", 1, |_| true);
        assert_eq!((kept("c"), kept("d")), (None, Some(1)));
    }
}
