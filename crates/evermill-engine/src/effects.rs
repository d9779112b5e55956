//! Performs what was decided, once it is durable, in order.

use evermill_contract::source::LaneName;
use evermill_core::command::{Command, Effect, LaneId, RunIx, RunState};

use crate::failpoint::fp;
use crate::groups::{After, Group};
use crate::input::SourceKey;
use crate::lanes::{Lane, reference};
use crate::manifest::Outline;
use crate::shard::{RunSlot, Shard};
use crate::slots;

impl Shard {
    /// Performs every group that is durable with all before it.
    pub(crate) fn perform_durable(&mut self) {
        while let Some(group) = self.groups.pop_durable() {
            fp!("effects.begin");
            self.perform(group);
            fp!("effects.done");
        }
    }

    fn perform(&mut self, group: Group) {
        self.view_stale = true;
        self.machine.committed(group.sealed);
        for (run, state, counters) in group.runs {
            if let Some(slot) = self.runs.get_mut(&run) {
                (slot.counters, slot.state) = (counters, state);
            }
        }
        for after in group.after {
            match after {
                After::Effect(effect) => self.effect(effect),
                After::Answer(slot, call, answer) => {
                    fp!("answer.sent");
                    self.executor.answer(slot, call, answer);
                }
                After::View(reply) => self.viewers.push(reply),
                After::Do(task) => task(self),
            }
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::LaneOpen {
                lane,
                source,
                name,
                position,
            } => self.lane_open(lane, source, &name, position),
            Effect::Credit { lane, open } if self.feeds.contains_key(&lane) => {
                if open {
                    self.feed(lane);
                }
            }
            Effect::Credit { lane, open } => {
                if let Some((name, listening)) = self.reader_of(lane) {
                    listening.mailbox.credit(name, open);
                }
            }
            Effect::Dispatch { id, .. } => {
                fp!("effects.dispatch");
                self.send(id);
            }
            Effect::Recall(id) => self.executor.recall(slots::pack(self.machine.fence(), id)),
            Effect::Ack { lane, position } => self.acknowledge(lane, position),
            Effect::LaneClose(lane) => self.leave_replay_lane(lane),
            Effect::RunState { run, state } => self.run_state(run, state),
            Effect::DeadlineMissed { run, count, missed } => {
                self.count_missed(run, count, &missed);
            }
        }
    }

    /// The first position is durable: the source may start (C7).
    fn lane_open(&mut self, id: LaneId, source: u16, name: &str, position: u64) {
        fp!("effects.lane_open");
        let name = LaneName::from(name);
        let known = self.machine.lanes(id.run).find(|lane| lane.lane == id);
        let (Some(known), Some(run), Some(outline)) =
            (known, self.runs.get(&id.run), self.outline_of(id.run))
        else {
            return;
        };
        let key = match known.replay {
            None => self.key_at(id.run, source),
            Some(_) => SourceKey::of_replay(id.run, known.generation),
        };
        let listening = self.listening.get(&key);
        let looped = listening.is_some_and(|listening| listening.looped);
        let session = self.lanes.get(&id).map_or(0, |lane| lane.session);
        let lane = Lane {
            source: key,
            reference: reference(
                &run.name,
                outline,
                source,
                name.as_str(),
                &known.incarnation,
                known.key_generation,
            ),
            name: name.clone(),
            incarnation: known.incarnation,
            session,
            was_caught_up: looped,
            caught_up: looped,
            behind: None,
            lag_since: None,
            stopped: None,
            shared: false,
            taken: false,
            position,
            unsettled: crate::ack::Unsettled::default(),
        };
        let before = self.lanes.insert(id, lane);
        if !key.is_live() {
            return self.replay_lane_open(key, id, &name, position);
        }
        if let Some(before) = before.filter(|before| before.source != key) {
            // Who read it for a version before may have nothing left to wait for.
            self.part_with(before.source);
        }
        let inbox = self.inbox_of(key);
        let listening = self.listening.get_mut(&key);
        let found = listening.map(|listening| listening.found.get_mut(&name));
        match found {
            // Nobody listens to it: a lane of a DAG that is triggered by hand.
            None => {}
            Some(Some(found)) => {
                found.lane = Some(id);
                let shared = found.shared;
                if let Some(lane) = self.lanes.get_mut(&id) {
                    lane.shared = shared;
                }
            }
            // It was taken while its first position was on its way to disk.
            Some(None) => return self.apply(Command::CloseLane { lane: id }),
        }
        match inbox {
            Some(number) => self.attach(id, number, (known.low, position)),
            None if looped => {}
            None => self.restart_lane(id, position),
        }
        // It may be read on from further than what is settled.
        let low = self.machine.lanes(id.run).find(|lane| lane.lane == id);
        if let (Some(low), Some(lane)) = (low, self.lanes.get_mut(&id)) {
            lane.position = lane.position.min(low.low);
        }
    }

