//! Reading again, and moving a position, by the built binary.

use evermill_http::testing::{Reply, Server};
use serde_json::Value;

use super::Scene;
use crate::process::{Running, eventually};

/// Notes each message; while there is a file `gate`, it waits.
const NOTES: &str = r#"
import os, time
import evermill

@evermill.task
def note(event):
    while os.path.exists("@GATE@"):
        time.sleep(0.01)
    with open("@OUT@", "a") as out:
        out.write(event.value.decode() + "\n")

@evermill.dag
def notes():
    note(evermill.kafka("t", auto_offset_reset="earliest", group_id="readers"))
"#;

struct Notes {
    scene: Scene,
    gate: std::path::PathBuf,
    out: std::path::PathBuf,
}

impl Notes {
    fn new() -> Self {
        let mut scene = Scene::new();
        let out = scene.place.file("out", "");
        let gate = out.with_file_name("gate");
        let path = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
        let text = NOTES.replace("@OUT@", &path(&out));
        scene.file = scene
            .place
            .file("notes.py", &text.replace("@GATE@", &path(&gate)));
        Self { scene, gate, out }
    }

    fn times(&self, message: &str) -> usize {
        let text = std::fs::read_to_string(&self.out).expect("what tasks wrote");
        text.lines().filter(|line| *line == message).count()
    }

    fn shut(&self) {
        std::fs::write(&self.gate, "").expect("a gate");
    }

    fn open(&self) {
        std::fs::remove_file(&self.gate).expect("a gate");
    }
}

fn messages(range: std::ops::Range<u32>) -> Vec<(String, String)> {
    range.map(|n| ("k".to_owned(), format!("m{n}"))).collect()
}

fn write(scene: &Scene, range: std::ops::Range<u32>) {
    let messages = messages(range);
    let pairs: Vec<(&str, &str)> = messages.iter().map(|(k, v)| (&**k, &**v)).collect();
    scene.mock.write(&pairs);
}

