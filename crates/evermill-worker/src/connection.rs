//! A worker's life, from its hello to its death: the reader.

use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use evermill_contract::worker::frame::{self, Frame, Kind};
use evermill_contract::worker::wire::{
    self, Ask, Finished, Hello, Progress, Returned, decode_log, decode_outcomes, encode_answer,
    small,
};
use evermill_contract::worker::{
    Answer, Death, Outcome, OutcomeRun, Slot as SlotId, TaskError, TaskErrorKind, WorkerEvent,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};
use rustix::process::{Pid, Signal};

use crate::outbox::Outbox;
use crate::page::{Page, Running, monotonic_ns};
use crate::permits::Permits;
use crate::pool::{Shared, returned};
use crate::server::{signal_group, spawn};
use crate::slot::{Connection, InFlight, Lost, Slot};
use crate::supervisor::Message;

const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Reads of what a dead worker left in its pipe; a pipe holds less.
const DRAIN_READS_MAX: usize = 64;
/// How often the memory of a busy worker is looked at.
const SIZE_EVERY: Duration = Duration::from_secs(1);

/// A worker that was forked.
pub(crate) struct Worker {
    pub(crate) slot: SlotId,
    pub(crate) number: u32,
    pub(crate) pid: Pid,
    pub(crate) page: Page,
    pub(crate) permits: Permits,
    pub(crate) socket: UnixStream,
    /// Tells once how it ended; disconnects when nobody will know.
    pub(crate) ended: Receiver<Death>,
}

/// Starts the reader, which opens the outbox.
pub(crate) fn start(shared: Arc<Shared>, worker: Worker) -> Result<(), String> {
    let name = format!("evermill-slot-{}", worker.slot.0);
    spawn(&name, move || {
        Reader {
            shared,
            slot: worker.slot,
        }
        .live(worker)
    })
}

struct Reader {
    shared: Arc<Shared>,
    slot: SlotId,
}

impl Reader {
    fn live(self, worker: Worker) {
        let Worker {
            number,
            pid,
            page,
            permits,
            socket,
            ended,
            ..
        } = worker;
        let patience = Some(self.shared.config.start_timeout);
        let incoming = Incoming {
            socket: &socket,
            patience,
        };
        let mut stream = BufReader::with_capacity(READ_BUFFER_BYTES, incoming);
        let greeted = self.greet(&mut stream, &socket, pid, page, permits);
        let failed = greeted.as_ref().err().cloned();
        let result = greeted.and_then(|()| self.read_all(&mut stream));
        // It closed its socket, or makes no sense: either way it is of no use.
        let death = ended.try_recv().or_else(|_| {
            signal_group(pid, Signal::KILL);
            ended.recv()
        });
        let death = match (death, result) {
            // Killed because of what it sent, so that is the cause.
            (_, Err(reason)) => Death::Protocol(reason),
            (Ok(death), Ok(())) => death,
            (Err(_), Ok(())) => Death::ServerLost,
        };
        self.drain_output(number);
        let failed = failed.map(|reason| self.explain(&reason, &death));
        self.bury(death, failed.is_some());
        // The supervisor outlives readers unless the pool is dropped.
        if self
            .shared
            .inbox
            .send(Message::Need {
                slot: self.slot,
                failed,
            })
            .is_err()
        {}
    }

    fn explain(&self, reason: &str, death: &Death) -> String {
        match death {
            Death::Protocol(_) => reason.to_owned(),
            death => format!("{reason} ({death:?})"),
        }
    }

    fn greet(
        &self,
        stream: &mut BufReader<Incoming<'_>>,
        socket: &UnixStream,
        pid: Pid,
        page: Page,
        permits: Permits,
    ) -> Result<(), String> {
        let frame = match frame::read(stream) {
            Ok(Some(frame)) if frame.kind == Kind::Hello => frame,
            Ok(Some(frame)) => return Err(format!("{:?} instead of a hello", frame.kind)),
            Ok(None) => return Err("it hung up before its hello".into()),
            Err(error) => return Err(error.to_string()),
        };
        stream.get_mut().patience = None;
        let hello: Hello = wire::control(&frame).map_err(|error| error.to_string())?;
        let welcome = hello.welcome()?;
        let outbox = Outbox::start(Arc::clone(&self.shared), self.slot, socket)?;

        let mut slot = self.shared.slot(self.slot);
        if slot.closed {
            return Err("the pool is closing".into());
        }
        slot.connection = Some(Connection {
            pid,
            page,
            permits,
            outbox,
        });
        slot.send(small(0, Kind::Welcome, &welcome));
        let announce = !std::mem::replace(&mut slot.announced, true);
        drop(slot);
        if announce {
            self.shared.emit(WorkerEvent::Ready {
                slot: self.slot,
                pid: hello.pid,
            });
        }
        self.shared.slot(self.slot).send_held();
        // A worker that took long to start may have put the watch to sleep: nothing ran.
        if self.shared.asleep.load(Ordering::Acquire) {
            self.shared.wake();
        }
        Ok(())
    }

