//! Tests that need a process to kill start this test binary again, for one of its tests.

use std::io::Write as _;
use std::path::PathBuf;

/// Set for a child: the directory it works on.
pub const DIR: &str = "EVERMILL_STORE_CHILD_DIR";

/// The directory, when this process is a child.
pub fn dir() -> Option<PathBuf> {
    std::env::var_os(DIR).map(PathBuf::from)
}

/// A line on standard output that does not wait in a buffer.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .expect("standard output");
}
