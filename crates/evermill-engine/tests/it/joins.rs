//! Several sources, one activation: each task gets the events that it may see (W6, C3).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evermill_contract::worker::Outcome;
use evermill_engine::{Drained, StartRequest};

use crate::broker::Broker;
use crate::executor::Workers;
use crate::harness::{World, request_of, started, until};

const GRACE: Duration = Duration::from_secs(30);

/// `task: source=value, source=value` for each call.
type Calls = Arc<Mutex<Vec<String>>>;

/// `orders >> early`, `orders >> both`, `prices >> both`.
fn joined() -> StartRequest {
    let orders = r#"{"node":"orders","kind":"source"}"#;
    let prices = r#"{"node":"prices","kind":"source"}"#;
    let task = |id: &str, upstream: &str| {
        format!(r#"{{"id":"{id}","kind":"call","line":2,"upstream":[{upstream}]}}"#)
    };
    let early = task("early", orders);
    let both = task("both", &format!("{orders},{prices}"));
    request_of(&format!("{early},{both}"), &["orders", "prices"])
}

fn world() -> (World, Calls) {
    let calls = Calls::default();
    let notes = Arc::clone(&calls);
    let workers = Workers::new(2, move |call| {
        let seen = call
            .joined
            .iter()
            .map(|(from, value)| format!("{from}={value}"));
        let line = format!("{}: {}", call.task, seen.collect::<Vec<_>>().join(", "));
        notes.lock().unwrap().push(line);
        Outcome::Success(None)
    });
    let mut world = World::memory(Broker::with_lanes(&[]), workers);
    world.others = BTreeMap::from(["orders", "prices"].map(|name| {
        let lanes = [format!("{name}/0")];
        (name.to_owned(), Broker::with_lanes(&[&lanes[0]]))
    }));
    (world, calls)
}

fn publish(world: &World, source: &str, value: &str) {
    world.others[source].publish(&format!("{source}/0"), [value.to_owned()]);
}

fn sorted(calls: &Calls) -> Vec<String> {
    let mut calls = calls.lock().unwrap().clone();
    calls.sort();
    calls
}

#[test]
fn a_task_of_a_join_gets_the_event_of_each_source_that_feeds_it() {
    let (world, calls) = world();
    let handle = world.open();
    started(&handle, &joined());
    publish(&world, "orders", "o1");
    publish(&world, "orders", "o2");
    until(&handle, "two open joins", |run| run.taken_in == 2);
    publish(&world, "prices", "p1");
    let run = until(&handle, "one join that is done", |run| run.done == 2);
    assert_eq!((run.taken_in, run.in_flight), (3, 1), "as W6 counts them");
    publish(&world, "prices", "p2");
    until(&handle, "both", |run| run.done == 4);
    assert_eq!(
        sorted(&calls),
        [
            "both: orders=o1, prices=p1",
            "both: orders=o2, prices=p2",
            "early: orders=o1",
            "early: orders=o2",
        ]
    );
    assert_eq!(handle.drain(GRACE).unwrap(), Drained::Settled);
}

#[test]
fn what_a_task_sees_does_not_depend_on_which_source_was_first() {
    let (world, calls) = world();
    let handle = world.open();
    started(&handle, &joined());
    publish(&world, "prices", "p1");
    until(&handle, "an open join", |run| run.taken_in == 1);
    publish(&world, "orders", "o1");
    until(&handle, "the join", |run| run.done == 2);
    assert_eq!(
        sorted(&calls),
        ["both: orders=o1, prices=p1", "early: orders=o1"]
    );
    assert_eq!(handle.drain(GRACE).unwrap(), Drained::Settled);
}

#[test]
fn an_event_that_waited_for_the_other_source_over_a_restart_is_seen() {
    let (world, calls) = world();
    let handle = world.open();
    started(&handle, &joined());
    publish(&world, "orders", "o1");
    until(&handle, "early is done", |run| {
        run.taken_in == 1 && sorted(&calls).len() == 1
    });
    handle.halt();
    let handle = world.open();
    started(&handle, &joined());
    publish(&world, "prices", "p1");
    until(&handle, "the join", |run| run.done == 2);
    assert!(sorted(&calls).contains(&"both: orders=o1, prices=p1".to_owned()));
    assert_eq!(handle.drain(GRACE).unwrap(), Drained::Settled);
}
