//! SQS against a queue of our own that misbehaves when it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_contract::sink::{Record, SinkError};
use evermill_contract::source::Receiver;
use evermill_contract::source::conformance::receiving::{Driver, check_all};
use evermill_http::testing::Reply;
use serde_json::{Value, json};

use crate::sqs_world::{Fake, NAME, Queue, error};

const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn driven(fake: &Fake, more: Value) -> Driver {
    Driver::new(fake.source(more), None)
}

/// What a source with these settings says is wrong, at first.
fn trouble(fake: &Fake, queue: &str) -> String {
    let receiver = fake
        .source_of(queue, json!({}), Arc::new(|_, _| {}))
        .unwrap();
    let mut driver = Driver::new(receiver, None);
    driver.until("trouble", |driver| !driver.said.is_empty());
    driver.said[0]
        .clone()
        .expect("trouble comes before its end")
}

#[test]
fn it_is_a_receiver_that_deletes_what_is_kept() {
    check_all(|| Queue {
        fake: Fake::start(),
        ack: "ingest",
    });
}

#[test]
fn it_is_a_receiver_that_deletes_what_is_settled() {
    check_all(|| Queue {
        fake: Fake::start(),
        ack: "outcome",
    });
}

#[test]
fn a_receive_asks_for_ten_and_waits_and_everything_is_signed() {
    let fake = Fake::start();
    let mut driver = driven(&fake, json!({}));
    driver.until("the end of nothing", |driver| driver.caught_up > 0);
    driver.until("a long poll", |_| fake.calls("ReceiveMessage").len() > 1);
    let calls = fake.calls("ReceiveMessage");
    assert_eq!(calls[0]["QueueUrl"], format!("https://elsewhere/1/{NAME}"));
    assert_eq!(calls[0]["MaxNumberOfMessages"], 10);
    assert_eq!(
        (&calls[0]["WaitTimeSeconds"], &calls[1]["WaitTimeSeconds"]),
        (&json!(1), &json!(20))
    );
    for seen in fake.seen() {
        let signed = seen.header("authorization").unwrap();
        assert!(
            signed.contains("Credential=a/") && signed.contains("/eu-west-1/sqs/aws4_request"),
            "{signed}"
        );
    }
}

