//! History (S1, S4): what is remembered of single activations once they have settled.
//!
//! A settled wave leaves exact counters for all of its members. Beside them a full row stays of each
//! that failed, was retried or was redriven, of as many others as the budget allows, and of every
//! one when the DAG asks for it. The machine never reads any of it.

use bytes::Bytes;

use crate::bits::{self, Mask};
use crate::codec::{DecodeError, Reader, Writer};
use crate::command::{Event, LaneId, Ms};
use crate::dag::{TaskKind, TaskSpec};
use crate::dispatch::Dispatch;
use crate::limits;
use crate::machine::Machine;
use crate::wave::{Row, Wave};

/// Layout of the body of a history row.
const HISTORY_FORMAT: u8 = 1;

/// How an activation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// No leaf failed, and not every leaf was skipped.
    Done,
    /// Every leaf was skipped.
    Skipped,
    /// It failed and is kept (W10).
    Parked,
    /// It failed and is counted only (W10).
    Dropped,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// It succeeded.
    Success,
    /// It failed for good.
    Failed,
    /// A rule, a branch, a short circuit or the task itself skipped it.
    Skipped,
    /// Something above it failed.
    UpstreamFailed,
}

/// A task of an activation that has settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEnd {
    /// Index into `DagSpec::tasks`.
    pub task: u16,
    /// How it ended; of a mapped task, the worst of its instances.
    pub state: TaskState,
    /// Attempts that ended; 0 if none was made. Of a mapped task, of all instances.
    pub tries: u32,
    /// Instances of a mapped task; `None` if it is not mapped or was never expanded.
    pub instances: Option<u32>,
    /// When it was first sent to a worker and when it ended, milliseconds since the Unix epoch. Known
    /// when it happened in one stretch, in a small wave.
    pub times: Option<(Ms, Ms)>,
    /// What it returned, unless that is too long to be kept.
    pub result: Option<Bytes>,
    /// Its last error.
    pub error: Option<Bytes>,
}

/// An event of an activation that has settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastEvent {
    /// The lane it was read from; a join has events of several.
    pub lane: u32,
    /// Its position there.
    pub position: u64,
    /// Hash of its key.
    pub key: u128,
    /// When it arrived, milliseconds since the Unix epoch.
    pub arrived_ms: Ms,
    /// As the connector laid it out, unless that is too long to be kept.
    pub body: Option<Bytes>,
}

/// A full row: one activation that has settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its lane: activations released from rows of their own settle beside those of other lanes.
    pub lane: u32,
    /// Position of its first event.
    pub position: u64,
    /// Number of a child (W8), else 0.
    pub child: u32,
    /// How often it was redriven.
    pub round: u32,
    /// Index into the versions of its run.
    pub version: u16,
    /// How it ended.
    pub ended: Ended,
    /// Its events, its own first.
    pub events: Vec<PastEvent>,
    /// Its tasks, in the order of the plan.
    pub tasks: Vec<TaskEnd>,
}

impl Remembered {
    /// Reads the body of a [`crate::row::HistoryRow`].
    ///
    /// # Errors
    /// It is damaged, or newer than this program.
    pub fn decode(body: &Bytes) -> Result<Vec<Self>, DecodeError> {
        if body.is_empty() {
            return Ok(Vec::new());
        }
        let mut body = Reader::new("history", body.clone(), HISTORY_FORMAT)?;
        let count = body.length()?;
        let rows = (0..count).map(|_| decode_row(&mut body)).collect();
        body.end()?;
        rows
    }

    pub(crate) fn encode(rows: &[Self]) -> Bytes {
        if rows.is_empty() {
            return Bytes::new();
        }
        let mut out = Writer::new(HISTORY_FORMAT);
        out.int(rows.len() as u64);
        for row in rows {
            encode_row(&mut out, row);
        }
        out.finish()
    }
}

fn encode_row(out: &mut Writer, row: &Remembered) {
    out.int(u64::from(row.lane))
        .int(row.position)
        .int(u64::from(row.child))
        .int(u64::from(row.round))
        .int(u64::from(row.version))
        .byte(row.ended as u8)
        .int(row.events.len() as u64);
    for event in &row.events {
        out.int(u64::from(event.lane))
            .int(event.position)
            .wide(event.key)
            .int(event.arrived_ms)
            .option_bytes(event.body.as_ref());
    }
    // Times are small beside the arrival.
    let arrived = row.events.first().map_or(0, |event| event.arrived_ms);
    out.int(row.tasks.len() as u64);
    for task in &row.tasks {
        out.int(u64::from(task.task))
            .byte(task.state as u8)
            .int(u64::from(task.tries))
            .option(task.instances.map(u64::from))
            .flag(task.times.is_some());
        if let Some((issued, ended)) = task.times {
            out.signed(issued.wrapping_sub(arrived).cast_signed());
            out.int(ended.saturating_sub(issued));
        }
        out.option_bytes(task.result.as_ref())
            .option_bytes(task.error.as_ref());
    }
}

