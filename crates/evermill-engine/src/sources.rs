//! What sources report, on its way to the machine; and the threads they report from.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::bounded;
use evermill_contract::source::{LaneName, Severity};
use evermill_core::command::{Command, LaneId, RunIx};

use crate::failpoint::fp;
use crate::groups::After;
use crate::ingest::Ingest;
use crate::input::{SourceInput, SourceKey};
use crate::lanes::{Found, Listening};
use crate::limits;
use crate::orders::Mailbox;
use crate::payload::{Held, Packed};
use crate::prepare::PreparedSource;
use crate::shard::Shard;

impl Shard {
    /// Starts the threads of a run's sources.
    pub(crate) fn listen(&mut self, run: RunIx, sources: Vec<PreparedSource>, passes_gaps: bool) {
        let keys = self
            .outline_of(run)
            .map_or(crate::payload::Keys::Unused, |outline| outline.keys);
        for (index, prepared) in sources.into_iter().enumerate() {
            let key = SourceKey {
                run,
                source: index as u16,
            };
            let (permits, taken) = bounded(limits::BATCHES_QUEUED_PER_SOURCE);
            let mailbox = Arc::new(Mailbox::default());
            let ingest = Ingest {
                key,
                source: prepared.source,
                first: prepared.first,
                keys,
                input: self.world.input.clone(),
                mailbox: Arc::clone(&mailbox),
                permits,
                held: Arc::new(Held::default()),
                clock: self.world.clock.clone(),
            };
            let name = format!("source-{run}-{index}");
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || ingest.run());
            let ended = thread
                .err()
                .map(|cause| Some(format!("the system gives no thread: {cause}")));
            let listening = Listening {
                mailbox,
                permits: taken,
                applied: 0,
                found: BTreeMap::new(),
                resolved: false,
                passes_gaps,
                degraded: None,
                ended,
            };
            self.listening.insert(key, listening);
        }
    }

    pub(crate) fn source(&mut self, key: SourceKey, input: SourceInput) {
        self.view_stale = true;
        match input {
            SourceInput::Lane {
                name,
                incarnation,
                first,
            } => self.lane_found(key, name, incarnation, first),
            SourceInput::Batch {
                lane,
                session,
                packed,
            } => self.batch(key, lane, session, packed),
            SourceInput::CaughtUp { lane, session, .. } => self.caught_up(lane, session),
            SourceInput::Lag { lane, behind } => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.behind = Some(behind);
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
            other => self.source_state(key, other),
        }
    }

    fn source_state(&mut self, key: SourceKey, input: SourceInput) {
        let who = self.source_name(key);
        let Some(listening) = self.listening.get_mut(&key) else {
            return;
        };
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
                listening.degraded = Some(reason);
                Some((Severity::Warning, text))
            }
            SourceInput::Recovered => {
                listening.degraded = None;
                Some((Severity::Info, format!("{who}: all is well again")))
            }
            SourceInput::Ended(why) => {
                let text = why
                    .as_ref()
                    .map(|why| (Severity::Error, format!("{who} has ended: {why}")));
                listening.ended = Some(why);
                text
            }
            _ => None,
        };
        if let Some((severity, text)) = told {
            self.notice(severity, &text);
        }
    }

    fn lane_found(&mut self, key: SourceKey, name: LaneName, incarnation: String, first: u64) {
        fp!("shard.lane_found");
        let Some(listening) = self.listening.get_mut(&key) else {
            return;
        };
        let found = Found {
            incarnation,
            first,
            lane: None,
        };
        listening.found.insert(name.clone(), found);
        self.open_lane(key, &name);
    }

    /// Tells the machine of a lane; `Effect::LaneOpen` follows the commit (C7).
    pub(crate) fn open_lane(&mut self, key: SourceKey, name: &LaneName) {
        let found = self
            .listening
            .get(&key)
            .and_then(|listening| listening.found.get(name));
        let Some(found) = found else { return };
        self.apply(Command::OpenLane {
            run: key.run,
            source: key.source,
            name: name.as_str().to_owned(),
            incarnation: found.incarnation.clone(),
            first: found.first,
        });
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
        known.unsettled.arrived(&packed.events, packed.arrived_us);
        self.buffers.add(packed.origin);
        self.apply(Command::Ingest {
            lane,
            events: packed.events,
        });
        fp!("shard.batch_applied");
    }

    fn caught_up(&mut self, lane: LaneId, session: u32) {
        let known = self
            .lanes
            .get_mut(&lane)
            .filter(|known| known.session == session);
        let Some(known) = known else { return };
        let news = !known.caught_up;
        known.caught_up = true;
        known.was_caught_up = true;
        known.behind = Some(0);
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
        let passes = self
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
        self.notice(Severity::Error, &text);
        if !passes {
            return;
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
        self.notice(Severity::Error, &text);
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
    pub(crate) fn hush_sources(&self, run: Option<RunIx>) {
        let of_run = |key: &SourceKey| run.is_none_or(|run| run == key.run);
        for (_, listening) in self.listening.iter().filter(|(key, _)| of_run(key)) {
            for name in listening.found.keys() {
                listening.mailbox.credit(name.clone(), false);
            }
        }
    }

    /// Stops the sources of a run, or of all runs.
    pub(crate) fn close_sources(&self, run: Option<RunIx>) {
        let of_run = |key: &SourceKey| run.is_none_or(|run| run == key.run);
        for (_, listening) in self.listening.iter().filter(|(key, _)| of_run(key)) {
            listening.mailbox.close();
        }
    }

    fn source_name(&self, key: SourceKey) -> String {
        let outline = self.outline_of(key.run);
        let id = outline.and_then(|outline| outline.sources.get(usize::from(key.source)));
        match (outline, id) {
            (Some(outline), Some(source)) => format!("{}: source '{}'", outline.dag, source.id),
            _ => format!("source {}", key.source),
        }
    }
}
