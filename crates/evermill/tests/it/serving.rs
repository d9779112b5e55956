//! A server with a folder of DAGs, from the built binary: what is started, what a change of the folder does,
//! and what stays as it was.

mod following;
mod packed;
mod real_kafka;
mod swapping;

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Ended, Place, Running, eventually};

/// Notes its message in a file, under a word.
fn noting(dag: &str, word: &str) -> String {
    format!(
        "dag: {dag}\nsources: {{ go: {{ signal: go }} }}\ntasks:\n  note: {{ after: [go], run: \"echo {word} $(tr -d '\\\"') >> $NOTES\" }}\n"
    )
}

/// A folder, and a server that may follow it.
struct Scene {
    place: Place,
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        std::fs::create_dir(place.folder().join("dags")).unwrap();
        Self { place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.folder().join("dags").join(name)
    }

    /// Written beside and renamed, as editors and checkouts do.
    fn put(&self, name: &str, text: &str) {
        let half = self.path(".half");
        std::fs::write(&half, text).unwrap();
        std::fs::rename(half, self.path(name)).unwrap();
    }

    fn serve(&self) -> Running {
        self.serve_with(&[], None)
    }

    fn serve_with(&self, more: &[&str], failpoint: Option<&str>) -> Running {
        let usual = ["serve", "--listen", "127.0.0.1:0", "--workers", "1"];
        let mut command = self.place.evermill(usual.iter().chain(more));
        command.env("NOTES", self.notes());
        if let Some(failpoint) = failpoint {
            command.env("EVERMILL_FAILPOINT", failpoint);
        }
        let running = Running::start(&mut command);
        running.wait_for_lines("serving dags on http://127.0.0.1:", 1);
        running
    }

    fn notes(&self) -> PathBuf {
        self.place.folder().join("notes")
    }

    fn noted(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.notes()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn wait_for_notes(&self, wanted: &[&str]) {
        eventually(&format!("{wanted:?} is noted"), || {
            (self.noted() == wanted).then_some(())
        });
    }

    /// A command that goes well; what it prints.
    fn well(&self, arguments: &[&str]) -> String {
        let ended = self.place.finish(arguments);
        assert_eq!(ended.code(), 0, "{arguments:?}: {}", ended.stderr);
        ended.stdout
    }

    fn badly(&self, arguments: &[&str], code: i32) -> String {
        let ended = self.place.finish(arguments);
        assert_eq!(ended.code(), code, "{arguments:?}: {}", ended.stdout);
        ended.stderr
    }

    /// Sends a message, which is durable when this returns.
    fn say(&self, dag: &str, text: &str) {
        self.well(&["signal", dag, "go", &format!("\"{text}\"")]);
    }

    fn state(&self, dag: &str) -> String {
        let runs = self.place.ps();
        let run = runs.iter().rev().find(|run| run["dag"] == *dag);
        run.map_or_else(String::new, |run| run["state"].as_str().unwrap().to_owned())
    }

    fn wait_for_state(&self, dag: &str, state: &str) {
        eventually(&format!("{dag} is {state}"), || {
            (self.state(dag) == state).then_some(())
        });
    }

    fn show(&self, dag: &str) -> Value {
        serde_json::from_str(&self.well(&["show", dag, "--json"])).unwrap()
    }
}

fn end(running: Running) -> Ended {
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended
}

#[test]
fn an_empty_folder_is_served_and_what_is_put_into_it_starts() {
    let scene = Scene::new();
    let running = scene.serve();
    running.wait_for_lines("no DAG yet: what is put into dags is served", 1);
    scene.put("orders.yaml", &noting("orders", "one"));
    running.wait_for_lines("dags/orders.yaml: orders is on as orders-1, version ", 1);
    scene.say("orders", "a");
    scene.wait_for_notes(&["one a"]);
    end(running);
}

#[test]
fn a_server_says_what_it_cannot_do_before_it_does_anything() {
    let scene = Scene::new();
    let said = scene.badly(&["serve", "--dags", "elsewhere"], 2);
    assert!(said.contains("mkdir elsewhere"), "{said}");
    let said = scene.badly(&["serve", "--listen", "0.0.0.0:4700"], 2);
    assert!(said.contains("token create NAME"), "{said}");
    let running = scene.serve();
    let said = scene.badly(&["serve", "--listen", "127.0.0.1:0"], 4);
    assert!(said.contains("data directory"), "{said}");
    end(running);
}

#[test]
fn what_was_stopped_or_paused_stays_so_over_a_restart_and_start_switches_it_on() {
    let scene = Scene::new();
    for dag in ["stopped", "paused", "drained"] {
        scene.put(&format!("{dag}.yaml"), &noting(dag, dag));
    }
    scene.put(
        "by_hand.yaml",
        "dag: by_hand\ntasks:\n  note: { run: \"echo by hand >> $NOTES\" }\n",
    );
    let running = scene.serve();
    running.wait_for_lines("by_hand has no source and no schedule", 1);
    running.wait_for_lines("4 DAGs", 1);
    scene.well(&["stop", "stopped"]);
    scene.well(&["pause", "paused"]);
    scene.well(&["drain", "drained"]);
    end(running);
    let running = scene.serve();
    running.wait_for_lines(
        "stopped is stopped; `evermill start stopped` switches it on",
        1,
    );
    running.wait_for_lines("4 DAGs", 1);
    assert_eq!(scene.state("stopped"), "stopped");
    assert_eq!(scene.state("paused"), "paused");
    assert_eq!(scene.state("drained"), "running");
    let said = scene.well(&["start", "stopped"]);
    assert!(said.starts_with("stopped-"), "{said}");
    assert_eq!(scene.state("stopped"), "running");
    let again = scene.well(&["start", "stopped", "--json"]);
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["before"], again["version"], "it was on already");
    let unknown = scene.badly(&["start", "stoped"], 2);
    assert!(unknown.contains("did you mean 'stopped'?"), "{unknown}");
    scene.well(&["start", "by_hand"]);
    scene.wait_for_notes(&["by hand"]);
    scene.well(&["start", "by_hand"]);
    scene.well(&["trigger", "by_hand"]);
    eventually("triggered", || (scene.noted().len() >= 2).then_some(()));
    end(running);
}

#[test]
fn a20_hang_up_looks_at_the_folder_and_the_second_signal_ends_at_once() {
    let scene = Scene::new();
    scene.put("slow.yaml", "dag: slow\nsources: { go: { signal: go } }\ntasks:\n  wait: { after: [go], run: \"echo begun >> $NOTES; sleep 60\" }\n");
    let running = scene.serve_with(&["--grace", "60s"], None);
    running.wait_for_lines("1 DAG", 1);
    running.signal(Signal::HUP);
    scene.say("slow", "x");
    scene.wait_for_notes(&["begun"]);
    assert_eq!(scene.state("slow"), "running", "hanging up ends nothing");
    running.signal(Signal::TERM);
    running.wait_for_lines("draining: 1 in flight", 1);
    running.signal(Signal::INT);
    assert_eq!(running.end().code(), 130);
}

#[test]
fn start_without_a_server_says_how_to_get_one() {
    let scene = Scene::new();
    scene.put("orders.yaml", &noting("orders", "one"));
    let running = scene.serve();
    running.wait_for_lines("1 DAG", 1);
    end(running);
    for verb in ["start", "rollback"] {
        let said = scene.badly(&[verb, "orders"], 1);
        assert!(said.contains("`evermill serve` starts one"), "{said}");
    }
}
