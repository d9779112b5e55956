//! Alerts of the built binary: kept in the commit of what they are about, told at least once.

use std::path::Path;

use serde_json::Value;

use crate::process::{Place, Running, eventually};

/// Late as long as there is no file `go`.
const SLOW: &str = r#"
import os, time
import evermill

@evermill.task(deadline="50ms")
def slow(event):
    while not os.path.exists("GO"):
        time.sleep(0.02)

@evermill.dag
def orders():
    slow(evermill.files("IN"))
"#;

const HOOK: &str = "[[alerts]]\nkinds = ['deadline_missed']\nevery = '10ms'\n";

fn told(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let parcels = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let alerts = parcels.map_while(Result::ok).flat_map(|mut parcel| {
        let alerts = parcel["alerts"].take();
        alerts.as_array().cloned().unwrap_or_default()
    });
    alerts.collect()
}

/// H16's neighbour W13: between the commit of a miss and the hook lie a crash, and a crash behind it.
#[test]
fn an_alert_outlives_a_crash_between_its_commit_and_the_hook_and_keeps_its_id() {
    for step in ["alert.committed", "alert.handed"] {
        let place = Place::new();
        let (go, told_in) = (place.folder().join("go"), place.folder().join("told"));
        let folder = place.folder().join("in");
        std::fs::create_dir(&folder).unwrap();
        let code = SLOW
            .replace("GO", go.to_str().unwrap())
            .replace("IN", folder.to_str().unwrap());
        let file = place.file("orders.py", &code);
        let file = file.to_str().unwrap();
        place.file(
            "evermill.toml",
            &format!("{HOOK}command = 'cat >> {}'\n", told_in.display()),
        );
        std::fs::write(folder.join("order"), "1").unwrap();
        let mut command = place.evermill(["run", file]);
        command.env("EVERMILL_FAILPOINT", format!("{step}:1:abort"));
        let ended = Running::start(&mut command).end();
        assert_eq!(
            ended.status.code(),
            None,
            "{step}: killed: {}",
            ended.stderr
        );
        assert_eq!(told(&told_in), Vec::<Value>::new(), "{step}");
        let owed = place.finish(["alerts", "ls", "--json"]).json();
        let owed = owed.first().cloned().expect("the store has it");
        let running = Running::start(&mut place.evermill(["run", file]));
        let alert = eventually("the alert", || told(&told_in).first().cloned());
        assert_eq!(alert, owed, "{step}");
        assert_eq!(
            (&alert["kind"], &alert["dag"], &alert["task"]),
            (&"deadline_missed".into(), &"orders".into(), &"slow".into())
        );
        std::fs::write(&go, "").unwrap();
        place.wait_for_run(|run| run["done"] == 1);
        running.signal(rustix::process::Signal::TERM);
        assert_eq!(running.end().code(), 0);
        let run = ["run", file, "--until-idle", "100ms", "--json"];
        let ended = place.finish(run);
        assert_eq!(ended.only_run()["deadlines_missed"], 1, "{step}");
        assert_eq!(
            told(&told_in).len(),
            1,
            "{step}: told once, as it was taken"
        );
    }
}

#[test]
fn a_hook_that_cannot_be_reached_gets_its_alert_from_the_next_start() {
    let place = Place::new();
    let code = "import evermill\n\n@evermill.task\ndef bad():\n    raise ValueError('no')\n\n@evermill.dag\ndef d():\n    bad()\n";
    let file = place.file("d.py", code);
    let run = ["run", file.to_str().unwrap(), "--until-idle", "100ms"];
    place.file("evermill.toml", "[[alerts]]\ncommand = 'exit 1'\n");
    let ended = place.finish(run);
    assert_eq!(ended.code(), 1, "one is parked");
    assert!(
        ended.stderr.contains("after the next start"),
        "{}",
        ended.stderr
    );
    let told_in = place.folder().join("told");
    let works = format!("[[alerts]]\ncommand = 'cat >> {}'\n", told_in.display());
    place.file("evermill.toml", &works);
    place.finish(run);
    let alerts = told(&told_in);
    assert_eq!(alerts[0]["kind"], "parked", "{alerts:?}");
    assert!(
        alerts[0]["id"].as_str().unwrap().starts_with("1-"),
        "{alerts:?}"
    );
}
