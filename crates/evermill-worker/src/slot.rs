//! What is known of a slot, and how it changes. No I/O here beyond handing frames to the outbox.
//!
//! | state | dispatch | the worker says | becomes |
//! |---|---|---|---|
//! | starting | held | hello | ready; what was held is sent |
//! | ready | sent | finished | ready |
//! | ready | recalled, and its permit was still there | | ready; it is returned |
//! | ready | held, for it yields less than the worker does by now | | ready, to be replaced |
//! | ready, to be replaced | held | finished the last one it has | leaving |
//! | leaving | held | end of stream | starting |
//! | ready | sent | end of stream | starting, and `Died` |
//! | closed (shutdown) | returned | end of stream | closed, and `Died` |

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use evermill_contract::worker::frame::Kind;
use evermill_contract::worker::limits::DISPATCHES_PER_SLOT_MAX;
use evermill_contract::worker::wire::small;
use evermill_contract::worker::{Death, Dispatch, OutcomeRun, Token};
use rustix::process::{Pid, Signal, kill_process};

use crate::outbox::{Outbox, Outgoing};
use crate::page::Page;
use crate::permits::Permits;
use crate::server::signal_group;

/// A live worker.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) pid: Pid,
    pub(crate) page: Page,
    pub(crate) permits: Permits,
    pub(crate) outbox: Outbox,
}

impl Connection {
    /// Makes a worker that is busy with a member look up: it sends what waits, and reads what has come.
    pub(crate) fn urge(&self) {
        // It may have ended by itself.
        if kill_process(self.pid, Signal::URG).is_err() {}
    }
}

/// A dispatch that the worker has.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) call: u32,
    pub(crate) token: Token,
    pub(crate) members: u32,
    pub(crate) reported: u32,
    pub(crate) timeout_ns: Option<u64>,
    /// The member for which the worker was last asked to send what it has, and how long that
    /// member had run by then, in nanoseconds.
    pub(crate) urged: Option<(u32, u64)>,
}

/// A kill under way.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    pub(crate) cause: Death,
    /// The member that ran out of time, if that is the cause.
    pub(crate) member: Option<u32>,
    /// When KILL is due; None once it was sent.
    pub(crate) kill_at: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) connection: Option<Connection>,
    /// Not sent yet, oldest first.
    pub(crate) held: VecDeque<Dispatch>,
    /// Sent, oldest first; the worker runs the front.
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) kill: Option<Kill>,
    /// The worker is to be replaced when it has nothing left.
    pub(crate) replace: bool,
    /// It was told so.
    pub(crate) leaving: bool,
    /// What runs took too long for what waited behind it: nothing is sent to wait there again.
    overdue: bool,
    pub(crate) closed: bool,
    /// Whether the engine believes that the slot has a worker.
    pub(crate) announced: bool,
    /// How much this worker yields to others.
    nice: u8,
    /// Members that this worker has run.
    pub(crate) members_run: u64,
    /// When its memory was last looked at.
    pub(crate) sized_at: Option<Instant>,
    next_call: u32,
    next_ask: u32,
    /// Open questions: the engine's number for them, the worker's.
    asks: HashMap<u32, u32>,
}

impl Slot {
    /// Takes a dispatch: sends it or holds it.
    ///
    /// # Panics
    /// If the slot is full.
    pub(crate) fn take(&mut self, dispatch: Dispatch) {
        assert!(
            self.held.len() + self.in_flight.len() < DISPATCHES_PER_SLOT_MAX,
            "a slot holds {DISPATCHES_PER_SLOT_MAX} dispatches and this is one more"
        );
        self.held.push_back(dispatch);
        self.send_held();
    }

