//! `ctx.state()`: the run's own values, as an attempt sees and changes them (W5).

use std::sync::{Mutex, PoisonError};

use evermill_contract::worker::{Answer, Question, StateOp};
use evermill_worker::member;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Ctx, Failure};

/// Changes that an attempt made so far; they count only if it succeeds.
#[derive(Debug)]
pub(super) struct Changes {
    /// Events of the DAG are in order, so that what is read stays true until it is written.
    pub(super) ordered: bool,
    ops: Mutex<Vec<StateOp>>,
}

impl Changes {
    pub(super) const fn new(ordered: bool) -> Self {
        Self {
            ordered,
            ops: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn take(&self) -> Vec<StateOp> {
        std::mem::take(&mut *self.ops.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, op: StateOp) {
        let mut ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        ops.push(op);
    }

    fn of(&self, name: &str) -> Vec<StateOp> {
        let ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        ops.iter()
            .filter(|op| name_of(op) == name)
            .cloned()
            .collect()
    }
}

/// The run's own key-value state, within the scope of this event. Adding up is always possible. Reading,
/// and writing what was read, needs events in order.
#[derive(Debug)]
pub struct State<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) changes: &'a Changes,
}

impl State<'_> {
    /// Adds a number; an absent value counts as 0.
    pub fn incr(&self, name: &str, by: i64) {
        self.changes.add(StateOp::Incr {
            name: name.to_owned(),
            by: by.into(),
        });
    }

    /// Keeps the greater number.
    pub fn max(&self, name: &str, value: i64) {
        self.changes.add(StateOp::Max {
            name: name.to_owned(),
            value: value.into(),
        });
    }

    /// Adds an element to a set.
    ///
    /// # Errors
    /// When it cannot be JSON.
    pub fn set_add(&self, name: &str, element: &impl Serialize) -> Result<(), Failure> {
        self.changes.add(StateOp::SetAdd {
            name: name.to_owned(),
            values: vec![serde_json::to_value(element)?],
        });
        Ok(())
    }

    /// The committed value with this attempt's own changes; a set is a list.
    ///
    /// # Errors
    /// Without an order, when the value is something else, and when the engine cannot answer any more.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.needs_order("get", name)?;
        let own = self.changes.of(name);
        let settled = |op: &StateOp| matches!(op, StateOp::Put { .. } | StateOp::Delete { .. });
        let committed = if own.iter().any(settled) {
            None
        } else {
            self.committed(name)?
        };
        let value = own.into_iter().fold(committed, applied);
        Ok(value.map(serde_json::from_value).transpose()?)
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// Without an order, and when it cannot be JSON.
    pub fn set(&self, name: &str, value: &impl Serialize) -> Result<(), Failure> {
        self.needs_order("set", name)?;
        self.changes.add(StateOp::Put {
            name: name.to_owned(),
            value: serde_json::to_value(value)?,
        });
        Ok(())
    }

    /// Removes the value.
    ///
    /// # Errors
    /// Without an order.
    pub fn delete(&self, name: &str) -> Result<(), Failure> {
        self.needs_order("delete", name)?;
        self.changes.add(StateOp::Delete {
            name: name.to_owned(),
        });
        Ok(())
    }

    /// What came with the dispatch, else what the engine says.
    fn committed(&self, name: &str) -> Result<Option<Value>, Failure> {
        let (dispatch, index) = (&self.ctx.lease.dispatch, self.ctx.index as usize);
        let Some(shipped) = dispatch.members[index].state else {
            return self.ask(name);
        };
        let flat: Vec<Value> = serde_json::from_slice(member::part(dispatch, Some(shipped)))?;
        let mut pairs = flat.chunks_exact(2).filter(|pair| pair[0] == name);
        Ok(pairs.next().map(|pair| pair[1].clone()))
    }

    fn ask(&self, name: &str) -> Result<Option<Value>, Failure> {
        let question = Question::StateGet {
            name: name.to_owned(),
        };
        match self.ctx.lease.ask(self.ctx.index, question) {
            Answer::Value(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Answer::Missing => Ok(None),
            Answer::Refused(why) => Err(Failure::new(why)),
        }
    }

    fn needs_order(&self, what: &str, name: &str) -> Result<(), Failure> {
        if self.changes.ordered {
            return Ok(());
        }
        let dag = &self.ctx.lease.dispatch.task.dag;
        Err(Failure::for_good(format!(
            "state().{what}(\"{name}\") needs events in order, and those of DAG '{dag}' are in none: set \
             .order(..) on the DAG, or use incr, max or set_add, which need none"
        )))
    }
}

fn name_of(op: &StateOp) -> &str {
    match op {
        StateOp::Put { name, .. }
        | StateOp::Delete { name }
        | StateOp::Incr { name, .. }
        | StateOp::Max { name, .. }
        | StateOp::SetAdd { name, .. } => name,
    }
}

/// A value after a change; one of another kind counts as absent.
fn applied(value: Option<Value>, op: StateOp) -> Option<Value> {
    let number = value.as_ref().and_then(Value::as_i64);
    match op {
        StateOp::Put { value, .. } => Some(value),
        StateOp::Delete { .. } => None,
        StateOp::Incr { by, .. } => {
            let by = by.as_i64().unwrap_or(0);
            Some(number.unwrap_or(0).saturating_add(by).into())
        }
        StateOp::Max { value: other, .. } => {
            let other = other.as_i64().unwrap_or(i64::MIN);
            Some(number.map_or(other, |number| number.max(other)).into())
        }
        StateOp::SetAdd { values, .. } => {
            let mut set = match value {
                Some(Value::Array(set)) => set,
                _ => Vec::new(),
            };
            for value in values {
                if !set.contains(&value) {
                    set.push(value);
                }
            }
            Some(Value::Array(set))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_of_an_attempt_are_seen_by_its_own_reads_as_the_engine_will_apply_them() {
        let op = |value: Value| serde_json::from_value::<StateOp>(value).unwrap();
        for (before, change, after) in [
            (
                None,
                json!({"op": "incr", "name": "n", "by": 2}),
                Some(json!(2)),
            ),
            (
                Some(json!(3)),
                json!({"op": "incr", "name": "n", "by": 2}),
                Some(json!(5)),
            ),
            (
                Some(json!("text")),
                json!({"op": "incr", "name": "n", "by": 2}),
                Some(json!(2)),
            ),
            (
                Some(json!(3)),
                json!({"op": "max", "name": "n", "value": 2}),
                Some(json!(3)),
            ),
            (
                None,
                json!({"op": "max", "name": "n", "value": -2}),
                Some(json!(-2)),
            ),
            (
                Some(json!(["a"])),
                json!({"op": "set_add", "name": "n", "values": ["a", "b"]}),
                Some(json!(["a", "b"])),
            ),
            (
                Some(json!(3)),
                json!({"op": "put", "name": "n", "value": [1]}),
                Some(json!([1])),
            ),
            (Some(json!(3)), json!({"op": "delete", "name": "n"}), None),
        ] {
            assert_eq!(
                applied(before.clone(), op(change.clone())),
                after,
                "{before:?} {change}"
            );
        }
    }
}
