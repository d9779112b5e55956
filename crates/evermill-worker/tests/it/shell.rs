//! Shell commands as the engine sees them: outcomes, returned tails, and commands that are ended.

use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};
use evermill_contract::identity::{IdKind, LaneIdentity};
use evermill_contract::worker::{
    Death, Dispatch, Event, Executor as _, LaneRef, Member, OrderMode, Outcome, Range, Slot,
    TaskErrorKind, TaskRef, Token, WorkerEvent,
};
use evermill_worker::{DeclaredConfig, Pools};

use crate::rig::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);

const FLOW: &str = r#"
dag: flow
sources: { in: { kafka: { topic: t } } }
tasks:
  copy: { after: in, run: 'cat' }
  fails_on_b: { after: in, run: 'test "$(cat)" != b' }
  hangs: { after: in, run: 'echo x > started; exec sleep 600' }
  stubborn: { after: in, run: 'trap "" TERM; echo x > started; while :; do sleep 1; done', timeout: 1ms }
  loud: { after: in, run: 'head -c 5000000 /dev/zero' }
  floods: { after: in, run: 'yes | head -c 1000000 >&2' }
  names: { after: in, run: 'echo "$EVERMILL_KEY $EVERMILL_LANE $EVERMILL_POSITION $EVERMILL_TRY $EVERMILL_EFFECT_KEY"' }
  limited: { after: in, run: 'echo "$(ulimit -v) $(nice)"', memory_limit: 1GiB }
"#;

fn commands() -> DeclaredConfig {
    DeclaredConfig {
        shell_slots: 1,
        ..DeclaredConfig::default()
    }
}

struct Rig {
    pools: Pools,
    events: Receiver<WorkerEvent>,
    folder: tempfile::TempDir,
    tokens: u64,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("flow.yaml"), FLOW).unwrap();
        let (to, events) = bounded(1024);
        let deliver = move |event| drop(to.send(event));
        let rig = Self {
            pools: Pools::start(Vec::new(), commands(), Box::new(deliver)).unwrap(),
            events,
            folder,
            tokens: 0,
        };
        assert!(matches!(rig.next(), WorkerEvent::Ready { .. }));
        rig
    }

    fn next(&self) -> WorkerEvent {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// A dispatch with a member for each value, whose key it is, too.
    fn dispatch(&mut self, task: &str, values: &[&str]) -> Dispatch {
        self.tokens += 1;
        let mut buffer = Vec::new();
        let member = |(index, value): (usize, &&str)| {
            let place = Some(Range {
                buffer: 0,
                start: buffer.len() as u32,
                len: value.len() as u32,
            });
            buffer.extend_from_slice(value.as_bytes());
            let event = Event {
                lane: 0,
                position: index as u64,
                id: None,
                timestamp_ms: None,
                key: place,
                value: place,
                headers: None,
            };
            Member {
                event,
                has_event: true,
                batch: None,
                joined: None,
                try_number: 1,
                map_index: -1,
                scope: 1,
                state: None,
            }
        };
        let members = values.iter().enumerate().map(member).collect();
        let folder = self.folder.path().to_str().unwrap().to_owned();
        Dispatch {
            token: Token(self.tokens),
            task: TaskRef {
                entry: format!("{folder}/flow.yaml"),
                folder: Some(folder),
                dag: "flow".into(),
                run: "flow-1".into(),
                task: task.into(),
                sink: None,
                polls: None,
            },
            order: OrderMode::Independent,
            vectorised: false,
            slice: PATIENCE,
            timeout: None,
            cwd: None,
            nice: 0,
            traced: false,
            lanes: vec![LaneRef {
                identity: Bytes::copy_from_slice(LaneIdentity::new("flow-1", "in", "t").as_bytes()),
                kind: IdKind::Position,
                generation: 0,
                source: "in".into(),
                lane: "t/0".into(),
            }],
            upstream: Vec::new(),
            members,
            events: Vec::new(),
            results: Vec::new(),
            buffers: vec![buffer.into()],
        }
    }

    /// Runs a dispatch to its end: its outcomes, its tail, and bytes of its output.
    fn run(&mut self, dispatch: Dispatch) -> (Vec<Outcome>, u32, usize) {
        self.pools.dispatch(Slot(0), dispatch);
        let (mut outcomes, mut logged) = (Vec::new(), 0);
        loop {
            match self.next() {
                WorkerEvent::Outcomes { runs, .. } => {
                    outcomes.extend(runs.into_iter().map(|run| run.outcome));
                }
                WorkerEvent::Log { text, .. } => logged += text.len(),
                WorkerEvent::Finished { tail, .. } => return (outcomes, tail, logged),
                other => panic!("{other:?}"),
            }
        }
    }

    fn wait_until_started(&self) {
        let started = self.folder.path().join("started");
        wait_for("the command", || started.exists().then_some(()));
    }
}

