//! Who changed what, and when: `DATA_DIR/audit.log`, a line of JSON for each request that was to change
//! something, over TCP and over the control socket, and for each command that changed something without a server.
//!
//! Each line holds the hash of the one before, so that a line that was changed or taken out later shows.
//! Lines hold no bodies: what was sent may be a secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use evermill_engine::leave_to_owner;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock::now_ms;
use crate::limits;

const NAME: &str = "audit.log";
/// Beside it: who holds this adds to it.
const LOCK: &str = "audit.lock";
/// The file before, once the one that is written to is full.
const BEFORE: &str = "audit.log.1";

/// What was to be changed, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// When it was answered, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The name of the token, `local` for loopback without tokens, `uid N` for the control socket and for
    /// commands.
    pub who: String,
    /// The address, `control.sock`, or `command` for what a command did without a server.
    pub from: String,
    /// `POST`, `PUT` or `DELETE`; `RUN` for a command that no resource is like.
    pub method: String,
    /// Path and query, or the words of the command.
    pub target: String,
    /// The HTTP status of the answer: below 300 it was done.
    pub status: u16,
    /// The hash of the line before; of the first one, empty.
    pub before: String,
}

/// Which entries somebody looks for; every field narrows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sought {
    /// Only what this one did: [`Entry::who`].
    pub who: Option<String>,
    /// Only where this stands in method and target.
    pub what: Option<String>,
    /// Only what was refused or failed.
    pub refused: bool,
    /// Only what was done then or later, milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Only what was done before, likewise.
    pub until_ms: Option<u64>,
}

impl Sought {
    /// Whether an entry is one of those.
    #[must_use]
    pub fn fits(&self, entry: &Entry) -> bool {
        let line = || format!("{} {}", entry.method, entry.target);
        self.who.as_ref().is_none_or(|who| *who == entry.who)
            && self.what.as_ref().is_none_or(|what| line().contains(what))
            && (!self.refused || entry.status >= 300)
            && self.since_ms.is_none_or(|since| entry.at_ms >= since)
            && self.until_ms.is_none_or(|until| entry.at_ms < until)
    }
}

/// The record of a data directory.
///
/// Several processes may add to it: a server, and commands that change what no server has to be asked for.
pub struct Audit {
    folder: PathBuf,
}

/// What was read back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Entries, oldest first.
    pub entries: Vec<Entry>,
    /// Lines that do not follow from the one before, or are no entries: somebody changed the file there.
    pub broken: Vec<usize>,
}

impl Audit {
    /// That of a data directory; nothing is written before there is something to tell.
    #[must_use]
    pub fn at(data_dir: &Path) -> Self {
        Self {
            folder: data_dir.to_owned(),
        }
    }

    /// Adds an entry. `before` and `at_ms` are filled in here.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&self, mut entry: Entry) -> io::Result<()> {
        // Whoever adds knows the line before.
        let lock = self.file(LOCK)?;
        lock.lock()?;
        let (mut file, last) = self.last_line()?;
        if file.metadata()?.len() >= limits::AUDIT_BYTES {
            fs::rename(self.folder.join(NAME), self.folder.join(BEFORE))?;
            file = self.file(NAME)?;
        }
        entry.before = last;
        entry.at_ms = now_ms();
        let mut line = serde_json::to_vec(&entry).expect("an entry has string keys only");
        line.push(b'\n');
        file.write_all(&line)
    }

    fn file(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).read(true).mode(0o600);
        let path = self.folder.join(name);
        let file = options.open(&path)?;
        leave_to_owner(&file, &path)?;
        Ok(file)
    }

    /// Where the one before left off. A line that it did not finish is ended here.
    fn last_line(&self) -> io::Result<(File, String)> {
        let mut file = self.file(NAME)?;
        let length = file.metadata()?.len();
        let tail = length.min(limits::AUDIT_LINE_BYTES);
        file.seek(SeekFrom::Start(length - tail))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            file.write_all(b"\n")?;
        }
        let mut lines = bytes.split(|byte| *byte == b'\n').rev();
        let last = lines.find(|line| !line.is_empty());
        Ok((file, last.map(hash).unwrap_or_default()))
    }

    /// Everything that is kept, checked.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&self) -> io::Result<Record> {
        let mut found = Record::default();
        let (mut last, mut number) = (None, 0);
        for name in [BEFORE, NAME] {
            let file = match File::open(self.folder.join(name)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for line in BufReader::new(file).split(b'\n') {
                let line = line?;
                number += 1;
                match serde_json::from_slice::<Entry>(&line) {
                    Ok(entry) => {
                        if last.as_ref().is_some_and(|last| *last != entry.before) {
                            found.broken.push(number);
                        }
                        found.entries.push(entry);
                    }
                    Err(_) => found.broken.push(number),
                }
                last = Some(hash(&line));
            }
        }
        Ok(found)
    }
}

fn hash(line: &[u8]) -> String {
    let hash = Sha256::digest(line);
    hash.iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(target: &str) -> Entry {
        Entry {
            at_ms: 0,
            who: "ci".to_owned(),
            from: "127.0.0.1".to_owned(),
            method: "POST".to_owned(),
            target: target.to_owned(),
            status: 200,
            before: String::new(),
        }
    }

    /// S17.
    #[test]
    fn a_line_that_was_changed_or_taken_out_shows() {
        let folder = tempfile::tempdir().unwrap();
        for target in ["/a", "/b"] {
            Audit::at(folder.path()).add(entry(target)).unwrap();
        }
        let audit = Audit::at(folder.path());
        audit.add(entry("/c")).unwrap();
        audit.add(entry("/d")).unwrap();
        let found = audit.read().unwrap();
        let targets: Vec<&str> = found.entries.iter().map(|entry| &*entry.target).collect();
        assert_eq!(
            (targets, found.broken),
            (vec!["/a", "/b", "/c", "/d"], vec![])
        );

        let path = folder.path().join(NAME);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"/b\"", "\"/x\"")).unwrap();
        assert_eq!(
            audit.read().unwrap().broken,
            [3],
            "what follows /b does not know it"
        );
        let without: Vec<&str> = text
            .lines()
            .filter(|line| !line.contains("\"/c\""))
            .collect();
        fs::write(&path, without.join("\n") + "\n").unwrap();
        assert_eq!(audit.read().unwrap().broken, [3]);
    }

    /// S17.
    #[test]
    fn several_who_add_by_turns_know_each_others_lines() {
        let folder = tempfile::tempdir().unwrap();
        let (server, command) = (Audit::at(folder.path()), Audit::at(folder.path()));
        for (audit, target) in [(&server, "/a"), (&command, "/b"), (&server, "/c")] {
            audit.add(entry(target)).unwrap();
        }
        let found = server.read().unwrap();
        assert_eq!((found.entries.len(), found.broken), (3, vec![]));
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_told_and_the_next_ones_follow_it() {
        let folder = tempfile::tempdir().unwrap();
        Audit::at(folder.path()).add(entry("/a")).unwrap();
        let path = folder.path().join(NAME);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"at_ms\": 1");
        fs::write(&path, text).unwrap();
        Audit::at(folder.path()).add(entry("/b")).unwrap();
        let found = Audit::at(folder.path()).read().unwrap();
        assert_eq!(found.entries.len(), 2);
        assert_eq!(found.broken, [2]);
    }
}
