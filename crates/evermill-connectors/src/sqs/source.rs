//! A queue being read. Requests run on threads of their own and leave their answers in the post; everything
//! that is decided is decided on the thread of whoever drives the source.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evermill_contract::manifest::{SqsAck, SqsSource as Config};
use evermill_contract::source::{
    Delivery, DiagnosticSink, Received, Receiver, Severity, SourceError, Waker,
};

use super::api::{self, Batch, Message};
use super::leases::{Answer, Held, Leases};
use super::message;
use super::queue::Queue;
use crate::aws::{Client, Fault, Kind};
use crate::{Environment, limits};

/// A queue that is being read.
pub struct SqsSource {
    queue: Queue,
    /// For receives alone: they are cut off at the end, while deletions are not.
    receiving: Client,
    waits_for_outcome: bool,
    /// Events and bytes of one delivery, at most.
    events_max: usize,
    bytes_max: usize,
    diagnostics: DiagnosticSink,
    /// Once it is found.
    url: Option<String>,
    finding: bool,
    leases: Leases,
    /// Received, and not handed over.
    ready: VecDeque<Received>,
    tickets: u64,
    receives: Lane,
    keeps: Lane,
    /// How many receives are worth having under way.
    wanted: usize,
    /// The last receive found something.
    lively: bool,
    /// When leases are looked at next.
    look_again: Instant,
    /// When the first deletion that waits for company goes out all the same.
    gathered: Option<Instant>,
    said: Option<String>,
    post: Arc<Post>,
}

/// Calls of one sort: how many are under way, and whether they work.
#[derive(Default)]
struct Lane {
    under_way: usize,
    failures: u32,
    /// Not before.
    again: Option<Instant>,
    trouble: Option<String>,
}

impl Lane {
    fn may_go(&self, now: Instant) -> bool {
        self.again.is_none_or(|again| again <= now)
    }

    fn works(&mut self) {
        (self.failures, self.again, self.trouble) = (0, None, None);
    }

    fn fails(&mut self, fault: &Fault, now: Instant) {
        let wait = limits::SQS_AGAIN * (1 << self.failures.min(10));
        self.failures += 1;
        self.again = Some(now + wait.min(limits::SQS_AGAIN_MAX));
        // The first hiccup is nobody's concern.
        let passes = matches!(fault.kind, Kind::Throttled) && self.failures < 3;
        if !passes {
            self.trouble = Some(fault.said.clone());
        }
    }
}

/// Where the threads of requests leave what came of them.
#[derive(Default)]
struct Post {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    answers: VecDeque<Came>,
    /// When requests began that are under way, by number.
    under_way: BTreeMap<u64, Instant>,
    /// Requests so far.
    asked: u64,
    woken: bool,
    closed: bool,
}

/// What came of a request.
enum Came {
    Found(Result<String, Fault>),
    Messages {
        asked: Instant,
        /// Nothing of the queue was with us when it was asked.
        alone: bool,
        result: Result<Vec<Message>, Fault>,
    },
    Deleted {
        held: Vec<Held>,
        result: Result<Batch, Fault>,
    },
    Renewed {
        asked: Instant,
        held: Vec<Held>,
        result: Result<Batch, Fault>,
    },
    /// Nothing more to say.
    Ended,
}

impl Post {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.asked += 1;
        let number = state.asked;
        state.under_way.insert(number, Instant::now());
        number
    }

    fn leave(&self, came: Came) {
        self.lock().answers.push_back(came);
        self.changed.notify_all();
    }

    fn end(&self, number: u64, came: Came) {
        self.lock().under_way.remove(&number);
        self.leave(came);
    }
}

