//! The Kafka source against librdkafka's mock cluster, in this process.

use evermill_connectors::kafka::DevKafka;
use evermill_contract::source::conformance::{Driver, World, check_all, numbered};
use evermill_contract::source::{FirstPosition, LaneName, Source, SourceError, SourceEvent};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::kafka_world::{PATIENCE, Record, Topic, client};

fn topic_on(broker: DevKafka, name: &str, lanes: usize) -> Topic {
    let mut topic = Topic::new(broker.bootstrap(), broker.connection(), name, lanes);
    topic.dev = Some(broker);
    topic
}

fn topic(name: &str, lanes: u32) -> Topic {
    let broker = DevKafka::start(&[(name, lanes)], None).expect("a broker");
    topic_on(broker, name, lanes as usize)
}

fn degraded(driver: &Driver) -> Vec<&str> {
    let reasons = driver.said.iter().filter_map(|event| match event {
        SourceEvent::Degraded { reason } => Some(reason.as_str()),
        _ => None,
    });
    reasons.collect()
}

fn recovered(driver: &Driver) -> bool {
    driver
        .said
        .iter()
        .any(|event| matches!(event, SourceEvent::Recovered))
}

#[test]
fn every_promise_of_a_source_is_kept() {
    check_all(|| topic("orders", 2));
}

#[test]
fn lanes_carry_the_id_of_their_topic() {
    let mut topic = topic("orders", 3);
    let mut driver = Driver::new(topic.open());
    driver.find_lanes(3);
    for event in &driver.said {
        let SourceEvent::Lane(lane) = event else {
            continue;
        };
        let (id, partition) = lane.incarnation.split_once('/').expect("id/partition");
        assert_eq!(
            id.len(),
            22,
            "a topic id of 16 bytes in base 64, not {id:?}"
        );
        assert_eq!(lane.name.as_str(), format!("orders/{partition}"));
        assert!(!lane.appeared);
    }
}

#[test]
fn c13_keys_values_headers_and_their_absence_arrive_as_sent() {
    let mut topic = topic("orders", 1);
    let mut source = topic.open();
    let headers: [(&str, Option<&[u8]>); 3] = [
        ("trace", Some(b"\xff\x00")),
        ("empty", Some(b"")),
        ("none", None),
    ];
    topic.write(
        0,
        &[
            Record {
                key: Some(b"k"),
                value: Some(b"\xff\xfe"),
                headers: &headers,
            },
            Record {
                key: Some(b""),
                value: Some(b""),
                headers: &[],
            },
            Record {
                key: Some(b"deleted"),
                value: None,
                headers: &[],
            },
            Record {
                key: None,
                value: Some(b"v"),
                headers: &[],
            },
        ],
    );
    let events = first_batches(source.as_mut(), &"orders/0".into(), 4);
    let mut seen = Vec::new();
    for batch in &events {
        for event in batch.iter() {
            assert!(event.meta.timestamp_ms > 1_600_000_000_000);
            let headers: Vec<_> = event
                .headers()
                .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                .collect();
            seen.push((
                event.key().map(<[u8]>::to_vec),
                event.value().map(<[u8]>::to_vec),
                headers,
            ));
        }
    }
    let sent_headers = vec![
        (b"trace".to_vec(), Some(b"\xff\x00".to_vec())),
        (b"empty".to_vec(), Some(Vec::new())),
        (b"none".to_vec(), None),
    ];
    assert_eq!(
        seen[0],
        (
            Some(b"k".to_vec()),
            Some(b"\xff\xfe".to_vec()),
            sent_headers
        )
    );
    assert_eq!(seen[1], (Some(Vec::new()), Some(Vec::new()), Vec::new()));
    assert_eq!(seen[2], (Some(b"deleted".to_vec()), None, Vec::new()));
    assert_eq!(seen[3], (None, Some(b"v".to_vec()), Vec::new()));
}

fn first_batches(
    source: &mut dyn Source,
    lane: &LaneName,
    count: usize,
) -> Vec<evermill_contract::source::EventBatch> {
    let mut batches = Vec::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    while batches
        .iter()
        .map(|batch: &evermill_contract::source::EventBatch| batch.events.len())
        .sum::<usize>()
        < count
    {
        assert!(std::time::Instant::now() < deadline, "no {count} events");
        let mut out = Vec::new();
        source
            .poll(std::time::Duration::from_millis(50), &mut out)
            .expect("the source works");
        for event in out {
            match event {
                SourceEvent::Lane(found) if found.name == *lane => {
                    source.start_lane(lane, 0, None).expect("the lane starts");
                }
                SourceEvent::Batch { batch, .. } => batches.push(batch),
                _ => {}
            }
        }
    }
    batches
}

