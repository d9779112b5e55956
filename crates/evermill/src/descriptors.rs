//! How many files and connections this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// As many as an engine with a thousand connections and a full store ever has, and more.
const ENOUGH: u64 = 65_536;

/// Asks the system for more than the 1,024 that a shell usually gives, as far as we may: an engine that has none left
/// can open neither a file of its store nor a pipe to a worker. Programs that we start get as many.
pub(crate) fn allow_many() {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        // What is refused stays as it was.
        setrlimit(Resource::Nofile, limit).ok();
    }
}
