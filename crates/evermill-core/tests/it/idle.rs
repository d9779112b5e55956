//! Bodies of activations that only wait: let go once they are durable, brought back before anything needs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use evermill_core::Machine;
use evermill_core::command::{
    ActivationKey, Command, Decision, DispatchId, Effect, Event, Fence, LaneId, Outcome,
    OutcomeRun, RunState, Selection,
};
use evermill_core::dag::{
    Backoff, Dag, DagSpec, JoinSpec, Node, OnFailure, Order, Poke, SourceSpec, TaskKind, TaskSpec,
};
use evermill_core::row::{Key, Table, Write};

const LANE: LaneId = LaneId { run: 1, lane: 1 };

struct Scene {
    machine: Machine,
    out: Decision,
    /// What is durable.
    rows: BTreeMap<Key, Bytes>,
}

fn dag(version: &str, kind: TaskKind, on_failure: OnFailure) -> Arc<Dag> {
    let wait = TaskSpec {
        kind,
        ..TaskSpec::new("wait", vec![Node::Source(0)])
    };
    let after = TaskSpec {
        on_failure,
        ..TaskSpec::new("after", vec![Node::Task(0)])
    };
    let spec = DagSpec {
        id: "waits".into(),
        version: version.into(),
        order: Order::None,
        sources: vec![SourceSpec::new("in")],
        tasks: vec![wait, after],
        join: JoinSpec::default(),
        deadline_ms: None,
        max_active_runs: None,
        full_history: false,
    };
    Arc::new(Dag::compile(spec).expect("it is a DAG"))
}

impl Scene {
    /// Two events that wait, not durable yet.
    fn new(kind: TaskKind) -> Self {
        Self::of(dag("v1", kind, OnFailure::Park))
    }

    fn of(dag: Arc<Dag>) -> Self {
        let fence = Fence {
            epoch: 1,
            incarnation: 0,
        };
        let mut scene = Self {
            machine: Machine::new(fence),
            out: Decision::default(),
            rows: BTreeMap::new(),
        };
        scene.apply(
            0,
            Command::Start {
                run: 1,
                name: "r".into(),
                dag,
                fresh: false,
            },
        );
        scene.apply(
            0,
            Command::OpenLane {
                run: 1,
                source: 0,
                name: "0".to_owned(),
                incarnation: "t/0".to_owned(),
                first: 0,
            },
        );
        scene.apply(0, Command::Capacity { slots: 2 });
        let event = |position| Event {
            position,
            key: u128::from(position) + 1,
            arrived_ms: 1,
            body: Bytes::from(format!("payload {position}")),
        };
        let events = vec![event(0), event(1)];
        scene.apply(1, Command::Ingest { lane: LANE, events });
        scene
    }

    fn apply(&mut self, now: u64, command: Command) {
        self.machine.apply(now, command, &mut self.out);
    }

    /// Seals what was decided; its effects.
    fn seal(&mut self) -> Vec<Effect> {
        self.machine.seal(&mut self.out);
        for write in self.out.writes.drain(..) {
            match write {
                Write::Put(row) if row.table == Table::Activation => {
                    self.rows.insert(row.key, row.body);
                }
                Write::Delete(Table::Activation, key) => drop(self.rows.remove(&key)),
                _ => {}
            }
        }
        self.out.effects.drain(..).collect()
    }

    fn commit(&mut self) -> Vec<Effect> {
        let effects = self.seal();
        self.machine.committed(self.machine.sealed());
        effects
    }

    fn bring(&mut self, now: u64, keys: &[ActivationKey]) {
        let row = |&key: &ActivationKey| (key, self.rows[&key.row()].clone());
        let bodies = keys.iter().map(row).collect();
        self.apply(now, Command::Fetched { bodies });
    }

    fn dispatches(&self) -> usize {
        let sent = |effect: &&Effect| matches!(effect, Effect::Dispatch { .. });
        self.out.effects.iter().filter(sent).count()
    }
}

fn at(position: u64) -> ActivationKey {
    ActivationKey {
        lane: LANE,
        position,
        child: 0,
    }
}

fn signal(key: u128, all: bool) -> Command {
    Command::Signal {
        run: 1,
        id: format!("{key}{all}"),
        name: "go".into(),
        key,
        body: Bytes::from_static(b"now"),
        all,
        to: None,
        expires_ms: 1_000_000,
    }
}

#[test]
fn what_is_not_durable_stays_here_and_goes_on_by_itself() {
    let mut scene = Scene::new(TaskKind::Delay { ms: 10_000 });
    scene.seal();
    scene.apply(20_000, Command::Timer);
    assert!(scene.machine.owed(10).is_empty());
    assert_eq!(scene.dispatches(), 2);
}

#[test]
fn what_is_due_goes_on_once_its_body_is_brought() {
    let mut scene = Scene::new(TaskKind::Delay { ms: 10_000 });
    scene.commit();
    assert_eq!(scene.machine.next_timer(), Some(10_001));
    scene.apply(10_001, Command::Timer);
    assert_eq!(scene.dispatches(), 0);
    assert_eq!(
        scene.machine.next_timer(),
        Some(10_001),
        "what is owed is due"
    );
    let first = scene.machine.owed(1);
    assert_eq!(first, [at(0)]);
    scene.bring(10_001, &first);
    assert_eq!(scene.dispatches(), 1);
    let second = scene.machine.owed(9);
    assert_eq!(second, [at(1)]);
    scene.bring(10_001, &second);
    assert!(scene.machine.owed(9).is_empty());
    assert_eq!(scene.machine.run(1).unwrap().waiting, 0);
}

