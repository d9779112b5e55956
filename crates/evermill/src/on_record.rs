//! What a command changes without a server goes on record, too: `DATA_DIR/audit.log`, beside what was asked over
//! HTTP.

use std::path::Path;

use evermill_api::{Audit, Entry};

/// Puts on record what this user's command has done.
pub(crate) fn add(data_dir: &Path, method: &str, target: &str) {
    add_with(data_dir, method, target, 200);
}

/// The same, with the status that a server would have answered.
pub(crate) fn add_with(data_dir: &Path, method: &str, target: &str, status: u16) {
    let entry = Entry {
        at_ms: 0,
        who: format!("uid {}", rustix::process::getuid().as_raw()),
        from: "command".to_owned(),
        method: method.to_owned(),
        target: target.to_owned(),
        status,
        before: String::new(),
    };
    // It is done already.
    if let Err(cause) = Audit::at(data_dir).add(entry) {
        eprintln!(
            "warning: this is not on record: {}: {cause}",
            data_dir.display()
        );
    }
}
