//! Builds what a worker gets from what the machine gave out, sharing the buffers events came in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use evermill_contract::manifest::Manifest;
use evermill_contract::source::NO_TIMESTAMP;
use evermill_contract::worker::{
    self, Dispatch, Event, LaneRef, Member, OrderMode, Range, TaskRef, Token, UpstreamResult,
};
use evermill_core::command::{self, Command, DispatchId, DispatchOrder, LaneId, RunIx};
use evermill_core::dag::{Order, SourceSpec};
use evermill_core::{DispatchView, MemberView, ScopeKey};

use crate::bundle;
use crate::failpoint::fp;
use crate::judging::{Findings, Now};
use crate::lanes::reference;
use crate::limits;
use crate::manifest::{Outline, TaskOutline};
use crate::outcome;
use crate::payload::{Gather, Parts, Standing};
use crate::shard::{Shard, Version};
use crate::slots::{self, Out};
use crate::workers::state_json;

impl Shard {
    /// Sends a dispatch to the slot that gets to it first, or keeps it until one has room.
    pub(crate) fn send(&mut self, id: DispatchId) {
        if self.is_ending() {
            // Workers are going: it runs at the next start.
            return;
        }
        // Gone when its run was stopped meanwhile.
        let Some(view) = self.machine.dispatch(id) else {
            return;
        };
        let Some(version) = self.versions.get(&view.dag().spec.version) else {
            return;
        };
        let among = self.executor.slots_for(&self.task_of(&view, version));
        let Some(slot) = self.slots.choose(among.clone()) else {
            return self.slots.wait(id);
        };
        let token = slots::pack(self.machine.fence(), id);
        let version = version.clone();
        let (run, task) = (view.run(), view.task());
        let is_stateful = version.dag.spec.tasks[usize::from(task)].writes_state;
        let redrives = is_stateful && view.members().any(|member| member.round() > 0);
        let ships_state = is_stateful && !redrives && self.may_ship_state(run, &version, task);
        let Built {
            dispatch,
            arrivals,
            findings,
            left_out,
            retries,
        } = self.build(view, &version, token, ships_state);
        fp!("dispatch.built");
        if self.holds_back(id, findings) {
            return;
        }
        let out = Out {
            slot,
            among,
            run,
            task: Some(task),
            left_out,
            members: dispatch.members.len() as u32,
            reported: 0,
            retries,
            redrives,
            dag: version.dag,
            outline: version.outline,
            arrivals,
            sent_at: Instant::now(),
            recalled: false,
        };
        self.note_redrives(run, redrives);
        self.slots.sent(token, out);
        self.executor.dispatch(slot, dispatch);
        fp!("dispatch.sent");
        self.deliver_late(id);
    }

    /// Sabotage: what an attempt of a dropped machine reported counts for the dispatch that has its
    /// number now.
    fn deliver_late(&mut self, id: DispatchId) {
        let (fence, late) = (self.machine.fence(), std::mem::take(&mut self.late));
        for (dispatch, old, runs) in late {
            if dispatch == id {
                self.apply(Command::Outcomes {
                    dispatch,
                    fence,
                    runs,
                });
            } else {
                self.late.push((dispatch, old, runs));
            }
        }
    }

    /// Sends what waited for a slot, as far as there is one that can run it.
    pub(crate) fn send_waiting(&mut self) {
        self.send_inquiries();
        for id in self.slots.take_waiting() {
            self.send(id);
        }
    }

    fn task_of(&self, view: &DispatchView<'_>, version: &Version) -> TaskRef {
        let outline = &version.outline;
        let run = self.runs.get(&view.run()).map_or("", |run| &run.name);
        self.task_ref(outline, run, &outline.tasks[usize::from(view.task())])
    }

    fn task_ref(&self, outline: &Outline, run: &str, task: &TaskOutline) -> TaskRef {
        TaskRef {
            sink: task.sink.clone(),
            polls: task.polls.clone(),
            ..self.named_ref(outline, run, &task.id)
        }
    }

