//! A disk that is really full: a small tmpfs of our own, in a mount namespace.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use rustix::process::Signal;

use super::Scene;
use crate::small_disk;

/// Set for the test that this binary runs again inside the namespace.
const INSIDE: &str = "EVERMILL_FULL_DISK_TEST";

#[test]
fn a_full_disk_stops_the_intake_and_says_so_until_there_is_room() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let variables = [
        ("TMPDIR", dir.path().as_os_str()),
        (INSIDE, OsStr::new("1")),
    ];
    let Some((text, errors)) =
        small_disk::run("operating::full::inside", "48m", dir.path(), &variables)
    else {
        return say(&small_disk::left_out());
    };
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
