//! The source of files on a real folder, driven as the engine drives it.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use evermill_connectors::Environment;
use evermill_contract::manifest::SourceConfig;
use evermill_contract::source::{Delivery, Opened, Received, Receiver, SourceBudget};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// The engine's part: keeps what is delivered, hands memo and pages over at each beginning.
struct Engine {
    receiver: Box<dyn Receiver>,
    kept: Kept,
    events: Vec<Value>,
    degraded: Vec<String>,
    warnings: Arc<Mutex<Vec<String>>>,
    caught_up: usize,
}

/// What survives.
#[derive(Clone, Default)]
struct Kept {
    memo: Option<Bytes>,
    pages: BTreeMap<u64, Bytes>,
}

impl Engine {
    fn start(path: &Path, more: Value) -> Self {
        Self::resume(path, more, Kept::default())
    }

    fn resume(path: &Path, more: Value, kept: Kept) -> Self {
        let mut config =
            json!({"kind": "files", "path": path, "poke_interval_ms": 20, "settle_ms": 0});
        let more = more.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(more);
        let config: SourceConfig = serde_json::from_value(config).unwrap();
        let warnings: Arc<Mutex<Vec<String>>> = Arc::default();
        let said = Arc::clone(&warnings);
        let environment = Environment {
            connection: &|_| None,
            budget: SourceBudget::default(),
            start_date: None,
            diagnostics: Arc::new(move |_, text| said.lock().unwrap().push(text.to_owned())),
        };
        let Opened::Received(receiver) = evermill_connectors::open(&config, &environment).unwrap()
        else {
            panic!("it receives")
        };
        let mut engine = Self {
            receiver,
            kept,
            events: Vec::new(),
            degraded: Vec::new(),
            warnings,
            caught_up: 0,
        };
        engine.begin();
        engine
    }

    fn begin(&mut self) {
        self.receiver.recall(&self.kept.pages);
        self.receiver.begin(self.kept.memo.as_deref()).unwrap();
    }

    fn keep(&mut self, delivery: Delivery) {
        for event in &delivery.events {
            let value = event.value.as_deref().unwrap_or_default();
            self.events.push(serde_json::from_slice(value).unwrap());
        }
        for page in delivery.pages {
            match page.content {
                Some(content) => drop(self.kept.pages.insert(page.number, content)),
                None => drop(self.kept.pages.remove(&page.number)),
            }
        }
        self.kept.memo = delivery.memo.or(self.kept.memo.take());
        self.receiver.kept(delivery.ticket);
    }

    fn until(&mut self, wanted: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut out = Vec::new();
        while !wanted(self) {
            assert!(
                Instant::now() < deadline,
                "{:?} {:?}",
                self.events,
                self.degraded
            );
            self.receiver
                .receive(Duration::from_millis(100), &mut out)
                .unwrap();
            for news in out.drain(..) {
                match news {
                    Received::Delivery(delivery) => self.keep(delivery),
                    Received::Ask(inquiry) => panic!("no function is asked: {inquiry:?}"),
                    Received::CaughtUp => self.caught_up += 1,
                    Received::Degraded { reason } => self.degraded.push(reason),
                    Received::Recovered => self.degraded.push("recovered".to_owned()),
                }
            }
        }
    }

    /// Until everything that is there now was seen; the files of the events since the last time.
    fn look(&mut self) -> Vec<String> {
        // A look may have begun before the last change.
        let seen = self.caught_up + 2;
        self.until(|engine| engine.caught_up >= seen);
        let events = std::mem::take(&mut self.events);
        events.iter().map(|event| name(event).to_owned()).collect()
    }
}

fn name(event: &Value) -> &str {
    let path = event["path"].as_str().unwrap();
    path.rsplit_once('/').unwrap().1
}

#[test]
fn each_version_of_a_file_is_one_event_that_says_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.csv");
    fs::write(&file, "one").unwrap();
    let mut engine = Engine::start(dir.path(), json!({}));
    engine.until(|engine| engine.events.len() == 1);
    let event = engine.events[0].clone();
    assert_eq!(event["path"], file.to_str().unwrap());
    assert_eq!(event["size"], 3);
    assert!(
        event["modified"].as_str().unwrap().ends_with('Z'),
        "{event}"
    );
    engine.events.clear();
    assert!(engine.look().is_empty());
    fs::write(&file, "longer").unwrap();
    assert_eq!(engine.look(), ["a.csv"]);
    fs::remove_file(&file).unwrap();
    assert!(engine.look().is_empty(), "that one goes is no event");
}

