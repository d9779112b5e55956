//! DAG files, loaded: their manifests, the content of their bundles, and every fault said at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::manifest::{DagManifest, Fault, Manifest, SourceConfig, listeners_first};
use evermill_contract::settings::Settings as _;
use evermill_contract::yaml::is_yaml;
use evermill_engine::{EngineError, StartRequest};

use crate::cli::check::{self, Loaded, Loading};
use crate::config;
use crate::failure::Failure;
use crate::python;
use crate::vault::{self, Vault};

/// Every file that was named, without a fault.
#[derive(Debug)]
pub(in crate::cli) struct Files(Vec<File>);

/// One of them.
#[derive(Debug)]
pub(in crate::cli) struct File {
    folder: PathBuf,
    manifest: Arc<Manifest>,
    content: BTreeMap<String, Bytes>,
}

/// Loads every file, one after the other, with the interpreter of the environment.
///
/// # Errors
/// All faults of all files, as `check` says them.
pub(in crate::cli) fn load(paths: &[PathBuf], sdk: &Path) -> Result<Files, Failure> {
    let loading = Loading::new(sdk.to_owned());
    let mut loaded = Vec::new();
    let mut faults = Vec::new();
    for path in paths {
        match loading.load(path, None) {
            Ok(file) => loaded.push(file),
            Err(found) => faults.extend(check::sorted(found)),
        }
    }
    faults.extend(check::duplicates(loaded.iter()));
    faults.extend(check::circles(loaded.iter()));
    if !faults.is_empty() {
        return Err(Failure::dag_file(said(&faults)));
    }
    let files = loaded.into_iter().map(File::read).collect::<Result<_, _>>();
    files
        .map(Files)
        .map_err(|fault| Failure::dag_file(said(&[fault])))
}

impl File {
    /// With the content of the bundle's files, as they are now.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub(in crate::cli) fn read(loaded: Loaded) -> Result<Self, Fault> {
        let mut content = BTreeMap::new();
        for file in &loaded.manifest.files {
            let path = loaded.folder.join(&file.path);
            let bytes = std::fs::read(&path).map_err(|cause| check::unreadable(&path, &cause))?;
            content.insert(file.path.clone(), bytes.into());
        }
        Ok(Self {
            folder: loaded.folder,
            manifest: loaded.manifest,
            content,
        })
    }

    /// The DAGs, as they were declared.
    pub(in crate::cli) fn dags(&self) -> &[DagManifest] {
        &self.manifest.dags
    }

    /// One of them.
    pub(in crate::cli) fn dag(&self, id: &str) -> Option<&DagManifest> {
        self.dags().iter().find(|dag| dag.id == id)
    }

    /// The version of one of them.
    pub(in crate::cli) fn version(&self, dag: &str) -> Option<String> {
        let declared = self.dag(dag)?;
        Some(self.manifest.version(declared).to_string())
    }

    /// Where the files of the bundle are.
    pub(in crate::cli) fn bundle(&self) -> impl Iterator<Item = PathBuf> {
        let files = self.manifest.files.iter();
        files.map(|file| self.folder.join(&file.path))
    }

    /// What it declares.
    pub(in crate::cli) const fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// What to ask of the engine for one of its DAGs.
    pub(in crate::cli) fn request(&self, dag: &str, fresh: bool, pass_gaps: bool) -> StartRequest {
        StartRequest {
            manifest: Arc::clone(&self.manifest),
            dag: dag.to_owned(),
            files: self.content.clone(),
            folder: self.folder.clone(),
            fresh,
            pass_gaps,
        }
    }
}

/// The faults below the word `error:` that every failure begins with.
fn said(faults: &[Fault]) -> String {
    let text = check::said(faults);
    format!("nothing was started\n{}", text.trim_end())
}

impl Files {
    /// The DAGs, in the order of the files and of their declaration.
    pub(in crate::cli) fn dags(&self) -> impl Iterator<Item = &DagManifest> {
        self.0.iter().flat_map(|file| &file.manifest.dags)
    }

