//! The calls of SQS that are used, in the shape of its JSON protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::aws::{Client, Fault};
use crate::limits;

/// A message as it is received.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Message {
    pub(super) message_id: String,
    pub(super) receipt_handle: String,
    #[serde(default)]
    pub(super) body: String,
    /// What SQS itself says of it.
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) message_attributes: BTreeMap<String, Attribute>,
}

/// What its sender says of it: a text, or bytes in base64.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Attribute {
    pub(super) data_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) string_value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) binary_value: Option<String>,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) message_body: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) message_attributes: BTreeMap<String, Attribute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message_group_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message_deduplication_id: Option<String>,
}

/// What became of the entries of a batch; one that is named in neither list has no answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Batch {
    #[serde(default)]
    pub(super) successful: Vec<Done>,
    #[serde(default)]
    pub(super) failed: Vec<Failed>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Done {
    pub(super) id: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Failed {
    pub(super) id: String,
    #[serde(default)]
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
    /// Sending it again changes nothing.
    #[serde(default)]
    pub(super) sender_fault: bool,
}

/// Asks for messages and waits for the first of them. They are hidden from others for a lease.
pub(super) fn receive(client: &Client, url: &str, wait: Duration) -> Result<Vec<Message>, Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        messages: Vec<Message>,
    }
    let asked = json!({
        "QueueUrl": url,
        "MaxNumberOfMessages": limits::SQS_BATCH,
        "WaitTimeSeconds": wait.as_secs(),
        "VisibilityTimeout": limits::SQS_LEASE.as_secs(),
        "MessageSystemAttributeNames": ["All"],
        "MessageAttributeNames": ["All"],
    });
    let timeout = Some(wait + limits::SQS_CALL);
    let answer: Answer = client.call("AmazonSQS.ReceiveMessage", &asked, timeout)?;
    Ok(answer.messages)
}

/// Deletes messages by their receipts; an entry's id is its place in the list.
pub(super) fn delete(
    client: &Client,
    url: &str,
    receipts: &[String],
    timeout: Duration,
) -> Result<Batch, Fault> {
    let entry =
        |(at, receipt): (usize, &String)| json!({"Id": at.to_string(), "ReceiptHandle": receipt});
    let entries: Vec<_> = receipts.iter().enumerate().map(entry).collect();
    let asked = json!({"QueueUrl": url, "Entries": entries});
    client.call("AmazonSQS.DeleteMessageBatch", &asked, Some(timeout))
}

/// Hides messages from others for so long, from now on.
pub(super) fn hide(
    client: &Client,
    url: &str,
    receipts: &[String],
    for_so_long: Duration,
    timeout: Duration,
) -> Result<Batch, Fault> {
    let seconds = for_so_long.as_secs();
    let entry = |(at, receipt): (usize, &String)| json!({"Id": at.to_string(), "ReceiptHandle": receipt, "VisibilityTimeout": seconds});
    let entries: Vec<_> = receipts.iter().enumerate().map(entry).collect();
    let asked = json!({"QueueUrl": url, "Entries": entries});
    client.call(
        "AmazonSQS.ChangeMessageVisibilityBatch",
        &asked,
        Some(timeout),
    )
}

/// Sends messages.
pub(super) fn send(
    client: &Client,
    url: &str,
    entries: &[Sent],
    timeout: Duration,
) -> Result<Batch, Fault> {
    let asked = json!({"QueueUrl": url, "Entries": entries});
    client.call("AmazonSQS.SendMessageBatch", &asked, Some(timeout))
}

/// The URL of a queue by its name, of another account's queue if that is named.
pub(super) fn url_of(client: &Client, name: &str, account: Option<&str>) -> Result<String, Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        queue_url: String,
    }
    let mut asked = json!({"QueueName": name});
    if let Some(account) = account {
        asked["QueueOwnerAWSAccountId"] = account.into();
    }
    let timeout = Some(limits::SQS_CALL);
    let answer: Answer = client.call("AmazonSQS.GetQueueUrl", &asked, timeout)?;
    Ok(answer.queue_url)
}

/// Names of queues that there are, a thousand at most.
pub(super) fn names(client: &Client) -> Result<Vec<String>, Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        queue_urls: Vec<String>,
    }
    let timeout = Some(limits::SQS_CALL);
    let answer: Answer = client.call(
        "AmazonSQS.ListQueues",
        &json!({"MaxResults": 1000}),
        timeout,
    )?;
    let name = |url: String| url.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(answer.queue_urls.into_iter().map(name).collect())
}
