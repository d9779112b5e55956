//! Lanes: how far a stream was read, what of it is in flight, and the cursor that says so (C2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::activation::Entry;
use crate::bits;
use crate::codec::{DecodeError, Reader, Writer};
use crate::command::{ActivationKey, Decision, Event, LaneId};
use crate::limits;
use crate::machine::put;
use crate::row::{Key, Table, Write};
use crate::wave::Wave;

/// Format number of lane rows. Those of format 1 are read as well.
const LANE_FORMAT: u8 = 2;
/// Format number of suspect rows.
const SUSPECT_FORMAT: u8 = 1;

/// What makes a lane a replay: it reads a stretch of another one again (W18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// The lane it reads again.
    pub of: u32,
    /// First position.
    pub from: u64,
    /// First position it no longer reads.
    pub until: u64,
    /// The same as it was asked for; more than `until` once somebody has stopped it.
    pub asked: u64,
    /// Its effect keys are its own.
    pub fresh_keys: bool,
    /// Its tasks change state, as those of the live lane do.
    pub writes_state: bool,
    /// It has taken over what its lane had passed unread: nobody else runs that.
    pub claims: bool,
    /// Nobody reads it until somebody says so.
    pub paused: bool,
    /// When it was asked for, milliseconds since the Unix epoch.
    pub asked_ms: u64,
}

/// That a lane goes on elsewhere than where it stood, by somebody's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// Where it stood.
    pub from: u64,
    /// Where it went on.
    pub to: u64,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who said so.
    pub by: String,
}

/// The durable part of a lane: its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Index into the sources of the version that the last of `switches` names.
    pub(crate) source: u16,
    pub(crate) name: String,
    pub(crate) incarnation: String,
    /// 0 for the live lane that was first; replays and resets count up, over all lanes of a run (W18).
    pub(crate) generation: u32,
    /// The lane whose scopes of state it has, if not its own: it descends from it.
    pub(crate) origin: Option<u32>,
    pub(crate) replay: Option<Replay>,
    /// It took the place of a lane of an earlier generation.
    pub(crate) reset: Option<Reset>,
    /// Next position to read such that everything read before is settled or materialised.
    pub(crate) low: u64,
    /// Settled or materialised ranges above `low`, first and last position, by read order.
    pub(crate) ranges: Vec<(u64, u64)>,
    /// From this position on, new activations are of this version (W16); ascending.
    pub(crate) switches: Vec<(u64, u16)>,
    /// What was passed unread, first position and the first behind it; ascending.
    pub(crate) passed: Vec<(u64, u64)>,
    /// Nothing more is read into it: a replay read to its end, or another lane has its place.
    pub(crate) closed: bool,
}

