//! Runs one test of this binary again where its files lie on a small tmpfs, in a mount namespace: a disk that can really
//! be full.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Set by who knows that a machine allows no mounts, and does without these tests on it.
const WITHOUT: &str = "EVERMILL_TEST_WITHOUT_MOUNTS";

/// Runs the test `name` with a tmpfs of `size` (as mount takes it) on `dir`, and these variables; what it said on standard
/// output and error. None where it was left out by [`WITHOUT`].
///
/// # Panics
/// Where no mounts are allowed, unless it may be left out.
pub(crate) fn run(
    name: &str,
    size: &str,
    dir: &Path,
    variables: &[(&str, &OsStr)],
) -> Option<(String, String)> {
    let may_miss = std::env::var_os(WITHOUT).is_some() && std::env::var_os("CI").is_none();
    let mount = format!("mount -t tmpfs -o size={size} tmpfs \"$0\"");
    let script = format!("{mount} && exec \"$@\" || echo no mounts here");
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", &script])
        .arg(dir)
        .arg(std::env::current_exe().expect("test binary"))
        .args(["--exact", name, "--nocapture"])
        .envs(variables.iter().copied())
        .output();
    let (text, errors) = match output {
        Ok(output) => (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ),
        Err(cause) => ("no mounts here".to_owned(), format!("unshare: {cause}")),
    };
    if text.contains("no mounts here") || errors.starts_with("unshare:") {
        assert!(
            may_miss,
            "no disk can be filled: {errors}This test needs `unshare` (util-linux) and mount namespaces: let it run as \
             root with CAP_SYS_ADMIN, or allow user namespaces (sysctl user.max_user_namespaces). {WITHOUT}=1 \
             leaves it out at a desk, and never with CI set"
        );
        return None;
    }
    Some((text, errors))
}

/// What a test says that was left out.
pub(crate) fn left_out() -> String {
    format!("left out by {WITHOUT}")
}
