//! Random cases: small DAGs, few events, every feature in every mixture.

use std::collections::BTreeSet;

use bytes::Bytes;
use evermill_core::command::{Event, Limited, Success};
use evermill_core::dag::{
    Backoff, BatchSpec, DagSpec, JoinSpec, LoopSpec, Mapped, Node, OnFailure, OnInterrupt, Order,
    Poke, SourceSpec, TaskKind, TaskSpec,
};
use evermill_core::rule::TriggerRule;

use crate::case::{Case, LaneCase, Rough};
use crate::feature::{Feature, Features};
use crate::graph::{Graph, runs_early, skips_early};
use crate::oracle::{Activation, Oracle, Settled};
use crate::prng::{Prng, hash};
use crate::script::{Act, Answer, Script};

/// When the simulated world begins, milliseconds since the Unix epoch.
pub const DAWN_MS: u64 = 1_000_000;

/// The case of this seed, with a random part of these features.
#[must_use]
pub fn generate(seed: u64, allowed: Features) -> Case {
    let mut rng = Prng::new(seed);
    let mut features = Features::NONE;
    for &feature in Feature::ALL {
        if rng.chance(odds(feature)) && allowed.has(feature) {
            features = features.with(feature);
        }
    }
    let features = settle_conflicts(features);
    let sources = sources(&mut rng, features);
    let mut spec = DagSpec {
        id: "case".into(),
        version: "v1".into(),
        order: order(&mut rng, features),
        tasks: tasks(&mut rng, features, sources.len() as u16),
        sources,
        join: JoinSpec::default(),
        deadline_ms: None,
        max_active_runs: None,
        full_history: seed.is_multiple_of(4),
    };
    if features.has(Feature::Deadline) {
        spec.deadline_ms = Some(rng.between(1, 4000));
    }
    if features.has(Feature::ActiveMax) {
        spec.max_active_runs = Some(rng.between(1, 5) as u32);
    }
    connect(&mut spec);
    tune_tasks(&mut rng, features, &mut spec);
    let mut lanes = lanes(&mut rng, features, &spec);
    if features.has(Feature::Loop) {
        close_loop(&mut rng, &mut spec);
    }
    if features.has(Feature::Join) {
        pair_up(&mut rng, &mut spec, &mut lanes);
    }
    if features.has(Feature::Replay) {
        read_again(&mut rng, &mut lanes);
    }
    let mut script = script(&mut rng, features, hash(&[seed, 1]));
    script.private_names = spec.order == Order::Serial && !features.has(Feature::SharedState);
    let mut world = rough(&mut rng, features, hash(&[seed, 2]));
    if features.has(Feature::Rate) {
        for task in 0..spec.tasks.len() as u16 {
            let mut limit = |rng: &mut Prng, of| {
                let rate = (of, rng.between(1, 4) as u32, rng.between(1, 900));
                world.rates.push(rate);
            };
            if rng.chance(40) {
                limit(&mut rng, Limited::Task(task));
            }
            if spec.tasks[usize::from(task)].mapped.is_none() && rng.chance(40) {
                limit(&mut rng, Limited::Key(task));
            }
        }
        if spec.sources.len() == 1 && rng.chance(30) {
            let rate = (rng.between(1, 4) as u32, rng.between(1, 900));
            world.rates.push((Limited::Source(0), rate.0, rate.1));
        }
    }
    let mut case = Case {
        seed,
        features,
        spec,
        lanes,
        script,
        world,
    };
    if features.has(Feature::Loop) {
        run_loop(&mut case);
    }
    case
}

/// A stretch of a lane that is to be read again.
fn read_again(rng: &mut Prng, lanes: &mut Vec<LaneCase>) {
    let original = rng.pick(lanes).clone();
    let count = original.events.len() as u64;
    if count == 0 {
        return;
    }
    let (first, length) = (rng.below(count), rng.between(1, 12));
    let events: Vec<_> = original.events[first as usize..].to_vec();
    let events = events[..events.len().min(length as usize)].to_vec();
    lanes.push(LaneCase {
        first: events[0].position,
        replay_until: Some(events[events.len() - 1].position + 1),
        fresh_keys: rng.chance(30),
        events,
        ..original
    });
}

/// Laps after which a loop ends at the latest.
const LAPS_MAX: u64 = 10;

