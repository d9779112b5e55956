//! What a closure is told about its attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use evermill_worker::{Lease, member};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::state::{Changes, State};
use super::{Event, Failure};

/// What a closure is told about its attempt, and what it can ask.
#[derive(Debug)]
pub struct Ctx {
    pub(super) lease: Arc<Lease>,
    pub(super) index: u32,
    calls: AtomicU64,
    changes: Option<Arc<Changes>>,
}

impl Ctx {
    pub(super) const fn new(lease: Arc<Lease>, index: u32, changes: Option<Arc<Changes>>) -> Self {
        Self {
            lease,
            index,
            calls: AtomicU64::new(0),
            changes,
        }
    }

    /// 1 in the first attempt.
    #[must_use]
    pub fn try_number(&self) -> u16 {
        self.lease.dispatch.members[self.index as usize].try_number
    }

    /// The events of this activation, however many: of a batch, or of the sources that feed the
    /// task, in the order in which the DAG names them.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        Event::all_of(&self.lease, self.index)
    }

    /// A key for one effect outside, for sinks that recognise repeats: another one with each call, and
    /// the n-th call gives the same one in every attempt.
    #[must_use]
    pub fn effect_key(&self) -> String {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        member::effect_key(&self.lease.dispatch, self.index, call).unwrap_or_default()
    }

    /// What the event's header `traceparent` says, for the header of what this task asks or sends outside (W3C Trace
    /// Context). None where the event brought none.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        member::traceparent(&self.lease.dispatch, self.index)
    }

    /// What the event's header `tracestate` says, to be handed on beside [`Ctx::traceparent`]. None where the event
    /// brought none.
    #[must_use]
    pub fn tracestate(&self) -> Option<String> {
        member::tracestate(&self.lease.dispatch, self.index)
    }

    /// What a task right before this one returned; `None` if it returned nothing or did not run.
    ///
    /// # Errors
    /// When it returned something else.
    pub fn result<T: DeserializeOwned>(&self, task: &str) -> Result<Option<T>, Failure> {
        let json = self.result_of(task);
        Ok(json.map(serde_json::from_slice).transpose()?)
    }

    fn result_of(&self, task: &str) -> Option<&[u8]> {
        let dispatch = &self.lease.dispatch;
        let from = dispatch.upstream.iter().position(|id| id == task);
        let found = dispatch
            .results
            .iter()
            .find(|result| result.member == self.index && Some(result.upstream as usize) == from);
        let range = found.and_then(|result| result.value)?;
        Some(member::part(dispatch, Some(range)))
    }

    /// Which item of a list this is, for a task that runs once per item; -1 otherwise.
    #[must_use]
    pub fn map_index(&self) -> i32 {
        self.lease.dispatch.members[self.index as usize].map_index
    }

    /// The item of a task's list that is this instance's. The others are not read.
    pub(super) fn item<T: DeserializeOwned>(&self, task: &str) -> Result<T, Failure> {
        let list = self.result_of(task).map(serde_json::from_slice);
        let list: Option<Vec<&RawValue>> = list.transpose()?;
        let index = usize::try_from(self.map_index()).ok();
        let item = list.zip(index);
        let item = item.and_then(|(list, index)| list.get(index).copied());
        let item = item.ok_or_else(|| {
            let index = self.map_index();
            Failure::for_good(format!("what '{task}' returned has no item {index}"))
        })?;
        Ok(serde_json::from_str(item.get())?)
    }

    /// The run's own key-value state, scoped by the DAG's order and committed with this attempt (W5).
    /// The task has to say that it uses it: [`crate::Dag::state`].
    ///
    /// # Errors
    /// When it does not say so.
    pub fn state(&self) -> Result<State<'_>, Failure> {
        let changes = self.changes.as_deref().ok_or_else(|| {
            let task = &self.lease.dispatch.task.task;
            Failure::for_good(format!(
                "task '{task}' does not say that it uses ctx.state(): write .state() behind it"
            ))
        })?;
        Ok(State { ctx: self, changes })
    }

    /// Whether this closure would better return soon: the engine is closing, or it has run longer than
    /// its timeout and nobody waits for it any more. Ask now and then in long loops.
    #[must_use]
    pub fn should_stop(&self) -> bool {
        self.lease.should_stop()
    }

    /// Shows people how far a long task is.
    ///
    /// # Errors
    /// When the value cannot be JSON.
    pub fn progress(&self, value: &impl Serialize) -> Result<(), Failure> {
        let json = Bytes::from(serde_json::to_vec(value)?);
        self.lease.progress(self.index, json);
        Ok(())
    }
}
