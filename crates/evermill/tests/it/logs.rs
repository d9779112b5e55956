//! What tasks printed, over the API and by command, from the built binary.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::process::{Place, Running, eventually};
use crate::served::Served;

const TALK: &str = "dag: talk\nsources: { go: { signal: go } }\ntasks:\n  say: { after: [go], run: \"sed 's/^/said /' >&2\" }\n";
const LOGS: &str = "/api/v1/runs/talk/logs";

fn talking(place: Place) -> Served {
    std::fs::create_dir_all(place.folder().join("dags")).unwrap();
    std::fs::write(place.folder().join("dags/talk.yaml"), TALK).unwrap();
    let served = Served::with(place, &[]);
    eventually("both DAGs run", || {
        (served.place.ps().len() == 2).then_some(())
    });
    served
}

fn texts(page: &Value) -> Vec<&str> {
    let entries = page["entries"].as_array().unwrap().iter();
    entries
        .map(|entry| entry["text"].as_str().unwrap())
        .collect()
}

fn say(served: &Served, words: &[&str]) {
    for word in words {
        served.send_to("talk", word);
        let said = format!("said \"{word}\"");
        served.wait_for(&format!("{LOGS}?limit=1"), |page| {
            texts(page) == [said.as_str()]
        });
    }
}

#[test]
fn what_was_printed_is_read_in_pages_from_either_end() {
    let served = talking(Place::new());
    let nothing = served.get(LOGS);
    assert_eq!((texts(&nothing).len(), &nothing["next"]), (0, &Value::Null));
    say(&served, &["one", "two", "three"]);
    let newest = served.get(&format!("{LOGS}?limit=2"));
    assert_eq!(texts(&newest), ["said \"three\"", "said \"two\""]);
    let entry = &newest["entries"][0];
    assert_eq!((&entry["task"], &entry["try"]), (&"say".into(), &1.into()));
    let next = newest["next"].as_str().unwrap();
    let older = served.get(&format!("{LOGS}?limit=2&cursor={next}"));
    assert_eq!(
        (texts(&older), &older["next"]),
        (vec!["said \"one\""], &Value::Null)
    );
    let on = served.get(&format!("{LOGS}?order=oldest&cursor={next}"));
    assert_eq!(texts(&on), ["said \"two\"", "said \"three\""]);
    let after = on["after"].as_str().unwrap();
    let rest = served.get(&format!("{LOGS}?order=oldest&cursor={after}"));
    assert_eq!((texts(&rest).len(), &rest["missed"]), (0, &false.into()));

    // An activation's lane and position, as history names them, find what its tasks printed.
    let past = served.wait_for("/api/v1/runs/talk/activations?limit=1", |past| {
        past["activations"][0]["position"] == entry["position"]
    });
    let last = &past["activations"][0];
    let (lane, position) = (last["lane"].as_str().unwrap(), &last["position"]);
    for narrow in [
        format!("lane={lane}&position={position}"),
        "task=say&text=three&level=info&try=1".to_owned(),
    ] {
        let found = served.get(&format!("{LOGS}?{narrow}"));
        assert_eq!(texts(&found), ["said \"three\""], "{narrow}");
    }
    let bad = [
        "level=warning",
        "task=other",
        "try=2",
        "until_ms=5",
        "key=none",
    ];
    for narrow in bad {
        assert_eq!(
            texts(&served.get(&format!("{LOGS}?{narrow}"))).len(),
            0,
            "{narrow}"
        );
    }
    for wrong in [
        "cursor=x",
        "cursor=1",
        "cursor=-1.0",
        "cursor=",
        "cursor=1.99999999999999999999",
        "level=loud",
        "order=up",
        "position=x",
        "limit=-1",
        "colour=red",
    ] {
        let answer = served.ask(&format!("GET {LOGS}?{wrong}"), &[], "");
        assert_eq!(answer.status, 400, "{wrong}");
        let name = wrong.split('=').next().unwrap();
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(name), "{wrong}: {detail}");
    }
    for end in ["logs", "logs/tail"] {
        let answer = served.ask(&format!("GET /api/v1/runs/nobody/{end}"), &[], "");
        assert_eq!(answer.json()["code"], "unknown_run");
    }
    // The command reads with the same reader.
    let ended = served
        .place
        .finish(["logs", "talk", "-n", "1", "--text", "t", "--json"]);
    let line: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(line["text"], "said \"three\"");
    let all = served.place.finish(["logs", "talk", "--all"]);
    assert_eq!(all.stdout.matches("said ").count(), 3, "{}", all.stdout);
    let none = served.place.finish(["logs", "talk", "--key", "other"]);
    assert!(none.stderr.contains("for this choice"), "{}", none.stderr);
}

