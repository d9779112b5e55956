//! From a path to a manifest or to everything that is wrong with it: the same for `check` and `run`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evermill_contract::manifest::{
    self, BundleFile, Code, DagManifest, Fault, Manifest, SinkConfig, SourceConfig, SourceManifest,
};
use evermill_contract::yaml;
use evermill_worker::Loader;
use sha2::{Digest as _, Sha256};

use super::schema;
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
    pub(in crate::cli) fn leave_no_trace(&mut self, limit: Duration) {
        self.0
            .env
            .push(("PYTHONDONTWRITEBYTECODE".into(), "1".into()));
        self.0.timeout = limit;
    }

    /// The most that loading a file may allocate, bytes.
    pub(in crate::cli) const fn limit_memory(&mut self, bytes: u64) {
        self.0.memory_max = Some(bytes);
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
        let manifest = if yaml::is_yaml(&path.to_string_lossy()) {
            from_yaml(&whole, &folder_whole, &shown)?
        } else {
            self.0.load(path, folder).map_err(|mut faults| {
                for fault in &mut faults {
                    fault.file = as_named(&fault.file, &folder_whole, &shown);
                }
                faults
            })?
        };
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

/// A DAG file in YAML: read in this process, for it holds nothing that runs.
fn from_yaml(file: &Path, folder: &Path, shown: &Path) -> Result<Manifest, Vec<Fault>> {
    let text = std::fs::read(file).map_err(|cause| vec![unreadable(file, &cause)])?;
    let below = file.strip_prefix(folder).unwrap_or(file);
    let entry = below.to_string_lossy().replace('\\', "/");
    let named = |mut faults: Vec<Fault>| {
        for fault in &mut faults {
            fault.file = shown_path(shown, below);
        }
        faults
    };
    let document = yaml::read(&String::from_utf8_lossy(&text), &entry).map_err(named)?;
    let mut manifest = document.manifest;
    for source in manifest.dags.iter_mut().flat_map(|dag| &mut dag.sources) {
        if let SourceConfig::Files(files) = &mut source.config {
            files.settle_in(folder);
        }
    }
    for task in manifest.dags.iter_mut().flat_map(|dag| &mut dag.tasks) {
        if let Some(SinkConfig::File(file)) = &mut task.sink {
            file.settle_in(folder);
        }
    }
    let mut faults = Vec::new();
    let needed = document
        .files
        .iter()
        .map(|(path, line)| (path.as_str(), *line));
    let mut files = BTreeMap::from([(entry.as_str(), 0)]);
    files.extend(needed);
    for (path, line) in files {
        match std::fs::read(folder.join(path)) {
            Ok(content) => manifest.files.push(BundleFile {
                path: path.to_owned(),
                sha256: sha256(&content),
            }),
            Err(cause) => faults.push(Fault {
                line,
                column: None,
                message: format!("files: '{path}': {cause}"),
                ..unreadable(file, &cause)
            }),
        }
    }
    for source in manifest.dags.iter_mut().flat_map(|dag| &mut dag.sources) {
        if let Err(fault) = read_schema(source, folder, below) {
            faults.push(fault);
        }
    }
    if faults.is_empty() {
        Ok(manifest)
    } else {
        Err(named(faults))
    }
}

/// A schema that is named by its path, seen from the DAG file, takes the path's place.
fn read_schema(source: &mut SourceManifest, folder: &Path, below: &Path) -> Result<(), Fault> {
    let Some(serde_json::Value::String(path)) = &source.schema else {
        return Ok(());
    };
    let of_dag = folder.join(below);
    let fault = |why: String| Fault {
        file: String::new(),
        line: source.line,
        column: None,
        code: Code::BadValue,
        message: format!("source '{}': schema: '{path}': {why}", source.id),
        cure: "write the path of a file, seen from this one, or the schema itself".to_owned(),
    };
    let folder = of_dag.parent().unwrap_or(folder);
    source.schema = Some(schema::read(path, folder).map_err(fault)?);
    Ok(())
}

fn sha256(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
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
        faults.extend(
            dag.sources
                .iter()
                .filter_map(|source| fault_of(dag, source)),
        );
        for fault in &mut faults {
            fault.file = self.path(&fault.file);
        }
        faults
    }

    /// A path of the manifest as messages show it.
    pub(super) fn path(&self, of_manifest: &str) -> String {
        shown_path(&self.shown, Path::new(of_manifest))
    }

    /// The DAGs, each with its file.
    pub(super) fn dags(&self) -> impl Iterator<Item = (&DagManifest, String)> {
        let dags = self.manifest.dags.iter();
        dags.map(|dag| (dag, self.path(&dag.file)))
    }

    /// File, line and id of each DAG.
    pub(super) fn declared(&self) -> Vec<(String, u32, &str)> {
        let dags = self.manifest.dags.iter();
        dags.map(|dag| (self.path(&dag.file), dag.line, dag.id.as_str()))
            .collect()
    }
}

