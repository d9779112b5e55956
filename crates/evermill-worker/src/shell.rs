//! Tasks that are shell commands (`run:` in YAML): a process per member, one at a time in each slot.
//!
//! | what | is |
//! |---|---|
//! | standard input | the event's content, or the result of the task that `stdin:` names |
//! | environment | the engine's own, the connections and secrets that the task declares, its `env`, and `EVERMILL_*` (`shell/input.rs` lists them) |
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
use evermill_contract::manifest::{Shell, TaskManifest};
use evermill_contract::worker::{
    Dispatch, LogOrigin, Outcome, Success, TaskErrorKind, WorkerEvent,
};

use self::command::{Done, Ended, Job};
pub(crate) use self::input::outside;
use crate::declared::{content, success};
use crate::threads::{Shared, Slot, failed};

/// The exit code of a command that has nothing to do for its event; Airflow's `BashOperator` has it, too.
pub const SKIP: i32 = 99;

/// What is appended to the id of a source whose command is asked, outside of any activation.
pub(crate) const ASKED: &str = "?poke";

/// The exit code by which a command that is asked says no.
const NO: i32 = 1;

/// Runs the command for one member; None when the engine stopped it.
pub(crate) fn run(
    run: &Shell,
    task: &TaskManifest,
    outside: Vec<(String, String)>,
    slot: &Arc<Slot>,
    events: &Shared,
    dispatch: &Dispatch,
    index: u32,
) -> Option<Outcome> {
    let is_asked = dispatch.task.task.ends_with(ASKED);
    let own = task
        .env
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    let job = Job {
        command: &run.command,
        memory_bytes_max: task.memory_limit_bytes,
        nice: dispatch.nice,
        folder: &input::folder(task, &dispatch.task),
        env: outside
            .into_iter()
            .chain(own)
            .chain(input::variables(dispatch, index))
            .collect(),
        stdin: content(dispatch, index, run.stdin.as_deref()),
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
    let done = command::run(job, slot, log);
    if !is_asked {
        return outcome(done, dispatch.timeout);
    }
    match done.ended {
        Ended::Exited(status) if status.code() == Some(NO) => Some(answer("[false]".to_owned())),
        _ => outcome(done, dispatch.timeout).map(answered),
    }
}

/// What a command that is asked has said, as a function says it: whether it holds, and what was found.
fn answered(outcome: Outcome) -> Outcome {
    let Outcome::Success(success) = outcome else {
        return outcome;
    };
    let found = success.and_then(|success| success.result);
    answer(found.map_or_else(
        || "[true]".to_owned(),
        |found| format!("[true,{}]", String::from_utf8_lossy(&found)),
    ))
}

fn answer(said: String) -> Outcome {
    Outcome::Success(Some(Box::new(Success {
        result: Some(Bytes::from(said)),
        ..Success::default()
    })))
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
