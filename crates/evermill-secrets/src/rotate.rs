//! Another key for everything that is sealed, in place of the one in a file.
//!
//! Two files change, and a crash may come between them: first the new key is kept beside the old one, then the sealed
//! file is replaced, then the new key takes the old one's place. Whoever reads meanwhile takes the key that the sealed
//! file names, in whichever of the two files it is; the next rotation brings to an end what a crash has left.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::key::Key;
use crate::owner::folder_of;
use crate::sealed::Sealed;

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// Values that are sealed with the new key now.
    pub values: usize,
    /// The name of the old key.
    pub from: String,
    /// The name of the new one.
    pub to: String,
}

/// The key in a file, or the one beside it if a rotation has come so far that this is the right one.
///
/// # Errors
/// As [`Key::read`].
pub fn key_for(sealed: &Sealed, key_file: &Path) -> Result<Option<Key>, Error> {
    let found = Key::read(key_file)?;
    let fits = |key: &Key| sealed.key_name().is_none_or(|wanted| wanted == key.name());
    if found.as_ref().is_some_and(fits) {
        return Ok(found);
    }
    let next = Key::read(&beside(key_file))?.filter(fits);
    Ok(next.or(found))
}

/// Seals everything with a new key, which takes the place of the old one in its file.
///
/// # Errors
/// When there is no key, it is not the one of the values, or a file cannot be written. Nothing is lost then, and the
/// old key or the new one opens all.
pub fn rotate(sealed_file: &Path, key_file: &Path) -> Result<Rotated, Error> {
    let _lock = Sealed::lock(sealed_file)?;
    steps(sealed_file, key_file, |_| Ok(()))
}

/// Seals everything with a new key in a file of its own; the old one stays where it is.
///
/// # Errors
/// When there is such a file already, or as [`rotate`].
pub fn rotate_to(sealed_file: &Path, old: &Key, new_file: &Path) -> Result<Rotated, Error> {
    let _lock = Sealed::lock(sealed_file)?;
    let mut sealed = Sealed::read(sealed_file)?;
    // Before anything is written, so that a key that does not fit leaves no file behind.
    sealed.check(old)?;
    let new = Key::create(new_file)?;
    sealed.reseal(old, &new)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    KeyKept,
    Sealed,
}

/// `reached` is for tests, which end it there as a crash would: nothing is taken back.
fn steps(
    sealed_file: &Path,
    key_file: &Path,
    reached: impl Fn(Step) -> Result<(), Error>,
) -> Result<Rotated, Error> {
    let mut sealed = Sealed::read(sealed_file)?;
    let next = beside(key_file);
    finish(&sealed, key_file, &next)?;
    let Some(old) = Key::read(key_file)? else {
        let what = format!("there is no key in {}", key_file.display());
        return Err(Error::Refused(what));
    };
    sealed.check(&old)?;
    let new = Key::create_for(&next, Some(key_file))?;
    reached(Step::KeyKept)?;
    let rotated = sealed.reseal(&old, &new)?;
    reached(Step::Sealed)?;
    replace(&next, key_file)?;
    Ok(rotated)
}

/// Brings to an end what a crash has left, or takes away what it had only begun.
fn finish(sealed: &Sealed, key_file: &Path, next: &Path) -> Result<(), Error> {
    let Some(left) = Key::read(next)? else {
        return Ok(());
    };
    if sealed.key_name() == Some(&*left.name()) {
        return replace(next, key_file);
    }
    match fs::remove_file(next) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(Error::io(next, cause)),
        _ => Ok(()),
    }
}

fn replace(next: &Path, key_file: &Path) -> Result<(), Error> {
    let folder = folder_of(key_file);
    fs::rename(next, key_file)
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|cause| Error::io(key_file, cause))
}

