//! Connections and secrets: kept sealed, given to those who declare them, and seen nowhere else.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;

use crate::process::{Ended, Place, Running};

pub(crate) const CANARY: &str = "canary-7f3a/9b & more";

/// Runs a command with this on its standard input.
pub(crate) fn feed(place: &Place, arguments: &[&str], input: &str) -> (i32, String) {
    let mut command: Command = place.evermill(arguments);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("evermill starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it is read");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("no signal"), stderr)
}

pub(crate) fn set(place: &Place, name: &str, value: &str) {
    let (code, stderr) = feed(place, &["secrets", "set", name], value);
    assert_eq!(code, 0, "{stderr}");
    assert!(!stderr.contains(value), "{stderr}");
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len())
        .any(|window| window == part.as_bytes())
}

/// Every file below a folder in which the canary can be read, in any form that tasks gave it.
pub(crate) fn leaks(folder: &Path) -> Vec<String> {
    let encoded = STANDARD.encode(CANARY);
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let forms = [CANARY, "canary-7f3a%2F9b", &encoded[..16], &hex];
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            found.extend(leaks(&path));
        } else if let Ok(text) = std::fs::read(&path) {
            let forms = forms.iter().filter(|form| contains(&text, form));
            found.extend(forms.map(|form| format!("{}: {form}", path.display())));
        }
    }
    found
}

const TELLTALE: &str = r#"
import base64, logging, os, subprocess, sys, urllib.parse

import evermill


@evermill.task(secrets=["api_key"], connections=["shop"], timeout=60)
def tell(ctx):
    key = ctx.secret("api_key")
    assert ctx.connection("shop").password == key
    print("printed", key)
    sys.stderr.write(f"standard error {key}\n")
    logging.warning("logged %s", key)
    ctx.progress({"progress": key})
    os.write(2, f"descriptor {key}\n".encode())
    subprocess.run(["sh", "-c", "echo child $KEY; printf %s \"$KEY\" | head -c 9; sleep 0.05; printf '%s\\n' \"$KEY\" | tail -c +10"],
                   env={**os.environ, "KEY": key}, check=True)
    print("header", base64.b64encode(f"ada:{key}".encode()).decode())
    print("hex", key.encode().hex())
    os.environ["STOLEN"] = key
    print(dict(os.environ))
    url = "https://h/?q=" + urllib.parse.quote(key, safe="")
    try:
        raise ValueError(repr({"key": key}))
    except ValueError as why:
        raise RuntimeError(f"cannot reach {url}") from why


@evermill.dag
def telltale():
    tell()
"#;