impl Cursor {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::new(LANE_FORMAT);
        out.int(u64::from(self.source))
            .text(&self.name)
            .text(&self.incarnation);
        out.int(u64::from(self.generation))
            .option(self.origin.map(u64::from))
            .flag(self.replay.is_some());
        if let Some(replay) = &self.replay {
            out.int(u64::from(replay.of))
                .int(replay.from)
                .int(replay.until)
                .int(replay.asked)
                .flag(replay.fresh_keys)
                .flag(replay.writes_state)
                .flag(replay.claims)
                .flag(replay.paused)
                .int(replay.asked_ms);
        }
        out.flag(self.reset.is_some());
        if let Some(reset) = &self.reset {
            out.int(reset.from).int(reset.to).int(reset.at_ms);
            out.text(&reset.by);
        }
        out.int(self.low).int(self.ranges.len() as u64);
        let mut at = self.low;
        for (first, last) in &self.ranges {
            out.int(first - at).int(last - first);
            at = *last;
        }
        out.int(self.switches.len() as u64);
        for (position, version) in &self.switches {
            out.int(*position).int(u64::from(*version));
        }
        out.int(self.passed.len() as u64);
        let mut at = 0;
        for (from, to) in &self.passed {
            out.int(from - at).int(to - from);
            at = *to;
        }
        out.flag(self.closed);
        out.finish()
    }

    pub(crate) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let (mut body, format) = Reader::of_any("lane", body, 1..=LANE_FORMAT)?;
        let newer = format > 1;
        let (source, name, incarnation) = (body.small()?, body.text()?, body.text()?);
        let generation = body.small()?;
        let origin = if newer { body.option_small()? } else { None };
        let replay = match body.flag()? {
            false => None,
            true if newer => Some(Replay {
                of: body.small()?,
                from: body.int()?,
                until: body.int()?,
                asked: body.int()?,
                fresh_keys: body.flag()?,
                writes_state: body.flag()?,
                claims: body.flag()?,
                paused: body.flag()?,
                asked_ms: body.int()?,
            }),
            true => Some(Replay::of_format_1(body.small()?, body.int()?)),
        };
        let reset = if newer && body.flag()? {
            Some(Reset {
                from: body.int()?,
                to: body.int()?,
                at_ms: body.int()?,
                by: body.text()?,
            })
        } else {
            None
        };
        let low = body.int()?;
        let (mut ranges, mut at) = (Vec::new(), low);
        for _ in 0..body.length()? {
            let first = at + body.int()?;
            at = first + body.int()?;
            ranges.push((first, at));
        }
        let mut switches = Vec::new();
        for _ in 0..body.length()? {
            switches.push((body.int()?, body.small()?));
        }
        let (mut passed, mut at) = (Vec::new(), 0);
        for _ in 0..if newer { body.length()? } else { 0 } {
            let from = at + body.int()?;
            at = from + body.int()?;
            passed.push((from, at));
        }
        let closed = body.flag()?;
        body.end()?;
        Ok(Self {
            source,
            name,
            incarnation,
            generation,
            origin,
            replay,
            reset,
            low,
            ranges,
            switches,
            passed,
            closed,
        })
    }

    /// Whether it is the one that a source's lane is read into, and no replay of it.
    pub(crate) const fn is_live(&self) -> bool {
        self.replay.is_none() && !self.closed
    }

    /// Notes that positions were passed unread. The oldest are forgotten beyond the bound: they then
    /// count as read, so that nothing runs twice.
    pub(crate) fn pass(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        match self.passed.last_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ => self.passed.push((from, to)),
        }
        if self.passed.len() > limits::PASSED_RANGES_MAX {
            self.passed.remove(0);
        }
    }

    /// Whether all that began at this position is settled or materialised.
    pub(crate) fn has_passed(&self, position: u64) -> bool {
        let after = self.ranges.partition_point(|&(first, _)| first <= position);
        let range = after.checked_sub(1).map(|index| self.ranges[index]);
        position < self.low || range.is_some_and(|(_, last)| position <= last)
    }

    /// The version whose list of sources `source` points into: the last one that had the source.
    pub(crate) fn home(&self) -> u16 {
        self.switches.last().map_or(0, |&(_, version)| version)
    }

    /// The version a position belongs to.
    pub(crate) fn version_at(&self, position: u64) -> u16 {
        let after = self.switches.partition_point(|&(from, _)| from <= position);
        after
            .checked_sub(1)
            .map_or(0, |index| self.switches[index].1)
    }
}

/// A wave's stretch of a lane, in read order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// Slot of the wave; `None` once it is over.
    pub(crate) wave: Option<u32>,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Events that were in flight at unclean stops (C6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub(crate) last: u64,
    pub(crate) count: u32,
    /// Unclean stops at which they were in flight.
    pub(crate) stops: u32,
    /// They are in flight now.
    pub(crate) in_flight: bool,
}

impl Suspect {
    /// Everything that may have been in flight at a stop of which nothing is on record.
    pub(crate) const fn first_window(last: u64) -> Self {
        Self {
            last,
            count: limits::PROBATION_EVENTS as u32,
            stops: 1,
            in_flight: false,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::new(SUSPECT_FORMAT);
        out.int(self.last)
            .int(u64::from(self.count))
            .int(u64::from(self.stops));
        out.flag(self.in_flight);
        out.finish()
    }

    pub(crate) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut body = Reader::new("suspect", body, SUSPECT_FORMAT)?;
        let suspect = Self {
            last: body.int()?,
            count: body.small()?,
            stops: body.small()?,
            in_flight: body.flag()?,
        };
        body.end()?;
        Ok(suspect)
    }
}

/// An activation whose attempts partly ended before a crash, waiting to be read again.
#[derive(Debug, Clone)]
pub(crate) struct Recovered {
    pub(crate) version: u16,
    pub(crate) late: bool,
    pub(crate) entries: Vec<Entry>,
}

/// A lane in memory.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    /// As last sealed.
    pub(crate) cursor: Cursor,
    /// Everything below was read in this boot; the source reads on from here.
    pub(crate) read: u64,
    /// Ranges above `low` as an earlier boot left them.
    pub(crate) earlier: Vec<(u64, u64)>,
    pub(crate) pending: VecDeque<Event>,
    pub(crate) segments: VecDeque<Segment>,
    /// Events pending or in waves of this lane.
    pub(crate) events: usize,
    /// Their payload bytes.
    pub(crate) bytes: usize,
    pub(crate) credit: bool,
    /// The source has nothing unread.
    pub(crate) caught_up: bool,
    /// An open lane is being read by its source.
    pub(crate) open: bool,
    /// By position and child number.
    pub(crate) recovered: BTreeMap<(u64, u32), Recovered>,
    /// Outcome rows of earlier boots: last position they speak of, and their wave.
    pub(crate) stale_rows: Vec<(u64, u64)>,
    /// Committed source batches not yet read again: first position, number of events (W8).
    pub(crate) batches: BTreeMap<u64, u32>,
    pub(crate) suspects: BTreeMap<u64, Suspect>,
    /// The last position that may have been in flight at an unclean stop; `u64::MAX` until the lane
    /// is read to its end for the first time (C6).
    pub(crate) suspect_end: Option<u64>,
    /// Events still to be taken with commit before dispatch (C6).
    pub(crate) probation: usize,
    /// Ordered activations materialised before a stop, with their version, that take their place
    /// in their scope once the lane has begun again what is before them.
    pub(crate) deferred: BTreeMap<ActivationKey, u16>,
    /// Of `deferred`, those whose wait was over before they had their place.
    pub(crate) overdue: BTreeSet<ActivationKey>,
    /// Its row must be written whatever `advance` finds.
    pub(crate) changed: bool,
    /// When the oldest pending event of a batching source stops lingering.
    pub(crate) linger: Option<u64>,
}

