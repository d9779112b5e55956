//! Questions to functions of a DAG file that no activation asks: a source has something to judge, and
//! the author's function says what it is. A worker runs it as it runs a task, as a hidden first one.
//!
//! ```text
//! source --Ask--> waiting for a slot --> with a worker --> every reply is there --> whoever asked
//!                        ^                   |
//!                        +--- given back ----+
//! ```
//!
//! Nothing of it is durable and nothing is decided by it: whoever asked does with the reply what he
//! would have done by himself, and asks again after a crash. One whose worker dies has failed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use evermill_contract::source::{Arrival, Inquiry, NO_TIMESTAMP, Reply};
use evermill_contract::worker::{
    self, Answer, Dispatch, Event, LaneRef, Member, OrderMode, OutcomeRun, Range, Slot, TaskRef,
    Token,
};
use evermill_core::command::{DispatchId, RunIx};

use crate::failpoint::fp;
use crate::inbox::row;
use crate::input::SourceKey;
use crate::lanes::reference;
use crate::limits;
use crate::outcome;
use crate::payload::Parts;
use crate::shard::{Shard, Version};
use crate::slots::{self, Out};

/// What is done with the replies, one for each thing that was asked about, in order.
pub(crate) type Then = Box<dyn FnOnce(&mut Shard, Vec<Reply>) + Send>;

/// Whose function it is.
#[derive(Clone)]
struct Owner {
    run: RunIx,
    version: Version,
    /// Index into the version's sources; of a task, none has it.
    source: u16,
    /// By what a worker finds the function: `id?function`.
    name: String,
}

/// An inquiry under way.
struct Asked {
    owner: Owner,
    about: Vec<Arrival>,
    replies: Vec<Option<Reply>>,
    then: Then,
    /// What each member of its dispatch is about.
    members: Vec<usize>,
}

/// The inquiries that are under way.
#[derive(Default)]
pub(crate) struct Inquiries {
    /// For want of a slot.
    waiting: VecDeque<Asked>,
    out: BTreeMap<u64, Asked>,
    last: u64,
}

/// Their dispatches are numbered where the machine's never get to.
const NUMBERS_FROM: u64 = 1 << (limits::TOKEN_DISPATCH_BITS - 1);

impl Inquiries {
    /// Whether a dispatch is one of these.
    pub(crate) fn knows(&self, token: Token) -> bool {
        self.out.contains_key(&token.0)
    }

    /// Whoever asked has begun anew, or nothing runs any more.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
        self.out.clear();
    }

    /// Takes down what a worker said.
    pub(crate) fn heard(&mut self, token: Token, runs: Vec<OutcomeRun>) {
        let Some(asked) = self.out.get_mut(&token.0) else {
            return;
        };
        for run in runs {
            let Some(reply) = reply(run.outcome) else {
                continue;
            };
            for member in run.first..run.first.saturating_add(run.count) {
                let about = asked.members.get(member as usize);
                if let Some(place) = about.and_then(|&at| asked.replies.get_mut(at)) {
                    *place = Some(reply.clone());
                }
            }
        }
    }
}

fn reply(outcome: worker::Outcome) -> Option<Reply> {
    Some(match outcome {
        worker::Outcome::Success(success) => {
            Reply::Returned(success.and_then(|success| success.result))
        }
        worker::Outcome::Failed(error) => {
            let text = outcome::text_of(&error);
            Reply::Failed(text.lines().next().unwrap_or_default().to_owned())
        }
        worker::Outcome::Skipped | worker::Outcome::Waiting(_) => {
            Reply::Failed("it raised what only a task may raise".to_owned())
        }
        worker::Outcome::Held => return None,
    })
}

impl Shard {
    /// A receiving source asks; it hears at its desk.
    pub(crate) fn source_asks(&mut self, key: SourceKey, session: u32, inquiry: Inquiry) {
        let listening = self.listening.get(&key);
        if listening.is_none_or(|listening| listening.session != session) {
            return;
        }
        let number = inquiry.number;
        let then: Then = Box::new(move |shard, replies| {
            let listening = shard.listening.get(&key);
            let current = listening.filter(|listening| listening.session == session);
            if let Some(desk) = current.and_then(|listening| listening.desk()) {
                desk.told(number, replies);
            }
        });
        self.inquire(key, inquiry.function, inquiry.about, then);
    }

    /// A sensor that has a place asked for it lets its function judge what came: the answer is what it
    /// returned.
    pub(crate) fn task_asks(
        &mut self,
        slot: Slot,
        call: u32,
        token: Token,
        (function, about): (&str, Arrival),
    ) {
        let found = self.slots.of_task(token).and_then(|(out, task)| {
            let version: &Version = self.versions.get(&out.outline.version)?;
            Some((out, task, version.clone()))
        });
        let Some((out, task, version)) = found else {
            let gone = Answer::Refused("this attempt is no longer wanted".to_owned());
            return self.executor.answer(slot, call, gone);
        };
        let owner = Owner {
            run: out.run,
            version,
            source: u16::MAX,
            name: format!("{}?{function}", out.outline.tasks[usize::from(task)].id),
        };
        let then: Then = Box::new(move |shard, replies| {
            let answer = match replies.into_iter().next() {
                Some(Reply::Returned(Some(value))) => Answer::Value(value),
                Some(Reply::Returned(None)) | None => Answer::Missing,
                Some(Reply::Failed(why)) => Answer::Refused(why),
            };
            shard.executor.answer(slot, call, answer);
        });
        self.ask_worker(owner, vec![about], then);
    }

