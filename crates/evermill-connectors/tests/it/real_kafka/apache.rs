//! The source on a broker without encryption.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use evermill_contract::source::conformance::{Driver, World, check_all, numbered};
use evermill_contract::source::{FirstPosition, LaneFound, LaneName, SourceEvent};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka_world::{PATIENCE, Record, Topic, client};

/// An Apache Kafka under test, and the means to change it.
pub(super) struct Apache {
    pub(super) bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
}

impl Apache {
    pub(super) fn connect() -> Self {
        let bootstrap = std::env::var("EVERMILL_TEST_KAFKA").unwrap_or_else(|_| {
            panic!(
                "EVERMILL_TEST_KAFKA is not set: these tests need an Apache Kafka at that \
                 HOST:PORT. Run `cargo xtask test`, which starts one."
            )
        });
        let admin = client(&bootstrap).create().expect("an admin client");
        Self { bootstrap, admin }
    }

    /// A new topic under a name of its own.
    pub(super) fn topic(&self, lanes: i32, settings: &[(&str, &str)]) -> Topic {
        let name = unique("it");
        self.create(&name, lanes, settings);
        self.existing(&name, lanes as usize)
    }

    fn existing(&self, name: &str, lanes: usize) -> Topic {
        let connection = format!(
            "kafka://{}?topic.metadata.refresh.interval.ms=500",
            self.bootstrap
        );
        Topic::new(&self.bootstrap, connection, name, lanes)
    }

    fn create(&self, name: &str, lanes: i32, settings: &[(&str, &str)]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut topic = NewTopic::new(name, lanes, TopicReplication::Fixed(1));
            topic.config = settings.to_vec();
            let created = block_on(self.admin.create_topics([&topic], &options()));
            match created.expect("an answer").remove(0) {
                Ok(_) => return,
                // A topic of that name is still being deleted.
                Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => {
                    assert!(Instant::now() < deadline, "{name} is never deleted");
                }
                Err((_, why)) => panic!("{name} was not created: {why}"),
            }
        }
    }

    fn delete(&self, name: &str) {
        let deleted = block_on(self.admin.delete_topics(&[name], &options()));
        deleted
            .expect("an answer")
            .remove(0)
            .expect("the topic is deleted");
    }

    fn grow(&self, name: &str, lanes: usize) {
        let grown = NewPartitions::new(name, lanes);
        let answer = block_on(self.admin.create_partitions([&grown], &options()));
        answer
            .expect("an answer")
            .remove(0)
            .expect("partitions are added");
    }

    /// Deletes the records below `offset`, as retention would.
    fn forget(&self, name: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, partition, Offset::Offset(offset))
            .expect("an offset");
        block_on(self.admin.delete_records(&list, &options())).expect("records are deleted");
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE))
}

fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("after 1970")
        .as_millis();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{now}-{}-{count}", std::process::id())
}

/// Waits for a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn lanes_said(driver: &Driver) -> Vec<LaneFound> {
    let lanes = driver.said.iter().filter_map(|event| match event {
        SourceEvent::Lane(lane) => Some(lane.clone()),
        _ => None,
    });
    lanes.collect()
}

fn divergence(driver: &Driver, of: &LaneName) -> Option<String> {
    driver.said.iter().find_map(|event| match event {
        SourceEvent::Diverged { lane, reason } if lane == of => Some(reason.clone()),
        _ => None,
    })
}

fn gap(driver: &Driver, of: &LaneName) -> Option<(u64, u64)> {
    driver.said.iter().find_map(|event| match event {
        SourceEvent::Gap { lane, from, to, .. } if lane == of => Some((*from, *to)),
        _ => None,
    })
}

fn degraded(driver: &Driver) -> bool {
    driver
        .said
        .iter()
        .any(|event| matches!(event, SourceEvent::Degraded { .. }))
}

fn caught_up(driver: &Driver) -> u64 {
    let ends = driver.said.iter().filter_map(|event| match event {
        SourceEvent::CaughtUp { end, .. } => Some(*end),
        _ => None,
    });
    ends.max().unwrap_or_default()
}