/// A loop source, and its hidden last task below everything.
fn close_loop(rng: &mut Prng, spec: &mut DagSpec) {
    let all = (0..spec.tasks.len() as u16).map(Node::Task).collect();
    let mut until = TaskSpec::new("until", all);
    until.kind = TaskKind::ShortCircuit {
        all_downstream: true,
    };
    until.rule = TriggerRule::AllDone;
    spec.sources[0].looped = Some(LoopSpec {
        delay_ms: *rng.pick(&[0, 10, 2_000]),
        max_consecutive_failures: *rng.pick(&[None, Some(0), Some(2), Some(100)]),
        until: Some(spec.tasks.len() as u16),
    });
    spec.tasks.push(until);
}

/// The laps such a loop takes are its events.
pub(crate) fn run_loop(case: &mut Case) {
    let graph = Graph::of(&case.spec);
    let until = case.spec.tasks.len() as u16 - 1;
    let source = case.spec.sources[0].looped;
    let most = source.and_then(|spec| spec.max_consecutive_failures);
    case.lanes[0].first = 0;
    case.lanes[0].events.clear();
    let last = Act {
        lane: 0,
        position: LAPS_MAX,
        child: 0,
    };
    let yes = Success {
        proceed: Some(true),
        ..Success::default()
    };
    case.script
        .written
        .insert((last, until, -1, 0, 1), Answer::Success(yes));
    let mut failures = 0;
    for position in 0.. {
        let event = Event {
            position,
            key: 0,
            arrived_ms: 0,
            body: Bytes::new(),
        };
        case.lanes[0].events.push(event.clone());
        let act = Act {
            lane: 0,
            position,
            child: 0,
        };
        let mut oracle = Oracle::new(&case.spec, &graph, &case.script);
        let fired = BTreeSet::from([0]);
        let ended = oracle.run(&Activation {
            act,
            fired,
            events: vec![(0, event)],
        });
        let failed = matches!(ended.settled, Settled::Parked(_));
        failures = if failed { failures + 1 } else { 0 };
        let over = ended
            .finals
            .get(&(until, -1))
            .is_some_and(|end| end.proceed == Some(true));
        if failed && most.is_none_or(|most| failures > most) || over && !failed {
            return;
        }
        if position > 40 {
            // It would go on for very long: let it be a quiet one.
            (case.script.fail, case.script.die, case.script.skip) = (0, 0, 0);
            if let Some(spec) = &mut case.spec.sources[0].looped {
                spec.max_consecutive_failures = Some(0);
            }
            return run_loop(case);
        }
    }
}

/// Percent of cases that have a feature.
const fn odds(feature: Feature) -> u64 {
    match feature {
        Feature::Crash | Feature::Retry | Feature::Rules | Feature::Order => 60,
        Feature::Stop | Feature::Poison | Feature::Interrupt | Feature::CleanStop => 15,
        Feature::Loop => 12,
        Feature::Join | Feature::Batch | Feature::ActiveMax => 20,
        _ => 35,
    }
}

/// Mixtures whose outcome would depend on timing by the rules themselves.
const fn settle_conflicts(mut features: Features) -> Features {
    if features.has(Feature::Loop) {
        features = features.without(Feature::Join).without(Feature::Batch);
        features = features.without(Feature::Lanes).without(Feature::Roots);
        features = features.without(Feature::Redrive).without(Feature::Policy);
        features = features
            .without(Feature::Branch)
            .without(Feature::ShortCircuit);
        features = features.without(Feature::Gaps).without(Feature::Reread);
        features = features
            .without(Feature::ActiveMax)
            .without(Feature::Deadline);
        features = features.without(Feature::Interrupt);
    }
    if features.has(Feature::State) || features.has(Feature::Join) || features.has(Feature::Loop) {
        // Which state a replay sees, and with whom it joins, depends on when it is asked for.
        features = features.without(Feature::Replay);
    }
    if features.has(Feature::Join) {
        features = features.without(Feature::Batch).without(Feature::Order);
        // A limit that counts activations which wait for a partner would keep the partner out.
        features = features.without(Feature::Lanes).without(Feature::ActiveMax);
    }
    features
}

