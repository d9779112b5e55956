//! The file of tokens, `DATA_DIR/tokens.json` (0600): who may ask, and what. It holds hashes; a token is shown
//! once, when it is made. Commands change it and a server reads it, whether or not an engine runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use evermill_engine::leave_to_owner;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::used::Used;
use crate::clock::now_ms;
use crate::limits;
use crate::table::Role;

const NAME: &str = "tokens.json";
/// Beside it: who holds this changes it.
const LOCK: &str = "tokens.lock";
/// Where tokens begin, so that scanners of text know them.
const PREFIX: &str = "evermill_";

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Names it; no secret.
    pub id: String,
    /// Whose it is, in words.
    pub name: String,
    /// SHA-256 of it, in hexadecimal digits.
    hash: String,
    /// What it is good for.
    pub role: Role,
    /// DAGs that it is good for; `None`: all.
    pub dags: Option<BTreeSet<String>>,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it ends, likewise.
    pub expires_ms: Option<u64>,
}

/// A token that somebody wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Whose it will be, in words; no other token has this name.
    pub name: String,
    /// What it will be good for.
    pub role: Role,
    /// DAGs that it will be good for; `None`: all.
    pub dags: Option<BTreeSet<String>>,
    /// When it will end, milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
}

/// Why the tokens could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenFault {
    /// The file is not there, not ours, or the disk is full.
    #[error("{}: {cause}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// Somebody else wrote it.
    #[error("{}: {cause}; move it away, and make the tokens anew", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
    /// The name is taken.
    #[error("there is a token '{0}' already; revoke it first, or choose another --name")]
    Taken(String),
    /// There are as many as there may be.
    #[error("there are {0} tokens, and there may be no more; revoke some")]
    Full(usize),
    /// No token has this id or name.
    #[error("there is no token '{0}'; `evermill token ls` lists them")]
    Unknown(String),
}

impl Token {
    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.expires_ms.is_some_and(|end| end <= now_ms())
    }
}

/// The file, and what was in it when it was last looked at.
pub struct Tokens {
    folder: PathBuf,
    used: Used,
    seen: Mutex<Option<Seen>>,
}

#[derive(Clone)]
struct Seen {
    /// Tells one state of the file from the next: it is replaced, never changed.
    state: (u64, i64, i64, u64),
    tokens: Arc<Vec<Token>>,
}

impl Tokens {
    /// Those of a data directory.
    #[must_use]
    pub fn at(data_dir: &Path) -> Self {
        Self {
            folder: data_dir.to_owned(),
            used: Used::at(data_dir),
            seen: Mutex::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// Whether there is such a file; then everybody needs a token, also when the last one was revoked.
    #[must_use]
    pub fn are_used(&self) -> bool {
        // What cannot be looked at is no permission.
        !matches!(fs::metadata(self.path()), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// All of them, in the order in which they were made.
    ///
    /// # Errors
    /// The file cannot be read, or is not ours.
    pub fn list(&self) -> Result<Vec<Token>, TokenFault> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(TokenFault::Io { path, cause }),
        };
        serde_json::from_slice(&bytes).map_err(|cause| TokenFault::Damaged { path, cause })
    }

    /// When they were used last over TCP, by their ids, to the minute, milliseconds since the Unix epoch. What never was
    /// is not there.
    #[must_use]
    pub fn last_used(&self) -> BTreeMap<String, u64> {
        self.used.read()
    }

    /// Somebody has shown it.
    pub(crate) fn mark_used(&self, id: &str) {
        let is_token = |id: &str| self.with_id(id).is_some();
        self.used.mark(id, now_ms(), is_token);
    }

    /// What is in the file now; nothing when it cannot be read, so that nobody gets in.
    fn now(&self) -> Arc<Vec<Token>> {
        let Ok(found) = fs::metadata(self.path()) else {
            return Arc::default();
        };
        let state = (found.ino(), found.mtime(), found.mtime_nsec(), found.len());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.as_ref().filter(|seen| seen.state == state) {
            return Arc::clone(&seen.tokens);
        }
        let tokens = Arc::new(self.list().unwrap_or_default());
        *seen = Some(Seen {
            state,
            tokens: Arc::clone(&tokens),
        });
        tokens
    }

    /// The token of this hash, if it is good.
    pub(crate) fn find(&self, hash: &[u8; 32]) -> Option<Token> {
        let wanted = hex(hash);
        let tokens = self.now();
        // Each is compared whole, whatever the first difference is.
        let same = |token: &&Token| {
            let pairs = token.hash.bytes().zip(wanted.bytes());
            let differences = pairs.fold(0, |sum, (a, b)| sum | (a ^ b));
            token.hash.len() == wanted.len() && differences == 0
        };
        let found = tokens.iter().find(same);
        found.filter(|token| !token.is_over()).cloned()
    }

    /// The token of this id, if it is good.
    pub(crate) fn with_id(&self, id: &str) -> Option<Token> {
        let tokens = self.now();
        let found = tokens.iter().find(|token| token.id == id);
        found.filter(|token| !token.is_over()).cloned()
    }

    /// Makes a token; the secret is nowhere afterwards.
    ///
    /// # Errors
    /// The name is taken, or the file cannot be written.
    pub fn create(&self, wanted: Wanted) -> Result<(Token, String), TokenFault> {
        let _lock = self.lock()?;
        let mut tokens = self.list()?;
        if tokens.iter().any(|token| token.name == wanted.name) {
            return Err(TokenFault::Taken(wanted.name));
        }
        if tokens.len() >= limits::TOKENS_MAX {
            return Err(TokenFault::Full(tokens.len()));
        }
        let path = PathBuf::from(RANDOM);
        let random = random().map_err(|cause| TokenFault::Io { path, cause })?;
        let secret = format!("{PREFIX}{random}");
        let hash = hex(&Sha256::digest(secret.as_bytes()).into());
        let token = Token {
            id: hash[..8].to_owned(),
            name: wanted.name,
            hash,
            role: wanted.role,
            dags: wanted.dags,
            created_ms: now_ms(),
            expires_ms: wanted.expires_ms,
        };
        tokens.push(token.clone());
        self.write(&tokens)?;
        Ok((token, secret))
    }

    /// Takes a token back, by its id or name.
    ///
    /// # Errors
    /// There is none, or the file cannot be written.
    pub fn revoke(&self, id_or_name: &str) -> Result<Token, TokenFault> {
        let _lock = self.lock()?;
        let mut tokens = self.list()?;
        let is_meant = |token: &Token| token.id == id_or_name || token.name == id_or_name;
        let Some(at) = tokens.iter().position(is_meant) else {
            return Err(TokenFault::Unknown(id_or_name.to_owned()));
        };
        let gone = tokens.remove(at);
        self.write(&tokens)?;
        Ok(gone)
    }

    fn io(&self, name: &str) -> impl Fn(io::Error) -> TokenFault + use<> {
        let path = self.folder.join(name);
        move |cause| TokenFault::Io {
            path: path.clone(),
            cause,
        }
    }

    /// One changes it at a time.
    fn lock(&self) -> Result<File, TokenFault> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let path = self.folder.join(LOCK);
        let file = options.open(&path).map_err(self.io(LOCK))?;
        leave_to_owner(&file, &path).map_err(self.io(LOCK))?;
        file.lock().map_err(self.io(LOCK))?;
        Ok(file)
    }

    /// Puts a new file in the place of the old one, durably.
    fn write(&self, tokens: &[Token]) -> Result<(), TokenFault> {
        let text = serde_json::to_vec_pretty(tokens).expect("tokens have string keys only");
        let half = self.folder.join(format!("{NAME}.new"));
        let written = || {
            // Left over from a crash, and with another mode perhaps.
            match fs::remove_file(&half) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = OpenOptions::new();
            let mut file = options
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&half)?;
            leave_to_owner(&file, &half)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&half, self.path())?;
            File::open(&self.folder)?.sync_all()
        };
        written().map_err(self.io(NAME))
    }
}

