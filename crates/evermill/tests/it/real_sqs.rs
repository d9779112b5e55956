//! SQS from the built binary, against a program that speaks as it does (`cargo xtask aws` starts one).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill::{Ctx, Dag, Engine, Event, sqs};
use evermill_contract::manifest::SinkConfig;
use evermill_contract::sink::Record;
use evermill_http::{Client, Connection, Method, Request, Target};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::{PATIENCE, Place, Running, eventually};

/// The program's URL.
fn real() -> String {
    std::env::var("EVERMILL_TEST_SQS").unwrap_or_else(|_| {
        panic!("EVERMILL_TEST_SQS is not set: `cargo xtask aws` starts moto and prints its address")
    })
}

fn address() -> String {
    format!(
        "{}?region=us-east-1&access_key_id=a&secret_access_key=geheim",
        real()
    )
}

/// A queue of a test's own.
struct Queue {
    name: String,
}

impl Queue {
    fn new(fifo: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (end, attributes) = match fifo {
            true => (".fifo", json!({"FifoQueue": "true"})),
            false => ("", json!({})),
        };
        let name = format!("e2e-{}-{number}{end}", std::process::id());
        ask(
            "CreateQueue",
            &json!({"QueueName": name, "Attributes": attributes}),
        );
        Self { name }
    }

    fn send(&self, values: impl IntoIterator<Item = String>) {
        let config = json!({"kind": "sqs", "queue": self.name});
        let config: SinkConfig = serde_json::from_value(config).unwrap();
        let sink =
            evermill_connectors::open_sink(&config, &|_| Some(address()), Arc::new(|_, _| {}));
        let record = |value: String| Record {
            key: Some(Bytes::from(format!("g{}", value.len()))),
            effect_key: Some(value.clone()),
            value: Some(value.into()),
            ..Record::default()
        };
        let records = values.into_iter().map(record).collect();
        let answers = sink.unwrap().send(records, Duration::from_secs(60));
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    fn left(&self) -> u64 {
        let url = ask("GetQueueUrl", &json!({"QueueName": self.name}))["QueueUrl"].clone();
        let names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
        ];
        let told = ask(
            "GetQueueAttributes",
            &json!({"QueueUrl": url, "AttributeNames": names}),
        );
        let count = |name: &&str| {
            told["Attributes"][*name]
                .as_str()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        names.iter().map(count).sum()
    }

    fn wait_until_empty(&self) {
        soon("an empty queue", || self.left() == 0);
    }
}

/// Waits for what may take as long as SQS hides messages of a reader that was killed: a minute.
fn soon(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + 3 * PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn all_done(place: &Place, count: u64) {
    soon("all of them done", || {
        let ended = place.finish(["ps", "--json"]);
        ended.code() == 0 && ended.json().iter().any(|run| run["done"] == count)
    });
}

fn ask(action: &str, asked: &Value) -> Value {
    let client = Client::new(Connection::parse("test", &real()).unwrap()).unwrap();
    let mut request = Request::new(Method::POST, Target::Below("/".to_owned()));
    let scope = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0";
    for (name, value) in [
        ("authorization", scope),
        ("content-type", "application/x-amz-json-1.0"),
        ("x-amz-target", &format!("AmazonSQS.{action}")),
    ] {
        request.headers.push((name.to_owned(), value.to_owned()));
    }
    request.body = Some(asked.to_string().into_bytes());
    let response = client.send(&request).unwrap();
    assert_eq!(response.status, 200, "{action}");
    serde_json::from_slice(&response.body).unwrap_or_default()
}

/// Notes each value with its effect key, in a file that survives the process.
fn dag(queue: &str, more: &str) -> String {
    format!(
        "
import os, evermill

@evermill.task
def note(event, ctx):
    with open(os.environ['LEDGER'], 'a') as ledger:
        ledger.write(event.text() + ' ' + ctx.effect_key() + '\\n')

@evermill.dag
def flow():
    note(evermill.sqs({queue:?}{more}))
"
    )
}

fn command(place: &Place, text: &str, more: &[&str]) -> std::process::Command {
    let file = place.file("flow.py", text);
    let connection = format!("--connection=aws={}", address());
    let arguments = ["run", file.to_str().unwrap(), "--json", &connection];
    let mut command = place.evermill(arguments.iter().chain(more));
    command.env("LEDGER", place.folder().join("ledger"));
    command
}

/// The effect keys by which each value was noted.
fn ledger(place: &Place) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(place.folder().join("ledger")).unwrap_or_default();
    let mut noted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let (value, key) = line.split_once(' ').unwrap();
        let keys = noted.entry(value.to_owned()).or_default();
        if !keys.iter().any(|known| known == key) {
            keys.push(key.to_owned());
        }
    }
    noted
}