fn decode_row(body: &mut Reader) -> Result<Remembered, DecodeError> {
    let (lane, position) = (body.small()?, body.int()?);
    let (child, round, version) = (body.small()?, body.small()?, body.small()?);
    let ended = match body.byte()? {
        0 => Ended::Done,
        1 => Ended::Skipped,
        2 => Ended::Parked,
        3 => Ended::Dropped,
        _ => return Err(body.error("unknown end")),
    };
    let mut events = Vec::new();
    for _ in 0..body.length()? {
        events.push(PastEvent {
            lane: body.small()?,
            position: body.int()?,
            key: body.wide()?,
            arrived_ms: body.int()?,
            body: body.option_bytes()?,
        });
    }
    let arrived = events.first().map_or(0, |event| event.arrived_ms);
    let mut tasks = Vec::new();
    for _ in 0..body.length()? {
        tasks.push(decode_task(body, arrived)?);
    }
    Ok(Remembered {
        lane,
        position,
        child,
        round,
        version,
        ended,
        events,
        tasks,
    })
}

fn decode_task(body: &mut Reader, arrived: Ms) -> Result<TaskEnd, DecodeError> {
    let task = body.small()?;
    let state = match body.byte()? {
        0 => TaskState::Success,
        1 => TaskState::Failed,
        2 => TaskState::Skipped,
        3 => TaskState::UpstreamFailed,
        _ => return Err(body.error("unknown state")),
    };
    let tries = body.small()?;
    let instances = match body.option()? {
        None => None,
        Some(count) => Some(u32::try_from(count).map_err(|_| body.error("too many instances"))?),
    };
    let times = if body.flag()? {
        let issued = arrived.wrapping_add(body.signed()?.cast_unsigned());
        Some((issued, issued.saturating_add(body.int()?)))
    } else {
        None
    };
    Ok(TaskEnd {
        task,
        state,
        tries,
        instances,
        times,
        result: body.option_bytes()?,
        error: body.option_bytes()?,
    })
}

const fn runs_in_workers(task: &TaskSpec) -> bool {
    !matches!(
        task.kind,
        TaskKind::Noop | TaskKind::Delay { .. } | TaskKind::Signal { .. }
    )
}

/// Full rows that may still be written of what simply succeeded.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    left: u64,
    /// Until when it was filled up.
    filled: Ms,
}

impl Budget {
    fn fill(&mut self, now: Ms) {
        let fresh = now.saturating_sub(self.filled) * limits::HISTORY_ROWS_PER_SECOND / 1_000;
        if fresh > 0 {
            self.left = (self.left + fresh).min(limits::HISTORY_ROWS_PER_SECOND);
            self.filled = now;
        }
    }

    fn has_room(&mut self, now: Ms) -> bool {
        self.fill(now);
        self.left > 0
    }

    /// Takes up to so many.
    fn take(&mut self, now: Ms, wanted: usize) -> usize {
        self.fill(now);
        let taken = self.left.min(wanted as u64);
        self.left -= taken;
        taken as usize
    }
}

impl Machine {
    /// Full rows of these settled members, as the body of their history row. `plain`: none failed
    /// or was redriven.
    pub(crate) fn remember(
        &mut self,
        ix: u32,
        settled: &[u64],
        plain: bool,
        ended: impl Fn(u32) -> Ended,
    ) -> Bytes {
        let now = self.now;
        let wave = self.waves[ix as usize]
            .as_ref()
            .expect("settling waves are live");
        let all = wave.dag.spec.full_history;
        let nothing_special = plain && wave.trials.is_empty();
        if !all && nothing_special && !self.history.has_room(now) {
            return Bytes::new();
        }
        let mut chosen = if all {
            Mask::from_slice(settled)
        } else if nothing_special {
            bits::none(wave.words)
        } else {
            bits::both(settled, &wave.noteworthy(settled, &ended))
        };
        let others = bits::without(settled, &chosen);
        let room = self.history.take(now, bits::count(&others) as usize);
        for member in bits::ones(&others).take(room) {
            bits::set(&mut chosen, member);
        }
        let most = if all {
            usize::MAX
        } else {
            limits::HISTORY_VALUE_BYTES_MAX
        };
        let rows: Vec<Remembered> = bits::ones(&chosen)
            .map(|member| wave.remembered(member, ended(member), most))
            .collect();
        Remembered::encode(&rows)
    }

