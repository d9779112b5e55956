//! `evermill pause|resume|drain|stop RUN`: each may be said twice, and lasts over restarts.

use std::path::PathBuf;

use bytes::Bytes;
use evermill_api::Method;
use evermill_engine::view::RunDetail;

use crate::failure::Failure;
use crate::reach::{self, Reach, part};
use crate::table::print;

/// What can be typed behind `pause` and its like.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG id (its latest run) or a run id, as `evermill ps` lists them
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
}

/// Which of them was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Pause,
    Resume,
    Drain,
    Stop,
}

impl Verb {
    const fn word(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Drain => "drain",
            Self::Stop => "stop",
        }
    }
}

/// Does it to every run that was named; the first that cannot be ends the command.
pub(super) fn run(verb: Verb, args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let done = args.runs.iter().try_for_each(|run| one(&reach, verb, run));
    let closed = reach.close();
    done.and(closed)
}

fn one(reach: &Reach, verb: Verb, run: &str) -> Result<(), Failure> {
    let path = format!("runs/{}/{}", part(run), verb.word());
    let after: RunDetail = reach.ask(&reach::request(Method::Post, &path, Bytes::new()))?;
    let run = &after.run;
    let said = explained(verb, run.state, reach.is_live());
    print(&format!("{} is {}{said}\n", run.run, run.state))
}

/// What follows from it, where the state alone does not say it.
fn explained(verb: Verb, state: &str, live: bool) -> &'static str {
    match (verb, state, live) {
        (Verb::Pause, _, true) => {
            ": nothing new is started until `evermill resume`, over restarts too"
        }
        (Verb::Pause, _, false) => ": no engine runs; the next one starts it paused",
        (Verb::Resume, _, false) => ": no engine runs; it goes on with the next `evermill run`",
        (Verb::Drain, "draining", true) => {
            ": nothing new is read, what was read settles; then it rests until the next `evermill run`"
        }
        (Verb::Drain, "running" | "paused", false) => {
            ": no engine runs, so nothing is under way; what is in flight settles in the next one"
        }
        (Verb::Stop, "stopped", _) => {
            ": the next run of its DAG goes on behind its positions; what was in flight is parked"
        }
        _ => "",
    }
}
