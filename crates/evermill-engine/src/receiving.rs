//! One thread per source that receives: drives `contract::source::Receiver`, hands what it delivers to
//! the shard, and tells it what has become durable.
//!
//! ```text
//! begin(memo) -> receive -> delivery, at most DELIVERIES_OPEN of them --> the shard keeps it
//!      ^            ^                                                          |
//!      |            +-- kept, settled <---------- desk <---- committed --------+
//!      +-- again with the committed memo when a commit was lost
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_contract::source::{Received, Receiver, Reply, Waker};

use crate::clock::Clock;
use crate::failpoint::fp;
use crate::gate::{self, Asked, Keeper};
use crate::input::{LastWord, SourceInput, SourceKey};
use crate::limits;
use crate::stall::{Line, Pulse};

/// Where the shard leaves what a receiving thread has to hear; bounded by the deliveries that are
/// out and the events that are kept.
#[derive(Default)]
pub(crate) struct Desk {
    orders: Mutex<Orders>,
    posted: Condvar,
    waker: OnceLock<Waker>,
}

#[derive(Default)]
struct Orders {
    kept: Vec<u64>,
    settled: Vec<u64>,
    /// What was said of an inquiry.
    told: Vec<(u64, Vec<Reply>)>,
    /// Begin, or begin again.
    begin: Option<Begin>,
    full: bool,
    close: bool,
}

/// A session: deliveries carry its number, so that those of before are told apart.
struct Begin {
    session: u32,
    memo: Option<Bytes>,
    pages: BTreeMap<u64, Bytes>,
}

impl Orders {
    const fn is_empty(&self) -> bool {
        let nothing_said = self.kept.is_empty() && self.settled.is_empty() && self.told.is_empty();
        nothing_said && self.begin.is_none() && !self.close
    }
}

impl Desk {
    /// A delivery is durable.
    pub(crate) fn kept(&self, ticket: u64) {
        self.post(|orders| orders.kept.push(ticket));
    }

    /// All events of these deliveries are settled.
    pub(crate) fn settled(&self, tickets: Vec<u64>) {
        if !tickets.is_empty() {
            self.post(|orders| orders.settled.extend(tickets));
        }
    }

    /// A function has said something of an inquiry.
    pub(crate) fn told(&self, number: u64, replies: Vec<Reply>) {
        self.post(|orders| orders.told.push((number, replies)));
    }

    /// Whatever is not kept by now is lost: begin with this memo and these pages.
    pub(crate) fn begin(&self, session: u32, memo: Option<Bytes>, pages: BTreeMap<u64, Bytes>) {
        self.post(|orders| {
            // What is settled stays so.
            orders.kept.clear();
            orders.told.clear();
            orders.begin = Some(Begin {
                session,
                memo,
                pages,
            });
        });
    }

    /// Whether there is no room for more.
    pub(crate) fn full(&self, full: bool) {
        let mut orders = self.lock();
        if orders.full != full {
            orders.full = full;
            drop(orders);
            self.wake();
        }
    }

    pub(crate) fn close(&self) {
        self.post(|orders| orders.close = true);
    }

    /// What is to be done; there being no room stays so.
    fn take(&self) -> Orders {
        let mut orders = self.lock();
        let rest = Orders {
            full: orders.full,
            ..Orders::default()
        };
        std::mem::replace(&mut *orders, rest)
    }

    fn post(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.lock());
        self.wake();
    }

    fn wake(&self) {
        self.posted.notify_all();
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        // Each statement leaves the orders whole.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an order, or for room if there was none.
    fn wait(&self, full: bool, time: Duration) {
        let waiting = |orders: &mut Orders| orders.is_empty() && orders.full == full;
        // Woken or not, the thread looks at everything again.
        drop(self.posted.wait_timeout_while(self.lock(), time, waiting));
    }
}

/// What a receiving thread works with.
pub(crate) struct Receiving {
    pub(crate) key: SourceKey,
    pub(crate) receiver: Box<dyn Receiver>,
    pub(crate) line: Line,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) clock: Clock,
    pub(crate) desk: Arc<Desk>,
    pub(crate) keeper: Keeper,
}

impl Receiving {
    /// The thread's body.
    pub(crate) fn run(mut self) {
        let mut last_word = LastWord::new(self.key, self.line.clone());
        // A desk has one receiver for its whole life.
        drop(self.desk.waker.set(self.receiver.waker()));
        last_word.end = self.listen().err();
        self.receiver.close();
    }

