//! Writing files: one for each record, whole or not at all.
//!
//! | step | what a `kill -9` behind it leaves |
//! |---|---|
//! | the folders are made, each synced into the one above | folders |
//! | the content is written into a file beside its place, whose name is hidden and made of the real one | a part, which the repeat of the record writes over |
//! | that file is synced | the same |
//! | it is renamed | the old content or the new one; the repeat writes the same again |
//! | the folder is synced | the file |
//!
//! So whoever looks sees a whole file or none, and nothing is left beside it once its record has been
//! answered.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use evermill_contract::manifest::FileSink as Config;
use evermill_contract::sink::{Record, Sink, SinkError};
use evermill_contract::source::SourceError;
use sha2::{Digest as _, Sha256};

use super::object::Objects;
use crate::aws::hex;
use crate::{limits, side_by_side};

/// Folders, or a bucket, that files are written into.
pub struct FileSink(Place);

enum Place {
    Folders,
    Bucket(Box<Objects>),
}

impl FileSink {
    /// Prepares to write.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub fn open(
        config: &Config,
        connection: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SourceError> {
        Ok(Self(match config.in_bucket() {
            None => Place::Folders,
            Some(_) => Place::Bucket(Box::new(Objects::open(config, connection)?)),
        }))
    }
}

impl Sink for FileSink {
    fn send(&self, records: Vec<Record>, wait: Duration) -> Vec<Result<(), SinkError>> {
        let until = Instant::now() + wait;
        side_by_side::send(&records, limits::FILES_WRITTEN, |record| match &self.0 {
            Place::Bucket(objects) => objects.put(record, until),
            Place::Folders if Instant::now() > until => Err(SinkError::MayPass(
                "there was no time left to write it".to_owned(),
            )),
            Place::Folders => write(record),
        })
    }
}

fn write(record: &Record) -> Result<(), SinkError> {
    let name = record.name.as_deref().unwrap_or_default();
    let path = Path::new(name);
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let (Some(folder), Some(last)) = (path.parent(), path.file_name()) else {
        return Err(SinkError::ForGood(format!("{name:?} is no path of a file")));
    };
    if !path.is_absolute() || !path.components().all(is_plain) || name.ends_with('/') {
        return Err(SinkError::ForGood(format!(
            "{name:?} is no whole path of a file"
        )));
    }
    let last = last.as_encoded_bytes();
    if last.starts_with(b".") && last.ends_with(ENDING.as_bytes()) {
        return Err(SinkError::ForGood(format!(
            "{name:?} has the name of a file that is not finished; give it another ending"
        )));
    }
    // Made of the real name: a repeat finds what a kill has left, and nothing is left behind.
    let beside = format!(".{}{ENDING}", &hex(&Sha256::digest(last))[..24]);
    let beside = folder.join(beside);
    let value = record.value.as_deref().unwrap_or_default();
    let done = make_folder(folder).and_then(|()| replace(&beside, path, value));
    done.map_err(|cause| judge(path, &cause))
}

/// The end of a hidden name while a file is written. Sources of files pass over it, too.
const ENDING: &str = ".part";

fn replace(beside: &Path, path: &Path, value: &[u8]) -> io::Result<()> {
    // One at a time: an attempt that was given up may still be writing.
    let mut file = locked(beside)?;
    let written = file
        .set_len(0)
        .and_then(|()| file.write_all(value))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(beside, path));
    if let Err(cause) = written {
        // What is left of it takes room, which may be what was missing.
        fs::remove_file(beside).ok();
        return Err(cause);
    }
    sync(path.parent().unwrap_or(path))
}

/// The file of this path, which nobody else writes.
fn locked(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        file.lock()?;
        // Who had the lock before may have renamed the file, and then it is another's content.
        let own = file.metadata()?;
        match fs::symlink_metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => return Ok(file),
            Ok(_) => {}
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            Err(cause) => return Err(cause),
        }
    }
}

