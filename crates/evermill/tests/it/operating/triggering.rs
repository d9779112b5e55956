//! `trigger`: an activation by hand, kept before the command ends.

use crate::process::{Place, Running};

/// Its first activation goes on until a file is there.
const BY_HAND: &str = r#"
import os, time, evermill

@evermill.task
def work(dag_run):
    value = dag_run.conf.get("n")
    if value is None:
        while not os.path.exists("@GO@"):
            time.sleep(0.01)
    with open("@OUT@", "a") as out:
        out.write(f"{value}\n")

@evermill.dag
def by_hand():
    work()
"#;

struct Hand {
    place: Place,
    file: std::path::PathBuf,
    go: std::path::PathBuf,
    out: std::path::PathBuf,
}

impl Hand {
    fn new() -> Self {
        let place = Place::new();
        let (go, out) = (place.file("not-yet", ""), place.file("out", ""));
        std::fs::remove_file(&go).expect("just made");
        let text = BY_HAND
            .replace("@GO@", go.to_str().expect("UTF-8"))
            .replace("@OUT@", out.to_str().expect("UTF-8"));
        let file = place.file("by_hand.py", &text);
        Self {
            place,
            file,
            go,
            out,
        }
    }

    fn run(&self) -> Running {
        let file = self.file.to_str().expect("UTF-8");
        Running::start(&mut self.place.evermill(["run", file]))
    }

    fn out(&self) -> String {
        std::fs::read_to_string(&self.out).expect("what tasks wrote")
    }
}

#[test]
fn what_is_triggered_while_it_runs_or_rests_is_kept_and_runs_with_its_content() {
    let hand = Hand::new();
    let running = hand.run();
    hand.place.wait_for_run(|run| run["in"] == 1);
    let kept = hand
        .place
        .finish(["trigger", "by_hand", "--conf", "{\"n\": 1}"]);
    assert_eq!(
        (kept.code(), &kept.stdout[..]),
        (0, "by_hand-1/manual/manual/1 is kept"),
        "{}",
        kept.stderr
    );
    // Killed at once: what the command said is true nevertheless.
    running.kill();
    let kept = hand
        .place
        .finish(["trigger", "by_hand", "--conf", "{\"n\": 2}", "--json"]);
    assert_eq!(
        kept.stdout,
        "{\"activation\":\"by_hand-1/manual/manual/2\"}"
    );
    std::fs::write(&hand.go, "").expect("the sign to go on");
    let ended = hand.run().end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let out = hand.out();
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    // What had run at the kill and was not committed has run again.
    lines.dedup();
    assert_eq!(lines, ["1", "2", "None"]);
    assert_eq!(hand.place.ps()[0]["state"], "finished");
}

#[test]
fn what_cannot_be_triggered_is_refused_with_the_reason() {
    let hand = Hand::new();
    std::fs::write(&hand.go, "").expect("the sign to go on");
    assert_eq!(hand.run().end().code(), 0);
    let refused = hand
        .place
        .finish(["trigger", "by_hand", "--conf", "{n: 1}"]);
    assert_eq!(refused.code(), 2);
    assert!(
        refused.stderr.contains("--conf: want a JSON object"),
        "{}",
        refused.stderr
    );
    let refused = hand.place.finish(["trigger", "by_hnd"]);
    assert_eq!(refused.code(), 2);
    assert!(
        refused.stderr.contains("did you mean 'by_hand'?"),
        "{}",
        refused.stderr
    );
}

const TAKES: &str = r#"
import evermill

@evermill.task
def work(event):
    message = event.json() if event.value else None
    with open("@OUT@", "a") as out:
        out.write(f"{event.key} {message}\n")

@evermill.dag
def takes():
    work(evermill.signal("go"))
"#;

