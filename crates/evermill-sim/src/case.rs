//! A case: a DAG, its events, what its user code does, and how rough its world is.

use std::collections::{BTreeMap, BTreeSet};

use evermill_core::command::{Event, Limited};
use evermill_core::dag::DagSpec;

use crate::feature::Features;
use crate::graph::Graph;
use crate::oracle::Activation;
use crate::script::{Act, Script};

/// Everything that one simulated history is derived from, the order of steps excepted.
#[derive(Debug, Clone)]
pub struct Case {
    /// The number it was generated from.
    pub seed: u64,
    /// What it may contain.
    pub features: Features,
    /// The DAG.
    pub spec: DagSpec,
    /// What there is to read.
    pub lanes: Vec<LaneCase>,
    /// What user code does.
    pub script: Script,
    /// What the world does.
    pub world: Rough,
}

/// A lane and its events.
#[derive(Debug, Clone)]
pub struct LaneCase {
    /// Index into `DagSpec::sources`.
    pub source: u16,
    /// Its name.
    pub name: String,
    /// Its first position.
    pub first: u64,
    /// In read order.
    pub events: Vec<Event>,
    /// It is a stretch of the live lane of this name, read again (W18); the first position that it
    /// no longer reads.
    pub replay_until: Option<u64>,
    /// Of a replay: with effect keys of its own.
    pub fresh_keys: bool,
    /// It is the live lane of this name once that was reset (W18).
    pub reset: bool,
}

impl LaneCase {
    /// It is there from the start.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.replay_until.is_none() && !self.reset
    }
}

/// How rough the world is.
#[derive(Debug, Clone)]
pub struct Rough {
    /// Seed of the world's own choices.
    pub seed: u64,
    /// Slots the workers offer at most.
    pub slots: u32,
    /// Events in one ingest command at most.
    pub chunk: u64,
    /// Unclean stops at most.
    pub crashes: u32,
    /// Clean stops at most.
    pub clean_stops: u32,
    /// Worker deaths at most.
    pub deaths: u32,
    /// Decisions that may wait for their commit.
    pub lag: usize,
    /// Steps at which to crash, for scenarios.
    pub crash_at: BTreeSet<u64>,
    /// Rate limits: task, members, interval in milliseconds.
    pub rates: Vec<(Limited, u32, u64)>,
    /// Swaps of the version at most.
    pub swaps: u32,
    /// How eager each kind of step is.
    pub eager: [u64; 8],
    /// Slots of each pool.
    pub pools: Vec<u32>,
}

/// An event of a join: the activation it would open, its source, itself.
type Fired = (Act, u16, Event);

