//! Connection settings: from what people write to what librdkafka takes.
//!
//! `host:port,host:port`, or `kafka://host:port,host:port?setting=value&setting=value` with the
//! settings of [`ALLOWED`], percent-encoded where needed.

use std::fmt;

use evermill_contract::source::{SourceBudget, SourceError};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::limits;

/// Settings a connection may carry, by librdkafka's names. What decides correctness (isolation,
/// offsets, assignment) is ours and cannot be set.
const ALLOWED: [&str; 24] = [
    "broker.address.family",
    "client.id",
    "client.rack",
    "enable.ssl.certificate.verification",
    "fetch.wait.max.ms",
    "heartbeat.interval.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "sasl.mechanism",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "socket.keepalive.enable",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "topic.metadata.refresh.interval.ms",
];

/// Settings whose values are shown to nobody.
const SECRET: [&str; 3] = ["sasl.password", "ssl.key.password", "ssl.key.pem"];

/// Where a Kafka cluster is and how to speak to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    brokers: String,
    settings: Vec<(&'static str, String)>,
}

impl Connection {
    /// Reads a connection as people write it; `id` is used in messages.
    ///
    /// # Errors
    /// [`SourceError::Refused`] naming the part that is wrong, never a secret value.
    pub fn parse(id: &str, text: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        let rest = match text.split_once("://") {
            None => text,
            Some(("kafka", rest)) => rest,
            Some((scheme, _)) => {
                return Err(refused(
                    id,
                    &format!("the scheme {scheme:?} is not \"kafka\""),
                ));
            }
        };
        let (brokers, query) = rest.split_once('?').unwrap_or((rest, ""));
        let brokers = brokers.trim_end_matches('/');
        check_brokers(id, brokers)?;
        let settings = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| setting(id, pair))
            .collect::<Result<_, _>>()?;
        let connection = Self {
            brokers: brokers.to_owned(),
            settings,
        };
        connection.check_values(id)?;
        Ok(connection)
    }

    /// The settings of a consumer that follows `lanes` partitions within `budget`.
    pub(super) fn consumer(&self, group: &str, lanes: usize, budget: SourceBudget) -> ClientConfig {
        let mut config = self.client();
        let share = (budget.prefetch_bytes / lanes.max(1)).clamp(
            limits::KAFKA_LANE_PREFETCH_MIN,
            limits::KAFKA_LANE_PREFETCH_MAX,
        );
        let fetch = (share / 4).min(limits::KAFKA_FETCH_MAX);
        let queue = share - fetch;
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .set("queued.max.messages.kbytes", (queue >> 10).to_string())
            .set(
                "queued.min.messages",
                (queue / limits::KAFKA_QUEUED_MESSAGE_BYTES).to_string(),
            )
            .set("fetch.message.max.bytes", fetch.to_string())
            .set("fetch.max.bytes", limits::KAFKA_FETCH_MAX.to_string())
            .set(
                "fetch.queue.backoff.ms",
                millis(limits::KAFKA_QUEUE_BACKOFF),
            )
            .set(
                "topic.metadata.propagation.max.ms",
                millis(limits::KAFKA_PROPAGATION),
            )
            .set("statistics.interval.ms", millis(limits::KAFKA_STATISTICS));
        set_default(
            &mut config,
            "fetch.wait.max.ms",
            millis(limits::KAFKA_FETCH_WAIT),
        );
        set_default(
            &mut config,
            "topic.metadata.refresh.interval.ms",
            millis(limits::KAFKA_DISCOVERY),
        );
        // The topic's id is told in this context's debug lines and nowhere else; see client.rs.
        config
            .set("debug", "metadata")
            .set_log_level(RDKafkaLogLevel::Debug);
        config
    }

    /// The settings of a client that is a member of `group` and reads nothing.
    pub(super) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("allow.auto.create.topics", "false");
        set_default(
            &mut config,
            "topic.metadata.refresh.interval.ms",
            millis(limits::KAFKA_DISCOVERY),
        );
        config
    }

    /// The settings of a client that writes: nothing is lost or doubled between it and the brokers,
    /// and keys go where Kafka's own clients put them.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        for of_readers in [
            "fetch.wait.max.ms",
            "heartbeat.interval.ms",
            "session.timeout.ms",
        ] {
            config.remove(of_readers);
        }
        config
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "1")
            .set("message.timeout.ms", millis(limits::KAFKA_DELIVERY));
        config
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "evermill")
            .set("reconnect.backoff.max.ms", "5000")
            .set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in &self.settings {
            config.set(*name, value);
        }
        config
    }

    fn check_values(&self, id: &str) -> Result<(), SourceError> {
        if let Some((_, mechanism)) = self.get("sasl.mechanism")
            && !matches!(
                mechanism.as_str(),
                "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512"
            )
        {
            return Err(refused(
                id,
                &format!(
                    "sasl.mechanism {mechanism:?} is not supported; \
                     use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
                ),
            ));
        }
        self.check_security(id)?;
        match self.client().create_native_config() {
            Ok(_) => Ok(()),
            Err(KafkaError::ClientConfig(_, why, name, _)) if !SECRET.contains(&name.as_str()) => {
                Err(refused(id, &format!("{name}: {why}")))
            }
            Err(KafkaError::ClientConfig(_, _, name, _)) => Err(refused(
                id,
                &format!("the value of {name} is not acceptable"),
            )),
            Err(_) => Err(refused(id, "its settings are not acceptable")),
        }
    }

    /// What is set must have its effect: a password that is never asked for, or an authority that
    /// nobody consults, would be a connection less safe than it looks.
    fn check_security(&self, id: &str) -> Result<(), SourceError> {
        let protocol = self
            .get("security.protocol")
            .map_or_else(|| "PLAINTEXT".to_owned(), |(_, it)| it.to_uppercase());
        let (sasl, tls) = (protocol.starts_with("SASL_"), protocol.ends_with("SSL"));
        let first = |prefix: &str| {
            let mut names = self.settings.iter().map(|(name, _)| *name);
            names.find(|name| name.starts_with(prefix))
        };
        let without_effect = |name: &str, wanted: &str| {
            let why = format!(
                "{name} has no effect with security.protocol={protocol}; set \
                 security.protocol={wanted}"
            );
            Err(refused(id, &why))
        };
        if let Some(name) = first("sasl.").filter(|_| !sasl) {
            return without_effect(
                name,
                if tls {
                    "SASL_SSL"
                } else {
                    "SASL_SSL, or SASL_PLAINTEXT where no TLS is"
                },
            );
        }
        if let Some(name) = first("ssl.").filter(|_| !tls) {
            return without_effect(name, if sasl { "SASL_SSL" } else { "SSL" });
        }
        let needed = ["sasl.mechanism", "sasl.username", "sasl.password"];
        match needed.into_iter().find(|name| self.get(name).is_none()) {
            Some(missing) if sasl => Err(refused(
                id,
                &format!("security.protocol={protocol} needs {missing}"),
            )),
            _ => Ok(()),
        }
    }

    fn get(&self, name: &str) -> Option<&(&'static str, String)> {
        self.settings.iter().find(|(set, _)| *set == name)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.brokers)?;
        for (name, value) in &self.settings {
            let shown = if SECRET.contains(name) { "***" } else { value };
            write!(f, " {name}={shown}")?;
        }
        Ok(())
    }
}

