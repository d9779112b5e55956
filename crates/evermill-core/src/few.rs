//! Sets of few things: sorted vectors.
//!
//! The machine's sets of runs, lanes and tasks are small, and empty most of the time. A tree would
//! allocate a node for the first thing and free it with the last, several times a command.

/// A set in order.
#[derive(Debug)]
pub(crate) struct Few<T>(Vec<T>);

impl<T: Ord + Copy> Few<T> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn insert(&mut self, item: T) {
        // What comes again, or comes in order, is the common case.
        match self.0.last() {
            Some(last) if *last == item => {}
            Some(last) if *last > item => {
                if let Err(place) = self.0.binary_search(&item) {
                    self.0.insert(place, item);
                }
            }
            _ => self.0.push(item),
        }
    }

    pub(crate) fn remove(&mut self, item: T) {
        if let Ok(place) = self.0.binary_search(&item) {
            self.0.remove(place);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first one after this one, for loops under which the set changes.
    pub(crate) fn after(&self, item: Option<T>) -> Option<T> {
        let place = item.map_or(0, |item| self.0.partition_point(|other| *other <= item));
        self.0.get(place).copied()
    }

    /// Empties the set.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl<T: Ord + Copy> Extend<T> for Few<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        for item in items {
            self.insert(item);
        }
    }
}
