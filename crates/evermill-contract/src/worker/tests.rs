//! Golden frames, and that reading fails closed.
//!
//! `EVERMILL_BLESS=1` writes the files that Rust writes in life (frames of the engine, and what
//! they mean); the Python tests bless those that a worker writes. A blessed difference is a change
//! of the frozen format: it needs a new version.

use std::io::Cursor;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::frame::{self, Frame, FrameError, Kind};
use super::wire::{
    self, Hello, decode_log, decode_outcomes, encode_answer, encode_dispatch, small,
};
use super::*;
use crate::identity::{ActivationId, IdKind, LaneIdentity, effect_key};
use crate::source::{BatchBuilder, EventBatch, Headers};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden/frames")
        .join(name)
}

fn check(name: &str, actual: &[u8]) {
    let path = golden(name);
    if std::env::var_os("EVERMILL_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{name} differs: the format is frozen, see docs/spec/frames.md"
    );
}

fn read_golden(name: &str) -> Frame {
    let bytes = std::fs::read(golden(name)).unwrap();
    frame::read(&mut Cursor::new(bytes)).unwrap().unwrap()
}

fn whole(call: u32, dispatch: &Dispatch) -> Vec<u8> {
    let encoded = encode_dispatch(call, dispatch).unwrap();
    encoded
        .payload
        .iter()
        .fold(encoded.head, |mut bytes, part| {
            bytes.extend_from_slice(part);
            bytes
        })
}

fn range(buffer: u32, span: crate::source::Span) -> Range {
    Range {
        buffer,
        start: span.start,
        len: span.end - span.start,
    }
}

fn event_of(batch: &EventBatch, index: usize, buffer: u32, lane: u16) -> Event {
    let meta = &batch.events[index];
    Event {
        lane,
        position: meta.position,
        id: None,
        timestamp_ms: (meta.timestamp_ms != crate::source::NO_TIMESTAMP)
            .then_some(meta.timestamp_ms),
        key: meta.key.map(|key| range(buffer, key)),
        value: meta.value.map(|value| range(buffer, value)),
        headers: (!meta.headers.is_empty()).then(|| range(buffer, meta.headers)),
    }
}

fn member(event: Event) -> Member {
    Member {
        event,
        has_event: true,
        batch: None,
        joined: None,
        try_number: 1,
        map_index: -1,
        scope: 0,
        state: None,
    }
}

/// Everything a dispatch can hold: two lanes, absent and empty parts, a batch, a trigger by hand,
/// a retry, a mapped instance, shipped results.
fn rich() -> Dispatch {
    let mut log = BatchBuilder::default();
    log.push(
        41,
        1_700_000_000_123,
        Some(b"k"),
        [(&b"h"[..], Some(&b"1"[..])), (b"n", None)],
        Some(b"{\"a\":1}"),
    );
    log.push(43, -1, None, [], None);
    log.push(
        u64::MAX - 1,
        crate::source::NO_TIMESTAMP,
        Some(b""),
        [],
        Some(b""),
    );
    let log = log.finish();
    let queue = Bytes::from_static(b"message-7 ... body and results: [1,2]\"x\"");
    let queued = Event {
        lane: 1,
        position: 7,
        id: Some(Range {
            buffer: 1,
            start: 0,
            len: 9,
        }),
        timestamp_ms: None,
        key: None,
        value: Some(Range {
            buffer: 1,
            start: 14,
            len: 4,
        }),
        headers: None,
    };
    let mut mapped = member(queued);
    mapped.map_index = 2;
    mapped.try_number = 3;
    mapped.scope = 2;
    let mut batch = member(event_of(&log, 0, 0, 0));
    batch.batch = Some(0..2);
    let mut by_hand = member(Event {
        value: None,
        key: None,
        headers: None,
        ..event_of(&log, 1, 0, 0)
    });
    by_hand.has_event = false;
    let lane = |source: &str, kind| LaneRef {
        identity: Bytes::copy_from_slice(
            LaneIdentity::new("orders-1", source, "topic-id/0").as_bytes(),
        ),
        kind,
        generation: 0,
        source: source.into(),
        lane: format!("{source}/0"),
    };
    let mut lanes = vec![
        lane("kafka", IdKind::Position),
        lane("sqs", IdKind::Message),
    ];
    lanes[1].generation = 5;
    Dispatch {
        token: Token(99),
        task: TaskRef {
            entry: "/bundles/1/orders.py".into(),
            folder: Some("/bundles/1".into()),
            dag: "orders".into(),
            run: "orders-1".into(),
            task: "lo\u{e4}d".into(),
            sink: None,
            polls: None,
        },
        order: OrderMode::SkipSameKey,
        vectorised: false,
        slice: Duration::from_millis(50),
        timeout: Some(Duration::from_secs(30)),
        cwd: None,
        nice: 0,
        traced: false,
        lanes,
        upstream: vec!["extract".into(), "clean".into()],
        members: vec![
            member(event_of(&log, 0, 0, 0)),
            member(event_of(&log, 1, 0, 0)),
            member(event_of(&log, 2, 0, 0)),
            mapped,
            batch,
            by_hand,
        ],
        events: vec![event_of(&log, 0, 0, 0), event_of(&log, 2, 0, 0)],
        results: vec![
            UpstreamResult {
                member: 0,
                upstream: 0,
                value: Some(Range {
                    buffer: 1,
                    start: 32,
                    len: 5,
                }),
            },
            UpstreamResult {
                member: 3,
                upstream: 1,
                value: Some(Range {
                    buffer: 1,
                    start: 37,
                    len: 3,
                }),
            },
            UpstreamResult {
                member: 3,
                upstream: 0,
                value: None,
            },
        ],
        buffers: vec![log.buffer, queue],
    }
}

