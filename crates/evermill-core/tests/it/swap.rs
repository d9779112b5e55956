//! Versions that list their sources differently (W16): a lane belongs to its source's id.

use std::collections::BTreeMap;
use std::sync::Arc;

use evermill_core::Machine;
use evermill_core::command::{
    Command, Decision, DispatchId, Fence, LaneId, Limited, Outcome, OutcomeRun,
};
use evermill_core::dag::{Dag, DagSpec, JoinSpec, Node, Order, SourceSpec, TaskSpec};
use evermill_core::row::{Row, Write};

use crate::chain::{dispatches, events};

const FENCE: Fence = Fence {
    epoch: 1,
    incarnation: 0,
};

/// A task of its own behind each source.
fn version(name: &str, sources: &[&str]) -> Arc<Dag> {
    let task = |(place, id): (usize, &&str)| {
        TaskSpec::new(format!("{name}_{id}"), vec![Node::Source(place as u16)])
    };
    let spec = DagSpec {
        id: "d".into(),
        version: name.into(),
        order: Order::None,
        sources: sources.iter().map(|id| SourceSpec::new(*id)).collect(),
        tasks: sources.iter().enumerate().map(task).collect(),
        join: JoinSpec::default(),
        deadline_ms: None,
        max_active_runs: None,
        full_history: false,
    };
    Arc::new(Dag::compile(spec).expect("it is a DAG"))
}

struct Scene {
    machine: Machine,
    out: Decision,
    rows: BTreeMap<(u8, Vec<u8>), Row>,
}

impl Scene {
    fn started(dag: &Arc<Dag>) -> Self {
        let mut scene = Self {
            machine: Machine::new(FENCE),
            out: Decision::default(),
            rows: BTreeMap::new(),
        };
        scene.apply(Command::Start {
            run: 1,
            name: "r".into(),
            dag: Arc::clone(dag),
            fresh: false,
        });
        scene.apply(Command::Capacity { slots: 4 });
        scene
    }

    fn apply(&mut self, command: Command) {
        self.machine.apply(1, command, &mut self.out);
    }

    /// The lane of a source, by its place in the current version.
    fn open(&mut self, source: u16, id: &str) -> LaneId {
        self.apply(Command::OpenLane {
            run: 1,
            source,
            name: format!("{id}/0"),
            incarnation: "i".into(),
            first: 0,
        });
        self.lane(id)
    }

    fn lane(&self, id: &str) -> LaneId {
        let mut lanes = self.machine.lanes(1);
        lanes.find(|lane| lane.source_id == id).unwrap().lane
    }

    fn read(&mut self, lane: LaneId, positions: std::ops::Range<u64>) {
        let events = events(positions);
        self.apply(Command::Ingest { lane, events });
    }

    fn swap(&mut self, dag: &Arc<Dag>) {
        self.swap_with(dag, Vec::new());
    }

    fn swap_with(&mut self, dag: &Arc<Dag>, rates: Vec<(Limited, u32, u64)>) {
        self.apply(Command::Swap {
            run: 1,
            dag: Arc::clone(dag),
            rates,
        });
    }

    /// Runs everything that is ready; the tasks that ran, with the positions they saw.
    fn work(&mut self) -> Vec<(String, u64)> {
        let mut ran = Vec::new();
        loop {
            let ids: Vec<DispatchId> = dispatches(&mut self.out);
            if ids.is_empty() {
                ran.sort();
                return ran;
            }
            for id in ids {
                let view = self.machine.dispatch(id).expect("it is out");
                let task = view.dag().spec.tasks[usize::from(view.task())].id.clone();
                let members = view.members().map(|member| member.activation().position);
                ran.extend(members.map(|position| (task.clone(), position)));
                let runs = vec![OutcomeRun {
                    first: 0,
                    count: view.len() as u32,
                    outcome: Outcome::Success,
                }];
                let fence = self.machine.fence();
                self.apply(Command::Outcomes {
                    dispatch: id,
                    fence,
                    runs,
                });
                self.apply(Command::Finished {
                    dispatch: id,
                    fence,
                });
            }
        }
    }

    /// Commits, and forgets everything else.
    fn crash(&mut self, versions: &[&Arc<Dag>]) {
        self.machine.seal(&mut self.out);
        for write in std::mem::take(&mut self.out).writes {
            let address = |row: &evermill_core::row::Key| {
                [&row.run.to_be_bytes()[..], &row.lane.to_be_bytes(), &row.id].concat()
            };
            match write {
                Write::Put(row) => {
                    let key = (row.table as u8, address(&row.key));
                    self.rows.insert(key, row);
                }
                Write::Delete(table, key) => {
                    self.rows.remove(&(table as u8, address(&key)));
                }
                Write::DeletePrefix(table, key) => {
                    let prefix = address(&key);
                    self.rows
                        .retain(|(of, at), _| *of != table as u8 || !at.starts_with(&prefix));
                }
                Write::History(_) => {}
            }
        }
        let rows: Vec<Row> = self.rows.values().cloned().collect();
        let known = versions.iter();
        let known = known.map(|dag| (dag.spec.version.clone(), Arc::clone(dag)));
        let fence = Fence {
            epoch: self.machine.fence().epoch + 1,
            incarnation: 0,
        };
        let (machine, out) = Machine::resume(fence, 2, false, rows, &known.collect()).unwrap();
        (self.machine, self.out) = (machine, out);
        self.apply(Command::Capacity { slots: 4 });
    }
}

