//! A broker in memory with log lanes, and a source that reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use evermill_contract::source::{
    BatchBuilder, FirstPosition, LaneFound, LaneName, NO_TIMESTAMP, Origin, Place, Resolved,
    Source, SourceBudget, SourceError, SourceEvent, Waker,
};

use crate::harness::PATIENCE;

/// Shared by tests and sources; survives the engine, like a broker.
#[derive(Clone, Default)]
pub(crate) struct Broker(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lanes: BTreeMap<LaneName, Lane>,
    wakes: u64,
    /// Events handed to a source, ever.
    delivered: u64,
    /// Times a source was asked for events, ever.
    polls: u64,
    /// The readers that share the lanes.
    group: Option<Group>,
}

/// Readers that share lanes, as the one under test sees them.
#[derive(Default)]
struct Group {
    /// Lanes it was given and not told of yet.
    given: Vec<LaneName>,
    /// Lanes it is to lose and was not told of yet.
    taken: Vec<LaneName>,
    /// How far all of them together have got.
    stands: BTreeMap<LaneName, u64>,
    released: BTreeMap<LaneName, Option<u64>>,
}

#[derive(Default)]
struct Lane {
    values: Vec<String>,
    /// Values below are gone.
    low: u64,
    acked: u64,
}

impl Broker {
    pub(crate) fn with_lanes(names: &[&str]) -> Self {
        let broker = Self::default();
        for name in names {
            broker
                .0
                .state
                .lock()
                .unwrap()
                .lanes
                .insert(LaneName::from(*name), Lane::default());
        }
        broker
    }

    /// From now on lanes are read by whom they are given to.
    pub(crate) fn share(&self) {
        self.0.state.lock().unwrap().group = Some(Group::default());
    }

    fn regroup(&self, change: impl FnOnce(&mut Group)) {
        let mut state = self.0.state.lock().unwrap();
        change(state.group.as_mut().expect("lanes are shared"));
        state.wakes += 1;
        self.0.changed.notify_all();
    }

    /// Gives a lane to the source; all readers together have got to `stands`.
    pub(crate) fn give(&self, lane: &str, stands: u64) {
        self.regroup(|group| {
            group.stands.insert(LaneName::from(lane), stands);
            group.released.remove(&LaneName::from(lane));
            group.given.push(LaneName::from(lane));
        });
    }

    /// Wants a lane for another reader.
    pub(crate) fn take(&self, lane: &str) {
        self.regroup(|group| group.taken.push(LaneName::from(lane)));
    }

    /// Where the source has let go of a lane, if it has.
    pub(crate) fn released(&self, lane: &str) -> Option<Option<u64>> {
        let state = self.0.state.lock().unwrap();
        let group = state.group.as_ref().expect("lanes are shared");
        group.released.get(&LaneName::from(lane)).copied()
    }

    /// A value such as `k=1` has the key `k`.
    pub(crate) fn publish(&self, lane: &str, values: impl IntoIterator<Item = String>) {
        let mut state = self.0.state.lock().unwrap();
        state
            .lanes
            .get_mut(&LaneName::from(lane))
            .unwrap()
            .values
            .extend(values);
        self.0.changed.notify_all();
    }

    /// Retention: everything below `low` is gone.
    pub(crate) fn forget_below(&self, lane: &str, low: u64) {
        let mut state = self.0.state.lock().unwrap();
        state.lanes.get_mut(&LaneName::from(lane)).unwrap().low = low;
    }

    /// The position the engine said was durable.
    pub(crate) fn acked(&self, lane: &str) -> u64 {
        self.0.state.lock().unwrap().lanes[&LaneName::from(lane)].acked
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.0.state.lock().unwrap().delivered
    }

    /// Returns once whatever was sent to the source before is in its hands: between two polls it
    /// takes all of it.
    pub(crate) fn until_heard(&self) {
        let mut state = self.0.state.lock().unwrap();
        let enough = state.polls + 2;
        while state.polls < enough {
            state.wakes += 1;
            self.0.changed.notify_all();
            let (again, late) = self.0.changed.wait_timeout(state, PATIENCE).unwrap();
            assert!(!late.timed_out(), "the source is not asked any more");
            state = again;
        }
    }

    pub(crate) fn source(&self, budget: SourceBudget) -> Box<dyn Source> {
        Box::new(FakeSource {
            broker: self.clone(),
            budget,
            told: false,
            reading: BTreeMap::new(),
            wakes_seen: 0,
        })
    }
}

struct FakeSource {
    broker: Broker,
    budget: SourceBudget,
    told: bool,
    reading: BTreeMap<LaneName, Reading>,
    wakes_seen: u64,
}

struct Reading {
    next: Option<u64>,
    open: bool,
    said_end: Option<u64>,
}

