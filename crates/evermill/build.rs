//! Lists the files of `python/evermill` for `src/sdk.rs` to embed.
//!
//! Only these files are watched, not their folders: the interpreter writes its caches there. A new
//! file comes in with the change of the first file that imports it; a test compares the two trees.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = manifest_dir.join("../../python").canonicalize()?;
    let mut files = Vec::new();
    collect(&root.join("evermill"), &mut files)?;
    files.sort();
    let mut list = String::from("&[\n");
    for file in &files {
        let name = file
            .strip_prefix(&root)
            .expect("it was found below")
            .display();
        let path = file.display().to_string();
        println!("cargo:rerun-if-changed={path}");
        writeln!(list, "({:?}, include_bytes!({path:?})),", name.to_string())
            .expect("a String takes everything");
    }
    list.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("sdk_files.rs"), list)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("__pycache__") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|ext| ext == "py") || path.ends_with("py.typed") {
            files.push(path);
        }
    }
    Ok(())
}
