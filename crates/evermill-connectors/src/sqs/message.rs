//! From a message of SQS to an event.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use evermill_contract::source::Arrival;

use super::api::Message;

/// What SQS itself says of a message stands before its name in a header's. No sender may use it for an
/// attribute of its own.
const OURS: &str = "AWS.";

/// The event that a message is.
pub(super) fn arrival(message: Message) -> Arrival {
    let Message {
        message_id,
        body,
        mut attributes,
        message_attributes,
        ..
    } = message;
    let sent = attributes.remove("SentTimestamp");
    let key = attributes.get("MessageGroupId").cloned();
    let mut headers: Vec<(Bytes, Bytes)> = Vec::with_capacity(message_attributes.len() + 4);
    for (name, attribute) in message_attributes {
        let value = match (attribute.string_value, attribute.binary_value) {
            (Some(text), _) => text.into_bytes(),
            // What is no base64 is passed on as it came.
            (None, Some(text)) => STANDARD.decode(&text).unwrap_or_else(|_| text.into_bytes()),
            (None, None) => Vec::new(),
        };
        headers.push((name.into(), value.into()));
    }
    attributes.insert("MessageId".to_owned(), message_id.clone());
    for (name, value) in attributes {
        let name = name.strip_prefix("AWS").unwrap_or(&name);
        headers.push((format!("{OURS}{name}").into(), value.into()));
    }
    Arrival {
        timestamp_ms: sent.and_then(|ms| ms.parse().ok()),
        key: key.map(Bytes::from),
        headers,
        value: Some(body.into()),
        id: Some(message_id.into()),
        ..Arrival::default()
    }
}

/// About how many bytes it takes.
pub(super) fn size(message: &Message) -> usize {
    let own = message.message_attributes.iter();
    let own = own.map(|(name, attribute)| {
        let text = attribute.string_value.as_ref().map_or(0, String::len);
        name.len() + text + attribute.binary_value.as_ref().map_or(0, String::len)
    });
    let given = message.attributes.iter();
    let given = given.map(|(name, value)| name.len() + value.len());
    message.body.len() + own.sum::<usize>() + given.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// D11.
    #[test]
    fn d11_body_attributes_and_bytes_come_through_as_they_are() {
        let mut attributes = serde_json::Map::new();
        for number in 0..12 {
            attributes.insert(
                format!("a{number:02}"),
                json!({"DataType": "Number", "StringValue": number.to_string()}),
            );
        }
        attributes.insert(
            "bytes".to_owned(),
            json!({"DataType": "Binary.png", "BinaryValue": "AP8="}),
        );
        let body = "x".repeat(1 << 20);
        let message = json!({
            "MessageId": "m-1", "ReceiptHandle": "r", "Body": body,
            "Attributes": {"SentTimestamp": "1700000000123", "MessageGroupId": "g", "AWSTraceHeader": "Root=1"},
            "MessageAttributes": attributes,
        });
        let message: Message = serde_json::from_value(message).unwrap();
        assert!(size(&message) > 1 << 20);
        let event = arrival(message);
        assert_eq!(event.value.unwrap().len(), 1 << 20);
        assert_eq!(event.timestamp_ms, Some(1_700_000_000_123));
        assert_eq!(event.key.as_deref(), Some(&b"g"[..]));
        assert_eq!(event.id.as_deref(), Some(&b"m-1"[..]));
        let header = |name: &str| {
            let found = event.headers.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.to_vec())
        };
        assert_eq!(event.headers.len(), 13 + 3);
        assert_eq!(header("a11").unwrap(), b"11");
        assert_eq!(header("bytes").unwrap(), [0, 255]);
        assert_eq!(header("AWS.MessageId").unwrap(), b"m-1");
        assert_eq!(header("AWS.TraceHeader").unwrap(), b"Root=1");
    }
}
