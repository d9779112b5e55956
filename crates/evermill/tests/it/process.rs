//! A running `evermill`, watched from the outside.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a test waits for what must come. Generous: a loaded machine is not a bug.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a test starts `evermill` in: a data directory of its own, and nothing from outside.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// A DAG file in this place.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::write(&path, text).expect("the file is written");
        path
    }

    /// The command with these arguments, in this place.
    pub(crate) fn evermill<A: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evermill"));
        command.current_dir(self.folder()).args(arguments);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EVERMILL_")) {
            command.env_remove(name);
        }
        if let Some(python) = std::env::var_os("EVERMILL_TEST_PYTHON") {
            command.env("EVERMILL_PYTHON", python);
        }
        command.env("EVERMILL_DATA_DIR", self.data_dir());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn finish<A: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Ended {
        Running::start(&mut self.evermill(arguments)).end()
    }

    /// Waits until a run looks as wanted, and returns it; the only one there is.
    pub(crate) fn wait_for_run(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Before the engine has made its directory there is nothing to ask.
            let ended = self.finish(["ps", "--json"]);
            let runs = if ended.code() == 0 {
                ended.json()
            } else {
                Vec::new()
            };
            if let Some(found) = runs.into_iter().find(|run| wanted(run)) {
                return found;
            }
            let (stdout, stderr) = (&ended.stdout, &ended.stderr);
            assert!(
                Instant::now() < deadline,
                "never as wanted: {stdout}{stderr}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until every source has found its positions.
    pub(crate) fn wait_until_ready(&self) {
        let ready = |source: &Value| source["ready"] == true;
        let all = |run: &Value| {
            run["sources"]
                .as_array()
                .is_some_and(|sources| !sources.is_empty() && sources.iter().all(ready))
        };
        self.wait_for_run(all);
    }

    /// The objects of `ps --json`.
    pub(crate) fn ps(&self) -> Vec<Value> {
        let ended = self.finish(["ps", "--json"]);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        ended.json()
    }
}

/// A process and what it has said so far.
pub(crate) struct Running {
    child: Child,
    stdout: Said,
    stderr: Said,
}

/// What came out of one pipe, line by line.
#[derive(Clone, Default)]
struct Said(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Said {
    fn listen(pipe: impl Read + Send + 'static) -> Self {
        let said = Self::default();
        let told = said.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                told.change(|lines| lines.lines.push(text));
                line.clear();
            }
            told.change(|lines| lines.ended = true);
        });
        said
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    /// Waits until the lines are as wanted; panics when they end or time runs out before.
    fn wait(&self, what: &str, wanted: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        while !wanted(&lines.lines) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !lines.ended && !left.is_zero(),
                "no {what} in:\n{}",
                lines.lines.join("\n")
            );
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    fn all(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        while !lines.ended && Instant::now() < deadline {
            lines = self.0.1.wait_timeout(lines, PATIENCE).unwrap().0;
        }
        lines.lines.join("\n")
    }

    fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap().lines.clone()
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("evermill starts");
        let stdout = Said::listen(child.stdout.take().expect("it is piped"));
        let stderr = Said::listen(child.stderr.take().expect("it is piped"));
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Waits until standard error has `count` lines that contain `text`.
    pub(crate) fn wait_for_lines(&self, text: &str, count: usize) {
        let has =
            |lines: &[String]| lines.iter().filter(|line| line.contains(text)).count() >= count;
        self.stderr
            .wait(&format!("{count} lines with {text:?}"), has);
    }

    /// How many lines of standard error contain `text` by now.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.stderr
            .lines()
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Standard error so far, line by line.
    pub(crate) fn said(&self) -> Vec<String> {
        self.stderr.lines()
    }

    /// Waits for the first line on standard output.
    pub(crate) fn first_line(&self) -> String {
        self.stdout
            .wait("line on standard output", |lines| !lines.is_empty());
        self.stdout.lines().swap_remove(0)
    }

    /// Waits for a line on standard output that contains `text`.
    pub(crate) fn wait_for_output(&self, text: &str) {
        self.stdout
            .wait(text, |lines| lines.iter().any(|line| line.contains(text)));
    }

    /// How many lines standard output has by now.
    pub(crate) fn stdout_lines(&self) -> usize {
        self.stdout.lines().len()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid");
        kill_process(pid, signal).expect("it lives");
    }

    /// `kill -9`, and gone.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("it is waited for");
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end:\n{}",
                self.stderr.lines().join("\n")
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        Ended {
            status,
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that fails leaves nothing behind.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Its exit code; it must not have died of a signal.
    pub(crate) fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("{}:\n{}", self.status, self.stderr))
    }

    /// Standard output as JSON lines.
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{line}: {why}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The one JSON line of a command that ran one DAG.
    pub(crate) fn only_run(&self) -> Value {
        let mut runs = self.json();
        assert_eq!(runs.len(), 1, "{}\n{}", self.stdout, self.stderr);
        runs.remove(0)
    }
}

/// Waits until a condition holds that nobody announces.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
