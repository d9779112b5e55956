//! What can be said of a member of a dispatch: its bytes, the keys of its effects, and its span.

use evermill_contract::identity::{self, ActivationId, IdKind, LaneIdentity};
use evermill_contract::trace::{self, Place, TraceParent};
use evermill_contract::worker::{Dispatch, Event, Range};

/// The bytes of a range; none of an absent one.
#[must_use]
pub fn part(dispatch: &Dispatch, range: Option<Range>) -> &[u8] {
    let Some(Range { buffer, start, len }) = range else {
        return &[];
    };
    let (start, end) = (start as usize, start as usize + len as usize);
    &dispatch.buffers[buffer as usize][start..end]
}

/// The key of a member's effect number `call`, from 0: the same in every attempt (C1).
#[must_use]
pub fn effect_key(dispatch: &Dispatch, index: u32, call: u64) -> Option<String> {
    let member = &dispatch.members[index as usize];
    let id = |event: &Event| {
        let lane = &dispatch.lanes[usize::from(event.lane)];
        let bytes = part(dispatch, event.id);
        Some(match lane.kind {
            IdKind::Position => ActivationId::Position(event.position),
            IdKind::Message => ActivationId::Message(bytes),
            IdKind::Key => ActivationId::Key(bytes),
            IdKind::Instant => ActivationId::Instant(event.position.cast_signed()),
            IdKind::Iteration => ActivationId::Iteration(event.position),
            IdKind::Members => return None,
        })
    };
    let lane = dispatch.lanes.get(usize::from(member.event.lane))?;
    let identity = LaneIdentity::of_bytes(&lane.identity);
    let activation = match &member.batch {
        None => identity.activation(&id(&member.event)?, lane.generation),
        Some(batch) => {
            let events = &dispatch.events[batch.start as usize..batch.end as usize];
            let members = events.iter().map(id).collect::<Option<Vec<_>>>()?;
            identity.activation(&ActivationId::Members(&members), lane.generation)
        }
    };
    let task = &dispatch.task.task;
    Some(identity::effect_key(
        &activation,
        task,
        member.map_index,
        call,
    ))
}

/// What a member hands on beside its span: what the systems before us know of the trace.
#[must_use]
pub fn tracestate(dispatch: &Dispatch, index: u32) -> Option<String> {
    let event = &dispatch.members[index as usize].event;
    trace::state_of_headers(part(dispatch, event.headers))
}

/// The span that a member hands on, as the header has it; none where its event brought none and nobody traces.
#[must_use]
pub fn traceparent(dispatch: &Dispatch, index: u32) -> Option<String> {
    let event = &dispatch.members[index as usize].event;
    let given = TraceParent::of_headers(part(dispatch, event.headers));
    if !dispatch.traced {
        return given.map(|given| given.to_string());
    }
    let lane = dispatch.lanes.get(usize::from(event.lane))?;
    let place = Place {
        run: &dispatch.task.run,
        source: &lane.source,
        lane: &lane.lane,
        position: event.position,
    };
    Some(place.of_task(&dispatch.task.task, given).to_string())
}