#[test]
fn every_promise_of_a_source_is_kept() {
    let apache = Apache::connect();
    check_all(|| apache.topic(2, &[]));
}

#[test]
fn a_member_of_a_group_keeps_them_too() {
    let apache = Apache::connect();
    check_all(|| {
        let mut topic = apache.topic(2, &[]);
        topic.config.group_id = Some(format!("{}-group", topic.name()));
        topic.config.membership = true;
        topic
    });
}

#[test]
fn c09_added_partitions_are_found_and_read_from_their_first_event() {
    let apache = Apache::connect();
    let mut topic = apache.topic(1, &[]);
    let mut driver = Driver::new(topic.open());
    driver.start_all(1);
    apache.grow(topic.name(), 3);
    let added: LaneName = format!("{}/2", topic.name()).into();
    topic.publish(&added, &numbered("before anyone knew", 5));

    let lanes = driver.find_lanes(3);
    let appeared: Vec<_> = lanes_said(&driver)
        .iter()
        .map(|lane| lane.appeared)
        .collect();
    assert_eq!(appeared, [false, true, true]);
    let from = driver.resolve(&lanes[2], FirstPosition::Earliest);
    driver.start(&lanes[2], from);
    driver.receive(&lanes[2], 5);
    assert_eq!(driver.values(&lanes[2]), numbered("before anyone knew", 5));
}

#[test]
fn c08_a_topic_created_anew_is_not_read_at_old_positions() {
    let apache = Apache::connect();
    let mut topic = apache.topic(1, &[]);
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(1);
    topic.publish(&lanes[0], &numbered("old", 5));
    driver.receive(&lanes[0], 5);

    apache.delete(topic.name());
    apache.create(topic.name(), 1, &[]);
    // More than the old topic held: its position exists in the new one too.
    apache
        .existing(topic.name(), 1)
        .publish(&lanes[0], &numbered("new", 20));
    driver.until("the divergence", |driver| {
        divergence(driver, &lanes[0]).is_some()
    });
    assert!(
        divergence(&driver, &lanes[0])
            .unwrap()
            .contains("created anew")
    );
    assert_eq!(
        driver.values(&lanes[0]),
        numbered("old", 5),
        "nothing of the new topic was read"
    );

    driver.until("the new lane", |driver| lanes_said(driver).len() == 2);
    let [old, new] = &lanes_said(&driver)[..] else {
        panic!("two lanes")
    };
    assert_eq!(old.name, new.name);
    assert_ne!(old.incarnation, new.incarnation);
    driver.delivered.clear();
    driver
        .source()
        .start_lane(&lanes[0], 0, Some(&new.incarnation))
        .expect("it starts");
    driver.receive(&lanes[0], 20);
    assert_eq!(driver.values(&lanes[0]), numbered("new", 20));
}

#[test]
fn c08_a_topic_created_anew_while_we_were_away_is_not_read_at_old_positions() {
    let apache = Apache::connect();
    let mut topic = apache.topic(1, &[]);
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(1);
    let known = lanes_said(&driver)[0].incarnation.clone();
    driver.source().close();

    apache.delete(topic.name());
    apache.create(topic.name(), 1, &[]);
    let mut topic = apache.existing(topic.name(), 1);
    topic.publish(&lanes[0], &numbered("new", 20));
    let mut again = Driver::new(topic.open());
    again.find_lanes(1);
    again
        .source()
        .start_lane(&lanes[0], 3, Some(&known))
        .expect("an answer");
    again.until("the divergence", |driver| {
        divergence(driver, &lanes[0]).is_some()
    });
    again.watch();
    assert!(again.delivered.is_empty());
}