#[test]
fn batches_stay_within_their_bounds() {
    let mut topic = topic("orders", 1);
    topic.budget.batch_events = 10;
    topic.budget.batch_bytes = 1000;
    topic.publish(&"orders/0".into(), &numbered("small", 95));
    let large = "x".repeat(400);
    topic.publish(&"orders/0".into(), &vec![large; 20]);
    let mut source = topic.open();
    let batches = first_batches(source.as_mut(), &"orders/0".into(), 115);
    for batch in batches {
        assert!(batch.events.len() <= 10);
        let before_the_last = batch.bytes_of(0..batch.events.len() - 1).len();
        assert!(
            before_the_last < 1000,
            "{before_the_last} bytes and one more event"
        );
    }
}

#[test]
fn acknowledged_positions_reach_the_group_for_lag_tools() {
    let mut topic = topic("orders", 2);
    topic.config.group_id = Some("billing".to_owned());
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(2);
    topic.publish(&lanes[1], &numbered("e", 10));
    driver.receive(&lanes[1], 10);
    driver.source().ack(&lanes[1], 7);
    driver.source().close();
    assert_eq!(committed(&topic, "billing", 1), Offset::Offset(7));

    let mut again = Driver::new(topic.open());
    again.find_lanes(2);
    assert_eq!(
        again.resolve(&lanes[1], FirstPosition::CommittedOrEarliest),
        7
    );
    assert_eq!(again.resolve(&lanes[1], FirstPosition::Earliest), 0);
    assert_eq!(
        again.resolve(&lanes[0], FirstPosition::CommittedOrLatest),
        0
    );
}

/// Row C17: what the broker makes of a group's offsets decides nothing.
#[test]
fn c17_an_offset_that_the_broker_does_not_take_is_no_trouble_and_the_next_one_is_tried() {
    let mut topic = topic("orders", 1);
    topic.config.group_id = Some("billing".to_owned());
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(1);
    topic.publish(&lanes[0], &numbered("a", 5));
    driver.receive(&lanes[0], 5);
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID; 20];
    let cluster = topic.dev().cluster();
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &refused);
    driver.source().ack(&lanes[0], 3);
    driver.watch();
    topic.publish(&lanes[0], &numbered("b", 5));
    driver.receive(&lanes[0], 10);
    assert!(degraded(&driver).is_empty(), "{:?}", degraded(&driver));
    let cluster = topic.dev().cluster();
    cluster.clear_request_errors(RDKafkaApiKey::OffsetCommit);
    driver.source().ack(&lanes[0], 8);
    driver.source().close();
    assert_eq!(committed(&topic, "billing", 0), Offset::Offset(8));
}

/// Row C18: somebody else sets the group's offsets, back and ahead, while we read and while we do not.
#[test]
fn c18_offsets_that_an_outsider_sets_move_no_position_of_ours() {
    let mut topic = topic("orders", 1);
    topic.config.group_id = Some("billing".to_owned());
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(1);
    topic.publish(&lanes[0], &numbered("a", 10));
    let seen = driver.receive(&lanes[0], 10);
    driver.source().ack(&lanes[0], 10);
    driver.watch();
    set_committed(&topic, "billing", 0);
    driver.watch();
    assert_eq!(driver.values(&lanes[0]).len(), 10, "nothing comes again");
    driver.source().close();
    for outsider in [2, 10] {
        set_committed(&topic, "billing", outsider);
        let mut again = Driver::new(topic.open());
        again.find_lanes(1);
        again.start(&lanes[0], seen[6].0);
        assert_eq!(again.receive(&lanes[0], 4), seen[6..]);
        again.source().close();
    }
}

fn set_committed(topic: &Topic, group: &str, offset: i64) {
    let outsider: BaseConsumer = client(topic.bootstrap())
        .set("group.id", group)
        .create()
        .expect("a consumer");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic.name(), 0, Offset::Offset(offset))
        .expect("an offset");
    outsider
        .commit(&list, rdkafka::consumer::CommitMode::Sync)
        .expect("the group has it");
    assert_eq!(committed(topic, group, 0), Offset::Offset(offset));
}

