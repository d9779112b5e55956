//! What a command is given: its task, found in the DAG file, and its member's bytes and names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use evermill_contract::manifest::TaskManifest;
use evermill_contract::worker::{Dispatch, TaskRef};
use evermill_contract::yaml;

use crate::member::{effect_key, part};

/// Environment variables are cut here, since a system refuses longer ones: 128 KiB with the name on Linux.
const VARIABLE_BYTES_MAX: usize = 96 * 1024;

/// Tasks by DAG file, DAG and id; a version has a file of its own, so nothing here grows old.
#[derive(Default)]
pub(super) struct Tasks(BTreeMap<String, BTreeMap<(String, String), TaskManifest>>);

impl Tasks {
    /// The task of a dispatch.
    ///
    /// # Errors
    /// When the file cannot be read, or does not hold it.
    pub(super) fn find(&mut self, task: &TaskRef) -> Result<&TaskManifest, String> {
        if !self.0.contains_key(&task.entry) {
            let read = load(&task.entry)?;
            self.0.insert(task.entry.clone(), read);
        }
        let known = &self.0[&task.entry];
        let key = (task.dag.clone(), task.task.clone());
        known.get(&key).ok_or_else(|| {
            format!(
                "{} declares no task '{}' in a DAG '{}'",
                task.entry, task.task, task.dag
            )
        })
    }
}

fn load(entry: &str) -> Result<BTreeMap<(String, String), TaskManifest>, String> {
    let text = std::fs::read_to_string(entry).map_err(|cause| format!("{entry}: {cause}"))?;
    let document = yaml::read(&text, entry).map_err(|faults| {
        let said = faults.iter().map(ToString::to_string);
        said.collect::<Vec<_>>().join("\n")
    })?;
    let dags = document.manifest.dags.into_iter();
    let tasks = dags.flat_map(|dag| {
        let id = dag.id;
        dag.tasks
            .into_iter()
            .map(move |task| ((id.clone(), task.id.clone()), task))
    });
    Ok(tasks.collect())
}

/// Where a command runs.
pub(super) fn folder(task: &TaskManifest, of: &TaskRef) -> PathBuf {
    let beside = || Path::new(&of.entry).parent().unwrap_or(Path::new("/"));
    let folder = of.folder.as_deref().map_or_else(beside, Path::new);
    task.cwd
        .as_ref()
        .map_or_else(|| folder.to_owned(), |cwd| folder.join(cwd))
}

/// What is on a member's standard input.
pub(super) fn stdin(task: &TaskManifest, dispatch: &Dispatch, index: u32) -> Vec<u8> {
    let member = &dispatch.members[index as usize];
    let wanted = task.run.as_ref().and_then(|run| run.stdin.as_ref());
    if let Some(wanted) = wanted {
        let from = dispatch.upstream.iter().position(|id| id == wanted);
        let result = dispatch
            .results
            .iter()
            .find(|result| result.member == index && Some(result.upstream as usize) == from);
        return plain(part(dispatch, result.and_then(|result| result.value)));
    }
    match &member.batch {
        // A list: each on a line of its own.
        Some(batch) => {
            let events = &dispatch.events[batch.start as usize..batch.end as usize];
            let lines = events
                .iter()
                .flat_map(|event| [part(dispatch, event.value), b"\n"]);
            lines.collect::<Vec<_>>().concat()
        }
        None => part(dispatch, member.event.value).to_vec(),
    }
}

/// A result as a command reads it: a text without its quotes, anything else as JSON.
fn plain(json: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<String>(json) {
        Ok(text) => text.into_bytes(),
        Err(_) => json.to_vec(),
    }
}

/// `EVERMILL_*`: who runs, and for which event.
pub(super) fn variables(dispatch: &Dispatch, index: u32) -> Vec<(String, String)> {
    let member = &dispatch.members[index as usize];
    let TaskRef { dag, run, task, .. } = &dispatch.task;
    let mut set: Vec<(String, String)> = Vec::with_capacity(16);
    let mut add = |name: &str, value: String| {
        if value.len() <= VARIABLE_BYTES_MAX && !value.contains('\0') {
            set.push((format!("EVERMILL_{name}"), value));
        }
    };
    add("DAG", dag.clone());
    add("RUN", run.clone());
    add("TASK", task.clone());
    add("TRY", member.try_number.to_string());
    if member.map_index >= 0 {
        add("MAP_INDEX", member.map_index.to_string());
    }
    if let Some(lane) = dispatch.lanes.get(usize::from(member.event.lane)) {
        add("SOURCE", lane.source.clone());
        add("LANE", lane.lane.clone());
    }
    add("POSITION", member.event.position.to_string());
    if let Some(ms) = member.event.timestamp_ms {
        add("TIMESTAMP_MS", ms.to_string());
    }
    if let Some(key) = member.event.key {
        add(
            "KEY",
            String::from_utf8_lossy(part(dispatch, Some(key))).into_owned(),
        );
    }
    if let Some(key) = effect_key(dispatch, index, 0) {
        add("EFFECT_KEY", key);
    }
    set
}
