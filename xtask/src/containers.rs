//! Containers for verbs that run one through a life: what starts them, and the stages that follow each other.

use std::path::PathBuf;
use std::process::{self, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::steps::Steps;
use crate::workspace::{self, Fault};

/// How long something may take that is waited for: an image's health is asked every 15 s.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(120);

/// What builds and runs images; docker and podman take the same commands.
pub(crate) struct Tool {
    program: PathBuf,
    pub(crate) is_podman: bool,
}

impl Tool {
    /// The first that works: docker's command may be there without what it speaks to.
    pub(crate) fn find(names: &[&str]) -> Result<Self, Fault> {
        let mut faults = Vec::new();
        for name in names {
            let Some(program) = workspace::find_program(name) else {
                faults.push(format!("`{name}` is not on the PATH"));
                continue;
            };
            let is_podman = *name == "podman";
            let tool = Self { program, is_podman };
            match workspace::output(&mut tool.command(["ps"])) {
                Ok(_) => return Ok(tool),
                Err(fault) => faults.push(fault),
            }
        }
        Err(format!(
            "this needs {}, such as by `apt-get install podman`:\n{}",
            names.join(" or "),
            faults.join("\n")
        ))
    }

    pub(crate) fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        command
    }
}

/// A container and a volume of its name; both go with this.
pub(crate) struct Container {
    pub(crate) tool: Tool,
    pub(crate) image: String,
    pub(crate) name: String,
}

impl Container {
    /// Names it; nothing is started.
    pub(crate) fn new(tool: Tool, image: String, verb: &str) -> Self {
        let name = format!("evermill-{verb}-{}", process::id());
        Self { tool, image, name }
    }

    /// A command of docker's or podman's, however it ended.
    pub(crate) fn ended<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Result<Output, Fault> {
        let output = self.tool.command(arguments).output();
        output.map_err(|error| format!("{}: {error}", self.tool.program.display()))
    }

    /// What a command says that ends well.
    pub(crate) fn output<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Result<String, Fault> {
        workspace::output(&mut self.tool.command(arguments))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.ended(["rm", "--force", &self.name]));
        drop(self.ended(["volume", "rm", "--force", &self.name]));
    }
}

/// One stage of a life.
pub(crate) type Stage<L> = (&'static str, fn(&L) -> Result<(), Fault>);

/// Takes a life through its stages and closes with the table; those behind one that failed are left out.
pub(crate) fn live<L>(
    mut steps: Steps,
    mut life: Option<L>,
    stages: &[Stage<L>],
) -> Result<(), Fault> {
    for (name, stage) in stages {
        match &life {
            None => steps.leave_out(name, "what comes before it failed"),
            Some(lives) => {
                if steps.take(name, || stage(lives)).is_none() {
                    life = None;
                }
            }
        }
    }
    steps.close()
}

/// Asks until it is so.
pub(crate) fn wait(
    what: &str,
    mut is_so: impl FnMut() -> Result<bool, Fault>,
) -> Result<(), Fault> {
    let deadline = Instant::now() + WAIT_MAX;
    while !is_so()? {
        if Instant::now() > deadline {
            return Err(format!("{what} after {} s", WAIT_MAX.as_secs()));
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
