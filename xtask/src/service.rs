//! `cargo xtask service`: a machine with a systemd of its own, in a container, on which the unit of
//! `deploy/systemd/` is set up by the very lines of the guide and taken through a life. CI does not do it: it
//! needs podman, root and a base image from elsewhere.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use serde_json::Value;

use crate::containers::{Container, Stage, Tool, live, wait};
use crate::guard;
use crate::steps::Steps;
use crate::workspace::{self, Fault};

/// A small Debian, with what the guide asks for.
const MACHINE: &str = "FROM docker.io/library/debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends \
curl openssl procps python3 sudo systemd systemd-sysv
COPY . /src
CMD [\"/sbin/init\"]
";
const FLOWS: &str = include_str!("service/flows.py");
/// Commands, too, are in the cage.
const SHELL: &str = "dag: shell
sources: { in: { webhook: {} } }
tasks: { look: { after: in, run: 'test \"$(id -un)\" = evermill && ! touch /etc/evermill/x 2> /dev/null' } }
";
/// How long an order takes that is in flight when the service is stopped or killed, in seconds.
const SLOW: u32 = 3;
/// More than the task may allocate.
const TOO_MUCH: u32 = 1 << 30;

/// What can be typed behind `service`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The binary that is installed
    #[arg(long, value_name = "FILE", default_value = "target/release/evermill")]
    binary: PathBuf,
    /// For the builder, such as --network host
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    builder: Vec<String>,
}

const STAGES: [Stage<Machine>; 8] = [
    ("install", Machine::install),
    ("serve", Machine::serve),
    ("cage", Machine::look_around),
    ("reload", Machine::reload),
    ("memory", Machine::run_out_of_memory),
    ("drain", Machine::drain),
    ("kill", Machine::kill),
    ("refusals", Machine::refuse),
];

/// Makes the machine and takes its service through every stage.
pub(crate) fn run(args: &Args) -> Result<(), Fault> {
    let tool = Tool::find(&["podman"])?;
    let guide = commands_of_the_guide()?;
    let mut steps = Steps::default();
    let machine = steps.take("machine", || Machine::start(tool, args, guide));
    live(steps, machine, &STAGES)
}

/// What the guide has to be typed as a service of systemd: one text for each block.
fn commands_of_the_guide() -> Result<Vec<String>, Fault> {
    let path = workspace::root().join("docs/guide/deploying.md");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (_, after) = text
        .split_once("\n## As a service of systemd\n")
        .ok_or("the guide says nothing of systemd")?;
    let chapter = after.split("\n## ").next().unwrap_or_default();
    let blocks = chapter.split("\n```\n").skip(1).step_by(2);
    Ok(blocks.map(str::to_owned).collect())
}

struct Machine {
    container: Container,
    guide: Vec<String>,
}

impl Machine {
    fn start(tool: Tool, args: &Args, guide: Vec<String>) -> Result<Self, Fault> {
        const IMAGE: &str = "evermill-machine";
        let folder = env::temp_dir().join(format!("evermill-machine-{}", process::id()));
        let built = lay_out(&folder, &args.binary).and_then(|()| {
            let mut command = tool.command(["build", "--tag", IMAGE]);
            workspace::run(command.args(&args.builder).arg(&folder))
        });
        guard::remove(&folder);
        built?;
        let container = Container::new(tool, IMAGE.to_owned(), "service");
        let machine = Self { container, guide };
        let Container { name, image, .. } = &machine.container;
        // Its systemd has to be able to make namespaces, as that of a real machine.
        let how = ["run", "--detach", "--privileged", "--systemd=always"];
        let command = how.into_iter().chain(["--name", name, image]);
        machine.container.output(command)?;
        wait("its systemd is not up", || {
            let asked = ["exec", name, "systemctl", "is-system-running"];
            let said = machine.container.ended(asked)?.stdout;
            Ok([&b"running\n"[..], b"degraded\n"].contains(&said.as_slice()))
        })?;
        // systemd does this where it is not in a container; without it credentials do not arrive.
        machine.sh("mount --make-rshared /")?;
        Ok(machine)
    }

