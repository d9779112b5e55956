//! What is brought to a run from outside: activations triggered by hand, and events pushed to a source.
//! Both are kept in an inbox before anybody is told that they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::source::Arrival;
use evermill_core::command::{ActivationKey, Command, RunIx};
use evermill_core::{LaneView, RunView};

use crate::MANUAL;
use crate::handle::{EngineError, Pushed};
use crate::inbox::{Accepted, Bringer, Inbox, Refusal};
use crate::input::SourceKey;
use crate::limits;
use crate::manifest::Outline;
use crate::operate::Signal;
use crate::payload;
use crate::publish::state_name;
use crate::requests::is_over;
use crate::shard::Shard;

impl Shard {
    /// The lane of what somebody triggers by hand. A run that has one already keeps it.
    pub(crate) fn open_manual_lane(&mut self, run: RunIx) {
        let known = self.manual_lane(run);
        let incarnation = known.map_or_else(
            || self.inboxes.incarnation().to_owned(),
            |lane| lane.incarnation,
        );
        self.apply(Command::OpenLane {
            run,
            source: 0,
            name: MANUAL.to_owned(),
            incarnation,
            first: 0,
        });
    }

    fn manual_lane(&self, run: RunIx) -> Option<LaneView> {
        let mut lanes = self.machine.lanes(run);
        lanes.find(|lane| lane.name == MANUAL)
    }

    /// One activation for a DAG without sources, durable before the answer; its name.
    pub(crate) fn trigger(
        &mut self,
        run: &str,
        conf: Option<Bytes>,
        id: Option<Bytes>,
        once: bool,
    ) -> Result<Option<String>, EngineError> {
        let found = self.books().find(run)?;
        if once && found.counters.seen > 0 {
            return Ok(None);
        }
        may_trigger(&found, true)?;
        if self.manual_lane(found.run).is_none() {
            return Err(not_by_hand(&found.dag));
        }
        let number = self.inboxes.number(&found.dag, MANUAL);
        if once && self.inboxes.get(number).is_some_and(Inbox::holds) {
            return Ok(None);
        }
        let accepted = self.take_in(
            number,
            &[by_hand(conf, id, self.world.clock.now_ms())],
            None,
            Bringer::Asks,
        );
        let accepted = accepted.map_err(refusal)?;
        let shelved = accepted.shelved;
        Ok(shelved.map(|shelved| name_of(&found.name, shelved.first)))
    }

    /// Keeps a signal for the source that takes it.
    pub(crate) fn signal(&mut self, run: &str, signal: &Signal) -> Result<Pushed, EngineError> {
        let found = self.books().find(run)?;
        may_trigger(&found, true)?;
        let now_ms = self.world.clock.now_ms();
        let id = match taker(self.outline_of(found.run), &found.dag, &signal.name)? {
            Taker::Source(_, id) => not_to_one(signal, &id).map(|()| id)?,
            Taker::Tasks => {
                let now_us = self.world.clock.now_us();
                let Some(command) = self.books().for_tasks(&found, signal, now_us)? else {
                    return Ok(Pushed::REPEATED);
                };
                self.apply(command);
                return Ok(Pushed::KEPT);
            }
        };
        let number = self.inboxes.number(&found.dag, &id);
        let accepted = self.take_in(number, &[arrival(signal, now_ms)], None, Bringer::Asks);
        Ok(pushed(&accepted.map_err(refusal)?))
    }

    /// Keeps what was brought to a source.
    pub(crate) fn push(
        &mut self,
        key: SourceKey,
        arrivals: &[Arrival],
    ) -> Result<Pushed, EngineError> {
        let listening = self.listening.get(&key);
        let open = listening.filter(|listening| listening.ended.is_none());
        let Some(number) = open.and_then(|listening| listening.inbox) else {
            return Err(EngineError::Refused(
                "the source has been closed".to_owned(),
            ));
        };
        let accepted = self.take_in(number, arrivals, None, Bringer::Asks);
        Ok(pushed(&accepted.map_err(refusal)?))
    }
}

/// A source makes a new activation of a signal.
pub(crate) fn not_to_one(signal: &Signal, source: &str) -> Result<(), EngineError> {
    match &signal.to {
        None => Ok(()),
        Some(_) => Err(EngineError::Refused(format!(
            "the signal '{}' goes to the source '{source}', which begins an activation with it; leave out whom it is for",
            signal.name
        ))),
    }
}

