//! `parked ls|show|edit|export|retry|drop`.

use rustix::process::Signal;
use serde_json::Value;

use super::Scene;
use crate::process::{Place, Running};

/// Three messages parked, one done.
fn with_three_parked(scene: &Scene) -> Running {
    let running = scene.run();
    let messages = [
        ("a", "bad 1"),
        ("b", "good"),
        ("b", "bad {\"n\":2}"),
        ("c", "bad 3"),
    ];
    scene.mock.write(&messages);
    scene
        .place
        .wait_for_run(|run| run["parked"] == 3 && run["done"] == 1);
    running
}

/// `in = done + skipped + parked + dropped + in_flight`.
fn assert_conserved(place: &Place) -> Value {
    let run = place.ps().remove(0);
    let of = |field: &str| run[field].as_u64().expect("a count");
    let parts = ["done", "skipped", "parked", "dropped", "in_flight"];
    assert_eq!(
        of("in"),
        parts.iter().map(|part| of(part)).sum::<u64>(),
        "{run}"
    );
    run
}

fn kill(running: Running, live: bool) -> Option<Running> {
    if live {
        return Some(running);
    }
    running.kill();
    None
}

fn end(running: Running) {
    running.signal(Signal::TERM);
    running.end();
}

#[test]
fn what_is_parked_is_listed_by_reason_and_shown_whole() {
    for live in [true, false] {
        let scene = Scene::new();
        let running = kill(with_three_parked(&scene), live);
        let list = scene.well(&["parked", "ls"]);
        let group: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(group, ["picky-1", "failed", "look", "3"], "{list}");
        assert!(list.contains("picky-1/kafka/t/0/2"), "{list}");
        assert!(list.contains("ValueError: no bad 3"), "{list}");
        let one = scene.well(&["parked", "show", "picky-1/kafka/t/0/0"]);
        for part in [
            "task      look",
            "key       a",
            "payload   5 bytes, text\nbad 1",
            "in look",
        ] {
            assert!(one.contains(part), "no {part:?} in {one}");
        }
        let hex = scene.well(&["parked", "show", "--hex", "picky-1/kafka/t/0/0"]);
        assert!(hex.contains("62 61 64 20 31"), "{hex}");
        let missing = scene.badly(&["parked", "show", "picky-1/kafka/t/0/1"], 2);
        assert!(
            missing.stderr.contains("nothing is parked as"),
            "{}",
            missing.stderr
        );
        scene.badly(&["parked", "show", "nonsense"], 2);
        if let Some(running) = running {
            end(running);
        }
    }
}

#[test]
fn filters_choose_by_key_task_reason_and_age() {
    let scene = Scene::new();
    let running = with_three_parked(&scene);
    let count = |terms: &str| {
        let listed = scene.well(&["parked", "ls", "--json", "--where", terms]);
        listed.lines().count()
    };
    assert_eq!(count("key=b"), 1);
    assert_eq!(count("task=look,since=1h"), 3);
    assert_eq!(count("task=after"), 0);
    assert_eq!(count("reason=suspect_crash"), 0);
    assert_eq!(count("run=picky"), 3);
    let wrong = scene.badly(&["parked", "ls", "--where", "colour=red"], 2);
    assert!(
        wrong.stderr.contains("reason, task, key, run, since"),
        "{}",
        wrong.stderr
    );
    end(running);
}

