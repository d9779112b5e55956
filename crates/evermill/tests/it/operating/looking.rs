//! `show`, `logs`, `top`.

use rustix::process::Signal;
use serde_json::Value;

use super::Scene;
use crate::process::Running;

fn three_events(scene: &Scene) -> Running {
    let running = scene.run();
    scene
        .mock
        .write(&[("a", "one"), ("b", "bad two"), ("c", "three")]);
    scene
        .place
        .wait_for_run(|run| run["done"] == 2 && run["parked"] == 1);
    running
}

#[test]
fn show_explains_a_run_live_and_at_rest() {
    let scene = Scene::new();
    let running = three_events(&scene);
    let live = scene.well(&["show", "picky"]);
    for part in [
        "picky-1  running",
        "3 in = 2 done + 0 skipped + 1 parked + 0 dropped + 0 in flight",
        "t/0",
        "SUCCEEDED",
        "`evermill parked ls picky-1`",
        "ValueError: no bad two",
    ] {
        assert!(live.contains(part), "no {part:?} in {live}");
    }
    let json: Value = serde_json::from_str(&scene.well(&["show", "picky", "--json"])).unwrap();
    assert_eq!(json["failures"][0]["position"], 1, "{json}");
    assert_eq!(json["tasks"][1]["succeeded"], 2, "{json}");
    let nodes: Vec<&Value> = json["graph"]["nodes"].as_array().unwrap().iter().collect();
    assert_eq!(nodes[0]["kind"], "source", "{json}");
    let ids: Vec<&Value> = nodes[1..].iter().map(|node| &node["id"]).collect();
    assert_eq!(ids, ["look", "after"], "{json}");
    let edges = serde_json::json!([[0, 1], [1, 2]]);
    assert_eq!(json["graph"]["edges"], edges, "{json}");
    running.kill();
    let rest = scene.well(&["show", "picky-1"]);
    for part in ["no engine runs", "1 parked", "failed"] {
        assert!(rest.contains(part), "no {part:?} in {rest}");
    }
    scene.badly(&["show", "nobody"], 2);
}

#[test]
fn what_tasks_print_is_kept_with_task_and_event_and_outlives_the_engine() {
    let scene = Scene::new();
    let running = three_events(&scene);
    let all = scene.well(&["logs", "picky"]);
    assert!(all.contains("look t/0@0  saw one"), "{all}");
    assert!(all.contains("after t/0@2  after"), "{all}");
    running.kill();
    let of_event = scene.well(&["logs", "picky", "--event", "t/0@2", "--task", "look"]);
    assert!(of_event.trim_end().ends_with("saw three"), "{of_event}");
    assert_eq!(of_event.lines().count(), 1);
    let last = scene
        .place
        .finish(["logs", "picky", "-n", "1", "--json"])
        .json();
    assert_eq!((last.len(), &last[0]["try"]), (1, &1.into()), "{last:?}");
    let none = scene.place.finish(["logs", "picky", "--task", "nobody"]);
    assert_eq!((none.code(), none.stdout.as_str()), (0, ""));
    assert!(
        none.stderr.contains("nothing that was printed"),
        "{}",
        none.stderr
    );
}

#[test]
fn who_follows_the_log_hears_what_is_printed_later() {
    let scene = Scene::new();
    let running = three_events(&scene);
    let follower = Running::start(&mut scene.place.evermill(["logs", "picky", "-f", "-n", "1"]));
    // What was printed before is shown first: from then on it hears everything.
    follower.first_line();
    scene.mock.write(&[("d", "later")]);
    follower.wait_for_output("look t/0@3  saw later");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 1);
}

#[test]
fn top_ends_with_the_engine_it_watches() {
    let scene = Scene::new();
    let running = three_events(&scene);
    let top = Running::start(&mut scene.place.evermill(["top", "--every", "100ms"]));
    assert!(top.first_line().starts_with("DAG"));
    running.signal(Signal::TERM);
    running.end();
    let ended = top.end();
    assert_eq!(ended.code(), 0);
    assert!(
        ended.stderr.contains("the engine has ended"),
        "{}",
        ended.stderr
    );
    assert!(scene.well(&["top", "--once"]).contains("picky-1"));
    assert!(scene.well(&["top", "picky", "--once"]).contains("picky-1"));
    scene.badly(&["top", "nobody"], 2);
}

