//! Whose a file is that root writes where somebody else is at home.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

/// Gives a file that root has just made to whom the one belongs that it takes the place of, with the same
/// rights; where there is none, to whom its folder belongs. An engine that runs as another user could not
/// open it.
pub(crate) fn like(file: &File, path: &Path, replaced: Option<&Path>) -> io::Result<()> {
    let theirs = match replaced.map(fs::metadata) {
        Some(Ok(found)) => {
            file.set_permissions(found.permissions())?;
            found
        }
        Some(Err(cause)) if cause.kind() != ErrorKind::NotFound => return Err(cause),
        _ => fs::metadata(folder_of(path))?,
    };
    let (own, there) = (file.metadata()?, fs::symlink_metadata(path)?);
    // Not what a link leads to: root would give away a file of its own.
    let is_it = (own.dev(), own.ino(), own.nlink()) == (there.dev(), there.ino(), 1);
    if own.uid() != 0 || theirs.uid() == 0 || !is_it {
        return Ok(());
    }
    fchown(file, Some(theirs.uid()), Some(theirs.gid()))
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|path| !path.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}
