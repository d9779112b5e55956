//! Why a call has no answer, in words that name the cure.

use std::time::SystemTime;

use evermill_http::Response;
use serde_json::Value;

use super::xml;

/// Why a call has no answer. Holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{said}")]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// One sentence for people, with the cure.
    pub(crate) said: String,
}

/// What to make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What was asked for is not there.
    Missing,
    /// Who asks is not known, or not any more.
    Credentials,
    /// Our clock and theirs disagree, so that nothing we sign holds.
    Clock,
    /// Who asks may not.
    Denied,
    /// Too much was asked.
    Throttled,
    /// No answer, or one that says nothing.
    Away,
    /// What was asked cannot be; asking again changes nothing.
    Refused,
}

impl Fault {
    pub(crate) const fn new(kind: Kind, said: String) -> Self {
        Self { kind, said }
    }

    /// There was no answer.
    pub(super) fn of_transport(error: &evermill_http::Error) -> Self {
        let kind = if error.may_pass() {
            Kind::Away
        } else {
            Kind::Refused
        };
        Self::new(kind, error.to_string())
    }

    /// An answer that is none of success.
    pub(super) fn of_answer(doing: &str, response: &Response) -> Self {
        let Said { code, message } = Said::read(response);
        let status = response.status;
        let place = &response.place;
        let behind = if message.is_empty() {
            String::new()
        } else {
            format!(": {message}")
        };
        if is_clock(&code, &message) {
            return Self::new(Kind::Clock, skewed(response, SystemTime::now()));
        }
        let elsewhere = response.header("x-amz-bucket-region");
        let is_elsewhere = matches!(
            code.as_str(),
            "PermanentRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException"
        );
        if let Some(region) = elsewhere.filter(|_| is_elsewhere) {
            let said = format!(
                "{place} {doing}: it is in region {region}; set the connection's region to that"
            );
            return Self::new(Kind::Refused, said);
        }
        let named = if code.is_empty() {
            format!("status {status}")
        } else {
            code.clone()
        };
        let (kind, cure) = match code.as_str() {
            "ExpiredToken" | "ExpiredTokenException" => (
                Kind::Credentials,
                "these credentials have expired; give new ones, or a profile or role that renews them",
            ),
            "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "InvalidAccessKeyId"
            | "InvalidSecurity"
            | "MissingAuthenticationToken"
            | "NotAuthorized"
            | "InvalidToken" => (
                Kind::Credentials,
                "AWS does not know these credentials; check access_key_id, session_token and the region's partition",
            ),
            "SignatureDoesNotMatch" | "InvalidSignatureException" | "IncompleteSignature" => (
                Kind::Credentials,
                "the signature is not the right one; check secret_access_key",
            ),
            "AccessDenied" | "AccessDeniedException" | "AuthorizationError" | "Forbidden" => (
                Kind::Denied,
                "allow it in the policy of these credentials, or of what is asked for",
            ),
            code if code.starts_with("KMS.") || code.starts_with("Kms") => {
                (Kind::Denied, "allow the use of the key that encrypts it")
            }
            "RequestThrottled"
            | "ThrottlingException"
            | "Throttling"
            | "TooManyRequestsException"
            | "SlowDown"
            | "RequestLimitExceeded" => (Kind::Throttled, "asked again more slowly"),
            "OverLimit" => (
                Kind::Throttled,
                "too many of its messages are with readers; it is asked again when some are deleted",
            ),
            "QueueDoesNotExist"
            | "AWS.SimpleQueueService.NonExistentQueue"
            | "NonExistentQueue"
            | "NoSuchBucket" => (Kind::Missing, ""),
            _ if status == 429 => (Kind::Throttled, "asked again more slowly"),
            _ if status >= 500 => (Kind::Away, "asked again"),
            _ => (Kind::Refused, ""),
        };
        let cure = if cure.is_empty() {
            String::new()
        } else {
            format!("; {cure}")
        };
        Self::new(kind, format!("{place} {doing}: {named}{behind}{cure}"))
    }
}

/// Code and words of an error, in either of the two shapes.
struct Said {
    code: String,
    message: String,
}

impl Said {
    fn read(response: &Response) -> Self {
        let body = String::from_utf8_lossy(&response.body);
        let of_header = response.header("x-amzn-errortype").unwrap_or_default();
        let (code, message) = match serde_json::from_str::<Value>(&body) {
            Ok(json) => {
                let text = |name: &str| json[name].as_str().map(str::to_owned);
                let code = text("__type").or_else(|| text("code"));
                let message = text("message").or_else(|| text("Message"));
                (code, message)
            }
            Err(_) => (xml::text(&body, "Code"), xml::text(&body, "Message")),
        };
        let code = code.unwrap_or_else(|| of_header.to_owned());
        let code = code.split(':').next().unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or_default().to_owned();
        Self {
            code,
            message: shortened(&message.unwrap_or_default()),
        }
    }
}

