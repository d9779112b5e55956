//! On a thread of its own: a collector that is slow or away costs traces, which are counted, and holds up nobody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use evermill_contract::source::{DiagnosticSink, Severity, SourceError};
use evermill_contract::trace::{TraceTaker, Traced, Untold};
use evermill_http::{Client, Connection, Method, Request, Target};

use super::otlp;
use crate::limits;

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The collector's URL for traces, such as `http://127.0.0.1:4318/v1/traces`.
    pub url: String,
    /// Headers that it wants, such as a token.
    pub headers: Vec<(String, String)>,
    /// What we are called there.
    pub service: String,
}

/// Tells a collector of activations that have settled.
pub struct Exporter {
    queue: Mutex<Option<SyncSender<Vec<Traced>>>>,
    counts: Arc<Counts>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Activations of which nothing was told.
#[derive(Default)]
struct Counts {
    left_out: AtomicU64,
    lost: AtomicU64,
}

impl Counts {
    fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    fn now(&self) -> Untold {
        Untold {
            left_out: self.left_out.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }
}

impl Exporter {
    /// Starts the thread; nothing is connected yet.
    ///
    /// # Errors
    /// [`SourceError::Refused`] for a URL that is none, or a thread that is not given.
    pub fn start(config: Config, tell: &DiagnosticSink) -> Result<Self, SourceError> {
        let refused = |cause: evermill_http::Error| SourceError::Refused(cause.to_string());
        let connection = Connection::parse("traces", &config.url).map_err(refused)?;
        let client = Client::new(connection).map_err(refused)?;
        let (sender, queue) = mpsc::sync_channel(limits::TRACES_QUEUED);
        let counts = Arc::new(Counts::default());
        let worker = Worker {
            config,
            client,
            queue,
            counts: Arc::clone(&counts),
            tell: Arc::clone(tell),
            is_away: false,
            said: 0,
        };
        let thread = std::thread::Builder::new().name("traces".to_owned());
        let thread = thread.spawn(move || worker.run());
        let thread = thread.map_err(|cause| SourceError::Refused(cause.to_string()))?;
        Ok(Self {
            queue: Mutex::new(Some(sender)),
            counts,
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl TraceTaker for Exporter {
    fn take(&self, traced: Vec<Traced>, left_out: u64) {
        let count = traced.len() as u64;
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = match &*queue {
            _ if count == 0 => true,
            Some(queue) => queue.try_send(traced).is_ok(),
            None => false,
        };
        self.counts.lose(if taken { 0 } else { count });
        self.counts.left_out.fetch_add(left_out, Ordering::Relaxed);
    }

    fn untold(&self) -> Untold {
        self.counts.now()
    }

    fn finish(&self) {
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(queue);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // One that panicked has said so.
            drop(thread.join());
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Worker {
    config: Config,
    client: Client,
    queue: Receiver<Vec<Traced>>,
    counts: Arc<Counts>,
    tell: DiagnosticSink,
    /// The last request was not taken.
    is_away: bool,
    /// Of how many it was said that nothing was told of them.
    said: u64,
}

impl Worker {
    fn run(mut self) {
        loop {
            let Ok(mut batch) = self.queue.recv() else {
                return;
            };
            let ended = self.gather(&mut batch);
            self.deliver(&batch);
            if ended {
                return;
            }
        }
    }

    /// Waits a moment for more of it; whether nothing more will come.
    fn gather(&self, batch: &mut Vec<Traced>) -> bool {
        let until = Instant::now() + limits::TRACES_GATHER;
        while batch.len() < limits::TRACES_PER_REQUEST {
            let left = until.saturating_duration_since(Instant::now());
            match self.queue.recv_timeout(left) {
                Ok(more) => batch.extend(more),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
        false
    }

    fn deliver(&mut self, batch: &[Traced]) {
        let body = otlp::request(&self.config.service, batch);
        let sent = self.send(&body).or_else(|failed| match failed {
            // A connection that was kept may have been closed meanwhile.
            Failed::ForNow(_) => self.send(&body),
            Failed::ForGood(_) => Err(failed),
        });
        match sent {
            Ok(None) => {
                let Untold { left_out, lost } = self.counts.now();
                let untold = left_out + lost - self.said;
                self.said += untold;
                if self.is_away || untold > 0 {
                    let text = format!("traces go on; {untold} activations were left out of them");
                    (self.tell)(Severity::Warning, &text);
                }
                self.is_away = false;
            }
            Ok(Some((spans, why))) => {
                let place = self.client.connection().place();
                let text = format!("traces: {place} refused {spans} spans: {why}");
                self.complain(&text);
            }
            Err(Failed::ForNow(why) | Failed::ForGood(why)) => {
                let text = format!(
                    "traces: {why}; what cannot be told is left out, and tasks run on. Is the collector's port for OTLP over HTTP right, as a rule 4318?"
                );
                self.counts.lose(batch.len() as u64);
                self.complain(&text);
            }
        }
    }

    /// Says it once, not with every request; what was lost meanwhile is said when it goes on.
    fn complain(&mut self, text: &str) {
        if !self.is_away {
            (self.tell)(Severity::Warning, text);
        }
        self.is_away = true;
    }

    fn send(&self, body: &[u8]) -> Result<Option<(u64, String)>, Failed> {
        let mut request = Request::new(Method::POST, Target::Below(String::new()));
        request.headers = self.config.headers.clone();
        request
            .headers
            .push(("content-type".to_owned(), "application/json".to_owned()));
        request.body = Some(body.to_vec());
        request.timeout = Some(limits::TRACES_TIMEOUT);
        request.bytes_max = limits::TRACES_ANSWER_BYTES_MAX;
        let answer = self.client.send(&request).map_err(|error| {
            let why = error.to_string();
            match error.may_pass() {
                true => Failed::ForNow(why),
                false => Failed::ForGood(why),
            }
        })?;
        let said = format!("{} answered with status {}", answer.place, answer.status);
        match answer.status {
            200..=299 => Ok(otlp::refused(&answer.body)),
            408 | 429 | 502..=504 => Err(Failed::ForNow(said)),
            _ => Err(Failed::ForGood(said)),
        }
    }
}

/// Why a request was not taken.
enum Failed {
    ForNow(String),
    ForGood(String),
}

#[cfg(test)]
mod tests {
    use evermill_http::testing::{Reply, Server};
    use serde_json::Value;

    use super::super::otlp::tests::traced;
    use super::*;

    type Said = Arc<Mutex<Vec<String>>>;

    fn exporter(server: &Server) -> (Exporter, Said) {
        let said = Said::default();
        let told = Arc::clone(&said);
        let tell: DiagnosticSink = Arc::new(move |_, text: &str| {
            told.lock().unwrap().push(text.to_owned());
        });
        let config = Config {
            url: format!("{}/v1/traces", server.url()),
            headers: vec![("x-token".to_owned(), "abc".to_owned())],
            service: "evermill".to_owned(),
        };
        (Exporter::start(config, &tell).unwrap(), said)
    }

    fn spans(body: &[u8]) -> usize {
        let request: Value = serde_json::from_slice(body).unwrap();
        let spans = &request["resourceSpans"][0]["scopeSpans"][0]["spans"];
        spans.as_array().unwrap().len()
    }

    #[test]
    fn what_has_settled_reaches_the_collector_at_the_latest_when_the_engine_ends() {
        let server = Server::start(|_| Reply::new(200, "{}"));
        let (exporter, said) = exporter(&server);
        exporter.take(vec![traced(1), traced(2)], 0);
        exporter.take(vec![traced(3)], 0);
        exporter.finish();
        let seen = server.seen();
        assert_eq!(seen.iter().map(|seen| spans(&seen.body)).sum::<usize>(), 9);
        assert_eq!(seen[0].path, "/v1/traces");
        let has = |name: &str, value: &str| {
            let wanted = (name.to_owned(), value.to_owned());
            assert!(seen[0].headers.contains(&wanted), "{:?}", seen[0].headers);
        };
        has("content-type", "application/json");
        has("x-token", "abc");
        assert!(said.lock().unwrap().is_empty());
    }

    #[test]
    fn a_collector_that_refuses_costs_traces_and_is_complained_about_once() {
        // Only what comes with others is taken.
        let server = Server::start(|seen| match spans(&seen.body) {
            ..=3 => Reply::new(404, ""),
            _ => Reply::new(200, "{}"),
        });
        let (exporter, said) = exporter(&server);
        for position in 1..3 {
            exporter.take(vec![traced(position)], 0);
            drop(server.wait_for(position as usize));
        }
        exporter.take(vec![traced(3), traced(4)], 5);
        exporter.finish();
        let said = said.lock().unwrap();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("404") && said[0].contains("4318"),
            "{said:?}"
        );
        assert!(said[1].contains("7 activations"), "{said:?}");
        let untold = Untold {
            left_out: 5,
            lost: 2,
        };
        assert_eq!(exporter.untold(), untold);
    }

    #[test]
    fn nobody_waits_for_a_collector_that_does_not_answer() {
        let server = Server::start(|_| Reply::Silence);
        let (exporter, _) = exporter(&server);
        for position in 0..10 * limits::TRACES_QUEUED as u64 {
            exporter.take(vec![traced(position)], 0);
        }
        assert!(exporter.untold().lost > 0);
        drop(server);
    }

    #[test]
    fn a_url_that_is_none_is_refused() {
        let tell: DiagnosticSink = Arc::new(|_, _: &str| {});
        let config = Config {
            url: "ftp://localhost:4318".to_owned(),
            headers: Vec::new(),
            service: String::new(),
        };
        assert!(Exporter::start(config, &tell).is_err());
    }
}
