//! The programs that the tests need and cargo does not bring: found, or asked for with the cure.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use crate::workspace::{self, Fault};

/// A program and the Debian package that brings it.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// Where Debian puts it when that is not on the PATH: the folder above a folder for each version.
    pub(crate) versions: Option<&'static str>,
}

pub(crate) const JAVA: Program = Program {
    name: "java",
    package: "default-jdk-headless",
    versions: None,
};
pub(crate) const KEYTOOL: Program = Program {
    name: "keytool",
    package: "default-jdk-headless",
    versions: None,
};
pub(crate) const MAVEN: Program = Program {
    name: "mvn",
    package: "maven",
    versions: None,
};
pub(crate) const PYTHON: Program = Program {
    name: "python3",
    package: "python3 python3-venv",
    versions: None,
};
pub(crate) const NODE: Program = Program {
    name: "node",
    package: "nodejs",
    versions: None,
};
pub(crate) const NPM: Program = Program {
    name: "npm",
    package: "npm",
    versions: None,
};
pub(crate) const CHROMIUM: Program = Program {
    name: "chromium",
    package: "chromium",
    versions: None,
};
pub(crate) const POSTGRES: Program = Program {
    name: "initdb",
    package: "postgresql",
    versions: Some("/usr/lib/postgresql"),
};

pub(crate) const PROMTOOL: Program = Program {
    name: "promtool",
    package: "prometheus",
    versions: None,
};

pub(crate) const SYSTEMD_ANALYZE: Program = Program {
    name: "systemd-analyze",
    package: "systemd",
    versions: None,
};

/// The program's path. On a CI machine a missing one is installed; on a person's machine that is
/// not ours to do, so the fault says what to type. Never passed over in silence.
pub(crate) fn require(program: &Program) -> Result<PathBuf, Fault> {
    if let Some(path) = find(program) {
        return Ok(path);
    }
    if env::var_os("CI").is_some() && workspace::find_program("apt-get").is_some() {
        install(program)?;
    }
    find(program).ok_or_else(|| {
        let Program { name, package, .. } = program;
        format!("`{name}` is not on the PATH, and this needs it: `apt-get install {package}`")
    })
}

/// The newest version, where several are there.
fn find(program: &Program) -> Option<PathBuf> {
    let of_versions = || {
        let folders = fs::read_dir(program.versions?).ok()?.flatten();
        let found = folders.filter_map(|folder| {
            let version: u32 = folder.file_name().to_str()?.parse().ok()?;
            let path = folder.path().join("bin").join(program.name);
            path.is_file().then_some((version, path))
        });
        found.max().map(|(_, path)| path)
    };
    workspace::find_program(program.name).or_else(of_versions)
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
