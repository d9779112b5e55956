//! `concurrency=`: members side by side, outcomes in order all the same.

use std::time::Duration;

use evermill_contract::worker::{Death, Dispatch, OrderMode, Outcome, TaskErrorKind};

use crate::rig::{Report, Rig};

fn printed_by(report: &Report) -> Vec<(Option<u32>, String)> {
    let mut said: Vec<_> = report
        .log
        .iter()
        .map(|(member, text)| (*member, text.trim().to_owned()))
        .collect();
    said.sort();
    said
}

fn each_here() -> Vec<(Option<u32>, String)> {
    (0..4).map(|n| (Some(n), format!("here is {n}"))).collect()
}

#[test]
fn threads_run_side_by_side_and_are_reported_in_order() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("meets", 4);
    let report = rig.run(dispatch);
    assert_eq!((report.letters().as_str(), report.tail), (".F..", Some(0)));
    assert_eq!(
        (report.result(0), report.result(3)),
        ("0".into(), "30".into())
    );
    assert_eq!(report.error(1).message, "one is not welcome");
    assert_eq!(printed_by(&report), each_here());
}

#[test]
fn coroutines_share_a_loop_and_are_reported_in_order() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("meets_in_a_loop", 4);
    let report = rig.run(dispatch);
    assert_eq!((report.letters().as_str(), report.tail), ("..S.", Some(0)));
    assert_eq!(printed_by(&report), each_here());
    for (member, outcome) in report.outcomes() {
        if let Outcome::Success(success) = outcome {
            assert_eq!(success.as_ref().unwrap().state_ops.len(), 1, "{member}");
        }
    }
    assert_ne!(report.result(0), report.result(1), "each has its own key");
}

#[test]
fn no_more_run_at_once_than_the_task_says() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("counts_company", 200);
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), ".".repeat(200));
    let most: u32 = report.result(199).parse().unwrap();
    assert!((2..=3).contains(&most), "{most} at once");
}

#[test]
fn under_an_order_members_run_one_by_one() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("counts_company", 20);
    let report = rig.run(Dispatch {
        order: OrderMode::StopOnFailure,
        ..dispatch
    });
    assert_eq!(report.result(19), "1");
}

#[test]
fn a_coroutine_that_runs_too_long_is_cancelled_alone() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("second_of_loop_hangs", 4);
    let report = rig.run(Dispatch {
        timeout: Some(Duration::from_secs(2)),
        ..dispatch
    });
    assert_eq!((report.letters().as_str(), report.tail), (".F..", Some(0)));
    let error = report.error(1);
    assert_eq!(error.class, "TimeoutError");
    assert!(error.message.contains("timeout of 2.0 s"), "{error:?}");
}

#[test]
fn of_threads_the_one_that_runs_too_long_is_blamed() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("second_of_threads_hangs", 4);
    let report = rig.run(Dispatch {
        timeout: Some(Duration::from_secs(1)),
        ..dispatch
    });
    assert_eq!(report.error(1).kind, TaskErrorKind::Timeout);
    assert_eq!(
        report.death.as_ref().map(|death| &death.0),
        Some(&Death::Timeout)
    );
    assert_eq!(report.letters(), ".F", "those behind it run again");
}

#[test]
fn when_company_dies_every_member_that_had_started_is_a_suspect() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("third_of_threads_dies", 8);
    let report = rig.run(dispatch);
    let (death, started, reported) = report.death.unwrap();
    assert_eq!((death, reported), (Death::Signalled(9), 0));
    assert!(
        started.is_some_and(|member| (2..4).contains(&member)),
        "{started:?}"
    );
}
