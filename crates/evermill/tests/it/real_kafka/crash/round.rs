//! One round: a topic, a data directory, a producer that never stops, and lives of the engine, the
//! last of which ends well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::effects::{self, RunSeen, Seen};
use super::judge;
use super::lists;
use super::plan::{self, End, Turns};
use super::producer::Producer;
use crate::process::{PATIENCE, Place};
use crate::topic::{self, Topic};

const PARTITIONS: u64 = 3;
const SIGKILL: i32 = 9;
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// What has not come in this time after the engine was first seen is given up on for this life.
const UNMET: Duration = Duration::from_millis(2500);
/// An engine that does not answer for so long has stopped. A disk that stands still stops it, and
/// positions are told to the broker more often than that.
const STUCK: Duration = Duration::from_millis(1500);
const DAG: &str = include_str!("ledger_dag.py");

/// What rounds come to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    cycles: usize,
    kills: usize,
    /// Kills that hit work in flight.
    pub(super) in_flight: usize,
    messages: usize,
    lists: usize,
    lost: usize,
    doubled: usize,
    repeats: usize,
    parked: u64,
    pub(super) hit: BTreeSet<&'static str>,
    pub(super) faults: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.cycles += other.cycles;
        self.kills += other.kills;
        self.in_flight += other.in_flight;
        self.messages += other.messages;
        self.lists += other.lists;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.repeats += other.repeats;
        self.parked += other.parked;
        self.hit.extend(other.hit);
        self.faults.extend(other.faults);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cycles,
            kills,
            in_flight,
            messages,
            lists,
            lost,
            doubled,
            repeats,
            parked,
            hit,
            faults,
        } = self;
        write!(
            f,
            "{cycles} cycles, {kills} kills ({in_flight} hit work in flight), {messages} messages, \
             also in {lists} lists, {lost} lost, {doubled} doubled, {repeats} repeats of uncommitted attempts, {parked} parked \
             as suspects, {} failpoints hit, {} faults",
            hit.len(),
            faults.len()
        )
    }
}

/// A round under way.
pub(super) struct Round<'a> {
    place: Place,
    topic: String,
    turns: &'a Turns,
    sabotage: Option<&'a str>,
    producer: Option<Producer>,
    hints: BaseConsumer,
    life: u32,
    /// It did not answer in this life.
    stuck: bool,
    seen: Vec<Seen>,
    /// What the run of the second DAG looked like last.
    lists: Option<RunSeen>,
    tally: Tally,
}

impl<'a> Round<'a> {
    pub(super) fn new(number: u64, turns: &'a Turns, sabotage: Option<&'a str>) -> Self {
        let topic = format!("ledger-{}-{number}", std::process::id());
        drop(Topic::named(
            &topic,
            i32::try_from(PARTITIONS).expect("it is small"),
        ));
        let mut config = topic::client();
        config
            .set("group.id", &topic)
            .set("enable.auto.commit", "false");
        let place = Place::new();
        place.file("ledger_dag.py", DAG);
        Self {
            place,
            topic,
            turns,
            sabotage,
            producer: None,
            hints: config.create().expect("a consumer"),
            life: 0,
            stuck: false,
            seen: Vec::new(),
            lists: None,
            tally: Tally::default(),
        }
    }

    pub(super) fn run(mut self, plan: Vec<End>) -> Tally {
        self.producer = Some(Producer::start(&self.topic, PARTITIONS));
        for end in plan {
            self.live(end);
            if !self.tally.faults.is_empty() {
                break;
            }
        }
        let ledger = self.producer.take().expect("it was started above").end();
        self.settle();
        let (lists, effects): (Vec<_>, Vec<_>) = effects::read(self.place.folder())
            .into_iter()
            .partition(|effect| effect.positions.is_some());
        let of_lists = lists::judge(&ledger, &lists, self.lists.as_ref());
        self.tally.lists = of_lists.lists;
        self.tally.faults.extend(of_lists.faults);
        let verdict = judge::judge(&ledger, &effects, &self.seen);
        self.tally.messages = verdict.messages;
        self.tally.lost = verdict.lost;
        self.tally.doubled = verdict.doubled;
        self.tally.repeats = verdict.repeats;
        self.tally.parked = verdict.parked;
        self.tally.faults.extend(verdict.faults);
        self.tally
    }

