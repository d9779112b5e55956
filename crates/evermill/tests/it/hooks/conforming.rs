//! What every way in for events keeps, whoever it is for: rows E01 to E05.
//!
//! A way in that is new gets a line in [`WAYS`] and a DAG in [`DAGS`].

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{listening_at, send, start_at};
use crate::process::{Place, Running};

/// A DAG for each way in. Each notes what it was given.
const DAGS: &str = r#"
import evermill

def note(way, n):
    with open("@OUT@", "a") as out:
        out.write(f"{way} {n}\n")

@evermill.task
def plain(event):
    note("plain", event.json()["n"])

@evermill.dag
def hooked():
    plain(evermill.webhook(name="in"))

@evermill.task
def cloudy(event):
    note("structured", event.json()["n"])

@evermill.dag
def clouds():
    cloudy(evermill.webhook(name="in"))

@evermill.task(retries=1, retry_delay="1h")
def work(dag_run):
    n = dag_run.conf.get("n")
    # The one that `run` gives stays: with it the DAG would be over, and take no more.
    if n is None:
        raise ValueError("later")
    note("trigger", n)

@evermill.dag
def nightly():
    work()

@evermill.task
def told(event):
    note("signal", event.json()["n"])

@evermill.dag
def flow():
    told(evermill.signal("go"))
"#;

/// A way in for events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Structured,
    Trigger,
    Signal,
}

const WAYS: [Way; 4] = [Way::Plain, Way::Structured, Way::Trigger, Way::Signal];

impl Way {
    fn dag(self) -> &'static str {
        match self {
            Self::Plain => "hooked",
            Self::Structured => "clouds",
            Self::Trigger => "nightly",
            Self::Signal => "flow",
        }
    }

    /// As its task notes it.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Structured => "structured",
            Self::Trigger => "trigger",
            Self::Signal => "signal",
        }
    }

    /// Events that come in without anybody sending any, and stay: `run` gives a DAG without sources one.
    fn own(self) -> u64 {
        u64::from(self == Self::Trigger)
    }

    /// Sends `n` under a key; its status, and how many were kept and repeated.
    fn send(self, root: &str, key: Option<&str>, n: u64) -> Option<(u16, [u64; 2])> {
        let path = match self {
            Self::Plain => "hooks/hooked/in",
            Self::Structured => "hooks/clouds/in",
            Self::Trigger => "api/v1/dags/nightly/trigger",
            Self::Signal => "api/v1/runs/flow/signals/go",
        };
        let content = json!({"n": n});
        let (headers, body) = match self {
            Self::Structured => {
                let event = json!({"specversion": "1.0", "id": key.unwrap(), "source": "/s", "type": "t", "data": content});
                (
                    vec![("content-type", "application/cloudevents+json")],
                    event,
                )
            }
            _ => (
                key.map(|key| ("idempotency-key", key))
                    .into_iter()
                    .collect(),
                content,
            ),
        };
        let response = send(&format!("{root}/{path}"), &headers, &body.to_string()).ok()?;
        let said: Value = serde_json::from_slice(&response.body).unwrap();
        let kept = match &said["activation"] {
            Value::String(_) => Some(1),
            _ => said["kept"].as_u64(),
        };
        let counts = [kept.unwrap_or(0), said["repeated"].as_u64().unwrap_or(0)];
        Some((response.status, counts))
    }
}

struct Scene {
    place: Place,
    text: String,
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        let out = place.file("out", "");
        let text = DAGS.replace("@OUT@", out.to_str().unwrap());
        Self { place, text }
    }

    fn start(&self, failpoint: Option<&str>) -> (Running, String) {
        let running = start_at(&self.place, &self.text, failpoint);
        let root = listening_at(&running);
        for way in WAYS {
            self.wait_for(way, |_| true);
        }
        (running, root)
    }

    fn wait_for(&self, way: Way, wanted: impl Fn(&Value) -> bool) -> Value {
        self.place
            .wait_for_run(|run| run["dag"] == way.dag() && wanted(run))
    }

    /// Waits until a way's DAG has done `count` events that were sent and nothing else came in.
    fn wait_for_done(&self, way: Way, count: u64) {
        let run = self.wait_for(way, |run| run["done"] == count);
        assert_eq!(run["in"], count + way.own(), "{way:?}: {run}");
    }

    /// How often each number was noted.
    fn noted(&self, way: Way) -> BTreeMap<String, usize> {
        let text = std::fs::read_to_string(self.place.folder().join("out")).unwrap();
        let mut noted = BTreeMap::new();
        for line in text.lines() {
            let (of, n) = line.split_once(' ').unwrap();
            if of == way.name() {
                *noted.entry(n.to_owned()).or_default() += 1;
            }
        }
        noted
    }
}

fn numbered(range: std::ops::Range<u64>) -> BTreeMap<String, usize> {
    range.map(|n| (n.to_string(), 1)).collect()
}

