//! A source that holds the events of one activation and nothing else.

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
pub(super) struct Event {
    #[serde(default)]
    position: u64,
    timestamp_ms: Option<i64>,
    key: Option<Blob>,
    #[serde(default)]
    headers: Vec<(String, Option<Blob>)>,
    value: Option<Blob>,
    #[serde(default = "test_lane")]
    lane: String,
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

/// Delivers its events once, then has nothing any more.
pub(super) struct Once {
    lane: LaneName,
    first: u64,
    end: u64,
    batch: Option<EventBatch>,
    stage: Stage,
    wake: (Sender<()>, Receiver<()>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Hidden,
    Found,
    Started,
    Delivered,
    Over,
}

impl Once {
    pub(super) fn new(events: &[Event]) -> Self {
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
        Self {
            lane: events
                .first()
                .map_or_else(test_lane, |event| event.lane.clone())
                .into(),
            first: events.first().map_or(0, |event| event.position),
            end: events.last().map_or(0, |event| event.position + 1),
            batch: (!events.is_empty()).then(|| batch.finish()),
            stage: Stage::Hidden,
            wake: bounded(1),
        }
    }
}

impl Source for Once {
    fn poll(&mut self, wait: Duration, out: &mut Vec<SourceEvent>) -> Result<(), SourceError> {
        let lane = self.lane.clone();
        match self.stage {
            Stage::Hidden => {
                self.stage = Stage::Found;
                out.push(SourceEvent::Lane(LaneFound {
                    name: lane,
                    incarnation: "test".to_owned(),
                    appeared: false,
                    shared: false,
                }));
            }
            Stage::Started => {
                self.stage = Stage::Delivered;
                let batch = self.batch.take();
                out.extend(batch.map(|batch| SourceEvent::Batch { lane, batch }));
            }
            Stage::Delivered => {
                self.stage = Stage::Over;
                let end = self.end;
                out.push(SourceEvent::CaughtUp { lane, end });
            }
            Stage::Found | Stage::Over => {
                // Woken early or not: there is nothing more.
                self.wake.1.recv_timeout(wait).ok();
            }
        }
        Ok(())
    }

    fn resolve(&mut self, _: &LaneName, _: FirstPosition) -> Result<Resolved, SourceError> {
        Ok(Resolved {
            position: self.first,
            origin: Origin::Earliest,
        })
    }

    fn start_lane(&mut self, _: &LaneName, _: u64, _: Option<&str>) -> Result<(), SourceError> {
        self.stage = Stage::Started;
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
