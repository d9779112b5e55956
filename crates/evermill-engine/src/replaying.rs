//! The shard's side of replays: who reads them, and when that ends (W18).
//!
//! Each replay has readers of its own, one per source, opened beside the live one: so the live one
//! never stands still for it, and neither does its position move.
//!
//! ```text
//! LaneOpen -> no reader yet: one is opened -> it finds the lane -> read from where the machine stands
//! LaneClose -> no other lane of it is read: the reader is closed -> gone
//! LaneOpen while the old reader is still letting go -> opened again once it has
//! ```

use std::sync::Arc;

use crossbeam_channel::bounded;
use evermill_contract::manifest::{Catchup, SourceConfig, SourceManifest};
use evermill_contract::source::{FirstPosition, LaneName, Opened};
use evermill_core::command::{Command, LaneId, RunIx};

use crate::gate::Keeper;
use crate::handle::EngineError;
use crate::ingest::Ingest;
use crate::input::{First, FoundLane, LastWord, SourceKey};
use crate::lanes::{Found, Listening};
use crate::limits;
use crate::notice::late_name;
use crate::orders::Mailbox;
use crate::payload::Held;
use crate::prepare::request_for;
use crate::replay::{Again, ReplayOrder, moved, refuse};
use crate::shard::Shard;
use crate::sources::{spawn, ungated};
use crate::stall::Line;
use crate::view::ReplayView;

impl Shard {
    /// A replay's lane is to be read from here on.
    pub(crate) fn replay_lane_open(
        &mut self,
        key: SourceKey,
        id: LaneId,
        name: &LaneName,
        position: u64,
    ) {
        let Some(listening) = self.listening.get_mut(&key) else {
            return self.reread(key);
        };
        if listening.ended.is_some() {
            self.listening.remove(&key);
            return self.reread(key);
        }
        // One that is letting go is opened again afterwards.
        if listening.hushed {
            return;
        }
        if let Some(found) = listening.found.get_mut(name) {
            found.lane = Some(id);
            // It was closed if another stretch of the lane has just been read.
            listening.mailbox.credit(name.clone(), true);
            self.restart_lane(id, position);
        }
    }

    /// The reader of a replay has found a lane.
    pub(crate) fn replay_lane_found(&mut self, key: SourceKey, lane: FoundLane) {
        let wanted = self.machine.lanes(key.run).find(|view| {
            let replay = view.replay.is_some() && view.generation == key.replay;
            replay && view.open && view.name == lane.name.as_str()
        });
        let wanted = wanted.map(|view| (view.lane, view.read));
        let Some(listening) = self.listening.get_mut(&key) else {
            return;
        };
        let found = Found {
            incarnation: lane.incarnation,
            first: First::Held,
            shared: false,
            lane: wanted.map(|(id, _)| id),
        };
        listening.found.insert(lane.name, found);
        if let Some((id, read)) = wanted {
            self.restart_lane(id, read);
        }
    }

    /// All that a replay's lane held at this moment was handed over, up to here.
    pub(crate) fn replay_caught_up(&mut self, id: LaneId, end: u64) {
        let known = self.machine.lanes(id.run).find(|lane| lane.lane == id);
        let until = known.and_then(|lane| lane.replay).map(|it| it.until);
        if until.is_some_and(|until| until <= end) {
            self.apply(Command::ReplayRead { lane: id });
        }
    }

    /// Nobody is to read this lane any more.
    pub(crate) fn leave_replay_lane(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let (key, name) = (lane.source, lane.name.clone());
        let read_on = self.is_read(key);
        if let Some(listening) = self.listening.get_mut(&key) {
            listening.mailbox.credit(name, false);
            if !read_on {
                listening.hushed = true;
                listening.mailbox.close();
            }
        }
    }

    /// A reader has let go: it is opened again if a lane was asked for meanwhile.
    pub(crate) fn reread_if_wanted(&mut self, key: SourceKey) {
        if self.is_read(key) {
            self.reread(key);
        }
    }

    fn is_read(&self, key: SourceKey) -> bool {
        let mut lanes = self.machine.lanes(key.run);
        lanes.any(|lane| lane.replay.is_some() && lane.generation == key.replay && lane.open)
    }

