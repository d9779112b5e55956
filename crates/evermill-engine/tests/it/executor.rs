//! An executor in this process: a thread per slot, a closure for user code.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use evermill_contract::worker::{
    Answer, Death, Dispatch, Events, Executor, LogOrigin, Outcome, OutcomeRun, Question, Range,
    Slot, Token, WorkerEvent,
};

/// What user code sees of a member.
pub(crate) struct Call<'a> {
    pub(crate) task: &'a str,
    pub(crate) value: String,
    pub(crate) try_number: u16,
    /// The generation in its effect keys.
    pub(crate) generation: u32,
    /// Asks the engine and waits for the answer.
    pub(crate) ask: &'a dyn Fn(Question) -> Answer,
    /// Prints.
    pub(crate) print: &'a dyn Fn(&str),
    /// Results shipped for this member, by task id.
    pub(crate) results: Vec<(String, String)>,
    /// Of a list: the values of its events.
    pub(crate) listed: Vec<String>,
    /// What came along of its state.
    pub(crate) state: Option<String>,
    /// Events it sees of several sources: source and value.
    pub(crate) joined: Vec<(String, String)>,
}

pub(crate) type UserCode = Arc<dyn Fn(&Call<'_>) -> Outcome + Send + Sync>;

/// Shared by tests and executors.
#[derive(Clone)]
pub(crate) struct Workers {
    code: UserCode,
    slots: u16,
    gate: Arc<Gate>,
    /// Dispatches taken, ever.
    pub(crate) dispatches: Arc<AtomicU64>,
    /// A killed worker first reports the outcomes it still had.
    pub(crate) reports_when_killed: Arc<AtomicBool>,
}

/// While closed, no member starts.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Workers {
    pub(crate) fn new(
        slots: u16,
        code: impl Fn(&Call<'_>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self {
            code: Arc::new(code),
            slots,
            gate: Arc::default(),
            dispatches: Arc::default(),
            reports_when_killed: Arc::default(),
        }
    }

    pub(crate) fn close_gate(&self) {
        *self.gate.closed.lock().unwrap() = true;
    }

    pub(crate) fn open_gate(&self) {
        *self.gate.closed.lock().unwrap() = false;
        self.gate.changed.notify_all();
    }

    pub(crate) fn start(&self, events: Events) -> Box<dyn Executor> {
        let events = Arc::new(events);
        let lines = (0..self.slots).map(|slot| {
            let (orders, line) = bounded(1_024);
            let (answers, answered) = bounded(1);
            let killed = Arc::new(AtomicBool::new(false));
            let worker = Worker {
                slot: Slot(slot),
                answers: answered,
                workers: self.clone(),
                events: Arc::clone(&events),
                killed: Arc::clone(&killed),
            };
            std::thread::spawn(move || worker.run(&line));
            Line {
                orders,
                answers,
                killed,
            }
        });
        Box::new(FakeExecutor {
            lines: lines.collect(),
            gate: Arc::clone(&self.gate),
        })
    }
}

enum Order {
    Run(Box<Dispatch>),
    Die,
    End,
}

struct Line {
    orders: Sender<Order>,
    answers: Sender<Answer>,
    killed: Arc<AtomicBool>,
}

struct FakeExecutor {
    lines: Vec<Line>,
    gate: Arc<Gate>,
}

impl FakeExecutor {
    fn order(&self, slot: usize, order: Order, kills: bool) {
        let line = &self.lines[slot];
        line.killed.fetch_or(kills, Ordering::SeqCst);
        drop(line.orders.send(order));
        // Taken, so that nobody misses the flag between looking and waiting.
        drop(self.gate.closed.lock().unwrap());
        self.gate.changed.notify_all();
    }
}

impl Executor for FakeExecutor {
    fn slots(&self) -> u16 {
        self.lines.len() as u16
    }

    fn dispatch(&mut self, slot: Slot, dispatch: Dispatch) {
        self.order(usize::from(slot.0), Order::Run(Box::new(dispatch)), false);
    }

    fn recall(&mut self, _: Token) {}

    fn kill(&mut self, slot: Slot, _: Duration) {
        self.order(usize::from(slot.0), Order::Die, true);
    }

    fn answer(&mut self, slot: Slot, call: u32, answer: Answer) {
        assert_eq!(call, 7);
        self.lines[usize::from(slot.0)]
            .answers
            .send(answer)
            .unwrap();
    }

    fn shutdown(&mut self, _: Duration) {
        for slot in 0..self.lines.len() {
            self.order(slot, Order::End, true);
        }
    }
}

struct Worker {
    slot: Slot,
    answers: Receiver<Answer>,
    workers: Workers,
    events: Arc<Events>,
    killed: Arc<AtomicBool>,
}

