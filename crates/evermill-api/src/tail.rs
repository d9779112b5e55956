//! What tasks print, as they print it: server-sent events for those who follow a log.
//!
//! Each who listens is read for on his own, from the files, a bounded batch at a time and never ahead of what he
//! takes: the place he has got to is all there is to remember, and it is the id that he comes back with.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use evermill_engine::{LogEntry, LogOrder, LogPage, LogQuery, RunLogs};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use crate::clock::now_ms;
use crate::feed::{Told, event};
use crate::limits;
use crate::problem::Problem;
use crate::reading::read_lines;
use crate::serve::work;

/// Some lines; the id is the place behind them.
#[derive(Serialize, JsonSchema)]
struct Lines {
    /// Oldest first.
    entries: Vec<LogEntry>,
    /// Lines before these were not kept until they were read.
    missed: bool,
}

/// A page of a log.
pub(crate) fn page(logs: &RunLogs, query: &LogQuery) -> Result<LogPage, Problem> {
    let broken = |cause: io::Error| {
        let detail = format!("what was printed cannot be read: {}", cause.kind());
        Problem::new(500, "store", "The log cannot be read", detail)
    };
    logs.page(query).map_err(broken)
}

/// Where somebody wants to begin: at the id of the last event that he got, else where he says, else with what
/// comes from now on.
pub(crate) fn wanted(query: &str, last: Option<&str>) -> Result<LogQuery, Problem> {
    for (name, _) in form_urlencoded::parse(query.as_bytes()) {
        if matches!(&*name, "order" | "limit" | "since_ms" | "until_ms") {
            return Err(crate::reading::unknown_parameter(&name));
        }
    }
    let mut wanted = LogQuery {
        order: LogOrder::Oldest,
        limit: limits::TAIL_LINES,
        ..read_lines(query)?
    };
    // One that is not ours is that of a stream that this page held before.
    if let Some(last) = last.and_then(|last| last.parse().ok()) {
        wanted.from = Some(last);
    }
    Ok(wanted)
}

/// Room for those who listen.
pub(crate) struct Tails(Arc<Semaphore>);

impl Default for Tails {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::TAILS_MAX)))
    }
}

impl Tails {
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            let text = format!("{} listen already; come again", limits::TAILS_MAX);
            Problem::new(503, "busy", "Too many listeners", text)
        })
    }
}

/// What one listener is sent, as it comes.
#[derive(Debug)]
pub(crate) struct Tail(mpsc::Receiver<Bytes>);

impl Tail {
    /// Reads on for as long as somebody listens and may.
    pub(crate) fn start(
        logs: RunLogs,
        wanted: LogQuery,
        permit: OwnedSemaphorePermit,
        may_listen: Box<dyn Fn() -> bool + Send>,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(limits::TAIL_BATCHES_QUEUED);
        tokio::spawn(async move {
            follow(&queue, Arc::new(logs), wanted, may_listen).await;
            drop(permit);
        });
        Self(waiting)
    }

    /// The next bytes; `None` when there will be no more.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(context)
    }
}

async fn follow(
    queue: &mpsc::Sender<Bytes>,
    logs: Arc<RunLogs>,
    mut wanted: LogQuery,
    may_listen: Box<dyn Fn() -> bool + Send>,
) {
    let mut told_at: Option<Instant> = None;
    if wanted.from.is_none() {
        // The end, which the place behind the newest line is, whatever line that is.
        let end = LogQuery::default();
        let logs = Arc::clone(&logs);
        let Ok(Ok(page)) = work(move || self::page(&logs, &end)).await else {
            return;
        };
        wanted.from = page.after.parse().ok();
    }
    while may_listen() {
        let (asked, files) = (wanted.clone(), Arc::clone(&logs));
        let Ok(Ok(page)) = work(move || self::page(&files, &asked)).await else {
            // He comes back, and is told what is wrong if it still is.
            return;
        };
        wanted.from = page.after.parse().ok();
        let is_end = page.next.is_none();
        let mut bytes = Vec::new();
        if page.missed || !page.entries.is_empty() {
            let lines = Lines {
                entries: page.entries,
                missed: page.missed,
            };
            bytes.extend(with_id(&page.after, "lines", &lines));
        }
        let is_quiet = told_at.is_none_or(|at| at.elapsed() >= limits::QUIET);
        if is_end && (is_quiet || !bytes.is_empty()) {
            bytes.extend(with_id(&page.after, "told", &Told { at_ms: now_ms() }));
            told_at = Some(Instant::now());
        }
        if !bytes.is_empty() && queue.send(bytes.into()).await.is_err() {
            return;
        }
        if is_end && timeout(limits::TAIL_TICK, queue.closed()).await.is_ok() {
            return;
        }
    }
}

fn with_id<T: Serialize>(place: &str, name: &str, data: &T) -> Vec<u8> {
    let id = format!("id: {place}\n");
    [id.as_bytes(), &event(name, data)].concat()
}

/// The events by name, with the shape of their data.
pub(crate) fn shapes(shapes: &mut SchemaGenerator) -> Value {
    json!({
        "type": "object",
        "description": "events of the tail of a log by name, with the shape of their data",
        "properties": {
            "lines": shapes.subschema_for::<Lines>(),
            "told": shapes.subschema_for::<Told>(),
        },
    })
}
