//! Bundles: the files of a version, kept in the store by content (W16) and unpacked for workers
//! into `DATA_DIR/bundles/VERSION/`. The folder can always be made again from the store.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// A file of a bundle with its content.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Relative, with `/` between parts.
    pub(crate) path: String,
    /// 64 lower-case hexadecimal digits.
    pub(crate) sha256: String,
    pub(crate) content: Bytes,
}

/// Where the bundle of a version lies.
pub(crate) fn folder(data_dir: &Path, version: &str) -> PathBuf {
    data_dir.join("bundles").join(version)
}

/// The content's hash, as manifests write it.
pub(crate) fn hash(content: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(content) {
        write!(hex, "{byte:02x}").expect("a String takes everything");
    }
    hex
}

/// Whether a path stays inside the folder it is joined to.
pub(crate) fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Writes what is missing or different. A file appears whole or not at all.
pub(crate) fn unpack(folder: &Path, files: &[File]) -> io::Result<()> {
    for file in files {
        let path = folder.join(&file.path);
        if fs::read(&path).is_ok_and(|found| hash(&found) == file.sha256) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut half = path.clone().into_os_string();
        half.push(".part");
        fs::write(&half, &file.content)?;
        fs::rename(&half, &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_folder_are_noticed() {
        assert!(is_inside("dags/a.py"));
        for path in ["", "/etc/passwd", "../a.py", "a/../../b.py", "./a.py"] {
            assert!(!is_inside(path), "{path}");
        }
    }
}