/// Rows E02 and E04: a key counts once, over restarts and kills; without one every request counts.
#[test]
fn e02_e04_a_key_counts_once_over_restarts_and_without_one_each_request_does() {
    let scene = Scene::new();
    let (running, root) = scene.start(None);
    for way in WAYS {
        for n in 0..3 {
            let key = format!("k{n}");
            let first = way.send(&root, Some(&key), n);
            assert_eq!(first, Some((200, [1, 0])), "{way:?}");
            let again = way.send(&root, Some(&key), n);
            assert_eq!(again, Some((200, [0, 1])), "{way:?}");
        }
        scene.wait_for_done(way, 3);
    }
    running.kill();
    let (running, root) = scene.start(None);
    for way in WAYS {
        let again = way.send(&root, Some("k1"), 1);
        assert_eq!(again, Some((200, [0, 1])), "{way:?} after a kill");
        scene.wait_for_done(way, 3);
        assert_eq!(scene.noted(way), numbered(0..3), "{way:?}");
    }
    for way in [Way::Plain, Way::Trigger, Way::Signal] {
        for _ in 0..3 {
            let sent = way.send(&root, None, 7);
            assert_eq!(
                sent,
                Some((200, [1, 0])),
                "{way:?}: no key tells them apart"
            );
        }
        scene.wait_for_done(way, 6);
        assert_eq!(scene.noted(way)["7"], 3, "{way:?}");
    }
    drop(running);
}

/// Row E03: the same key with another body is told apart from a repeat, and the first one stays.
#[test]
fn e03_a_key_that_comes_with_another_body_is_refused_and_the_first_one_kept() {
    let scene = Scene::new();
    let (running, root) = scene.start(None);
    for way in WAYS {
        assert_eq!(
            way.send(&root, Some("k"), 1),
            Some((200, [1, 0])),
            "{way:?}"
        );
        let other = way.send(&root, Some("k"), 2);
        assert_eq!(other, Some((409, [0, 0])), "{way:?}");
        assert_eq!(
            way.send(&root, Some("k"), 1),
            Some((200, [0, 1])),
            "{way:?}"
        );
        scene.wait_for_done(way, 1);
    }
    running.kill();
    let (running, root) = scene.start(None);
    for way in WAYS {
        let other = way.send(&root, Some("k"), 2);
        assert_eq!(other, Some((409, [0, 0])), "{way:?} after a kill");
        scene.wait_for_done(way, 1);
        assert_eq!(scene.noted(way), numbered(1..2), "{way:?}");
    }
    drop(running);
}

/// Row E05: whoever of many is first is kept, the others are told that it was.
#[test]
fn e05_a_hundred_at_once_under_one_key_are_one_activation() {
    let scene = Scene::new();
    let (running, root) = scene.start(None);
    for way in WAYS {
        let answers: Vec<_> = std::thread::scope(|scope| {
            let ask = || loop {
                // More than the connections that are answered at once: come again.
                match way.send(&root, Some("one"), 1) {
                    Some((200, counts)) => return counts,
                    None | Some((503, _)) => std::thread::yield_now(),
                    other => panic!("{way:?}: {other:?}"),
                }
            };
            let threads: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
            let ends = threads.into_iter().map(|thread| thread.join().unwrap());
            ends.collect()
        });
        let kept: u64 = answers.iter().map(|[kept, _]| kept).sum();
        let repeated: u64 = answers.iter().map(|[_, repeated]| repeated).sum();
        assert_eq!((kept, repeated), (1, 99), "{way:?}");
        scene.wait_for_done(way, 1);
        assert_eq!(scene.noted(way), numbered(1..2), "{way:?}");
    }
    drop(running);
}

/// Rows E01 and E02: killed before the commit, nobody heard 2xx and nothing is there; killed behind it and
/// before the answer, the same request again is a repeat. Either way it is done once.
#[test]
fn e01_e02_a_kill_on_either_side_of_the_commit_leaves_a_request_that_may_be_sent_again() {
    for way in WAYS {
        // Before the commit, and after it but before the answer.
        for (step, kept_before) in [("inbox.accepted", false), ("inbox.fed", true)] {
            let scene = Scene::new();
            let hit = 1 + WAYS.iter().map(|way| way.own()).sum::<u64>();
            let (running, root) = scene.start(Some(&format!("{step}:{hit}:abort")));
            let answered = way.send(&root, Some("k"), 1);
            assert_eq!(answered, None, "{way:?} {step}: nobody has heard");
            assert_eq!(running.end().status.code(), None, "{way:?} {step}");
            let (running, root) = scene.start(None);
            let expected = if kept_before { [0, 1] } else { [1, 0] };
            let again = way.send(&root, Some("k"), 1);
            assert_eq!(again, Some((200, expected)), "{way:?} {step}");
            scene.wait_for_done(way, 1);
            assert_eq!(scene.noted(way), numbered(1..2), "{way:?} {step}");
            drop(running);
        }
    }
}
