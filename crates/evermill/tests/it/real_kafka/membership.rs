//! Several processes, each with a data directory of its own, in one consumer group.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::Offset;
use rustix::process::Signal;

use crate::process::{PATIENCE, Place, Running, eventually};
use crate::topic::{self, Topic};

const PARTITIONS: i32 = 4;

/// A topic that a group reads, and what its members did.
struct Group {
    topic: Arc<Topic>,
    name: String,
    /// Members write down here what they do.
    log: PathBuf,
    _folder: tempfile::TempDir,
    flow: Option<Flow>,
}

/// Messages that keep coming, to every partition.
struct Flow {
    ends: Arc<AtomicBool>,
    /// Returns how many every partition has got.
    thread: JoinHandle<i64>,
}

/// Who did a message: by partition and position.
type Done = BTreeMap<(i32, i64), Vec<String>>;

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(flow) = &self.flow {
            flow.ends.store(true, Ordering::Relaxed);
        }
    }
}

impl Group {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let topic = Arc::new(Topic::new(PARTITIONS));
        let ends = Arc::new(AtomicBool::new(false));
        let flow = {
            let (topic, ends) = (Arc::clone(&topic), Arc::clone(&ends));
            std::thread::spawn(move || {
                let mut written = 0;
                while !ends.load(Ordering::Relaxed) {
                    for partition in 0..PARTITIONS {
                        topic.write(partition, (0..5).map(|n| (written + n).to_string()));
                    }
                    written += 5;
                    // Slower than one member, so that it is always about to catch up.
                    std::thread::sleep(Duration::from_millis(50));
                }
                written
            })
        };
        Self {
            name: format!("{}-group", topic.name),
            log: folder.path().join("done"),
            topic,
            _folder: folder,
            flow: Some(Flow { ends, thread: flow }),
        }
    }

    /// Ends the flow; returns how many messages every partition has got.
    fn end_flow(&mut self) -> i64 {
        let flow = self.flow.take().expect("it flows");
        flow.ends.store(true, Ordering::Relaxed);
        flow.thread.join().expect("all were written")
    }

    /// Starts a member in a place of its own.
    fn member(&self, place: &Place, who: &str) -> Running {
        let (topic, group) = (&self.topic.name, &self.name);
        place.file(
            "dag.py",
            &format!(
                r#"
import evermill, os, time

@evermill.task
def take(event):
    time.sleep(0.002)
    with open(os.environ["DONE"], "a") as log:
        log.write(f"{{os.environ['WHO']}} {{event.lane}} {{event.position}}\n")

@evermill.dag
def pipeline():
    take(evermill.kafka({topic:?}, group_id={group:?}, membership=True, auto_offset_reset="earliest"))
"#
            ),
        );
        let connection = format!("kafka={}?session.timeout.ms=6000", topic::address());
        let mut command = place.evermill(["run", "dag.py", "--workers", "2"]);
        command.args(["--json", "--connection", &connection]);
        Running::start(command.env("DONE", &self.log).env("WHO", who))
    }

    fn done(&self) -> Done {
        let mut done = Done::new();
        for line in std::fs::read_to_string(&self.log)
            .unwrap_or_default()
            .lines()
        {
            let mut words = line.split(' ');
            let (who, lane, position) = (words.next(), words.next(), words.next());
            let (_, partition) = lane.and_then(|lane| lane.rsplit_once('/')).expect("a lane");
            let position = position.expect("a position").parse().expect("a number");
            let key = (partition.parse().expect("a number"), position);
            done.entry(key)
                .or_default()
                .push(who.unwrap_or_default().to_owned());
        }
        done
    }

    /// Waits until every message was done by somebody.
    fn wait_until_all_done(&self, written: i64) -> Done {
        let all = usize::try_from(written * i64::from(PARTITIONS)).unwrap();
        eventually("all are done", || {
            let done = self.done();
            (done.len() == all).then_some(done)
        })
    }

    fn done_by(&self, who: &str) -> usize {
        let done = self.done();
        done.values().flatten().filter(|by| *by == who).count()
    }

    /// Waits until a member did some more.
    fn wait_for_more_by(&self, who: &str) {
        let before = self.done_by(who);
        eventually("a member takes part", || {
            (self.done_by(who) >= before + 50).then_some(())
        });
    }

    /// The partitions that a member reads, by its own word.
    fn lanes(place: &Place) -> usize {
        let runs = place.finish(["ps", "--json"]).json();
        let lanes = runs.first().map(|run| &run["sources"][0]["lanes"]);
        lanes
            .and_then(|lanes| lanes.as_array())
            .map_or(0, |lanes| lanes.len())
    }

    /// Where the group stands, by partition.
    fn committed(&self) -> BTreeMap<i32, i64> {
        let asker: BaseConsumer = topic::client()
            .set("group.id", &self.name)
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.topic.name, 0, PARTITIONS - 1);
        let answer = asker.committed_offsets(list, PATIENCE).expect("an answer");
        let offset = |offset| match offset {
            Offset::Offset(offset) => offset,
            _ => 0,
        };
        let elements = answer.elements();
        let positions = elements
            .iter()
            .map(|it| (it.partition(), offset(it.offset())));
        positions.collect()
    }
}