fn plain() -> Dispatch {
    let mut batch = BatchBuilder::default();
    for position in 0..3 {
        batch.push(
            position,
            1_700_000_000_000,
            None,
            [],
            Some(format!("value {position}").as_bytes()),
        );
    }
    let batch = batch.finish();
    Dispatch {
        token: Token(1),
        task: TaskRef {
            entry: "dag.py".into(),
            folder: None,
            dag: "d".into(),
            run: "d-1".into(),
            task: "t".into(),
            sink: None,
            polls: None,
        },
        order: OrderMode::Independent,
        vectorised: false,
        slice: Duration::from_millis(50),
        timeout: None,
        cwd: None,
        nice: 0,
        traced: false,
        lanes: rich().lanes[..1].to_vec(),
        upstream: Vec::new(),
        members: (0..3)
            .map(|index| member(event_of(&batch, index, 0, 0)))
            .collect(),
        events: Vec::new(),
        results: Vec::new(),
        buffers: vec![batch.buffer],
    }
}

/// Joins: two lanes of two sources, a task that sees both, one that sees only the one that came later,
/// one that sees none.
fn joined() -> Dispatch {
    let mut log = BatchBuilder::default();
    for (position, value) in [(8, "order"), (3, "price"), (9, "late")] {
        log.push(
            position,
            1_700_000_000_000,
            Some(b"k"),
            [],
            Some(value.as_bytes()),
        );
    }
    let log = log.finish();
    let (order, price) = (event_of(&log, 0, 0, 0), event_of(&log, 1, 0, 1));
    let mut both = member(price);
    both.joined = Some(0..2);
    let blank = Event {
        timestamp_ms: None,
        key: None,
        value: None,
        headers: None,
        ..order
    };
    let mut other = member(blank);
    other.has_event = false;
    other.joined = Some(1..2);
    let mut none = member(event_of(&log, 2, 0, 0));
    none.event = Event {
        position: 9,
        ..blank
    };
    none.has_event = false;
    let lane = |source: &str| LaneRef {
        identity: Bytes::copy_from_slice(
            LaneIdentity::new("orders-1", source, "topic-id/0").as_bytes(),
        ),
        kind: IdKind::Position,
        generation: 0,
        source: source.into(),
        lane: format!("{source}/0"),
    };
    Dispatch {
        lanes: vec![lane("orders"), lane("prices")],
        members: vec![both, other, none],
        events: vec![order, price],
        cwd: Some("/srv/prices".into()),
        nice: 7,
        traced: true,
        buffers: vec![log.buffer],
        ..plain()
    }
}

