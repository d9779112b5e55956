//! `cargo xtask image`: builds the image of `deploy/container/` with docker or podman, whichever is there, and
//! takes a container of it through a life. CI does not do it: it needs a builder and base images from elsewhere.

use std::fs::{self, Permissions};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;
use std::{env, iter};

use serde_json::Value;

use crate::containers::{Container, Stage, Tool, WAIT_MAX, live, wait};
use crate::guard;
use crate::steps::Steps;
use crate::workspace::{self, Fault};

/// What the container serves: Python that needs a folder for files of its own.
const FLOW: &str = r#"import tempfile
import time

import evermill


@evermill.task(memory_limit="512MB")
def load(event):
    order = event.json()
    with tempfile.TemporaryFile() as file:
        file.write(event.value)
    time.sleep(order["seconds"])
    print("order", order["n"], "is loaded")


@evermill.dag
def orders():
    load(evermill.webhook(name="in"))
"#;

/// How long an order takes that is in flight when the container is stopped, in seconds.
const SLOW: u32 = 3;
/// The code of a command line that asks for what cannot be.
const USAGE: i32 = 2;

/// What can be typed behind `image`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build nothing; take this image, which is there
    #[arg(long, value_name = "IMAGE")]
    built: Option<String>,
    /// For the builder, such as --network host
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    builder: Vec<String>,
}

const STAGES: [Stage<Life>; 6] = [
    ("refusal", Life::is_refused_without_a_token),
    ("start", Life::start),
    ("health", Life::is_healthy),
    ("drain", Life::drain),
    ("restart", Life::restart),
    ("kill", Life::kill),
];

/// Builds the image and takes a container through every stage; those behind one that failed are left out.
pub(crate) fn run(args: &Args) -> Result<(), Fault> {
    let tool = Tool::find(&["docker", "podman"])?;
    let mut steps = Steps::default();
    let image = match &args.built {
        Some(image) => Some(image.clone()),
        None => steps.take("build", || build(&tool, &args.builder)),
    };
    let life = image.map(|image| Life::new(tool, image)).transpose()?;
    live(steps, life, &STAGES)
}

fn build(tool: &Tool, options: &[String]) -> Result<String, Fault> {
    const NAME: &str = "evermill";
    let mut command = tool.command(["build", "-f", "deploy/container/Containerfile", "-t", NAME]);
    if tool.is_podman {
        // Its own format has no health check.
        command.args(["--format", "docker"]);
    }
    command.args(options).arg(".");
    workspace::run(command.current_dir(workspace::root()))?;
    Ok(NAME.to_owned())
}

/// A container with its volume and its folder of DAGs, which goes with this.
struct Life {
    container: Container,
    dags: PathBuf,
    port: u16,
}

impl Life {
    fn new(tool: Tool, image: String) -> Result<Self, Fault> {
        let container = Container::new(tool, image, "image");
        let dags = env::temp_dir().join(&container.name);
        let [port] = guard::free_ports()?;
        // The user of the container has to be able to read them, whatever our umask says.
        let open = |path: &PathBuf, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        let flow = dags.join("orders.py");
        fs::create_dir_all(&dags)
            .and_then(|()| open(&dags, 0o755))
            .and_then(|()| fs::write(&flow, FLOW))
            .and_then(|()| open(&flow, 0o644))
            .map_err(|error| format!("{}: {error}", dags.display()))?;
        Ok(Self {
            container,
            dags,
            port,
        })
    }

    /// A container that ends by itself, with this command behind the image's entry point.
    fn once<'a>(&'a self, volume: &'a str, command: &'a [&'a str]) -> Result<Output, Fault> {
        let before = ["run", "--rm", "--volume", volume, &self.container.image];
        self.container
            .ended(before.into_iter().chain(command.iter().copied()))
    }