    /// As root, in the folder that has what the repository has.
    fn sh(&self, script: &str) -> Result<String, Fault> {
        let name = &self.container.name;
        self.container
            .output(["exec", "--workdir", "/src", name, "sh", "-ec", script])
    }

    fn guide(&self, block: usize) -> Result<&str, Fault> {
        let found = self.guide.get(block).map(String::as_str);
        found.ok_or_else(|| format!("the guide has no block {block} of commands"))
    }

    fn install(&self) -> Result<(), Fault> {
        self.sh(self.guide(0)?)?;
        self.sh(
            "curl -sSf --retry 60 --retry-all-errors --retry-delay 1 http://127.0.0.1:4700/readyz",
        )?;
        Ok(())
    }

    /// A DAG lacks a secret and says so where problems are looked for; with the secret it starts.
    fn serve(&self) -> Result<(), Fault> {
        self.sh("install -m 0644 flows.py shell.yaml /etc/evermill/dags/")?;
        wait("the journal does not say what is missing", || {
            Ok(self
                .journal("-p warning")?
                .contains("needs the secret 'api_key'"))
        })?;
        self.sh(&format!("printf tulips | {}", self.guide(2)?))?;
        self.sh("systemctl reload evermill")?;
        self.order(1, 0, 0)?;
        self.wait_for_done("orders", 1)?;
        match self
            .journal("")?
            .contains("order 1 is loaded with a key of 6 letters")
        {
            true => Ok(()),
            false => Err("the journal has nothing of what tasks print".to_owned()),
        }
    }

    fn look_around(&self) -> Result<(), Fault> {
        for dag in ["cage", "shell"] {
            self.post(dag, "1", "look")?;
            self.wait_for_done(dag, 1)?;
        }
        Ok(())
    }

    fn reload(&self) -> Result<(), Fault> {
        let change = "sed 's/is loaded/is LOADED/' flows.py > /etc/evermill/dags/.new";
        self.sh(change)?;
        self.sh(
            "mv /etc/evermill/dags/.new /etc/evermill/dags/flows.py; systemctl reload evermill",
        )?;
        wait("the new version is not served", || {
            Ok(self.journal("")?.contains("orders goes over to version"))
        })?;
        self.order(2, 0, 0)?;
        self.wait_for_done("orders", 2)?;
        match self.journal("")?.contains("order 2 is LOADED") {
            true => Ok(()),
            false => Err("order 2 ran on the version before".to_owned()),
        }
    }

    fn run_out_of_memory(&self) -> Result<(), Fault> {
        self.order(3, 0, TOO_MUCH)?;
        wait("the journal does not say that an order is parked", || {
            Ok(self.journal("-p warning")?.contains("MemoryError"))
        })?;
        match self.journal("-p warning")?.contains("order 1") {
            true => Err("what tasks print has the priority of a warning".to_owned()),
            false => Ok(()),
        }
    }

    /// What is in flight when it is stopped is done before it ends.
    fn drain(&self) -> Result<(), Fault> {
        self.order(4, SLOW, 0)?;
        self.sh("systemctl stop evermill")?;
        self.expect("inactive", "0", "0")?;
        match self.journal("")?.contains("order 4 is LOADED") {
            true => self.sh("systemctl start evermill").map(drop),
            false => Err("order 4 was not waited for".to_owned()),
        }
    }

    fn kill(&self) -> Result<(), Fault> {
        self.order(5, SLOW, 0)?;
        self.sh("systemctl kill --signal=KILL --kill-whom=main evermill")?;
        wait("it is not started again", || {
            Ok(self.expect("active", "0", "1").is_ok())
        })?;
        // All but the one that is parked.
        self.wait_for_done("orders", 4)
    }

    /// What nobody's trying mends is not tried again.
    fn refuse(&self) -> Result<(), Fault> {
        self.sh("systemctl stop evermill; echo nonsense = 1 > /etc/evermill/evermill.toml")?;
        self.sh("systemctl start evermill")?;
        self.wait_for("failed", "2", "0")?;
        self.sh("rm /etc/evermill/evermill.toml")?;
        let key = self.sh("cat /etc/evermill/secret.key")?;
        let key = format!("EVERMILL_SECRET_KEY={}", key.trim());
        let name = &self.container.name;
        let how = ["exec", "--detach", "--user", "evermill", "--env", &key];
        let other =
            "evermill --data-dir /var/lib/evermill serve --dags /srv --listen 127.0.0.1:4701";
        let other = [&*self.container.name].into_iter().chain(other.split(' '));
        self.container.output(how.into_iter().chain(other))?;
        wait("the other engine does not answer", || {
            let ready = "curl -sf http://127.0.0.1:4701/readyz";
            let asked = self.container.ended(["exec", name, "sh", "-c", ready])?;
            Ok(asked.status.success())
        })?;
        self.sh("systemctl start evermill")?;
        self.wait_for("failed", "4", "0")
    }

