//! The key that secrets are sealed with: 32 bytes, in base64 where people handle it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::Error;

const BYTES: usize = 32;

/// A key. It is wiped from memory when it is dropped, and has no way to be printed.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; BYTES]>);

impl Key {
    /// Reads a key as people write it.
    ///
    /// # Errors
    /// When it is not 32 bytes in base64.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).unwrap_or_default());
        let key: Result<[u8; BYTES], _> = bytes[..].try_into();
        key.map(|key| Self(Zeroizing::new(key))).map_err(|_| {
            let what = "a key is 32 bytes in base64, such as `openssl rand -base64 32` prints";
            Error::Refused(what.to_owned())
        })
    }

    /// Reads the key of a file; none if there is no file.
    ///
    /// # Errors
    /// When others may read the file, or it holds no key.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        match fs::metadata(path) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(Error::io(path, cause)),
            Ok(found) => refuse_others(path, found.permissions().mode())?,
        }
        let text = fs::read_to_string(path).map_err(|cause| Error::io(path, cause))?;
        let text = Zeroizing::new(text);
        let named = |error| Error::Refused(format!("{}: {error}", path.display()));
        Self::parse(&text).map(Some).map_err(named)
    }

    /// Makes a key of chance and keeps it in a new file that its owner alone can read.
    ///
    /// # Errors
    /// When there is such a file, or it cannot be written.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; BYTES]);
        let filled = SystemRandom::new().fill(&mut *key);
        filled.map_err(|_| Error::Refused("the system has no random bytes".to_owned()))?;
        let text = Zeroizing::new(STANDARD.encode(*key) + "\n");
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|cause| Error::io(path, cause))?;
        Ok(Self(key))
    }

    /// A name by which people and files tell keys apart; nothing of the key can be found out from it.
    #[must_use]
    pub fn name(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(b"evermill name of a key 1\n");
        digest.update(*self.0);
        digest.finalize()[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &*self.0
    }
}

/// Only its owner may have any right to a file of secrets.
pub(crate) fn refuse_others(path: &Path, mode: u32) -> Result<(), Error> {
    let mode = mode & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::Open {
        path: path.to_owned(),
        mode,
    })
}
