//! A source that always has events, and a DAG that reads it; shared by the engine's benchmarks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use evermill_contract::manifest::Manifest;
use evermill_contract::source::{
    BatchBuilder, FirstPosition, LaneFound, LaneName, NO_TIMESTAMP, Origin, Resolved, Source,
    SourceError, SourceEvent, Waker,
};
use evermill_engine::StartRequest;

/// A DAG with the source `in` and these tasks (JSON of the manifest).
pub(crate) fn request(tasks: &str) -> StartRequest {
    let json = format!(
        r#"{{"format":1,"entry":"d.py","files":[],"dags":[{{"id":"d","file":"d.py","line":1,
           "sources":[{{"id":"in","line":1,"config":{{"kind":"kafka","topic":"t"}}}}],"tasks":[{tasks}]}}]}}"#
    );
    StartRequest {
        manifest: Arc::new(Manifest::decode(json.as_bytes()).expect("a manifest")),
        dag: "d".to_owned(),
        files: BTreeMap::new(),
        folder: ".".into(),
        fresh: false,
        pass_gaps: false,
    }
}

/// Events that there are, and how many make a batch.
#[derive(Clone)]
pub(crate) struct Feed {
    end: Arc<AtomicU64>,
    batch: u64,
    wake: (Sender<()>, crossbeam_channel::Receiver<()>),
}

impl Feed {
    pub(crate) fn new(events: u64, batch: u64) -> Self {
        Self {
            end: Arc::new(AtomicU64::new(events)),
            batch,
            wake: bounded(1),
        }
    }

    pub(crate) fn add(&self, events: u64) {
        self.end.fetch_add(events, Ordering::SeqCst);
        self.wake.0.try_send(()).ok();
    }
}

pub(crate) struct FeedSource {
    feed: Feed,
    told: bool,
    open: bool,
    next: Option<u64>,
    payload: Vec<u8>,
}

impl FeedSource {
    pub(crate) fn new(feed: Feed) -> Self {
        Self {
            feed,
            told: false,
            open: true,
            next: None,
            payload: vec![b'v'; 200],
        }
    }
}

impl Source for FeedSource {
    fn poll(&mut self, wait: Duration, out: &mut Vec<SourceEvent>) -> Result<(), SourceError> {
        let lane = LaneName::from("feed");
        if !std::mem::replace(&mut self.told, true) {
            let found = LaneFound {
                name: lane,
                incarnation: "1".to_owned(),
                appeared: false,
                shared: false,
            };
            out.push(SourceEvent::Lane(found));
            return Ok(());
        }
        let end = self.feed.end.load(Ordering::SeqCst);
        let Some(next) = self.next.filter(|&next| self.open && next < end) else {
            self.feed.wake.1.recv_timeout(wait).ok();
            return Ok(());
        };
        let upto = end.min(next + self.feed.batch);
        let size = (upto - next) as usize;
        let mut batch = BatchBuilder::with_capacity(size, size * self.payload.len());
        for position in next..upto {
            batch.push(position, NO_TIMESTAMP, None, [], Some(&self.payload));
        }
        self.next = Some(upto);
        out.push(SourceEvent::Batch {
            lane,
            batch: batch.finish(),
        });
        Ok(())
    }

    fn resolve(&mut self, _: &LaneName, _: FirstPosition) -> Result<Resolved, SourceError> {
        Ok(Resolved {
            position: 0,
            origin: Origin::Earliest,
        })
    }

    fn start_lane(&mut self, _: &LaneName, from: u64, _: Option<&str>) -> Result<(), SourceError> {
        self.next = Some(from);
        Ok(())
    }

    fn credit(&mut self, _: &LaneName, open: bool) {
        self.open = open;
    }

    fn ack(&mut self, _: &LaneName, _: u64) {}

    fn waker(&self) -> Waker {
        let wake = self.feed.wake.0.clone();
        Waker::new(move || {
            wake.try_send(()).ok();
        })
    }

    fn close(&mut self) {}
}
