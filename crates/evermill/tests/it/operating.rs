//! What operators do: the same on a running engine, on a stopped store, and after a kill.

mod full;
mod keeping;
mod looking;
mod parked;
mod replaying;
mod steering;
mod triggering;

use std::path::PathBuf;

use serde_json::Value;

use crate::mock::Mock;
use crate::process::{Ended, Place, Running};

/// Takes messages; fails on one that begins with `bad`.
const PICKY: &str = r#"
import evermill

@evermill.task
def look(event):
    if event.value.startswith(b"bad"):
        raise ValueError("no " + event.value.decode())
    print("saw", event.value.decode())

@evermill.task
def after(look):
    print("after")

@evermill.dag
def picky():
    after(look(evermill.kafka("t", auto_offset_reset="earliest")))
"#;

/// A DAG on a broker of its own.
struct Scene {
    place: Place,
    mock: Mock,
    file: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        let mock = Mock::start(&place);
        let file = place.file("picky.py", PICKY);
        Self { place, mock, file }
    }

    /// The engine, with every source ready.
    fn run(&self) -> Running {
        let running = self.start(&[]);
        self.place.wait_until_ready();
        running
    }

    fn start(&self, more: &[&str]) -> Running {
        let connection = self.mock.connection();
        let file = self.file.to_str().expect("UTF-8");
        let mut arguments = vec!["run", file, "--connection", &connection];
        arguments.extend(more);
        Running::start(&mut self.place.evermill(arguments))
    }

    fn wait_for(&self, field: &str, value: u64) -> Value {
        self.place.wait_for_run(|run| run[field] == value)
    }

    /// A command that goes well; what it prints.
    fn well(&self, arguments: &[&str]) -> String {
        let ended = self.place.finish(arguments);
        assert_eq!(ended.code(), 0, "{arguments:?}: {}", ended.stderr);
        ended.stdout
    }

    /// A command that does not.
    fn badly(&self, arguments: &[&str], code: i32) -> Ended {
        let ended = self.place.finish(arguments);
        assert_eq!(ended.code(), code, "{arguments:?}: {}", ended.stdout);
        ended
    }
}
