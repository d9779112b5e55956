//! Two programs that speak as AWS does, for tests: moto (SQS, S3 and more, in Python) and ElasticMQ (SQS
//! alone, on the JVM, a second opinion). Each is started on loopback with nothing in it and thrown away.
//!
//! Neither outlives us ([`crate::guard`]).

use std::env;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::guard::{Guarded, free_ports, remove};
use crate::kafka_broker::{create, write};
use crate::maven;
use crate::programs;
use crate::python_env::{Packages, PythonEnv};
use crate::workspace::Fault;

const ELASTICMQ_VERSION: &str = "1.6.14";
const HEAP_MB_MAX: u32 = 128;
const START_SECONDS_MAX: u64 = 120;
const PROBE_MS: u64 = 50;
/// Free ports are found by binding and letting go, so another process may take one in between.
const START_ATTEMPTS_MAX: u32 = 3;

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Moto,
    ElasticMq,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Moto => "moto",
            Self::ElasticMq => "elasticmq",
        }
    }

    /// The variable by which tests find it.
    pub(crate) const fn variable(self) -> &'static str {
        match self {
            Self::Moto => "EVERMILL_TEST_SQS",
            Self::ElasticMq => "EVERMILL_TEST_ELASTICMQ",
        }
    }
}

/// One that runs. Dropping it stops it.
pub(crate) struct Emulator {
    kind: Kind,
    server: Guarded,
    port: u16,
}

impl Emulator {
    /// Installs it if need be, starts it and returns once it answers.
    pub(crate) fn start(kind: Kind) -> Result<Self, Fault> {
        let mut fault = Fault::new();
        for _ in 0..START_ATTEMPTS_MAX {
            match Self::start_once(kind) {
                Ok(emulator) => return Ok(emulator),
                Err(why) => fault = why,
            }
        }
        Err(fault)
    }

    fn start_once(kind: Kind) -> Result<Self, Fault> {
        let [port] = free_ports()?;
        let name = kind.name();
        let folder = env::temp_dir().join(format!("evermill-{name}-{}-{port}", process::id()));
        create(&folder)?;
        let spawned = command(kind, port, &folder).and_then(|command| spawn(command, &folder));
        let mut emulator = Self {
            kind,
            server: spawned.inspect_err(|_| remove(&folder))?,
            port,
        };
        emulator.wait_until_it_answers()?;
        Ok(emulator)
    }

    /// Where it is.
    pub(crate) fn address(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Which it is.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> Result<(), Fault> {
        let status = self
            .server
            .server
            .wait()
            .map_err(|error| error.to_string())?;
        Err(self.ended(&status.to_string()))
    }

    fn ended(&self, how: &str) -> Fault {
        let log = fs::read_to_string(self.server.folder().join("log")).unwrap_or_default();
        format!("{} ended with {how}\n{log}", self.kind.name())
    }

    fn wait_until_it_answers(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while !answers(self.port) {
            if let Ok(Some(status)) = self.server.server.try_wait() {
                return Err(self.ended(&status.to_string()));
            }
            if Instant::now() > deadline {
                return Err(self.ended(&format!("no answer in {START_SECONDS_MAX} s")));
            }
            thread::sleep(Duration::from_millis(PROBE_MS));
        }
        Ok(())
    }
}

fn command(kind: Kind, port: u16, folder: &Path) -> Result<Command, Fault> {
    match kind {
        Kind::Moto => {
            let python = PythonEnv::apart("moto", Packages::Moto)?;
            let mut command = Command::new(python.program("moto_server"));
            command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
            Ok(command)
        }
        Kind::ElasticMq => {
            let java = programs::require(&programs::JAVA)?;
            let wanted = [
                (
                    "org.elasticmq",
                    "elasticmq-rest-sqs_2.13",
                    ELASTICMQ_VERSION,
                ),
                ("org.elasticmq", "elasticmq-server_2.13", ELASTICMQ_VERSION),
            ];
            let jars = maven::jars(&format!("elasticmq/{ELASTICMQ_VERSION}"), &wanted)?;
            let settings = folder.join("elasticmq.conf");
            write(&settings, &elasticmq(port))?;
            let mut command = Command::new(java);
            command.arg(format!("-Xmx{HEAP_MB_MAX}m"));
            command.arg(format!("-Dconfig.file={}", settings.display()));
            command.arg("-cp").arg(jars.join("*"));
            command.arg("org.elasticmq.server.Main");
            Ok(command)
        }
    }
}

fn elasticmq(port: u16) -> String {
    format!(
        "include classpath(\"application.conf\")
node-address {{ host = \"127.0.0.1\", port = {port} }}
rest-sqs {{ bind-hostname = \"127.0.0.1\", bind-port = {port} }}
rest-stats {{ enabled = false }}
"
    )
}

fn spawn(mut command: Command, folder: &Path) -> Result<Guarded, Fault> {
    let fault = |error| format!("it cannot be started: {error}");
    let log = File::create(folder.join("log")).map_err(fault)?;
    let error_log = log.try_clone().map_err(fault)?;
    command.stdin(Stdio::null()).stdout(log).stderr(error_log);
    Guarded::spawn(&mut command, folder).map_err(fault)
}

/// One question, of SQS' own: what comes back begins with HTTP once it listens.
fn answers(port: u16) -> bool {
    const BODY: &str = "Action=ListQueues&Version=2012-11-05";
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let length = BODY.len();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{BODY}"
        );
        stream.write_all(request.as_bytes())?;
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        Ok(&head == b"HTTP/")
    };
    ask().unwrap_or(false)
}
