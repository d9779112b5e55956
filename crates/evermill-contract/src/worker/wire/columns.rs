//! Tables travel by column: Python reads a column in one C call, and one that holds only its
//! default does not travel at all.

use super::super::{Event, Member, Range};

/// A table under construction: names of its columns and their bytes, in the same order.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) names: Vec<&'static str>,
    pub(super) bytes: Vec<u8>,
}

/// Where a range's bytes lie in the frame: first and one past the last; (0, 0) for none.
pub(super) type Place = (u32, u32);

impl Columns {
    fn numbers<const WIDTH: usize, T: Copy>(
        &mut self,
        name: &'static str,
        rows: &[T],
        default: [u8; WIDTH],
        number: impl Fn(&T) -> [u8; WIDTH],
    ) {
        if rows.iter().any(|row| number(row) != default) {
            self.names.push(name);
            self.bytes.extend(rows.iter().flat_map(number));
        }
    }

    /// Two columns: starts, then ends.
    pub(super) fn spans(&mut self, name: &'static str, places: &[Place]) {
        if places.iter().any(|place| *place != (0, 0)) {
            self.names.push(name);
            self.bytes
                .extend(places.iter().flat_map(|place| place.0.to_le_bytes()));
            self.bytes
                .extend(places.iter().flat_map(|place| place.1.to_le_bytes()));
        }
    }
}

/// A part of an event that lies in a buffer.
pub(super) type Part = fn(&Event) -> Option<Range>;

/// The parts by column, in the order in which a source batch holds them: placed in this order,
/// the parts of consecutive events become one piece of payload.
pub(super) const PARTS: [(&str, Part); 4] = [
    ("key", |event| event.key),
    ("headers", |event| event.headers),
    ("value", |event| event.value),
    ("id", |event| event.id),
];

/// The column of what a member's `ctx.state` holds.
pub(super) const STATE: &str = "state";

/// Rows of the event table that a member names.
pub(super) type Rows = fn(&Member) -> &Option<std::ops::Range<u32>>;

/// The columns of such rows.
pub(super) const MEMBER_ROWS: [(&str, Rows); 2] = [
    ("batch", |member| &member.batch),
    ("joined", |member| &member.joined),
];

/// Columns that only members have.
pub(super) fn member_columns(members: &[Member]) -> Columns {
    let mut columns = Columns::default();
    let members: Vec<&Member> = members.iter().collect();
    columns.numbers("map_index", &members, (-1i32).to_le_bytes(), |m| {
        m.map_index.to_le_bytes()
    });
    columns.numbers("try_number", &members, 1u16.to_le_bytes(), |m| {
        m.try_number.to_le_bytes()
    });
    columns.numbers("scope", &members, 0u32.to_le_bytes(), |m| {
        m.scope.to_le_bytes()
    });
    columns.numbers("has_event", &members, [1], |m| [u8::from(m.has_event)]);
    for (name, rows) in MEMBER_ROWS {
        let place = |m: &&Member| rows(m).as_ref().map_or((0, 0), |r| (r.start, r.end));
        let places: Vec<Place> = members.iter().map(place).collect();
        columns.spans(name, &places);
    }
    columns
}

/// Columns of events, whether they are members' own or a batch's; spans are added by the caller.
pub(super) fn event_columns<'a>(columns: &mut Columns, events: impl Iterator<Item = &'a Event>) {
    let events: Vec<&Event> = events.collect();
    columns.numbers("position", &events, 0u64.to_le_bytes(), |e| {
        e.position.to_le_bytes()
    });
    columns.numbers("timestamp", &events, i64::MIN.to_le_bytes(), |e| {
        e.timestamp_ms.unwrap_or(i64::MIN).to_le_bytes()
    });
    columns.numbers("lane", &events, 0u16.to_le_bytes(), |e| {
        e.lane.to_le_bytes()
    });
}