    fn acknowledge(&mut self, id: LaneId, position: u64) {
        fp!("effects.ack");
        let now_us = self.world.clock.now_us();
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let moved = position > lane.position;
        lane.position = position;
        let source = lane.source;
        if let Some(run) = self.runs.get_mut(&id.run) {
            lane.unsettled.settled(position, now_us, &mut run.commit);
        }
        if self.feeds.contains_key(&id) {
            self.settle_inbox(id, position);
            self.feed(id);
        } else if let Some(listening) = self.listening.get(&lane.source)
            && lane.source.is_live()
        {
            let name = lane.name.clone();
            listening.mailbox.ack(name, position, lane.shared);
        }
        if moved {
            self.note_progress(source);
        }
        self.hand_on(id);
        if let Some(source) = self.lanes.get(&id).map(|lane| lane.source) {
            self.part_with(source);
        }
    }

    /// Sabotage: the source hears of a position that is not durable yet.
    pub(crate) fn ack_early(&self, after: &After) {
        if let After::Effect(Effect::Ack { lane, position }) = after
            && let Some((name, listening)) = self.reader_of(*lane)
        {
            listening.mailbox.ack(name, *position, false);
        }
    }

    fn run_state(&mut self, run: RunIx, state: RunState) {
        if let Some(slot) = self.runs.get_mut(&run) {
            slot.state = state;
        }
        match state {
            RunState::Running | RunState::Paused => {}
            RunState::Draining => self.hush_sources(Some(run)),
            _ => self.close_sources(Some(run)),
        }
        if crate::requests::is_over(state) {
            self.find_hearers();
        }
    }

    pub(crate) fn reader_of(&self, lane: LaneId) -> Option<(LaneName, &crate::lanes::Listening)> {
        let lane = self.lanes.get(&lane)?;
        Some((lane.name.clone(), self.listening.get(&lane.source)?))
    }

    /// The outline of the version new activations of a run use.
    pub(crate) fn outline_of(&self, run: RunIx) -> Option<&Outline> {
        let version = &self.runs.get(&run)?.version;
        Some(&self.versions.get(version)?.outline)
    }

    /// Takes a machine that was just resumed: its effects are durable already.
    pub(crate) fn adopt(&mut self, effects: Vec<Effect>) {
        let runs: Vec<_> = self.machine.runs().collect();
        // A run whose first commit failed never was.
        self.runs
            .retain(|run, _| runs.iter().any(|view| view.run == *run));
        for view in runs {
            self.note_run(&view);
            if let Some(slot) = self.runs.get_mut(&view.run) {
                slot.sealed = None;
            }
        }
        for effect in effects {
            self.effect(effect);
        }
        self.apply(Command::Capacity {
            slots: self.slots.capacity(),
        });
    }

    /// Makes or refreshes the engine's side of a run.
    pub(crate) fn note_run(&mut self, view: &evermill_core::RunView) {
        let slot = self.runs.entry(view.run).or_insert_with(|| RunSlot {
            started: false,
            dag: view.dag.as_str().into(),
            name: view.name.as_str().into(),
            version: String::new(),
            state: view.state,
            counters: view.counters,
            sealed: None,
            parked_unsaid: 0,
            parked_said: None,
            latency: crate::histogram::Histogram::default(),
            commit: crate::histogram::Histogram::default(),
            tally: crate::tally::Tally::default(),
            attempts: crate::attempts::Attempts::default(),
            deadlines_missed: view.deadlines_missed,
            misses: std::collections::VecDeque::new(),
        });
        slot.version.clone_from(&view.version);
        slot.state = view.state;
        slot.counters = view.counters;
    }
}
