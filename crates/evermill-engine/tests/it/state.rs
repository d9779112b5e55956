//! What `ctx.state` holds goes along with a dispatch where it is committed and nobody before the member writes to it; else
//! it is asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evermill_contract::worker::{
    Answer, Outcome, Question, StateOp, Success, TaskError, TaskErrorKind,
};
use evermill_core::command::Selection;
use evermill_engine::StartRequest;

use crate::broker::Broker;
use crate::executor::{Call, Workers};
use crate::harness::{World, after_source, dag, started, until};

/// How a member came by its count: value, count before it, whether that came along.
type Seen = Arc<Mutex<Vec<(String, i64, bool)>>>;

const NAME: &str = "n";
const GRACE: Duration = Duration::from_secs(10);

/// Counts events, each of which may want a filling of so many bytes in its state.
fn counts(call: &Call<'_>, seen: &Seen, filling: usize) -> Outcome {
    let shipped = call.state.as_deref().map(|state| {
        let flat: Vec<serde_json::Value> = serde_json::from_str(state).unwrap();
        let mut pairs = flat.chunks(2);
        let found = pairs.find(|pair| pair[0] == NAME);
        found.map(|pair| pair[1].as_i64().unwrap())
    });
    let before = shipped.unwrap_or_else(|| {
        match (call.ask)(Question::StateGet {
            name: NAME.to_owned(),
        }) {
            Answer::Value(json) => Some(serde_json::from_slice(&json).unwrap()),
            Answer::Missing => None,
            Answer::Refused(why) => panic!("{why}"),
        }
    });
    let before = before.unwrap_or(0);
    let seen_now = (call.value.clone(), before, shipped.is_some());
    seen.lock().unwrap().push(seen_now);
    let put = |name: &str, value| StateOp::Put {
        name: name.to_owned(),
        value,
    };
    let ops = [
        put(NAME, (before + 1).into()),
        put("filling", "x".repeat(filling).into()),
    ];
    Outcome::Success(Some(Box::new(Success {
        state_ops: ops.into(),
        ..Success::default()
    })))
}

/// One task that keeps state, behind a source with this order.
fn stateful(order: &str) -> StartRequest {
    wanting(order, "")
}

