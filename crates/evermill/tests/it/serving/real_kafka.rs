//! Going over to another version while a topic of the real broker is read, and read again.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;

use super::Scene;
use crate::process::{Running, eventually};
use crate::topic::{self, Topic};

/// Notes `WORD VALUE KEY`, once the gate is open.
fn noting(topic: &Topic, word: &str) -> String {
    format!(
        r#"
import os, time
import evermill

@evermill.task
def note(event, ctx):
    notes = os.environ["NOTES"]
    with open(notes + ".begun", "a") as begun:
        begun.write("x")
    while os.path.exists(notes + ".shut"):
        time.sleep(0.01)
    with open(notes, "a") as out:
        out.write("{word} " + event.text() + " " + ctx.effect_key() + "\n")

@evermill.dag
def orders():
    note(evermill.kafka({:?}, auto_offset_reset="earliest"))
"#,
        topic.name
    )
}

fn serve(scene: &Scene, failpoint: Option<&str>) -> Running {
    let connection = format!("kafka={}", topic::address());
    scene.serve_with(&["--connection", &connection], failpoint)
}

fn beside(scene: &Scene, what: &str) -> std::path::PathBuf {
    scene.notes().with_extension(what)
}

/// By value: the words of its lines, and its effect keys.
fn noted(scene: &Scene) -> BTreeMap<String, (Vec<String>, BTreeSet<String>)> {
    let mut by_value: BTreeMap<String, (Vec<String>, BTreeSet<String>)> = BTreeMap::new();
    for line in scene.noted() {
        let [word, value, key] = line.split(' ').collect::<Vec<_>>()[..] else {
            continue;
        };
        let (words, keys) = by_value.entry(value.to_owned()).or_default();
        words.push(word.to_owned());
        keys.insert(key.to_owned());
    }
    by_value
}

fn write(topic: &Topic, range: std::ops::Range<u32>) {
    for partition in 0..2 {
        topic.write(partition, range.clone().map(|n| format!("{partition}-{n}")));
    }
}

fn wait_for_done(scene: &Scene, done: u64) {
    let run = scene.place.wait_for_run(|run| run["done"] == done);
    assert_eq!(run["in"], done, "{run}");
    assert_eq!(
        (&run["parked"], &run["in_flight"]),
        (&0.into(), &0.into()),
        "{run}"
    );
}

fn end(running: Running) {
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
}

/// W16, J06: positions are carried over, whatever moment of the swap the process dies in. An attempt that was
/// not committed may run again, under the same effect key.
#[test]
fn j06_a_swap_carries_positions_through_a_kill_at_each_of_its_steps() {
    for step in [
        "swap.prepared",
        "swap.applied",
        "swap.committed",
        "swap.listening",
    ] {
        let (scene, topic) = (Scene::new(), Topic::new(2));
        scene.put("orders.py", &noting(&topic, "one"));
        write(&topic, 0..50);
        let running = serve(&scene, Some(&format!("{step}:1:abort")));
        eventually("some of it", || (scene.noted().len() >= 20).then_some(()));
        write(&topic, 50..100);
        scene.put("orders.py", &noting(&topic, "two"));
        let ended = running.end();
        assert_eq!(
            ended.status.code(),
            None,
            "{step}: killed: {}",
            ended.stderr
        );
        write(&topic, 100..150);
        let running = serve(&scene, None);
        wait_for_done(&scene, 300);
        let noted = noted(&scene);
        assert_eq!(noted.len(), 300, "{step}: nothing is lost");
        for (value, (words, keys)) in &noted {
            assert_eq!(keys.len(), 1, "{step}: {value}: {words:?}");
        }
        for value in ["0-149", "1-149"] {
            assert_eq!(noted[value].0, ["two"], "{step}");
        }
        let versions = scene.show("orders")["versions"].clone();
        assert_eq!(versions.as_array().map(Vec::len), Some(2), "{versions}");
        assert_eq!(versions[0]["current"], true, "{versions}");
        end(running);
    }
}

/// W16 and W18 together: a replay that is under way goes over to the new version as what is live does, and
/// ends; also when the process dies in between.
#[test]
fn a_replay_goes_on_over_a_swap_and_a_kill_and_runs_each_event_once_more() {
    for killed in [false, true] {
        let (scene, topic) = (Scene::new(), Topic::new(2));
        scene.put("orders.py", &noting(&topic, "one"));
        write(&topic, 0..50);
        let mut running = serve(&scene, None);
        wait_for_done(&scene, 100);
        std::fs::write(beside(&scene, "shut"), "").unwrap();
        std::fs::remove_file(beside(&scene, "begun")).unwrap();
        scene.well(&["replay", "orders", "--from", "earliest"]);
        eventually("a replayed event", || {
            beside(&scene, "begun").exists().then_some(())
        });
        scene.put("orders.py", &noting(&topic, "two"));
        running.wait_for_lines("orders goes over to version", 1);
        if killed {
            running.kill();
            running = serve(&scene, None);
        }
        write(&topic, 50..60);
        std::fs::remove_file(beside(&scene, "shut")).unwrap();
        wait_for_done(&scene, 220);
        let noted = noted(&scene);
        assert_eq!(noted.len(), 120);
        for (value, (words, keys)) in &noted {
            let number: u32 = value.split('-').nth(1).unwrap().parse().unwrap();
            let live = if number < 50 { "one" } else { "two" };
            let times = if number < 50 { 2 } else { 1 };
            assert_eq!(
                (words.len(), &*words[0]),
                (times, live),
                "{killed}: {value}: {words:?}"
            );
            assert_eq!(keys.len(), 1, "{killed}: {value}");
        }
        eventually("the end of the replay", || {
            let replays = scene.well(&["replay", "ls", "orders", "--json"]);
            replays.contains(r#""state":"done""#).then_some(())
        });
        end(running);
    }
}