impl FakeSource {
    /// What there is to say now.
    fn look(&mut self, state: &mut State, out: &mut Vec<SourceEvent>) {
        let found = match &mut state.group {
            Some(group) => std::mem::take(&mut group.given),
            None if self.told => Vec::new(),
            None => state.lanes.keys().cloned().collect(),
        };
        self.told = true;
        let shared = state.group.is_some();
        for name in found {
            let reading = Reading {
                next: None,
                open: true,
                said_end: None,
            };
            self.reading.insert(name.clone(), reading);
            out.push(SourceEvent::Lane(LaneFound {
                name,
                incarnation: "first".to_owned(),
                appeared: false,
                shared,
            }));
        }
        for lane in state
            .group
            .iter_mut()
            .flat_map(|group| group.taken.drain(..))
        {
            self.reading.get_mut(&lane).unwrap().next = None;
            out.push(SourceEvent::LaneTaken { lane });
        }
        for (name, reading) in self.reading.iter_mut().filter(|(_, reading)| reading.open) {
            let Some(next) = reading.next else { continue };
            let low = state.lanes[name].low;
            if next < low {
                reading.next = None;
                let (lane, reason) = (name.clone(), "retention".to_owned());
                out.push(SourceEvent::Gap {
                    lane,
                    from: next,
                    to: low,
                    reason,
                });
                continue;
            }
            let values = &state.lanes[name].values;
            let end = values.len() as u64;
            let upto = end.min(next + self.budget.batch_events as u64);
            if next < upto {
                let mut batch = BatchBuilder::default();
                for at in next..upto {
                    let value = &values[at as usize];
                    let key = value.split_once('=').map(|(key, _)| key.as_bytes());
                    batch.push(at, NO_TIMESTAMP, key, [], Some(value.as_bytes()));
                }
                state.delivered += upto - next;
                reading.next = Some(upto);
                out.push(SourceEvent::Batch {
                    lane: name.clone(),
                    batch: batch.finish(),
                });
            }
            if upto == end && reading.said_end != Some(end) {
                reading.said_end = Some(end);
                out.push(SourceEvent::CaughtUp {
                    lane: name.clone(),
                    end,
                });
            }
        }
    }
}

impl Source for FakeSource {
    fn poll(&mut self, wait: Duration, out: &mut Vec<SourceEvent>) -> Result<(), SourceError> {
        let broker = self.broker.clone();
        let mut state = broker.0.state.lock().unwrap();
        state.polls += 1;
        broker.0.changed.notify_all();
        self.look(&mut state, out);
        if out.is_empty() && self.wakes_seen == state.wakes {
            state = broker.0.changed.wait_timeout(state, wait).unwrap().0;
            self.look(&mut state, out);
        }
        self.wakes_seen = state.wakes;
        Ok(())
    }

    fn resolve(&mut self, lane: &LaneName, _: FirstPosition) -> Result<Resolved, SourceError> {
        assert!(self.reading.contains_key(lane));
        let state = self.broker.0.state.lock().unwrap();
        let stands = state.group.as_ref().map(|group| group.stands[lane]);
        Ok(Resolved {
            position: stands.unwrap_or(0),
            origin: stands.map_or(Origin::Earliest, |_| Origin::Committed),
        })
    }

    /// A position is a millisecond.
    fn locate(&mut self, lane: &LaneName, place: Place) -> Result<u64, SourceError> {
        let state = self.broker.0.state.lock().unwrap();
        let (low, end) = (state.lanes[lane].low, state.lanes[lane].values.len() as u64);
        Ok(match place {
            Place::Earliest => low,
            Place::Latest => end,
            Place::Time(ms) => u64::try_from(ms).unwrap().clamp(low, end),
            Place::Position(position) => position,
        })
    }

    fn release(&mut self, lane: &LaneName, position: Option<u64>) {
        let mut state = self.broker.0.state.lock().unwrap();
        let group = state.group.as_mut().expect("lanes are shared");
        group.released.insert(lane.clone(), position);
    }

    fn start_lane(
        &mut self,
        lane: &LaneName,
        from: u64,
        _: Option<&str>,
    ) -> Result<(), SourceError> {
        let reading = self.reading.get_mut(lane).unwrap();
        reading.next = Some(from);
        reading.said_end = None;
        Ok(())
    }

    fn credit(&mut self, lane: &LaneName, open: bool) {
        self.reading.get_mut(lane).unwrap().open = open;
    }

    fn ack(&mut self, lane: &LaneName, position: u64) {
        self.broker
            .0
            .state
            .lock()
            .unwrap()
            .lanes
            .get_mut(lane)
            .unwrap()
            .acked = position;
    }

    fn waker(&self) -> Waker {
        let broker = self.broker.clone();
        Waker::new(move || {
            broker.0.state.lock().unwrap().wakes += 1;
            broker.0.changed.notify_all();
        })
    }

    fn close(&mut self) {}
}