/// What a connector would refuse of a source whatever the outside world is like.
fn fault_of(dag: &DagManifest, source: &SourceManifest) -> Option<Fault> {
    let fault = |what: String, cure: &str| Fault {
        file: dag.file.clone(),
        line: source.line,
        column: None,
        code: Code::BadValue,
        message: format!("source '{}': {what}", source.id),
        cure: cure.to_owned(),
    };
    if let Err(wrong) = evermill_connectors::codec::check(source) {
        return Some(fault(wrong.what, wrong.cure));
    }
    let (refused, cure) = match &source.config {
        SourceConfig::Cron(cron) => (
            evermill_connectors::clock::check(cron).err()?.to_string(),
            "write five fields, or six with seconds first: minute hour day month weekday",
        ),
        SourceConfig::Files(files) => evermill_connectors::files::check(files).err()?,
        _ => return None,
    };
    Some(fault(refused, cure))
}

/// A file that cannot be read.
pub(in crate::cli) fn unreadable(path: &Path, cause: &std::io::Error) -> Fault {
    Fault {
        file: path.display().to_string(),
        line: 0,
        column: None,
        code: Code::Unreadable,
        message: cause.to_string(),
        cure: "name a file that is there and may be read".to_owned(),
    }
}

/// A link of a DAG folder that leads out of it.
pub(in crate::cli) fn outside(path: &Path, target: &Path) -> Fault {
    Fault {
        file: path.display().to_string(),
        line: 0,
        column: None,
        code: Code::Unreadable,
        message: format!("it leads out of the DAG folder, to {}", target.display()),
        cure: "put the file itself into the folder".to_owned(),
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
                column: None,
                code: Code::DuplicateId,
                cure: "give one of them another id, or name one file only".to_owned(),
            }),
        }
    }
    faults
}

/// DAGs that would hear of their own ends, over whatever others, and never come to rest.
pub(in crate::cli) fn circles<'a>(files: impl Iterator<Item = &'a Loaded>) -> Vec<Fault> {
    let files: Vec<&Loaded> = files.collect();
    let dags = files.iter().flat_map(|file| &file.manifest.dags);
    let circles = manifest::circles(dags);
    let fault = |circle: manifest::Circle<'_>| {
        let (first, file) = files.iter().find_map(|file| {
            let mut dags = file.manifest.dags.iter();
            Some((dags.find(|dag| dag.id == circle.dags[0])?, file))
        })?;
        let source = first.sources.iter().find(|one| one.id == circle.source)?;
        let mut way = circle.dags;
        way.push(&first.id);
        Some(Fault {
            file: file.path(&first.file),
            line: source.line,
            column: None,
            code: Code::Cycle,
            message: format!(
                "DAG '{}': they would never come to rest",
                way.join("' listens to '")
            ),
            cure: "leave one evermill.after out".to_owned(),
        })
    };
    circles.into_iter().filter_map(fault).collect()
}

/// Ways round over topics among these DAGs, each of which stands with its file.
pub(in crate::cli) fn rounds(dags: &[(&DagManifest, String)]) -> Vec<Fault> {
    let place = |hop: &manifest::Hop<'_>| {
        let (dag, file) = dags.iter().find(|(dag, _)| dag.id == hop.dag)?;
        let source = dag.sources.iter().find(|one| one.id == hop.source)?;
        Some((file, source.line))
    };
    let said = |hop: &manifest::Hop<'_>, next: &manifest::Hop<'_>| {
        let (file, line) = place(next)?;
        let heard = match hop.emits {
            Some((task, topic)) => format!("task '{task}' of DAG '{}' emits to '{topic}'", hop.dag),
            None => format!("DAG '{}' ends", hop.dag),
        };
        Some(format!(
            "{heard}, which DAG '{}' hears ({file}:{line})",
            next.dag
        ))
    };
    let fault = |round: manifest::Rounds<'_>| {
        let (file, line) = place(&round.hops[0])?;
        let next = round.hops.iter().cycle().skip(1);
        let way: Option<Vec<String>> = round
            .hops
            .iter()
            .zip(next)
            .map(|(hop, next)| said(hop, next))
            .collect();
        Some(Fault {
            file: file.clone(),
            line,
            column: None,
            code: Code::TopicCircle,
            message: format!("what is heard may go round for ever: {}", way?.join("; ")),
            cure: "emit to another topic; or, where some task sees to it that it ends, say circle=True on the topic"
                .to_owned(),
        })
    };
    manifest::rounds(dags.iter().map(|(dag, _)| *dag))
        .into_iter()
        .filter_map(fault)
        .collect()
}

/// By file as they came, then by line.
pub(in crate::cli) fn sorted(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort_by_key(|fault| fault.line);
    faults
}
