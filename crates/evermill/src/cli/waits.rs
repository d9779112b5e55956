//! `evermill waits [RUN]`: what waits for a signal, such as somebody's answer.

use std::path::PathBuf;

use evermill_engine::view::{EngineView, WaitPage, WaitView};
use serde_json::json;

use super::parked::age;
use crate::failure::Failure;
use crate::reach::{Reach, get, part};
use crate::table::{first_line, print, table};

/// Characters of what was returned that are shown.
const RESULT_WIDTH: usize = 60;

/// What can be typed behind `waits`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only this run: a DAG id or a run id
    run: Option<String>,
    /// Only what waits for the signal of this name
    #[arg(long, value_name = "NAME")]
    signal: Option<String>,
    /// One JSON object a line, with the event and what its tasks returned so far
    #[arg(long)]
    json: bool,
    /// List at most so many of a run
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

/// Lists it, of each signal the oldest first.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let listed = list(&reach, args);
    let closed = reach.close();
    listed.and(closed)
}

fn list(reach: &Reach, args: &Args) -> Result<(), Failure> {
    let runs = match &args.run {
        Some(run) => vec![run.clone()],
        None => {
            let view: EngineView = reach.ask(&get("runs"))?;
            let waiting = view.runs.into_iter().filter(|run| run.awaiting > 0);
            waiting.map(|run| run.run).collect()
        }
    };
    let (mut entries, mut matched) = (Vec::new(), 0);
    for run in runs {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &args.limit.to_string());
        query.append_pair("payload", "true");
        if let Some(signal) = &args.signal {
            query.append_pair("signal", signal);
        }
        let path = format!("runs/{}/waits?{}", part(&run), query.finish());
        let page: WaitPage = reach.ask(&get(&path))?;
        matched += page.matched;
        entries.extend(page.entries);
    }
    if args.json {
        let lines = entries.iter().map(|entry| format!("{}\n", json!(entry)));
        return print(&lines.collect::<String>());
    }
    if entries.is_empty() {
        eprintln!("nothing waits for a signal");
        return Ok(());
    }
    let rows = entries.iter().map(row).collect();
    print(&table(
        ["SIGNAL", "SINCE", "TASK", "ACTIVATION", "KEY", "BROUGHT"],
        rows,
        6,
    ))?;
    let more = matched - entries.len() as u64;
    if more > 0 {
        eprintln!("{more} more; --limit lists them");
    }
    let first = &entries[0];
    eprintln!(
        "answer one: evermill signal {} {} JSON --to '{}'",
        first.id.split('/').next().unwrap_or_default(),
        first.signal,
        first.id
    );
    Ok(())
}

fn row(wait: &WaitView) -> [String; 6] {
    use evermill_engine::view::Blob;
    let text = |blob: &Blob| match blob {
        Blob::Text(text) => text.clone(),
        Blob::Base64 { base64 } => format!("base64 {base64}"),
    };
    let event = wait.payload.first();
    let brought = wait.results.last().map(|brought| &brought.result);
    let brought = brought.or_else(|| event.and_then(|event| event.value.as_ref()));
    [
        wait.signal.clone(),
        age(wait.since_ms),
        wait.task.clone(),
        wait.id.clone(),
        event
            .and_then(|event| event.key.as_ref())
            .map_or_else(|| "-".to_owned(), text),
        brought.map_or_else(
            || "-".to_owned(),
            |blob| first_line(&text(blob), RESULT_WIDTH),
        ),
    ]
}
