//! A message queue that outlives its readers: what is received comes again unless it was deleted.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use evermill_contract::source::{
    Arrival, Delivery, Opened, PushRequest, PushSource, Received, Receiver, Reject, SourceError,
    Waker,
};

/// Shared by tests and receivers.
#[derive(Clone, Default)]
pub(crate) struct Queue {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    /// By message number: not yet deleted.
    messages: BTreeMap<u64, Arrival>,
    /// Counts up; also the next message's number.
    sent: u64,
    deleted: Vec<u64>,
    settled: Vec<u64>,
    /// What each receiver was begun with.
    memos: Vec<Option<Vec<u8>>>,
    closed: u32,
    /// Asked to return.
    woken: bool,
    /// Readers that were made.
    made: u32,
    /// Up to this one they do not come back from `receive`, or say that what they asked is overdue.
    hangs: u32,
    late: u32,
    /// That hang now.
    hung: u32,
}

impl Queue {
    pub(crate) fn send(&self, values: impl IntoIterator<Item = String>) {
        for value in values {
            self.send_as(None, &value);
        }
    }

    pub(crate) fn send_as(&self, id: Option<&str>, value: &str) {
        let mut state = self.shared.0.lock().unwrap();
        let number = state.sent;
        state.sent += 1;
        let arrival = Arrival {
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            id: id.map(|id| Bytes::copy_from_slice(id.as_bytes())),
            ..Arrival::default()
        };
        state.messages.insert(number, arrival);
        self.shared.1.notify_all();
    }

    pub(crate) fn deleted(&self) -> Vec<u64> {
        self.shared.0.lock().unwrap().deleted.clone()
    }

    pub(crate) fn settled(&self) -> Vec<u64> {
        self.shared.0.lock().unwrap().settled.clone()
    }

    pub(crate) fn memos(&self) -> Vec<Option<Vec<u8>>> {
        self.shared.0.lock().unwrap().memos.clone()
    }

    pub(crate) fn closed(&self) -> u32 {
        self.shared.0.lock().unwrap().closed
    }

    pub(crate) fn made(&self) -> u32 {
        self.shared.0.lock().unwrap().made
    }

    /// The readers made so far hang in `receive` from now on.
    pub(crate) fn hang(&self) {
        let mut state = self.shared.0.lock().unwrap();
        state.hangs = state.made;
    }

    pub(crate) fn hung(&self) -> u32 {
        self.shared.0.lock().unwrap().hung
    }

    /// Those that hang come back.
    pub(crate) fn let_go(&self) {
        self.shared.0.lock().unwrap().hangs = 0;
        self.shared.1.notify_all();
    }

    /// What the readers made so far ask is never answered, and they deliver nothing more.
    pub(crate) fn fall_silent(&self) {
        let mut state = self.shared.0.lock().unwrap();
        state.late = state.made;
    }

    pub(crate) fn open(&self) -> Opened {
        let mut state = self.shared.0.lock().unwrap();
        state.made += 1;
        Opened::Received(Box::new(Reader {
            queue: self.clone(),
            number: state.made,
            out: BTreeMap::new(),
            tickets: 0,
        }))
    }
}

/// A visibility window that lasts as long as the reader lives, or until it begins again.
struct Reader {
    queue: Queue,
    number: u32,
    /// Message by ticket.
    out: BTreeMap<u64, u64>,
    tickets: u64,
}

impl Receiver for Reader {
    fn begin(&mut self, memo: Option<&[u8]>) -> Result<(), SourceError> {
        self.out.clear();
        let mut state = self.queue.shared.0.lock().unwrap();
        state.memos.push(memo.map(<[u8]>::to_vec));
        Ok(())
    }

    fn receive(&mut self, wait: Duration, out: &mut Vec<Received>) -> Result<(), SourceError> {
        let (lock, changed) = &*self.queue.shared;
        {
            let mut state = lock.lock().unwrap();
            if state.late >= self.number {
                let silent = |state: &mut State| !state.woken;
                state = changed.wait_timeout_while(state, wait, silent).unwrap().0;
                state.woken = false;
                return Ok(());
            }
            if state.hangs >= self.number {
                state.hung += 1;
                let hangs = |state: &mut State| state.hangs >= self.number;
                state = changed.wait_while(state, hangs).unwrap();
                state.hung -= 1;
                return Ok(());
            }
        }
        let hidden: Vec<u64> = self.out.values().copied().collect();
        let next = |state: &State| {
            let mut all = state.messages.iter();
            let found = all.find(|(number, _)| !hidden.contains(number));
            found.map(|(number, arrival)| (*number, arrival.clone()))
        };
        let idle = |state: &mut State| next(state).is_none() && !state.woken;
        let mut state = lock.lock().unwrap();
        if next(&state).is_none() {
            out.push(Received::CaughtUp);
            state = changed.wait_timeout_while(state, wait, idle).unwrap().0;
        }
        state.woken = false;
        // Somebody may have made it hang or fall silent while it waited.
        if state.late >= self.number || state.hangs >= self.number {
            return Ok(());
        }
        if let Some((number, arrival)) = next(&state) {
            self.tickets += 1;
            self.out.insert(self.tickets, number);
            out.push(Received::Delivery(Delivery {
                pages: Vec::new(),
                ticket: self.tickets,
                events: vec![arrival],
                memo: Some(number.to_string().into()),
            }));
        }
        Ok(())
    }

    fn kept(&mut self, ticket: u64) {
        let number = self.out[&ticket];
        let mut state = self.queue.shared.0.lock().unwrap();
        state.messages.remove(&number);
        state.deleted.push(number);
    }

    fn settled(&mut self, ticket: u64) {
        // One that a new beginning has made void is nobody's.
        if let Some(number) = self.out.get(&ticket) {
            self.queue.shared.0.lock().unwrap().settled.push(*number);
        }
    }

    fn overdue(&self) -> Option<Duration> {
        let state = self.queue.shared.0.lock().unwrap();
        (state.late >= self.number).then_some(Duration::ZERO)
    }

    fn waits_for_outcome(&self) -> bool {
        true
    }

    fn waker(&self) -> Waker {
        let queue = self.queue.clone();
        Waker::new(move || {
            queue.shared.0.lock().unwrap().woken = true;
            queue.shared.1.notify_all();
        })
    }

    fn close(&mut self) {
        self.queue.shared.0.lock().unwrap().closed += 1;
    }
}

/// Takes a request whose body is not empty, under the id in its header `id`.
pub(crate) struct Hook;

impl PushSource for Hook {
    fn accept(&self, request: &PushRequest<'_>, now_ms: u64) -> Result<Vec<Arrival>, Reject> {
        if request.body.is_empty() {
            return Err(Reject {
                status: 400,
                detail: "the body is empty".to_owned(),
            });
        }
        Ok(vec![Arrival {
            timestamp_ms: Some(now_ms as i64),
            value: Some(request.body.clone()),
            id: request.header("id").cloned(),
            ..Arrival::default()
        }])
    }

    fn body_bytes_max(&self) -> usize {
        1_000
    }
}
