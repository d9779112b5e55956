//! What sources report, on its way to the machine; and the threads they report from.

use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam_channel::bounded;
use evermill_contract::alert::AlertKind;
use evermill_contract::source::{
    FirstPosition, Gate, LaneName, Opened, PushSource, Receiver, Severity, Source,
};
use evermill_core::command::{Command, LaneId, RunIx};

use crate::alerts::About;
use crate::doors::Door;
use crate::failpoint::fp;
use crate::gate::Keeper;
use crate::groups::After;
use crate::inbox::Inbox;
use crate::ingest::Ingest;
use crate::input::{First, FoundLane, SourceInput, SourceKey};
use crate::lanes::{Found, Listening, Parting};
use crate::limits;
use crate::masking::masked;
use crate::notice::Subject;
use crate::orders::Mailbox;
use crate::payload::{Held, Keys, Packed};
use crate::prepare::PreparedSource;
use crate::receipts::Receipts;
use crate::receiving::{Desk, Receiving};
use crate::shard::Shard;
use crate::stall::{Line, Watched};

/// How a log is read.
pub(crate) struct Reading {
    pub(crate) first: FirstPosition,
    pub(crate) keys: Keys,
    pub(crate) passes_gaps: bool,
    pub(crate) keeper: Keeper,
}

/// A source without its gate, and that.
pub(crate) fn ungated(source: Opened) -> (Opened, Option<Arc<dyn Gate>>) {
    match source {
        Opened::Gated(source, gate) => (ungated(*source).0, Some(gate)),
        source => (source, None),
    }
}

impl Shard {
    /// Starts the threads of a run's sources.
    pub(crate) fn listen(&mut self, run: RunIx, sources: Vec<PreparedSource>, passes_gaps: bool) {
        let keys = self
            .outline_of(run)
            .map_or(Keys::Unused, |outline| outline.keys);
        // One that has ended may be there again.
        self.listening
            .retain(|key, listening| key.run != run || listening.ended.is_none());
        for prepared in sources {
            let key = self.next_key(run);
            let PreparedSource {
                id,
                run: late,
                source,
                first,
            } = prepared;
            if let Some(slot) = self.runs.get(&run) {
                // It is new: nobody has named it before.
                late.get_or_init(|| Arc::clone(&slot.name));
            }
            let (source, gate) = ungated(source);
            let keeper = Keeper::new(gate.clone());
            match source {
                Opened::Log(source) => {
                    let how = Reading {
                        first,
                        keys,
                        passes_gaps,
                        keeper,
                    };
                    self.read(key, &id, source, how);
                }
                Opened::Received(receiver) => self.receive(key, &id, receiver, keeper),
                Opened::Pushed(source) => self.open_door(key, &id, source, gate.clone()),
                // What is sent by name is JSON, and comes without a gate.
                Opened::Signalled => self.read_inbox(key, &id, Listening::answered()),
                Opened::Looped => self.open_loop(key, &id),
                Opened::Gated(..) => unreachable!("a gate is taken off before"),
            }
            if let Some(listening) = self.listening.get_mut(&key) {
                listening.gate = gate;
            }
            self.watch_freshness(key);
        }
    }

    fn next_key(&mut self, run: RunIx) -> SourceKey {
        let number = self.next_source;
        self.next_source += 1;
        SourceKey {
            run,
            number,
            replay: 0,
        }
    }

    /// The place of a source in the run's version; none of one that is on its way out.
    pub(crate) fn place_of(&self, key: SourceKey) -> Option<u16> {
        let listening = self.listening.get(&key)?;
        if listening.parting == Parting::Agreed {
            return None;
        }
        let mut sources = self.outline_of(key.run)?.sources.iter();
        let place = sources.position(|source| *source.id == *listening.id)?;
        Some(place as u16)
    }

    /// What is listened to for a run, replays too, in the order in which that began.
    pub(crate) fn listening_of(
        &self,
        run: RunIx,
    ) -> impl Iterator<Item = (&SourceKey, &Listening)> {
        self.listening.range(SourceKey::all_of(run))
    }