fn beside(key_file: &Path) -> PathBuf {
    let mut name = OsString::from(key_file);
    name.push(".next");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::Kind;

    struct Place {
        _folder: tempfile::TempDir,
        sealed: PathBuf,
        key: PathBuf,
    }

    /// Two values under a key.
    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let (sealed, key_file) = (
            folder.path().join("secrets"),
            folder.path().join("secret.key"),
        );
        let key = Key::create(&key_file).unwrap();
        Sealed::edit(&sealed, |sealed| {
            sealed.put(&key, Kind::Secret, "a", "value of a", 7)?;
            sealed.put(&key, Kind::Connection, "a", "https://h", 8)
        })
        .unwrap();
        Place {
            _folder: folder,
            sealed,
            key: key_file,
        }
    }

    /// What somebody reads now who has these two paths.
    fn read(place: &Place) -> [String; 2] {
        let sealed = Sealed::read(&place.sealed).unwrap();
        let key = key_for(&sealed, &place.key).unwrap().unwrap();
        [Kind::Secret, Kind::Connection]
            .map(|kind| sealed.get(&key, kind, "a").unwrap().unwrap().to_string())
    }

    fn all_is_there(place: &Place) {
        assert_eq!(read(place), ["value of a", "https://h"]);
    }

    fn name_of(file: &Path) -> Option<String> {
        Key::read(file).unwrap().map(|key| key.name())
    }

    /// S08.
    #[test]
    fn a_new_key_takes_the_place_of_the_old_one_which_opens_nothing_any_more() {
        let place = place();
        let old = Key::read(&place.key).unwrap().unwrap();
        let before = Sealed::read(&place.sealed).unwrap();
        let rotated = rotate(&place.sealed, &place.key).unwrap();
        assert_eq!((rotated.values, &rotated.from), (2, &old.name()));
        assert_eq!(name_of(&place.key), Some(rotated.to));
        assert_eq!(name_of(&beside(&place.key)), None);
        all_is_there(&place);
        let after = Sealed::read(&place.sealed).unwrap();
        assert!(after.get(&old, Kind::Secret, "a").is_err());
        let times = |sealed: &Sealed| sealed.names(Kind::Secret).map(|(_, ms)| ms).sum::<u64>();
        assert_eq!(times(&before), times(&after), "nobody has set them anew");
    }

    /// S08: a crash at any step loses nothing, and the next rotation goes on from there.
    #[test]
    fn a_crash_at_any_step_of_a_rotation_leaves_a_key_that_opens_everything() {
        for step in [Step::KeyKept, Step::Sealed] {
            let place = place();
            let old = name_of(&place.key);
            let crash = |reached| match reached == step {
                true => Err(Error::Refused("the machine died".to_owned())),
                false => Ok(()),
            };
            steps(&place.sealed, &place.key, crash).unwrap_err();
            assert_eq!(name_of(&place.key), old, "{step:?}");
            all_is_there(&place);
            // What is set meanwhile is sealed with the key that the others have.
            let sealed = Sealed::read(&place.sealed).unwrap();
            let key = key_for(&sealed, &place.key).unwrap().unwrap();
            let put = |sealed: &mut Sealed| sealed.put(&key, Kind::Secret, "b", "value of b", 9);
            Sealed::edit(&place.sealed, put).unwrap();
            let rotated = rotate(&place.sealed, &place.key).unwrap();
            assert_eq!(rotated.values, 3, "{step:?}");
            assert_eq!(name_of(&place.key), Some(rotated.to), "{step:?}");
            assert_eq!(name_of(&beside(&place.key)), None, "{step:?}");
            all_is_there(&place);
        }
    }

    /// S08.
    #[test]
    fn a_rotation_without_the_right_key_changes_nothing() {
        let place = place();
        let other = Key::create(&place.key.with_extension("other")).unwrap();
        let new = place.key.with_extension("new");
        let refused = rotate_to(&place.sealed, &other, &new).unwrap_err();
        assert!(matches!(refused, Error::Key { .. }), "{refused}");
        assert!(!new.exists());
        let old = Key::read(&place.key).unwrap().unwrap();
        fs::remove_file(&place.key).unwrap();
        let refused = rotate(&place.sealed, &place.key).unwrap_err().to_string();
        assert!(refused.contains("no key"), "{refused}");
        let rotated = rotate_to(&place.sealed, &old, &new).unwrap();
        assert_eq!(name_of(&new), Some(rotated.to));
        let again = rotate_to(&place.sealed, &old, &new).unwrap_err();
        assert!(matches!(again, Error::Key { .. }), "{again}");
    }
}
