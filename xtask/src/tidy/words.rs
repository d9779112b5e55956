//! Words that must not be in the tree: unfinished work and paths of one machine.

use super::source::{File, Tree, without_prose};
use crate::workspace::Fault;

/// Spelled in two halves, or this file would be its own first fault.
const UNFINISHED: [&str; 3] = [
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
    concat!("XX", "X:"),
];
const UNFINISHED_CODE: [&str; 2] = [concat!("todo", "!"), concat!("unimplemented", "!")];
const MACHINE_FOLDERS: [&str; 4] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
];

pub(crate) fn check(tree: &Tree) -> Vec<Fault> {
    tree.files.iter().flat_map(faults_of_file).collect()
}

fn faults_of_file(file: &File) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let place = format!("{}:{}", file.path, number + 1);
        if let Some(folder) = MACHINE_FOLDERS.iter().find(|folder| has_path(line, folder)) {
            faults.push(format!(
                "{place}: `{folder}...` is a path of one machine: make it relative"
            ));
        }
        let word = UNFINISHED.iter().find(|word| has_word(line, word));
        if let (true, Some(word)) = (is_code(file), word) {
            faults.push(format!(
                "{place}: `{word}`: finish it, or file an issue and say why it is right as it is"
            ));
        }
    }
    if file.ending() == "rs" {
        faults.extend(unfinished_code(file));
    }
    faults
}

fn is_code(file: &File) -> bool {
    matches!(
        file.ending(),
        "rs" | "py" | "pyi" | "toml" | "sh" | "sql" | "yml" | "yaml" | ""
    )
}

fn unfinished_code(file: &File) -> Vec<Fault> {
    let code = without_prose(&file.text);
    let mut faults = Vec::new();
    for (number, line) in code.lines().enumerate() {
        if let Some(word) = UNFINISHED_CODE.iter().find(|word| has_word(line, word)) {
            faults.push(format!("{}:{}: `{word}`: finish it", file.path, number + 1));
        }
    }
    faults
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let joins = |c: char| c.is_alphanumeric() || c == '_';
        !before.is_some_and(joins) && !after.is_some_and(joins)
    })
}

/// Whether `folder` starts an absolute path here; `docs/` before it makes it a relative one.
fn has_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before
            .is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | ')' | '/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> usize {
        let file = File {
            path: path.into(),
            text: text.into(),
        };
        faults_of_file(&file).len()
    }

    #[test]
    fn a_path_of_one_machine_is_a_fault_in_any_text() {
        let folder = MACHINE_FOLDERS[0];
        assert_eq!(faults("docs/a.md", &format!("see {folder}me/evermill")), 1);
        assert_eq!(
            faults(
                "docs/a.md",
                &format!("see docs{folder}x and https://host{folder}x")
            ),
            0
        );
    }

    #[test]
    fn unfinished_work_is_a_fault_in_code_only() {
        let word = UNFINISHED[0];
        assert_eq!(faults("a.rs", &format!("// {word} later")), 1);
        assert_eq!(faults("STYLE.md", &format!("no {word} here")), 0);
        assert_eq!(faults("a.rs", &format!("{}(\"x\")", UNFINISHED_CODE[0])), 1);
    }
}