fn set_default(config: &mut ClientConfig, name: &str, value: String) {
    if config.get(name).is_none() {
        config.set(name, value);
    }
}

fn millis(duration: std::time::Duration) -> String {
    duration.as_millis().to_string()
}

fn check_brokers(id: &str, brokers: &str) -> Result<(), SourceError> {
    if brokers.contains('@') {
        return Err(refused(
            id,
            "a user and password do not stand before the host; \
             write ?sasl.username=...&sasl.password=...",
        ));
    }
    for broker in brokers.split(',') {
        let port = broker
            .rsplit_once(':')
            .map(|(host, port)| (host, port.parse::<u16>()));
        if !matches!(port, Some((host, Ok(1..))) if !host.is_empty()) {
            return Err(refused(id, &format!("{broker:?} is not HOST:PORT")));
        }
    }
    Ok(())
}

fn setting(id: &str, pair: &str) -> Result<(&'static str, String), SourceError> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let name = if name == "sasl.mechanisms" {
        "sasl.mechanism"
    } else {
        name
    };
    let Some(name) = ALLOWED.iter().find(|allowed| **allowed == name) else {
        return Err(refused(
            id,
            &format!(
                "the setting {name:?} is not known; known are {}",
                ALLOWED.join(", ")
            ),
        ));
    };
    let value = percent_decode(value).ok_or_else(|| {
        refused(
            id,
            &format!("the value of {name} is not percent-encoded UTF-8"),
        )
    })?;
    Ok((name, value))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        rest = tail;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