#[test]
fn a_signal_is_an_event_sent_while_it_runs_or_rests_and_its_id_counts_once() {
    let place = Place::new();
    let out = place.file("out", "");
    let text = TAKES.replace("@OUT@", out.to_str().expect("UTF-8"));
    let file = place.file("takes.py", &text);
    let start = || Running::start(&mut place.evermill(["run", file.to_str().expect("UTF-8")]));
    let running = start();
    place.wait_until_ready();
    let sent = place.finish(["signal", "takes", "go", "[1, 2]", "--key", "k", "--id", "1"]);
    assert_eq!(
        (sent.code(), sent.stdout.trim()),
        (0, "signal 'go' is kept"),
        "{}",
        sent.stderr
    );
    running.kill();
    let again = place.finish([
        "signal", "takes-1", "go", "[1, 2]", "--key", "k", "--id", "1",
    ]);
    assert!(again.stdout.contains("counts once"), "{}", again.stdout);
    let other = place.finish([
        "signal", "takes-1", "go", "[1, 3]", "--key", "k", "--id", "1",
    ]);
    assert_eq!(other.code(), 1, "{}", other.stdout);
    assert!(
        other.stderr.contains("came before with other content"),
        "{}",
        other.stderr
    );
    let sent = place.finish(["signal", "takes", "go"]);
    assert!(
        sent.stdout.contains("no engine runs"),
        "{}{}",
        sent.stdout,
        sent.stderr
    );
    let refused = place.finish(["signal", "takes", "stop"]);
    assert!(refused.stderr.contains("it takes go"), "{}", refused.stderr);
    let running = start();
    place.wait_for_run(|run| run["done"] == 2);
    let text = std::fs::read_to_string(&out).expect("what tasks wrote");
    let lines: std::collections::BTreeSet<&str> = text.lines().collect();
    assert_eq!(lines, ["None None", "b'k' [1, 2]"].into());
    running.kill();
}

const ASKS: &str = r#"
import evermill

@evermill.task
def ask(event):
    return event.text()

@evermill.task
def ship(ask, answer):
    with open("@OUT@", "a") as out:
        out.write(f"{ask} {answer}\n")

@evermill.dag
def asks():
    asked = ask(evermill.signal("order"))
    ship(asked, evermill.wait(signal="approve", after=asked))

@evermill.task
def late(event):
    with open("@OUT@", "a") as out:
        out.write("late\n")

@evermill.dag
def pauses():
    order = evermill.signal("order")
    first = late(order)
    first >> evermill.wait("300ms") >> late(order)
"#;

#[test]
fn a_task_that_waits_for_a_signal_gets_its_message_by_key_over_a_kill() {
    let place = Place::new();
    let out = place.file("out", "");
    let text = ASKS.replace("@OUT@", out.to_str().expect("UTF-8"));
    let file = place.file("asks.py", &text);
    let start = || Running::start(&mut place.evermill(["run", file.to_str().expect("UTF-8")]));
    let send = |arguments: &[&str]| {
        let sent = place.finish(["signal", "asks"].iter().chain(arguments));
        assert_eq!(sent.code(), 0, "{}", sent.stderr);
    };
    let running = start();
    place.wait_until_ready();
    for key in ["a", "b", "c"] {
        send(&["order", &format!("\"{key}\""), "--key", key]);
    }
    let waiting = |count: u64| {
        crate::process::eventually("those that wait", || {
            let shown = place.finish(["show", "asks", "--json"]);
            let run: serde_json::Value = serde_json::from_str(&shown.stdout).ok()?;
            (run["waiting"] == count).then_some(())
        });
    };
    waiting(3);
    send(&["approve", "{\"by\": \"me\"}", "--key", "b"]);
    waiting(2);
    running.kill();
    // To the one that has waited longest, sent while no engine runs.
    send(&["approve", "1"]);
    let running = start();
    waiting(1);
    send(&["approve", "--all"]);
    crate::process::eventually("the end of all", || {
        let text = std::fs::read_to_string(&out).expect("what tasks wrote");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        let expected = ["\"a\" 1", "\"b\" {'by': 'me'}", "\"c\" None"];
        (lines == expected).then_some(())
    });
    let refused = place.finish(["signal", "asks", "stop"]);
    assert!(
        refused.stderr.contains("it takes approve, order"),
        "{}",
        refused.stderr
    );
    running.kill();
}

