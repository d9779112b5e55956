//! `pause`, `resume`, `drain`, `stop`.

use rustix::process::Signal;

use super::Scene;
use crate::process::Running;

fn terminate(running: Running) {
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
}

#[test]
fn a_paused_run_stays_paused_over_a_restart_and_goes_on_where_it_was() {
    let scene = Scene::new();
    let running = scene.run();
    scene.mock.write(&[("a", "1"), ("b", "2")]);
    scene.wait_for("done", 2);
    assert!(
        scene
            .well(&["pause", "picky"])
            .starts_with("picky-1 is paused")
    );
    // Twice is once.
    scene.well(&["pause", "picky-1"]);
    scene.mock.write(&[("c", "3")]);
    terminate(running);
    assert_eq!(scene.place.ps()[0]["state"], "paused");
    let running = scene.start(&[]);
    running.wait_for_lines(
        "is paused: nothing is started until `evermill resume picky-1`",
        1,
    );
    assert_eq!(scene.place.ps()[0]["done"], 2);
    assert!(scene.well(&["resume", "picky"]).starts_with("picky-1 is "));
    scene.well(&["resume", "picky"]);
    scene.wait_for("done", 3);
    terminate(running);
}

#[test]
fn a_store_that_no_engine_runs_is_paused_and_resumed_as_well() {
    let scene = Scene::new();
    let running = scene.run();
    scene.mock.write(&[("a", "1")]);
    scene.wait_for("done", 1);
    running.kill();
    assert!(scene.well(&["pause", "picky"]).contains("no engine runs"));
    let refused = scene.start(&["--until-idle", "1s"]).end();
    assert_eq!(refused.code(), 2);
    assert!(
        refused.stderr.contains("evermill resume picky-1"),
        "{}",
        refused.stderr
    );
    scene.well(&["resume", "picky"]);
    let ended = scene.start(&["--until-idle", "200ms"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(scene.place.ps()[0]["done"], 1);
}

#[test]
fn draining_the_only_run_ends_the_command_and_the_next_one_goes_on() {
    let scene = Scene::new();
    let running = scene.run();
    scene.mock.write(&[("a", "1")]);
    scene.wait_for("done", 1);
    assert!(
        scene
            .well(&["drain", "picky"])
            .starts_with("picky-1 is drain")
    );
    assert_eq!(running.end().code(), 0);
    scene.well(&["drain", "picky"]);
    scene.mock.write(&[("b", "2")]);
    assert_eq!(scene.start(&["--until-idle", "200ms"]).end().code(), 0);
    let runs = scene.place.ps();
    assert_eq!((runs.len(), &runs[0]["done"]), (1, &2.into()));
}

#[test]
fn stopping_a_run_ends_it_for_good_and_the_next_one_inherits_its_positions() {
    let scene = Scene::new();
    let running = scene.run();
    scene.mock.write(&[("a", "1")]);
    scene.wait_for("done", 1);
    assert!(
        scene
            .well(&["stop", "picky"])
            .starts_with("picky-1 is stopped")
    );
    assert_eq!(running.end().code(), 0);
    // At rest, and twice.
    scene.well(&["stop", "picky"]);
    let refused = scene.badly(&["resume", "picky"], 1);
    assert!(
        refused.stderr.contains("begins a new run"),
        "{}",
        refused.stderr
    );
    scene.mock.write(&[("b", "2")]);
    assert_eq!(scene.start(&["--until-idle", "200ms"]).end().code(), 0);
    let runs = scene.place.ps();
    assert_eq!(
        (&runs[1]["run"], &runs[1]["in"]),
        (&"picky-2".into(), &1.into())
    );
}

#[test]
fn a_run_that_is_not_there_is_refused_with_the_nearest_name() {
    let scene = Scene::new();
    let running = scene.run();
    let refused = scene.badly(&["pause", "piky"], 2);
    assert!(
        refused.stderr.contains("did you mean 'picky'?"),
        "{}",
        refused.stderr
    );
    terminate(running);
    let refused = scene.badly(&["pause", "something-else"], 2);
    assert!(
        !refused.stderr.contains("did you mean"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("evermill ps"), "{}", refused.stderr);
}