/// The same where it is known that the task reads it.
fn reading(order: &str) -> StartRequest {
    wanting(order, r#","reads_state":true"#)
}

fn wanting(order: &str, more: &str) -> StartRequest {
    let source = format!(
        r#"{{"id":"in","line":1,"order":"{order}","config":{{"kind":"kafka","topic":"t","auto_offset_reset":"earliest"}}}}"#
    );
    let wants = format!(r#","wants":{{"ctx":true,"state":true{more}}}"#);
    dag("d", &source, &after_source("count", &wants))
}

fn world(filling: usize, fails: &Arc<AtomicBool>) -> (World, Seen) {
    let seen = Seen::default();
    let (notes, fails) = (Arc::clone(&seen), Arc::clone(fails));
    let workers = Workers::new(2, move |call| {
        if call.value.ends_with('!') && fails.load(Ordering::SeqCst) {
            return Outcome::Failed(Box::new(TaskError {
                kind: TaskErrorKind::Raised,
                class: "ValueError".to_owned(),
                message: String::new(),
                traceback: String::new(),
                retryable: false,
                retry_after_ms: None,
            }));
        }
        counts(call, &notes, filling)
    });
    (World::memory(Broker::with_lanes(&["a"]), workers), seen)
}

fn taken(seen: &Seen) -> Vec<(String, i64, bool)> {
    std::mem::take(&mut seen.lock().unwrap())
}

fn known(value: &str, before: i64, came_along: bool) -> (String, i64, bool) {
    (value.to_owned(), before, came_along)
}

#[test]
fn who_is_the_first_of_a_key_in_a_dispatch_has_its_state_without_asking() {
    let (world, seen) = world(0, &Arc::default());
    let handle = world.open();
    started(&handle, &stateful("key"));
    for round in 0..5 {
        let values = ["x", "y", "z"].map(|key| format!("{key}={round}"));
        world.broker.publish("a", values);
        until(&handle, "a round", |run| run.done == 3 * (round + 1));
        let mut seen = taken(&seen);
        seen.sort();
        let expected =
            ["x", "y", "z"].map(|key| known(&format!("{key}={round}"), round as i64, true));
        assert_eq!(seen, expected);
    }
    handle.drain(GRACE).unwrap();
}

#[test]
fn who_comes_behind_its_own_key_sees_what_was_written_before_it() {
    let (world, seen) = world(0, &Arc::default());
    world
        .broker
        .publish("a", (0..200).map(|n| format!("k{}={n}", n % 7)));
    let handle = world.open();
    started(&handle, &stateful("key"));
    until(&handle, "200 events", |run| run.done == 200);
    let mut seen = taken(&seen);
    seen.sort_by_key(|(value, ..)| value.split_once('=').unwrap().1.parse::<i64>().unwrap());
    for (n, (value, before, _)) in seen.iter().enumerate() {
        assert_eq!(*before, (n / 7) as i64, "{value}");
    }
    let first = |key: i64| seen[usize::try_from(key).unwrap()].2;
    assert!(
        (0..7).all(first),
        "the first of each key has nothing to ask"
    );
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_task_that_is_known_to_read_has_one_of_each_scope_in_a_dispatch_and_never_asks() {
    for order in ["key", "partition"] {
        let (world, seen) = world(0, &Arc::default());
        let values = (0..60).map(|n| format!("k{}={n}", n % 7));
        world.broker.publish("a", values);
        let handle = world.open();
        started(&handle, &reading(order));
        until(&handle, "60 events", |run| run.done == 60);
        let mut seen = taken(&seen);
        seen.sort_by_key(|(value, ..)| value.split_once('=').unwrap().1.parse::<i64>().unwrap());
        for (n, (value, before, came_along)) in seen.iter().enumerate() {
            let expected = if order == "key" { n / 7 } else { n };
            assert_eq!((*before, *came_along), (expected as i64, true), "{value}");
        }
        handle.drain(GRACE).unwrap();
    }
}

#[test]
fn a_lap_of_a_loop_or_of_a_serial_dag_does_not_ask() {
    let (world, seen) = world(0, &Arc::default());
    let handle = world.open();
    started(&handle, &stateful("serial"));
    for round in 0..5 {
        world.broker.publish("a", [round.to_string()]);
        until(&handle, "an event", |run| run.done == round + 1);
        assert_eq!(
            taken(&seen),
            [known(&round.to_string(), round as i64, true)]
        );
    }
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_state_that_is_large_is_asked_for() {
    let (world, seen) = world(
        evermill_engine::limits::STATE_BYTES_SHIPPED_MAX[0],
        &Arc::default(),
    );
    let handle = world.open();
    started(&handle, &stateful("key"));
    for round in 0..3 {
        world.broker.publish("a", [format!("k={round}")]);
        until(&handle, "an event", |run| run.done == round + 1);
        let expected = known(&format!("k={round}"), round as i64, round == 0);
        assert_eq!(taken(&seen), [expected]);
    }
    handle.drain(GRACE).unwrap();
}

#[test]
fn who_is_redriven_asks_since_he_stands_in_no_line() {
    let fails = Arc::new(AtomicBool::new(true));
    let (world, seen) = world(0, &fails);
    let handle = world.open();
    started(&handle, &stateful("key"));
    world
        .broker
        .publish("a", ["k=0", "k=1!", "k=2"].map(str::to_owned));
    until(&handle, "a parked event", |run| {
        run.done == 2 && run.parked == 1
    });
    taken(&seen);
    fails.store(false, Ordering::SeqCst);
    handle.redrive("d", Selection::All).unwrap();
    until(&handle, "the redrive", |run| run.done == 3);
    assert_eq!(taken(&seen), [known("k=1!", 2, false)]);
    world.broker.publish("a", ["k=3".to_owned()]);
    until(&handle, "one more", |run| run.done == 4);
    assert!(matches!(&taken(&seen)[..], [(_, 3, _)]));
    handle.drain(GRACE).unwrap();
}
