//! A folder of this machine.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::place::{Entry, Listing, PassedOver, Place, Why};
use crate::limits;

/// A folder and which files of it; or one file.
pub(super) struct Folder {
    root: PathBuf,
    /// Without one: files in the folder itself, or `root` is a file.
    pattern: Option<Pattern>,
}

/// Names begin or end so while somebody is still writing.
const UNFINISHED: [&str; 9] = [
    ".part",
    ".partial",
    ".filepart",
    ".crdownload",
    ".tmp",
    ".temp",
    ".swp",
    ".swx",
    "~",
];

pub(super) const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// What a path may have in a URL as it is.
const IN_URL: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

impl Folder {
    pub(super) const fn new(root: PathBuf, pattern: Option<Pattern>) -> Self {
        Self { root, pattern }
    }

    /// Whether a file is asked for, by its path from the folder.
    fn wants(&self, below: &str) -> bool {
        let matches = match &self.pattern {
            Some(pattern) => pattern.matches_with(below, OPTIONS),
            None => !below.contains('/') && !below.starts_with('.'),
        };
        let asked = self.pattern.as_ref().map_or("", Pattern::as_str);
        let lower = below.to_ascii_lowercase();
        let unfinished = |ending: &str| lower.ends_with(ending) && !asked.ends_with(ending);
        matches && !UNFINISHED.into_iter().any(unfinished)
    }

    /// How many folders deep a file may lie.
    fn depth(&self) -> usize {
        let pattern = self.pattern.as_ref().map_or("", Pattern::as_str);
        if pattern.contains("**") {
            limits::FILES_DEPTH_MAX
        } else {
            pattern.matches('/').count()
        }
    }

    /// Whether a folder may hold what is asked for: hidden ones only if somebody says so.
    fn enters(&self, name: &OsStr) -> bool {
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        let pattern = self.pattern.as_ref().map_or("", Pattern::as_str);
        !is_hidden || pattern.split('/').any(|part| part.starts_with('.'))
    }

    /// Nothing is there yet. A file that is waited for is no reason to worry, a folder is.
    fn missing(&self) -> Option<String> {
        let is_file = self.pattern.is_none() && self.root.extension().is_some();
        let has_home = self.root.parent().is_some_and(Path::is_dir);
        let shown = self.root.display();
        (!is_file || !has_home).then(|| format!("there is nothing at {shown} yet"))
    }

    /// What a path is for us, whoever found it.
    fn judge(&self, walk: &Walk, path: &Path, metadata: io::Result<Metadata>) -> Judged {
        let Ok(mut metadata) = metadata else {
            // It went while we looked.
            return Judged::Nothing;
        };
        if metadata.file_type().is_symlink() {
            match (walk.inside(path), fs::metadata(path)) {
                (true, Ok(of_target)) => metadata = of_target,
                (false, Ok(_)) => return Judged::PassedOver(Why::LeadsOut),
                (_, Err(_)) => return Judged::Nothing,
            }
        }
        if !metadata.is_file() {
            return Judged::Nothing;
        }
        match path.to_str() {
            Some(path) => Judged::File(entry(path, &metadata)),
            None => Judged::PassedOver(Why::NoText),
        }
    }
}

enum Judged {
    File(Entry),
    PassedOver(Why),
    Nothing,
}

/// What holds for one look.
struct Walk {
    /// The folder without links; a link has to lead to something below it.
    root: Option<PathBuf>,
}

impl Walk {
    fn of(root: &Path) -> Self {
        Self {
            root: fs::canonicalize(root).ok(),
        }
    }

    fn inside(&self, link: &Path) -> bool {
        let target = fs::canonicalize(link).ok();
        let both = self.root.as_ref().zip(target);
        both.is_some_and(|(root, target)| target.starts_with(root))
    }
}

fn entry(path: &str, metadata: &Metadata) -> Entry {
    let modified_ns = metadata
        .mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(metadata.mtime_nsec());
    Entry {
        path: path.to_owned(),
        size: metadata.size(),
        modified_ns,
        version: format!("{:x}-{:x}-{modified_ns:x}", metadata.ino(), metadata.size()),
    }
}

