//! What a folder shows, on a real one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use glob::Pattern;

use super::folder::Folder;
use super::place::{Listing, Place, Why};

fn listing(root: &Path, pattern: Option<&str>) -> Listing {
    let pattern = pattern.map(|pattern| Pattern::new(pattern).unwrap());
    Folder::new(root.to_owned(), pattern).list(100)
}

/// Paths from the folder, sorted.
fn names(root: &Path, pattern: Option<&str>) -> Vec<String> {
    let listing = listing(root, pattern);
    assert_eq!(listing.trouble, None);
    let below = |path: &str| {
        let below = Path::new(path).strip_prefix(root).unwrap();
        below.to_str().unwrap().to_owned()
    };
    let mut names: Vec<_> = listing.entries.iter().map(|one| below(&one.path)).collect();
    names.sort();
    names
}

fn folder_of(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    dir
}

#[test]
fn a_pattern_says_which_files_and_how_deep() {
    let dir = folder_of(&["a.csv", "b.txt", "d/c.csv", "d/e/f.csv", "with space.csv"]);
    let of = |pattern| names(dir.path(), pattern);
    assert_eq!(of(None), ["a.csv", "b.txt", "with space.csv"]);
    assert_eq!(of(Some("*.csv")), ["a.csv", "with space.csv"]);
    assert_eq!(of(Some("*/*.csv")), ["d/c.csv"]);
    assert_eq!(of(Some("d/**/*.csv")), ["d/c.csv", "d/e/f.csv"]);
    let all = ["a.csv", "d/c.csv", "d/e/f.csv", "with space.csv"];
    assert_eq!(of(Some("**/*.csv")), all);
    assert_eq!(of(Some("[ab].*")), ["a.csv", "b.txt"]);
}

#[test]
fn names_of_unfinished_and_hidden_files_are_left_out_unless_asked_for() {
    let dir = folder_of(&[
        "a.csv",
        "a.csv.part",
        "b.TMP",
        ".rsync.a.csv",
        "c.csv~",
        ".git/a.csv",
        "d/.hidden/a.csv",
    ]);
    let of = |pattern| names(dir.path(), Some(pattern));
    assert_eq!(of("**/*"), ["a.csv"]);
    assert_eq!(of("*.part"), ["a.csv.part"]);
    assert_eq!(of(".rsync.*"), [".rsync.a.csv"]);
}

#[test]
fn a_link_counts_as_what_it_leads_to_if_that_is_in_the_folder() {
    let outside = folder_of(&["secret"]);
    let dir = folder_of(&["d/a"]);
    symlink(dir.path().join("d/a"), dir.path().join("inside")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("outside")).unwrap();
    symlink("nowhere", dir.path().join("broken")).unwrap();
    symlink(outside.path(), dir.path().join("folder")).unwrap();
    // A folder in a circle is not followed either.
    symlink(dir.path(), dir.path().join("d/circle")).unwrap();
    assert_eq!(names(dir.path(), Some("**/*")), ["d/a", "inside"]);
    let passed_over = listing(dir.path(), Some("**/*")).passed_over;
    let why: Vec<_> = passed_over.iter().map(|one| one.why).collect();
    assert_eq!(why, [Why::LeadsOut]);
    let look = |name: &str| {
        let path = dir.path().join(name).to_str().unwrap().to_owned();
        let place = Folder::new(dir.path().to_owned(), None);
        place.look(&[path]).pop().unwrap()
    };
    assert!(look("inside").is_some() && look("outside").is_none());
}

#[test]
fn a_path_that_is_a_file_is_that_file_and_one_that_is_not_there_yet_can_be_waited_for() {
    let dir = folder_of(&["ready.flag"]);
    let one = listing(&dir.path().join("ready.flag"), None);
    assert_eq!(one.entries.len(), 1);
    let later = listing(&dir.path().join("later.flag"), None);
    assert_eq!((later.entries.len(), later.trouble), (0, None));
    for (path, pattern) in [("folder", None), ("x.d", Some("*")), ("x/y.flag", None)] {
        let found = listing(&dir.path().join(path), pattern);
        let trouble = found.trouble.expect("somebody should know");
        assert!(trouble.contains("there is nothing at"), "{trouble}");
    }
    let both = listing(&dir.path().join("ready.flag"), Some("*"));
    assert!(both.trouble.unwrap().contains("is a file"));
}

#[test]
fn a_folder_with_too_many_files_fires_nothing_and_says_so() {
    let dir = folder_of(&["a", "b", "c"]);
    let found = Folder::new(dir.path().to_owned(), None).list(2);
    assert!(found.entries.is_empty());
    let trouble = found.trouble.unwrap();
    assert!(trouble.contains("more than 2 files"), "{trouble}");
}

#[test]
fn an_event_says_where_the_file_is() {
    let dir = folder_of(&["with space & ü.csv"]);
    let place = Folder::new(dir.path().to_owned(), None);
    let entry = place.list(9).entries.pop().unwrap();
    let location = place.location(&entry);
    assert_eq!(location["path"], entry.path);
    let url = location["url"].as_str().unwrap();
    let wanted = "/with%20space%20%26%20%C3%BC.csv";
    assert!(
        url.starts_with("file:///") && url.ends_with(wanted),
        "{url}"
    );
}
