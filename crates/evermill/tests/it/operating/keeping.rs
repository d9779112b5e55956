//! `backup`, `restore`, `verify`.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;

use super::Scene;
use crate::process::{Running, eventually};

fn two_events(scene: &Scene) -> Running {
    let running = scene.run();
    scene.mock.write(&[("a", "one"), ("b", "bad two")]);
    scene
        .place
        .wait_for_run(|run| run["done"] == 1 && run["parked"] == 1);
    running
}

fn end(running: Running) {
    running.signal(Signal::TERM);
    running.end();
}

#[test]
fn a_backup_of_a_running_engine_is_restored_and_goes_on_from_there() {
    let scene = Scene::new();
    let running = two_events(&scene);
    let file = scene.place.folder().join("copy.db");
    let name = file.to_str().unwrap();
    let said = scene.well(&["backup", name]);
    assert!(said.contains("checked"), "{said}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0);
    assert!(!scene.place.folder().join("copy.db.part").exists());
    assert!(scene.well(&["verify", name]).contains("sound"));
    scene.mock.write(&[("c", "three")]);
    scene.wait_for("done", 2);
    // An engine keeps its store to itself, and a store is not lost by the way.
    assert!(
        scene
            .badly(&["restore", name], 4)
            .stderr
            .contains("end it first")
    );
    end(running);
    assert!(
        scene
            .badly(&["restore", name], 2)
            .stderr
            .contains("--replace")
    );
    let said = scene.well(&["restore", name, "--replace"]);
    assert!(said.contains("replaced-"), "{said}");
    let stored = scene.place.ps().remove(0);
    assert_eq!((&stored["done"], &stored["parked"]), (&1.into(), &1.into()));
    let ended = scene.start(&["--until-idle", "200ms", "--json"]).end();
    assert_eq!(ended.only_run()["done"], 2, "{}", ended.stderr);
}

#[test]
fn a_store_at_rest_is_backed_up_into_a_folder_under_a_name_of_its_own() {
    let scene = Scene::new();
    two_events(&scene).kill();
    let folder = scene.place.folder().join("backups");
    std::fs::create_dir(&folder).unwrap();
    scene.well(&["backup", folder.to_str().unwrap()]);
    let names: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().collect();
    assert_eq!(names.len(), 1);
    let path = names[0].path();
    assert!(
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("evermill-2")
    );
    let elsewhere = scene.place.folder().join("elsewhere");
    let arguments = [
        "--data-dir",
        elsewhere.to_str().unwrap(),
        "restore",
        path.to_str().unwrap(),
    ];
    scene.well(&arguments);
    let shown = scene.well(&["--data-dir", elsewhere.to_str().unwrap(), "ps", "--json"]);
    assert!(shown.contains("\"parked\":1"), "{shown}");
}

#[test]
fn a_store_is_verified_live_and_at_rest_and_damage_is_named() {
    let scene = Scene::new();
    let running = two_events(&scene);
    assert!(scene.well(&["verify"]).contains("sound"));
    end(running);
    assert!(scene.well(&["verify"]).contains("sound"));
    let file = scene.place.folder().join("copy.db");
    scene.well(&["backup", file.to_str().unwrap()]);
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes
        .windows(7)
        .position(|found| found == b"picky-1")
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let refused = scene.badly(&["verify", file.to_str().unwrap()], 1);
    assert!(refused.stderr.contains("checksum"), "{}", refused.stderr);
    let refused = scene.badly(&["restore", file.to_str().unwrap(), "--replace"], 1);
    assert!(refused.stderr.contains("checksum"), "{}", refused.stderr);
    assert!(scene.well(&["verify"]).contains("sound"));
}

#[test]
fn what_cannot_be_backed_up_or_restored_is_refused_with_the_reason() {
    let scene = Scene::new();
    std::fs::create_dir(scene.place.data_dir()).unwrap();
    let there = scene.place.file("there.db", "text");
    let there = there.to_str().unwrap();
    let cases = [
        (["backup", "nowhere/copy.db"], 2, "no such folder"),
        (["backup", there], 2, "is there already"),
        (["backup", "copy.db"], 2, "no store"),
        (["restore", "nowhere.db"], 2, "nowhere.db"),
        (["restore", there], 1, "is not sound"),
        (["verify", there], 1, "there.db"),
    ];
    for (arguments, code, said) in cases {
        let ended = scene.badly(&arguments, code);
        assert!(
            ended.stderr.contains(said),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
}

/// The second task waits until a test lets it go.
const LARGE: &str = r#"
import evermill, os, time

HERE = os.path.dirname(os.environ["EVERMILL_DATA_DIR"])

def note(name):
    with open(os.path.join(HERE, name), "a") as file:
        file.write("x")

@evermill.task
def make(event):
    note("made")
    return event.value.decode() * 200_000

@evermill.task
def count(make):
    note("counting")
    while not os.path.exists(os.path.join(HERE, "go")):
        time.sleep(0.01)
    print("counted", len(make))

@evermill.dag
def large():
    count(make(evermill.kafka("t", auto_offset_reset="earliest")))
"#;

#[test]
fn a_large_result_outlives_a_kill_and_is_checked_and_copied_with_the_rest() {
    let mut scene = Scene::new();
    scene.file = scene.place.file("large.py", LARGE);
    let running = scene.run();
    scene.mock.write(&[("a", "abcde")]);
    let noted = |name: &str| std::fs::read_to_string(scene.place.folder().join(name));
    eventually("the second task", || noted("counting").ok());
    running.kill();
    assert!(scene.well(&["verify"]).contains("sound"));
    let copy = scene.place.folder().join("copy.db");
    scene.well(&["backup", copy.to_str().unwrap()]);
    assert!(copy.metadata().unwrap().len() > 1_000_000);
    scene.place.file("go", "");
    let ended = scene.start(&["--until-idle", "200ms", "--json"]).end();
    assert_eq!(ended.only_run()["done"], 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("counted 1000000"), "{}", ended.stderr);
    assert_eq!(noted("made").unwrap(), "x", "what was committed runs once");
}
