//! What goes wrong is told: deadlines, freshness, parked events, stalled sources, limits of pools.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use evermill_contract::alert::{Alert, AlertKind, AlertTaker, Receipt};
use evermill_contract::source::{
    FirstPosition, LaneName, Opened, Resolved, Source, SourceBudget, SourceError, SourceEvent,
    Waker,
};
use evermill_contract::worker::{Outcome, TaskError, TaskErrorKind};
use evermill_core::row::Table;
use evermill_engine::limits::{SOURCE_LOOK, SOURCE_RESTARTS, SOURCE_STALL_MS};
use evermill_engine::view::PoolWord;
use evermill_engine::{Clock, EngineError, Handle, Operations as _, StartRequest};

use evermill_store::Fault;

use crate::broker::Broker;
use crate::executor::Workers;
use crate::harness::{
    World, after_source, dag, recording, request, started, until, until_true, values, with,
};
use crate::queue::Queue;

const GRACE: Duration = Duration::from_secs(30);
/// When the manual clock begins.
const DAWN_US: u64 = 1_700_000_000_000_000;
const SECOND_US: u64 = 1_000_000;

/// A world whose time stands still until it is moved.
fn still(workers: Workers) -> World {
    let mut world = World::memory(Broker::with_lanes(&["a"]), workers);
    world.clock = Clock::manual(DAWN_US);
    world
}

fn later(world: &World, handle: &Handle, seconds: u64) {
    world.clock.advance_us(seconds * SECOND_US);
    handle.poke();
}

fn one_task() -> StartRequest {
    request(&after_source("work", ""), true)
}

#[test]
fn a_source_without_progress_is_not_fresh_once_until_it_moves_again() {
    let (_, workers) = recording(1);
    let world = still(workers);
    let handle = world.open();
    let fresh = with(&one_task(), |dag| {
        dag["sources"][0]["freshness_ms"] = 60_000.into()
    });
    started(&handle, &fresh);
    world.broker.publish("a", values(0..1));
    until(&handle, "an event", |run| run.done == 1);
    later(&world, &handle, 59);
    until(&handle, "a look", |run| !run.sources[0].stale);
    later(&world, &handle, 2);
    let run = until(&handle, "a miss", |run| run.sources[0].stale);
    assert_eq!(run.sources[0].freshness_missed, 1);
    later(&world, &handle, 600);
    let told = || world.alerts_of(AlertKind::FreshnessMissed);
    until_true("the alert", || !told().is_empty());
    let told = told();
    assert_eq!((told.len(), told[0].source.as_deref()), (1, Some("in")));
    world.broker.publish("a", values(1..2));
    let run = until(&handle, "progress", |run| {
        run.done == 2 && !run.sources[0].stale
    });
    assert_eq!(run.sources[0].freshness_missed, 1, "it is fresh again");
    handle.drain(GRACE).unwrap();
}

#[test]
fn missed_deadlines_are_counted_listed_and_told_with_their_place() {
    let (_, workers) = recording(1);
    workers.close_gate();
    let world = still(workers.clone());
    let handle = world.open();
    let task = after_source("work", r#","deadline_ms":30000"#);
    started(&handle, &request(&task, true));
    world.broker.publish("a", values(0..1));
    until(&handle, "an event", |run| run.in_flight == 1);
    later(&world, &handle, 31);
    until(&handle, "a miss", |run| run.deadlines_missed == 1);
    workers.open_gate();
    until(&handle, "its end", |run| run.done == 1);
    let detail = handle.detail("d").unwrap();
    let miss = &detail.misses[0];
    assert_eq!((miss.lane.as_str(), miss.position), ("a", 0));
    assert_eq!(miss.task.as_deref(), Some("work"));
    assert_eq!(miss.due_ms, DAWN_US / 1_000 + 30_000);
    let told = world.alerts_of(AlertKind::DeadlineMissed);
    assert_eq!(
        (told.len(), told[0].count, told[0].position),
        (1, 1, Some(0))
    );
    assert_eq!(detail.alerts, told);
    handle.drain(GRACE).unwrap();
}

fn failing() -> Workers {
    Workers::new(1, |call| match call.value.as_str() {
        "bad" => Outcome::Failed(Box::new(TaskError {
            kind: TaskErrorKind::Raised,
            class: "ValueError".to_owned(),
            message: "bad".to_owned(),
            traceback: String::new(),
            retryable: false,
            retry_after_ms: None,
        })),
        _ => Outcome::Success(None),
    })
}

#[test]
fn what_is_parked_is_told_with_the_task_and_the_event() {
    let world = World::memory(Broker::with_lanes(&["a"]), failing());
    let handle = world.open();
    started(&handle, &one_task());
    world
        .broker
        .publish("a", ["good".to_owned(), "bad".to_owned()]);
    until(&handle, "a parked event", |run| run.parked == 1);
    let told = world.alerts_of(AlertKind::Parked);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].position, told[0].task.as_deref()),
        (Some(1), Some("work"))
    );
    assert!(told[0].text.contains("ValueError: bad"), "{}", told[0].text);
    assert_eq!(handle.alerts().unwrap(), told);
    handle.drain(GRACE).unwrap();
}

