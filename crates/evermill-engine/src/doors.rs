//! Sources whose events are brought to us, by DAG and source: where whoever has a request finds the one
//! to read it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use evermill_contract::source::{Gate, PushSource};
use evermill_core::command::RunIx;

use crate::input::SourceKey;

/// One way in.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) key: SourceKey,
    pub(crate) source: Arc<dyn PushSource>,
    /// Judges what the source took out of a request.
    pub(crate) gate: Option<Arc<dyn Gate>>,
}

/// All that are open.
#[derive(Default)]
pub(crate) struct Doors(RwLock<BTreeMap<(String, String), Door>>);

impl Doors {
    pub(crate) fn open(&self, dag: &str, source: &str, door: Door) {
        let mut doors = self.0.write().unwrap_or_else(PoisonError::into_inner);
        doors.insert((dag.to_owned(), source.to_owned()), door);
    }

    pub(crate) fn find(&self, dag: &str, source: &str) -> Option<Door> {
        let doors = self.0.read().unwrap_or_else(PoisonError::into_inner);
        doors.get(&(dag.to_owned(), source.to_owned())).cloned()
    }

    /// Closes one, unless another has taken its place.
    pub(crate) fn close_at(&self, key: SourceKey) {
        let mut doors = self.0.write().unwrap_or_else(PoisonError::into_inner);
        doors.retain(|_, door| door.key != key);
    }

    /// Closes those of a run, or all.
    pub(crate) fn close(&self, run: Option<RunIx>) {
        let mut doors = self.0.write().unwrap_or_else(PoisonError::into_inner);
        doors.retain(|_, door| run.is_some_and(|run| run != door.key.run));
    }
}
