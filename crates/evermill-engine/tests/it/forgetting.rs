//! What is kept for a source that a version removed is let go of by an operator, and by nobody else.

use std::time::Duration;

use bytes::Bytes;
use evermill_core::row::Table;
use evermill_engine::{Engine, EngineError, Handle, Operations, Order, Signal, StartRequest};

use crate::broker::Broker;
use crate::harness::{World, dag, recording, started, until, until_true};

const GRACE: Duration = Duration::from_secs(30);

/// One task behind two sources of signals, or behind the first of them.
fn version(sources: &[&str]) -> StartRequest {
    let declared = sources.iter().map(|id| {
        format!(r#"{{"id":"{id}","line":1,"config":{{"kind":"signal","name":"{id}"}}}}"#)
    });
    let edges = sources
        .iter()
        .map(|id| format!(r#"{{"node":"{id}","kind":"source"}}"#));
    let task = format!(
        r#"{{"id":"work","kind":"call","line":2,"trigger_rule":"one_success","upstream":[{}]}}"#,
        edges.collect::<Vec<_>>().join(",")
    );
    dag("d", &declared.collect::<Vec<_>>().join(","), &task)
}

fn say(handle: &Handle, source: &str, value: &'static str) {
    let signal = Signal {
        name: source.to_owned(),
        value: Some(Bytes::from_static(value.as_bytes())),
        id: Some(Bytes::from_static(value.as_bytes())),
        ..Signal::default()
    };
    handle.signal("d", signal).unwrap();
}

fn forgotten(who: &dyn Operations, dry_run: bool) -> u64 {
    who.forget_source("d", "old", dry_run).unwrap().events
}

#[test]
fn events_of_a_source_that_is_gone_stay_until_they_are_let_go_of_live_or_at_rest() {
    for live in [true, false] {
        let (ledger, workers) = recording(1);
        let world = World::memory(Broker::with_lanes(&["a"]), workers);
        let handle = world.open();
        started(&handle, &version(&["in", "old"]));
        say(&handle, "old", "begun");
        until(&handle, "an event", |run| run.done == 1);
        let has_it = handle.forget_source("d", "old", true).unwrap_err();
        assert!(
            matches!(&has_it, EngineError::Refused(why) if why.contains("has the source 'old'")),
            "{has_it}"
        );
        handle.order("d", Order::Pause).unwrap();
        for value in ["1", "2", "3"] {
            say(&handle, "old", value);
        }
        handle.start(&version(&["in"])).unwrap();
        let notes = handle.detail("d").unwrap().notes;
        assert!(
            notes[0].text.contains("3 events of source 'old' are kept"),
            "{notes:?}"
        );
        assert!(
            notes[0].text.contains("evermill sources forget d old"),
            "{notes:?}"
        );
        assert_eq!(forgotten(&handle, true), 3);
        assert_eq!(
            forgotten(&handle, true),
            3,
            "who only looks changes nothing"
        );
        let unknown = handle
            .forget_source("d", "odl", true)
            .unwrap_err()
            .to_string();
        assert!(unknown.contains("something is kept for old"), "{unknown}");
        if live {
            assert_eq!(forgotten(&handle, false), 3);
            assert_eq!(handle.detail("d").unwrap().notes, []);
            handle.drain(GRACE).unwrap();
            drop(handle);
        } else {
            handle.drain(GRACE).unwrap();
            drop(handle);
            let rest = Engine::at_rest(world.dir(), world.store()().unwrap()).unwrap();
            assert_eq!(forgotten(&rest, false), 3);
            rest.close().unwrap();
        }
        assert_eq!(world.rows(Table::Dedup), [], "ids go as well");

        // The source is back: what comes now is done, on positions of its own.
        let handle = world.open();
        started(&handle, &version(&["in", "old"]));
        drop(handle.order("d", Order::Resume));
        assert_eq!(in_flight(&handle), 0);
        say(&handle, "old", "3");
        until(&handle, "the new one", |run| run.done == 2);
        until_true("at rest", || ledger.len() == 2);
        assert_eq!((ledger.times("begun"), ledger.times("3")), (1, 1));
        handle.drain(GRACE).unwrap();
    }
}

/// Events of the run that are under way.
fn in_flight(handle: &Handle) -> u64 {
    handle.fresh_view().unwrap().run("d").unwrap().in_flight
}
