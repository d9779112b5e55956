//! What the engine says on standard error: one JSON object a line, sentences for journald, and the least that is
//! said.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::linux::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;

use evermill_http::testing::{Reply, Server};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Place, Running, eventually};
use crate::secrets::set;

const JSON: [&str; 2] = ["--log-format", "json"];

/// Every field that `docs/guide/logging.md` names.
const FIELDS: [&str; 14] = [
    "time", "level", "message", "dag", "run", "source", "lane", "task", "position", "try",
    "worker", "stream", "file", "part",
];

/// The objects of standard error; nothing else may stand there.
fn objects<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Value> {
    let object = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        for (name, field) in value.as_object().unwrap() {
            assert!(FIELDS.contains(&name.as_str()), "{line}");
            assert!(!field.is_null(), "{line}");
        }
        let time = value["time"].as_str().unwrap();
        assert_eq!(
            (time.len(), &time[19..20], &time[23..]),
            (24, ".", "Z"),
            "{line}"
        );
        assert!(value["level"].is_string() && value["message"].is_string());
        value
    };
    lines.map(object).collect()
}

/// The one whose message contains this.
fn with<'a>(objects: &'a [Value], part: &str) -> &'a Value {
    let has = |object: &&Value| object["message"].as_str().unwrap().contains(part);
    let found = objects.iter().find(has);
    found.unwrap_or_else(|| panic!("no {part} in {objects:#?}"))
}

fn said<'a>(object: &'a Value, names: &[&str]) -> Vec<&'a str> {
    let text = |name: &&str| object[*name].as_str().unwrap_or("-");
    names.iter().map(text).collect()
}

const TALK: &str = r#"
import logging, os, sys
import evermill

@evermill.task(secrets=["key"])
def says(ctx):
    print("plain", ctx.secret("key"))
    print("first\nsecond")
    print("\x1b[31mred\x1b[0m \x07 \u2028 \"quoted\\ " + '{"level": "error"}')
    sys.stderr.write("to stderr\n")
    os.write(2, b"raw \xff\xfe\n")
    print("long " + "x" * 10_000)
    logging.getLogger("shop").warning("careful")
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("with %s", "its trace")

@evermill.task
def fails():
    raise ValueError("no such order")

@evermill.dag
def talk():
    says() >> fails()
"#;