/// State: of one scope some, of another none yet, and a member that has to ask.
fn stateful() -> Dispatch {
    let mut log = BatchBuilder::default();
    for (position, key) in [(1, &b"a"[..]), (2, b"b"), (3, b"a")] {
        log.push(position, 1_700_000_000_000, Some(key), [], Some(b"1"));
    }
    let log = log.finish();
    let states = [r#"["n",3,"$set",{"$set":[1,2]}]"#, "[]"];
    let mut at = 0;
    let mut members: Vec<Member> = (0..3).map(|n| member(event_of(&log, n, 0, 0))).collect();
    for (member, state) in members.iter_mut().zip(states) {
        member.state = Some(Range {
            buffer: 1,
            start: at,
            len: state.len() as u32,
        });
        at += state.len() as u32;
    }
    for (member, scope) in members.iter_mut().zip([1, 2, 1]) {
        member.scope = scope;
    }
    Dispatch {
        order: OrderMode::SkipSameKey,
        members,
        buffers: vec![log.buffer, Bytes::from(states.concat())],
        ..plain()
    }
}

// What a frame means, in words that know nothing of its layout.

fn meaning(call: u32, dispatch: &Dispatch) -> Value {
    let bytes = |range: Option<Range>| -> Value {
        range.map_or(Value::Null, |Range { buffer, start, len }| {
            json!(
                dispatch.buffers[buffer as usize][start as usize..(start + len) as usize].to_vec()
            )
        })
    };
    let event = |event: &Event| -> Value {
        let headers = event
            .headers
            .map_or(Vec::new(), |Range { buffer, start, len }| {
                let packed =
                    &dispatch.buffers[buffer as usize][start as usize..(start + len) as usize];
                Headers::new(packed)
                    .map(|(n, v)| json!([String::from_utf8_lossy(n), v.unwrap_or(b"")]))
                    .collect()
            });
        let lane = &dispatch.lanes[usize::from(event.lane)];
        json!({
            "value": bytes(event.value), "key": bytes(event.key), "headers": headers,
            "timestamp_ms": event.timestamp_ms, "source": lane.source, "lane": lane.lane,
            "position": event.id.map_or(json!(event.position), |id| {
                let Range { buffer, start, len } = id;
                json!(String::from_utf8_lossy(&dispatch.buffers[buffer as usize][start as usize..(start + len) as usize]))
            }),
        })
    };
    let describe = |member: &Member| -> Value {
        let events: Option<Vec<_>> = member.batch.clone().map(|b| {
            dispatch.events[b.start as usize..b.end as usize]
                .iter()
                .map(event)
                .collect()
        });
        let activation = activation(dispatch, member);
        let keys =
            [0, 1].map(|call| effect_key(&activation, &dispatch.task.task, member.map_index, call));
        let joined = member.joined.clone().map(|rows| {
            let rows = &dispatch.events[rows.start as usize..rows.end as usize];
            rows.iter().map(event).collect::<Vec<_>>()
        });
        let mut meant = json!({
            "event": if let Some(seen) = &joined { seen[0].clone() } else if !member.has_event { Value::Null } else if let Some(events) = events { json!(events) } else { event(&member.event) },
            "try_number": member.try_number, "scope": member.scope, "map_index": member.map_index,
            "effect_keys": keys,
        });
        if let Some(seen) = joined {
            meant["joined"] = json!(seen);
        }
        if member.state.is_some() {
            meant["state"] = bytes(member.state);
        }
        meant
    };
    json!({
        "call": call, "entry": dispatch.task.entry, "folder": dispatch.task.folder, "dag": dispatch.task.dag,
        "run": dispatch.task.run, "task": dispatch.task.task, "vectorised": dispatch.vectorised,
        "slice_ns": dispatch.slice.as_nanos() as u64, "cwd": dispatch.cwd, "nice": dispatch.nice, "traced": dispatch.traced,
        "order": match dispatch.order {
            OrderMode::Independent => "independent",
            OrderMode::StopOnFailure => "stop_on_failure",
            OrderMode::SkipSameKey => "skip_same_key",
        },
        "members": dispatch.members.iter().map(describe).collect::<Vec<_>>(),
        "results": dispatch.results.iter().map(|r| json!([r.member, dispatch.upstream[r.upstream as usize], bytes(r.value)])).collect::<Vec<_>>(),
    })
}

fn activation(dispatch: &Dispatch, member: &Member) -> Vec<u8> {
    let id = |event: &Event| match dispatch.lanes[usize::from(event.lane)].kind {
        IdKind::Message => {
            let Range { buffer, start, len } = event.id.unwrap();
            ActivationId::Message(
                &dispatch.buffers[buffer as usize][start as usize..(start + len) as usize],
            )
        }
        _ => ActivationId::Position(event.position),
    };
    let lane = &dispatch.lanes[usize::from(member.event.lane)];
    let identity = LaneIdentity::new("orders-1", &lane.source, "topic-id/0");
    match &member.batch {
        None => identity.activation(&id(&member.event), lane.generation),
        Some(batch) => {
            let members: Vec<_> = dispatch.events[batch.start as usize..batch.end as usize]
                .iter()
                .map(id)
                .collect();
            identity.activation(&ActivationId::Members(&members), lane.generation)
        }
    }
}

#[test]
fn frames_of_the_engine_are_golden() {
    let dispatches = [
        ("dispatch-rich", 4, rich()),
        ("dispatch-plain", 2, plain()),
        ("dispatch-joined", 6, joined()),
        ("dispatch-stateful", 8, stateful()),
    ];
    let mut meanings = serde_json::Map::new();
    for (name, call, dispatch) in &dispatches {
        check(&format!("{name}.frame"), &whole(*call, dispatch));
        meanings.insert((*name).into(), meaning(*call, dispatch));
    }
    check(
        "dispatches.json",
        format!("{}\n", serde_json::to_string_pretty(&meanings).unwrap()).as_bytes(),
    );

    let hello = Hello {
        protocols: vec![1, 2],
        codecs: vec!["msgpack".into(), "json".into()],
        pid: 1,
        python: "3.9.0".into(),
        sdk: "evermill".into(),
    };
    check(
        "welcome.frame",
        &small(0, Kind::Welcome, &hello.welcome().unwrap()),
    );
    check("recall.frame", &small(4, Kind::Recall, &json!({})));
    check("stop.frame", &small(0, Kind::Stop, &json!({})));
    check("retire.frame", &small(0, Kind::Retire, &json!({})));
    check(
        "answer-value.frame",
        &encode_answer(3, &Answer::Value(Bytes::from_static(b"{\"a\":[1]}"))),
    );
    check("answer-missing.frame", &encode_answer(5, &Answer::Missing));
    check(
        "answer-refused.frame",
        &encode_answer(7, &Answer::Refused("not yours".into())),
    );
}

#[test]
fn frames_of_a_worker_are_golden() {
    let hello: Hello = wire::control(&read_golden("hello.frame")).unwrap();
    assert_eq!(
        (hello.protocols, hello.codecs, hello.python.as_str()),
        (vec![1], vec!["json".into()], "3.9.0")
    );

    let error = TaskError {
        kind: TaskErrorKind::Raised,
        class: "ValueError".into(),
        message: "no".into(),
        traceback: "Traceback: \u{e4}".into(),
        retryable: true,
        retry_after_ms: None,
    };
    let success = Success {
        result: Some(Bytes::from_static(b"[1,2]")),
        map_len: Some(2),
        xcoms: vec![Xcom {
            key: "other".into(),
            value: Bytes::from_static(b"{\"n\":1}"),
        }],
        branch: Some(vec!["left".into()]),
        proceed: Some(true),
        state_ops: vec![
            StateOp::Put {
                name: "a".into(),
                value: json!({"x": [1]}),
            },
            StateOp::Delete { name: "b".into() },
            StateOp::Incr {
                name: "c".into(),
                by: 2.into(),
            },
            StateOp::Max {
                name: "d".into(),
                value: serde_json::Number::from_f64(1.5).unwrap(),
            },
            StateOp::SetAdd {
                name: "e".into(),
                values: vec![json!("x"), json!(1)],
            },
        ],
        says: Vec::new(),
    };
    let run = |first, count, outcome| OutcomeRun {
        first,
        count,
        started_ns: 1000,
        ended_ns: 2000,
        outcome,
    };
    let expected = vec![
        run(0, 997, Outcome::Success(None)),
        run(997, 1, Outcome::Success(Some(Box::new(success)))),
        run(998, 1, Outcome::Skipped),
        run(999, 1, Outcome::Waiting(None)),
        run(1000, 2, Outcome::Held),
        run(1002, 3, Outcome::Failed(Box::new(error))),
        run(
            1005,
            1,
            Outcome::Success(Some(Box::new(Success {
                result: Some(Bytes::from_static(b"1")),
                ..Success::default()
            }))),
        ),
        run(1006, 1, Outcome::Waiting(Some(1_700_000_000_000))),
    ];
    let outcomes = read_golden("outcomes.frame");
    assert_eq!(outcomes.call, 4);
    assert_eq!(decode_outcomes(&outcomes).unwrap(), expected);

    let finished: wire::Finished = wire::control(&read_golden("finished.frame")).unwrap();
    assert_eq!(finished.tail, 7);
    let returned: wire::Returned = wire::control(&read_golden("returned.frame")).unwrap();
    assert_eq!(returned.from, 3);

    let ask: wire::Ask = wire::control(&read_golden("ask.frame")).unwrap();
    let question = Question::XcomPull {
        task_id: "extract".into(),
        key: "return_value".into(),
        map_index: None,
    };
    assert_eq!(
        ask,
        wire::Ask {
            dispatch: 4,
            member: 2,
            question
        }
    );

    let log = decode_log(&read_golden("log.frame")).unwrap();
    let expected = [
        (Some(0), LogOrigin::Stdout, "one\ntwo\n"),
        (Some(1), LogOrigin::Logging(30), "mine: careful \u{e4}\n"),
        (None, LogOrigin::Stderr, "three"),
    ];
    let expected = expected.map(|(member, origin, text)| (member, origin, Bytes::from(text)));
    assert_eq!(log, expected);

    let progress = read_golden("progress.frame");
    let content: wire::Progress = wire::control(&progress).unwrap();
    assert_eq!((content.member, &progress.raw[..]), (3, &b"0.5"[..]));
}

#[test]
fn an_end_or_a_flip_anywhere_fails_closed() {
    let bytes = whole(4, &rich());
    assert!(
        frame::read(&mut Cursor::new(&bytes[..0]))
            .unwrap()
            .is_none()
    );
    for end in 1..bytes.len() {
        let read = frame::read(&mut Cursor::new(&bytes[..end]));
        assert!(
            matches!(read, Err(FrameError::Truncated)),
            "cut at {end}: {read:?}"
        );
    }
    // All of the head and control is covered; a flipped length reads too little or too much.
    let control = frame::read(&mut Cursor::new(&bytes))
        .unwrap()
        .unwrap()
        .control
        .len();
    for bit in 0..(frame::HEAD_BYTES + control) * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut stream = Cursor::new(flipped);
        let failed = loop {
            match frame::read(&mut stream) {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(failed, "bit {bit} was not noticed");
    }
}

#[test]
fn a_length_is_refused_before_anything_is_reserved() {
    let mut bytes = small(0, Kind::Stop, &json!({}));
    bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        frame::read(&mut Cursor::new(bytes)),
        Err(FrameError::Length { .. })
    ));
}