#[test]
fn c07_a_missing_topic_degrades_until_it_exists() {
    let apache = Apache::connect();
    let name = unique("late");
    let mut topic = apache.existing(&name, 1);
    let mut driver = Driver::new(topic.open());
    driver.until("the trouble", degraded);
    let [SourceEvent::Degraded { reason }] = &driver.said[..] else {
        panic!("{:?}", driver.said)
    };
    assert!(
        reason.contains(&name) && reason.contains("does not exist"),
        "{reason}"
    );

    apache.create(&name, 1, &[]);
    let lanes = driver.start_all(1);
    topic.publish(&lanes[0], &numbered("a", 2));
    driver.receive(&lanes[0], 2);
    assert!(
        driver
            .said
            .iter()
            .any(|event| matches!(event, SourceEvent::Recovered))
    );
}

#[test]
fn c07_a_deleted_topic_degrades_and_its_successor_is_another_lane() {
    let apache = Apache::connect();
    let mut topic = apache.topic(1, &[]);
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(1);
    topic.publish(&lanes[0], &numbered("a", 2));
    driver.receive(&lanes[0], 2);
    apache.delete(topic.name());
    driver.until("the trouble", degraded);

    apache.create(topic.name(), 2, &[]);
    driver.until("the divergence", |driver| {
        divergence(driver, &lanes[0]).is_some()
    });
    driver.until("the new lanes", |driver| lanes_said(driver).len() == 3);
    driver.until("the end of the trouble", |driver| {
        driver
            .said
            .iter()
            .any(|event| matches!(event, SourceEvent::Recovered))
    });
}

#[test]
fn c05_positions_that_retention_took_are_a_recorded_gap() {
    let apache = Apache::connect();
    let mut topic = apache.topic(2, &[]);
    let lane: LaneName = format!("{}/0", topic.name()).into();
    let other: LaneName = format!("{}/1", topic.name()).into();
    topic.publish(&lane, &numbered("e", 100));
    topic.publish(&other, &numbered("f", 10));
    apache.forget(topic.name(), 0, 40);

    let mut driver = Driver::new(topic.open());
    driver.find_lanes(2);
    driver.start(&lane, 7);
    driver.start(&other, 0);
    driver.until("the gap", |driver| gap(driver, &lane).is_some());
    assert_eq!(gap(&driver, &lane), Some((7, 40)));
    driver.receive(&other, 10);
    driver.watch();
    assert!(
        !driver.delivered.contains_key(&lane),
        "the lane stands until it is started again"
    );

    driver.start(&lane, 40);
    assert_eq!(driver.receive(&lane, 60)[0], (40, "e40".to_owned()));
}

#[test]
fn c05_retention_that_overtakes_a_closed_lane_is_a_recorded_gap() {
    let apache = Apache::connect();
    let mut topic = apache.topic(1, &[]);
    // Little is prefetched, and what was prefetched is still delivered.
    topic.budget.prefetch_bytes = 1;
    let lane: LaneName = format!("{}/0", topic.name()).into();
    let values: Vec<_> = (0..4000).map(|n| format!("{n:01000}")).collect();
    topic.publish(&lane, &values);
    let mut driver = Driver::new(topic.open());
    driver.find_lanes(1);
    driver.source().credit(&lane, false);
    driver.start(&lane, 0);
    driver.watch();
    apache.forget(topic.name(), 0, 3900);
    driver.source().credit(&lane, true);
    driver.until("the gap", |driver| gap(driver, &lane).is_some());
    let delivered = driver.values(&lane);
    assert_eq!(
        delivered,
        values[..delivered.len()],
        "what was delivered has no hole"
    );
    assert_eq!(gap(&driver, &lane), Some((delivered.len() as u64, 3900)));
}

/// Rows C02 and C06: what was read is longer than what there is.
#[test]
fn c06_a_position_beyond_the_end_is_a_divergence() {
    let apache = Apache::connect();
    let mut topic = apache.topic(1, &[]);
    let lane: LaneName = format!("{}/0", topic.name()).into();
    topic.publish(&lane, &numbered("e", 10));
    let mut driver = Driver::new(topic.open());
    driver.find_lanes(1);
    driver.start(&lane, 50);
    driver.until("the divergence", |driver| {
        divergence(driver, &lane).is_some()
    });
    let reason = divergence(&driver, &lane).unwrap();
    assert!(reason.contains("50") && reason.contains("10"), "{reason}");
    driver.watch();
    assert!(driver.delivered.is_empty(), "never a silent reset");
}