    /// One life, from start to end.
    fn live(&mut self, end: End) {
        let (mut command, log) = self.command(&[]);
        let armed = match end {
            End::First(name) => Some((name, 1)),
            End::Failpoint(choice) => Some(self.turns.next(choice)),
            End::AfterStart(_) | End::AfterEffect(_) | End::Stalled(_) | End::Orderly => None,
        };
        if let Some((name, hit)) = armed {
            command.env("EVERMILL_FAILPOINT", format!("{name}:{hit}:abort"));
        }
        if let End::Stalled(commits) = end {
            let (name, hit, ms) = (plan::STALL, commits, PATIENCE.as_millis());
            command.env("EVERMILL_FAILPOINT", format!("{name}:{hit}:sleep:{ms}"));
        }
        let effects = self.effect_bytes();
        let engine = Engine {
            child: command.spawn().expect("evermill starts"),
        };
        self.tally.cycles += 1;
        let status = match (end, armed) {
            (End::AfterStart(ms), _) => self.kill_soon(engine, Duration::from_millis(ms)),
            (End::AfterEffect(ms), _) => {
                self.kill_at_work(engine, Duration::from_millis(ms), effects)
            }
            (End::Stalled(_), _) => self.kill_stalled(engine),
            (_, Some((name, _))) => self.until_failpoint(engine, name),
            (_, None) => self.orderly(engine),
        };
        self.judge_end(&format!("{end:?} {armed:?}"), status, &log);
        self.seen.push(Seen::Hints(self.broker_was_told()));
        if matches!(end, End::Stalled(_)) {
            self.look_at_store();
        }
    }

    /// `kill -9` so long after the start, wherever that hits.
    fn kill_soon(&mut self, mut engine: Engine, after: Duration) -> ExitStatus {
        let spawned = Instant::now();
        self.watch(&mut engine, after, |_| spawned.elapsed() >= after);
        self.kill(engine)
    }

    /// `kill -9` so long after its first effect, if that comes.
    fn kill_at_work(&mut self, mut engine: Engine, after: Duration, before: u64) -> ExitStatus {
        self.watch(&mut engine, UNMET, |round| round.effect_bytes() > before);
        self.watch(&mut engine, after, |_| false);
        self.kill(engine)
    }

    /// `kill -9` once its disk stands still, if it has committed so much.
    fn kill_stalled(&mut self, mut engine: Engine) -> ExitStatus {
        self.watch(&mut engine, 2 * UNMET, |round| round.stuck);
        self.kill(engine)
    }

    fn until_failpoint(&mut self, mut engine: Engine, name: &'static str) -> ExitStatus {
        let status = if plan::is_of_the_end(name) {
            Some(self.orderly(engine))
        } else if let Some(status) = self.watch(&mut engine, UNMET, |_| false) {
            Some(status)
        } else {
            self.kill(engine);
            None
        };
        let hit = status.filter(|status| status.signal() == Some(SIGKILL));
        if hit.is_some() {
            self.tally.kills += 1;
            self.note_in_flight();
            self.tally.hit.insert(name);
        } else {
            self.turns.missed(name);
        }
        // A life that was ended by us ended as planned.
        status.unwrap_or_else(|| ExitStatus::from_raw(SIGKILL))
    }

    fn orderly(&mut self, mut engine: Engine) -> ExitStatus {
        self.watch(&mut engine, UNMET, |round| round.sees_itself());
        engine.signal(Signal::TERM);
        engine.wait()
    }

    /// The engine's command in this life; its output goes to a file that is shown when it fails.
    fn command(&mut self, further: &[&str]) -> (Command, std::path::PathBuf) {
        self.life += 1;
        self.stuck = false;
        let connection = format!("kafka={}", topic::address());
        let arguments = [
            "run",
            "ledger_dag.py",
            "--json",
            "--workers",
            "2",
            "--connection",
            &connection,
        ];
        let mut command = self.place.evermill(arguments);
        let log = self.place.folder().join("engine.log");
        let file = std::fs::File::create(&log).expect("a log file");
        command.args(further).stdin(Stdio::null()).stderr(file);
        command.stdout(Stdio::null());
        command.env("LEDGER_FOLDER", self.place.folder());
        command
            .env("LEDGER_TOPIC", &self.topic)
            .env("LEDGER_LIFE", self.life.to_string());
        if let Some(sabotage) = self.sabotage {
            command.env("EVERMILL_SABOTAGE", sabotage);
        }
        (command, log)
    }