fn doubled(done: &Done) -> String {
    let mut text = String::new();
    for (key, by) in done.iter().filter(|(_, by)| by.len() > 1) {
        write!(text, "{key:?} {by:?} ").expect("text takes text");
    }
    text
}

fn wait_until_shared(members: [&Place; 2]) {
    eventually("the partitions are shared", || {
        let lanes = members.map(Group::lanes);
        (lanes == [2, 2]).then_some(())
    });
}

#[test]
fn c03_members_that_come_and_go_lose_nothing_and_double_nothing() {
    let mut group = Group::new();
    let (first, second) = (Place::new(), Place::new());
    let one = group.member(&first, "one");
    group.wait_for_more_by("one");

    // Joins in the midst of it: half of the partitions are handed on.
    let two = group.member(&second, "two");
    group.wait_for_more_by("two");
    wait_until_shared([&first, &second]);
    group.wait_for_more_by("one");

    // Leaves in the midst of it: the other gets all again.
    two.signal(Signal::TERM);
    let ended = two.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    eventually("all partitions are read by one", || {
        (Group::lanes(&first) == 4).then_some(())
    });
    group.wait_for_more_by("one");

    // Comes again, with positions of its own that the other has passed.
    let two = group.member(&second, "two");
    group.wait_for_more_by("two");
    wait_until_shared([&first, &second]);
    let written = group.end_flow();
    let done = group.wait_until_all_done(written);
    assert_eq!(doubled(&done), "");
    for member in [one, two] {
        member.signal(Signal::TERM);
        let ended = member.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
    }
    let ends: Vec<i64> = group.committed().into_values().collect();
    assert_eq!(ends, [written; 4], "the group knows all of it");
}

#[test]
fn c03_a_killed_member_loses_nothing_and_only_what_the_group_did_not_know_is_done_again() {
    let mut group = Group::new();
    let (first, second) = (Place::new(), Place::new());
    let one = group.member(&first, "one");
    let two = group.member(&second, "two");
    wait_until_shared([&first, &second]);
    group.wait_for_more_by("two");
    two.kill();
    let known = group.committed();
    eventually("all partitions are read by one", || {
        (Group::lanes(&first) == 4).then_some(())
    });

    // Comes again: what it had in flight was done meanwhile, and is not done once more.
    let two = group.member(&second, "two");
    group.wait_for_more_by("two");
    wait_until_shared([&first, &second]);
    let written = group.end_flow();
    let done = group.wait_until_all_done(written);
    for ((partition, position), by) in done.iter().filter(|(_, by)| by.len() > 1) {
        assert!(
            *position >= known[partition] && by[..] == ["two", "one"],
            "{partition}@{position} was done by {by:?}, and the group stood at {}",
            known[partition]
        );
    }
    for member in [one, two] {
        member.signal(Signal::TERM);
        let ended = member.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
    }
}

/// Row C04: a member is stopped for so long that the group gives its partitions away, and goes on as if they
/// were its own. What it had begun may be done twice; the group's positions are not moved back by it.
#[test]
fn c04_a_member_that_was_frozen_and_thinks_it_owns_its_partitions_loses_nothing() {
    let mut group = Group::new();
    let (first, second) = (Place::new(), Place::new());
    let one = group.member(&first, "one");
    let two = group.member(&second, "two");
    wait_until_shared([&first, &second]);
    group.wait_for_more_by("two");
    two.signal(Signal::STOP);
    let known = group.committed();
    eventually("all partitions are read by one", || {
        (Group::lanes(&first) == 4).then_some(())
    });
    group.wait_for_more_by("one");
    let before = group.committed();
    two.signal(Signal::CONT);
    wait_until_shared([&first, &second]);
    group.wait_for_more_by("two");
    let written = group.end_flow();
    let done = group.wait_until_all_done(written);
    for ((partition, position), by) in done.iter().filter(|(_, by)| by.len() > 1) {
        assert!(
            *position >= known[partition] && by.len() == 2,
            "{partition}@{position} was done by {by:?}, and the group stood at {}",
            known[partition]
        );
    }
    for member in [one, two] {
        member.signal(Signal::TERM);
        let ended = member.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
    }
    let ends = group.committed();
    assert!(before.iter().all(|(partition, at)| ends[partition] >= *at));
    let ends: Vec<i64> = ends.into_values().collect();
    assert_eq!(ends, [written; 4], "the group knows all of it");
}

#[test]
fn a_group_that_shares_in_another_way_is_said() {
    let group = Group::new();
    let other: BaseConsumer = topic::client()
        .set("group.id", &group.name)
        .set("partition.assignment.strategy", "range")
        .create()
        .expect("a consumer");
    other
        .subscribe(&[&group.topic.name])
        .expect("a subscription");
    eventually("the other is a member", || {
        drop(other.poll(Duration::from_millis(100)));
        let assigned = other.assignment().expect("an assignment");
        (assigned.count() > 0).then_some(())
    });
    let place = Place::new();
    let member = group.member(&place, "one");
    member.wait_for_lines("cooperative-sticky", 1);
}
