//! From inboxes to lanes: what arrives is kept, and what is kept is fed to its lane as far as there is
//! room (`inbox.rs` has the picture).

use evermill_contract::source::{Arrival, Delivery, Severity};
use evermill_core::command::{Command, Event, LaneId};

use crate::failpoint::fp;
use crate::groups::After;
use crate::inbox::{self, Accepted, Bringer, Inbox, Refusal, Shelved};
use crate::input::SourceKey;
use crate::limits;
use crate::payload::{self, Keys};
use crate::shard::Shard;

/// A lane that is read from an inbox.
pub(crate) struct Feed {
    /// The inbox's number.
    pub(crate) inbox: u32,
    /// Position of the next event to hand over.
    next: u64,
}

impl Shard {
    /// A source has delivered. Once that is durable it hears so.
    pub(crate) fn deliver(&mut self, key: SourceKey, session: u32, delivery: Delivery) {
        let listening = self.listening.get(&key);
        let current = listening.filter(|listening| listening.session == session);
        // One of a session that is over comes again.
        let Some(number) = current.and_then(|listening| listening.inbox) else {
            return;
        };
        let Delivery {
            ticket,
            events,
            memo,
            pages,
        } = delivery;
        // What a source was asked for before there was no room is taken.
        let accepted = inbox::check_pages(&pages)
            .and_then(|()| self.take_in(number, &events, memo, Bringer::LetIn));
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(refusal) => return self.refused(key, &refusal),
        };
        if let Some(inbox) = self.inboxes.get_mut(number) {
            inbox.turn(pages, &mut self.decision.writes);
        }
        let first = accepted.shelved.filter(|_| accepted.repeated == 0);
        let first = first.map_or(0, |shelved| shelved.first);
        // What came before lies anywhere below.
        let end = self.inboxes.get(number).map_or(first, Inbox::next);
        self.after.push(After::Do(Box::new(move |shard| {
            fp!("inbox.kept");
            let source = shard.listening.get_mut(&key);
            // Whoever reads the source by now counts his own tickets.
            let Some(source) = source.filter(|source| source.session == session) else {
                return;
            };
            if let Some(receipts) = &mut source.receipts {
                receipts.add(ticket, first..end);
            }
            if let Some(desk) = source.desk() {
                desk.kept(ticket);
            }
            shard.tell_settled(key, false);
        })));
    }

    fn refused(&mut self, key: SourceKey, refusal: &Refusal) {
        let who = self.source_name(key);
        let text = format!("{who}: {refusal}; it is left where it is");
        self.notice_of(Severity::Error, &self.source_subject(key), &text);
        if let Some(listening) = self.listening.get_mut(&key) {
            listening.degraded = Some(refusal.to_string());
        }
    }

    /// Keeps arrivals; they reach their lane once that is durable.
    pub(crate) fn take_in(
        &mut self,
        number: u32,
        arrivals: &[Arrival],
        memo: Option<bytes::Bytes>,
        by: Bringer,
    ) -> Result<Accepted, Refusal> {
        let now_us = self.world.clock.now_us();
        let inbox = self.inboxes.get_mut(number);
        let inbox = inbox.expect("whoever takes in has numbered its inbox");
        let accepted = inbox.accept(arrivals, memo, now_us, by, &mut self.decision.writes)?;
        fp!("inbox.accepted");
        self.pressing = true;
        self.unseal();
        if let Some(shelved) = &accepted.shelved {
            let shelved = shelved.clone();
            self.after.push(After::Do(Box::new(move |shard| {
                shard.shelve(number, shelved);
            })));
        }
        self.tell_room(number);
        Ok(accepted)
    }

    fn shelve(&mut self, number: u32, shelved: Shelved) {
        if let Some(inbox) = self.inboxes.get_mut(number) {
            inbox.shelve(shelved);
        }
        let mut feeds = self.feeds.iter();
        let lane = feeds.find_map(|(lane, feed)| (feed.inbox == number).then_some(*lane));
        if let Some(lane) = lane {
            self.feed(lane);
        }
    }

    /// A lane of an inbox has a committed position: it is read from there. `low`: everything below is
    /// settled.
    pub(crate) fn attach(&mut self, id: LaneId, number: u32, (low, position): (u64, u64)) {
        if let Some(inbox) = self.inboxes.get_mut(number) {
            inbox.raise(position);
        }
        // A lane of a run that is over is read no more.
        self.feeds.retain(|_, feed| feed.inbox != number);
        let feed = Feed {
            inbox: number,
            next: position,
        };
        self.feeds.insert(id, feed);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.position = low;
            lane.caught_up = false;
            lane.unsettled.clear();
        }
        self.settle_inbox(id, low);
        self.feed(id);
    }

    /// Hands over what waits, as far as the lane has room.
    pub(crate) fn feed(&mut self, id: LaneId) {
        let keys = self
            .outline_of(id.run)
            .map_or(Keys::Unused, |outline| outline.keys);
        let is_open = |key: &SourceKey| {
            let listening = self.listening.get(key);
            listening.is_none_or(|listening| !listening.hushed)
        };
        let known = self.lanes.get(&id);
        if !known.is_some_and(|lane| is_open(&lane.source)) {
            return;
        }
        while self.machine.has_room(id) {
            let Some(feed) = self.feeds.get_mut(&id) else {
                return;
            };
            let inbox = self.inboxes.get(feed.inbox);
            let Some(row) = inbox.and_then(|inbox| inbox.from(feed.next)) else {
                return self.fed_up(id);
            };
            let skipped = feed.next.saturating_sub(row.first) as usize;
            let bodies = row.bodies.iter().enumerate().skip(skipped);
            let events: Vec<Event> = bodies
                .take(limits::BATCH_EVENTS)
                .map(|(index, body)| Event {
                    position: row.first + index as u64,
                    key: match keys {
                        Keys::Unused => 0,
                        Keys::Hashed => payload::key_of(body),
                    },
                    arrived_ms: row.arrived_us / 1_000,
                    body: body.clone(),
                })
                .collect();
            let arrived_us = row.arrived_us;
            feed.next += events.len() as u64;
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.caught_up = false;
                lane.unsettled.arrived(&events, arrived_us);
            }
            fp!("inbox.fed");
            self.apply(Command::Ingest { lane: id, events });
        }
        self.tell_lag(id);
    }

    /// Everything that is kept was handed over; is that all there is?
    fn fed_up(&mut self, id: LaneId) {
        self.tell_lag(id);
        let Some(lane) = self.lanes.get(&id) else {
            return;
        };
        let (source, told) = (lane.source, lane.caught_up);
        let answered = match self.listening.get(&source) {
            Some(listening) => listening.answered,
            // Triggered by hand: what was given is all there is until more is.
            None => self.feeds.get(&id).is_some_and(|feed| feed.next > 0),
        };
        if told || !answered {
            return;
        }
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.caught_up = true;
            lane.was_caught_up = true;
        }
        self.apply(Command::CaughtUp { lane: id });
    }

    fn tell_lag(&mut self, id: LaneId) {
        let Some(feed) = self.feeds.get(&id) else {
            return;
        };
        let inbox = self.inboxes.get(feed.inbox);
        let behind = inbox.map(|inbox| inbox.next().saturating_sub(feed.next));
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.behind = behind;
        }
    }

    /// The outside world of a source has answered: what was delivered so far is all there was.
    pub(crate) fn answered(&mut self, key: SourceKey) {
        if let Some(listening) = self.listening.get_mut(&key) {
            listening.answered = true;
        }
        let mut lanes = self.lanes.iter();
        let lane = lanes.find_map(|(id, lane)| (lane.source == key).then_some(*id));
        if let Some(lane) = lane {
            self.feed(lane);
        }
    }

    /// Everything below a position is settled: its rows go with the next commit that has another
    /// reason. Until then, and after a crash before it, they are passed over.
    pub(crate) fn settle_inbox(&mut self, id: LaneId, position: u64) {
        let Some(number) = self.feeds.get(&id).map(|feed| feed.inbox) else {
            return;
        };
        let Some(inbox) = self.inboxes.get_mut(number) else {
            return;
        };
        inbox.settle(position, &mut self.decision.writes);
        if let Some(source) = self.lanes.get(&id).map(|lane| lane.source) {
            self.tell_settled(source, false);
        }
        self.tell_room(number);
        let is_low = self.inboxes.get(number).is_none_or(Inbox::is_low);
        if is_low && self.holds_up(number) {
            self.let_go_of(number);
        }
    }

    /// Tells a source that waits for outcomes of those that are settled by now. What its lane has passed
    /// although it is not settled is looked at `again` from time to time only.
    pub(crate) fn tell_settled(&mut self, key: SourceKey, again: bool) {
        let mut lanes = self.lanes.iter();
        let lane =
            lanes.find_map(|(id, lane)| (lane.source == key).then_some((*id, lane.position)));
        let listening = self.listening.get_mut(&key);
        let session = listening.as_ref().map(|listening| listening.session);
        let receipts = listening.and_then(|listening| listening.receipts.as_mut());
        let (Some((lane, position)), Some(receipts)) = (lane, receipts) else {
            return;
        };
        let (tickets, stretches) = receipts.passed(position, again);
        if tickets.is_empty() {
            return;
        }
        let open = self.machine.unsettled(lane, &stretches);
        let mut settled = Vec::new();
        for ((ticket, stretch), open) in tickets.into_iter().zip(stretches).zip(open) {
            receipts.hold(ticket, stretch);
            settled.extend((!open).then_some(ticket));
        }
        if settled.is_empty() {
            return;
        }
        // The machine is ahead of the store; what it has decided so far is durable then.
        self.after.push(After::Do(Box::new(move |shard| {
            let source = shard.listening.get_mut(&key);
            let Some(source) = source.filter(|source| Some(source.session) == session) else {
                return;
            };
            if let Some(receipts) = &mut source.receipts {
                settled.retain(|ticket| receipts.forget(*ticket));
            }
            if let Some(desk) = source.desk() {
                desk.settled(settled);
            }
        })));
    }

    fn tell_room(&self, number: u32) {
        let full = self
            .inboxes
            .get(number)
            .is_some_and(|inbox| !inbox.has_room());
        let mut sources = self.listening.values();
        let source = sources.find(|source| source.inbox == Some(number));
        if let Some(desk) = source.and_then(|source| source.desk()) {
            desk.full(full);
        }
    }

    /// Lets a receiving source begin where its last committed memo says.
    pub(crate) fn begin(&mut self, key: SourceKey) {
        let Some(listening) = self.listening.get_mut(&key) else {
            return;
        };
        listening.session += 1;
        let inbox = listening.inbox.and_then(|number| self.inboxes.get(number));
        if let (Some(inbox), Some(desk)) = (inbox, listening.desk()) {
            desk.begin(
                listening.session,
                inbox.memo().cloned(),
                inbox.pages().clone(),
            );
            desk.full(!inbox.has_room());
        }
    }

    /// After a reload: what was not kept is lost, inboxes are as they are stored (one that was never
    /// stored has lost its number), and receiving sources begin again.
    pub(crate) fn find_inboxes_again(&mut self) {
        self.feeds.clear();
        let all = self.listening.iter();
        let of_inbox = all.filter(|(_, listening)| listening.inbox.is_some());
        let keys: Vec<SourceKey> = of_inbox.map(|(key, _)| *key).collect();
        for key in keys {
            let dag = self.runs.get(&key.run).map(|run| run.dag.clone());
            let (Some(dag), Some(listening)) = (dag, self.listening.get_mut(&key)) else {
                continue;
            };
            if let Some(id) = listening.found.keys().next() {
                listening.inbox = Some(self.inboxes.number(&dag, id.as_str()));
            }
            self.begin(key);
        }
    }
}