    /// Notes when members were sent, where that will be remembered.
    pub(crate) fn note_issued(&mut self, dispatch: &Dispatch) {
        let now = self.now;
        if !dispatch.dag.spec.full_history && !self.history.has_room(now) {
            return;
        }
        for slot in &dispatch.slots {
            let wave = self.wave_mut(slot.wave);
            if wave.members.len() <= limits::TIMED_MEMBERS_MAX {
                wave.times
                    .entry((slot.node, slot.at))
                    .or_insert((now, None));
            }
        }
    }
}

impl Wave {
    /// Notes when a member ended, if it is known when it was sent.
    pub(crate) fn note_ended(&mut self, node: u16, at: u32, now: Ms) {
        if let Some((_, ended)) = self.times.get_mut(&(node, at)) {
            *ended = Some(now);
        }
    }

    /// Members of which a full row is always kept.
    fn noteworthy(&self, settled: &[u64], ended: &impl Fn(u32) -> Ended) -> Mask {
        let mut mask = bits::none(self.words);
        for (&(node, at), trial) in &self.trials {
            if trial.failures + trial.interruptions > 0 {
                bits::set(&mut mask, self.member_of(node, at));
            }
        }
        for member in bits::ones(settled) {
            let failed = matches!(ended(member), Ended::Parked | Ended::Dropped);
            if failed || self.members[member as usize].round > 0 {
                bits::set(&mut mask, member);
            }
        }
        mask
    }

    fn remembered(&self, member: u32, ended: Ended, most: usize) -> Remembered {
        let m = &self.members[member as usize];
        let short = |bytes: &Bytes| (bytes.len() <= most).then(|| bytes.clone());
        let past = |lane: LaneId, event: &Event| PastEvent {
            lane: lane.lane,
            position: event.position,
            key: event.key,
            arrived_ms: event.arrived_ms,
            body: short(&event.body),
        };
        let own = self.member_events(member).iter();
        let bound = self.bound(member).iter();
        let nodes = self.plan().sources as u16..self.plan().steps.len() as u16;
        Remembered {
            lane: m.key.lane.lane,
            position: m.key.position,
            child: m.key.child,
            round: m.round,
            version: self.version,
            ended,
            events: own
                .map(|event| past(m.key.lane, event))
                .chain(bound.map(|(_, lane, event)| past(*lane, event)))
                .collect(),
            tasks: nodes
                .filter_map(|node| self.task_end(node, member, most))
                .collect(),
        }
    }

    fn task_end(&self, node: u16, member: u32, most: usize) -> Option<TaskEnd> {
        let task = self.task_index(node)?;
        let is = |row| self.is(node, row, member);
        let state = if is(Row::Failed) {
            TaskState::Failed
        } else if is(Row::UpstreamFailed) {
            TaskState::UpstreamFailed
        } else if is(Row::Success) {
            TaskState::Success
        } else {
            TaskState::Skipped
        };
        let segment = self.maps.get(&node).and_then(|space| space.segment(member));
        let (first, count) = segment.unwrap_or((member, 1));
        let trials = || {
            self.trials
                .range((node, first)..(node, first + count))
                .map(|(_, trial)| trial)
        };
        let failures: u32 = trials().map(|trial| trial.failures).sum();
        let good = match state {
            _ if segment.is_some() => self.maps[&node].successes(member),
            TaskState::Success if self.task(node).is_some_and(runs_in_workers) => 1,
            TaskState::Skipped => u32::from(trials().any(|trial| trial.skipped_itself)),
            _ => 0,
        };
        let known = |result: Option<&Bytes>| result.filter(|r| r.len() <= most).cloned();
        Some(TaskEnd {
            task,
            state,
            tries: failures + good,
            instances: segment.map(|(_, count)| count),
            times: self
                .times
                .get(&(node, member))
                .filter(|_| segment.is_none())
                .and_then(|&(issued, ended)| Some((issued, ended?))),
            result: known(self.result(node, member)),
            error: trials().filter_map(|trial| trial.error.clone()).last(),
        })
    }
}