/// A service may put the whole request into its words.
fn shortened(message: &str) -> String {
    const CHARACTERS_MAX: usize = 300;
    let line = message.lines().next().unwrap_or_default().trim();
    let line = line.trim_end_matches('.');
    match line.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

fn is_clock(code: &str, message: &str) -> bool {
    let signature = [
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "AuthFailure",
    ];
    matches!(code, "RequestTimeTooSkewed" | "RequestExpired")
        || (signature.contains(&code)
            && (message.contains("expired") || message.contains("not yet current")))
}

fn skewed(response: &Response, ours: SystemTime) -> String {
    let theirs = response.header("date");
    let theirs = theirs.and_then(|text| httpdate::parse_http_date(text).ok());
    let distance = theirs.map(|theirs| match ours.duration_since(theirs) {
        Ok(ahead) => format!("{} s ahead of", ahead.as_secs()),
        Err(behind) => format!("{} s behind", behind.duration().as_secs()),
    });
    let distance = distance.unwrap_or_else(|| "far from".to_owned());
    format!(
        "{}: this machine's clock is {distance} theirs, so that nothing it signs holds; set it right (NTP)",
        response.place
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermill_http::HeaderMap;
    use std::time::Duration;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Response {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Response {
            status,
            headers: map,
            body: body.as_bytes().to_vec(),
            place: "https://sqs.eu-west-1.amazonaws.com/".to_owned(),
        }
    }

    #[test]
    fn errors_of_both_shapes_are_told_apart_and_name_the_cure() {
        for (status, body, kind, said) in [
            (
                400,
                r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"The specified queue does not exist."}"#,
                Kind::Missing,
                "does not exist",
            ),
            (
                400,
                r#"{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"The security token included in the request is expired"}"#,
                Kind::Credentials,
                "renews them",
            ),
            (
                403,
                "<ErrorResponse><Error><Code>InvalidClientTokenId</Code><Message>x</Message></Error></ErrorResponse>",
                Kind::Credentials,
                "access_key_id",
            ),
            (
                403,
                r#"{"__type":"AccessDeniedException","Message":"User: arn:aws:iam::1:user/a is not authorized to perform: sqs:receivemessage"}"#,
                Kind::Denied,
                "sqs:receivemessage",
            ),
            (
                400,
                r#"{"__type":"com.amazonaws.sqs#KmsAccessDenied","message":"no"}"#,
                Kind::Denied,
                "the key that encrypts it",
            ),
            (
                400,
                r#"{"__type":"com.amazonaws.sqs#OverLimit"}"#,
                Kind::Throttled,
                "with readers",
            ),
            (
                400,
                r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#,
                Kind::Throttled,
                "Rate exceeded",
            ),
            (503, "", Kind::Away, "status 503"),
            (
                400,
                r#"{"__type":"InvalidParameterValue","message":"bad"}"#,
                Kind::Refused,
                "InvalidParameterValue: bad",
            ),
        ] {
            let fault = Fault::of_answer("ReceiveMessage", &answer(status, &[], body));
            assert_eq!(fault.kind, kind, "{body}");
            assert!(
                fault.said.contains(said) && fault.said.contains("ReceiveMessage"),
                "{fault}"
            );
        }
        let header = [(
            "x-amzn-errortype",
            "com.amazonaws.sqs#QueueDoesNotExist:http://x",
        )];
        assert_eq!(
            Fault::of_answer("x", &answer(400, &header, "")).kind,
            Kind::Missing
        );
    }

    /// D12.
    #[test]
    fn d12_a_clock_that_is_wrong_is_named_with_how_far_it_is_off() {
        let theirs = SystemTime::now() + Duration::from_secs(1_200);
        let date = httpdate::fmt_http_date(theirs);
        let body = r#"{"__type":"com.amazon.coral.service#InvalidSignatureException","message":"Signature expired: 20260101T000000Z is now earlier than 20260101T000500Z"}"#;
        let fault = Fault::of_answer("x", &answer(400, &[("date", &date)], body));
        assert_eq!(fault.kind, Kind::Clock);
        assert!(fault.said.contains("s behind theirs"), "{fault}");
        let date = httpdate::fmt_http_date(theirs - Duration::from_secs(3_000));
        let body = "<Error><Code>RequestTimeTooSkewed</Code><Message>x</Message></Error>";
        let fault = Fault::of_answer("x", &answer(403, &[("date", &date)], body));
        assert!(
            fault.said.contains("s ahead of theirs") && fault.said.contains("NTP"),
            "{fault}"
        );
        // The same code for a wrong secret is no matter of clocks.
        let body = r#"{"__type":"SignatureDoesNotMatch","message":"The request signature we calculated does not match"}"#;
        assert_eq!(
            Fault::of_answer("x", &answer(403, &[], body)).kind,
            Kind::Credentials
        );
    }
}
