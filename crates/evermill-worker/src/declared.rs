//! Tasks that a DAG file declares without code: commands ([`shell`]) and requests ([`http`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::manifest::{HttpCall, SourceConfig, SourceManifest, TaskManifest};
use evermill_contract::settings::Settings;
use evermill_contract::worker::{Dispatch, Outcome, Success, TaskErrorKind, TaskRef};
use evermill_contract::yaml;

use crate::http::{self, Http};
use crate::member::part;
use crate::shell;
use crate::threads::{Runs, Shared, Slot, failed};

/// Runs the tasks of DAG files in YAML.
pub(crate) struct Declared {
    tasks: Tasks,
    http: Http,
    settings: Arc<dyn Settings>,
    shadow: Option<Shadow>,
}

/// A request that a shadow does not make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld<'a> {
    /// Task id.
    pub task: &'a str,
    /// The lane of the event, as tasks see it.
    pub lane: &'a str,
    /// Its position.
    pub position: u64,
    /// Method and place, for people.
    pub request: String,
}

/// Stands in for the outside world in a shadow run: hears of what is not sent, and says what was
/// answered, as JSON, or why nothing was.
#[derive(Clone)]
pub struct Shadow(Arc<Answers>);

type Answers = dyn Fn(&Withheld<'_>) -> Answer + Send + Sync;

/// What a request that was not made is taken to have come to.
pub type Answer = Result<Option<Vec<u8>>, String>;

impl Shadow {
    /// `answer` is called on the thread of whoever would have asked.
    pub fn new(answer: impl Fn(&Withheld<'_>) -> Answer + Send + Sync + 'static) -> Self {
        Self(Arc::new(answer))
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").finish_non_exhaustive()
    }
}

impl Declared {
    pub(crate) fn new(settings: Arc<dyn Settings>, shadow: Option<Shadow>) -> Self {
        Self {
            tasks: Tasks::default(),
            http: Http::new(Arc::clone(&settings)),
            settings,
            shadow,
        }
    }
}

impl Runs for Declared {
    const GATHERS: bool = false;

    fn find(&mut self, task: &TaskRef) -> Result<(), String> {
        self.tasks.find(task).map(drop)
    }

    fn member(
        &mut self,
        slot: &Arc<Slot>,
        events: &Shared,
        dispatch: &Arc<Dispatch>,
        index: u32,
    ) -> Option<Outcome> {
        let task = match self.tasks.find(&dispatch.task) {
            Ok(task) => task,
            Err(why) => return Some(failed(TaskErrorKind::Load, why, String::new())),
        };
        match (&task.run, &task.http) {
            (Some(run), _) => {
                let mut outside = match shell::outside(task, &*self.settings) {
                    Ok(outside) => outside,
                    Err(why) => return Some(failed(TaskErrorKind::Load, why, String::new())),
                };
                if self.shadow.is_some() {
                    outside.push(("EVERMILL_SHADOW".to_owned(), "1".to_owned()));
                }
                shell::run(run, task, outside, slot, events, dispatch, index)
            }
            (None, Some(call)) => match &self.shadow {
                Some(shadow) => Some(withheld(shadow, call, dispatch, index)),
                None => self.http.run(call, slot, dispatch, index),
            },
            (None, None) => {
                let why = format!("task '{}' has neither a command nor a request", task.id);
                Some(failed(TaskErrorKind::Load, why, String::new()))
            }
        }
    }
}

fn withheld(shadow: &Shadow, call: &HttpCall, dispatch: &Dispatch, index: u32) -> Outcome {
    let event = &dispatch.members[index as usize].event;
    let lane = dispatch.lanes.get(usize::from(event.lane));
    let told = Withheld {
        task: &dispatch.task.task,
        lane: lane.map_or("", |lane| &lane.lane),
        position: event.position,
        request: http::place(call),
    };
    match (shadow.0)(&told) {
        Ok(answer) => answer.map_or(Outcome::Success(None), |answer| success(&answer)),
        Err(why) => failed(TaskErrorKind::Load, why, String::new()),
    }
}

/// Tasks by DAG file, DAG and id; a version has a file of its own, so nothing here grows old.
#[derive(Default)]
struct Tasks(BTreeMap<String, BTreeMap<(String, String), TaskManifest>>);

impl Tasks {
    /// The task of a dispatch.
    ///
    /// # Errors
    /// When the file cannot be read, or does not hold it.
    fn find(&mut self, task: &TaskRef) -> Result<&TaskManifest, String> {
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
        let asked: Vec<TaskManifest> = dag.sources.iter().filter_map(asked).collect();
        let id = dag.id;
        dag.tasks
            .into_iter()
            .chain(asked)
            .map(move |task| ((id.clone(), task.id.clone()), task))
    });
    Ok(tasks.collect())
}

/// The command of a source that asks one, as a task: by the name that the engine asks for.
fn asked(source: &SourceManifest) -> Option<TaskManifest> {
    let SourceConfig::Poll(poll) = &source.config else {
        return None;
    };
    let task = serde_json::json!({
        "id": format!("{}{}", source.id, shell::ASKED),
        "kind": "call",
        "line": source.line,
        "run": poll.run.as_ref()?,
    });
    serde_json::from_value(task).ok()
}

/// What a member's task reads: the result of the task `from`, else the event's content.
pub(crate) fn content(dispatch: &Dispatch, index: u32, from: Option<&str>) -> Vec<u8> {
    let member = &dispatch.members[index as usize];
    if let Some(wanted) = from {
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
pub(crate) fn plain(json: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<String>(json) {
        Ok(text) => text.into_bytes(),
        Err(_) => json.to_vec(),
    }
}

/// What a command printed, or a server answered, is the result: as it is if it is JSON, else a text
/// without its last newline.
pub(crate) fn success(stdout: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(stdout);
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim().is_empty() {
        return Outcome::Success(None);
    }
    let (result, map_len) = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) => {
            let length = match &value {
                serde_json::Value::Array(items) => Some(items.len()),
                serde_json::Value::Object(pairs) => Some(pairs.len()),
                _ => None,
            };
            (text.trim().to_owned(), length)
        }
        Err(_) => (serde_json::Value::from(text).to_string(), None),
    };
    Outcome::Success(Some(Box::new(Success {
        result: Some(Bytes::from(result)),
        map_len: map_len.and_then(|length| u32::try_from(length).ok()),
        ..Success::default()
    })))
}
