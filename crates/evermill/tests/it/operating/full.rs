//! A disk that is really full: a small tmpfs of our own, in a mount namespace.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::Scene;

/// Set for the test that this binary runs again inside the namespace.
const INSIDE: &str = "EVERMILL_FULL_DISK_TEST";

/// Set by who knows that a machine allows no mounts, and does without this test on it.
const WITHOUT: &str = "EVERMILL_TEST_WITHOUT_MOUNTS";

#[test]
fn a_full_disk_stops_the_intake_and_says_so_until_there_is_room() {
    let may_miss = std::env::var_os(WITHOUT).is_some() && std::env::var_os("CI").is_none();
    let dir = tempfile::tempdir().expect("temporary directory");
    let script = "mount -t tmpfs -o size=48m tmpfs \"$0\" && exec \"$@\" || echo no mounts here";
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(dir.path())
        .arg(std::env::current_exe().expect("test binary"))
        .args(["--exact", "operating::full::inside", "--nocapture"])
        .env("TMPDIR", dir.path())
        .env(INSIDE, "1")
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
        return say(&format!("left out by {WITHOUT}"));
    }
    assert!(text.contains("nothing was lost"), "{text}{errors}");
}

/// The same, on its tmpfs; alone it does nothing.
#[test]
fn inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let scene = Scene::new();
    let running = scene.run();
    scene.mock.write(&[("k", "first")]);
    scene.wait_for("done", 1);
    let ballast = scene.place.folder().join("ballast");
    fill(&ballast);
    let large = format!("bad {}", "x".repeat(100_000));
    let mut sent = 0;
    while running.count("the disk is full") == 0 {
        assert!(sent < 2_000, "it never was full");
        scene.mock.write(&[("k", large.as_str())]);
        sent += 1;
    }
    let looked = scene.place.finish(["ps"]);
    assert_eq!(looked.code(), 0, "{}", looked.stderr);
    assert!(
        looked
            .stderr
            .contains("! the disk is full: nothing new is read"),
        "{}",
        looked.stderr
    );
    assert!(scene.well(&["show", "picky"]).contains("stalled"));
    std::fs::remove_file(ballast).expect("give back");
    running.wait_for_lines("the disk has space again", 1);
    scene.wait_for("parked", sent);
    running.signal(Signal::TERM);
    running.end();
    assert!(scene.well(&["verify"]).contains("sound"));
    say(&format!("{sent} parked, nothing was lost"));
}

/// Takes every byte that is left.
fn fill(ballast: &Path) {
    let mut file = File::create(ballast).expect("ballast");
    loop {
        match file.write_all(&[1; 4_096]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A line on standard output that does not wait in a buffer.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{line}").and_then(|()| out.flush());
    said.expect("standard output");
}
