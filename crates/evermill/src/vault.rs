//! Connections and secrets of an installation: what flags, environment and file say, below them what
//! `evermill connections set` and `evermill secrets set` have sealed in the data directory.
//!
//! The sealed file is replaced as a whole by whoever sets something, also while an engine runs; the
//! engine looks whether it has changed each time somebody needs a value.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::{env, fmt, fs};

use evermill_contract::settings::Settings;
use evermill_secrets::{
    Key, Kind, Masker, Reference, Rotated, Sealed, Zeroizing, key_for, resolve, rotate, rotate_to,
};

use crate::config::Config;
use crate::failure::Failure;

/// The sealed file, in the data directory.
const FILE: &str = "secrets";
/// Its key, unless the environment has one.
const KEY_FILE: &str = "secret.key";
/// The key, or `file:/PATH` where it stands.
pub(crate) const KEY_VARIABLE: &str = "EVERMILL_SECRET_KEY";

/// Everything that tasks, sources and sinks may ask for.
pub(crate) struct Vault {
    /// By flag, environment or file.
    given: BTreeMap<String, String>,
    data_dir: PathBuf,
    held: Mutex<Held>,
    masker: RwLock<Arc<Masker>>,
}

struct Held {
    /// Which version of the file this is; none without a file.
    stamp: Option<Stamp>,
    sealed: Sealed,
    /// What is masked, also when it has been replaced since: somebody may still print it.
    hidden: Vec<Zeroizing<String>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Vault {
    /// Reads what there is.
    ///
    /// # Errors
    /// When what is sealed cannot be opened.
    pub(crate) fn open(config: &Config) -> Result<Self, Failure> {
        Self::with(config.connections.clone(), &config.data_dir)
    }

    /// The same for connections that flags, environment and file name.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub(crate) fn with(given: BTreeMap<String, String>, data_dir: &Path) -> Result<Self, Failure> {
        let path = data_dir.join(FILE);
        let vault = Self {
            given,
            data_dir: data_dir.to_owned(),
            held: Mutex::new(Held {
                stamp: None,
                sealed: Sealed::read(&path).map_err(|error| Failure::usage(error.to_string()))?,
                hidden: Vec::new(),
            }),
            masker: RwLock::default(),
        };
        let mut held = vault.lock();
        held.stamp = stamp(&path);
        let values = vault.sealed_values(&held.sealed).map_err(Failure::usage)?;
        vault.hide(&mut held, values);
        drop(held);
        for id in vault.given.keys() {
            // What cannot be had now is said when somebody needs it.
            vault.connection(id).ok();
        }
        Ok(vault)
    }

