//! `DIR/lock`: one engine per data directory (S5).
//!
//! The lock is the operating system's advisory lock on the open file, so it ends with the process
//! however that ends. The file itself stays; the process id in it is only there for the message.

use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::LockError;

/// How long a loser waits for the winner to write its process id.
const HOLDER_PATIENCE: Duration = Duration::from_millis(200);

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DirLock {
    dir: PathBuf,
    file: File,
}

impl DirLock {
    /// Takes the directory, making it if needed (mode 0700).
    ///
    /// # Errors
    /// [`LockError::Held`] at once when somebody else has it, [`LockError::Io`] when the file
    /// system refuses.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let refused = |path: &Path, cause: &std::io::Error| LockError::Io {
            path: path.to_owned(),
            cause: Arc::from(refusal(dir, cause)),
        };
        make_data_dir(dir).map_err(|cause| refused(dir, &cause))?;
        let path = dir.join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|cause| refused(&path, &cause))?;
        leave_to_owner(&file, &path).map_err(|cause| refused(&path, &cause))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    path: dir.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(cause)) => return Err(refused(&path, &cause)),
        }
        write_pid(&mut file).map_err(|cause| refused(&path, &cause))?;
        Ok(Self {
            dir: dir.to_owned(),
            file,
        })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // An empty file says that nobody holds it. Unlocking says more than closing: a child that
        // another thread is just starting may still have the file open.
        drop(self.file.set_len(0));
        drop(self.file.unlock());
    }
}

/// Makes a data directory, its owner's alone, and what is missing above it. Each new name is synced in
/// its parent, or a power loss could take away the directory with all that was acknowledged in it.
/// Whoever puts the first thing into the directory calls this.
///
/// # Errors
/// What the operating system says.
pub fn make_data_dir(dir: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = dir
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)?;
    for made in missing {
        let parent = made
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Gives a file that root has made in a data directory to whom the directory belongs: an engine that runs
/// as that user could not open it.
///
/// # Errors
/// What the operating system says.
#[cfg(unix)]
pub fn leave_to_owner(file: &File, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let own = file.metadata()?;
    if own.uid() != 0 {
        return Ok(());
    }
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    let theirs = fs::metadata(folder.unwrap_or(Path::new(".")))?;
    let there = fs::symlink_metadata(path)?;
    // Not what a link leads to: root would give away a file of its own.
    let is_it = (own.dev(), own.ino(), own.nlink()) == (there.dev(), there.ino(), 1);
    if theirs.uid() == 0 || !is_it {
        return Ok(());
    }
    fchown(file, Some(theirs.uid()), Some(theirs.gid()))
}

/// Where files have no owners.
#[cfg(not(unix))]
pub fn leave_to_owner(_file: &File, _path: &Path) -> std::io::Result<()> {
    Ok(())
}

/// What the system says of a data directory and, where it does not let us in, how to be let in.
#[cfg(unix)]
#[must_use]
pub fn refusal(dir: &Path, cause: &std::io::Error) -> String {
    use std::os::unix::fs::MetadataExt as _;
    if cause.kind() != std::io::ErrorKind::PermissionDenied {
        return cause.to_string();
    }
    let me = rustix::process::geteuid().as_raw();
    let cure = match fs::metadata(dir).map(|found| found.uid()) {
        Ok(owner) if owner == me => format!("`chmod u+rwx {}` lets it in", dir.display()),
        Ok(owner) => format!(
            "it belongs to user {owner}; `chown -R {me} {}`, said by root, lets it in",
            dir.display()
        ),
        Err(_) => "--data-dir names another place".to_owned(),
    };
    format!("{cause}, as this runs as user {me}: {cure}")
}

/// Where files have no owners.
#[cfg(not(unix))]
#[must_use]
pub fn refusal(_dir: &Path, cause: &std::io::Error) -> String {
    cause.to_string()
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

/// The process id in the file, waiting a moment for a winner that has not written it yet. A number
/// whose process is gone was left by a crash before this winner.
fn holder(file: &mut File) -> Option<u32> {
    let deadline = Instant::now() + HOLDER_PATIENCE;
    loop {
        let mut text = String::new();
        let read = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_string(&mut text));
        let pid = read
            .ok()
            .and_then(|_| text.trim().parse::<u32>().ok())
            .filter(|pid| lives(*pid));
        if pid.is_some() || Instant::now() >= deadline {
            return pid;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(unix)]
fn lives(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| {
        // "Not permitted" means that it lives and belongs to somebody else.
        rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
    })
}

#[cfg(not(unix))]
fn lives(_pid: u32) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_let_in_hears_how_to_be() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let dir = tempfile::tempdir().unwrap();
        let own = refusal(dir.path(), &denied);
        assert!(own.contains("`chmod u+rwx /"), "{own}");
        let missing = refusal(&dir.path().join("none"), &denied);
        assert!(missing.contains("--data-dir"), "{missing}");
        let other = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(refusal(dir.path(), &other), other.to_string());
    }
}
