//! The programs that the tests need and cargo does not bring: found, or asked for with the cure.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::workspace::{self, Fault};

/// A program and the Debian package that brings it.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

pub(crate) const JAVA: Program = Program {
    name: "java",
    package: "default-jdk-headless",
};
pub(crate) const KEYTOOL: Program = Program {
    name: "keytool",
    package: "default-jdk-headless",
};
pub(crate) const MAVEN: Program = Program {
    name: "mvn",
    package: "maven",
};
pub(crate) const PYTHON: Program = Program {
    name: "python3",
    package: "python3 python3-venv",
};

/// The program's path. On a CI machine a missing one is installed; on a person's machine that is
/// not ours to do, so the fault says what to type. Never passed over in silence.
pub(crate) fn require(program: &Program) -> Result<PathBuf, Fault> {
    if let Some(path) = workspace::find_program(program.name) {
        return Ok(path);
    }
    if env::var_os("CI").is_some() && workspace::find_program("apt-get").is_some() {
        install(program)?;
    }
    workspace::find_program(program.name).ok_or_else(|| {
        let Program { name, package } = program;
        format!("`{name}` is not on the PATH, and the tests need it: `apt-get install {package}`")
    })
}

fn install(program: &Program) -> Result<(), Fault> {
    println!("installing {} for `{}`", program.package, program.name);
    workspace::output(Command::new("apt-get").args(["update", "-q"]))?;
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["install", "-q", "-y", "--no-install-recommends"]);
    command.args(program.package.split(' '));
    workspace::output(&mut command).map(drop)
}
