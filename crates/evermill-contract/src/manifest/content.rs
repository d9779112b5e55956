//! What the values of a source have to be, and how they become what tasks read.

use serde::{Deserialize, Serialize};

/// What a value is on its way to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// Anything.
    Bytes,
    /// UTF-8.
    Text,
    /// JSON.
    Json,
    /// Avro; tasks read it as JSON.
    Avro,
    /// Protobuf; tasks read it as JSON.
    Protobuf,
}
