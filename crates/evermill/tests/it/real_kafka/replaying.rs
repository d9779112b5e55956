//! Reading again from the real broker: times, lanes, and whose offsets stay where they are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::process::{Place, Running, eventually};
use crate::topic::{self, Topic};

const DAG: &str = r#"
import evermill

@evermill.task
def take(event):
    print("took", event.text())

@evermill.dag
def again():
    take(evermill.kafka("@TOPIC@", auto_offset_reset="earliest", group_id="@TOPIC@-group"))
"#;

fn committed(topic: &Topic) -> Option<i64> {
    let group = format!("{}-group", topic.name);
    let mut config = topic::client();
    let consumer: BaseConsumer = config.set("group.id", group).create().expect("a consumer");
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&topic.name, 0);
    let answer = consumer
        .committed_offsets(asked, Duration::from_secs(10))
        .ok()?;
    answer.elements()[0].offset().to_raw()
}

fn now_ms() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_millis()
}

#[test]
fn g07_a_replay_from_a_time_reads_what_came_since_and_moves_no_offset_of_the_group() {
    let (place, topic) = (Place::new(), Topic::new(2));
    topic.write(0, ["old-0", "old-1"]);
    topic.write(1, ["old-2"]);
    // The broker tells times apart by the millisecond.
    let before = now_ms();
    eventually("the clock goes on", || {
        (now_ms() > before + 1).then_some(())
    });
    let time = jiff::Timestamp::from_millisecond(i64::try_from(before + 1).expect("a time"));
    topic.write(0, ["new-0"]);
    topic.write(1, ["new-1", "new-2"]);
    place.file("dag.py", &DAG.replace("@TOPIC@", &topic.name));
    let connection = format!("kafka={}", topic::address());
    let running =
        Running::start(&mut place.evermill(["run", "dag.py", "--connection", &connection]));
    place.wait_for_run(|run| run["done"] == 6);
    eventually("the hint to the group", || {
        (committed(&topic) == Some(3)).then_some(())
    });

    let time = time.expect("a time").to_string();
    let looked = place.finish(["replay", "again", "--from", &time, "--dry-run"]);
    assert_eq!(looked.code(), 0, "{}", looked.stderr);
    assert!(
        looked.stdout.contains("at most 3 events"),
        "{}",
        looked.stdout
    );
    let refused = place.finish(["replay", "again", "--from", "1"]);
    assert!(refused.stderr.contains("--lane"), "{}", refused.stderr);
    let begun = place.finish(["replay", "again", "--from", &time]);
    assert_eq!(begun.code(), 0, "{}", begun.stderr);
    place.wait_for_run(|run| {
        run["done"] == 9 && run["replays"].as_array().is_some_and(Vec::is_empty)
    });
    for (message, times) in [("old-0", 1), ("old-2", 1), ("new-0", 2), ("new-2", 2)] {
        running.wait_for_lines(&format!("took {message}"), times);
    }
    assert_eq!(committed(&topic), Some(3));
    let lane = format!("{}/1", topic.name);
    let one = place.finish(["replay", "again", "--from", "earliest", "--lane", &lane]);
    assert_eq!(one.code(), 0, "{}", one.stderr);
    place.wait_for_run(|run| run["done"] == 12);

    // The end of a topic is an end also where the run stands there and nothing more comes.
    let listed = place.finish(["replay", "ls", "again", "--json"]);
    let states: Vec<_> = listed
        .json()
        .into_iter()
        .map(|it| it["state"].clone())
        .collect();
    assert_eq!(states.len(), 2, "{states:?}");
    place.finish(["pause", "again"]);
    let moved = place.finish(["reset", "again", "--to", &time, "--yes"]);
    assert_eq!(moved.code(), 0, "{}", moved.stderr);
    place.finish(["resume", "again"]);
    place.wait_for_run(|run| run["done"] == 15);
}
