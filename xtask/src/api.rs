//! What others say of our HTTP API: promtool of `/metrics`, schemathesis of everything that the description
//! says there is. Both look at a server of ours that runs one DAG. The files of `deploy/` build on it and are
//! looked at here, too.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use crate::deploy;
use crate::guard::Guarded;
use crate::programs::{self, PROMTOOL};
use crate::python_env::{Packages, PythonEnv};
use crate::workspace::{self, Fault};

/// A DAG that a server can run without anything else.
const FLOW: &str = "dag: flow\nsources: { go: { signal: go } }\ntasks: { note: { after: [go], run: \"cat > /dev/null\", pool: small } }\n";
/// How long requests are made up.
const SECONDS_MAX: u32 = 60;
/// How long its DAGs may take to be on.
const START_MAX: Duration = Duration::from_secs(60);
/// What the server says once it answers.
const SAID: &str = "serving dags on ";
/// What is not asked for: streams do not end, a copy is written wherever somebody wants, and from the first
/// token on nobody without one is heard.
const LEFT_OUT: [&str; 4] = ["stream", "tailLogs", "makeBackup", "createToken"];

/// A server of ours; dropping it ends it.
struct Server {
    guarded: Guarded,
    url: String,
}

/// Asks them about the server of this binary.
pub(crate) fn check(binary: &Path) -> Result<(), Fault> {
    let promtool = programs::require(&PROMTOOL)?;
    let python = PythonEnv::apart("api", Packages::Api)?;
    let folder = env::temp_dir().join(format!("evermill-api-{}", process::id()));
    let server = start(binary, &folder)?;
    metrics(&promtool, &server)?;
    deploy::check(&promtool, binary, server.guarded.folder())?;
    requests(&python, &server)
}

fn start(binary: &Path, folder: &Path) -> Result<Server, Fault> {
    let dags = folder.join("dags");
    fs::create_dir_all(&dags)
        .and_then(|()| fs::write(dags.join("flow.yaml"), FLOW))
        .map_err(|error| format!("{}: {error}", dags.display()))?;
    let mut command = Command::new(binary);
    command.current_dir(folder);
    command.args(["serve", "--listen", "127.0.0.1:0", "--workers", "1"]);
    command.args(["--data-dir", "data"]);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let guarded = Guarded::spawn(&mut command, folder);
    let mut guarded = guarded.map_err(|error| format!("{}: {error}", binary.display()))?;
    let said = guarded.server.stderr.take().ok_or("no standard error")?;
    let mut lines = BufReader::new(said).lines();
    while let Some(line) = lines.next() {
        let line = line.map_err(|error| error.to_string())?;
        if let Some((_, rest)) = line.split_once(SAID) {
            let url = rest.split_once("http").map_or("", |(_, rest)| rest);
            let url = format!("http{}", url.split(';').next().unwrap_or_default());
            // What it says later goes nowhere, and it must not wait for us.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(Server { guarded, url });
        }
    }
    Err("the server ended before it answered".to_owned())
}

/// `promtool check metrics` reads them from its standard input.
fn metrics(promtool: &Path, server: &Server) -> Result<(), Fault> {
    let text = metrics_of_a_run(server.url.trim_start_matches("http://"))?;
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let spawned = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| format!("{}: {error}", promtool.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(text.as_bytes())
            .map_err(|error| error.to_string())?;
    }
    let ended = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(format!(
            "promtool: {}{}",
            String::from_utf8_lossy(&ended.stdout),
            String::from_utf8_lossy(&ended.stderr)
        )),
    }
}

/// What `/metrics` says once the server, which answers before its DAGs are on, tells of a run.
fn metrics_of_a_run(address: &str) -> Result<String, Fault> {
    let deadline = Instant::now() + START_MAX;
    loop {
        let answer = ask_metrics(address).map_err(|error| format!("{address}: {error}"))?;
        let Some((_, text)) = answer.split_once("\r\n\r\n") else {
            return Err(format!("/metrics answered {answer:?}"));
        };
        if text.contains("evermill_run_state") {
            return Ok(text.to_owned());
        }
        if Instant::now() > deadline {
            return Err(format!("/metrics says nothing of runs: {answer}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn ask_metrics(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// No request that somebody can think of breaks the server.
fn requests(python: &PythonEnv, server: &Server) -> Result<(), Fault> {
    let mut command = Command::new(python.program("st"));
    command.current_dir(server.guarded.folder());
    command.arg("run");
    command.arg(format!("{}/api/v1/openapi.json", server.url));
    command.args([
        "--checks",
        "not_a_server_error",
        "--seed",
        "1",
        "--no-color",
    ]);
    command.args(["--max-time", &SECONDS_MAX.to_string(), "--warnings", "off"]);
    command.args(["--suppress-health-check", "all"]);
    for operation in LEFT_OUT {
        command.args(["--exclude-operation-id", operation]);
    }
    workspace::output(&mut command).map(drop)
}