#[test]
fn messages_run_once_each_and_leave_the_queue() {
    for more in ["", ", ack='outcome'"] {
        let (queue, place) = (Queue::new(false), Place::new());
        queue.send((0..50).map(|n| n.to_string()));
        let text = dag(&queue.name, more);
        let ended = Running::start(&mut command(&place, &text, &["--until-idle", "1s"])).end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert!(!ended.stderr.contains("geheim"), "{}", ended.stderr);
        let run = ended.only_run();
        assert_eq!(
            (&run["in"], &run["done"]),
            (&json!(50), &json!(50)),
            "{run}"
        );
        assert_eq!(queue.left(), 0, "{more}");
        assert_eq!(ledger(&place).len(), 50);
    }
}

/// A04, D02, D03, D06: whatever is cut off, no message is lost and each counts once.
#[test]
fn kill_9_at_any_moment_loses_no_message_and_counts_each_once() {
    let (queue, place) = (Queue::new(false), Place::new());
    let text = dag(&queue.name, "");
    let mut sent = 0;
    let steps = ["receive.delivered", "inbox.kept", "dispatch.sent"];
    for (round, step) in steps.iter().enumerate() {
        queue.send((sent..sent + 30).map(|n| n.to_string()));
        sent += 30;
        let mut command = command(&place, &text, &[]);
        command.env("EVERMILL_FAILPOINT", format!("{step}:{}:abort", round + 1));
        let ended = Running::start(&mut command).end();
        assert_eq!(ended.status.code(), None, "{step}: {}", ended.stderr);
        // All of it is done, and the messages are at some stage of leaving the queue: kill it again.
        let running = Running::start(&mut self::command(&place, &text, &[]));
        all_done(&place, sent);
        running.kill();
    }
    let running = Running::start(&mut command(&place, &text, &[]));
    all_done(&place, sent);
    queue.wait_until_empty();
    running.signal(Signal::TERM);
    let run = running.end().only_run();
    let counts = ["in", "done", "parked", "in_flight"].map(|field| run[field].as_u64().unwrap());
    assert_eq!(counts, [sent, sent, 0, 0], "{run}");
    let noted = ledger(&place);
    assert_eq!(noted.len() as u64, sent, "none is lost");
    let twice: Vec<_> = noted.iter().filter(|(_, keys)| keys.len() > 1).collect();
    assert!(twice.is_empty(), "one message is one activation: {twice:?}");
}

/// D01: a task that takes longer than anybody looks at it keeps its message in the queue.
#[test]
fn under_outcome_a_message_stays_until_its_work_is_done() {
    let (queue, place) = (Queue::new(false), Place::new());
    queue.send(["slow".to_owned()]);
    let text = "
import os, time, evermill

@evermill.task
def wait(event):
    print('begun')
    while not os.path.exists(os.environ['LEDGER']):
        time.sleep(0.02)

@evermill.dag
def flow():
    wait(evermill.sqs('QUEUE', ack='outcome'))
"
    .replace("QUEUE", &queue.name);
    let running = Running::start(&mut command(&place, &text, &[]));
    running.wait_for_lines("begun", 1);
    // It has a row of its own by now, and its lane has gone on.
    place.wait_for_run(|run| run["sources"][0]["lanes"][0]["position"] == 1);
    assert_eq!(queue.left(), 1);
    std::fs::write(place.folder().join("ledger"), "").unwrap();
    queue.wait_until_empty();
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
}

