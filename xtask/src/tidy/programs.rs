//! Where programs are started, and what every crate is compiled with. What a request holds must never become a
//! command; so who starts one stands in a list, and the room that speaks to strangers is not on it.

use super::source::{File, Tree, without_prose};
use crate::workspace::Fault;

/// Files of the product that start programs, each with whose word it is that names the program.
const MAY_START: [(&str, &str); 8] = [
    (
        "crates/evermill/src/cli/demo/browser.rs",
        "the browser, at the address of our own page",
    ),
    (
        "crates/evermill-worker/src/server.rs",
        "the interpreter of a DAG file",
    ),
    (
        "crates/evermill-worker/src/load.rs",
        "the interpreter that reads a DAG file",
    ),
    (
        "crates/evermill-worker/src/shell/command.rs",
        "run: of a DAG file",
    ),
    (
        "crates/evermill-connectors/src/alerts/deliver.rs",
        "an alert's command of evermill.toml",
    ),
    (
        "crates/evermill-connectors/src/aws/credentials.rs",
        "credential_process of the owner's AWS profile",
    ),
    (
        "crates/evermill/src/cli/test.rs",
        "the interpreter, for who types `evermill test`",
    ),
    (
        "crates/evermill/src/cli/parked/edit.rs",
        "the editor of who types `evermill parked edit`",
    ),
];

const STARTS: [&str; 3] = ["Command::new", ".exec(", "open::that"];

pub(crate) fn check(tree: &Tree) -> Vec<Fault> {
    let mut faults = starts(tree);
    faults.extend(tree.with_ending("toml").filter_map(lints));
    match tree.files.iter().find(|file| file.path == "Cargo.toml") {
        Some(manifest) => faults.extend(profiles(manifest)),
        None => faults.push("Cargo.toml: is missing".to_owned()),
    }
    faults
}

fn starts(tree: &Tree) -> Vec<Fault> {
    let product = tree.with_ending("rs").filter(|file| is_product(&file.path));
    let (mut faults, mut seen) = (Vec::new(), Vec::new());
    for file in product {
        let text = file
            .text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let code = without_prose(text);
        let found = code.lines().enumerate();
        let mut found = found.filter(|(_, line)| STARTS.iter().any(|start| line.contains(start)));
        let Some((number, _)) = found.next() else {
            continue;
        };
        seen.push(file.path.as_str());
        if !MAY_START.iter().any(|(path, _)| *path == file.path) {
            faults.push(format!(
                "{}:{}: starts a program: say in xtask/src/tidy/programs.rs whose word names it, or leave it to a worker",
                file.path,
                number + 1
            ));
        }
    }
    let gone = MAY_START.iter().filter(|(path, _)| !seen.contains(path));
    faults.extend(gone.map(|(path, _)| {
        format!("xtask/src/tidy/programs.rs: {path} starts no program any more: take it out")
    }));
    faults
}

fn is_product(path: &str) -> bool {
    path.starts_with("crates/")
        && path.contains("/src/")
        && !path.contains("/tests/")
        && !path.ends_with("/tests.rs")
        && !path.ends_with("_tests.rs")
}

/// Every crate has the workspace's lints, of which one forbids `unsafe`.
fn lints(manifest: &File) -> Option<Fault> {
    let is_crate = manifest.path.ends_with("/Cargo.toml");
    let has = lines_of(&manifest.text, "[lints]").any(|line| line == "workspace = true");
    (is_crate && !has).then(|| {
        format!(
            "{}: has not the workspace's lints: write [lints] workspace = true",
            manifest.path
        )
    })
}

/// What a number becomes that does not fit is no matter of luck, also in what ships.
fn profiles(manifest: &File) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (section, wanted) in [
        ("[workspace.lints.rust]", "unsafe_code = \"forbid\""),
        ("[profile.release]", "overflow-checks = true"),
        ("[profile.ci]", "overflow-checks = true"),
    ] {
        if !lines_of(&manifest.text, section).any(|line| line == wanted) {
            faults.push(format!("Cargo.toml: {section} wants {wanted}"));
        }
    }
    faults
}

/// The lines of a section of TOML.
fn lines_of<'a>(text: &'a str, section: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text
        .lines()
        .map(str::trim)
        .skip_while(move |line| *line != section);
    lines.skip(1).take_while(|line| !line.starts_with('['))
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

    /// A tree in which all is well, with some files in place of its own.
    fn found(more: Vec<File>) -> Vec<Fault> {
        let starts = |(path, _): &(&str, &str)| file(path, "Command::new(\"x\");");
        let mut files: Vec<File> = MAY_START.iter().map(starts).collect();
        let root = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n[profile.ci]\noverflow-checks = true\n\
                    [profile.release]\noverflow-checks = true\n";
        files.push(file("Cargo.toml", root));
        for new in more {
            files.retain(|old| old.path != new.path);
            files.push(new);
        }
        check(&Tree { files })
    }

    /// S14.
    #[test]
    fn a_program_that_is_started_where_nobody_said_so_is_a_fault() {
        assert_eq!(found(vec![]), [""; 0]);
        let api = "crates/evermill-api/src/routes.rs";
        for code in [
            "Command::new(name)",
            "std::process::Command::new(name)",
            "command.exec()",
        ] {
            let faults = found(vec![file(api, &format!("fn f() {{\n    {code};\n}}\n"))]);
            assert_eq!(faults.len(), 1, "{code}: {faults:?}");
            assert!(faults[0].starts_with(&format!("{api}:2: ")), "{faults:?}");
        }
        let passes = "// Command::new\nconst X: &str = \"Command::new\";\n#[cfg(test)]\nmod tests { Command::new }";
        assert_eq!(found(vec![file(api, passes)]), [""; 0]);
        let unused = found(vec![file(MAY_START[0].0, "")]);
        assert!(unused[0].contains("take it out"), "{unused:?}");
    }

    /// S19.
    #[test]
    fn a_crate_without_lints_and_a_release_without_checks_are_faults() {
        let crate_of = |text| found(vec![file("crates/evermill-new/Cargo.toml", text)]);
        assert_eq!(crate_of("[package]\n[lints]\nworkspace = true\n"), [""; 0]);
        assert_eq!(crate_of("[lints.rust]\nunsafe_code = \"allow\"\n").len(), 1);
        assert_eq!(crate_of("[lints]\n[other]\nworkspace = true\n").len(), 1);
        assert_eq!(
            found(vec![file("Cargo.toml", "[profile.release]\n")]).len(),
            3
        );
    }
}
