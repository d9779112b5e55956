//! From a topic through a task into a topic: `evermill.to_kafka`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::Offset;
use rustix::process::Signal;

use crate::process::{PATIENCE, Place, Running, eventually};
use crate::topic::{self, Topic};

/// Doubles numbers of one topic into another; what is odd is left out.
fn dag(from: &Topic, to: &str, options: &str) -> String {
    let from = &from.name;
    format!(
        r#"
import evermill

@evermill.task
def double(event):
    n = int(event.text())
    return {{"n": n, "twice": 2 * n}} if n % 2 == 0 else None

@evermill.dag
def pipeline():
    doubled = double(evermill.kafka({from:?}, auto_offset_reset="earliest"))
    evermill.to_kafka({to:?}, doubled{options})
"#
    )
}

fn start(place: &Place, further: &[&str]) -> Running {
    let connection = format!("kafka={}", topic::address());
    let mut command = place.evermill(["run", "dag.py", "--json", "--connection", &connection]);
    Running::start(command.args(further))
}

/// A message that arrived: key, value, effect key.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrived {
    key: Option<String>,
    value: String,
    effect_key: String,
}

fn arrived(message: &BorrowedMessage<'_>) -> Arrived {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().expect("headers");
    let header = headers.get(0);
    assert_eq!(header.key, "evermill-effect-key");
    Arrived {
        key: message.key().map(text),
        value: text(message.payload().expect("a value")),
        effect_key: text(header.value.expect("a key")),
    }
}

/// Reads all that a topic of one partition holds.
fn read(topic: &Topic) -> Vec<Arrived> {
    let consumer: BaseConsumer = topic::client()
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic.name, 0, Offset::Beginning)
        .expect("an offset");
    consumer.assign(&list).expect("an assignment");
    let ends = consumer.fetch_watermarks(&topic.name, 0, PATIENCE);
    let count = usize::try_from(ends.expect("the ends").1).expect("a number");
    let deadline = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    while found.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count}", found.len());
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            found.push(arrived(&message.expect("a message")));
        }
    }
    found
}

#[test]
fn results_arrive_once_each_with_key_and_effect_key() {
    let (place, from, to) = (Place::new(), Topic::new(1), Topic::new(1));
    from.write(0, (0..1000).map(|n| n.to_string()));
    place.file("dag.py", &dag(&from, &to.name, r#", key="/n""#));
    let ended = start(&place, &["--until-idle", "200ms"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let run = ended.only_run();
    assert_eq!(
        (&run["done"], &run["skipped"]),
        (&500.into(), &500.into()),
        "{run}"
    );

    let mut messages = read(&to);
    let keys: BTreeSet<_> = messages.iter().map(|it| &it.effect_key).collect();
    assert_eq!((messages.len(), keys.len()), (500, 500), "once each");
    let n_of = |it: &Arrived| it.key.as_ref().and_then(|key| key.parse::<u64>().ok());
    messages.sort_by_key(n_of);
    for (n, message) in (0..1000).step_by(2).zip(&messages) {
        assert_eq!(message.key.as_deref(), Some(&n.to_string()[..]));
        assert_eq!(message.value, format!(r#"{{"n":{n},"twice":{}}}"#, 2 * n));
    }
}

#[test]
fn a_kill_loses_nothing_and_what_comes_twice_has_the_same_effect_key() {
    let (place, from, to) = (Place::new(), Topic::new(1), Topic::new(1));
    place.file("dag.py", &dag(&from, &to.name, r#", key="/n""#));
    for round in 0..4_u64 {
        let running = start(&place, &[]);
        from.write(0, (round * 1000..(round + 1) * 1000).map(|n| n.to_string()));
        // Killed while some are on their way.
        eventually("some are through", || {
            let runs = place.finish(["ps", "--json"]).json();
            let done = runs.first()?["done"].as_u64()?;
            (done >= round * 500 + 50).then_some(())
        });
        running.kill();
    }
    let ended = start(&place, &["--until-idle", "300ms"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], 2000);
    let mut by_effect: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for message in read(&to) {
        by_effect
            .entry(message.effect_key)
            .or_default()
            .insert(message.value);
    }
    assert_eq!(by_effect.len(), 2000, "each has arrived");
    assert!(by_effect.values().all(|values| values.len() == 1));
}

#[test]
fn under_an_order_messages_arrive_in_it() {
    let (place, from, to) = (Place::new(), Topic::new(1), Topic::new(1));
    from.write(0, (0..200).map(|n| n.to_string()));
    let text =
        dag(&from, &to.name, "").replace("@evermill.dag", "@evermill.dag(order='partition')");
    place.file("dag.py", &text);
    let ended = start(&place, &["--until-idle", "200ms"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let n_of = |it: Arrived| {
        serde_json::from_str::<serde_json::Value>(&it.value).expect("JSON")["n"].as_u64()
    };
    let found: Vec<_> = read(&to).into_iter().filter_map(n_of).collect();
    let wanted: Vec<u64> = (0..200).step_by(2).collect();
    assert_eq!(found, wanted);
}

#[test]
fn a_file_in_yaml_writes_what_a_command_printed() {
    let (place, from, to) = (Place::new(), Topic::new(1), Topic::new(1));
    from.write(0, ["a", "b"]);
    let (source, target) = (&from.name, &to.name);
    let file = place.file(
        "loud.yaml",
        &format!(
            "dag: loud\n\
             sources: {{ in: {{ kafka: {{ topic: {source}, auto_offset_reset: earliest }} }} }}\n\
             tasks:\n  shout: {{ after: in, run: tr a-z A-Z }}\n  \
             out: {{ after: shout, to_kafka: {{ topic: {target}, value_from: shout }} }}\n"
        ),
    );
    let connection = format!("kafka={}", topic::address());
    let mut command = place.evermill(["run"]);
    command
        .arg(file)
        .args(["--until-idle", "200ms", "--connection", &connection]);
    let ended = Running::start(&mut command).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let mut values: Vec<_> = read(&to).into_iter().map(|it| it.value).collect();
    values.sort();
    assert_eq!(values, ["A", "B"]);
}

#[test]
fn a_topic_that_is_missing_is_waited_for() {
    let (place, from) = (Place::new(), Topic::new(1));
    let name = format!("{}-out", from.name);
    from.write(0, ["2"]);
    let options = r#", retry_delay="100ms", retries=1000, timeout="2s""#;
    place.file("dag.py", &dag(&from, &name, options));
    let running = start(&place, &[]);
    place.wait_for_run(|run| run["tasks"][1]["failed"].as_u64() >= Some(1));
    let to = Topic::named(&name, 1);
    place.wait_for_run(|run| run["done"] == 1);
    assert_eq!(read(&to)[0].value, r#"{"n":2,"twice":4}"#);
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
}

#[test]
fn what_the_topic_never_takes_is_parked_and_says_why() {
    let (place, from, to) = (Place::new(), Topic::new(1), Topic::new(1));
    from.write(0, ["2", "4"]);
    place.file("dag.py", &dag(&from, &to.name, r#", key="/nobody""#));
    let ended = start(&place, &["--until-idle", "200ms"]).end();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_eq!(ended.only_run()["parked"], 2);
    let shown = place.finish(["parked", "ls", "pipeline"]);
    assert!(
        shown.stdout.contains("the value has nothing at /nobody"),
        "{}{}",
        shown.stdout,
        shown.stderr
    );
}
