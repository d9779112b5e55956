//! A real PostgreSQL for tests: the system's own, with an empty cluster on loopback that is thrown
//! away at the end.
//!
//! PostgreSQL refuses to run as root. Then it runs as another user, who owns its folder alone.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::guard::{Guarded, free_ports, remove};
use crate::programs;
use crate::workspace::{self, Fault};

/// Who may log in, from this machine alone and without a password: nothing in it is worth one.
const USER: &str = "evermill";
const START_SECONDS_MAX: u64 = 60;
const PROBE_MS: u64 = 50;
/// Free ports are found by binding and letting go, so another process may take one in between.
const START_ATTEMPTS_MAX: u32 = 3;

/// The programs on this machine.
pub(crate) struct Installed {
    /// The folder of `initdb` and `postgres`.
    programs: PathBuf,
}

/// Finds PostgreSQL, or has it installed.
pub(crate) fn install() -> Result<Installed, Fault> {
    let found = programs::require(&programs::POSTGRES)?;
    // What is on the PATH may be a link to it, and its neighbours are not linked.
    let found =
        fs::canonicalize(&found).map_err(|error| format!("{}: {error}", found.display()))?;
    let programs = found.parent().unwrap_or(&found).to_owned();
    Ok(Installed { programs })
}

/// A running server. Dropping it stops it and removes its data.
pub(crate) struct Postgres {
    server: Guarded,
    port: u16,
}

impl Postgres {
    /// Starts a server with an empty cluster and returns once it takes connections.
    pub(crate) fn start(installed: &Installed) -> Result<Self, Fault> {
        let mut fault = Fault::new();
        for _ in 0..START_ATTEMPTS_MAX {
            match Self::start_once(installed) {
                Ok(server) => return Ok(server),
                Err(why) => fault = why,
            }
        }
        Err(fault)
    }

    fn start_once(installed: &Installed) -> Result<Self, Fault> {
        let [port] = free_ports()?;
        let process = process::id();
        let folder = env::temp_dir().join(format!("evermill-postgres-{process}-{port}"));
        let server = make_folder(&folder)
            .and_then(|()| make_cluster(installed, &folder))
            .and_then(|()| spawn(installed, &folder, port))
            .inspect_err(|_| remove(&folder))?;
        let mut started = Self { server, port };
        started.wait_until_it_answers(installed)?;
        Ok(started)
    }

    /// Fit for any client library.
    pub(crate) fn address(&self) -> String {
        format!("postgresql://{USER}@127.0.0.1:{}/postgres", self.port)
    }

    fn wait_until_it_answers(&mut self, installed: &Installed) -> Result<(), Fault> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        loop {
            let mut ask = Command::new(installed.programs.join("pg_isready"));
            ask.args(["--quiet", "--host=127.0.0.1", "--username", USER]);
            ask.arg(format!("--port={}", self.port));
            if ask.status().is_ok_and(|status| status.success()) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.server.server.try_wait() {
                return Err(format!("PostgreSQL ended with {status}\n{}", self.log()));
            }
            if Instant::now() > deadline {
                let log = self.log();
                return Err(format!(
                    "no answer from PostgreSQL in {START_SECONDS_MAX} s\n{log}"
                ));
            }
            thread::sleep(Duration::from_millis(PROBE_MS));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.server.folder().join("server.log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    /// An immediate stop, which lets go of shared memory; the guard does the rest.
    fn drop(&mut self) {
        let pid = self.server.server.id().to_string();
        if Command::new("kill").args(["-QUIT", &pid]).status().is_ok() {
            drop(self.server.server.wait());
        }
    }
}

fn make_folder(folder: &Path) -> Result<(), Fault> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    match other_user()? {
        None => Ok(()),
        Some(user) => workspace::output(Command::new("chown").arg(user.name).arg(folder)).map(drop),
    }
}

fn make_cluster(installed: &Installed, folder: &Path) -> Result<(), Fault> {
    let mut command = as_user(&installed.programs.join("initdb"), folder)?;
    command.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    command.args(["--username", USER, "--pgdata"]);
    workspace::output(command.arg(folder.join("data"))).map(drop)
}

fn spawn(installed: &Installed, folder: &Path, port: u16) -> Result<Guarded, Fault> {
    let fault = |error| format!("PostgreSQL cannot be started: {error}");
    let log = File::create(folder.join("server.log")).map_err(fault)?;
    let mut command = as_user(&installed.programs.join("postgres"), folder)?;
    command.arg("-D").arg(folder.join("data"));
    command.args(["-p", &port.to_string()]);
    let settings = [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        // Its data is worth nothing after the tests, and no test cuts its power.
        "fsync=off",
        "max_connections=50",
        "shared_buffers=32MB",
    ];
    for setting in settings {
        command.args(["-c", setting]);
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(fault)?)
        .stderr(log);
    Guarded::spawn(&mut command, folder).map_err(fault)
}

/// A program that runs in `folder`, and not as root.
fn as_user(program: &Path, folder: &Path) -> Result<Command, Fault> {
    let mut command = match other_user()? {
        None => Command::new(program),
        Some(user) => {
            // It becomes the program: what is killed later is the server itself.
            let mut command = Command::new("setpriv");
            command.arg(format!("--reuid={}", user.name));
            command.arg(format!("--regid={}", user.group));
            command.args(["--clear-groups", "--"]).arg(program);
            command
        }
    };
    command.current_dir(folder);
    Ok(command)
}

/// Who the server runs as, if not as ourselves.
struct User {
    name: &'static str,
    group: String,
}

fn other_user() -> Result<Option<User>, Fault> {
    let own = fs::metadata("/proc/self").map_err(|error| format!("/proc/self: {error}"))?;
    if own.uid() != 0 {
        return Ok(None);
    }
    let known = ["postgres", "nobody"].into_iter().find_map(|name| {
        let group = workspace::output(Command::new("id").args(["-g", name])).ok()?;
        let group = group.trim().to_owned();
        Some(User { name, group })
    });
    let why =
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`";
    known.map(Some).ok_or_else(|| why.to_owned())
}