#[test]
fn outcomes_that_do_not_add_up_are_refused() {
    let good = read_golden("outcomes.frame");
    let runs = 7;
    for bit in 0..runs * 40 * 8 {
        // Fields that carry structure: first and count, lengths of result and detail. A different
        // last count is for the slot to notice, which knows how many members there are.
        let (run, place) = (bit / 8 / 40, bit / 8 % 40);
        if (8..32).contains(&place) || (run == runs - 1 && (4..8).contains(&place)) {
            continue;
        }
        let mut raw = good.raw.to_vec();
        raw[bit / 8] ^= 1 << (bit % 8);
        let changed = Frame {
            raw: raw.into(),
            ..good.clone()
        };
        assert!(
            decode_outcomes(&changed).is_err(),
            "bit {bit} was not noticed"
        );
    }
    for end in 0..good.raw.len() {
        let cut = Frame {
            raw: good.raw.slice(..end),
            ..good.clone()
        };
        assert!(decode_outcomes(&cut).is_err(), "cut at {end}");
    }
}

#[test]
fn consecutive_events_travel_as_one_piece() {
    let encoded = encode_dispatch(2, &plain()).unwrap();
    assert_eq!(encoded.payload, [plain().buffers[0].clone()]);
    // One in the middle takes only its own part along.
    let mut one = plain();
    one.members.drain(..1);
    one.members.pop();
    assert_eq!(
        encode_dispatch(2, &one).unwrap().payload,
        [Bytes::from_static(b"value 1")]
    );
}

#[test]
fn a_place_outside_the_buffers_is_refused() {
    let spoil: [fn(&mut Dispatch); 6] = [
        |d| {
            d.members[0].event.value = Some(Range {
                buffer: 0,
                start: u32::MAX,
                len: 2,
            })
        },
        |d| {
            d.members[0].event.value = Some(Range {
                buffer: 9,
                start: 0,
                len: 0,
            })
        },
        |d| d.members[0].event.lane = 2,
        |d| d.members[4].batch = Some(1..3),
        |d| d.results[0].upstream = 2,
        |d| d.members.clear(),
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut dispatch = rich();
        spoil(&mut dispatch);
        let encoded = encode_dispatch(2, &dispatch);
        assert!(
            matches!(encoded, Err(FrameError::Content { .. })),
            "case {index}: {encoded:?}"
        );
    }
}

#[test]
fn a_worker_that_speaks_otherwise_is_told_the_cure() {
    let mut hello: Hello = wire::control(&read_golden("hello.frame")).unwrap();
    hello.protocols = vec![2];
    assert!(hello.welcome().unwrap_err().contains("install the SDK"));
}
