//! `docs/evidence.md` names, for each row of what can go wrong, the tests that cover it. Each of them exists, and
//! says the row's id in its name or in the comment above it.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{File, Tree};
use crate::workspace::Fault;

const PAGE: &str = "docs/evidence.md";

pub(crate) fn check(tree: &Tree) -> Vec<Fault> {
    let Some(page) = tree.files.iter().find(|file| file.path == PAGE) else {
        return vec![format!("{PAGE}: is missing")];
    };
    let mut said = Said::new();
    for ending in ["rs", "py", "mjs"] {
        for file in tree.with_ending(ending) {
            listen(file, &mut said);
        }
    }
    let mut faults = Vec::new();
    for (number, line) in page.text.lines().enumerate() {
        let Some((id, tests)) = row(line) else {
            continue;
        };
        for test in tests {
            let what = match said.get(test) {
                None => "there is no such test",
                Some(ids) if !ids.contains(id) => {
                    "says neither in its name nor above it that it covers this"
                }
                Some(_) => continue,
            };
            faults.push(format!("{PAGE}:{}: {id}: `{test}` {what}", number + 1));
        }
    }
    faults
}

/// Ids of rows that functions say they cover, by the functions' names.
type Said = BTreeMap<String, BTreeSet<String>>;

fn listen(file: &File, said: &mut Said) {
    let mut above = BTreeSet::new();
    for line in file.text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///").or_else(|| line.strip_prefix("# ")) {
            above.extend(ids(comment));
            continue;
        }
        let name = match line.strip_prefix("test('") {
            Some(rest) => rest.split('\'').next(),
            None => {
                let name = line.split_once("fn ").or_else(|| line.split_once("def "));
                name.and_then(|(_, rest)| rest.split(['(', '<', ' ']).next())
            }
        };
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let loud = name.to_ascii_uppercase();
            let of = said.entry(name.to_owned()).or_default();
            of.extend(ids(&loud).chain(std::mem::take(&mut above)));
        } else if !line.starts_with("#[") {
            above.clear();
        }
    }
}

/// Id and tests of a row of a table.
fn row(line: &str) -> Option<(&str, Vec<&str>)> {
    let cells: Vec<&str> = line.split(" | ").collect();
    let [first, _, tests, ..] = cells[..] else {
        return None;
    };
    let id = first.strip_prefix("| ").filter(|id| is_id(id))?;
    Some((id, tests.split('`').skip(1).step_by(2).collect()))
}

/// Every word that is an id.
fn ids(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| is_id(word)).map(str::to_owned)
}

fn is_id(word: &str) -> bool {
    let bytes = word.as_bytes();
    // S are items of access and security, the others are faults.
    matches!(bytes, [b'A'..=b'L' | b'S', b'0'..=b'9', b'0'..=b'9'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str =
        "/// Row C02: and more.\n#[test]\nfn b01_b03_it_holds() {\n}\nfn other() {}\n";

    fn found(page: &str) -> Vec<Fault> {
        let file = |path: &str, text: &str| File {
            path: path.into(),
            text: text.into(),
        };
        let files = vec![file(PAGE, page), file("a/b.rs", CODE)];
        check(&Tree { files })
    }

    #[test]
    fn a_test_of_the_page_is_found_by_its_sentence() {
        let mut said = Said::new();
        let text = "test('c02 it holds', async () => {\n  fetch();\n});\n".to_owned();
        let path = "web/tests/a.test.mjs".to_owned();
        listen(&File { path, text }, &mut said);
        assert!(said["c02 it holds"].contains("C02"), "{said:?}");
    }

    #[test]
    fn a_test_that_says_the_row_passes_and_one_that_does_not_or_is_not_there_is_named() {
        for id in ["C02", "B01", "B03"] {
            let row = format!("| {id} | x | `b01_b03_it_holds` | - |");
            assert_eq!(found(&row), [""; 0], "{id}");
        }
        let wrong = "| C02 | x | `other`<br>`gone` | - |\n| C03 | x | - | all |\n";
        let faults = found(wrong);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("`other` says neither"), "{faults:?}");
        assert!(faults[1].contains("`gone` there is no"), "{faults:?}");
    }
}