fn order(rng: &mut Prng, features: Features) -> Order {
    if !features.has(Feature::Order) {
        return Order::None;
    }
    let batch = features.has(Feature::Batch);
    let orders: &[Order] = if batch {
        &[Order::None, Order::Partition, Order::Serial]
    } else {
        &[
            Order::None,
            Order::Key,
            Order::Key,
            Order::Partition,
            Order::Serial,
        ]
    };
    *rng.pick(orders)
}

fn sources(rng: &mut Prng, features: Features) -> Vec<SourceSpec> {
    let count = if features.has(Feature::Join) { 2 } else { 1 };
    let mut sources: Vec<SourceSpec> = (0..count)
        .map(|s| SourceSpec::new(format!("source{s}")))
        .collect();
    if features.has(Feature::Batch) {
        let linger_ms = *rng.pick(&[0, 5, 300, 2000]);
        let max_events = rng.between(1, 5) as u32;
        sources[0].batch = Some(BatchSpec {
            max_events,
            linger_ms,
        });
    }
    sources
}

/// Tasks and edges, written in random order.
fn tasks(rng: &mut Prng, features: Features, sources: u16) -> Vec<TaskSpec> {
    let count = 1 + rng.below(8).min(rng.below(9)) as usize;
    let density = rng.between(15, 60);
    let mut written: Vec<u16> = (0..count as u16).collect();
    rng.shuffle(&mut written);
    let mut tasks: Vec<Option<TaskSpec>> = vec![None; count];
    for at in 0..count {
        let mut upstream: Vec<Node> = (0..at)
            .filter(|_| rng.chance(density))
            .map(|up| Node::Task(written[up]))
            .collect();
        let is_root = upstream.is_empty();
        for source in 0..sources {
            let odds = match (is_root, features.has(Feature::Roots), at) {
                (true, false, _) | (true, true, 0) => 100 / u64::from(sources),
                (true, true, _) => 60,
                (false, ..) => 10,
            };
            if rng.chance(odds) {
                upstream.push(Node::Source(source));
            }
        }
        if at == 0 && upstream.is_empty()
            || is_root && !features.has(Feature::Roots) && upstream.is_empty()
        {
            upstream.push(Node::Source(rng.below(u64::from(sources)) as u16));
        }
        rng.shuffle(&mut upstream);
        tasks[usize::from(written[at])] =
            Some(TaskSpec::new(format!("task{}", written[at]), upstream));
    }
    tasks.into_iter().flatten().collect()
}

/// Gives every part of the DAG a source: what hangs on none never runs and is refused.
fn connect(spec: &mut DagSpec) {
    for task in 0..spec.tasks.len() {
        let graph = crate::graph::Graph::of(spec);
        if graph.is_adrift(task) {
            spec.tasks[task].upstream.push(Node::Source(0));
        }
    }
}

fn tune_tasks(rng: &mut Prng, features: Features, spec: &mut DagSpec) {
    let orderly_redrive =
        spec.order != Order::None && features.has(Feature::State) && features.has(Feature::Redrive);
    for at in 0..spec.tasks.len() {
        let kind = kind(rng, features);
        let has_task_above = spec.tasks[at]
            .upstream
            .iter()
            .any(|node| matches!(node, Node::Task(_)));
        let order = spec.order;
        let task = &mut spec.tasks[at];
        task.kind = kind;
        if features.has(Feature::Rules) && rng.chance(60) {
            task.rule = *rng.pick(&TriggerRule::ALL);
            if orderly_redrive && (runs_early(task.rule) || skips_early(task.rule)) {
                // What ran early, or below what was skipped early, may have passed what a redrive
                // of an earlier member changes.
                task.rule = TriggerRule::AllDone;
            }
        }
        if features.has(Feature::Teardown) {
            task.setup = rng.chance(20);
            task.teardown = !task.setup && rng.chance(20);
            if !features.has(Feature::Rules) || !task.teardown {
            } else if rng.chance(70) {
                task.rule = TriggerRule::AllDoneSetupSuccess;
            }
        }
        if matches!(
            task.kind,
            TaskKind::Noop | TaskKind::Delay { .. } | TaskKind::Signal { .. }
        ) {
            continue;
        }
        if features.has(Feature::Retry) {
            task.retries = rng.below(4) as u32;
            task.backoff = backoff(rng, features);
        }
        if features.has(Feature::Poke) && rng.chance(25) {
            task.poke = Some(Poke {
                wait: backoff(rng, features),
                timeout_ms: rng.chance(30).then_some(0),
                skips: rng.chance(50),
            });
        }
        task.on_failure = policy(rng, features, order, orderly_redrive);
        if features.has(Feature::Interrupt) && task.poke.is_none() && rng.chance(40) {
            task.on_interrupt = OnInterrupt::Fail;
        }
        task.reads_committed = features.has(Feature::Results) && has_task_above && rng.chance(60);
        if features.has(Feature::State) && rng.chance(50) {
            task.writes_state = true;
            task.reads_state = order != Order::None && rng.chance(50);
            task.reads_committed |= order != Order::None;
        }
        if features.has(Feature::Vector) && rng.chance(50) && task.kind == TaskKind::Call {
            task.batch = Some(rng.between(1, 6) as u32);
        }
        if features.has(Feature::Concurrency) && rng.chance(50) {
            task.concurrency = Some(rng.between(1, 3) as u32);
        }
        if features.has(Feature::Pool) && rng.chance(50) {
            task.pool = Some(rng.below(2) as u16);
            task.parallel = rng.between(1, 4) as u32;
        }
        if features.has(Feature::Deadline) && rng.chance(25) {
            task.deadline_ms = Some(rng.between(1, 4000));
        }
        task.priority = rng.below(3) as i32 - 1;
    }
    if features.has(Feature::Map) {
        map_some(rng, spec);
    }
}

