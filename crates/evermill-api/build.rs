//! Lists the files of `web/dist` for `src/pages.rs` to embed. It builds nothing: `cargo xtask web` does, and
//! without that folder the list is empty.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let web = manifest_dir.join("../../web");
    let dist = web.join("dist");
    // A path that is missing would count as changed each time; the folder above it changes once it is there.
    let watched = if dist.is_dir() { &dist } else { &web };
    println!("cargo:rerun-if-changed={}", watched.display());
    println!("cargo:rerun-if-changed=build.rs");
    let mut files = Vec::new();
    if dist.is_dir() {
        collect(&dist.canonicalize()?, &mut files)?;
    }
    files.sort();
    let mut list = String::from("&[\n");
    for file in files.iter().filter(|file| !is_packed(file)) {
        let root = dist.canonicalize()?;
        let name = file.strip_prefix(&root).expect("it was found below");
        let packed = |ending: &str| {
            let path = format!("{}.{ending}", file.display());
            match files.contains(&PathBuf::from(&path)) {
                true => format!("Some(include_bytes!({path:?}))"),
                false => "None".to_owned(),
            }
        };
        writeln!(
            list,
            "Page {{ name: {:?}, plain: include_bytes!({:?}), gzip: {}, brotli: {} }},",
            name.display().to_string(),
            file.display().to_string(),
            packed("gz"),
            packed("br"),
        )
        .expect("a String takes everything");
    }
    list.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("pages.rs"), list)
}

fn is_packed(file: &Path) -> bool {
    file.extension()
        .is_some_and(|ending| ending == "gz" || ending == "br")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
