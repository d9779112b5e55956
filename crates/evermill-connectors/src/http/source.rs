//! Asks when it is time, on a thread of its own so that whoever waits can be woken; tells what came of it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use evermill_contract::manifest::HttpSource as HttpConfig;
use evermill_contract::source::{
    Arrival, Delivery, Inquiry, Received, Receiver, Reply, SourceError, Waker,
};
use evermill_http::{Error, Request, Response, retry_after};

use super::ask;
use super::config::Question;
use super::judge::{Found, Verdict, judge};
use super::observe::{Edge, Observed};
use super::page::Page;
use crate::jitter::earlier;
use crate::memory::Memory;
use crate::{Environment, limits};

/// A place that is being polled.
pub struct HttpSource {
    question: Question,
    /// Events in one delivery, at most.
    events_max: usize,
    memory: Memory,
    /// What tells the server that we have its answer already, and which memory that led to.
    validators: Vec<(String, String)>,
    due: Instant,
    /// Since when a request is under way.
    asking: Option<Instant>,
    /// The author's function has this before it, under the number of the inquiry.
    judging: Option<(u64, Response, Found)>,
    /// What it said of that.
    said: Option<Reply>,
    inquiries: u64,
    /// Answers to earlier requests are of no use after a new beginning.
    generation: u64,
    /// Answers in a row that said nothing.
    unknown: u32,
    degraded: Option<String>,
    ticket: u64,
    post: Arc<Post>,
}

/// Where a request's thread leaves the answer.
#[derive(Default)]
struct Post {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    answer: Option<(u64, Result<Response, Error>)>,
    woken: bool,
    closed: bool,
}

impl Post {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpSource {
    /// Prepares to ask; nothing is connected yet.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub fn open(config: &HttpConfig, environment: &Environment<'_>) -> Result<Self, SourceError> {
        let question = Question::new(config, environment)?;
        Ok(Self {
            memory: Memory::new(&question.mark),
            question,
            events_max: environment.budget.batch_events.max(1),
            validators: Vec::new(),
            due: Instant::now(),
            asking: None,
            judging: None,
            said: None,
            inquiries: 0,
            generation: 0,
            unknown: 0,
            degraded: None,
            ticket: 0,
            post: Arc::default(),
        })
    }

    /// Sends the request on a thread of its own; there is one at a time.
    fn ask(&mut self) {
        let mut request = self.question.request(self.memory.last_item.as_deref());
        request.headers.extend(self.validators.iter().cloned());
        let (post, generation) = (Arc::clone(&self.post), self.generation);
        let client = self.question.client.clone();
        let send = move |request: &Request| client.send(request);
        let thread = std::thread::Builder::new()
            .name("http-poll".to_owned())
            .spawn(move || {
                let answer = send(&request);
                post.lock().answer = Some((generation, answer));
                post.changed.notify_all();
            });
        match thread {
            Ok(_) => self.asking = Some(Instant::now()),
            Err(cause) => {
                let why = format!("the system gives no thread: {cause}");
                let place = self.question.client.connection().place();
                let answer = Err(Error::Unreachable { place, why });
                self.post.lock().answer = Some((generation, answer));
                self.asking = Some(Instant::now());
            }
        }
    }

    fn heard(&mut self, answer: Result<Response, Error>, out: &mut Vec<Received>) {
        self.asking = None;
        let response = match answer {
            Ok(response) => response,
            Err(error) => return self.unknown(error.to_string(), None, out),
        };
        if response.status == 304 && !self.validators.is_empty() {
            return self.known(Vec::new(), self.memory.clone(), false, out);
        }
        let question = &self.question;
        let is_read = question.select.is_some() || question.cursor.is_some();
        let verdict = match judge(&question.check, &response, is_read) {
            Verdict::True(found) if question.check.function.is_some() => {
                return self.inquire(response, found, out);
            }
            verdict => verdict,
        };
        self.conclude(&response, verdict, out);
    }

    /// The author's function has the last word.
    fn inquire(&mut self, response: Response, found: Found, out: &mut Vec<Received>) {
        self.inquiries += 1;
        out.push(Received::Ask(Inquiry {
            number: self.inquiries,
            function: ask::RESPONSE_CHECK,
            about: vec![ask::about(&response)],
        }));
        self.judging = Some((self.inquiries, response, found));
    }

    /// It is known what the answer means.
    fn conclude(&mut self, response: &Response, verdict: Verdict, out: &mut Vec<Received>) {
        let now = SystemTime::now();
        let observed = self.observe(response, verdict, ms_since_1970(now));
        match observed {
            Observed::Unknown(why) => {
                let wait = retry_after(&response.headers, now);
                self.unknown(why, wait, out);
            }
            Observed::Known {
                events,
                memory,
                more,
            } => {
                // A function may look at more than the answer: it is asked each time.
                if self.question.check.function.is_none() {
                    self.validators = validators(response);
                }
                self.known(events, memory, more, out);
            }
        }
    }

    fn observe(&self, response: &Response, verdict: Verdict, now_ms: i64) -> Observed {
        let question = &self.question;
        let fire_on_start = question.fire_on_start;
        match &question.cursor {
            Some(cursor) => Page {
                cursor,
                fire_on_start,
            }
            .observe(&self.memory, response, verdict, now_ms),
            None => Edge {
                select: question.select.as_deref(),
                fire_on_start,
            }
            .observe(&self.memory, response, verdict, now_ms),
        }
    }