#[test]
fn who_follows_a_log_gets_each_line_once_also_over_a_break() {
    let served = talking(Place::new());
    say(&served, &["before"]);
    let mut tail = served.listen_to(&format!("{LOGS}/tail?task=say"), None);
    assert_eq!(tail.next().name, "told", "what was before is not told");
    served.send_to("talk", "one");
    let lines = tail.next();
    assert_eq!(
        (lines.name.as_str(), texts(&lines.data)),
        ("lines", vec!["said \"one\""])
    );
    let last = tail.until(|event| event.name == "told").id.unwrap();
    assert_eq!(lines.id.as_ref(), Some(&last));
    drop(tail);
    say(&served, &["two", "three"]);
    let mut back = served.listen_to(&format!("{LOGS}/tail?task=say"), Some(&last));
    let lines = back.next();
    assert_eq!(texts(&lines.data), ["said \"two\"", "said \"three\""]);
    assert_eq!(lines.data["missed"], false);
    // From a page on, and somebody who looks for another task hears nothing of it.
    let mut of_page = served.listen_to(&format!("{LOGS}/tail?cursor={last}"), None);
    assert_eq!(texts(&of_page.next().data).len(), 2);
    let mut other = served.listen_to(&format!("{LOGS}/tail?cursor={last}&task=other"), None);
    assert_eq!(other.next().name, "told");
    for wrong in ["cursor=x", "order=oldest", "limit=5"] {
        let answer = served.ask(&format!("GET {LOGS}/tail?{wrong}"), &[], "");
        assert_eq!(answer.status, 400, "{wrong}");
    }
}

#[test]
fn half_a_record_that_a_kill_left_costs_no_other_line_over_the_api() {
    let served = talking(Place::new());
    say(&served, &["one"]);
    // What is not committed runs again, and says so again.
    served.wait_for("/api/v1/runs/talk", |run| run["done"] == 1);
    let run = served.get("/api/v1/runs/talk")["run"]
        .as_str()
        .unwrap()
        .to_owned();
    let place = served.end();
    let folder = std::fs::read_dir(place.data_dir().join("logs")).unwrap();
    let folder = folder.map(|entry| entry.unwrap().path());
    let segment = folder
        .map(|folder| folder.join("00000001.jsonl"))
        .find(|file| std::fs::read_to_string(file).is_ok_and(|text| text.contains("said")))
        .unwrap();
    let mut file = OpenOptions::new().append(true).open(segment).unwrap();
    file.write_all(b"{\"at_ms\":6,\"task\":\"say\",\"te")
        .unwrap();
    let served = talking(place);
    assert_eq!(texts(&served.get(LOGS)), ["said \"one\""]);
    assert_eq!(served.get("/api/v1/runs/talk")["run"], run.as_str());
    say(&served, &["two"]);
    let all = served.get(&format!("{LOGS}?order=oldest"));
    assert_eq!(texts(&all), ["said \"one\"", "said \"two\""]);
}

/// Where the log of the run may lie: another DAG runs as well, and runs are numbered as they begin.
fn folders(place: &Place) -> [std::path::PathBuf; 2] {
    ["talk-1", "talk-2"].map(|run| place.data_dir().join("logs").join(run))
}

#[test]
fn b08_a_full_disk_costs_lines_which_are_counted_and_no_task() {
    let place = Place::new();
    for folder in folders(&place) {
        std::fs::create_dir_all(&folder).unwrap();
        // As real as a full disk, for this one file.
        std::os::unix::fs::symlink("/dev/full", folder.join("00000001.jsonl")).unwrap();
    }
    let served = talking(place);
    served.send_to("talk", "one");
    served.wait_for("/api/v1/runs/talk", |run| run["done"] == 1);
    eventually("it is counted", || {
        let metrics = served.ask("GET /metrics", &[], "");
        let text = String::from_utf8(metrics.body).unwrap();
        text.contains("\nevermill_log_lines_lost_total 1\n")
            .then_some(())
    });
    let seen = served.get("/api/v1/runs/talk");
    assert_eq!((&seen["parked"], &seen["done"]), (&0.into(), &1.into()));
    served.wait_until_said("what tasks print is not kept at the moment: No space left on device");
}

