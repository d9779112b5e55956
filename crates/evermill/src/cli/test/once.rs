//! A source that holds the events it was given and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use evermill_contract::source::{
    BatchBuilder, EventBatch, FirstPosition, LaneFound, LaneName, NO_TIMESTAMP, Origin, Resolved,
    Source, SourceError, SourceEvent, Waker,
};
use evermill_engine::view::Blob;
use serde::Deserialize;
use serde_json::Value;

/// An event, as `evermill parked export` writes it.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::cli) struct Event {
    #[serde(default)]
    pub(in crate::cli) position: u64,
    pub(in crate::cli) timestamp_ms: Option<i64>,
    pub(in crate::cli) key: Option<Blob>,
    #[serde(default)]
    pub(in crate::cli) headers: Vec<(String, Option<Blob>)>,
    pub(in crate::cli) value: Option<Blob>,
    #[serde(default = "test_lane")]
    pub(in crate::cli) lane: String,
}

fn test_lane() -> String {
    "test/0".to_owned()
}

/// Reads events as they were given.
///
/// # Errors
/// What is no event, in a sentence.
pub(super) fn read(events: &[Value]) -> Result<Vec<Event>, String> {
    let read = |event: &Value| serde_json::from_value(event.clone());
    let events: Result<Vec<Event>, _> = events.iter().map(read).collect();
    events.map_err(|error| format!("the event: {error}"))
}

/// Delivers the events of each lane once, in order, then has nothing any more.
pub(in crate::cli) struct Once {
    lanes: BTreeMap<LaneName, Lane>,
    told: bool,
    wake: (Sender<()>, Receiver<()>),
}

struct Lane {
    first: u64,
    end: u64,
    batch: Option<EventBatch>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Found,
    Started,
    Delivered,
    Over,
}

impl Once {
    /// Events in any order; of those at one position of a lane, the first.
    pub(in crate::cli) fn new(events: &[Event]) -> Self {
        let mut by_lane: BTreeMap<&str, BTreeMap<u64, &Event>> = BTreeMap::new();
        for event in events {
            let lane = by_lane.entry(&event.lane).or_default();
            lane.entry(event.position).or_insert(event);
        }
        let lane = |events: BTreeMap<u64, &Event>| Lane {
            first: events.keys().next().copied().unwrap_or(0),
            end: events.keys().next_back().map_or(0, |last| last + 1),
            batch: Some(batch(events.into_values())),
            stage: Stage::Found,
        };
        let mut lanes: BTreeMap<LaneName, Lane> = by_lane
            .into_iter()
            .map(|(name, events)| (name.into(), lane(events)))
            .collect();
        if lanes.is_empty() {
            let empty = Lane {
                batch: None,
                ..lane(BTreeMap::new())
            };
            lanes.insert(test_lane().into(), empty);
        }
        Self {
            lanes,
            told: false,
            wake: bounded(1),
        }
    }
}

pub(in crate::cli) fn batch<'a>(events: impl Iterator<Item = &'a Event>) -> EventBatch {
    let bytes = |blob: &Option<Blob>| blob.as_ref().and_then(Blob::bytes);
    let mut batch = BatchBuilder::default();
    for event in events {
        let headers: Vec<(&str, Option<Vec<u8>>)> = event
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), bytes(value)))
            .collect();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_deref()));
        batch.push(
            event.position,
            event.timestamp_ms.unwrap_or(NO_TIMESTAMP),
            bytes(&event.key).as_deref(),
            headers,
            bytes(&event.value).as_deref(),
        );
    }
    batch.finish()
}

impl Source for Once {
    fn poll(&mut self, wait: Duration, out: &mut Vec<SourceEvent>) -> Result<(), SourceError> {
        if !std::mem::replace(&mut self.told, true) {
            out.extend(self.lanes.keys().map(|name| {
                SourceEvent::Lane(LaneFound {
                    name: name.clone(),
                    incarnation: "test".to_owned(),
                    appeared: false,
                    shared: false,
                })
            }));
            return Ok(());
        }
        for (name, lane) in &mut self.lanes {
            let name = name.clone();
            match lane.stage {
                Stage::Found | Stage::Over => {}
                Stage::Started => {
                    lane.stage = Stage::Delivered;
                    let batch = lane.batch.take();
                    out.extend(batch.map(|batch| SourceEvent::Batch { lane: name, batch }));
                }
                Stage::Delivered => {
                    lane.stage = Stage::Over;
                    let end = lane.end;
                    out.push(SourceEvent::CaughtUp { lane: name, end });
                }
            }
        }
        let waits = self
            .lanes
            .values()
            .all(|lane| matches!(lane.stage, Stage::Found | Stage::Over));
        if out.is_empty() && waits {
            // Woken early or not: there is nothing more.
            self.wake.1.recv_timeout(wait).ok();
        }
        Ok(())
    }

    fn resolve(&mut self, lane: &LaneName, _: FirstPosition) -> Result<Resolved, SourceError> {
        Ok(Resolved {
            position: self.lanes.get(lane).map_or(0, |lane| lane.first),
            origin: Origin::Earliest,
        })
    }

    fn start_lane(&mut self, lane: &LaneName, _: u64, _: Option<&str>) -> Result<(), SourceError> {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.stage = Stage::Started;
        }
        Ok(())
    }

    fn credit(&mut self, _: &LaneName, _: bool) {}

    fn ack(&mut self, _: &LaneName, _: u64) {}

    fn waker(&self) -> Waker {
        let wake = self.wake.0.clone();
        Waker::new(move || {
            // One is enough to be awake.
            wake.try_send(()).ok();
        })
    }

    fn close(&mut self) {}
}