    /// What a start does not refuse, and authors should know: ways round over topics.
    pub(in crate::cli) fn warnings(&self) -> Vec<Fault> {
        let dags = self.0.iter().flat_map(|file| {
            let dags = file.manifest.dags.iter();
            dags.map(|dag| (dag, file.folder.join(&dag.file).display().to_string()))
        });
        check::rounds(&dags.collect::<Vec<_>>())
    }

    /// What to ask of the engine for each DAG, those who listen to others first.
    pub(in crate::cli) fn requests(
        &self,
        fresh: bool,
        pass_gaps: bool,
    ) -> impl Iterator<Item = (StartRequest, &DagManifest)> {
        let all = self.0.iter().flat_map(|file| {
            let dags = file.dags().iter();
            dags.map(move |dag| (file, dag))
        });
        let mut all: Vec<_> = all.collect();
        listeners_first(&mut all, |(_, dag)| dag);
        all.into_iter()
            .map(move |(file, dag)| (file.request(&dag.id, fresh, pass_gaps), dag))
    }

    /// Sources that take requests: DAG and source.
    pub(in crate::cli) fn ways_in(&self) -> impl Iterator<Item = (&str, &str)> {
        self.dags().flat_map(ways_into)
    }

    /// Whether any of these files holds commands for a shell.
    pub(in crate::cli) fn have_commands(&self) -> bool {
        self.0.iter().any(|file| is_yaml(&file.manifest.entry))
    }

    /// Tasks that are requests over HTTP, by DAG and id.
    pub(in crate::cli) fn http_tasks(&self) -> BTreeSet<(String, String)> {
        let of_dag = |dag: &DagManifest| {
            let tasks = dag.tasks.iter().filter(|task| task.http.is_some());
            let keys = tasks.map(|task| (dag.id.clone(), task.id.clone()));
            keys.collect::<Vec<_>>()
        };
        self.dags().flat_map(of_dag).collect()
    }

    /// Whether any task of these files gives its value to a place outside.
    pub(in crate::cli) fn have_sinks(&self) -> bool {
        let mut tasks = self.dags().flat_map(|dag| &dag.tasks);
        tasks.any(|task| task.sink.is_some())
    }

    /// Whether any sensor of these files asks a place outside.
    pub(in crate::cli) fn have_places(&self) -> bool {
        let mut tasks = self.dags().flat_map(|dag| &dag.tasks);
        tasks.any(|task| task.polls.is_some())
    }

    /// The interpreters of the DAGs in Python, each with the ids of those that run on it.
    pub(in crate::cli) fn interpreters(&self) -> Vec<(PathBuf, Vec<String>)> {
        let mut found: Vec<(PathBuf, Vec<String>)> = Vec::new();
        let in_python = self.0.iter().filter(|file| !is_yaml(&file.manifest.entry));
        for dag in in_python.flat_map(|file| &file.manifest.dags) {
            let wanted = python::interpreter(dag.python.as_deref());
            match found.iter_mut().find(|(known, _)| *known == wanted) {
                Some((_, dags)) => dags.push(dag.id.clone()),
                None => found.push((wanted, vec![dag.id.clone()])),
            }
        }
        if found.is_empty() && !self.have_commands() {
            found.push((python::interpreter(None), Vec::new()));
        }
        found
    }

    /// DAGs that somebody listens to, and that are neither in these files nor known to the engine: by which
    /// DAG, which of its sources, and what there is to say of it.
    pub(in crate::cli) fn unheard(
        &self,
        is_known: impl Fn(&str) -> bool,
    ) -> Vec<(String, String, String)> {
        let sources = self.dags().flat_map(|dag| {
            let sources = dag.sources.iter();
            sources.map(move |source| (dag, source))
        });
        let unknown = sources.filter_map(|(dag, source)| {
            let SourceConfig::After(after) = &source.config else {
                return None;
            };
            let known = self.dags().any(|dag| dag.id == after.dag) || is_known(&after.dag);
            (!known).then(|| {
                let text = format!(
                    "{}: source '{}' listens to DAG '{}', which is not here: nothing comes from it until it is started",
                    dag.id, source.id, after.dag
                );
                (dag.id.clone(), source.id.clone(), text)
            })
        });
        unknown.collect()
    }

