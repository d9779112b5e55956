//! A DAG folder: which files it holds, which of them may be DAG files, and how to tell that one has
//! changed without reading it.

mod ignore;

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use evermill_contract::yaml;

use self::ignore::Rules;

/// Folders that hold other people's code.
const FOREIGN: [&str; 4] = ["__pycache__", "node_modules", "site-packages", "venv"];
/// A file of a folder is a DAG file when it names one of these.
const SIGNS: [&str; 2] = ["evermill", "airflow"];
/// More files than these are no DAG folder.
const FILES_MAX: usize = 100_000;

/// What differs once a file was written, replaced, or linked elsewhere. The time of the last change
/// of the inode cannot be set back, as that of the content can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// Of what lies there now, links followed.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|file| Self::of(&file))
    }
}

/// Everything below a folder that is not ignored.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Every file, by path.
    pub(crate) files: BTreeMap<PathBuf, Stamp>,
    /// Links that lead out of the folder, and where to.
    pub(crate) outside: BTreeMap<PathBuf, PathBuf>,
}

/// Walks through a folder. `enters` is told of each folder before it is read.
///
/// # Errors
/// When the folder itself cannot be read. One below it that cannot be is left out.
pub(crate) fn walk(root: &Path, enters: &mut dyn FnMut(&Path)) -> io::Result<Tree> {
    let whole = root.canonicalize()?;
    let mut tree = Tree::default();
    enter(root, &whole, &Rules::default(), enters, &mut tree)?;
    Ok(tree)
}

fn enter(
    folder: &Path,
    root: &Path,
    above: &Rules,
    enters: &mut dyn FnMut(&Path),
    tree: &mut Tree,
) -> io::Result<()> {
    enters(folder);
    let rules = above.below(folder);
    let mut entries = std::fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if name.starts_with('.') || FOREIGN.contains(&name.as_ref()) {
            continue;
        }
        // A link to a folder is not followed: it may lead back here.
        if kind.is_dir() {
            if !rules.ignore(&path, true) {
                // One that went away meanwhile, or may not be read, holds nothing for us.
                drop(enter(&path, root, &rules, enters, tree));
            }
            continue;
        }
        if rules.ignore(&path, false) || tree.files.len() >= FILES_MAX {
            continue;
        }
        let Ok(file) = std::fs::metadata(&path) else {
            continue;
        };
        if !file.is_file() {
            continue;
        }
        if kind.is_symlink()
            && let Ok(target) = path.canonicalize()
            && !target.starts_with(root)
        {
            tree.outside.insert(path.clone(), target);
        }
        tree.files.insert(path, Stamp::of(&file));
    }
    Ok(())
}

/// Whether a file is one that declares DAGs, as far as can be told without running it.
pub(crate) fn may_declare(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    (name.ends_with(".py") && has_sign(path))
        || name.ends_with(".zip")
        || (yaml::is_yaml(&name) && is_dag_in_yaml(path))
}

/// Of the many things that are YAML, those that begin a line with `dag:`.
fn is_dag_in_yaml(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().any(|line| line.starts_with("dag:"))
}

/// What cannot be read is named by whoever loads it.
fn has_sign(path: &Path) -> bool {
    let Ok(text) = std::fs::read(path) else {
        return true;
    };
    let text = String::from_utf8_lossy(&text);
    SIGNS.iter().any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tree: &Tree) -> Vec<String> {
        let names = tree.files.keys().map(|path| path.file_name().unwrap());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn hidden_foreign_and_ignored_files_are_none_of_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a.py", "import evermill");
        write(".a.py.swp", "x");
        write("venv/lib.py", "x");
        write("drafts/b.py", "x");
        write("team/.airflowignore", "*_old.py\n");
        write("team/c.py", "x");
        write("team/c_old.py", "x");
        write("c_old.py", "x");
        write(".evermillignore", "# not yet\ndrafts/\n");
        let tree = walk(root.path(), &mut |_| {}).unwrap();
        assert_eq!(names(&tree), ["a.py", "c_old.py", "c.py"]);
    }

    #[test]
    fn j10_a_link_that_leads_out_of_the_folder_is_told_and_one_inside_is_not() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(other.path().join("x.py"), "").unwrap();
        std::fs::create_dir(root.path().join(".release")).unwrap();
        std::fs::write(root.path().join(".release/y.py"), "").unwrap();
        let link = |to: &Path, from: &str| {
            std::os::unix::fs::symlink(to, root.path().join(from)).unwrap();
        };
        link(&other.path().join("x.py"), "out.py");
        link(&root.path().join(".release/y.py"), "in.py");
        let tree = walk(root.path(), &mut |_| {}).unwrap();
        assert_eq!(names(&tree), ["in.py", "out.py"]);
        let outside: Vec<_> = tree.outside.keys().collect();
        assert_eq!(outside, [&root.path().join("out.py")]);
    }

    #[test]
    fn j05_a_file_that_was_replaced_has_another_stamp_also_when_its_time_was_set_back() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.py");
        std::fs::write(&path, "one").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        let before = Stamp::at(&path).unwrap();
        let next = root.path().join("next");
        std::fs::write(&next, "two").unwrap();
        let file = std::fs::File::options().write(true).open(&next).unwrap();
        file.set_modified(time).unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert_ne!(Stamp::at(&path).unwrap(), before);
    }
}
