//! What works: members in, outcomes out, tails, order, questions.

use std::time::Duration;

use bytes::Bytes;
use evermill_contract::identity::{ActivationId, LaneIdentity, effect_key};
use evermill_contract::worker::{
    Answer, Executor as _, OrderMode, Outcome, Question, Range, Slot, StateOp, WorkerEvent,
};

use crate::rig::{Rig, config};

#[test]
fn a_thousand_plain_successes_are_one_run() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("silent", 1000);
    let report = rig.run(dispatch);
    let total: u32 = report.runs.iter().map(|run| run.count).sum();
    assert_eq!((total, report.tail), (1000, Some(0)));
    // More than one only if the machine was so slow that a flush came in between.
    assert!(report.runs.len() < 10, "{:?}", report.runs);
    assert!(
        report
            .runs
            .iter()
            .all(|run| run.started_ns <= run.ended_ns && run.started_ns > 0)
    );
}

#[test]
fn an_event_says_what_the_source_emitted() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("describe", 2);
    let report = rig.run(dispatch);
    assert_eq!(
        report.result(1),
        r#"["1",{"$bytes":"azE="},1001,"kafka","t/0",{"$datetime":"2023-11-14T22:13:20+00:00"},[]]"#
    );
}

#[test]
fn effect_keys_are_those_of_the_contract() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("effect", 3);
    let report = rig.run(dispatch);
    let lane = LaneIdentity::new("cases-1", "kafka", "t-1/0");
    let activation = lane.activation(&ActivationId::Position(1002), 0);
    let keys = [0, 1].map(|call| effect_key(&activation, "effect", -1, call));
    assert_eq!(
        report.result(2),
        format!(r#"["{}","{}","cases-1","effect",1,-1]"#, keys[0], keys[1])
    );
}

#[test]
fn a_failure_is_one_member_s_own() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("third_raises", 5);
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), "..F..");
    let error = report.error(2);
    assert_eq!(
        (error.class.as_str(), error.message.as_str()),
        ("ValueError", "three is too many")
    );
    assert!(
        error.retryable && error.traceback.contains("in third_raises"),
        "{error:?}"
    );
}

#[test]
fn skip_and_fail_mean_what_they_say() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("third_skips", 4);
    assert_eq!(rig.run(dispatch).letters(), "..S.");
    let dispatch = rig.members("third_fails_for_good", 4);
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), "..F.");
    assert!(!report.error(2).retryable);
}

#[test]
fn stop_on_failure_returns_the_rest() {
    let mut rig = Rig::new(1);
    let mut dispatch = rig.members("third_raises", 6);
    dispatch.order = OrderMode::StopOnFailure;
    let report = rig.run(dispatch);
    assert_eq!((report.letters().as_str(), report.tail), ("..F", Some(3)));
}

#[test]
fn skip_same_key_holds_only_that_scope() {
    let mut rig = Rig::new(1);
    let mut dispatch = rig.members("third_raises", 7);
    dispatch.order = OrderMode::SkipSameKey;
    let report = rig.run(dispatch);
    // Scopes go 1 2 3 1 2 3 1.
    assert_eq!(
        (report.letters().as_str(), report.tail),
        ("..F..H.", Some(0))
    );
}

#[test]
fn the_tail_comes_back_when_the_slice_ends() {
    let mut rig = Rig::new(1);
    let mut dispatch = rig.members("echo", 60_000);
    dispatch.slice = Duration::from_millis(1);
    let report = rig.run(dispatch);
    let done = u32::try_from(report.outcomes().len()).unwrap();
    assert!(done > 0 && done < 60_000, "{done} members in a millisecond");
    assert_eq!(report.tail, Some(60_000 - done));
    assert_eq!(report.result(done - 1), (done - 1).to_string());
}

#[test]
fn a_recall_returns_the_tail_and_the_queued_dispatch() {
    let mut rig = Rig::new(1);
    // Ten seconds of members, of which some milliseconds are needed.
    let running = rig.members("naps", 2000);
    let queued = rig.members("echo", 4);
    let (first, second) = (running.token, queued.token);
    rig.pool.dispatch(Slot(0), running);
    rig.pool.dispatch(Slot(0), queued);
    let reported = rig.until(|event| match event {
        WorkerEvent::Outcomes { token, runs, .. } if *token == first => Some(runs[0].count),
        _ => None,
    });
    rig.pool.recall(second);
    rig.pool.recall(first);
    let [report, waited] = rig.reports([first, second]);
    assert_eq!(waited.tail, Some(4), "it was not begun");
    let later = u32::try_from(report.outcomes().len()).unwrap();
    // Some come back while a member naps, those that did not at the end.
    let left = report.end.unwrap_or(2000);
    assert!(reported + later < 2000, "{report:?}");
    assert_eq!(
        report.tail.map(|tail| reported + later + tail),
        Some(left),
        "{report:?}"
    );
}