fn kind(rng: &mut Prng, features: Features) -> TaskKind {
    let roll = rng.below(100);
    if features.has(Feature::Branch) && roll < 25 {
        TaskKind::Branch
    } else if features.has(Feature::ShortCircuit) && (25..45).contains(&roll) {
        TaskKind::ShortCircuit {
            all_downstream: rng.chance(60),
        }
    } else if features.has(Feature::Noop) && (45..60).contains(&roll) {
        TaskKind::Noop
    } else if features.has(Feature::Signal) && (70..80).contains(&roll) {
        TaskKind::Signal { name: "go".into() }
    } else if features.has(Feature::Delay) && (60..70).contains(&roll) {
        TaskKind::Delay {
            ms: *rng.pick(&[1, 50, 900, 1500, 60_000]),
        }
    } else {
        TaskKind::Call
    }
}

fn backoff(rng: &mut Prng, features: Features) -> Backoff {
    let delays: &[u64] = if features.has(Feature::LongBackoff) {
        &[0, 20, 700, 1000, 1001, 5_000, 90_000]
    } else {
        &[0, 1, 20, 700]
    };
    let delay_ms = *rng.pick(delays);
    let max_ms = if features.has(Feature::LongBackoff) {
        100_000
    } else {
        1_000
    };
    Backoff {
        delay_ms,
        exponential: rng.chance(30),
        max_ms,
    }
}

fn policy(rng: &mut Prng, features: Features, order: Order, orderly_redrive: bool) -> OnFailure {
    if orderly_redrive {
        return OnFailure::Block;
    }
    if !features.has(Feature::Policy) {
        return OnFailure::Park;
    }
    let mut policies = vec![OnFailure::Drop, OnFailure::Park, OnFailure::Park];
    // A block that nobody lifts would leave the scope waiting for ever.
    if order != Order::None && features.has(Feature::Redrive) {
        policies.push(OnFailure::Block);
    }
    if features.has(Feature::Stop) && rng.chance(30) {
        policies.push(OnFailure::Stop);
    }
    *rng.pick(&policies)
}

fn map_some(rng: &mut Prng, spec: &mut DagSpec) {
    for at in 0..spec.tasks.len() {
        if spec.tasks[at].kind != TaskKind::Call || spec.tasks[at].writes_state || !rng.chance(50) {
            continue;
        }
        let ups: Vec<u16> = spec.tasks[at]
            .upstream
            .iter()
            .filter_map(|node| match *node {
                Node::Task(up) => Some(up),
                Node::Source(_) => None,
            })
            .filter(|&up| {
                let up = &spec.tasks[usize::from(up)];
                up.mapped.is_none() && up.kind == TaskKind::Call
            })
            .collect();
        spec.tasks[at].mapped = if ups.is_empty() || rng.chance(25) {
            Some(Mapped::Length(rng.below(4) as u32))
        } else {
            Some(Mapped::Over(*rng.pick(&ups)))
        };
    }
    // What another task is mapped over is itself not mapped.
    let over: BTreeSet<u16> = spec
        .tasks
        .iter()
        .filter_map(|task| match task.mapped {
            Some(Mapped::Over(up)) => Some(up),
            _ => None,
        })
        .collect();
    for up in over {
        spec.tasks[usize::from(up)].mapped = None;
    }
}

