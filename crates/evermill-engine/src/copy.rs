//! Copies of a store: made while an engine runs, checked whole before they get their name, and put
//! back.
//!
//! A copy is made in a folder beside its place and appears there whole or not at all. It counts as
//! a clean stop: what was in flight when it was made was not there for a crash.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use evermill_store::{DirLock, Options, Reader, SqliteStore, Store as _, StoreError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::engine::Engine;
use crate::open::OpenError;

/// What a check of a store has looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// Rows that the engine goes on from.
    pub rows: u64,
    /// Rows of history.
    pub history_rows: u64,
    /// Size of the file; 0 for a store that was checked where it lies.
    pub bytes: u64,
}

/// Where a copy for `file` is made: a folder beside it.
#[must_use]
pub fn workshop(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Copies the store behind `reader` to `file` and checks the copy.
pub(crate) fn backup(reader: &mut dyn Reader, file: &Path) -> Result<Checked, OpenError> {
    let folder = Workshop::open(&workshop(file))?;
    reader.copy_into(&folder.store())?;
    let checked = folder.check()?;
    folder.deliver(file)?;
    Ok(checked)
}

/// Copies the store behind `reader`, checks the copy, and throws it away.
pub(crate) fn verify(reader: &mut dyn Reader, data_dir: &Path) -> Result<Checked, OpenError> {
    let folder = Workshop::open(&workshop(&data_dir.join("verify")))?;
    reader.copy_into(&folder.store())?;
    folder.check()
}

impl Engine {
    /// Checks a backup and throws the copy that it needs for that away; the file stays as it is.
    ///
    /// # Errors
    /// [`OpenError`]: it cannot be read, is damaged, or is none.
    pub fn verify_backup(file: &Path, scratch: &Path) -> Result<Checked, OpenError> {
        let folder = Workshop::open(&workshop(&scratch.join("verify")))?;
        folder.fetch(file)?;
        folder.check()
    }

    /// Puts a backup in the place of the store of a locked data directory; it is checked first. A
    /// store that is there already is put aside, and its new place returned.
    ///
    /// # Errors
    /// As [`Engine::verify_backup`]; the store is then as it was.
    pub fn restore(lock: &DirLock, file: &Path) -> Result<(Checked, Option<PathBuf>), OpenError> {
        let place = lock.dir().join(SqliteStore::FILE);
        let folder = Workshop::open(&workshop(&place))?;
        folder.fetch(file)?;
        let checked = folder.check()?;
        let aside = put_aside(lock.dir()).map_err(system("putting the old store aside"))?;
        folder.deliver(&place)?;
        Ok((checked, aside))
    }
}

fn put_aside(data_dir: &Path) -> io::Result<Option<PathBuf>> {
    let names = [SqliteStore::FILE, SqliteStore::LOG, "store.db-shm"];
    let mut there = names
        .iter()
        .filter(|name| data_dir.join(name).exists())
        .peekable();
    if there.peek().is_none() {
        return Ok(None);
    }
    let aside = data_dir.join(format!("replaced-{}", Clock::system().now_ms()));
    make_dir(&aside)?;
    for name in there {
        fs::rename(data_dir.join(name), aside.join(name))?;
    }
    Ok(Some(aside))
}

/// A data directory of its own in which a copy is made and checked; it goes away with this.
struct Workshop(PathBuf);

impl Workshop {
    fn open(folder: &Path) -> Result<Self, OpenError> {
        let failed = system("making the copy's folder");
        match fs::remove_dir_all(folder) {
            // Left over from one that was cut off.
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        make_dir(folder).map_err(failed)?;
        Ok(Self(folder.to_owned()))
    }

    fn store(&self) -> PathBuf {
        self.0.join(SqliteStore::FILE)
    }

    fn fetch(&self, file: &Path) -> Result<(), OpenError> {
        let copied = fs::copy(file, self.store());
        copied
            .map(drop)
            .map_err(system(&format!("reading {}", file.display())))
    }

    /// Reads everything back, and closes it for good.
    fn check(&self) -> Result<Checked, OpenError> {
        let failed = system("checking the copy");
        File::create(self.0.join(SqliteStore::LOG)).map_err(&failed)?;
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.store(), private).map_err(&failed)?;
        let lock = DirLock::take(&self.0)?;
        let mut store = SqliteStore::open(lock, Options::default()).map_err(renamed)?;
        let report = store.verify().map_err(renamed)?;
        let rest = Engine::at_rest(&self.0, Box::new(store))?;
        rest.into_store().close_clean()?;
        let file = File::open(self.store()).map_err(&failed)?;
        file.sync_all().map_err(&failed)?;
        Ok(Checked {
            rows: report.rows,
            history_rows: report.history_rows,
            bytes: file.metadata().map_err(&failed)?.len(),
        })
    }

    fn deliver(self, file: &Path) -> Result<(), OpenError> {
        let failed = system("putting the copy in its place");
        fs::rename(self.store(), file).map_err(&failed)?;
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new("."))).map_err(&failed)?;
        folder.sync_all().map_err(&failed)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // The next one of its name removes what is left.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The copy's own path says nothing to people.
fn renamed(error: StoreError) -> OpenError {
    match error {
        StoreError::Damaged { what, .. } => OpenError::Copy(what),
        error => error.into(),
    }
}

fn make_dir(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)
}

fn system(doing: &str) -> impl Fn(io::Error) -> OpenError + use<> {
    let doing = doing.to_owned();
    move |cause| OpenError::System {
        doing: doing.clone(),
        cause,
    }
}
