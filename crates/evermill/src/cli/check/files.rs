//! Which files there are, and what is to be said about each.

use std::path::{Path, PathBuf};

use evermill_contract::manifest::{Code, DagManifest, Fault, Order};
use evermill_contract::yaml;

use super::loading::{Loaded, Loading, sorted, unreadable};
use super::report::File;
use crate::config::{self, Config};

/// Folders that hold other people's code.
const FOREIGN: [&str; 4] = ["__pycache__", "node_modules", "site-packages", "venv"];
/// A file of a folder is a DAG file when it names one of these.
const SIGNS: [&str; 2] = ["evermill", "airflow"];

/// Checks every file that was named, and every DAG file of the folders that were.
pub(super) fn check(paths: &[PathBuf], loading: &Loading, config: &Config) -> Vec<File> {
    let mut checked = Vec::new();
    for path in paths {
        if path.is_dir() {
            checked.extend(check_folder(path, loading, config));
        } else {
            checked.push(check_file(path, None, loading, config));
        }
    }
    checked
}

fn check_folder(folder: &Path, loading: &Loading, config: &Config) -> Vec<File> {
    let mut found = Vec::new();
    let mut checked = Vec::new();
    if let Err(cause) = collect(folder, &mut found) {
        checked.push(File::wrong(folder, vec![unreadable(folder, &cause)]));
    }
    found.sort();
    let files = found
        .iter()
        .map(|path| check_file(path, Some(folder), loading, config));
    // What others import from beside a DAG file needs no DAG of its own.
    checked.extend(files.filter(|file| !file.declares_nothing()));
    if checked.is_empty() {
        let fault = Fault {
            file: folder.display().to_string(),
            line: 0,
            column: None,
            code: Code::NoDag,
            message: "no file of this folder declares a DAG".to_owned(),
            cure: "decorate a function with @evermill.dag".to_owned(),
        };
        checked.push(File::wrong(folder, vec![fault]));
    }
    checked
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with('.') || FOREIGN.contains(&name.as_ref()) {
            continue;
        }
        // A link to a folder is not followed: it may lead back here.
        if entry.file_type()?.is_dir() {
            collect(&path, found)?;
        } else if (name.ends_with(".py") && has_sign(&path)) || is_dag_in_yaml(&name, &path) {
            found.push(path);
        }
    }
    Ok(())
}

/// Of the many things that are YAML, those that begin a line with `dag:`.
fn is_dag_in_yaml(name: &str, path: &Path) -> bool {
    let text = || std::fs::read_to_string(path).unwrap_or_default();
    yaml::is_yaml(name) && text().lines().any(|line| line.starts_with("dag:"))
}

/// What cannot be read is named by whoever loads it.
fn has_sign(path: &Path) -> bool {
    let Ok(text) = std::fs::read(path) else {
        return true;
    };
    let text = String::from_utf8_lossy(&text);
    SIGNS.iter().any(|sign| text.contains(sign))
}

fn check_file(path: &Path, folder: Option<&Path>, loading: &Loading, config: &Config) -> File {
    match loading.load(path, folder) {
        Err(faults) => File::wrong(path, sorted(faults)),
        Ok(loaded) => {
            let dags = loaded.manifest.dags.iter();
            let warnings = dags
                .flat_map(|dag| warnings(&loaded, dag, config))
                .collect();
            File {
                path: path.to_owned(),
                faults: sorted(warnings),
                loaded: Some(loaded),
            }
        }
    }
}

/// What a start would not refuse, and its author should know.
fn warnings(loaded: &Loaded, dag: &DagManifest, config: &Config) -> Vec<Fault> {
    let warning = |line, code, message, cure| Fault {
        file: loaded.path(&dag.file),
        line,
        column: None,
        code,
        message,
        cure,
    };
    let sources = dag.sources.iter().flat_map(|source| {
        let connections = source.connections();
        connections.map(|connection| ("source", &source.id, source.line, connection))
    });
    let sinks = dag.tasks.iter().filter_map(|task| {
        let connection = task.sink.as_ref()?.connection()?;
        Some(("task", &task.id, task.line, connection))
    });
    let requests = dag
        .tasks
        .iter()
        .filter_map(|task| Some(("task", &task.id, task.line, task.asks()?)));
    let nodes = sources.chain(sinks).chain(requests);
    let without = nodes.filter(|(_, _, _, id)| !config.connections.contains_key(*id));
    let without = without.map(|(sort, node, line, id)| {
        let message =
            format!("{sort} '{node}' needs the connection '{id}', which has no address here");
        let cure = config::how_to_give(id);
        warning(line, Code::UnknownConnection, message, cure)
    });
    let order = dag
        .sources
        .iter()
        .find_map(|source| source.order)
        .unwrap_or(dag.order);
    let alone = dag.tasks.iter().filter_map(|task| {
        let batch = task.batch.filter(|batch| *batch > 1 && order == Order::Serial)?;
        let message = format!(
            "task '{}' has batch={batch} and order='serial', where one event of a lane settles before the next \
             starts: a call gets one of each lane at most",
            task.id
        );
        let cure = "leave batch out, or take lists from the source with .batch(max_events=...)";
        Some(warning(task.line, Code::BatchUnderSerial, message, cure.to_owned()))
    });
    without.chain(alone).collect()
}