#[test]
fn several_receives_are_under_way_while_there_is_much_and_one_when_there_is_not() {
    let fake = Fake::start();
    (0..200).for_each(|n| fake.send(&n.to_string(), None));
    let under_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let mut driver = driven(&fake, json!({}));
    let (counted, highest) = (Arc::clone(&under_way), Arc::clone(&most));
    fake.misbehave(move |action, _| {
        if action == "ReceiveMessage" {
            highest.fetch_max(counted.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
        }
        None
    });
    driver.until("200 events", |driver| driver.events.len() == 200);
    driver.until("an empty queue", |_| fake.left() == 0);
    let calls = fake.calls("ReceiveMessage").len();
    assert!(calls < 60, "{calls} receives for 20 full ones");
    let deletes = fake.calls("DeleteMessageBatch");
    assert!(
        deletes.len() < 60,
        "{} requests delete 200 messages",
        deletes.len()
    );
    assert!(
        deletes
            .iter()
            .all(|asked| asked["Entries"].as_array().unwrap().len() <= 10)
    );
}

/// D02, D04, D05.
#[test]
fn d02_a_message_that_comes_twice_is_one_event_and_its_newest_receipt_deletes_it() {
    let fake = Fake::start();
    fake.send("a", None);
    let mut driver = driven(&fake, json!({}));
    driver.until("the event", |driver| {
        driver.events.len() == 1 && fake.left() == 0
    });
    // A second one comes, and comes again while it is held.
    fake.send("b", None);
    while driver.events.len() < 2 {
        driver.receive(Duration::from_millis(20));
    }
    fake.expire();
    let received = fake.calls("ReceiveMessage").len();
    while fake.calls("ReceiveMessage").len() < received + 2 {
        driver.receive(Duration::from_millis(20));
    }
    driver.keep();
    driver.until("an empty queue", |_| fake.left() == 0);
    assert_eq!(driver.events.len(), 2, "the second time is none");
    let deletes = fake.calls("DeleteMessageBatch");
    let last = deletes.last().unwrap()["Entries"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    assert_eq!(last["ReceiptHandle"], "2/2", "{deletes:?}");
}

/// D03, D09: what a batch says of each entry.
#[test]
fn d09_each_entry_of_a_deletion_that_failed_is_deleted_again() {
    let fake = Fake::start();
    (0..10).for_each(|n| fake.send(&n.to_string(), None));
    let failed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failed);
    fake.misbehave(move |action, asked| {
        let entries = asked["Entries"].as_array().filter(|_| action == "DeleteMessageBatch")?;
        if counted.fetch_add(1, Ordering::SeqCst) > 0 {
            return None;
        }
        let failed: Vec<_> = entries
            .iter()
            .map(|entry| json!({"Id": entry["Id"], "Code": "InternalError", "Message": "x", "SenderFault": false}))
            .collect();
        Some(Reply::new(200, json!({"Successful": [], "Failed": failed}).to_string()))
    });
    let mut driver = driven(&fake, json!({}));
    driver.until("an empty queue", |driver| {
        driver.events.len() == 10 && fake.left() == 0
    });
    assert!(failed.load(Ordering::SeqCst) > 1);
}

/// D09.
#[test]
fn d09_a_queue_that_is_asked_too_often_is_asked_more_slowly() {
    let fake = Fake::start();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    fake.misbehave(move |action, _| {
        let nth = counted.fetch_add(usize::from(action == "ReceiveMessage"), Ordering::SeqCst);
        (action == "ReceiveMessage" && nth < 4).then(|| error(400, "ThrottlingException"))
    });
    fake.send("a", None);
    let mut driver = driven(&fake, json!({}));
    driver.until("the event", |driver| driver.events.len() == 1);
    driver.until("the end of it", |driver| driver.said.len() == 2);
    let said = driver.said[0].clone().unwrap();
    assert!(
        said.contains("ThrottlingException") && said.contains("more slowly"),
        "{said}"
    );
    assert_eq!(driver.said[1], None);
}

/// D08: when SQS refuses to hide it any longer.
#[test]
fn d08_a_lease_that_is_lost_is_said_and_the_work_goes_on() {
    let fake = Fake::start();
    fake.send("a", None);
    let said = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&said);
    let diagnostics = Arc::new(move |_, text: &str| told.lock().unwrap().push(text.to_owned()));
    let receiver = fake
        .source_of(NAME, json!({"ack": "outcome"}), diagnostics)
        .unwrap();
    let mut driver = Driver::new(receiver, None);
    while driver.events.is_empty() {
        driver.receive(Duration::from_millis(20));
    }
    driver.keep();
    // The queue shows it again; it is known, and nothing runs twice.
    fake.expire();
    let received = fake.calls("ReceiveMessage").len();
    while fake.calls("ReceiveMessage").len() < received + 2 {
        driver.receive(Duration::from_millis(20));
    }
    assert_eq!(driver.events.len(), 1);
    driver.settle();
    driver.until("an empty queue", |_| fake.left() == 0);
    assert!(said.lock().unwrap().is_empty());
}

/// D07.
#[test]
fn d07_a_group_of_a_fifo_queue_comes_in_its_order() {
    let fake = Fake::start();
    for n in 0..30 {
        fake.send(&format!("{n:02}"), Some(["x", "y", "z"][n % 3]));
    }
    let receiver = fake
        .source_of("orders.fifo", json!({}), Arc::new(|_, _| {}))
        .unwrap();
    let mut driver = Driver::new(receiver, None);
    driver.until("all", |driver| driver.events.len() == 30);
    for group in ["x", "y", "z"] {
        let of_group = driver
            .events
            .iter()
            .filter(|event| event.key.as_deref() == Some(group.as_bytes()));
        let values: Vec<_> = of_group.map(|event| event.value.clone().unwrap()).collect();
        assert_eq!(values.len(), 10);
        assert!(values.is_sorted(), "{group}: {values:?}");
    }
}

