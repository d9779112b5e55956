//! A source that lets a function of the DAG file judge what it receives, before anything is kept.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use evermill_contract::source::{
    Arrival, Delivery, Inquiry, Opened, Received, Receiver, Reply, SourceError, Waker,
};
use evermill_contract::worker::{Outcome, Success, TaskError, TaskErrorKind};

use evermill_store::Fault;

use crate::broker::Broker;
use crate::executor::{Call, Workers};
use crate::harness::{Ledger, World, one_task, started, until, until_true};

const GRACE: Duration = Duration::from_secs(30);

/// Values to be judged, each until a function has said something; what was said of them.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    values: Vec<String>,
    said: Vec<(String, Reply)>,
}

impl Desk {
    fn open(&self) -> Opened {
        Opened::Received(Box::new(Judged {
            desk: self.clone(),
            number: 0,
            asked: None,
            said: None,
        }))
    }

    fn said(&self) -> Vec<(String, Reply)> {
        self.0.lock().unwrap().said.clone()
    }
}

/// Asks about the first value; what the function takes for true is delivered.
struct Judged {
    desk: Desk,
    number: u64,
    asked: Option<String>,
    said: Option<Reply>,
}

fn arrival(value: &str) -> Arrival {
    Arrival {
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: vec![(Bytes::from_static(b":kind"), Bytes::from_static(b"test"))],
        ..Arrival::default()
    }
}

impl Receiver for Judged {
    fn begin(&mut self, _memo: Option<&[u8]>) -> Result<(), SourceError> {
        (self.asked, self.said) = (None, None);
        Ok(())
    }

    fn receive(&mut self, wait: Duration, out: &mut Vec<Received>) -> Result<(), SourceError> {
        let mut state = self.desk.0.lock().unwrap();
        if let (Some(value), Some(said)) = (
            self.asked.take_if(|_| self.said.is_some()),
            self.said.take(),
        ) {
            state.values.retain(|other| *other != value);
            state.said.push((value.clone(), said.clone()));
            if said == Reply::Returned(Some(Bytes::from_static(b"[true]"))) {
                out.push(Received::Delivery(Delivery {
                    ticket: self.number,
                    events: vec![arrival(&value)],
                    ..Delivery::default()
                }));
            }
            return Ok(());
        }
        match (&self.asked, state.values.first()) {
            (None, Some(value)) => {
                self.number += 1;
                self.asked = Some(value.clone());
                out.push(Received::Ask(Inquiry {
                    number: self.number,
                    function: "check",
                    about: vec![arrival(value)],
                }));
            }
            (None, None) => out.push(Received::CaughtUp),
            (Some(_), _) => {}
        }
        drop(state);
        // Woken or not, the engine calls again.
        std::thread::park_timeout(wait.min(Duration::from_millis(2)));
        Ok(())
    }

    fn told(&mut self, number: u64, replies: Vec<Reply>) {
        assert_eq!((number, replies.len()), (self.number, 1));
        self.said = replies.into_iter().next();
    }

    fn kept(&mut self, _ticket: u64) {}

    fn waker(&self) -> Waker {
        Waker::new(|| {})
    }

    fn close(&mut self) {}
}

fn world(
    slots: u16,
    check: impl Fn(&Call<'_>) -> Outcome + Send + Sync + 'static,
) -> (World, Desk, Ledger) {
    let (desk, ledger) = (Desk::default(), Ledger::default());
    let notes = ledger.clone();
    let workers = Workers::new(slots, move |call| {
        notes.note(format!("{} {}", call.task, call.value));
        if call.task == "work" {
            return Outcome::Success(None);
        }
        check(call)
    });
    let mut world = World::sqlite(Broker::default(), workers);
    let opened = desk.clone();
    world.opens = Some(Arc::new(move || opened.open()));
    (world, desk, ledger)
}

fn said(text: &'static str) -> Outcome {
    Outcome::Success(Some(Box::new(Success {
        result: Some(Bytes::from(text)),
        ..Success::default()
    })))
}

#[test]
fn a_function_judges_before_anything_is_kept_and_no_try_or_event_is_counted_for_it() {
    let (world, desk, ledger) = world(1, |call| match call.value.as_str() {
        "good" => said("[true]"),
        "bad" => said("[false]"),
        _ => Outcome::Failed(Box::new(TaskError {
            kind: TaskErrorKind::Raised,
            class: "ValueError".into(),
            message: "what is it?".into(),
            traceback: "where".into(),
            retryable: true,
            retry_after_ms: None,
        })),
    });
    let handle = world.open();
    started(&handle, &one_task());
    desk.0.lock().unwrap().values = ["bad", "odd", "good"].map(str::to_owned).to_vec();
    let run = until(&handle, "the good one", |run| run.done == 1);
    assert_eq!((run.taken_in, run.parked), (1, 0));
    let heard: Vec<_> = desk.said().into_iter().map(|(value, _)| value).collect();
    assert_eq!(heard, ["bad", "odd", "good"]);
    assert_eq!(
        desk.said()[1].1,
        Reply::Failed("ValueError: what is it?".to_owned())
    );
    assert_eq!(ledger.times("in?check good"), 1);
    assert_eq!(run.tasks.iter().map(|task| task.succeeded).sum::<u64>(), 1);
    handle.drain(GRACE).unwrap();
}

#[test]
fn what_was_out_when_the_shard_was_dropped_is_asked_again() {
    let (world, desk, _) = world(1, |_| said("[true]"));
    world.workers.close_gate();
    let handle = world.open();
    started(&handle, &one_task());
    desk.0.lock().unwrap().values = vec!["one".to_owned()];
    until_true("the question", || {
        world
            .workers
            .dispatches
            .load(std::sync::atomic::Ordering::SeqCst)
            == 1
    });
    // Its attempts are ended, and the source begins anew.
    world.faults.next(Fault::UnknownAbsent);
    handle.pause("d").ok();
    world.workers.open_gate();
    let run = until(&handle, "the answer", |run| run.done == 1);
    assert_eq!(run.taken_in, 1);
    assert_eq!(handle.fresh_view().unwrap().reloads, 1);
    assert_eq!(desk.said().len(), 1);
    handle.drain(GRACE).unwrap();
}