    fn is_refused_without_a_token(&self) -> Result<(), Fault> {
        let volume = format!("{}:/data", self.container.name);
        let ended = self.once(&volume, &[])?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        if ended.status.code() != Some(USAGE) || !said.contains("nobody has a token") {
            return Err(format!(
                "without a token it has to end with {USAGE} and say so; it ended with {}\n{said}",
                ended.status
            ));
        }
        let made = self.once(&volume, &["token", "create", "check", "--role", "admin"])?;
        match made.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&made.stderr).into_owned()),
        }
    }

    /// As closed as it can be: nothing but the volume and `/tmp` can be written.
    fn start(&self) -> Result<(), Fault> {
        let volume = format!("{}:/data", self.container.name);
        let dags = format!("{}:/dags:ro", self.dags.display());
        let port = format!("127.0.0.1:{}:4700", self.port);
        let closed = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"];
        let kept = ["--volume", &volume, "--volume", &dags, "--publish", &port];
        let what = [
            "--security-opt",
            "no-new-privileges",
            "--stop-timeout",
            "60",
        ];
        let command = ["run", "--detach", "--name", &self.container.name].into_iter();
        let command = command.chain(closed).chain(kept).chain(what);
        self.container
            .output(command.chain(iter::once(&*self.container.image)))?;
        self.order(1, 0, "kept")?;
        self.wait_for_done(1)
    }

    fn is_healthy(&self) -> Result<(), Fault> {
        wait("it is not healthy", || {
            if self.container.tool.is_podman {
                // Only systemd would ask by itself.
                let asked = self
                    .container
                    .ended(["healthcheck", "run", &self.container.name])?;
                return Ok(asked.status.success());
            }
            let format = "{{.State.Health.Status}}";
            let status =
                self.container
                    .output(["inspect", "--format", format, &self.container.name])?;
            Ok(status.trim() == "healthy")
        })
    }

    /// What is in flight when it is stopped is done before it ends, and all that it says is JSON.
    fn drain(&self) -> Result<(), Fault> {
        self.order(2, SLOW, "kept")?;
        self.container.output(["stop", &self.container.name])?;
        let code = self.container.output([
            "inspect",
            "--format",
            "{{.State.ExitCode}}",
            &self.container.name,
        ])?;
        if code.trim() != "0" {
            return Err(format!("it ended with {}\n{}", code.trim(), self.logs()?));
        }
        let said = self.logs()?;
        let is_object =
            |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|parsed| parsed.is_object());
        match said.lines().find(|line| !is_object(line)) {
            Some(line) => Err(format!("it says what is no JSON object: {line}")),
            None if !said.contains("order 2 is loaded") => {
                Err(format!("order 2 was not waited for\n{said}"))
            }
            None => Ok(()),
        }
    }

    /// It goes on with what it had, and knows an order that is brought again.
    fn restart(&self) -> Result<(), Fault> {
        self.container.output(["start", &self.container.name])?;
        self.order(1, 0, "repeated")?;
        self.order(3, 0, "kept")?;
        self.wait_for_done(3)
    }

    /// What was answered is not lost when it is killed, and is done after the next start.
    fn kill(&self) -> Result<(), Fault> {
        self.order(4, SLOW, "kept")?;
        self.container
            .output(["kill", "--signal", "KILL", &self.container.name])?;
        self.container.output(["start", &self.container.name])?;
        self.wait_for_done(4)
    }

    fn logs(&self) -> Result<String, Fault> {
        let logs = self.container.ended(["logs", &self.container.name])?;
        Ok([logs.stdout, logs.stderr]
            .map(|stream| String::from_utf8_lossy(&stream).into_owned())
            .concat())
    }

    /// Brings an order until somebody answers; it has to be `kept`, or `repeated`.
    fn order(&self, number: u32, seconds: u32, wanted: &str) -> Result<(), Fault> {
        let mut last = String::new();
        let brought = wait("nobody takes orders", || {
            last = self
                .post(number, seconds)
                .unwrap_or_else(|error| error.to_string());
            Ok(last.starts_with("HTTP/1.1 2"))
        });
        brought.map_err(|fault| format!("{fault}; last: {last}"))?;
        match last.contains(&format!("\"{wanted}\":1")) {
            true => Ok(()),
            false => Err(format!("order {number} has to be {wanted}: {last}")),
        }
    }

    fn post(&self, number: u32, seconds: u32) -> io::Result<String> {
        let body = format!("{{\"n\": {number}, \"seconds\": {seconds}}}");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(WAIT_MAX))?;
        write!(
            stream,
            "POST /hooks/orders/in HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Idempotency-Key: order-{number}\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Waits until so many orders are done, neither fewer nor more, and none failed.
    fn wait_for_done(&self, orders: u64) -> Result<(), Fault> {
        let mut last = String::new();
        let done = wait("not every order is done", || {
            let asked =
                self.container
                    .ended(["exec", &self.container.name, "evermill", "ps", "--json"])?;
            last = String::from_utf8_lossy(&asked.stdout).into_owned();
            let run: Value = serde_json::from_str(last.trim()).unwrap_or_default();
            Ok(run["in"] == orders && run["done"] == orders)
        });
        done.map_err(|fault| format!("{fault}: {last}\n{}", self.logs().unwrap_or_default()))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        guard::remove(&self.dags);
    }
}