#[test]
fn lines_older_than_the_age_go_while_they_are_read_and_numbers_go_on() {
    let place = Place::new();
    let then = SystemTime::now() - Duration::from_secs(3 * 24 * 3_600);
    for folder in folders(&place) {
        std::fs::create_dir_all(&folder).unwrap();
        for number in 1..=40 {
            let line = format!("{{\"at_ms\":5,\"level\":\"info\",\"text\":\"old {number}\"}}\n");
            let path = folder.join(format!("{number:08}.jsonl"));
            let mut file = File::create(path).unwrap();
            file.write_all(line.repeat(1_000).as_bytes()).unwrap();
            file.set_modified(then).unwrap();
        }
    }
    std::fs::create_dir_all(place.folder().join("dags")).unwrap();
    std::fs::write(place.folder().join("dags/talk.yaml"), TALK).unwrap();
    let served = Served::with(place, &["--retain-logs", "2d"]);
    let mut read = 0;
    eventually("all of it is gone", || {
        let page = served.get(&format!("{LOGS}?order=oldest&limit=1000"));
        read += page["entries"].as_array().unwrap().len();
        let newest = served.get(&format!("{LOGS}?limit=3"));
        (texts(&newest).is_empty() && texts(&page).is_empty()).then_some(())
    });
    assert!(read > 0, "it was never there");
    say(&served, &["new"]);
    let page = served.get(&format!("{LOGS}?order=oldest"));
    assert_eq!(texts(&page), ["said \"new\""]);
    assert!(page["after"].as_str().unwrap().starts_with("41."), "{page}");
}

#[test]
fn what_a_kill_cuts_off_of_a_log_costs_half_a_line_and_the_next_start_goes_on() {
    let place = Place::new();
    let text = "dag: talk\nsources: { go: { every: 20ms } }\ntasks:\n  say: { after: [go], run: \"seq 1000 1400 >&2\" }\n";
    let file = place.file("talk.yaml", text);
    let segment = place.data_dir().join("logs/talk-1/00000001.jsonl");
    let length = || std::fs::metadata(&segment).map_or(0, |found| found.len());
    for _ in 0..3 {
        let before = length();
        let running = Running::start(&mut place.evermill(["run".as_ref(), file.as_os_str()]));
        eventually("it prints", || (length() > before + 60_000).then_some(()));
        running.kill();
    }
    // A reader has every line that is whole; of each kill at most one is not.
    let text = std::fs::read(&segment).unwrap();
    let lines: Vec<&[u8]> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let whole = lines
        .iter()
        .filter(|line| serde_json::from_slice::<Value>(line).is_ok())
        .count();
    assert!(
        whole + 3 >= lines.len() && whole > 1_000,
        "{whole} of {}",
        lines.len()
    );
    let all = place.finish(["logs", "talk", "--all"]);
    assert_eq!(all.stdout.lines().count(), whole, "{}", all.stderr);
}

#[test]
fn what_workers_print_outside_any_run_is_read_over_the_api_and_by_command() {
    let place = Place::new();
    // A thread of its own goes on when its task has ended.
    let text = "import os, threading, time\nimport evermill\n\ndef babble():\n    while True:\n        os.write(1, b'of nobody\\n')\n        time.sleep(0.02)\n\n@evermill.task\ndef note(event):\n    threading.Thread(target=babble, daemon=True).start()\n\n@evermill.dag\ndef early():\n    note(evermill.signal('go'))\n";
    std::fs::create_dir(place.folder().join("dags")).unwrap();
    std::fs::write(place.folder().join("dags/early.py"), text).unwrap();
    let served = Served::with(place, &[]);
    eventually("both DAGs run", || {
        (served.place.ps().len() == 2).then_some(())
    });
    served.send_to("early", "one");
    let page = served.wait_for("/api/v1/workers/logs?text=of+nobody", |page| {
        !texts(page).is_empty()
    });
    let entry = &page["entries"][0];
    assert_eq!(
        (texts(&page)[0], &entry["task"]),
        ("of nobody", &Value::Null)
    );
    assert!(entry["worker"].is_u64(), "{entry}");
    let said = served
        .place
        .finish(["logs", "--workers", "--text", "of nobody"]);
    assert!(
        said.stdout.contains("of nobody"),
        "{}{}",
        said.stdout,
        said.stderr
    );
    let none = served
        .place
        .finish(["logs", "--workers", "--text", "never"]);
    assert!(
        none.stderr.contains("of workers for this choice"),
        "{}",
        none.stderr
    );
    let neither = served.place.finish(["logs"]);
    assert_eq!(neither.code(), 2, "{}", neither.stderr);
}
