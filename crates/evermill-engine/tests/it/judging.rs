//! Events that no task is to read: parked at once, with their reason, and nothing else waits for them
//! (row C13).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use evermill_contract::manifest::Manifest;
use evermill_contract::source::{
    Form, Gate, Opened, PushRequest, SourceBudget, Unavailable, Verdict,
};
use evermill_engine::view::{ParkedFilter, ParkedView, RunView};
use evermill_engine::{Handle, Operations as _, Page, PushError, Resolve, StartRequest};

use crate::broker::Broker;
use crate::executor::Workers;
use crate::harness::{
    Ledger, World, after_source, one_task, recording, request, started, until, values,
};
use crate::queue::{Hook, Queue};

const GRACE: Duration = Duration::from_secs(30);

/// Rejects `bad...`; makes `x` of `raw:x`; has to ask about `ask...`, of which it rejects what it was not
/// told to like.
#[derive(Clone, Default)]
struct Judge(Arc<Inner>);

#[derive(Default)]
struct Inner {
    away: AtomicBool,
    likes: AtomicBool,
    asked: AtomicU64,
    known: Mutex<bool>,
}

impl Judge {
    fn look(&self, value: &[u8], form: Form, out: &mut Vec<u8>) -> Verdict {
        let text = String::from_utf8_lossy(value);
        if let (Some(rest), Form::Sent) = (text.strip_prefix("raw:"), form) {
            out.extend_from_slice(rest.as_bytes());
            return Verdict::Becomes;
        }
        let likes = text.starts_with("ask") && self.0.likes.load(Ordering::SeqCst);
        match text.starts_with("bad") || (text.starts_with("ask") && !likes) {
            true => Verdict::Rejected(format!("odd: {text} at /place")),
            false => Verdict::Passes,
        }
    }
}

impl Gate for Judge {
    fn judge(&self, value: &[u8], form: Form, out: &mut Vec<u8>) -> Result<Verdict, Unavailable> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        if self.0.away.load(Ordering::SeqCst) {
            return Err(Unavailable("the judge is away".to_owned()));
        }
        *self.0.known.lock().unwrap() = true;
        Ok(self.look(value, form, out))
    }

    fn judge_known(&self, value: &[u8], form: Form, out: &mut Vec<u8>) -> Option<Verdict> {
        let asks = value.starts_with(b"ask") && !*self.0.known.lock().unwrap();
        (!asks).then(|| self.look(value, form, out))
    }
}

fn judged(world: &mut World) -> Judge {
    let judge = Judge::default();
    let (broker, gate) = (world.broker.clone(), judge.clone());
    world.opens = Some(Arc::new(move || {
        let log = Opened::Log(broker.source(SourceBudget::default()));
        Opened::Gated(Box::new(log), Arc::new(gate.clone()))
    }));
    judge
}

fn parked(handle: &Handle) -> Vec<ParkedView> {
    let page = Page {
        skip: 0,
        limit: usize::MAX,
        payload: true,
    };
    let found = handle.parked("d", &ParkedFilter::default(), page);
    found.unwrap().entries
}

fn conserved(run: &RunView) {
    let settled = run.done + run.skipped + run.parked + run.dropped;
    assert_eq!(run.taken_in, settled + run.in_flight, "{run:?}");
}

fn retry(handle: &Handle) -> u64 {
    let all = ParkedFilter::default();
    handle.resolve("d", &all, Resolve::Retry, false).unwrap()
}