#[test]
fn results_go_from_queue_to_queue_in_line() {
    let (from, to, place) = (Queue::new(true), Queue::new(true), Place::new());
    from.send((0..20).map(|n| n.to_string()));
    let text = format!(
        "
import evermill

@evermill.task
def double(event):
    return {{'n': 2 * event.json(), 'who': event.key.decode()}}

@evermill.dag
def flow():
    evermill.to_sqs({:?}, double(evermill.sqs({:?})), key='/who')
",
        to.name, from.name
    );
    let ended = Running::start(&mut command(&place, &text, &["--until-idle", "2s"])).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], 20);
    assert_eq!((from.left(), to.left()), (0, 20));
    let (reader, place) = (dag(&to.name, ""), Place::new());
    let ended = Running::start(&mut command(&place, &reader, &["--until-idle", "2s"])).end();
    assert_eq!(ended.only_run()["done"], 20, "{}", ended.stderr);
}

#[test]
fn a_queue_can_be_read_and_written_from_yaml() {
    let (from, to, place) = (Queue::new(false), Queue::new(false), Place::new());
    from.send(["a".to_owned(), "b".to_owned()]);
    let text = format!(
        "dag: shouting\nsources: {{ in: {{ sqs: {{ queue: {} }} }} }}\ntasks:\n  \
         shout: {{ after: in, run: \"tr a-z A-Z\" }}\n  \
         out: {{ after: shout, to_sqs: {{ queue: {}, value_from: shout }} }}\n",
        from.name, to.name
    );
    let file = place.file("shouting.yaml", &text);
    let connection = format!("--connection=aws={}", address());
    let arguments = [
        "run",
        file.to_str().unwrap(),
        &connection,
        "--until-idle",
        "1s",
    ];
    let ended = place.finish(arguments);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!((from.left(), to.left()), (0, 2));
}

#[test]
fn a_queue_that_is_missing_is_said_in_ps_with_the_cure() {
    let (queue, place) = (Queue::new(false), Place::new());
    let text = dag(&format!("{}x", queue.name), "");
    let running = Running::start(&mut command(&place, &text, &[]));
    let said = eventually("it is said", || {
        let runs = place.finish(["ps", "--json"]);
        let runs = (runs.code() == 0).then(|| runs.json())?;
        let degraded = &runs.first()?["sources"][0]["degraded"];
        degraded.as_str().map(str::to_owned)
    });
    assert!(
        said.contains(&format!("did you mean {:?}?", queue.name)),
        "{said}"
    );
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
}

#[test]
fn closures_read_a_queue_and_keep_state_for_each_group() {
    let (queue, place) = (Queue::new(true), Place::new());
    queue.send(["1", "2", "30", "40"].map(str::to_owned));
    let sums = Arc::new(Mutex::new(BTreeMap::new()));
    let noted = Arc::clone(&sums);
    let dag = Dag::new("sums")
        .source("in", sqs::queue(&queue.name).ack_outcome())
        .task("add", &["in"], async move |event: Event, ctx: Ctx| {
            let state = ctx.state()?;
            let sum = state.get::<i64>("sum")?.unwrap_or(0) + event.json::<i64>()?;
            state.set("sum", &sum)?;
            let group = String::from_utf8_lossy(event.key().unwrap_or_default()).into_owned();
            noted.lock().unwrap().insert(group, sum);
            Ok(())
        })
        .state();
    let running = Engine::local(place.data_dir())
        .connection("aws_default", &address())
        .workers(2)
        .start(dag)
        .unwrap();
    queue.wait_until_empty();
    let run = running.drain(Duration::from_secs(10)).unwrap();
    assert_eq!((run.done, run.parked), (4, 0));
    let expected = [("g1".to_owned(), 3), ("g2".to_owned(), 70)];
    assert_eq!(*sums.lock().unwrap(), BTreeMap::from(expected));
}
