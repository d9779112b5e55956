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
    let mut total = Counts::default();
    for make in [Subject::killed, Subject::closed] {
        let base = tempfile::tempdir_in(&ram).expect("temporary directory");
        let case = tempfile::tempdir_in(&ram).expect("temporary directory");
        total.add(part(&make(base.path(), 18), case.path()));
    }
    assert!(
        total.passed(),
        "{total}
{:?}
{:?}",
        total.undetected,
        total.panics
    );
    assert!(total.detected > 0, "the campaign hits nothing: {total}");
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    on_both(|subject, dir| subject.flips(dir, 250, 2_026));
}

#[test]
fn no_cut_goes_unnoticed() {
    on_both(|subject, dir| subject.cuts(dir, 499, (0, 1)));
}

#[test]
fn no_lost_misplaced_or_zeroed_page_goes_unnoticed() {
    on_both(Subject::pages);
}
