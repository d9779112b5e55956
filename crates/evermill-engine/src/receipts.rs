//! Deliveries that the outside world keeps until what they brought is settled.

use std::collections::BTreeMap;
use std::ops::Range;

/// Deliveries of one source that are durable and not settled; bounded by what the source holds.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// By end and ticket, with the first position: their lane has not passed them.
    ahead: BTreeMap<(u64, u64), u64>,
    /// By ticket: their lane has, and something of them is not over, or not known to be durable.
    held: BTreeMap<u64, Range<u64>>,
}

impl Receipts {
    /// A delivery is durable; its events lie among these positions.
    pub(crate) fn add(&mut self, ticket: u64, stretch: Range<u64>) {
        self.ahead.insert((stretch.end, ticket), stretch.start);
    }

    /// Its lane has passed it.
    pub(crate) fn hold(&mut self, ticket: u64, stretch: Range<u64>) {
        self.held.insert(ticket, stretch);
    }

    /// It is settled, and that is durable. False when that was known.
    pub(crate) fn forget(&mut self, ticket: u64) -> bool {
        self.held.remove(&ticket).is_some()
    }

    /// Takes out those that a lane has passed; those of earlier times too, if they are to be looked at
    /// `again`.
    pub(crate) fn passed(&mut self, position: u64, again: bool) -> (Vec<u64>, Vec<Range<u64>>) {
        let mut found = Vec::new();
        while let Some((&(end, ticket), &first)) = self.ahead.first_key_value()
            && end <= position
        {
            self.ahead.pop_first();
            found.push((ticket, first..end));
        }
        if again {
            found.extend(std::mem::take(&mut self.held));
        }
        found.into_iter().unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_handed_out_once_its_lane_has_passed_it_and_then_when_it_is_looked_at_again() {
        let mut receipts = Receipts::default();
        let first = 0..3;
        receipts.add(7, first.clone());
        receipts.add(8, 3..5);
        assert_eq!(receipts.passed(4, false), (vec![7], vec![first]));
        receipts.hold(7, 0..3);
        assert_eq!(receipts.passed(4, false).0, Vec::<u64>::new());
        assert_eq!(receipts.passed(5, true), (vec![8, 7], vec![3..5, 0..3]));
        assert_eq!(receipts.passed(9, true).0, Vec::<u64>::new());
        receipts.hold(8, 3..5);
        assert!(receipts.forget(8) && !receipts.forget(8), "said once");
    }
}
