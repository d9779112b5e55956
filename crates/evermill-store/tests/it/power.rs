//! Power loss: what was synced is there, what was not may be gone, in any part.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use evermill_store::{DirLock, Options, SqliteStore, Store, StoreError};

use crate::sabotage::options;
use crate::workload::{Content, writes};

const FRAME: u64 = 24 + 8_192;

fn open(dir: &Path) -> Result<Box<dyn Store>, StoreError> {
    let lock = DirLock::take(dir).expect("lock");
    Ok(Box::new(SqliteStore::open(lock, Options::default())?))
}

fn log(dir: &Path) -> PathBuf {
    dir.join("store.db-wal")
}

/// The disk as it was when the n-th commit returned.
struct Moment {
    seq: u64,
    log_bytes: u64,
}

/// A store with commits 1..=20; the database file does not change meanwhile, the log only grows.
fn history(dir: &Path) -> Vec<Moment> {
    let mut store = open(dir).expect("store");
    let fence = store.claim(0).expect("claim");
    let moments = (1..=20).map(|seq| {
        store.commit_one(fence, writes(seq)).expect("commit");
        Moment {
            seq,
            log_bytes: fs::metadata(log(dir)).expect("log").len(),
        }
    });
    moments.collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("directory");
    for name in ["store.db", "store.db-wal"] {
        fs::copy(from.join(name), to.join(name)).expect("copy");
    }
}

/// What opening finds: the number of the last commit, after checking that its content is exact.
fn recovered(dir: &Path) -> u64 {
    let mut store = open(dir).expect("a torn tail is no damage");
    let last = store.header().last.map_or(0, |last| last.seq);
    assert_eq!(
        Content::of(&mut *store).expect("load"),
        Content::after(last)
    );
    store.verify().expect("sound");
    last
}

#[test]
fn log_cut_anywhere_in_its_last_commit_keeps_every_commit_before() {
    let base = tempfile::tempdir_in(ram()).expect("temporary directory");
    let moments = history(base.path());
    let [.., before, last] = &moments[..] else {
        panic!("two commits")
    };
    assert!(before.log_bytes < last.log_bytes && last.log_bytes % FRAME == 32);
    let case = tempfile::tempdir_in(ram()).expect("temporary directory");
    // Around the edges of frames and pages, and a stride of a prime through the pages.
    let near = |cut: u64| matches!((cut - 32) % FRAME, 0..4 | 23..26);
    let cuts =
        (before.log_bytes..=last.log_bytes).filter(|cut| near(*cut) || cut.is_multiple_of(997));
    for cut in cuts {
        copy(base.path(), case.path());
        OpenOptions::new()
            .write(true)
            .open(log(case.path()))
            .and_then(|file| file.set_len(cut))
            .expect("cut");
        let expected = if cut == last.log_bytes {
            last.seq
        } else {
            before.seq
        };
        assert_eq!(recovered(case.path()), expected, "cut at {cut}");
    }
}

#[test]
fn unsynced_pages_lost_in_any_order_keep_every_commit_before() {
    let base = tempfile::tempdir_in(ram()).expect("temporary directory");
    let moments = history(base.path());
    let case = tempfile::tempdir_in(ram()).expect("temporary directory");
    for pair in moments.windows(2) {
        let (before, last) = (&pair[0], &pair[1]);
        let frames = (last.log_bytes - before.log_bytes) / FRAME;
        // Each single frame of the last commit never reached the disk; then all but one.
        for lost in 0..frames {
            for only in [true, false] {
                copy(base.path(), case.path());
                let mut file = OpenOptions::new()
                    .write(true)
                    .open(log(case.path()))
                    .expect("log");
                file.set_len(last.log_bytes).expect("cut");
                for frame in (0..frames).filter(|frame| (*frame == lost) == only) {
                    file.seek(SeekFrom::Start(before.log_bytes + frame * FRAME))
                        .expect("seek");
                    file.write_all(&[0; FRAME as usize]).expect("zeros");
                }
                drop(file);
                let expected = if frames == 1 && !only {
                    last.seq
                } else {
                    before.seq
                };
                assert_eq!(
                    recovered(case.path()),
                    expected,
                    "commit {} frame {lost}",
                    last.seq
                );
            }
        }
    }
}

