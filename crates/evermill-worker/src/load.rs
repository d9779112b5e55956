//! What a Python DAG file declares: a child process executes it and prints the manifest.
//!
//! A DAG file is user code, so it runs in a process group of its own, under a time limit, with its
//! output bounded, and nothing of the group outlives the call. The other side is
//! `python/evermill/_load.py`; the last line on standard output is
//! `EVERMILL-MANIFEST {...}` or `EVERMILL-FAULTS [...]` (docs/spec/manifest.md).

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use evermill_contract::manifest::{Code, Fault, Manifest};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::server::keep_to_the_engine;

#[cfg(test)]
mod tests;

const MANIFEST: &str = "EVERMILL-MANIFEST ";
const FAULTS: &str = "EVERMILL-FAULTS ";

/// A manifest of 10,000 tasks takes about 2 MiB.
const STDOUT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Of what the file printed, as much is shown when the loader dies.
const STDERR_TAIL_BYTES: usize = 4 * 1024;
/// A process that left the group may still hold its end of standard error.
const STDERR_WAIT: Duration = Duration::from_secs(1);

/// The loader ends itself at the limit and says at which line; this much later we end it.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Loads DAG files with one interpreter.
#[derive(Debug, Clone)]
pub struct Loader {
    /// The interpreter, a path or a name to be found in `PATH`.
    pub interpreter: PathBuf,
    /// The folder that holds the package `evermill`; it comes first in `PYTHONPATH`.
    pub sdk: Option<PathBuf>,
    /// Further environment variables.
    pub env: Vec<(OsString, OsString)>,
    /// The longest a file may take to load.
    pub timeout: Duration,
    /// The most that loading may allocate, bytes.
    pub memory_max: Option<u64>,
}

impl Loader {
    /// A loader with 30 s for each file.
    #[must_use]
    pub fn new(interpreter: impl Into<PathBuf>) -> Self {
        Self {
            interpreter: interpreter.into(),
            sdk: None,
            env: Vec::new(),
            timeout: Duration::from_secs(30),
            memory_max: None,
        }
    }

    /// Executes a DAG file and returns what it declares. `folder` is the DAG folder that paths of
    /// the manifest are relative to; without it, the file's own.
    ///
    /// # Errors
    /// All faults the loader finds. An interpreter that cannot be started, a file that takes too
    /// long and one that takes the whole process down are faults as well.
    pub fn load(&self, file: &Path, folder: Option<&Path>) -> Result<Manifest, Vec<Fault>> {
        let fault = |code: Code, message: String, cure: &str| {
            vec![Fault {
                file: file.display().to_string(),
                line: 0,
                column: None,
                code,
                message,
                cure: cure.to_owned(),
            }]
        };
        let mut child = self.command(file, folder).spawn().map_err(|why| {
            let message = format!("cannot start {}: {why}", self.interpreter.display());
            fault(
                Code::Interpreter,
                message,
                "set EVERMILL_PYTHON to a Python of 3.9 or later",
            )
        })?;
        let heard = hear(&mut child, self.timeout + LAST_WORD);
        match heard.stdout {
            Stdout::Whole(bytes) => match answer(&bytes) {
                Some(answer) => answer,
                None => Err(fault(
                    Code::LoaderDied,
                    died(heard.status, &heard.stderr),
                    "move what ends the process into a task",
                )),
            },
            Stdout::TooLong => {
                let message = format!("the manifest is longer than {STDOUT_BYTES_MAX} bytes");
                Err(fault(
                    Code::TooLarge,
                    message,
                    "declare fewer tasks, or map over a list",
                ))
            }
            Stdout::TimedOut => {
                let message = format!(
                    "loading took longer than {:?}, and the interpreter does not say where",
                    self.timeout
                );
                Err(fault(
                    Code::LoaderTimeout,
                    message,
                    "move slow work from the top of the file into tasks",
                ))
            }
        }
    }

