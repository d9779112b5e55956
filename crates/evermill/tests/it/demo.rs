//! `evermill demo`: it begins, ends and cleans up by itself, loses nothing and parks nothing, and
//! shows a picture to who looks.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::process::{Place, Running, eventually};

/// A demo whose temporary folder can be looked into afterwards.
fn demo(place: &Place, arguments: &[&str]) -> (Command, PathBuf) {
    let temporary = place.folder().join("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = place.evermill(["demo"].iter().chain(arguments));
    command.env("TMPDIR", &temporary);
    (command, temporary)
}

fn leftovers(folder: &PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn it_ends_by_itself_settles_every_order_parks_none_and_leaves_nothing_behind() {
    let place = Place::new();
    let (mut command, temporary) = demo(&place, &["--for", "3s", "--json"]);
    let ended = Running::start(&mut command).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let run = ended.only_run();
    let count = |field: &str| run[field].as_u64().unwrap();
    assert!(count("in") >= 100, "{run}");
    assert_eq!(count("in"), count("done"), "{run}");
    assert_eq!((count("parked"), count("in_flight")), (0, 0), "{run}");
    let tasks = run["tasks"].as_array().unwrap().iter();
    let ran: Vec<_> = tasks
        .map(|task| {
            (
                task["id"].as_str().unwrap(),
                task["succeeded"].as_u64().unwrap(),
            )
        })
        .collect();
    for (task, succeeded) in &ran {
        assert!(*succeeded > 0, "{task} never ran: {run}");
    }
    let of = |id: &str| ran.iter().find(|(task, _)| *task == id).unwrap().1;
    assert_eq!(of("courier") + of("post"), count("in"), "{run}");
    assert!(
        ended.stderr.contains("shop running: in "),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("demo --print > shop.py"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains('\u{1b}'), "{}", ended.stderr);
    assert_eq!(leftovers(&temporary), Vec::<PathBuf>::new());
}

#[test]
fn the_file_it_prints_runs_in_its_place() {
    let place = Place::new();
    let printed = place.finish(["demo", "--print"]).stdout;
    let counting = printed.replace("def shop(", "def mine(");
    assert_ne!(counting, printed);
    let file = place.file("mine.py", &counting);
    let (mut command, _) = demo(&place, &[file.to_str().unwrap(), "--for", "1s", "--json"]);
    let ended = Running::start(&mut command).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["dag"], "mine");
}

#[test]
fn a_fault_in_ones_own_file_is_said_as_check_says_it() {
    let place = Place::new();
    let file = place.file("mine.py", "import evermill\n\ndef oops(:\n");
    let ended = place.finish(["demo".as_ref(), file.as_os_str()]);
    assert_eq!(ended.code(), 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("[syntax_error]"), "{}", ended.stderr);
}

#[test]
fn on_a_terminal_it_draws_the_dag_and_a_signal_ends_it_with_the_terminal_as_it_was() {
    let place = Place::new();
    let (terminal, seat) = terminal();
    let before = rustix::termios::tcgetattr(&seat).unwrap();
    let (mut command, temporary) = demo(&place, &["--rate", "200"]);
    command
        .env("TERM", "xterm-256color")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut child = command.stderr(seat.try_clone().unwrap()).spawn().unwrap();
    let shown = Shown::listen(terminal);
    shown.wait_for("arrival to task");
    // Every node of the DAG, the source with its own sign.
    for part in ["◉", "orders", "charge", "courier", "thank", "/s"] {
        shown.wait_for(part);
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let status = eventually("the demo ends", || child.try_wait().unwrap());
    assert!(status.success(), "{status}: {}", shown.text());
    shown.wait_for("drained");
    shown.wait_for("Make it yours");
    let after = rustix::termios::tcgetattr(&seat).unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    // Neither a hidden cursor nor another screen, so that a kill leaves nothing to repair.
    let text = shown.text();
    assert!(!text.contains("[?25l") && !text.contains("[?1049h"));
    assert_eq!(leftovers(&temporary), Vec::<PathBuf>::new());
}

/// A terminal of 100 columns and 40 rows: our end, and the one a program sits at.
fn terminal() -> (OwnedFd, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let seat = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    let size = Winsize {
        ws_row: 40,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&seat, size).unwrap();
    (ours, seat)
}

/// What a terminal was sent so far.
struct Shown(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Shown {
    fn listen(terminal: OwnedFd) -> Self {
        let shown = Self(std::sync::Arc::default());
        let told = shown.0.clone();
        std::thread::spawn(move || {
            let mut terminal = File::from(terminal);
            let mut bytes = [0; 4096];
            // Ends with an error once nobody sits there any more.
            while let Ok(count @ 1..) = terminal.read(&mut bytes) {
                told.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        shown
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, text: &str) {
        eventually(&format!("{text:?} on the terminal"), || {
            self.text().contains(text).then_some(())
        });
    }
}
