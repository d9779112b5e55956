//! Sensors that ask a place outside ([`Place`]) and run no code of anybody: one question for each
//! attempt. Where a function of the DAG file has the last word, the engine is asked for it, which asks
//! a worker.
//!
//! | the place says | is |
//! |---|---|
//! | there | success, with what was found as the result |
//! | not yet | waiting: asked again after the sensor's interval |
//! | nothing that can be told | waiting; of a strict sensor a failed try |

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use evermill_contract::manifest::HttpSource;
use evermill_contract::sensor::{Found, Place};
use evermill_contract::source::Reply;
use evermill_contract::worker::{
    Answer, Dispatch, LogOrigin, Outcome, Polled, Question, Success, TaskErrorKind, TaskRef,
    WorkerEvent,
};

use crate::threads::{Runs, Shared, Slot, failed};

/// Slots for sensors that wait for answers; they cost no processor while they wait.
pub(crate) const SLOTS: u16 = 16;

/// Opens places.
#[derive(Clone)]
pub struct Places(Arc<Open>);

type Open = dyn Fn(&HttpSource) -> Result<Box<dyn Place>, String> + Send + Sync;

impl Places {
    /// `open` makes a place for a sensor; an error names the setting and the cure.
    #[must_use]
    pub fn new(
        open: impl Fn(&HttpSource) -> Result<Box<dyn Place>, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(open))
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

/// A sensor: the DAG file, whose name is another one in each version, the DAG, the task.
type Sensor = (String, String, String);

/// Places that are open, shared by the slots.
pub(crate) struct Opened {
    places: Places,
    open: Mutex<BTreeMap<Sensor, Arc<dyn Place>>>,
}

impl Opened {
    pub(crate) fn new(places: Places) -> Arc<Self> {
        Arc::new(Self {
            places,
            open: Mutex::default(),
        })
    }

    fn place(&self, task: &TaskRef, polled: &Polled) -> Result<Arc<dyn Place>, String> {
        let key = (task.entry.clone(), task.dag.clone(), task.task.clone());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = open.get(&key) {
            return Ok(Arc::clone(place));
        }
        let place: Arc<dyn Place> = Arc::from((self.places.0)(&polled.config)?);
        open.insert(key, Arc::clone(&place));
        Ok(place)
    }
}

/// Asks for one slot.
pub(crate) struct Asking(pub(crate) Arc<Opened>);

impl Runs for Asking {
    const GATHERS: bool = false;
    /// A client that waits for an answer cannot be told to stop.
    const IS_LEFT: bool = true;

    fn find(&mut self, task: &TaskRef) -> Result<(), String> {
        polled(task).map(drop)
    }

    fn member(
        &mut self,
        slot: &Arc<Slot>,
        events: &Shared,
        dispatch: &Arc<Dispatch>,
        index: u32,
    ) -> Option<Outcome> {
        let task = &dispatch.task;
        let place = polled(task).and_then(|polled| Ok((polled, self.0.place(task, polled)?)));
        let (polled, place) = match place {
            Ok(found) => found,
            Err(why) => return Some(failed(TaskErrorKind::Load, why, String::new())),
        };
        let found = match place.ask() {
            Found::Judge {
                function,
                about,
                then,
            } => {
                let life = slot.lock().life;
                let question = Question::Judge {
                    function: function.to_owned(),
                    about,
                };
                let said = slot.ask(life, events, (dispatch.token, index), question);
                then(reply(said))
            }
            found => found,
        };
        if let (Found::Unknown(why), false) = (&found, polled.strict) {
            // It is asked on, and somebody may want to know why for so long.
            events(WorkerEvent::Log {
                slot: slot.id,
                token: Some(dispatch.token),
                member: Some(index),
                origin: LogOrigin::Stderr,
                text: Bytes::from(format!("not yet: {why}\n")),
            });
        }
        Some(outcome(found, polled.strict))
    }
}

fn polled(task: &TaskRef) -> Result<&Polled, String> {
    let none = || format!("task '{}' has no place to ask", task.task);
    task.polls.as_deref().ok_or_else(none)
}

fn reply(said: Answer) -> Reply {
    match said {
        Answer::Value(value) => Reply::Returned(Some(value)),
        Answer::Missing => Reply::Returned(None),
        Answer::Refused(why) => Reply::Failed(why),
    }
}

fn outcome(found: Found, strict: bool) -> Outcome {
    match found {
        Found::There(result) => Outcome::Success(result.map(|result| {
            Box::new(Success {
                result: Some(result),
                ..Success::default()
            })
        })),
        Found::Unknown(why) if strict => failed(TaskErrorKind::Raised, why, String::new()),
        Found::NotYet | Found::Unknown(_) | Found::Judge { .. } => Outcome::Waiting(None),
    }
}