fn refused(id: &str, why: &str) -> SourceError {
    SourceError::Refused(format!(
        "connection {id:?}: {why}. Expected HOST:PORT,... or kafka://HOST:PORT,...?setting=value"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Connection, String> {
        Connection::parse("kafka_default", text).map_err(|error| error.to_string())
    }

    #[test]
    fn both_forms_of_an_address_are_read() {
        let plain = parse("a:9092,[::1]:9093").unwrap();
        assert_eq!(plain, parse("kafka://a:9092,[::1]:9093/").unwrap());
        assert_eq!(plain.brokers, "a:9092,[::1]:9093");
    }

    #[test]
    fn settings_are_decoded_and_handed_on() {
        let connection = parse(
            "kafka://a:1?sasl.mechanisms=PLAIN&sasl.username=u%40x&security.protocol=SASL_SSL\
             &sasl.password=p",
        )
        .unwrap();
        let config = connection.client();
        assert_eq!(config.get("sasl.username"), Some("u@x"));
        assert_eq!(config.get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(config.get("sasl.mechanism"), Some("PLAIN"));
    }

    #[test]
    fn what_decides_correctness_cannot_be_set() {
        for setting in [
            "isolation.level=read_uncommitted",
            "enable.auto.commit=true",
            "debug=all",
        ] {
            let error = parse(&format!("kafka://a:1?{setting}")).unwrap_err();
            assert!(error.contains("is not known"), "{error}");
        }
    }

    #[test]
    fn faults_name_their_part() {
        for (text, part) in [
            ("", "\"\" is not HOST:PORT"),
            ("localhost", "\"localhost\" is not HOST:PORT"),
            ("a:1,:2", "\":2\" is not HOST:PORT"),
            ("a:0", "\"a:0\" is not HOST:PORT"),
            ("http://a:1", "scheme \"http\""),
            ("kafka://a:1?sasl.username=%zz", "sasl.username"),
            (
                "kafka://a:1?security.protocol=nonsense",
                "security.protocol",
            ),
            (
                "kafka://a:1?sasl.mechanism=GSSAPI",
                "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
            ),
            ("kafka://a:1?sasl.password=x", "security.protocol=SASL_SSL"),
            (
                "kafka://a:1?security.protocol=SSL&sasl.password=x",
                "security.protocol=SASL_SSL",
            ),
            ("kafka://a:1?ssl.ca.location=x", "security.protocol=SSL"),
            (
                "kafka://a:1?security.protocol=sasl_ssl&sasl.mechanism=PLAIN&sasl.username=u",
                "needs sasl.password",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(part) && error.contains("kafka_default"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let text = "kafka://a:1?sasl.password=hunter2&ssl.key.password=hunter2&sasl.username=me\
                    &sasl.mechanism=PLAIN&security.protocol=SASL_SSL";
        let shown = format!("{:?}", parse(text).unwrap());
        assert!(
            shown.contains("me") && !shown.contains("hunter2"),
            "{shown}"
        );
        for text in [
            "kafka://me:hunter2@a:1",
            "kafka://a:1?sasl.password=hunter2%",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn prefetch_is_shared_among_lanes_within_the_budget() {
        let connection = parse("a:1").unwrap();
        let budget = SourceBudget {
            prefetch_bytes: 4 << 20,
            ..SourceBudget::default()
        };
        for lanes in [1, 3, 8] {
            let config = connection.consumer("g", lanes, budget);
            let number = |name| config.get(name).unwrap().parse::<usize>().unwrap();
            let lane =
                (number("queued.max.messages.kbytes") << 10) + number("fetch.message.max.bytes");
            assert!(
                lane * lanes <= budget.prefetch_bytes,
                "{lanes} lanes take {lane} each"
            );
            config.create_native_config().unwrap();
        }
    }
}
