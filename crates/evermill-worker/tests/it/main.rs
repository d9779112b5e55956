//! The pool against real Python. The interpreter is `EVERMILL_TEST_PYTHON`, else `python3`.
#![expect(clippy::print_stderr, reason = "a test that fails shows what it saw")]

mod company;
mod death;
mod flow;
mod hostile;
mod native;
mod rig;
mod shell;
mod surroundings;