const RANDOM: &str = "/dev/urandom";

/// 256 bits nobody can guess, in letters and digits.
pub(crate) fn random() -> io::Result<String> {
    let mut bytes = [0; 32];
    File::open(RANDOM)?.read_exact(&mut bytes)?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, expires_ms: Option<u64>) -> Wanted {
        Wanted {
            name: name.to_owned(),
            role: Role::Viewer,
            dags: None,
            expires_ms,
        }
    }

    fn hash(secret: &str) -> [u8; 32] {
        Sha256::digest(secret.as_bytes()).into()
    }

    /// S03.
    #[test]
    fn a_token_is_found_by_its_hash_until_it_is_revoked_or_over() {
        let folder = tempfile::tempdir().unwrap();
        let server = Tokens::at(folder.path());
        assert!(!server.are_used());
        let commands = Tokens::at(folder.path());
        let (token, secret) = commands.create(wanted("ci", None)).unwrap();
        assert!(secret.len() >= 64 && secret.starts_with(PREFIX));
        assert_eq!(
            server.find(&hash(&secret)).map(|found| found.id),
            Some(token.id.clone())
        );
        assert!(server.find(&hash("evermill_guess")).is_none());
        let (_, late) = commands.create(wanted("late", Some(1))).unwrap();
        assert!(server.find(&hash(&late)).is_none(), "it is over");
        commands.revoke("ci").unwrap();
        assert!(server.find(&hash(&secret)).is_none());
        assert!(server.with_id(&token.id).is_none());
        commands.revoke("late").unwrap();
        assert!(
            server.are_used(),
            "without tokens nobody gets in, not everybody"
        );
    }

    /// S03.
    #[test]
    fn the_file_holds_no_token_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::at(folder.path());
        let (_, secret) = tokens.create(wanted("a", None)).unwrap();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            let text = fs::read_to_string(entry.path()).unwrap();
            assert!(
                !text.contains(&secret[PREFIX.len()..]),
                "{:?}",
                entry.path()
            );
            assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600);
        }
        let again = tokens.create(wanted("a", None));
        assert!(matches!(again, Err(TokenFault::Taken(_))));
        assert!(matches!(tokens.revoke("b"), Err(TokenFault::Unknown(_))));
    }

    #[test]
    fn a_file_that_is_not_ours_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), "[{\"id\": 7}]").unwrap();
        let tokens = Tokens::at(folder.path());
        assert!(tokens.are_used() && tokens.now().is_empty());
        let refused = tokens.list().unwrap_err().to_string();
        assert!(refused.contains("tokens.json"), "{refused}");
    }
}