#[test]
fn the_past_is_told_event_by_event_live_and_after_a_kill() {
    let scene = Scene::new();
    let running = three_events(&scene);
    let mut running = Some(running);
    for _ in 0..2 {
        let recent = scene.well(&["show", "picky", "--recent"]);
        let events: Vec<&str> = recent.lines().skip(1).map(|line| &line[..5]).collect();
        assert_eq!(events.len(), 3, "{recent}");
        assert!(
            recent.contains("look failed, after upstream_failed"),
            "{recent}"
        );
        let problems = scene.well(&["show", "picky", "--recent", "5", "--problems"]);
        assert_eq!(problems.lines().count(), 2, "{problems}");
        let one = scene.well(&["show", "picky", "--at", "t/0@1"]);
        for part in [
            "ended     parked",
            "ValueError: no bad two",
            "key       b",
            "bad two",
        ] {
            assert!(one.contains(part), "no {part:?} in {one}");
        }
        let none = scene.well(&["show", "picky", "--at", "77"]);
        assert!(none.contains("nothing of that kind"), "{none}");
        if let Some(running) = running.take() {
            running.kill();
        }
    }
}

#[test]
fn an_engine_starts_while_others_look_at_its_store_all_the_time() {
    let scene = Scene::new();
    three_events(&scene).kill();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    scene.place.finish(["ps", "--json"]);
                }
            });
        }
        let ended = scene.start(&["--until-idle", "100ms"]).end();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        // One is parked.
        assert_eq!(ended.code(), 1, "{}", ended.stderr);
    });
}

/// Its first try fails, and its second one ends its worker.
const FRAGILE: &str = r#"
import os
import evermill

@evermill.task(retries=3, retry_delay=0.01)
def hold(event, ctx):
    if ctx.try_number == 1:
        raise ValueError("not at once")
    if ctx.try_number == 2:
        os._exit(3)

@evermill.dag
def fragile():
    hold(evermill.kafka("t", auto_offset_reset="earliest"))
"#;

#[test]
fn each_try_of_an_event_is_told_with_its_worker_also_one_that_its_worker_did_not_outlive() {
    let scene = Scene::new();
    std::fs::write(&scene.file, FRAGILE).unwrap();
    let running = scene.run();
    scene.mock.write(&[("a", "one")]);
    scene.place.wait_for_run(|run| run["done"] == 1);
    let table = scene.well(&["show", "fragile", "--attempts"]);
    assert_eq!(table.lines().count(), 4, "{table}");
    let lines = scene.well(&["show", "fragile", "--attempts", "--json"]);
    let tries: Vec<Value> = lines
        .lines()
        .rev()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let field = |name: &str| {
        tries
            .iter()
            .map(|one| one[name].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(field("state"), ["failed", "cut_off", "success"]);
    assert_eq!(field("try_number"), [1, 2, 3]);
    let pids: Vec<Option<u64>> = tries
        .iter()
        .map(|one| one["worker"]["pid"].as_u64())
        .collect();
    assert!(pids.iter().all(Option::is_some), "{lines}");
    assert_eq!(pids[0], pids[1], "{lines}");
    assert_ne!(pids[1], pids[2], "another worker took its place: {lines}");
    let times = |one: &Value| ["sent_ms", "started_ms", "ended_ms"].map(|name| one[name].as_u64());
    for one in [&tries[0], &tries[2]] {
        let [sent, started, ended] = times(one).map(Option::unwrap);
        assert!(sent <= started + 1 && started <= ended, "{one}");
    }
    assert_eq!(times(&tries[1])[1], None, "when it began is not known");
    assert!(
        table.contains("cut off") && table.contains("ended by itself with status 3"),
        "{table}"
    );
    let event = scene.well(&["show", "fragile", "--at", "t/0@0"]);
    assert!(
        event.contains("WORKER") && event.contains("not at once"),
        "{event}"
    );
    running.kill();
    let rest = scene.place.finish(["show", "fragile", "--attempts"]);
    assert!(rest.stderr.contains("no engine runs"), "{}", rest.stderr);
}
