//! Asks when it is time; tells what came of it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use evermill_contract::manifest::PollSource as PollConfig;
use evermill_contract::source::{
    Arrival, Delivery, Inquiry, Received, Receiver, Reply, SourceError, Waker,
};
use sha2::{Digest as _, Sha256};

use crate::aws::hex;
use crate::jitter::earlier;
use crate::limits;
use crate::memory::Memory;
use crate::word::Word;

/// The option the function is given as.
const POKE: &str = "poke";

/// A function that is being asked.
pub struct PollSource {
    function: String,
    interval: Duration,
    memory: Memory,
    due: Instant,
    /// The engine has this question.
    asked: Option<u64>,
    said: Option<Reply>,
    inquiries: u64,
    /// Words in a row that said nothing.
    unknown: u32,
    degraded: Option<String>,
    ticket: u64,
    post: Arc<Post>,
}

/// Where whoever wakes us says so.
#[derive(Default)]
struct Post {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    woken: bool,
    closed: bool,
}

impl Post {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PollSource {
    /// Prepares to ask.
    ///
    /// # Errors
    /// None: there is nothing outside to be wrong.
    pub fn open(config: &PollConfig) -> Result<Self, SourceError> {
        let interval = config
            .poke_interval_ms
            .map_or(limits::POLL_POKE, Duration::from_millis);
        Ok(Self {
            memory: Memory::new(&config.function),
            function: config.function.clone(),
            interval: interval.clamp(limits::POLL_POKE_MIN, limits::POLL_WAIT_MAX),
            due: Instant::now(),
            asked: None,
            said: None,
            inquiries: 0,
            unknown: 0,
            degraded: None,
            ticket: 0,
            post: Arc::default(),
        })
    }

    fn ask(&mut self, out: &mut Vec<Received>) {
        self.inquiries += 1;
        self.asked = Some(self.inquiries);
        out.push(Received::Ask(Inquiry {
            number: self.inquiries,
            function: POKE,
            about: vec![event(None)],
        }));
    }

    fn heard(&mut self, said: Reply, out: &mut Vec<Received>) {
        let (holds, found) = match Word::of(said) {
            Word::Nothing(why) => return self.unknown(&why, out),
            Word::False => (false, None),
            Word::True(found) => (true, found),
        };
        self.unknown = 0;
        if self.degraded.take().is_some() {
            out.push(Received::Recovered);
        }
        let text = found.map(|found| found.to_string());
        let selected = text.as_ref().map(|text| hex(&Sha256::digest(text)));
        let fires = holds && self.memory.fires(selected.as_deref(), true);
        let memory = Memory {
            holds: Some(holds),
            selected,
            ..self.memory.clone()
        };
        if fires || memory != self.memory {
            self.ticket += 1;
            out.push(Received::Delivery(Delivery {
                ticket: self.ticket,
                events: fires.then(|| event(text)).into_iter().collect(),
                memo: Some(memory.write()),
                pages: Vec::new(),
            }));
        }
        self.memory = memory;
        out.push(Received::CaughtUp);
        self.due = Instant::now() + earlier(self.interval);
    }

    /// It said nothing: nothing changes, and it is asked again.
    fn unknown(&mut self, why: &str, out: &mut Vec<Received>) {
        let soon = limits::POLL_AGAIN * (1 << self.unknown.min(16));
        self.unknown = self.unknown.saturating_add(1);
        self.due = Instant::now() + soon.min(self.interval);
        let reason = format!("{} {why}", self.function);
        if self.degraded.as_ref() != Some(&reason) {
            self.degraded = Some(reason.clone());
            out.push(Received::Degraded { reason });
        }
    }
}

/// An event with what was found, as JSON.
fn event(found: Option<String>) -> Arrival {
    let sort = |_: &String| {
        let name = Bytes::from_static(b"content-type");
        (name, Bytes::from_static(b"application/json"))
    };
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Arrival {
        timestamp_ms: since
            .ok()
            .and_then(|since| i64::try_from(since.as_millis()).ok()),
        headers: found.iter().map(sort).collect(),
        value: found.map(Bytes::from),
        ..Arrival::default()
    }
}

impl Receiver for PollSource {
    fn begin(&mut self, memo: Option<&[u8]>) -> Result<(), SourceError> {
        self.memory = Memory::read(memo, &self.function)?;
        (self.asked, self.said) = (None, None);
        self.due = Instant::now();
        Ok(())
    }

