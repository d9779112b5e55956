//! Going over to another version, and back.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Scene, end, noting};
use crate::process::{Running, eventually};

/// Waits for a file before it notes its message.
fn gated(word: &str) -> String {
    format!(
        "dag: orders\nsources: {{ go: {{ signal: go }} }}\ntasks:\n  note: {{ after: [go], run: \"m=$(tr -d '\\\"'); echo $m >> $NOTES.begun; until [ -e $NOTES.open ]; do sleep 0.02; done; echo {word} $m $EVERMILL_EFFECT_KEY >> $NOTES\" }}\n"
    )
}

fn open_gate(scene: &Scene) {
    let mut path = scene.notes().into_os_string();
    path.push(".open");
    std::fs::write(path, "").unwrap();
}

#[test]
fn j06_what_is_under_way_ends_on_its_version_and_show_says_which_is_which() {
    let scene = Scene::new();
    scene.put("orders.yaml", &gated("one"));
    let running = scene.serve();
    running.wait_for_lines("orders is on", 1);
    scene.say("orders", "a");
    wait_until_begun(&scene);
    scene.put("orders.yaml", &noting("orders", "two"));
    running.wait_for_lines("orders goes over to version", 1);
    let versions = scene.show("orders")["versions"].clone();
    let in_flight: Vec<&Value> = (0..2).map(|at| &versions[at]["in_flight"]).collect();
    assert_eq!(in_flight, [0, 1], "{versions}");
    assert_eq!(versions[0]["why"], "swap");
    assert_eq!(versions[0]["from"]["go"], 1, "{versions}");
    let text = scene.well(&["show", "orders"]);
    assert!(
        text.contains("Versions") && text.contains("current"),
        "{text}"
    );
    open_gate(&scene);
    scene.say("orders", "b");
    eventually("both are noted", || {
        (scene.noted().len() == 2).then_some(())
    });
    let words: Vec<String> = scene.noted();
    let mut words: Vec<String> = words
        .iter()
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    words.sort();
    assert_eq!(words, ["one a", "two b"]);
    end(running);
}

#[test]
fn a_rollback_lasts_until_the_file_changes_over_restarts_too() {
    let scene = Scene::new();
    scene.put("orders.yaml", &noting("orders", "good"));
    let running = scene.serve();
    running.wait_for_lines("orders is on", 1);
    let none = scene.badly(&["rollback", "orders"], 1);
    assert!(none.contains("no other version"), "{none}");
    scene.put("orders.yaml", &noting("orders", "bad"));
    running.wait_for_lines("orders goes over to version", 1);
    let said = scene.well(&["rollback", "orders"]);
    assert!(said.contains("stays away until its file changes"), "{said}");
    scene.say("orders", "a");
    scene.wait_for_notes(&["good a"]);
    end(running);
    let running = scene.serve();
    running.wait_for_lines("1 DAG", 1);
    scene.say("orders", "b");
    scene.wait_for_notes(&["good a", "good b"]);
    scene.put("orders.yaml", &noting("orders", "better"));
    running.wait_for_lines("orders goes over to version", 1);
    scene.say("orders", "c");
    scene.wait_for_notes(&["good a", "good b", "better c"]);
    let versions = scene.show("orders")["versions"].clone();
    let good = versions
        .as_array()
        .unwrap()
        .iter()
        .find(|version| version["why"] == "start");
    let good = good.unwrap()["version"].as_str().unwrap()[..10].to_owned();
    scene.well(&["rollback", "orders", &good]);
    scene.say("orders", "d");
    scene.wait_for_notes(&["good a", "good b", "better c", "good d"]);
    let unknown = scene.badly(&["rollback", "orders", "zz"], 1);
    assert!(unknown.contains("no version begins with 'zz'"), "{unknown}");
    end(running);
}