impl Case {
    /// Whether its activations are lists of events (W8).
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.spec
            .sources
            .iter()
            .any(|source| source.batch.is_some())
    }

    /// The live lane that a replay reads again, or that is reset.
    #[must_use]
    pub fn replayed(&self, replay: usize) -> Option<usize> {
        let name = &self.lanes[replay].name;
        let live = |lane: &LaneCase| lane.is_first() && lane.name == *name;
        self.lanes.iter().position(live)
    }

    /// Whether the machine emits its events itself (W15).
    #[must_use]
    pub fn is_loop(&self) -> bool {
        self.spec
            .sources
            .iter()
            .any(|source| source.looped.is_some())
    }

    /// Which event of its source this is, counted per key where joins go by key (W6).
    #[must_use]
    pub fn rank(&self, source: u16, event: &Event) -> Option<(usize, u128)> {
        let by_key = self.spec.join.on_key;
        let lane = self.lanes.iter().find(|lane| lane.source == source)?;
        let mut alike = lane.events.iter().filter(|e| !by_key || e.key == event.key);
        let rank = alike.position(|e| e == event)?;
        Some((rank, if by_key { event.key } else { 0 }))
    }

    /// Every event in one activation: lists of `size` events, or pairs of which one `opened`.
    #[must_use]
    pub fn activations(
        &self,
        graph: &Graph,
        size: impl Fn(&Act) -> usize,
        opened: impl Fn(&Act) -> bool,
    ) -> Vec<Activation> {
        if graph.joins {
            return self.joined(opened);
        }
        let mut all = Vec::new();
        for (at, lane) in self.lanes.iter().enumerate() {
            if lane.replay_until.is_some() && self.replayed(at).is_none() {
                continue;
            }
            let mut next = 0;
            while let Some(first) = lane.events.get(next) {
                let act = Act {
                    lane: at as u16,
                    position: first.position,
                    child: 0,
                };
                let until = lane.events.len().min(next + size(&act));
                let events = lane.events[next..until].iter();
                let events = events.map(|event| (lane.source, event.clone())).collect();
                all.push(Activation {
                    act,
                    fired: BTreeSet::from([lane.source]),
                    events,
                });
                next = until;
            }
        }
        all
    }

    fn joined(&self, opened: impl Fn(&Act) -> bool) -> Vec<Activation> {
        let mut pairs: BTreeMap<(usize, u128), Vec<Fired>> = BTreeMap::new();
        for (at, lane) in self.lanes.iter().enumerate() {
            for event in &lane.events {
                let act = Act {
                    lane: at as u16,
                    position: event.position,
                    child: 0,
                };
                if let Some(rank) = self.rank(lane.source, event) {
                    pairs
                        .entry(rank)
                        .or_default()
                        .push((act, lane.source, event.clone()));
                }
            }
        }
        let activation = |mut pair: Vec<(Act, u16, Event)>| {
            pair.sort_by_key(|(act, ..)| !opened(act));
            let fired = pair.iter().map(|(_, source, _)| *source).collect();
            let act = pair[0].0;
            let events = pair
                .into_iter()
                .map(|(_, source, event)| (source, event))
                .collect();
            Activation { act, fired, events }
        };
        pairs.into_values().map(activation).collect()
    }

    /// For people: what the case is made of.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let spec = &self.spec;
        text.push_str(&format!(
            "seed {}, order {:?}, join {:?}\n",
            self.seed, spec.order, spec.join
        ));
        if spec.deadline_ms.is_some() || spec.max_active_runs.is_some() {
            let (deadline, active) = (spec.deadline_ms, spec.max_active_runs);
            text.push_str(&format!(
                "deadline {deadline:?}, max_active_runs {active:?}\n"
            ));
        }
        for source in &spec.sources {
            text.push_str(&format!(
                "source {}: {:?} {:?}\n",
                source.id, source.batch, source.looped
            ));
        }
        for (at, task) in spec.tasks.iter().enumerate() {
            text.push_str(&format!(
                "task {at} '{}' {:?} up {:?} rule {:?}",
                task.id, task.kind, task.upstream, task.rule
            ));
            text.push_str(&format!(
                " retries {} backoff {:?}",
                task.retries, task.backoff
            ));
            text.push_str(&format!(" {:?} {:?}", task.on_failure, task.on_interrupt));
            for (on, word) in [
                (task.setup, "setup"),
                (task.teardown, "teardown"),
                (task.reads_committed, "reads"),
                (task.writes_state, "state"),
                (task.reads_state, "recalls"),
            ] {
                if on {
                    text.push_str(&format!(" {word}"));
                }
            }
            let bounds = (task.batch, task.concurrency, task.pool, task.mapped);
            text.push_str(&format!(" batch/concurrency/pool/mapped {bounds:?}\n"));
        }
        for lane in &self.lanes {
            let events: Vec<String> = lane
                .events
                .iter()
                .map(|e| format!("{}(k{})", e.position, e.key))
                .collect();
            let replay = lane.replay_until.map_or("", |_| " (replay)");
            text.push_str(&format!(
                "lane {}{replay} of source {} from {}: {}\n",
                lane.name,
                lane.source,
                lane.first,
                events.join(" ")
            ));
        }
        let script = Script {
            written: Default::default(),
            ..self.script.clone()
        };
        text.push_str(&format!("script {script:?}\n"));
        for (key, answer) in &self.script.written {
            text.push_str(&format!("  {key:?} -> {answer:?}\n"));
        }
        text.push_str(&format!("world {:?}\n", self.world));
        text
    }
}
