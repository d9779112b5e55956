//! `.evermillignore` and `.airflowignore`: globs, a line each, of what is not looked at. As in a
//! `.gitignore`: the last line that fits decides, `!` takes back, a pattern with a slash is meant from
//! the file's own folder on, one without it at any depth, and a slash at its end means folders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILES: [&str; 2] = [".evermillignore", ".airflowignore"];
/// Lines of one file that are read.
const LINES_MAX: usize = 10_000;

/// Those of a folder and of all above it.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules(Vec<Arc<Rule>>);

#[derive(Debug)]
struct Rule {
    /// Where the file lies.
    folder: PathBuf,
    pattern: Vec<String>,
    takes_back: bool,
    folders_only: bool,
}

impl Rules {
    /// With those of a folder further down.
    pub(super) fn below(&self, folder: &Path) -> Self {
        let mut all = self.clone();
        for name in FILES {
            let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            let rules = text.lines().take(LINES_MAX);
            let rules = rules.filter_map(|line| Rule::read(folder, line));
            all.0.extend(rules.map(Arc::new));
        }
        all
    }

    pub(super) fn ignore(&self, path: &Path, is_folder: bool) -> bool {
        let last = self.0.iter().rev().find(|rule| rule.fits(path, is_folder));
        last.is_some_and(|rule| !rule.takes_back)
    }
}

impl Rule {
    fn read(folder: &Path, line: &str) -> Option<Self> {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (takes_back, line) = match line.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let (folders_only, line) = match line.strip_suffix('/') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let anchored = line.contains('/');
        let mut pattern: Vec<String> = Vec::new();
        if !anchored {
            pattern.push("**".to_owned());
        }
        pattern.extend(line.trim_start_matches('/').split('/').map(str::to_owned));
        Some(Self {
            folder: folder.to_owned(),
            pattern,
            takes_back,
            folders_only,
        })
    }

    fn fits(&self, path: &Path, is_folder: bool) -> bool {
        if self.folders_only && !is_folder {
            return false;
        }
        let Ok(below) = path.strip_prefix(&self.folder) else {
            return false;
        };
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
        path_fits(&self.pattern, &parts)
    }
}

fn path_fits(pattern: &[String], parts: &[&str]) -> bool {
    match pattern.split_first() {
        None => parts.is_empty(),
        Some((first, rest)) if first == "**" => {
            (0..=parts.len()).any(|skipped| path_fits(rest, &parts[skipped..]))
        }
        Some((first, rest)) => parts.split_first().is_some_and(|(part, others)| {
            let (glob, part): (Vec<char>, Vec<char>) =
                (first.chars().collect(), part.chars().collect());
            name_fits(&glob, &part) && path_fits(rest, others)
        }),
    }
}

fn name_fits(glob: &[char], name: &[char]) -> bool {
    match glob.split_first() {
        None => name.is_empty(),
        Some(('*', rest)) => (0..=name.len()).any(|skipped| name_fits(rest, &name[skipped..])),
        Some(('?', rest)) => !name.is_empty() && name_fits(rest, &name[1..]),
        Some(('[', rest)) => match (rest.iter().position(|c| *c == ']'), name.split_first()) {
            (Some(end), Some((c, others))) if end > 0 => {
                in_class(&rest[..end], *c) && name_fits(&rest[end + 1..], others)
            }
            _ => name.first() == Some(&'[') && name_fits(rest, &name[1..]),
        },
        Some(('\\', rest)) if !rest.is_empty() => {
            name.first() == Some(&rest[0]) && name_fits(&rest[1..], &name[1..])
        }
        Some((c, rest)) => name.first() == Some(c) && name_fits(rest, &name[1..]),
    }
}

fn in_class(class: &[char], c: char) -> bool {
    let (negated, class) = match class.split_first() {
        Some(('!' | '^', rest)) => (true, rest),
        _ => (false, class),
    };
    let mut at = 0;
    let mut found = false;
    while at < class.len() {
        if at + 2 < class.len() && class[at + 1] == '-' {
            found |= (class[at]..=class[at + 2]).contains(&c);
            at += 3;
        } else {
            found |= class[at] == c;
            at += 1;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(lines: &str, path: &str) -> bool {
        let folder = Path::new("/dags");
        let rules = lines.lines().filter_map(|line| Rule::read(folder, line));
        let rules = Rules(rules.map(Arc::new).collect());
        let is_folder = path.ends_with('/');
        rules.ignore(&folder.join(path.trim_end_matches('/')), is_folder)
    }

    #[test]
    fn lines_mean_what_they_mean_in_a_gitignore() {
        let cases = [
            ("*.tmp.py", "a/b/x.tmp.py", true),
            ("*.tmp.py", "x.py", false),
            ("drafts/", "a/drafts/", true),
            ("drafts/", "drafts", false),
            ("/top.py", "top.py", true),
            ("/top.py", "a/top.py", false),
            ("a/*.py", "a/x.py", true),
            ("a/*.py", "b/a/x.py", false),
            ("a/**/x.py", "a/b/c/x.py", true),
            ("**/old_?.py", "z/old_1.py", true),
            ("v[0-9].py", "v7.py", true),
            ("v[!0-9].py", "v7.py", false),
            ("*.py\n!keep.py", "keep.py", false),
            ("*.py\n!keep.py", "drop.py", true),
            ("# *.py\n\n", "x.py", false),
            ("\\#x.py", "#x.py", true),
            ("[x", "[x", true),
        ];
        for (lines, path, expected) in cases {
            assert_eq!(ignored(lines, path), expected, "{lines:?} {path}");
        }
    }
}
