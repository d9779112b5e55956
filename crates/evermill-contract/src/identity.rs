//! Activation identity and effect keys: derived, never allocated (C1).
//!
//! The format is frozen in `docs/spec/identity.md`; `golden/identity.json` holds vectors that the
//! Rust and the Python tests check. Everything is a sequence of *fields*, each a length (`u32`,
//! big endian) and that many bytes, so that no two different sequences have equal encodings.

use sha2::{Digest, Sha256};

/// First field of an activation's identity; its number is the format's version.
pub const ACTIVATION_DOMAIN: &[u8] = b"evermill.activation.1";
/// First field of what an effect key is the hash of.
pub const EFFECT_DOMAIN: &[u8] = b"evermill.effect.1";

/// What tells the events of a lane apart. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum IdKind {
    /// Position in a log: `u64`.
    Position = 1,
    /// Message id: bytes.
    Message = 2,
    /// Idempotency key: bytes.
    Key = 3,
    /// Nominal instant of a clock: nanoseconds since 1970, `i64`.
    Instant = 4,
    /// Number of a loop's iteration: `u64`.
    Iteration = 5,
    /// A source batch: the ids of its events.
    Members = 6,
}

impl IdKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Position,
            2 => Self::Message,
            3 => Self::Key,
            4 => Self::Instant,
            5 => Self::Iteration,
            6 => Self::Members,
            _ => return None,
        })
    }

    /// Whether ids of this kind are a number of eight bytes.
    #[must_use]
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Position | Self::Instant | Self::Iteration)
    }
}

/// Which activation of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationId<'a> {
    /// By position in a log.
    Position(u64),
    /// By message id.
    Message(&'a [u8]),
    /// By idempotency key.
    Key(&'a [u8]),
    /// By nominal instant, in nanoseconds since 1970.
    Instant(i64),
    /// By iteration.
    Iteration(u64),
    /// By the events of a batch, in order; they are never batches themselves.
    Members(&'a [ActivationId<'a>]),
}

impl ActivationId<'_> {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> IdKind {
        match self {
            Self::Position(_) => IdKind::Position,
            Self::Message(_) => IdKind::Message,
            Self::Key(_) => IdKind::Key,
            Self::Instant(_) => IdKind::Instant,
            Self::Iteration(_) => IdKind::Iteration,
            Self::Members(_) => IdKind::Members,
        }
    }

    fn value(&self) -> Vec<u8> {
        match self {
            Self::Position(number) | Self::Iteration(number) => number.to_be_bytes().to_vec(),
            Self::Instant(nanoseconds) => nanoseconds.to_be_bytes().to_vec(),
            Self::Message(bytes) | Self::Key(bytes) => bytes.to_vec(),
            Self::Members(members) => {
                let mut value = Vec::new();
                for member in *members {
                    push_field(&mut value, &[member.kind() as u8]);
                    push_field(&mut value, &member.value());
                }
                value
            }
        }
    }
}

/// The part of an identity that all activations of a lane share: run, source, incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LaneIdentity(Vec<u8>);

impl LaneIdentity {
    /// The identity of a lane. `incarnation` is what a re-created lane does not share with its
    /// predecessor, such as a topic id, together with the lane's name within the source.
    #[must_use]
    pub fn new(run: &str, source: &str, incarnation: &str) -> Self {
        let mut bytes = Vec::new();
        for field in [
            ACTIVATION_DOMAIN,
            run.as_bytes(),
            source.as_bytes(),
            incarnation.as_bytes(),
        ] {
            push_field(&mut bytes, field);
        }
        Self(bytes)
    }

    /// The identity behind a canonical encoding, as a dispatch carries it.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The canonical encoding: what a dispatch carries once per lane.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The canonical encoding of an activation's identity. `generation` is 0 except in a replay
    /// that asked for fresh effect keys (W18).
    #[must_use]
    pub fn activation(&self, id: &ActivationId<'_>, generation: u32) -> Vec<u8> {
        let mut bytes = self.0.clone();
        push_field(&mut bytes, &[id.kind() as u8]);
        push_field(&mut bytes, &id.value());
        push_field(&mut bytes, &u64::from(generation).to_be_bytes());
        bytes
    }
}