impl SqsSource {
    /// Prepares to read; nothing is connected yet.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub fn open(config: &Config, environment: &Environment<'_>) -> Result<Self, SourceError> {
        let queue = Queue::open(&config.queue, &config.connection, environment.connection)?;
        Ok(Self {
            receiving: queue.client.beside()?,
            queue,
            waits_for_outcome: config.ack == SqsAck::Outcome,
            events_max: environment.budget.batch_events.max(1),
            bytes_max: environment.budget.batch_bytes,
            diagnostics: Arc::clone(&environment.diagnostics),
            url: None,
            finding: false,
            leases: Leases::default(),
            ready: VecDeque::new(),
            tickets: 0,
            receives: Lane::default(),
            keeps: Lane::default(),
            wanted: 1,
            lively: true,
            look_again: Instant::now(),
            gathered: None,
            said: None,
            post: Arc::default(),
        })
    }

    /// Runs a request on a thread of its own. False when the system gives none; that is said.
    fn spawn(&mut self, request: impl FnOnce() -> Came + Send + 'static) -> bool {
        let post = Arc::clone(&self.post);
        let number = post.begin();
        let run = move || post.end(number, request());
        let thread = std::thread::Builder::new().name("sqs".to_owned());
        let Err(cause) = thread.spawn(run) else {
            return true;
        };
        self.post.lock().under_way.remove(&number);
        let said = format!("the system gives no thread: {cause}; tried again");
        let fault = Fault::new(Kind::Away, said);
        self.receives.fails(&fault, Instant::now());
        false
    }

    // What is due.

    /// Starts what is due; receives only when there is room.
    fn go(&mut self, now: Instant, has_room: bool) {
        let Some(url) = self.url.clone() else {
            if !self.finding && self.receives.may_go(now) {
                let queue = self.queue.clone();
                self.finding = self.spawn(move || Came::Found(queue.find()));
            }
            return;
        };
        self.renew(&url, now);
        self.delete(&url, now);
        let under_way = self.receives.under_way;
        let held = self.leases.len() + under_way * limits::SQS_BATCH;
        let may = has_room && self.ready.is_empty() && held < limits::SQS_HELD_MAX;
        if may && self.receives.may_go(now) {
            for _ in under_way..self.wanted {
                self.receive(&url);
            }
        }
    }

    fn receive(&mut self, url: &str) {
        let (client, url, queue) = (self.receiving.clone(), url.to_owned(), self.queue.clone());
        let alone = self.leases.len() == 0;
        let wait = if self.lively {
            limits::SQS_WAIT_AFTER_SOME
        } else {
            limits::SQS_WAIT
        };
        let begun = self.spawn(move || {
            let asked = Instant::now();
            let result = api::receive(&client, &url, wait);
            let result = result.map_err(|fault| queue.explain(fault));
            Came::Messages {
                asked,
                alone,
                result,
            }
        });
        self.receives.under_way += usize::from(begun);
    }

    fn delete(&mut self, url: &str, now: Instant) {
        if self.leases.due() == 0 {
            self.gathered = None;
            return;
        }
        let since = *self.gathered.get_or_insert(now);
        let is_time = now >= since + limits::SQS_GATHER;
        while (is_time || self.leases.due() >= limits::SQS_BATCH)
            && self.keeps.under_way < limits::SQS_KEEPS
            && self.keeps.may_go(now)
        {
            let held = self.leases.take_due();
            if held.is_empty() {
                break;
            }
            let (queue, url, copy) = (self.queue.clone(), url.to_owned(), held.clone());
            let begun = self.spawn(move || {
                let receipts = receipts(&held);
                let result = api::delete(&queue.client, &url, &receipts, limits::SQS_CALL);
                let result = result.map_err(|fault| queue.explain(fault));
                Came::Deleted { held, result }
            });
            if !begun {
                let later = |held| self.leases.deleted(held, Answer::Later);
                copy.into_iter().for_each(later);
                break;
            }
            self.keeps.under_way += 1;
        }
        if self.leases.due() == 0 {
            self.gathered = None;
        }
    }

    /// Looks at every lease, now and then, and renews those that have to be: all of them, on a few
    /// threads, since nobody may come by for some seconds when there is no room.
    fn renew(&mut self, url: &str, now: Instant) {
        if now < self.look_again || !self.keeps.may_go(now) {
            return;
        }
        self.look_again = now + limits::SQS_LOOK;
        for id in self.leases.take_overdue(now) {
            self.warn(&format!(
                "message {id} has been with us for 12 hours, the longest that SQS allows: the queue shows it to others \
                 again; its work here goes on"
            ));
        }
        let due = self.leases.take_renewals(now);
        let each = due.len().div_ceil(limits::SQS_KEEPS).max(limits::SQS_BATCH);
        for part in due.chunks(each) {
            let (ours, queue, url) = (part.to_vec(), self.queue.clone(), url.to_owned());
            let post = Arc::clone(&self.post);
            let begun = self.spawn(move || {
                for held in ours.chunks(limits::SQS_BATCH) {
                    let asked = Instant::now();
                    let (client, lease) = (&queue.client, limits::SQS_LEASE);
                    let receipts = receipts(held);
                    let result = api::hide(client, &url, &receipts, lease, limits::SQS_CALL);
                    post.leave(Came::Renewed {
                        asked,
                        held: held.to_vec(),
                        result: result.map_err(|fault| queue.explain(fault)),
                    });
                }
                Came::Ended
            });
            if !begun {
                for held in part {
                    self.leases.renewed(held, Answer::Later, now);
                }
            }
        }
    }

    // What came.

    /// Takes in every answer there is.
    fn hear(&mut self, now: Instant) {
        let answers = std::mem::take(&mut self.post.lock().answers);
        for came in answers {
            match came {
                Came::Found(result) => self.found(result, now),
                Came::Messages {
                    asked,
                    alone,
                    result,
                } => {
                    self.receives.under_way -= 1;
                    self.received(asked, alone, result, now);
                }
                Came::Deleted { held, result } => {
                    self.keeps.under_way -= 1;
                    self.deleted(held, result, now);
                }
                Came::Renewed {
                    asked,
                    held,
                    result,
                } => {
                    self.renewed(asked, &held, result, now);
                }
                Came::Ended => {}
            }
        }
        self.tell();
    }

    fn found(&mut self, result: Result<String, Fault>, now: Instant) {
        self.finding = false;
        match result {
            Ok(url) => {
                self.url = Some(url);
                self.receives.again = None;
            }
            Err(fault) => self.receives.fails(&fault, now),
        }
    }

    fn received(
        &mut self,
        asked: Instant,
        alone: bool,
        result: Result<Vec<Message>, Fault>,
        now: Instant,
    ) {
        let messages = match result {
            Ok(messages) => messages,
            Err(fault) => {
                if fault.kind == Kind::Missing {
                    // It may be made again, with another URL.
                    self.url = None;
                }
                self.wanted = 1;
                return self.receives.fails(&fault, now);
            }
        };
        self.receives.works();
        self.lively = !messages.is_empty();
        if messages.is_empty() {
            self.wanted = 1;
            // What a FIFO queue holds back behind messages that are with us was not delivered.
            if alone || !self.queue.is_fifo() {
                self.ready.push_back(Received::CaughtUp);
            }
            return;
        }
        if messages.len() == limits::SQS_BATCH {
            self.wanted = (self.wanted + 1).min(limits::SQS_RECEIVES);
        }
        let leases = &mut self.leases;
        let fresh: Vec<Message> = messages
            .into_iter()
            .filter(|message| leases.take(&message.message_id, &message.receipt_handle, asked))
            .collect();
        for message in &fresh {
            self.warn_of_last_times(message);
        }
        // Under `outcome` each message has an end of its own.
        let events_max = if self.waits_for_outcome {
            1
        } else {
            self.events_max
        };
        let mut part: Vec<Message> = Vec::new();
        let mut bytes = 0;
        for message in fresh {
            let size = message::size(&message);
            if part.len() >= events_max || (!part.is_empty() && bytes + size > self.bytes_max) {
                self.deliver(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += size;
            part.push(message);
        }
        if !part.is_empty() {
            self.deliver(part);
        }
    }

    /// D10: who looks for a message that its queue moves away finds out why.
    fn warn_of_last_times(&self, message: &Message) {
        let times = message.attributes.get("ApproximateReceiveCount");
        let times: u32 = times.and_then(|times| times.parse().ok()).unwrap_or(0);
        if times >= limits::SQS_TIMES_SAID {
            let end = if times == 3 { "rd" } else { "th" };
            self.warn(&format!(
                "message {} comes for the {times}{end} time: readers ended before they had deleted it; where the                  queue has a redrive policy, it moves such messages to its dead-letter queue",
                message.message_id
            ));
        }
    }

    fn deliver(&mut self, messages: Vec<Message>) {
        self.tickets += 1;
        let ids = messages.iter().map(|message| message.message_id.clone());
        self.leases.deliver(self.tickets, ids.collect());
        self.ready.push_back(Received::Delivery(Delivery {
            ticket: self.tickets,
            events: messages.into_iter().map(message::arrival).collect(),
            memo: None,
            pages: Vec::new(),
        }));
    }

    fn deleted(&mut self, held: Vec<Held>, result: Result<Batch, Fault>, now: Instant) {
        let batch = self.kept_up(result, now);
        for (at, held) in held.into_iter().enumerate() {
            self.leases.deleted(held, answer(batch.as_ref(), at));
        }
    }

    fn renewed(
        &mut self,
        asked: Instant,
        held: &[Held],
        result: Result<Batch, Fault>,
        now: Instant,
    ) {
        let batch = self.kept_up(result, now);
        for (at, held) in held.iter().enumerate() {
            if self.leases.renewed(held, answer(batch.as_ref(), at), asked) {
                self.warn(&format!(
                    "message {} is not ours to hide any more: the queue shows it to others again; its work here goes on",
                    held.id
                ));
            }
        }
    }

    /// Whether calls that keep what we have work, and what one of them said.
    fn kept_up(&mut self, result: Result<Batch, Fault>, now: Instant) -> Option<Batch> {
        match result {
            Ok(batch) => {
                let failed = batch.failed.iter().find(|failed| !is_gone(&failed.code));
                match failed {
                    None => self.keeps.works(),
                    Some(failed) => {
                        let said = format!(
                            "queue {:?}: {}: {}; tried again",
                            self.queue.name, failed.code, failed.message
                        );
                        let fault = Fault::new(Kind::Throttled, said);
                        self.keeps.fails(&fault, now);
                    }
                }
                Some(batch)
            }
            Err(fault) => {
                self.keeps.fails(&fault, now);
                None
            }
        }
    }

    fn warn(&self, said: &str) {
        let text = format!("queue {:?}: {said}", self.queue.name);
        (self.diagnostics)(Severity::Warning, &text);
    }

    /// Says what is wrong, once, and that it is over.
    fn tell(&mut self) {
        let trouble = self
            .receives
            .trouble
            .as_ref()
            .or(self.keeps.trouble.as_ref());
        if trouble == self.said.as_ref() {
            return;
        }
        self.ready.push_back(match trouble {
            Some(reason) => Received::Degraded {
                reason: reason.clone(),
            },
            None => Received::Recovered,
        });
        self.said = trouble.cloned();
    }

    /// When something is due that nobody announces.
    fn next(&self, now: Instant) -> Option<Instant> {
        let deletion = self.gathered.map(|since| since + limits::SQS_GATHER);
        let later = |lane: &Lane| lane.again.filter(|again| *again > now);
        let busy = self.keeps.under_way >= limits::SQS_KEEPS;
        let deletion = deletion.filter(|_| !busy && self.keeps.may_go(now));
        [deletion, later(&self.receives), later(&self.keeps)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Shows messages to others at once that the engine does not hold.
    fn give_back(&mut self, receipts: &[String], until: Option<Instant>) {
        let Some(url) = self.url.clone() else { return };
        for part in receipts.chunks(limits::SQS_BATCH) {
            let (part, queue, url) = (part.to_vec(), self.queue.clone(), url.clone());
            let give = move |timeout: Duration| {
                // What is not given back comes back by itself, a lease later.
                drop(api::hide(
                    &queue.client,
                    &url,
                    &part,
                    Duration::ZERO,
                    timeout,
                ));
                Came::Ended
            };
            match until {
                None => drop(self.spawn(move || give(limits::SQS_CALL))),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    give(left);
                }
            }
        }
    }
}

impl Receiver for SqsSource {
    fn begin(&mut self, _memo: Option<&[u8]>) -> Result<(), SourceError> {
        // Deliveries that are not durable are lost: they come again, in their order.
        self.ready
            .retain(|news| !matches!(news, Received::Delivery(_)));
        let receipts = self.leases.give_back();
        self.give_back(&receipts, None);
        self.lively = true;
        Ok(())
    }

    fn receive(&mut self, wait: Duration, out: &mut Vec<Received>) -> Result<(), SourceError> {
        let deadline = Instant::now() + wait;
        loop {
            let now = Instant::now();
            let post = Arc::clone(&self.post);
            if post.lock().closed {
                return Ok(());
            }
            self.hear(now);
            out.extend(self.ready.drain(..));
            self.go(now, out.is_empty());
            let mut state = post.lock();
            let is_over = std::mem::take(&mut state.woken) || state.closed || now >= deadline;
            if is_over || !out.is_empty() {
                return Ok(());
            }
            if state.answers.is_empty() {
                let until = self.next(now).map_or(deadline, |next| next.min(deadline));
                let left = until.saturating_duration_since(now);
                drop(post.changed.wait_timeout(state, left));
            }
        }
    }

    fn kept(&mut self, ticket: u64) {
        self.leases.kept(ticket, self.waits_for_outcome);
        if self.leases.due() >= limits::SQS_BATCH {
            self.keep_alive();
        }
    }

    fn settled(&mut self, ticket: u64) {
        self.leases.done(ticket);
    }

    fn overdue(&self) -> Option<Duration> {
        let oldest = self.post.lock().under_way.values().min().copied();
        // Each has a limit of its own; one that outlives it by so much will not end.
        oldest?.elapsed().checked_sub(limits::SQS_OVERDUE)
    }

    fn waits_for_outcome(&self) -> bool {
        self.waits_for_outcome
    }

    fn keep_alive(&mut self) {
        let now = Instant::now();
        self.hear(now);
        if !self.post.lock().closed {
            self.go(now, false);
        }
    }

    fn waker(&self) -> Waker {
        let post = Arc::clone(&self.post);
        Waker::new(move || {
            post.lock().woken = true;
            post.changed.notify_all();
        })
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.post.lock().closed, true) {
            return;
        }
        self.receiving.cancel();
        let until = Instant::now() + limits::SQS_CLOSE;
        let left = || until.saturating_duration_since(Instant::now());
        if let Some(url) = self.url.clone() {
            while self.leases.due() > 0 && !left().is_zero() {
                let receipts = receipts(&self.leases.take_due());
                // What is not deleted comes again, and is known.
                if api::delete(&self.queue.client, &url, &receipts, left()).is_err() {
                    break;
                }
            }
        }
        let receipts = self.leases.give_back();
        self.give_back(&receipts, Some(until));
        // Deletions that were under way before come to their end.
        let mut state = self.post.lock();
        while self.keeps.under_way > 0 && !left().is_zero() {
            let ended = state.answers.drain(..);
            let deletions = ended.filter(|came| matches!(came, Came::Deleted { .. }));
            self.keeps.under_way -= deletions.count();
            if self.keeps.under_way > 0 {
                let waited = self.post.changed.wait_timeout(state, left());
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

impl Drop for SqsSource {
    fn drop(&mut self) {
        self.post.lock().closed = true;
        self.receiving.cancel();
        self.queue.client.cancel();
    }
}

fn receipts(held: &[Held]) -> Vec<String> {
    held.iter().map(|held| held.receipt.clone()).collect()
}

/// What a batch says of its entry at this place.
fn answer(batch: Option<&Batch>, at: usize) -> Answer {
    let Some(batch) = batch else {
        return Answer::Later;
    };
    let id = at.to_string();
    if batch.successful.iter().any(|done| done.id == id) {
        return Answer::Done;
    }
    match batch.failed.iter().find(|failed| failed.id == id) {
        Some(failed) if is_gone(&failed.code) => Answer::Gone,
        _ => Answer::Later,
    }
}

/// Whether a message is not ours any more, by the code of an entry that failed.
fn is_gone(code: &str) -> bool {
    let code = code.rsplit('.').next().unwrap_or_default();
    matches!(
        code,
        "ReceiptHandleIsInvalid" | "MessageNotInflight" | "InvalidParameterValue"
    )
}
