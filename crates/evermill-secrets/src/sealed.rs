//! Values in a file, each sealed by itself (ChaCha20-Poly1305) under a random nonce, with what it is
//! and what it is called as associated data: a value that is moved under another name does not open.
//!
//! Names stand in the file as they are, so that they can be listed without the key. The file is
//! replaced as a whole (written beside, synced, renamed), so a reader sees the old one or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::key::{Key, refuse_others};
use crate::limits::{ENTRIES_MAX, FILE_BYTES_MAX, NAME_BYTES_MAX, SECRET_BYTES_MAX};
use crate::owner;
use crate::rotate::Rotated;

const FORMAT: u32 = 1;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Where a connection leads, with its settings.
    Connection,
    /// A secret.
    Secret,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Secret => "secret",
        }
    }
}

/// A file of sealed values, as it was when it was read.
#[derive(Debug)]
pub struct Sealed {
    path: PathBuf,
    held: Held,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    format: u32,
    /// Name of the key; none as long as there is no value.
    key: Option<String>,
    connections: BTreeMap<String, Entry>,
    secrets: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// When it was set, in milliseconds since 1970.
    set_ms: u64,
    nonce: String,
    sealed: String,
}

/// Whether this can be the name of a secret or of a connection.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}

impl Sealed {
    /// Reads the file; without one there are no values.
    ///
    /// # Errors
    /// When others may read it, or it is damaged.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let io = |cause| Error::io(path, cause);
        let file = match File::open(path) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Self::empty(path)),
            opened => opened.map_err(io)?,
        };
        let found = file.metadata().map_err(io)?;
        refuse_others(path, found.permissions().mode())?;
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(io)?;
        let shape = |why: String| Error::Shape {
            path: path.to_owned(),
            why,
        };
        let held: Held = serde_json::from_slice(&text).map_err(|why| shape(why.to_string()))?;
        if held.format != FORMAT {
            return Err(shape(format!("its format is {}", held.format)));
        }
        Ok(Self {
            path: path.to_owned(),
            held,
        })
    }

    fn empty(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            held: Held {
                format: FORMAT,
                key: None,
                connections: BTreeMap::new(),
                secrets: BTreeMap::new(),
            },
        }
    }

    /// Reads the file, changes it and replaces it, while nobody else does.
    ///
    /// # Errors
    /// As [`Sealed::read`], what `change` says, and when it cannot be written.
    pub fn edit<T>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _lock = Self::lock(path)?;
        let mut sealed = Self::read(path)?;
        let done = change(&mut sealed)?;
        sealed.write().map_err(|cause| Error::io(path, cause))?;
        Ok(done)
    }

    /// Whoever holds this changes the file.
    pub(crate) fn lock(path: &Path) -> Result<File, Error> {
        let lock_path = path.with_extension("lock");
        let io = |cause| Error::io(&lock_path, cause);
        let lock = private(&lock_path).map_err(io)?;
        owner::like(&lock, &lock_path, None).map_err(io)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|cause| io(cause.into()))?;
        Ok(lock)
    }

    /// The name of the key that opens it; none as long as there is no value.
    pub(crate) fn key_name(&self) -> Option<&str> {
        self.held.key.as_deref().filter(|_| !self.is_empty())
    }

    /// Seals everything with another key, and replaces the file.
    pub(crate) fn reseal(&mut self, from: &Key, to: &Key) -> Result<Rotated, Error> {
        let mut values = 0;
        for kind in [Kind::Connection, Kind::Secret] {
            let names: Vec<_> = self
                .names(kind)
                .map(|(name, ms)| (name.to_owned(), ms))
                .collect();
            for (name, set_ms) in names {
                let value = self.get(from, kind, &name)?;
                let value = value.expect("a name that is listed has a value");
                let entry = seal(to, kind, &name, &value, set_ms)?;
                self.entries_mut(kind).insert(name, entry);
                values += 1;
            }
        }
        self.held.key = Some(to.name());
        self.write().map_err(|cause| Error::io(&self.path, cause))?;
        Ok(Rotated {
            values,
            from: from.name(),
            to: to.name(),
        })
    }

    fn write(&self) -> std::io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = private(&beside)?;
        owner::like(&file, &beside, Some(&self.path))?;
        file.set_len(0)?;
        file.write_all(&serde_json::to_vec_pretty(&self.held)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        File::open(owner::folder_of(&self.path))?.sync_all()
    }

    /// Names, each with when it was set, in milliseconds since 1970.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = (&str, u64)> {
        let entries = self.entries(kind).iter();
        entries.map(|(name, entry)| (name.as_str(), entry.set_ms))
    }

    /// Whether there is nothing to open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.connections.is_empty() && self.held.secrets.is_empty()
    }

    /// Opens a value; none if there is none of this name.
    ///
    /// # Errors
    /// When the key is another, or the value was changed.
    pub fn get(
        &self,
        key: &Key,
        kind: Kind,
        name: &str,
    ) -> Result<Option<Zeroizing<String>>, Error> {
        let Some(entry) = self.entries(kind).get(name) else {
            return Ok(None);
        };
        self.check(key)?;
        let opened = open(key, kind, name, entry).ok_or_else(|| Error::Changed {
            path: self.path.clone(),
            name: name.to_owned(),
        })?;
        Ok(Some(opened))
    }

    /// Seals a value under a name, in place of what was there.
    ///
    /// # Errors
    /// When the key is not that of the other values, and for values and names that are not possible.
    pub fn put(
        &mut self,
        key: &Key,
        kind: Kind,
        name: &str,
        value: &str,
        now_ms: u64,
    ) -> Result<(), Error> {
        if !is_name(name) {
            return Err(Error::Refused(format!(
                "{name:?} is no name: write letters, digits, '_', '-' and '.', {NAME_BYTES_MAX} at most"
            )));
        }
        if value.is_empty() || value.len() > SECRET_BYTES_MAX {
            let length = value.len();
            return Err(Error::Refused(format!(
                "'{name}': {length} bytes; a value has 1 to {SECRET_BYTES_MAX}"
            )));
        }
        self.check(key)?;
        let count = self.held.connections.len() + self.held.secrets.len();
        if count >= ENTRIES_MAX && !self.entries(kind).contains_key(name) {
            let what = format!("{ENTRIES_MAX} values are kept at most");
            return Err(Error::Refused(what));
        }
        self.held.key = Some(key.name());
        let entry = seal(key, kind, name, value, now_ms)?;
        self.entries_mut(kind).insert(name.to_owned(), entry);
        Ok(())
    }

    /// Forgets a value; whether there was one.
    pub fn remove(&mut self, kind: Kind, name: &str) -> bool {
        self.entries_mut(kind).remove(name).is_some()
    }

    pub(crate) fn check(&self, key: &Key) -> Result<(), Error> {
        let given = key.name();
        match self.key_name() {
            Some(wanted) if wanted != given => Err(Error::Key {
                path: self.path.clone(),
                wanted: wanted.to_owned(),
                given,
            }),
            _ => Ok(()),
        }
    }

    const fn entries(&self, kind: Kind) -> &BTreeMap<String, Entry> {
        match kind {
            Kind::Connection => &self.held.connections,
            Kind::Secret => &self.held.secrets,
        }
    }

    const fn entries_mut(&mut self, kind: Kind) -> &mut BTreeMap<String, Entry> {
        match kind {
            Kind::Connection => &mut self.held.connections,
            Kind::Secret => &mut self.held.secrets,
        }
    }
}