/// S10.
#[test]
fn k08_a_secret_is_in_no_log_no_error_no_view_and_no_file() {
    let place = Place::new();
    set(&place, "api_key", &format!("{CANARY}\n"));
    let (code, stderr) = feed(
        &place,
        &["connections", "set", "shop"],
        "postgresql://ada:secret:api_key@127.0.0.1:1/shop\n",
    );
    assert_eq!(code, 0, "{stderr}");
    place.file("dag.py", TELLTALE);
    let ended = place.finish(["run", "dag.py", "--json", "--until-idle", "100ms"]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let mut seen = vec![("run", ended)];
    for arguments in [
        &["parked", "ls"][..],
        &["parked", "ls", "--json"],
        &["parked", "export"],
        &["show", "telltale"],
        &["show", "telltale", "--json"],
        &["show", "telltale", "--recent", "--json"],
        &["logs", "telltale"],
        &["ps", "--json"],
        &["config", "show"],
        &["config", "show", "--json"],
        &["secrets", "ls", "--json"],
        &["connections", "ls", "--json"],
    ] {
        seen.push((arguments[0], place.finish(arguments)));
    }
    for (what, Ended { stdout, stderr, .. }) in &seen {
        for text in [stdout, stderr] {
            let leaked = text.contains("canary") || text.contains(&STANDARD.encode(CANARY)[..12]);
            assert!(!leaked, "{what}: {text}");
        }
    }
    // All of it came through, with stars in place of the secret.
    let said = &seen[0].1.stderr;
    for line in [
        "printed ***",
        "standard error ***",
        "logged ***",
        "descriptor ***",
        "child ***",
        "header ",
        "hex ***",
        "'STOLEN': '***'",
        "\"progress\":\"***\"",
    ] {
        assert!(said.contains(line), "{line} in\n{said}");
    }
    let parked = &seen[2].1.stdout;
    assert!(parked.contains("https://h/?q=***"), "{parked}");
    assert_eq!(leaks(place.folder()), Vec::<String>::new());
}

/// S09.
#[test]
fn a_task_gets_what_it_declares_and_nothing_else() {
    let place = Place::new();
    set(&place, "api_key", CANARY);
    place.file(
        "dag.py",
        r#"
import os

import evermill


@evermill.task
def greedy(ctx):
    print("secrets in the environment:", [name for name in os.environ if name.startswith(("EVERMILL_CONNECTION_", "EVERMILL_SECRET_"))])
    ctx.secret("api_key")


@evermill.dag
def flow():
    greedy()
"#,
    );
    let mut command = place.evermill(["run", "dag.py", "--until-idle", "100ms"]);
    command.env("EVERMILL_CONNECTION_SHOP", "https://ada:tulips@h");
    let ended = Running::start(&mut command).end();
    assert_eq!(ended.code(), 1);
    let said = &ended.stderr;
    assert!(said.contains("secrets in the environment: []"), "{said}");
    let parked = place.finish(["parked", "ls", "--json"]).stdout;
    let why = "task 'greedy' does not declare the secret 'api_key', so it does not get it";
    assert!(parked.contains(why), "{parked}");
}

/// S09.
#[test]
fn a_command_finds_what_it_declares_in_its_environment() {
    let place = Place::new();
    set(&place, "api-key", CANARY);
    place.file(
        "flow.yaml",
        "dag: flow\nconnections: [shop]\ntasks:\n  \
         with: { secrets: [api-key], run: 'printf %s \"$EVERMILL_SECRET_API_KEY\" | wc -c; echo \"$EVERMILL_CONNECTION_SHOP\" >&2' }\n  \
         without: { run: 'env | grep -c EVERMILL_SECRET_; true' }\n",
    );
    let mut command = place.evermill(["test", "flow.yaml", "--json"]);
    command.env("EVERMILL_CONNECTION_SHOP", "https://ada:tulips-in-may@h");
    command.env("EVERMILL_SECRET_OTHER", "x");
    let ended = Running::start(&mut command).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let tasks = ended.json().remove(0)["tasks"].clone();
    let result = |task: usize| tasks[task]["xcoms"]["return_value"].clone();
    assert_eq!(result(0), CANARY.len(), "{tasks}");
    assert_eq!(result(1), 0, "{tasks}");
    assert!(
        ended.stderr.contains("https://ada:***@h"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_secret_that_is_set_anew_counts_from_the_next_time_on() {
    let place = Place::new();
    set(&place, "api_key", "first-value");
    place.file(
        "dag.py",
        r#"
import evermill


@evermill.task(secrets=["api_key"])
def measure(ctx):
    print("length", len(ctx.secret("api_key")))
    print("value", ctx.secret("api_key"))


@evermill.dag
def flow():
    evermill.signal("go") >> measure()
"#,
    );
    let running = Running::start(&mut place.evermill(["run", "dag.py"]));
    place.wait_until_ready();
    let signal = |id: &str| {
        let ended = place.finish(["signal", "flow", "go", id]);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
    };
    signal("1");
    running.wait_for_lines("length 11", 1);
    set(&place, "api_key", "a second, longer value");
    signal("2");
    running.wait_for_lines("length 22", 1);
    running.wait_for_lines("value ***", 2);
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
}

/// S08: a running engine goes on with the new key, and whoever has the old one has nothing.
#[test]
fn a_new_key_takes_over_while_an_engine_runs() {
    let place = Place::new();
    set(&place, "api_key", CANARY);
    place.file(
        "dag.yaml",
        "dag: flow\nsources: { go: { signal: go } }\ntasks:\n  \
         measure: { after: [go], secrets: [api_key], run: \"printf %s \\\"$EVERMILL_SECRET_API_KEY\\\" | wc -c >&2\" }\n",
    );
    let running = Running::start(&mut place.evermill(["run", "dag.yaml"]));
    place.wait_until_ready();
    let key = place.data_dir().join("secret.key");
    let first = std::fs::read_to_string(&key).unwrap();
    let length = CANARY.len().to_string();
    for round in 1..=3 {
        let ended = place.finish(["secrets", "rotate"]);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert!(
            ended.stderr.starts_with("1 value is sealed"),
            "{}",
            ended.stderr
        );
        let ended = place.finish(["signal", "flow", "go", &round.to_string()]);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        running.wait_for_lines(&length, round);
    }
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
    let with_key = |key: &str, arguments: &[&str]| {
        let mut command = place.evermill(arguments);
        Running::start(command.env("EVERMILL_SECRET_KEY", key)).end()
    };
    let ended = with_key(first.trim(), &["run", "dag.yaml"]);
    assert_eq!(ended.code(), 2);
    assert!(
        ended.stderr.contains("sealed with the key"),
        "{}",
        ended.stderr
    );
    // A key in the environment is its owner's to change.
    let now = std::fs::read_to_string(&key).unwrap();
    let ended = with_key(now.trim(), &["secrets", "rotate"]);
    assert_eq!(ended.code(), 2);
    assert!(ended.stderr.contains("--to FILE"), "{}", ended.stderr);
    let file = place.folder().join("new.key");
    let ended = with_key(
        now.trim(),
        &["secrets", "rotate", "--to", file.to_str().unwrap()],
    );
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let mut command = place.evermill(["run", "dag.yaml"]);
    command.env("EVERMILL_SECRET_KEY", format!("file:{}", file.display()));
    let running = Running::start(&mut command);
    place.wait_until_ready();
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
    assert_eq!(leaks(place.folder()), Vec::<String>::new());
    let ended = place.finish(["audit"]);
    assert_eq!(
        ended.stdout.matches("secrets rotate").count(),
        4,
        "{}",
        ended.stdout
    );
}

#[test]
fn what_is_missing_is_said_before_anything_starts() {
    let place = Place::new();
    let text = "import evermill\n\n@evermill.task(secrets=['api_key'], connections=['shop'])\ndef f(ctx): ...\n\n@evermill.dag\ndef flow():\n    f()\n";
    place.file("dag.py", text);
    let ended = place.finish(["run", "dag.py"]);
    assert_eq!(ended.code(), 2);
    assert!(
        ended.stderr.contains("needs the connection 'shop'"),
        "{}",
        ended.stderr
    );
    let ended = place.finish(["run", "dag.py", "--connection", "shop=h:1"]);
    assert_eq!(ended.code(), 2);
    let cure = "needs the secret 'api_key', which nobody has set; set it by `evermill secrets set api_key`";
    assert!(ended.stderr.contains(cure), "{}", ended.stderr);
    let ended = place.finish([
        "run",
        "dag.py",
        "--connection",
        "shop=https://h?token=secret:nobody",
    ]);
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
}

/// S08.
#[test]
fn a_key_that_is_another_or_gone_is_said_with_its_cure() {
    let place = Place::new();
    set(&place, "api_key", CANARY);
    let with_key = |key: &str| {
        let mut command = place.evermill(["run", "nothing.py"]);
        Running::start(command.env("EVERMILL_SECRET_KEY", key)).end()
    };
    place.file(
        "nothing.py",
        "import evermill\n\n@evermill.task\ndef f(): ...\n\n@evermill.dag\ndef flow():\n    f()\n",
    );
    let ended = with_key("not a key");
    assert_eq!(ended.code(), 2);
    assert!(
        ended.stderr.contains("32 bytes in base64"),
        "{}",
        ended.stderr
    );
    let ended = with_key(&STANDARD.encode([7; 32]));
    assert_eq!(ended.code(), 2);
    assert!(
        ended.stderr.contains("were sealed with the key"),
        "{}",
        ended.stderr
    );
    let file = place.data_dir().join("secret.key");
    let key = std::fs::read_to_string(&file).unwrap();
    let elsewhere = place.file("elsewhere.key", &key);
    std::fs::remove_file(&file).unwrap();
    let ended = place.finish(["run", "nothing.py"]);
    assert_eq!(ended.code(), 2);
    assert!(
        ended.stderr.contains("the key of the secrets in"),
        "{}",
        ended.stderr
    );
    // A file that others can read is no place for a key.
    let named = format!("file:{}", elsewhere.display());
    assert!(with_key(&named).stderr.contains("chmod 600"));
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&elsewhere, std::fs::Permissions::from_mode(0o600)).unwrap();
    let ended = with_key(&named);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
}

/// S09.
#[test]
fn connections_are_kept_listed_tried_and_forgotten() {
    let place = Place::new();
    let (code, stderr) = feed(
        &place,
        &["connections", "set", "kafka", "ada:tulips@h:1"],
        "",
    );
    assert_eq!(code, 2);
    assert!(
        stderr.contains("seen by everybody") && !stderr.contains("tulips"),
        "{stderr}"
    );
    assert!(
        stderr.contains("connections set kafka_default ada:secret:NAME@h:1"),
        "{stderr}"
    );
    let kept = place.finish(["connections", "set", "kafka", "h:1?sasl.password=secret:pw"]);
    assert_eq!(kept.code(), 0, "{}", kept.stderr);
    let mut listed = place.evermill(["connections", "ls", "--json"]);
    listed.env("EVERMILL_CONNECTION_HTTP", "https://ada:tulips@h");
    let listed = Running::start(&mut listed).end().json();
    assert_eq!(
        listed,
        [
            serde_json::json!({"id": "http_default", "address": "https://ada:***@h", "from": "$EVERMILL_CONNECTION_HTTP"}),
            serde_json::json!({"id": "kafka_default", "address": "h:1?sasl.password=secret:pw", "from": "connections set"}),
        ]
    );
    let shown = place.finish(["config", "show"]).stdout;
    assert!(shown.contains("connections.kafka_default"), "{shown}");
    // Its secret is not there yet.
    let tried = place.finish(["connections", "test", "kafka"]);
    assert_eq!(tried.code(), 2);
    assert!(
        tried.stderr.contains("there is no secret 'pw'"),
        "{}",
        tried.stderr
    );
    let gone = place.finish(["connections", "rm", "kafka"]);
    assert_eq!(gone.code(), 0, "{}", gone.stderr);
    let gone = place.finish(["connections", "rm", "kafka"]);
    assert_eq!(gone.code(), 2);

    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = format!("shop=postgresql://ada:tulips@127.0.0.1:{port}/shop");
    let tried = place.finish(["connections", "test", "shop", "--connection", &address]);
    assert_eq!(tried.code(), 0, "{}", tried.stderr);
    assert!(
        tried.stdout.contains("takes connections"),
        "{}",
        tried.stdout
    );
    drop(listener);
    let tried = place.finish(["connections", "test", "shop", "--connection", &address]);
    assert_eq!(tried.code(), 5, "{}", tried.stdout);
    assert!(!tried.stderr.contains("tulips"), "{}", tried.stderr);
}

/// Root looks after the engine of another user: that one must be able to open what is written. Who is not
/// root can give nothing away, and then all is his own.
#[test]
fn what_root_writes_into_a_data_directory_belongs_to_whom_it_belongs() {
    let place = Place::new();
    let data_dir = place.data_dir();
    std::fs::create_dir(&data_dir).unwrap();
    std::fs::set_permissions(&data_dir, Permissions::from_mode(0o700)).unwrap();
    let owner = match rustix::process::geteuid().is_root() {
        true => 65_534,
        false => std::fs::metadata(&data_dir).unwrap().uid(),
    };
    chown(&data_dir, Some(owner), None).unwrap();
    let belong = |after: &[&str]| {
        let files = std::fs::read_dir(&data_dir).unwrap();
        for file in files.map(Result::unwrap) {
            let found = file.metadata().unwrap();
            assert_eq!(found.uid(), owner, "{:?} after {after:?}", file.path());
        }
    };
    set(&place, "api_key", CANARY);
    belong(&["secrets", "set"]);
    let key = data_dir.join("secret.key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o400)).unwrap();
    for arguments in [
        &["secrets", "rotate"][..],
        &["secrets", "rotate"],
        &["token", "create", "ada"],
        &["ps"],
        &["audit"],
    ] {
        let ended = place.finish(arguments);
        assert_eq!(ended.code(), 0, "{arguments:?}: {}", ended.stderr);
        belong(arguments);
    }
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o400, "as the one that it replaces");
}

/// A link in a folder of somebody else is no reason to give away what it leads to.
#[test]
fn root_gives_nothing_away_that_a_link_leads_to() {
    let place = Place::new();
    let data_dir = place.data_dir();
    std::fs::create_dir(&data_dir).unwrap();
    let ours = place.file("ours", "");
    let before = std::fs::metadata(&ours).unwrap().uid();
    std::os::unix::fs::symlink(&ours, data_dir.join("lock")).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(&data_dir, Some(65_534), None).unwrap();
    }
    let ended = place.finish(["ps"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(std::fs::metadata(&ours).unwrap().uid(), before);
}
