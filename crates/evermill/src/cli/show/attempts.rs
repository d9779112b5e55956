//! `show RUN --attempts`: which worker has which try, and the latest tries that failed or came after one that did.

use evermill_engine::view::{AttemptState, AttemptView};
use serde_json::json;

use crate::cli::parked::age;
use crate::failure::Failure;
use crate::reach::{Reach, get, part};
use crate::table::{first_line, print, table};

/// Characters of an error that are shown.
const ERROR_WIDTH: usize = 60;

/// Asks and prints.
pub(super) fn run(reach: &Reach, run: &str, limit: usize, as_json: bool) -> Result<(), Failure> {
    let found = of(reach, run, &[("limit", limit.to_string())])?;
    if as_json {
        let lines = found.iter().map(|one| format!("{}\n", json!(one)));
        return print(&lines.collect::<String>());
    }
    if !found.is_empty() {
        return print(&tries_table(&found));
    }
    eprintln!(
        "{}",
        match reach.is_live() {
            true => "nothing is with a worker, and no try has failed since the engine started",
            false => "no engine runs: tries are remembered for as long as one does",
        }
    );
    Ok(())
}

/// Attempts that fit a query.
pub(super) fn of(
    reach: &Reach,
    run: &str,
    query: &[(&str, String)],
) -> Result<Vec<AttemptView>, Failure> {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(query);
    reach.ask(&get(&format!(
        "runs/{}/attempts?{}",
        part(run),
        text.finish()
    )))
}

/// Attempts as a table, the newest first.
pub(super) fn tries_table(attempts: &[AttemptView]) -> String {
    let head = [
        "WHEN", "TASK", "EVENT", "TRY", "STATE", "WORKER", "TOOK", "ERROR",
    ];
    table(head, attempts.iter().map(row).collect(), 8)
}

fn row(one: &AttemptView) -> [String; 8] {
    let state = match one.state {
        AttemptState::Sent => "sent",
        AttemptState::Success => "success",
        AttemptState::Skipped => "skipped",
        AttemptState::Failed => "failed",
        AttemptState::CutOff => "cut off",
    };
    let when = one.started_ms.or(one.sent_ms).or(one.ended_ms);
    let task = match one.map_index {
        Some(index) => format!("{}[{index}]", one.task),
        None => one.task.clone(),
    };
    let worker = one.worker.map(|worker| match worker.pid {
        Some(pid) => format!("{} (pid {pid})", worker.slot),
        None => worker.slot.to_string(),
    });
    let took = one.ended_ms.zip(one.started_ms);
    let took = took.map(|(ended, started)| format!("{} ms", ended.saturating_sub(started)));
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        when.map_or_else(|| "-".to_owned(), age),
        task,
        format!("{}@{}", one.lane, one.position),
        one.try_number.to_string(),
        state.to_owned(),
        or_dash(worker),
        or_dash(took),
        first_line(one.error.as_deref().unwrap_or_default(), ERROR_WIDTH),
    ]
}