#[test]
fn what_waits_for_an_answer_is_listed_with_what_it_brought_and_each_is_answered_by_itself() {
    let place = Place::new();
    let out = place.file("out", "");
    let text = ASKS.replace("@OUT@", out.to_str().expect("UTF-8"));
    let file = place.file("asks.py", &text);
    let start = || Running::start(&mut place.evermill(["run", file.to_str().expect("UTF-8")]));
    let running = start();
    place.wait_until_ready();
    for key in ["a", "b", "c"] {
        let sent = place.finish(["signal", "asks", "order", "7", "--key", key]);
        assert_eq!(sent.code(), 0, "{}", sent.stderr);
    }
    let waits = || -> Vec<serde_json::Value> {
        let listed = place.finish(["waits", "asks", "--signal", "approve", "--json"]);
        assert_eq!(listed.code(), 0, "{}", listed.stderr);
        listed.json()
    };
    let all = crate::process::eventually("all three wait", || {
        let all = waits();
        (all.len() == 3).then_some(all)
    });
    let [first, second, _] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(second["signal"], "approve");
    assert_eq!(second["payload"][0]["key"], "b");
    assert_eq!(second["payload"][0]["value"], "7");
    assert_eq!(
        second["results"],
        serde_json::json!([{"task": "ask", "result": "\"7\""}])
    );
    let id = |wait: &serde_json::Value| wait["id"].as_str().expect("an id").to_owned();
    let answer = |id: &str, more: &[&str]| {
        let line = ["signal", "asks", "approve", "1", "--to", id];
        place.finish(line.iter().chain(more))
    };
    // The one in the middle, not the one that has waited longest; a repeated id changes nothing.
    for said in ["is kept", "counts once"] {
        let sent = answer(&id(second), &["--id", "mail-1"]);
        assert!(sent.stdout.contains(said), "{}{}", sent.stdout, sent.stderr);
    }
    let left: Vec<String> = waits().iter().map(id).collect();
    assert!(left.len() == 2 && !left.contains(&id(second)), "{left:?}");
    let late = answer(&id(second), &[]);
    assert_eq!(late.code(), 1, "{}", late.stdout);
    assert!(late.stderr.contains("does not wait"), "{}", late.stderr);
    let source = place.finish(["signal", "asks", "order", "--to", &id(first)]);
    assert!(
        source.stderr.contains("goes to the source"),
        "{}",
        source.stderr
    );
    running.kill();
    // What it brought is there while no engine runs, and it can be answered then.
    assert_eq!(waits().iter().map(id).collect::<Vec<_>>(), left);
    assert_eq!(waits()[0]["payload"][0]["key"], "a");
    assert_eq!(answer(&id(first), &[]).code(), 0);
    let running = start();
    crate::process::eventually("two are done", || {
        let text = std::fs::read_to_string(&out).expect("what tasks wrote");
        (text.lines().filter(|line| line.ends_with(" 1")).count() == 2).then_some(())
    });
    assert_eq!(waits().len(), 1);
    running.kill();
}

#[test]
fn a_task_that_waits_for_a_time_lets_others_run_and_goes_on_by_itself() {
    let place = Place::new();
    let out = place.file("out", "");
    let text = ASKS.replace("@OUT@", out.to_str().expect("UTF-8"));
    let file = place.file("asks.py", &text);
    let running = Running::start(&mut place.evermill(["run", file.to_str().expect("UTF-8")]));
    place.wait_until_ready();
    for _ in 0..5 {
        assert_eq!(place.finish(["signal", "pauses", "order"]).code(), 0);
    }
    crate::process::eventually("all to be done", || {
        let runs = place.ps();
        let run = runs.iter().find(|run| run["dag"] == "pauses")?;
        (run["done"] == 5).then_some(())
    });
    let text = std::fs::read_to_string(&out).expect("what tasks wrote");
    assert_eq!(text.lines().count(), 10);
    running.kill();
}
