//! Values in a language of schemas that become JSON: Avro, Protobuf. What both share is where the schema of a
//! value comes from, and what a registry's format looks like.

use std::sync::Arc;

use evermill_contract::source::Unavailable;

use super::registry::{Entry, Referred, Registry};

/// JSON was appended; or what is wrong with the value.
pub(super) type Decoded = Result<(), String>;

/// What schemas are written in.
pub(super) trait Language: Send + Sync + Sized {
    /// As registries name it.
    const REGISTERED: &'static str;
    /// As we name it.
    const CODEC: &'static str;

    /// Reads a schema of a registry, with those it refers to.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(schema: &str, references: &[Referred]) -> Result<Self, String>;

    /// Appends a value as JSON; of one that named its schema, what follows the id.
    ///
    /// # Errors
    /// What is wrong with it, and where. What was appended is nobody's.
    fn decode(&self, value: &[u8], out: &mut Vec<u8>) -> Decoded;

    /// Whether somebody who edited a value wrote JSON.
    fn is_edited(value: &[u8]) -> bool;
}

/// Where the schema of a value comes from.
pub(super) enum Schemas<L> {
    /// It is the same for all; a value is nothing else.
    Fixed(Arc<L>),
    /// Each value names it: a zero byte, the id in four bytes, then the rest.
    Named(Box<Registry<L>>),
}

impl<L: Language> Schemas<L> {
    /// Decodes a value.
    ///
    /// # Errors
    /// The registry does not answer.
    pub(super) fn decode(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Decoded, Unavailable> {
        let (registry, id, rest) = match self.head(value) {
            Head::Ready(schema) => return Ok(decoded(&*schema, value, out)),
            Head::Wrong(why) => return Ok(Err(why)),
            Head::Named(registry, id, rest) => (registry, id, rest),
        };
        Ok(by_entry(&registry.find(id)?, id, rest, out))
    }

    /// The same without asking; `None` when that is needed.
    pub(super) fn decode_known(&self, value: &[u8], out: &mut Vec<u8>) -> Option<Decoded> {
        Some(match self.head(value) {
            Head::Ready(schema) => decoded(&*schema, value, out),
            Head::Wrong(why) => Err(why),
            Head::Named(registry, id, rest) => by_entry(&registry.known(id)?, id, rest, out),
        })
    }

    fn head<'v>(&'v self, value: &'v [u8]) -> Head<'v, L> {
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

enum Head<'v, L> {
    Ready(Arc<L>),
    Named(&'v Registry<L>, u32, &'v [u8]),
    Wrong(String),
}

fn by_entry<L: Language>(entry: &Entry<L>, id: u32, rest: &[u8], out: &mut Vec<u8>) -> Decoded {
    match entry {
        Entry::Useless(why) => Err(why.clone()),
        Entry::Schema(schema) => {
            decoded(&**schema, rest, out).map_err(|why| format!("{why} (schema {id})"))
        }
    }
}

/// Nothing is left behind of a value that cannot be decoded.
fn decoded<L: Language>(schema: &L, value: &[u8], out: &mut Vec<u8>) -> Decoded {
    let before = out.len();
    let done = schema.decode(value, out);
    if done.is_err() {
        out.truncate(before);
    }
    done
}
