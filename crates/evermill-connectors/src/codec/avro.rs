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

use std::sync::Arc;

use evermill_contract::source::Unavailable;

pub(super) use schema::Schema;

use super::registry::{Entry, Registry};

/// JSON was appended; or what is wrong with the value.
pub(super) type Decoded = Result<(), String>;

/// Where the schema of a value comes from.
pub(super) enum Schemas {
    /// It is the same for all; a value is nothing but the Avro value.
    Fixed(Arc<Schema>),
    /// Each value names it: a zero byte, the id in four bytes, then the Avro value.
    Named(Box<Registry>),
}

impl Schemas {
    /// Decodes a value.
    ///
    /// # Errors
    /// The registry does not answer.
    pub(super) fn decode(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Decoded, Unavailable> {
        let (registry, id, rest) = match self.head(value) {
            Head::Ready(schema) => return Ok(decoded(&schema, value, out)),
            Head::Wrong(why) => return Ok(Err(why)),
            Head::Named(registry, id, rest) => (registry, id, rest),
        };
        Ok(by_entry(&registry.find(id)?, id, rest, out))
    }

    /// The same without asking; `None` when that is needed.
    pub(super) fn decode_known(&self, value: &[u8], out: &mut Vec<u8>) -> Option<Decoded> {
        Some(match self.head(value) {
            Head::Ready(schema) => decoded(&schema, value, out),
            Head::Wrong(why) => Err(why),
            Head::Named(registry, id, rest) => by_entry(&registry.known(id)?, id, rest, out),
        })
    }

    fn head<'v>(&'v self, value: &'v [u8]) -> Head<'v> {
        let registry = match self {
            Self::Fixed(schema) => return Head::Ready(Arc::clone(schema)),
            Self::Named(registry) => registry,
        };
        match value.split_first_chunk::<5>() {
            Some(([0, id @ ..], rest)) => Head::Named(registry, u32::from_be_bytes(*id), rest),
            _ => {
                let found = super::excerpt::bytes(value, 0);
                let found = if found.is_empty() { "nothing" } else { &found };
                Head::Wrong(format!(
                    "it begins with {found}, not with a zero byte and the id of a schema in four bytes"
                ))
            }
        }
    }
}

enum Head<'v> {
    Ready(Arc<Schema>),
    Named(&'v Registry, u32, &'v [u8]),
    Wrong(String),
}

fn by_entry(entry: &Entry, id: u32, rest: &[u8], out: &mut Vec<u8>) -> Decoded {
    match entry {
        Entry::Useless(why) => Err(why.clone()),
        Entry::Schema(schema) => {
            decoded(schema, rest, out).map_err(|why| format!("{why} (schema {id})"))
        }
    }
}

/// Nothing is left behind of a value that cannot be decoded.
fn decoded(schema: &Schema, value: &[u8], out: &mut Vec<u8>) -> Decoded {
    let before = out.len();
    let done = decode::decode(schema, value, out);
    if done.is_err() {
        out.truncate(before);
    }
    done
}