/// Who takes the signals of a name.
pub(crate) enum Taker {
    /// A source: its index and id.
    Source(u16, String),
    /// Tasks that wait for it.
    Tasks,
}

/// Who of a DAG takes the signals of a name: a source goes before tasks.
pub(crate) fn taker(
    outline: Option<&Outline>,
    dag: &str,
    name: &str,
) -> Result<Taker, EngineError> {
    let sources = outline.map_or(&[][..], |outline| &outline.sources);
    let tasks = outline.map_or(&[][..], |outline| &outline.tasks);
    let is_it = |signal: &Option<Arc<str>>| signal.as_deref() == Some(name);
    if let Some(index) = sources.iter().position(|source| is_it(&source.signal)) {
        return Ok(Taker::Source(index as u16, sources[index].id.to_string()));
    }
    if tasks.iter().any(|task| is_it(&task.signal)) {
        return Ok(Taker::Tasks);
    }
    let of_sources = sources.iter().filter_map(|source| source.signal.as_deref());
    let of_tasks = tasks.iter().filter_map(|task| task.signal.as_deref());
    let known: BTreeSet<&str> = of_sources.chain(of_tasks).collect();
    let cure = if known.is_empty() {
        "it has no evermill.signal(...) and no evermill.wait(signal=...)".to_owned()
    } else {
        let known: Vec<&str> = known.into_iter().collect();
        format!("it takes {}", known.join(", "))
    };
    Err(EngineError::Refused(format!(
        "DAG '{dag}' takes no signal '{name}': {cure}"
    )))
}

/// A signal for tasks that wait (W14). Without an id of its own it is told apart by the microsecond:
/// one thread takes them, each in longer than that.
pub(crate) fn to_tasks(
    run: &RunView,
    signal: &Signal,
    to: Option<ActivationKey>,
    now_us: u64,
) -> Command {
    let id = signal.id.as_deref().map_or_else(
        || format!("{now_us}-{}", run.counters.seen),
        |id| String::from_utf8_lossy(id).into_owned(),
    );
    let value = signal.value.clone();
    Command::Signal {
        run: run.run,
        id: format!("{}/{id}", signal.name),
        name: signal.name.clone(),
        key: signal.key.as_deref().map_or(0, payload::key_number),
        body: value.unwrap_or_else(|| Bytes::from_static(b"null")),
        all: signal.all,
        to,
        expires_ms: now_us / 1_000 + signal.ttl_ms.unwrap_or(limits::SIGNAL_TTL_MS),
    }
}

/// A signal as an event.
pub(crate) fn arrival(signal: &Signal, now_ms: u64) -> Arrival {
    Arrival {
        timestamp_ms: Some(now_ms as i64),
        key: signal.key.clone(),
        value: signal.value.clone(),
        id: signal.id.clone(),
        ..Arrival::default()
    }
}

pub(crate) fn pushed(accepted: &Accepted) -> Pushed {
    let shelved = accepted.shelved.as_ref();
    Pushed {
        kept: shelved.map_or(0, |shelved| shelved.bodies.len() as u64),
        repeated: accepted.repeated,
    }
}

/// Whether an activation can be given to a run in this state. One that is over takes it at rest: it
/// waits for the DAG's next run.
pub(crate) fn may_trigger(run: &RunView, live: bool) -> Result<(), EngineError> {
    if live && is_over(run.state) {
        return Err(EngineError::Refused(format!(
            "run '{}' is {}: `evermill start`, or `evermill run`, begins a new run of its DAG",
            run.name,
            state_name(run.state)
        )));
    }
    Ok(())
}

/// The event of an activation that somebody triggers; `conf` is its content.
pub(crate) fn by_hand(conf: Option<Bytes>, id: Option<Bytes>, now_ms: u64) -> Arrival {
    Arrival {
        id,
        timestamp_ms: Some(now_ms as i64),
        value: conf,
        ..Arrival::default()
    }
}

pub(crate) fn not_by_hand(dag: &str) -> EngineError {
    EngineError::NotByHand(dag.to_owned())
}

/// How an activation that was triggered is called.
pub(crate) fn name_of(run: &str, position: u64) -> String {
    format!("{run}/{MANUAL}/{MANUAL}/{position}")
}

pub(crate) fn refusal(refusal: Refusal) -> EngineError {
    match refusal {
        Refusal::Full { .. } => EngineError::Full(refusal.to_string()),
        Refusal::TooLong(what) => EngineError::Refused(what),
        Refusal::Other { .. } => EngineError::OtherContent(refusal.to_string()),
    }
}
