//! Avro: a binary value and the schema it was written with become JSON.
//!
//! | Avro | JSON |
//! |---|---|
//! | null, boolean, int, long, double | the same; a double that is no number is `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | float | the shortest number that is this float |
//! | string, enum, uuid | text |
//! | bytes, fixed | base64 |
//! | record, map | object |
//! | array | list |
//! | union | the value itself |
//! | decimal | text, such as `"-12.50"` |
//! | date | `"2026-01-31"` |
//! | time-millis, time-micros | `"12:30:00.250"`, with 3 digits or 6 |
//! | timestamp-millis, -micros, -nanos | `"2026-01-31T12:30:00.250Z"`, with 3, 6 or 9 digits |
//! | local-timestamp-... | the same without `Z` |
//! | duration | `{"months": 1, "days": 2, "millis": 3}` |

mod decode;
mod logical;
mod schema;

use serde_json::Value;

pub(super) use schema::Schema;

use super::decoding::{Decoded, Language};
use super::registry::Referred;

impl Language for Schema {
    const REGISTERED: &'static str = "AVRO";
    const CODEC: &'static str = "avro";

    fn read(schema: &str, references: &[Referred]) -> Result<Self, String> {
        let value = |text: &str| serde_json::from_str::<Value>(text);
        let mut known = Vec::new();
        for referred in references {
            let schema = value(&referred.schema);
            known.push(schema.map_err(|cause| format!("{}: {cause}", referred.subject))?);
        }
        let schema = value(schema).map_err(|cause| cause.to_string())?;
        Self::parse(&schema, &known)
    }

    fn decode(&self, value: &[u8], out: &mut Vec<u8>) -> Decoded {
        decode::decode(self, value, out)
    }

    /// Avro of a registry begins with a zero, and bare Avro hardly ever as JSON does.
    fn is_edited(value: &[u8]) -> bool {
        value.first().is_none_or(|first| *first >= b'\t')
    }
}