#[test]
fn checkpoint_torn_at_any_page_is_repaired_from_the_log() {
    let base = tempfile::tempdir_in(ram()).expect("temporary directory");
    let moments = history(base.path());
    let before = base.path().join("before");
    copy(base.path(), &before);
    {
        let mut store = open(base.path()).expect("store");
        store.verify().expect("sound");
        store.close_clean().expect("close");
    }
    // The database file after the checkpoint, with each page as it was before or missing.
    let new = fs::read(base.path().join("store.db")).expect("file");
    let old = fs::read(before.join("store.db")).expect("file");
    let case = tempfile::tempdir_in(ram()).expect("temporary directory");
    for torn in 0..new.len() / 8_192 {
        let mut mixed = new.clone();
        let page = torn * 8_192..(torn + 1) * 8_192;
        match old.get(page.clone()) {
            Some(bytes) => mixed[page].copy_from_slice(bytes),
            None => mixed[page].fill(0),
        }
        copy(&before, case.path());
        fs::write(case.path().join("store.db"), mixed).expect("write");
        assert_eq!(recovered(case.path()), moments.len() as u64, "page {torn}");
    }
}

#[test]
fn damage_before_the_last_commit_of_the_log_is_refused_not_forgotten() {
    let base = tempfile::tempdir_in(ram()).expect("temporary directory");
    let moments = history(base.path());
    let case = tempfile::tempdir_in(ram()).expect("temporary directory");
    for moment in &moments[..moments.len() - 2] {
        copy(base.path(), case.path());
        flip(&log(case.path()), moment.log_bytes - 5_000);
        let refused = open(case.path()).map(|_| ());
        let Err(StoreError::Damaged { what, .. }) = refused else {
            panic!("commit {}: {refused:?}", moment.seq);
        };
        assert!(what.contains("commits follow"), "{what}");
    }
    // A missing log is not an empty one.
    copy(base.path(), case.path());
    fs::remove_file(log(case.path())).expect("remove");
    let Err(error) = open(case.path()).map(|_| ()) else {
        panic!("log is missing")
    };
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[test]
fn acknowledged_commits_have_no_dirty_page_in_the_log() {
    let Some(dirty) = dirty_after_commits() else {
        return;
    };
    assert_eq!(
        dirty, 0,
        "a commit returned before its bytes were on the disk"
    );
}

/// Log pages that are not on the disk, summed over moments at which a commit had just returned.
/// `None` where the kernel cannot tell: cachestat(2) needs Linux 6.5 and a real file system.
fn dirty_after_commits() -> Option<u64> {
    // Not on tmpfs, whose pages are never written anywhere.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
    let lock = DirLock::take(dir.path()).expect("lock");
    let mut store: Box<dyn Store> = Box::new(SqliteStore::open(lock, options()).expect("store"));
    let fence = store.claim(0).expect("claim");
    let mut dirty = 0;
    for seq in 1..=5 {
        store.commit_one(fence, writes(seq)).expect("commit");
        dirty += dirty_pages(&log(dir.path()))?;
    }
    Some(dirty)
}

/// Dirty and written-back pages by cachestat(2), asked through Python because the standard library
/// has no such call and this room no `unsafe`.
fn dirty_pages(path: &Path) -> Option<u64> {
    const ASK: &str = "import ctypes, os, sys
stat = (ctypes.c_uint64 * 5)()
span = (ctypes.c_uint64 * 2)(0, 0)
file = os.open(sys.argv[1], os.O_RDONLY)
failed = ctypes.CDLL(None, use_errno=True).syscall(451, file, span, stat, 0)
print('?' if failed else stat[1] + stat[2])";
    let output = Command::new("python3")
        .args(["-c", ASK])
        .arg(path)
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn flip(path: &Path, at: u64) {
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("file");
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))
        .and_then(|_| file.read_exact(&mut byte))
        .expect("read");
    byte[0] ^= 16;
    file.seek(SeekFrom::Start(at))
        .and_then(|_| file.write_all(&byte))
        .expect("write");
}

/// Where files need no disk: these tests make the states of a disk themselves.
fn ram() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() {
        shm
    } else {
        std::env::temp_dir()
    }
}