/// A sink of alerts that takes none before it is opened.
#[derive(Clone, Default)]
struct Shut {
    open: Arc<AtomicBool>,
    told: Arc<Mutex<Vec<String>>>,
}

impl AlertTaker for Shut {
    fn wants(&self, alert: &Alert) -> bool {
        alert.kind == AlertKind::Parked
    }

    fn take(&self, alert: &Alert, receipt: Receipt) {
        self.told.lock().unwrap().push(alert.id.clone());
        if self.open.load(Ordering::Acquire) {
            receipt.told();
        }
    }
}

#[test]
fn an_alert_is_told_again_under_its_id_until_it_was_taken_over_restarts_and_reloads() {
    let mut world = World::memory(Broker::with_lanes(&["a"]), failing());
    let shut = Shut::default();
    world.hooks = Some(Arc::new(shut.clone()));
    let handle = world.open();
    started(&handle, &one_task());
    world.faults.next(Fault::UnknownCommitted);
    world.broker.publish("a", ["bad".to_owned()]);
    until(&handle, "a parked event", |run| run.parked == 1);
    let told = || shut.told.lock().unwrap().clone();
    until_true("the alert", || !told().is_empty());
    let first = told();
    assert_eq!(first.len(), 1, "a reload tells it once");
    handle.drain(GRACE).unwrap();
    drop(handle);
    assert_eq!(world.rows(Table::Outbox).len(), 1);

    shut.open.store(true, Ordering::Release);
    let handle = world.open();
    until_true("the alert again", || told().len() == 2);
    assert_eq!(told()[1], first[0]);
    handle.drain(GRACE).unwrap();
    drop(handle);
    assert_eq!(world.rows(Table::Outbox), [], "it was taken");
}

/// C6: what was at work at three crashes is parked before anything runs, and told all the same: in the
/// commit that parks it, to hooks and to DAGs that listen.
#[test]
fn a_suspect_that_a_start_parks_is_told_of_to_hooks_and_listeners_with_its_place() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&told);
    let workers = Workers::new(2, move |call| {
        if call.task == "page" {
            calls.lock().unwrap().push(call.value.clone());
        }
        Outcome::Success(None)
    });
    workers.close_gate();
    let mut world = still(workers.clone());
    let shut = Shut::default();
    world.hooks = Some(Arc::new(shut.clone()));
    let oncall = || {
        let alerts = r#"{"id":"in","line":1,"config":{"kind":"alerts","kinds":["parked"]}}"#;
        dag("oncall", alerts, &after_source("page", ""))
    };
    let handle = world.open();
    started(&handle, &oncall());
    started(&handle, &one_task());
    world.broker.publish("a", values(0..1));
    until(&handle, "an event", |run| run.in_flight == 1);
    later(&world, &handle, 2);
    until_true("a row of its own", || world.broker.acked("a") == 1);
    handle.halt();
    drop(handle);
    world.open().halt();
    world.open().halt();
    assert_eq!(
        world.rows(Table::Outbox),
        [],
        "no crash is told of too early"
    );

    // The commit of the start is the last thing that this one does.
    world.open().halt();
    assert_eq!(world.rows(Table::Outbox).len(), 1);
    shut.open.store(true, Ordering::Release);
    workers.open_gate();
    let handle = world.open();
    let alerts = handle.alerts().unwrap();
    assert_eq!(alerts.len(), 1);
    let alert = &alerts[0];
    assert_eq!(
        (alert.kind, alert.dag.as_str(), alert.count),
        (AlertKind::Parked, "d", 1)
    );
    assert_eq!(
        (alert.lane.as_deref(), alert.position),
        (Some("a"), Some(0))
    );
    assert!(
        alert.text.contains("each time the engine died"),
        "{}",
        alert.text
    );
    let run = until(&handle, "its run", |run| run.parked == 1);
    assert_eq!((run.taken_in, run.in_flight), (1, 0));
    started(&handle, &oncall());
    until_true("the page", || told.lock().unwrap().len() == 1);
    assert!(told.lock().unwrap()[0].contains(&alert.id));
    handle.drain(GRACE).unwrap();
    drop(handle);
    assert_eq!(world.rows(Table::Outbox), [], "it was taken");
    assert!(shut.told.lock().unwrap().iter().all(|id| *id == alert.id));
}