    /// Reads to the end of the stream. An error is a breach of the protocol.
    fn read_all(&self, stream: &mut BufReader<Incoming<'_>>) -> Result<(), String> {
        loop {
            match frame::read(stream) {
                Ok(Some(frame)) => self.hear(&frame)?,
                Ok(None) => return Ok(()),
                // A process that is killed while it writes leaves half a frame, or a reset.
                Err(frame::FrameError::Truncated | frame::FrameError::Io(_)) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn hear(&self, frame: &Frame) -> Result<(), String> {
        let events = self.events_of(frame).map_err(|error| match error {
            Heard::Frame(error) => error.to_string(),
            Heard::Breach(reason) => reason,
        })?;
        for event in events {
            self.shared.emit(event);
        }
        if frame.kind == Kind::Finished {
            self.after_dispatch();
        }
        Ok(())
    }

    fn events_of(&self, frame: &Frame) -> Result<Vec<WorkerEvent>, Heard> {
        let slot = self.slot;
        let call = frame.call;
        Ok(match frame.kind {
            Kind::Outcomes => {
                let runs = decode_outcomes(frame)?;
                let token = self.shared.slot(slot).report(call, &runs)?;
                vec![WorkerEvent::Outcomes { slot, token, runs }]
            }
            Kind::Returned => {
                let Returned { from } = wire::control(frame)?;
                let token = self.shared.slot(slot).return_rest(call, from)?;
                vec![WorkerEvent::Returned { slot, token, from }]
            }
            Kind::Finished => {
                let Finished { tail } = wire::control(frame)?;
                let token = self.shared.slot(slot).finish(call, tail)?;
                vec![WorkerEvent::Finished { slot, token, tail }]
            }
            Kind::Ask => {
                let Ask {
                    dispatch,
                    member,
                    question,
                } = wire::control(frame)?;
                let mut state = self.shared.slot(slot);
                let Ok(token) = state.front(dispatch).map(|front| front.token) else {
                    // A thread that a task left behind; it asks for a task that has ended.
                    let refused = Answer::Refused("the task that asks has ended".into());
                    state.send(encode_answer(call, &refused));
                    return Ok(Vec::new());
                };
                let call = state.ask(call);
                vec![WorkerEvent::Ask {
                    slot,
                    call,
                    token,
                    member,
                    question,
                }]
            }
            Kind::Log => {
                let token = self
                    .shared
                    .slot(slot)
                    .front(call)
                    .ok()
                    .map(|front| front.token);
                let log = |(member, origin, text)| WorkerEvent::Log {
                    slot,
                    token,
                    member,
                    origin,
                    text,
                };
                decode_log(frame)?.into_iter().map(log).collect()
            }
            Kind::Progress => {
                let Progress { member } = wire::control(frame)?;
                let token = self
                    .shared
                    .slot(slot)
                    .front(call)
                    .ok()
                    .map(|front| front.token);
                let value = frame.raw.clone();
                token
                    .map(|token| WorkerEvent::Progress {
                        slot,
                        token,
                        member,
                        value,
                    })
                    .into_iter()
                    .collect()
            }
            kind => return Err(Heard::Breach(format!("a worker does not send {kind:?}"))),
        })
    }

    /// Replaces a worker that has grown old or fat.
    fn after_dispatch(&self) {
        let config = &self.shared.config;
        let mut slot = self.shared.slot(self.slot);
        let old = slot.members_run >= config.members_per_worker_max;
        if old || self.is_fat(&mut slot) {
            slot.replace = true;
        }
        slot.send_held();
        slot.dismiss_if_idle();
    }

    /// Looked at now and then only: it costs as much as a small dispatch.
    fn is_fat(&self, slot: &mut Slot) -> bool {
        if slot.sized_at.is_some_and(|at| at.elapsed() < SIZE_EVERY) {
            return false;
        }
        slot.sized_at = Some(Instant::now());
        let bytes = slot
            .connection
            .as_ref()
            .and_then(|connection| resident_bytes(connection.pid));
        bytes.is_some_and(|bytes| bytes > self.shared.config.worker_rss_bytes_max)
    }

    /// What the worker wrote to its descriptors at the end comes before its death.
    fn drain_output(&self, worker: u32) {
        let token = self
            .shared
            .slot(self.slot)
            .in_flight
            .front()
            .map(|front| front.token);
        let mut events = Vec::new();
        let mut outputs = self
            .shared
            .outputs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(index) = outputs.iter().position(|output| output.worker == worker) else {
            return;
        };
        let mut output = outputs.swap_remove(index);
        drop(outputs);
        // Bounded, as a child that left the group may go on writing for ever.
        for _ in 0..DRAIN_READS_MAX {
            if !output.read(token, &mut events) {
                break;
            }
            for event in events.drain(..) {
                self.shared.emit(event);
            }
        }
        output.turn_to(None, &mut events);
        for event in events {
            self.shared.emit(event);
        }
    }

    /// Tells what became of the worker and of what it had.
    fn bury(&self, death: Death, never_ready: bool) {
        let mut slot = self.shared.slot(self.slot);
        let closed = slot.closed;
        let announced = slot.announced;
        let lost = slot.lose();
        let quiet =
            lost.leaving && lost.in_flight.is_empty() && death == Death::Exited(0) && !closed;
        if !quiet {
            slot.announced = false;
        }
        drop(slot);
        if quiet || never_ready && !announced {
            return;
        }
        for event in last_events(self.slot, lost, death) {
            self.shared.emit(event);
        }
    }
}

/// The receiving end of a worker's socket. It waits in `poll`: a thread that waits in `recv` is
/// also woken each time the worker takes something that we sent.
struct Incoming<'a> {
    socket: &'a UnixStream,
    /// The longest wait, if it is bounded.
    patience: Option<Duration>,
}

impl Read for Incoming<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.socket.as_fd(), &mut *into, RecvFlags::DONTWAIT) {
                Ok((read, _)) => return Ok(read),
                Err(rustix::io::Errno::AGAIN) => self.wait()?,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Incoming<'_> {
    fn wait(&self) -> io::Result<()> {
        let patience = self.patience.and_then(|time| Timespec::try_from(time).ok());
        match poll(
            &mut [PollFd::new(self.socket, PollFlags::IN)],
            patience.as_ref(),
        ) {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it said nothing for too long",
            )),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The events of a death, in order.
fn last_events(slot: SlotId, lost: Lost, death: Death) -> Vec<WorkerEvent> {
    let Lost {
        kill,
        mut in_flight,
        connection,
        ..
    } = lost;
    let running = connection.and_then(|connection| connection.page.read().ok());
    let front = in_flight.pop_front();
    let mut events = Vec::new();
    let started = front.as_ref().and_then(|front| started(front, running));
    let late = kill.as_ref().and_then(|kill| kill.member);
    if let (Some(front), Some(member)) = (&front, late)
        && member >= front.reported
    {
        events.push(timed_out(slot, front, member, running));
    }
    events.push(WorkerEvent::Died {
        slot,
        cause: kill.map_or(death, |kill| kill.cause),
        token: front.as_ref().map(|front| front.token),
        started,
        reported: front.as_ref().map_or(0, |front| front.reported),
    });
    events.extend(
        in_flight
            .iter()
            .map(|behind| returned(slot, behind.token, behind.members as usize)),
    );
    events
}

/// The highest member that had started.
fn started(front: &InFlight, running: Option<Running>) -> Option<u32> {
    let running = running.filter(|running| running.call == front.call)?;
    // The page is the worker's to scribble on; members that do not exist are not believed.
    Some(running.member.clamp(
        front.reported.saturating_sub(1),
        front.members.saturating_sub(1),
    ))
}

fn timed_out(slot: SlotId, front: &InFlight, member: u32, running: Option<Running>) -> WorkerEvent {
    let ended_ns = monotonic_ns();
    let started_ns = running
        .and_then(|running| running.started_ns)
        .unwrap_or(ended_ns);
    let seconds = front.timeout_ns.unwrap_or(0) as f64 / 1e9;
    let error = TaskError {
        kind: TaskErrorKind::Timeout,
        class: "TimeoutError".into(),
        message: format!(
            "ran longer than its timeout of {seconds} s and was ended with its process"
        ),
        traceback: String::new(),
        retryable: true,
        retry_after_ms: None,
    };
    let outcome = Outcome::Failed(Box::new(error));
    let run = OutcomeRun {
        first: member,
        count: 1,
        started_ns,
        ended_ns,
        outcome,
    };
    WorkerEvent::Outcomes {
        slot,
        token: front.token,
        runs: vec![run],
    }
}

/// Why a frame was not accepted.
enum Heard {
    Frame(frame::FrameError),
    Breach(String),
}

impl From<frame::FrameError> for Heard {
    fn from(error: frame::FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<String> for Heard {
    fn from(reason: String) -> Self {
        Self::Breach(reason)
    }
}

fn resident_bytes(pid: Pid) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_nonzero())).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
