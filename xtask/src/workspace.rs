//! Where things are, and how a command is run: the few facts every verb shares.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A sentence for the person at the terminal: what failed and what to do about it.
pub(crate) type Fault = String;

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// What is downloaded or installed for the tests; ignored by git, safe to delete.
pub(crate) fn cache() -> PathBuf {
    root().join(".cache")
}

/// The cargo that started us, so that a toolchain override reaches every step.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The compiler that cargo would take.
pub(crate) fn rustc() -> Command {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(root());
    command
}

/// What cargo knows about our own packages, dependencies of others left out.
pub(crate) fn metadata() -> Result<Value, Fault> {
    let mut command = cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    let text = output(&mut command)?;
    serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))
}

/// Whether `cargo VERB` exists on this machine.
pub(crate) fn cargo_has(verb: &str) -> bool {
    let status = cargo()
        .args([verb, "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// The path of a program as the shell would find it.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Runs a command with the terminal's output and fails unless it exits with 0.
pub(crate) fn run(command: &mut Command) -> Result<(), Fault> {
    let line = shown(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("`{line}` cannot be started: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{line}` ended with {status}"))
    }
}

/// Runs a command to its end and returns what it wrote to standard output; its standard error is
/// part of the fault when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String, Fault> {
    let line = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("`{line}` cannot be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "`{line}` ended with {}\n{text}{why}",
        output.status
    ))
}

/// A command line short enough to read: the program by name, its arguments cut after a while.
fn shown(command: &Command) -> String {
    const SHOWN_CHARS_MAX: usize = 160;
    let program = Path::new(command.get_program());
    let mut line = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    if line.chars().count() > SHOWN_CHARS_MAX {
        line = line.chars().take(SHOWN_CHARS_MAX).collect();
        line.push_str(" ...");
    }
    line
}
