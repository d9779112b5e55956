//! The gallery of errors: `tests/errors/CODE/` has a DAG file that is wrong in that way, and in
//! `expected` what `check` says about it. Each code has a page in `docs/errors/` that quotes it.
//!
//! `EVERMILL_WRITE_EXPECTED=1 cargo test -p evermill errors` writes the files anew; look at the
//! difference before you keep it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use evermill_contract::manifest::Code;

use crate::process::{Ended, Place, Running};

/// Said about manifests that no file of ours can make (another package's, or another front end's), or
/// by `serve` alone, which loads a file twice before it takes the place of another version.
const WITHOUT_EXAMPLE: [Code; 3] = [Code::BadMap, Code::Manifest, Code::NotStable];

fn gallery() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors")
}

fn pages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let stem = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("it can be read").path();
        path.file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    entries.map(stem).collect()
}

/// Checks a copy of an example, so that messages name the file alone.
fn check(code: Code) -> Ended {
    let place = Place::new();
    let example = gallery().join(code.as_str());
    let mut file = "flow.py".to_owned();
    let mut arguments = Vec::new();
    for entry in fs::read_dir(&example)
        .expect("an example")
        .map(Result::unwrap)
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path()).expect("it can be read");
        match name.as_str() {
            "expected" => {}
            "arguments" => arguments.extend(text.split_whitespace().map(str::to_owned)),
            _ => {
                place.file(&name, &text);
                file = name;
            }
        }
    }
    // What is warned about would be said of every example that has a source.
    if code != Code::UnknownConnection {
        arguments.push("--connection=kafka=127.0.0.1:9".to_owned());
    }
    let mut command = place.evermill(["check".to_owned(), file].into_iter().chain(arguments));
    if code == Code::Interpreter {
        command.env("EVERMILL_PYTHON", "no-such-python");
    }
    let ended = Running::start(&mut command).end();
    assert!(
        !place.data_dir().exists(),
        "check wrote to the data directory"
    );
    ended
}

/// Rows J01, J02, J03: files that are broken, cycles, ids twice: each with its file, its line and the cure.
#[test]
fn every_example_says_exactly_what_its_page_shows() {
    let mut differ = Vec::new();
    for &code in Code::ALL
        .iter()
        .filter(|code| !WITHOUT_EXAMPLE.contains(code))
    {
        let ended = check(code);
        let is_error = code.severity() == evermill_contract::manifest::Severity::Error;
        assert_eq!(
            ended.code(),
            if is_error { 3 } else { 0 },
            "{code}: {}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains(&format!("[{code}]")),
            "{code}: {}",
            ended.stderr
        );
        let said = ended.stderr.trim_end().to_owned() + "\n";
        let expected = gallery().join(code.as_str()).join("expected");
        if env::var_os("EVERMILL_WRITE_EXPECTED").is_some() {
            fs::write(&expected, &said).expect("it is written");
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        let page = fs::read_to_string(pages().join(format!("{code}.md"))).unwrap_or_default();
        if said != expected || !page.contains(&said) {
            differ.push(format!("{code}: expected\n{expected}said\n{said}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let codes: BTreeSet<String> = Code::ALL.iter().map(ToString::to_string).collect();
    let mut pages_there = names(&pages());
    assert!(pages_there.remove("README"), "no index");
    assert_eq!(pages_there, codes);
    let index = fs::read_to_string(pages().join("README.md")).expect("an index");
    for code in &codes {
        assert!(
            index.contains(&format!("[`{code}`]({code}.md)")),
            "the index has no {code}"
        );
    }
}

#[test]
fn every_code_has_an_example_unless_no_file_can_cause_it() {
    let codes = Code::ALL
        .iter()
        .filter(|code| !WITHOUT_EXAMPLE.contains(code));
    let codes: BTreeSet<String> = codes.map(ToString::to_string).collect();
    assert_eq!(names(&gallery()), codes);
}