    /// Sends what is held, if there is a worker that stays.
    pub(crate) fn send_held(&mut self) {
        if self.replace || self.closed || self.overdue || self.kill.is_some() {
            return;
        }
        let Some(connection) = &self.connection else {
            return;
        };
        while let Some(dispatch) = self.held.pop_front() {
            if dispatch.nice < self.nice {
                // A process without privileges cannot take its priority back.
                self.held.push_front(dispatch);
                self.replace = true;
                return self.dismiss_if_idle();
            }
            self.nice = dispatch.nice;
            // Calls of the engine are even; 0 means none.
            self.next_call = self.next_call.wrapping_add(2).max(2);
            let call = self.next_call;
            self.in_flight.push_back(InFlight {
                call,
                token: dispatch.token,
                members: u32::try_from(dispatch.members.len()).unwrap_or(u32::MAX),
                reported: 0,
                timeout_ns: dispatch
                    .timeout
                    .map(|timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)),
                urged: None,
            });
            if connection.permits.give(call).is_err() {
                // Nothing could begin there any more.
                signal_group(connection.pid, Signal::KILL);
            }
            hand(
                connection,
                Outgoing::Dispatch {
                    call,
                    dispatch: Box::new(dispatch),
                },
            );
        }
    }

    /// Hands the worker a frame, if there is a worker.
    pub(crate) fn send(&self, frame: Vec<u8>) {
        if let Some(connection) = &self.connection {
            hand(connection, Outgoing::Frame(frame));
        }
    }

    /// Recalls a dispatch: the worker is asked for the rest of one that it has begun. What it has not
    /// begun, which may be more than was asked for, is returned here, with its members.
    pub(crate) fn recall(&mut self, token: Token) -> Vec<(Token, usize)> {
        if let Some(index) = self.held.iter().position(|held| held.token == token) {
            let held = self.held.remove(index);
            return held
                .map(|held| (token, held.members.len()))
                .into_iter()
                .collect();
        }
        let Some(call) = self.call_of(token) else {
            return Vec::new();
        };
        let returned = self.take_back(call);
        if self.call_of(token).is_some() {
            self.send(small(call, Kind::Recall, &serde_json::json!({})));
            if let Some(connection) = &self.connection {
                connection.urge();
            }
        }
        returned
    }

    fn call_of(&self, token: Token) -> Option<u32> {
        let mut sent = self.in_flight.iter();
        sent.find(|sent| sent.token == token).map(|sent| sent.call)
    }

    /// Takes back what the worker has not begun, up to this call.
    fn take_back(&mut self, call: u32) -> Vec<(Token, usize)> {
        let mut returned = Vec::new();
        while let Some(taken) = self
            .connection
            .as_ref()
            .and_then(|worker| worker.permits.take_back())
        {
            // Not there: it was refused on its way to the worker.
            let place = self.in_flight.iter().position(|sent| sent.call == taken);
            let sent = place.and_then(|place| self.in_flight.remove(place));
            returned.extend(sent.map(|sent| (sent.token, sent.members as usize)));
            if taken == call {
                break;
            }
        }
        self.overdue = !self.in_flight.is_empty();
        returned
    }

    /// The dispatch that the worker runs, if `call` is its call.
    pub(crate) fn front(&mut self, call: u32) -> Result<&mut InFlight, String> {
        self.in_flight
            .front_mut()
            .filter(|front| front.call == call)
            .ok_or_else(|| format!("a frame about dispatch {call}, which does not run"))
    }

    /// Counts outcomes; they must follow what was reported before.
    pub(crate) fn report(&mut self, call: u32, runs: &[OutcomeRun]) -> Result<Token, String> {
        let front = self.front(call)?;
        for run in runs {
            let end = run.first.checked_add(run.count);
            if run.first != front.reported || end.is_none_or(|end| end > front.members) {
                return Err(format!(
                    "outcomes of {} members from {} where {} of {} were reported",
                    run.count, run.first, front.reported, front.members
                ));
            }
            front.reported += run.count;
        }
        Ok(front.token)
    }

    /// The members of the running dispatch from this one on come back.
    pub(crate) fn return_rest(&mut self, call: u32, from: u32) -> Result<Token, String> {
        let front = self.front(call)?;
        if from < front.reported || from > front.members {
            return Err(format!(
                "members from {from} returned where {} of {} were reported",
                front.reported, front.members
            ));
        }
        front.members = from;
        Ok(front.token)
    }

    /// The running dispatch is over.
    pub(crate) fn finish(&mut self, call: u32, tail: u32) -> Result<Token, String> {
        let front = self.front(call)?;
        if front.reported.checked_add(tail) != Some(front.members) {
            return Err(format!(
                "{tail} members returned where {} of {} were reported",
                front.reported, front.members
            ));
        }
        let front = self.in_flight.pop_front().expect("front was just there");
        self.members_run += u64::from(front.reported);
        self.overdue = false;
        self.asks.clear();
        Ok(front.token)
    }

    /// Opens a question; the number under which the engine answers it, never used twice.
    pub(crate) fn ask(&mut self, worker_call: u32) -> u32 {
        self.next_ask = self.next_ask.wrapping_add(1);
        self.asks.insert(self.next_ask, worker_call);
        self.next_ask
    }

    /// Closes a question; the worker's number for it.
    pub(crate) fn answered(&mut self, call: u32) -> Option<u32> {
        self.asks.remove(&call)
    }

    /// Asks the worker to leave if it has nothing left and is to be replaced or the pool closes.
    pub(crate) fn dismiss_if_idle(&mut self) {
        if self.replace && self.in_flight.is_empty() && !self.leaving {
            self.leaving = true;
            self.send(small(0, Kind::Retire, &serde_json::json!({})));
        }
    }

    /// The worker is gone: forgets it and what it had.
    pub(crate) fn lose(&mut self) -> Lost {
        self.asks.clear();
        self.members_run = 0;
        self.overdue = false;
        self.nice = 0;
        self.sized_at = None;
        Lost {
            kill: self.kill.take(),
            leaving: std::mem::take(&mut self.leaving) | std::mem::take(&mut self.replace),
            in_flight: std::mem::take(&mut self.in_flight),
            connection: self.connection.take(),
        }
    }
}

/// What a slot had when its worker ended.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) kill: Option<Kill>,
    pub(crate) leaving: bool,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) connection: Option<Connection>,
}

/// The outbox has room for all that one slot can have under way, so it is full only when a worker
/// does not read; that ends it.
fn hand(connection: &Connection, outgoing: Outgoing) {
    if !connection.outbox.send(outgoing) {
        signal_group(connection.pid, Signal::KILL);
    }
}