impl Replay {
    /// What the first format did not say is as it was then.
    const fn of_format_1(of: u32, until: u64) -> Self {
        Self {
            of,
            from: 0,
            until,
            asked: until,
            fresh_keys: true,
            writes_state: false,
            claims: false,
            paused: false,
            asked_ms: 0,
        }
    }
}

impl Lane {
    pub(crate) fn new(id: LaneId, cursor: Cursor) -> Self {
        Self {
            id,
            read: cursor.low,
            earlier: cursor.ranges.clone(),
            cursor,
            pending: VecDeque::new(),
            segments: VecDeque::new(),
            events: 0,
            bytes: 0,
            credit: true,
            caught_up: false,
            open: false,
            recovered: BTreeMap::new(),
            stale_rows: Vec::new(),
            batches: BTreeMap::new(),
            suspects: BTreeMap::new(),
            suspect_end: None,
            probation: 0,
            deferred: BTreeMap::new(),
            overdue: BTreeSet::new(),
            changed: false,
            linger: None,
        }
    }

    /// How many pending events in a row are of this version.
    pub(crate) fn same_version(&self, version: u16) -> usize {
        if self.recovered.is_empty() && self.cursor.switches.len() == 1 {
            return self.pending.len();
        }
        self.pending
            .iter()
            .take_while(|event| self.version_of(event.position) == version)
            .count()
    }

    /// The suspicion this position is under, and where it begins (C6).
    pub(crate) fn suspicion(&self, position: u64) -> Option<(u64, Suspect)> {
        let (&first, &suspect) = self.suspects.range(..=position).next_back()?;
        (position <= suspect.last).then_some((first, suspect))
    }

    /// C6: what was in flight at a stop was in the stream before it, so the first time a lane has
    /// nothing unread bounds what is under suspicion.
    pub(crate) fn bound_suspects(&mut self, out: &mut Decision) {
        if self.suspect_end != Some(u64::MAX) {
            return;
        }
        let read = self.read;
        self.suspect_end = read.checked_sub(1);
        let open =
            |(&first, suspect): (&u64, &Suspect)| (suspect.last == u64::MAX).then_some(first);
        let open: Vec<u64> = self.suspects.iter().filter_map(open).collect();
        for first in open {
            let key = Key::numbered(self.id.run, self.id.lane, &[first]);
            if first >= read {
                self.suspects.remove(&first);
                out.writes.push(Write::Delete(Table::Suspect, key));
                continue;
            }
            let pending = self.pending.iter().filter(|e| e.position >= first).count();
            let suspect = self.suspects.get_mut(&first).expect("just listed");
            suspect.last = read - 1;
            suspect.count = suspect.count.min(pending.max(1) as u32);
            let body = suspect.encode();
            put(out, Table::Suspect, key, body);
        }
    }

    /// C6: everything that was under suspicion when the lane was opened is through.
    pub(crate) fn is_through(&self) -> bool {
        self.suspect_end.is_none_or(|last| last < self.cursor.low)
    }

    /// C6: the first window is through; what is still marked, and not in flight, is cleared.
    pub(crate) fn leave_probation(&mut self, out: &mut Decision) {
        self.probation = 0;
        for first in std::mem::take(&mut self.suspects).into_keys() {
            let key = Key::numbered(self.id.run, self.id.lane, &[first]);
            out.writes.push(Write::Delete(Table::Suspect, key));
        }
    }

    /// The version an event belongs to: the one its first commit pinned it to, else by position.
    pub(crate) fn version_of(&self, position: u64) -> u16 {
        let pinned = self
            .recovered
            .get(&(position, 0))
            .map(|recovered| recovered.version);
        pinned.unwrap_or_else(|| self.cursor.version_at(position))
    }