    fn receive(&mut self, wait: Duration, out: &mut Vec<Received>) -> Result<(), SourceError> {
        if let Some(said) = self.said.take() {
            self.asked = None;
            self.heard(said, out);
            return Ok(());
        }
        let deadline = Instant::now() + wait;
        let post = Arc::clone(&self.post);
        let mut state = post.lock();
        loop {
            let now = Instant::now();
            if state.closed || std::mem::take(&mut state.woken) {
                return Ok(());
            }
            let is_free = self.asked.is_none();
            if is_free && now >= self.due {
                self.ask(out);
                return Ok(());
            }
            if now >= deadline {
                return Ok(());
            }
            let until = if is_free {
                deadline.min(self.due)
            } else {
                deadline
            };
            let waited = post.changed.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn told(&mut self, number: u64, replies: Vec<Reply>) {
        if self.asked == Some(number) {
            self.said = replies.into_iter().next();
        }
    }

    fn kept(&mut self, _ticket: u64) {
        // Nobody outside waits for it: the memory is committed with the event.
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
        self.post.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a function says at each question, `!` for nothing at all -> what comes of it: the value of an
    /// event, `-` for none, `?` for trouble.
    fn run(source: &mut PollSource, words: &[&'static str]) -> Vec<String> {
        words.iter().map(|word| said(source, word)).collect()
    }

    fn said(source: &mut PollSource, word: &'static str) -> String {
        let mut out = Vec::new();
        source.ask(&mut out);
        let Some(Received::Ask(inquiry)) = out.pop() else {
            panic!("it asks")
        };
        let reply = match word {
            "!" => Reply::Failed("ValueError: no".to_owned()),
            word => Reply::Returned(Some(Bytes::from(word))),
        };
        source.told(inquiry.number, vec![reply]);
        source.receive(Duration::ZERO, &mut out).unwrap();
        let mut said = "-".to_owned();
        for received in out {
            match received {
                Received::Degraded { reason } => said = format!("? {reason}"),
                Received::Delivery(delivery) => {
                    // Whatever is remembered survives a restart.
                    source.begin(delivery.memo.as_deref()).unwrap();
                    if let Some(event) = delivery.events.first() {
                        let value = event.value.as_deref().unwrap_or(b"nothing");
                        said = String::from_utf8(value.to_vec()).unwrap();
                    }
                }
                _ => {}
            }
        }
        said
    }

    fn open(function: &str) -> PollSource {
        let config = PollConfig {
            run: None,
            function: function.to_owned(),
            poke_interval_ms: None,
        };
        PollSource::open(&config).unwrap()
    }

    #[test]
    fn what_becomes_true_fires_once_and_what_says_nothing_changes_nothing() {
        let words = ["[true]", "[true]", "!", "[true]", "[false]", "!", "[true]"];
        let said = run(&mut open("ready"), &words);
        let trouble = "? ready failed: ValueError: no";
        assert_eq!(
            said,
            ["nothing", "-", trouble, "-", "-", trouble, "nothing"]
        );
    }

    #[test]
    fn another_find_is_an_edge() {
        let words = ["[false]", "[true, 1]", "[true, 1]", "[true, {}]", "[true]"];
        let said = run(&mut open("ready"), &words);
        assert_eq!(said, ["-", "1", "-", "{}", "nothing"]);
    }

    #[test]
    fn what_is_remembered_belongs_to_the_function() {
        let mut source = open("ready");
        run(&mut source, &["[true]"]);
        let memo = source.memory.write();
        let mut other = open("other");
        other.begin(Some(&memo)).unwrap();
        assert_eq!(run(&mut other, &["[true]"]), ["nothing"]);
    }

    #[test]
    fn a_word_from_before_a_new_beginning_is_of_no_account() {
        let mut source = open("ready");
        let mut out = Vec::new();
        source.ask(&mut out);
        source.begin(None).unwrap();
        source.told(1, vec![Reply::Returned(Some(Bytes::from("[true]")))]);
        assert!(source.said.is_none());
    }
}