    /// Opens a reader for a replay, on a thread of its own.
    fn reread(&mut self, key: SourceKey) {
        let version = self.runs.get(&key.run).map(|run| &run.version);
        let Some(version) = version.and_then(|version| self.versions.get(version)) else {
            return;
        };
        let manifest = Arc::clone(&version.manifest);
        let keys = version.outline.keys;
        let mut lanes = self.machine.lanes(key.run);
        let id = lanes.find(|lane| lane.replay.is_some() && lane.generation == key.replay);
        let id = id.map(|lane| lane.source_id).unwrap_or_default();
        let declared = &manifest.dags[0];
        let Some(source) = declared.sources.iter().find(|source| source.id == id) else {
            return;
        };
        let source = read_apart(source);
        let run = late_name(self.run_subject(key.run).run);
        let (make, notices) = (
            Arc::clone(&self.world.sources),
            Arc::clone(&self.world.notices),
        );
        let (permits, taken) = bounded(limits::BATCHES_QUEUED_PER_SOURCE);
        let mailbox = Arc::new(Mailbox::default());
        let orders = Arc::clone(&mailbox);
        let line = Line::new(self.world.input.clone());
        let clock = self.world.clock.clone();
        let ended = spawn(key, move || {
            let made = make(request_for(&manifest.dags[0], &source, &notices, &run)).map(ungated);
            let why = match made {
                Ok((Opened::Log(source), gate)) => {
                    let ingest = Ingest {
                        key,
                        source,
                        first: FirstPosition::Earliest,
                        held_lanes: std::collections::BTreeSet::new(),
                        again: true,
                        keys,
                        // Whoever sees it stand still pauses it and lets it go on.
                        line,
                        pulse: Arc::default(),
                        mailbox: orders,
                        permits,
                        held: Arc::new(Held::default()),
                        clock,
                        keeper: Keeper::new(gate),
                    };
                    return ingest.run();
                }
                Ok(_) => "it is not read from a log".to_owned(),
                Err(why) => why,
            };
            LastWord::new(key, line).end = Some(why);
        });
        let listening = Listening {
            ended,
            id,
            ..Listening::new(mailbox, taken)
        };
        self.listening.insert(key, listening);
    }

    /// Whether a replay of a run is still to be read, by somebody who reads.
    pub(crate) fn replays_read_on(&self, run: RunIx) -> bool {
        let mut replays = self.machine.replays_under_way(run);
        replays.any(|replay| {
            let key = SourceKey::of_replay(run, replay);
            let listening = self.listening.get(&key);
            let reads = listening.is_none_or(|listening| listening.ended.is_none());
            let mut lanes = self.lanes.values().filter(|lane| lane.source == key);
            reads && lanes.all(|lane| lane.stopped.is_none())
        })
    }

    /// Replays that have not come to their end, with what keeps them.
    pub(crate) fn open_replays(&self, run: RunIx) -> Vec<ReplayView> {
        if !self.machine.has_open_replays(run) {
            return Vec::new();
        }
        let Some(view) = self.machine.run(run) else {
            return Vec::new();
        };
        let mut replays = self.books().replays(&view, false);
        for replay in &mut replays {
            let of_it =
                |key: &SourceKey| key.run == run && !key.is_live() && key.replay == replay.replay;
            let mut readers = self.listening_of(run).filter(|(key, _)| of_it(key));
            let trouble = readers.find_map(|(_, listening)| {
                let ended = listening.ended.clone().flatten();
                ended.or_else(|| listening.degraded.clone())
            });
            let mut lanes = self.lanes.values().filter(|lane| of_it(&lane.source));
            replay.trouble = trouble.or_else(|| lanes.find_map(|lane| lane.stopped.clone()));
        }
        replays
    }

    /// The command for it, and the number it will have.
    pub(crate) fn may_replay(&self, again: &Again) -> Result<(Command, Option<u32>), EngineError> {
        let slot = self.runs.get(&again.run);
        if let Some(slot) = slot.filter(|slot| !slot.started) {
            return refuse(format!(
                "run '{}' is not switched on in this engine: ask again once it is, or when no engine runs",
                slot.name
            ));
        }
        self.books().may_replay(again)
    }

    pub(crate) fn steer_replay(
        &mut self,
        run: &str,
        replay: u32,
        order: ReplayOrder,
    ) -> Result<(), EngineError> {
        let found = self.books().find(run)?;
        let Some(command) = self.books().may_steer(&found, replay, order)? else {
            return Ok(());
        };
        let run = found.run;
        for lane in self.lanes.values_mut() {
            if lane.source.run == run && lane.source.replay == replay && replay > 0 {
                // What its reader has on its way was read for nothing.
                lane.session += 1;
            }
        }
        self.apply(command);
        Ok(())
    }

    /// Moves live positions.
    pub(crate) fn reset(
        &mut self,
        run: &str,
        moves: &[(LaneId, u64)],
        by: &str,
    ) -> Result<(), EngineError> {
        let found = self.books().find(run)?;
        self.books().may_reset(&found, moves)?;
        for &(lane, to) in moves {
            if let Some(known) = self.lanes.get_mut(&lane) {
                known.session += 1;
            }
            self.apply(moved(lane, to, by));
        }
        Ok(())
    }
}

/// A source as somebody declares it who only reads: it tells no group and takes part in none, and it
/// passes over nothing.
pub(crate) fn read_apart(source: &SourceManifest) -> SourceManifest {
    let mut source = source.clone();
    match &mut source.config {
        SourceConfig::Kafka(kafka) => {
            kafka.group_id = None;
            kafka.from_group = None;
            kafka.membership = false;
        }
        SourceConfig::Cron(cron) => cron.catchup = Catchup::All,
        SourceConfig::Every(every) => every.catchup = Catchup::All,
        _ => {}
    }
    source
}