#[test]
fn another_group_can_be_taken_over() {
    let mut topic = topic("orders", 1);
    topic.config.group_id = Some("old".to_owned());
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(1);
    topic.publish(&lanes[0], &numbered("e", 10));
    driver.receive(&lanes[0], 10);
    driver.source().ack(&lanes[0], 4);
    driver.source().close();

    for own in [None, Some("new".to_owned())] {
        topic.config.group_id = own;
        topic.config.from_group = Some("old".to_owned());
        let mut taking_over = Driver::new(topic.open());
        taking_over.find_lanes(1);
        assert_eq!(
            taking_over.resolve(&lanes[0], FirstPosition::CommittedOrLatest),
            4
        );
    }
}

fn committed(topic: &Topic, group: &str, partition: i32) -> Offset {
    let consumer: BaseConsumer = client(topic.bootstrap())
        .set("group.id", group)
        .create()
        .expect("a consumer");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition(topic.name(), partition);
    let answer = consumer
        .committed_offsets(list, PATIENCE)
        .expect("an answer");
    answer
        .find_partition(topic.name(), partition)
        .expect("the partition")
        .offset()
}

#[test]
fn c01_a_broker_that_goes_away_degrades_and_recovers_without_loss() {
    let broker = DevKafka::start(&[("orders", 1)], None).expect("a broker");
    let mut topic = topic_on(broker, "orders", 1);
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(1);
    topic.publish(&lanes[0], &numbered("a", 5));
    driver.receive(&lanes[0], 5);

    topic.dev().cluster().broker_down(1).expect("down");
    driver.until("trouble", |driver| !degraded(driver).is_empty());
    assert!(!recovered(&driver));
    topic.dev().cluster().broker_up(1).expect("up");
    driver.until("the end of the trouble", recovered);
    topic.publish(&lanes[0], &numbered("b", 5));
    driver.receive(&lanes[0], 10);
    assert_eq!(
        driver.values(&lanes[0]),
        [numbered("a", 5), numbered("b", 5)].concat()
    );
    assert_eq!(
        degraded(&driver).len(),
        1,
        "one outage is told once: {:?}",
        degraded(&driver)
    );
}

#[test]
fn c01_a_broker_that_is_away_at_the_start_is_waited_for() {
    let broker = DevKafka::start(&[("orders", 1)], None).expect("a broker");
    let mut topic = topic_on(broker, "orders", 1);
    topic.dev().cluster().broker_down(1).expect("down");
    let mut driver = Driver::new(topic.open());
    driver.until("trouble", |driver| !degraded(driver).is_empty());
    assert!(driver.lanes().is_empty());
    topic.dev().cluster().broker_up(1).expect("up");
    let lanes = driver.start_all(1);
    assert!(recovered(&driver));
    topic.publish(&lanes[0], &numbered("a", 3));
    driver.receive(&lanes[0], 3);
}

#[test]
fn a_source_that_cannot_work_is_refused_with_the_cure() {
    let mut topic = topic("orders", 1);
    let refusal = |topic: &Topic| match topic.try_open() {
        Err(SourceError::Refused(why)) => why,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("accepted"),
    };
    topic.config.membership = true;
    assert!(refusal(&topic).contains("add group_id="));
    topic.config.membership = false;
    topic.config.connection = "warehouse".to_owned();
    assert!(refusal(&topic).contains("--connection warehouse=HOST:PORT"));
    topic.config.connection = "kafka_default".to_owned();
    topic.connection = "nowhere".to_owned();
    assert!(refusal(&topic).contains("HOST:PORT"));
    topic.config.topic = String::new();
    assert!(refusal(&topic).contains("topic"));
}

#[test]
fn the_development_broker_is_reached_at_the_address_asked_for() {
    let broker =
        DevKafka::start(&[("orders", 1)], Some(([127, 0, 0, 1], 0).into())).expect("a broker");
    assert_ne!(broker.bootstrap(), broker.cluster().bootstrap_servers());
    let mut topic = topic_on(broker, "orders", 1);
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(1);
    topic.publish(&lanes[0], &numbered("a", 3));
    driver.receive(&lanes[0], 3);
}

/// S10.
#[test]
fn c16_nothing_is_printed_and_diagnostics_hold_no_secret() {
    let mut topic = topic("orders", 1);
    topic.connection = format!(
        "{}&security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN&sasl.username=me&sasl.password=hunter2",
        topic.connection
    );
    let mut driver = Driver::new(topic.open());
    driver.until("trouble", |driver| !degraded(driver).is_empty());
    let diagnostics = topic.diagnostics.lock().unwrap().join("\n");
    assert!(!diagnostics.contains("hunter2"), "{diagnostics}");
    assert!(!format!("{:?}", driver.said).contains("hunter2"));
}
