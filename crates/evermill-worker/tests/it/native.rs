//! Closures as the engine sees them: those that do not return in time, and the threads they keep.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use evermill_contract::worker::{
    Death, Dispatch, Event, Executor as _, Member, OrderMode, Outcome, Slot, TaskErrorKind,
    TaskRef, Token, WorkerEvent,
};
use evermill_worker::{Lease, NativePool, NativeTask};

const PATIENCE: Duration = Duration::from_secs(60);
/// As the pool's documentation says.
const STRAYS_MAX: u64 = 32;

/// Closures wait here until it is opened.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn pass(&self) {
        let mut open = self.0.lock().unwrap();
        while !*open {
            open = self.1.wait(open).unwrap();
        }
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

struct Rig {
    pool: NativePool,
    events: Receiver<WorkerEvent>,
}

impl Rig {
    fn new(run: impl Fn(&Arc<Lease>, u32) -> Outcome + Send + Sync + 'static) -> Self {
        let (to, events) = bounded(1024);
        let tasks = BTreeMap::from([("work".to_owned(), NativeTask::Each(Arc::new(run)))]);
        let deliver = move |event| drop(to.send(event));
        let rig = Self {
            pool: NativePool::start(1, tasks, Box::new(deliver)).unwrap(),
            events,
        };
        assert!(matches!(rig.next(), WorkerEvent::Ready { .. }));
        rig
    }

    fn next(&self) -> WorkerEvent {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    fn dispatch(&mut self, token: u64, members: u32, timeout: Option<Duration>) {
        let member = |position| Member {
            event: Event {
                lane: 0,
                position: u64::from(position),
                id: None,
                timestamp_ms: None,
                key: None,
                value: None,
                headers: None,
            },
            has_event: false,
            batch: None,
            joined: None,
            try_number: 1,
            map_index: -1,
            scope: 0,
            state: None,
        };
        let dispatch = Dispatch {
            token: Token(token),
            task: TaskRef {
                entry: "build".to_owned(),
                folder: None,
                dag: "dag".to_owned(),
                run: "dag.1".to_owned(),
                task: "work".to_owned(),
                sink: None,
                polls: None,
            },
            order: OrderMode::Independent,
            vectorised: false,
            slice: PATIENCE,
            timeout,
            cwd: None,
            nice: 0,
            traced: false,
            lanes: Vec::new(),
            upstream: Vec::new(),
            members: (0..members).map(member).collect(),
            events: Vec::new(),
            results: Vec::new(),
            buffers: Vec::new(),
        };
        self.pool.dispatch(Slot(0), dispatch);
    }
}

/// The token and reach of a death for want of time.
fn timed_out(event: WorkerEvent) -> (Option<Token>, Option<u32>, u32) {
    match event {
        WorkerEvent::Died {
            cause: Death::Timeout,
            token,
            started,
            reported,
            ..
        } => (token, started, reported),
        other => panic!("no timeout but {other:?}"),
    }
}

#[test]
fn members_before_the_late_one_are_reported_and_those_behind_it_return_unstarted() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let mut rig = Rig::new(move |_, index| {
        if index == 2 {
            held.pass();
        }
        Outcome::Success(None)
    });
    rig.dispatch(7, 5, Some(Duration::from_millis(300)));
    rig.dispatch(8, 1, None);
    let mut runs = Vec::new();
    let death = loop {
        match rig.next() {
            WorkerEvent::Outcomes { runs: told, .. } => runs.extend(told),
            other => break other,
        }
    };
    let late = runs.pop().expect("the late one");
    assert_eq!((late.first, late.count), (2, 1));
    assert_eq!(runs.iter().map(|run| run.count).sum::<u32>(), 2);
    assert!(runs.iter().all(|run| run.outcome == Outcome::Success(None)));
    let Outcome::Failed(error) = &late.outcome else {
        panic!("no failure: {:?}", late.outcome);
    };
    assert_eq!(
        (error.kind, error.retryable),
        (TaskErrorKind::Timeout, true)
    );
    // All that have started are reported: nobody is a suspect.
    assert_eq!(timed_out(death), (Some(Token(7)), Some(2), 3));
    let WorkerEvent::Finished { token, tail, .. } = rig.next() else {
        panic!("what was queued behind it is not returned");
    };
    assert_eq!((token, tail), (Token(8), 1));
    assert!(matches!(rig.next(), WorkerEvent::Ready { .. }));
    gate.open();
    // The thread that was left says nothing: what follows is the new one's.
    rig.dispatch(9, 1, None);
    let WorkerEvent::Outcomes { token, .. } = rig.next() else {
        panic!("no outcomes of the new thread");
    };
    assert_eq!(token, Token(9));
}

#[test]
fn threads_that_were_left_are_bounded_and_a_slot_waits_for_one_to_end() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let mut rig = Rig::new(move |_, _| {
        held.pass();
        Outcome::Success(None)
    });
    for token in 1..=STRAYS_MAX {
        rig.dispatch(token, 1, Some(Duration::from_millis(1)));
        assert!(matches!(rig.next(), WorkerEvent::Outcomes { .. }));
        assert_eq!(timed_out(rig.next()).0, Some(Token(token)));
        if token < STRAYS_MAX {
            assert!(matches!(rig.next(), WorkerEvent::Ready { .. }));
        }
    }
    let WorkerEvent::Unavailable { reason, .. } = rig.next() else {
        panic!("the bound is passed in silence");
    };
    assert!(reason.contains("should_stop"), "{reason}");
    gate.open();
    assert!(matches!(rig.next(), WorkerEvent::Ready { .. }));
}

#[test]
fn a_closure_that_never_returns_does_not_hold_up_the_end() {
    let gate = Arc::new(Gate::default());
    let inside = Arc::new(AtomicBool::new(false));
    let (held, within) = (Arc::clone(&gate), Arc::clone(&inside));
    let mut rig = Rig::new(move |lease, _| {
        within.store(true, Ordering::Release);
        held.pass();
        assert!(lease.should_stop());
        Outcome::Success(None)
    });
    rig.dispatch(1, 1, None);
    crate::rig::wait_for("the closure", || {
        inside.load(Ordering::Acquire).then_some(())
    });
    rig.pool.shutdown(Duration::ZERO);
    let WorkerEvent::Died {
        cause: Death::Killed,
        token: Some(Token(1)),
        started: Some(0),
        reported: 0,
        ..
    } = rig.next()
    else {
        panic!("the closure's end is not told");
    };
    let WorkerEvent::Died { token: None, .. } = rig.next() else {
        panic!("the slot's end is not told");
    };
    gate.open();
}
