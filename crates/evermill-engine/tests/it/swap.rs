//! Hot swap (W16): another version of a DAG takes over while its run goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use evermill_contract::worker::{Outcome, TaskError, TaskErrorKind};
use evermill_core::row::Table;
use evermill_engine::view::{Change, OptionChange, VersionState};
use evermill_engine::{Engine, EngineError, Handle, Operations as _, PastQuery, StartRequest, Why};
use evermill_store::Fault;

use crate::broker::Broker;
use crate::executor::Workers;
use crate::harness::{Ledger, World, request_of, until, until_true, values, with};
use crate::queue::Queue;

/// Notes `task:value` and succeeds.
fn noting(slots: u16) -> (Ledger, Workers) {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(slots, move |call| {
        notes.note(format!("{}:{}", call.task, call.value));
        Outcome::Success(None)
    });
    (ledger, workers)
}

/// One task behind all of these sources.
fn version(task: &str, sources: &[&str]) -> StartRequest {
    let edges = sources.iter();
    let edges = edges.map(|id| format!(r#"{{"node":"{id}","kind":"source"}}"#));
    let edges: Vec<String> = edges.collect();
    let task = format!(
        r#"{{"id":"{task}","kind":"call","line":2,"trigger_rule":"one_success","upstream":[{}]}}"#,
        edges.join(",")
    );
    request_of(&task, sources)
}

fn hash(handle: &Handle) -> String {
    handle
        .fresh_view()
        .unwrap()
        .run("d")
        .unwrap()
        .version
        .clone()
}

fn ran(ledger: &Ledger, task: &str, range: std::ops::Range<u64>) -> Vec<u32> {
    let times = values(range).map(|value| ledger.times(&format!("{task}:{value}")));
    times.collect()
}

#[test]
fn j06_what_has_begun_ends_on_its_version_and_what_is_read_next_has_the_new_one() {
    let (ledger, workers) = noting(1);
    let world = World::memory(Broker::with_lanes(&["0"]), workers);
    let handle = world.open();
    let run = handle.start(&version("old", &["in"])).unwrap();
    until(&handle, "ready", |run| run.sources[0].ready);
    world.workers.close_gate();
    world.broker.publish("0", values(0..3));
    until_true("all of them read", || world.broker.delivered() == 3);
    until(&handle, "in flight", |run| run.in_flight == 3);
    let swapped = handle.start(&version("new", &["in"])).unwrap();
    assert_eq!(swapped.run, run.run);
    assert_eq!(swapped.before.as_ref(), Some(&run.version));
    assert_eq!(hash(&handle), swapped.version);
    let detail = handle.detail("d").unwrap();
    let [now, before] = &detail.versions[..] else {
        panic!("{:?}", detail.versions)
    };
    assert!(now.current && now.why == Why::Swap && now.in_flight == 0);
    assert_eq!(now.from, BTreeMap::from([("0".to_owned(), 3)]));
    assert!(!before.current && before.in_flight == 3 && before.stored);
    world.broker.publish("0", values(3..6));
    world.workers.open_gate();
    until(&handle, "all done", |run| run.done == 6);
    let query = PastQuery {
        limit: 10,
        ..PastQuery::default()
    };
    let past = handle.past("d", &query).unwrap().activations;
    let expected = |at: u64| match at {
        0..3 => &run.version,
        _ => &swapped.version,
    };
    assert!(!past.is_empty());
    for one in past {
        assert_eq!(one.version.as_ref(), Some(expected(one.position)));
    }
    assert_eq!(ran(&ledger, "old", 0..6), [1, 1, 1, 0, 0, 0]);
    assert_eq!(ran(&ledger, "new", 0..6), [0, 0, 0, 1, 1, 1]);
    until_true("acknowledged", || world.broker.acked("0") == 6);
}

#[test]
fn j05_each_activation_runs_on_the_version_it_was_pinned_to_also_after_a_crash() {
    let (ledger, workers) = noting(1);
    let world = World::sqlite(Broker::with_lanes(&["0"]), workers);
    let handle = world.open();
    handle.start(&version("old", &["in"])).unwrap();
    until(&handle, "ready", |run| run.sources[0].ready);
    world.workers.close_gate();
    world.broker.publish("0", values(0..3));
    until(&handle, "in flight", |run| run.in_flight == 3);
    handle.start(&version("new", &["in"])).unwrap();
    world.broker.publish("0", values(3..6));
    until(&handle, "read as well", |run| run.in_flight == 6);
    handle.halt();
    world.workers.open_gate();
    let handle = world.open();
    handle.start(&version("new", &["in"])).unwrap();
    until(&handle, "all done", |run| run.done == 6);
    assert_eq!(
        ran(&ledger, "old", 3..6),
        [0, 0, 0],
        "what came after is new"
    );
    assert!(ran(&ledger, "old", 0..3).iter().all(|times| *times >= 1));
    assert_eq!(ran(&ledger, "new", 0..6), [0, 0, 0, 1, 1, 1]);
}

#[test]
fn a_swap_to_the_same_version_does_nothing() {
    let (_, workers) = noting(1);
    let world = World::memory(Broker::with_lanes(&["0"]), workers);
    let handle = world.open();
    let first = handle.start(&version("t", &["in"])).unwrap();
    let again = handle.start(&version("t", &["in"])).unwrap();
    assert!(again.was_running() && again.version == first.version);
    assert_eq!(handle.detail("d").unwrap().versions.len(), 1);
}

#[test]
fn sources_come_go_and_come_back_where_they_were_and_others_go_on() {
    let (ledger, workers) = noting(2);
    let mut world = World::memory(Broker::with_lanes(&["0"]), workers);
    let brokers: Vec<Broker> = ["a", "b", "c"]
        .iter()
        .map(|id| {
            let broker = Broker::with_lanes(&[id]);
            world.others.insert((*id).to_owned(), broker.clone());
            broker
        })
        .collect();
    let [a, b, c] = &brokers[..] else { panic!() };
    let publish = |broker: &Broker, id: &str, range: std::ops::Range<u64>| {
        broker.publish(id, range.map(|n| format!("{id}{n}")));
    };
    let handle = world.open();
    handle.start(&version("one", &["a", "b"])).unwrap();
    publish(a, "a", 0..2);
    publish(b, "b", 0..2);
    until(&handle, "done", |run| run.done == 4);
    // `a` goes while events of it are under way, `b` changes its place, `c` comes.
    world.workers.close_gate();
    publish(a, "a", 2..4);
    until(&handle, "in flight", |run| run.in_flight == 2);
    handle.start(&version("two", &["c", "b"])).unwrap();
    publish(a, "a", 4..6);
    publish(b, "b", 2..4);
    publish(c, "c", 0..2);
    world.workers.open_gate();
    let view = until(&handle, "done", |run| run.done == 10);
    let ids: Vec<&str> = view
        .sources
        .iter()
        .map(|source| source.id.as_str())
        .collect();
    assert_eq!(ids, ["c", "b"]);
    until_true("its last acknowledgement", || a.acked("a") == 4);
    handle.start(&version("three", &["a", "c"])).unwrap();
    publish(b, "b", 4..6);
    publish(c, "c", 2..4);
    until(&handle, "done", |run| run.done == 14);
    handle.start(&version("four", &["c", "a", "b"])).unwrap();
    until(&handle, "done", |run| run.done == 16);
    let expected = [
        ("one", "a", 0..4),
        ("one", "b", 0..2),
        ("two", "b", 2..4),
        ("two", "c", 0..2),
        ("three", "a", 4..6),
        ("three", "c", 2..4),
        ("four", "b", 4..6),
    ];
    for (task, id, range) in expected {
        for n in range {
            assert_eq!(
                ledger.times(&format!("{task}:{id}{n}")),
                1,
                "{task} {id}{n}"
            );
        }
    }
    assert_eq!(ledger.len(), 16, "nothing ran on another version");
}

#[test]
fn a_run_goes_back_to_its_version_before_and_the_one_it_left_is_put_away() {
    let (ledger, workers) = noting(1);
    let world = World::sqlite(Broker::with_lanes(&["0"]), workers);
    let handle = world.open();
    let good = handle.start(&version("good", &["in"])).unwrap().version;
    let none = handle.roll_back("d", None, "ada").unwrap_err();
    assert!(none.to_string().contains("no other version"), "{none}");
    let bad = handle.start(&version("bad", &["in"])).unwrap().version;
    let back = Handle::roll_back(&handle, "d", None, "ada").unwrap();
    assert_eq!((&back.version, back.before.as_ref()), (&good, Some(&bad)));
    let newest = &handle.detail("d").unwrap().versions[0];
    assert_eq!(newest.instead_of.as_ref(), Some(&bad));
    assert_eq!(newest.why, Why::Rollback);
    assert_eq!(newest.by.as_deref(), Some("ada"));
    world.broker.publish("0", values(0..2));
    until(&handle, "done", |run| run.done == 2);
    assert_eq!(ran(&ledger, "good", 0..2), [1, 1]);
    // Neither another start of it nor a new engine forgets what was put away.
    handle.halt();
    let handle = world.open();
    assert_eq!(handle.start_again("d", false).unwrap().version, good);
    let newest = &handle.detail("d").unwrap().versions[0];
    assert_eq!(newest.instead_of.as_ref(), Some(&bad));
    let named = Handle::roll_back(&handle, "d", Some(&bad[..8]), "ada").unwrap();
    assert_eq!(named.version, bad);
    let unknown = Handle::roll_back(&handle, "d", Some("zz"), "ada").unwrap_err();
    assert!(unknown.to_string().contains(&good[..12]), "{unknown}");
    let nowhere = Handle::roll_back(&handle, "nowhere", None, "ada").unwrap_err();
    assert!(matches!(nowhere, EngineError::UnknownDag(_)), "{nowhere}");
}

#[test]
fn versions_are_kept_to_go_back_to_and_no_more_than_a_few() {
    let (_, workers) = noting(1);
    let world = World::sqlite(Broker::with_lanes(&["0"]), workers);
    let handle = world.open();
    let kept = evermill_engine::limits::VERSIONS_KEPT;
    for number in 0..2 * kept {
        handle
            .start(&version(&format!("t{number}"), &["in"]))
            .unwrap();
    }
    until_true("forgotten", || {
        let folders = std::fs::read_dir(world.dir().join("bundles")).unwrap();
        folders.count() == kept
    });
    handle.drain(Duration::from_secs(10)).unwrap();
    let rows = world.rows(Table::Version);
    assert_eq!(rows.len(), kept + 1, "versions, and the record of the DAG");
}

#[test]
fn a_swap_whose_commit_fails_has_not_happened_and_may_be_asked_for_again() {
    let (ledger, workers) = noting(1);
    let world = World::memory(Broker::with_lanes(&["0"]), workers);
    let handle = world.open();
    let old = handle.start(&version("old", &["in"])).unwrap().version;
    until(&handle, "ready", |run| run.sources[0].ready);
    world.faults.next(Fault::UnknownAbsent);
    let refused = handle.start(&version("new", &["in"])).unwrap_err();
    assert!(matches!(refused, EngineError::Interrupted), "{refused}");
    assert_eq!(hash(&handle), old);
    world.broker.publish("0", values(0..2));
    until(&handle, "done", |run| run.done == 2);
    assert_eq!(ran(&ledger, "old", 0..2), [1, 1]);
    handle.start(&version("new", &["in"])).unwrap();
    world.broker.publish("0", values(2..4));
    until(&handle, "done", |run| run.done == 4);
    assert_eq!(ran(&ledger, "new", 2..4), [1, 1]);
}

#[test]
fn a_task_that_waits_for_its_next_try_ends_on_its_version() {
    let ledger = Ledger::default();
    let notes = ledger.clone();
    let workers = Workers::new(1, move |call| {
        notes.note(format!("{}:{}", call.task, call.value));
        if call.task == "old" && call.try_number == 1 {
            return Outcome::Failed(Box::new(TaskError {
                kind: TaskErrorKind::Raised,
                class: "Error".to_owned(),
                message: "not yet".to_owned(),
                traceback: String::new(),
                retryable: true,
                retry_after_ms: None,
            }));
        }
        Outcome::Success(None)
    });
    let world = World::memory(Broker::with_lanes(&["0"]), workers);
    let handle = world.open();
    let task = r#"{"id":"old","kind":"call","line":2,"retries":1,"retry_delay_ms":1500,
        "upstream":[{"node":"in","kind":"source"}]}"#;
    handle.start(&request_of(task, &["in"])).unwrap();
    world.broker.publish("0", values(0..1));
    until_true("failed once", || ledger.times("old:0") == 1);
    handle.start(&version("new", &["in"])).unwrap();
    world.broker.publish("0", values(1..2));
    until(&handle, "both done", |run| run.done == 2);
    assert_eq!(ledger.times("old:0"), 2);
    assert_eq!(ledger.times("new:1"), 1);
}

/// W16: what a source that goes away left in its inbox waits for a version that has it again, and is shown.
#[test]
fn what_a_removed_source_left_in_its_inbox_is_told_and_taken_up_when_it_is_back() {
    let (ledger, workers) = noting(1);
    let mut world = World::memory(Broker::with_lanes(&["0"]), workers);
    let queue = Queue::default();
    world.queues = [("q".to_owned(), queue.clone())].into();
    let handle = world.open();
    let one_by_one =
        |request: &StartRequest| with(request, |dag| dag["max_active_runs"] = 1.into());
    world.workers.close_gate();
    let both = one_by_one(&version("old", &["in", "q"]));
    handle.start(&both).unwrap();
    queue.send(values(0..5));
    until_true("all kept", || queue.deleted().len() == 5);
    until(&handle, "the first", |run| {
        run.taken_in == 5 && run.tasks[0].running == 1
    });
    handle.start(&one_by_one(&version("new", &["in"]))).unwrap();
    world.workers.open_gate();
    until(&handle, "its end", |run| run.done == 1);
    let told = "4 events of source 'q' are kept";
    let notes = handle.detail("d").unwrap().notes;
    assert!(
        notes.len() == 1 && notes[0].text.contains(told),
        "{notes:?}"
    );
    let notes = handle.fresh_view().unwrap().notes.clone();
    assert!(
        notes.len() == 1 && notes[0].text.contains(told),
        "{notes:?}"
    );
    handle.start(&both).unwrap();
    until(&handle, "the others", |run| run.done == 5);
    assert_eq!(ran(&ledger, "old", 0..5), [1; 5]);
    assert_eq!(handle.detail("d").unwrap().notes, []);
    handle.drain(Duration::from_secs(30)).unwrap();
}

/// W16: two versions can be compared for as long as they are kept, whichever is current.
#[test]
fn versions_of_a_dag_are_compared_by_task_option_edge_and_file() {
    let (_, workers) = noting(1);
    let world = World::sqlite(Broker::with_lanes(&["0"]), workers);
    let handle = world.open();
    let old = handle.start(&version("old", &["in"])).unwrap().version;
    let alone = handle.compare("d", None, None).unwrap_err();
    assert!(alone.to_string().contains("no other version"), "{alone}");
    let changed = with(&version("new", &["in", "more"]), |dag| {
        dag["max_active_runs"] = 3.into();
        dag["sources"][0]["freshness_ms"] = 5.into();
    });
    let new = handle.start(&changed).unwrap().version;
    let diff = handle.compare("d", None, None).unwrap();
    assert_eq!((&diff.from, &diff.to), (&old, &new));
    let told = |options: &[OptionChange]| -> Vec<String> {
        let text = |one: &OptionChange| {
            let value = |value: &Option<serde_json::Value>| value.clone().unwrap_or_default();
            format!(
                "{} {} {}",
                one.option,
                value(&one.before),
                value(&one.after)
            )
        };
        options.iter().map(text).collect()
    };
    assert_eq!(told(&diff.options), ["max_active_runs null 3"]);
    let [known, more] = &diff.sources[..] else {
        panic!("{:?}", diff.sources)
    };
    assert_eq!((known.id.as_str(), known.change), ("in", Change::Changed));
    assert_eq!(told(&known.options), ["freshness_ms null 5"]);
    assert_eq!((more.id.as_str(), more.change), ("more", Change::Added));
    assert!(told(&more.options).contains(&"kind null \"kafka\"".to_owned()));
    let tasks = diff
        .tasks
        .iter()
        .map(|task| (task.id.as_str(), task.change));
    let tasks: Vec<(&str, Change)> = tasks.collect();
    assert_eq!(tasks, [("new", Change::Added), ("old", Change::Removed)]);
    let edges = diff.edges.iter();
    let edges: Vec<_> = edges
        .map(|edge| (edge.from.as_str(), edge.to.as_str(), edge.change))
        .collect();
    let expected = [
        ("in", "new", Change::Added),
        ("in", "old", Change::Removed),
        ("more", "new", Change::Added),
    ];
    assert_eq!(edges, expected);
    assert_eq!((diff.files.len(), diff.left_out), (0, 0));
    // The other way round, and at rest, by the beginnings of their hashes.
    handle.drain(Duration::from_secs(10)).unwrap();
    let rest = Engine::at_rest(world.dir(), world.store()().unwrap()).unwrap();
    let back = rest.compare("d", Some(&new[..6]), Some(&old[..6])).unwrap();
    assert_eq!(told(&back.options), ["max_active_runs 3 null"]);
    assert_eq!(back.sources[1].change, Change::Removed);
    let unknown = rest.compare("d", Some("zz"), None).unwrap_err();
    assert!(unknown.to_string().contains(&old[..12]), "{unknown}");
    assert!(matches!(unknown, EngineError::UnknownVersion(_)));
    let several = rest.compare("d", Some(""), None).unwrap_err();
    assert!(several.to_string().contains("several"), "{several}");
}

#[test]
fn a_version_says_where_it_stands_until_it_is_forgotten() {
    let (_, workers) = noting(1);
    let world = World::sqlite(Broker::with_lanes(&["0"]), workers);
    let handle = world.open();
    let states = || -> Vec<VersionState> {
        let versions = handle.detail("d").unwrap().versions;
        versions.iter().map(|version| version.state).collect()
    };
    use VersionState::{Current, Forgotten, Kept, PutAway};
    let first = handle.start(&version("a", &["in"])).unwrap().version;
    handle.start(&version("b", &["in"])).unwrap();
    assert_eq!(states(), [Current, Kept]);
    handle.roll_back("d", None, "ada").unwrap();
    assert_eq!(states(), [Current, PutAway, Current]);
    for number in 0..evermill_engine::limits::VERSIONS_KEPT {
        let task = format!("t{number}");
        handle.start(&version(&task, &["in"])).unwrap();
    }
    until_true("the first is forgotten", || {
        states()[..2] == [Current, Kept] && states().ends_with(&[Forgotten; 3])
    });
    let gone = handle.compare("d", Some(&first), None).unwrap_err();
    assert!(gone.to_string().contains("is forgotten"), "{gone}");
}