    /// Asks a function of a source about each of these. `then` follows, unless the shard is dropped or
    /// ends before.
    pub(crate) fn inquire(
        &mut self,
        key: SourceKey,
        function: &str,
        about: Vec<Arrival>,
        then: Then,
    ) {
        let version = self.runs.get(&key.run).map(|run| &run.version);
        let Some(version) = version
            .and_then(|version| self.versions.get(version))
            .cloned()
        else {
            return;
        };
        // One that the run's version has no more is about to be closed.
        let Some(place) = self.place_of(key) else {
            return;
        };
        let source = &version.outline.sources[usize::from(place)];
        let owner = Owner {
            run: key.run,
            name: format!("{}?{function}", source.id),
            version,
            source: place,
        };
        self.ask_worker(owner, about, then);
    }

    fn ask_worker(&mut self, owner: Owner, about: Vec<Arrival>, then: Then) {
        self.inquiries.waiting.push_back(Asked {
            owner,
            replies: vec![None; about.len()],
            about,
            then,
            members: Vec::new(),
        });
        self.send_inquiries();
    }

    /// Sends what waits for a slot, as far as there is one.
    pub(crate) fn send_inquiries(&mut self) {
        if self.is_ending() {
            return;
        }
        for _ in 0..self.inquiries.waiting.len() {
            let Some(asked) = self.inquiries.waiting.pop_front() else {
                return;
            };
            if let Some(asked) = self.send_inquiry(asked) {
                self.inquiries.waiting.push_back(asked);
            }
        }
    }

    /// Hands it back if no slot has room.
    fn send_inquiry(&mut self, mut asked: Asked) -> Option<Asked> {
        let run = self.runs.get(&asked.owner.run)?;
        let Owner {
            version,
            source,
            name,
            ..
        } = asked.owner.clone();
        let task = self.named_ref(&version.outline, &run.name, &name);
        let lane = reference(&run.name, &version.outline, source, &name, "", 0);
        let among = self.executor.slots_for(&task);
        let Some(slot) = self.slots.choose(among.clone()) else {
            return Some(asked);
        };
        let open = asked.replies.iter().enumerate();
        asked.members = open
            .filter_map(|(at, reply)| reply.is_none().then_some(at))
            .take(worker::limits::MEMBERS_MAX)
            .collect();
        self.inquiries.last += 1;
        let number = DispatchId(NUMBERS_FROM + self.inquiries.last);
        let token = slots::pack(self.machine.fence(), number);
        let dispatch = dispatch(&asked, token, task, lane);
        let out = Out {
            slot,
            among,
            run: asked.owner.run,
            task: None,
            members: asked.members.len() as u32,
            reported: 0,
            retries: false,
            redrives: false,
            dag: version.dag,
            outline: version.outline,
            arrivals: Vec::new(),
            sent_at: Instant::now(),
            recalled: false,
            left_out: false,
        };
        self.slots.sent(token, out);
        self.inquiries.out.insert(token.0, asked);
        self.executor.dispatch(slot, dispatch);
        fp!("inquiry.sent");
        None
    }

    /// A dispatch is over; whether it was an inquiry. `died` says who had started and why the worker
    /// ended, if it did: those have failed. What was not started is asked again.
    pub(crate) fn inquired(&mut self, token: Token, died: Option<(Option<u32>, &str)>) -> bool {
        let Some(mut asked) = self.inquiries.out.remove(&token.0) else {
            return false;
        };
        if let Some((Some(started), why)) = died {
            let ran = asked.members.iter().take(started as usize + 1);
            for &at in ran {
                asked.replies[at].get_or_insert_with(|| Reply::Failed(why.to_owned()));
            }
        }
        if asked.replies.iter().any(Option::is_none) {
            self.inquiries.waiting.push_front(asked);
        } else {
            let replies = asked.replies.into_iter().flatten().collect();
            fp!("inquiry.answered");
            (asked.then)(self, replies);
        }
        true
    }
}

/// What a worker gets: each thing asked about is a member, as the event it may become.
fn dispatch(asked: &Asked, token: Token, task: TaskRef, lane: LaneRef) -> Dispatch {
    let about = asked.members.iter().map(|&at| &asked.about[at]);
    let buffers: Vec<_> = about.map(|arrival| row::body(arrival, 0)).collect();
    let member = |(index, body): (usize, &bytes::Bytes)| {
        let parts = Parts::read(body);
        let range = |(start, len): (u32, u32)| Range {
            buffer: index as u32,
            start,
            len,
        };
        Member {
            event: Event {
                lane: 0,
                position: index as u64,
                id: None,
                timestamp_ms: (parts.timestamp_ms != NO_TIMESTAMP).then_some(parts.timestamp_ms),
                key: parts.key.map(range),
                value: parts.value.map(range),
                headers: parts.headers.map(range),
            },
            has_event: true,
            batch: None,
            joined: None,
            try_number: 1,
            map_index: -1,
            scope: 0,
            state: None,
        }
    };
    Dispatch {
        token,
        task,
        order: OrderMode::Independent,
        vectorised: false,
        slice: worker::limits::SLICE,
        timeout: Some(limits::INQUIRY_TIME),
        cwd: None,
        nice: 0,
        traced: false,
        lanes: vec![lane],
        upstream: Vec::new(),
        members: buffers.iter().enumerate().map(member).collect(),
        events: Vec::new(),
        results: Vec::new(),
        buffers,
    }
}
