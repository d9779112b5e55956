//! Writing a dispatch: tables are built, payload bytes are only pointed to.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Serialize;

use super::super::frame::{self, FrameError, Kind};
use super::super::limits::MEMBERS_MAX;
use super::super::{Dispatch, Event, OrderMode, Range};
use super::columns::{Columns, MEMBER_ROWS, PARTS, Place, STATE, event_columns, member_columns};

/// A frame in pieces, to be written one after the other (`writev`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedDispatch {
    /// Head, control and tables.
    pub head: Vec<u8>,
    /// Parts of the dispatch's buffers.
    pub payload: Vec<Bytes>,
}

impl EncodedDispatch {
    /// The frame's size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.head.len() + self.payload.iter().map(Bytes::len).sum::<usize>()
    }
}

#[derive(Serialize)]
struct Control<'a> {
    entry: &'a str,
    folder: Option<&'a str>,
    dag: &'a str,
    run: &'a str,
    task: &'a str,
    order: &'static str,
    vectorised: bool,
    slice_us: u64,
    timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nice: Option<u8>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    traced: bool,
    lanes: Vec<Lane<'a>>,
    upstream: &'a [String],
    members: usize,
    columns: Vec<&'static str>,
    events: usize,
    event_columns: Vec<&'static str>,
    results: usize,
}

#[derive(Serialize)]
struct Lane<'a> {
    identity: String,
    kind: u8,
    generation: u32,
    source: &'a str,
    lane: &'a str,
}

/// Encodes a dispatch as frame `call`.
///
/// # Errors
/// [`FrameError::Length`] beyond the frame's bounds, [`FrameError::Content`] for an index or a
/// range that points outside. Both are the engine's mistakes and concern no worker.
pub fn encode_dispatch(call: u32, dispatch: &Dispatch) -> Result<EncodedDispatch, FrameError> {
    check(dispatch)?;
    let mut payload = Payload::new(&dispatch.buffers);
    let mut members = member_columns(&dispatch.members);
    event_columns(
        &mut members,
        dispatch.members.iter().map(|member| &member.event),
    );
    let mut events = Columns::default();
    event_columns(&mut events, dispatch.events.iter());

    let mut member_places =
        payload.place_events(dispatch.members.iter().map(|member| &member.event))?;
    let states = dispatch
        .members
        .iter()
        .map(|member| payload.place(member.state));
    member_places.push(states.collect::<Result<_, _>>()?);
    let event_places = payload.place_events(dispatch.events.iter())?;
    let mut result_places = Vec::with_capacity(dispatch.results.len());
    for result in &dispatch.results {
        result_places.push(payload.place(result.value)?);
    }

    // Places count from the control part; its length and the tables' depend only on which
    // columns there are, so shift once both are known.
    let names = |places: &[Vec<Place>], columns: &Columns| -> Vec<&'static str> {
        let spans = span_names().zip(places);
        let spans = spans
            .filter(|(_, places)| any(places))
            .map(|(name, _)| name);
        columns.names.iter().copied().chain(spans).collect()
    };
    let control = serde_json::to_vec(&Control {
        entry: &dispatch.task.entry,
        folder: dispatch.task.folder.as_deref(),
        dag: &dispatch.task.dag,
        run: &dispatch.task.run,
        task: &dispatch.task.task,
        order: match dispatch.order {
            OrderMode::Independent => "independent",
            OrderMode::StopOnFailure => "stop_on_failure",
            OrderMode::SkipSameKey => "skip_same_key",
        },
        vectorised: dispatch.vectorised,
        slice_us: u64::try_from(dispatch.slice.as_micros()).unwrap_or(u64::MAX),
        timeout_ms: dispatch
            .timeout
            .map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        cwd: dispatch.cwd.as_deref(),
        nice: (dispatch.nice > 0).then_some(dispatch.nice),
        traced: dispatch.traced,
        lanes: lanes(dispatch),
        upstream: &dispatch.upstream,
        members: dispatch.members.len(),
        columns: names(&member_places, &members),
        events: dispatch.events.len(),
        event_columns: names(&event_places, &events),
        results: dispatch.results.len(),
    })
    .expect("plain data");

    let spans = |places: &[Vec<Place>]| -> usize {
        places
            .iter()
            .filter(|places| any(places))
            .map(|places| places.len() * 8)
            .sum()
    };
    let tables = members.bytes.len()
        + spans(&member_places)
        + events.bytes.len()
        + spans(&event_places)
        + dispatch.results.len() * 16;
    let mut head = frame::begin(call, Kind::Dispatch, &control, tables + payload.bytes)?;
    let shift = u32::try_from(control.len() + tables).expect("bounded by begin");
    for (mut columns, places) in [(members, member_places), (events, event_places)] {
        for (name, places) in span_names().zip(places) {
            columns.spans(name, &shifted(places, shift));
        }
        head.extend_from_slice(&columns.bytes);
    }
    push_results(&mut head, dispatch, shifted(result_places, shift));
    Ok(EncodedDispatch {
        head,
        payload: payload.finish(),
    })
}

/// The columns of places in the payload; the last is of members alone.
fn span_names() -> impl Iterator<Item = &'static str> {
    PARTS.iter().map(|(name, _)| *name).chain([STATE])
}

fn lanes(dispatch: &Dispatch) -> Vec<Lane<'_>> {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
                write!(text, "{byte:02x}").expect("a string takes everything");
                text
            })
    };
    let lane = |lane| {
        let &super::super::LaneRef {
            ref identity,
            kind,
            generation,
            ref source,
            ref lane,
        } = lane;
        Lane {
            identity: hex(identity),
            kind: kind as u8,
            generation,
            source,
            lane,
        }
    };
    dispatch.lanes.iter().map(lane).collect()
}

