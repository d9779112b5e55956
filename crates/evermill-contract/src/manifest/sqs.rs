//! Queues of Amazon SQS: to read from, to write to.

use serde::{Deserialize, Serialize};

use super::is_default;

/// A queue of Amazon SQS to read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqsSource {
    /// The queue's name, its URL or its ARN.
    pub queue: String,
    /// The connection id that `--connection` and `EVERMILL_CONNECTION_*` give settings to.
    #[serde(default = "aws_default", skip_serializing_if = "is_aws_default")]
    pub connection: String,
    /// When a message is deleted from the queue.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ack: SqsAck,
}

/// When a message is deleted from its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SqsAck {
    /// Once our own store holds it.
    #[default]
    Ingest,
    /// Once its activation is settled; until then the queue hides it from others.
    Outcome,
}

/// A queue of Amazon SQS to write to: one message per member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqsSink {
    /// The queue's name, its URL or its ARN.
    pub queue: String,
    /// The connection id that `--connection` and `EVERMILL_CONNECTION_*` give settings to.
    #[serde(default = "aws_default", skip_serializing_if = "is_aws_default")]
    pub connection: String,
    /// The task whose result is the message; without it, the event's content is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<String>,
    /// What the group of a message is, if the queue is FIFO: the event's own key for `event`, one group
    /// for all for `none`, or what a JSON pointer finds in the value.
    #[serde(
        default = "super::sink::of_event",
        skip_serializing_if = "super::sink::is_of_event"
    )]
    pub key: String,
}

/// The connection that needs no settings of ours: without any, those of the machine hold.
pub const AWS_DEFAULT: &str = "aws_default";

/// Whether a queue keeps the messages of a group in line: its name says so.
#[must_use]
pub fn is_fifo(queue: &str) -> bool {
    queue.ends_with(".fifo")
}

/// The connection that has to be given: any but the default one.
#[must_use]
pub(super) fn needed(connection: &str) -> Option<&str> {
    Some(connection).filter(|id| *id != AWS_DEFAULT)
}

/// What is wrong with a queue's name, if something is.
///
/// # Errors
/// What may be written instead.
pub fn check_queue(queue: &str) -> Result<(), &'static str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let is_name = |name: &str| {
        let bare = name.strip_suffix(".fifo").unwrap_or(name);
        !bare.is_empty() && name.len() <= 80 && bare.bytes().all(legal)
    };
    if queue.starts_with("https://") || queue.starts_with("http://") {
        let name = queue.rsplit('/').next().unwrap_or_default();
        return is_name(name)
            .then_some(())
            .ok_or("a queue's URL ends with its name");
    }
    if let Some(rest) = queue.strip_prefix("arn:") {
        let parts: Vec<&str> = rest.split(':').collect();
        return match parts[..] {
            [_, "sqs", region, account, name]
                if !region.is_empty() && !account.is_empty() && is_name(name) =>
            {
                Ok(())
            }
            _ => Err("a queue's ARN is arn:aws:sqs:REGION:ACCOUNT:NAME"),
        };
    }
    is_name(queue).then_some(()).ok_or(
        "write a queue's name (letters, digits, '-' and '_', at most 80, with .fifo behind it if it is one), its URL or its ARN",
    )
}

pub(super) fn aws_default() -> String {
    AWS_DEFAULT.to_owned()
}

pub(super) fn is_aws_default(connection: &str) -> bool {
    connection == AWS_DEFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_by_its_name_its_url_or_its_arn() {
        for good in [
            "orders",
            "a-b_C9",
            "orders.fifo",
            "https://sqs.eu-central-1.amazonaws.com/123456789012/orders",
            "http://127.0.0.1:9324/000000000000/orders.fifo",
            "arn:aws:sqs:eu-central-1:123456789012:orders",
            "arn:aws-cn:sqs:cn-north-1:123456789012:orders.fifo",
        ] {
            assert_eq!(check_queue(good), Ok(()), "{good}");
        }
        let long = "x".repeat(81);
        for bad in [
            "",
            "two words",
            ".fifo",
            "a.b",
            "orders.fifo.old",
            "http://127.0.0.1/",
            "arn:aws:sns:eu-central-1:1:t",
            "arn:aws:sqs::1:t",
            &long,
        ] {
            assert!(check_queue(bad).is_err(), "{bad}");
        }
    }
}