    /// Something of a DAG file that a worker can run, by the name the worker knows it by.
    pub(crate) fn named_ref(&self, outline: &Outline, run: &str, name: &str) -> TaskRef {
        let folder = bundle::folder(&self.world.data_dir, &outline.version);
        TaskRef {
            entry: folder.join(&outline.entry).to_string_lossy().into_owned(),
            folder: Some(folder.to_string_lossy().into_owned()),
            dag: outline.dag.to_string(),
            run: run.to_owned(),
            task: name.to_owned(),
            sink: None,
            polls: None,
        }
    }

    /// Lets workers import the file whose tasks will be dispatched.
    pub(crate) fn warm_up(&mut self, outline: &Outline, manifest: &Manifest, run: &str) {
        self.declare(&outline.version, manifest);
        let slots = self.slots.capacity();
        self.apply(Command::Capacity { slots });
        if let Some(any) = outline.tasks.first() {
            let task = self.task_ref(outline, run, any);
            self.executor.prepare(&task);
        }
    }

    /// Tells the executor of every version that something may still be under way with.
    pub(crate) fn declare_versions(&mut self) {
        let known = self.versions.iter();
        let known: Vec<_> = known
            .map(|(version, known)| (version.clone(), std::sync::Arc::clone(&known.manifest)))
            .collect();
        for (version, manifest) in known {
            self.declare(&version, &manifest);
        }
    }

    /// The executor may get further slots for it.
    fn declare(&mut self, version: &str, manifest: &Manifest) {
        let folder = bundle::folder(&self.world.data_dir, version);
        let folder = folder.to_string_lossy();
        for dag in &manifest.dags {
            self.executor.declare(&folder, &manifest.entry, dag);
        }
        self.slots.grow(self.executor.slots());
    }

    /// Whether what the machine holds of a task's state is committed, so that it may go along.
    ///
    /// While a dispatch is decided, committed and sent, nobody else writes to a scope that one task has for itself: its
    /// members are in line (W4, W5). Those that are redriven are in none, so after them everything has to be committed.
    fn may_ship_state(&self, run: RunIx, version: &Version, task: u16) -> bool {
        let spec = &version.dag.spec;
        if spec.order == Order::None || spec.tasks[usize::from(task)].batch.is_some() {
            return false;
        }
        let is_private = matches!(spec.order, Order::Key | Order::Partition);
        is_private && !self.redrives.contains(&run) || self.is_durable()
    }

    /// Members of a stateful task are redriven: until everything is committed that comes of it, their run ships no state
    /// that somebody else may have written.
    fn note_redrives(&mut self, run: RunIx, redrives: bool) {
        if redrives {
            self.redrives.insert(run);
        } else if self.redrives.contains(&run) && self.is_durable() {
            let is_out = |out: &Out| out.run == run && out.redrives;
            if !self.slots.all().any(is_out) {
                self.redrives.remove(&run);
            }
        }
    }

    fn build(
        &self,
        view: DispatchView<'_>,
        version: &Version,
        token: Token,
        ships_state: bool,
    ) -> Built {
        let task = usize::from(view.task());
        let outline = &version.outline;
        let declared = &outline.tasks[task];
        let run = self.runs.get(&view.run()).map_or("", |run| &run.name);
        let mut builder = Builder {
            shard: self,
            version,
            run,
            gather: Gather::new(&self.buffers),
            lane_ids: Vec::new(),
            lanes: Vec::new(),
            events: Vec::new(),
            results: Vec::new(),
            arrivals: Vec::new(),
            findings: Findings::default(),
            left_out: false,
            retries: false,
            scopes: (view.order() == DispatchOrder::SkipSameScope).then(BTreeMap::new),
            stated: ships_state.then(Stated::default),
        };
        let members = view.members().enumerate();
        let mut members: Vec<Member> = members
            .map(|(index, member)| builder.member(index as u32, &member, view.task()))
            .collect();
        builder.place_states(&mut members);
        let dispatch = Dispatch {
            token,
            task: self.task_of(&view, version),
            order: match view.order() {
                DispatchOrder::Independent => OrderMode::Independent,
                DispatchOrder::StopOnFailure => OrderMode::StopOnFailure,
                DispatchOrder::SkipSameScope => OrderMode::SkipSameKey,
            },
            vectorised: version.dag.spec.tasks[task].batch.is_some(),
            slice: worker::limits::SLICE,
            timeout: declared.timeout,
            cwd: declared.cwd.clone(),
            nice: declared.nice,
            traced: self.tracing.is_on(),
            lanes: builder.lanes,
            upstream: declared
                .ships
                .iter()
                .map(|&up| outline.tasks[usize::from(up)].id.to_string())
                .collect(),
            members,
            events: builder.events,
            results: builder.results,
            buffers: builder.gather.finish(),
        };
        Built {
            dispatch,
            arrivals: builder.arrivals,
            findings: builder.findings,
            left_out: builder.left_out,
            retries: builder.retries,
        }
    }
}