#[test]
fn a_changed_file_at_a_restart_is_the_same_swap() {
    let scene = Scene::new();
    // Its first try fails, so that the second one is on record with its version.
    scene.put(
        "orders.yaml",
        "dag: orders\nsources: { go: { signal: go } }\ntasks:\n  note: { after: [go], retries: 1, retry_delay: 2s, run: \"m=$(tr -d '\\\"'); if [ -e $NOTES.failed ]; then echo one $m >> $NOTES; else touch $NOTES.failed; exit 1; fi\" }\n",
    );
    let running = scene.serve();
    running.wait_for_lines("orders is on", 1);
    scene.say("orders", "a");
    eventually("its next try is on record", || {
        (scene.show("orders")["waiting"] == 1).then_some(())
    });
    running.kill();
    scene.put("orders.yaml", &noting("orders", "two"));
    let running = scene.serve();
    running.wait_for_lines("orders goes on", 1);
    scene.say("orders", "b");
    eventually("both are noted", || {
        (scene.noted().len() >= 2).then_some(())
    });
    let mut noted = scene.noted();
    noted.sort();
    assert_eq!(noted, ["one a", "two b"]);
    end(running);
}

/// A task that notes the word, with these options.
fn noting_with(word: &str, options: &str) -> String {
    format!(
        "dag: orders\nsources: {{ go: {{ signal: go }} }}\ntasks:\n  note: {{ after: [go], {options}run: \"echo {word} >> $NOTES\" }}\n"
    )
}

/// S10, K08: what is secret, or may be, is in no comparison.
#[test]
fn k08_versions_are_listed_with_who_went_back_and_compared_without_what_is_secret() {
    let scene = Scene::new();
    scene.put("orders.yaml", &noting_with("one", "retries: 1, "));
    let running = scene.serve();
    running.wait_for_lines("orders is on", 1);
    crate::secrets::set(&scene.place, "key", "tulips-in-spring\n");
    let secretly = noting_with(
        "tulips-in-spring",
        "retries: 3, timeout: 5s, env: { WHERE: far }, ",
    );
    scene.put("orders.yaml", &secretly);
    running.wait_for_lines("orders goes over to version", 1);
    let text = scene.well(&["versions", "diff", "orders"]);
    for part in [
        "~ note  changed",
        "~ retries",
        "1 -> 3",
        "+ timeout_ms",
        "5000",
        "~ orders.yaml  +1 -1",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    for part in ["echo", "far", "tulips"] {
        assert!(!text.contains(part), "{part:?} in {text}");
    }
    let text = scene.well(&["versions", "diff", "orders", "--text"]);
    assert!(text.contains("\n-") && text.contains("echo one"), "{text}");
    assert!(
        text.contains("echo ***") && !text.contains("tulips"),
        "{text}"
    );
    scene.well(&["rollback", "orders"]);
    let list = scene.well(&["versions", "ls", "orders", "--json"]);
    let list: Vec<Value> = list
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let states: Vec<&Value> = list.iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["current", "put_away", "current"]);
    let by = list[0]["by"].as_str().unwrap();
    assert!(by.starts_with("uid "), "{by}");
    assert_eq!(list[1]["by"], Value::Null, "the file changed by itself");
    let table = scene.well(&["versions", "ls", "orders"]);
    for part in [
        "put away until its file changes",
        "current, in place of",
        by,
    ] {
        assert!(table.contains(part), "no {part:?} in {table}");
    }
    end(running);
    // At rest, the other way round, by the beginnings of their hashes.
    let version = |at: usize| list[at]["version"].as_str().unwrap()[..8].to_owned();
    let (good, bad) = (version(0), version(1));
    let back = scene.well(&["versions", "diff", "orders", &bad, &good, "--json"]);
    let back: Value = serde_json::from_str(&back).unwrap();
    assert_eq!(back["tasks"][0]["change"], "changed", "{back}");
    let unknown = scene.badly(&["versions", "diff", "orders", "zz"], 2);
    assert!(
        unknown.contains("no version of DAG 'orders' begins with 'zz'"),
        "{unknown}"
    );
}

/// Waits until the first message is with its task.
fn wait_until_begun(scene: &Scene) {
    let mut path = scene.notes().into_os_string();
    path.push(".begun");
    eventually("it has begun", || std::fs::metadata(&path).ok());
}

