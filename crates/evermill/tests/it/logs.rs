//! What tasks printed, over the API and by command, from the built binary.

use std::fs::OpenOptions;
use std::io::Write as _;

use serde_json::Value;

use crate::process::{Place, eventually};
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