    /// Who listens to the source at a place of the run's version.
    pub(crate) fn key_at(&self, run: RunIx, place: u16) -> SourceKey {
        let outline = self.outline_of(run);
        let id = outline.and_then(|outline| Some(&outline.sources.get(usize::from(place))?.id));
        let key = id.and_then(|id| {
            let mut listening = self.listening_of(run);
            let is_it = |(key, listening): &(&SourceKey, &Listening)| {
                let of_it = key.is_live() && *listening.id == **id;
                of_it && listening.parting != Parting::Agreed
            };
            listening.find(is_it).map(|(key, _)| *key)
        });
        key.unwrap_or(SourceKey::nobody(run))
    }

    /// A thread reads a log.
    pub(crate) fn read(&mut self, key: SourceKey, id: &str, source: Box<dyn Source>, how: Reading) {
        let Reading {
            first,
            keys,
            passes_gaps,
            keeper,
        } = how;
        let (permits, taken) = bounded(limits::BATCHES_QUEUED_PER_SOURCE);
        let mailbox = Arc::new(Mailbox::default());
        let watched = Watched {
            pulse: Arc::default(),
            line: Line::new(self.world.input.clone()),
            restarts: 0,
        };
        let gate = keeper.gate();
        let ingest = Ingest {
            key,
            source,
            first,
            held_lanes: self.held_lanes(key.run, id),
            again: false,
            keys,
            line: watched.line.clone(),
            pulse: Arc::clone(&watched.pulse),
            mailbox: Arc::clone(&mailbox),
            permits,
            held: Arc::new(Held::default()),
            clock: self.world.clock.clone(),
            keeper,
        };
        let listening = Listening {
            id: id.to_owned(),
            passes_gaps,
            gate,
            watched: Some(watched),
            ended: spawn(key, move || ingest.run()),
            ..Listening::new(mailbox, taken)
        };
        self.listening.insert(key, listening);
    }

    /// A thread receives for an inbox.
    fn receive(&mut self, key: SourceKey, id: &str, receiver: Box<dyn Receiver>, keeper: Keeper) {
        let mut listening = Listening::of_inbox();
        self.attend(key, &mut listening, receiver, keeper);
        self.read_inbox(key, id, listening);
        self.begin(key);
    }

    /// The same by another thread: the one before was left behind. What it delivered and is not kept yet
    /// is of a session that is over.
    pub(crate) fn receive_again(
        &mut self,
        key: SourceKey,
        receiver: Box<dyn Receiver>,
        keeper: Keeper,
    ) {
        let Some(mut listening) = self.listening.remove(&key) else {
            return;
        };
        listening.gate = keeper.gate();
        self.attend(key, &mut listening, receiver, keeper);
        self.listening.insert(key, listening);
        self.begin(key);
    }

    fn attend(
        &self,
        key: SourceKey,
        listening: &mut Listening,
        receiver: Box<dyn Receiver>,
        keeper: Keeper,
    ) {
        let desk = Arc::new(Desk::default());
        let watched = Watched {
            pulse: Arc::default(),
            line: Line::new(self.world.input.clone()),
            restarts: 0,
        };
        listening.receipts = receiver.waits_for_outcome().then(Receipts::default);
        let receiving = Receiving {
            key,
            receiver,
            line: watched.line.clone(),
            pulse: Arc::clone(&watched.pulse),
            clock: self.world.clock.clone(),
            desk: Arc::clone(&desk),
            keeper,
        };
        listening.receives = Some(desk);
        listening.watched = Some(watched);
        listening.ended = spawn(key, move || receiving.run());
    }

    /// Whoever has a request for the source finds it; there is nothing to wait for.
    fn open_door(
        &mut self,
        key: SourceKey,
        id: &str,
        source: Arc<dyn PushSource>,
        gate: Option<Arc<dyn Gate>>,
    ) {
        self.read_inbox(key, id, Listening::answered());
        if let Some(run) = self.runs.get(&key.run) {
            let door = Door { key, source, gate };
            self.world.doors.open(&run.dag, id, door);
        }
    }