    /// Every connection that a source or a task names has an address, and every secret a value, before
    /// anything is opened.
    ///
    /// # Errors
    /// The first one that has none, with the cure.
    pub(in crate::cli) fn check_settings(&self, vault: &Vault) -> Result<(), Failure> {
        self.dags().try_for_each(|dag| check_settings(dag, vault))
    }

    /// Who waits for the end of the input must not wait for a clock.
    ///
    /// # Errors
    /// The first clock.
    pub(in crate::cli) fn check_end(&self) -> Result<(), Failure> {
        for dag in self.dags() {
            let mut sources = dag.sources.iter();
            if let Some(source) = sources.find(|source| source.config.is_clock()) {
                return Err(Failure::usage(format!(
                    "--until-idle: DAG '{}' would never be idle: source '{}' is a clock; leave \
                     --until-idle out and end it with Ctrl-C, or look at one activation with `evermill test`",
                    dag.id, source.id
                )));
            }
        }
        Ok(())
    }

    /// What the engine said against starting a DAG, for people and scripts.
    pub(in crate::cli) fn explain(error: &EngineError) -> Failure {
        match error {
            EngineError::Faults(faults) => Failure::dag_file(said(faults)),
            EngineError::Source { .. } => Failure::usage(error.to_string()),
            error => Failure::failed(error.to_string()),
        }
    }
}

/// Sources of a DAG that take requests: DAG and source.
pub(in crate::cli) fn ways_into(dag: &DagManifest) -> impl Iterator<Item = (&str, &str)> {
    let hooks = dag.sources.iter();
    let hooks = hooks.filter(|source| matches!(source.config, SourceConfig::Webhook(_)));
    hooks.map(|source| (dag.id.as_str(), source.id.as_str()))
}

/// Every connection that a source or a task of a DAG names has an address, and every secret a value.
///
/// # Errors
/// The first one that has none, with the cure.
pub(in crate::cli) fn check_settings(dag: &DagManifest, vault: &Vault) -> Result<(), Failure> {
    let names = vault.names().map_err(Failure::usage)?;
    let sources = dag.sources.iter().flat_map(|source| {
        let connections = source.connections();
        connections.map(|connection| ("source", &source.id, connection))
    });
    let tasks = dag
        .tasks
        .iter()
        .filter_map(|task| Some(("task", &task.id, task.asks()?)));
    let sinks = dag.tasks.iter().filter_map(|task| {
        let connection = task.sink.as_ref()?.connection()?;
        Some(("sink", &task.id, connection))
    });
    let asked = dag.tasks.iter().flat_map(|task| {
        let declared = task.connections.iter();
        declared.map(|connection| ("task", &task.id, connection.as_str()))
    });
    for (sort, id, connection) in sources.chain(sinks).chain(asked) {
        if !names.connections.contains(connection) {
            return Err(Failure::usage(no_address(&dag.id, sort, id, connection)));
        }
    }
    for (sort, id, connection) in tasks {
        let address = vault.connection(connection).map_err(Failure::usage)?;
        let address =
            address.ok_or_else(|| Failure::usage(no_address(&dag.id, sort, id, connection)))?;
        evermill_http::Connection::parse(connection, &address)
            .map_err(|error| Failure::usage(error.to_string()))?;
    }
    for task in &dag.tasks {
        let mut asked = task.secrets.iter();
        if let Some(name) = asked.find(|name| !names.secrets.contains(*name)) {
            return Err(Failure::usage(format!(
                "{}: task '{}' needs the secret '{name}', which nobody has set; {}",
                dag.id,
                task.id,
                vault::how_to_set(name)
            )));
        }
    }
    Ok(())
}

fn no_address(dag: &str, sort: &str, id: &str, connection: &str) -> String {
    format!(
        "{dag}: {sort} '{id}' needs the connection '{connection}', which has no address; {}",
        config::how_to_give(connection)
    )
}
