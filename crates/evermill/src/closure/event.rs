//! An event, as a closure sees it.

use std::sync::Arc;

use evermill_contract::source::Headers;
use evermill_contract::worker::Range;
use evermill_worker::{Lease, member};
use serde::de::DeserializeOwned;

use super::Failure;

/// One event, as a closure sees it. Without a source it has no value.
#[derive(Debug, Clone)]
pub struct Event {
    lease: Arc<Lease>,
    at: At,
}

/// Where an event stands in its dispatch.
#[derive(Debug, Clone, Copy)]
enum At {
    /// It is that of this member.
    Member(u32),
    /// It is one of the list of events.
    Listed(u32),
}

impl Event {
    pub(crate) const fn of_member(lease: Arc<Lease>, index: u32) -> Self {
        let at = At::Member(index);
        Self { lease, at }
    }

    /// What a member sees: its batch, the events that were joined, or the one it has.
    pub(crate) fn all_of(lease: &Arc<Lease>, index: u32) -> Vec<Self> {
        let member = &lease.dispatch.members[index as usize];
        match member.batch.as_ref().or(member.joined.as_ref()) {
            Some(range) => {
                let at = range.clone().map(At::Listed);
                let lease = || Arc::clone(lease);
                at.map(|at| Self { lease: lease(), at }).collect()
            }
            None if member.has_event => vec![Self::of_member(Arc::clone(lease), index)],
            None => Vec::new(),
        }
    }

    fn of(&self) -> &evermill_contract::worker::Event {
        match self.at {
            At::Member(index) => &self.lease.dispatch.members[index as usize].event,
            At::Listed(index) => &self.lease.dispatch.events[index as usize],
        }
    }

    fn part(&self, range: Option<Range>) -> Option<&[u8]> {
        range.map(|range| member::part(&self.lease.dispatch, Some(range)))
    }

    /// The content; `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.part(self.of().value)
    }

    /// The content as text.
    ///
    /// # Errors
    /// When it is no UTF-8, or there is none.
    pub fn text(&self) -> Result<&str, Failure> {
        let value = self
            .value()
            .ok_or_else(|| Failure::new("this event has no value (a tombstone)"))?;
        Ok(std::str::from_utf8(value)?)
    }

    /// The content, read as JSON.
    ///
    /// # Errors
    /// When it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        Ok(serde_json::from_str(self.text()?)?)
    }

    /// A header; the last one if there are several of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let headers = Headers::new(self.part(self.of().headers)?);
        let values = headers.filter(|(found, _)| *found == name.as_bytes());
        values.last().and_then(|(_, value)| value)
    }

    /// The key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.part(self.of().key)
    }

    /// Where it stands in its lane.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.of().position
    }

    /// Milliseconds since 1970, if the source knows a time.
    #[must_use]
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.of().timestamp_ms
    }

    /// The source's id.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.lease.dispatch.lanes[usize::from(self.of().lane)].source
    }

    /// The lane's name, such as `orders/3`.
    #[must_use]
    pub fn lane(&self) -> &str {
        &self.lease.dispatch.lanes[usize::from(self.of().lane)].lane
    }
}
