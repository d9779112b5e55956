//! What librdkafka says of a connection that does not work, in the words of whoever has to mend it.
//!
//! Its texts are matched, since its codes tell a refused password from a refused certificate and
//! nothing more; a text that is not known is passed on as it is. The tests against a real broker
//! fail when an update changes one of them.

use rdkafka::error::RDKafkaErrorCode;

/// How the end of a connection by the other side is worded; which one it is depends on who is faster.
const HANG_UPS: [&str; 3] = ["closed by peer", "Broken pipe", "Connection reset"];

/// Explains a complaint of librdkafka about a connection, with the cure if one is known.
pub(super) fn explain(code: RDKafkaErrorCode, said: &str, id: &str) -> String {
    let place = place(said);
    // A broker that has answered before hangs up when it is started again, and that has no cure.
    let hung_up = said.contains("/bootstrap: ") && HANG_UPS.iter().any(|how| said.contains(how));
    let (what, cure) = match code {
        _ if said.contains("certificate verify failed") => (
            "its certificate cannot be verified",
            "name the authority that signed it by ssl.ca.location (a file in PEM), and connect to \
             a host name that the certificate is made out to",
        ),
        _ if said.contains("connecting to a PLAINTEXT broker listener") => (
            "it does not speak TLS",
            "connect to its port for TLS, or leave security.protocol out",
        ),
        _ if hung_up && said.contains("in state SSL_HANDSHAKE") => (
            "it ends the TLS handshake",
            "connect to its port for TLS, or leave security.protocol out; where it wants a client \
             certificate, set ssl.certificate.location and ssl.key.location",
        ),
        _ if hung_up && said.starts_with("ssl://") => (
            "it hangs up, and may want a password",
            "set security.protocol=SASL_SSL, sasl.mechanism, sasl.username and sasl.password",
        ),
        _ if hung_up && !said.contains("://") => (
            "it hangs up, and may want TLS",
            "set security.protocol=SSL, or SASL_SSL where it wants a password",
        ),
        RDKafkaErrorCode::Authentication if said.contains("nsupported SASL mechanism") => (
            "it does not take this sasl.mechanism",
            "set one that it takes: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        ),
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => (
            "it does not take user and password",
            "mend sasl.username, sasl.password or sasl.mechanism",
        ),
        _ => return said.to_owned(),
    };
    format!(
        "{place}: {what}; for connection {id:?} {cure} ({})",
        shortened(said)
    )
}

/// The broker that a complaint begins with: `sasl_ssl://host:port/bootstrap: ...`.
fn place(said: &str) -> &str {
    let named = said.split_once("://").map_or(said, |(_, rest)| rest);
    let end = named.find(['/', ' ']).unwrap_or(named.len());
    named[..end].trim_end_matches(':')
}

/// A complaint without the place, and without what only its programmers read.
fn shortened(said: &str) -> &str {
    let rest = said
        .split_once("/bootstrap: ")
        .map_or(said, |(_, rest)| rest);
    let rest = rest.rsplit_once(" (after ").map_or(rest, |(rest, _)| rest);
    rest.split_once("SSL routines::")
        .map_or(rest, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_told_with_its_place_and_its_cure() {
        let said = "sasl_ssl://localhost:9093/bootstrap: SSL handshake failed: \
                    ssl/statem/x.c:1:f error:0A000086:SSL routines::certificate verify failed: \
                    broker certificate could not be verified (after 7ms in state SSL_HANDSHAKE)";
        let told = explain(RDKafkaErrorCode::SSL, said, "orders");
        assert!(
            told.starts_with("localhost:9093: its certificate"),
            "{told}"
        );
        assert!(told.contains("connection \"orders\""), "{told}");
        assert!(
            !told.contains("statem") && !told.contains("after"),
            "{told}"
        );
    }

    #[test]
    fn a_broker_that_is_started_again_wants_no_other_settings() {
        let said =
            "ssl://a:1/1: Disconnected: SSL connection closed by peer (after 9ms in state UP)";
        let code = RDKafkaErrorCode::BrokerTransportFailure;
        assert_eq!(explain(code, said, "x"), said);
        let first = said.replace("/1: ", "/bootstrap: ");
        assert!(explain(code, &first, "x").contains("may want a password"));
    }

    #[test]
    fn what_is_not_known_is_passed_on() {
        let said = "a:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: refused";
        let code = RDKafkaErrorCode::BrokerTransportFailure;
        assert_eq!(explain(code, said, "x"), said);
    }
}
