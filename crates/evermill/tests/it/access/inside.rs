//! What a task finds when it looks around: of the engine, nothing.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use rustix::process::Signal;

use crate::process::{Place, Running};

const NOSY: &str = r#"
import os

import evermill


def opened():
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            pass  # that of the listing itself
    return found


@evermill.task
def look():
    for number, place in sorted(opened().items()):
        print("OPEN", number, place)
    for name in os.environ:
        print("NAME", name)
    print("CANARY", any("canary" in value for value in os.environ.values()))
    with open(f"/proc/{os.getppid()}/environ", "rb") as file:
        print("CANARY", b"canary" in file.read())


@evermill.dag
def nosy():
    look()
"#;

const NOSY_COMMAND: &str = "dag: nosy\ntasks:\n  look:\n    run: \"{ for f in /proc/self/fd/*; do echo OPEN $(basename $f) $(readlink $f); done; env | sed 's/=.*//; s/^/NAME /'; if env | grep -q canary; then echo CANARY True; else echo CANARY False; fi; } >&2\"\n";

/// S09, S15: neither a function nor a command has a descriptor of the engine's, nor what its environment says of
/// secrets, keys and connections.
#[test]
fn a_task_that_looks_around_finds_nothing_of_the_engine() {
    // A function's worker has one socket, where it hears of its work; neither has the one that is listened on.
    for (file, text, sockets) in [("nosy.py", NOSY, 1), ("nosy.yaml", NOSY_COMMAND, 0)] {
        let place = Place::new();
        place.file(file, text);
        let mut command = place.evermill([
            "run",
            file,
            "--until-idle",
            "100ms",
            "--listen",
            "127.0.0.1:0",
        ]);
        command.env(
            "EVERMILL_CONNECTION_SHOP",
            "https://ada:canary-4b@h.example",
        );
        command.env("EVERMILL_SECRET_KEY", "file:/canary-4b/secret.key");
        let ended = Running::start(&mut command).end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let said = |word: &str| -> Vec<&str> {
            let lines = ended.stderr.lines();
            let lines = lines.filter_map(|line| line.split_once(word));
            lines.map(|(_, rest)| rest.trim()).collect()
        };
        let data = place.data_dir().display().to_string();
        let opened = said("OPEN ");
        assert!(opened.len() >= 3, "{}", ended.stderr);
        let count = opened.iter().filter(|one| one.contains("socket:")).count();
        assert_eq!(count, sockets, "{file}: {opened:?}");
        for one in opened {
            let (_, leads) = one.split_once(' ').unwrap_or((one, ""));
            let usual = [
                "pipe:",
                "socket:",
                "anon_inode:",
                "/memfd:",
                "/dev/",
                "/proc/",
            ];
            assert!(
                leads.is_empty() || usual.iter().any(|usual| leads.starts_with(usual)),
                "{file}: {one}"
            );
            assert!(!leads.contains(&data), "{file}: {one}");
        }
        let names = said("NAME ");
        assert!(names.contains(&"PATH"), "{names:?}");
        let ours = |name: &&&str| {
            let begins = ["EVERMILL_CONNECTION", "EVERMILL_SECRET"];
            begins.iter().any(|begin| name.starts_with(begin))
        };
        assert_eq!(names.iter().find(ours), None, "{file}");
        let canaries = said("CANARY ");
        assert!(
            !canaries.is_empty() && canaries.iter().all(|seen| *seen == "False"),
            "{canaries:?}"
        );
    }
}

/// S24: whatever limits it was started with, a crash of the engine writes no memory to the disk. Whoever may not
/// have a dump may not look into its memory and its environment either: it is one right.
#[test]
fn a_crash_of_the_engine_leaves_no_dump_of_its_memory() {
    let place = Place::new();
    std::fs::create_dir(place.folder().join("dags")).unwrap();
    let serve = place.evermill(["serve", "--workers", "1", "--listen", "127.0.0.1:0"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited && exec \"$@\"", "sh"]);
    command.arg(serve.get_program()).args(serve.get_args());
    command
        .current_dir(place.folder())
        .env("EVERMILL_DATA_DIR", place.data_dir());
    let running = Running::start(&mut command);
    running.wait_for_lines("serving", 1);
    running.signal(Signal::ABORT);
    let status = running.end().status;
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    assert!(!status.core_dumped());
}
