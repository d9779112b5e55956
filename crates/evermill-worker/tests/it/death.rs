//! Workers that die, and how: the engine learns who was running, and others go on.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use evermill_contract::worker::{
    Death, Executor as _, Outcome, Slot, TaskErrorKind, TaskRef, WorkerEvent,
};
use evermill_worker::Preload;

use crate::rig::{Rig, config, python, wait_for};

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

/// Children die with their worker, whether it ends by itself or is killed.
#[test]
fn the_whole_group_goes_with_its_worker() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("leaves_children_and_exits", 1);
    let report = rig.run(dispatch);
    assert_eq!(report.death.map(|death| death.0), Some(Death::Exited(1)));
    gone(rig.noted("exits"));

    let dispatch = rig.members("leaves_children_and_hangs", 1);
    let token = dispatch.token;
    rig.pool.dispatch(Slot(0), dispatch);
    let child = rig.noted("hangs");
    rig.pool.kill(Slot(0), Duration::ZERO);
    let report = rig.report(token);
    assert_eq!(report.death.map(|death| death.0), Some(Death::Killed));
    gone(child);
}

#[test]
fn a_daemon_ends_with_the_pool() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("daemonises", 1);
    assert_eq!(rig.run(dispatch).letters(), ".");
    let daemon = rig.noted("daemon");
    rig.pool.shutdown(Duration::ZERO);
    gone(daemon);
}

#[test]
fn a_lost_fork_server_is_replaced() {
    let mut rig = Rig::cold(config(2));
    let mut pid = 0;
    for _ in 0..2 {
        pid = rig.until(|event| {
            if let WorkerEvent::Ready { pid, .. } = event {
                Some(*pid)
            } else {
                None
            }
        });
    }
    let dispatch = rig.members("third_hangs", 3);
    let token = dispatch.token;
    rig.pool.dispatch(Slot(1), dispatch);
    rig.until(|event| {
        matches!(event, WorkerEvent::Outcomes { token: of, .. } if *of == token).then_some(())
    });
    kill(parent_of(pid));
    let report = rig.report(token);
    let (death, started, reported) = report.death.unwrap();
    assert!(
        matches!(death, Death::ServerLost | Death::Signalled(9)),
        "{death:?}"
    );
    assert_eq!((started, reported), (Some(2), 2));
    for _ in 0..2 {
        rig.until(|event| matches!(event, WorkerEvent::Ready { .. }).then_some(()));
    }
    let dispatch = rig.members("echo", 1);
    assert_eq!(rig.run(dispatch).letters(), ".");
}

const PRELOADED: &str = "
import os, evermill
from evermill import task
imported_by = os.getpid()

@task
def who(event):
    return imported_by

@evermill.dag
def preloaded():
    who(evermill.kafka('t'))
";

#[test]
fn a_preloaded_file_is_imported_once_for_all_workers() {
    let folder = tempfile::tempdir().unwrap();
    let entry = folder.path().join("preloaded.py");
    std::fs::write(&entry, PRELOADED).unwrap();
    let mut config = config(2);
    config.preload = vec![preload(&entry)];
    let mut rig = Rig::with(config);
    assert_eq!(importer(&mut rig, &entry, 0), importer(&mut rig, &entry, 1));
}

/// Each worker takes longer to start than the watch stays awake while nothing runs.
const SLOW_TO_START: &str = "
import os, time, evermill
os.register_at_fork(after_in_child=lambda: time.sleep(2))

@evermill.task
def who(event):
    pass

@evermill.dag
def preloaded():
    who(evermill.kafka('t'))
";

#[test]
fn a_member_that_waited_for_a_slow_worker_has_its_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let entry = folder.path().join("preloaded.py");
    std::fs::write(&entry, SLOW_TO_START).unwrap();
    let mut config = config(1);
    config.preload = vec![preload(&entry)];
    let mut rig = Rig::cold(config);
    let mut dispatch = rig.members("third_spins_deaf", 5);
    // Less than it takes to start, and enough for a member on a busy machine.
    dispatch.timeout = Some(Duration::from_secs(1));
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), "..F");
    assert_eq!(report.error(2).kind, TaskErrorKind::Timeout);
}

