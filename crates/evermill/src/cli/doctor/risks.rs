//! Settings of DAGs that work, and that somebody may wish he had been told of.

use evermill_contract::manifest::{DagManifest, SinkConfig, SourceConfig, TaskManifest};

use super::{Finding, Level};
use crate::config;

/// Asking others more often than this is asking for trouble, milliseconds.
const POLL_MS_MIN: u64 = 1_000;
/// Retries past which one event may keep a worker busy for ever.
const RETRIES_MAX: u32 = 100;
/// Retries that follow each other faster than this are one try for whatever is broken, milliseconds.
const DELAY_MS_MIN: u64 = 100;

/// What is risky about a DAG.
pub(super) fn of(dag: &DagManifest, known: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in &dag.sources {
        let what = format!("{}.{}", dag.id, source.id);
        let every = match &source.config {
            SourceConfig::Http(http) => Some(("poke_interval", http.poke_interval_ms)),
            SourceConfig::Files(files) => Some(("poke_interval", files.poke_interval_ms)),
            SourceConfig::Every(every) => Some(("every", every.interval_ms)),
            _ => None,
        };
        if let Some((option, ms)) = every.filter(|(_, ms)| *ms < POLL_MS_MIN) {
            let text = format!(
                "{option} is {ms} ms: that is {} times a second, for ever; a second or more is kinder",
                1_000 / ms.max(1)
            );
            found.push(Finding::new(Level::Risk, &what, text));
        }
        if let Some(id) = source.config.connection()
            && !known.iter().any(|one| one == id)
        {
            let text = format!(
                "nobody says where '{id}' leads: {}",
                config::how_to_give(id)
            );
            found.push(Finding::new(Level::Bad, &what, text));
        }
    }
    for task in &dag.tasks {
        let what = format!("{}.{}", dag.id, task.id);
        found.extend(
            of_task(task)
                .into_iter()
                .map(|text| Finding::new(Level::Risk, &what, text)),
        );
    }
    found
}

fn of_task(task: &TaskManifest) -> Vec<String> {
    let mut found = Vec::new();
    let retries = task.retries;
    // A sink that waits for its place with doubling waits is as it should be.
    if retries > RETRIES_MAX && task.sink.is_none() {
        found.push(format!(
            "retries is {retries}: an event that always fails is tried for a very long time before it is parked; \
             a few retries and `evermill parked retry` do the same"
        ));
    }
    let quick = task.retry_delay_ms.is_some_and(|ms| ms < DELAY_MS_MIN);
    if retries > 1 && quick && !task.retry_exponential_backoff {
        found.push(format!(
            "{retries} retries within {} ms are one try for whatever is broken; set retry_delay or \
             retry_exponential_backoff",
            u64::from(retries) * task.retry_delay_ms.unwrap_or(0)
        ));
    }
    if retries > 0 {
        found.extend(repeated(task).map(str::to_owned));
    }
    found
}

/// What comes of a try whose answer was lost, where that is somebody else's trouble.
fn repeated(task: &TaskManifest) -> Option<&'static str> {
    const REQUEST: &str = "a request whose answer was lost is sent again, with the same Idempotency-Key: the other side \
                           has to know that header";
    let method = match (&task.sink, &task.http) {
        (Some(SinkConfig::Kafka(_) | SinkConfig::Sqs(_)), _) => {
            return Some(
                "a message whose answer was lost is sent again: who reads it has to know it by its effect key, or \
                 take it twice",
            );
        }
        (Some(SinkConfig::Http(sink)), _) => &sink.method,
        (None, Some(call)) => &call.method,
        // The same file is written with the same bytes.
        (Some(SinkConfig::File(_) | SinkConfig::Topic(_)), _) | (None, None) => return None,
    };
    let adds = ["POST", "PATCH"]
        .iter()
        .any(|name| method.eq_ignore_ascii_case(name));
    adds.then_some(REQUEST)
}