/// Serves with a step at which the process kills itself.
fn killed_at(scene: &Scene, step: &str) -> Running {
    scene.serve_with(&[], Some(&format!("{step}:1:abort")))
}

#[test]
fn killed_at_any_step_of_a_swap_each_activation_ran_on_its_version_with_its_effect_key() {
    for step in [
        "swap.prepared",
        "swap.applied",
        "swap.committed",
        "swap.listening",
    ] {
        let scene = Scene::new();
        scene.put("orders.yaml", &gated("one"));
        let running = killed_at(&scene, step);
        running.wait_for_lines("orders is on", 1);
        scene.say("orders", "a");
        wait_until_begun(&scene);
        scene.put("orders.yaml", &gated("two"));
        let ended = running.end();
        assert_eq!(
            ended.status.code(),
            None,
            "{step}: killed: {}",
            ended.stderr
        );
        open_gate(&scene);
        let running = scene.serve();
        running.wait_for_lines("orders goes on", 1);
        scene.say("orders", "b");
        scene.place.wait_for_run(|run| run["done"] == 2);
        end(running);
        let noted = scene.noted();
        let noted: Vec<Vec<&str>> = noted.iter().map(|line| line.split(' ').collect()).collect();
        let keys = |message: &str| -> BTreeSet<&str> {
            let of = noted.iter().filter(|line| line[1] == message);
            of.map(|line| line[2]).collect()
        };
        let words = |message: &str| -> BTreeSet<&str> {
            let of = noted.iter().filter(|line| line[1] == message);
            of.map(|line| line[0]).collect()
        };
        assert_eq!(words("b"), BTreeSet::from(["two"]), "{step}");
        // Before the commit of the swap it is read again, and by then the file has the new version.
        let committed = matches!(step, "swap.committed" | "swap.listening");
        let may = if committed {
            vec!["one"]
        } else {
            vec!["one", "two"]
        };
        assert!(
            words("a").iter().all(|word| may.contains(word)),
            "{step}: {noted:?}"
        );
        assert_eq!(
            keys("a").len(),
            1,
            "{step}: each attempt has the same effect key: {noted:?}"
        );
        assert!(keys("a").is_disjoint(&keys("b")), "{step}");
    }
}

#[test]
fn what_a_removed_source_left_is_named_and_let_go_of_by_hand_only() {
    let scene = Scene::new();
    scene.put("orders.yaml", &noting("orders", "one"));
    let running = scene.serve();
    running.wait_for_lines("orders is on", 1);
    scene.well(&["pause", "orders"]);
    scene.say("orders", "a");
    scene.say("orders", "b");
    let renamed = noting("orders", "two")
        .replace("go: {", "went: {")
        .replace("[go]", "[went]");
    scene.put("orders.yaml", &renamed);
    running.wait_for_lines("orders goes over to version", 1);

    let left = "2 events of source 'go' are kept";
    let listed = scene.place.finish(["ps"]).stderr;
    assert!(listed.contains(left), "{listed}");
    let note = &scene.show("orders")["notes"][0];
    assert_eq!(note["kind"], "events_left");
    assert!(note["text"].as_str().unwrap().contains(left), "{note}");
    let forget = ["sources", "forget", "orders", "go"];
    let asked = scene.badly(&forget, 2);
    assert!(asked.contains("say --yes to do it"), "{asked}");
    let has_it = scene.badly(&["sources", "forget", "orders", "went", "--yes"], 1);
    assert!(has_it.contains("has the source 'went'"), "{has_it}");
    let done = scene.well(&["sources", "forget", "orders", "go", "--yes", "--json"]);
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!(
        (&done["source"], &done["events"]),
        (&json!("go"), &json!(2))
    );
    let listed = scene.place.finish(["ps"]).stderr;
    assert!(!listed.contains("are kept"), "{listed}");

    scene.well(&["resume", "orders"]);
    scene.say("orders", "c");
    scene.wait_for_notes(&["two c"]);
    end(running);
}