    /// The lane's number in scopes of state (W5): a replay sees what its live lane has, and so does
    /// the lane that takes its place.
    pub(crate) fn state_lane(&self) -> u32 {
        self.cursor.origin.unwrap_or(self.id.lane)
    }

    /// The lane's number in scopes of order (W4): whoever writes the state of a scope is in its order.
    pub(crate) fn order_lane(&self) -> u32 {
        let apart = self
            .cursor
            .replay
            .is_some_and(|replay| !replay.writes_state);
        if apart {
            self.id.lane
        } else {
            self.state_lane()
        }
    }

    /// Whether other DAGs hear of what happens in it (W18): of what is read again only if its state counts,
    /// too; of what nobody had run in any case.
    pub(crate) fn tells(&self) -> bool {
        let replay = self.cursor.replay;
        replay.is_none_or(|replay| replay.claims || replay.writes_state)
    }

    /// The generation that enters effect keys (C1).
    pub(crate) fn key_generation(&self) -> u32 {
        let fresh = self.cursor.replay.is_some_and(|replay| replay.fresh_keys);
        if fresh { self.cursor.generation } else { 0 }
    }

    /// Whether activations from before a stop wait for what is still to be read again. That is let
    /// in whatever the limits: it had begun before they did, and they cannot end without it.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Whether there is room for more events, given whether there was until now.
    pub(crate) fn has_room(&self) -> bool {
        if self.credit {
            self.events < limits::LANE_EVENTS_HIGH && self.bytes < limits::LANE_BYTES_HIGH
        } else {
            self.events < limits::LANE_EVENTS_LOW && self.bytes < limits::LANE_BYTES_LOW
        }
    }

    /// Recomputes `low` and the ranges above it from what has left the waves; `true` on change.
    pub(crate) fn advance(&mut self, waves: &[Option<Wave>]) -> bool {
        while let Some(front) = self.segments.front() {
            let wave = front.wave.and_then(|ix| waves[ix as usize].as_ref());
            if wave.is_some_and(|wave| !wave.is_over()) {
                break;
            }
            self.segments.pop_front();
        }
        let mut walk = RangeWalk {
            low: None,
            open: None,
            ranges: Vec::new(),
        };
        for segment in &self.segments {
            match segment.wave.and_then(|ix| waves[ix as usize].as_ref()) {
                None => walk.settled(segment.first, segment.last),
                Some(wave) => walk.wave(wave),
            }
        }
        walk.unsettled(
            self.pending
                .front()
                .map_or(self.read, |event| event.position),
        );
        let low = walk.low.unwrap_or(self.read);
        let ranges = merge(walk.ranges, &self.earlier, low);
        debug_assert!(low >= self.cursor.low, "a cursor never goes back");
        let moved = low != self.cursor.low || ranges != self.cursor.ranges;
        let changed = std::mem::take(&mut self.changed) || moved;
        self.cursor.low = low;
        self.cursor.ranges = ranges;
        let replay = self.cursor.replay;
        self.cursor.closed |= replay.is_some_and(|replay| replay.until <= low);
        while self.cursor.switches.len() > 1 && self.cursor.switches[1].0 <= low {
            self.cursor.switches.remove(0);
        }
        changed
    }
}

/// Ranges of this boot and of earlier ones, ascending, none inside another, all above `low`.
fn merge(ours: Vec<(u64, u64)>, earlier: &[(u64, u64)], low: u64) -> Vec<(u64, u64)> {
    let inside = |r: &(u64, u64)| ours.iter().any(|o| o.0 <= r.0 && r.1 <= o.1);
    let above = earlier
        .iter()
        .filter(|r| r.1 >= low)
        .map(|r| (r.0.max(low), r.1));
    let kept: Vec<_> = above.filter(|r| !inside(r)).collect();
    if kept.is_empty() {
        return ours;
    }
    let mut all = [ours, kept].concat();
    all.sort_unstable();
    all
}

/// Builds ranges by adjacency in read order.
struct RangeWalk {
    low: Option<u64>,
    open: Option<(u64, u64)>,
    ranges: Vec<(u64, u64)>,
}

impl RangeWalk {
    fn settled(&mut self, first: u64, last: u64) {
        if self.low.is_some() {
            self.open = Some((self.open.map_or(first, |(start, _)| start), last));
        }
    }

    fn unsettled(&mut self, position: u64) {
        self.low.get_or_insert(position);
        self.ranges.extend(self.open.take());
    }

    fn wave(&mut self, wave: &Wave) {
        if bits::is_empty(&wave.left) && wave.covered.is_empty() {
            return self.unsettled(wave.members[0].key.position);
        }
        for (index, member) in wave.members.iter().enumerate() {
            if bits::get(&wave.left, index as u32) || wave.is_covered(index as u32) {
                self.settled(member.key.position, member.last);
            } else {
                self.unsettled(member.key.position);
            }
        }
    }
}