    /// Looks at the engine until it ends, the condition holds, or time is up; its status if it ended.
    /// Time is counted from when it is first seen, so that a slow machine does not kill every
    /// engine before it has done anything.
    fn watch(
        &mut self,
        engine: &mut Engine,
        longest: Duration,
        mut enough: impl FnMut(&mut Self) -> bool,
    ) -> Option<ExitStatus> {
        let spawned = Instant::now();
        let mut first_seen = None;
        while spawned.elapsed() < PATIENCE {
            if let Some(status) = engine.child.try_wait().expect("it can be asked") {
                return Some(status);
            }
            self.look();
            if first_seen.is_none() && self.last_run().is_some() {
                first_seen = Some(Instant::now());
            }
            let over = first_seen.is_some_and(|at| at.elapsed() >= longest);
            if over || enough(self) {
                return None;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        None
    }

    /// `kill -9`; it may have ended by itself, and then that is its status.
    fn kill(&mut self, engine: Engine) -> ExitStatus {
        if !self.stuck {
            self.look();
        }
        self.note_in_flight();
        self.tally.kills += 1;
        engine.signal(Signal::KILL);
        engine.wait()
    }

    /// Whether this life's end hits work in flight, as far as was seen.
    fn note_in_flight(&mut self) {
        if self.last_run().is_some_and(|run| run.in_flight > 0) {
            self.tally.in_flight += 1;
        }
    }

    /// A life ends as planned, or the engine is at fault.
    fn judge_end(&mut self, end: &str, status: ExitStatus, log: &std::path::Path) {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        // Exit code 1 is right when events are parked as suspects.
        let parked = status.code() == Some(1) && said.contains("parked after failure");
        if status.signal() != Some(SIGKILL) && status.code() != Some(0) && !parked {
            let tail: Vec<_> = said.lines().rev().take(20).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            let life = self.life;
            self.tally.faults.push(format!(
                "life {life} ({end}) ended with {status}:\n{}",
                tail.join("\n")
            ));
        }
    }

    /// The last life: everything is read and settles.
    fn settle(&mut self) {
        let (mut command, log) = self.command(&["--until-idle", "300ms"]);
        command.stdout(Stdio::piped());
        let output = command.output().expect("evermill starts");
        let lines = String::from_utf8_lossy(&output.stdout);
        let runs = lines.lines().map(serde_json::from_str);
        self.has_seen(runs.filter_map(Result::ok));
        self.judge_end("the last one", output.status, &log);
    }

    /// Asks the engine how it is; one that starts or ends does not answer.
    fn look(&mut self) {
        #[derive(Deserialize)]
        struct Answer {
            runs: Vec<RunSeen>,
        }
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.place.data_dir().join("control.sock"))?;
            stream.set_read_timeout(Some(STUCK))?;
            stream.write_all(
                b"GET /api/v1/runs HTTP/1.1\r\nhost: judge\r\nconnection: close\r\n\r\n",
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = match ask() {
            Ok(text) => text,
            Err(error) => {
                self.stuck |= error.kind() == ErrorKind::WouldBlock;
                return;
            }
        };
        let Some((_, body)) = text.split_once("\r\n\r\n") else {
            return;
        };
        let Ok(answer) = serde_json::from_str::<Answer>(body) else {
            return;
        };
        let settled = answer.runs.iter().map(|run| run.taken_in - run.in_flight);
        if let (Some(settled), Some(producer)) = (settled.min(), &self.producer) {
            producer.has_settled(settled);
        }
        self.has_seen(answer.runs);
    }

    /// What the store holds while no engine runs, which the next one would read on from at once.
    fn look_at_store(&mut self) {
        let runs = self.place.ps().into_iter().map(serde_json::from_value);
        self.has_seen(runs.map(|run| run.expect("ps tells of runs")));
    }

    fn has_seen(&mut self, runs: impl IntoIterator<Item = RunSeen>) {
        let life = self.life;
        for run in runs {
            if run.dag == "lists" {
                self.lists = Some(run);
            } else {
                self.seen.push(Seen::Run { life, run });
            }
        }
    }

    fn sees_itself(&self) -> bool {
        matches!(self.seen.last(), Some(Seen::Run { life, run }) if *life == self.life && run.taken_in > 0)
    }

    fn last_run(&self) -> Option<&RunSeen> {
        self.seen.iter().rev().find_map(|seen| match seen {
            Seen::Run { life, run } if *life == self.life => Some(run),
            _ => None,
        })
    }

    fn effect_bytes(&self) -> u64 {
        std::fs::metadata(self.place.folder().join("effects.jsonl")).map_or(0, |file| file.len())
    }

    /// The group's committed offsets, by lane.
    fn broker_was_told(&self) -> BTreeMap<String, u64> {
        let mut partitions = TopicPartitionList::new();
        for partition in 0..i32::try_from(PARTITIONS).expect("it is small") {
            partitions.add_partition(&self.topic, partition);
        }
        // A broker that has just begun does not know its groups yet, and says so.
        let begun = Instant::now();
        let told = loop {
            match self.hints.committed_offsets(partitions.clone(), PATIENCE) {
                Ok(told) => break told,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "the broker: {error}"),
            }
        };
        let told = told.elements().into_iter().filter_map(|element| {
            let offset = u64::try_from(element.offset().to_raw()?).ok()?;
            Some((
                format!("{}/{}", element.topic(), element.partition()),
                offset,
            ))
        });
        told.collect()
    }
}

/// An engine; it never outlives the test.
struct Engine {
    child: Child,
}

impl Engine {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid");
        // It may have ended by itself in this moment; its number is ours until it is waited for.
        if kill_process(pid, signal).is_err() {}
    }

    fn wait(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "the engine does not end");
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