/// A dispatch, and what has to be known of it.
struct Built {
    dispatch: Dispatch,
    arrivals: Vec<(u32, u64)>,
    findings: Findings,
    left_out: bool,
    retries: bool,
}

/// An event as a task reads it.
struct Seen {
    event: Event,
    arrived_us: u64,
    /// Why no task is to.
    rejected: Option<String>,
}

/// Collects the parts of one dispatch.
struct Builder<'a> {
    shard: &'a Shard,
    version: &'a Version,
    run: &'a str,
    gather: Gather<'a>,
    /// Which lane, which source, what the DAG says of it, if it has one, and whether it is read live.
    lane_ids: Vec<(LaneId, u16, Option<&'a SourceSpec>, bool)>,
    lanes: Vec<LaneRef>,
    events: Vec<Event>,
    results: Vec<UpstreamResult>,
    arrivals: Vec<(u32, u64)>,
    findings: Findings,
    left_out: bool,
    retries: bool,
    /// Numbers for the scopes in this dispatch, where the worker has to tell them apart.
    scopes: Option<BTreeMap<ScopeKey, u32>>,
    /// The state that goes along, if any does.
    stated: Option<Stated>,
}

/// State on its way with a dispatch.
#[derive(Default)]
struct Stated {
    /// Of these a member has it already; those behind it are to see what it will have written.
    scopes: BTreeSet<ScopeKey>,
    text: Vec<u8>,
}