    /// The answer says something: what is new goes out, in order.
    fn known(&mut self, events: Vec<Arrival>, memory: Memory, more: bool, out: &mut Vec<Received>) {
        self.unknown = 0;
        if self.degraded.take().is_some() {
            out.push(Received::Recovered);
        }
        if memory.last_item != self.memory.last_item {
            // The next question is another one.
            self.validators.clear();
        }
        if memory != self.memory || !events.is_empty() {
            self.deliver(events, &memory, out);
        }
        self.memory = memory;
        if more {
            // A list is read to its end without a wait.
            self.due = Instant::now() + limits::HTTP_POKE_MIN.min(self.question.interval);
        } else {
            out.push(Received::CaughtUp);
            self.due = Instant::now() + earlier(self.question.interval);
        }
    }

    /// A long list takes several deliveries; the last one brings the memory.
    fn deliver(&mut self, events: Vec<Arrival>, memory: &Memory, out: &mut Vec<Received>) {
        let mut rest = events.into_iter().peekable();
        loop {
            let part: Vec<_> = rest.by_ref().take(self.events_max).collect();
            let is_last = rest.peek().is_none();
            self.ticket += 1;
            out.push(Received::Delivery(Delivery {
                pages: Vec::new(),
                ticket: self.ticket,
                events: part,
                memo: is_last.then(|| memory.write()),
            }));
            if is_last {
                return;
            }
        }
    }

    /// The answer says nothing, or there is none: nothing changes, and we ask again.
    fn unknown(&mut self, why: String, wait: Option<Duration>, out: &mut Vec<Received>) {
        let usual = self.question.interval;
        let soon = limits::HTTP_AGAIN * (1 << self.unknown.min(16));
        self.unknown = self.unknown.saturating_add(1);
        let wait = wait.map_or(soon.min(usual), |asked| asked.max(limits::HTTP_POKE_MIN));
        self.due = Instant::now() + wait.min(limits::HTTP_WAIT_MAX);
        if self.degraded.as_ref() != Some(&why) {
            self.degraded = Some(why.clone());
            out.push(Received::Degraded { reason: why });
        }
    }
}

impl Receiver for HttpSource {
    fn begin(&mut self, memo: Option<&[u8]>) -> Result<(), SourceError> {
        self.memory = Memory::read(memo, &self.question.mark)?;
        self.validators.clear();
        self.generation += 1;
        self.asking = None;
        (self.judging, self.said) = (None, None);
        self.due = Instant::now();
        Ok(())
    }

    fn receive(&mut self, wait: Duration, out: &mut Vec<Received>) -> Result<(), SourceError> {
        if let (Some((_, response, found)), Some(said)) = (
            self.judging.take_if(|_| self.said.is_some()),
            self.said.take(),
        ) {
            let verdict = ask::verdict(said, found, &response.place);
            self.conclude(&response, verdict, out);
            return Ok(());
        }
        let deadline = Instant::now() + wait;
        let post = Arc::clone(&self.post);
        let mut state = post.lock();
        loop {
            if let Some((generation, answer)) = state.answer.take()
                && generation == self.generation
            {
                drop(state);
                self.heard(answer, out);
                return Ok(());
            }
            let now = Instant::now();
            if state.closed || std::mem::take(&mut state.woken) || now >= deadline {
                return Ok(());
            }
            let busy = self.asking.is_some() || self.judging.is_some();
            if !busy && now >= self.due {
                drop(state);
                self.ask();
                state = post.lock();
                continue;
            }
            let until = if busy {
                deadline
            } else {
                deadline.min(self.due)
            };
            let waited = post.changed.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn told(&mut self, number: u64, replies: Vec<Reply>) {
        if self
            .judging
            .as_ref()
            .is_some_and(|judging| judging.0 == number)
        {
            self.said = replies.into_iter().next();
        }
    }

    fn kept(&mut self, _ticket: u64) {
        // Nobody outside waits for it: the memory is committed with the events.
    }

    fn overdue(&self) -> Option<Duration> {
        // A request has a limit of its own; one that outlives it by so much will not end.
        let limit = self.question.client.connection().timeout() + limits::HTTP_OVERDUE;
        self.asking?.elapsed().checked_sub(limit)
    }

    fn waker(&self) -> Waker {
        let post = Arc::clone(&self.post);
        Waker::new(move || {
            post.lock().woken = true;
            post.changed.notify_all();
        })
    }

    fn close(&mut self) {
        self.post.lock().closed = true;
        self.question.client.cancel();
    }
}

impl Drop for HttpSource {
    fn drop(&mut self) {
        self.close();
    }
}

/// What to send next time, so that an answer that has not changed need not be sent again.
fn validators(response: &Response) -> Vec<(String, String)> {
    let pairs = [
        ("etag", "If-None-Match"),
        ("last-modified", "If-Modified-Since"),
    ];
    let found = pairs.into_iter().filter_map(|(from, to)| {
        let value = response.header(from)?;
        Some((to.to_owned(), value.to_owned()))
    });
    found.collect()
}

fn ms_since_1970(now: SystemTime) -> i64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