/// A source that can be made to hang in `poll`.
struct Hanging {
    inner: Box<dyn Source>,
    hangs: Arc<Hang>,
}

#[derive(Default)]
struct Hang {
    hang: AtomicBool,
    /// Sources that were made, and those that hang.
    made: AtomicU32,
    hung: AtomicU32,
    end: Mutex<bool>,
    ended: Condvar,
}

impl Hang {
    fn let_go(&self) {
        *self.end.lock().unwrap() = true;
        self.ended.notify_all();
    }
}

impl Source for Hanging {
    fn poll(&mut self, wait: Duration, out: &mut Vec<SourceEvent>) -> Result<(), SourceError> {
        if self.hangs.hang.load(Ordering::Acquire) {
            self.hangs.hung.fetch_add(1, Ordering::AcqRel);
            let end = self.hangs.end.lock().unwrap();
            drop(self.hangs.ended.wait_while(end, |end| !*end).unwrap());
        }
        self.inner.poll(wait, out)
    }
    fn resolve(&mut self, lane: &LaneName, first: FirstPosition) -> Result<Resolved, SourceError> {
        self.inner.resolve(lane, first)
    }
    fn start_lane(
        &mut self,
        lane: &LaneName,
        from: u64,
        incarnation: Option<&str>,
    ) -> Result<(), SourceError> {
        self.inner.start_lane(lane, from, incarnation)
    }
    fn credit(&mut self, lane: &LaneName, open: bool) {
        self.inner.credit(lane, open);
    }
    fn ack(&mut self, lane: &LaneName, position: u64) {
        self.inner.ack(lane, position);
    }
    fn waker(&self) -> Waker {
        self.inner.waker()
    }
    fn close(&mut self) {
        self.inner.close();
    }
}

fn hanging(world: &mut World) -> Arc<Hang> {
    let hangs = Arc::new(Hang::default());
    let (broker, made) = (world.broker.clone(), Arc::clone(&hangs));
    world.opens = Some(Arc::new(move || {
        made.made.fetch_add(1, Ordering::AcqRel);
        let budget = SourceBudget {
            batch_events: 100,
            batch_bytes: 1 << 20,
            prefetch_bytes: 1 << 20,
        };
        Opened::Log(Box::new(Hanging {
            inner: broker.source(budget),
            hangs: Arc::clone(&made),
        }))
    }));
    hangs
}

/// C01: liveness means progress; a source that does not answer is opened again where we are.
#[test]
fn c01_a_source_that_hangs_is_left_behind_and_opened_again_and_nothing_is_lost() {
    let (ledger, workers) = recording(2);
    let mut world = still(workers);
    let hangs = hanging(&mut world);
    let handle = world.open();
    started(&handle, &one_task());
    world.broker.publish("a", values(0..50));
    until(&handle, "the first events", |run| run.done == 50);
    hangs.hang.store(true, Ordering::Release);
    until_true("a hanging source", || {
        hangs.hung.load(Ordering::Acquire) == 1
    });
    world.broker.publish("a", values(50..100));
    hangs.hang.store(false, Ordering::Release);
    later(&world, &handle, SOURCE_STALL_MS / 1_000 + 1);
    let run = until(&handle, "the others", |run| run.done == 100);
    assert_eq!((run.taken_in, run.in_flight), (100, 0));
    assert_eq!(hangs.made.load(Ordering::Acquire), 2);
    assert_eq!(ledger.repeated(), Vec::<String>::new());
    let told = world.alerts_of(AlertKind::SourceStalled);
    assert_eq!((told.len(), told[0].source.as_deref()), (1, Some("in")));
    // What comes back is heard no more.
    hangs.let_go();
    world.broker.publish("a", values(100..101));
    until(&handle, "one more", |run| run.done == 101);
    assert_eq!(ledger.repeated(), Vec::<String>::new());
    handle.drain(GRACE).unwrap();
}

