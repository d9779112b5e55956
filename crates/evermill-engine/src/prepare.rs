//! Getting a DAG ready on the caller's thread, before the shard hears of it: compile it, check its
//! bundle, unpack it, make its sources.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use evermill_contract::manifest::{DagManifest, Manifest};
use evermill_contract::source::{DiagnosticSink, FirstPosition, Opened, SourceBudget};
use evermill_core::dag::Dag;

use crate::bundle::{self, File};
use crate::handle::{EngineError, StartRequest};
use crate::limits;
use crate::manifest::{self, Outline, Pools};
use crate::open::{SourceFactory, SourceRequest, first_position};

/// What preparing needs; shared by all handles.
pub(crate) struct Preparation {
    pub(crate) data_dir: PathBuf,
    pub(crate) sources: SourceFactory,
    pub(crate) notices: DiagnosticSink,
    pub(crate) pools: Arc<PoolNumbers>,
}

/// A DAG that is ready to be switched on.
pub(crate) struct Prepared {
    pub(crate) dag: Arc<Dag>,
    pub(crate) outline: Arc<Outline>,
    /// What the `version` row keeps: a manifest with this one DAG, as JSON.
    pub(crate) stored: Bytes,
    pub(crate) files: Vec<File>,
    pub(crate) sources: Vec<PreparedSource>,
    pub(crate) fresh: bool,
    pub(crate) pass_gaps: bool,
}

pub(crate) struct PreparedSource {
    pub(crate) id: String,
    pub(crate) source: Opened,
    pub(crate) first: FirstPosition,
}

impl Preparation {
    pub(crate) fn prepare(&self, request: &StartRequest) -> Result<Prepared, EngineError> {
        let manifest = &request.manifest;
        let declared = manifest.dags.iter().find(|dag| dag.id == request.dag);
        let declared = declared.ok_or_else(|| EngineError::UnknownDag(request.dag.clone()))?;
        let version = manifest.version(declared).to_string();
        let (dag, outline) = manifest::compile(manifest, declared, version, &mut &*self.pools)
            .map_err(EngineError::Faults)?;
        let files = check_files(manifest, &request.files)?;
        let folder = bundle::folder(&self.data_dir, &outline.version);
        bundle::unpack(&folder, &files).map_err(|cause| EngineError::Bundle {
            path: folder.display().to_string(),
            what: cause.to_string(),
        })?;
        Ok(Prepared {
            sources: self.make_sources(declared)?,
            stored: stored_manifest(manifest, declared),
            dag: Arc::new(dag),
            outline: Arc::new(outline),
            files,
            fresh: request.fresh,
            pass_gaps: request.pass_gaps,
        })
    }

    fn make_sources(&self, declared: &DagManifest) -> Result<Vec<PreparedSource>, EngineError> {
        let make = |source| {
            let request = SourceRequest {
                dag: &declared.id,
                source,
                start_date: declared.start_date.as_deref(),
                budget: SourceBudget {
                    batch_events: limits::BATCH_EVENTS,
                    batch_bytes: limits::BATCH_BYTES,
                    prefetch_bytes: limits::PREFETCH_BYTES,
                },
                diagnostics: Arc::clone(&self.notices),
            };
            let made = (self.sources)(request).map_err(|cause| EngineError::Source {
                dag: declared.id.clone(),
                source_id: source.id.clone(),
                cause,
            })?;
            Ok(PreparedSource {
                id: source.id.clone(),
                source: made,
                first: first_position(source),
            })
        };
        declared.sources.iter().map(make).collect()
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

fn stored_manifest(manifest: &Manifest, declared: &DagManifest) -> Bytes {
    let only = Manifest {
        format: manifest.format,
        entry: manifest.entry.clone(),
        dags: vec![declared.clone()],
        files: manifest.files.clone(),
    };
    Bytes::from(serde_json::to_vec(&only).expect("a manifest has string keys only"))
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
