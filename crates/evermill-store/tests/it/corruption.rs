//! A small corruption campaign; `cargo xtask corrupt` runs the large one.

use std::path::{Path, PathBuf};

use crate::campaign::{Counts, Subject};

/// Runs a part of the campaign on a killed and on a closed store.
fn on_both(part: impl Fn(&Subject, &Path) -> Counts) {
    let shm = PathBuf::from("/dev/shm");
    let ram = if shm.is_dir() {
        shm
    } else {
        std::env::temp_dir()
    };
    for make in [Subject::killed, Subject::closed] {
        let base = tempfile::tempdir_in(&ram).expect("temporary directory");
        let case = tempfile::tempdir_in(&ram).expect("temporary directory");
        let counts = part(&make(base.path(), 18), case.path());
        assert!(
            counts.passed(),
            "{counts}\n{:?}\n{:?}",
            counts.undetected,
            counts.panics
        );
        assert!(counts.detected > 0, "the campaign hits nothing: {counts}");
    }
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    on_both(|subject, dir| subject.flips(dir, 250, 2_026));
}

#[test]
fn no_cut_goes_unnoticed() {
    on_both(|subject, dir| subject.cuts(dir, 499));
}

#[test]
fn no_lost_misplaced_or_zeroed_page_goes_unnoticed() {
    on_both(Subject::pages);
}