#[test]
fn c12_aborted_transactions_are_skipped_and_their_markers_passed() {
    let apache = Apache::connect();
    let mut topic = apache.topic(1, &[]);
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(1);
    let producer: BaseProducer = client(&apache.bootstrap)
        .set("transactional.id", unique("tx"))
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("transactions");
    for (round, keep) in [true, false, true, false].into_iter().enumerate() {
        producer.begin_transaction().expect("a transaction");
        for n in 0..3 {
            let value = format!("{round}-{n}");
            let record: BaseRecord<'_, (), String> =
                BaseRecord::to(topic.name()).partition(0).payload(&value);
            producer
                .send(record)
                .map_err(|(error, _)| error)
                .expect("sent");
        }
        producer.flush(PATIENCE).expect("written");
        if keep {
            producer.commit_transaction(PATIENCE).expect("committed");
        } else {
            producer.abort_transaction(PATIENCE).expect("aborted");
        }
    }
    // Four transactions of three records and a marker each.
    driver.until("the end of the log", |driver| caught_up(driver) == 16);
    assert_eq!(
        driver.values(&lanes[0]),
        ["0-0", "0-1", "0-2", "2-0", "2-1", "2-2"]
    );
}

#[test]
fn c11_holes_of_a_compacted_topic_are_no_gap() {
    let apache = Apache::connect();
    let topic = apache.topic(
        1,
        &[
            ("cleanup.policy", "compact"),
            ("segment.ms", "100"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("max.compaction.lag.ms", "100"),
        ],
    );
    let lane: LaneName = format!("{}/0", topic.name()).into();
    let deadline = Instant::now() + 2 * PATIENCE;
    let mut written = 0;
    loop {
        for _ in 0..10 {
            let value = format!("v{written}");
            let key = format!("k{}", written % 3);
            let record = Record {
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                headers: &[],
            };
            topic.write(0, &[record]);
            written += 1;
        }
        let mut driver = Driver::new(Box::new(topic.try_open().expect("it opens")));
        driver.find_lanes(1);
        driver.start(&lane, 0);
        driver.until("the end", |driver| caught_up(driver) == written);
        assert_eq!(
            (gap(&driver, &lane), divergence(&driver, &lane)),
            (None, None)
        );
        let seen = &driver.delivered[&lane];
        for (position, value) in seen {
            assert_eq!(*value, format!("v{position}"));
        }
        if seen.len() < usize::try_from(written).expect("small") {
            let positions: BTreeSet<_> = seen.iter().map(|(position, _)| *position).collect();
            assert!(
                positions.contains(&(written - 1)),
                "the newest of each key is kept"
            );
            return;
        }
        assert!(Instant::now() < deadline, "the broker never compacted");
    }
}

#[test]
fn c13_an_event_larger_than_a_fetch_arrives() {
    let apache = Apache::connect();
    let mut topic = apache.topic(4, &[]);
    topic.budget.prefetch_bytes = 1;
    topic.budget.batch_bytes = 1000;
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(4);
    let large = "x".repeat(900_000);
    topic.publish(
        &lanes[1],
        &[large.clone(), "small".to_owned(), large.clone()],
    );
    driver.receive(&lanes[1], 3);
    assert_eq!(
        driver.values(&lanes[1]),
        [large.clone(), "small".to_owned(), large]
    );
}

#[test]
fn waking_and_closing_do_not_wait_for_a_broker_that_never_answers() {
    // Nothing to do with a real broker, and quick: the address accepts and stays silent.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let mut topic = Topic::new(&address, address.clone(), "orders", 1);
    let mut driver = Driver::new(topic.open());
    driver.until("the trouble", degraded);
    driver.source().waker().wake();
    driver.poll(Duration::from_millis(10));
    let started = Instant::now();
    driver.source().close();
    assert!(started.elapsed() < 2 * evermill_contract::source::CLOSE_WAIT);
}