    fn command(&self, file: &Path, folder: Option<&Path>) -> Command {
        let mut command = Command::new(&self.interpreter);
        keep_to_the_engine(&mut command);
        command.args(["-m", "evermill._load"]).arg(file);
        if let Some(folder) = folder {
            command.arg("--folder").arg(folder);
        }
        command
            .arg("--time-limit")
            .arg(self.timeout.as_secs_f64().to_string());
        if let Some(bytes) = self.memory_max {
            command.arg("--memory-limit").arg(bytes.to_string());
        }
        // The order of a set may reach the manifest; it must not change the version (W17).
        command.env("PYTHONHASHSEED", "0");
        if let Some(path) = self.python_path() {
            command.env("PYTHONPATH", path);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.process_group(0);
        command
    }

    fn python_path(&self) -> Option<OsString> {
        let sdk = self.sdk.as_ref()?;
        let mut path = sdk.clone().into_os_string();
        if let Some(inherited) =
            std::env::var_os("PYTHONPATH").filter(|inherited| !inherited.is_empty())
        {
            path.push(":");
            path.push(inherited);
        }
        Some(path)
    }
}

/// The last line, understood; None if it is not there or not ours.
fn answer(stdout: &[u8]) -> Option<Result<Manifest, Vec<Fault>>> {
    let text = std::str::from_utf8(stdout).ok()?;
    let line = text.trim_end_matches('\n').rsplit('\n').next()?;
    if let Some(json) = line.strip_prefix(MANIFEST) {
        return Some(
            Manifest::decode(json.as_bytes()).map_err(|why| misunderstood(&why.to_string())),
        );
    }
    let faults = serde_json::from_str::<Vec<Fault>>(line.strip_prefix(FAULTS)?);
    let faults = faults.unwrap_or_else(|why| misunderstood(&why.to_string()));
    (!faults.is_empty()).then_some(Err(faults))
}

fn misunderstood(why: &str) -> Vec<Fault> {
    vec![Fault {
        file: "evermill".to_owned(),
        line: 0,
        column: None,
        code: Code::Manifest,
        message: why.to_owned(),
        cure: "use the evermill package that came with this binary".to_owned(),
    }]
}

fn died(status: io::Result<ExitStatus>, stderr: &[u8]) -> String {
    let status = status.map_or_else(|why| why.to_string(), |status| status.to_string());
    let said = String::from_utf8_lossy(stderr);
    let said = said.trim();
    if said.is_empty() {
        format!("loading ended without a manifest ({status})")
    } else {
        format!("loading ended without a manifest ({status}); it said:\n{said}")
    }
}

struct Heard {
    stdout: Stdout,
    stderr: Vec<u8>,
    status: io::Result<ExitStatus>,
}

enum Stdout {
    Whole(Vec<u8>),
    TooLong,
    TimedOut,
}

/// Reads both outputs until the first one ends or the time is up, then ends the whole group.
fn hear(child: &mut Child, timeout: Duration) -> Heard {
    let stdout = child
        .stdout
        .take()
        .map(|pipe| on_a_thread(move || whole(pipe)));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| on_a_thread(move || tail(pipe)));
    let stdout = stdout.map_or(Stdout::TimedOut, |answer| {
        answer.recv_timeout(timeout).unwrap_or(Stdout::TimedOut)
    });
    // The group's leader is not waited for yet, so its number cannot be somebody else's.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It fails only if nobody is left in the group.
        kill_process_group(group, Signal::KILL).ok();
    }
    let status = child.wait();
    let stderr = stderr
        .and_then(|answer| answer.recv_timeout(STDERR_WAIT).ok())
        .unwrap_or_default();
    Heard {
        stdout,
        stderr,
        status,
    }
}

fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        // Nobody listens any more if the time was up.
        sender.send(work()).ok();
    });
    receiver
}

/// Reads to the answer, or to the end: a child that the file forked may keep the pipe open.
fn whole(mut pipe: impl Read) -> Stdout {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    // What came before an error of the pipe is judged as it is.
    while let Ok(read @ 1..) = pipe.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..read]);
        if bytes.len() > STDOUT_BYTES_MAX {
            return Stdout::TooLong;
        }
        if bytes.ends_with(b"\n") && answer(&bytes).is_some() {
            break;
        }
    }
    Stdout::Whole(bytes)
}

/// Reads to the end and keeps the last bytes, so that a file that prints a lot is not held up.
fn tail(mut pipe: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; 8 * 1024];
    while let Ok(read @ 1..) = pipe.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..read]);
        if kept.len() > 2 * STDERR_TAIL_BYTES {
            kept.drain(..kept.len() - STDERR_TAIL_BYTES);
        }
    }
    kept.drain(..kept.len().saturating_sub(STDERR_TAIL_BYTES));
    kept
}
