//! Workers that die, and how: the engine learns who was running, and others go on.

use std::path::Path;
use std::time::Duration;

use evermill_contract::worker::{Death, Executor as _, Outcome, Slot, TaskErrorKind, WorkerEvent};

use crate::rig::{Rig, config};

#[test]
fn leaving_and_crashing_name_the_suspects() {
    let mut rig = Rig::new(1);
    for (task, cause) in [
        ("third_leaves", Death::Exited(7)),
        ("third_crashes", Death::Signalled(11)),
    ] {
        let dispatch = rig.members(task, 5);
        let report = rig.run(dispatch);
        let (death, started, reported) = report.death.clone().unwrap();
        assert_eq!((death, started), (cause, Some(2)));
        assert!(reported <= 2);
        assert_eq!(report.letters().len(), reported as usize);
    }
    // The slot has a worker again.
    let dispatch = rig.members("echo", 1);
    assert_eq!(rig.run(dispatch).letters(), ".");
}

#[test]
fn what_was_queued_behind_the_dead_comes_back_whole() {
    let mut rig = Rig::new(1);
    let (first, second) = (rig.members("third_leaves", 3), rig.members("echo", 9));
    let token = second.token;
    rig.pool.dispatch(Slot(0), first);
    rig.pool.dispatch(Slot(0), second);
    let report = rig.report(token);
    assert_eq!((report.tail, report.letters().as_str()), (Some(9), ""));
}

#[test]
fn a_hanging_member_times_out_and_the_others_do_not() {
    let mut rig = Rig::new(1);
    for task in ["third_hangs", "third_spins_deaf"] {
        let mut dispatch = rig.members(task, 5);
        dispatch.timeout = Some(Duration::from_millis(300));
        let report = rig.run(dispatch);
        let (death, started, _) = report.death.clone().unwrap();
        assert_eq!((death, started), (Death::Timeout, Some(2)), "{task}");
        // The engine urged the worker to send the two before it.
        assert_eq!(report.letters(), "..F", "{task}");
        assert_eq!(report.error(2).kind, TaskErrorKind::Timeout);
    }
}

#[test]
fn outcomes_do_not_wait_behind_a_long_member() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("slow_second", 3);
    rig.pool.dispatch(Slot(0), dispatch);
    let runs = rig.until(|event| match event {
        WorkerEvent::Outcomes { runs, .. } => Some(runs.clone()),
        _ => None,
    });
    assert_eq!(
        (runs[0].first, runs[0].count, &runs[0].outcome),
        (0, 1, &Outcome::Success(None))
    );
}

#[test]
fn a_kill_takes_the_whole_group() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("leaves_children", 3);
    let report = rig.run(dispatch);
    assert_eq!(
        report.death.clone().map(|death| death.0),
        Some(Death::Exited(1))
    );
    // The first member's output was sent only if a flush came before the end; ask a worker that
    // is killed from outside for the rest.
    let dispatch = rig.members("third_hangs", 3);
    let token = dispatch.token;
    rig.pool.dispatch(Slot(0), dispatch);
    rig.until(|event| {
        matches!(event, WorkerEvent::Outcomes { token: of, .. } if *of == token).then_some(())
    });
    rig.pool.kill(Slot(0), Duration::ZERO);
    let report = rig.report(token);
    assert_eq!(report.death.map(|death| death.0), Some(Death::Killed));
}

#[test]
fn garbage_on_the_wire_ends_only_that_worker() {
    let mut rig = Rig::new(2);
    let dispatch = rig.members("scribbles", 1);
    let token = dispatch.token;
    rig.pool.dispatch(Slot(0), dispatch);
    let report = rig.report(token);
    assert!(
        matches!(report.death, Some((Death::Protocol(_), ..))),
        "{report:?}"
    );
    let dispatch = rig.members("echo", 1);
    let token = dispatch.token;
    rig.pool.dispatch(Slot(1), dispatch);
    assert_eq!(rig.report(token).letters(), ".");
}

#[test]
fn a_missing_interpreter_is_said_and_tried_again_without_a_storm() {
    let mut config = config(4);
    config.interpreter = "/no/such/python".into();
    let mut rig = Rig::cold(config);
    let mut waits = Vec::new();
    while waits.len() < 3 {
        waits.push(rig.until(|event| match event {
            WorkerEvent::Unavailable { reason, retry_in } => {
                assert!(
                    reason.contains("/no/such/python") && reason.contains("EVERMILL_PYTHON"),
                    "{reason}"
                );
                Some(*retry_in)
            }
            _ => None,
        }));
    }
    assert!(waits[0] < waits[1] && waits[1] < waits[2], "{waits:?}");
}

#[test]
fn an_interpreter_without_the_sdk_says_why() {
    let mut config = config(1);
    config.sdk = Some("/no/such/folder".into());
    config.env = vec![("PYTHONNOUSERSITE".into(), "1".into())];
    let mut rig = Rig::cold(config);
    let reason = rig.until(|event| match event {
        WorkerEvent::Unavailable { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("evermill"), "{reason}");
}

#[test]
fn dropping_the_pool_leaves_no_process() {
    let mut rig = Rig::cold(config(2));
    let mut pids = Vec::new();
    while pids.len() < 2 {
        pids.push(rig.until(|event| match event {
            WorkerEvent::Ready { pid, .. } => Some(*pid),
            _ => None,
        }));
    }
    let dispatch = rig.members("third_hangs", 3);
    rig.pool.dispatch(Slot(0), dispatch);
    drop(rig);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while pids
        .iter()
        .any(|pid| Path::new(&format!("/proc/{pid}")).exists())
    {
        assert!(
            std::time::Instant::now() < deadline,
            "workers {pids:?} are still there"
        );
        std::thread::yield_now();
    }
}
