//! The Python package, carried by the binary and unpacked for the interpreter.
//!
//! It lies in `DATA_DIR/sdk/HASH/`, so that two builds that share a data directory one after the
//! other never mix their files, and each finds its own again.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use sha2::{Digest, Sha256};

use crate::failure::Failure;

/// Path below the folder that goes on `PYTHONPATH`, and content.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));

/// The folder that goes on `PYTHONPATH`: `EVERMILL_SDK_PATH` for those who work on the package,
/// else the embedded one, unpacked below `data_dir` unless it is there already.
///
/// # Errors
/// When the folder given is no such folder, or the files cannot be written.
pub(crate) fn folder(data_dir: &Path) -> Result<PathBuf, Failure> {
    if let Some(given) = env::var_os("EVERMILL_SDK_PATH") {
        let given = PathBuf::from(given);
        if given.join("evermill/__init__.py").is_file() {
            return Ok(given);
        }
        let given = given.display();
        return Err(Failure::usage(format!(
            "EVERMILL_SDK_PATH={given}: no evermill/__init__.py there; \
             give the folder that holds the package, or unset it"
        )));
    }
    let refused = |cause: io::Error| {
        Failure::failed(format!(
            "{}: cannot unpack the Python package: {}",
            data_dir.display(),
            evermill_store::refusal(data_dir, &cause)
        ))
    };
    let data_dir = std::path::absolute(data_dir).map_err(refused)?;
    evermill_store::make_data_dir(&data_dir).map_err(refused)?;
    unpack(&data_dir.join("sdk")).map_err(refused)
}

/// Written beside and renamed, so that a crash leaves no half of a package under its hash.
fn unpack(parent: &Path) -> io::Result<PathBuf> {
    let folder = parent.join(hash());
    if folder.is_dir() {
        return Ok(folder);
    }
    let unfinished = parent.join(format!(".{}", std::process::id()));
    for (name, content) in FILES {
        let path = unfinished.join(name);
        fs::create_dir_all(path.parent().expect("it lies in the folder"))?;
        fs::write(&path, content)?;
    }
    let renamed = fs::rename(&unfinished, &folder);
    if renamed.is_err() && folder.is_dir() {
        // Another process was faster, with the same files.
        fs::remove_dir_all(&unfinished)?;
        return Ok(folder);
    }
    renamed.map(|()| folder)
}

fn hash() -> String {
    let mut hash = Sha256::new();
    for (name, content) in FILES {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    let mut hex = String::new();
    for byte in &hash.finalize()[..8] {
        write!(hex, "{byte:02x}").expect("a String takes everything");
    }
    hex
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_embedded_package_is_the_one_of_this_checkout() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
        let mut found = BTreeMap::new();
        walk(&root, &root.join("evermill"), &mut found);
        let embedded: BTreeMap<_, _> = FILES
            .iter()
            .map(|(name, content)| ((*name).to_owned(), content.to_vec()))
            .collect();
        assert_eq!(
            embedded.keys().collect::<Vec<_>>(),
            found.keys().collect::<Vec<_>>()
        );
        assert!(
            embedded == found,
            "a file differs; touch crates/evermill/build.rs"
        );
    }

    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "__pycache__" {
                walk(root, &path, found);
            } else if name.ends_with(".py") || name == "py.typed" {
                let below = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                found.insert(below, fs::read(&path).unwrap());
            }
        }
    }
}