    /// Until it is told to close, or cannot go on.
    fn listen(&mut self) -> Result<(), String> {
        let (mut out, mut session) = (0_usize, None);
        let waits_for_outcome = self.receiver.waits_for_outcome();
        let (mut alive, mut looked) = (Instant::now(), Instant::now());
        let mut received = Vec::new();
        // What waits for whoever the gate asks.
        let mut backlog = VecDeque::new();
        loop {
            let orders = self.desk.take();
            let full = orders.full;
            if let Some(begin) = &orders.begin {
                backlog.clear();
                let begun = self.within(|receiver| {
                    receiver.recall(&begin.pages);
                    receiver.begin(begin.memo.as_deref())
                });
                begun.map_err(|cause| cause.to_string())?;
                (out, session) = (0, Some(begin.session));
            }
            out = out.saturating_sub(orders.kept.len());
            if !orders.is_empty() {
                self.within(|receiver| {
                    for ticket in orders.kept {
                        fp!("receive.kept");
                        receiver.kept(ticket);
                    }
                    for ticket in orders.settled {
                        receiver.settled(ticket);
                    }
                    for (number, replies) in orders.told {
                        receiver.told(number, replies);
                    }
                });
            }
            if orders.close {
                return Ok(());
            }
            if alive.elapsed() >= limits::KEEP_ALIVE {
                alive = Instant::now();
                self.within(|receiver| receiver.keep_alive());
            }
            if waits_for_outcome && looked.elapsed() >= limits::OUTCOMES_LOOK {
                looked = Instant::now();
                if !self.line.say(self.key, SourceInput::Outcomes) {
                    return Ok(());
                }
            }
            if let (Some(session), false) = (session, backlog.is_empty()) {
                match self.pass_on(session, &mut backlog) {
                    None => return Ok(()),
                    Some(passed) => out += passed,
                }
                if let Some(away) = self.keeper.wait().filter(|_| !backlog.is_empty()) {
                    self.desk.wait(full, away.min(limits::KEEP_ALIVE));
                    continue;
                }
            }
            let ready = session.filter(|_| !full && out < limits::DELIVERIES_OPEN);
            let Some(session) = ready else {
                self.desk.wait(full, limits::OUTCOMES_LOOK);
                continue;
            };
            let heard = self.within(|receiver| {
                let heard = receiver.receive(limits::POLL_WAIT, &mut received);
                (heard, receiver.overdue())
            });
            self.pulse.overdue(&self.clock, heard.1);
            heard.0.map_err(|cause| cause.to_string())?;
            backlog.extend(received.drain(..));
            match self.pass_on(session, &mut backlog) {
                None => return Ok(()),
                Some(passed) => out += passed,
            }
        }
    }

    /// Judges and tells what was received, as far as it can be judged, and says how many deliveries that
    /// were. `None` when the shard is gone.
    fn pass_on(&mut self, session: u32, backlog: &mut VecDeque<Received>) -> Option<usize> {
        let mut passed = 0;
        while let Some(mut news) = backlog.pop_front() {
            if let Received::Delivery(delivery) = &mut news {
                let judge = |gate: &dyn evermill_contract::source::Gate| {
                    gate::arrivals(gate, &mut delivery.events)
                };
                let (asked, back) = self.keeper.ask(judge).unwrap_or((Asked::Judged(()), false));
                if back && !self.tell(session, Received::Recovered) {
                    return None;
                }
                if let Asked::Away(reason) = asked {
                    backlog.push_front(news);
                    let told = reason
                        .is_none_or(|reason| self.tell(session, Received::Degraded { reason }));
                    return told.then_some(passed);
                }
                passed += 1;
            }
            if !self.tell(session, news) {
                return None;
            }
        }
        Some(passed)
    }

    /// False when the shard is gone.
    fn tell(&self, session: u32, news: Received) -> bool {
        let input = match news {
            Received::Delivery(delivery) => {
                fp!("receive.delivered");
                SourceInput::Delivery { session, delivery }
            }
            Received::Ask(inquiry) => SourceInput::Asks { session, inquiry },
            Received::CaughtUp => SourceInput::Answered,
            Received::Degraded { reason } => SourceInput::Degraded(reason),
            Received::Recovered => SourceInput::Recovered,
        };
        self.line.say(self.key, input)
    }

    /// Calls into the receiver's code, and lets whoever watches know.
    fn within<T>(&mut self, call: impl FnOnce(&mut dyn Receiver) -> T) -> T {
        let receiver = &mut *self.receiver;
        self.pulse.within(&self.clock, || call(receiver))
    }
}
