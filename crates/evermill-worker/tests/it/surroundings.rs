//! What a task finds around it, and that the next task does not find it.

use evermill_contract::worker::Dispatch;

use crate::rig::{Rig, python};

#[test]
fn a_task_has_its_environment_and_the_next_one_has_not() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("greets", 1);
    assert_eq!(rig.run(dispatch).result(0), r#"["hello","hello"]"#);
    let dispatch = rig.members("is_greeted", 1);
    assert_eq!(rig.run(dispatch).letters(), ".");
    let dispatch = rig.members("greets", 1);
    assert_eq!(rig.run(dispatch).result(0), r#"["hello","hello"]"#);
}

#[test]
fn a_task_runs_in_its_folder_and_a_missing_one_is_said() {
    let mut rig = Rig::new(1);
    let folder = std::fs::canonicalize(rig.folder.path()).unwrap();
    let folder = folder.to_str().unwrap().to_owned();
    let place = |dispatch: Dispatch, cwd: &str| Dispatch {
        cwd: Some(cwd.to_owned()),
        ..dispatch
    };
    let dispatch = place(rig.members("where", 2), &folder);
    assert_eq!(rig.run(dispatch).result(1), format!("\"{folder}\""));
    let dispatch = rig.members("where", 1);
    assert_ne!(rig.run(dispatch).result(0), format!("\"{folder}\""));
    let dispatch = place(rig.members("where", 2), "/there/is/no/such/folder");
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), "FF");
    let said = &report.error(1).message;
    assert!(
        said.contains("task 'where' cannot run in '/there/is/no/such/folder': No such file"),
        "{said}"
    );
}

#[test]
fn a_member_that_wants_more_memory_than_its_task_may_have_fails_alone() {
    let mut rig = Rig::new(1);
    // The value is the index: nothing, 100 MB, 200 MB, and each time the limit is for all there is.
    let dispatch = rig.members("eats", 4);
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), "..FF");
    assert_eq!(report.error(2).class, "MemoryError");
    let dispatch = rig.members("eats_freely", 4);
    assert_eq!(
        rig.run(dispatch).letters(),
        "....",
        "the limit went with the task"
    );
}

#[test]
fn a_limit_below_what_a_worker_has_already_is_said() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("starves", 1);
    let report = rig.run(dispatch);
    let said = &report.error(0).message;
    assert!(
        said.contains("task 'starves' may take 1000000 bytes, and its worker has taken"),
        "{said} ({:?})",
        python()
    );
}

#[test]
fn a_worker_that_yields_to_others_is_replaced_for_a_task_that_does_not() {
    let mut rig = Rig::new(1);
    let mut run = |nice: u8| {
        let dispatch = rig.members("yields", 1);
        let report = rig.run(Dispatch { nice, ..dispatch });
        let [priority, pid]: [i64; 2] = serde_json::from_str(&report.result(0)).unwrap();
        (priority, pid)
    };
    let (usual, first) = run(0);
    let (nice, second) = run(5);
    let (_, third) = run(5);
    let (back, fourth) = run(0);
    assert_eq!((nice - usual, back), (5.min(19 - usual), usual));
    assert_eq!(
        (first, second),
        (second, third),
        "one worker as long as it can be one"
    );
    assert_ne!(third, fourth);
}