impl Builder<'_> {
    fn member(&mut self, index: u32, member: &MemberView<'_>, task: u16) -> Member {
        let lane = self.lane_of(member);
        let (try_number, events) = (member.try_number(), member.events());
        self.retries |= try_number > 1;
        let declared = &self.version.outline.tasks[usize::from(task)];
        let source = self.lane_ids[usize::from(lane)].2;
        let round = member.round();
        let is_list = source.is_some_and(|source| source.batch.is_some());
        let (event, arrived_us, batch, mut rejected) = if is_list {
            self.list(lane, events, round)
        } else {
            let seen = events.first().map(|first| self.event(lane, first, round));
            let seen = seen.unwrap_or_else(|| Seen::nothing(lane, member.activation().position));
            (seen.event, seen.arrived_us, None, seen.rejected)
        };
        // Whoever asks for how long events wait does not mean old ones.
        let live = self.lane_ids[usize::from(lane)].3;
        let counts = live && declared.first && try_number == 1 && arrived_us > 0;
        let arrived_us = if counts { arrived_us } else { 0 };
        if self
            .arrivals
            .last()
            .map_or(counts, |&(_, last)| last != arrived_us)
        {
            self.arrivals.push((index, arrived_us));
        }
        for (upstream, &ship) in declared.ships.iter().enumerate() {
            self.result(index, upstream as u32, member, ship);
        }
        let joined = member.joined().map(|seen| {
            let (rows, against) = self.joined(&seen, round);
            rejected = rejected.take().or(against);
            rows
        });
        if let Some(why) = rejected {
            self.findings.rejected.push((index, why));
        }
        Member {
            event,
            // Of a join a task sees only what must have come before it (C3).
            has_event: source.is_some() && !events.is_empty(),
            batch,
            joined: joined.filter(|rows| !rows.is_empty()),
            try_number: u16::try_from(try_number).unwrap_or(u16::MAX),
            map_index: member.map_index(),
            scope: self.scope(member),
            state: self.state(member),
        }
    }

    /// All of the member's state, where it is the first of its scope here and that is not much. Its place is among
    /// the states until [`Builder::place_states`].
    fn state(&mut self, member: &MemberView<'_>) -> Option<Range> {
        let stated = self.stated.as_mut()?;
        let is_first = stated.scopes.insert(member.scope()?);
        let is_live = self
            .shard
            .lanes
            .get(&member.activation().lane)?
            .source
            .is_live();
        if !is_first || !is_live || stated.text.len() >= limits::STATE_BYTES_SHIPPED_MAX[1] {
            return None;
        }
        let run = member.activation().lane.run;
        let state = self.shard.machine.scope_state(run, &member.state_scope());
        let start = stated.text.len();
        stated.text.push(b'[');
        for (name, value) in state.into_iter().flatten() {
            if stated.text.len() > start + 1 {
                stated.text.push(b',');
            }
            let name = serde_json::Value::from(String::from_utf8_lossy(name));
            stated.text.extend_from_slice(name.to_string().as_bytes());
            stated.text.push(b',');
            stated.text.extend_from_slice(&state_json(value));
            if stated.text.len() - start > limits::STATE_BYTES_SHIPPED_MAX[0] {
                stated.text.truncate(start);
                return None;
            }
        }
        stated.text.push(b']');
        Some(Range {
            buffer: 0,
            start: start as u32,
            len: (stated.text.len() - start) as u32,
        })
    }

    /// Puts the states into one buffer, and says so in the members that have one.
    fn place_states(&mut self, members: &mut [Member]) {
        let Some(stated) = self.stated.take().filter(|stated| !stated.text.is_empty()) else {
            return;
        };
        let whole = self.gather.range(&Bytes::from(stated.text));
        for state in members
            .iter_mut()
            .filter_map(|member| member.state.as_mut())
        {
            state.buffer = whole.buffer;
            state.start += whole.start;
        }
    }

    /// The number of the member's scope, from 1; 0 if it is in no order.
    fn scope(&mut self, member: &MemberView<'_>) -> u32 {
        let (Some(scopes), Some(scope)) = (&mut self.scopes, member.scope()) else {
            return 0;
        };
        let next = scopes.len() as u32 + 1;
        *scopes.entry(scope).or_insert(next)
    }

    /// The place of the member's lane in this dispatch.
    fn lane_of(&mut self, member: &MemberView<'_>) -> u16 {
        let (outline, run) = (&self.version.outline, self.run);
        self.lane(member.activation().lane, member.source(), || {
            reference(
                run,
                outline,
                member.source(),
                member.lane_name(),
                member.incarnation(),
                member.key_generation(),
            )
        })
    }

    /// A lane's place in this dispatch.
    fn lane(&mut self, id: LaneId, source: u16, make: impl FnOnce() -> LaneRef) -> u16 {
        if let Some(index) = self.lane_ids.iter().rposition(|known| known.0 == id) {
            return index as u16;
        }
        let known = self.shard.lanes.get(&id);
        let live = known.is_none_or(|lane| lane.source.is_live());
        let reference = known.map(|lane| lane.reference.clone());
        self.lanes.push(reference.unwrap_or_else(make));
        let sources = &self.version.dag.spec.sources;
        let spec = sources.get(usize::from(source));
        self.lane_ids.push((id, source, spec, live));
        self.lane_ids.len() as u16 - 1
    }

    /// Lists the events that a task sees of several sources.
    fn joined(
        &mut self,
        seen: &[(u16, LaneId, &command::Event)],
        round: u32,
    ) -> (std::ops::Range<u32>, Option<String>) {
        let start = self.events.len() as u32;
        let mut rejected = None;
        for &(source, id, event) in seen {
            let (shard, run, outline) = (self.shard, self.run, &self.version.outline);
            let lane = self.lane(id, source, || {
                let mut lanes = shard.machine.lanes(id.run);
                let known = lanes.find(|lane| lane.lane == id);
                let known = known.expect("an event that is bound came from a lane");
                reference(
                    run,
                    outline,
                    source,
                    &known.name,
                    &known.incarnation,
                    known.key_generation,
                )
            });
            let seen = self.event(lane, event, round);
            self.events.push(seen.event);
            rejected = rejected.or(seen.rejected);
        }
        (start..self.events.len() as u32, rejected)
    }

    fn event(&mut self, lane: u16, event: &command::Event, round: u32) -> Seen {
        let parts = Parts::read(&event.body);
        let (new, rejected) = match parts.standing {
            Standing::Fit => (None, None),
            _ => self.judge(lane, event, round),
        };
        let whole = self.gather.range(&event.body);
        let part = |(start, len): (u32, u32)| Range {
            buffer: whole.buffer,
            start: whole.start + start,
            len,
        };
        let read = Event {
            lane,
            position: event.position,
            id: None,
            timestamp_ms: (parts.timestamp_ms != NO_TIMESTAMP).then_some(parts.timestamp_ms),
            key: parts.key.map(part),
            value: match new {
                Some(new) => Some(self.gather.range(&new)),
                None => parts.value.map(part),
            },
            headers: parts.headers.map(part),
        };
        Seen {
            event: read,
            arrived_us: parts.arrived_us,
            rejected,
        }
    }

    /// The value that took the place of the event's own, or why no task is to read it.
    fn judge(
        &mut self,
        lane: u16,
        event: &command::Event,
        round: u32,
    ) -> (Option<Bytes>, Option<String>) {
        let (id, source, ..) = self.lane_ids[usize::from(lane)];
        let known = self.shard.lanes.get(&id).map(|lane| lane.source);
        let known = known.filter(|key| key.is_live());
        let key = known.unwrap_or_else(|| self.shard.key_at(id.run, source));
        match self.shard.judge_now(key, event, round) {
            Now::Fit => (None, None),
            Now::Is(value) => (Some(value), None),
            Now::Rejected(why) => (None, Some(why)),
            Now::Open(open) => {
                self.findings.open.push(open);
                (None, None)
            }
        }
    }

    /// Lists the events of a batch of a source without those that no task is to read. When that is all
    /// of them, the last part says why.
    fn list(
        &mut self,
        lane: u16,
        events: &[command::Event],
        round: u32,
    ) -> (Event, u64, Option<std::ops::Range<u32>>, Option<String>) {
        let start = self.events.len() as u32;
        let (mut first, mut against) = (None, None);
        for event in events {
            let seen = self.event(lane, event, round);
            if seen.rejected.is_some() {
                against = seen.rejected;
                continue;
            }
            first.get_or_insert((seen.event, seen.arrived_us));
            self.events.push(seen.event);
        }
        let listed = Some(start..self.events.len() as u32);
        let Some((event, arrived_us)) = first else {
            let position = events.first().map_or(0, |event| event.position);
            return (blank_event(lane, position), 0, listed, against);
        };
        self.left_out |= against.is_some();
        (event, arrived_us, listed, None)
    }

    /// Ships the result of an upstream task, if it has one.
    fn result(&mut self, member: u32, upstream: u32, view: &MemberView<'_>, task: u16) {
        let mapped = self.version.dag.spec.tasks[usize::from(task)]
            .mapped
            .is_some();
        let value = if mapped {
            let all = view.results(task);
            if all.is_empty() {
                return;
            }
            Some(json_list(
                all.into_iter()
                    .map(|kept| outcome::returned(&self.shard.whole(kept?))),
            ))
        } else {
            match view.result(task) {
                None => return,
                Some(kept) => outcome::returned(&self.shard.whole(kept)),
            }
        };
        let value = value
            .filter(|value| !value.is_empty())
            .map(|value| self.gather.range(&value));
        self.results.push(UpstreamResult {
            member,
            upstream,
            value,
        });
    }
}

impl Seen {
    const fn nothing(lane: u16, position: u64) -> Self {
        Self {
            event: blank_event(lane, position),
            arrived_us: 0,
            rejected: None,
        }
    }
}

const fn blank_event(lane: u16, position: u64) -> Event {
    Event {
        lane,
        position,
        id: None,
        timestamp_ms: None,
        key: None,
        value: None,
        headers: None,
    }
}

/// A JSON list of values that are JSON; an absent one is null.
pub(crate) fn json_list(values: impl Iterator<Item = Option<Bytes>>) -> Bytes {
    let mut text = vec![b'['];
    for (index, value) in values.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(value.as_deref().unwrap_or(b"null"));
    }
    text.push(b']');
    Bytes::from(text)
}
