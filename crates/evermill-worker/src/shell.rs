//! Tasks that are shell commands (`run:` in YAML): a process per member, one at a time in each slot.
//!
//! | what | is |
//! |---|---|
//! | standard input | the event's content, or the result of the task that `stdin:` names |
//! | environment | the engine's own, the task's `env`, and `EVERMILL_*` (`shell/input.rs` lists them) |
//! | working directory | the version's bundle, or the task's `cwd` in it |
//! | exit code 0 | success; [`SKIP`] means skipped; anything else failed |
//! | standard output | the result: as it is if it is JSON, else as a text |
//! | standard error | log lines of the member, and the end of it the error's text |
//!
//! Each command leads a process group, and nothing of the group outlives its member.

mod command;
mod input;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evermill_contract::manifest::TaskManifest;
use evermill_contract::worker::{
    Dispatch, LogOrigin, Outcome, Success, TaskErrorKind, TaskRef, WorkerEvent,
};

use self::command::{Done, Ended, Job};
use crate::threads::{Runs, Shared, Slot, failed};

/// The exit code of a command that has nothing to do for its event; Airflow's `BashOperator` has it, too.
pub const SKIP: i32 = 99;

/// Runs the commands of DAG files in YAML.
#[derive(Default)]
pub(crate) struct Shell {
    tasks: input::Tasks,
}

impl Runs for Shell {
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
        match self.tasks.find(&dispatch.task) {
            Ok(task) => run(task, slot, events, dispatch, index),
            Err(why) => Some(failed(TaskErrorKind::Load, why, String::new())),
        }
    }
}

/// Runs the command for one member; None when the engine stopped it.
fn run(
    task: &TaskManifest,
    slot: &Arc<Slot>,
    events: &Shared,
    dispatch: &Dispatch,
    index: u32,
) -> Option<Outcome> {
    let Some(run) = &task.run else {
        let why = format!("task '{}' has no command", task.id);
        return Some(failed(TaskErrorKind::Load, why, String::new()));
    };
    let own = task
        .env
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    let job = Job {
        command: &run.command,
        memory_bytes_max: task.memory_limit_bytes,
        nice: dispatch.nice,
        folder: &input::folder(task, &dispatch.task),
        env: own.chain(input::variables(dispatch, index)).collect(),
        stdin: input::stdin(task, dispatch, index),
        timeout: dispatch.timeout,
    };
    let (tell, id, token) = (Arc::clone(events), slot.id, dispatch.token);
    let log = move |text: &[u8]| {
        tell(WorkerEvent::Log {
            slot: id,
            token: Some(token),
            member: Some(index),
            origin: LogOrigin::Stderr,
            text: Bytes::copy_from_slice(text),
        });
    };
    outcome(command::run(job, slot, log), dispatch.timeout)
}

fn outcome(done: Done, timeout: Option<Duration>) -> Option<Outcome> {
    let Done {
        ended,
        stdout,
        stderr,
    } = done;
    let tail = String::from_utf8_lossy(&stderr).into_owned();
    Some(match ended {
        Ended::Stopped => return None,
        Ended::NotStarted(cause) => failed(
            TaskErrorKind::Load,
            format!("sh cannot be started: {cause}"),
            tail,
        ),
        Ended::TimedOut => {
            let limit = timeout.unwrap_or_default();
            failed(
                TaskErrorKind::Timeout,
                format!("longer than {limit:?}"),
                tail,
            )
        }
        Ended::Exited(status) if status.success() => match stdout {
            Some(stdout) => success(&stdout),
            None => {
                let what = "standard output is longer than a result may be".to_owned();
                failed(TaskErrorKind::TooLarge, what, tail)
            }
        },
        Ended::Exited(status) if status.code() == Some(SKIP) => Outcome::Skipped,
        Ended::Exited(status) => failed(TaskErrorKind::Exited, command::said(status), tail),
    })
}

/// What a command printed is its result: as it is if it is JSON, else a text without its last newline.
fn success(stdout: &[u8]) -> Outcome {
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
