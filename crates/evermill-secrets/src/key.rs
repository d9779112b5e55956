//! The key that secrets are sealed with: 32 bytes, in base64 where people handle it.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::owner;

const BYTES: usize = 32;

/// Where systemd says which folder has a service's credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

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
            Ok(found) => {
                let folder = env::var_os(CREDENTIALS).map(PathBuf::from);
                let mode = found.permissions().mode();
                refuse_others(path, without_mask(path, mode, folder.as_deref()))?;
            }
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
        Self::create_for(path, None)
    }

    /// Likewise, for one that is to take the place of another file: it belongs to whom that one does.
    pub(crate) fn create_for(path: &Path, replaced: Option<&Path>) -> Result<Self, Error> {
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
            owner::like(&file, path, replaced)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            File::open(owner::folder_of(path))?.sync_all()
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

/// The mode of a file but for what systemd's credentials only look like: it lets the service read them by an
/// access list, whose mask stands where the rights of the group do, in a folder that nobody else can open.
fn without_mask(path: &Path, mode: u32, credentials: Option<&Path>) -> u32 {
    match credentials.is_some_and(|folder| path.parent() == Some(folder)) {
        true => mode & !0o040,
        false => mode,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// S24, S10: a key is wiped when it goes, and cannot be shown by mistake.
    #[test]
    fn a_key_is_wiped_when_it_is_dropped_and_has_no_way_to_be_printed() {
        const fn is_wiped<T: zeroize::ZeroizeOnDrop>(_: &T) {}
        let key = Key::parse(&STANDARD.encode([7; BYTES])).unwrap();
        is_wiped(&key.0);
        // Of two that fit, the one of the type itself is taken: it is there only for what can be shown.
        trait Hidden {
            const SHOWN: bool = false;
        }
        impl<T> Hidden for T {}
        struct Of<T>(std::marker::PhantomData<T>);
        impl<T: std::fmt::Debug> Of<T> {
            const SHOWN: bool = true;
        }
        const { assert!(Of::<String>::SHOWN && !Of::<Key>::SHOWN) };
    }

    #[test]
    fn a_credential_of_systemd_is_read_though_its_access_list_looks_like_a_group() {
        let folder = Path::new("/run/credentials/evermill.service");
        let path = folder.join("secret.key");
        let judged = |mode, folder| refuse_others(&path, without_mask(&path, mode, folder));
        assert!(judged(0o440, Some(folder)).is_ok());
        assert!(judged(0o400, None).is_ok());
        assert!(judged(0o444, Some(folder)).is_err());
        assert!(judged(0o460, Some(folder)).is_err());
        assert!(judged(0o440, None).is_err());
        assert!(judged(0o440, Some(Path::new("/run/credentials"))).is_err());
    }
}
