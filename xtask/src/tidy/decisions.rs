//! A decision record says what was decided, why, and what would show it wrong.

use super::source::{File, Tree};
use crate::workspace::Fault;

const FOLDER: &str = "docs/decisions/";
const HEADINGS: [&str; 4] = ["Status", "Context", "Decision", "Violated when"];

pub(crate) fn check(tree: &Tree) -> Vec<Fault> {
    let records: Vec<&File> = tree
        .with_ending("md")
        .filter(|file| file.path.starts_with(FOLDER) && file.path != "docs/decisions/README.md")
        .collect();
    let mut faults: Vec<Fault> = records
        .iter()
        .flat_map(|file| faults_of_record(file))
        .collect();
    for pair in records.windows(2) {
        if number(pair[0]).is_some() && number(pair[0]) == number(pair[1]) {
            faults.push(format!(
                "{}: shares its number with {}",
                pair[1].path, pair[0].path
            ));
        }
    }
    faults
}

/// The four digits of `NNNN-subject.md`.
fn number(file: &File) -> Option<&str> {
    let (number, subject) = file.path.strip_prefix(FOLDER)?.split_once('-')?;
    let is_number = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !subject.is_empty()).then_some(number)
}

fn faults_of_record(file: &File) -> Vec<Fault> {
    let mut faults = Vec::new();
    if number(file).is_none() {
        faults.push(format!(
            "{}: a decision is named NNNN-subject.md",
            file.path
        ));
    }
    let headings: Vec<String> = file
        .text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .collect();
    for heading in HEADINGS {
        if !headings.contains(&heading.to_lowercase()) {
            faults.push(format!("{}: has no heading \"{heading}\"", file.path));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &str, text: &str) -> File {
        File {
            path: path.into(),
            text: text.into(),
        }
    }

    #[test]
    fn a_whole_record_passes_and_a_hole_is_named() {
        let whole = "# A\n## Status\n## Context\n## Decision\n## Violated when\n";
        assert!(faults_of_record(&record("docs/decisions/0001-a.md", whole)).is_empty());
        let hole = whole.replace("## Violated when\n", "");
        let faults = faults_of_record(&record("docs/decisions/0001-a.md", &hole));
        assert_eq!(
            faults,
            ["docs/decisions/0001-a.md: has no heading \"Violated when\""]
        );
    }

    #[test]
    fn two_records_never_share_a_number() {
        let whole = "## Status\n## Context\n## Decision\n## Violated when\n";
        let files = vec![
            record("docs/decisions/0001-a.md", whole),
            record("docs/decisions/0001-b.md", whole),
        ];
        assert_eq!(check(&Tree { files }).len(), 1);
    }
}