fn ran(task: &str, positions: std::ops::Range<u64>) -> Vec<(String, u64)> {
    positions
        .map(|position| (task.to_owned(), position))
        .collect()
}

#[test]
fn sources_that_change_places_keep_their_lanes_and_their_versions_keep_their_tasks() {
    let (old, new) = (
        version("old", &["a", "b"]),
        version("new", &["c", "b", "a"]),
    );
    let mut scene = Scene::started(&old);
    let (a, b) = (scene.open(0, "a"), scene.open(1, "b"));
    scene.read(a, 0..2);
    scene.read(b, 0..3);
    scene.swap(&new);
    scene.read(a, 2..4);
    scene.read(b, 3..4);
    let mut expected = [ran("old_a", 0..2), ran("old_b", 0..3)].concat();
    expected.extend([ran("new_a", 2..4), ran("new_b", 3..4)].concat());
    expected.sort();
    assert_eq!(scene.work(), expected);
    assert_eq!(scene.open(2, "a"), a, "the same lane at its new place");
    let c = scene.open(0, "c");
    scene.read(c, 0..1);
    assert_eq!(scene.work(), ran("new_c", 0..1));
}

#[test]
fn a_lane_whose_source_is_gone_keeps_its_position_until_a_version_has_it_again() {
    let versions = [
        version("one", &["a", "b"]),
        version("two", &["b"]),
        version("three", &["b", "a"]),
    ];
    let [one, two, three] = &versions;
    let mut scene = Scene::started(one);
    let (a, b) = (scene.open(0, "a"), scene.open(1, "b"));
    scene.read(a, 0..3);
    assert_eq!(scene.work(), ran("one_a", 0..3));
    scene.swap(two);
    let gone = scene.machine.lanes(1).find(|lane| lane.lane == a).unwrap();
    assert!(gone.retired && gone.source_id == "a");
    scene.read(a, 3..5);
    scene.read(b, 0..1);
    assert_eq!(
        scene.work(),
        ran("two_b", 0..1),
        "nothing new comes from it"
    );
    scene.crash(&[one, two, three]);
    let gone = scene.machine.lanes(1).find(|lane| lane.lane == a).unwrap();
    assert!(gone.retired && gone.low == 3);
    scene.swap(three);
    assert_eq!(scene.open(1, "a"), a);
    scene.read(a, 3..5);
    assert_eq!(scene.work(), ran("three_a", 3..5));
}

#[test]
fn what_is_in_flight_is_counted_by_version_and_versions_that_nothing_names_are_struck() {
    let versions: Vec<Arc<Dag>> = (0..5).map(|n| version(&format!("v{n}"), &["a"])).collect();
    let mut scene = Scene::started(&versions[0]);
    let a = scene.open(0, "a");
    scene.read(a, 0..2);
    scene.swap(&versions[1]);
    scene.read(a, 2..5);
    let counts = scene.machine.in_flight_by_version(1);
    let expected = BTreeMap::from([("v0".to_owned(), 2), ("v1".to_owned(), 3)]);
    assert_eq!(counts, expected);
    scene.work();
    scene.machine.seal(&mut scene.out);
    assert!(scene.machine.in_flight_by_version(1).is_empty());
    for next in &versions[2..] {
        scene.swap(next);
        scene.machine.seal(&mut scene.out);
    }
    let named: Vec<&str> = scene.machine.versions().collect();
    assert!(!named.contains(&"v0") && named.contains(&"v4"), "{named:?}");
    assert_eq!(scene.machine.run(1).unwrap().version, "v4");
}

/// W16, W19: what waits for a slot of `max_active_runs` starts with the swap that lifts it, and no faster than the
/// new version allows.
#[test]
fn the_rates_of_a_version_hold_before_anything_of_it_starts() {
    let mut spec = version("old", &["in"]).spec.clone();
    spec.max_active_runs = Some(1);
    let old = Arc::new(Dag::compile(spec).expect("it is a DAG"));
    let mut scene = Scene::started(&old);
    let lane = scene.open(0, "in");
    scene.read(lane, 0..10);
    let new = version("new", &["in"]);
    scene.swap_with(&new, vec![(Limited::Task(0), 2, 60_000)]);
    let ran = scene.work();
    let of_new = ran.iter().filter(|(task, _)| task == "new_in").count();
    assert_eq!(of_new, 2, "{ran:?}");
}