/// Makes a folder and those above it, each durable.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else {
        return Ok(());
    };
    make_folder(above)?;
    match fs::create_dir(folder) {
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists && folder.is_dir() => sync(above),
        Err(cause) => Err(cause),
        Ok(()) => sync(above),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn judge(path: &Path, cause: &io::Error) -> SinkError {
    let said = format!("{}: {cause}", path.display());
    match cause.kind() {
        ErrorKind::InvalidFilename | ErrorKind::IsADirectory | ErrorKind::InvalidInput => {
            SinkError::ForGood(said)
        }
        // A full disk, a right that is missing, a file where a folder should be: somebody can see to it.
        _ => SinkError::MayPass(said),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use bytes::Bytes;
    use evermill_contract::sink::conformance::{World, check_all, plain};

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn out(&self) -> PathBuf {
            self.0.path().join("deep/er/out")
        }
    }

    impl World for Folder {
        fn open(&mut self) -> Box<dyn Sink> {
            Box::new(FileSink(Place::Folders))
        }
        fn record(&self, value: &str, effect_key: &str) -> Record {
            let name = if value == "bad" || value == "v77" {
                self.out().join("x".repeat(300))
            } else {
                self.out().join(effect_key)
            };
            Record {
                name: Some(name.display().to_string()),
                ..plain(value, effect_key)
            }
        }
        fn arrived(&mut self) -> BTreeMap<String, Vec<String>> {
            let Ok(entries) = fs::read_dir(self.out()) else {
                return BTreeMap::new();
            };
            let read = |entry: io::Result<fs::DirEntry>| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, vec![fs::read_to_string(path).unwrap()])
            };
            entries.map(read).collect()
        }
        fn order(&mut self) -> Option<Vec<String>> {
            None
        }
        fn refuse(&mut self, value: &str) -> bool {
            value == "bad" || value == "v77"
        }
        fn away(&mut self, away: bool) {
            // A folder cannot be made where a file stands; that may pass.
            let place = self.0.path().join("deep");
            if away {
                fs::write(place, "").unwrap();
            } else {
                fs::remove_file(place).unwrap();
            }
        }
        fn keeps_one(&self) -> bool {
            true
        }
        fn too_large(&self) -> Option<usize> {
            None
        }
    }

    #[test]
    fn a_folder_is_a_sink() {
        check_all(Folder::new);
    }

    fn record(path: &Path, value: &str) -> Record {
        Record {
            name: Some(path.display().to_string()),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            ..Record::default()
        }
    }

    #[test]
    fn what_is_no_whole_path_of_a_file_is_refused_for_good() {
        for path in [
            "",
            "/",
            "a",
            "../a",
            "/tmp/../etc/x",
            "/tmp/x/",
            "/tmp/.x.part",
        ] {
            let answer = write(&record(Path::new(path), "x"));
            assert!(
                matches!(answer, Err(SinkError::ForGood(_))),
                "{path}: {answer:?}"
            );
        }
    }

    /// Every state that a `kill -9` can leave, and then the repeat of the record.
    #[test]
    fn a_repeat_after_a_kill_at_any_step_leaves_the_file_whole_and_nothing_else() {
        let names = |folder: &Path| {
            let entries = fs::read_dir(folder).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let beside = format!(".{}.part", &hex(&Sha256::digest(b"a.json"))[..24]);
        for (step, old) in [
            ("nothing", None),
            ("nothing", Some("old")),
            ("part", None),
            ("part", Some("old")),
            ("whole", Some("old")),
            ("renamed", None),
        ] {
            let place = tempfile::tempdir().unwrap();
            let folder = place.path().join("out");
            fs::create_dir(&folder).unwrap();
            let path = folder.join("a.json");
            if let Some(old) = old {
                fs::write(&path, old).unwrap();
            }
            match step {
                "part" => fs::write(folder.join(&beside), "ne").unwrap(),
                "whole" => fs::write(folder.join(&beside), "new and longer than that").unwrap(),
                "renamed" => fs::write(&path, "new").unwrap(),
                _ => {}
            }
            write(&record(&path, "new")).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "new", "{step} {old:?}");
            assert_eq!(names(&folder), ["a.json"], "{step} {old:?}");
        }
    }

    #[test]
    fn nothing_unfinished_is_left_when_the_place_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("taken");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("x"), "").unwrap();
        assert!(write(&record(&place, "value")).is_err());
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn writers_of_one_name_take_turns_and_readers_never_see_a_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let [one, other] = ["1".repeat(1 << 18), "2".repeat(1 << 18)];
        write(&record(&path, &one)).unwrap();
        std::thread::scope(|scope| {
            for content in [&one, &other] {
                let path = &path;
                scope.spawn(move || (0..10).for_each(|_| write(&record(path, content)).unwrap()));
            }
            for _ in 0..50 {
                let seen = fs::read_to_string(&path).unwrap();
                assert!(seen == one || seen == other, "{} bytes", seen.len());
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