#[test]
fn members_behind_a_long_one_come_back_while_it_runs() {
    let mut rig = Rig::new(1);
    for task in ["third_hangs", "together_hangs"] {
        let long = rig.members(task, 8);
        let token = long.token;
        rig.pool.dispatch(Slot(0), long);
        rig.noted(task);
        rig.pool.recall(token);
        let from = rig.until(|event| match event {
            WorkerEvent::Returned {
                token: of, from, ..
            } if *of == token => Some(*from),
            _ => None,
        });
        // Where two run side by side, one more may have started.
        let most = if task == "third_hangs" { 3 } else { 4 };
        assert!((3..=most).contains(&from), "{task}: {from}");
        rig.pool.kill(Slot(0), Duration::ZERO);
        let (death, started, _) = rig.report(token).death.unwrap();
        assert!(started.is_some_and(|started| started < from), "{death:?}");
    }
}

#[test]
fn what_waits_behind_a_deaf_member_comes_back_again_and_again() {
    let mut rig = Rig::new(1);
    let deaf = rig.members("is_deaf", 1);
    let running = deaf.token;
    rig.pool.dispatch(Slot(0), deaf);
    // It may wait in the worker, and later before it.
    for _ in 0..3 {
        let waits = rig.members("echo", 4);
        let token = waits.token;
        rig.pool.dispatch(Slot(0), waits);
        rig.noted("deaf");
        rig.pool.recall(token);
        assert_eq!(rig.report(token).tail, Some(4));
    }
    let last = rig.members("echo", 2);
    let token = last.token;
    rig.pool.dispatch(Slot(0), last);
    rig.pool.kill(Slot(0), Duration::ZERO);
    assert!(rig.report(running).death.is_some());
    assert_eq!(rig.report(token).result(1), "1", "the next worker runs it");
}

#[test]
fn dispatches_wait_for_a_worker_that_is_still_starting() {
    let mut rig = Rig::cold(config(1));
    let first = rig.members("echo", 2);
    let second = rig.members("echo", 2);
    let token = second.token;
    rig.pool.dispatch(Slot(0), first);
    rig.pool.dispatch(Slot(0), second);
    let report = rig.report(token);
    assert_eq!(report.result(1), "1");
}

#[test]
fn a_question_is_answered_in_mid_call() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("asks", 4);
    let token = dispatch.token;
    rig.pool.dispatch(Slot(0), dispatch);
    let answers = [
        Answer::Value(Bytes::from_static(b"\"green\"")),
        Answer::Missing,
        Answer::Refused("not yours".into()),
    ];
    for (member, answer) in answers.into_iter().enumerate() {
        let call = rig.until(|event| match event {
            WorkerEvent::Ask {
                call,
                member: asker,
                question,
                ..
            } => {
                assert_eq!(
                    *question,
                    Question::Variable {
                        name: "colour".into()
                    }
                );
                assert_eq!(*asker as usize, member);
                Some(*call)
            }
            _ => None,
        });
        rig.pool.answer(Slot(0), call, answer);
    }
    let call = rig.until(|event| {
        if let WorkerEvent::Ask { call, .. } = event {
            Some(*call)
        } else {
            None
        }
    });
    // Outcomes come before a question; those of the first three are in by now.
    rig.pool
        .answer(Slot(0), call, Answer::Value(Bytes::from_static(b"4")));
    let report = rig.report(token);
    assert_eq!(report.result(3), "4");
}

#[test]
fn state_and_named_values_travel_with_the_outcome() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("counts", 1);
    let report = rig.run(dispatch);
    let Some((_, Outcome::Success(Some(success)))) = report.outcomes().first().cloned() else {
        panic!("{report:?}");
    };
    let expected = [
        StateOp::Incr {
            name: "seen".into(),
            by: 1.into(),
        },
        StateOp::SetAdd {
            name: "names".into(),
            values: vec!["a".into(), "b".into()],
        },
    ];
    assert_eq!(success.state_ops, expected);

    let dispatch = rig.members("pushes", 1);
    let report = rig.run(dispatch);
    let Some((_, Outcome::Success(Some(success)))) = report.outcomes().first().cloned() else {
        panic!("{report:?}");
    };
    assert_eq!(
        (success.map_len, &success.xcoms[0].value[..]),
        (Some(3), &br#"{"n":1}"#[..])
    );
}

