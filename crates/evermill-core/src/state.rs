//! `ctx.state` (W5): small values scoped to what is ordered.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::command::{RunIx, ScopeState, StateOp, StateValue};
use crate::row::{Key, Row, Table, Write};
use crate::run::StateScope;
use crate::scope::ScopeKey;

/// Format number of state rows.
const STATE_FORMAT: u8 = 1;

/// Applies one operation; the name it touched. An operation on a value of another kind replaces
/// it, as if the name had been absent.
pub(crate) fn apply(state: &mut ScopeState, op: &StateOp) -> Bytes {
    match op {
        StateOp::Set(name, value) => {
            state.insert(name.clone(), StateValue::Blob(value.clone()));
            name.clone()
        }
        StateOp::Delete(name) => {
            state.remove(name);
            name.clone()
        }
        StateOp::Incr(name, by) => {
            let old = integer(state, name).unwrap_or(0);
            state.insert(name.clone(), StateValue::Int(old.saturating_add(*by)));
            name.clone()
        }
        StateOp::Max(name, value) => {
            let old = integer(state, name).unwrap_or(i64::MIN);
            state.insert(name.clone(), StateValue::Int(old.max(*value)));
            name.clone()
        }
        StateOp::SetAdd(name, member) => {
            let entry = state
                .entry(name.clone())
                .or_insert_with(|| StateValue::Set(BTreeSet::new()));
            if !matches!(entry, StateValue::Set(_)) {
                *entry = StateValue::Set(BTreeSet::new());
            }
            if let StateValue::Set(set) = entry {
                set.insert(member.clone());
            }
            name.clone()
        }
    }
}

fn integer(state: &ScopeState, name: &Bytes) -> Option<i64> {
    match state.get(name) {
        Some(StateValue::Int(value)) => Some(*value),
        _ => None,
    }
}

/// Bytes a scope takes: names and values.
pub(crate) fn size(state: &ScopeState) -> usize {
    let value = |value: &StateValue| match value {
        StateValue::Blob(bytes) => bytes.len(),
        StateValue::Int(_) => 8,
        StateValue::Set(set) => set.iter().map(Bytes::len).sum(),
    };
    state.iter().map(|(name, v)| name.len() + value(v)).sum()
}

/// The write that makes one name durable.
pub(crate) fn write(run: RunIx, scope: &StateScope, name: &Bytes, value: &StateValue) -> Write {
    let mut out = Writer::new(STATE_FORMAT);
    match value {
        StateValue::Blob(bytes) => drop(out.byte(1).bytes(bytes)),
        StateValue::Int(value) => drop(out.byte(2).signed(*value)),
        StateValue::Set(set) => {
            out.byte(3).int(set.len() as u64);
            for member in set {
                out.bytes(member);
            }
        }
    }
    Write::Put(Row {
        table: Table::State,
        key: row_key(run, scope, name),
        body: out.finish(),
    })
}

/// The address of one name: `lane` is the scope's lane, `id` = key (16 bytes, big endian),
/// of the task id (1 + 2 bytes, big endian), task id, name.
pub(crate) fn row_key(run: RunIx, scope: &StateScope, name: &Bytes) -> Key {
    let mut id = scope.scope.key.to_be_bytes().to_vec();
    id.extend_from_slice(&(scope.task.len() as u16).to_be_bytes());
    id.extend_from_slice(scope.task.as_bytes());
    id.extend_from_slice(name);
    Key {
        run,
        lane: scope.scope.lane,
        id: Bytes::from(id),
    }
}

/// Reads a state row back.
pub(crate) fn decode(
    key: &Key,
    body: Bytes,
) -> Result<(StateScope, Bytes, StateValue), DecodeError> {
    let mut body = Reader::new("state", body, STATE_FORMAT)?;
    let value = match body.byte()? {
        1 => StateValue::Blob(body.bytes()?),
        2 => StateValue::Int(body.signed()?),
        3 => StateValue::Set(
            (0..body.length()?)
                .map(|_| body.bytes())
                .collect::<Result<_, _>>()?,
        ),
        _ => return Err(body.error("unknown kind of value")),
    };
    body.end()?;
    let bad = || DecodeError {
        what: "state address",
        at: 0,
        why: "too short",
    };
    let scope_key = key
        .id
        .get(..16)
        .and_then(|b| b.try_into().ok())
        .ok_or_else(bad)?;
    let length = key
        .id
        .get(16..18)
        .and_then(|b| b.try_into().ok())
        .ok_or_else(bad)?;
    let task_end = 18 + usize::from(u16::from_be_bytes(length));
    let task = key.id.get(18..task_end).ok_or_else(bad)?;
    let scope = StateScope {
        scope: ScopeKey {
            lane: key.lane,
            key: u128::from_be_bytes(scope_key),
        },
        task: String::from_utf8_lossy(task).into_owned(),
    };
    Ok((scope, key.id.slice(task_end..), value))
}
