//! The fork server's process: how it is started, asked and ended.

use std::ffi::OsString;
use std::io::{self, IoSlice, Read, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crossbeam_channel::Sender;
use evermill_contract::settings::is_for_the_engine;
use evermill_contract::worker::frame;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::config::PoolConfig;
use crate::supervisor::Message;

/// How much of what the fork server printed is kept for the reason of its failure.
const TAIL_BYTES_MAX: usize = 4096;

/// A fork server that was started.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    socket: UnixStream,
    printed: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    /// Starts the interpreter. What it says arrives as messages of this generation.
    pub(crate) fn start(
        config: &PoolConfig,
        generation: u32,
        to: Sender<Message>,
    ) -> Result<Self, String> {
        let (ours, theirs) =
            UnixStream::pair().map_err(|error| format!("no socket pair: {error}"))?;
        let (output, output_writer) = io::pipe().map_err(|error| format!("no pipe: {error}"))?;
        let mut command = Command::new(&config.interpreter);
        keep_to_the_engine(&mut command);
        command
            .args(["-m", "evermill._worker"])
            .envs(thread_defaults())
            .envs(config.env.iter().map(|(name, value)| (name, value)))
            // Not in our group: an interrupt from the terminal is for the engine to handle.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(
                output_writer
                    .try_clone()
                    .map_err(|error| error.to_string())?,
            )
            .stderr(output_writer);
        if let Some(path) = python_path(config) {
            command.env("PYTHONPATH", path);
        }
        if let Some(cwd) = &config.cwd {
            command.current_dir(cwd);
        }
        let child = command.spawn().map_err(|error| {
            format!(
                "the Python interpreter {} cannot be started: {error}; set EVERMILL_PYTHON or the DAG's python= \
                 to one that exists",
                config.interpreter.display()
            )
        })?;
        // The command holds our copies of the pipe's write end.
        drop(command);
        let printed = Arc::new(Mutex::new(Vec::new()));
        let server = Self {
            child,
            socket: ours,
            printed: Arc::clone(&printed),
        };
        let reader = server
            .socket
            .try_clone()
            .map_err(|error| error.to_string())?;
        spawn("evermill-server-output", move || {
            keep_tail(output, &printed)
        })?;
        spawn("evermill-server", move || {
            read_frames(reader, generation, &to)
        })?;
        Ok(server)
    }

    /// Sends a frame, with descriptors if there are any.
    pub(crate) fn send(&mut self, frame: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if descriptors.is_empty() {
            return self.socket.write_all(frame);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(
            control.push(SendAncillaryMessage::ScmRights(descriptors)),
            "room for three"
        );
        let sent = sendmsg(
            self.socket.as_fd(),
            &[IoSlice::new(frame)],
            &mut control,
            SendFlags::empty(),
        )?;
        self.socket.write_all(&frame[sent..])
    }

    /// Ends the process and everything it started; what it printed last and how it ended.
    pub(crate) fn end(mut self) -> String {
        // Closing the socket makes it kill its workers and what they left behind. It is single
        // threaded and may be in an import, so it does not get the time to refuse.
        if self.socket.shutdown(std::net::Shutdown::Both).is_err() {
            // It hung up first.
        }
        let status = self.wait_or_kill();
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let printed = String::from_utf8_lossy(&printed);
        match (status, printed.trim()) {
            (status, "") => status,
            (status, printed) => format!("{status}, after printing: {printed}"),
        }
    }

    fn wait_or_kill(&mut self) -> String {
        // About a second in all; an orderly end takes a few milliseconds.
        for _ in 0..200 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.to_string();
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

/// Connections and secrets of the engine's own environment are for tasks that declare them.
pub(crate) fn keep_to_the_engine(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_for_the_engine) {
            command.env_remove(name);
        }
    }
}

/// Native libraries that start threads when they are imported would make forking unsafe.
fn thread_defaults() -> impl Iterator<Item = (&'static str, OsString)> {
    ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
        .into_iter()
        .filter(|name| std::env::var_os(name).is_none())
        .map(|name| (name, OsString::from("1")))
}

fn python_path(config: &PoolConfig) -> Option<OsString> {
    let inherited = std::env::var_os("PYTHONPATH");
    let folders = config
        .sdk
        .iter()
        .cloned()
        .chain(inherited.iter().flat_map(std::env::split_paths));
    // A folder with a colon in its name cannot be said; then the interpreter's own paths must do.
    config
        .sdk
        .as_ref()
        .and_then(|_| std::env::join_paths(folders).ok())
}

fn read_frames(mut socket: UnixStream, generation: u32, to: &Sender<Message>) {
    let reason = loop {
        match frame::read(&mut socket) {
            Ok(Some(frame)) => {
                if to.send(Message::Server { generation, frame }).is_err() {
                    return;
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    // Nobody listens once the supervisor has ended, and then nothing is to be said.
    if to
        .send(Message::ServerEnded { generation, reason })
        .is_err()
    {}
}

fn keep_tail(mut output: impl Read, printed: &Mutex<Vec<u8>>) {
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = output.read(&mut part) {
        let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed.extend_from_slice(&part[..read]);
        let excess = printed.len().saturating_sub(TAIL_BYTES_MAX);
        printed.drain(..excess);
    }
}

/// Starts a thread that ends by itself.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), String> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map(drop)
        .map_err(|error| format!("no thread: {error}"))
}

/// Signals a worker's process group. That it is gone already is no error.
pub(crate) fn signal_group(pid: Pid, signal: Signal) {
    if kill_process_group(pid, signal).is_err() {
        // Between fork and setsid there is no group yet, and the process has run nothing.
        if rustix::process::kill_process(pid, signal).is_err() {}
    }
}