fn lanes(rng: &mut Prng, features: Features, spec: &DagSpec) -> Vec<LaneCase> {
    let mut lanes = Vec::new();
    for source in 0..spec.sources.len() as u16 {
        let count = if features.has(Feature::Lanes) {
            rng.between(1, 3)
        } else {
            1
        };
        for lane in 0..count {
            let first = if rng.chance(50) { 0 } else { rng.below(1000) };
            let events = events(rng, features, first, lane);
            lanes.push(LaneCase {
                source,
                name: format!("{source}-{lane}"),
                first,
                events,
                replay_until: None,
                fresh_keys: false,
                reset: false,
            });
        }
    }
    lanes
}

fn events(rng: &mut Prng, features: Features, first: u64, lane: u64) -> Vec<Event> {
    let count = if rng.chance(90) {
        rng.below(8)
    } else {
        rng.between(8, 70)
    };
    let keys = rng.between(1, 4);
    let mut position = first;
    let mut events = Vec::new();
    for _ in 0..=count {
        if features.has(Feature::Gaps) && rng.chance(25) {
            position += rng.between(1, 9);
        }
        let body = hash(&[lane, position]).to_be_bytes();
        events.push(Event {
            position,
            key: u128::from(rng.below(keys)),
            arrived_ms: DAWN_MS,
            body: Bytes::copy_from_slice(&body),
        });
        position += 1;
    }
    events
}

/// Joined sources have partners for all their events; what waits for ever is a scenario's subject.
fn pair_up(rng: &mut Prng, spec: &mut DagSpec, lanes: &mut [LaneCase]) {
    spec.join.on_key = rng.chance(50);
    let [one, other] = lanes else { return };
    let count = one.events.len().min(other.events.len());
    one.events.truncate(count);
    other.events.truncate(count);
    let mut keys: Vec<u128> = one.events.iter().map(|event| event.key).collect();
    rng.shuffle(&mut keys);
    other
        .events
        .iter_mut()
        .zip(keys)
        .for_each(|(event, key)| event.key = key);
}

fn script(rng: &mut Prng, features: Features, seed: u64) -> Script {
    let on = |feature, value: u64| if features.has(feature) { value } else { 0 };
    Script {
        seed,
        fail: *rng.pick(&[0, 3, 15, 40]),
        fatal: *rng.pick(&[0, 20]),
        skip: on(Feature::Skip, *rng.pick(&[5, 25])),
        die: on(Feature::Poison, *rng.pick(&[10, 60])),
        result: *rng.pick(&[0, 50, 100]),
        proceed: if features.has(Feature::Loop) { 15 } else { 60 },
        redrive: on(Feature::Redrive, 60),
        discard: on(Feature::Redrive, 50),
        map_max: rng.below(5),
        ..Script::default()
    }
}

fn rough(rng: &mut Prng, features: Features, seed: u64) -> Rough {
    let crashes = match rng.below(10) {
        0..5 => 1,
        5..8 => 2,
        8 => 3,
        _ => 6,
    };
    let on = |feature, value: u32| if features.has(feature) { value } else { 0 };
    let mut eager = [0; 8];
    eager.iter_mut().for_each(|e| *e = *rng.pick(&[1, 3, 10]));
    Rough {
        seed,
        slots: rng.between(1, 6) as u32,
        chunk: *rng.pick(&[1, 2, 5, 100]),
        crashes: on(Feature::Crash, crashes),
        clean_stops: on(Feature::CleanStop, 2),
        deaths: on(Feature::Death, rng.between(1, 4) as u32),
        lag: rng.between(1, 4) as usize,
        crash_at: BTreeSet::new(),
        rates: Vec::new(),
        swaps: on(Feature::Swap, rng.between(1, 3) as u32),
        eager,
        pools: vec![rng.between(1, 3) as u32, rng.between(1, 3) as u32],
    }
}