    /// The address that was kept for a connection, as it was written: with its references.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn written(&self, id: &str) -> Result<Option<Zeroizing<String>>, String> {
        let held = self.fresh()?;
        self.unseal(&held.sealed, Kind::Connection, id)
    }

    /// An address with its references replaced.
    ///
    /// # Errors
    /// For a reference that leads nowhere.
    pub(crate) fn resolved(&self, address: &str) -> Result<String, String> {
        let mut held = self.fresh()?;
        self.settle(&mut held, address)
    }

    /// What has a name here, by now.
    ///
    /// # Errors
    /// When the sealed file cannot be read.
    pub(crate) fn names(&self) -> Result<Names, String> {
        let held = self.fresh()?;
        let sealed = |kind| held.sealed.names(kind).map(|(name, _)| name.to_owned());
        let given = self.given.keys().cloned();
        Ok(Names {
            connections: given.chain(sealed(Kind::Connection)).collect(),
            secrets: sealed(Kind::Secret).collect(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Each statement leaves it whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file again if somebody has replaced it.
    fn fresh(&self) -> Result<MutexGuard<'_, Held>, String> {
        let path = self.data_dir.join(FILE);
        let mut held = self.lock();
        let now = stamp(&path);
        if now != held.stamp {
            held.sealed = Sealed::read(&path).map_err(|error| error.to_string())?;
            let values = self.sealed_values(&held.sealed)?;
            self.hide(&mut held, values);
            held.stamp = now;
        }
        Ok(held)
    }

    fn sealed_values(&self, sealed: &Sealed) -> Result<Vec<Zeroizing<String>>, String> {
        let mut values = Vec::new();
        for (name, _) in sealed.names(Kind::Secret) {
            values.extend(self.unseal(sealed, Kind::Secret, name)?);
        }
        for (id, _) in sealed.names(Kind::Connection) {
            let address = self.unseal(sealed, Kind::Connection, id)?;
            // References in it are looked up when somebody needs it.
            let nothing = |_: Reference<'_>| Ok(Zeroizing::new(String::new()));
            let found = address.map(|address| resolve(&address, &nothing));
            let hidden = found.transpose()?.map(|found| found.hidden);
            values.extend(hidden.into_iter().flatten().map(Zeroizing::new));
        }
        Ok(values)
    }

    fn unseal(
        &self,
        sealed: &Sealed,
        kind: Kind,
        name: &str,
    ) -> Result<Option<Zeroizing<String>>, String> {
        if !sealed.names(kind).any(|(known, _)| known == name) {
            return Ok(None);
        }
        let key = known_key(&self.data_dir, sealed)?.ok_or_else(|| no_key(&self.data_dir))?;
        let opened = sealed.get(&key, kind, name);
        opened.map_err(|error| error.to_string())
    }

    /// Asks twice if the file was replaced meanwhile: the key may be another one since it was read.
    fn settled<T>(&self, ask: impl Fn() -> Result<T, String>) -> Result<T, String> {
        let path = self.data_dir.join(FILE);
        let before = stamp(&path);
        ask().or_else(|why| match stamp(&path) == before {
            true => Err(why),
            false => ask(),
        })
    }

    /// These are masked from now on.
    fn hide(&self, held: &mut Held, values: impl IntoIterator<Item = Zeroizing<String>>) {
        let before = held.hidden.len();
        for value in values {
            if !held.hidden.contains(&value) {
                held.hidden.push(value);
            }
        }
        if held.hidden.len() > before {
            let masker = Masker::new(held.hidden.iter().map(|value| value.as_str()));
            *self.masker.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(masker);
        }
    }

    fn settle(&self, held: &mut Held, written: &str) -> Result<String, String> {
        let found = resolve(written, &|reference| self.look_up(held, reference))?;
        let hidden: Vec<_> = found.hidden.into_iter().map(Zeroizing::new).collect();
        self.hide(held, hidden);
        Ok(found.address)
    }

    fn look_up(&self, held: &Held, reference: Reference<'_>) -> Result<Zeroizing<String>, String> {
        match reference {
            Reference::Secret(name) => self
                .unseal(&held.sealed, Kind::Secret, name)?
                .ok_or_else(|| format!("there is no secret '{name}'; {}", how_to_set(name))),
            Reference::Variable(name) => env::var(name)
                .map(Zeroizing::new)
                .map_err(|_| format!("env:{name}: the variable is not set, or is no UTF-8")),
            Reference::File(path) => fs::read_to_string(path)
                .map(Zeroizing::new)
                .map_err(|cause| format!("file:{path}: {cause}")),
        }
    }
}

impl Settings for Vault {
    fn connection(&self, id: &str) -> Result<Option<String>, String> {
        let found = self.settled(|| {
            let mut held = self.fresh()?;
            let written = match self.given.get(id) {
                Some(address) => Some(Zeroizing::new(address.clone())),
                None => self.unseal(&held.sealed, Kind::Connection, id)?,
            };
            let settled = written.map(|written| self.settle(&mut held, &written));
            settled.transpose()
        });
        found.map_err(|why| format!("connection '{id}': {why}"))
    }

    fn secret(&self, name: &str) -> Result<Option<String>, String> {
        let value = self.settled(|| {
            let held = self.fresh()?;
            self.unseal(&held.sealed, Kind::Secret, name)
        })?;
        Ok(value.map(|value| value.to_string()))
    }

    fn mask(&self, text: &[u8]) -> Option<Vec<u8>> {
        let masker = self.masker.read().unwrap_or_else(PoisonError::into_inner);
        masker.mask(text)
    }
}

/// Changes what is sealed in a data directory, whether or not an engine runs on it.
///
/// # Errors
/// When the key cannot be had, or the file not be written.
pub(crate) fn set(data_dir: &Path, kind: Kind, name: &str, value: &str) -> Result<Made, Failure> {
    make(data_dir)?;
    let refused = |error: evermill_secrets::Error| Failure::usage(error.to_string());
    let path = data_dir.join(FILE);
    let mut made = Made { key: None };
    let there = Sealed::read(&path).map_err(refused)?;
    let key = match known_key(data_dir, &there).map_err(Failure::usage)? {
        Some(key) => key,
        None => {
            if !there.is_empty() {
                return Err(Failure::usage(no_key(data_dir)));
            }
            let file = data_dir.join(KEY_FILE);
            match Key::create(&file) {
                Ok(key) => {
                    made.key = Some(file);
                    key
                }
                // Somebody else has just made it.
                Err(error) => Key::read(&file)
                    .ok()
                    .flatten()
                    .ok_or_else(|| refused(error))?,
            }
        }
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = now.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    Sealed::edit(&path, |sealed| sealed.put(&key, kind, name, value, now_ms)).map_err(refused)?;
    Ok(made)
}

/// What setting a value has brought about.
pub(crate) struct Made {
    /// A file with a new key.
    pub(crate) key: Option<PathBuf>,
}

/// Forgets a value; whether there was one.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn remove(data_dir: &Path, kind: Kind, name: &str) -> Result<bool, Failure> {
    let path = data_dir.join(FILE);
    if !path.exists() {
        return Ok(false);
    }
    Sealed::edit(&path, |sealed| Ok(sealed.remove(kind, name)))
        .map_err(|error| Failure::usage(error.to_string()))
}

/// What is sealed, by name, with when it was set, in milliseconds since 1970. Needs no key.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn names(data_dir: &Path, kind: Kind) -> Result<Vec<(String, u64)>, Failure> {
    let sealed = Sealed::read(&data_dir.join(FILE));
    let sealed = sealed.map_err(|error| Failure::usage(error.to_string()))?;
    let names = sealed.names(kind);
    Ok(names
        .map(|(name, set_ms)| (name.to_owned(), set_ms))
        .collect())
}

/// What has a name in an installation; found without opening any value.
pub(crate) struct Names {
    /// Ids of connections that have an address.
    pub(crate) connections: BTreeSet<String>,
    /// Names of secrets.
    pub(crate) secrets: BTreeSet<String>,
}

impl Names {
    /// # Errors
    /// When the sealed file cannot be read.
    pub(crate) fn of(config: &Config) -> Result<Self, Failure> {
        let data_dir = &config.data_dir;
        let sealed = names(data_dir, Kind::Connection)?;
        let sealed = sealed.into_iter().map(|(id, _)| id);
        let secrets = names(data_dir, Kind::Secret)?.into_iter();
        Ok(Self {
            connections: config.connections.keys().cloned().chain(sealed).collect(),
            secrets: secrets.map(|(name, _)| name).collect(),
        })
    }
}

/// What to do about a secret that nobody has set.
pub(crate) fn how_to_set(name: &str) -> String {
    format!("set it by `evermill secrets set {name}`")
}

/// Makes a data directory, where there is none.
pub(crate) fn make(data_dir: &Path) -> Result<(), Failure> {
    evermill_store::make_data_dir(data_dir).map_err(|cause| {
        let why = evermill_store::refusal(data_dir, &cause);
        Failure::failed(format!("{}: {why}", data_dir.display()))
    })
}

/// Where the key stands.
enum KeyPlace {
    /// In the data directory, or nowhere yet.
    Usual(PathBuf),
    /// In a file that the environment names.
    File(PathBuf),
    /// In the environment itself.
    Variable(Zeroizing<String>),
}

impl KeyPlace {
    fn now(data_dir: &Path) -> Self {
        let set = env::var(KEY_VARIABLE).ok().filter(|text| !text.is_empty());
        let Some(text) = set.map(Zeroizing::new) else {
            return Self::Usual(data_dir.join(KEY_FILE));
        };
        match Reference::of(&text) {
            Some(Reference::File(path)) => Self::File(path.into()),
            _ => Self::Variable(text),
        }
    }
}

/// The key of what is sealed here.
fn known_key(data_dir: &Path, sealed: &Sealed) -> Result<Option<Key>, String> {
    let of_variable = |error| format!("{KEY_VARIABLE}: {error}");
    match KeyPlace::now(data_dir) {
        KeyPlace::Usual(path) => key_for(sealed, &path).map_err(|error| error.to_string()),
        KeyPlace::File(path) => match key_for(sealed, &path) {
            Ok(Some(key)) => Ok(Some(key)),
            Ok(None) => Err(format!(
                "{KEY_VARIABLE}: there is no file {}",
                path.display()
            )),
            Err(error) => Err(of_variable(error)),
        },
        KeyPlace::Variable(text) => Key::parse(&text).map(Some).map_err(of_variable),
    }
}

/// Seals everything with a new key: in place of the old one, or in a file of its own.
///
/// # Errors
/// When there is no key, it does not fit, or a file cannot be written.
pub(crate) fn change_key(data_dir: &Path, to: Option<&Path>) -> Result<Rotated, Failure> {
    let path = data_dir.join(FILE);
    let refused = |error: evermill_secrets::Error| Failure::usage(error.to_string());
    let there = Sealed::read(&path).map_err(refused)?;
    if there.is_empty() {
        return Err(Failure::usage(format!(
            "nothing is sealed in {}, so there is no key to change; `evermill secrets set NAME` makes one",
            data_dir.display()
        )));
    }
    let place = KeyPlace::now(data_dir);
    let done = match (to, place) {
        (None, KeyPlace::Usual(file) | KeyPlace::File(file)) => rotate(&path, &file),
        (None, KeyPlace::Variable(_)) => {
            return Err(Failure::usage(format!(
                "the key stands in {KEY_VARIABLE} itself, which nobody but you can change: name a new file for it by --to FILE, \
                 and set {KEY_VARIABLE}=file:FILE afterwards"
            )));
        }
        (Some(to), _) => {
            let key = known_key(data_dir, &there).map_err(Failure::usage)?;
            let key = key.ok_or_else(|| Failure::usage(no_key(data_dir)))?;
            rotate_to(&path, &key, to)
        }
    };
    done.map_err(refused)
}

fn no_key(data_dir: &Path) -> String {
    format!(
        "the key of the secrets in {} is missing: bring {} back, or set {KEY_VARIABLE}",
        data_dir.join(FILE).display(),
        data_dir.join(KEY_FILE).display()
    )
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: found.ino(),
        bytes: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
    })
}
