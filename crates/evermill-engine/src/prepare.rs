//! Getting a DAG ready on the caller's thread, before the shard hears of it: compile it, check its
//! bundle, unpack it, make its sources.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use evermill_contract::manifest::{DagManifest, Manifest, SourceManifest};
use evermill_contract::source::{FirstPosition, Opened, SourceBudget};
use evermill_core::dag::Dag;

use crate::bundle::{self, File};
use crate::handle::{EngineError, StartRequest};
use crate::limits;
use crate::manifest::{self, Outline, Pools};
use crate::notice::{LateName, NoticeSink, of_source};
use crate::open::{SourceFactory, SourceRequest, first_position};
use crate::record::Why;
use crate::swap::Standing;

/// What preparing needs; shared by all handles.
pub(crate) struct Preparation {
    pub(crate) data_dir: PathBuf,
    pub(crate) sources: SourceFactory,
    pub(crate) notices: NoticeSink,
    pub(crate) pools: Arc<PoolNumbers>,
}

/// A DAG that is ready to be switched on.
pub(crate) struct Prepared {
    pub(crate) dag: Arc<Dag>,
    pub(crate) outline: Arc<Outline>,
    /// With this one DAG: what the `version` row keeps, as JSON.
    pub(crate) manifest: Arc<Manifest>,
    /// None of a version that is stored already.
    pub(crate) files: Vec<File>,
    /// Those that are to be opened.
    pub(crate) sources: Vec<PreparedSource>,
    pub(crate) fresh: bool,
    pub(crate) pass_gaps: bool,
    /// The version of a running DAG that it takes the place of.
    pub(crate) base: Option<String>,
    pub(crate) why: Why,
    /// Of a rollback: the version that is put away.
    pub(crate) instead_of: Option<String>,
    /// Who asked for it, where that is known.
    pub(crate) by: Option<String>,
}

/// A version that the store has.
pub(crate) struct Stored {
    pub(crate) version: String,
    pub(crate) manifest: Arc<Manifest>,
    /// What the DAG has now, or had last.
    pub(crate) current: String,
    /// What a rollback has put away.
    pub(crate) put_away: Option<String>,
    pub(crate) standing: Option<Standing>,
}

pub(crate) struct PreparedSource {
    pub(crate) id: String,
    /// What it says is of this run, once there is one.
    pub(crate) run: LateName,
    pub(crate) source: Opened,
    pub(crate) first: FirstPosition,
}

impl Preparation {
    /// From a file that was loaded. A run that stands keeps the sources that stay the same.
    pub(crate) fn prepare(
        &self,
        request: &StartRequest,
        standing: Option<&Standing>,
    ) -> Result<Prepared, EngineError> {
        let manifest = &request.manifest;
        let declared = manifest.dags.iter().find(|dag| dag.id == request.dag);
        let declared = declared.ok_or_else(|| EngineError::UnknownDag(request.dag.clone()))?;
        let version = manifest.version(declared).to_string();
        let files = check_files(manifest, &request.files)?;
        let folder = bundle::folder(&self.data_dir, &version);
        bundle::unpack(&folder, &files).map_err(|cause| EngineError::Bundle {
            path: folder.display().to_string(),
            what: cause.to_string(),
        })?;
        let only = Arc::new(only(manifest, declared));
        let prepared = self.made(&only, version, standing)?;
        Ok(Prepared {
            files,
            fresh: request.fresh,
            pass_gaps: request.pass_gaps,
            ..prepared
        })
    }

    /// From what the store has.
    pub(crate) fn prepare_stored(&self, stored: &Stored) -> Result<Prepared, EngineError> {
        let version = stored.version.clone();
        self.made(&stored.manifest, version, stored.standing.as_ref())
    }

