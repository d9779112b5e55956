//! What a command is given: where it runs, and the names of its member.

use std::path::{Path, PathBuf};

use evermill_contract::manifest::TaskManifest;
use evermill_contract::settings::{CONNECTION_PREFIX, SECRET_PREFIX, Settings, variable_name};
use evermill_contract::worker::{Dispatch, TaskRef};

use crate::member::{effect_key, part, traceparent, tracestate};

/// Environment variables are cut here, since a system refuses longer ones: 128 KiB with the name on Linux.
const VARIABLE_BYTES_MAX: usize = 96 * 1024;

/// Where a command runs.
pub(super) fn folder(task: &TaskManifest, of: &TaskRef) -> PathBuf {
    let beside = || Path::new(&of.entry).parent().unwrap_or(Path::new("/"));
    let folder = of.folder.as_deref().map_or_else(beside, Path::new);
    task.cwd
        .as_ref()
        .map_or_else(|| folder.to_owned(), |cwd| folder.join(cwd))
}

/// `EVERMILL_CONNECTION_*` and `EVERMILL_SECRET_*`: what the task has declared.
///
/// # Errors
/// When one is not there, or cannot be read.
pub(crate) fn outside(
    task: &TaskManifest,
    settings: &dyn Settings,
) -> Result<Vec<(String, String)>, String> {
    let mut set = Vec::new();
    for id in &task.connections {
        let found = settings.connection(id)?;
        let found = found.ok_or_else(|| format!("the connection '{id}' has no address"))?;
        set.push((variable_name(CONNECTION_PREFIX, id), found));
    }
    for name in &task.secrets {
        let found = settings.secret(name)?;
        let found = found.ok_or_else(|| format!("there is no secret '{name}'"))?;
        set.push((variable_name(SECRET_PREFIX, name), found));
    }
    for (name, value) in &set {
        if value.len() > VARIABLE_BYTES_MAX || value.contains('\0') {
            return Err(format!(
                "{name} cannot be a variable of the environment: it is too long, or has a zero byte"
            ));
        }
    }
    Ok(set)
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
    // By the names that other programs look for.
    set.extend(traceparent(dispatch, index).map(|span| ("TRACEPARENT".to_owned(), span)));
    set.extend(tracestate(dispatch, index).map(|state| ("TRACESTATE".to_owned(), state)));
    set
}
