//! DAG files, loaded: their manifests, the content of their bundles, and every fault said at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::manifest::{Code, DagManifest, Fault, Manifest, SourceConfig};
use evermill_engine::{EngineError, StartRequest};
use evermill_worker::Loader;

use crate::config::{self, Config};
use crate::failure::Failure;
use crate::python;

/// Every file that was named, without a fault.
#[derive(Debug)]
pub(super) struct Files(Vec<File>);

#[derive(Debug)]
struct File {
    folder: PathBuf,
    manifest: Arc<Manifest>,
    content: BTreeMap<String, Bytes>,
}

/// Loads every file, one after the other, with the interpreter of the environment.
///
/// # Errors
/// All faults of all files, a line each.
pub(super) fn load(paths: &[PathBuf], sdk: &Path) -> Result<Files, Failure> {
    let mut loader = Loader::new(python::interpreter(None));
    loader.sdk = Some(sdk.to_owned());
    let mut files = Vec::new();
    let mut faults = Vec::new();
    for path in paths {
        match load_one(&loader, path) {
            Ok(file) => files.push(file),
            Err(found) => faults.extend(found),
        }
    }
    faults.extend(twice(&files));
    if faults.is_empty() {
        Ok(Files(files))
    } else {
        Err(Failure::dag_file(lines(&faults)))
    }
}

fn load_one(loader: &Loader, path: &Path) -> Result<File, Vec<Fault>> {
    let unreadable = |path: &Path, cause: std::io::Error| {
        vec![Fault {
            file: path.display().to_string(),
            line: 0,
            code: Code::Unreadable,
            message: cause.to_string(),
            cure: String::new(),
        }]
    };
    // What cannot be opened is said in the system's words, not as a traceback.
    let whole = std::fs::canonicalize(path).map_err(|cause| unreadable(path, cause))?;
    let manifest = loader.load(path, None)?;
    let folder = whole.parent().expect("a file lies in a folder").to_owned();
    let mut content = BTreeMap::new();
    for file in &manifest.files {
        let of_bundle = folder.join(&file.path);
        let bytes = std::fs::read(&of_bundle).map_err(|cause| unreadable(&of_bundle, cause))?;
        content.insert(file.path.clone(), bytes.into());
    }
    Ok(File {
        folder,
        manifest: Arc::new(manifest),
        content,
    })
}

/// DAG ids name runs, so no two files may declare the same.
fn twice(files: &[File]) -> Vec<Fault> {
    let mut known = BTreeMap::<&str, PathBuf>::new();
    let mut faults = Vec::new();
    for (file, dag) in files
        .iter()
        .flat_map(|file| file.manifest.dags.iter().map(move |dag| (file, dag)))
    {
        let path = file.folder.join(&dag.file);
        match known.get(dag.id.as_str()) {
            None => drop(known.insert(&dag.id, path)),
            Some(other) => faults.push(Fault {
                file: path.display().to_string(),
                line: dag.line,
                code: Code::DuplicateId,
                message: format!("{} declares the DAG '{}' as well", other.display(), dag.id),
                cure: "give one of them another id, or name one file only".to_owned(),
            }),
        }
    }
    faults
}

fn lines(faults: &[Fault]) -> String {
    faults
        .iter()
        .map(Fault::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

impl Files {
    /// The DAGs, in the order of the files and of their declaration.
    pub(super) fn dags(&self) -> impl Iterator<Item = &DagManifest> {
        self.0.iter().flat_map(|file| &file.manifest.dags)
    }

    /// What to ask of the engine for each DAG.
    pub(super) fn requests(
        &self,
        fresh: bool,
        pass_gaps: bool,
    ) -> impl Iterator<Item = (StartRequest, &DagManifest)> {
        let of_dag = move |file: &File, dag: &DagManifest| StartRequest {
            manifest: Arc::clone(&file.manifest),
            dag: dag.id.clone(),
            files: file.content.clone(),
            folder: file.folder.clone(),
            fresh,
            pass_gaps,
        };
        self.0.iter().flat_map(move |file| {
            file.manifest
                .dags
                .iter()
                .map(move |dag| (of_dag(file, dag), dag))
        })
    }

    /// The interpreter of all these DAGs.
    ///
    /// # Errors
    /// When they ask for different ones: one process serves one interpreter.
    pub(super) fn interpreter(&self) -> Result<PathBuf, Failure> {
        let mut chosen: Option<(PathBuf, &str)> = None;
        for dag in self.dags() {
            let wanted = python::interpreter(dag.python.as_deref());
            match &chosen {
                Some((first, other)) if *first != wanted => {
                    return Err(Failure::usage(format!(
                        "'{other}' runs on {} and '{}' on {}; run them by two commands, each with its \
                         own --data-dir",
                        first.display(),
                        dag.id,
                        wanted.display()
                    )));
                }
                Some(_) => {}
                None => chosen = Some((wanted, &dag.id)),
            }
        }
        Ok(chosen.map_or_else(|| python::interpreter(None), |(interpreter, _)| interpreter))
    }

    /// Every connection a source names has an address, before anything is opened.
    ///
    /// # Errors
    /// The first source whose connection has none, with the cure.
    pub(super) fn check_connections(&self, config: &Config) -> Result<(), Failure> {
        for dag in self.dags() {
            for source in &dag.sources {
                let SourceConfig::Kafka(kafka) = &source.config;
                if !config.connections.contains_key(&kafka.connection) {
                    return Err(Failure::usage(no_address(
                        &dag.id,
                        &source.id,
                        &kafka.connection,
                    )));
                }
            }
        }
        Ok(())
    }

    /// What the engine said against starting a DAG, for people and scripts.
    pub(super) fn explain(error: &EngineError) -> Failure {
        match error {
            EngineError::Faults(faults) => Failure::dag_file(lines(faults)),
            EngineError::Source { .. } => Failure::usage(error.to_string()),
            error => Failure::failed(error.to_string()),
        }
    }
}

fn no_address(dag: &str, source: &str, connection: &str) -> String {
    format!(
        "{dag}: source '{source}' needs the connection '{connection}', which has no address; give one by \
         --connection {connection}=HOST:PORT or {}=HOST:PORT",
        config::variable(connection)
    )
}