#[test]
fn without_room_nothing_is_received_and_what_is_held_is_given_back_at_the_end() {
    let fake = Fake::start();
    (0..5).for_each(|n| fake.send(&n.to_string(), None));
    let mut driver = driven(&fake, json!({}));
    while driver.events.len() < 5 {
        driver.receive(Duration::from_millis(20));
    }
    // The engine has no room: it does not receive, and keeps leases alive.
    until("the receives under way to end", || {
        driver.receiver().keep_alive();
        fake.seen().len() >= fake.lock().calls.len()
    });
    let received = fake.calls("ReceiveMessage").len();
    for _ in 0..20 {
        driver.receiver().keep_alive();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(fake.calls("ReceiveMessage").len(), received);
    driver.receiver().close();
    let mut next = driven(&fake, json!({}));
    next.until("them, at once", |driver| driver.events.len() == 5);
}

#[test]
fn a_queue_that_is_not_there_is_said_with_the_name_that_was_probably_meant() {
    let fake = Fake::start();
    fake.misbehave(|action, _| (action == "GetQueueUrl").then(|| error(400, "QueueDoesNotExist")));
    let said = trouble(&fake, "order");
    assert!(
        said.contains("\"order\" does not exist") && said.contains("did you mean \"orders\"?"),
        "{said}"
    );
    assert!(!said.contains("geheim"), "{said}");
    fake.misbehave(|action, _| match action {
        "GetQueueUrl" => Some(error(400, "QueueDoesNotExist")),
        _ => Some(error(403, "AccessDenied")),
    });
    let said = trouble(&fake, "order");
    assert!(said.contains("create it, or correct its name"), "{said}");
}

#[test]
fn a_queue_may_be_made_later() {
    let fake = Fake::start();
    fake.send("a", None);
    fake.misbehave(|action, _| (action == "GetQueueUrl").then(|| error(400, "QueueDoesNotExist")));
    let mut driver = driven(&fake, json!({}));
    driver.until("trouble", |driver| driver.said.len() == 1);
    fake.behave();
    driver.until("the event", |driver| driver.events.len() == 1);
    assert_eq!(driver.said.last(), Some(&None));
}

#[test]
fn credentials_that_do_not_hold_are_said_with_the_cure_and_without_the_secret() {
    for (code, cure) in [
        ("ExpiredToken", "have expired"),
        (
            "UnrecognizedClientException",
            "does not know these credentials",
        ),
        ("SignatureDoesNotMatch", "check secret_access_key"),
        ("AccessDenied", "allow it in the policy"),
    ] {
        let fake = Fake::start();
        fake.misbehave(move |_, _| Some(error(403, code)));
        let said = trouble(&fake, NAME);
        assert!(said.contains(cure) && said.contains(code), "{said}");
        assert!(!said.contains("geheim"), "{said}");
    }
}

#[test]
fn a_queue_may_be_named_by_url_or_arn() {
    let fake = Fake::start();
    fake.send("a", None);
    let url = "https://sqs.eu-north-1.amazonaws.com/1/orders";
    let receiver = fake.source_of(url, json!({}), Arc::new(|_, _| {})).unwrap();
    let mut driver = Driver::new(receiver, None);
    driver.until("the event", |driver| driver.events.len() == 1);
    assert!(fake.calls("GetQueueUrl").is_empty());
    assert_eq!(fake.calls("ReceiveMessage")[0]["QueueUrl"], url);
    let signed = fake.seen()[0].header("authorization").unwrap().to_owned();
    assert!(signed.contains("/eu-north-1/"), "{signed}");
    let arn = "arn:aws:sqs:eu-north-1:42:orders";
    let receiver = fake.source_of(arn, json!({}), Arc::new(|_, _| {})).unwrap();
    let mut driver = Driver::new(receiver, None);
    driver.until("the end", |driver| driver.caught_up > 0);
    assert_eq!(fake.calls("GetQueueUrl")[0]["QueueOwnerAWSAccountId"], "42");
}

fn record(value: &str, key: Option<&str>, effect: &str) -> Record {
    Record {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        effect_key: Some(effect.to_owned()),
        ..Record::default()
    }
}

#[test]
fn records_are_sent_ten_at_a_time_with_their_effect_key_and_their_trace() {
    let fake = Fake::start();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let records: Vec<_> = (0..25)
        .map(|n| Record {
            traceparent: Some(parent.to_owned()),
            tracestate: (n == 7).then(|| "rojo=1".to_owned()),
            ..record(&n.to_string(), Some("k"), &format!("e{n}"))
        })
        .collect();
    let answers = fake.sink(NAME).send(records, PATIENCE);
    assert_eq!(answers, vec![Ok(()); 25]);
    assert_eq!(fake.calls("SendMessageBatch").len(), 3);
    let messages = fake.messages();
    assert_eq!(messages.len(), 25);
    let (body, attributes, group) = &messages[0];
    let effect = attributes["evermill-effect-key"]["StringValue"]
        .as_str()
        .unwrap();
    assert_eq!(effect, format!("e{body}"));
    assert_eq!(*group, None, "a standard queue has none");
    for (body, attributes, _) in &messages {
        assert_eq!(attributes["traceparent"]["StringValue"], parent);
        let state = attributes.get("tracestate").is_some();
        assert_eq!(state, body == "7", "what is not known is no attribute");
    }
}

#[test]
fn a_fifo_queue_gets_groups_by_key_in_order_and_drops_what_comes_twice() {
    let fake = Fake::start();
    let long = "x".repeat(200);
    let sink = fake.sink("orders.fifo");
    let records: Vec<_> = (0..24)
        .map(|n| {
            record(
                &format!("{n:02}"),
                [Some("x"), Some(long.as_str()), None][n % 3],
                &format!("e{n}"),
            )
        })
        .collect();
    for _ in 0..2 {
        assert!(
            sink.send(records.clone(), PATIENCE)
                .iter()
                .all(Result::is_ok)
        );
    }
    let messages = fake.messages();
    assert_eq!(messages.len(), 24, "the effect key is the deduplication id");
    assert!(messages.is_sorted_by(|one, other| one.0 < other.0));
    let groups: Vec<_> = messages[..3]
        .iter()
        .map(|(.., group)| group.clone().unwrap())
        .collect();
    assert_eq!((groups[0].as_str(), groups[2].as_str()), ("x", "evermill"));
    assert_eq!(
        groups[1].len(),
        64,
        "a digest of the same key: {}",
        groups[1]
    );
}

/// D09.
#[test]
fn d09_each_record_has_an_answer_of_its_own() {
    let fake = Fake::start();
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tried);
    fake.misbehave(move |action, asked| {
        let entries = asked["Entries"].as_array().filter(|_| action == "SendMessageBatch")?;
        counted.fetch_add(1, Ordering::SeqCst);
        let failed = |entry: &&Value| entry["MessageBody"] != "good";
        let code = |entry: &Value| match entry["MessageBody"].as_str().unwrap() {
            "bad" => json!({"Id": entry["Id"], "Code": "InvalidMessageContents", "Message": "x", "SenderFault": true}),
            _ => json!({"Id": entry["Id"], "Code": "InternalError", "Message": "x", "SenderFault": false}),
        };
        let done: Vec<_> = entries.iter().filter(|entry| !failed(entry)).map(|entry| json!({"Id": entry["Id"]})).collect();
        let failed: Vec<_> = entries.iter().filter(failed).map(code).collect();
        Some(Reply::new(200, json!({"Successful": done, "Failed": failed}).to_string()))
    });
    let mut records: Vec<_> = ["good", "bad", "later"]
        .iter()
        .map(|value| record(value, None, value))
        .collect();
    records.push(Record::default());
    records.push(Record {
        value: Some(Bytes::from_static(&[0xff])),
        ..Record::default()
    });
    let answers = fake.sink(NAME).send(records, Duration::from_secs(2));
    assert_eq!(answers[0], Ok(()));
    assert!(
        matches!(&answers[1], Err(SinkError::ForGood(why)) if why.contains("InvalidMessageContents")),
        "{answers:?}"
    );
    assert!(
        matches!(&answers[2], Err(SinkError::MayPass(why)) if why.contains("InternalError")),
        "{answers:?}"
    );
    assert!(
        matches!(&answers[3], Err(SinkError::ForGood(why)) if why.contains("without content")),
        "{answers:?}"
    );
    assert!(
        matches!(&answers[4], Err(SinkError::ForGood(why)) if why.contains("base64")),
        "{answers:?}"
    );
    assert!(
        tried.load(Ordering::SeqCst) > 1,
        "what may pass was tried again"
    );
}

#[test]
fn a_closed_source_has_ended_its_long_poll() {
    let fake = Fake::start();
    let mut driver = driven(&fake, json!({}));
    driver.until("the end of nothing", |driver| driver.caught_up > 0);
    let receiver: &mut dyn Receiver = driver.receiver();
    receiver.close();
}