#[test]
fn a_signal_names_those_it_is_for_and_reaches_them() {
    let kind = TaskKind::Signal { name: "go".into() };
    let mut scene = Scene::new(kind);
    scene.commit();
    assert_eq!(scene.machine.wanted(&signal(2, false)), [at(1)]);
    assert_eq!(scene.machine.wanted(&signal(0, true)), [at(0), at(1)]);
    assert!(scene.machine.wanted(&signal(7, false)).is_empty());
    let wanted = scene.machine.wanted(&signal(2, false));
    scene.bring(5, &wanted);
    assert_eq!(scene.dispatches(), 0, "being brought is no reason to go on");
    scene.apply(5, signal(2, false));
    assert_eq!(scene.machine.run(1).unwrap().waiting, 1);
    scene.commit();
    // The other one still waits for its own.
    assert_eq!(scene.machine.wanted(&signal(1, false)), [at(0)]);
}

#[test]
fn a_stop_parks_what_waits_with_its_payload() {
    let mut scene = Scene::new(TaskKind::Delay { ms: 10_000 });
    scene.commit();
    let stop = Command::Stop { run: 1 };
    let wanted = scene.machine.wanted(&stop);
    assert_eq!(wanted, [at(0), at(1)]);
    scene.bring(5, &wanted);
    scene.apply(5, stop);
    scene.commit();
    let parked: Vec<_> = scene.machine.parked(1).collect();
    let payloads: Vec<_> = parked.iter().map(|one| &one.carries[0].body[..]).collect();
    assert_eq!(payloads, [b"payload 0", b"payload 1"]);
    assert_eq!(scene.machine.run(1).unwrap().state, RunState::Stopped);
    assert_eq!(scene.machine.run(1).unwrap().counters.parked, 2);
}

#[test]
fn a_run_that_may_end_by_itself_keeps_all_bodies() {
    let delay = TaskKind::Delay { ms: 10_000 };
    let mut scene = Scene::new(delay.clone());
    scene.commit();
    let swap = Command::Swap {
        run: 1,
        dag: dag("v2", delay, OnFailure::Stop),
        rates: Vec::new(),
    };
    let wanted = scene.machine.wanted(&swap);
    assert_eq!(wanted, [at(0), at(1)]);
    scene.bring(5, &wanted);
    scene.apply(5, swap);
    scene.commit();
    scene.commit();
    assert!(scene.machine.wanted(&Command::Stop { run: 1 }).is_empty());
    scene.apply(10_001, Command::Timer);
    assert!(scene.machine.owed(9).is_empty());
}

#[test]
fn what_was_due_and_was_given_up_before_it_was_brought_is_not_asked_for() {
    let mut scene = Scene::new(TaskKind::Delay { ms: 10_000 });
    scene.commit();
    scene.apply(10_001, Command::Timer);
    let stop = Command::Stop { run: 1 };
    let wanted = scene.machine.wanted(&stop);
    scene.bring(10_001, &wanted);
    scene.apply(10_001, stop);
    scene.apply(
        10_001,
        Command::Discard {
            run: 1,
            selection: Selection::All,
        },
    );
    scene.commit();
    assert!(scene.rows.is_empty());
    assert!(scene.machine.owed(9).is_empty());
}

/// A sensor that is asked every three seconds, in an activation with two deadlines.
fn overdue() -> Arc<Dag> {
    let mut spec = dag("v1", TaskKind::Call, OnFailure::Park).spec.clone();
    spec.deadline_ms = Some(5_000);
    let wait = Backoff {
        delay_ms: 3_000,
        exponential: false,
        max_ms: 3_000,
    };
    spec.tasks[0].deadline_ms = Some(4_000);
    spec.tasks[0].poke = Some(Poke {
        wait,
        timeout_ms: None,
        skips: false,
    });
    Arc::new(Dag::compile(spec).expect("it is a DAG"))
}

#[test]
fn one_that_was_late_before_it_waits_on_is_not_asked_for_by_its_other_deadline() {
    let mut scene = Scene::of(overdue());
    let not_yet = |scene: &mut Scene, now: u64| {
        let sent: Vec<_> = scene.commit().into_iter().filter_map(sent).collect();
        assert!(!sent.is_empty());
        for dispatch in sent {
            let fence = scene.machine.fence();
            let runs = vec![OutcomeRun {
                first: 0,
                count: scene.machine.dispatch(dispatch).unwrap().len() as u32,
                outcome: Outcome::Waiting { until: None },
            }];
            scene.apply(
                now,
                Command::Outcomes {
                    dispatch,
                    fence,
                    runs,
                },
            );
            scene.apply(now, Command::Finished { dispatch, fence });
        }
        scene.commit();
    };
    not_yet(&mut scene, 1);
    scene.apply(3_002, Command::Timer);
    let owed = scene.machine.owed(10);
    scene.bring(3_002, &owed);
    // While they are asked the deadline of the task goes by.
    scene.apply(4_002, Command::Timer);
    not_yet(&mut scene, 4_002);
    scene.apply(5_002, Command::Timer);
    let missed = scene.machine.run(1).unwrap().deadlines_missed;
    assert_eq!(missed, 2, "each once");
}

fn sent(effect: Effect) -> Option<DispatchId> {
    match effect {
        Effect::Dispatch { id, .. } => Some(id),
        _ => None,
    }
}
