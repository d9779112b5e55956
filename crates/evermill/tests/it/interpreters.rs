//! `python=`: each DAG runs on the interpreter it asks for, in one engine.

use std::os::unix::fs::PermissionsExt as _;

use crate::process::Place;

const FLOW: &str = r#"
import evermill, os

@evermill.task
def which():
    print(f"NAME runs on {os.environ.get('WHICH', 'the usual one')}", flush=True)

@evermill.dag(OPTIONS)
def NAME():
    which()
"#;

#[test]
fn each_dag_runs_on_the_interpreter_that_it_asks_for() {
    let place = Place::new();
    let python = std::env::var("EVERMILL_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let other = place.file(
        "other-python",
        &format!("#!/bin/sh\nWHICH='another one' exec '{python}' \"$@\"\n"),
    );
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o700)).unwrap();
    let flow = |name: &str, options: &str| {
        let text = FLOW.replace("NAME", name).replace("OPTIONS", options);
        place.file(&format!("{name}.py"), &text)
    };
    let (first, second) = (
        flow("first", ""),
        flow("second", &format!("python={other:?}")),
    );
    let ended = place.finish(["run".as_ref(), first.as_os_str(), second.as_os_str()]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    for said in ["first runs on the usual one", "second runs on another one"] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
}

#[test]
fn an_interpreter_that_is_not_there_is_said_with_its_cure() {
    let place = Place::new();
    let text = FLOW
        .replace("NAME", "lost")
        .replace("OPTIONS", "python='/there/is/no/python'");
    let file = place.file("lost.py", &text);
    let mut command = place.evermill(["run".as_ref(), file.as_os_str()]);
    let running = crate::process::Running::start(&mut command);
    running.wait_for_lines("/there/is/no/python cannot be started", 1);
    running.kill();
}
