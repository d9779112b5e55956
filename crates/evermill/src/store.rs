//! Opens the store of a locked data directory.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::Retain;
use evermill_engine::{StoreFactory, store_options};
use evermill_store::{DirLock, LockError, Options, SqliteStore};

/// How long a command that took the lock in between may keep it.
const BORROWED: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A factory whose first store takes over `lock`. The store before a later one has let go of the
/// directory, so the lock is taken anew.
pub(crate) fn factory(lock: DirLock, retain: Retain) -> StoreFactory {
    let dir = lock.dir().to_owned();
    let mut first = Some(lock);
    Box::new(move || {
        let lock = first.take().map_or_else(|| take_again(&dir), Ok)?;
        let options = Options {
            history_bytes: retain.bytes,
            history_age: retain.age,
            ..store_options()
        };
        Ok(Box::new(SqliteStore::open(lock, options)?))
    })
}

fn take_again(dir: &Path) -> Result<DirLock, LockError> {
    let deadline = Instant::now() + BORROWED;
    loop {
        match DirLock::take(dir) {
            Err(LockError::Held { .. }) if Instant::now() < deadline => {
                std::thread::sleep(LOOK_AGAIN);
            }
            taken => return taken,
        }
    }
}