fn results(outcomes: &[Outcome]) -> Vec<String> {
    let result = |outcome: &Outcome| match outcome {
        Outcome::Success(Some(success)) => {
            String::from_utf8(success.result.clone().unwrap().to_vec()).unwrap()
        }
        other => format!("{other:?}"),
    };
    outcomes.iter().map(result).collect()
}

#[test]
fn each_member_has_a_process_and_a_result_of_its_own() {
    let mut rig = Rig::new();
    let dispatch = rig.dispatch("copy", &["one", "", "[1, 2]", "tabs\tand \"quotes\""]);
    let (outcomes, tail, _) = rig.run(dispatch);
    assert_eq!(tail, 0);
    let expected = [
        "\"one\"",
        "Success(None)",
        "[1, 2]",
        r#""tabs\tand \"quotes\"""#,
    ];
    assert_eq!(results(&outcomes), expected);
    let lists = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Success(Some(success)) => success.map_len,
        _ => None,
    });
    assert_eq!(lists.collect::<Vec<_>>(), [2]);
}

#[test]
fn what_a_command_needs_to_know_is_in_its_environment() {
    let mut rig = Rig::new();
    let dispatch = rig.dispatch("names", &["k1", "k2"]);
    let (outcomes, ..) = rig.run(dispatch);
    let said = results(&outcomes);
    assert!(said[0].starts_with("\"k1 t/0 0 1 "), "{said:?}");
    let keys: Vec<_> = said
        .iter()
        .map(|said| said.rsplit(' ').next().unwrap())
        .collect();
    assert!(
        keys[0] != keys[1] && keys.iter().all(|key| key.len() == 33),
        "{keys:?}"
    );
    // Niceness is added to the engine's own.
    let mut niceness: [i32; 2] = [0_i32, 5].map(|nice| {
        let mut limited = rig.dispatch("limited", &["x"]);
        limited.nice = nice as u8;
        let said = results(&rig.run(limited).0).remove(0);
        let (limit, nice) = said.trim_matches('"').split_once(' ').unwrap();
        assert_eq!(limit, "1048576");
        nice.parse().unwrap()
    });
    niceness[0] = (niceness[0] + 5).min(19);
    assert_eq!(niceness[0], niceness[1]);
}

#[test]
fn after_a_failure_the_order_decides_about_those_behind_it() {
    let mut rig = Rig::new();
    let letters = |outcomes: &[Outcome]| -> String {
        let letter = |outcome: &Outcome| match outcome {
            Outcome::Success(_) => '.',
            Outcome::Failed(_) => 'F',
            Outcome::Held => 'H',
            _ => '?',
        };
        outcomes.iter().map(letter).collect()
    };
    for (order, expected, tail) in [
        (OrderMode::Independent, ".F.", 0),
        (OrderMode::StopOnFailure, ".F", 1),
        (OrderMode::SkipSameKey, ".FH", 0),
    ] {
        let mut dispatch = rig.dispatch("fails_on_b", &["a", "b", "c"]);
        dispatch.order = order;
        let (outcomes, rest, _) = rig.run(dispatch);
        assert_eq!(
            (letters(&outcomes).as_str(), rest),
            (expected, tail),
            "{order:?}"
        );
    }
}

#[test]
fn a_slice_that_is_over_returns_what_was_not_started() {
    let mut rig = Rig::new();
    let mut dispatch = rig.dispatch("copy", &["a", "b", "c"]);
    dispatch.slice = Duration::ZERO;
    let (outcomes, tail, _) = rig.run(dispatch);
    assert_eq!((outcomes.len(), tail), (1, 2));
}

