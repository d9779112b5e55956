//! `cargo xtask web`: builds the web page into `web/dist`, from where the binary embeds it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{fs, io};

use crate::programs;
use crate::workspace::{self, Fault};

/// What vite asks for.
const NODE_VERSION_MIN: [u32; 2] = [20, 19];
/// Of the page that was built.
const INDEX: &str = "web/dist/index.html";
/// Beside the packages that were installed from it.
const INSTALLED: &str = "node_modules/.installed-from.json";

/// Installs the packages of the lock file and builds the page.
pub(crate) fn run() -> Result<(), Fault> {
    let web = Web::installed()?;
    web.npm(&["run", "build"])
}

/// The same, unless there is a page that is newer than everything it is built from.
pub(crate) fn refresh() -> Result<(), Fault> {
    match is_stale().map_err(|error| format!("web/: {error}"))? {
        true => run(),
        false => Ok(()),
    }
}

/// Whether there is a page, however old.
pub(crate) fn is_built() -> bool {
    workspace::root().join(INDEX).is_file()
}

/// Whether the page is missing, or older than what it is built from.
fn is_stale() -> io::Result<bool> {
    let root = workspace::root();
    let Ok(page) = fs::metadata(root.join(INDEX)) else {
        return Ok(true);
    };
    let built = page.modified()?;
    let sources = [
        "web/src",
        "web/index.html",
        "web/package-lock.json",
        "docs/spec/openapi.json",
    ];
    for source in sources {
        if newest(&root.join(source))? > built {
            return Ok(true);
        }
    }
    Ok(false)
}

/// When a file, or the newest of what is in a folder, was written.
fn newest(path: &Path) -> io::Result<SystemTime> {
    let about = fs::metadata(path)?;
    if !about.is_dir() {
        return about.modified();
    }
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(path)? {
        newest = newest.max(self::newest(&entry?.path())?);
    }
    Ok(newest)
}

/// The project of the web page, with its packages.
pub(crate) struct Web {
    folder: PathBuf,
    npm: PathBuf,
}

impl Web {
    /// Finds node and brings the packages to what the lock file says.
    pub(crate) fn installed() -> Result<Self, Fault> {
        let [major, minor] = NODE_VERSION_MIN;
        let wanted =
            format!("the web page needs node {major}.{minor} or newer: https://nodejs.org");
        let node =
            programs::require(&programs::NODE).map_err(|fault| format!("{fault}; {wanted}"))?;
        let version = workspace::output(Command::new(node).arg("--version"))?;
        if !is_new_enough(version.trim()) {
            return Err(format!("node is {}; {wanted}", version.trim()));
        }
        let web = Self {
            folder: workspace::root().join("web"),
            npm: programs::require(&programs::NPM)?,
        };
        let lock = web.folder.join("package-lock.json");
        let installed = web.folder.join(INSTALLED);
        if !is_same(&lock, &installed) {
            web.npm(&["ci", "--no-audit", "--no-fund"])?;
            fs::copy(&lock, &installed)
                .map_err(|error| format!("{}: {error}", installed.display()))?;
        }
        Ok(web)
    }

    /// Runs npm in the project.
    pub(crate) fn npm(&self, arguments: &[&str]) -> Result<(), Fault> {
        self.npm_with(arguments, [])
    }

    /// The same with variables.
    pub(crate) fn npm_with<const N: usize>(
        &self,
        arguments: &[&str],
        variables: [(&str, OsString); N],
    ) -> Result<(), Fault> {
        let mut command = Command::new(&self.npm);
        command.current_dir(&self.folder).args(arguments);
        workspace::run(command.envs(variables))
    }
}

fn is_same(a: &Path, b: &Path) -> bool {
    let read = |path: &Path| -> io::Result<Vec<u8>> { fs::read(path) };
    matches!((read(a), read(b)), (Ok(a), Ok(b)) if a == b)
}

/// `v20.19.1` and the like.
fn is_new_enough(version: &str) -> bool {
    let mut parts = version
        .trim_start_matches('v')
        .split('.')
        .map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => [major, minor] >= NODE_VERSION_MIN,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_node_are_compared_as_numbers() {
        assert!(is_new_enough("v20.19.0"));
        assert!(is_new_enough("v22.4.1"));
        assert!(!is_new_enough("v20.9.0"));
        assert!(!is_new_enough("v18.20.4"));
        assert!(!is_new_enough("nonsense"));
    }
}
