//! Going on where another consumer group stands: `from_group=`.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;

use crate::process::{Ended, PATIENCE, Place, Running};
use crate::topic::{self, Topic};

/// A DAG that takes `topic` over from `group`.
fn dag(topic: &Topic, group: &str, reset: &str) -> String {
    let name = &topic.name;
    format!(
        r#"
import evermill

@evermill.task
def take(event):
    print('took', event.text())

@evermill.dag
def pipeline():
    take(evermill.kafka({name:?}, from_group={group:?}, auto_offset_reset={reset:?}))
"#
    )
}

fn run(place: &Place) -> Ended {
    let connection = format!("kafka={}", topic::address());
    let arguments = ["run", "dag.py", "--json", "--until-idle", "200ms"];
    Running::start(
        place
            .evermill(arguments)
            .args(["--connection", &connection]),
    )
    .end()
}

fn consumer(group: &str) -> BaseConsumer {
    topic::client()
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer")
}

/// What a consumer loop does: reads `count` messages as a member of its group.
fn consume(consumer: &BaseConsumer, topic: &Topic, count: usize) -> Vec<String> {
    consumer.subscribe(&[&topic.name]).expect("a subscription");
    let mut taken = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while taken.len() < count {
        assert!(Instant::now() < deadline, "only {taken:?}");
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.expect("a message");
            let text = String::from_utf8_lossy(message.payload().unwrap_or_default());
            taken.push(text.into_owned());
            consumer
                .commit_message(&message, CommitMode::Sync)
                .expect("a commit");
        }
    }
    taken
}

/// Says where a group is that has no members.
fn commit(group: &str, topic: &Topic, offsets: &[(i32, i64)]) {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(&topic.name, *partition, Offset::Offset(*offset))
            .expect("an offset");
    }
    consumer(group)
        .commit(&list, CommitMode::Sync)
        .expect("a commit");
}

fn took(ended: &Ended) -> Vec<String> {
    let lines = ended
        .stderr
        .lines()
        .filter_map(|line| line.split_once("took "));
    let mut taken: Vec<String> = lines.map(|(_, text)| text.to_owned()).collect();
    taken.sort();
    taken
}

#[test]
fn a_consumer_loop_is_taken_over_without_loss_or_doubles_and_only_once() {
    let (place, topic) = (Place::new(), Topic::new(2));
    let messages: Vec<String> = (0..20).map(|n| format!("m{n:02}")).collect();
    topic.write(0, &messages[..10]);
    topic.write(1, &messages[10..]);
    let group = format!("{}-loop", topic.name);
    let by_loop = {
        let consumer = consumer(&group);
        consume(&consumer, &topic, 13)
    };

    // Committed offsets win over the first start's `latest`.
    place.file("dag.py", &dag(&topic, &group, "latest"));
    let ended = run(&place);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let mut all = [by_loop, took(&ended)].concat();
    all.sort();
    assert_eq!(all, messages, "each message once, by one of the two");
    assert!(!ended.stderr.contains("warning"), "{}", ended.stderr);

    // Whatever becomes of the old group, it is never asked again.
    commit(&group, &topic, &[(0, 0), (1, 0)]);
    topic.write(0, ["new"]);
    let ended = run(&place);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(took(&ended), ["new"]);
}

#[test]
fn a_partition_the_group_never_read_begins_as_the_dag_says_and_is_named() {
    let (place, topic) = (Place::new(), Topic::new(2));
    topic.write(0, ["a", "b"]);
    topic.write(1, ["c"]);
    let group = format!("{}-half", topic.name);
    commit(&group, &topic, &[(0, 1)]);
    place.file("dag.py", &dag(&topic, &group, "earliest"));
    let ended = run(&place);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(took(&ended), ["b", "c"]);
    let said = "has committed nothing for partition 1";
    assert_eq!(ended.stderr.matches(said).count(), 1, "{}", ended.stderr);
}

#[test]
fn a_group_that_is_not_there_ends_the_source_before_anything_is_committed() {
    let (place, topic) = (Place::new(), Topic::new(1));
    topic.write(0, ["a", "b"]);
    place.file("dag.py", &dag(&topic, "no-such-group", "latest"));
    let ended = run(&place);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let cure = "Correct the name; or leave from_group out to begin at auto_offset_reset=\"latest\"";
    assert!(
        ended.stderr.contains("no-such-group") && ended.stderr.contains(cure),
        "{}",
        ended.stderr
    );

    let group = format!("{}-right", topic.name);
    commit(&group, &topic, &[(0, 1)]);
    place.file("dag.py", &dag(&topic, &group, "latest"));
    let ended = run(&place);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(took(&ended), ["b"], "the wrong name has decided nothing");
}

#[test]
fn a_group_that_is_still_at_work_is_warned_of() {
    let (place, topic) = (Place::new(), Topic::new(1));
    topic.write(0, ["a", "b"]);
    let group = format!("{}-live", topic.name);
    let consumer = consumer(&group);
    assert_eq!(consume(&consumer, &topic, 1), ["a"]);
    place.file("dag.py", &dag(&topic, &group, "latest"));
    let ended = run(&place);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(took(&ended), ["b"]);
    let said = "is still at work, with 1 active member";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
}

#[test]
fn a_position_of_another_log_is_refused_with_the_cure() {
    let (place, topic) = (Place::new(), Topic::new(1));
    topic.write(0, ["a"]);
    let group = format!("{}-ahead", topic.name);
    commit(&group, &topic, &[(0, 50)]);
    place.file("dag.py", &dag(&topic, &group, "latest"));
    let ended = run(&place);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let said = "which ends at 1";
    assert!(
        ended.stderr.contains(said) && ended.stderr.contains("--reset-offsets"),
        "{}",
        ended.stderr
    );
}