/// Four columns: member, upstream, start, end.
fn push_results(head: &mut Vec<u8>, dispatch: &Dispatch, places: Vec<Place>) {
    let results = &dispatch.results;
    head.extend(
        results
            .iter()
            .flat_map(|result| result.member.to_le_bytes()),
    );
    head.extend(
        results
            .iter()
            .flat_map(|result| result.upstream.to_le_bytes()),
    );
    head.extend(places.iter().flat_map(|place| place.0.to_le_bytes()));
    head.extend(places.iter().flat_map(|place| place.1.to_le_bytes()));
}

fn any(places: &[Place]) -> bool {
    places.iter().any(|place| *place != NOWHERE)
}

fn shifted(mut places: Vec<Place>, by: u32) -> Vec<Place> {
    for place in &mut places {
        // A place in the payload is kept one too high until here, so that (0, 0) means none.
        *place = if *place == NOWHERE {
            (0, 0)
        } else {
            (place.0 - 1 + by, place.1 - 1 + by)
        };
    }
    places
}

fn check(dispatch: &Dispatch) -> Result<(), FrameError> {
    let members = dispatch.members.len();
    if members == 0 || members > MEMBERS_MAX {
        return Err(malformed(format!("{members} members")));
    }
    let lane = |event: &Event| usize::from(event.lane) < dispatch.lanes.len();
    let in_lanes = dispatch.members.iter().all(|member| lane(&member.event));
    if !in_lanes || !dispatch.events.iter().all(lane) {
        return Err(malformed("an event of a lane that is not listed".into()));
    }
    let inside = |rows: &std::ops::Range<u32>| {
        rows.start < rows.end && rows.end as usize <= dispatch.events.len()
    };
    for (name, rows) in MEMBER_ROWS {
        let mut named = dispatch.members.iter().filter_map(|m| rows(m).as_ref());
        if !named.all(inside) {
            return Err(malformed(format!("{name}: rows outside the events")));
        }
    }
    let result = |r: &super::super::UpstreamResult| {
        (r.member as usize) < members && (r.upstream as usize) < dispatch.upstream.len()
    };
    if !dispatch.results.iter().all(result) {
        return Err(malformed(
            "a result for a member or of a task that is not listed".into(),
        ));
    }
    Ok(())
}

fn malformed(reason: String) -> FrameError {
    FrameError::Content {
        kind: Kind::Dispatch,
        reason,
    }
}

const NOWHERE: Place = (0, 0);
/// Unused bytes between two ranges that are sent along rather than begun anew.
const GAP_BYTES: u32 = 64;

/// The parts of the buffers that travel. Ranges that lie one behind the other, as those of a
/// source batch do, become one part.
struct Payload<'a> {
    buffers: &'a [Bytes],
    parts: Vec<Part>,
    bytes: usize,
}

struct Part {
    buffer: u32,
    start: u32,
    end: u32,
    /// Where the part begins in the payload.
    at: usize,
}

impl<'a> Payload<'a> {
    fn new(buffers: &'a [Bytes]) -> Self {
        Self {
            buffers,
            parts: Vec::new(),
            bytes: 0,
        }
    }

    fn place_events<'e>(
        &mut self,
        events: impl Iterator<Item = &'e Event>,
    ) -> Result<Vec<Vec<Place>>, FrameError> {
        let mut places = vec![Vec::new(); PARTS.len()];
        for event in events {
            for ((_, part), places) in PARTS.iter().zip(&mut places) {
                places.push(self.place(part(event))?);
            }
        }
        Ok(places)
    }

    fn place(&mut self, range: Option<Range>) -> Result<Place, FrameError> {
        let Some(Range { buffer, start, len }) = range else {
            return Ok(NOWHERE);
        };
        let outside = || {
            malformed(format!(
                "bytes {start}+{len} of buffer {buffer} do not exist"
            ))
        };
        let end = start.checked_add(len).ok_or_else(outside)?;
        if self
            .buffers
            .get(buffer as usize)
            .is_none_or(|bytes| (end as usize) > bytes.len())
        {
            return Err(outside());
        }
        let part = self.extend(buffer, start, end);
        let first = part.at + (start - part.start) as usize + 1;
        let place = |at: usize| u32::try_from(at).map_err(|_| outside());
        Ok((place(first)?, place(first + len as usize)?))
    }

    /// The last part if the range begins in it or close behind it, else a new one.
    fn extend(&mut self, buffer: u32, start: u32, end: u32) -> &Part {
        let near = |part: &Part| {
            part.buffer == buffer
                && part.start <= start
                && start <= part.end.saturating_add(GAP_BYTES)
        };
        if !self.parts.last().is_some_and(near) {
            self.parts.push(Part {
                buffer,
                start,
                end: start,
                at: self.bytes,
            });
        }
        let part = self.parts.last_mut().expect("pushed if there was none");
        if end > part.end {
            self.bytes += (end - part.end) as usize;
            part.end = end;
        }
        part
    }

    fn finish(self) -> Vec<Bytes> {
        let slice = |part: &Part| {
            self.buffers[part.buffer as usize].slice(part.start as usize..part.end as usize)
        };
        self.parts
            .iter()
            .filter(|part| part.start < part.end)
            .map(slice)
            .collect()
    }
}
