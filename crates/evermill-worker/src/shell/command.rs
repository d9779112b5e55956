//! One command: started as the leader of a process group, fed, listened to, and ended with its group.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use evermill_contract::worker::limits::{LOG_HEAD_BYTES_MAX, LOG_TAIL_BYTES_MAX, RESULT_BYTES_MAX};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::server::{keep_to_the_engine, signal_group};
use crate::threads::Slot;

/// From TERM to KILL, for a command that ran out of time.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// A process that left the group may still hold an end of a pipe.
const PIPE_WAIT: Duration = Duration::from_secs(1);
/// Of standard error as much becomes the error's text.
const ERROR_TAIL_BYTES: usize = 2 * 1024;
/// A line of standard error longer than this comes in pieces.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// What to run.
pub(super) struct Job<'a> {
    pub(super) command: &'a str,
    /// Address space that its processes may take, in bytes.
    pub(super) memory_bytes_max: Option<u64>,
    pub(super) nice: u8,
    pub(super) folder: &'a Path,
    pub(super) env: Vec<(String, String)>,
    pub(super) stdin: Vec<u8>,
    pub(super) timeout: Option<Duration>,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Ended {
    Exited(ExitStatus),
    TimedOut,
    /// The engine wanted it to end.
    Stopped,
    NotStarted(io::Error),
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) ended: Ended,
    /// None when it was longer than a result may be.
    pub(super) stdout: Option<Vec<u8>>,
    /// The end of standard error.
    pub(super) stderr: Vec<u8>,
}

/// Runs a command to its end. `log` gets what it writes to standard error.
pub(super) fn run(job: Job<'_>, slot: &Arc<Slot>, log: impl Fn(&[u8]) + Send + 'static) -> Done {
    let mut child = match start(&job) {
        Ok(child) => child,
        Err(cause) => {
            return Done {
                ended: Ended::NotStarted(cause),
                stdout: Some(Vec::new()),
                stderr: Vec::new(),
            };
        }
    };
    let stdout = child.stdout.take().map(|pipe| aside(move || result(pipe)));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| aside(move || errors(pipe, &log)));
    if let Some(mut pipe) = child.stdin.take() {
        // A command that reads no more, or has ended, has had enough.
        aside(move || pipe.write_all(&job.stdin).ok());
    }
    let ended = wait(&mut child, job.timeout, slot);
    let heard = |answer: mpsc::Receiver<_>| answer.recv_timeout(PIPE_WAIT).ok();
    Done {
        ended,
        stdout: stdout.and_then(heard).unwrap_or_default(),
        stderr: stderr
            .and_then(|answer| answer.recv_timeout(PIPE_WAIT).ok())
            .unwrap_or_default(),
    }
}

fn start(job: &Job<'_>) -> io::Result<Child> {
    let limit = job.memory_bytes_max.map(|bytes| {
        // The unit of `ulimit -v` is 1024 bytes.
        format!("ulimit -v {} || exit 1\n", bytes.div_ceil(1024))
    });
    let text = limit.unwrap_or_default() + job.command;
    let mut command = if job.nice > 0 {
        let mut command = Command::new("nice");
        command.args(["-n", &job.nice.to_string(), "sh"]);
        command
    } else {
        Command::new("sh")
    };
    command.args(["-c", &text]).current_dir(job.folder);
    keep_to_the_engine(&mut command);
    command
        .envs(job.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command.spawn()
}

/// Waits for the end, or brings it about; then nothing of the group is left.
fn wait(child: &mut Child, timeout: Option<Duration>, slot: &Arc<Slot>) -> Ended {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Ended::Stopped;
    };
    let exited = Arc::new(AtomicBool::new(false));
    let (told, watched) = (Arc::clone(&exited), Arc::clone(slot));
    aside(move || {
        // It stays a zombie, so that its number cannot be somebody else's before the group is gone.
        waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        )
        .ok();
        let state = watched.lock();
        told.store(true, Ordering::Release);
        watched.changed.notify_all();
        drop(state);
    });
    let mut why = None;
    let (mut term_at, mut kill_at) = match timeout {
        Some(limit) => (
            Some(Instant::now() + limit),
            Some(Instant::now() + limit + KILL_GRACE),
        ),
        None => (None, None),
    };
    let mut state = slot.lock();
    while !exited.load(Ordering::Acquire) {
        if let Some(stop) = state.stop {
            // Whoever is in more of a hurry wins.
            (term_at, kill_at) = (
                earlier(term_at, stop.term_at),
                earlier(kill_at, stop.kill_at),
            );
        }
        let now = Instant::now();
        if term_at.is_some_and(|at| at <= now) {
            let stopped = state.stop.is_some_and(|stop| stop.term_at <= now);
            why.get_or_insert(if stopped {
                Ended::Stopped
            } else {
                Ended::TimedOut
            });
            signal_group(pid, Signal::TERM);
            term_at = None;
        }
        if kill_at.is_some_and(|at| at <= now) {
            signal_group(pid, Signal::KILL);
            kill_at = None;
        }
        let next = [term_at, kill_at].into_iter().flatten().min();
        state = match next {
            Some(at) => {
                let left = at.saturating_duration_since(now);
                slot.wait_for(state, left)
            }
            None => slot.wait(state),
        };
    }
    drop(state);
    signal_group(pid, Signal::KILL);
    let status = child.wait();
    match (why, status) {
        (Some(why), _) => why,
        (None, Ok(status)) => Ended::Exited(status),
        (None, Err(cause)) => Ended::NotStarted(cause),
    }
}

fn earlier(known: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(known.map_or(other, |known| known.min(other)))
}

/// How a status is called.
pub(super) fn said(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        // Nobody listens any more if it took too long.
        sender.send(work()).ok();
    });
    receiver
}

/// Standard output to its end; None when it is too long to be kept.
fn result(mut pipe: impl Read) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut too_long = false;
    while let Ok(read @ 1..) = pipe.read(&mut chunk) {
        too_long |= kept.len() + read > RESULT_BYTES_MAX;
        if !too_long {
            kept.extend_from_slice(&chunk[..read]);
        }
    }
    (!too_long).then_some(kept)
}

/// Standard error to its end, line by line; returns its tail. A flood is cut, and the cut is said.
fn errors(pipe: impl Read, log: &impl Fn(&[u8])) -> Vec<u8> {
    let mut reader = BufReader::new(pipe);
    let (mut tail, mut line) = (Vec::new(), Vec::new());
    let (mut logged, mut lost) = (0, 0);
    loop {
        line.clear();
        let read = reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            break;
        }
        if logged < LOG_HEAD_BYTES_MAX + LOG_TAIL_BYTES_MAX {
            logged += line.len();
            log(&line);
        } else {
            lost += line.len();
        }
        tail.extend_from_slice(&line);
        let over = tail.len().saturating_sub(ERROR_TAIL_BYTES);
        tail.drain(..over);
    }
    if lost > 0 {
        log(format!("[... {lost} bytes more ...]\n").as_bytes());
    }
    tail
}