#[test]
fn k08_what_tasks_print_is_one_object_a_line_whatever_it_is() {
    let place = Place::new();
    set(&place, "key", "canary-9f2c");
    let file = place.file("talk.py", TALK);
    let ended = place.finish(["run", file.to_str().unwrap(), JSON[0], JSON[1]]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(!ended.stderr.contains("canary") && !ended.stderr.contains('\u{1b}'));
    let all = objects(ended.stderr.lines());
    let plain = with(&all, "plain ***");
    let names = ["level", "dag", "run", "task", "lane", "stream"];
    let of_task = ["info", "talk", "talk-1", "says", "manual", "stdout"];
    assert_eq!(said(plain, &names), of_task);
    assert!(
        plain["position"].is_u64() && plain["worker"].is_u64(),
        "{plain}"
    );
    assert_eq!(plain["try"], 1);
    assert_eq!(with(&all, "first")["message"], "first");
    assert_eq!(with(&all, "second")["message"], "second");
    let odd = "\u{1b}[31mred\u{1b}[0m \u{7} \u{2028} \"quoted\\ {\"level\": \"error\"}";
    assert_eq!(with(&all, "red")["message"], odd);
    assert_eq!(with(&all, "to stderr")["stream"], "stderr");
    assert_eq!(
        said(with(&all, "raw"), &["message", "stream"]),
        ["raw \u{fffd}\u{fffd}", "fd"]
    );
    let long: Vec<&Value> = all.iter().filter(|it| it.get("part").is_some()).collect();
    let joined: String = long
        .iter()
        .filter_map(|it| it["message"].as_str())
        .collect();
    assert_eq!(joined, format!("long {}", "x".repeat(10_000)));
    assert!(long.iter().all(|it| it["task"] == "says"));
    assert_eq!(
        said(with(&all, "careful"), &["level", "stream"]),
        ["warning", "-"]
    );
    let trace = with(&all, "its trace");
    let text = trace["message"].as_str().unwrap();
    assert!(
        text.contains("\nZeroDivisionError: division by zero"),
        "{text}"
    );
    assert_eq!(trace["level"], "error");
    // The task that failed, and how the command ends.
    let parked = with(&all, "is parked");
    let names = ["level", "dag", "run", "task", "lane"];
    assert_eq!(
        said(parked, &names),
        ["warning", "talk", "talk-1", "fails", "manual"]
    );
    assert_eq!(
        (&parked["try"], &parked["position"]),
        (&1.into(), &plain["position"])
    );
    let last = all.last().unwrap();
    assert_eq!(
        said(last, &["level", "message"]),
        ["error", "talk: 1 parked after failure"]
    );
}

const POLLED: &str = "dag: watch\nsources: { model: { http: { endpoint: /model, poke_interval: 50ms } } }\ntasks:\n  note: { after: [model], run: \"cat > /dev/null\" }\n";

#[test]
fn a_source_that_degrades_and_mends_is_named_with_its_dag_and_run() {
    let well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = std::sync::Arc::clone(&well);
    let server = Server::start(move |_| {
        let well = asked.load(std::sync::atomic::Ordering::SeqCst);
        Reply::new(if well { 404 } else { 503 }, "{}")
    });
    let place = Place::new();
    let file = place.file("watch.yaml", POLLED);
    let connection = format!("--connection=http={}", server.url());
    let arguments = ["run", file.to_str().unwrap(), &connection, JSON[0], JSON[1]];
    let running = Running::start(&mut place.evermill(arguments));
    running.wait_for_lines("503", 1);
    well.store(true, std::sync::atomic::Ordering::SeqCst);
    running.wait_for_lines("all is well again", 1);
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let all = objects(ended.stderr.lines());
    let names = ["level", "dag", "run", "source"];
    assert_eq!(
        said(with(&all, "503"), &names),
        ["warning", "watch", "watch-1", "model"]
    );
    let back = with(&all, "all is well again");
    assert_eq!(said(back, &names), ["info", "watch", "watch-1", "model"]);
    assert_eq!(with(&all, "watch drained")["level"], "info");
}

fn yaml(word: &str) -> String {
    format!(
        "dag: orders\nsources: {{ go: {{ signal: go }} }}\ntasks:\n  note: {{ after: [go], run: \"echo {word}\" }}\n"
    )
}

#[test]
fn a_swap_a_broken_file_and_a_dag_that_goes_say_which_they_are() {
    let place = Place::new();
    let file = Path::new("dags/orders.yaml");
    let put = |text: &str| std::fs::write(place.folder().join(file), text).unwrap();
    std::fs::create_dir(place.folder().join("dags")).unwrap();
    put(&yaml("one"));
    let arguments = ["serve", "--listen", "127.0.0.1:0", JSON[0], JSON[1]];
    let running = Running::start(&mut place.evermill(arguments));
    running.wait_for_lines("orders is on", 1);
    put(&yaml("two"));
    running.wait_for_lines("goes over to version", 1);
    put("dag: orders\ntasks: 7\n");
    running.wait_for_lines("is in error", 1);
    std::fs::remove_file(place.folder().join(file)).unwrap();
    running.wait_for_lines("is retired", 1);
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let all = objects(ended.stderr.lines());
    let file = file.to_str().unwrap();
    let names = ["level", "dag", "run", "file"];
    assert_eq!(
        said(with(&all, "goes over to version"), &names),
        ["info", "orders", "orders-1", file]
    );
    assert_eq!(
        said(with(&all, "is in error"), &names),
        ["error", "-", "-", file]
    );
    assert_eq!(
        said(with(&all, "is retired"), &names),
        ["info", "orders", "orders-1", "-"]
    );
}

#[test]
fn what_ends_a_command_is_an_object_too_even_where_the_settings_are_wrong() {
    let place = Place::new();
    let broken = place.file("broken.py", "import nothing_of_that_name\n");
    let broken = broken.to_str().unwrap();
    let ended = place.finish(["run", broken, JSON[0], JSON[1]]);
    assert_eq!(ended.code(), 3);
    let all = objects(ended.stderr.lines());
    assert!(
        all[0]["message"]
            .as_str()
            .unwrap()
            .contains("nothing_of_that_name"),
        "{all:?}"
    );
    place.file("evermill.toml", "retain = 'much'\n");
    let mut command = place.evermill(["run", broken]);
    let ended = Running::start(command.env("EVERMILL_LOG_FORMAT", "json")).end();
    assert_eq!(ended.code(), 2);
    assert_eq!(objects(ended.stderr.lines()).len(), 1);
    place.file("evermill.toml", "log_format = 'json'\n");
    let ended = place.finish(["run", broken]);
    assert_eq!((ended.code(), objects(ended.stderr.lines()).len()), (3, 1));
    for (arguments, said) in [
        (
            ["--log-format", "xml"],
            "log_format = xml (--log-format): want text or json",
        ),
        (
            ["--log-level", "loud"],
            "log_level = loud (--log-level): want debug, info, warning or error",
        ),
    ] {
        let ended = place.finish(["run", broken, arguments[0], arguments[1]]);
        assert_eq!(ended.code(), 2);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
}

#[test]
fn what_is_less_grave_than_the_level_is_not_said() {
    let text = "import logging, evermill\n\n@evermill.task\ndef says():\n    print('plain')\n    logging.error('bad')\n\n@evermill.dag\ndef talk():\n    says()\n";
    for format in ["text", "json"] {
        let place = Place::new();
        let file = place.file("talk.py", text);
        let wanted = ["--log-level", "error", "--log-format", format];
        let run = ["run", file.to_str().unwrap()];
        let ended = place.finish(run.iter().chain(&wanted));
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("bad"), "{}", ended.stderr);
        // What is not said is kept all the same.
        let kept = place.finish(["logs", "talk", "--all"]);
        assert!(kept.stdout.contains("plain"), "{}", kept.stdout);
    }
}

/// The command with its standard error at the end of a file.
fn appending(place: &Place, log: &Path, arguments: &[&str]) -> std::process::Command {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(log)
        .unwrap();
    let mut command = place.evermill(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    command
}

#[test]
fn who_is_killed_while_it_speaks_leaves_no_half_line_in_front_of_another() {
    let place = Place::new();
    let talk = "dag: talk\nsources: { go: { every: 20ms } }\ntasks:\n  say: { after: [go], run: \"seq 1000 1400 >&2\" }\n";
    let file = place.file("talk.yaml", talk);
    let log = place.folder().join("engine.log");
    std::fs::write(&log, "{\"time\":\"2026-01-01T00:0").unwrap();
    let arguments = ["run", file.to_str().unwrap(), JSON[0], JSON[1]];
    let length = || std::fs::metadata(&log).unwrap().len();
    for _ in 0..3 {
        let before = length();
        let mut child = appending(&place, &log, &arguments).spawn().unwrap();
        eventually("it speaks", || (length() > before + 60_000).then_some(()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let text = std::fs::read_to_string(&log).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("{\"time\":\"2026-01-01T00:0"));
    let mut by_message = BTreeMap::<String, u32>::new();
    for object in objects(lines) {
        *by_message.entry(object["message"].to_string()).or_default() += 1;
    }
    assert!(by_message.len() >= 401, "{}", by_message.len());
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_no_event_and_what_was_printed_is_kept() {
    let place = Place::new();
    let text = "import evermill\n\n@evermill.task\ndef says():\n    for i in range(20):\n        print('#' * 9_000)\n\n@evermill.task\ndef then():\n    print('the end')\n\n@evermill.dag\ndef talk():\n    says() >> then()\n";
    let file = place.file("talk.py", text);
    let mut command = place.evermill(["run", file.to_str().unwrap(), "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _nobody_reads = child.stderr.take();
    let status = eventually("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let kept = place.finish(["logs", "talk"]);
    assert_eq!(kept.stdout.matches('#').count(), 20 * 9_000);
    assert!(kept.stdout.contains("the end"));
}

#[test]
fn journald_hears_how_grave_each_line_is_and_nobody_else_does() {
    let place = Place::new();
    let text = "import logging, evermill\n\n@evermill.task\ndef says():\n    print('plain')\n    logging.warning('careful')\n    raise ValueError('two\\nlines')\n\n@evermill.dag\ndef talk():\n    says()\n";
    let file = place.file("talk.py", text);
    let arguments = ["run", file.to_str().unwrap()];
    let log = place.folder().join("journal");
    File::create(&log).unwrap().write_all(b"").unwrap();
    let own = std::fs::metadata(&log).unwrap();
    for (inode, is_journal) in [(own.st_ino(), true), (own.st_ino() + 1, false)] {
        std::fs::write(&log, "").unwrap();
        let mut command = appending(&place, &log, &arguments);
        command.env("JOURNAL_STREAM", format!("{}:{inode}", own.st_dev()));
        let status = command.spawn().unwrap().wait().unwrap();
        assert_eq!(status.code(), Some(1));
        let text = std::fs::read_to_string(&log).unwrap();
        let count = |priority: &str, part: &str| {
            let lines = text.lines().filter(|line| line.starts_with(priority));
            lines.filter(|line| line.contains(part)).count()
        };
        if is_journal {
            assert!(
                text.lines()
                    .all(|line| line.starts_with('<') && line[2..].starts_with('>')),
                "{text}"
            );
            assert_eq!(count("<6>says", "plain"), 1, "{text}");
            assert_eq!(count("<4>says", "warning: root: careful"), 1, "{text}");
            assert_eq!(count("<4>warning: talk-1", "is parked"), 1, "{text}");
            assert_eq!(count("<3>error: talk", "parked after failure"), 1, "{text}");
        } else {
            assert_eq!(count("<", ""), 0, "{text}");
        }
        place.finish(["stop", "talk"]);
    }
}
