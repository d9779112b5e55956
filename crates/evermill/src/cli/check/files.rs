//! Which files there are, and what is to be said about each.

use std::path::{Path, PathBuf};

use evermill_contract::manifest::{Code, DagManifest, Fault, Order};

use super::loading::{Loaded, Loading, outside, sorted, unreadable};
use super::report::File;
use crate::config;
use crate::folder::{self, Tree, may_declare};
use crate::vault::{self, Names};

/// Checks every file that was named, and every DAG file of the folders that were.
pub(super) fn check(paths: &[PathBuf], loading: &Loading, names: &Names) -> Vec<File> {
    let mut checked = Vec::new();
    for path in paths {
        if path.is_dir() {
            checked.extend(check_folder(path, loading, names));
        } else {
            checked.push(check_file(path, None, loading, names));
        }
    }
    checked
}

fn check_folder(folder: &Path, loading: &Loading, names: &Names) -> Vec<File> {
    let mut checked = Vec::new();
    let tree = folder::walk(folder, &mut |_| {}).unwrap_or_else(|cause| {
        checked.push(File::wrong(folder, vec![unreadable(folder, &cause)]));
        Tree::default()
    });
    let found = tree.files.keys().filter(|path| may_declare(path));
    let files = found.map(|path| match tree.outside.get(path) {
        Some(target) => File::wrong(path, vec![outside(path, target)]),
        None => check_file(path, Some(folder), loading, names),
    });
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

fn check_file(path: &Path, folder: Option<&Path>, loading: &Loading, names: &Names) -> File {
    match loading.load(path, folder) {
        Err(faults) => File::wrong(path, sorted(faults)),
        Ok(loaded) => {
            let dags = loaded.manifest.dags.iter();
            let warnings = dags.flat_map(|dag| warnings(&loaded, dag, names)).collect();
            File {
                path: path.to_owned(),
                faults: sorted(warnings),
                loaded: Some(loaded),
            }
        }
    }
}

/// What a start would not refuse, and its author should know.
fn warnings(loaded: &Loaded, dag: &DagManifest, names: &Names) -> Vec<Fault> {
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
    let asked = dag.tasks.iter().flat_map(|task| {
        let declared = task.connections.iter();
        declared.map(|id| ("task", &task.id, task.line, id.as_str()))
    });
    let nodes = sources.chain(sinks).chain(requests).chain(asked);
    let without = nodes.filter(|(_, _, _, id)| !names.connections.contains(*id));
    let without = without.map(|(sort, node, line, id)| {
        let message =
            format!("{sort} '{node}' needs the connection '{id}', which has no address here");
        let cure = config::how_to_give(id);
        warning(line, Code::UnknownConnection, message, cure)
    });
    let unset = dag.tasks.iter().flat_map(|task| {
        let missing = task.secrets.iter();
        let missing = missing.filter(|name| !names.secrets.contains(*name));
        missing.map(|name| {
            let message = format!(
                "task '{}' needs the secret '{name}', which nobody has set here",
                task.id
            );
            let cure = vault::how_to_set(name);
            warning(task.line, Code::UnknownSecret, message, cure)
        })
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
    without.chain(unset).chain(alone).collect()
}
