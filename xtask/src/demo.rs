//! `cargo xtask demo`: the web page, the binary with it, and its demo.

use std::path::Path;
use std::time::SystemTime;
use std::{fs, io};

use crate::web;
use crate::workspace::{self, Fault};

/// What can be typed behind `demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For `evermill demo`, such as --for 20s; `cargo xtask demo -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds what is missing and runs the demo until it ends.
pub(crate) fn run(args: &Args) -> Result<(), Fault> {
    if is_stale().map_err(|error| format!("web/: {error}"))?
        && let Err(fault) = web::run()
    {
        // The demo is whole in the terminal, too; who has no node is to see it all the same.
        eprintln!("demo: {fault}\ndemo: it runs without its web page");
    }
    let mut command = workspace::cargo();
    command.args(["run", "--release", "--bin", "evermill", "--", "demo"]);
    workspace::run(command.args(&args.arguments))
}

/// Whether the page is missing, or older than what it is built from.
fn is_stale() -> io::Result<bool> {
    let root = workspace::root();
    let Ok(page) = fs::metadata(root.join("web/dist/index.html")) else {
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