impl Place for Folder {
    fn list(&self, most: usize) -> Listing {
        let mut listing = Listing::default();
        let walk = Walk::of(&self.root);
        match fs::metadata(&self.root) {
            Ok(metadata) if metadata.is_dir() => self.walk(&walk, most, &mut listing),
            Ok(_) if self.pattern.is_some() => {
                let shown = self.root.display();
                listing.trouble = Some(format!("{shown} is a file, and there is a pattern"));
            }
            Ok(metadata) => match self.judge(&walk, &self.root, Ok(metadata)) {
                Judged::File(entry) => listing.entries.push(entry),
                Judged::PassedOver(why) => listing.pass_over(why, &self.root),
                Judged::Nothing => {}
            },
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                listing.trouble = self.missing();
            }
            Err(cause) => listing.trouble = Some(unreadable(&self.root, &cause)),
        }
        listing
    }

    fn look(&self, paths: &[String]) -> Vec<Option<Entry>> {
        let walk = Walk::of(&self.root);
        let look = |path: &String| {
            let path = Path::new(path);
            let below = path.strip_prefix(&self.root).ok()?.to_str()?;
            if !below.is_empty() && !self.wants(below) {
                return None;
            }
            match self.judge(&walk, path, fs::symlink_metadata(path)) {
                Judged::File(entry) => Some(entry),
                Judged::PassedOver(_) | Judged::Nothing => None,
            }
        };
        paths.iter().map(look).collect()
    }

    fn shows_unfinished(&self) -> bool {
        true
    }

    fn location(&self, entry: &Entry) -> Map<String, Value> {
        let url = utf8_percent_encode(&entry.path, IN_URL);
        let fields = [
            ("path".to_owned(), json!(entry.path)),
            ("url".to_owned(), json!(format!("file://{url}"))),
        ];
        fields.into_iter().collect()
    }
}

impl Folder {
    fn walk(&self, walk: &Walk, most: usize, listing: &mut Listing) {
        let mut folders = vec![(self.root.clone(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let children = match fs::read_dir(&folder) {
                Ok(children) => children,
                // It went while we looked.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound && depth > 0 => continue,
                Err(cause) => {
                    listing.trouble = Some(unreadable(&folder, &cause));
                    continue;
                }
            };
            for child in children {
                let child = match child {
                    Ok(child) => child,
                    Err(cause) => {
                        listing.trouble = Some(unreadable(&folder, &cause));
                        break;
                    }
                };
                if child.file_type().is_ok_and(|sort| sort.is_dir()) {
                    // A link to a folder is not followed: it could lead in a circle.
                    if depth < self.depth() && self.enters(&child.file_name()) {
                        folders.push((child.path(), depth + 1));
                    }
                } else {
                    self.take(walk, &child, listing);
                }
            }
            if listing.entries.len() > most {
                let shown = self.root.display();
                listing.trouble = Some(format!(
                    "more than {most} files of {shown} match, and nothing fires: move away what \
                     is done, or ask for fewer with a pattern"
                ));
                listing.entries.clear();
                return;
            }
        }
    }

    fn take(&self, walk: &Walk, child: &DirEntry, listing: &mut Listing) {
        let path = child.path();
        let below = path.strip_prefix(&self.root).unwrap_or(&path);
        let wanted = below.to_str().map(|below| self.wants(below));
        if wanted == Some(false) {
            return;
        }
        match self.judge(walk, &path, child.metadata()) {
            Judged::File(entry) => listing.entries.push(entry),
            Judged::PassedOver(why) => listing.pass_over(why, &path),
            Judged::Nothing => {}
        }
    }
}

impl Listing {
    /// One of each sort is enough to say so.
    fn pass_over(&mut self, why: Why, path: &Path) {
        if !self.passed_over.iter().any(|known| known.why == why) {
            let path = path.display().to_string();
            self.passed_over.push(PassedOver { why, path });
        }
    }
}

fn unreadable(path: &Path, cause: &io::Error) -> String {
    format!("{} cannot be read: {cause}", path.display())
}