    fn made(
        &self,
        manifest: &Arc<Manifest>,
        version: String,
        standing: Option<&Standing>,
    ) -> Result<Prepared, EngineError> {
        let declared = manifest.dags.first().expect("it holds one DAG");
        let (dag, outline) = manifest::compile(manifest, declared, version, &mut &*self.pools)
            .map_err(EngineError::Faults)?;
        let comes = |source: &&SourceManifest| {
            !standing.is_some_and(|before| before.goes_on(declared, source, outline.keys))
        };
        // Nothing is opened of what runs already.
        let same = standing.is_some_and(|before| before.version == outline.version);
        let coming = declared.sources.iter().filter(|_| !same).filter(comes);
        Ok(Prepared {
            sources: self.make_sources(declared, coming)?,
            manifest: Arc::clone(manifest),
            dag: Arc::new(dag),
            outline: Arc::new(outline),
            files: Vec::new(),
            fresh: false,
            pass_gaps: false,
            base: standing.map(|before| before.version.clone()),
            why: standing.map_or(Why::Start, |_| Why::Swap),
            instead_of: None,
            by: None,
        })
    }

    fn make_sources<'m>(
        &self,
        declared: &DagManifest,
        sources: impl Iterator<Item = &'m SourceManifest>,
    ) -> Result<Vec<PreparedSource>, EngineError> {
        let make = |source: &SourceManifest| {
            let run = LateName::default();
            let request = request_for(declared, source, &self.notices, &run);
            let made = (self.sources)(request).map_err(|cause| EngineError::Source {
                dag: declared.id.clone(),
                source_id: source.id.clone(),
                cause,
            })?;
            Ok(PreparedSource {
                id: source.id.clone(),
                run,
                source: made,
                first: first_position(source),
            })
        };
        sources.map(make).collect()
    }
}

/// What a source is made from.
pub(crate) fn request_for<'a>(
    declared: &'a DagManifest,
    source: &'a SourceManifest,
    notices: &NoticeSink,
    run: &LateName,
) -> SourceRequest<'a> {
    SourceRequest {
        dag: &declared.id,
        source,
        start_date: declared.start_date.as_deref(),
        budget: SourceBudget {
            batch_events: limits::BATCH_EVENTS,
            batch_bytes: limits::BATCH_BYTES,
            prefetch_bytes: limits::PREFETCH_BYTES,
        },
        diagnostics: of_source(notices, &declared.id, &source.id, Arc::clone(run)),
    }
}

fn check_files(
    manifest: &Manifest,
    given: &BTreeMap<String, Bytes>,
) -> Result<Vec<File>, EngineError> {
    let check = |file: &evermill_contract::manifest::BundleFile| {
        let wrong = |what: &str| EngineError::Bundle {
            path: file.path.clone(),
            what: what.to_owned(),
        };
        if !bundle::is_inside(&file.path) {
            return Err(wrong("lies outside the DAG folder"));
        }
        let content = given.get(&file.path).ok_or_else(|| wrong("is missing"))?;
        if bundle::hash(content) != file.sha256 {
            return Err(wrong("has changed since the DAG was loaded"));
        }
        Ok(File {
            path: file.path.clone(),
            sha256: file.sha256.clone(),
            content: content.clone(),
        })
    };
    manifest.files.iter().map(check).collect()
}

fn only(manifest: &Manifest, declared: &DagManifest) -> Manifest {
    Manifest {
        format: manifest.format,
        entry: manifest.entry.clone(),
        dags: vec![declared.clone()],
        files: manifest.files.clone(),
    }
}

/// Pools by name, numbered in the order in which they were first met.
#[derive(Debug, Default)]
pub(crate) struct PoolNumbers(Mutex<Vec<String>>);

impl PoolNumbers {
    /// The name of a pool.
    pub(crate) fn name(&self, pool: u16) -> Option<String> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(usize::from(pool)).cloned()
    }

    /// How many pools are known.
    pub(crate) fn len(&self) -> u16 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u16
    }
}

impl Pools for &PoolNumbers {
    fn number(&mut self, name: &str) -> u16 {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = names.iter().position(|known| known == name) {
            return index as u16;
        }
        names.push(name.to_owned());
        names.len() as u16 - 1
    }
}
