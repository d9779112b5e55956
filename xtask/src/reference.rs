//! `cargo xtask reference`: writes docs/reference/ from what the code says of itself. The writer is the
//! test that compares, `reference` of the crate evermill, told to write.

use crate::python_env::{Packages, PythonEnv};
use crate::workspace::{self, Fault};

/// Writes the pages; they differ from the repository's where the code has changed.
pub(crate) fn run() -> Result<(), Fault> {
    let python = PythonEnv::ensure(&[Packages::Test])?;
    let mut command = workspace::cargo();
    command.args([
        "test",
        "--package",
        "evermill",
        "--test",
        "it",
        "--",
        "reference::",
    ]);
    command.env("EVERMILL_WRITE_EXPECTED", "1");
    command.env("EVERMILL_TEST_PYTHON", python.python());
    workspace::run(&mut command)
}