#[test]
fn g07_a_replay_runs_beside_live_events_survives_kill_9_and_ends_by_itself() {
    let notes = Notes::new();
    let scene = &notes.scene;
    write(scene, 0..300);
    let running = scene.run();
    scene.wait_for("done", 300);
    let said = scene.well(&[
        "replay",
        "notes",
        "--from",
        "100",
        "--to",
        "249",
        "--dry-run",
    ]);
    assert!(said.contains("at most 150 events"), "{said}");
    assert!(said.contains("nothing was begun"), "{said}");
    notes.shut();
    let said = scene.well(&["replay", "notes", "--from", "100", "--to", "249"]);
    assert!(said.contains("replay 1 of run notes-1"), "{said}");
    scene.place.wait_for_run(|run| run["in_flight"] != 0);
    let shown = scene.well(&["show", "notes"]);
    assert!(shown.contains("replay 1"), "{shown}");
    running.kill();
    notes.open();

    write(scene, 300..310);
    let ended = scene.start(&["--until-idle", "200ms", "--json"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let run = ended.only_run();
    assert_eq!(
        (&run["in"], &run["done"]),
        (&460.into(), &460.into()),
        "{run}"
    );
    for (message, least) in [
        ("m99", 1),
        ("m100", 2),
        ("m249", 2),
        ("m250", 1),
        ("m309", 1),
    ] {
        assert!(notes.times(message) >= least, "{message}");
    }
    assert_eq!((notes.times("m99"), notes.times("m250")), (1, 1));
    let listed = scene.well(&["replay", "ls", "notes"]);
    assert!(listed.contains("done"), "{listed}");
    assert!(listed.contains("150 of 150 (100 %)"), "{listed}");
}

#[test]
fn a_reset_needs_a_pause_and_a_yes_and_is_told_by_show() {
    let notes = Notes::new();
    let scene = &notes.scene;
    write(scene, 0..20);
    let running = scene.run();
    scene.wait_for("done", 20);
    let refused = scene.badly(&["reset", "notes", "--to", "15", "--yes"], 1);
    assert!(
        refused.stderr.contains("evermill pause notes-1"),
        "{}",
        refused.stderr
    );
    scene.well(&["pause", "notes"]);
    let looked = scene.badly(&["reset", "notes", "--to", "15"], 2);
    assert!(looked.stdout.contains("5 read again"), "{}", looked.stdout);
    assert!(looked.stderr.contains("--yes"), "{}", looked.stderr);
    scene.well(&["reset", "notes", "--to", "15", "--yes"]);
    scene.well(&["resume", "notes"]);
    scene.wait_for("done", 25);
    eventually("the last one again", || {
        (notes.times("m19") == 2).then_some(())
    });
    assert_eq!(notes.times("m14"), 1);
    let shown = scene.well(&["show", "notes"]);
    assert!(shown.contains("Positions moved by hand"), "{shown}");
    let detail: Value =
        serde_json::from_str(&scene.well(&["show", "notes", "--json"])).expect("JSON");
    assert_eq!(
        (&detail["resets"][0]["from"], &detail["resets"][0]["to"]),
        (&20.into(), &15.into())
    );
    drop(running);
}

/// Prices; writes outside unless it is a shadow.
const PRICES: &str = r#"
import evermill

@evermill.task
def price(event, ctx):
    if not ctx.shadow:
        with open("@OUT@", "a") as out:
            out.write("outside\n")
    return {"total": int(event.value) * 2}

@evermill.dag
def prices():
    evermill.to_kafka("t2", price(evermill.kafka("t", auto_offset_reset="earliest")), name="tell")
"#;

#[test]
fn a_shadow_runs_another_version_on_what_was_settled_and_tells_where_it_parts() {
    let scene = Scene::new();
    let out = scene.place.file("out", "");
    let text = PRICES.replace("@OUT@", out.to_str().expect("UTF-8"));
    let file = scene.place.file("prices.py", &text);
    let same = scene.place.file("same.py", &text);
    let other = text.replace("* 2", "* (2 if int(event.value) < 5 else 3)");
    let other = scene.place.file("other.py", &other);
    let connection = scene.mock.connection();
    let arguments = [
        "run",
        file.to_str().expect("UTF-8"),
        "--connection",
        &connection,
    ];
    let running = Running::start(&mut scene.place.evermill(arguments));
    write_numbers(&scene, 0..10);
    scene.place.wait_for_run(|run| run["done"] == 10);
    scene.well(&["stop", "prices"]);
    running.end();
    let outside = std::fs::read_to_string(&out).expect("what tasks wrote");

    let same = same.to_str().expect("UTF-8");
    let equal = scene.well(&["shadow", "prices", same]);
    let all = "10 equal, 0 different, 0 only in run prices-1, 0 only in the shadow";
    assert!(equal.contains(all), "{equal}");
    assert!(
        equal.contains("10 records for places outside were not sent"),
        "{equal}"
    );
    let other = other.to_str().expect("UTF-8");
    let apart = scene.badly(&["shadow", "prices", other], 1);
    assert!(
        apart.stdout.contains("5 equal, 5 different"),
        "{}",
        apart.stdout
    );
    assert!(
        apart.stdout.contains(r#"success {"total":10}"#),
        "{}",
        apart.stdout
    );
    assert!(
        apart.stdout.contains(r#"success {"total":15}"#),
        "{}",
        apart.stdout
    );
    let after = std::fs::read_to_string(&out).expect("what tasks wrote");
    assert_eq!(outside, after, "nothing outside is touched");
}

/// Asks a server, and notes its answer outside unless it is a shadow.
const ASKING: &str = r#"
dag: asking
sources: { in: { kafka: { topic: t, auto_offset_reset: earliest } } }
tasks:
  ask: { after: [in], http: { url: "@URL@/price" } }
  note: { after: [ask], run: "@RUN@[ -n \"$EVERMILL_SHADOW\" ] || echo outside >> @OUT@; cat", stdin: ask }
"#;

#[test]
fn a_shadow_makes_no_request_gives_tasks_what_the_run_was_answered_and_follows_it() {
    let scene = Scene::new();
    let out = scene.place.file("out", "");
    let server = Server::start(|_| Reply::new(200, r#"{"price":7}"#));
    let text = ASKING
        .replace("@URL@", &server.url())
        .replace("@OUT@", out.to_str().expect("UTF-8"));
    let file = scene.place.file("asking.yaml", &text.replace("@RUN@", ""));
    let same = scene
        .place
        .file("same.yaml", &text.replace("@RUN@", "true; "));
    let other = scene
        .place
        .file("other.yaml", &text.replace("@RUN@", "printf 1; "));
    let connection = scene.mock.connection();
    let file = file.to_str().expect("UTF-8");
    let arguments = ["run", file, "--connection", &connection];
    let running = Running::start(&mut scene.place.evermill(arguments));
    write_numbers(&scene, 0..4);
    scene.place.wait_for_run(|run| run["done"] == 4);

    let same = scene.well(&["shadow", "asking", same.to_str().expect("UTF-8")]);
    assert!(same.contains("4 equal, 0 different"), "{same}");
    assert!(same.contains("4 requests were not made"), "{same}");
    assert!(
        same.contains(&format!("ask: POST {}/price", server.url())),
        "{same}"
    );
    assert_eq!(server.seen().len(), 4, "the run's own");

    let other = other.to_str().expect("UTF-8");
    let arguments = ["shadow", "asking", other, "--follow", "--json"];
    let follower = Running::start(&mut scene.place.evermill(arguments));
    eventually("what had settled is compared", || {
        (follower.stdout_lines() == 4).then_some(())
    });
    write_numbers(&scene, 4..6);
    eventually("what settles is, too", || {
        (follower.stdout_lines() == 6).then_some(())
    });
    follower.signal(rustix::process::Signal::INT);
    let ended = follower.end();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let told = ended.json();
    assert_eq!(told[5]["task"], "note", "{told:?}");
    assert_eq!(
        (&told[6]["different"], &told[6]["not_asked"]),
        (&6.into(), &6.into()),
        "{told:?}"
    );
    assert_eq!(server.seen().len(), 6, "the run's own");
    let outside = std::fs::read_to_string(&out).expect("what tasks wrote");
    assert_eq!(outside.lines().count(), 6, "no shadow wrote");
    running.kill();
}

fn write_numbers(scene: &Scene, range: std::ops::Range<u32>) {
    let numbers: Vec<String> = range.map(|n| n.to_string()).collect();
    let pairs: Vec<(&str, &str)> = numbers.iter().map(|n| ("k", &**n)).collect();
    scene.mock.write(&pairs);
}
