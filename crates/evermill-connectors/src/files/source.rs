//! Looks when it is time, on a thread of its own so that whoever waits can be woken; tells what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_contract::manifest::FilesSource as FilesConfig;
use evermill_contract::source::{
    Arrival, Delivery, DiagnosticSink, Received, Receiver, Severity, SourceError, Waker,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::config::Settings;
use super::place::{Entry, Listing, PassedOver, Why};
use super::watch::{Step, Watch};
use crate::errand::{Errands, Waited};
use crate::{Environment, limits};

/// A place whose files are watched.
pub struct FilesSource {
    settings: Settings,
    /// Events in one delivery, at most.
    events_max: usize,
    diagnostics: DiagnosticSink,
    pages: BTreeMap<u64, Bytes>,
    watch: Watch,
    /// When the whole place is to be looked at again.
    due: Instant,
    /// Times of the watch count from here.
    started: Instant,
    errands: Errands<Answer>,
    /// The last look was at everything that there is.
    saw_all: bool,
    degraded: Option<String>,
    /// What was passed over and said.
    said: BTreeSet<Why>,
    ticket: u64,
}

/// What came of looking.
enum Answer {
    Listed(Listing),
    Looked(Vec<String>, Vec<Option<Entry>>),
}

/// What is remembered beside the pages.
#[derive(Serialize, Deserialize)]
struct Memo {
    /// The place that was looked at.
    place: String,
}

impl FilesSource {
    /// Prepares to look; nothing is read yet.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub fn open(config: &FilesConfig, environment: &Environment<'_>) -> Result<Self, SourceError> {
        let settings = Settings::new(config, environment)?;
        Ok(Self {
            watch: Watch::new(&BTreeMap::new(), false, 0, false)?,
            settings,
            events_max: environment.budget.batch_events.max(1),
            diagnostics: Arc::clone(&environment.diagnostics),
            pages: BTreeMap::new(),
            due: Instant::now(),
            started: Instant::now(),
            errands: Errands::default(),
            saw_all: false,
            degraded: None,
            said: BTreeSet::new(),
            ticket: 0,
        })
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Looks at the whole place, or at files that are due.
    fn look(&mut self) {
        let place = Arc::clone(&self.settings.place);
        let failed = |cause: std::io::Error| {
            Answer::Listed(Listing {
                trouble: Some(format!("the system gives no thread: {cause}")),
                ..Listing::default()
            })
        };
        if Instant::now() >= self.due {
            let list = move || Answer::Listed(place.list(limits::FILES_MAX));
            return self.errands.send("files-list", list, failed);
        }
        let paths = self.watch.due(self.now_ms());
        if !paths.is_empty() {
            let look = move || {
                let found = place.look(&paths);
                Answer::Looked(paths, found)
            };
            self.errands.send("files-look", look, failed);
        }
    }

    /// When there is something to do by itself.
    fn next_look(&self) -> Instant {
        let waiting = self.watch.due_ms();
        let waiting = waiting.map(|due| self.started + Duration::from_millis(due));
        waiting.map_or(self.due, |waiting| waiting.min(self.due))
    }

    fn heard(&mut self, answer: Answer, out: &mut Vec<Received>) {
        let now_ms = self.now_ms();
        match answer {
            Answer::Looked(paths, found) => self.watch.looked(now_ms, &paths, found, false),
            Answer::Listed(listing) => {
                self.due = Instant::now() + self.settings.interval;
                listing.passed_over.iter().for_each(|one| self.say(one));
                let whole = listing.trouble.is_none();
                self.judge(listing.trouble, out);
                self.watch.listed(now_ms, listing.entries, whole);
                self.saw_all = whole;
            }
        }
    }

    fn judge(&mut self, trouble: Option<String>, out: &mut Vec<Received>) {
        match trouble {
            None if self.degraded.take().is_some() => out.push(Received::Recovered),
            Some(reason) if self.degraded.as_ref() != Some(&reason) => {
                self.degraded = Some(reason.clone());
                out.push(Received::Degraded { reason });
            }
            _ => {}
        }
    }

    fn say(&mut self, passed_over: &PassedOver) {
        if !self.said.insert(passed_over.why) {
            return;
        }
        let what = match passed_over.why {
            Why::LeadsOut => "links that lead out of the folder are passed over, such as",
            Why::NoText => "files whose names are not UTF-8 are passed over, such as",
        };
        (self.diagnostics)(Severity::Warning, &format!("{what} {}", passed_over.path));
    }

    fn deliver(&mut self, step: Step) -> Delivery {
        self.ticket += 1;
        let memo = step.ends_first_look.then(|| {
            let place = self.settings.mark.clone();
            let memo = serde_json::to_vec(&Memo { place });
            Bytes::from(memo.expect("a memo is plain JSON"))
        });
        Delivery {
            ticket: self.ticket,
            events: step.events.iter().map(|one| self.event(one)).collect(),
            memo,
            pages: step.pages,
        }
    }

    fn event(&self, entry: &Entry) -> Arrival {
        let mut content = self.settings.place.location(entry);
        let modified = jiff::Timestamp::from_nanosecond(entry.modified_ns.into());
        // A time that no calendar has is no reason to keep a file from its task.
        let modified = modified.ok().map(|at| at.to_string());
        content.insert("size".to_owned(), json!(entry.size));
        content.insert("modified".to_owned(), json!(modified));
        content.insert("version".to_owned(), json!(entry.version));
        let content = serde_json::to_vec(&content).expect("texts and numbers are JSON");
        Arrival {
            timestamp_ms: Some(entry.modified_ns.div_euclid(1_000_000)),
            key: Some(Bytes::from(entry.path.clone())),
            headers: vec![("content-type".into(), "application/json".into())],
            value: Some(content.into()),
            id: None,
            ..Arrival::default()
        }
    }
}

impl Receiver for FilesSource {
    fn recall(&mut self, pages: &BTreeMap<u64, Bytes>) {
        self.pages.clone_from(pages);
    }

    fn begin(&mut self, memo: Option<&[u8]>) -> Result<(), SourceError> {
        let memo: Option<Memo> = memo.and_then(|memo| serde_json::from_slice(memo).ok());
        let had_look = memo.is_some_and(|memo| memo.place == self.settings.mark);
        let pages = std::mem::take(&mut self.pages);
        let settle_ms = self.settings.settle.as_millis() as u64;
        let passes_first = !self.settings.fire_on_start;
        self.watch = Watch::new(&pages, had_look, settle_ms, passes_first)?;
        self.errands.forget();
        self.due = Instant::now();
        self.saw_all = false;
        Ok(())
    }

    fn receive(&mut self, wait: Duration, out: &mut Vec<Received>) -> Result<(), SourceError> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(step) = self.watch.next(self.events_max) {
                let delivery = self.deliver(step);
                out.push(Received::Delivery(delivery));
            }
            if self.watch.is_quiet() && std::mem::take(&mut self.saw_all) {
                out.push(Received::CaughtUp);
            }
            if !out.is_empty() {
                return Ok(());
            }
            if !self.errands.is_out() {
                self.look();
            }
            let until = if self.errands.is_out() {
                deadline
            } else {
                deadline.min(self.next_look())
            };
            match self.errands.wait(until) {
                Waited::Answer(answer) => self.heard(answer, out),
                Waited::Woken => return Ok(()),
                Waited::TimeUp if Instant::now() >= deadline => return Ok(()),
                Waited::TimeUp => {}
            }
        }
    }

    fn kept(&mut self, _ticket: u64) {
        // Nobody outside waits for it: the memory is committed with the events.
    }

    fn overdue(&self) -> Option<Duration> {
        self.errands.overdue(limits::FILES_LOOK_MAX)
    }

    fn waker(&self) -> Waker {
        self.errands.waker()
    }

    fn close(&mut self) {
        self.errands.close();
    }
}