/// A file that its owner alone can read, made if there is none.
fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn cipher(key: &Key) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key.bytes());
    LessSafeKey::new(key.expect("a key has 32 bytes"))
}

fn associated(kind: Kind, name: &str) -> Aad<Vec<u8>> {
    // A name has no newline.
    Aad::from(format!("evermill sealed 1\n{}\n{name}", kind.word()).into_bytes())
}

fn seal(key: &Key, kind: Kind, name: &str, value: &str, now_ms: u64) -> Result<Entry, Error> {
    let mut nonce = [0; NONCE_LEN];
    let filled = SystemRandom::new().fill(&mut nonce);
    filled.map_err(|_| Error::Refused("the system has no random bytes".to_owned()))?;
    let mut bytes = value.as_bytes().to_vec();
    let sealed = cipher(key).seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        associated(kind, name),
        &mut bytes,
    );
    sealed.map_err(|_| Error::Refused(format!("'{name}' cannot be sealed")))?;
    Ok(Entry {
        set_ms: now_ms,
        nonce: STANDARD.encode(nonce),
        sealed: STANDARD.encode(bytes),
    })
}

fn open(key: &Key, kind: Kind, name: &str, entry: &Entry) -> Option<Zeroizing<String>> {
    let nonce = STANDARD.decode(&entry.nonce).ok()?;
    let nonce = Nonce::try_assume_unique_for_key(&nonce).ok()?;
    let mut bytes = Zeroizing::new(STANDARD.decode(&entry.sealed).ok()?);
    let opened = cipher(key).open_in_place(nonce, associated(kind, name), &mut bytes);
    let text = std::str::from_utf8(opened.ok()?).ok()?;
    Some(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf, Key) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let key = Key::create(&folder.path().join("secret.key")).unwrap();
        (folder, path, key)
    }

    fn set(path: &Path, key: &Key, kind: Kind, name: &str, value: &str) -> Result<(), Error> {
        Sealed::edit(path, |sealed| sealed.put(key, kind, name, value, 7))
    }

    /// S08.
    #[test]
    fn a_value_comes_back_and_stands_nowhere_in_the_file() {
        let (folder, path, key) = place();
        set(&path, &key, Kind::Secret, "api_key", "tulips-in-may").unwrap();
        set(&path, &key, Kind::Connection, "shop", "https://h/?token=t").unwrap();
        let sealed = Sealed::read(&path).unwrap();
        let value = sealed.get(&key, Kind::Secret, "api_key").unwrap().unwrap();
        assert_eq!(*value, "tulips-in-may");
        assert_eq!(sealed.get(&key, Kind::Secret, "shop").unwrap(), None);
        assert_eq!(
            sealed.names(Kind::Secret).collect::<Vec<_>>(),
            [("api_key", 7)]
        );
        for entry in fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            let text = fs::read_to_string(entry.path()).unwrap();
            assert!(!text.contains("tulips"), "{}", entry.path().display());
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", entry.path().display());
        }
    }

    /// S08.
    #[test]
    fn two_sealed_values_that_are_exchanged_do_not_open() {
        let (_folder, path, key) = place();
        set(&path, &key, Kind::Secret, "a", "value of a").unwrap();
        set(&path, &key, Kind::Secret, "b", "value of b").unwrap();
        let exchanged = Sealed::edit(&path, |sealed| {
            let a = sealed.held.secrets.remove("a").unwrap();
            let b = sealed.held.secrets.insert("b".to_owned(), a).unwrap();
            sealed.held.secrets.insert("a".to_owned(), b);
            Ok(())
        });
        exchanged.unwrap();
        let sealed = Sealed::read(&path).unwrap();
        for name in ["a", "b"] {
            let error = sealed.get(&key, Kind::Secret, name).unwrap_err();
            assert!(matches!(error, Error::Changed { .. }), "{error}");
        }
    }

    /// S08.
    #[test]
    fn a_bit_that_has_flipped_is_noticed() {
        let (_folder, path, key) = place();
        set(&path, &key, Kind::Secret, "a", "value of a").unwrap();
        let mut sealed = Sealed::read(&path).unwrap();
        let whole = STANDARD.decode(&sealed.held.secrets["a"].sealed).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            sealed.held.secrets.get_mut("a").unwrap().sealed = STANDARD.encode(bytes);
            let error = sealed.get(&key, Kind::Secret, "a").unwrap_err();
            assert!(matches!(error, Error::Changed { .. }), "bit {bit}: {error}");
        }
    }

    /// S08.
    #[test]
    fn another_key_is_named_and_neither_opens_nor_adds() {
        let (folder, path, key) = place();
        let other = Key::create(&folder.path().join("other.key")).unwrap();
        set(&path, &key, Kind::Secret, "a", "value of a").unwrap();
        let sealed = Sealed::read(&path).unwrap();
        let error = sealed.get(&other, Kind::Secret, "a").unwrap_err();
        let said = error.to_string();
        assert!(said.contains(&key.name()) && said.contains(&other.name()));
        let error = set(&path, &other, Kind::Secret, "b", "value").unwrap_err();
        assert!(matches!(error, Error::Key { .. }), "{error}");
        // With nothing in it, the file takes any key.
        Sealed::edit(&path, |sealed| Ok(sealed.remove(Kind::Secret, "a"))).unwrap();
        set(&path, &other, Kind::Secret, "b", "value").unwrap();
    }

    /// S08.
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let (folder, path, key) = place();
        set(&path, &key, Kind::Secret, "a", "value of a").unwrap();
        for name in ["secrets", "secret.key"] {
            let path = folder.path().join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let said = if name == "secrets" {
                Sealed::read(&path).unwrap_err().to_string()
            } else {
                Key::read(&path).err().unwrap().to_string()
            };
            assert!(said.contains("chmod 600"), "{said}");
        }
    }

    #[test]
    fn impossible_names_values_and_keys_are_refused_with_what_is_possible() {
        let (_folder, path, key) = place();
        for (name, value) in [("", "v"), ("a b", "v"), ("a\n", "v"), ("a", "")] {
            assert!(set(&path, &key, Kind::Secret, name, value).is_err());
        }
        let long = "x".repeat(SECRET_BYTES_MAX + 1);
        assert!(set(&path, &key, Kind::Secret, "a", &long).is_err());
        for text in ["", "short", "AAAA", "not base64 at all, but 32 bytes!"] {
            assert!(Key::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn many_that_set_at_once_lose_nothing() {
        let (_folder, path, key) = place();
        std::thread::scope(|scope| {
            for n in 0..16 {
                let (path, key) = (&path, &key);
                scope.spawn(move || set(path, key, Kind::Secret, &format!("n{n}"), "v").unwrap());
            }
        });
        assert_eq!(Sealed::read(&path).unwrap().names(Kind::Secret).count(), 16);
    }
}
