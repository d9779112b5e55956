//! The engine's side of lanes: who reads them, from where, in which session.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use evermill_contract::identity::LaneIdentity;
use evermill_contract::source::{Gate, LaneName};
use evermill_contract::worker::LaneRef;
use evermill_core::command::LaneId;

use crate::ack::Unsettled;
use crate::freshness::Progress;
use crate::input::{First, SourceKey};
use crate::manifest::Outline;
use crate::orders::{Mailbox, StartLane};
use crate::receipts::Receipts;
use crate::receiving::Desk;
use crate::stall::Watched;

/// A source that is being listened to, as the shard sees it.
pub(crate) struct Listening {
    /// The source's id.
    pub(crate) id: String,
    /// Whether the run's version still has it.
    pub(crate) parting: Parting,
    pub(crate) mailbox: Arc<Mailbox>,
    /// One lies here for each batch sent; taken out when the batch is sealed.
    pub(crate) permits: Receiver<()>,
    /// Batches applied and not sealed yet.
    pub(crate) applied: usize,
    /// Number of its inbox, if its events cannot be read again.
    pub(crate) inbox: Option<u32>,
    /// Where a thread that receives for the inbox hears of things.
    pub(crate) receives: Option<Arc<Desk>>,
    /// What that waits for, if it wants to hear of outcomes.
    pub(crate) receipts: Option<Receipts>,
    /// Which session of it: deliveries of earlier ones were lost with a commit.
    pub(crate) session: u32,
    /// The outside world of an inbox has answered since the start.
    pub(crate) answered: bool,
    /// The machine itself makes its events.
    pub(crate) looped: bool,
    /// Nothing more is to be handed over.
    pub(crate) hushed: bool,
    /// Lanes it found, by name.
    pub(crate) found: BTreeMap<LaneName, Found>,
    /// First positions of all lanes found are known.
    pub(crate) resolved: bool,
    /// A lane goes on behind what can no longer be read.
    pub(crate) passes_gaps: bool,
    /// Judges what was edited or is tried again.
    pub(crate) gate: Option<Arc<dyn Gate>>,
    pub(crate) degraded: Option<String>,
    /// It is to make progress at least that often.
    pub(crate) freshness_ms: Option<u64>,
    pub(crate) progress: Progress,
    /// Its thread, where it is watched.
    pub(crate) watched: Option<Watched>,
    /// Its run waits for others: why.
    pub(crate) held_up: Option<String>,
    /// It delivers nothing any more; why, unless it was told to close.
    pub(crate) ended: Option<Option<String>>,
}

/// How far a source is on its way out (W16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The run's version has it.
    No,
    /// The swap is on its way to disk.
    Asked,
    /// It is durable; what was delivered settles.
    Agreed,
}

/// A lane as the source reported it.
pub(crate) struct Found {
    pub(crate) incarnation: String,
    pub(crate) first: First,
    pub(crate) shared: bool,
    /// Known once its first position is committed.
    pub(crate) lane: Option<LaneId>,
}

/// A lane with a committed position.
pub(crate) struct Lane {
    pub(crate) source: SourceKey,
    pub(crate) name: LaneName,
    pub(crate) incarnation: String,
    /// What members of this lane carry to the worker.
    pub(crate) reference: LaneRef,
    /// Counts starts; batches of earlier ones are dropped.
    pub(crate) session: u32,
    /// It was read up to its end at least once in this boot.
    pub(crate) was_caught_up: bool,
    /// Nothing was delivered since it was read up to its end.
    pub(crate) caught_up: bool,
    pub(crate) behind: Option<u64>,
    /// Since when nothing came although something is unread, and how much it was then.
    pub(crate) lag_since: Option<(u64, u64)>,
    pub(crate) stopped: Option<String>,
    /// Other readers go on from what we acknowledge.
    pub(crate) shared: bool,
    /// It was taken, and is handed on once nothing of it is under way.
    pub(crate) taken: bool,
    /// Last committed position.
    pub(crate) position: u64,
    pub(crate) unsettled: Unsettled,
}

impl Listening {
    /// One of whose lanes nothing is known yet.
    pub(crate) fn new(mailbox: Arc<Mailbox>, permits: Receiver<()>) -> Self {
        Self {
            id: String::new(),
            parting: Parting::No,
            mailbox,
            permits,
            applied: 0,
            inbox: None,
            receives: None,
            receipts: None,
            session: 0,
            answered: false,
            looped: false,
            hushed: false,
            found: BTreeMap::new(),
            resolved: false,
            passes_gaps: false,
            gate: None,
            degraded: None,
            freshness_ms: None,
            progress: Progress::default(),
            watched: None,
            held_up: None,
            ended: None,
        }
    }

    /// One that is read from an inbox: its lane is known from the start.
    pub(crate) fn of_inbox() -> Self {
        Self {
            resolved: true,
            ..Self::new(Arc::default(), crossbeam_channel::never())
        }
    }

    /// One whose events are brought to us: there is nothing to wait for.
    pub(crate) fn answered() -> Self {
        Self {
            answered: true,
            ..Self::of_inbox()
        }
    }

    /// See [`Listening::receives`].
    pub(crate) fn desk(&self) -> Option<&Desk> {
        self.receives.as_deref()
    }
}

impl Lane {
    /// Where the source is to start, in a session of its own.
    pub(crate) fn restart(&mut self, lane: LaneId, from: u64) -> StartLane {
        self.session += 1;
        self.caught_up = false;
        self.stopped = None;
        self.taken = false;
        self.position = from;
        self.unsettled.clear();
        StartLane {
            lane,
            from,
            incarnation: self.incarnation.clone(),
            session: self.session,
        }
    }
}

/// What a dispatch carries for a lane, once.
pub(crate) fn reference(
    run: &str,
    outline: &Outline,
    source: u16,
    name: &str,
    incarnation: &str,
    generation: u32,
) -> LaneRef {
    let declared = outline.sources.get(usize::from(source));
    let id = declared.map_or(crate::MANUAL, |source| &source.id);
    // The lane's name is part of what a re-created lane does not share (C1).
    let incarnation = format!("{name}\n{incarnation}");
    LaneRef {
        identity: Bytes::copy_from_slice(LaneIdentity::new(run, id, &incarnation).as_bytes()),
        kind: declared.map_or(evermill_contract::identity::IdKind::Iteration, |source| {
            source.ids
        }),
        generation,
        source: id.to_owned(),
        lane: name.to_owned(),
    }
}
