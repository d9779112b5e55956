//! Encrypted connections and passwords, and what is said when they do not fit.

use evermill_contract::source::conformance::{Driver, World, numbered};
use evermill_contract::source::{LaneName, Source as _, SourceError, SourceEvent};

use super::apache::Apache;
use crate::kafka_world::Topic;

/// What `xtask` gave the test broker.
const USER: &str = "ada";
const PASSWORD: &str = "not-a-secret";

fn of_broker(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: this test needs an Apache Kafka with encrypted listeners. Run \
             `cargo xtask test`, or export what `cargo xtask kafka` prints."
        )
    })
}

fn tls() -> String {
    of_broker("EVERMILL_TEST_KAFKA_TLS")
}

fn sasl() -> String {
    of_broker("EVERMILL_TEST_KAFKA_SASL")
}

/// Trusts the broker's certificate.
fn trust() -> String {
    format!("ssl.ca.location={}", of_broker("EVERMILL_TEST_KAFKA_CA"))
}

fn login(mechanism: &str, password: &str) -> String {
    format!(
        "security.protocol=SASL_SSL&sasl.mechanism={mechanism}&sasl.username={USER}\
         &sasl.password={password}"
    )
}

/// A topic with five messages, and a source that reaches it in this way.
fn reached_by(address: &str, settings: &str) -> Topic {
    let mut topic = Apache::connect().topic(1, &[]);
    let lane = LaneName::from(format!("{}/0", topic.name()));
    topic.publish(&lane, &numbered("m", 5));
    topic.connection = format!("kafka://{address}?{settings}");
    topic
}

fn reads(address: &str, settings: &str) {
    let mut topic = reached_by(address, settings);
    let mut driver = Driver::new(topic.open());
    let lanes = driver.start_all(1);
    driver.receive(&lanes[0], 5);
    assert_eq!(driver.values(&lanes[0]), numbered("m", 5));
}

/// What is said first of a connection that does not work; it holds no secret.
fn complaint(address: &str, settings: &str) -> String {
    let mut topic = reached_by(address, settings);
    let mut driver = Driver::new(topic.open());
    let degraded = |driver: &Driver| {
        driver.said.iter().find_map(|event| match event {
            SourceEvent::Degraded { reason } => Some(reason.clone()),
            _ => None,
        })
    };
    driver.until("a complaint", |driver| degraded(driver).is_some());
    let said = topic.diagnostics.lock().unwrap().join("\n");
    let reason = degraded(&driver).unwrap();
    for secret in [PASSWORD, "wrong-one"] {
        assert!(!reason.contains(secret) && !said.contains(secret), "{said}");
    }
    reason
}

#[test]
fn every_mechanism_logs_in_over_tls() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let login = login(mechanism, PASSWORD);
        reads(&sasl(), &format!("{login}&{}", trust()));
    }
}

#[test]
fn a_connection_may_be_encrypted_alone() {
    reads(&tls(), &format!("security.protocol=SSL&{}", trust()));
}

#[test]
fn c16_a_wrong_password_is_said_with_the_cure() {
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let login = login(mechanism, "wrong-one");
        let said = complaint(&sasl(), &format!("{login}&{}", trust()));
        assert!(said.contains("does not take user and password"), "{said}");
        assert!(said.contains("sasl.username, sasl.password"), "{said}");
    }
}

/// S18.
#[test]
fn c16_a_certificate_that_cannot_be_verified_is_said_with_the_cure() {
    let login = login("PLAIN", PASSWORD);
    let by_number = sasl().replace("localhost", "127.0.0.1");
    for (address, settings) in [
        // An authority that nobody trusts.
        (sasl(), login.clone()),
        // A name that the certificate is not made out to.
        (by_number, format!("{login}&{}", trust())),
    ] {
        let said = complaint(&address, &settings);
        assert!(said.contains(&address), "{said}");
        assert!(said.contains("certificate cannot be verified"), "{said}");
        let cures = said.contains("ssl.ca.location") && said.contains("host name");
        assert!(cures, "{said}");
    }
}

#[test]
fn a_listener_of_another_protocol_is_said_with_the_cure() {
    let plain = Apache::connect().bootstrap;
    let encrypted = format!("security.protocol=SSL&{}", trust());
    for (address, settings, cure) in [
        (&tls(), "", "set security.protocol=SSL, or SASL_SSL"),
        (&sasl(), &encrypted[..], "set security.protocol=SASL_SSL"),
        (&plain, &encrypted[..], "leave security.protocol out"),
    ] {
        let said = complaint(address, settings);
        assert!(said.contains(cure), "{said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_refused_by_name() {
    let topic = reached_by(
        &tls(),
        "security.protocol=SSL&ssl.ca.location=/not/there.pem",
    );
    let mut source = topic.try_open().expect("settings that can be");
    let refused = source.poll(std::time::Duration::ZERO, &mut Vec::new());
    let Err(SourceError::Refused(why)) = refused else {
        panic!("{refused:?}")
    };
    assert!(why.contains("ssl.ca.location"), "{why}");
}