#[test]
fn a_command_that_ignores_its_timeout_is_killed_and_the_next_one_runs() {
    let mut rig = Rig::new();
    let mut dispatch = rig.dispatch("stubborn", &["a"]);
    dispatch.timeout = Some(Duration::from_millis(50));
    let (outcomes, ..) = rig.run(dispatch);
    assert!(
        matches!(&outcomes[..], [Outcome::Failed(error)] if error.kind == TaskErrorKind::Timeout),
        "{outcomes:?}"
    );
    let next = rig.dispatch("copy", &["on"]);
    assert_eq!(results(&rig.run(next).0), ["\"on\""]);
}

#[test]
fn too_long_a_result_is_refused_and_a_flood_of_output_is_cut() {
    let mut rig = Rig::new();
    let loud = rig.dispatch("loud", &["a"]);
    let (outcomes, ..) = rig.run(loud);
    assert!(
        matches!(&outcomes[..], [Outcome::Failed(error)] if error.kind == TaskErrorKind::TooLarge && !error.retryable),
        "{outcomes:?}"
    );
    let floods = rig.dispatch("floods", &["a"]);
    let (outcomes, _, logged) = rig.run(floods);
    assert!(
        matches!(&outcomes[..], [Outcome::Success(None)]),
        "{outcomes:?}"
    );
    assert!((300_000..400_000).contains(&logged), "{logged}");
}

#[test]
fn a_dispatch_that_waits_is_returned_at_once_when_it_is_recalled() {
    let mut rig = Rig::new();
    let first = rig.dispatch("hangs", &["a"]);
    rig.pools.dispatch(Slot(0), first);
    rig.wait_until_started();
    let second = rig.dispatch("copy", &["b", "c"]);
    let token = second.token;
    rig.pools.dispatch(Slot(0), second);
    rig.pools.recall(token);
    let expected = WorkerEvent::Finished {
        slot: Slot(0),
        token,
        tail: 2,
    };
    assert_eq!(rig.next(), expected);
}

#[test]
fn members_behind_a_long_command_come_back_while_it_runs() {
    let mut rig = Rig::new();
    let long = rig.dispatch("hangs", &["a", "b", "c"]);
    let token = long.token;
    rig.pools.dispatch(Slot(0), long);
    rig.wait_until_started();
    rig.pools.recall(token);
    let expected = WorkerEvent::Returned {
        slot: Slot(0),
        token,
        from: 1,
    };
    assert_eq!(rig.next(), expected);
    rig.pools.kill(Slot(0), Duration::from_millis(200));
    assert!(matches!(
        rig.next(),
        WorkerEvent::Died {
            started: Some(0),
            ..
        }
    ));
}

#[test]
fn a_kill_names_the_member_that_ran_returns_what_waits_and_the_slot_goes_on() {
    let mut rig = Rig::new();
    let first = rig.dispatch("hangs", &["a", "b"]);
    let (token, waiting) = (first.token, rig.dispatch("copy", &["c"]));
    let waits = waiting.token;
    rig.pools.dispatch(Slot(0), first);
    rig.wait_until_started();
    rig.pools.dispatch(Slot(0), waiting);
    rig.pools.kill(Slot(0), Duration::from_millis(200));
    let mut seen = [rig.next(), rig.next(), rig.next()];
    seen.sort_by_key(|event| match event {
        WorkerEvent::Died { .. } => 0,
        WorkerEvent::Finished { .. } => 1,
        _ => 2,
    });
    let died = WorkerEvent::Died {
        slot: Slot(0),
        cause: Death::Killed,
        token: Some(token),
        started: Some(0),
        reported: 0,
    };
    assert_eq!(seen[0], died);
    assert!(
        matches!(&seen[1], WorkerEvent::Finished { token, tail: 1, .. } if *token == waits),
        "{seen:?}"
    );
    assert!(matches!(&seen[2], WorkerEvent::Ready { .. }), "{seen:?}");
    let next = rig.dispatch("copy", &["on"]);
    assert_eq!(results(&rig.run(next).0), ["\"on\""]);
}

#[test]
fn shutdown_ends_a_command_when_grace_is_over_and_says_that_the_slot_is_gone() {
    let mut rig = Rig::new();
    let first = rig.dispatch("hangs", &["a"]);
    let token = first.token;
    rig.pools.dispatch(Slot(0), first);
    rig.wait_until_started();
    rig.pools.shutdown(Duration::ZERO);
    for expected in [Some(token), None] {
        let event = rig.next();
        assert!(
            matches!(&event, WorkerEvent::Died { token, .. } if *token == expected),
            "{event:?}"
        );
    }
}