    fn journal(&self, more: &str) -> Result<String, Fault> {
        self.sh(&format!("journalctl -u evermill -o cat --no-pager {more}"))
    }

    /// What systemd says of the service: its state, the code it ended with, and how often it was started again.
    fn expect(&self, state: &str, code: &str, restarts: &str) -> Result<(), Fault> {
        let said =
            self.sh("systemctl show evermill -p ActiveState -p ExecMainStatus -p NRestarts")?;
        let mut lines = [
            format!("ActiveState={state}"),
            format!("ExecMainStatus={code}"),
            format!("NRestarts={restarts}"),
        ]
        .into_iter();
        match lines.find(|line| !said.lines().any(|known| known == line)) {
            None => Ok(()),
            Some(missing) => Err(format!(
                "{missing} is wanted\n{said}{}",
                self.journal("-n 20")?
            )),
        }
    }

    fn wait_for(&self, state: &str, code: &str, restarts: &str) -> Result<(), Fault> {
        let ended = wait("it does not end", || {
            Ok(self.expect(state, code, restarts).is_ok())
        });
        ended.or_else(|_| self.expect(state, code, restarts))
    }

    fn order(&self, number: u32, seconds: u32, bytes: u32) -> Result<(), Fault> {
        let body = format!("{{\"n\": {number}, \"seconds\": {seconds}, \"bytes\": {bytes}}}");
        self.post("orders", &body, &format!("order-{number}"))
    }

    /// Brings an event until it is kept.
    fn post(&self, dag: &str, body: &str, id: &str) -> Result<(), Fault> {
        let said = self.sh(&format!(
            "curl -sSf --retry 60 --retry-all-errors --retry-delay 1 -H 'Idempotency-Key: {id}' -d '{body}' \
             http://127.0.0.1:4700/hooks/{dag}/in"
        ))?;
        match said.contains("\"kept\":1") {
            true => Ok(()),
            false => Err(format!("{dag}: {body} is not kept: {said}")),
        }
    }

    fn wait_for_done(&self, dag: &str, wanted: u64) -> Result<(), Fault> {
        let ps = format!("{} --json", self.guide(1)?);
        let done = wait("not all is done", || {
            let said = self.sh(&ps).unwrap_or_default();
            let runs = said
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok(runs
                .filter(|run| run["dag"] == dag)
                .any(|run| run["done"] == wanted && run["in_flight"] == 0))
        });
        done.map_err(|fault| {
            let said = self.journal("-n 15").unwrap_or_default();
            format!("{dag}: {fault}\n{said}")
        })
    }
}

/// The folder that the machine has as the top of the repository.
fn lay_out(folder: &Path, binary: &Path) -> Result<(), Fault> {
    let root = workspace::root();
    let binary = root.join(binary);
    if !binary.is_file() {
        let shown = binary.display();
        return Err(format!(
            "{shown} is not there: build it, `cargo build --release`, or name another, --binary FILE"
        ));
    }
    let copy = |from: &Path, to: &str| {
        let to = folder.join(to);
        let made = to.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::copy(from, &to).map(drop))
            .map_err(|error| format!("{}: {error}", from.display()))
    };
    let unit = "deploy/systemd/evermill.service";
    copy(&binary, "target/release/evermill")?;
    copy(&root.join(unit), unit)?;
    let texts = [
        ("Containerfile", MACHINE),
        ("flows.py", FLOWS),
        ("shell.yaml", SHELL),
    ];
    texts.into_iter().try_for_each(|(name, text)| {
        fs::write(folder.join(name), text).map_err(|error| format!("{name}: {error}"))
    })
}