    /// Opens the lane of a loop; its laps are the machine's own.
    fn open_loop(&mut self, key: SourceKey, id: &str) {
        let mut listening = Listening {
            id: id.to_owned(),
            resolved: true,
            looped: true,
            ..Listening::new(Arc::default(), crossbeam_channel::never())
        };
        let name = LaneName::from(id);
        let found = Found {
            incarnation: id.to_owned(),
            first: First::At(0),
            shared: false,
            lane: None,
        };
        listening.found.insert(name.clone(), found);
        self.listening.insert(key, listening);
        self.open_lane(key, &name);
    }

    /// Opens the one lane of a source's inbox.
    fn read_inbox(&mut self, key: SourceKey, id: &str, mut listening: Listening) {
        let Some(run) = self.runs.get(&key.run) else {
            return;
        };
        let dag = run.dag.clone();
        let number = self.inboxes.number(&dag, id);
        let name = LaneName::from(id);
        let found = Found {
            incarnation: self.inboxes.incarnation().to_owned(),
            first: First::At(self.inboxes.get(number).map_or(0, Inbox::first)),
            shared: false,
            lane: None,
        };
        id.clone_into(&mut listening.id);
        listening.inbox = Some(number);
        listening.found.insert(name.clone(), found);
        let before = self.inbox_lane(key.run, id);
        self.listening.insert(key, listening);
        match before {
            Some((old, lane)) => self.take_over(old, key, &name, lane),
            None => self.open_lane(key, &name),
        }
    }

    /// The lane of an inbox that is read already, for the source as a version before had it.
    fn inbox_lane(&self, run: RunIx, id: &str) -> Option<(SourceKey, LaneId)> {
        let mut listening = self.listening_of(run);
        let (key, old) = listening.find(|(_, old)| {
            let parts = old.parting == Parting::Agreed && old.ended.is_none();
            old.id == *id && parts && old.inbox.is_some()
        })?;
        let lane = old.found.values().find_map(|found| found.lane)?;
        Some((*key, lane))
    }