/// C01 for queues, polls and files: another reader takes over, and each message is deleted once, after it
/// is kept.
#[test]
fn c01_a_receiver_that_hangs_or_waits_for_ever_outside_is_left_behind_and_opened_again() {
    for silent in [false, true] {
        let (ledger, workers) = recording(2);
        let queue = Queue::default();
        let mut world = still(workers);
        let opened = queue.clone();
        world.opens = Some(Arc::new(move || opened.open()));
        let handle = world.open();
        started(&handle, &one_task());
        queue.send(values(0..50));
        until(&handle, "the first messages", |run| run.done == 50);
        // What it has not heard of yet would come again, and these messages have no ids.
        until_true("they are deleted", || queue.deleted().len() == 50);
        if silent {
            queue.fall_silent();
        } else {
            queue.hang();
            until_true("a hanging reader", || queue.hung() == 1);
        }
        queue.send(values(50..100));
        // What is overdue is noted by the source's own thread, which looks when it comes by.
        until_true("another reader", || {
            later(&world, &handle, SOURCE_LOOK.as_secs() + 1);
            queue.made() == 2
        });
        let run = until(&handle, "the others", |run| run.done == 100);
        assert_eq!((run.taken_in, run.in_flight), (100, 0));
        let told = world.alerts_of(AlertKind::SourceStalled);
        assert_eq!((told.len(), told[0].source.as_deref()), (1, Some("in")));
        until_true("all deleted", || queue.deleted().len() == 100);
        queue.let_go();
        until_true("the end of the one left behind", || queue.closed() == 1);
        queue.send(values(100..101));
        until(&handle, "one more", |run| run.done == 101);
        until_true("their outcomes", || queue.settled().contains(&100));
        assert_eq!(queue.deleted(), (0..101).collect::<Vec<_>>());
        assert_eq!(ledger.repeated(), Vec::<String>::new());
        handle.drain(GRACE).unwrap();
    }
}

#[test]
fn a_source_that_keeps_hanging_ends_after_so_many_restarts() {
    let (_, workers) = recording(1);
    let mut world = still(workers);
    let hangs = hanging(&mut world);
    let handle = world.open();
    hangs.hang.store(true, Ordering::Release);
    started(&handle, &one_task());
    for restart in 0..=SOURCE_RESTARTS {
        until_true("a hanging source", || {
            hangs.hung.load(Ordering::Acquire) == restart + 1
        });
        let patience = SOURCE_STALL_MS << restart;
        later(
            &world,
            &handle,
            patience / 1_000 + SOURCE_LOOK.as_secs() + 1,
        );
    }
    let run = until(&handle, "its end", |run| run.sources[0].ended.is_some());
    let why = run.sources[0].ended.clone().unwrap_or_default();
    assert!(why.contains("has not answered"), "{why}");
    until_true("the alert, with its commit", || {
        world.alerts_of(AlertKind::SourceEnded).len() == 1
    });
    let stalled = world.alerts_of(AlertKind::SourceStalled);
    assert_eq!(stalled.len() as u32, SOURCE_RESTARTS);
    hangs.let_go();
    handle.drain(GRACE).unwrap();
}

/// W19: pools are changed while they are used; what was set outlives the engine.
#[test]
fn a_pool_is_changed_live_and_at_rest_and_stays_changed() {
    let (_, workers) = recording(4);
    workers.close_gate();
    let world = World::memory(Broker::with_lanes(&["a"]), workers.clone());
    let handle = world.open();
    let pooled = request(&after_source("work", r#","pool":"api""#), true);
    started(&handle, &pooled);
    let pool = handle.set_pool("api", Some(1)).unwrap();
    assert_eq!((pool.slots, pool.set_by), (1, PoolWord::Set));
    world.broker.publish("a", values(0..9));
    until(&handle, "events", |run| run.in_flight == 9);
    let pools = handle.pools().unwrap();
    assert_eq!((pools[0].name.as_str(), pools[0].used), ("api", Some(1)));
    assert_eq!(pools[0].tasks[0].task, "work");
    let unknown = handle.set_pool("apo", Some(3)).unwrap_err();
    assert!(
        matches!(&unknown, EngineError::UnknownPool { nearest: Some(near), .. } if near == "api"),
        "{unknown}"
    );
    workers.open_gate();
    until(&handle, "their end", |run| run.done == 9);
    handle.drain(GRACE).unwrap();
    let handle = world.open();
    let pools = handle.pools().unwrap();
    assert_eq!((pools[0].slots, pools[0].set_by), (1, PoolWord::Set));
    let reset = handle.set_pool("api", None).unwrap();
    assert_eq!((reset.slots, reset.set_by), (128, PoolWord::Default));
    handle.halt();
}
