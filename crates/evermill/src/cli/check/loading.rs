//! From a path to a manifest or to everything that is wrong with it: the same for `check` and `run`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evermill_contract::manifest::{Code, DagManifest, Fault, Manifest};
use evermill_worker::Loader;

use crate::python;

/// How DAG files are loaded.
#[derive(Debug)]
pub(in crate::cli) struct Loading(Loader);

/// A DAG file without an error.
#[derive(Debug)]
pub(in crate::cli) struct Loaded {
    /// The DAG folder, absolute.
    pub(in crate::cli) folder: PathBuf,
    /// The folder as somebody typed it, for messages.
    shown: PathBuf,
    pub(in crate::cli) manifest: Arc<Manifest>,
}

impl Loading {
    /// With the interpreter of the environment and the package in `sdk`.
    pub(in crate::cli) fn new(sdk: PathBuf) -> Self {
        let mut loader = Loader::new(python::interpreter(None));
        loader.sdk = Some(sdk);
        Self(loader)
    }

    /// For who only looks: nothing is written beside the files, and none may take longer than this.
    pub(super) fn leave_no_trace(&mut self, limit: Duration) {
        self.0
            .env
            .push(("PYTHONDONTWRITEBYTECODE".into(), "1".into()));
        self.0.timeout = limit;
    }

    /// Loads a file and checks every DAG in it as a start would. `folder` is the DAG folder; without
    /// it, the file's own.
    ///
    /// # Errors
    /// Everything that can be found at once.
    pub(in crate::cli) fn load(
        &self,
        path: &Path,
        folder: Option<&Path>,
    ) -> Result<Loaded, Vec<Fault>> {
        // What cannot be opened is said in the system's words, not as a traceback.
        let whole = path
            .canonicalize()
            .map_err(|cause| vec![unreadable(path, &cause)])?;
        let shown = folder.or(path.parent()).unwrap_or(Path::new("")).to_owned();
        let own = || whole.parent().expect("a file lies in a folder").to_owned();
        let folder_whole = folder.map_or_else(own, |folder| {
            folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
        });
        let manifest = self.0.load(path, folder).map_err(|mut faults| {
            for fault in &mut faults {
                fault.file = as_named(&fault.file, &folder_whole, &shown);
            }
            faults
        })?;
        let loaded = Loaded {
            folder: folder_whole,
            shown,
            manifest: Arc::new(manifest),
        };
        let dags = loaded.manifest.dags.iter();
        let faults: Vec<Fault> = dags.flat_map(|dag| loaded.faults_of(dag)).collect();
        if faults.is_empty() {
            Ok(loaded)
        } else {
            Err(faults)
        }
    }
}

/// A path that the loader gave, seen from the folder as somebody typed it.
fn as_named(file: &str, folder: &Path, shown: &Path) -> String {
    let whole = Path::new(file).canonicalize();
    let below = whole
        .as_ref()
        .ok()
        .and_then(|whole| whole.strip_prefix(folder).ok());
    below.map_or_else(|| file.to_owned(), |below| shown_path(shown, below))
}

fn shown_path(folder: &Path, below: &Path) -> String {
    let path = folder.join(below);
    path.strip_prefix(".")
        .unwrap_or(&path)
        .display()
        .to_string()
}

impl Loaded {
    fn faults_of(&self, dag: &DagManifest) -> Vec<Fault> {
        let mut faults = evermill_engine::faults(&self.manifest, dag);
        for fault in &mut faults {
            fault.file = self.path(&fault.file);
        }
        faults
    }

    /// A path of the manifest as messages show it.
    pub(super) fn path(&self, of_manifest: &str) -> String {
        shown_path(&self.shown, Path::new(of_manifest))
    }

    /// File, line and id of each DAG.
    pub(super) fn declared(&self) -> Vec<(String, u32, &str)> {
        let dags = self.manifest.dags.iter();
        dags.map(|dag| (self.path(&dag.file), dag.line, dag.id.as_str()))
            .collect()
    }
}

/// A file that cannot be read.
pub(in crate::cli) fn unreadable(path: &Path, cause: &std::io::Error) -> Fault {
    Fault {
        file: path.display().to_string(),
        line: 0,
        code: Code::Unreadable,
        message: cause.to_string(),
        cure: "name a file that is there and may be read".to_owned(),
    }
}

/// DAG ids name runs, so no two files may declare the same.
pub(in crate::cli) fn duplicates<'a>(files: impl Iterator<Item = &'a Loaded>) -> Vec<Fault> {
    let mut known = BTreeMap::<&str, (String, u32)>::new();
    let mut faults = Vec::new();
    for (path, line, id) in files.flat_map(Loaded::declared) {
        match known.get(id) {
            None => drop(known.insert(id, (path, line))),
            // The same file, named twice.
            Some(other) if *other == (path.clone(), line) => {}
            Some((other, at)) => faults.push(Fault {
                message: format!("{other}:{at} declares the DAG '{id}' as well"),
                file: path,
                line,
                code: Code::DuplicateId,
                cure: "give one of them another id, or name one file only".to_owned(),
            }),
        }
    }
    faults
}

/// By file as they came, then by line.
pub(in crate::cli) fn sorted(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort_by_key(|fault| fault.line);
    faults
}
