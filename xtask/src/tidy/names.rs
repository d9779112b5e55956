//! A file's name says its subject. Names that could hold anything soon do.

use std::path::Path;

use super::source::{File, Tree, without_prose};
use crate::workspace::Fault;

const EMPTY_WORDS: [&str; 6] = ["util", "utils", "helper", "helpers", "manager", "managers"];

/// Airflow's own module names, which the compatibility package has to repeat.
const GIVEN_BY_OTHERS: &str = "python/evermill/compat/";

pub(crate) fn check(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree.with_ending("rs").chain(tree.with_ending("py")) {
        if !file.path.starts_with(GIVEN_BY_OTHERS) {
            faults.extend(empty_name(file));
        }
    }
    for file in tree.with_ending("rs") {
        faults.extend(empty_modules(file));
        faults.extend(logic_in_mod_rs(file));
    }
    faults
}

fn is_empty_word(name: &str) -> bool {
    name.split(['_', '-'])
        .any(|word| EMPTY_WORDS.contains(&word))
}

fn empty_name(file: &File) -> Option<Fault> {
    let path = Path::new(&file.path).with_extension("");
    let part = path
        .iter()
        .find(|part| is_empty_word(&part.to_string_lossy()))?;
    Some(format!(
        "{}: `{}` could hold anything: name it after its subject",
        file.path,
        part.to_string_lossy()
    ))
}

fn empty_modules(file: &File) -> Vec<Fault> {
    let code = without_prose(&file.text);
    let mut faults = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word != "mod")
            .skip(1);
        let name = words.next().unwrap_or("").trim_end_matches([';', '{', '}']);
        if is_empty_word(name) {
            faults.push(format!(
                "{}:{}: module `{name}` could hold anything: name it after its subject",
                file.path,
                number + 1
            ));
        }
    }
    faults
}

fn logic_in_mod_rs(file: &File) -> Option<Fault> {
    let code = without_prose(&file.text);
    let has_logic = code
        .split_whitespace()
        .any(|word| word == "fn" || word.starts_with("impl"));
    (file.path.ends_with("/mod.rs") && has_logic).then(|| {
        format!(
            "{}: logic in a mod.rs: give it a file with a name",
            file.path
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.into(),
            text: text.into(),
        }
    }

    #[test]
    fn names_that_say_nothing_are_faults() {
        assert!(empty_name(&file("crates/evermill-store/src/io_utils.rs", "")).is_some());
        assert!(empty_name(&file("python/evermill/helpers/wire.py", "")).is_some());
        assert_eq!(empty_modules(&file("a.rs", "pub mod manager {")).len(), 1);
    }

    #[test]
    fn names_that_only_contain_the_letters_pass() {
        assert!(empty_name(&file("crates/evermill-core/src/utility_bill.rs", "")).is_none());
        assert!(empty_modules(&file("a.rs", "mod utilisation; // mod util")).is_empty());
    }

    #[test]
    fn a_mod_rs_lists_modules_and_nothing_else() {
        assert!(logic_in_mod_rs(&file("src/kafka/mod.rs", "mod source;\nfn f() {}")).is_some());
        assert!(
            logic_in_mod_rs(&file("src/kafka/mod.rs", "mod source;\npub use source::*;")).is_none()
        );
    }
}