#[test]
fn an_edited_event_is_run_again_and_what_is_given_up_counts_as_dropped() {
    for live in [true, false] {
        let scene = Scene::new();
        let running = kill(with_three_parked(&scene), live);
        let id = "picky-1/kafka/t/0/0";
        let said = scene.well(&["parked", "edit", id, "--payload", "better"]);
        assert!(said.contains("payload of 6 bytes"), "{said}");
        assert!(scene.well(&["parked", "show", id]).contains("better"));
        assert!(scene.well(&["parked", "retry", id]).starts_with("1 "));
        assert_eq!(
            scene.well(&["parked", "drop", "--where", "key=c"]),
            "1 dropped"
        );
        let running = running.unwrap_or_else(|| scene.run());
        let run = scene.place.wait_for_run(|run| run["done"] == 2);
        assert_eq!(
            (&run["parked"], &run["dropped"]),
            (&1.into(), &1.into()),
            "{run}"
        );
        running.wait_for_lines("saw better", 1);
        // Still bad: it comes back.
        scene.well(&["parked", "retry", "--all"]);
        scene
            .place
            .wait_for_run(|run| run["parked"] == 1 && run["in_flight"] == 0);
        assert!(
            scene
                .well(&["parked", "show", "picky-1/kafka/t/0/2"])
                .contains("1 times by hand")
        );
        assert_conserved(&scene.place);
        end(running);
        let run = assert_conserved(&scene.place);
        assert_eq!(run["in"], 4);
    }
}

/// Row C14: `in = done + skipped + parked + dropped + in_flight` after every verb, and what a dry run counts is what
/// the verb does.
#[test]
fn counters_are_conserved_after_every_verb_and_dry_runs_count_what_would_be_done() {
    let scene = Scene::new();
    let running = with_three_parked(&scene);
    let words = |text: String, n: usize| -> Vec<String> {
        text.split_whitespace().take(n).map(str::to_owned).collect()
    };
    // A verb, and how it leaves [in, done, parked, dropped] once nothing is in flight.
    let check = |arguments: &[&str], counts: [u64; 4]| {
        let said = scene.well(arguments);
        let names = ["in", "done", "parked", "dropped"];
        let settled = |run: &Value| {
            run["in_flight"] == 0 && names.iter().zip(counts).all(|(name, n)| run[name] == n)
        };
        scene.place.wait_for_run(settled);
        assert_conserved(&scene.place);
        said
    };
    let at_first = [4, 1, 3, 0];
    let groups = check(&["parked", "ls", "--group"], at_first);
    assert_eq!(groups.lines().count(), 2, "{groups}");
    assert!(!groups.contains("bad 3"), "groups alone: {groups}");
    let group = check(&["parked", "ls", "--group", "--json"], at_first);
    let group: Value = serde_json::from_str(&group).unwrap();
    assert_eq!(
        group,
        serde_json::json!({"run": "picky-1", "reason": "failed", "task": "look", "count": 3})
    );
    let dry = check(&["parked", "retry", "--all", "--dry-run"], at_first);
    assert_eq!(dry, "3 would run again");
    let dry = check(
        &["parked", "drop", "--where", "key=c", "--dry-run"],
        at_first,
    );
    assert_eq!(dry, "1 would be dropped");
    let id = "picky-1/kafka/t/0/0";
    let edit = ["parked", "edit", id, "--payload", "better"];
    let dry = check(&[&edit[..], &["--dry-run"]].concat(), at_first);
    assert!(
        dry.starts_with("1 would be edited") && dry.contains("5 bytes"),
        "{dry}"
    );
    assert!(scene.well(&["parked", "show", id]).contains("bad 1"));
    check(&edit, at_first);
    let done = check(&["parked", "retry", id], [4, 2, 2, 0]);
    assert_eq!(words(done, 3), ["1", "running", "again"]);
    // Still bad: they come back.
    check(&["parked", "retry", "--all"], [4, 2, 2, 0]);
    check(&["parked", "drop", "--where", "key=c"], [4, 2, 1, 1]);
    check(&["pause", "picky"], [4, 2, 1, 1]);
    scene.mock.write(&[("d", "fine"), ("e", "bad 5")]);
    check(&["resume", "picky"], [6, 3, 2, 1]);
    // Read again, an event counts again.
    let replay = ["replay", "picky", "--from", "1", "--to", "1"];
    check(&[&replay[..], &["--dry-run"]].concat(), [6, 3, 2, 1]);
    check(&replay, [7, 4, 2, 1]);
    check(&["pause", "picky"], [7, 4, 2, 1]);
    let reset = ["reset", "picky", "--to", "4", "--yes"];
    check(&reset, [7, 4, 2, 1]);
    check(&["resume", "picky"], [9, 5, 3, 1]);
    check(&["parked", "export"], [9, 5, 3, 1]);
    // Nothing else runs: the engine ends with it.
    scene.well(&["drain", "picky"]);
    assert_eq!(running.end().code(), 1, "something is parked");
    let rest = [9, 5, 3, 1];
    check(&["ps"], rest);
    let dry = check(&["parked", "drop", "--all", "--dry-run"], rest);
    assert_eq!(dry, "3 would be dropped");
    let running = scene.run();
    scene.mock.write(&[("f", "fine again")]);
    check(&["show", "picky"], [10, 6, 3, 1]);
    scene.well(&["stop", "picky"]);
    running.end();
    check(&["ps"], [10, 6, 3, 1]);
    let refused = scene.badly(&["parked", "retry", "--all", "--dry-run"], 1);
    assert!(
        refused.stderr.contains("runs no more"),
        "{}",
        refused.stderr
    );
    check(&["parked", "drop", "--all"], [10, 6, 0, 4]);
}