    /// What is kept in an inbox goes on through the same lane; only who brings it is another.
    fn take_over(&mut self, old: SourceKey, new: SourceKey, name: &LaneName, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.source = new;
        }
        let found = self.listening.get_mut(&new);
        if let Some(found) = found.and_then(|listening| listening.found.get_mut(name)) {
            found.lane = Some(id);
        }
        self.world.doors.close_at(old);
        if let Some(old) = self.listening.remove(&old)
            && let Some(desk) = old.desk()
        {
            desk.close();
        }
        self.feed(id);
    }

    /// The inbox that a source's lane is read from.
    pub(crate) fn inbox_of(&mut self, key: SourceKey) -> Option<u32> {
        if let Some(listening) = self.listening.get(&key) {
            return listening.inbox;
        }
        let manual = self.outline_of(key.run)?.sources.is_empty();
        let dag = self.runs.get(&key.run)?.dag.clone();
        manual.then(|| self.inboxes.number(&dag, crate::MANUAL))
    }

    /// Lanes of a source that were read before, by name and incarnation.
    fn held_lanes(&self, run: RunIx, id: &str) -> BTreeSet<(String, String)> {
        let lanes = self.machine.lanes(run);
        lanes
            .filter(|lane| !lane.retired && lane.source_id == *id && lane.is_live())
            .map(|lane| (lane.name, lane.incarnation))
            .collect()
    }

    pub(crate) fn source(&mut self, key: SourceKey, input: SourceInput) {
        self.view_stale = true;
        match input {
            SourceInput::Lanes(found) => {
                for lane in found {
                    self.lane_found(key, lane);
                }
            }
            SourceInput::Batch {
                lane,
                session,
                packed,
            } => self.batch(key, lane, session, packed),
            SourceInput::CaughtUp { lane, session, end } => self.caught_up(lane, session, end),
            SourceInput::Passed {
                lane,
                session,
                from,
                to,
            } => {
                let known = self.lanes.get(&lane);
                if known.is_some_and(|known| known.session == session) {
                    self.apply(Command::PassOver { lane, from, to });
                }
            }
            SourceInput::Lag { lane, behind } => {
                let now = self.world.clock.now_ms();
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.behind = Some(behind);
                    let since = lane.lag_since.unwrap_or((now, behind));
                    lane.lag_since = (behind > 0).then_some(since);
                }
            }
            SourceInput::Gap {
                lane,
                session,
                from,
                to,
                reason,
            } => self.gap(lane, session, (from, to), &reason),
            SourceInput::Diverged { lane, reason } => self.diverged(lane, reason),
            SourceInput::Taken(name) => self.lane_taken(key, &name),
            SourceInput::Delivery { session, delivery } => self.deliver(key, session, delivery),
            SourceInput::Asks { session, inquiry } => self.source_asks(key, session, inquiry),
            SourceInput::Answered => self.answered(key),
            SourceInput::Outcomes => self.tell_settled(key, true),
            other => self.source_state(key, other),
        }
    }

    fn source_state(&mut self, key: SourceKey, input: SourceInput) {
        let (who, subject) = (self.source_name(key), self.source_subject(key));
        let Some(listening) = self.listening.get_mut(&key) else {
            return;
        };
        let mut alert = None;
        let told = match input {
            SourceInput::Resolved => {
                listening.resolved = true;
                None
            }
            SourceInput::Dropped => {
                listening.applied += 1;
                self.unseal();
                None
            }
            SourceInput::Degraded(reason) => {
                let text = format!("{who}: {reason}");
                let reason = masked(&*self.world.settings, &reason).into_owned();
                let news = listening.degraded.replace(reason).is_none();
                alert = news.then_some(AlertKind::SourceDegraded);
                Some((Severity::Warning, text))
            }
            SourceInput::Recovered => {
                listening.degraded = None;
                Some((Severity::Info, format!("{who}: all is well again")))
            }
            SourceInput::Ended(_) if listening.parting == Parting::Agreed => {
                self.listening.remove(&key);
                None
            }
            SourceInput::Ended(None) if !key.is_live() => {
                self.listening.remove(&key);
                return self.reread_if_wanted(key);
            }
            SourceInput::Ended(why) => {
                let text = why
                    .as_ref()
                    .map(|why| (Severity::Error, format!("{who} has ended: {why}")));
                listening.ended = Some(why);
                alert = text.is_some().then_some(AlertKind::SourceEnded);
                text
            }
            _ => None,
        };
        if let Some((severity, text)) = told {
            self.notice_of(severity, &subject, &text);
            if let Some(kind) = alert {
                let about = About {
                    source: self.place_of(key),
                    ..About::default()
                };
                self.raise(kind, key.run, about, text);
            }
        }
    }

    fn lane_found(&mut self, key: SourceKey, lane: FoundLane) {
        fp!("shard.lane_found");
        if !key.is_live() {
            return self.replay_lane_found(key, lane);
        }
        let Some(listening) = self.listening.get_mut(&key) else {
            return;
        };
        let found = Found {
            incarnation: lane.incarnation,
            first: lane.first,
            shared: lane.shared,
            lane: None,
        };
        listening.found.insert(lane.name.clone(), found);
        self.open_lane(key, &lane.name);
    }

    /// Tells the machine of a lane; `Effect::LaneOpen` follows the commit (C7).
    pub(crate) fn open_lane(&mut self, key: SourceKey, name: &LaneName) {
        let found = self
            .listening
            .get(&key)
            .and_then(|listening| listening.found.get(name));
        let Some(found) = found else { return };
        let (incarnation, first) = (found.incarnation.clone(), found.first);
        let Some(source) = self.place_of(key) else {
            return;
        };
        if let First::SettledBelow(position) = first {
            self.pass_over(key, name, &incarnation, position);
        }
        self.apply(Command::OpenLane {
            run: key.run,
            source,
            name: name.as_str().to_owned(),
            incarnation,
            first: match first {
                // The machine has it.
                First::Held => 0,
                First::At(position) | First::SettledBelow(position) => position,
            },
        });
    }

    /// Another reader of a lane that we hold a position of has gone further.
    fn pass_over(&mut self, key: SourceKey, name: &LaneName, incarnation: &str, to: u64) {
        let id = self.listening.get(&key).map(|listening| &listening.id);
        let held = self.machine.lanes(key.run).find(|lane| {
            lane.is_live()
                && !lane.retired
                && Some(&lane.source_id) == id
                && lane.name == name.as_str()
                && lane.incarnation == incarnation
        });
        if let Some(held) = held.filter(|lane| lane.read < to) {
            let (lane, from) = (held.lane, held.read);
            self.apply(Command::Gap { lane, from, to });
        }
    }

    fn batch(&mut self, key: SourceKey, lane: LaneId, session: u32, packed: Packed) {
        fp!("shard.batch_received");
        if let Some(listening) = self.listening.get_mut(&key) {
            listening.applied += 1;
            // Before the source has to wait for its permits.
            self.pressing |= 2 * listening.applied >= limits::BATCHES_QUEUED_PER_SOURCE;
            self.unseal();
        }
        let known = self
            .lanes
            .get_mut(&lane)
            .filter(|known| known.session == session);
        // Read before the lane was started again: it comes again.
        let Some(known) = known else { return };
        known.caught_up = false;
        known.lag_since = None;
        if known.source.is_live() {
            known.unsettled.arrived(&packed.events, packed.arrived_us);
        }
        self.buffers.add(packed.origin);
        self.apply(Command::Ingest {
            lane,
            events: packed.events,
        });
        fp!("shard.batch_applied");
    }

    fn caught_up(&mut self, lane: LaneId, session: u32, end: u64) {
        let known = self
            .lanes
            .get_mut(&lane)
            .filter(|known| known.session == session);
        let Some(known) = known else { return };
        if !known.source.is_live() {
            return self.replay_caught_up(lane, end);
        }
        let news = !known.caught_up;
        known.caught_up = true;
        known.was_caught_up = true;
        known.behind = Some(0);
        known.lag_since = None;
        if news {
            fp!("shard.caught_up");
            self.apply(Command::CaughtUp { lane });
        }
    }

    /// The lane stands still: what was lost is for somebody to judge. Who said so at the start
    /// has it recorded and passed over; the lane goes on behind it once that is committed.
    fn gap(&mut self, lane: LaneId, session: u32, (from, to): (u64, u64), reason: &str) {
        let known = self
            .lanes
            .get_mut(&lane)
            .filter(|known| known.session == session);
        let Some(known) = known else { return };
        // What is read again is read as far as it is still there.
        let passes = !known.source.is_live()
            || self
                .listening
                .get(&known.source)
                .is_some_and(|listening| listening.passes_gaps);
        let next = if passes {
            "reading goes on behind them"
        } else {
            "the lane stands still; start again with --pass-gaps to go on behind them"
        };
        let text = format!(
            "{}: positions {from} to {to} can no longer be read ({reason}): {next}",
            known.name
        );
        known.stopped = Some(text.clone());
        let (source, name) = (known.source, known.name.as_str().into());
        let subject = Subject {
            lane: Some(name),
            position: Some(from),
            ..self.source_subject(source)
        };
        self.notice_of(Severity::Error, &subject, &text);
        if !passes {
            return self.lane_stopped(lane, source, Some(from), text);
        }
        self.apply(Command::Gap { lane, from, to });
        self.after.push(After::Do(Box::new(move |shard| {
            shard.restart_lane(lane, to)
        })));
    }

    fn diverged(&mut self, lane: LaneId, reason: String) {
        let Some(known) = self.lanes.get_mut(&lane) else {
            return;
        };
        let text = format!("{} stands still: {reason}", known.name);
        known.stopped = Some(text.clone());
        let (source, name) = (known.source, known.name.as_str().into());
        let subject = Subject {
            lane: Some(name),
            ..self.source_subject(source)
        };
        self.notice_of(Severity::Error, &subject, &text);
        self.lane_stopped(lane, source, None, text);
    }

    fn lane_stopped(&mut self, lane: LaneId, key: SourceKey, position: Option<u64>, text: String) {
        let name = self.lanes.get(&lane).map(|lane| lane.name.to_string());
        let about = About {
            source: self.place_of(key),
            lane: name,
            position,
            ..About::default()
        };
        self.raise(AlertKind::LaneStopped, key.run, about, text);
    }

    /// Another reader is to have the lane: what of it is under way settles first.
    fn lane_taken(&mut self, key: SourceKey, name: &LaneName) {
        let Some(listening) = self.listening.get_mut(&key) else {
            return;
        };
        let lane = listening.found.remove(name).and_then(|found| found.lane);
        let Some(lane) = lane else {
            // Its first position is not durable yet, and nobody waits for it any more.
            return listening.mailbox.release(name.clone(), None);
        };
        self.close_lane(lane);
    }

    fn close_lane(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.taken = true;
            // What is still on its way was read for nothing.
            lane.session += 1;
        }
        self.apply(Command::CloseLane { lane: id });
        self.after
            .push(After::Do(Box::new(move |shard| shard.hand_on(id))));
    }

    /// Lets a lane that was taken go once all that was begun of it is settled and durable.
    pub(crate) fn hand_on(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.taken) else {
            return;
        };
        let known = self.machine.lanes(id.run).find(|known| known.lane == id);
        let settled =
            known.is_none_or(|known| known.low == known.read && known.low == lane.position);
        if !settled {
            return;
        }
        lane.taken = false;
        if let Some(listening) = self.listening.get(&lane.source) {
            let (name, position) = (lane.name.clone(), lane.position);
            listening.mailbox.release(name, Some(position));
        }
    }

    /// The machine was built again from what is stored: nothing of a lane that was taken is under way.
    pub(crate) fn hand_on_again(&mut self) {
        let taken = self.lanes.iter().filter(|(_, lane)| lane.taken);
        let taken: Vec<LaneId> = taken.map(|(id, _)| *id).collect();
        for id in taken {
            let known = self.machine.lanes(id.run).find(|known| known.lane == id);
            if let (Some(known), Some(lane)) = (known, self.lanes.get_mut(&id)) {
                lane.position = known.low;
            }
            self.hand_on(id);
        }
    }

    pub(crate) fn restart_lane(&mut self, id: LaneId, from: u64) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let (name, order) = (lane.name.clone(), lane.restart(id, from));
        if let Some(listening) = self.listening.get(&lane.source) {
            listening.mailbox.start(name, order);
        }
    }

    /// Lets the sources of a run, or of all runs, deliver nothing more; they still hear of acks.
    pub(crate) fn hush_sources(&mut self, run: Option<RunIx>) {
        let of_run = |key: &SourceKey| run.is_none_or(|run| run == key.run);
        for (_, listening) in self.listening.iter_mut().filter(|(key, _)| of_run(key)) {
            listening.hushed = true;
            for name in listening.found.keys() {
                listening.mailbox.credit(name.clone(), false);
            }
        }
    }

    /// Stops the sources of a run, or of all runs.
    pub(crate) fn close_sources(&mut self, run: Option<RunIx>) {
        let of_run = |key: &SourceKey| run.is_none_or(|run| run == key.run);
        for (_, listening) in self.listening.iter_mut().filter(|(key, _)| of_run(key)) {
            listening.mailbox.close();
            match (&listening.receives, listening.inbox) {
                (Some(desk), _) => desk.close(),
                // No thread has to end.
                (None, Some(_)) => listening.ended = Some(None),
                (None, None) if listening.looped => listening.ended = Some(None),
                (None, None) => {}
            }
        }
        self.world.doors.close(run);
    }

    pub(crate) fn source_name(&self, key: SourceKey) -> String {
        let name = match (self.runs.get(&key.run), self.listening.get(&key)) {
            (Some(run), Some(source)) => format!("{}: source '{}'", run.dag, source.id),
            _ => format!("source {}", key.number),
        };
        match key.replay {
            0 => name,
            replay => format!("{name}, read again by replay {replay}"),
        }
    }
}

/// Starts a source's thread; why the source has ended at once if there is none.
pub(crate) fn spawn(
    key: SourceKey,
    body: impl FnOnce() + Send + 'static,
) -> Option<Option<String>> {
    let name = match key.replay {
        0 => format!("source-{}-{}", key.run, key.number),
        replay => format!("replay-{}-{replay}", key.run),
    };
    let thread = std::thread::Builder::new().name(name).spawn(body);
    let cause = thread.err()?;
    Some(Some(format!("the system gives no thread: {cause}")))
}