#[test]
fn what_was_prepared_is_imported_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let entry = folder.path().join("preloaded.py");
    std::fs::write(&entry, PRELOADED).unwrap();
    // An interpreter that waits until it may start.
    let (script, go) = (folder.path().join("python"), folder.path().join("go"));
    let text = format!(
        "#!/bin/sh\nuntil [ -e {} ]; do sleep 0.01; done\nexec {} \"$@\"\n",
        go.display(),
        python().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let mut config = config(2);
    config.interpreter = script;
    let mut rig = Rig::cold(config);
    let task = rig.members("who", 1).task;
    rig.pool.prepare(&TaskRef {
        entry: entry.to_str().unwrap().into(),
        dag: "preloaded".into(),
        ..task
    });
    std::fs::write(go, "").unwrap();
    assert_eq!(importer(&mut rig, &entry, 0), importer(&mut rig, &entry, 1));
}

#[test]
fn a_preload_that_ends_the_fork_server_or_starts_threads_is_done_without() {
    let bodies = [
        "import os\nos._exit(3)\n",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n",
    ];
    for body in bodies {
        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join("bad.py");
        std::fs::write(&entry, body).unwrap();
        let mut config = config(1);
        config.preload = vec![preload(&entry)];
        let mut rig = Rig::cold(config);
        // Which says that there is none for now, and then there is one.
        rig.until(|event| matches!(event, WorkerEvent::Unavailable { .. }).then_some(()));
        let dispatch = rig.members("echo", 2);
        let token = dispatch.token;
        rig.pool.dispatch(Slot(0), dispatch);
        // One that was forked before the reply came may die first, and return what it had.
        let report = rig.report(token);
        if report.outcomes().len() < 2 {
            let dispatch = rig.members("echo", 2);
            assert_eq!(rig.run(dispatch).letters(), "..");
        }
    }
}

/// The engine is killed outright while a member hangs: nothing of ours survives it.
#[test]
fn workers_do_not_outlive_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("pids");
    let mut engine = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "death::stands_in_for_an_engine"])
        .env("EVERMILL_TEST_NOTE", &note)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pids = wait_for("the stand-in's workers", || {
        let text = std::fs::read_to_string(&note).ok()?;
        text.ends_with(".").then(|| {
            text.trim_end_matches('.')
                .split(' ')
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<u32>>()
        })
    });
    engine.kill().unwrap();
    engine.wait().unwrap();
    for pid in pids {
        gone(pid);
    }
}

#[test]
#[ignore = "a part of workers_do_not_outlive_the_engine"]
fn stands_in_for_an_engine() {
    let Some(note) = std::env::var_os("EVERMILL_TEST_NOTE") else {
        return;
    };
    let mut rig = Rig::cold(config(2));
    let mut pids = Vec::new();
    while pids.len() < 2 {
        pids.push(rig.until(|event| {
            if let WorkerEvent::Ready { pid, .. } = event {
                Some(*pid)
            } else {
                None
            }
        }));
    }
    let dispatch = rig.members("third_spins_deaf", 3);
    rig.pool.dispatch(Slot(0), dispatch);
    rig.until(|event| matches!(event, WorkerEvent::Outcomes { .. }).then_some(()));
    pids.push(parent_of(pids[0]));
    let text: Vec<String> = pids.iter().map(u32::to_string).collect();
    std::fs::write(note, format!("{}.", text.join(" "))).unwrap();
    loop {
        std::thread::park();
    }
}

/// Which process imported the file that a worker runs.
fn importer(rig: &mut Rig, entry: &Path, slot: u16) -> String {
    let mut dispatch = rig.members("who", 1);
    dispatch.task.entry = entry.to_str().unwrap().into();
    dispatch.task.dag = "preloaded".into();
    let token = dispatch.token;
    rig.pool.dispatch(Slot(slot), dispatch);
    rig.report(token).result(0)
}

fn preload(entry: &Path) -> Preload {
    Preload {
        entry: entry.to_str().unwrap().into(),
        folder: None,
        dag: "preloaded".into(),
        task: "who".into(),
    }
}

fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Waits until the process is no more, or only a zombie that somebody else has to bury.
fn gone(pid: u32) {
    wait_for(&format!("the end of process {pid}"), || {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return Some(());
        };
        stat.rsplit(") ")
            .next()
            .unwrap()
            .starts_with('Z')
            .then_some(())
    });
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
        pids.push(rig.until(|event| {
            if let WorkerEvent::Ready { pid, .. } = event {
                Some(*pid)
            } else {
                None
            }
        }));
    }
    pids.push(parent_of(pids[0]));
    let dispatch = rig.members("third_hangs", 3);
    rig.pool.dispatch(Slot(0), dispatch);
    drop(rig);
    for pid in pids {
        gone(pid);
    }
}
