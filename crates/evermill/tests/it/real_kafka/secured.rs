//! A broker with TLS and passwords, reached by what stands in `evermill.toml`.

use crate::process::Place;
use crate::topic::Topic;

const PASSWORD: &str = "not-a-secret";

fn of_broker(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: run `cargo xtask test`, or export what `cargo xtask kafka` prints"
        )
    })
}

/// A place with a DAG on a topic of three messages, and a connection with this password.
fn place(topic: &Topic, password: &str) -> Place {
    topic.write(0, ["a", "b", "c"]);
    let place = Place::new();
    let name = &topic.name;
    place.file(
        "dag.py",
        &format!(
            r#"
import evermill

@evermill.task
def take(event):
    print("took", event.text())

@evermill.dag
def pipeline():
    take(evermill.kafka({name:?}, auto_offset_reset="earliest"))
"#
        ),
    );
    let address = of_broker("EVERMILL_TEST_KAFKA_SASL");
    let authority = of_broker("EVERMILL_TEST_KAFKA_CA");
    place.file(
        "evermill.toml",
        &format!(
            r#"
[connections.kafka_default]
address = {address:?}
"security.protocol" = "SASL_SSL"
"ssl.ca.location" = {authority:?}
"sasl.mechanism" = "SCRAM-SHA-512"
"sasl.username" = "ada"
"sasl.password" = {password:?}
"#
        ),
    );
    place
}

#[test]
fn a_connection_with_tls_and_a_password_is_used_and_never_shown() {
    let topic = Topic::new(1);
    let place = place(&topic, PASSWORD);
    let ended = place.finish(["run", "dag.py", "--json", "--until-idle", "200ms"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], 3);
    let shown = place.finish(["config", "show"]);
    assert_eq!(shown.code(), 0, "{}", shown.stderr);
    assert!(
        shown.stdout.contains("sasl.password=***") && shown.stdout.contains("ssl.ca.location"),
        "{}",
        shown.stdout
    );
    for said in [&ended.stdout, &ended.stderr, &shown.stdout, &shown.stderr] {
        assert!(!said.contains(PASSWORD), "{said}");
    }
}

#[test]
fn c16_a_wrong_password_is_said_and_not_shown() {
    let topic = Topic::new(1);
    let place = place(&topic, "wrong-one");
    let running = crate::process::Running::start(&mut place.evermill(["run", "dag.py"]));
    running.wait_for_lines("mend sasl.username, sasl.password or sasl.mechanism", 1);
    assert_eq!(running.count("wrong-one"), 0);
    // The source goes on trying, until somebody ends it.
    running.signal(rustix::process::Signal::TERM);
    let ended = running.end();
    assert!(!ended.stderr.contains("wrong-one"), "{}", ended.stderr);
}
