//! Whether the outside world is well, and what the engine was told of it.

use evermill_contract::source::SourceEvent;
use rdkafka::error::RDKafkaErrorCode;

/// Something that keeps us from reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    kind: Kind,
    reason: String,
}

/// Reasons of one kind replace each other silently: a broker that is away is worded differently at
/// each attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unreachable,
    Denied,
    Topic,
    Partition,
}

impl Trouble {
    pub(super) fn unreachable(reason: String) -> Self {
        Self {
            kind: Kind::Unreachable,
            reason,
        }
    }

    pub(super) fn denied(reason: String) -> Self {
        Self {
            kind: Kind::Denied,
            reason,
        }
    }

    pub(super) fn topic(reason: String) -> Self {
        Self {
            kind: Kind::Topic,
            reason,
        }
    }
}

/// Follows troubles as they come and go, and tells each change once.
#[derive(Debug, Default)]
pub(super) struct Health {
    now: Option<Trouble>,
    told: Option<Kind>,
    /// The newest error that explains why brokers are away; used when they are.
    last_error: Option<Trouble>,
    /// One look at the statistics in the midst of a reconnect proves nothing.
    doubtful_looks: u32,
}

impl Health {
    /// Something is known to be wrong, or all to be well.
    pub(super) fn set(&mut self, trouble: Option<Trouble>) {
        if trouble.is_none() {
            self.last_error = None;
        }
        self.doubtful_looks = 0;
        self.now = trouble;
    }

    /// What the brokers, or the way to them, last complained of.
    pub(super) fn last_error(&self) -> Option<Trouble> {
        self.last_error.clone()
    }

    /// librdkafka reported an error.
    pub(super) fn heard(&mut self, code: RDKafkaErrorCode, reason: &str) {
        use RDKafkaErrorCode as Code;
        match code {
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed => {
                let trouble = Trouble::denied(format!("the brokers refuse us: {reason}"));
                self.last_error = Some(trouble.clone());
                self.now = Some(trouble);
            }
            Code::AllBrokersDown => {
                let trouble = self.last_error();
                self.now = Some(trouble.unwrap_or_else(|| unreachable(reason)));
            }
            Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut => {
                let denied = matches!(&self.last_error, Some(error) if error.kind == Kind::Denied);
                if !denied {
                    self.last_error = Some(unreachable(reason));
                }
            }
            _ => {}
        }
    }

    /// A connection broke, which explains nothing unless no broker is left.
    pub(super) fn broke(&mut self, how: &str) {
        if self.last_error.is_none() {
            self.last_error = Some(unreachable(how));
        }
    }

    /// A periodic look: is any broker connected, and does any partition have trouble?
    pub(super) fn review(&mut self, any_broker: bool, trouble: Option<String>) {
        match trouble {
            None if any_broker => self.set(None),
            None => {}
            Some(reason) => {
                self.doubtful_looks += 1;
                if self.doubtful_looks >= 2 {
                    let trouble = self.last_error.clone().filter(|_| !any_broker);
                    self.now = Some(trouble.unwrap_or(Trouble {
                        kind: Kind::Partition,
                        reason,
                    }));
                }
            }
        }
    }

    /// Tells what has changed since the last time.
    pub(super) fn tell(&mut self, out: &mut Vec<SourceEvent>) {
        let kind = self.now.as_ref().map(|trouble| trouble.kind);
        if kind == self.told {
            return;
        }
        self.told = kind;
        out.push(match &self.now {
            Some(trouble) => SourceEvent::Degraded {
                reason: trouble.reason.clone(),
            },
            None => SourceEvent::Recovered,
        });
    }
}

fn unreachable(reason: &str) -> Trouble {
    // What the library adds in brackets is of its own inside, and counts up.
    let reason = reason.split(" (after ").next().unwrap_or(reason);
    Trouble::unreachable(format!(
        "the brokers cannot be reached: {reason}; they are asked again and again: see whether they run, and whether \
         the connection has their address"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(health: &mut Health) -> Vec<String> {
        let mut out = Vec::new();
        health.tell(&mut out);
        out.into_iter()
            .map(|event| match event {
                SourceEvent::Degraded { reason } => reason,
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn one_outage_is_told_once_and_its_end_once() {
        let mut health = Health::default();
        assert!(told(&mut health).is_empty());
        health.heard(
            RDKafkaErrorCode::BrokerTransportFailure,
            "connect to a:1: refused (after 0ms in state CONNECT, 7 identical error(s) suppressed)",
        );
        assert!(told(&mut health).is_empty(), "one broker away is no outage");
        health.heard(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        let reason = told(&mut health).remove(0);
        assert!(reason.contains("connect to a:1: refused; they are asked again"));
        health.heard(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert!(told(&mut health).is_empty());
        health.review(false, None);
        assert!(told(&mut health).is_empty());
        health.review(true, None);
        assert_eq!(told(&mut health), ["Recovered"]);
    }

    #[test]
    fn a_single_look_during_a_reconnect_is_no_trouble() {
        let mut health = Health::default();
        health.review(true, Some("partition 0 has no leader".to_owned()));
        assert!(told(&mut health).is_empty());
        health.review(true, Some("partition 0 has no leader".to_owned()));
        assert_eq!(told(&mut health), ["partition 0 has no leader"]);
    }

    #[test]
    fn a_refusal_is_not_hidden_by_the_broken_connection_that_follows() {
        let mut health = Health::default();
        health.heard(RDKafkaErrorCode::Authentication, "wrong password");
        health.heard(RDKafkaErrorCode::BrokerTransportFailure, "disconnected");
        health.heard(RDKafkaErrorCode::AllBrokersDown, "all down");
        assert!(told(&mut health)[0].contains("wrong password"));
    }
}
