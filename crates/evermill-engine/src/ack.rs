//! What follows the commit of a position: the hint to the broker, and arrival to committed.

use std::collections::VecDeque;

use evermill_core::command::Event;

use crate::histogram::Histogram;
use crate::limits;

/// Batches of one lane that are not settled yet, by arrival.
#[derive(Default)]
pub(crate) struct Unsettled(VecDeque<Arrived>);

struct Arrived {
    first: u64,
    last: u64,
    count: u64,
    at_us: u64,
}

impl Unsettled {
    /// A batch was read.
    pub(crate) fn arrived(&mut self, events: &[Event], at_us: u64) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return;
        };
        let count = events.len() as u64;
        if self.0.len() >= limits::UNSETTLED_BATCHES
            && let Some(newest) = self.0.back_mut()
        {
            // Too many to tell apart: they count from the arrival of the first.
            newest.last = last.position;
            newest.count += count;
            return;
        }
        self.0.push_back(Arrived {
            first: first.position,
            last: last.position,
            count,
            at_us,
        });
    }

    /// Everything below `position` is durable; counts how long it took.
    pub(crate) fn settled(&mut self, position: u64, now_us: u64, into: &mut Histogram) {
        while let Some(oldest) = self.0.front_mut() {
            let took = now_us.saturating_sub(oldest.at_us);
            if position > oldest.last {
                into.record(took, oldest.count);
                self.0.pop_front();
            } else {
                // Exact for positions without gaps, and never more than there are.
                let part = position.saturating_sub(oldest.first).min(oldest.count - 1);
                into.record(took, part);
                oldest.first = oldest.first.max(position);
                oldest.count -= part;
                return;
            }
        }
    }

    /// The lane is read again from elsewhere.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn events(positions: std::ops::Range<u64>) -> Vec<Event> {
        let event = |position| Event {
            position,
            key: 0,
            arrived_ms: 0,
            body: Bytes::new(),
        };
        positions.map(event).collect()
    }

    #[test]
    fn each_event_counts_once_however_the_positions_are_cut() {
        let mut unsettled = Unsettled::default();
        let mut histogram = Histogram::default();
        unsettled.arrived(&events(0..100), 0);
        unsettled.arrived(&events(100..110), 1_000);
        for position in [0, 1, 40, 40, 100, 105, 110, 200] {
            unsettled.settled(position, 2_000, &mut histogram);
        }
        assert_eq!(histogram.total(), 110);
        assert!(unsettled.0.is_empty());
    }
}