#[test]
fn c13_what_is_rejected_is_parked_at_once_and_its_lane_goes_on() {
    let (ledger, workers) = recording(2);
    let mut world = World::memory(Broker::with_lanes(&["a"]), workers);
    judged(&mut world);
    let handle = world.open();
    let tasks = after_source("work", r#","retries":5"#);
    started(&handle, &request(&tasks, true));
    let mixed = (0..900).map(|n| match n % 3 {
        0 => format!("bad{n}"),
        1 => format!("raw:{n}"),
        _ => n.to_string(),
    });
    world.broker.publish("a", mixed);
    let run = until(&handle, "all", |run| run.done == 600 && run.parked == 300);
    conserved(&run);
    assert_eq!((ledger.len(), ledger.repeated().len()), (600, 0));
    assert_eq!(ledger.times("1"), 1, "tasks read what a value became");
    let first = &parked(&handle)[0];
    assert_eq!(
        (&first.reason[..], first.task.as_deref()),
        ("invalid", Some("work"))
    );
    assert_eq!(first.error, "invalid: odd: bad0 at /place");
    let value = first.payload[0]
        .value
        .as_ref()
        .and_then(|value| value.bytes());
    assert_eq!(value.unwrap(), b"bad0", "kept as it came");
    let work = &run.tasks[0];
    assert_eq!((work.succeeded, work.failed), (600, 300));
    handle.drain(GRACE).unwrap();
    assert_eq!(world.broker.acked("a"), 900);
}

#[test]
fn while_the_judge_is_away_nothing_is_taken_in_parked_or_lost_and_the_source_says_so() {
    let (ledger, workers) = recording(2);
    let mut world = World::memory(Broker::with_lanes(&["a", "b"]), workers);
    let judge = judged(&mut world);
    judge.0.away.store(true, Ordering::SeqCst);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a", values(0..1_500));
    world.broker.publish("b", values(2_000..2_200));
    let run = until(&handle, "the source to say so", |run| {
        run.sources[0].degraded.as_deref() == Some("the judge is away")
    });
    assert_eq!((run.taken_in, run.parked), (0, 0));
    judge.0.away.store(false, Ordering::SeqCst);
    let run = until(&handle, "all", |run| run.done == 1_700);
    conserved(&run);
    assert_eq!((ledger.len(), ledger.repeated().len()), (1_700, 0));
    assert_eq!(run.sources[0].degraded, None);
    handle.drain(GRACE).unwrap();
}

#[test]
fn what_is_tried_again_is_judged_again_also_when_somebody_has_to_be_asked() {
    let (ledger, workers) = recording(1);
    let mut world = World::sqlite(Broker::with_lanes(&["a"]), workers);
    let judge = judged(&mut world);
    let handle = world.open();
    started(&handle, &one_task());
    world
        .broker
        .publish("a", ["ask me".to_owned(), "fine".to_owned()]);
    until(&handle, "one of each", |run| {
        (run.done, run.parked) == (1, 1)
    });
    *judge.0.known.lock().unwrap() = false;
    judge.0.away.store(true, Ordering::SeqCst);
    assert_eq!(retry(&handle), 1);
    until(&handle, "it to be parked again", |run| {
        run.parked == 1 && parked(&handle)[0].round == 1
    });
    let again = &parked(&handle)[0];
    assert_eq!(
        (&again.reason[..], &again.error[..]),
        ("failed", "the judge is away")
    );
    judge.0.away.store(false, Ordering::SeqCst);
    judge.0.likes.store(true, Ordering::SeqCst);
    assert_eq!(retry(&handle), 1);
    let run = until(&handle, "both", |run| run.done == 2);
    conserved(&run);
    assert_eq!((run.parked, ledger.times("ask me")), (0, 1));
    handle.drain(GRACE).unwrap();
}

#[test]
fn an_edited_payload_is_judged_when_it_is_tried_again_also_after_a_restart() {
    let (ledger, workers) = recording(1);
    let mut world = World::sqlite(Broker::with_lanes(&["a"]), workers);
    judged(&mut world);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a", ["bad".to_owned()]);
    until(&handle, "it to be parked", |run| run.parked == 1);
    let id = parked(&handle)[0].id.clone();
    handle
        .amend("d", &id, 0, Bytes::from_static(b"bad still"))
        .unwrap();
    retry(&handle);
    until(&handle, "it to be parked again", |run| {
        run.parked == 1 && parked(&handle)[0].round == 1
    });
    let again = &parked(&handle)[0];
    assert_eq!(
        (&again.reason[..], &again.error[..]),
        ("invalid", "invalid: odd: bad still at /place")
    );
    handle
        .amend("d", &id, 0, Bytes::from_static(b"mended"))
        .unwrap();
    handle.drain(GRACE).unwrap();
    drop(handle);
    let handle = world.open();
    started(&handle, &one_task());
    retry(&handle);
    let run = until(&handle, "it to be done", |run| run.done == 1);
    conserved(&run);
    assert_eq!((ledger.len(), ledger.times("mended")), (1, 1));
    handle.drain(GRACE).unwrap();
}

/// A DAG with something else said of it.
fn changed(whole: StartRequest, change: impl FnOnce(&mut serde_json::Value)) -> StartRequest {
    let mut json = serde_json::to_value(&*whole.manifest).unwrap();
    change(&mut json["dags"][0]);
    let manifest = Manifest::decode(json.to_string().as_bytes());
    StartRequest {
        manifest: Arc::new(manifest.unwrap()),
        ..whole
    }
}

/// Two tasks side by side, and lists of up to ten events.
fn lists() -> StartRequest {
    let tasks = [after_source("one", ""), after_source("two", "")].join(",");
    changed(request(&tasks, true), |dag| {
        dag["sources"][0]["batch"] = serde_json::json!({"max_events": 10});
    })
}

#[test]
fn of_a_list_only_what_is_rejected_is_parked() {
    let seen = Ledger::default();
    let notes = seen.clone();
    let workers = Workers::new(2, move |call| {
        for value in &call.listed {
            notes.note(format!("{} {value}", call.task));
        }
        evermill_contract::worker::Outcome::Success(None)
    });
    let mut world = World::memory(Broker::with_lanes(&["a"]), workers);
    judged(&mut world);
    let handle = world.open();
    started(&handle, &lists());
    let mixed = (0..100).map(|n| match n % 10 {
        3 | 7 => format!("bad{n}"),
        _ => n.to_string(),
    });
    world.broker.publish("a", mixed);
    let run = until(&handle, "all", |run| (run.done, run.parked) == (80, 20));
    conserved(&run);
    assert_eq!((seen.len(), seen.repeated().len()), (160, 0));
    let found = parked(&handle);
    assert!(found.iter().all(|one| one.reason == "invalid"), "{found:?}");
    assert!(found[0].error.starts_with("invalid: odd: bad"), "{found:?}");
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_list_of_nothing_but_rejected_events_is_parked_as_one() {
    let (ledger, workers) = recording(2);
    let mut world = World::memory(Broker::with_lanes(&["a"]), workers);
    judged(&mut world);
    let handle = world.open();
    started(&handle, &lists());
    world
        .broker
        .publish("a", (0..20).map(|n| format!("bad{n}")));
    let run = until(&handle, "all", |run| run.parked == 20);
    conserved(&run);
    assert_eq!(ledger.len(), 0);
    handle.drain(GRACE).unwrap();
}

#[test]
fn a_rejected_event_is_a_failed_one_to_whatever_is_in_line_behind_it() {
    for (order, policy, done, parked) in [
        ("serial", "park", 9, 1),
        ("partition", "park", 9, 1),
        ("serial", "drop", 9, 0),
        ("serial", "block", 4, 1),
    ] {
        let (ledger, workers) = recording(2);
        let mut world = World::memory(Broker::with_lanes(&["a"]), workers);
        judged(&mut world);
        let handle = world.open();
        let tasks = after_source("work", &format!(r#","on_failure":"{policy}""#));
        let whole = changed(request(&tasks, true), |dag| dag["order"] = order.into());
        started(&handle, &whole);
        let some = |n: u64| {
            if n == 4 {
                "bad".to_owned()
            } else {
                n.to_string()
            }
        };
        world.broker.publish("a", (0..10).map(some));
        let what = format!("{order} {policy}");
        let run = until(&handle, &what, |run| {
            (run.done, run.parked) == (done, parked)
        });
        conserved(&run);
        assert_eq!(ledger.times("bad"), 0);
        handle.halt();
    }
}

#[test]
fn who_brings_what_is_rejected_hears_of_it_and_nothing_is_kept() {
    let (ledger, workers) = recording(1);
    let mut world = World::memory(Broker::default(), workers);
    let judge = Judge::default();
    let gate = judge.clone();
    world.opens = Some(Arc::new(move || {
        let hook = Opened::Pushed(Arc::new(Hook));
        Opened::Gated(Box::new(hook), Arc::new(gate.clone()))
    }));
    let handle = world.open();
    started(&handle, &one_task());
    let push = |id: &str, body: &str| {
        let headers = [("id".to_owned(), Bytes::copy_from_slice(id.as_bytes()))];
        let body = Bytes::copy_from_slice(body.as_bytes());
        let request = PushRequest {
            method: "POST",
            query: "",
            headers: &headers,
            body: &body,
        };
        handle.push("d", "in", &request)
    };
    match push("1", "bad") {
        Err(PushError::Rejected(reject)) => {
            assert_eq!(
                (reject.status, &reject.detail[..]),
                (422, "odd: bad at /place")
            );
        }
        other => panic!("{other:?}"),
    }
    judge.0.away.store(true, Ordering::SeqCst);
    assert!(matches!(push("2", "good"), Err(PushError::Unavailable(why)) if why.contains("away")));
    judge.0.away.store(false, Ordering::SeqCst);
    // An id that was refused is free.
    assert_eq!(push("1", "raw:good").unwrap().kept, 1);
    let run = until(&handle, "it", |run| run.done == 1);
    conserved(&run);
    assert_eq!((run.taken_in, ledger.times("good")), (1, 1));
    handle.drain(GRACE).unwrap();
}

#[test]
fn of_a_queue_what_is_rejected_is_kept_and_parked_and_waits_while_the_judge_is_away() {
    let (ledger, workers) = recording(1);
    let mut world = World::sqlite(Broker::default(), workers);
    let queue = Queue::default();
    let judge = Judge::default();
    let (opened, gate) = (queue.clone(), judge.clone());
    world.opens = Some(Arc::new(move || {
        Opened::Gated(Box::new(opened.open()), Arc::new(gate.clone()))
    }));
    judge.0.away.store(true, Ordering::SeqCst);
    let handle = world.open();
    started(&handle, &one_task());
    queue.send(["raw:one".to_owned(), "bad".to_owned(), "two".to_owned()]);
    until(&handle, "the source to say so", |run| {
        run.sources[0].degraded.is_some()
    });
    assert_eq!(queue.deleted(), Vec::<u64>::new());
    judge.0.away.store(false, Ordering::SeqCst);
    let run = until(&handle, "all", |run| (run.done, run.parked) == (2, 1));
    conserved(&run);
    assert_eq!(run.sources[0].degraded, None);
    assert_eq!((ledger.times("one"), ledger.times("two")), (1, 1));
    let found = &parked(&handle)[0];
    assert_eq!(
        (&found.reason[..], &found.error[..]),
        ("invalid", "invalid: odd: bad at /place")
    );
    handle.drain(GRACE).unwrap();
}