#[test]
fn a_file_replaced_by_one_of_the_same_size_and_second_is_an_event() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.csv");
    let then = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    let write = |path: &Path, text: &str| {
        fs::write(path, text).unwrap();
        let opened = File::options().write(true).open(path).unwrap();
        opened.set_times(then).unwrap();
    };
    write(&file, "one");
    let mut engine = Engine::start(dir.path(), json!({}));
    assert_eq!(engine.look(), ["a.csv"]);
    let unfinished = dir.path().join("a.csv.part");
    write(&unfinished, "two");
    assert!(engine.look().is_empty());
    fs::rename(&unfinished, &file).unwrap();
    assert_eq!(engine.look(), ["a.csv"]);
}

#[test]
fn a_file_that_stays_as_it_is_for_the_settle_time_is_an_event_in_its_last_shape() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.csv");
    fs::write(&file, "half").unwrap();
    let mut engine = Engine::start(dir.path(), json!({"settle_ms": 50}));
    engine.until(|engine| !engine.events.is_empty());
    fs::write(&file, "the whole").unwrap();
    engine.until(|engine| engine.events.len() == 2);
    assert_eq!(engine.events[1]["size"], 9);
    // Nothing is told of one that has not stayed so for as long.
    let mut patient = Engine::start(dir.path(), json!({"settle_ms": 3_600_000}));
    let mut out = Vec::new();
    for _ in 0..20 {
        patient
            .receiver
            .receive(Duration::from_millis(20), &mut out)
            .unwrap();
    }
    let told = |news: &Received| !matches!(news, Received::Delivery(one) if one.events.is_empty());
    assert!(!out.iter().any(told), "{out:?}");
}

#[test]
fn twenty_thousand_files_are_one_event_each_over_restarts_and_little_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..20_000 {
        File::create(dir.path().join(number.to_string())).unwrap();
    }
    let mut engine = Engine::start(dir.path(), json!({}));
    engine.until(|engine| engine.events.len() >= 7_000);
    // A crash: what was delivered was kept.
    let mut seen = std::mem::take(&mut engine.events);
    let mut engine = Engine::resume(dir.path(), json!({}), engine.kept.clone());
    engine.until(|engine| engine.caught_up > 0);
    seen.append(&mut engine.events);
    assert_eq!(seen.len(), 20_000);
    let mut names: Vec<&str> = seen.iter().map(name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 20_000);
    let bytes: usize = engine.kept.pages.values().map(Bytes::len).sum();
    assert!(bytes < 20_000 * 25 + 1_000, "{bytes}");
    File::create(dir.path().join("more")).unwrap();
    let mut engine = Engine::resume(dir.path(), json!({}), engine.kept.clone());
    assert_eq!(engine.look(), ["more"]);
}

#[test]
fn what_was_delivered_and_not_kept_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "").unwrap();
    let mut engine = Engine::start(dir.path(), json!({}));
    engine.until(|engine| engine.events.len() == 1);
    engine.kept = Kept::default();
    engine.begin();
    engine.until(|engine| engine.events.len() == 2);
}

#[test]
fn what_is_there_at_the_first_look_can_be_passed_over_also_when_that_was_before_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("before"), "").unwrap();
    let asked = json!({"fire_on_start": false});
    let mut engine = Engine::start(dir.path(), asked.clone());
    assert!(engine.look().is_empty());
    fs::write(dir.path().join("away"), "").unwrap();
    let mut engine = Engine::resume(dir.path(), asked, engine.kept.clone());
    assert_eq!(engine.look(), ["away"]);
}

#[test]
fn a_folder_that_is_missing_is_said_and_one_that_goes_and_comes_back_fires_nothing_again() {
    let home = tempfile::tempdir().unwrap();
    let (dir, away) = (home.path().join("in"), home.path().join("away"));
    let mut engine = Engine::start(&dir, json!({}));
    engine.until(|engine| engine.degraded.len() == 1);
    assert!(
        engine.degraded[0].contains("there is nothing at"),
        "{:?}",
        engine.degraded
    );
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a"), "").unwrap();
    assert_eq!(engine.look(), ["a"]);
    assert_eq!(engine.degraded.len(), 2);
    fs::rename(&dir, &away).unwrap();
    engine.until(|engine| engine.degraded.len() == 3);
    // Mounted with nothing in it.
    fs::create_dir(&dir).unwrap();
    assert!(engine.look().is_empty());
    fs::remove_dir(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    fs::write(dir.join("b"), "").unwrap();
    assert_eq!(engine.look(), ["b"]);
}

#[test]
fn links_that_lead_out_are_passed_over_and_that_is_said_once() {
    let outside = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "").unwrap();
    for name in ["one", "two"] {
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join(name)).unwrap();
    }
    let mut engine = Engine::start(dir.path(), json!({}));
    assert!(engine.look().is_empty());
    let said = engine.warnings.lock().unwrap().clone();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("lead out of the folder"), "{said:?}");
}
