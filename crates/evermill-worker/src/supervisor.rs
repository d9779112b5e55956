//! Keeps the fork server alive and every slot filled, without ever starting processes in a storm.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use evermill_contract::worker::frame::{Frame, Kind};
use evermill_contract::worker::wire::{self, Ended, Forked, Hello, Preloaded, small};
use evermill_contract::worker::{Death, LogOrigin, Slot as SlotId, WorkerEvent};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal};

use crate::config::Preload;
use crate::connection;
use crate::output::Output;
use crate::page::Page;
use crate::permits::Permits;
use crate::pool::Shared;
use crate::server::{Server, signal_group};

/// What the supervisor hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// The fork server says something.
    Server { generation: u32, frame: Frame },
    /// The fork server hung up, or made no sense.
    ServerEnded {
        generation: u32,
        reason: Option<String>,
    },
    /// A slot's worker is gone.
    Need {
        slot: SlotId,
        /// Why it never said hello, if so.
        failed: Option<String>,
    },
    /// An event that the engine's thread caused.
    Emit(Box<WorkerEvent>),
    /// What will be dispatched.
    Prepare(Preload),
    /// Of this folder nothing is dispatched any more.
    Forget(String),
    /// Shutdown has begun.
    Close,
    /// The pool was dropped.
    Abandon,
}

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A fork server that lived this long has proved itself.
const PROVEN_AFTER: Duration = Duration::from_secs(30);

/// Imports that are remembered for the next fork server.
const PRELOADS_MAX: usize = 64;

/// A worker that was asked for.
struct Forking {
    slot: SlotId,
    socket: UnixStream,
    output: OwnedFd,
    page: Page,
    permits: Permits,
}

struct Running {
    server: Server,
    since: Instant,
    ready: bool,
    /// Imports that it was asked for and has not answered.
    importing: usize,
    forking: HashMap<u32, Forking>,
    /// Where to tell how a worker ended.
    ends: HashMap<u32, Sender<Death>>,
}

pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    inbox: Receiver<Message>,
    running: Option<Running>,
    generation: u32,
    next_worker: u32,
    /// Slots without worker, and when each is due.
    empty: BTreeMap<SlotId, Instant>,
    start_at: Instant,
    backoff: Duration,
    /// What a fork server imports, oldest first.
    preloads: Vec<Preload>,
    /// False once an import has harmed a fork server.
    preload: bool,
    closing: bool,
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, inbox: Receiver<Message>) -> Self {
        let now = Instant::now();
        let empty = shared.ids().map(|slot| (slot, now)).collect();
        let preloads = shared.config.preload.clone();
        Self {
            shared,
            inbox,
            running: None,
            generation: 0,
            next_worker: 0,
            empty,
            start_at: now,
            backoff: BACKOFF_FIRST,
            preloads,
            preload: true,
            closing: false,
        }
    }

    pub(crate) fn run(mut self) {
        while !self.shared.ended.load(Ordering::Acquire) {
            self.advance();
            if self.closing && self.empty.len() == usize::from(self.shared.config.slots) {
                break;
            }
            match self.inbox.recv_deadline(self.next_due()) {
                Ok(Message::Abandon) => break,
                Ok(message) => self.hear(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(running) = self.running.take() {
            running.server.end();
        }
        // Returned dispatches and last words may still be under way to the engine.
        while let Ok(message) = self.inbox.try_recv() {
            if let Message::Emit(event) = message {
                self.shared.emit(*event);
            }
        }
        self.shared.ended.store(true, Ordering::Release);
        self.shared.wake();
    }

    fn next_due(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        match &self.running {
            None if self.closing => far,
            None => self.start_at,
            Some(running) if !running.ready => running.since + self.shared.config.start_timeout,
            Some(_) if self.closing => far,
            Some(_) => self.empty.values().copied().min().unwrap_or(far),
        }
    }

    fn advance(&mut self) {
        let now = Instant::now();
        match &self.running {
            None if self.closing => self.forget_all(),
            None if now >= self.start_at => self.start(),
            Some(running)
                if !running.ready && now >= running.since + self.shared.config.start_timeout =>
            {
                let reason = format!("it said nothing for {:?}", self.shared.config.start_timeout);
                self.lose_server(Some(reason));
            }
            Some(running) if running.ready && !self.closing => {
                let due = self
                    .empty
                    .iter()
                    .filter(|(_, at)| **at <= now)
                    .map(|(slot, _)| *slot);
                for slot in due.collect::<Vec<_>>() {
                    self.fork(slot);
                }
            }
            _ => {}
        }
    }

    /// Without a fork server no worker is left; nothing has to be waited for.
    fn forget_all(&mut self) {
        let now = Instant::now();
        let gone = self
            .shared
            .ids()
            .filter(|slot| self.shared.slot(*slot).connection.is_none());
        self.empty
            .extend(gone.map(|slot| (slot, now)).collect::<Vec<_>>());
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Emit(event) => self.shared.emit(*event),
            Message::Prepare(wanted) => {
                self.shared.hints.fetch_sub(1, Ordering::AcqRel);
                self.prepare(wanted);
            }
            Message::Forget(folder) => {
                self.shared.hints.fetch_sub(1, Ordering::AcqRel);
                self.preloads
                    .retain(|known| known.folder.as_ref() != Some(&folder));
            }
            Message::Close => self.closing = true,
            Message::Abandon => {}
            Message::Need { slot, failed } => self.need(slot, failed),
            Message::ServerEnded { generation, reason } if generation == self.generation => {
                self.lose_server(reason);
            }
            Message::Server { generation, frame } if generation == self.generation => {
                if let Err(reason) = self.server_says(&frame) {
                    self.lose_server(Some(reason));
                }
            }
            Message::Server { .. } | Message::ServerEnded { .. } => {}
        }
    }

    fn need(&mut self, slot: SlotId, failed: Option<String>) {
        let mut due = Instant::now();
        if let Some(reason) = failed {
            due += self.backoff;
            self.unavailable(format!(
                "a Python worker ended before it was ready: {reason}"
            ));
        }
        self.empty.insert(slot, due);
    }

    /// Says that there is no worker for now, and backs off.
    fn unavailable(&mut self, reason: String) {
        let retry_in = self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        if !self.closing {
            self.shared
                .emit(WorkerEvent::Unavailable { reason, retry_in });
        }
    }

    // The fork server.

    fn start(&mut self) {
        self.generation += 1;
        match Server::start(
            &self.shared.config,
            self.generation,
            self.shared.inbox.clone(),
        ) {
            Ok(server) => {
                self.running = Some(Running {
                    server,
                    since: Instant::now(),
                    ready: false,
                    importing: 0,
                    forking: HashMap::new(),
                    ends: HashMap::new(),
                });
            }
            Err(reason) => {
                self.start_at = Instant::now() + self.backoff;
                self.unavailable(reason);
            }
        }
    }

    /// The fork server is of no use any more. Its workers go with it.
    fn lose_server(&mut self, reason: Option<String>) {
        let Some(running) = self.running.take() else {
            return;
        };
        for id in self.shared.ids() {
            if let Some(connection) = &self.shared.slot(id).connection {
                signal_group(connection.pid, Signal::KILL);
            }
        }
        let now = Instant::now();
        // What never became a worker is not told by a reader.
        self.empty
            .extend(running.forking.values().map(|forking| (forking.slot, now)));
        if running.ready && running.since.elapsed() > PROVEN_AFTER {
            self.backoff = BACKOFF_FIRST;
        }
        if running.importing > 0 {
            // The import may have ended it; workers import for themselves then.
            self.preload = false;
        }
        let ended = running.server.end();
        drop(running.ends);
        self.start_at = now + self.backoff;
        let reason = reason.map_or_else(String::new, |reason| format!("{reason}; "));
        let interpreter = self.shared.config.interpreter.display();
        self.unavailable(format!(
            "the Python fork server ({interpreter}) ended: {reason}{ended}"
        ));
    }

    fn server_says(&mut self, frame: &Frame) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        match frame.kind {
            Kind::Hello => {
                let hello: Hello = wire::control(frame).map_err(|error| text(&error))?;
                self.greet(&hello)
            }
            Kind::Preloaded => {
                let preloaded: Preloaded = wire::control(frame).map_err(|error| text(&error))?;
                self.preloaded(&preloaded)
            }
            Kind::Forked => {
                let forked: Forked = wire::control(frame).map_err(|error| text(&error))?;
                self.forked(forked)
            }
            Kind::Ended => {
                let ended: Ended = wire::control(frame).map_err(|error| text(&error))?;
                self.ended(ended);
                Ok(())
            }
            kind => Err(format!("a fork server does not send {kind:?}")),
        }
    }

    fn greet(&mut self, hello: &Hello) -> Result<(), String> {
        let welcome = hello.welcome()?;
        let running = self.running.as_mut().ok_or("no server")?;
        let mut frames = small(0, Kind::Welcome, &welcome);
        for wanted in self.preloads.iter().filter(|_| self.preload) {
            frames.extend(small(0, Kind::Preload, wanted));
            running.importing += 1;
        }
        running
            .server
            .send(&frames, &[])
            .map_err(|error| error.to_string())?;
        running.ready = true;
        Ok(())
    }

    fn prepare(&mut self, wanted: Preload) {
        // Any task of a file imports all of it.
        let same =
            |known: &Preload| (&known.entry, &known.folder) == (&wanted.entry, &wanted.folder);
        if self.preloads.iter().any(same) {
            return;
        }
        if self.preloads.len() == PRELOADS_MAX {
            self.preloads.remove(0);
        }
        let frame = small(0, Kind::Preload, &wanted);
        self.preloads.push(wanted);
        if let Some(running) = self
            .running
            .as_mut()
            .filter(|running| self.preload && running.ready)
        {
            running.importing += 1;
            // A server that cannot be written to is about to be reported as ended.
            if running.server.send(&frame, &[]).is_err() {}
        }
    }

    fn preloaded(&mut self, preloaded: &Preloaded) -> Result<(), String> {
        if let Some(running) = &mut self.running {
            running.importing = running.importing.saturating_sub(1);
        }
        if let Some(error) = &preloaded.error {
            // Not fatal: the worker that needs it meets the same error and reports it per member.
            let text = format!("a DAG file could not be imported ahead of time: {error}\n");
            self.shared.emit(WorkerEvent::Log {
                slot: SlotId(0),
                token: None,
                member: None,
                origin: LogOrigin::Descriptor,
                text: Bytes::from(text),
            });
        }
        if preloaded.threads > 1 {
            self.preload = false;
            return Err(format!(
                "importing the DAG file left {} threads running, and a process with threads cannot be forked \
                 safely; workers import it themselves from now on",
                preloaded.threads
            ));
        }
        Ok(())
    }

    // Workers.

    fn fork(&mut self, slot: SlotId) {
        if let Err(reason) = self.try_fork(slot) {
            self.empty.insert(slot, Instant::now() + self.backoff);
            self.unavailable(format!("no Python worker could be asked for: {reason}"));
        }
    }

    fn try_fork(&mut self, slot: SlotId) -> io::Result<()> {
        let running = self.running.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let (socket, theirs) = UnixStream::pair()?;
        let (output, output_writer) = io::pipe()?;
        let output = OwnedFd::from(output);
        fcntl_setfl(&output, fcntl_getfl(&output)? | OFlags::NONBLOCK)?;
        let page = Page::new()?;
        let permits = Permits::new()?;
        self.next_worker += 1;
        let worker = self.next_worker;
        let frame = small(0, Kind::Fork, &Forked { worker, pid: 0 });
        let theirs = [
            theirs.as_fd(),
            output_writer.as_fd(),
            page.fd(),
            permits.fd(),
        ];
        running.server.send(&frame, &theirs)?;
        running.forking.insert(
            worker,
            Forking {
                slot,
                socket,
                output,
                page,
                permits,
            },
        );
        self.empty.remove(&slot);
        Ok(())
    }

    fn forked(&mut self, forked: Forked) -> Result<(), String> {
        let running = self.running.as_mut().ok_or("no server")?;
        let forking = running
            .forking
            .remove(&forked.worker)
            .ok_or("an unknown worker was forked")?;
        let pid = i32::try_from(forked.pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or("a worker without pid")?;
        let (end, ended) = bounded(1);
        running.ends.insert(forked.worker, end);
        let Forking {
            slot,
            socket,
            output,
            page,
            permits,
        } = forking;
        self.shared
            .outputs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Output::new(output, slot, forked.worker));
        self.shared.wake();
        connection::start(
            Arc::clone(&self.shared),
            connection::Worker {
                slot,
                number: forked.worker,
                pid,
                page,
                permits,
                socket,
                ended,
            },
        )
    }

    fn ended(&mut self, ended: Ended) {
        let Some(end) = self
            .running
            .as_mut()
            .and_then(|running| running.ends.remove(&ended.worker))
        else {
            return;
        };
        let death = match ended {
            Ended {
                exit: Some(status), ..
            } => Death::Exited(status),
            Ended { signal, .. } => Death::Signalled(signal.unwrap_or(0)),
        };
        // The reader is there until it has heard this.
        if end.send(death).is_err() {}
    }
}
