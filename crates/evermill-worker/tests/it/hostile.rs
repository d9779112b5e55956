//! Callables that misbehave and live on: a clear error, the other members go on.

use evermill_contract::worker::TaskErrorKind;
use evermill_contract::worker::limits::{ERROR_TRACEBACK_BYTES_MAX, LOG_DISPATCH_BYTES_MAX};

use crate::rig::Rig;

#[test]
fn an_exception_whose_text_raises_is_still_told() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("rude", 2);
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), "FF");
    assert!(
        report.error(0).class.ends_with(".Rude"),
        "{:?}",
        report.error(0)
    );
    assert!(
        report
            .error(0)
            .message
            .contains("__str__ raised RuntimeError")
    );
}

#[test]
fn a_bottomless_traceback_is_cut() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("bottomless", 1);
    let report = rig.run(dispatch);
    let error = report.error(0);
    assert_eq!(error.class, "RecursionError");
    assert!(error.traceback.len() <= ERROR_TRACEBACK_BYTES_MAX);
}

#[test]
fn sys_exit_fails_one_member() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("third_exits", 4);
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), "..F.");
    assert_eq!(report.error(2).kind, TaskErrorKind::Exited);
}

#[test]
fn what_cannot_be_written_is_named_with_type_and_path() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("unserialisable", 5);
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), "FFFF.");
    let says = |member: u32, what: &str| {
        let error = report.error(member);
        assert_eq!(
            (error.kind, error.retryable),
            (TaskErrorKind::Unserialisable, false)
        );
        assert!(error.message.contains(what), "{}", error.message);
    };
    says(0, "value['rows'][1] is of type generator");
    says(1, "value is of type function");
    says(2, "contains itself");
    says(3, "key of type tuple");
    assert_eq!(
        report.result(4),
        r#"{"bytes":{"$bytes":"AP8="},"nan":{"$float":"nan"},"own":{"$$bytes":1},"set":{"$set":[1,2]}}"#
    );
}

#[test]
fn a_hundred_megabytes_are_refused() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("huge", 2);
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), "FF");
    assert_eq!(report.error(1).kind, TaskErrorKind::TooLarge);
    assert!(
        report.error(1).message.contains("100000002 bytes"),
        "{}",
        report.error(1).message
    );
}

#[test]
fn a_child_that_comes_back_from_fork_runs_no_other_member() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("forks", 20);
    let report = rig.run(dispatch);
    assert_eq!((report.letters().len(), report.tail), (20, Some(0)));
}

#[test]
fn a_missing_task_and_a_broken_file_fail_their_members_only() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("no_such_task", 3);
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), "FFF");
    assert_eq!(report.error(0).kind, TaskErrorKind::Load);
    assert!(report.error(0).message.contains("no_such_task"));

    let broken = rig.folder.path().join("broken.py");
    std::fs::write(&broken, "import no_such_module\n").unwrap();
    let mut dispatch = rig.members("echo", 1);
    dispatch.task.entry = broken.to_str().unwrap().into();
    let report = rig.run(dispatch);
    assert!(
        report.error(0).message.contains("no_such_module"),
        "{:?}",
        report.error(0)
    );

    let dispatch = rig.members("echo", 1);
    assert_eq!(rig.run(dispatch).letters(), ".");
}

/// Two hundred megabytes each, by `print` and by descriptor: kept is what the bounds say, and this
/// process does not grow by more.
#[test]
fn floods_of_output_are_cut_and_memory_stays_flat() {
    let mut rig = Rig::new(1);
    let before = resident_kib();
    for task in ["floods_print", "floods_descriptor"] {
        let dispatch = rig.members(task, 1);
        let report = rig.run(dispatch);
        assert_eq!((report.letters().as_str(), report.tail), (".", Some(0)));
        assert!(
            report.log_bytes > 100_000 && report.log_bytes <= LOG_DISPATCH_BYTES_MAX + 1000,
            "{task}"
        );
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "this process grew by {grown} KiB");
}

fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}