/// The key of a call's effect, the same in every attempt: 32 hexadecimal digits. `activation` is
/// what [`LaneIdentity::activation`] gives, `map_index` is -1 for a task that is not mapped, and
/// `call` counts the keys that the task asked for, from 0.
#[must_use]
pub fn effect_key(activation: &[u8], task: &str, map_index: i32, call: u64) -> String {
    let mut bytes = Vec::with_capacity(activation.len() + task.len() + 64);
    push_field(&mut bytes, EFFECT_DOMAIN);
    push_field(&mut bytes, activation);
    push_field(&mut bytes, task.as_bytes());
    push_field(&mut bytes, &i64::from(map_index).to_be_bytes());
    push_field(&mut bytes, &call.to_be_bytes());
    short_hash(&bytes)
}

/// An activation's identity in a form fit for people and file names: 32 hexadecimal digits.
#[must_use]
pub fn short_hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let mut text = String::with_capacity(32);
    for byte in &digest[..16] {
        text.push(char::from_digit(u32::from(byte >> 4), 16).expect("four bits"));
        text.push(char::from_digit(u32::from(byte & 15), 16).expect("four bits"));
    }
    text
}

pub(crate) fn push_field(bytes: &mut Vec<u8>, field: &[u8]) {
    let len = u32::try_from(field.len()).expect("an identity's field is smaller than 4 GiB");
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn vector(
        run: &str,
        source: &str,
        incarnation: &str,
        id: &ActivationId<'_>,
        generation: u32,
    ) -> Value {
        let lane = LaneIdentity::new(run, source, incarnation);
        let activation = lane.activation(id, generation);
        let keys: Vec<Value> = [("load", -1, 0), ("load", -1, 1), ("lo\u{e4}d", 3, u64::MAX)]
            .map(|(task, map_index, call)| {
                json!({
                    "task": task, "map_index": map_index, "call": call,
                    "key": effect_key(&activation, task, map_index, call),
                })
            })
            .into();
        json!({
            "run": run, "source": source, "incarnation": incarnation,
            "kind": id.kind() as u8, "value": hex(&id.value()), "generation": generation,
            "activation": hex(&activation), "short": short_hash(&activation), "effect_keys": keys,
        })
    }

    #[test]
    fn vectors_are_golden() {
        let members = [ActivationId::Position(7), ActivationId::Position(9)];
        let named = [ActivationId::Message(b"a"), ActivationId::Message(b"")];
        let vectors = json!([
            vector(
                "orders-1",
                "kafka",
                "tRmQ/3",
                &ActivationId::Position(41),
                0
            ),
            vector(
                "orders-1",
                "kafka",
                "tRmQ/3",
                &ActivationId::Position(41),
                1
            ),
            vector(
                "orders-1",
                "kafka",
                "tRmQ/3",
                &ActivationId::Position(u64::MAX),
                0
            ),
            vector(
                "orders-1",
                "sqs",
                "",
                &ActivationId::Message(b"5fea7756-0ea4"),
                0
            ),
            vector(
                "orders-1",
                "webhook",
                "",
                &ActivationId::Key(b"\x00\xff"),
                0
            ),
            vector(
                "t\u{e4}glich-2",
                "cron",
                "",
                &ActivationId::Instant(1_700_000_000_000_000_000),
                0
            ),
            vector("t\u{e4}glich-2", "cron", "", &ActivationId::Instant(-1), 0),
            vector("sim-1", "loop", "", &ActivationId::Iteration(0), 0),
            vector(
                "orders-1",
                "kafka",
                "tRmQ/3",
                &ActivationId::Members(&members),
                0
            ),
            vector("orders-1", "sqs", "", &ActivationId::Members(&named), 0),
        ]);
        let text = format!("{}\n", serde_json::to_string_pretty(&vectors).unwrap());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/identity.json");
        if std::env::var_os("EVERMILL_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let expected = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            expected == text,
            "identity.json differs: the format is frozen, see docs/spec/identity.md"
        );
    }

    #[test]
    fn no_two_sequences_of_fields_are_equal() {
        let one = LaneIdentity::new("a", "bc", "d");
        let other = LaneIdentity::new("ab", "c", "d");
        assert_ne!(one.as_bytes(), other.as_bytes());
        let by_number = one.activation(&ActivationId::Position(5), 0);
        assert_ne!(by_number, one.activation(&ActivationId::Iteration(5), 0));
        assert_ne!(
            by_number,
            one.activation(&ActivationId::Key(&5u64.to_be_bytes()), 0)
        );
    }
}
