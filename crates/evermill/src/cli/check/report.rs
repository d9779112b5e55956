//! What `check` found, for people and for programs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use evermill_api::drawing::{self, Graph};
use evermill_contract::manifest::{Code, DagManifest, Fault, Severity};
use serde::Serialize;

use super::graph;
use super::loading::Loaded;

/// The JSON report's format; a change that breaks a reader takes another number.
const FORMAT: u32 = 1;
/// Of an author's line, as much is shown.
const EXCERPT_CHARACTERS_MAX: usize = 120;

/// A file that was checked.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// None when something is wrong with it.
    pub(super) loaded: Option<Loaded>,
    pub(super) faults: Vec<Fault>,
}

impl File {
    pub(super) fn wrong(path: &Path, faults: Vec<Fault>) -> Self {
        Self {
            path: path.to_owned(),
            loaded: None,
            faults,
        }
    }

    /// Whether the only thing to be said is that it has no DAG.
    pub(super) fn declares_nothing(&self) -> bool {
        matches!(self.faults.as_slice(), [fault] if fault.code == Code::NoDag && fault.line == 0)
    }

    fn dags(&self) -> &[DagManifest] {
        self.loaded
            .as_ref()
            .map_or(&[], |loaded| &loaded.manifest.dags)
    }
}

/// Every fault with the line it is about and its cure; nothing when there is none.
pub(in crate::cli) fn text<'a>(faults: impl IntoIterator<Item = &'a Fault>) -> String {
    let mut out = String::new();
    for fault in faults {
        one(&mut out, fault).expect("a String takes everything");
    }
    out
}

fn one(out: &mut String, fault: &Fault) -> std::fmt::Result {
    write!(out, "{}", fault.file)?;
    if fault.line > 0 {
        write!(out, ":{}", fault.line)?;
    }
    if let Some(column) = fault.column {
        write!(out, ":{column}")?;
    }
    let mut said = fault.message.lines().map(plain);
    let first = said.next().unwrap_or_default();
    writeln!(out, ": {}: {first} [{}]", fault.code.severity(), fault.code)?;
    for more in said {
        writeln!(out, "      {more}")?;
    }
    if let Some(line) = excerpt(fault) {
        writeln!(out, "  {:>3} | {line}", fault.line)?;
    }
    if !fault.cure.is_empty() {
        writeln!(out, "      = {}", plain(&fault.cure))?;
    }
    Ok(())
}

/// The author's line, if it can still be read.
fn excerpt(fault: &Fault) -> Option<String> {
    let before = fault.line.checked_sub(1)?;
    let text = std::fs::read(&fault.file).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().nth(before as usize)?;
    Some(
        plain(line.trim_end())
            .chars()
            .take(EXCERPT_CHARACTERS_MAX)
            .collect(),
    )
}

/// Without what would move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// What it comes to, in one line.
pub(super) fn summary(files: &[File]) -> String {
    let counted = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let [errors, warnings] = [Severity::Error, Severity::Warning].map(|of| count(files, of));
    let dags = files.iter().map(|file| file.dags().len()).sum();
    let faults = match (errors, warnings) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, _) => counted(warnings, "warning"),
        (_, 0) => counted(errors, "error"),
        _ => format!(
            "{}, {}",
            counted(errors, "error"),
            counted(warnings, "warning")
        ),
    };
    format!(
        "{}, {}: {faults}",
        counted(files.len(), "file"),
        counted(dags, "DAG")
    )
}

fn count(files: &[File], severity: Severity) -> usize {
    let faults = files.iter().flat_map(|file| &file.faults);
    faults
        .filter(|fault| fault.code.severity() == severity)
        .count()
}

/// Every DAG, to be drawn.
pub(super) fn graphs(files: &[File]) -> Vec<Graph> {
    let loaded = files.iter().filter_map(|file| file.loaded.as_ref());
    loaded
        .flat_map(|loaded| {
            let dags = loaded.manifest.dags.iter();
            dags.map(|dag| graph::of(dag, &loaded.path(&dag.file)))
        })
        .collect()
}

/// Every DAG, drawn for a terminal.
pub(super) fn drawings(files: &[File]) -> String {
    let drawn: Vec<String> = graphs(files).iter().map(drawing::text).collect();
    let mut out = drawn.join("\n");
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

#[derive(Serialize)]
struct Report<'a> {
    format: u32,
    errors: usize,
    warnings: usize,
    files: Vec<FileReport<'a>>,
}

#[derive(Serialize)]
struct FileReport<'a> {
    file: String,
    dags: Vec<DagReport<'a>>,
    faults: Vec<FaultReport<'a>>,
}

#[derive(Serialize)]
struct DagReport<'a> {
    version: String,
    layers: Vec<Vec<&'a str>>,
    #[serde(flatten)]
    dag: &'a DagManifest,
}

#[derive(Serialize)]
struct FaultReport<'a> {
    severity: Severity,
    page: String,
    #[serde(flatten)]
    fault: &'a Fault,
}

/// Everything, as one JSON object.
pub(super) fn json(files: &[File]) -> String {
    let report = Report {
        format: FORMAT,
        errors: count(files, Severity::Error),
        warnings: count(files, Severity::Warning),
        files: files.iter().map(file_report).collect(),
    };
    let mut out = serde_json::to_string_pretty(&report).expect("a report has string keys only");
    out.push('\n');
    out
}

fn file_report(file: &File) -> FileReport<'_> {
    let manifest = file.loaded.as_ref().map(|loaded| &loaded.manifest);
    let dags = manifest.iter().flat_map(|manifest| {
        manifest.dags.iter().map(|dag| DagReport {
            version: manifest.version(dag).to_string(),
            layers: layers(dag),
            dag,
        })
    });
    let faults = file.faults.iter().map(|fault| FaultReport {
        severity: fault.code.severity(),
        page: format!("docs/errors/{}.md", fault.code),
        fault,
    });
    FileReport {
        file: file.path.display().to_string(),
        dags: dags.collect(),
        faults: faults.collect(),
    }
}

fn layers(dag: &DagManifest) -> Vec<Vec<&str>> {
    let sources = dag.sources.iter().map(|source| source.id.as_str());
    let ids: Vec<&str> = sources
        .chain(dag.tasks.iter().map(|task| task.id.as_str()))
        .collect();
    let layers = drawing::layers(&graph::of(dag, ""));
    let named = |layer: Vec<usize>| layer.into_iter().map(|node| ids[node]).collect();
    layers.into_iter().map(named).collect()
}
