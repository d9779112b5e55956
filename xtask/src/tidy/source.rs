//! The tree of text files that the rules look at, and Rust source without its prose.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::Fault;

/// Folders that hold nothing of ours: built, downloaded or private to one machine.
const FOREIGN_FOLDERS: [&str; 10] = [
    "target",
    ".git",
    ".cache",
    ".evermill",
    ".pytest_cache",
    ".venv",
    "__pycache__",
    "node_modules",
    "dist",
    "build",
];

/// What has lines a person wrote. Anything else (images, golden frames) is not read.
const TEXT_ENDINGS: [&str; 21] = [
    "rs",
    "py",
    "pyi",
    "toml",
    "md",
    "txt",
    "json",
    "yaml",
    "yml",
    "sh",
    "cfg",
    "ini",
    "xml",
    "properties",
    "css",
    "html",
    "js",
    "mjs",
    "ts",
    "svelte",
    "sql",
];

/// One text file; `path` is relative to the root and uses `/`.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn ending(&self) -> &str {
        Path::new(&self.path)
            .extension()
            .and_then(|ending| ending.to_str())
            .unwrap_or("")
    }
}

/// Every text file of the project, ordered by path.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

impl Tree {
    pub(crate) fn read(root: &Path) -> Result<Self, Fault> {
        let mut files = Vec::new();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder)? {
                if path.is_dir() {
                    if !is_foreign(&path) {
                        folders.push(path);
                    }
                } else if is_text(root, &path) && !is_foreign(&path) {
                    files.push(read_file(root, &path)?);
                }
            }
        }
        files.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(Self { files })
    }

    pub(crate) fn with_ending<'a>(&'a self, ending: &'a str) -> impl Iterator<Item = &'a File> {
        self.files
            .iter()
            .filter(move |file| file.ending() == ending)
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let fault = |error| format!("{}: {error}", folder.display());
    fs::read_dir(folder)
        .map_err(fault)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(fault))
        .collect()
}

/// Also of a file: in a second work tree `.git` is one.
fn is_foreign(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    FOREIGN_FOLDERS.contains(&name.as_ref()) || name.ends_with(".egg-info")
}

fn is_text(root: &Path, path: &Path) -> bool {
    let Some(ending) = path.extension() else {
        // `.ci/run` and `.gitignore` have no ending and are still ours to read.
        return path.parent() == Some(root) || path.starts_with(root.join(".ci"));
    };
    TEXT_ENDINGS.iter().any(|known| ending == *known)
}

/// Bytes that are not UTF-8 become replacement characters: golden inputs may hold some.
fn read_file(root: &Path, path: &Path) -> Result<File, Fault> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let path = path.strip_prefix(root).unwrap_or(path);
    Ok(File {
        path: path.to_string_lossy().replace('\\', "/"),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

/// Rust source with comments and literals blanked out, line for line the same, so that braces
/// and words that are left are code.
pub(crate) fn without_prose(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = end_of_prose(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            code.extend(
                chars[at..end]
                    .iter()
                    .map(|c| if *c == '\n' { '\n' } else { ' ' }),
            );
            at = end;
        }
    }
    code
}

/// Where the comment or literal that starts at `at` ends; `at` itself when none starts there.
fn end_of_prose(chars: &[char], at: usize) -> usize {
    match (chars[at], chars.get(at + 1)) {
        ('/', Some('/')) => find(chars, at, |c| c == '\n'),
        ('/', Some('*')) => end_of_block_comment(chars, at),
        ('"', _) => end_of_quoted(chars, at, '"'),
        ('r', Some('"' | '#')) if !continues_word(chars, at) => end_of_raw_string(chars, at),
        ('b', Some('r')) if !continues_word(chars, at) => match end_of_raw_string(chars, at + 1) {
            end if end == at + 1 => at,
            end => end,
        },
        ('\'', Some('\\')) => end_of_quoted(chars, at, '\''),
        ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

fn continues_word(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') && chars[at - 1] != 'b'
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    let length = chars[from..].iter().position(|c| stop(*c));
    length.map_or(chars.len(), |length| from + length)
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0_u32;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn end_of_quoted(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let open = find(chars, start + 1, |c| c != '#');
    let hashes = open - start - 1;
    if chars.get(open) != Some(&'"') {
        return start; // a raw identifier such as r#type
    }
    let mut at = open + 1;
    while at < chars.len() {
        let closes = chars[at] == '"'
            && chars.len() > at + hashes
            && chars[at + 1..=at + hashes].iter().all(|c| *c == '#');
        if closes {
            return at + hashes + 1;
        }
        at += 1;
    }
    chars.len()
}

#[cfg(test)]
mod tests {
    use super::without_prose;

    #[test]
    fn braces_in_comments_and_literals_are_not_code() {
        let text = "a{/*{*/} // {\n\"{\\\"{\" '{' r#\"{\"{\"# '\\'' b\"{\" }";
        let code = without_prose(text);
        assert_eq!(code.matches('{').count(), 1, "{code}");
        assert_eq!(code.matches('}').count(), 2, "{code}");
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        let text = "fn f<'a>(r#type: &'a str) {}";
        assert_eq!(without_prose(text), text);
    }
}