impl Worker {
    fn run(&self, line: &Receiver<Order>) {
        let mut alive = false;
        for order in line {
            if !std::mem::replace(&mut alive, true) {
                self.tell(WorkerEvent::Ready {
                    slot: self.slot,
                    pid: 1,
                });
            }
            match order {
                Order::Run(dispatch) => alive = self.dispatch(&dispatch, line),
                Order::Die => {
                    self.killed.store(false, Ordering::SeqCst);
                    self.died(None, 0);
                    alive = false;
                }
                Order::End => {
                    self.died(None, 0);
                    return;
                }
            }
        }
    }

    fn tell(&self, event: WorkerEvent) {
        (self.events)(event);
    }

    fn died(&self, token: Option<Token>, reported: u32) {
        self.tell(WorkerEvent::Died {
            slot: self.slot,
            cause: Death::Killed,
            token,
            started: token.map(|_| reported),
            reported,
        });
    }

    /// Whether the worker lives on.
    fn dispatch(&self, dispatch: &Dispatch, line: &Receiver<Order>) -> bool {
        self.workers.dispatches.fetch_add(1, Ordering::SeqCst);
        for member in 0..dispatch.members.len() as u32 {
            if !self.pass_gate() {
                return self.die_in(dispatch, member, line);
            }
            let outcome = self.call(dispatch, member);
            self.report(dispatch.token, member, outcome);
        }
        self.tell(WorkerEvent::Finished {
            slot: self.slot,
            token: dispatch.token,
            tail: 0,
        });
        true
    }

    /// False when the worker was killed.
    fn pass_gate(&self) -> bool {
        let mut closed = self.workers.gate.closed.lock().unwrap();
        while *closed && !self.killed.load(Ordering::SeqCst) {
            closed = self.workers.gate.changed.wait(closed).unwrap();
        }
        !self.killed.load(Ordering::SeqCst)
    }

    fn die_in(&self, dispatch: &Dispatch, member: u32, line: &Receiver<Order>) -> bool {
        let mut reported = member;
        if self.workers.reports_when_killed.load(Ordering::SeqCst) {
            self.report(dispatch.token, member, Outcome::Success(None));
            reported += 1;
        }
        self.died(Some(dispatch.token), reported);
        self.killed.store(false, Ordering::SeqCst);
        // What was queued behind it comes back untouched; the order to die is done with.
        for order in line {
            match order {
                Order::Run(queued) => {
                    let tail = queued.members.len() as u32;
                    self.tell(WorkerEvent::Finished {
                        slot: self.slot,
                        token: queued.token,
                        tail,
                    });
                }
                Order::Die => break,
                Order::End => {
                    self.died(None, 0);
                    break;
                }
            }
        }
        false
    }

    fn ask(&self, token: Token, member: u32, question: Question) -> Answer {
        self.tell(WorkerEvent::Ask {
            slot: self.slot,
            call: 7,
            token,
            member,
            question,
        });
        self.answers.recv().unwrap()
    }

    fn report(&self, token: Token, member: u32, outcome: Outcome) {
        let run = OutcomeRun {
            first: member,
            count: 1,
            started_ns: 1,
            ended_ns: 2,
            outcome,
        };
        self.tell(WorkerEvent::Outcomes {
            slot: self.slot,
            token,
            runs: vec![run],
        });
    }

    fn call(&self, dispatch: &Dispatch, index: u32) -> Outcome {
        let text = |range: Range| {
            let bytes = &dispatch.buffers[range.buffer as usize];
            let part = &bytes[range.start as usize..][..range.len as usize];
            String::from_utf8_lossy(part).into_owned()
        };
        let member = &dispatch.members[index as usize];
        let shipped = dispatch
            .results
            .iter()
            .filter(|result| result.member == index);
        let results = shipped.map(|result| {
            let task = dispatch.upstream[result.upstream as usize].clone();
            (task, result.value.map(text).unwrap_or_default())
        });
        let rows = member.joined.clone().unwrap_or_default();
        let joined = dispatch.events[rows.start as usize..rows.end as usize].iter();
        let joined = joined.map(|event| {
            let source = dispatch.lanes[usize::from(event.lane)].source.clone();
            (source, event.value.map(text).unwrap_or_default())
        });
        let list = member.batch.clone().unwrap_or_default();
        let listed = dispatch.events[list.start as usize..list.end as usize].iter();
        let listed = listed.map(|event| event.value.map(text).unwrap_or_default());
        (self.workers.code)(&Call {
            task: &dispatch.task.task,
            value: member.event.value.map(text).unwrap_or_default(),
            try_number: member.try_number,
            generation: dispatch.lanes[usize::from(member.event.lane)].generation,
            ask: &|question| self.ask(dispatch.token, index, question),
            print: &|text| {
                self.tell(WorkerEvent::Log {
                    slot: self.slot,
                    token: Some(dispatch.token),
                    member: Some(index),
                    origin: LogOrigin::Stdout,
                    text: Bytes::copy_from_slice(text.as_bytes()),
                });
            },
            results: results.collect(),
            state: member.state.map(text),
            joined: joined.collect(),
            listed: listed.collect(),
        })
    }
}