#[test]
fn the_editor_of_the_environment_changes_a_payload() {
    let scene = Scene::new();
    with_three_parked(&scene).kill();
    let id = "picky-1/kafka/t/0/0";
    let edit = |editor: &str| {
        let mut command = scene.place.evermill(["parked", "edit", id]);
        let ended = Running::start(command.env_remove("VISUAL").env("EDITOR", editor)).end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        ended.stdout
    };
    assert_eq!(edit("true"), "nothing was changed");
    assert!(edit("sed -i s/bad/fine/").contains("payload of 6 bytes"));
    assert!(scene.well(&["parked", "show", id]).contains("fine 1"));
}

#[test]
fn what_is_exported_is_one_json_object_a_line_with_its_payload() {
    let scene = Scene::new();
    let running = with_three_parked(&scene);
    let ended = scene.place.finish(["parked", "export"]);
    let lines = ended.json();
    assert_eq!(lines.len(), 3);
    assert!(ended.stderr.contains("3 exported"), "{}", ended.stderr);
    let event = &lines[1]["payload"][0];
    assert_eq!(
        (&event["key"], &event["value"], &event["position"]),
        (&"b".into(), &"bad {\"n\":2}".into(), &2.into())
    );
    assert_eq!(
        (&lines[1]["task"], &lines[1]["reason"]),
        (&"look".into(), &"failed".into())
    );
    end(running);
}

#[test]
fn what_a_triggered_dag_parked_runs_again_with_its_next_run() {
    const FLAKY: &str = r#"
import evermill, os

@evermill.task
def look():
    if not os.path.exists(os.environ["FLAG"]):
        raise ValueError("not yet")

@evermill.dag
def flaky():
    look()
"#;
    let place = Place::new();
    let file = place.file("flaky.py", FLAKY);
    let flag = place.folder().join("flag");
    let run = || {
        let mut command = place.evermill(["run".as_ref(), file.as_os_str()]);
        Running::start(command.env("FLAG", &flag)).end()
    };
    assert_eq!(run().code(), 1);
    std::fs::write(&flag, "").unwrap();
    assert_eq!(place.finish(["parked", "retry", "--all"]).code(), 0);
    let ended = run();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let stored = place.ps().remove(0);
    assert_eq!(
        (&stored["done"], &stored["state"]),
        (&1.into(), &"finished".into())
    );
}

#[test]
fn retry_and_drop_want_to_be_told_what() {
    let scene = Scene::new();
    std::fs::create_dir(scene.place.data_dir()).unwrap();
    for word in ["retry", "drop"] {
        let refused = scene.badly(&["parked", word], 2);
        assert!(refused.stderr.contains("--all"), "{}", refused.stderr);
    }
    assert_eq!(scene.well(&["parked", "ls"]), "nothing is parked");
}