#[test]
fn state_that_came_along_is_read_without_a_question_and_with_what_the_attempt_has_changed() {
    let mut rig = Rig::new(1);
    let mut dispatch = rig.members("recalls", 1);
    let state = br#"["seen",41,"names",["a"],"$set",{"$set":[1]}]"#;
    dispatch.buffers.push(Bytes::from_static(state));
    dispatch.members[0].state = Some(Range {
        buffer: dispatch.buffers.len() as u32 - 1,
        start: 0,
        len: state.len() as u32,
    });
    // A question would never be answered here.
    let report = rig.run(dispatch);
    assert_eq!(report.result(0), r#"[42,["a","b"],{"$set":[1]},"none"]"#);
}

#[test]
fn prints_and_logging_are_tagged_by_member() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("prints", 2);
    let report = rig.run(dispatch);
    let of = |member| -> String {
        report
            .log
            .iter()
            .filter(|(m, _)| *m == member)
            .map(|(_, text)| text.as_str())
            .collect()
    };
    assert_eq!(of(Some(1)), "hello from 1\nand again\nmine: careful 1\n");
    // What a child process writes comes by another way, and maybe after the end of the dispatch.
    let mut seen = of(None);
    while seen.matches("from a child").count() < 2 {
        seen += &rig.until(|event| match event {
            WorkerEvent::Log {
                member: None, text, ..
            } => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        });
    }
}

#[test]
fn progress_is_told() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("progresses", 1);
    rig.pool.dispatch(Slot(0), dispatch);
    let value = rig.until(|event| {
        if let WorkerEvent::Progress { value, .. } = event {
            Some(value.clone())
        } else {
            None
        }
    });
    assert_eq!(&value[..], br#"{"done":0.5}"#);
}

#[test]
fn coroutines_run() {
    let mut rig = Rig::new(1);
    let dispatch = rig.members("is_async", 2);
    assert_eq!(rig.run(dispatch).result(1), r#""async""#);
}

#[test]
fn a_vectorised_call_has_an_outcome_for_each_member() {
    let mut rig = Rig::new(1);
    let mut dispatch = rig.members("together", 4);
    dispatch.vectorised = true;
    let report = rig.run(dispatch);
    assert_eq!(
        (report.result(0), report.result(3)),
        ("0".into(), "6".into())
    );

    let mut dispatch = rig.members("together_raises", 4);
    dispatch.vectorised = true;
    let report = rig.run(dispatch);
    assert_eq!(report.letters(), "FFFF");
}

#[test]
fn shutdown_tells_tasks_and_ends_workers() {
    let mut rig = Rig::new(2);
    let running = rig.members("waits_for_stop", 1);
    let token = running.token;
    rig.pool.dispatch(Slot(1), running);
    rig.pool.shutdown(Duration::from_secs(60));
    let mut died = 0;
    let mut finished = None;
    rig.until(|event| {
        match event {
            WorkerEvent::Finished {
                token: of, tail, ..
            } if *of == token => finished = Some(*tail),
            WorkerEvent::Died { token: None, .. } => died += 1,
            _ => {}
        }
        (died == 2).then_some(())
    });
    // Stopped before its first member or in the midst of it: either way it ended in order.
    assert!(finished.is_some_and(|tail| tail <= 1));
}

#[test]
fn an_old_worker_is_replaced_between_dispatches_and_nobody_notices() {
    let mut config = config(1);
    config.members_per_worker_max = 10;
    let mut rig = Rig::with(config);
    for _ in 0..5 {
        let (first, second) = (rig.members("echo", 10), rig.members("echo", 10));
        let tokens = [first.token, second.token];
        rig.pool.dispatch(Slot(0), first);
        rig.pool.dispatch(Slot(0), second);
        for token in tokens {
            let report = rig.report(token);
            assert_eq!((report.result(9), report.tail), ("9".into(), Some(0)));
        }
    }
}

#[test]
fn a_fat_worker_is_replaced() {
    let mut config = config(1);
    config.worker_rss_bytes_max = 1;
    let mut rig = Rig::with(config);
    let pid = |rig: &mut Rig| {
        let dispatch = rig.members("own_pid", 1);
        rig.run(dispatch).result(0)
    };
    assert_ne!(pid(&mut rig), pid(&mut rig));
}
